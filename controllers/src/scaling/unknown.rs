//! Instances that run and of which there is no record: how many places they fill, and what is taken on of them.

use std::collections::BTreeSet;

use podium_store::view::PodView;
use uuid::Uuid;

use super::Intent;
use crate::runtime::{Census, Member, is_open};

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

/// Who was taken on by the gateway, and whose record is missing, or is of an earlier launch: they run, or have ended since and
/// are their data.
pub fn adoptions(view: &PodView, census: &Census<'_>) -> Vec<Intent> {
    if view.accepted.is_none() {
        return Vec::new();
    }
    let known = |uuid: &Uuid| view.instances.get(uuid).map_or(0, |instance| instance.value.incarnation);
    let taken_on = view.observed.iter().filter(|(uuid, held)| {
        held.value.adopted && held.value.incarnation > known(uuid) && is_open(&held.value) && !view.tombstones.contains_key(uuid)
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

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::TaskState;
    use podium_proto::records::{Accepted, Goal, Instance, Observed, observed};
    use podium_store::view::Held;
    use podium_types::id::PodId;

    use super::*;
    use crate::runtime::Now;
    use crate::scaling::decide;

    fn held<T>(value: T) -> Held<T> {
        Held { value, mod_revision: 3, create_revision: 3 }
    }

    /// A pod whose only instance was taken on and has ended.
    fn ended(reserved: bool) -> PodView {
        let mut view = PodView::new(PodId::new("/a").unwrap());
        view.accepted = Some(held(Accepted { version_ms: 7, config_ms: 7, ..Accepted::default() }));
        let task = observed::Task { state: Some(TaskState::TaskFailed.into()), ..observed::Task::default() };
        let reservation = reserved.then(observed::Reservation::default);
        let record = Observed { incarnation: 2, config_ms: 7, adopted: true, tasks: vec![task], reservation, ..Observed::default() };
        view.observed.insert(Uuid::from_u128(1), held(record));
        view
    }

    #[test]
    fn what_was_taken_on_and_ended_before_it_was_counted_is_counted_for_its_data() {
        let uuids = vec![Uuid::from_u128(1)];
        assert_eq!(decide(&ended(true), Now(9)).intents, [Intent::Adopt { uuids, instead_of: Vec::new() }]);
        assert_eq!(decide(&ended(false), Now(9)).intents, []);
    }

    #[test]
    fn it_is_removed_only_when_the_gateway_has_taken_note_and_so_never_counted_twice() {
        let mut view = ended(true);
        let instance = Instance { config_ms: 7, incarnation: 2, goal: Goal::Decommissioned.into(), ..Instance::default() };
        view.instances.insert(Uuid::from_u128(1), held(instance));
        assert_eq!(decide(&view, Now(9)).intents, []);
        view.observed.get_mut(&Uuid::from_u128(1)).unwrap().value.adopted = false;
        assert_eq!(decide(&view, Now(9)).intents, [Intent::Remove(vec![Uuid::from_u128(1)])]);
    }
}
