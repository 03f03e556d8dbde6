//! What the index holds, and how one event changes it. Synchronous and pure: no store, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use podium_proto::records::{Framework, Order, Quarantine};
use podium_types::id::PodId;
use uuid::Uuid;

use super::Position;
use crate::codec::{self, DecodeError, Record};
use crate::key::{Key, Kind};
use crate::view::{Deletion, Held, PodView, StoredDefinition, next_stamp};

/// Everything under the prefix, at one revision.
#[derive(Debug, Default)]
pub struct IndexState {
    pods: BTreeMap<PodId, PodView>,
    framework: Option<Held<Framework>>,
    framework_unreadable: bool,
    /// Every pod's view holds it too.
    quarantine: Option<Arc<Held<Quarantine>>>,
    orders: BTreeMap<Uuid, Held<Order>>,
    /// By name, at most [`MAX_STRAYS`].
    strays: BTreeMap<String, Stray>,
    /// By election, then by create revision and lease: the first candidate leads.
    elections: BTreeMap<String, BTreeMap<(i64, i64), Candidate>>,
    pub(super) revision: i64,
    pub(super) generation: u64,
    pub(super) cluster_id: u64,
    pub(super) mark: Option<Mark>,
}

/// The newest event under the prefix that is known, other people's keys included: by it the history is known again.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub key: Vec<u8>,
    /// Of the event. After a list nothing is known of deletions: the newest one may be later.
    pub revision: i64,
    pub is_deletion: bool,
}

/// Specs under names that are no pod ids, of which the index takes note; there are none but by mistake.
const MAX_STRAYS: usize = 1_000;

/// A spec under a name that is no pod id, and the status that tells its author.
#[derive(Debug, Clone, Default)]
pub struct Stray {
    /// The spec's `mod_revision`; `None`: it is gone.
    pub spec: Option<i64>,
    /// The status as last written.
    pub status: Option<Held<Bytes>>,
}

/// One process that stands for one election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The lease of its process.
    pub lease: i64,
    /// When it began to stand; the fence of its writes.
    pub create_revision: i64,
    /// Who it is, for people.
    pub identity: Bytes,
}

/// What one step changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Of each pod, the kinds of keys that changed.
    pub pods: HashMap<PodId, Kinds>,
    pub elections: BTreeSet<String>,
    pub strays: bool,
    pub framework: bool,
    pub orders: bool,
    /// Another store, or an older state of the same, has taken the place of what was known.
    pub replaced: bool,
}

/// A set of kinds of keys: which changes somebody wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    /// Every kind.
    pub const ALL: Self = Self(u32::MAX);

    /// Every kind of key that belongs to a pod.
    pub const PODS: Self = Self::ALL.without(Kind::Election).without(Kind::Framework).without(Kind::Stray).without(Kind::Order);

    /// These kinds.
    pub fn of(kinds: &[Kind]) -> Self {
        kinds.iter().fold(Self::default(), |all, kind| all.with(*kind))
    }

    /// This kind as well.
    #[must_use]
    pub fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// Every kind but this one.
    #[must_use]
    pub const fn without(self, kind: Kind) -> Self {
        Self(self.0 & !(1 << kind as u8))
    }

    /// Whether any kind is in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether this kind is in it.
    pub fn has(self, kind: Kind) -> bool {
        self.meets(Self::default().with(kind))
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl IndexState {
    /// One pod; `None`: no key of it exists.
    pub fn pod(&self, id: &PodId) -> Option<&PodView> {
        self.pods.get(id)
    }

    /// Every pod, by id. Deleted ones with a history are among them.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &PodView> {
        self.pods.values()
    }

    /// Specs under names that are no pod ids, by name: `/My_Pod`.
    pub fn strays(&self) -> &BTreeMap<String, Stray> {
        &self.strays
    }

    /// Who we are to Mesos.
    pub fn framework(&self) -> Option<&Held<Framework>> {
        self.framework.as_ref()
    }

    /// Whether there is a framework record that this build can't read; then nothing may be decided about it.
    pub fn framework_is_unreadable(&self) -> bool {
        self.framework_unreadable
    }

    /// Why nothing may be killed or scaled down. One that this build can't read is one all the same.
    pub fn quarantine(&self) -> Option<&Held<Quarantine>> {
        self.quarantine.as_deref()
    }

    /// What operators want done about unknown tasks.
    pub fn orders(&self) -> &BTreeMap<Uuid, Held<Order>> {
        &self.orders
    }

    /// The leader of an election: the candidate of the lowest create revision.
    pub fn leader(&self, election: &str) -> Option<&Candidate> {
        self.elections.get(election)?.values().next()
    }

    /// All candidates of an election, the leader first.
    pub fn candidates(&self, election: &str) -> impl Iterator<Item = &Candidate> {
        self.elections.get(election).into_iter().flat_map(BTreeMap::values)
    }

    /// The names of all elections that have a candidate.
    pub fn elections(&self) -> impl Iterator<Item = &str> {
        self.elections.keys().map(String::as_str)
    }

    /// The revision that all of this is of. Other people's keys do not move it.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision of the newest event under the prefix that is known; 0: of none.
    pub fn newest_event(&self) -> i64 {
        self.mark.as_ref().map_or(0, |mark| mark.revision)
    }

    /// Grows when the store was found to be another one, or an older state of the same (a restored backup).
    /// Revisions of two generations say nothing about each other.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// etcd's own id of the cluster.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Revision and generation in one.
    pub fn position(&self) -> Position {
        Position { revision: self.revision, generation: self.generation }
    }

    /// Applies a put. The same again changes nothing.
    pub(super) fn put(&mut self, key: Key, value: Bytes, mod_revision: i64, create_revision: i64, changed: &mut Changed) {
        changed.note(&key);
        let held = Held { value, mod_revision, create_revision };
        match key {
            Key::Framework => match codec::decode(&held.value) {
                Ok(value) => {
                    self.framework = Some(Held { value, mod_revision, create_revision });
                    self.framework_unreadable = false;
                }
                Err(error) => {
                    complain(&Key::Framework, &error);
                    self.framework = None;
                    self.framework_unreadable = true;
                }
            },
            Key::Quarantine => {
                let value = codec::decode(&held.value).unwrap_or_else(|error| {
                    complain(&Key::Quarantine, &error);
                    Quarantine { reason: format!("the key `quarantine` can't be read by this build: {error}"), ..Quarantine::default() }
                });
                self.set_quarantine(Some(Held { value, mod_revision, create_revision }), changed);
            }
            Key::Order(uuid) => match codec::decode(&held.value) {
                Ok(value) => drop(self.orders.insert(uuid, Held { value, mod_revision, create_revision })),
                Err(error) => {
                    complain(&Key::Order(uuid), &error);
                    self.orders.remove(&uuid);
                }
            },
            Key::StraySpec(name) => {
                if let Some(stray) = self.stray(name) {
                    stray.spec = Some(mod_revision);
                }
            }
            Key::StrayStatus(name) => {
                if let Some(stray) = self.stray(name) {
                    stray.status = Some(held);
                }
            }
            Key::Election(name, lease) => {
                let candidate = Candidate { lease, create_revision, identity: held.value };
                let candidates = self.elections.entry(name).or_default();
                candidates.retain(|(_, other), _| *other != lease);
                candidates.insert((create_revision, lease), candidate);
            }
            key => {
                let Some(id) = key.pod() else { return };
                let fresh = || PodView { quarantine: self.quarantine.clone(), ..PodView::new(id.clone()) };
                self.pods.entry(id.clone()).or_insert_with(fresh).put(&key, held);
            }
        }
    }

    /// It concerns every pod, and so every pod is named.
    fn set_quarantine(&mut self, quarantine: Option<Held<Quarantine>>, changed: &mut Changed) {
        self.quarantine = quarantine.map(Arc::new);
        for (id, view) in &mut self.pods {
            view.quarantine.clone_from(&self.quarantine);
            view.stamp = next_stamp();
            changed.note_pod(id, Kind::Quarantine);
        }
    }

    /// The stray of this name, unless there are too many.
    fn stray(&mut self, name: String) -> Option<&mut Stray> {
        match self.strays.len() < MAX_STRAYS {
            true => Some(self.strays.entry(name).or_default()),
            false => self.strays.get_mut(&name),
        }
    }

    fn forget_stray(&mut self, name: &str, forget: impl FnOnce(&mut Stray)) {
        if let Some(stray) = self.strays.get_mut(name) {
            forget(stray);
            if stray.spec.is_none() && stray.status.is_none() {
                self.strays.remove(name);
            }
        }
    }

    /// Applies a deletion. An absent key is no error.
    pub(super) fn delete(&mut self, key: &Key, changed: &mut Changed) {
        changed.note(key);
        match key {
            Key::Framework => {
                self.framework = None;
                self.framework_unreadable = false;
            }
            Key::Quarantine => self.set_quarantine(None, changed),
            Key::Order(uuid) => drop(self.orders.remove(uuid)),
            Key::StraySpec(name) => self.forget_stray(name, |stray| stray.spec = None),
            Key::StrayStatus(name) => self.forget_stray(name, |stray| stray.status = None),
            Key::Election(name, lease) => {
                if let Some(candidates) = self.elections.get_mut(name) {
                    candidates.retain(|(_, other), _| other != lease);
                    if candidates.is_empty() {
                        self.elections.remove(name);
                    }
                }
            }
            key => {
                let Some(id) = key.pod() else { return };
                if let Some(pod) = self.pods.get_mut(id) {
                    pod.delete(key);
                    if pod.is_empty() {
                        self.pods.remove(id);
                    }
                }
            }
        }
    }

    /// What differs between two states of one store. The pods are compared by the revisions of their keys.
    pub(super) fn difference(&self, other: &Self) -> Changed {
        let mut changed = Changed::default();
        for id in self.pods.keys().chain(other.pods.keys()) {
            let kinds = match (self.pods.get(id), other.pods.get(id)) {
                (Some(a), Some(b)) => differing_kinds(a, b),
                (Some(one), None) | (None, Some(one)) => differing_kinds(one, &PodView::new(id.clone())),
                (None, None) => Kinds::default(),
            };
            if kinds != Kinds::default() {
                changed.pods.insert(id.clone(), kinds);
            }
        }
        for name in self.elections.keys().chain(other.elections.keys()) {
            if self.elections.get(name) != other.elections.get(name) {
                changed.elections.insert(name.clone());
            }
        }
        let stray = |state: &Self, name: &String| {
            state.strays.get(name).map(|stray| (stray.spec, stray.status.as_ref().map(|held| held.mod_revision)))
        };
        changed.strays = self.strays.keys().chain(other.strays.keys()).any(|name| stray(self, name) != stray(other, name));
        let quarantine = |state: &Self| state.quarantine.as_ref().map(|held| held.mod_revision);
        if quarantine(self) != quarantine(other) {
            self.pods.keys().chain(other.pods.keys()).for_each(|id| changed.note_pod(id, Kind::Quarantine));
        }
        changed.orders = !self.orders.keys().eq(other.orders.keys());
        let revision = |state: &Self| state.framework.as_ref().map(|held| held.mod_revision);
        changed.framework = revision(self) != revision(other) || self.framework_unreadable != other.framework_unreadable;
        changed
    }

    /// As if every key had just changed.
    pub(super) fn everything(&self) -> Changed {
        Changed {
            pods: self.pods.keys().map(|id| (id.clone(), Kinds::PODS)).collect(),
            elections: self.elections.keys().cloned().collect(),
            strays: !self.strays.is_empty(),
            framework: self.framework.is_some() || self.framework_unreadable,
            orders: !self.orders.is_empty(),
            replaced: false,
        }
    }
}

impl Changed {
    fn note(&mut self, key: &Key) {
        match key {
            Key::Framework => self.framework = true,
            // Noted where the pods are known.
            Key::Quarantine => {}
            Key::Order(_) => self.orders = true,
            Key::StraySpec(_) | Key::StrayStatus(_) => self.strays = true,
            Key::Election(name, _) => {
                if !self.elections.contains(name) {
                    self.elections.insert(name.clone());
                }
            }
            key => {
                if let Some(pod) = key.pod() {
                    self.note_pod(pod, key.kind());
                }
            }
        }
    }

    fn note_pod(&mut self, pod: &PodId, kind: Kind) {
        match self.pods.get_mut(pod) {
            Some(kinds) => *kinds = kinds.with(kind),
            None => drop(self.pods.insert(pod.clone(), Kinds::default().with(kind))),
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (id, kinds) in other.pods {
            let all = self.pods.entry(id).or_default();
            *all = all.union(kinds);
        }
        self.elections.extend(other.elections);
        self.strays |= other.strays;
        self.framework |= other.framework;
        self.orders |= other.orders;
        self.replaced |= other.replaced;
    }
}

fn differing_kinds(a: &PodView, b: &PodView) -> Kinds {
    let (mut a, mut b) = (a.keys(), b.keys());
    a.sort_unstable();
    b.sort_unstable();
    let only = |one: &[(Key, i64)], other: &[(Key, i64)]| {
        one.iter().filter(|entry| other.binary_search(entry).is_err()).fold(Kinds::default(), |kinds, (key, _)| kinds.with(key.kind()))
    };
    only(&a, &b).union(only(&b, &a))
}

impl PodView {
    fn put(&mut self, key: &Key, held: Held<Bytes>) {
        self.stamp = next_stamp();
        let mod_revision = held.mod_revision;
        let result = match key {
            Key::Spec(_) => {
                self.spec = Some(held);
                Ok(())
            }
            Key::Status(_) => {
                self.status = Some(held);
                Ok(())
            }
            Key::Version(_, version) => {
                let Held { value, mod_revision, create_revision } = held;
                self.versions.insert(*version, Held { value: StoredDefinition::new(value), mod_revision, create_revision });
                Ok(())
            }
            Key::Deleted(_) => {
                let Held { value, mod_revision, create_revision } = held;
                self.deleted = Some(Held { value: Deletion::from_json(&value), mod_revision, create_revision });
                Ok(())
            }
            Key::Accepted(_) => single(&mut self.accepted, held),
            Key::Verdict(_) => single(&mut self.verdict, held),
            Key::Deployment(_) => single(&mut self.deployment, held),
            Key::Delay(_) => single(&mut self.delay, held),
            Key::Queue(_) => single(&mut self.queue, held),
            Key::Unknown(_) => single(&mut self.unknown, held),
            Key::Reset(_) => single(&mut self.reset, held),
            Key::Kill(_, uuid) => entry(&mut self.kills, *uuid, held),
            Key::Set(_, config) => entry(&mut self.sets, *config, held),
            Key::Instance(_, uuid) => entry(&mut self.instances, *uuid, held),
            Key::Observed(_, uuid) => entry(&mut self.observed, *uuid, held),
            Key::Reach(_, uuid) => entry(&mut self.reach, *uuid, held),
            Key::Tombstone(_, uuid) => entry(&mut self.tombstones, *uuid, held),
            // Of no pod.
            Key::StraySpec(_) | Key::StrayStatus(_) | Key::Framework | Key::Quarantine | Key::Order(_) | Key::Election(..) => Ok(()),
        };
        match result {
            Ok(()) => {
                self.unreadable.remove(key);
            }
            Err(error) => {
                complain(key, &error);
                self.delete(key);
                self.unreadable.insert(key.clone(), mod_revision);
            }
        }
    }

    fn delete(&mut self, key: &Key) {
        self.stamp = next_stamp();
        self.unreadable.remove(key);
        match key {
            Key::Spec(_) => self.spec = None,
            Key::Status(_) => self.status = None,
            Key::Deleted(_) => self.deleted = None,
            Key::Accepted(_) => self.accepted = None,
            Key::Verdict(_) => self.verdict = None,
            Key::Deployment(_) => self.deployment = None,
            Key::Delay(_) => self.delay = None,
            Key::Queue(_) => self.queue = None,
            Key::Unknown(_) => self.unknown = None,
            Key::Reset(_) => self.reset = None,
            Key::Kill(_, uuid) => drop(self.kills.remove(uuid)),
            Key::Version(_, version) => drop(self.versions.remove(version)),
            Key::Set(_, config) => drop(self.sets.remove(config)),
            Key::Instance(_, uuid) => drop(self.instances.remove(uuid)),
            Key::Observed(_, uuid) => drop(self.observed.remove(uuid)),
            Key::Reach(_, uuid) => drop(self.reach.remove(uuid)),
            Key::Tombstone(_, uuid) => drop(self.tombstones.remove(uuid)),
            Key::StraySpec(_) | Key::StrayStatus(_) | Key::Framework | Key::Quarantine | Key::Order(_) | Key::Election(..) => {}
        }
    }
}

fn decoded<R: Record>(held: Held<Bytes>) -> Result<Held<R>, DecodeError> {
    let value = codec::decode(&held.value)?;
    Ok(Held { value, mod_revision: held.mod_revision, create_revision: held.create_revision })
}

fn single<R: Record>(place: &mut Option<Held<R>>, held: Held<Bytes>) -> Result<(), DecodeError> {
    *place = Some(decoded(held)?);
    Ok(())
}

fn entry<K: Ord, R: Record>(map: &mut BTreeMap<K, Held<R>>, at: K, held: Held<Bytes>) -> Result<(), DecodeError> {
    map.insert(at, decoded(held)?);
    Ok(())
}

fn complain(key: &Key, error: &DecodeError) {
    tracing::warn!(%key, %error, "a record can't be read and is left alone");
}

#[cfg(test)]
mod tests {
    use podium_proto::records::Instance;
    use uuid::Uuid;

    use super::*;

    fn pod(id: &str) -> PodId {
        PodId::new(id).unwrap()
    }

    fn instance(id: &str, n: u128) -> Key {
        Key::Instance(pod(id), Uuid::from_u128(n))
    }

    fn put(state: &mut IndexState, key: Key, revision: i64) -> Changed {
        let mut changed = Changed::default();
        state.put(key, codec::encode(Instance::default()), revision, revision, &mut changed);
        changed
    }

    #[test]
    fn every_change_of_a_pod_gives_it_a_number_that_none_had_before() {
        let (mut state, key) = (IndexState::default(), Key::Instance(pod("/a"), Uuid::from_u128(1)));
        put(&mut state, key.clone(), 5);
        let first = state.pod(&pod("/a")).unwrap().stamp;
        put(&mut state, Key::Delay(pod("/b")), 6);
        assert_eq!(state.pod(&pod("/a")).unwrap().stamp, first, "another pod's change");
        put(&mut state, Key::Delay(pod("/a")), 7);
        let second = state.pod(&pod("/a")).unwrap().stamp;
        state.delete(&key, &mut Changed::default());
        let stamps = [first, second, state.pod(&pod("/a")).unwrap().stamp, state.pod(&pod("/b")).unwrap().stamp];
        assert_eq!(stamps.into_iter().collect::<BTreeSet<_>>().len(), 4, "{stamps:?}");
    }

    #[test]
    fn a_pod_exists_as_long_as_one_of_its_keys_does() {
        let mut state = IndexState::default();
        put(&mut state, instance("/a", 1), 5);
        put(&mut state, Key::Spec(pod("/a")), 6);
        state.delete(&instance("/a", 1), &mut Changed::default());
        assert_eq!(state.pod(&pod("/a")).map(PodView::keys), Some(vec![(Key::Spec(pod("/a")), 6)]));
        state.delete(&Key::Spec(pod("/a")), &mut Changed::default());
        assert!(state.pod(&pod("/a")).is_none() && state.pods().len() == 0);
    }

    #[test]
    fn a_quarantine_stands_in_every_view_also_in_later_ones_and_one_that_cannot_be_read_too() {
        let mut state = IndexState::default();
        put(&mut state, instance("/old", 1), 5);
        let stamp = state.pod(&pod("/old")).unwrap().stamp;
        let mut changed = Changed::default();
        state.put(Key::Quarantine, codec::encode(Quarantine { reason: "r".to_owned(), ..Quarantine::default() }), 6, 6, &mut changed);
        assert_eq!(changed.pods[&pod("/old")], Kinds::of(&[Kind::Quarantine]));
        assert_ne!(state.pod(&pod("/old")).unwrap().stamp, stamp, "what was computed from the view holds no more");
        put(&mut state, instance("/new", 1), 7);
        for id in ["/old", "/new"] {
            assert_eq!(state.pod(&pod(id)).unwrap().quarantine.as_ref().map(|held| held.value.reason.as_str()), Some("r"));
        }
        let other = IndexState::default();
        assert!(state.difference(&other).pods[&pod("/new")].has(Kind::Quarantine));
        state.put(Key::Quarantine, Bytes::from_static(&[0x08, 99]), 8, 6, &mut Changed::default());
        assert!(state.quarantine().unwrap().value.reason.contains("can't be read"));
        let mut changed = Changed::default();
        state.delete(&Key::Quarantine, &mut changed);
        assert!(state.quarantine().is_none() && state.pod(&pod("/old")).unwrap().quarantine.is_none());
        assert_eq!(changed.pods.len(), 2);
    }

    #[test]
    fn a_change_names_its_pod_and_its_kinds() {
        let mut state = IndexState::default();
        let mut changed = put(&mut state, instance("/a", 1), 5);
        changed.merge(put(&mut state, Key::Spec(pod("/a")), 6));
        changed.merge(put(&mut state, Key::Delay(pod("/b")), 6));
        assert_eq!(changed.pods[&pod("/a")], Kinds::of(&[Kind::Instance, Kind::Spec]));
        assert_eq!(changed.pods[&pod("/b")], Kinds::of(&[Kind::Delay]));
        assert!(changed.elections.is_empty() && !changed.framework);
    }

    #[test]
    fn the_candidate_that_stood_first_leads_whatever_its_lease() {
        let mut state = IndexState::default();
        let candidate = |lease| Key::Election("scaling".to_owned(), lease);
        put(&mut state, candidate(9), 5);
        put(&mut state, candidate(3), 7);
        assert_eq!(state.leader("scaling").map(|leader| (leader.lease, leader.create_revision)), Some((9, 5)));
        // Written again, its place stays.
        state.put(candidate(9), Bytes::new(), 8, 5, &mut Changed::default());
        assert_eq!(state.candidates("scaling").map(|candidate| candidate.lease).collect::<Vec<_>>(), [9, 3]);
        state.delete(&candidate(9), &mut Changed::default());
        assert_eq!(state.leader("scaling").map(|leader| leader.lease), Some(3));
        assert!(state.leader("health").is_none());
    }

    #[test]
    fn a_stray_is_known_until_its_spec_and_its_status_are_gone_and_their_number_is_bounded() {
        let mut state = IndexState::default();
        let (spec, status) = (|n: usize| Key::StraySpec(format!("/A{n}")), |n: usize| Key::StrayStatus(format!("/A{n}")));
        assert!(put(&mut state, spec(0), 5).strays);
        put(&mut state, status(0), 6);
        state.delete(&spec(0), &mut Changed::default());
        assert_eq!(state.strays()["/A0"].spec, None);
        assert_eq!(state.strays()["/A0"].status.as_ref().map(|held| held.mod_revision), Some(6));
        state.delete(&status(0), &mut Changed::default());
        assert!(state.strays().is_empty());
        for n in 0..2 * MAX_STRAYS {
            put(&mut state, spec(n), 7);
        }
        assert_eq!(state.strays().len(), MAX_STRAYS);
        assert!(state.difference(&IndexState::default()).strays && !state.difference(&state).strays);
    }

    #[test]
    fn the_difference_of_two_states_names_only_what_differs() {
        let (mut old, mut new) = (IndexState::default(), IndexState::default());
        for state in [&mut old, &mut new] {
            put(state, instance("/same", 1), 5);
            put(state, instance("/written", 1), 6);
        }
        put(&mut old, instance("/gone", 1), 7);
        put(&mut old, Key::Election("scaling".to_owned(), 1), 8);
        put(&mut new, instance("/written", 1), 9);
        put(&mut new, Key::Spec(pod("/come")), 10);
        let changed = old.difference(&new);
        let names: BTreeSet<String> = changed.pods.keys().map(PodId::to_string).collect();
        assert_eq!(names, ["/come", "/gone", "/written"].map(str::to_owned).into());
        assert_eq!(changed.pods[&pod("/come")], Kinds::of(&[Kind::Spec]));
        assert_eq!(changed.elections, ["scaling".to_owned()].into());
        assert!(!changed.framework && !changed.replaced);
    }

    #[test]
    fn a_record_of_a_newer_schema_hides_its_older_form_until_it_can_be_read_again() {
        let mut state = IndexState::default();
        let key = instance("/a", 1);
        put(&mut state, key.clone(), 5);
        state.put(key.clone(), Bytes::from_static(&[0x08, 99]), 6, 5, &mut Changed::default());
        let view = state.pod(&pod("/a")).expect("it is not empty");
        assert!(view.instances.is_empty() && view.unreadable.get(&key) == Some(&6));
        put(&mut state, key.clone(), 7);
        let view = state.pod(&pod("/a")).expect("it is not empty");
        assert!(view.instances.len() == 1 && view.unreadable.is_empty());
    }
}
