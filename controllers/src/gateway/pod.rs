//! One pod as the gateway holds it: what the index shows, joined with what the gateway itself knows better.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use podium_mesos::matching;
use podium_proto::records::Observed;
use podium_store::Key;
use podium_store::view::{Held, PodView};
use podium_types::definition::PodDefinition;
use podium_types::id::Version;
use uuid::Uuid;

use super::entry::Entry;
use super::queue::Waiting;

/// One pod as the gateway holds it.
#[derive(Debug, Default)]
pub(super) struct Pod {
    pub entries: BTreeMap<Uuid, Entry>,
    /// The version that last changed what runs: older instances are not counted by constraints.
    pub config_ms: i64,
    /// Nothing of it is in force, not even its end.
    pub is_gone: bool,
    /// Its definition.
    pub in_force: Option<Arc<PodDefinition>>,
    /// Those that instances are of.
    pub definitions: BTreeMap<i64, Arc<PodDefinition>>,
    /// Those of its definitions.
    pub roles: BTreeSet<String>,
    /// Instances that wait for an offer, by config and role. What has reserved resources waits in their role, whatever is defined now.
    pub ready: BTreeMap<(i64, String), BTreeSet<Uuid>>,
    pub waiting: Waiting,
    /// Records that were deleted, and at which revision: an older index still shows them.
    pub deleted: HashMap<Uuid, i64>,
    /// Some record can't be read by this build: nothing is decided.
    pub frozen: bool,
}

impl Pod {
    pub fn ready_count(&self) -> usize {
        self.ready.values().map(BTreeSet::len).sum()
    }

    /// What is to be launched next of an instance.
    pub fn next_launch(&self, uuid: Uuid) -> Option<matching::Waiting> {
        let held = self.entries.get(&uuid)?.instance.as_ref()?;
        Some(matching::Waiting { instance: uuid, incarnation: held.value.incarnation })
    }

    /// An instance waits no more as of this config in this role; whether it was the last one.
    pub fn no_longer_ready(&mut self, waited: &(i64, String), uuid: Uuid) -> bool {
        let Some(ready) = self.ready.get_mut(waited) else { return false };
        ready.remove(&uuid);
        ready.is_empty() && self.ready.remove(waited).is_some()
    }

    /// Takes over what the index shows; names the instances that are not what they were. `all` of them are looked at where
    /// more than their records has changed.
    pub fn join(&mut self, view: &PodView, revision: i64, all: bool) -> Vec<Uuid> {
        self.deleted.retain(|_, deleted| *deleted > revision);
        let config_ms = view.accepted.as_ref().map_or(0, |accepted| accepted.value.config_ms);
        // What only a newer build can read is there.
        let is_gone = view.accepted.is_none() && !view.unreadable.contains_key(&Key::Accepted(view.id.clone()));
        let all = all || config_ms != self.config_ms || is_gone != self.is_gone;
        self.is_gone = is_gone;
        if all {
            self.in_force = view.versions.get(&Version::from_millis(config_ms)).and_then(|held| held.value.definition());
        }
        self.config_ms = config_ms;
        let mut changed = Vec::new();
        for (uuid, entry) in &mut self.entries {
            let (instance, tombstone) = (view.instances.get(uuid), view.tombstones.get(uuid));
            let known = entry.instance.as_ref().map(|held| held.mod_revision);
            let news = known != instance.map(|held| held.mod_revision) || entry.tombstone.is_some() != tombstone.is_some();
            if news {
                entry.instance = instance.cloned();
                entry.tombstone = tombstone.map(|held| held.value.clone());
            }
            let config = entry.instance.as_ref().map(|held| held.value.config_ms);
            // What could not be launched for want of its definition may be now.
            if news || all || config.is_some_and(|config| !self.definitions.contains_key(&config)) {
                changed.push(*uuid);
            }
        }
        for uuid in view.instances.keys().chain(view.tombstones.keys()).chain(view.observed.keys()) {
            let deleted = self.deleted.contains_key(uuid);
            let (instance, tombstone) = (view.instances.get(uuid), view.tombstones.get(uuid));
            if self.entries.contains_key(uuid) || (deleted && instance.is_none() && tombstone.is_none()) {
                continue;
            }
            let mut entry = Entry::read(view.observed.get(uuid).filter(|_| !deleted));
            entry.instance = instance.cloned();
            entry.tombstone = tombstone.map(|held| held.value.clone());
            self.entries.insert(*uuid, entry);
            changed.push(*uuid);
        }
        if !changed.is_empty() {
            self.read_definitions(view);
        }
        changed
    }

    /// Reads the definitions that instances are of, and forgets the others.
    fn read_definitions(&mut self, view: &PodView) {
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
    }
}

impl Entry {
    fn read(held: Option<&Held<Observed>>) -> Self {
        Entry { observed: held.map(|held| held.value.clone()), revision: held.map_or(0, |held| held.mod_revision), ..Entry::default() }
    }
}
