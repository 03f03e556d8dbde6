//! Promise 6 of DESIGN: a store that is not the one that launched what runs kills nothing.
//!
//! When Mesos shows a task that is ahead of the store, forgotten by it or of another cluster id ([`super::strays`]), the
//! key `quarantine` is written before anything else is done. While it stands, the gateway kills nothing, and scaling,
//! upgrade and unreachable take nothing away, since each compares its absence. It outlives every process, and the
//! tasks that were its reason: the store's revision catches up with their labels, and then nothing else would tell.
//! An operator's order ends it: each unknown instance is adopted or killed, and with the last of them it goes.
//!
//! To adopt is to record a launch (`observed/<pod>/<uuid>`, marked `adopted`); scaling makes `instances` follow.

use std::collections::{BTreeMap, BTreeSet};

use podium_proto::mesos::v1::{Task, TaskState, TaskStatus};
use podium_proto::records::order::Kind;
use podium_proto::records::{Observed, Order, Quarantine, Unknown, observed};
use podium_store::Key;
use podium_store::writer::{Group, Op};
use podium_types::condition;
use podium_types::id::{InstanceId, PodId, TaskId};
use uuid::Uuid;

use super::core::Core;
use super::entry::Entry;
use super::output::{Output, Token};
use super::residents;
use super::slate::Slate;
use super::strays::{Known, Origin, Stray, Verdict, judge, raises};
use super::survey::{Shown, Trouble};

/// What stands in the store of all this, as this gateway wrote or found it.
#[derive(Debug)]
pub(super) struct Custody {
    /// Why nothing may be killed.
    pub quarantine: Option<Quarantine>,
    slate: Slate<Quarantine>,
    unknown: BTreeMap<PodId, Slate<Unknown>>,
    orders: BTreeMap<Uuid, Order>,
    /// Those of them that were about a task that is a reason for the quarantine, or about the quarantine itself.
    concerned: BTreeSet<Uuid>,
    /// Orders that are carried out: their deletion is under way.
    deleting: BTreeMap<Uuid, Slate<()>>,
    /// The newest revision of what was seen reserved by a later state of the store; 0: nothing was.
    pub ahead_revision: i64,
    /// Up to which revision of a later state of the store an operator has vouched for what is reserved; our record says so to
    /// those who lead after us.
    pub vouched_revision: i64,
    vouched_slate: Slate<i64>,
    /// Reconciliation waits until the quarantine is durable: what it brings to light makes others act.
    pub holds_reconciliation: bool,
}

impl Default for Custody {
    fn default() -> Self {
        Self::found(None, Vec::new())
    }
}

impl Custody {
    /// As an earlier gateway left it.
    pub fn found(quarantine: Option<Quarantine>, unknown: Vec<(PodId, Unknown)>) -> Self {
        let unknown = unknown.into_iter().map(|(pod, unknown)| (pod, Slate::found(Some(bare_unknown(unknown))))).collect();
        let quarantine = quarantine.map(|quarantine| Quarantine { schema: 0, ..quarantine });
        Self {
            slate: Slate::found(quarantine.clone()),
            quarantine,
            unknown,
            orders: BTreeMap::new(),
            concerned: BTreeSet::new(),
            deleting: BTreeMap::new(),
            ahead_revision: 0,
            vouched_revision: 0,
            vouched_slate: Slate::found(Some(0)),
            holds_reconciliation: false,
        }
    }

    /// With an operator's earlier word, as our record tells it.
    pub fn with_vouched(self, revision: i64) -> Self {
        Self { vouched_revision: revision, vouched_slate: Slate::found(Some(revision)), ..self }
    }

    /// An operator's word holds for all that was seen until then, and not for what is later still.
    pub fn vouch(&mut self) {
        self.vouched_revision = self.vouched_revision.max(self.ahead_revision);
    }

    /// Whether `quarantine` is as it should be, and no write is unanswered.
    fn is_kept(&self) -> bool {
        let writing = self.slate.is_writing() || self.unknown.values().any(Slate::is_writing);
        !writing && self.slate.next_look(&self.quarantine).is_none()
    }
}

fn bare_unknown(unknown: Unknown) -> Unknown {
    Unknown { schema: 0, ..unknown }
}

impl Core {
    /// Mesos has told which of our tasks run, or that it won't. `revision` is the store's.
    pub fn surveyed(&mut self, round: u64, shown: Result<Shown, Trouble>, revision: i64, now: i64) {
        let Some(heard) = self.survey.answered(round, shown.as_ref(), now) else { return };
        match shown {
            Ok(Shown { tasks, away }) => {
                let listed: std::collections::HashSet<&str> = tasks.iter().map(|task| task.task_id.value.as_str()).collect();
                for task in &tasks {
                    self.surveyed_task(task, heard.contains(&task.task_id.value), revision, now);
                }
                // That a task is not shown is no word that it has ended: its agent may be on its way back. Mesos is asked.
                let missing: Vec<(String, String)> =
                    self.strays.to_ask().filter(|(id, _)| !listed.contains(id.as_str()) && !heard.contains(id)).collect();
                for call in self.reconciliation.ask_about(missing.into_iter(), now) {
                    self.call(call);
                }
                if away == 0 {
                    // What an earlier gateway has listed may be gone since.
                    self.strays.dirty.extend(self.custody.unknown.keys().cloned());
                }
            }
            Err(Trouble { reason, .. }) => tracing::warn!(reason, "Mesos does not tell which tasks run: nothing is killed until it does"),
        }
        // What was first heard of while the question was under way, and is not in the answer.
        if self.strays.any_unasked() {
            self.survey.want(now);
        }
        self.raise(now);
        self.keep_records(now);
        self.reconcile_when_kept(now);
    }

    /// Begins the reconciliation that waits for the first survey, once what that has shown is durable.
    pub(super) fn reconcile_when_kept(&mut self, now: i64) {
        let due = self.custody.holds_reconciliation && self.survey.tried;
        if due && self.strays.dirty.is_empty() && self.custody.is_kept() {
            self.reconcile_all(now);
        }
    }

    fn surveyed_task(&mut self, task: &Task, heard: bool, revision: i64, now: i64) {
        let task_id = task.task_id.value.as_str();
        let Ok(state) = TaskState::try_from(task.state) else { return };
        if !condition::task_is_alive(&observed::Task { state: Some(task.state), ..observed::Task::default() }) {
            return;
        }
        let agent = Some(task.agent_id.value.clone());
        let Ok(id) = task_id.parse::<TaskId>() else {
            if !heard {
                self.strays.show_foreign(task_id, agent, state);
            }
            return;
        };
        // Of what was heard of since, only the labels are news.
        if (heard && self.strays.get(&id).is_none()) || !self.is_settled(&id) {
            return;
        }
        let origin = task.labels.as_ref().and_then(|labels| Origin::read(labels, &id));
        match judge(id.incarnation, origin.as_ref(), self.known(&id), &self.identity.cluster_id, revision) {
            Verdict::Stray(why) => self.strays.show(&id, agent, state, origin, why),
            // What it is like is told by the reconciliation that follows.
            Verdict::Ours | Verdict::Adoptable => self.strays.forget(task_id, Some(&id)),
            Verdict::Leftover => {
                self.strays.forget(task_id, Some(&id));
                self.strays.condemn(task_id, agent, now);
            }
        }
        self.look(&id.instance.pod, id.instance.uuid, now);
    }

    /// Whether what is known of a task's instance is what the store holds.
    fn is_settled(&self, id: &TaskId) -> bool {
        let Some(pod) = self.pods.get(&id.instance.pod) else { return true };
        let entry = pod.entries.get(&id.instance.uuid);
        !pod.frozen && entry.is_none_or(|entry| entry.writing.is_none() && entry.reload.is_none() && entry.held_by.is_none())
    }

    /// What the store knows of a task.
    pub(super) fn known(&self, id: &TaskId) -> Known {
        let Some(entry) = self.pods.get(&id.instance.pod).and_then(|pod| pod.entries.get(&id.instance.uuid)) else {
            return Known { orphaned: true, ..Known::default() };
        };
        let task_id = id.to_string();
        let instance = entry.instance.as_ref().map_or(0, |held| held.value.incarnation);
        let observed = entry.observed.as_ref();
        let launched = observed.map_or(0, |observed| observed.incarnation);
        Known {
            newest: instance.max(launched),
            unrecorded: instance == id.incarnation && launched < id.incarnation,
            recorded: observed.is_some_and(|observed| observed.tasks.iter().any(|task| task.task_id == task_id)),
            adopted: observed.is_some_and(|observed| observed.adopted),
            orphaned: entry.instance.is_none() && entry.tombstone.is_none() && observed.is_none_or(|observed| !observed.adopted),
            buried: entry.tombstone.as_ref().is_some_and(|tombstone| tombstone.task_ids.contains(&task_id)),
        }
    }

    /// Begins a quarantine, if some task is a reason for one.
    fn raise(&mut self, now: i64) {
        if self.custody.quarantine.is_some() {
            return;
        }
        let Some((id, stray)) = self.strays.raising() else { return };
        let reason = reason(&id, stray, &self.identity.cluster_id);
        tracing::error!(reason, "quarantine: nothing is killed or scaled down until an operator says what is to become of unknown tasks");
        self.custody.quarantine = Some(Quarantine { reason, since_ms: now, ..Quarantine::default() });
    }

    /// Writes what is not as it should be: `quarantine`, `unknown/<pod>`, orders that are done.
    pub(super) fn keep_records(&mut self, now: i64) {
        // Before a quarantine ends by it.
        if let Some(Some(revision)) = self.custody.vouched_slate.due(&Some(self.custody.vouched_revision), now) {
            self.out.push(Output::Vouch(revision));
        }
        let wanted = self.custody.quarantine.clone();
        if let Some(value) = self.custody.slate.due(&wanted, now) {
            self.out.push(Output::Write(Token::Quarantine, Group::global().then(put_or_delete(Key::Quarantine, value))));
        }
        for pod in std::mem::take(&mut self.strays.dirty) {
            self.keep_unknown(&pod, now);
        }
        for (uuid, slate) in &mut self.custody.deleting {
            if slate.due(&None, now).is_some() {
                self.out.push(Output::Write(Token::Order(*uuid), Group::global().then(Op::Delete(Key::Order(*uuid)))));
            }
        }
    }

    fn keep_unknown(&mut self, pod: &PodId, now: i64) {
        let slate = self.custody.unknown.entry(pod.clone()).or_insert_with(|| Slate::found(None));
        if slate.free_ms().is_none_or(|at| at > now) {
            // The list is long: made when it can be written.
            self.strays.dirty.insert(pod.clone());
        } else if let Some(value) = slate.due(&self.strays.record(pod), now) {
            let op = put_or_delete(Key::Unknown(pod.clone()), value);
            self.out.push(Output::Write(Token::Unknown(pod.clone()), Group::new(pod.clone()).then(op)));
        } else if slate.is_blank() {
            self.custody.unknown.remove(pod);
        }
    }

    /// A write of [`Core::keep_records`] was answered.
    pub(super) fn record_kept(&mut self, token: &Token, done: bool, now: i64) {
        match token {
            Token::Quarantine => self.custody.slate.answered(done, now),
            Token::Framework => self.custody.vouched_slate.answered(done, now),
            Token::Unknown(pod) => {
                if let Some(slate) = self.custody.unknown.get_mut(pod) {
                    slate.answered(done, now);
                }
                self.strays.dirty.insert(pod.clone());
            }
            Token::Order(uuid) if done => drop(self.custody.deleting.remove(uuid)),
            Token::Order(uuid) => {
                if let Some(slate) = self.custody.deleting.get_mut(uuid) {
                    slate.answered(false, now);
                }
            }
            Token::Observed(..) | Token::Queue(_) => {}
        }
        self.keep_records(now);
        self.reconcile_when_kept(now);
    }

    /// When to write again what could not be written.
    pub(super) fn next_record(&self) -> Option<i64> {
        let quarantine = self.custody.slate.next_look(&self.custody.quarantine);
        let unknown = self.strays.dirty.iter().filter_map(|pod| match self.custody.unknown.get(pod) {
            Some(slate) => slate.free_ms(),
            None => Some(0),
        });
        let orders = self.custody.deleting.values().filter_map(|slate| slate.next_look(&None));
        let vouched = self.custody.vouched_slate.next_look(&Some(self.custody.vouched_revision));
        quarantine.into_iter().chain(vouched).chain(unknown).chain(orders).min()
    }

    /// Every order that stands in the store.
    pub fn ordered(&mut self, orders: BTreeMap<Uuid, Order>, now: i64) {
        self.custody.orders = orders.into_iter().filter(|(uuid, _)| !self.custody.deleting.contains_key(uuid)).collect();
        self.custody.concerned.retain(|uuid| self.custody.orders.contains_key(uuid));
        self.carry_out_orders(now);
    }

    /// Does what operators want, as far as it can be done now.
    pub(super) fn carry_out_orders(&mut self, now: i64) {
        // Before Mesos has told what runs nobody knows what an order is about.
        if !self.survey.done || self.custody.orders.is_empty() {
            return;
        }
        let orders = std::mem::take(&mut self.custody.orders);
        for (uuid, order) in orders {
            // Noted before it is carried out: afterwards nothing shows any more what it was about.
            if order.ids.is_empty() || order.ids.iter().any(|id| self.raises_quarantine(id)) {
                self.custody.concerned.insert(uuid);
            }
            let open = match Kind::try_from(order.kind) {
                Ok(Kind::Adopt) => order.ids.iter().filter(|id| !self.adopted(id, now)).count(),
                Ok(Kind::Kill) => order.ids.iter().filter(|id| self.order_kill(id, now)).count(),
                // A newer build's; it would not have led us here.
                Err(_) => 0,
            };
            if open > 0 {
                self.custody.orders.insert(uuid, order);
                continue;
            }
            tracing::info!(order = %uuid, kind = ?Kind::try_from(order.kind), ids = order.ids.len(), "an operator's order is carried out");
            self.custody.deleting.insert(uuid, Slate::found(Some(())));
            let concerned = self.custody.concerned.remove(&uuid);
            if concerned && !self.strays.any_raising() && self.custody.quarantine.take().is_some() {
                self.custody.vouch();
                tracing::warn!("the quarantine is over: an operator has said what is to become of every unknown task");
            }
        }
        self.keep_records(now);
    }

    fn raises_quarantine(&self, id: &str) -> bool {
        let Ok(instance) = id.parse::<InstanceId>() else { return false };
        self.strays.of_instance(&instance.pod, instance.uuid).any(|(_, stray)| raises(stray.why))
    }

    fn order_kill(&mut self, id: &str, now: i64) -> bool {
        match id.parse::<InstanceId>() {
            Ok(instance) => self.strays.order_kill(Some((&instance.pod, instance.uuid)), id, now),
            Err(_) => self.strays.order_kill(None, id, now),
        }
    }

    /// Takes an instance on; whether nothing is left to do about it.
    fn adopted(&mut self, id: &str, now: i64) -> bool {
        let Ok(instance) = id.parse::<InstanceId>() else { return true };
        let (pod, uuid) = (&instance.pod, instance.uuid);
        if let Some(entry) = self.entry_mut(pod, uuid)
            && (entry.writing.is_some() || entry.reload.is_some() || entry.held_by.is_some() || entry.dirty || entry.rest_until_ms > now)
        {
            return false;
        }
        let tasks: Vec<(TaskId, Stray)> = self.strays.of_instance(pod, uuid).map(|(id, stray)| (id, stray.clone())).collect();
        let Some(newest) = tasks.iter().map(|(id, _)| id.incarnation).max() else { return true };
        let is_left = |entry: &Entry| entry.is_durable() && entry.observed.as_ref().is_some_and(|one| one.incarnation > newest);
        if self.pods.get(pod).and_then(|pod| pod.entries.get(&uuid)).is_some_and(is_left) {
            // What is left of earlier launches: the record is of a later one, and stays.
            tasks.iter().for_each(|(id, _)| self.strays.forget(&id.to_string(), Some(id)));
            return true;
        }
        // Of a pod that nobody wants nothing can be taken on; the API says so before it takes an order.
        let Some(config_ms) = self.pods.get(pod).map(|pod| pod.config_ms).filter(|config| *config > 0) else { return true };
        let origin = tasks.iter().find_map(|(_, stray)| stray.origin.clone());
        let config_ms = origin.map_or(config_ms, |origin| origin.config_ms);
        let known = self.pods.entry(pod.clone()).or_default();
        let definition = known.definitions.get(&config_ms).or(known.in_force.as_ref()).cloned();
        let entry = known.entries.entry(uuid).or_default();
        let present: Vec<&(TaskId, Stray)> = tasks.iter().filter(|(id, _)| id.incarnation == newest).collect();
        match entry.observed.as_mut().filter(|observed| observed.incarnation == newest) {
            // All of it is known, but for the operator's word.
            Some(observed) => {
                observed.adopted = true;
                for (id, stray) in present {
                    let task_id = id.to_string();
                    if observed.tasks.iter().all(|task| task.task_id != task_id) {
                        observed.tasks.push(task(id, stray, now));
                    }
                }
            }
            None => {
                let agent_id = present.iter().find_map(|(_, stray)| stray.agent_id.clone()).unwrap_or_default();
                let old = entry.observed.take().unwrap_or_default();
                entry.observed = Some(Observed {
                    incarnation: newest,
                    role: residents::role(&old, definition.as_deref(), &self.settings.default_role).to_owned(),
                    reservation: residents::taken_on(old.reservation, &agent_id, definition.as_deref()),
                    config_ms,
                    agent_id,
                    executor_id: instance.executor_id(newest),
                    tasks: present.iter().map(|(id, stray)| task(id, stray, now)).collect(),
                    provisioned_ms: now,
                    adopted: true,
                    ..Observed::default()
                });
            }
        }
        entry.dirty = true;
        tracing::warn!(%instance, incarnation = newest, "an unknown instance is taken on, as an operator wants it");
        // The tasks stay strange until the record is durable: `look` recognises them then.
        self.look(&instance.pod, uuid, now);
        false
    }

    /// A task that no record is about, or another one than it should be.
    pub(super) fn stray(&mut self, id: Option<&TaskId>, status: &TaskStatus, now: i64) {
        let task_id = status.task_id.value.as_str();
        let agent = status.agent_id.as_ref().map(|agent| agent.value.clone());
        // Nor does anything of it run that Mesos knows of, of an agent that it knows: were it to come back, it is judged anew.
        let alive = super::updates::is_alive(status) && status.state() != TaskState::TaskUnknown;
        let (Ok(state), true) = (TaskState::try_from(status.state), alive) else {
            self.strays.forget(task_id, id);
            if let Some(id) = id {
                self.look(&id.instance.pod, id.instance.uuid, now);
            }
            return;
        };
        let Some(id) = id else {
            self.strays.show_foreign(task_id, agent, state);
            return;
        };
        let origin = self.strays.get(id).and_then(|stray| stray.origin.clone());
        // How far the store has come since does not matter: what its labels made of it stays.
        match judge(id.incarnation, origin.as_ref(), self.known(id), &self.identity.cluster_id, i64::MAX) {
            Verdict::Leftover => {
                self.strays.forget(task_id, Some(id));
                self.strays.condemn(task_id, agent, now);
            }
            Verdict::Stray(why) => {
                let why = self.strays.get(id).map(|stray| stray.why).filter(|known| raises(*known)).unwrap_or(why);
                self.strays.show(id, agent, state, origin, why);
                self.raise(now);
            }
            Verdict::Ours | Verdict::Adoptable => {}
        }
        if self.strays.any_unasked() {
            self.survey.want(now);
        }
        self.look(&id.instance.pod, id.instance.uuid, now);
    }
}

fn task(id: &TaskId, stray: &Stray, now: i64) -> observed::Task {
    observed::Task {
        container: id.container.clone(),
        task_id: id.to_string(),
        state: Some(stray.state.into()),
        since_ms: now,
        running_ms: if stray.state == TaskState::TaskRunning { now } else { 0 },
        unreachable_ms: if stray.state == TaskState::TaskUnreachable { now } else { 0 },
        ..observed::Task::default()
    }
}

fn put_or_delete<R: podium_store::codec::Record>(key: Key, value: Option<R>) -> Op {
    match value {
        Some(value) => Op::record(key, value),
        None => Op::Delete(key),
    }
}

/// What begins a quarantine, in words.
fn reason(id: &TaskId, stray: &Stray, cluster_id: &str) -> String {
    use podium_proto::records::unknown_instance::Why;
    match (stray.why, &stray.origin) {
        (Why::OtherCluster, Some(origin)) => {
            format!("task {id} was launched by another store: its label says cluster {}, this one is {cluster_id}", origin.cluster_id)
        }
        (Why::Ahead, Some(origin)) => {
            format!("task {id} was launched by a later state of this store, at revision {}: is this a restored backup?", origin.revision)
        }
        (Why::Ahead, None) => format!("task {id} was launched by a later state of this store: is this a restored backup?"),
        _ => format!("task {id} was launched by this store, which has no record of it: was it emptied, or restored from a backup?"),
    }
}
