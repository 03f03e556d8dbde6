//! The gateway's decisions: from what happened to calls to Mesos and writes to the store. No I/O, clock or randomness.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podium_proto::mesos::v1::offer::Operation;
use podium_proto::mesos::v1::{Offer, OfferId, TaskState};
use podium_proto::records::Observed;
use podium_proto::records::unknown_instance::Why;
use podium_store::Key;
use podium_store::view::PodView;
use podium_store::writer::{Group, Op};
use podium_types::definition::PodDefinition;
use podium_types::id::{PodId, TaskId};
use podium_types::residence;
use uuid::Uuid;

use super::Settings;
use super::demand::Demand;
use super::entry::{Entry, Writing};
use super::framework::Identity;
use super::kills::longest_grace_ms;
use super::output::{Call, Output, Token};
use super::pod::Pod;
use super::quarantine::Custody;
use super::queue::QueueWrite;
use super::reconcile::Reconciliation;
use super::residents;
use super::roles::Roles;
use super::state::GatewayState;
use super::strays::Strays;
use super::survey::Survey;

/// Blocked kills are looked at again after so long.
const BLOCKED_MS: i64 = 1_000;

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
    /// Instances by the agent that their record names.
    pub agents: BTreeMap<String, BTreeSet<(PodId, Uuid)>>,
    /// Agents that left, and offered nothing since.
    pub left: BTreeSet<String>,
    /// Agents of which tasks are away: those are asked about when it offers something.
    pub missed: BTreeSet<String>,
    /// Agents that may be taken down by our word, and until when that holds.
    pub spared: BTreeMap<String, i64>,
    wakes: BTreeSet<(i64, PodId, Uuid)>,
    pub queue_wakes: BTreeSet<(i64, PodId)>,
    /// Records to be read again from an index that is as new as this revision.
    pub reloads: BTreeSet<(i64, PodId, Uuid)>,
    pub strays: Strays,
    pub survey: Survey,
    pub custody: Custody,
    pub(super) demand: Demand,
    /// Instances that are gone, and the role in which they have something to give back.
    pub releasing: BTreeMap<(PodId, Uuid), String>,
    /// How many, by role.
    pub releasing_roles: BTreeMap<String, usize>,
    pub reconciliation: Reconciliation,
    roles: Roles,
    pub out: Vec<Output>,
}

impl Core {
    pub fn new(settings: Settings, identity: Identity) -> Self {
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
            agents: BTreeMap::new(),
            left: BTreeSet::new(),
            missed: BTreeSet::new(),
            spared: BTreeMap::new(),
            wakes: BTreeSet::new(),
            queue_wakes: BTreeSet::new(),
            reloads: BTreeSet::new(),
            strays: Strays::default(),
            survey: Survey::default(),
            custody: Custody::default(),
            demand: Demand::default(),
            releasing: BTreeMap::new(),
            releasing_roles: BTreeMap::new(),
            reconciliation: Reconciliation::default(),
            roles: Roles::default(),
            out: Vec::new(),
        }
    }

    /// Roles to subscribe for.
    pub fn roles_to_subscribe(&self) -> Vec<String> {
        self.roles.to_subscribe(&self.settings.default_role)
    }

    /// Mesos has answered a change of our roles.
    pub fn roles_answered(&mut self, answer: Result<(), String>, now: i64) {
        for role in self.roles.answered(answer, now) {
            self.demand.granted(&role);
        }
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
        state.unchecked.clone_from(&self.survey.failure);
        if !self.strays.foreign().eq(state.foreign.iter().cloned()) {
            state.foreign = self.strays.foreign().collect();
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
        let thaws = pod.frozen;
        pod.frozen = view.unreadable.keys().any(|key| matches!(key, Key::Instance(..) | Key::Observed(..) | Key::Tombstone(..)));
        if pod.frozen {
            tracing::warn!(pod = %id, "a record can't be read by this build: the pod is left alone");
            let uuids: Vec<Uuid> = pod.entries.keys().copied().collect();
            for uuid in uuids {
                self.set_ready(id, uuid, None, now);
            }
            return;
        }
        let uuids = pod.join(view, revision, thaws);
        let roles = pod.definitions.values().map(|definition| definition.role.as_ref().unwrap_or(&self.settings.default_role).clone());
        // Also when nothing of the role is defined any more: what is left to give back is offered to it.
        let reserved = pod.entries.values().filter_map(|entry| entry.observed.as_ref()).filter(|observed| observed.reservation.is_some());
        let role = |one: &Observed| {
            let definition = pod.definitions.get(&one.config_ms).map(AsRef::as_ref);
            residents::role(one, definition, &self.settings.default_role).to_owned()
        };
        let roles = roles.chain(reserved.map(role)).collect();
        let before = std::mem::replace(&mut pod.roles, roles);
        self.roles.changed(&before, &pod.roles);
        for uuid in uuids {
            self.look(id, uuid, now);
        }
        self.drop_idle(id);
    }

    /// Forgets a pod that is gone. One that is wanted stays, also without any instance: an unknown one may be adopted for it.
    pub fn drop_idle(&mut self, id: &PodId) {
        let gone = |pod: &Pod| pod.config_ms == 0 && pod.entries.is_empty() && pod.waiting.is_idle() && pod.deleted.is_empty();
        let idle = self.pods.get(id).is_some_and(gone);
        if idle && let Some(pod) = self.pods.remove(id) {
            self.roles.changed(&pod.roles, &BTreeSet::new());
        }
    }

    /// Subscribed: asks which tasks run, and then about everything that has not ended.
    /// It is for these `roles`; for the `suppressed` ones nothing will be offered until it is asked for.
    pub fn subscribed(&mut self, home_region: Option<String>, roles: &[String], suppressed: &[String], now: i64) {
        self.disconnected();
        self.subscribed = true;
        self.home_region = home_region;
        self.roles.subscribed(roles);
        self.demand.reset(self.roles.granted(), suppressed);
        self.survey.begin(now);
        self.custody.holds_reconciliation = true;
        let all: Vec<(PodId, Uuid)> = self.pods.iter().flat_map(|(id, pod)| pod.entries.keys().map(|uuid| (id.clone(), *uuid))).collect();
        for (id, uuid) in all {
            if let Some(entry) = self.entry_mut(&id, uuid) {
                entry.kill.next_ms = 0;
                entry.doubtful = false;
                entry.give_back.resubscribed(now);
            }
            self.look(&id, uuid, now);
        }
    }

    /// The subscription is over, and with it every offer and everything that was not sent yet.
    pub fn disconnected(&mut self) {
        self.subscribed = false;
        self.offers.clear();
        self.left.clear();
        self.missed.clear();
        self.spared.clear();
        self.survey.stop();
        self.reconciliation.stop();
        self.roles.ended();
        for (_, slot) in std::mem::take(&mut self.slots) {
            for (id, uuid) in slot.members {
                if let Some(entry) = self.entry_mut(&id, uuid) {
                    entry.held_by = None;
                    entry.doubtful = true;
                }
            }
        }
    }

    pub(super) fn reconcile_all(&mut self, now: i64) {
        self.custody.holds_reconciliation = false;
        if !self.strays.is_empty() || self.custody.quarantine.is_some() {
            self.survey.want(now);
        }
        let entries = self.pods.values().flat_map(|pod| pod.entries.values());
        // What is being recorded has not been sent: Mesos would deny it.
        let sent = entries.filter(|entry| entry.held_by.is_none() && !matches!(entry.writing, Some(Writing::Launch { .. })));
        let tasks = sent.flat_map(|entry| {
            let agent = entry.observed.as_ref().map(|observed| observed.agent_id.clone()).unwrap_or_default();
            entry.alive().map(move |task| (task.task_id.clone(), agent.clone()))
        });
        // Of those that no record is about nothing else would tell that they have ended.
        let tasks = tasks.chain(self.strays.to_ask());
        let calls = self.reconciliation.begin(tasks.collect(), now, self.settings.reconcile_ms);
        self.out.extend(calls.into_iter().map(Output::Call));
    }

    pub fn entry_mut(&mut self, id: &PodId, uuid: Uuid) -> Option<&mut Entry> {
        self.pods.get_mut(id)?.entries.get_mut(&uuid)
    }

    /// The roles in which nothing waits for an offer.
    pub fn idle_roles(&self) -> Vec<String> {
        self.roles_to_subscribe().into_iter().filter(|role| !self.role_waits(role)).collect()
    }

    pub fn role_waits(&self, role: &str) -> bool {
        self.ready_roles.contains_key(role) || self.releasing_roles.contains_key(role)
    }

    /// Roles in which offers are of use.
    fn wanted_roles(&self) -> BTreeSet<String> {
        self.ready_roles.keys().chain(self.releasing_roles.keys()).cloned().collect()
    }

    pub(super) fn kills_blocked(&self) -> bool {
        self.cut_off || !self.survey.done || self.custody.quarantine.is_some() || self.strays.any_raising()
    }

    /// Does what is due about one instance.
    pub fn look(&mut self, id: &PodId, uuid: Uuid, now: i64) {
        let (blocked, subscribed) = (self.kills_blocked(), self.subscribed);
        let Some(pod) = self.pods.get_mut(id).filter(|pod| !pod.frozen) else { return };
        let Some(entry) = pod.entries.get_mut(&uuid) else { return };
        list(&mut self.agents, id, uuid, entry);
        entry.end_adoption(pod.is_gone);
        let mut groups: Vec<Group> = entry.write_update(id, uuid, now).into_iter().collect();
        let due = entry.due(now, &self.settings);
        let mut wake = due.wake;
        // A task of the instance runs that the store does not know: no launch beside it, and no id twice.
        let waits = due.waits && self.strays.of_instance(id, uuid).next().is_none();
        if due.delete {
            groups.push(entry.write_delete(id, uuid));
        }
        self.out.extend(groups.into_iter().map(|group| Output::Write(Token::Observed(id.clone(), uuid), group)));
        if due.ask && subscribed {
            self.out.extend(entry.ask(now, self.settings.launch_confirm_ms).map(Output::Call));
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
        let adopted = entry.observed.as_ref().is_some_and(|observed| observed.adopted);
        if entry.is_orphaned() && !adopted && entry.writing.is_none() && entry.reload.is_none() {
            let agent = entry.observed.as_ref().map(|observed| observed.agent_id.clone()).filter(|agent| !agent.is_empty());
            for task in entry.alive() {
                let state = task.state.and_then(|state| TaskState::try_from(state).ok()).unwrap_or(TaskState::TaskStaging);
                if let Ok(task) = task.task_id.parse::<TaskId>()
                    && self.strays.get(&task).is_none()
                {
                    self.strays.show(&task, agent.clone(), state, None, Why::Unlabelled);
                    self.survey.want(now);
                }
            }
        } else if entry.is_durable() && self.strays.of_instance(id, uuid).next().is_some() {
            // Not before: were the write to fail, the tasks would be nobody's, and a quarantine could end.
            let tasks = entry.observed.iter().flat_map(|observed| &observed.tasks);
            tasks.filter_map(|task| task.task_id.parse().ok()).for_each(|task| self.strays.recognise(&task, adopted));
        }
        let old = std::mem::replace(&mut entry.wake, wake);
        if old != wake {
            old.map(|old| self.wakes.remove(&(old, id.clone(), uuid)));
            wake.map(|wake| self.wakes.insert((wake, id.clone(), uuid)));
        }
        let waiting = entry.instance.as_ref().filter(|_| waits).map(|held| {
            let config = held.value.config_ms;
            let definition = pod.definitions.get(&config).map(AsRef::as_ref);
            // What is not reserved for sure may begin anew, as it is defined now.
            let stays = |one: &&Observed| residence::of(one).is_some_and(|residence| residence.is_made);
            let resident = definition.is_some_and(PodDefinition::is_resident);
            let reserved = entry.observed.as_ref().filter(stays).filter(|_| resident);
            let role = reserved.map(|one| residents::role(one, definition, &self.settings.default_role));
            let role = role.or_else(|| definition?.role.as_deref()).unwrap_or(&self.settings.default_role);
            (config, role.to_owned())
        });
        let releasing = entry.observed.as_ref().filter(|_| due.release).map(|one| {
            let definition = pod.definitions.get(&one.config_ms).map(AsRef::as_ref);
            residents::role(one, definition, &self.settings.default_role).to_owned()
        });
        entry.give_back.follow(due.release, entry.instance.is_some(), now);
        // A refused record rests although nothing is left of it: what wanted it would write it again at once.
        if entry.is_empty() && entry.rest_until_ms <= now {
            pod.entries.remove(&uuid);
        }
        self.set_releasing(id, uuid, releasing);
        self.set_ready(id, uuid, waiting, now);
    }

    /// An instance waits, as of this config and in this role, or does not.
    fn set_ready(&mut self, id: &PodId, uuid: Uuid, waits: Option<(i64, String)>, now: i64) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let known = pod.ready.iter().find(|(_, uuids)| uuids.contains(&uuid)).map(|(waited, _)| waited.clone());
        if known == waits {
            return;
        }
        if let Some(known) = known.filter(|known| pod.no_longer_ready(known, uuid)) {
            let left = self.ready_roles.get(&known.1).copied().unwrap_or(0).saturating_sub(1);
            self.ready_roles.insert(known.1, left);
            self.ready_roles.retain(|_, count| *count > 0);
        }
        if let Some((config, role)) = waits {
            if pod.definitions.contains_key(&config) {
                self.demand.ask(&role);
                let ready = pod.ready.entry((config, role.clone())).or_default();
                if ready.is_empty() {
                    *self.ready_roles.entry(role).or_default() += 1;
                }
                ready.insert(uuid);
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
        self.keep_records(now);
        if self.subscribed {
            if let Some(round) = self.survey.due(now) {
                self.strays.asked();
                self.out.push(Output::Survey(round));
            }
            self.carry_out_orders(now);
            self.reconcile_when_kept(now);
            let mut calls = if self.kills_blocked() { Vec::new() } else { self.strays.due(now) };
            if !self.cut_off {
                calls.extend(self.strays.ordered_kills(now));
            }
            self.out.extend(calls.into_iter().map(Output::Call));
            if self.reconciliation.is_full_due(now) {
                self.reconcile_all(now);
            } else {
                let calls = self.reconciliation.retry(now, self.settings.reconcile_ms);
                self.out.extend(calls.into_iter().map(Output::Call));
            }
            self.update_roles(now);
            let wanted = self.wanted_roles();
            let calls = self.demand.due(&wanted, now, self.settings.min_revive_ms);
            self.out.extend(calls.into_iter().map(Output::Call));
        }
        self.write_queues(now);
    }

    /// Asks for roles that we are not subscribed for. What is suppressed stays so, and what it adds is not yet.
    fn update_roles(&mut self, now: i64) {
        let Some(more) = self.roles.due(now).map(<[String]>::to_vec) else { return };
        let roles = self.roles.granted().iter().cloned().chain(more).collect();
        self.call(Call::UpdateRoles { roles, suppressed: self.demand.suppressed() });
    }

    fn write_queues(&mut self, now: i64) {
        while let Some((_, id)) = self.queue_wakes.first().filter(|(at, _)| *at <= now).cloned() {
            self.queue_wakes.pop_first();
            let Some(pod) = self.pods.get_mut(&id) else { continue };
            let count = pod.ready_count();
            let key = Key::Queue(id.clone());
            let refusal = pod.ready.keys().find_map(|(_, role)| self.roles.refusal(role));
            let op = pod.waiting.write(count, refusal, now).map(|write| match write {
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
        let wanted = self.wanted_roles();
        let demand = self.demand.next_wake(&wanted, self.settings.min_revive_ms).filter(|_| self.subscribed);
        let strays = self.strays.next_wake().filter(|_| self.subscribed && !self.kills_blocked());
        let ordered = self.strays.next_ordered().filter(|_| self.subscribed && !self.cut_off);
        let survey = self.survey.next_wake().filter(|_| self.subscribed);
        let entry = self.wakes.first().map(|(at, ..)| *at);
        let queue = self.queue_wakes.first().map(|(at, _)| *at);
        let roles = self.roles.next_wake();
        let rest = [entry, queue, roles, demand, strays, ordered, survey, self.reconciliation.next_wake(), self.next_record()];
        rest.into_iter().flatten().min()
    }
}

/// Lists an instance by its agent, as its record names it.
fn list(agents: &mut BTreeMap<String, BTreeSet<(PodId, Uuid)>>, id: &PodId, uuid: Uuid, entry: &mut Entry) {
    let now = entry.observed.as_ref().map_or("", |observed| observed.agent_id.as_str());
    if entry.agent_id == now {
        return;
    }
    if let Some(there) = agents.get_mut(&entry.agent_id) {
        there.remove(&(id.clone(), uuid));
        if there.is_empty() {
            agents.remove(&entry.agent_id);
        }
    }
    if !now.is_empty() {
        agents.entry(now.to_owned()).or_default().insert((id.clone(), uuid));
    }
    entry.agent_id = now.to_owned();
}
