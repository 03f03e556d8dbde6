//! What the index knows of one pod, as plain data. A controller's decision is a function of this and of
//! the time, and of nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use podium_proto::records::{
    Accepted, Delay, Deployment, Instance, Kill, Observed, Quarantine, Queue, Reach, ReplicaSet, Reset, Tombstone, Unknown, Verdict,
};
use podium_types::definition::{PodDefinition, read_stored};
use podium_types::id::{PodId, Version};
use uuid::Uuid;

use crate::key::Key;

/// A value as it stands in etcd, with the revision that a decision resting on it must compare.
#[derive(Debug, Clone)]
pub struct Held<T> {
    /// The decoded value.
    pub value: T,
    /// etcd's revision of the last write of this key.
    pub mod_revision: i64,
    /// etcd's revision at which this key came into being.
    pub create_revision: i64,
}

/// A stored definition: its JSON as answered, and the definition itself, read once when first asked for.
#[derive(Debug, Default)]
pub struct StoredDefinition {
    /// The explicit form, as stored.
    pub json: Bytes,
    /// Filled by [`StoredDefinition::definition`].
    pub(crate) parsed: OnceLock<Option<Arc<PodDefinition>>>,
}

impl StoredDefinition {
    /// A definition that is read when it is first asked for.
    pub fn new(json: Bytes) -> Self {
        Self { json, parsed: OnceLock::new() }
    }

    /// A definition that need not be read again: its writer has it at hand.
    pub fn known(json: Bytes, definition: Arc<PodDefinition>) -> Self {
        Self { json, parsed: OnceLock::from(Some(definition)) }
    }

    /// The definition; `None` if the stored text is none, which is said once in the log.
    pub fn definition(&self) -> Option<Arc<PodDefinition>> {
        let read = || match read_stored(&self.json) {
            Ok(definition) => Some(Arc::new(definition)),
            Err(error) => {
                tracing::error!(%error, "a stored definition can't be read");
                None
            }
        };
        self.parsed.get_or_init(read).clone()
    }
}

/// That a pod is gone, as it stands among its versions: JSON for people, `{"deletedAt": "<ISO time>"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Since when its history ages; `None` if the stored text says no time, so that whoever needs one notes it anew.
    pub at: Option<Version>,
}

impl Deletion {
    /// Reads a note.
    pub fn from_json(json: &[u8]) -> Self {
        let note = serde_json::from_slice::<serde_json::Value>(json).ok();
        let at = note.as_ref().and_then(|note| note.get("deletedAt")?.as_str()?.parse().ok());
        Self { at }
    }

    /// The note of a pod that is gone since then.
    pub fn to_json(at: Version) -> Bytes {
        serde_json::json!({ "deletedAt": at }).to_string().into()
    }
}

/// Everything that the index holds of one pod. `None` and missing entries mean: no such key.
#[derive(Debug)]
pub struct PodView {
    /// Which pod.
    pub id: PodId,
    /// The spec as its author wrote it: not yet judged, perhaps no JSON at all.
    pub spec: Option<Held<Bytes>>,
    /// Which version is in force.
    pub accepted: Option<Held<Accepted>>,
    /// The history, also of a deleted pod.
    pub versions: BTreeMap<Version, Held<StoredDefinition>>,
    /// Since when the pod is gone.
    pub deleted: Option<Held<Deletion>>,
    /// Why the last push was refused.
    pub verdict: Option<Held<Verdict>>,
    /// The running deployment.
    pub deployment: Option<Held<Deployment>>,
    /// Replica sets by config.
    pub sets: BTreeMap<Version, Held<ReplicaSet>>,
    /// Instances that should exist.
    pub instances: BTreeMap<Uuid, Held<Instance>>,
    /// Back-off and termination history.
    pub delay: Option<Held<Delay>>,
    /// What was observed of instances.
    pub observed: BTreeMap<Uuid, Held<Observed>>,
    /// Instances on agents that are long away.
    pub reach: BTreeMap<Uuid, Held<Reach>>,
    /// What must be killed should it return.
    pub tombstones: BTreeMap<Uuid, Held<Tombstone>>,
    /// Why instances wait.
    pub queue: Option<Held<Queue>>,
    /// Instances that run and of which the store has no record.
    pub unknown: Option<Held<Unknown>>,
    /// Instances that somebody wants killed.
    pub kills: BTreeMap<Uuid, Held<Kill>>,
    /// That somebody wants the back-off forgotten.
    pub reset: Option<Held<Reset>>,
    /// The status as last written for people.
    pub status: Option<Held<Bytes>>,
    /// No other state of this or of any other pod has this number in this process: what was computed from a view holds for as
    /// long as its number is the same.
    pub stamp: u64,
    /// Records that this build can't read (a newer schema, or garbage), by their `mod_revision`. They look absent
    /// above: a decision that would write one of them, or that rests on one, leaves the pod alone.
    pub unreadable: BTreeMap<Key, i64>,
    /// Why nothing may be killed or scaled down: the store's, not the pod's own, and the same in every view.
    pub quarantine: Option<Arc<Held<Quarantine>>>,
}

/// A number that was never given before.
pub(crate) fn next_stamp() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl PodView {
    /// A pod of which nothing is known.
    pub fn new(id: PodId) -> Self {
        Self {
            id,
            spec: None,
            accepted: None,
            versions: BTreeMap::new(),
            deleted: None,
            verdict: None,
            deployment: None,
            sets: BTreeMap::new(),
            instances: BTreeMap::new(),
            delay: None,
            observed: BTreeMap::new(),
            reach: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            queue: None,
            unknown: None,
            kills: BTreeMap::new(),
            reset: None,
            status: None,
            stamp: next_stamp(),
            unreadable: BTreeMap::new(),
            quarantine: None,
        }
    }

    /// Every key of this pod with the revision of its last write.
    pub fn keys(&self) -> Vec<(Key, i64)> {
        let pod = || self.id.clone();
        let mut keys: Vec<(Key, i64)> = self.unreadable.iter().map(|(key, revision)| (key.clone(), *revision)).collect();
        keys.extend(self.spec.iter().map(|held| (Key::Spec(pod()), held.mod_revision)));
        keys.extend(self.accepted.iter().map(|held| (Key::Accepted(pod()), held.mod_revision)));
        keys.extend(self.versions.iter().map(|(version, held)| (Key::Version(pod(), *version), held.mod_revision)));
        keys.extend(self.deleted.iter().map(|held| (Key::Deleted(pod()), held.mod_revision)));
        keys.extend(self.verdict.iter().map(|held| (Key::Verdict(pod()), held.mod_revision)));
        keys.extend(self.deployment.iter().map(|held| (Key::Deployment(pod()), held.mod_revision)));
        keys.extend(self.sets.iter().map(|(config, held)| (Key::Set(pod(), *config), held.mod_revision)));
        keys.extend(self.instances.iter().map(|(uuid, held)| (Key::Instance(pod(), *uuid), held.mod_revision)));
        keys.extend(self.delay.iter().map(|held| (Key::Delay(pod()), held.mod_revision)));
        keys.extend(self.observed.iter().map(|(uuid, held)| (Key::Observed(pod(), *uuid), held.mod_revision)));
        keys.extend(self.reach.iter().map(|(uuid, held)| (Key::Reach(pod(), *uuid), held.mod_revision)));
        keys.extend(self.tombstones.iter().map(|(uuid, held)| (Key::Tombstone(pod(), *uuid), held.mod_revision)));
        keys.extend(self.queue.iter().map(|held| (Key::Queue(pod()), held.mod_revision)));
        keys.extend(self.unknown.iter().map(|held| (Key::Unknown(pod()), held.mod_revision)));
        keys.extend(self.kills.iter().map(|(uuid, held)| (Key::Kill(pod(), *uuid), held.mod_revision)));
        keys.extend(self.reset.iter().map(|held| (Key::Reset(pod()), held.mod_revision)));
        keys.extend(self.status.iter().map(|held| (Key::Status(pod()), held.mod_revision)));
        keys
    }

    /// Whether no key of this pod is left.
    pub fn is_empty(&self) -> bool {
        self.spec.is_none()
            && self.accepted.is_none()
            && self.versions.is_empty()
            && self.deleted.is_none()
            && self.verdict.is_none()
            && self.deployment.is_none()
            && self.sets.is_empty()
            && self.instances.is_empty()
            && self.delay.is_none()
            && self.observed.is_empty()
            && self.reach.is_empty()
            && self.tombstones.is_empty()
            && self.queue.is_none()
            && self.unknown.is_none()
            && self.kills.is_empty()
            && self.reset.is_none()
            && self.status.is_none()
            && self.unreadable.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_of_a_deletion_is_json_with_an_iso_time_and_reads_back() {
        let at = Version::from_millis(1_627_380_000_007);
        let json = Deletion::to_json(at);
        assert_eq!(json, r#"{"deletedAt":"2021-07-27T10:00:00.007Z"}"#);
        assert_eq!(Deletion::from_json(&json).at, Some(at));
    }

    #[test]
    fn a_note_that_tells_no_time_is_read_as_one_without() {
        for json in ["", "{", "[]", "7", "null", "{}", r#"{"deletedAt":7}"#, r#"{"deletedAt":"yesterday"}"#, "\u{0}"] {
            assert_eq!(Deletion::from_json(json.as_bytes()).at, None, "{json}");
        }
        assert_eq!(Deletion::from_json(&[0xff]).at, None);
    }
}
