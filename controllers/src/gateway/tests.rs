//! The core in scenarios: what happens, and what it then says is to be done. No network, no clock, no store.

mod kills;
mod launches;
mod offers;
mod quarantine;
mod reconcile;
mod residents;
mod roles;
mod strays;
mod updates;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use podium_mesos::secret::SecretValues;
use podium_mesos::task_group::label;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{self, Offer, OfferId, Task, TaskState, TaskStatus};
use podium_proto::records::order::Kind;
use podium_proto::records::unknown_instance::Why;
use podium_proto::records::{Accepted, Framework, Goal, Instance, Observed, Order, Tombstone, Unknown};
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_store::Key;
use podium_store::view::{Held, PodView, StoredDefinition};
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_types::definition::{Settings as Reading, read};
use podium_types::id::{PodId, Version};
use uuid::Uuid;

use super::Settings;
use super::core::Core;
use super::framework::{Identity, vouched};
use super::output::{Call, Output, Token};
use super::quarantine::Custody;
use super::secrets;
use super::state::GatewayState;
use super::survey::{Shown, Trouble};

const CONFIG: i64 = 1_000;
const NOW: i64 = 1_700_000_000_000;

fn pod() -> PodId {
    PodId::new("/a").unwrap()
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn task_id(n: u128, incarnation: u32) -> String {
    format!("a.instance-{}.c.{incarnation}", uuid(n))
}

/// One pod's records, the core, and what it said so far.
struct World {
    core: Core,
    view: PodView,
    revision: i64,
    now: i64,
    writes: Vec<(Token, Group)>,
    calls: Vec<Call>,
    surveys: Vec<u64>,
    /// Our record.
    framework: Held<Framework>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let identity = Identity { framework_id: "F".into(), cluster_id: "C".into(), lease: 7 };
        let mut view = PodView::new(pod());
        let json = br#"{"id":"/a","containers":[{"name":"c","exec":{"command":{"shell":"x"}},"resources":{"cpus":0.1,"mem":32},
            "environment":{"S":{"secret":"s"}}}],"secrets":{"s":{"source":"s"}}}"#;
        let definition = read(json, &Reading::default()).unwrap().definition;
        let stored = StoredDefinition::known(Bytes::from_static(json), Arc::new(definition));
        view.versions.insert(Version::from_millis(CONFIG), held(stored, 1));
        view.accepted = Some(held(Accepted { config_ms: CONFIG, version_ms: CONFIG, ..Accepted::default() }, 1));
        World {
            core: Core::new(settings, identity),
            view,
            revision: 10,
            now: NOW,
            writes: Vec::new(),
            calls: Vec::new(),
            surveys: Vec::new(),
            framework: held(Framework { framework_id: "F".into(), cluster_id: "C".into(), ..Framework::default() }, 2),
        }
    }

    fn subscribed() -> Self {
        let mut world = Self::new(Settings::default());
        world.subscribe(&[]);
        world.calls.clear();
        world
    }

    /// Subscribes; Mesos shows these tasks.
    fn subscribe(&mut self, tasks: &[Task]) {
        let roles = self.core.roles_to_subscribe();
        self.core.subscribed(None, &roles, &[], self.now);
        self.settle();
        self.survey(Ok(tasks.to_vec()));
    }

    /// Answers the last survey; all agents are there.
    fn survey(&mut self, tasks: Result<Vec<Task>, String>) {
        self.survey_with(tasks.map(|tasks| Shown { tasks, away: 0 }).map_err(Trouble::from));
    }

    fn survey_with(&mut self, shown: Result<Shown, Trouble>) {
        let round = self.surveys.pop().expect("a survey is under way");
        self.core.surveyed(round, shown, self.revision, self.now);
        self.settle();
    }

    fn instance(&mut self, n: u128, goal: Option<Goal>, incarnation: u32) {
        self.revision += 1;
        match goal {
            Some(goal) => {
                let instance = Instance { config_ms: CONFIG, goal: goal.into(), incarnation, ..Instance::default() };
                self.view.instances.insert(uuid(n), held(instance, self.revision));
            }
            None => drop(self.view.instances.remove(&uuid(n))),
        }
        self.core.pod_changed(&pod(), Some(&self.view), self.revision, self.now);
        self.settle();
    }

    fn settle(&mut self) {
        let values: SecretValues = [("s".to_owned(), podium_mesos::secret::SecretValue::new("v"))].into();
        let secrets = secrets::Known { values, read: ["s".to_owned()].into(), stuck: false };
        assert_eq!(self.core.place(&secrets, self.revision, self.now), std::collections::BTreeSet::new());
        self.core.tick(self.now);
        for output in self.core.take() {
            match output {
                Output::Call(call) => self.calls.push(call),
                Output::Write(token, group) => self.writes.push((token, group)),
                Output::Survey(round) => self.surveys.push(round),
                Output::Vouch(revision) => self.writes.push((Token::Framework, vouched(&self.framework, revision))),
            }
        }
    }

    fn offer(&mut self, n: u32) {
        self.core.offered(vec![offer_of(n, "S1")], self.now);
        self.settle();
    }

    /// Answers the oldest write.
    fn answer(&mut self, outcome: Outcome) {
        let (token, group) = self.writes.remove(0);
        if outcome.committed().is_some() {
            for op in group.ops {
                match (op, outcome.committed()) {
                    (Op::Put(Key::Observed(_, uuid), bytes), Some(revision)) => {
                        let record = <Observed as prost::Message>::decode(bytes).unwrap();
                        self.view.observed.insert(uuid, held(record, revision));
                    }
                    (Op::Put(Key::Framework, bytes), Some(revision)) => {
                        self.framework = held(<Framework as prost::Message>::decode(bytes).unwrap(), revision);
                    }
                    (Op::Delete(Key::Observed(_, uuid)), Some(_)) => drop(self.view.observed.remove(&uuid)),
                    _ => {}
                }
            }
        }
        self.core.written(token, outcome, self.now);
        self.settle();
    }

    fn commit(&mut self) {
        self.revision += 1;
        self.answer(Outcome::Committed { revision: self.revision });
    }

    fn update(&mut self, task: &str, state: TaskState, uuid: Option<u8>) {
        let reason = if uuid.is_none() { Some(Reason::Reconciliation.into()) } else { None };
        let status = TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state.into(),
            uuid: uuid.map(|uuid| Bytes::from(vec![uuid; 16])),
            agent_id: Some(v1::AgentId { value: "S1".into() }),
            reason,
            ..TaskStatus::default()
        };
        self.core.update(&status, self.now);
        self.settle();
    }

    fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    fn at(&mut self, now: i64) {
        self.now = now;
        self.settle();
    }

    /// An instance that runs, with everything acknowledged.
    fn running() -> Self {
        let mut world = Self::subscribed();
        world.instance(1, Some(Goal::Running), 1);
        world.offer(1);
        world.commit();
        world.update(&task_id(1, 1), TaskState::TaskRunning, Some(1));
        world.commit();
        world.calls.clear();
        world
    }

    /// A later survey of the same subscription.
    fn survey_again(&mut self, tasks: &[Task]) {
        self.core.survey.want(self.now);
        self.at(self.now + 1_000);
        self.survey(Ok(tasks.to_vec()));
    }

    fn strays(&self) -> Vec<String> {
        self.core.strays.to_ask().map(|(id, _)| id).collect()
    }

    fn quarantine(&self) -> Option<String> {
        self.core.custody.quarantine.as_ref().map(|quarantine| quarantine.reason.clone())
    }

    fn state(&self) -> GatewayState {
        let mut state = GatewayState::default();
        self.core.tell(&mut state);
        state
    }
}

/// An offer with room for five instances of the pod.
fn offer_of(n: u32, agent: &str) -> Offer {
    let ports = std::iter::once(31_000..=31_009).collect();
    let resources =
        vec![scalar_entry("cpus", 1_000), scalar_entry("mem", 1_000_000), scalar_entry("disk", 1_000_000), ranges_entry("ports", &ports)];
    Offer {
        id: OfferId { value: format!("O{n}") },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: v1::AgentId { value: agent.into() },
        hostname: format!("host of {agent}"),
        resources,
        ..Offer::default()
    }
}

fn held<T>(value: T, revision: i64) -> Held<T> {
    Held { value, mod_revision: revision, create_revision: revision }
}

fn kills(calls: &[Call]) -> Vec<&str> {
    calls.iter().filter_map(|call| if let Call::Kill { task_id, .. } = call { Some(task_id.as_str()) } else { None }).collect()
}

fn acknowledged(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Acknowledge(_))).count()
}

/// A task as the master shows it; its labels name this store (cluster, revision).
fn shown(task_id: &str, labels: Option<(&str, i64)>) -> Task {
    let label = |(key, value): (&str, String)| v1::Label { key: key.to_owned(), value: Some(value) };
    let labels = labels.map(|(cluster, revision)| v1::Labels {
        labels: [
            (label::POD, "/a".to_owned()),
            (label::CONFIG, Version::from_millis(CONFIG).to_string()),
            (label::INCARNATION, task_id.rsplit('.').next().unwrap().to_owned()),
            (label::CLUSTER, cluster.to_owned()),
            (label::REVISION, revision.to_string()),
        ]
        .map(label)
        .into(),
    });
    Task {
        task_id: v1::TaskId { value: task_id.to_owned() },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: v1::AgentId { value: "S1".into() },
        state: TaskState::TaskRunning.into(),
        labels,
        ..Task::default()
    }
}

/// Without those that only ask for offers, or for none.
fn beyond_demand(calls: Vec<Call>) -> Vec<Call> {
    calls.into_iter().filter(|call| !matches!(call, Call::Revive(_) | Call::Suppress(_))).collect()
}

fn order(kind: Kind, ids: &[String]) -> BTreeMap<Uuid, Order> {
    [(uuid(1_000), Order { kind: kind.into(), ids: ids.to_vec(), ..Order::default() })].into()
}

fn instance_id(n: u128) -> String {
    format!("a.instance-{}", uuid(n))
}
