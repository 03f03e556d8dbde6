//! Moves a pod from its old configs to the new one, within its two capacities, and follows its scale.
//!
//! It writes numbers only, `sets`: who comes and goes is scaling's. Ends the deployment when what runs is what is
//! wanted, and removes the last keys of a deleted pod. During a quarantine it lowers no number and removes nothing.
//!
//! Safe in each subset of its writes: the room for new instances is what the *written* numbers of the old sets leave,
//! not the numbers about to be written, since scaling may still be creating by those.

mod apply;
mod capacity;

use std::collections::BTreeMap;

use podium_proto::records::accepted::Phase;
use podium_proto::records::deployment::Kind as DeploymentKind;
use podium_proto::records::{Accepted, ReplicaSet};
use podium_store::Kind;
use podium_store::view::PodView;
use podium_store::writer::Group;
use podium_types::id::Version;

use crate::runtime::{Census, Controller, Decision, Ids, Member, Now, definition_in_force, is_open};
pub use capacity::Capacity;

/// Sets that one decision changes; the rest follows when these are written.
const SETS: usize = 50;

/// The controller.
#[derive(Debug, Default)]
pub struct Upgrade;

/// One group of changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// Numbers of replica sets, and how far the deployment has come.
    Progress {
        /// Sets to write.
        sets: Vec<(Version, ReplicaSet)>,
        /// Empty sets of old configs: they go.
        obsolete: Vec<Version>,
        /// The deployment's step, if it is another than before.
        step: Option<u32>,
    },
    /// What runs is what is wanted, or the deployment was dropped: it goes.
    EndDeployment,
    /// No instance is left of a pod that is being deleted: its last keys go.
    FinishDeletion,
}

impl Controller for Upgrade {
    type Intent = Intent;

    fn name(&self) -> &'static str {
        "upgrade"
    }

    fn watches(&self) -> &'static [Kind] {
        use Kind::*;
        &[Accepted, Version, Deployment, Set, Instance, Tombstone, Observed, Reach, Quarantine]
    }

    fn decide(&self, view: &PodView, now: Now) -> Decision<Intent> {
        decide(view, now)
    }

    fn apply(&self, view: &PodView, intents: Vec<Intent>, _now: Now, _ids: &mut dyn Ids) -> Vec<Group> {
        intents.into_iter().map(|intent| apply::group(view, intent)).collect()
    }
}

/// What must change for the sets to lead from what runs to what is wanted.
pub fn decide(view: &PodView, _now: Now) -> Decision<Intent> {
    let Some(accepted) = &view.accepted else {
        // Nothing says what is wanted: a store that lost it must not stop what runs.
        return Decision::nothing();
    };
    let deleting = Phase::try_from(accepted.value.phase) == Ok(Phase::Deleting);
    // With a set that wants none no instance can have come since: scaling compares the set with each creation.
    let nobody_left = view.instances.is_empty() && !any_without_instance(view);
    if deleting && view.quarantine.is_none() && nobody_left && view.sets.values().all(|set| set.value.wanted == 0) {
        return Decision::now(vec![Intent::FinishDeletion]);
    }
    if view.deployment.as_ref().is_some_and(|held| held.value.dropped) {
        return Decision::now(vec![Intent::EndDeployment]);
    }
    let capacity = match (deleting, definition_in_force(view)) {
        (true, _) => Capacity::none(),
        (false, Some(definition)) if definition.is_resident() => {
            Capacity::in_place(definition.scaling.instances, &definition.scheduling.upgrade)
        }
        (false, Some(definition)) => Capacity::of(definition.scaling.instances, &definition.scheduling.upgrade),
        (false, None) => return Decision::nothing(),
    };
    let census = Census::take(view);
    let in_place = definition_in_force(view).is_some_and(|definition| definition.is_resident());
    let rollout = Rollout::new(view, &census, &accepted.value, capacity, in_place);
    let (mut sets, mut obsolete) = rollout.changes();
    if view.quarantine.is_some() {
        sets.retain(|(config, set)| view.sets.get(config).is_none_or(|held| set.wanted >= held.value.wanted));
        obsolete.clear();
    }
    let step = next_step(view);
    if !sets.is_empty() || !obsolete.is_empty() || step.is_some() {
        return Decision::now(vec![Intent::Progress { sets, obsolete, step }]);
    }
    if view.deployment.is_some() && !deleting && rollout.is_complete() {
        return Decision::now(vec![Intent::EndDeployment]);
    }
    Decision::nothing()
}

/// Whether there is something that scaling is yet to count: it was taken on, or its instance was lost. What was buried is
/// counted no more.
fn any_without_instance(view: &PodView) -> bool {
    let is_missing = |uuid| !view.instances.contains_key(uuid) && !view.tombstones.contains_key(uuid);
    view.observed.iter().any(|(uuid, held)| is_missing(uuid) && is_open(&held.value))
}

/// Starting a pod is creating its first set and then filling it; both are written at once. All else is one step.
fn next_step(view: &PodView) -> Option<u32> {
    let deployment = &view.deployment.as_ref()?.value;
    let step = match DeploymentKind::try_from(deployment.kind) {
        Ok(DeploymentKind::Start) => 2,
        _ => 1,
    };
    (deployment.current_step != step).then_some(step)
}

/// One pod on its way from its old configs to the new.
struct Rollout<'a> {
    view: &'a PodView,
    census: &'a Census<'a>,
    /// The config that is to run.
    config: Version,
    capacity: Capacity,
    /// Instances have persistent volumes: scaling turns the old ones into new ones, and none comes beside them.
    in_place: bool,
    configs: BTreeMap<Version, Tally>,
}

/// The instances of one config.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    /// Those that fill a place of the set.
    counted: u32,
    /// Those of them that are healthy.
    healthy: u32,
    /// Those on their way out that perhaps still run.
    leaving: u32,
    /// Records of any kind.
    records: u32,
    /// As the set's record says now.
    wanted: u32,
}

impl Tally {
    fn add(&mut self, member: &Member<'_>) {
        self.records += 1;
        self.counted += u32::from(member.counts());
        self.healthy += u32::from(member.is_healthy());
        self.leaving += u32::from(member.occupies() && !member.counts());
    }

    /// Places taken now, and those that scaling may take by the number as written.
    fn places(&self) -> u32 {
        self.counted.max(self.wanted).saturating_add(self.leaving)
    }
}

impl<'a> Rollout<'a> {
    fn new(view: &'a PodView, census: &'a Census<'a>, accepted: &Accepted, capacity: Capacity, in_place: bool) -> Self {
        let config = Version::from_millis(accepted.config_ms);
        let mut configs: BTreeMap<Version, Tally> = BTreeMap::from([(config, Tally::default())]);
        for (config, set) in &view.sets {
            configs.entry(*config).or_default().wanted = set.value.wanted;
        }
        for member in &census.members {
            configs.entry(member.config).or_default().add(member);
        }
        Self { view, census, config, capacity, in_place, configs }
    }

    fn new_tally(&self) -> Tally {
        self.configs.get(&self.config).copied().unwrap_or_default()
    }

    fn old(&self) -> impl DoubleEndedIterator<Item = (Version, &Tally)> {
        let new = self.config;
        self.configs.iter().map(|(config, tally)| (*config, tally)).filter(move |(config, _)| *config != new)
    }

    /// Sets whose record must change, and those that have served.
    fn changes(&self) -> (Vec<(Version, ReplicaSet)>, Vec<Version>) {
        let mut wanted = self.wanted_of_old();
        wanted.insert(self.config, self.wanted_of_new());
        let (mut sets, mut obsolete) = (Vec::new(), Vec::new());
        for (config, wanted) in wanted {
            let held = self.view.sets.get(&config).map(|set| &set.value);
            let set = ReplicaSet { schema: 0, wanted, floor: self.capacity.floor, ceiling: self.capacity.ceiling };
            let records = self.configs.get(&config).map_or(0, |tally| tally.records);
            if config != self.config && wanted == 0 && records == 0 && held.is_none_or(|set| set.wanted == 0) {
                obsolete.extend(held.map(|_| config));
            } else if held.is_none_or(|held| ReplicaSet { schema: 0, ..*held } != set) {
                sets.push((config, set));
            }
        }
        sets.truncate(SETS);
        obsolete.truncate(SETS - sets.len());
        (sets, obsolete)
    }

    /// As many of the new as the ceiling leaves room for. Never fewer than count already, up to what is wanted: what is
    /// on its way out must not push out more.
    fn wanted_of_new(&self) -> u32 {
        let new = self.new_tally();
        let others = if self.in_place {
            // Those beyond the written numbers are turned into new ones.
            self.old().fold(0, |sum: u32, (config, tally)| sum.saturating_add(self.limit(config, tally)))
        } else {
            self.old().fold(new.leaving, |sum, (_, tally)| sum.saturating_add(tally.places()))
        };
        let room = self.capacity.ceiling.saturating_sub(others);
        self.capacity.instances.min(room.max(new.counted))
    }

    /// As many of the old as the floor needs beside the healthy new ones, healthy ones first. Only ever fewer: what is
    /// over cannot come back, and failed ones of those that are needed are launched again by scaling.
    fn wanted_of_old(&self) -> BTreeMap<Version, u32> {
        let mut needed = self.capacity.floor.saturating_sub(self.new_tally().healthy);
        let mut wanted = BTreeMap::new();
        for (config, tally) in self.old().collect::<Vec<_>>().into_iter().rev() {
            let kept = needed.min(tally.healthy).min(self.limit(config, tally));
            needed -= kept;
            wanted.insert(config, kept);
        }
        // The oldest first: of two old configs the newer one is the rollout that did not succeed.
        for (config, tally) in self.old() {
            let Some(kept) = wanted.get_mut(&config) else { continue };
            let more = needed.min(self.limit(config, tally).saturating_sub(*kept));
            needed -= more;
            *kept += more;
        }
        wanted
    }

    fn limit(&self, config: Version, tally: &Tally) -> u32 {
        // Without a record (lost, or never written) those that are there are taken over.
        let written = self.view.sets.get(&config).map_or(u32::MAX, |set| set.value.wanted);
        tally.counted.min(written)
    }

    /// Whether what runs is exactly what is wanted, and healthy.
    fn is_complete(&self) -> bool {
        let new = self.new_tally();
        let occupied = self.census.members.iter().filter(|member| member.occupies()).count();
        new.wanted == self.capacity.instances
            && new.healthy == self.capacity.instances
            && u32::try_from(occupied) == Ok(self.capacity.instances)
    }
}

#[cfg(test)]
mod tests {
    use podium_proto::records::Deployment;
    use podium_store::view::Held;
    use podium_types::id::PodId;

    use super::*;

    #[test]
    fn a_deployment_that_was_dropped_goes_though_it_has_achieved_nothing() {
        let mut view = PodView::new(PodId::new("/a").unwrap());
        view.accepted =
            Some(Held { value: Accepted { version_ms: 7, config_ms: 7, ..Accepted::default() }, mod_revision: 3, create_revision: 3 });
        let deployment = |dropped| Held { value: Deployment { dropped, ..Deployment::default() }, mod_revision: 4, create_revision: 4 };
        view.deployment = Some(deployment(false));
        assert_eq!(decide(&view, Now(9)).intents, []);
        view.deployment = Some(deployment(true));
        assert_eq!(decide(&view, Now(9)).intents, [Intent::EndDeployment]);
    }
}
