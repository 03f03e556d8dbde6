//! The status of one pod as the API answers it (reference sections 3.1 to 3.6), with what Marathon leaves out:
//! instances that wait for their first launch, messages, custom executor resources, a history of several ends with
//! exit codes. Computed from the view alone, for `now`.

mod container;

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_proto::records::Observed;
use podium_store::view::PodView;
use podium_types::condition::Condition;
use podium_types::definition::PodDefinition;
use podium_types::id::{InstanceId, Version};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::words;
use crate::admission::is_active;
use crate::runtime::{Census, Member, definition_in_force};
pub use container::{ContainerStatus, EndpointStatus, StatusCondition, Terminated};

/// How a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PodState {
    /// Fewer stable instances than wanted.
    Degraded,
    /// As many as wanted.
    Stable,
    /// Being deleted.
    Terminal,
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum InstanceState {
    /// Waits for its launch.
    Pending,
    /// Being started.
    Staging,
    /// Runs, and every health check says so.
    Stable,
    /// Runs unhealthily, or is out of reach.
    Degraded,
    /// Ended, or is being ended.
    Terminal,
}

/// The answer to `::status`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus<I = InstanceStatus> {
    /// The pod.
    pub id: String,
    /// The definition in force, also where instances run older ones.
    #[serde(serialize_with = "inner")]
    #[schemars(schema_with = "answered_pod")]
    pub spec: Arc<PodDefinition>,
    /// How it is.
    pub status: PodState,
    /// Since when: the newest of its instances' changes.
    pub status_since: Version,
    /// The time of the answer; `None` where that is added to the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Version>,
    /// As `status_since`.
    pub last_changed: Version,
    /// Why it is not stable, why the last push was refused, and what holds the whole store up, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its instances, also those that were not launched yet.
    pub instances: Vec<I>,
    /// What ended lately, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub termination_history: Vec<TerminationStatus>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// `web.instance-<uuid>`.
    pub id: String,
    /// How it is.
    pub status: InstanceState,
    /// When its condition or its health last changed.
    pub status_since: Version,
    /// As `status_since`.
    pub last_updated: Version,
    /// As `status_since`.
    pub last_changed: Version,
    /// Why it is not stable, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it lacks to be stable, each with its reason in words. Marathon leaves them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCondition>,
    /// Where it runs; absent until its launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_hostname: Option<String>,
    /// Mesos' id of that agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// That agent's region, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_region: Option<String>,
    /// That agent's zone, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_zone: Option<String>,
    /// Of the executor and all containers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Amounts>,
    /// Its addresses, by network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkStatus>,
    /// Its containers; of its last incarnation while it waits for the next.
    pub containers: Vec<ContainerStatus>,
    /// Where the definition that it runs is answered.
    pub spec_reference: String,
    /// The role it was launched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Resources. Memory and disk in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amounts {
    /// CPU shares.
    pub cpus: f64,
    /// MiB.
    pub mem: f64,
    /// MiB.
    pub disk: f64,
    /// Whole devices.
    pub gpus: u32,
}

/// One network's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkStatus {
    /// Absent for the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Distinct.
    pub addresses: Vec<String>,
}

/// One end of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminationStatus {
    /// Whose; with Marathon's capital D.
    #[serde(rename = "instanceID")]
    pub instance_id: String,
    /// When it began to run, or was recorded.
    pub started_at: Version,
    /// When its last container ended.
    pub terminated_at: Version,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How its containers ended.
    pub containers: Vec<ContainerEnd>,
}

/// How one container ended.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerEnd {
    /// Its task id.
    pub container_id: String,
    /// Marathon's word: `TaskFailed`.
    pub last_known_state: String,
    /// Exit code and message, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination: Option<Terminated>,
}

impl JsonSchema for Amounts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amounts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "$ref": "#/components/schemas/AnsweredResources" })
    }
}

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The definition's own way of writing numbers.
        let Self { cpus, mem, disk, gpus } = *self;
        podium_types::definition::Resources { cpus, mem, disk, gpus }.serialize(serializer)
    }
}

/// Definitions have schemas of their own, made of their tables by the API; they are named here as it names them.
fn answered_pod(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "$ref": "#/components/schemas/AnsweredPod" })
}

fn inner<S: Serializer>(definition: &Arc<PodDefinition>, serializer: S) -> Result<S::Ok, S::Error> {
    definition.as_ref().serialize(serializer)
}

/// The status of a pod. `None`: nothing is in force, or its stored definition cannot be read.
pub fn pod_status(view: &PodView, now_ms: i64) -> Option<PodStatus> {
    let mut instances = Instances::of(view, now_ms);
    pod_status_with(view, now_ms, |member| instances.status(member))
}

/// The same, with what the caller makes of each instance: as a rule of [`Instances::status`].
pub fn pod_status_with<I>(view: &PodView, now_ms: i64, of: impl FnMut(&Member<'_>) -> I) -> Option<PodStatus<I>> {
    let accepted = &view.accepted.as_ref()?.value;
    let spec = definition_in_force(view)?;
    let census = Census::take(view);
    let status = pod_state(view, &census)?;
    let since = census.members.iter().map(since_ms).max().unwrap_or(accepted.version_ms);
    let since = Version::from_millis(since);
    let mut reasons = words::of_store(view);
    reasons.extend(words::of_push(view));
    if status != PodState::Stable {
        reasons.extend(words::of_pod(view, &census.members, now_ms));
    }
    Some(PodStatus {
        id: view.id.to_string(),
        spec,
        status,
        status_since: since,
        last_updated: Some(Version::from_millis(now_ms)),
        last_changed: since,
        message: (!reasons.is_empty()).then(|| reasons.join("; ")),
        instances: census.members.iter().map(of).collect(),
        termination_history: history(view),
    })
}

/// When the status of a pod may say something else though nothing was written: wall milliseconds after `now_ms`.
pub fn changes_at(view: &PodView, now_ms: i64) -> Option<i64> {
    words::next_launch(view, now_ms)
}

/// How a pod is (reference section 3.2): instances of old configs count too. `None`: nothing is in force.
pub fn pod_state(view: &PodView, census: &Census<'_>) -> Option<PodState> {
    view.accepted.as_ref()?;
    if !is_active(view) {
        return Some(PodState::Terminal);
    }
    let wanted = definition_in_force(view)?.scaling.instances as usize;
    let stable = census.members.iter().filter(|member| state_of(member) == InstanceState::Stable).count();
    Some(if stable >= wanted { PodState::Stable } else { PodState::Degraded })
}

/// How an instance is (reference section 3.3), first match wins.
pub fn state_of(member: &Member<'_>) -> InstanceState {
    let wanted = member.is_wanted();
    match member.condition {
        Condition::Scheduled | Condition::Provisioned if wanted => InstanceState::Pending,
        Condition::Scheduled | Condition::Provisioned | Condition::Killing => InstanceState::Terminal,
        Condition::Staging | Condition::Starting => InstanceState::Staging,
        Condition::Unreachable | Condition::UnreachableInactive => InstanceState::Degraded,
        // Not terminal here: Mesos may yet find it.
        Condition::Unknown if wanted => InstanceState::Degraded,
        Condition::Unknown => InstanceState::Terminal,
        Condition::Running if member.healthy => InstanceState::Stable,
        Condition::Running => InstanceState::Degraded,
        _ if wanted => InstanceState::Pending,
        _ => InstanceState::Terminal,
    }
}

/// The statuses of one pod's instances.
pub struct Instances<'a> {
    view: &'a PodView,
    now_ms: i64,
    /// The definitions of the configs that run; each is read once.
    definitions: BTreeMap<Version, Option<Arc<PodDefinition>>>,
}

impl<'a> Instances<'a> {
    /// Those of a pod, for a moment in wall milliseconds.
    pub fn of(view: &'a PodView, now_ms: i64) -> Self {
        Self { view, now_ms, definitions: BTreeMap::new() }
    }

    /// The status of one. That of a stable instance follows from its own records and its config alone: it holds at any time, for as
    /// long as these are the same.
    pub fn status(&mut self, member: &Member<'_>) -> InstanceStatus {
        let view = self.view;
        let read = || view.versions.get(&member.config).and_then(|stored| stored.value.definition());
        let definition = self.definitions.entry(member.config).or_insert_with(read).as_deref();
        let observed = member.observed.map(|observed| &observed.value);
        // What an older incarnation left says where it ran, not where it is.
        let present = observed.filter(|_| member.is_launched());
        let text = |pick: fn(&Observed) -> &String| present.map(pick).filter(|text| !text.is_empty()).cloned();
        let since = Version::from_millis(since_ms(member));
        let reasons = words::of_instance(view, member, self.now_ms);
        InstanceStatus {
            id: InstanceId { pod: view.id.clone(), uuid: member.uuid }.to_string(),
            status: state_of(member),
            status_since: since,
            last_updated: since,
            last_changed: since,
            message: words::together(&reasons),
            conditions: reasons.into_iter().map(|reason| StatusCondition::lacking(reason.lacks, reason.text, since)).collect(),
            agent_hostname: text(|observed| &observed.hostname),
            agent_id: text(|observed| &observed.agent_id),
            agent_region: text(|observed| &observed.region),
            agent_zone: text(|observed| &observed.zone),
            resources: definition.map(amounts),
            networks: present.map(networks).unwrap_or_default(),
            containers: observed.map(|observed| container::all(observed, definition)).unwrap_or_default(),
            spec_reference: format!("/v2/pods{}::versions/{}", view.id, member.config),
            role: text(|observed| &observed.role).or_else(|| definition.and_then(|definition| definition.role.clone())),
        }
    }
}

/// When an instance's condition or health last changed.
fn since_ms(member: &Member<'_>) -> i64 {
    let instance = &member.held.value;
    let own = instance.created_ms.max(instance.stopped_ms);
    let Some(observed) = member.observed.map(|observed| &observed.value) else { return own };
    let tasks = observed.tasks.iter().flat_map(|task| [task.since_ms, task.healthy_since_ms, task.unreachable_ms]);
    tasks.chain([own, observed.provisioned_ms]).max().unwrap_or(own)
}

fn amounts(definition: &PodDefinition) -> Amounts {
    let executor = &definition.executor_resources;
    let mut sum = Amounts { cpus: executor.cpus, mem: executor.mem, disk: executor.disk, gpus: 0 };
    for container in &definition.containers {
        sum.cpus += container.resources.cpus;
        sum.mem += container.resources.mem;
        sum.disk += container.resources.disk;
        sum.gpus = sum.gpus.saturating_add(container.resources.gpus);
    }
    // As Mesos counts, to thousandths: 0.1 + 0.2 is 0.3. What is beyond counting stays a number.
    let exact = |amount: f64| {
        let thousandths = (amount * 1000.0).round();
        if thousandths.is_finite() { thousandths / 1000.0 } else { f64::MAX }
    };
    Amounts { cpus: exact(sum.cpus), mem: exact(sum.mem), disk: exact(sum.disk), gpus: sum.gpus }
}

fn networks(observed: &Observed) -> Vec<NetworkStatus> {
    let mut networks: Vec<NetworkStatus> = Vec::new();
    for network in observed.tasks.iter().flat_map(|task| &task.networks) {
        let name = Some(network.name.clone()).filter(|name| !name.is_empty());
        let at = match networks.iter().position(|known| known.name == name) {
            Some(at) => at,
            None => {
                networks.push(NetworkStatus { name, addresses: Vec::new() });
                networks.len() - 1
            }
        };
        if let Some(known) = networks.get_mut(at) {
            let new = network.addresses.iter().filter(|address| !address.is_empty());
            for address in new {
                if !known.addresses.contains(address) {
                    known.addresses.push(address.clone());
                }
            }
        }
    }
    networks
}

fn history(view: &PodView) -> Vec<TerminationStatus> {
    let ends = view.delay.iter().flat_map(|delay| &delay.value.history);
    let status = |end: &podium_proto::records::Termination| TerminationStatus {
        instance_id: end.instance_id.clone(),
        started_at: Version::from_millis(end.started_ms),
        terminated_at: Version::from_millis(end.terminated_ms),
        message: Some(words::of_termination(end)),
        containers: end
            .containers
            .iter()
            .map(|container| ContainerEnd {
                container_id: container.container_id.clone(),
                last_known_state: container.last_known_state.clone(),
                termination: Terminated::of(container.exit_code, &container.message),
            })
            .collect(),
    };
    ends.map(status).collect()
}
