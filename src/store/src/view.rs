//! What the index knows of one pod, as plain data. A controller's decision is a function of this and of
//! the time, and of nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use podium_proto::records::{Accepted, Delay, Deployment, Instance, Observed, Queue, Reach, ReplicaSet, Tombstone, Verdict};
use podium_types::definition::PodDefinition;
use podium_types::id::{PodId, Version};
use uuid::Uuid;

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
    /// The status as last written for people.
    pub status: Option<Held<Bytes>>,
}

impl StoredDefinition {
    /// A definition that need not be read again: its writer has it at hand.
    pub fn known(json: Bytes, definition: Arc<PodDefinition>) -> Self {
        Self { json, parsed: OnceLock::from(Some(definition)) }
    }
}

impl PodView {
    /// A pod of which no key exists.
    pub fn new(id: PodId) -> Self {
        Self {
            id,
            spec: None,
            accepted: None,
            versions: BTreeMap::new(),
            verdict: None,
            deployment: None,
            sets: BTreeMap::new(),
            instances: BTreeMap::new(),
            delay: None,
            observed: BTreeMap::new(),
            reach: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            queue: None,
            status: None,
        }
    }
}
