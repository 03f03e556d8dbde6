//! From offers and waiting instances to launches: one pass over all offers at hand places a whole batch.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use podium_mesos::matching::{self, AgentFacts, Claim, Group as Candidates, Placed, Reason, Rules, Slot};
use podium_mesos::task_group::{self, Launch, Placement};
use podium_proto::mesos::v1::TaskState;
use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::records::{Observed, observed};
use podium_store::Key;
use podium_store::writer::{Compare, Group, Op};
use podium_types::condition::{self, Condition};
use podium_types::definition::PodDefinition;
use podium_types::id::{InstanceId, PodId, Version};
use uuid::Uuid;

use super::core::{Core, PendingSlot};
use super::entry::{Entry, Writing};
use super::output::{Call, Output, Token};
use super::pod::Pod;
use super::residents::{self, Bound, part};
use super::secrets;
use super::writes::as_known;

/// Pods whose refusals are counted in one pass: those that have not been told for longest.
const MOST_EXPLAINED: usize = 64;

/// Instances of one config of one pod, ready to be matched.
struct Batch {
    pod: PodId,
    definition: Arc<PodDefinition>,
    role: String,
    waiting: Vec<matching::Waiting>,
    /// Those that wait for what is reserved for them.
    bound: Vec<Bound>,
    counted: Vec<AgentFacts>,
    since_ms: i64,
}

impl Batch {
    fn candidates(&self) -> Candidates<'_> {
        Candidates { definition: &self.definition, role: &self.role, waiting: &self.waiting, counted: &self.counted }
    }
}

impl Core {
    /// Uses or declines every offer at hand, unless sources of secrets are to be read first: these, and then nothing was done.
    /// `revision` is the store's: launches carry it in a label.
    pub fn place(&mut self, secrets: &secrets::Known, revision: i64, now: i64) -> BTreeSet<String> {
        // Before Mesos has told what runs, a launch could be one too many: offers wait for that.
        if self.offers.is_empty() || !(self.survey.tried || self.cut_off) {
            return BTreeSet::new();
        }
        let offers = std::mem::take(&mut self.offers);
        let mut slots = matching::slots(offers.values());
        if self.cut_off {
            self.decline(&slots, &BTreeSet::new());
            return BTreeSet::new();
        }
        let mut batches = self.batches(&slots);
        batches.retain(|batch| !secrets.stuck || secrets.lacks(&batch.definition).next().is_none());
        batches.sort_by(|a, b| (a.since_ms, &a.pod).cmp(&(b.since_ms, &b.pod)));
        let rules = Rules {
            accepted_roles: self.settings.accepted_roles,
            home_region: self.home_region.clone(),
            maintenance_before_ms: now,
            share_gpu_agents: self.settings.share_gpu_agents,
            max_per_offer: self.settings.max_per_offer,
        };
        let reclaimed = reclaim(&mut slots, &mut batches, &rules);
        let candidates: Vec<Candidates<'_>> = batches.iter().map(Batch::candidates).collect();
        let placed = matching::place(&mut slots, &candidates, &rules);
        let needed =
            reclaimed.iter().chain(&placed).filter_map(|one| batches.get(one.group)).flat_map(|batch| secrets.lacks(&batch.definition));
        let needed: BTreeSet<String> = needed.cloned().collect();
        if !needed.is_empty() {
            self.offers = offers;
            return needed;
        }
        let mut used: BTreeMap<usize, u64> = BTreeMap::new();
        let mut users: HashSet<(usize, usize)> = HashSet::new();
        for one in reclaimed.into_iter().chain(placed) {
            let (Some(slot), Some(batch)) = (slots.get(one.slot), batches.get(one.group)) else { continue };
            let slot_id = *used.entry(one.slot).or_insert_with(|| self.open_slot(slot));
            users.insert((one.group, one.slot));
            self.launch(slot_id, slot, batch, one, secrets, revision, now);
        }
        let mut used: BTreeMap<usize, Option<u64>> = used.into_iter().map(|(index, id)| (index, Some(id))).collect();
        for (index, operations) in self.give_back(&slots, revision, now) {
            let pending = used.entry(index).or_default().and_then(|id| self.slots.get_mut(&id));
            match (pending, slots.get(index)) {
                (Some(pending), _) => pending.operations.extend(operations),
                (None, Some(slot)) => self.call(Call::Accept { offer_ids: slot.offer_ids.clone(), operations, refuse_seconds: 0.0 }),
                (None, None) => {}
            }
        }
        let used: BTreeSet<usize> = used.into_keys().collect();
        self.explain(&slots, &batches, &users, &rules, now);
        self.decline(&slots, &used);
        BTreeSet::new()
    }

    fn batches(&self, slots: &[Slot]) -> Vec<Batch> {
        let shown = self.shown_holdings(slots);
        let pods = self.ready.iter().filter_map(|id| Some((id, self.pods.get(id)?)));
        let configs = pods.flat_map(|(id, pod)| pod.ready.iter().map(move |((config, role), ready)| (id, pod, config, role, ready)));
        // As many fewer as run unknown: nothing is to run twice.
        let mut beside: Option<(&PodId, usize)> = None;
        configs
            .filter_map(|(id, pod, config, role, ready)| {
                let (_, beside) = match &mut beside {
                    Some(known) if known.0 == id => known,
                    other => other.insert((id, self.unknown_beside(id, pod))),
                };
                let held_back = ready.len().min(*beside);
                *beside -= held_back;
                let definition = pod.definitions.get(config)?.clone();
                let waiting = ready.iter().skip(held_back).filter_map(|uuid| pod.next_launch(*uuid)).collect();
                let (bound, waiting) = if definition.is_resident() { part(id, pod, waiting, &shown) } else { (Vec::new(), waiting) };
                let constrained = !definition.scheduling.placement.constraints.is_empty();
                Some(Batch {
                    pod: id.clone(),
                    role: role.clone(),
                    waiting,
                    bound,
                    counted: if constrained { counted(pod) } else { Vec::new() },
                    since_ms: pod.waiting.since_ms(),
                    definition,
                })
            })
            .filter(|batch| !(batch.waiting.is_empty() && batch.bound.is_empty()))
            .collect()
    }

    /// Instances of a pod that run and that are none of those that are wanted.
    fn unknown_beside(&self, id: &PodId, pod: &Pod) -> usize {
        let wanted = |uuid: &Uuid| pod.entries.get(uuid).is_some_and(Entry::is_wanted);
        let strays = self.strays.instances(id).iter().filter(|uuid| !wanted(uuid)).count();
        strays + pod.entries.values().filter(|entry| entry.is_taken_on()).count()
    }

    fn open_slot(&mut self, slot: &Slot) -> u64 {
        let id = self.next_slot;
        self.next_slot = self.next_slot.wrapping_add(1);
        let pending = PendingSlot {
            offer_ids: slot.offer_ids.clone(),
            undecided: 0,
            operations: Vec::new(),
            members: Vec::new(),
            role: slot.role.clone(),
        };
        self.slots.insert(id, pending);
        id
    }

    /// Records the intent to launch. What can't be built is recorded as refused, in words.
    #[allow(clippy::too_many_arguments, reason = "all of one launch")]
    fn launch(&mut self, slot_id: u64, slot: &Slot, batch: &Batch, mut placed: Placed, secrets: &secrets::Known, revision: i64, now: i64) {
        let uuid = placed.instance;
        let Some(held) = self.entry_mut(&batch.pod, uuid).and_then(|entry| entry.instance.clone()) else { return };
        let instance = InstanceId { pod: batch.pod.clone(), uuid };
        let incarnation = held.value.incarnation;
        let mut operations = Vec::new();
        if batch.definition.is_resident() && !placed.is_reserved {
            operations = self.reserve(&batch.definition, &instance, incarnation, slot, &mut placed, revision);
        }
        let reservation = residents::record(&placed, slot);
        let resources = placed.executor_resources.into_iter().chain(placed.volumes);
        let placement = Placement {
            agent_id: slot.agent_id.clone(),
            hostname: slot.facts.hostname.clone(),
            host_ports: placed.host_ports,
            executor_resources: resources.collect(),
            task_resources: placed.task_resources,
        };
        let built = task_group::build(&Launch {
            definition: &batch.definition,
            instance: &instance,
            incarnation,
            placement: &placement,
            identity: task_group::Identity {
                framework_id: &self.identity.framework_id,
                cluster_id: &self.identity.cluster_id,
                revision,
                config: Version::from_millis(held.value.config_ms),
            },
            settings: &self.settings.task_group,
            secrets: &secrets.values,
        });
        let mut record = record(&instance, incarnation, held.value.config_ms, &batch.definition, &placement, slot, now);
        match built {
            Ok((executor, task_group)) => {
                operations.push(Operation {
                    r#type: Some(operation::Type::LaunchGroup.into()),
                    launch_group: Some(operation::LaunchGroup { executor, task_group }),
                    ..Operation::default()
                });
                record.reservation = reservation;
            }
            Err(error) => {
                tracing::warn!(%instance, %error, "an instance can't be launched as it is defined");
                refuse(&mut record, &error.to_string(), now);
                // Nothing is sent, and what was reserved before remains.
                operations.clear();
                record.reservation = reservation.filter(|reservation| reservation.made);
            }
        }
        let key = Key::Observed(batch.pod.clone(), uuid);
        let Some(entry) = self.pods.get_mut(&batch.pod).and_then(|pod| pod.entries.get_mut(&uuid)) else { return };
        let group = Group::new(batch.pod.clone())
            .when(Compare::Unchanged(Key::Instance(batch.pod.clone(), uuid), held.mod_revision))
            .when(as_known(key.clone(), entry.revision))
            .then(Op::record(key, record.clone()));
        entry.observed = Some(record);
        entry.held_by = Some(slot_id);
        entry.writing = Some(Writing::Launch { slot: slot_id, operations });
        if let Some(slot) = self.slots.get_mut(&slot_id) {
            slot.undecided += 1;
            slot.members.push((batch.pod.clone(), uuid));
        }
        if let Some(pod) = self.pods.get_mut(&batch.pod) {
            pod.waiting.used(now);
        }
        self.out.push(Output::Write(Token::Observed(batch.pod.clone(), uuid), group));
        self.look(&batch.pod, uuid, now);
    }

    /// For pods that still wait: why these agents are of no use.
    fn explain(&mut self, slots: &[Slot], batches: &[Batch], users: &HashSet<(usize, usize)>, rules: &Rules, now: i64) {
        let waits = |pod: &&Pod| !pod.ready.is_empty() && pod.waiting.is_remarkable(now.saturating_add(2_000));
        let offered: HashSet<&str> = slots.iter().map(|slot| slot.role.as_str()).collect();
        let waiting = batches.iter().enumerate().filter_map(|(group, batch)| {
            let pod = self.pods.get(&batch.pod).filter(waits)?;
            // Offers to other roles alone say less than what is known already.
            (offered.contains(batch.role.as_str()) || pod.waiting.explained_ms() == 0).then_some((group, pod))
        });
        let mut turns: Vec<(i64, usize)> = waiting.map(|(group, pod)| (pod.waiting.explained_ms(), group)).collect();
        turns.sort_unstable();
        for (_, group) in turns.into_iter().take(MOST_EXPLAINED) {
            let Some((batch, pod)) = batches.get(group).and_then(|batch| Some((batch, self.pods.get_mut(&batch.pod)?))) else { continue };
            let reasons =
                if batch.waiting.is_empty() { explain_bound(slots, batch) } else { matching::explain(slots, &batch.candidates(), rules) };
            let reasons = reasons.into_iter().enumerate();
            // What it has used was of use, though no more fits.
            let reasons = reasons.map(|(slot, reason)| reason.filter(|_| !users.contains(&(group, slot))));
            pod.waiting.saw(slots.iter().zip(reasons), now);
        }
    }

    /// Declines the slots that were not used: briefly where something waits that may fit another time.
    fn decline(&mut self, slots: &[Slot], used: &BTreeSet<usize>) {
        let (mut briefly, mut long) = (Vec::new(), Vec::new());
        for (_, slot) in slots.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
            let waits = self.cut_off || self.role_waits(&slot.role);
            if waits { &mut briefly } else { &mut long }.extend(slot.offer_ids.iter().cloned());
        }
        for (offer_ids, refuse_seconds) in [(briefly, self.settings.decline_waiting_seconds), (long, self.settings.decline_seconds)] {
            if !offer_ids.is_empty() {
                self.call(Call::Decline { offer_ids, refuse_seconds });
            }
        }
    }
}

/// Places those that have resources of their own, where these are offered. Of the others, some wait like those that have none.
fn reclaim(slots: &mut [Slot], batches: &mut [Batch], rules: &Rules) -> Vec<Placed> {
    let bound: Vec<(usize, &Bound)> =
        batches.iter().enumerate().flat_map(|(at, batch)| batch.bound.iter().map(move |one| (at, one))).collect();
    let claims = bound.iter().filter_map(|(at, one)| batches.get(*at).map(|batch| one.claim(&batch.definition, &batch.role)));
    let claims: Vec<Claim<'_>> = claims.collect();
    let mut placed = matching::reclaim(slots, &claims, rules);
    for one in &mut placed {
        one.group = bound.get(one.group).map_or(usize::MAX, |(at, _)| *at);
    }
    let done: HashSet<Uuid> = placed.iter().map(|one| one.instance).collect();
    for batch in batches {
        let moving = batch.bound.iter().filter(|one| one.may_move && !done.contains(&one.next.instance)).map(|one| one.next);
        batch.waiting.extend(moving);
    }
    placed
}

/// Why no offer is of use to instances that wait for what is reserved for them.
fn explain_bound(slots: &[Slot], batch: &Batch) -> Vec<Option<Reason>> {
    let reason = |slot: &Slot| if slot.role == batch.role { Reason::NoCorrespondingReservationFound } else { Reason::UnfulfilledRole };
    slots.iter().map(|slot| Some(reason(slot))).collect()
}

/// Where the pod's instances are that constraints count: launched, not ended, not lost, and of the present config.
fn counted(pod: &Pod) -> Vec<AgentFacts> {
    let observed = pod.entries.values().filter_map(|entry| entry.observed.as_ref());
    observed
        .filter(|observed| observed.config_ms == pod.config_ms)
        .filter(|observed| {
            let condition = condition::of_observed(observed, None);
            !condition.is_terminal() && !matches!(condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown)
        })
        .map(|observed| AgentFacts {
            hostname: observed.hostname.clone(),
            region: (!observed.region.is_empty()).then(|| observed.region.clone()),
            zone: (!observed.zone.is_empty()).then(|| observed.zone.clone()),
            attributes: observed.attributes.clone(),
        })
        .collect()
}

fn record(
    instance: &InstanceId,
    incarnation: u32,
    config_ms: i64,
    definition: &PodDefinition,
    placement: &Placement,
    slot: &Slot,
    now: i64,
) -> Observed {
    let tasks = definition.containers.iter().zip(&placement.host_ports).map(|(container, ports)| observed::Task {
        container: container.name.clone(),
        task_id: instance.task_id(&container.name, incarnation).to_string(),
        host_ports: ports.iter().map(|port| u32::from(port.unwrap_or(0))).collect(),
        ..observed::Task::default()
    });
    Observed {
        incarnation,
        config_ms,
        agent_id: placement.agent_id.clone(),
        hostname: placement.hostname.clone(),
        region: slot.facts.region.clone().unwrap_or_default(),
        zone: slot.facts.zone.clone().unwrap_or_default(),
        agent_url: slot.agent_url.clone().unwrap_or_default(),
        executor_id: instance.executor_id(incarnation),
        tasks: tasks.collect(),
        provisioned_ms: now,
        role: slot.role.clone(),
        attributes: slot.facts.attributes.clone(),
        ..Observed::default()
    }
}

/// The launch is refused before any task runs.
fn refuse(record: &mut Observed, message: &str, now: i64) {
    record.message = message.to_owned();
    for task in &mut record.tasks {
        task.state = Some(TaskState::TaskError.into());
        task.message = message.to_owned();
        task.since_ms = now;
    }
}
