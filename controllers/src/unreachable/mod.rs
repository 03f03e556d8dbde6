//! What becomes of instances whose agent is away: after `inactiveAfterSeconds` they no longer count, so that a
//! replacement is created; after `expungeAfterSeconds` they are given up, with a tombstone by which they are killed
//! should they return. Times count from the agent's loss as Mesos told it. Writes `reach` and `tombstones`.
//!
//! An instance that is not wanted any more is given up at once: a lost agent must not hold up an upgrade or a deletion,
//! and its tombstone sees to the rest. During a quarantine nothing is given up.

use podium_proto::records::accepted::Phase;
use podium_proto::records::{Observed, Reach, Tombstone};
use podium_store::view::{Held, PodView};
use podium_store::writer::{Compare, Group, Op};
use podium_store::{Key, Kind};
use podium_types::condition;
use podium_types::definition::UnreachableStrategy;
use uuid::Uuid;

use crate::runtime::{Census, Controller, Decision, Ids, Member, Now, definition_in_force};

/// Instances that one group is about, at two writes and up to three compares each.
const PER_GROUP: usize = 30;

/// Groups of one decision. The rest follows when these are written.
const GROUPS: usize = 64;

/// How long a tombstone stays of whose tasks nothing is known: 30 days, in milliseconds.
const KEPT_UNSEEN_MS: i64 = 30 * 24 * 3600 * 1000;

/// The controller.
#[derive(Debug, Default)]
pub struct Unreachable;

/// One change of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It no longer counts.
    Deactivate {
        /// Who.
        uuid: Uuid,
        /// Since when its agent is away.
        unreachable_ms: i64,
    },
    /// It is given up; what of it may return is to be killed.
    Expunge {
        /// Who.
        uuid: Uuid,
        /// Since when its agent is away.
        unreachable_ms: i64,
    },
    /// It is back, or its record is gone.
    Forget(Uuid),
    /// Nothing of it can return any more.
    Unbury(Uuid),
}

impl Controller for Unreachable {
    type Intent = Intent;

    fn name(&self) -> &'static str {
        "unreachable"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Accepted, Kind::Version, Kind::Instance, Kind::Observed, Kind::Reach, Kind::Tombstone, Kind::Quarantine]
    }

    fn decide(&self, view: &PodView, now: Now) -> Decision<Intent> {
        decide(view, now)
    }

    fn apply(&self, view: &PodView, intents: Vec<Intent>, now: Now, _ids: &mut dyn Ids) -> Vec<Group> {
        intents
            .chunks(PER_GROUP)
            .map(|chunk| chunk.iter().fold(Group::new(view.id.clone()), |group, intent| add(view, group, *intent, now)))
            .collect()
    }
}

/// Who is away for too long, who is back.
pub fn decide(view: &PodView, now: Now) -> Decision<Intent> {
    let mut decision = Decision::nothing();
    let strategy = definition_in_force(view).map(|definition| definition.scheduling.unreachable_strategy);
    let deleting = view.accepted.as_ref().is_some_and(|accepted| Phase::try_from(accepted.value.phase) == Ok(Phase::Deleting));
    for member in Census::take(view).members {
        let unwanted = deleting || !member.is_wanted();
        match member.away_since_ms {
            None if view.reach.contains_key(&member.uuid) && !member.expunged => decision.intents.push(Intent::Forget(member.uuid)),
            Some(since) if !member.expunged => judge(&mut decision, &member, since, if unwanted { GIVE_UP } else { times(strategy) }, now),
            _ => {}
        }
    }
    decision.intents.extend(view.reach.keys().filter(|uuid| !view.instances.contains_key(uuid)).map(|uuid| Intent::Forget(*uuid)));
    let ended = view.tombstones.iter().filter(|(uuid, held)| has_ended(view, uuid, &held.value, now));
    decision.intents.extend(ended.map(|(uuid, _)| Intent::Unbury(*uuid)));
    if view.quarantine.is_some() {
        decision.intents.retain(|intent| !matches!(intent, Intent::Expunge { .. } | Intent::Unbury(_)));
    }
    decision.intents.truncate(GROUPS * PER_GROUP);
    decision
}

/// Milliseconds until an instance no longer counts, and until it is given up; `None`: never.
type Times = Option<(i64, i64)>;

const GIVE_UP: Times = Some((0, 0));

fn times(strategy: Option<UnreachableStrategy>) -> Times {
    match strategy {
        // Without a definition nobody says how long to wait: wait.
        None | Some(UnreachableStrategy::Disabled) => None,
        Some(UnreachableStrategy::After { inactive_after_seconds, expunge_after_seconds }) => {
            Some((millis(inactive_after_seconds), millis(expunge_after_seconds)))
        }
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}

fn judge(decision: &mut Decision<Intent>, member: &Member<'_>, since: i64, times: Times, Now(now): Now) {
    let Some((inactive_after, expunge_after)) = times else { return };
    let (inactive_at, expunge_at) = (since.saturating_add(inactive_after), since.saturating_add(expunge_after));
    if now >= expunge_at {
        decision.intents.push(Intent::Expunge { uuid: member.uuid, unreachable_ms: since });
        return;
    }
    decision.wake_at(expunge_at);
    match (member.inactive, now >= inactive_at) {
        (false, true) => decision.intents.push(Intent::Deactivate { uuid: member.uuid, unreachable_ms: since }),
        (false, false) => decision.wake_at(inactive_at),
        // Its replacement may run already: it stays inactive even if the time was raised since.
        (true, _) => {}
    }
}

/// Whether all tasks that a tombstone is for have ended. The gateway keeps what it observed while a tombstone stands:
/// without an observation nobody knows, and the tombstone stays for as long as an agent may still come back.
fn has_ended(view: &PodView, uuid: &Uuid, tombstone: &Tombstone, Now(now): Now) -> bool {
    if view.instances.contains_key(uuid) {
        return false;
    }
    match view.observed.get(uuid) {
        Some(observed) => observed.value.tasks.iter().all(|task| !condition::task_is_alive(task)),
        None => now >= tombstone.buried_ms.saturating_add(KEPT_UNSEEN_MS),
    }
}

fn add(view: &PodView, group: Group, intent: Intent, Now(now): Now) -> Group {
    let pod = &view.id;
    match intent {
        Intent::Deactivate { uuid, unreachable_ms } => {
            let reach = Reach { inactive: true, unreachable_ms, judged_ms: now, ..Reach::default() };
            on_observed(view, group, uuid).then(Op::record(Key::Reach(pod.clone(), uuid), reach))
        }
        Intent::Expunge { uuid, unreachable_ms } => {
            let reach = Reach { inactive: true, expunged: true, unreachable_ms, judged_ms: now, ..Reach::default() };
            let group = on_observed(view, group, uuid).then(Op::record(Key::Reach(pod.clone(), uuid), reach));
            let group = once_as_accepted(view, once_outside_quarantine(view, group));
            let Some(observed) = view.observed.get(&uuid) else { return group };
            group.then(Op::record(Key::Tombstone(pod.clone(), uuid), tombstone(observed, now)))
        }
        Intent::Forget(uuid) => {
            let key = Key::Reach(pod.clone(), uuid);
            group.when(Compare::as_seen(key.clone(), view.reach.get(&uuid))).then(Op::Delete(key))
        }
        Intent::Unbury(uuid) => {
            let key = Key::Tombstone(pod.clone(), uuid);
            group
                .when(Compare::as_seen(key.clone(), view.tombstones.get(&uuid)))
                .when(Compare::as_seen(Key::Observed(pod.clone(), uuid), view.observed.get(&uuid)))
                .then(Op::Delete(key))
        }
    }
}

/// Who is given up may be killed later: that rests on there being no quarantine.
fn once_outside_quarantine(view: &PodView, group: Group) -> Group {
    let compare = Compare::as_seen(Key::Quarantine, view.quarantine.as_deref());
    if group.compares.contains(&compare) { group } else { group.when(compare) }
}

/// Who is given up because the pod is being deleted rests on that.
fn once_as_accepted(view: &PodView, group: Group) -> Group {
    let compare = Compare::as_seen(Key::Accepted(view.id.clone()), view.accepted.as_ref());
    if group.compares.contains(&compare) { group } else { group.when(compare) }
}

/// Rests on the tasks being away still, on the instance's goal, and on its own record as it was seen.
fn on_observed(view: &PodView, group: Group, uuid: Uuid) -> Group {
    let pod = &view.id;
    group
        .when(Compare::as_seen(Key::Observed(pod.clone(), uuid), view.observed.get(&uuid)))
        .when(Compare::as_seen(Key::Instance(pod.clone(), uuid), view.instances.get(&uuid)))
        .when(Compare::as_seen(Key::Reach(pod.clone(), uuid), view.reach.get(&uuid)))
}

fn tombstone(observed: &Held<Observed>, now: i64) -> Tombstone {
    let alive = observed.value.tasks.iter().filter(|task| condition::task_is_alive(task));
    Tombstone {
        agent_id: observed.value.agent_id.clone(),
        task_ids: alive.map(|task| task.task_id.clone()).collect(),
        buried_ms: now,
        ..Tombstone::default()
    }
}
