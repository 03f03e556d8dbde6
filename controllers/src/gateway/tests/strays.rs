//! Many tasks without a record at once, as after an old backup was restored.

use super::*;

/// As many as run in a large cluster.
const MANY: u128 = 50_000;

impl World {
    /// An update and a turn of the driver; how many strays were looked at for it.
    fn cost(&mut self, turn: impl FnOnce(&mut Self)) -> u64 {
        let before = self.core.strays.visited.get();
        turn(self);
        self.core.next_wake();
        self.core.strays.visited.get() - before
    }
}

#[test]
fn what_each_stray_costs_does_not_grow_with_their_number() {
    let mut world = World::subscribed();
    let heard = |world: &mut World, n| world.cost(|world| world.update(&task_id(n, 1), TaskState::TaskRunning, None));
    let costs: Vec<u64> = (1..=MANY).map(|n| heard(&mut world, n)).collect();
    assert_eq!(world.strays().len() as u128, MANY);
    let dearest = |costs: &[u64]| costs.iter().max().copied().unwrap();
    assert!(dearest(&costs) <= 8, "{} of {MANY} for one", dearest(&costs));
    // The list of the pod is long, and made when it can be written.
    world.cost(World::commit);
    assert!(heard(&mut world, 1) <= 8);

    let id = format!("a.instance-{}", uuid(MANY / 2));
    world.cost(|world| assert!(world.core.strays.order_kill(Some((&pod(), uuid(MANY / 2))), &id, world.now)));
    let cost = world.cost(World::settle);
    assert_eq!(kills(&world.calls()), [task_id(MANY / 2, 1)]);
    assert!(cost <= 8 && world.cost(World::settle) == 0, "{cost}");
    let ended = world.cost(|world| world.update(&task_id(MANY / 2, 1), TaskState::TaskKilled, None));
    assert!(ended <= 8, "{ended}");
    world.at(NOW + 30_000);
    assert_eq!(kills(&world.calls()).len(), 0, "what has ended is not killed again");
}

#[test]
fn a_stray_that_shows_up_between_question_and_answer_is_asked_about_next() {
    let mut world = World::running();
    world.core.survey.want(world.now);
    world.at(NOW + 1_000);
    world.update(&task_id(77, 1), TaskState::TaskRunning, Some(4));
    world.survey(Ok(Vec::new()));
    assert!(world.surveys.is_empty() && world.core.strays.any_unasked());
    world.at(NOW + 2_000);
    assert_eq!(world.surveys.len(), 1);
    world.survey(Ok(Vec::new()));
    world.at(NOW + 3_000);
    assert!(world.surveys.is_empty() && !world.core.strays.any_unasked(), "and once is enough");
}
