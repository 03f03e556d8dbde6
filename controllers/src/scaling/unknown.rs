//! Instances that run and of which there is no record: how many places they fill, and what is taken on of them.

use std::collections::BTreeSet;

use podium_store::view::PodView;
use podium_types::condition;
use uuid::Uuid;

use super::Intent;
use crate::runtime::{Census, Member};

/// Instances that one group takes on, at two compares each, and two more for each that goes for it.
const ADOPTED_PER_GROUP: usize = 30;

/// Instances that run beside those that are counted.
pub struct Strangers {
    /// Places that they fill and that are not accounted for yet.
    open: usize,
    uuids: BTreeSet<Uuid>,
}

impl Strangers {
    /// Those of a pod. One that has a record of its own as well is counted there.
    pub fn of(view: &PodView, census: &Census<'_>) -> Self {
        let unknown = view.unknown.as_ref().map(|held| &held.value);
        let listed = unknown.iter().flat_map(|unknown| &unknown.instances).filter_map(|one| Uuid::try_parse(&one.uuid).ok());
        let uuids: BTreeSet<Uuid> = listed.collect();
        let counted = census.members.iter().filter(|member| member.counts() && uuids.contains(&member.uuid)).count();
        Self { open: uuids.len() - counted + unknown.map_or(0, |unknown| unknown.more as usize), uuids }
    }

    /// Whether this instance runs as a launch that its record does not tell of: it is not to be launched beside that.
    pub fn has(&self, uuid: Uuid) -> bool {
        self.uuids.contains(&uuid)
    }

    /// Takes up to so many of their places into account; how many.
    pub fn fill(&mut self, places: usize) -> usize {
        let filled = places.min(self.open);
        self.open -= filled;
        filled
    }
}

/// Who was taken on by the gateway: they run, and their record is missing, or is of an earlier launch.
pub fn adoptions(view: &PodView, census: &Census<'_>) -> Vec<Intent> {
    if view.accepted.is_none() {
        return Vec::new();
    }
    let known = |uuid: &Uuid| view.instances.get(uuid).map_or(0, |instance| instance.value.incarnation);
    let taken_on = view.observed.iter().filter(|(uuid, held)| {
        held.value.adopted
            && held.value.incarnation > known(uuid)
            && held.value.tasks.iter().any(condition::task_is_alive)
            && !view.tombstones.contains_key(uuid)
    });
    let taken_on: Vec<Uuid> = taken_on.map(|(uuid, _)| *uuid).collect();
    let never_launched = |member: &&Member<'_>| member.counts() && member.observed.is_none() && !taken_on.contains(&member.uuid);
    let mut spare = census.members.iter().filter(never_launched).map(|member| member.uuid);
    let chunks = taken_on.chunks(ADOPTED_PER_GROUP).take(super::GROUPS);
    chunks
        .map(|uuids| {
            let new = uuids.iter().filter(|uuid| !view.instances.contains_key(uuid)).count();
            Intent::Adopt { uuids: uuids.to_vec(), instead_of: spare.by_ref().take(new).collect() }
        })
        .collect()
}
