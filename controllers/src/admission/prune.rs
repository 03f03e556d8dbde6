//! History: 50 versions a pod, never one in use; of a pod that is gone for 30 days.
//!
//! That a pod is gone is noted beside its versions, at `versions/<pod>/deleted`: nothing else of it is left to carry a time.

use std::collections::BTreeSet;

use podium_store::Key;
use podium_store::view::{Deletion, PodView};
use podium_store::writer::{Compare, Group, Op};
use podium_types::id::Version;

use super::Intent;
use crate::runtime::{Decision, Now};

/// Versions that are kept of a pod.
pub const KEPT_VERSIONS: usize = 50;

/// How long the history of a deleted pod is kept, in milliseconds: 30 days.
pub const KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

/// Versions that leave in one transaction.
const AT_ONCE: usize = 100;

pub(super) fn decide(view: &PodView, now: Now) -> Decision<Intent> {
    if view.accepted.is_none() {
        return aged(view, now);
    }
    let surplus = view.versions.len().saturating_sub(KEPT_VERSIONS);
    if surplus == 0 {
        return Decision::nothing();
    }
    let used = in_use(view);
    let old: Vec<Version> = view.versions.keys().filter(|version| !used.contains(version)).take(surplus.min(AT_ONCE)).copied().collect();
    if old.is_empty() { Decision::nothing() } else { Decision::now(vec![Intent::Prune(old)]) }
}

/// The history of a pod that is gone.
fn aged(view: &PodView, now: Now) -> Decision<Intent> {
    if view.versions.is_empty() {
        // Nothing is left that could age: neither is the note.
        return if view.deleted.is_some() { Decision::now(vec![Intent::Prune(Vec::new())]) } else { Decision::nothing() };
    }
    let Some(deleted) = view.deleted.as_ref().and_then(|note| note.value.at) else {
        // A spec that was refused says that its author is still there.
        return if view.spec.is_none() { Decision::now(vec![Intent::Age]) } else { Decision::nothing() };
    };
    let end = deleted.as_millis().saturating_add(KEPT_MS);
    if now.0 >= end {
        return Decision::now(vec![Intent::Prune(view.versions.keys().take(AT_ONCE).copied().collect())]);
    }
    Decision { intents: Vec::new(), wake: Some(end) }
}

/// Versions that something runs, ran until now, or may return to.
fn in_use(view: &PodView) -> BTreeSet<Version> {
    let accepted = view.accepted.iter().flat_map(|held| [held.value.version_ms, held.value.config_ms]);
    let deployment = view.deployment.iter().flat_map(|held| [held.value.version_ms, held.value.previous_version_ms]);
    let instances = view.instances.values().map(|held| held.value.config_ms);
    let observed = view.observed.values().map(|held| held.value.config_ms);
    let times = accepted.chain(deployment).chain(instances).chain(observed);
    times.map(Version::from_millis).chain(view.sets.keys().copied()).collect()
}

/// Notes that the pod is gone since now, while it is.
pub(super) fn note(view: &PodView, now: Now) -> Group {
    let key = Key::Deleted(view.id.clone());
    Group::new(view.id.clone())
        .when(Compare::Absent(Key::Accepted(view.id.clone())))
        .when(Compare::as_seen(key.clone(), view.deleted.as_ref()))
        .then(Op::Put(key, Deletion::to_json(Version::from_millis(now.0))))
}

/// Deletes these versions, and with the last of them the note that the pod is gone.
pub(super) fn group(view: &PodView, versions: Vec<Version>) -> Group {
    let pod = &view.id;
    let mut group = Group::new(pod.clone()).when(Compare::as_seen(Key::Accepted(pod.clone()), view.accepted.as_ref()));
    if view.accepted.is_none() && view.deleted.is_some() && versions.len() == view.versions.len() {
        let key = Key::Deleted(pod.clone());
        group = group.when(Compare::as_seen(key.clone(), view.deleted.as_ref())).then(Op::Delete(key));
    }
    group.ops.extend(versions.into_iter().map(|version| Op::Delete(Key::Version(pod.clone(), version))));
    group
}
