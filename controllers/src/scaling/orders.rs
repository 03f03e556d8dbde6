//! What people ordered: instances to be killed, a back-off to be forgotten.
//!
//! An instance that is killed without `wipe` keeps its id and is launched again, as if it had ended by itself; with `wipe`
//! it goes for good and another takes its place. One whose agent is away cannot be killed, and is replaced as well. An order
//! is deleted as it is carried out, in one transaction; one whose object has ended meanwhile is deleted alone. During a
//! quarantine no kill is carried out.

use podium_proto::records::{Delay, Goal, Instance, Kill};
use podium_store::Key;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use uuid::Uuid;

use super::apply::{as_observed, outside_quarantine};
use super::{GROUPS, Intent};
use crate::runtime::{Census, Member, Now, is_away};

/// Orders that one group carries out, at three compares each.
const OBEYED_PER_GROUP: usize = 30;

/// Instances that one group lets hurry, at a compare each.
const HURRIED_PER_GROUP: usize = 100;

/// What people ordered. While there is anything, nothing else is decided: these are other groups about the same keys.
pub fn decide(view: &PodView, now: Now) -> Vec<Intent> {
    if !view.kills.is_empty() && view.quarantine.is_none() {
        let uuids: Vec<Uuid> = view.kills.keys().copied().collect();
        return uuids.chunks(OBEYED_PER_GROUP).take(GROUPS).map(|uuids| Intent::Obey(uuids.to_vec())).collect();
    }
    if view.reset.is_none() {
        return Vec::new();
    }
    let mut uuids: Vec<Uuid> = view.instances.iter().filter(|(_, held)| held.value.not_before_ms > now.0).map(|(uuid, _)| *uuid).collect();
    let last = uuids.len() <= HURRIED_PER_GROUP;
    uuids.truncate(HURRIED_PER_GROUP);
    vec![Intent::Hurry { uuids, last }]
}

/// Carries these orders out.
pub fn obey(view: &PodView, uuids: &[Uuid], now: Now) -> Group {
    let census = Census::take(view);
    let mut group = outside_quarantine(view, Group::new(view.id.clone()));
    for uuid in uuids {
        let Some(order) = view.kills.get(uuid) else { continue };
        let (order_key, key) = (Key::Kill(view.id.clone(), *uuid), Key::Instance(view.id.clone(), *uuid));
        group = group
            .when(Compare::Unchanged(order_key.clone(), order.mod_revision))
            .when(Compare::as_seen(key.clone(), view.instances.get(uuid)))
            .then(Op::Delete(order_key));
        let member = census.members.iter().find(|member| member.uuid == *uuid);
        if let Some(instance) = member.and_then(|member| obeyed(member, &order.value, now)) {
            group = group.when(as_observed(view, *uuid)).then(Op::record(key, instance));
        }
    }
    group
}

/// What an order makes of an instance; `None`: it is on its way out already, or what was to be killed has ended.
fn obeyed(member: &Member<'_>, order: &Kill, now: Now) -> Option<Instance> {
    let instance = member.held.value;
    if !member.is_wanted() {
        return None;
    }
    let meant = instance.incarnation == order.incarnation;
    if order.wipe || (meant && is_away(member.condition)) {
        return Some(Instance { goal: Goal::Decommissioned.into(), stopped_ms: now.0, ..instance });
    }
    (meant && member.is_under_way()).then_some(Instance { kill_incarnation: instance.incarnation, ..instance })
}

/// Forgets the back-off, and lets these go ahead.
pub fn hurry(view: &PodView, uuids: &[Uuid], last: bool) -> Group {
    let pod = &view.id;
    let order = Key::Reset(pod.clone());
    let mut group = Group::new(pod.clone()).when(Compare::as_seen(order.clone(), view.reset.as_ref()));
    if last {
        group = group.then(Op::Delete(order));
    }
    let key = Key::Delay(pod.clone());
    if let Some(held) = view.delay.as_ref().filter(|held| held.value.reference_ms != 0) {
        let delay = Delay { delay_ms: 0, reference_ms: 0, ..held.value.clone() };
        group = group.when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::record(key, delay));
    }
    for uuid in uuids {
        let Some(held) = view.instances.get(uuid) else { continue };
        let key = Key::Instance(pod.clone(), *uuid);
        let instance = Instance { not_before_ms: 0, ..held.value };
        group = group.when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::record(key, instance));
    }
    group
}
