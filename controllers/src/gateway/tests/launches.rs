//! Launches: recorded before they are sent, and what becomes of those that are not.

use super::*;

#[test]
fn a_launch_is_recorded_before_it_is_sent_and_compares_the_instance() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    assert_eq!(world.calls(), [Call::Revive(vec!["*".into()])]);
    world.offer(1);
    assert_eq!(world.calls(), [Call::Suppress(vec!["*".into()])], "nothing is accepted yet");
    let (_, group) = &world.writes[0];
    assert!(group.compares.contains(&Compare::Unchanged(Key::Instance(pod(), uuid(1)), 11)));
    assert!(group.compares.contains(&Compare::Absent(Key::Observed(pod(), uuid(1)))));
    world.commit();
    let calls = world.calls();
    let [Call::Accept { offer_ids, operations, .. }] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!(offer_ids[0].value, "O1");
    let launched = operations[0].launch_group.as_ref().unwrap();
    assert_eq!(launched.task_group.tasks[0].task_id.value, task_id(1, 1));
}

#[test]
fn one_accept_carries_every_launch_of_its_offer() {
    let mut world = World::subscribed();
    for n in 1..=3 {
        world.instance(n, Some(Goal::Running), 1);
    }
    world.calls();
    world.offer(1);
    world.commit();
    world.commit();
    assert!(!world.calls().iter().any(|call| matches!(call, Call::Accept { .. })));
    world.commit();
    let calls = world.calls();
    let accepts: Vec<usize> =
        calls.iter().filter_map(|call| if let Call::Accept { operations, .. } = call { Some(operations.len()) } else { None }).collect();
    assert_eq!(accepts, [3]);
}

#[test]
fn a_launch_whose_instance_changed_is_not_sent_and_the_offer_goes_back() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.offer(1);
    world.calls();
    world.answer(Outcome::Conflict { revision: 50 });
    assert!(matches!(world.calls().as_slice(), [Call::Decline { .. }]));
    assert_eq!(world.core.reloads_due(49), []);
    assert_eq!(world.core.reloads_due(50), [(pod(), uuid(1))]);
    world.core.reload(&pod(), uuid(1), Some(&world.view), world.now);
    world.settle();
    assert_eq!(world.state().waiting, 1);
}

#[test]
fn the_record_of_a_wait_that_ends_while_it_is_written_is_deleted_afterwards() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.at(NOW + 2_000);
    assert!(matches!(world.writes.as_slice(), [(Token::Queue(_), _)]));
    world.instance(1, Some(Goal::Decommissioned), 1);
    assert_eq!(world.writes.len(), 1, "one write of a key at a time");
    world.commit();
    let [(Token::Queue(_), group)] = world.writes.as_slice() else { panic!("{:?}", world.writes) };
    assert!(matches!(group.ops.as_slice(), [Op::Delete(Key::Queue(_))]));
}

#[test]
fn what_cannot_be_built_is_recorded_in_words_and_nothing_is_launched() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.calls();
    world.core.offered(vec![offer_of(1, "S1")], world.now);
    let in_vain = secrets::Known { read: ["s".to_owned()].into(), ..secrets::Known::default() };
    world.core.place(&in_vain, 1, world.now);
    world.settle();
    world.commit();
    let record = &world.view.observed[&uuid(1)].value;
    assert!(record.message.contains("secret `s` has no value"), "{}", record.message);
    assert_eq!(record.tasks[0].state, Some(TaskState::TaskError.into()));
    assert!(world.calls().iter().any(|call| matches!(call, Call::Decline { .. })));
}
