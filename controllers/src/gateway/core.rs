//! The gateway's decisions: from what happened to calls to Mesos and writes to the store. No I/O, clock or randomness.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use podium_proto::mesos::v1::offer::Operation;
use podium_proto::mesos::v1::{Offer, OfferId, TaskStatus};
use podium_proto::records::{Observed, observed};
use podium_store::Key;
use podium_store::view::{Held, PodView};
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_types::condition;
use podium_types::definition::PodDefinition;
use podium_types::id::{PodId, TaskId, Version};
use uuid::Uuid;

use super::Settings;
use super::demand::Demand;
use super::entry::{Ack, Entry, Writing};
use super::framework::Identity;
use super::queue::{QueueWrite, Waiting};
use super::reconcile::{Reconciliation, agent_id};
use super::state::GatewayState;
use super::status::{self, Applied};
use super::strays::Strays;

/// First pause between two kills of an instance; it doubles up to [`LONGEST_KILL_PAUSE_MS`].
const KILL_PAUSE_MS: i64 = 10_000;
const LONGEST_KILL_PAUSE_MS: i64 = 60_000;

/// An executor that outlives the longest grace of its containers by so much is ended as a whole.
const SHUTDOWN_AFTER_MS: i64 = 60_000;

/// Blocked kills are looked at again after so long.
const BLOCKED_MS: i64 = 1_000;

/// A record that the store refuses is not tried again before.
const REFUSED_MS: i64 = 30_000;

/// A call to the master.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    Accept {
        offer_ids: Vec<OfferId>,
        operations: Vec<Operation>,
        refuse_seconds: f64,
    },
    Decline {
        offer_ids: Vec<OfferId>,
        refuse_seconds: f64,
    },
    Revive(Vec<String>),
    Suppress(Vec<String>),
    Kill {
        task_id: String,
        agent_id: Option<String>,
    },
    Shutdown {
        executor_id: String,
        agent_id: String,
    },
    Acknowledge(Ack),
    /// Of no task: of all.
    Reconcile(Vec<(String, Option<String>)>),
}

/// Whose outcome a write's answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Observed(PodId, Uuid),
    Queue(PodId),
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output {
    Call(Call),
    Write(Token, Group),
}

/// One pod as the gateway holds it.
#[derive(Debug, Default)]
pub(super) struct Pod {
    pub entries: BTreeMap<Uuid, Entry>,
    /// The version that last changed what runs: older instances are not counted by constraints.
    pub config_ms: i64,
    pub definitions: BTreeMap<i64, Arc<PodDefinition>>,
    /// Instances that wait for an offer, by config.
    pub ready: BTreeMap<i64, Ready>,
    pub waiting: Waiting,
    /// Records that were deleted, and at which revision: an older index still shows them.
    deleted: HashMap<Uuid, i64>,
    /// Some record can't be read by this build: nothing is decided.
    frozen: bool,
}

/// Instances of one config that wait for an offer.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub role: String,
    pub uuids: BTreeSet<Uuid>,
}

/// Offers that are spent and not yet accepted: their launches are being recorded.
#[derive(Debug)]
pub(super) struct PendingSlot {
    pub offer_ids: Vec<OfferId>,
    /// Launches whose record is not answered for.
    pub undecided: usize,
    pub operations: Vec<Operation>,
    pub members: Vec<(PodId, Uuid)>,
    pub role: String,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Core {
    pub settings: Settings,
    pub identity: Identity,
    pub pods: HashMap<PodId, Pod>,
    /// Pods with instances that wait for an offer.
    pub ready: BTreeSet<PodId>,
    /// How many pods' configs wait, by role.
    ready_roles: BTreeMap<String, usize>,
    pub offers: BTreeMap<String, Offer>,
    pub slots: HashMap<u64, PendingSlot>,
    pub next_slot: u64,
    pub home_region: Option<String>,
    /// The store does not answer: nothing is launched or killed.
    pub cut_off: bool,
    pub subscribed: bool,
    wakes: BTreeSet<(i64, PodId, Uuid)>,
    queue_wakes: BTreeSet<(i64, PodId)>,
    reloads: BTreeSet<(i64, PodId, Uuid)>,
    strays: Strays,
    demand: Demand,
    reconciliation: Reconciliation,
    roles: BTreeSet<String>,
    pub out: Vec<Output>,
}

impl Core {
    pub fn new(settings: Settings, identity: Identity) -> Self {
        let roles = [settings.default_role.clone()].into();
        Core {
            settings,
            identity,
            pods: HashMap::new(),
            ready: BTreeSet::new(),
            ready_roles: BTreeMap::new(),
            offers: BTreeMap::new(),
            slots: HashMap::new(),
            next_slot: 0,
            home_region: None,
            cut_off: false,
            subscribed: false,
            wakes: BTreeSet::new(),
            queue_wakes: BTreeSet::new(),
            reloads: BTreeSet::new(),
            strays: Strays::default(),
            demand: Demand::default(),
            reconciliation: Reconciliation::default(),
            roles,
            out: Vec::new(),
        }
    }

    /// Roles to subscribe for; they only grow.
    pub fn roles(&self) -> &BTreeSet<String> {
        &self.roles
    }

    /// What is to be done, in order.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    pub fn call(&mut self, call: Call) {
        self.out.push(Output::Call(call));
    }

    /// What the rest of the process may know.
    pub fn tell(&self, state: &mut GatewayState) {
        state.subscribed = self.subscribed;
        state.waiting = self.ready.iter().filter_map(|id| self.pods.get(id)).map(Pod::ready_count).sum();
        state.quarantine = self.strays.quarantine();
        if !state.unknown.iter().eq(self.strays.unknown()) {
            state.unknown = self.strays.unknown().cloned().collect();
        }
    }

    /// A pod's instances, tombstones or definitions changed; `view` is of `revision`.
    pub fn pod_changed(&mut self, id: &PodId, view: Option<&PodView>, revision: i64, now: i64) {
        let empty;
        let view = match view {
            Some(view) => view,
            None => {
                empty = PodView::new(id.clone());
                &empty
            }
        };
        let pod = self.pods.entry(id.clone()).or_default();
        pod.frozen = view.unreadable.keys().any(|key| matches!(key, Key::Instance(..) | Key::Observed(..) | Key::Tombstone(..)));
        if pod.frozen {
            tracing::warn!(pod = %id, "a record can't be read by this build: the pod is left alone");
            let uuids: Vec<Uuid> = pod.entries.keys().copied().collect();
            for uuid in uuids {
                self.set_ready(id, uuid, None, now);
            }
            return;
        }
        let uuids = pod.join(view, revision);
        for definition in pod.definitions.values() {
            let role = definition.role.as_ref().unwrap_or(&self.settings.default_role);
            if !self.roles.contains(role) {
                self.roles.insert(role.clone());
            }
        }
        for uuid in uuids {
            self.look(id, uuid, now);
        }
        self.drop_idle(id);
    }

    fn drop_idle(&mut self, id: &PodId) {
        let idle = self.pods.get(id).is_some_and(|pod| pod.entries.is_empty() && pod.waiting.is_idle() && pod.deleted.is_empty());
        if idle {
            self.pods.remove(id);
        }
    }

    /// Subscribed: asks about everything that has not ended.
    pub fn subscribed(&mut self, home_region: Option<String>, now: i64) {
        self.disconnected();
        self.subscribed = true;
        self.home_region = home_region;
        self.demand.reset(&self.roles);
        self.reconcile_all(now);
        let all: Vec<(PodId, Uuid)> = self.pods.iter().flat_map(|(id, pod)| pod.entries.keys().map(|uuid| (id.clone(), *uuid))).collect();
        for (id, uuid) in all {
            if let Some(entry) = self.entry_mut(&id, uuid) {
                entry.kill.next_ms = 0;
                entry.doubtful = false;
            }
            self.look(&id, uuid, now);
        }
    }

    /// The subscription is over, and with it every offer and everything that was not sent yet.
    pub fn disconnected(&mut self) {
        self.subscribed = false;
        self.offers.clear();
        self.reconciliation.stop();
        for (_, slot) in std::mem::take(&mut self.slots) {
            for (id, uuid) in slot.members {
                if let Some(entry) = self.entry_mut(&id, uuid) {
                    entry.held_by = None;
                    entry.doubtful = true;
                }
            }
        }
    }

    fn reconcile_all(&mut self, now: i64) {
        let entries = self.pods.values().flat_map(|pod| pod.entries.values());
        // What is being recorded has not been sent: Mesos would deny it.
        let sent = entries.filter(|entry| entry.held_by.is_none() && !matches!(entry.writing, Some(Writing::Launch { .. })));
        let tasks = sent.flat_map(|entry| {
            let agent = entry.observed.as_ref().map(|observed| observed.agent_id.clone()).unwrap_or_default();
            entry.alive().map(move |task| (task.task_id.clone(), agent.clone()))
        });
        let calls = self.reconciliation.begin(tasks.collect(), now, self.settings.reconcile_ms);
        self.out.extend(calls.into_iter().map(Output::Call));
    }

    pub fn offered(&mut self, offers: Vec<Offer>) {
        if self.subscribed {
            self.offers.extend(offers.into_iter().map(|offer| (offer.id.value.clone(), offer)));
        }
    }

    pub fn rescinded(&mut self, offer: &OfferId) {
        self.offers.remove(&offer.value);
    }

    pub fn entry_mut(&mut self, id: &PodId, uuid: Uuid) -> Option<&mut Entry> {
        self.pods.get_mut(id)?.entries.get_mut(&uuid)
    }

    /// A status update.
    pub fn update(&mut self, status: &TaskStatus, now: i64) {
        let task_id = status.task_id.value.as_str();
        self.reconciliation.heard(task_id);
        let ack = status.uuid.as_ref().filter(|uuid| !uuid.is_empty()).and_then(|uuid| {
            let agent_id = status.agent_id.as_ref()?.value.clone();
            Some(Ack { agent_id, task_id: task_id.to_owned(), uuid: uuid.clone() })
        });
        let Ok(id) = task_id.parse::<TaskId>() else {
            self.stray(None, status, now);
            self.acknowledge(ack);
            return;
        };
        let (pod, uuid) = (id.instance.pod.clone(), id.instance.uuid);
        if self.pods.get(&pod).is_some_and(|pod| pod.frozen) {
            return;
        }
        if self.applies(&pod, uuid, task_id) {
            self.apply(&pod, uuid, status, ack, now);
        } else if self.is_adoptable(&id, status) {
            self.adopt(&id, status, now);
            self.apply(&pod, uuid, status, ack, now);
        } else {
            self.stray(Some(&id), status, now);
            self.acknowledge(ack);
        }
    }

    fn acknowledge(&mut self, ack: Option<Ack>) {
        if let Some(ack) = ack {
            self.call(Call::Acknowledge(ack));
        }
    }

    fn applies(&mut self, id: &PodId, uuid: Uuid, task_id: &str) -> bool {
        let observed = self.entry_mut(id, uuid).and_then(|entry| entry.observed.as_ref());
        observed.is_some_and(|observed| observed.tasks.iter().any(|task| task.task_id == task_id))
    }

    fn apply(&mut self, id: &PodId, uuid: Uuid, status: &TaskStatus, ack: Option<Ack>, now: i64) {
        let Some(entry) = self.entry_mut(id, uuid) else { return };
        // Unacknowledged, it comes again when the record has been read.
        if entry.reload.is_some() {
            return;
        }
        let tasks = entry.observed.iter_mut().flat_map(|observed| &mut observed.tasks);
        let task = tasks.into_iter().find(|task| task.task_id == status.task_id.value);
        let changed = task.is_some_and(|task| status::apply(task, status, now) == Applied::Changed);
        entry.dirty |= changed;
        match (&mut entry.writing, entry.dirty) {
            (_, true) => entry.acks.extend(ack),
            (Some(Writing::Update { acks }), false) => acks.extend(ack),
            (_, false) => self.acknowledge(ack),
        }
        self.look(id, uuid, now);
    }

    /// A task of the present incarnation, of which there is no record: an older state of this store launched it.
    fn is_adoptable(&mut self, id: &TaskId, status: &TaskStatus) -> bool {
        let Some(entry) = self.entry_mut(&id.instance.pod, id.instance.uuid) else { return false };
        let present = entry.instance.as_ref().is_some_and(|held| held.value.incarnation == id.incarnation);
        let recorded = entry.observed.as_ref().is_some_and(|observed| observed.incarnation >= id.incarnation);
        present && !recorded && entry.writing.is_none() && entry.reload.is_none() && entry.alive().next().is_none() && is_alive(status)
    }

    fn adopt(&mut self, id: &TaskId, status: &TaskStatus, now: i64) {
        let instance = id.instance.clone();
        tracing::warn!(%instance, "a running instance without a record is taken on");
        let Some(pod) = self.pods.get_mut(&instance.pod) else { return };
        let Some(entry) = pod.entries.get_mut(&instance.uuid) else { return };
        let Some(held) = &entry.instance else { return };
        let definition = pod.definitions.get(&held.value.config_ms);
        let containers = definition.map(|definition| definition.containers.iter().map(|one| one.name.clone()).collect());
        let containers: Vec<String> = containers.unwrap_or_else(|| vec![id.container.clone()]);
        let task = |container: String| observed::Task {
            task_id: instance.task_id(&container, id.incarnation).to_string(),
            container,
            ..observed::Task::default()
        };
        entry.observed = Some(Observed {
            incarnation: id.incarnation,
            config_ms: held.value.config_ms,
            agent_id: status.agent_id.as_ref().map(|agent| agent.value.clone()).unwrap_or_default(),
            executor_id: instance.executor_id(id.incarnation),
            tasks: containers.into_iter().map(task).collect(),
            provisioned_ms: now,
            ..Observed::default()
        });
        entry.dirty = true;
        self.strays.forget(&status.task_id.value);
    }

    /// A task that no record is about.
    fn stray(&mut self, id: Option<&TaskId>, status: &TaskStatus, now: i64) {
        let task_id = status.task_id.value.as_str();
        if !is_alive(status) {
            self.strays.forget(task_id);
            return;
        }
        let agent = status.agent_id.as_ref().map(|agent| agent.value.clone());
        let entry = id.and_then(|id| self.pods.get(&id.instance.pod)?.entries.get(&id.instance.uuid));
        let (mut ours, mut ahead) = (false, false);
        if let (Some(id), Some(entry)) = (id, entry) {
            let buried = entry.tombstone.as_ref().is_some_and(|tombstone| tombstone.task_ids.iter().any(|buried| buried == task_id));
            let observed = entry.observed.as_ref().map_or(0, |observed| observed.incarnation);
            let newest = entry.instance.as_ref().map_or(observed, |held| held.value.incarnation.max(observed));
            ours = buried || id.incarnation < newest;
            ahead = !ours && id.incarnation > newest && newest > 0;
        }
        if ours {
            self.strays.condemn(task_id, agent, now);
        } else if let Ok(state) = status.state.try_into() {
            self.strays.show(task_id, agent, state, ahead);
        }
    }

    /// A write was answered.
    pub fn written(&mut self, token: Token, outcome: Outcome, now: i64) {
        match token {
            Token::Queue(id) => {
                if let Some(pod) = self.pods.get_mut(&id) {
                    pod.waiting.written(outcome.committed().is_some());
                }
                self.drop_idle(&id);
            }
            Token::Observed(id, uuid) => {
                let Some(writing) = self.entry_mut(&id, uuid).and_then(|entry| entry.writing.take()) else { return };
                match outcome {
                    Outcome::Committed { revision } => self.committed(&id, uuid, writing, revision, now),
                    Outcome::Conflict { revision } | Outcome::Unknown { revision } => self.doubt(&id, uuid, writing, revision, now),
                    Outcome::Refused(reason) => {
                        tracing::error!(pod = %id, instance = %uuid, reason, "the store refuses what was observed");
                        if let Some(entry) = self.entry_mut(&id, uuid) {
                            entry.rest_until_ms = now.saturating_add(REFUSED_MS);
                        }
                        self.doubt(&id, uuid, writing, 0, now);
                    }
                    // The term is over; whoever leads next reads what is there.
                    Outcome::NotLeader => return,
                }
                self.look(&id, uuid, now);
                self.drop_idle(&id);
            }
        }
    }

    fn committed(&mut self, id: &PodId, uuid: Uuid, writing: Writing, revision: i64, now: i64) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let Some(entry) = pod.entries.get_mut(&uuid) else { return };
        entry.revision = revision;
        match writing {
            Writing::Launch { slot, operation } => {
                entry.kill = Default::default();
                if self.slots.contains_key(&slot) {
                    self.decided(slot, operation, now);
                } else {
                    // Its subscription is over, and it was never sent. Only Mesos may say so.
                    entry.held_by = None;
                    entry.doubtful = true;
                }
            }
            Writing::Update { acks } => self.out.extend(acks.into_iter().map(|ack| Output::Call(Call::Acknowledge(ack)))),
            Writing::Delete => {
                entry.observed = None;
                entry.revision = 0;
                pod.deleted.insert(uuid, revision);
                self.reloads.insert((revision, id.clone(), uuid));
            }
        }
    }

    /// What the store holds is not what was expected: it is read again, and then Mesos is asked again.
    fn doubt(&mut self, id: &PodId, uuid: Uuid, writing: Writing, revision: i64, now: i64) {
        if let Some(entry) = self.entry_mut(id, uuid) {
            entry.reload = Some(revision);
            entry.acks.clear();
            entry.dirty = false;
            entry.held_by = None;
        }
        self.reloads.insert((revision, id.clone(), uuid));
        if let Writing::Launch { slot, .. } = writing {
            self.decided(slot, None, now);
        }
    }

    /// One launch of a slot is durable, or won't be sent. With the last one, the slot is accepted.
    fn decided(&mut self, slot_id: u64, operation: Option<Box<Operation>>, now: i64) {
        let Some(slot) = self.slots.get_mut(&slot_id) else { return };
        slot.operations.extend(operation.map(|operation| *operation));
        slot.undecided = slot.undecided.saturating_sub(1);
        if slot.undecided > 0 {
            return;
        }
        let Some(slot) = self.slots.remove(&slot_id) else { return };
        for (id, uuid) in &slot.members {
            if let Some(entry) = self.entry_mut(id, *uuid).filter(|entry| entry.held_by == Some(slot_id)) {
                entry.held_by = None;
            }
        }
        // What more waits can use the rest at once.
        let refuse_seconds = if self.role_waits(&slot.role) { 0.0 } else { self.settings.decline_seconds };
        let PendingSlot { offer_ids, operations, members, .. } = slot;
        self.call(if operations.is_empty() {
            Call::Decline { offer_ids, refuse_seconds }
        } else {
            Call::Accept { offer_ids, operations, refuse_seconds }
        });
        // Those that are not wanted any more were waiting to be killed.
        for (id, uuid) in members {
            self.look(&id, uuid, now);
        }
    }

    pub fn role_waits(&self, role: &str) -> bool {
        self.ready_roles.contains_key(role)
    }

    /// Records that are to be read again from an index at this revision.
    pub fn reloads_due(&mut self, revision: i64) -> Vec<(PodId, Uuid)> {
        let mut due = Vec::new();
        while let Some((_, id, uuid)) = self.reloads.first().filter(|(at, ..)| *at <= revision).cloned() {
            self.reloads.pop_first();
            due.push((id, uuid));
        }
        due
    }

    pub fn awaits_index(&self) -> bool {
        !self.reloads.is_empty()
    }

    /// Reads a record again.
    pub fn reload(&mut self, id: &PodId, uuid: Uuid, view: Option<&PodView>, now: i64) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let Some(entry) = pod.entries.get_mut(&uuid).filter(|entry| entry.reload.is_some()) else {
            // It was deleted, and the index has seen that.
            pod.deleted.remove(&uuid);
            self.drop_idle(id);
            return;
        };
        let held = view.and_then(|view| view.observed.get(&uuid));
        entry.observed = held.map(|held| held.value.clone());
        entry.revision = held.map_or(0, |held| held.mod_revision);
        entry.instance = view.and_then(|view| view.instances.get(&uuid)).cloned();
        entry.reload = None;
        entry.doubtful = true;
        self.look(id, uuid, now);
        self.drop_idle(id);
    }

    fn kills_blocked(&self) -> bool {
        self.cut_off || self.strays.quarantine().is_some()
    }

    /// Does what is due about one instance.
    pub fn look(&mut self, id: &PodId, uuid: Uuid, now: i64) {
        let (blocked, subscribed) = (self.kills_blocked(), self.subscribed);
        let Some(pod) = self.pods.get_mut(id).filter(|pod| !pod.frozen) else { return };
        let Some(entry) = pod.entries.get_mut(&uuid) else { return };
        if entry.dirty
            && entry.writing.is_none()
            && entry.reload.is_none()
            && entry.rest_until_ms <= now
            && let Some(group) = entry.write_update(id, uuid)
        {
            self.out.push(Output::Write(Token::Observed(id.clone(), uuid), group));
        }
        let due = entry.due(now, &self.settings);
        let mut wake = due.wake;
        if due.delete {
            let key = Key::Observed(id.clone(), uuid);
            let group = Group::new(id.clone())
                .when(Compare::Unchanged(key.clone(), entry.revision))
                .when(Compare::Absent(Key::Instance(id.clone(), uuid)))
                .then(Op::Delete(key));
            entry.writing = Some(Writing::Delete);
            self.out.push(Output::Write(Token::Observed(id.clone(), uuid), group));
        }
        if due.ask && subscribed {
            let agent = entry.observed.as_ref().and_then(|observed| agent_id(&observed.agent_id));
            let tasks = entry.alive().map(|task| (task.task_id.clone(), agent.clone())).collect::<Vec<_>>();
            entry.ask_ms = now.saturating_add(self.settings.launch_confirm_ms);
            entry.doubtful = false;
            if !tasks.is_empty() {
                self.out.push(Output::Call(Call::Reconcile(tasks)));
            }
        }
        if due.kill && subscribed {
            if blocked {
                wake = Some(now.saturating_add(BLOCKED_MS));
            } else {
                let grace_ms =
                    entry.observed.as_ref().and_then(|one| pod.definitions.get(&one.config_ms)).map_or(0, |one| longest_grace_ms(one));
                self.out.extend(entry.kill_calls(now, grace_ms).into_iter().map(Output::Call));
                wake = Some(entry.kill.next_ms);
            }
        }
        let old = std::mem::replace(&mut entry.wake, wake);
        if old != wake {
            if let Some(old) = old {
                self.wakes.remove(&(old, id.clone(), uuid));
            }
            if let Some(wake) = wake {
                self.wakes.insert((wake, id.clone(), uuid));
            }
        }
        let config = entry.instance.as_ref().map(|held| held.value.config_ms);
        if entry.is_empty() {
            pod.entries.remove(&uuid);
        }
        self.set_ready(id, uuid, config.filter(|_| due.waits), now);
    }

    /// An instance waits, as of this config, or does not.
    fn set_ready(&mut self, id: &PodId, uuid: Uuid, config: Option<i64>, now: i64) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let known = pod.ready.iter().find(|(_, ready)| ready.uuids.contains(&uuid)).map(|(config, _)| *config);
        if known == config {
            return;
        }
        if let Some(known) = known
            && let Some(ready) = pod.ready.get_mut(&known)
        {
            ready.uuids.remove(&uuid);
            if ready.uuids.is_empty()
                && let Some(ready) = pod.ready.remove(&known)
            {
                let left = self.ready_roles.get(&ready.role).copied().unwrap_or(0).saturating_sub(1);
                if left == 0 {
                    self.ready_roles.remove(&ready.role)
                } else {
                    self.ready_roles.insert(ready.role, left)
                };
            }
        }
        if let Some(config) = config {
            if let Some(definition) = pod.definitions.get(&config) {
                let ready = pod.ready.entry(config).or_insert_with(|| {
                    let role = definition.role.as_ref().unwrap_or(&self.settings.default_role).clone();
                    *self.ready_roles.entry(role.clone()).or_default() += 1;
                    Ready { role, uuids: BTreeSet::new() }
                });
                ready.uuids.insert(uuid);
                self.demand.ask(&ready.role);
            } else {
                tracing::error!(pod = %id, config, "an instance can't be launched: its definition is gone or can't be read");
            }
        }
        let waits = !pod.ready.is_empty();
        pod.waiting.set(waits, now);
        if waits {
            if self.ready.insert(id.clone())
                && let Some(next) = pod.waiting.next_look(now)
            {
                self.queue_wakes.insert((next, id.clone()));
            }
        } else if self.ready.remove(id) {
            self.queue_wakes.insert((now, id.clone()));
        }
    }

    /// Everything that is due by the time.
    pub fn tick(&mut self, now: i64) {
        while let Some((_, id, uuid)) = self.wakes.first().filter(|(at, ..)| *at <= now).cloned() {
            self.wakes.pop_first();
            if let Some(entry) = self.entry_mut(&id, uuid) {
                entry.wake = None;
            }
            self.look(&id, uuid, now);
        }
        if self.subscribed {
            if !self.kills_blocked() {
                let calls = self.strays.due(now);
                self.out.extend(calls.into_iter().map(Output::Call));
            }
            if self.reconciliation.is_full_due(now) {
                self.reconcile_all(now);
            } else {
                let calls = self.reconciliation.retry(now, self.settings.reconcile_ms);
                self.out.extend(calls.into_iter().map(Output::Call));
            }
            let wanted: BTreeSet<String> = self.ready_roles.keys().cloned().collect();
            let calls = self.demand.due(&wanted, now, self.settings.min_revive_ms);
            self.out.extend(calls.into_iter().map(Output::Call));
        }
        self.write_queues(now);
    }

    fn write_queues(&mut self, now: i64) {
        while let Some((_, id)) = self.queue_wakes.first().filter(|(at, _)| *at <= now).cloned() {
            self.queue_wakes.pop_first();
            let Some(pod) = self.pods.get_mut(&id) else { continue };
            let count = pod.ready_count();
            let key = Key::Queue(id.clone());
            let op = pod.waiting.write(count, now).map(|write| match write {
                QueueWrite::Put(record) => Op::leased_record(key, record, self.identity.lease),
                QueueWrite::Delete => Op::Delete(key),
            });
            if let Some(next) = pod.waiting.next_look(now) {
                self.queue_wakes.insert((next, id.clone()));
            }
            if let Some(op) = op {
                self.out.push(Output::Write(Token::Queue(id.clone()), Group::new(id).then(op)));
            }
        }
    }

    /// When to call [`Core::tick`] next.
    pub fn next_wake(&self) -> Option<i64> {
        let wanted: BTreeSet<String> = self.ready_roles.keys().cloned().collect();
        let demand = self.demand.next_wake(&wanted, self.settings.min_revive_ms).filter(|_| self.subscribed);
        let strays = self.strays.next_wake().filter(|_| self.subscribed && !self.kills_blocked());
        let entry = self.wakes.first().map(|(at, ..)| *at);
        let queue = self.queue_wakes.first().map(|(at, _)| *at);
        [entry, queue, demand, strays, self.reconciliation.next_wake()].into_iter().flatten().min()
    }
}

impl Pod {
    pub fn ready_count(&self) -> usize {
        self.ready.values().map(|ready| ready.uuids.len()).sum()
    }

    /// Takes over what the index shows; names the instances to look at.
    fn join(&mut self, view: &PodView, revision: i64) -> BTreeSet<Uuid> {
        self.deleted.retain(|_, deleted| *deleted > revision);
        self.config_ms = view.accepted.as_ref().map_or(0, |accepted| accepted.value.config_ms);
        let mut uuids: BTreeSet<Uuid> = self.entries.keys().copied().collect();
        uuids.extend(view.instances.keys().chain(view.tombstones.keys()).chain(view.observed.keys()));
        uuids.retain(|uuid| {
            let known = self.entries.contains_key(uuid) || view.instances.contains_key(uuid) || view.tombstones.contains_key(uuid);
            known || !self.deleted.contains_key(uuid)
        });
        for uuid in &uuids {
            let deleted = self.deleted.contains_key(uuid);
            let entry = self.entries.entry(*uuid).or_insert_with(|| Entry::read(view.observed.get(uuid).filter(|_| !deleted)));
            entry.instance = view.instances.get(uuid).cloned();
            entry.tombstone = view.tombstones.get(uuid).map(|held| held.value.clone());
        }
        let configs: BTreeSet<i64> = self
            .entries
            .values()
            .flat_map(|entry| [entry.instance.as_ref().map(|held| held.value.config_ms), entry.observed.as_ref().map(|one| one.config_ms)])
            .flatten()
            .collect();
        self.definitions.retain(|config, _| configs.contains(config));
        for config in configs {
            if !self.definitions.contains_key(&config)
                && let Some(definition) = view.versions.get(&Version::from_millis(config)).and_then(|held| held.value.definition())
            {
                self.definitions.insert(config, definition);
            }
        }
        uuids
    }
}

impl Entry {
    fn read(held: Option<&Held<Observed>>) -> Self {
        Entry { observed: held.map(|held| held.value.clone()), revision: held.map_or(0, |held| held.mod_revision), ..Entry::default() }
    }

    /// The write that makes the record durable.
    fn write_update(&mut self, id: &PodId, uuid: Uuid) -> Option<Group> {
        let record = self.observed.clone()?;
        let key = Key::Observed(id.clone(), uuid);
        self.dirty = false;
        self.writing = Some(Writing::Update { acks: std::mem::take(&mut self.acks) });
        Some(Group::new(id.clone()).when(as_known(key.clone(), self.revision)).then(Op::record(key, record)))
    }

    /// A KILL for every task, back to back, so that each keeps its own grace; at last the end of the whole executor.
    fn kill_calls(&mut self, now: i64, grace_ms: i64) -> Vec<Call> {
        let Some(observed) = &self.observed else { return Vec::new() };
        let agent = agent_id(&observed.agent_id);
        let mut calls: Vec<Call> =
            self.killable().map(|task| Call::Kill { task_id: task.task_id.clone(), agent_id: agent.clone() }).collect();
        if self.kill.attempts == 0 {
            self.kill.since_ms = now;
        }
        if let Some(agent_id) = agent.filter(|_| now >= self.kill.since_ms.saturating_add(grace_ms).saturating_add(SHUTDOWN_AFTER_MS)) {
            calls.push(Call::Shutdown { executor_id: observed.executor_id.clone(), agent_id });
        }
        let pause = KILL_PAUSE_MS.saturating_mul(1 << self.kill.attempts.min(3)).min(LONGEST_KILL_PAUSE_MS);
        self.kill.attempts = self.kill.attempts.saturating_add(1);
        self.kill.next_ms = now.saturating_add(pause);
        calls
    }
}

/// That the record is as it was last written, or absent.
pub(super) fn as_known(key: Key, revision: i64) -> Compare {
    if revision == 0 { Compare::Absent(key) } else { Compare::Unchanged(key, revision) }
}

fn is_alive(status: &TaskStatus) -> bool {
    let task = observed::Task { state: Some(status.state), reason: status.reason, ..observed::Task::default() };
    condition::task_is_alive(&task)
}

fn longest_grace_ms(definition: &PodDefinition) -> i64 {
    let graces = definition.containers.iter().filter_map(|container| container.lifecycle.as_ref()?.kill_grace_period_seconds);
    let longest = graces.fold(3.0, f64::max) * 1000.0;
    #[allow(clippy::cast_possible_truncation, reason = "clamped")]
    let longest = longest.clamp(0.0, 1e12) as i64;
    longest
}
