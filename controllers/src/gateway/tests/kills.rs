//! What is not wanted is killed until it has ended.

use super::*;

#[test]
fn what_is_not_wanted_is_killed_again_and_again_until_it_ended_and_then_forgotten() {
    let mut world = World::running();
    world.instance(1, Some(Goal::Decommissioned), 1);
    assert_eq!(kills(&world.calls()), [task_id(1, 1)]);
    world.at(NOW + 9_999);
    assert_eq!(kills(&world.calls()).len(), 0);
    world.at(NOW + 10_000);
    assert_eq!(kills(&world.calls()).len(), 1);
    world.at(NOW + 90_000);
    assert!(world.calls().iter().any(|call| matches!(call, Call::Shutdown { .. })));
    world.update(&task_id(1, 1), TaskState::TaskKilled, Some(2));
    world.commit();
    world.instance(1, None, 1);
    let (_, group) = &world.writes[0];
    assert_eq!(group.ops, [Op::Delete(Key::Observed(pod(), uuid(1)))]);
    world.commit();
    world.at(NOW + 900_000);
    assert_eq!(kills(&world.calls()).len(), 0);
}

#[test]
fn an_old_incarnation_and_a_buried_task_are_killed_but_a_strange_one_is_only_shown() {
    let mut world = World::running();
    world.update(&task_id(1, 1), TaskState::TaskFailed, Some(2));
    world.commit();
    world.instance(1, Some(Goal::Running), 3);
    world.calls();
    world.update(&task_id(1, 2), TaskState::TaskRunning, Some(3));
    let calls = world.calls();
    assert_eq!((kills(&calls), acknowledged(&calls)), (vec![task_id(1, 2).as_str()], 1));

    let tombstone = Tombstone { task_ids: vec![task_id(9, 1)], ..Tombstone::default() };
    world.view.tombstones.insert(uuid(9), held(tombstone, 20));
    world.instance(2, Some(Goal::Running), 1);
    world.calls();
    world.update(&task_id(9, 1), TaskState::TaskRunning, None);
    assert_eq!(kills(&world.calls()), [task_id(9, 1)]);

    world.update(&task_id(77, 1), TaskState::TaskRunning, Some(4));
    world.update("somebody-else", TaskState::TaskRunning, Some(4));
    let calls = world.calls();
    assert_eq!((kills(&calls).len(), acknowledged(&calls)), (0, 2));
    assert_eq!(world.strays(), ["somebody-else".to_owned(), task_id(77, 1)]);
    assert_eq!(world.state().foreign.len(), 1);
    assert_eq!(world.quarantine(), None, "without labels nothing speaks of another store");
    world.subscribe(&[shown("somebody-else", None), shown(&task_id(77, 1), None)]);
    world.commit();
    let asked = |call: &Call| matches!(call, Call::Reconcile(tasks) if tasks.iter().any(|(id, _)| id == "somebody-else"));
    assert!(world.calls().iter().any(asked), "nothing else tells that it has ended");
    world.update("somebody-else", TaskState::TaskFinished, Some(5));
    assert_eq!(world.strays(), [task_id(77, 1)]);
}
