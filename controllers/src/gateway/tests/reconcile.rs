//! What Mesos is asked about, and when.

use super::*;

#[test]
fn a_launch_without_an_echo_is_asked_about_and_not_repeated() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.offer(1);
    world.commit();
    world.calls();
    world.at(NOW + 60_000);
    assert!(world.calls().contains(&Call::Reconcile(vec![(task_id(1, 1), Some("S1".into()))])));
    world.offer(2);
    assert!(world.writes.is_empty(), "silence is no reason to launch again");
}

#[test]
fn a_takeover_asks_about_everything_that_has_not_ended() {
    let before = World::running();
    let mut world = World::new(Settings::default());
    world.view = before.view;
    world.revision = before.revision;
    world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
    world.subscribe(&[]);
    let asked: Vec<Call> = world.calls().into_iter().filter(|call| matches!(call, Call::Reconcile(_))).collect();
    assert_eq!(asked, [Call::Reconcile(vec![(task_id(1, 1), Some("S1".into()))]), Call::Reconcile(Vec::new())]);
}

#[test]
fn a_launch_recorded_while_the_subscription_was_lost_is_asked_about() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.offer(1);
    world.core.disconnected();
    world.subscribe(&[]);
    assert!(!world.calls().contains(&Call::Reconcile(vec![(task_id(1, 1), Some("S1".into()))])), "its record is not durable yet");
    world.commit();
    assert!(world.calls().contains(&Call::Reconcile(vec![(task_id(1, 1), Some("S1".into()))])));
}

#[test]
fn when_nobody_can_say_what_runs_what_is_away_already_is_away_since_it_left() {
    let mut world = World::running();
    world.instance(2, Some(Goal::Running), 1);
    world.offer(2);
    world.commit();
    world.update(&task_id(2, 1), TaskState::TaskRunning, Some(2));
    world.commit();
    world.update(&task_id(1, 1), TaskState::TaskUnreachable, None);
    world.commit();
    let before = world.view.observed[&uuid(1)].value.clone();
    world.now += 60_000;
    world.core.lost_sight(world.now);
    world.settle();
    while !world.writes.is_empty() {
        world.commit();
    }
    assert_eq!(world.view.observed[&uuid(1)].value, before);
    assert_eq!(world.view.observed[&uuid(2)].value.tasks[0].state, Some(TaskState::TaskUnknown.into()));
}

#[test]
fn instances_are_listed_by_their_agent_for_as_long_as_they_have_one() {
    let mut world = World::running();
    let listed = |world: &World| world.core.agents.iter().map(|(agent, all)| (agent.clone(), all.len())).collect::<Vec<_>>();
    assert_eq!(listed(&world), [("S1".to_owned(), 1)]);
    world.instance(2, Some(Goal::Running), 1);
    world.core.offered(vec![offer_of(2, "S2")], world.now);
    world.settle();
    world.commit();
    assert_eq!(listed(&world), [("S1".to_owned(), 1), ("S2".to_owned(), 1)]);
    world.update(&task_id(1, 1), TaskState::TaskFailed, Some(2));
    world.commit();
    world.instance(1, Some(Goal::Running), 2);
    world.core.offered(vec![offer_of(3, "S2")], world.now);
    world.settle();
    assert_eq!(listed(&world), [("S2".to_owned(), 2)], "it is launched elsewhere");
    world.commit();
    for (n, incarnation) in [(1, 2), (2, 1)] {
        world.instance(n, Some(Goal::Decommissioned), incarnation);
        world.update(&task_id(n, incarnation), TaskState::TaskKilled, Some(9));
        world.commit();
        world.instance(n, None, incarnation);
        world.commit();
    }
    assert!(listed(&world).is_empty() && world.core.pods.values().all(|pod| pod.entries.is_empty()));
}

#[test]
fn a_lost_agents_tasks_are_asked_about_at_once() {
    let mut world = World::running();
    let ours = Call::Reconcile(vec![(task_id(1, 1), Some("S1".into()))]);
    world.core.ask_about_agent("S2", world.now);
    world.settle();
    assert_eq!(world.calls(), []);
    world.core.ask_about_agent("S1", world.now);
    world.settle();
    assert_eq!(world.calls(), [ours]);
    // Again when it is back, and only then; also for who has only heard that its tasks are away.
    world.update(&task_id(1, 1), TaskState::TaskUnreachable, None);
    world.commit();
    world.core.offered(vec![offer_of(6, "S2"), offer_of(7, "S1")], world.now);
    assert_eq!(asked(&mut world), [task_id(1, 1)]);
    world.core.agent_left("S1");
    world.core.offered(vec![offer_of(8, "S2"), offer_of(9, "S1"), offer_of(10, "S1")], world.now);
    assert_eq!(asked(&mut world), [task_id(1, 1)]);
    world.core.disconnected();
    world.core.ask_about_agent("S1", world.now);
    assert_eq!(world.core.take().len(), 0, "the next subscription asks about everything");
}

#[test]
fn a_task_of_which_mesos_knows_nothing_is_asked_about_again_soon() {
    let mut world = World::running();
    world.core.agent_left("S1");
    world.core.ask_about_agent("S1", world.now);
    assert_eq!(asked(&mut world), [task_id(1, 1)]);
    world.update(&task_id(1, 1), TaskState::TaskUnknown, None);
    world.commit();
    world.calls();
    for wait in [15_000, 30_000, 60_000] {
        world.now += wait;
        world.settle();
        assert_eq!(asked(&mut world), [task_id(1, 1)], "after {wait}");
    }
    world.update(&task_id(1, 1), TaskState::TaskRunning, None);
    world.commit();
    world.calls();
    world.now += 120_000;
    world.settle();
    assert_eq!(asked(&mut world), Vec::<String>::new());
}

/// About what Mesos was asked.
fn asked(world: &mut World) -> Vec<String> {
    world.settle();
    let calls = world.calls().into_iter();
    calls.flat_map(|call| if let Call::Reconcile(tasks) = call { tasks } else { Vec::new() }).map(|(task, _)| task).collect()
}
