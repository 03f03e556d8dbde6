//! Makes the instances of each replica set as many as are wanted: creates what is missing, stops what is over,
//! launches again what ended, removes the records of what is gone.
//!
//! It counts by looking at the set of instances each time, never by a counter, and so repairs differences in either
//! direction. It never stops a healthy instance that the pod's floor protects, and creates none beyond the ceiling,
//! whatever the numbers of the sets say. Writes `instances` and `delays`, and carries out what people ordered of them
//! (`kills`, `resets`): an order outranks the floor, and everything else waits until it is carried out.
//!
//! Instances that run and that no record counts (`unknown/<pod>`) fill places of their pod, so that nothing is doubled;
//! during a quarantine nothing is stopped or removed. What the gateway took on gets the record that it lacks.

mod apply;
mod backoff;
mod history;
mod moves;
mod orders;
mod unknown;
mod victims;

use std::collections::BTreeMap;

use podium_proto::records::{Delay, ReplicaSet};
use podium_store::Kind;
use podium_store::view::PodView;
use podium_store::writer::Group;
use podium_types::definition::{KillSelection, PodDefinition};
use podium_types::id::Version;
use uuid::Uuid;

use crate::runtime::{Census, Controller, Decision, Ids, Member, Now, definition_in_force};
use backoff::Pace;

/// Instances that one group creates: many such groups travel in one transaction of 128 operations.
const CREATED_PER_GROUP: usize = 60;

/// Instances that one group stops, at two compares each.
const STOPPED_PER_GROUP: usize = 25;

/// Instances that a group may rest on beside those that it changes: together they keep below 128 compares.
const RESTED_ON: usize = 50;

/// Instances that one group removes, at two compares each.
const REMOVED_PER_GROUP: usize = 30;

/// Instances launched again by one decision: they share one group, since all rest on one delay.
const RELAUNCHED_PER_GROUP: usize = 40;

/// Groups of one decision. The rest follows when these are written.
const GROUPS: usize = 64;

/// The controller.
#[derive(Debug, Default)]
pub struct Scaling;

/// One group of changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// New instances of one config.
    Create {
        /// What they run.
        config: Version,
        /// How many.
        count: usize,
        /// Those that do not count because they are away: should one of them return first, the ceiling may not hold.
        away: Vec<Uuid>,
        /// Launch no earlier; 0: at once.
        not_before_ms: i64,
    },
    /// These are over, and run: their goal becomes Decommissioned.
    Stop {
        /// Who.
        uuids: Vec<Uuid>,
        /// The healthy ones by which the floor holds without them: should one of these fail first, nobody is stopped.
        /// At most [`RESTED_ON`] are named; beyond that a failure within the same milliseconds goes unseen.
        survivors: Vec<Uuid>,
    },
    /// These have persistent volumes and run an old config: they are launched again, as they are, with the new one. The same is
    /// to hold of their survivors as of those who are stopped.
    Move {
        /// Who.
        uuids: Vec<Uuid>,
        /// What they run next.
        config: Version,
        /// See [`Intent::Stop`].
        survivors: Vec<Uuid>,
    },
    /// These were taken on while they ran: their records follow what runs.
    Adopt {
        /// Who.
        uuids: Vec<Uuid>,
        /// Those that were created in their place and never launched: their records go in the same transaction.
        instead_of: Vec<Uuid>,
    },
    /// Orders about these instances: they are carried out, or have no object any more, and go.
    Obey(Vec<Uuid>),
    /// The back-off is forgotten, by order, and these wait no longer.
    Hurry {
        /// Who waits; at most as many as one group holds.
        uuids: Vec<Uuid>,
        /// These are all, and the order goes.
        last: bool,
    },
    /// The records of these go: nothing of them runs, or they were given up.
    Remove(Vec<Uuid>),
    /// These ended and are still wanted: their next incarnation.
    Relaunch {
        /// Who, and when at the earliest; 0: at once.
        instances: Vec<(Uuid, i64)>,
        /// The back-off and the history that follow.
        delay: Delay,
    },
}

impl Controller for Scaling {
    type Intent = Intent;

    fn name(&self) -> &'static str {
        "scaling"
    }

    fn watches(&self) -> &'static [Kind] {
        use Kind::*;
        &[Accepted, Version, Set, Instance, Observed, Reach, Delay, Tombstone, Kill, Reset, Unknown, Quarantine]
    }

    fn decide(&self, view: &PodView, now: Now) -> Decision<Intent> {
        decide(view, now)
    }

    fn apply(&self, view: &PodView, intents: Vec<Intent>, now: Now, ids: &mut dyn Ids) -> Vec<Group> {
        intents.into_iter().map(|intent| apply::group(view, intent, now, ids)).collect()
    }
}

/// What must change for the instances to be those that the sets want.
pub fn decide(view: &PodView, now: Now) -> Decision<Intent> {
    let census = Census::take(view);
    let adoptions = unknown::adoptions(view, &census);
    if !adoptions.is_empty() {
        return Decision::now(adoptions);
    }
    let orders = orders::decide(view, now);
    if !orders.is_empty() {
        return Decision::now(orders);
    }
    let mut strangers = unknown::Strangers::of(view, &census);
    let definition = definition_in_force(view);
    let mut plan =
        Plan { removed: census.members.iter().filter(|member| is_gone(member)).map(|member| member.uuid).collect(), ..Plan::default() };
    let mut counted: BTreeMap<Version, Vec<&Member<'_>>> = BTreeMap::new();
    for member in census.members.iter().filter(|member| member.counts()) {
        counted.entry(member.config).or_default().push(member);
    }
    let floor = view.sets.values().map(|set| set.value.floor as usize).max().unwrap_or(0);
    let mut spare = census.healthy().saturating_sub(floor);
    let mut occupied = census.members.iter().filter(|member| member.occupies()).count();
    let away = census.members.iter().filter(|member| member.inactive && !member.expunged);
    plan.away.extend(away.map(|member| member.uuid).take(RESTED_ON));
    let mut residents = moves::Residents::of(view, &census, definition.as_deref());
    let selection = definition.as_ref().map_or(KillSelection::YoungestFirst, |definition| definition.scheduling.kill_selection);
    for (config, set) in &view.sets {
        let mut members = counted.remove(config).unwrap_or_default();
        let wanted = set.value.wanted as usize;
        if members.len() < wanted {
            let missing = residents.missing(*config, wanted - members.len());
            let missing = missing.min(bound(&set.value).saturating_sub(occupied));
            let missing = missing - strangers.fill(missing);
            occupied += missing;
            plan.missing.push((*config, missing));
        } else {
            let surplus = members.len() - wanted;
            let victims = victims::take(&mut members, surplus, selection, &mut spare);
            plan.dismiss(&residents.victims(*config, victims));
        }
        plan.survivors.extend(members.iter().filter(|member| member.is_healthy()).map(|member| member.uuid).take(RESTED_ON));
        plan.ended.extend(members.into_iter().filter(|member| member.condition.is_terminal() && !strangers.has(member.uuid)).copied());
    }
    let filled = strangers.fill(plan.ended.len());
    plan.ended.truncate(plan.ended.len() - filled);
    residents.conclude(&mut plan);
    if view.quarantine.is_some() {
        (plan.removed, plan.stopped, plan.moved) = (Vec::new(), Vec::new(), Vec::new());
    }
    plan.survivors.truncate(floor.min(RESTED_ON));
    Decision::now(plan.into_intents(view, &census, definition.as_deref(), now.0))
}

/// As many instances as the pod may have.
fn bound(set: &ReplicaSet) -> usize {
    if set.ceiling == 0 { usize::MAX } else { set.ceiling as usize }
}

/// Whether a record has nothing left to say: not wanted with nothing running, or given up.
fn is_gone(member: &Member<'_>) -> bool {
    member.expunged || (!member.is_wanted() && member.is_idle())
}

/// Who is to change, before it is cut into groups.
#[derive(Default)]
struct Plan<'a> {
    removed: Vec<Uuid>,
    stopped: Vec<Uuid>,
    survivors: Vec<Uuid>,
    ended: Vec<Member<'a>>,
    missing: Vec<(Version, usize)>,
    away: Vec<Uuid>,
    /// What those with persistent volumes run next, and who they are.
    moved: Vec<(Version, Vec<Uuid>)>,
}

impl Plan<'_> {
    /// What never ran, or has ended, needs no stopping.
    fn dismiss(&mut self, victims: &[&Member<'_>]) {
        for victim in victims {
            let list = if victim.is_idle() { &mut self.removed } else { &mut self.stopped };
            list.push(victim.uuid);
        }
    }

    fn into_intents(self, view: &PodView, census: &Census<'_>, definition: Option<&PodDefinition>, now: i64) -> Vec<Intent> {
        let mut intents: Vec<Intent> = self.removed.chunks(REMOVED_PER_GROUP).map(|uuids| Intent::Remove(uuids.to_vec())).collect();
        let stops = self.stopped.chunks(STOPPED_PER_GROUP);
        intents.extend(stops.map(|uuids| Intent::Stop { uuids: uuids.to_vec(), survivors: self.survivors.clone() }));
        for (config, uuids) in &self.moved {
            let moves = uuids.chunks(STOPPED_PER_GROUP);
            intents.extend(moves.map(|uuids| Intent::Move { uuids: uuids.to_vec(), config: *config, survivors: self.survivors.clone() }));
        }
        // How fast is the definition's to say: without one, nothing is launched.
        if let (Some(definition), Some(accepted)) = (definition, &view.accepted) {
            let pacer = Pacer { view, definition, config_ms: accepted.value.config_ms, last_launch_ms: last_launch(census), now };
            intents.extend(pacer.relaunch(&self.ended));
            for (config, missing) in self.missing {
                let not_before_ms = pacer.pace_of(config).not_before_ms(now);
                intents.extend(chunks(missing).map(|count| Intent::Create { config, count, away: self.away.clone(), not_before_ms }));
            }
        }
        intents.truncate(GROUPS);
        intents
    }
}

/// `count` as group sizes; more than one decision can use are not even listed.
fn chunks(count: usize) -> impl Iterator<Item = usize> {
    let groups = count.div_ceil(CREATED_PER_GROUP).min(GROUPS);
    (0..groups).map(move |index| CREATED_PER_GROUP.min(count - index * CREATED_PER_GROUP))
}

fn last_launch(census: &Census<'_>) -> i64 {
    census.members.iter().map(Member::launched_ms).max().unwrap_or(0)
}

/// Decides when launches may be.
struct Pacer<'a> {
    view: &'a PodView,
    definition: &'a PodDefinition,
    /// The config whose failures are counted.
    config_ms: i64,
    last_launch_ms: i64,
    now: i64,
}

impl Pacer<'_> {
    fn pace_of(&self, config: Version) -> Pace {
        let record = self.view.delay.as_ref().map(|delay| &delay.value);
        Pace::read(record, config.as_millis(), self.last_launch_ms, &self.definition.scheduling.backoff, self.now)
    }

    fn relaunch(&self, ended: &[Member<'_>]) -> Option<Intent> {
        if ended.is_empty() {
            return None;
        }
        let backoff = &self.definition.scheduling.backoff;
        let config = Version::from_millis(self.config_ms);
        let mut pace = self.pace_of(config);
        let batch = &ended[..ended.len().min(RELAUNCHED_PER_GROUP)];
        for member in batch.iter().filter(|member| member.config == config && backoff::slows_down(member.condition)) {
            pace.slow_down(backoff, member.launched_ms(), self.now);
        }
        // The record is the new config's: an old one that fails during an upgrade waits for the first delay each time.
        let mut former = Pace::default();
        former.slow_down(backoff, 0, self.now);
        let not_before = |member: &Member<'_>| match (member.config == config, backoff::slows_down(member.condition)) {
            (true, true) => pace.after_an_end_ms(self.now),
            (true, false) => pace.not_before_ms(self.now),
            (false, true) => former.after_an_end_ms(self.now),
            (false, false) => 0,
        };
        let instances = batch.iter().map(|member| (member.uuid, not_before(member))).collect();
        let mut delay = self.view.delay.as_ref().map(|delay| delay.value.clone()).unwrap_or_default();
        pace.store(&mut delay, self.config_ms);
        history::append(&mut delay.history, &self.view.id, batch);
        Some(Intent::Relaunch { instances, delay })
    }
}
