//! Updates: acknowledged when they are durable, and never a reason to hold others up.

use super::*;

#[test]
fn an_update_is_acknowledged_only_when_it_is_durable_and_a_duplicate_at_once() {
    let mut world = World::running();
    world.update(&task_id(1, 1), TaskState::TaskFinished, Some(2));
    assert_eq!(acknowledged(&world.calls()), 0);
    world.commit();
    assert_eq!(acknowledged(&world.calls()), 1);
    world.update(&task_id(1, 1), TaskState::TaskFinished, Some(2));
    assert!(world.writes.is_empty());
    assert_eq!(acknowledged(&world.calls()), 1);
}

#[test]
fn an_update_during_a_write_waits_for_a_write_of_its_own() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.offer(1);
    world.commit();
    world.update(&task_id(1, 1), TaskState::TaskStarting, Some(1));
    world.update(&task_id(1, 1), TaskState::TaskRunning, Some(2));
    world.calls();
    world.commit();
    assert_eq!(acknowledged(&world.calls()), 1);
    world.commit();
    assert_eq!(acknowledged(&world.calls()), 1);
    let record = &world.view.observed[&uuid(1)].value;
    assert_eq!(record.tasks[0].state, Some(TaskState::TaskRunning.into()));
}

#[test]
fn reconciliation_without_a_uuid_is_not_acknowledged() {
    let mut world = World::running();
    world.update(&task_id(1, 1), TaskState::TaskUnreachable, None);
    world.commit();
    assert_eq!(acknowledged(&world.calls()), 0);
}

#[test]
fn an_unanswered_update_is_read_again_and_asked_about() {
    let mut world = World::running();
    world.update(&task_id(1, 1), TaskState::TaskFinished, Some(2));
    world.answer(Outcome::Unknown { revision: 90 });
    assert_eq!(acknowledged(&world.calls()), 0);
    assert_eq!(world.core.reloads_due(90), [(pod(), uuid(1))]);
    world.core.reload(&pod(), uuid(1), Some(&world.view), world.now);
    world.settle();
    assert!(world.calls().contains(&Call::Reconcile(vec![(task_id(1, 1), Some("S1".into()))])));
}

#[test]
fn what_cannot_be_acknowledged_or_understood_holds_nothing_up() {
    let mut world = World::running();
    let status = |state: i32, uuid: &'static [u8]| TaskStatus {
        task_id: v1::TaskId { value: task_id(1, 1) },
        agent_id: Some(v1::AgentId { value: "S1".into() }),
        state,
        uuid: Some(Bytes::from_static(uuid)),
        ..TaskStatus::default()
    };
    // A master refuses an acknowledgement whose uuid has not 16 bytes, and with it the whole subscription.
    world.core.update(&status(TaskState::TaskKilling.into(), b"short"), world.now);
    world.settle();
    world.commit();
    assert_eq!(acknowledged(&world.calls()), 0);
    assert_eq!(world.view.observed[&uuid(1)].value.tasks[0].state, Some(TaskState::TaskKilling.into()));
    // A state of a newer Mesos says nothing to us; what comes after it shall come.
    world.core.update(&status(77, &[9; 16]), world.now);
    world.settle();
    assert!(world.writes.is_empty());
    assert_eq!(acknowledged(&world.calls()), 1);
}
