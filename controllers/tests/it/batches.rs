//! Large pods: planned in groups that etcd takes, with work in proportion to the pod.

use podium_controllers::runtime::{Controller, Now, RandomIds};
use podium_controllers::scaling::{Intent, Scaling, decide};
use podium_store::writer::Group;

use crate::world::{ALL, Push, Who, World};

/// A pod of so many instances, all of them running.
fn running(instances: u32) -> World {
    let mut world = World::new(3);
    world.push(&Push { instances, ..Push::default() });
    world.settle();
    world
}

fn groups(world: &World) -> Vec<Group> {
    let view = world.view();
    let decision = decide(&view, Now(world.now));
    Scaling.apply(&view, decision.intents, Now(world.now), &mut RandomIds)
}

#[test]
fn a_thousand_instances_are_created_by_one_decision() {
    let mut world = World::new(3);
    world.push(&Push { instances: 1000, ..Push::default() });
    world.decide(Who::Upgrade);
    world.commit(Who::Upgrade, |_| false);
    let groups = groups(&world);
    assert_eq!(groups.iter().map(|group| group.ops.len()).sum::<usize>(), 1000);
    assert!(groups.len() <= 20, "{} groups", groups.len());
}

#[test]
fn a_pod_beyond_all_measure_is_planned_bit_by_bit() {
    let mut world = World::new(3);
    world.push(&Push { instances: 100_000, ..Push::default() });
    world.decide(Who::Upgrade);
    world.commit(Who::Upgrade, |_| false);
    let decision = decide(&world.view(), Now(world.now));
    assert!(decision.intents.len() <= 64, "{} groups at once", decision.intents.len());
    assert!(matches!(decision.intents.first(), Some(Intent::Create { count: 60, .. })));
}

#[test]
fn groups_of_every_kind_stay_within_what_etcd_takes() {
    let mut world = running(90);
    // Some lost, some ended, some too many, two configs at once: `commit` checks each group.
    world.lose("agent-1");
    let uuids = world.names.clone();
    for uuid in uuids.iter().take(45) {
        world.set_state(*uuid, podium_proto::mesos::v1::TaskState::TaskFailed);
    }
    world.push(&Push { instances: 60, min: 0.9, over: 0.5, ..Push::default() });
    world.now += 700_000;
    for _ in 0..40 {
        for who in ALL {
            world.decide(who);
            world.commit(who, |_| false);
        }
        world.run_cluster();
    }
    world.bring_back("agent-1");
    world.tick(4_000_000);
    assert_eq!(world.picture().len(), 60);
}

#[test]
fn a_large_pod_is_stopped_by_one_decision() {
    let mut world = running(120);
    world.push(&Push { instances: 0, restart: false, ..Push::default() });
    world.decide(Who::Upgrade);
    world.commit(Who::Upgrade, |_| false);
    let groups = groups(&world);
    assert_eq!(groups.iter().map(|group| group.ops.len()).sum::<usize>(), 120);
    assert!(groups.iter().all(|group| group.compares.len() < 128), "etcd takes no more");
}
