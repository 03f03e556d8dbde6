//! Intents as groups of writes.

use std::collections::BTreeSet;

use podium_proto::records::accepted::Phase;
use podium_proto::records::{Delay, Goal, Instance};
use podium_store::Key;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use podium_types::id::Version;
use uuid::Uuid;

use super::{Intent, orders};
use crate::runtime::{Ids, Now};

/// One intent as one group. What the decision rested on is compared: the sets' numbers, the instances, what was observed.
pub fn group(view: &PodView, intent: Intent, now: Now, ids: &mut dyn Ids) -> Group {
    match intent {
        Intent::Create { config, count, away, not_before_ms } => {
            let group = away.iter().fold(on_sets(view, [config].into()), |group, uuid| group.when(as_observed(view, *uuid)));
            create(view, beside(view, group), config, count, not_before_ms, now, ids)
        }
        Intent::Stop { uuids, survivors } => stop(view, &uuids, &survivors, now),
        Intent::Move { uuids, config, survivors } => relocate(view, &uuids, config, &survivors),
        Intent::Adopt { uuids, instead_of } => adopt(view, &uuids, &instead_of, now),
        Intent::Obey(uuids) => orders::obey(view, &uuids, now),
        Intent::Hurry { uuids, last } => orders::hurry(view, &uuids, last),
        Intent::Remove(uuids) => remove(view, &uuids),
        Intent::Relaunch { instances, delay } => relaunch(view, &instances, delay),
    }
}

/// A quarantine may begin at any time: whatever takes something away rests on there being none.
pub(super) fn outside_quarantine(view: &PodView, group: Group) -> Group {
    group.when(Compare::as_seen(Key::Quarantine, view.quarantine.as_deref()))
}

/// What launches rests on how many run that no record counts.
fn beside(view: &PodView, group: Group) -> Group {
    group.when(Compare::as_seen(Key::Unknown(view.id.clone()), view.unknown.as_ref()))
}

fn adopt(view: &PodView, uuids: &[Uuid], instead_of: &[Uuid], now: Now) -> Group {
    let mut group = Group::new(view.id.clone()).when(Compare::as_seen(Key::Accepted(view.id.clone()), view.accepted.as_ref()));
    for uuid in uuids {
        let (Some(observed), held) = (view.observed.get(uuid), view.instances.get(uuid)) else { continue };
        let (config_ms, incarnation) = (observed.value.config_ms, observed.value.incarnation);
        let instance = match held {
            Some(held) => Instance { config_ms, incarnation, ..held.value },
            None => Instance { config_ms, incarnation, goal: Goal::Running.into(), created_ms: now.0, ..Instance::default() },
        };
        let key = Key::Instance(view.id.clone(), *uuid);
        group = group.when(Compare::as_seen(key.clone(), held)).when(as_observed(view, *uuid)).then(Op::record(key, instance));
    }
    if let Some(accepted) = view.accepted.as_ref().filter(|held| Phase::try_from(held.value.phase) == Ok(Phase::Deleting)) {
        // The end of a deletion rests on this key: written anew, as it is, only one of the two can come about.
        group = group.then(Op::record(Key::Accepted(view.id.clone()), accepted.value));
    }
    instead_of.iter().fold(group, |group, uuid| {
        let key = Key::Instance(view.id.clone(), *uuid);
        group.when(Compare::as_seen(key.clone(), view.instances.get(uuid))).when(as_observed(view, *uuid)).then(Op::Delete(key))
    })
}

fn create(view: &PodView, mut group: Group, config: Version, count: usize, not_before_ms: i64, now: Now, ids: &mut dyn Ids) -> Group {
    for _ in 0..count {
        let instance = Instance {
            config_ms: config.as_millis(),
            goal: Goal::Running.into(),
            incarnation: 1,
            not_before_ms,
            created_ms: now.0,
            ..Instance::default()
        };
        group = group.then(Op::record(Key::Instance(view.id.clone(), ids.draw()), instance));
    }
    group
}

/// What is stopped as unhealthy must not have become healthy meanwhile, nor the survivors unhealthy.
fn stop(view: &PodView, uuids: &[Uuid], survivors: &[Uuid], now: Now) -> Group {
    let mut group = as_accepted(view, outside_quarantine(view, on_sets(view, configs(view, uuids))));
    for uuid in uuids {
        let Some(held) = view.instances.get(uuid) else { continue };
        let key = Key::Instance(view.id.clone(), *uuid);
        let instance = Instance { goal: Goal::Decommissioned.into(), stopped_ms: now.0, ..held.value };
        group = group.when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::record(key, instance));
    }
    uuids.iter().chain(survivors).fold(group, |group, uuid| group.when(as_observed(view, *uuid)))
}

/// What ends for good rests on what is in force: of instances with persistent volumes nobody but a definition that wants fewer
/// may be rid.
fn as_accepted(view: &PodView, group: Group) -> Group {
    group.when(Compare::as_seen(Key::Accepted(view.id.clone()), view.accepted.as_ref()))
}

/// The next launch is of another config. As whoever is stopped, those who run must not have become healthy meanwhile, nor the
/// survivors unhealthy.
fn relocate(view: &PodView, uuids: &[Uuid], config: Version, survivors: &[Uuid]) -> Group {
    let mut sets = configs(view, uuids);
    sets.insert(config);
    let mut group = beside(view, as_accepted(view, outside_quarantine(view, on_sets(view, sets))));
    for uuid in uuids {
        let Some(held) = view.instances.get(uuid) else { continue };
        let key = Key::Instance(view.id.clone(), *uuid);
        let instance = Instance {
            config_ms: config.as_millis(),
            incarnation: held.value.incarnation.saturating_add(1),
            not_before_ms: 0,
            kill_incarnation: 0,
            ..held.value
        };
        group = group.when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::record(key, instance));
    }
    uuids.iter().chain(survivors).fold(group, |group, uuid| group.when(as_observed(view, *uuid)))
}

fn remove(view: &PodView, uuids: &[Uuid]) -> Group {
    let wanted: Vec<Uuid> = uuids.iter().filter(|uuid| is_wanted(view, uuid)).copied().collect();
    let mut group = as_accepted(view, outside_quarantine(view, on_sets(view, configs(view, &wanted))));
    for uuid in uuids {
        let key = Key::Instance(view.id.clone(), *uuid);
        group = group.when(Compare::as_seen(key.clone(), view.instances.get(uuid))).then(Op::Delete(key));
        group = group.when(match view.reach.get(uuid) {
            Some(reach) if reach.value.expunged => Compare::Unchanged(Key::Reach(view.id.clone(), *uuid), reach.mod_revision),
            _ => as_observed(view, *uuid),
        });
    }
    group
}

fn relaunch(view: &PodView, instances: &[(Uuid, i64)], delay: Delay) -> Group {
    let uuids: Vec<Uuid> = instances.iter().map(|(uuid, _)| *uuid).collect();
    let key = Key::Delay(view.id.clone());
    let mut group =
        on_sets(view, configs(view, &uuids)).when(Compare::as_seen(key.clone(), view.delay.as_ref())).then(Op::record(key, delay));
    group = beside(view, group);
    for (uuid, not_before_ms) in instances {
        let Some(held) = view.instances.get(uuid) else { continue };
        let key = Key::Instance(view.id.clone(), *uuid);
        let instance = Instance {
            incarnation: held.value.incarnation.saturating_add(1),
            not_before_ms: *not_before_ms,
            kill_incarnation: 0,
            ..held.value
        };
        group =
            group.when(Compare::Unchanged(key.clone(), held.mod_revision)).when(as_observed(view, *uuid)).then(Op::record(key, instance));
    }
    group
}

/// A group that rests on the numbers of these sets.
fn on_sets(view: &PodView, configs: BTreeSet<Version>) -> Group {
    configs.into_iter().fold(Group::new(view.id.clone()), |group, config| {
        group.when(Compare::as_seen(Key::Set(view.id.clone(), config), view.sets.get(&config)))
    })
}

/// That nothing was heard of it since.
pub(super) fn as_observed(view: &PodView, uuid: Uuid) -> Compare {
    Compare::as_seen(Key::Observed(view.id.clone(), uuid), view.observed.get(&uuid))
}

fn configs(view: &PodView, uuids: &[Uuid]) -> BTreeSet<Version> {
    uuids.iter().filter_map(|uuid| view.instances.get(uuid)).map(|held| Version::from_millis(held.value.config_ms)).collect()
}

/// Its removal rests on there being too many, and not on its own goal.
fn is_wanted(view: &PodView, uuid: &Uuid) -> bool {
    let expunged = view.reach.get(uuid).is_some_and(|reach| reach.value.expunged);
    !expunged && view.instances.get(uuid).is_some_and(|held| Goal::try_from(held.value.goal) == Ok(Goal::Running))
}
