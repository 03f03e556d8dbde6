//! Instances with persistent volumes: launched for the first time, they reserve what they use; from then on they wait for it and
//! for nothing else; and when they are gone, it is given back and their data with it.
//!
//! What an instance has reserved stands in its record (`observed.reservation`) before the RESERVE is sent, and in the labels of
//! what is offered ([`podium_mesos::reservation`]). The record outlives the instance until Mesos has taken everything back, so
//! that a new leader goes on with that, and its role goes on getting offers. During a quarantine nothing is given back; what the
//! labels call later than the store is the reason for one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podium_mesos::matching::{Claim, Holding, Placed, Slot, Waiting};
use podium_mesos::reservation::{self, Maker, Owner};
use podium_proto::mesos::v1::Resource;
use podium_proto::mesos::v1::offer::Operation;
use podium_proto::records::observed::{Reservation, reservation as recorded};
use podium_proto::records::{Observed, Quarantine};
use podium_types::definition::PodDefinition;
use podium_types::id::{InstanceId, PodId};
use podium_types::residence::{self, Residence};
use uuid::Uuid;

use super::core::Core;
use super::entry::Entry;
use super::framework;
use super::pod::Pod;

/// What an ended instance has reserved is offered within this time, if it is there and its agent too.
const OFFERED_WITHIN_MS: i64 = 60_000;

/// What Mesos has not taken back is offered again within this time: then it is asked again, ever more slowly.
const AGAIN_WITHIN_MS: i64 = 5_000;

/// Between two attempts to give the same back, at most.
const LONGEST_PAUSE_MS: i64 = 600_000;

/// After so many attempts it is said that they are in vain.
const ENOUGH_ATTEMPTS: u32 = 3;

/// What was reserved on an agent of which nothing was heard for so long is looked for no more.
const GIVEN_UP_AFTER_MS: i64 = 30 * 24 * 3_600_000;

/// How what an instance has reserved is given back; all by our own clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GiveBack {
    /// Since when it is looked for; 0: it is not.
    since_ms: i64,
    /// When the operations were last sent; 0: they were not.
    sent_ms: i64,
    /// The same of those about what it had itself, and not an earlier launch of it.
    own_sent_ms: i64,
    /// How often they were sent.
    attempts: u32,
}

impl GiveBack {
    /// The instance is gone and has something to give back, or is there.
    pub fn follow(&mut self, begins: bool, is_there: bool, now: i64) {
        if is_there {
            self.since_ms = 0;
        } else if begins && self.since_ms == 0 {
            // What was asked for before it was there again says nothing of what it has now.
            *self = Self { since_ms: now, ..Self::default() };
        }
    }

    /// Over a new subscription: what was sent over the last one may have been lost, and says nothing of what Mesos refuses.
    pub fn resubscribed(&mut self, now: i64) {
        *self = Self { since_ms: if self.since_ms == 0 { 0 } else { now }, ..Self::default() };
    }

    /// Whether it is time to send them, again or for what this pass offers beside.
    fn is_due(&self, now: i64) -> bool {
        let pause = self.attempts.checked_sub(1).map_or(0, |doublings| AGAIN_WITHIN_MS.saturating_mul(1 << doublings.min(10)));
        now == self.sent_ms || now >= self.sent_ms.saturating_add(pause.min(LONGEST_PAUSE_MS))
    }

    fn sent(&mut self, is_its_own: bool, now: i64) {
        self.attempts = self.attempts.saturating_add(u32::from(self.sent_ms != now));
        self.sent_ms = now;
        if is_its_own {
            self.own_sent_ms = now;
        }
    }

    /// Whether whatever is offered for it would have been offered by now.
    fn is_over(&self, now: i64) -> bool {
        let since = |at: i64, time: i64| at > 0 && now >= at.saturating_add(time);
        since(self.own_sent_ms, AGAIN_WITHIN_MS) || since(self.since_ms, OFFERED_WITHIN_MS)
    }
}

/// An instance that waits for what is reserved for it.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub next: Waiting,
    instance: String,
    agent_id: String,
    incarnation: u32,
    /// It may go elsewhere if that is not offered: perhaps it was never reserved.
    pub may_move: bool,
}

impl Bound {
    pub fn claim<'a>(&'a self, definition: &'a PodDefinition, role: &'a str) -> Claim<'a> {
        let Bound { next, instance, agent_id, incarnation, .. } = self;
        Claim { definition, role, instance, next: *next, agent_id, incarnation: *incarnation }
    }
}

/// What is to become of something that is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Undo,
    /// The store does not know its instance, and is older than it.
    Ahead,
}

/// By instance: the launches that reserved for it and the agents where that is, as this pass' offers tell.
pub(super) type Shown = HashMap<String, BTreeSet<(u32, String)>>;

impl Core {
    /// What the slots hold of this store's instances.
    pub(super) fn shown_holdings(&self, slots: &[Slot]) -> Shown {
        let ours = slots.iter().flat_map(|slot| slot.holdings().iter().map(move |holding| (slot, &holding.owner)));
        let ours = ours.filter(|(_, owner)| owner.cluster_id == self.identity.cluster_id);
        let mut shown = Shown::new();
        for (slot, owner) in ours {
            shown.entry(owner.instance.clone()).or_default().insert((owner.incarnation, slot.agent_id.clone()));
        }
        shown
    }

    /// What the slots hold for instances that are gone: by slot, the operations that give it back.
    pub(super) fn give_back(&mut self, slots: &[Slot], revision: i64, now: i64) -> BTreeMap<usize, Vec<Operation>> {
        let mut operations: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
        self.note_ahead(slots, revision);
        if self.kills_blocked() {
            return operations;
        }
        for (index, slot) in slots.iter().enumerate() {
            for holding in slot.holdings() {
                match self.fate(&holding.owner, revision) {
                    Fate::Keep => {}
                    Fate::Undo if self.asks_back(holding, slot, now) => {
                        operations.entry(index).or_default().extend(reservation::undo(&holding.resources));
                    }
                    // Mesos has refused it, and others may use the rest of the offer meanwhile.
                    Fate::Undo => {}
                    Fate::Ahead => self.begin_quarantine(&holding.owner, now),
                }
            }
        }
        self.note_gone(slots, now);
        operations
    }

    fn fate(&self, owner: &Owner, revision: i64) -> Fate {
        let Ok(instance) = owner.instance.parse::<InstanceId>() else { return Fate::Keep };
        if owner.cluster_id != self.identity.cluster_id {
            return Fate::Keep;
        }
        let pod = self.pods.get(&instance.pod);
        if pod.is_some_and(|pod| pod.frozen) {
            return Fate::Keep;
        }
        match pod.and_then(|pod| pod.entries.get(&instance.uuid)) {
            None if owner.framework_id != self.identity.framework_id => Fate::Keep,
            None if self.is_ahead(owner, revision) => Fate::Ahead,
            // Its record ends only when what it had was given back: a store that does not know it has perhaps lost it.
            None => Fate::Keep,
            Some(entry) => entry.fate(owner.incarnation),
        }
    }

    /// Whether what a later state of this store has reserved is vouched for by nobody. Its instance is not known.
    fn is_ahead(&self, owner: &Owner, revision: i64) -> bool {
        owner.revision > revision.max(self.custody.vouched_revision)
    }

    /// How far ahead of the store what is reserved is, also as seen during the quarantine that begins by it: an operator's word is
    /// about all of that.
    fn note_ahead(&mut self, slots: &[Slot], revision: i64) {
        let ours = |owner: &&Owner| {
            let instance = owner.instance.parse::<InstanceId>().ok();
            let is_unknown = |id: &InstanceId| self.pods.get(&id.pod).is_none_or(|pod| !pod.frozen && !pod.entries.contains_key(&id.uuid));
            owner.cluster_id == self.identity.cluster_id
                && owner.framework_id == self.identity.framework_id
                && instance.is_some_and(|instance| is_unknown(&instance))
        };
        let owners = slots.iter().flat_map(Slot::holdings).map(|holding| &holding.owner).filter(ours);
        let newest = owners.filter(|owner| self.is_ahead(owner, revision)).map(|owner| owner.revision).max();
        let Some(newest) = newest else { return };
        self.custody.ahead_revision = self.custody.ahead_revision.max(newest);
    }

    /// A store that is older than what was reserved has perhaps forgotten instances, and their data must not go.
    fn begin_quarantine(&mut self, owner: &Owner, now: i64) {
        if self.custody.quarantine.is_some() {
            return;
        }
        let reason = format!(
            "disk is reserved for {}, by a later state of this store, at revision {}: is this a restored backup?",
            owner.instance, owner.revision
        );
        tracing::error!(
            reason,
            "quarantine: nothing is killed, scaled down or given back until an operator says that all is as it should be"
        );
        self.custody.quarantine = Some(Quarantine { reason, since_ms: now, ..Quarantine::default() });
        self.keep_records(now);
    }

    /// Whether Mesos is asked now to take this back. That it was asked in vain is said, and recorded once.
    fn asks_back(&mut self, holding: &Holding, slot: &Slot, now: i64) -> bool {
        let Ok(instance) = holding.owner.instance.parse::<InstanceId>() else { return false };
        let Some(entry) = self.entry_mut(&instance.pod, instance.uuid).filter(|entry| entry.give_back.is_due(now)) else { return false };
        let attempts = entry.give_back.attempts;
        let is_its_own = entry.has_reserved(holding);
        entry.give_back.sent(is_its_own, now);
        let in_vain = attempts >= ENOUGH_ATTEMPTS;
        if in_vain {
            tracing::warn!(
                %instance, agent = slot.agent_id, attempts,
                "Mesos does not take back what was reserved for an instance that is gone: may our principal destroy volumes and unreserve?"
            );
        } else {
            tracing::info!(%instance, agent = slot.agent_id, "Mesos is asked to take back what was reserved for an instance that is gone");
        }
        if entry.note_asked(holding, slot, in_vain.then_some(attempts)) {
            self.look(&instance.pod, instance.uuid, now);
        }
        true
    }

    /// Ends the records of instances of which their agents offer nothing any more. Nobody waits for the agents of earlier launches,
    /// which have perhaps reserved nothing: what one of them offers after that is left to people.
    fn note_gone(&mut self, slots: &[Slot], now: i64) {
        if self.releasing.is_empty() {
            return;
        }
        let shown = self.shown_holdings(slots);
        let gone = |id: &PodId, uuid: Uuid, role: &str| {
            let entry = self.pods.get(id)?.entries.get(&uuid)?;
            let reservation = entry.observed.as_ref()?.reservation.as_ref()?;
            let instance = InstanceId { pod: id.clone(), uuid }.to_string();
            let at = slots.binary_search_by(|slot| (slot.agent_id.as_str(), slot.role.as_str()).cmp(&(&reservation.agent_id, role))).ok();
            let ended = entry.ended_ms();
            let given_up = ended > 0 && now >= ended.saturating_add(GIVEN_UP_AFTER_MS);
            (!shown.contains_key(&instance) && ((at.is_some() && entry.give_back.is_over(now)) || given_up)).then_some(())
        };
        let all: Vec<(PodId, Uuid)> =
            self.releasing.iter().filter(|((id, uuid), role)| gone(id, *uuid, role).is_some()).map(|(key, _)| key.clone()).collect();
        for (id, uuid) in all {
            if let Some(entry) = self.entry_mut(&id, uuid) {
                entry.is_released = true;
            }
            self.look(&id, uuid, now);
        }
    }

    /// What an instance has reserved is to be given back in this role, or not any more.
    pub(super) fn set_releasing(&mut self, id: &PodId, uuid: Uuid, role: Option<String>) {
        let key = (id.clone(), uuid);
        let old = match &role {
            Some(role) => self.releasing.insert(key, role.clone()),
            None => self.releasing.remove(&key),
        };
        if old == role {
            return;
        }
        if let Some(old) = old {
            let left = self.releasing_roles.get(&old).copied().unwrap_or(0).saturating_sub(1);
            self.releasing_roles.insert(old, left);
            self.releasing_roles.retain(|_, count| *count > 0);
        }
        if let Some(role) = role {
            self.demand.ask(&role);
            *self.releasing_roles.entry(role).or_default() += 1;
        }
    }

    /// Reserves what an instance was placed on: what it uses from then on, the operations that make it so, and what is to be
    /// recorded of it.
    pub(super) fn reserve(
        &self,
        definition: &PodDefinition,
        instance: &InstanceId,
        incarnation: u32,
        slot: &Slot,
        placed: &mut Placed,
        revision: i64,
    ) -> Vec<Operation> {
        let owner = Owner {
            instance: instance.to_string(),
            framework_id: self.identity.framework_id.clone(),
            cluster_id: self.identity.cluster_id.clone(),
            incarnation,
            revision,
        };
        let principal = framework::principal(&self.settings);
        let maker = Maker { owner: &owner, role: &slot.role, principal: principal.as_deref() };
        let reserve = |resources: &mut Vec<Resource>| resources.iter_mut().for_each(|resource| *resource = maker.reserved(resource));
        reserve(&mut placed.executor_resources);
        placed.task_resources.iter_mut().for_each(reserve);
        for (volume, (name, _)) in placed.volumes.iter_mut().zip(definition.persistent_volumes()) {
            *volume = maker.volume(&maker.reserved(volume), name, &reservation::persistence_id(instance, name, incarnation));
        }
        reservation::make(placed.executor_resources.iter().chain(placed.task_resources.iter().flatten()).chain(&placed.volumes))
    }
}

/// What is recorded of the resources that an instance is launched on.
pub(super) fn record(placed: &Placed, slot: &Slot) -> Option<Reservation> {
    let owner = placed.volumes.iter().find_map(Owner::of)?;
    let volume = |resource: &Resource| {
        let disk = resource.disk.as_ref()?;
        Some(recorded::Volume { name: disk.volume.as_ref()?.container_path.clone(), persistence_id: disk.persistence.as_ref()?.id.clone() })
    };
    Some(Reservation {
        agent_id: slot.agent_id.clone(),
        hostname: slot.facts.hostname.clone(),
        incarnation: owner.incarnation,
        made: placed.is_reserved,
        volumes: placed.volumes.iter().filter_map(volume).collect(),
        asked_in_vain: 0,
    })
}

/// What is reserved for an instance that is taken on while it runs on this agent, by its older record. One that names another
/// agent is older than a move; then, and without any, its labels tell by which launch it was reserved.
pub(super) fn taken_on(old: Option<Reservation>, agent_id: &str, definition: Option<&PodDefinition>) -> Option<Reservation> {
    let unsaid = || Reservation { agent_id: agent_id.to_owned(), made: true, ..Reservation::default() };
    let is_resident = old.is_some() || definition.is_some_and(PodDefinition::is_resident);
    // One that is not known to be made may be of a launch that never came to be.
    let kept = old.filter(|known| agent_id.is_empty() || (known.agent_id == agent_id && known.made));
    kept.or_else(|| (is_resident && !agent_id.is_empty()).then(unsaid))
}

/// The role of what was launched: as recorded, or, where it was taken on without that, as defined.
pub(super) fn role<'a>(observed: &'a Observed, definition: Option<&'a PodDefinition>, default: &'a str) -> &'a str {
    let recorded = Some(observed.role.as_str()).filter(|role| !role.is_empty());
    recorded.or_else(|| definition?.role.as_deref()).unwrap_or(default)
}

/// Of these waiting instances of a pod with persistent volumes: those that have resources of their own, and the others.
pub(super) fn part(id: &PodId, pod: &Pod, waiting: Vec<Waiting>, shown: &Shown) -> (Vec<Bound>, Vec<Waiting>) {
    let mut bound = Vec::new();
    let free = waiting.into_iter().filter(|next| {
        let instance = InstanceId { pod: id.clone(), uuid: next.instance }.to_string();
        let observed = pod.entries.get(&next.instance).and_then(|entry| entry.observed.as_ref());
        let held = shown.get(&instance);
        let one = match observed.and_then(residence::of) {
            Some(residence) => Bound {
                next: *next,
                instance,
                agent_id: whereabouts(&residence, held).to_owned(),
                incarnation: residence.incarnation,
                may_move: !residence.is_made,
            },
            // Its record is lost, and not what is reserved for it; the newest of that was in use.
            None => match held.and_then(BTreeSet::last) {
                Some((incarnation, agent_id)) if observed.is_none() => {
                    Bound { next: *next, agent_id: agent_id.clone(), incarnation: *incarnation, instance, may_move: false }
                }
                _ => return true,
            },
        };
        bound.push(one);
        false
    });
    let free = free.collect();
    (bound, free)
}

/// The agent that has what is reserved for an instance: the recorded one, but where another shows it, which may be the same
/// machine under a new id.
fn whereabouts<'a>(residence: &Residence<'a>, held: Option<&'a BTreeSet<(u32, String)>>) -> &'a str {
    let fits = |launch: u32| residence.incarnation == 0 || launch == residence.incarnation;
    let agents = || held.into_iter().flatten().filter(|(launch, _)| fits(*launch)).map(|(_, agent_id)| agent_id.as_str());
    if agents().any(|agent_id| agent_id == residence.agent_id) {
        residence.agent_id
    } else {
        agents().next_back().unwrap_or(residence.agent_id)
    }
}

impl Entry {
    /// What is reserved for it is to be given back before its record may go.
    pub fn holds(&self) -> bool {
        !self.is_released && self.observed.as_ref().is_some_and(|observed| observed.reservation.is_some())
    }

    /// Whether this is what its record tells of, or is later than that, and not of an earlier launch.
    fn has_reserved(&self, holding: &Holding) -> bool {
        let reservation = self.observed.as_ref().and_then(|observed| observed.reservation.as_ref());
        reservation.is_some_and(|reservation| holding.owner.incarnation >= reservation.incarnation)
    }

    /// Notes where what it had is given back, and that this was asked in vain; whether that is news.
    fn note_asked(&mut self, holding: &Holding, slot: &Slot, in_vain: Option<u32>) -> bool {
        let is_its_own = self.has_reserved(holding);
        let reservation = self.observed.as_mut().filter(|_| self.instance.is_none()).and_then(|observed| observed.reservation.as_mut());
        let Some(reservation) = reservation else { return false };
        let before = reservation.clone();
        if is_its_own {
            // Perhaps under another id than then: it is there that nothing must be left.
            reservation.agent_id.clone_from(&slot.agent_id);
            reservation.incarnation = holding.owner.incarnation;
        }
        if reservation.asked_in_vain == 0 {
            reservation.asked_in_vain = in_vain.unwrap_or(0);
        }
        let is_news = *reservation != before;
        self.dirty |= is_news;
        is_news
    }

    /// When the last of its tasks ended, by the clock of its agent.
    fn ended_ms(&self) -> i64 {
        let observed = self.observed.as_ref();
        observed.map_or(0, |observed: &Observed| observed.tasks.iter().map(|task| task.since_ms).max().unwrap_or(observed.provisioned_ms))
    }

    /// Scaling has written down what was taken on, and it has ended: an instance as any other, which may go and give back what
    /// it has. Before, its labels need the operator's word. Where its pod has gone meanwhile, scaling never will: it is nobody's.
    pub fn end_adoption(&mut self, pod_is_gone: bool) {
        let is_counted = |observed: &Observed| self.instance.as_ref().is_some_and(|held| held.value.incarnation >= observed.incarnation);
        let has_ended = |observed: &Observed| is_counted(observed) && self.alive().next().is_none();
        let is_nobodys = pod_is_gone && self.is_taken_on();
        let ends = self.observed.as_ref().is_some_and(|observed| observed.adopted && (is_nobodys || has_ended(observed)));
        if ends && self.reload.is_none() {
            self.observed.iter_mut().for_each(|observed| observed.adopted = false);
            self.dirty = true;
        }
    }

    /// Of something that an earlier launch of it reserved.
    fn fate(&self, incarnation: u32) -> Fate {
        if self.writing.is_some() || self.reload.is_some() || self.held_by.is_some() || self.dirty {
            return Fate::Keep;
        }
        let lives = self.is_wanted() || self.tombstone.is_some() || self.alive().next().is_some();
        match self.observed.as_ref().and_then(residence::of) {
            // It has begun anew elsewhere, since Mesos had said nothing of what was reserved here.
            Some(residence) if lives && residence.is_made && residence.incarnation > incarnation => Fate::Undo,
            _ if lives => Fate::Keep,
            _ if self.is_taken_on() => Fate::Keep,
            _ => Fate::Undo,
        }
    }
}
