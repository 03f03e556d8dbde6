//! Intents as groups of writes.

use podium_proto::records::{Deployment, ReplicaSet};
use podium_store::Key;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};

use super::Intent;

/// Records of `reach` that leave with a pod; if there are more, their writer removes them.
const REACH: usize = 50;

/// One intent as one group. Each rests on what is in force, and on its own keys as it saw them.
pub fn group(view: &PodView, intent: Intent) -> Group {
    let pod = &view.id;
    let mut group = Group::new(pod.clone()).when(Compare::as_seen(Key::Accepted(pod.clone()), view.accepted.as_ref()));
    match intent {
        Intent::Progress { sets, obsolete, step } => {
            let lowers = |(config, set): &(_, ReplicaSet)| view.sets.get(config).is_some_and(|held| set.wanted < held.value.wanted);
            if !obsolete.is_empty() || sets.iter().any(lowers) {
                // A quarantine may begin at any time: whatever takes something away rests on there being none.
                group = group.when(Compare::as_seen(Key::Quarantine, view.quarantine.as_deref()));
            }
            for (config, set) in sets {
                let key = Key::Set(pod.clone(), config);
                group = group.when(Compare::as_seen(key.clone(), view.sets.get(&config))).then(Op::record(key, set));
            }
            for config in obsolete {
                let key = Key::Set(pod.clone(), config);
                group = group.when(Compare::as_seen(key.clone(), view.sets.get(&config))).then(Op::Delete(key));
            }
            if let (Some(current_step), Some(held)) = (step, &view.deployment) {
                let key = Key::Deployment(pod.clone());
                let deployment = Deployment { current_step, ..held.value.clone() };
                group = group.when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::record(key, deployment));
            }
            group
        }
        Intent::EndDeployment => {
            let key = Key::Deployment(pod.clone());
            let group = view
                .sets
                .iter()
                .fold(group, |group, (config, set)| group.when(Compare::Unchanged(Key::Set(pod.clone(), *config), set.mod_revision)));
            group.when(Compare::as_seen(key.clone(), view.deployment.as_ref())).then(Op::Delete(key))
        }
        Intent::FinishDeletion => finish_deletion(view, group),
    }
}

/// Rests on there being no quarantine, and on the sets that want none being all the sets that there are.
fn finish_deletion(view: &PodView, group: Group) -> Group {
    let pod = &view.id;
    let group = group.when(Compare::as_seen(Key::Quarantine, view.quarantine.as_deref()));
    let mut group = group.then(Op::Delete(Key::Accepted(pod.clone())));
    for (config, set) in view.sets.iter().take(super::SETS) {
        let key = Key::Set(pod.clone(), *config);
        group = group.when(Compare::Unchanged(key.clone(), set.mod_revision)).then(Op::Delete(key));
    }
    let others = [
        view.deployment.as_ref().map(|_| Key::Deployment(pod.clone())),
        view.delay.as_ref().map(|_| Key::Delay(pod.clone())),
        view.verdict.as_ref().map(|_| Key::Verdict(pod.clone())),
    ];
    group.ops.extend(others.into_iter().flatten().map(Op::Delete));
    // Who has waited for the end shall not find a status of what is no more.
    group = group.then(Op::Delete(Key::Status(pod.clone())));
    group.ops.extend(view.reach.keys().take(REACH).map(|uuid| Op::Delete(Key::Reach(pod.clone(), *uuid))));
    group
}
