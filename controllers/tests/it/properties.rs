//! Whatever happens, in whatever order: the promises that [`crate::world::World`] checks at each write hold, and after
//! the last fault everything comes to rest as it is wanted, and stays there.

use podium_controllers::runtime::Census;
use podium_proto::mesos::v1::TaskState;
use proptest::prelude::*;
use uuid::Uuid;

use crate::world::{ALL, Push, Who, World};

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    Push(Push, bool),
    Delete,
    Lose(usize),
    Return(usize),
    Ended(usize, TaskState),
    Health(usize, bool),
    Order(usize, bool),
    /// It takes its time to end, until everything recovers.
    Slow(usize),
    Hurry,
    Tick(i64),
    Cluster,
    /// Everyone acts until nobody has anything left to do.
    Settle,
    Decide(Who),
    /// Its pending groups are answered; those whose bit is set never arrive.
    Commit(Who, u8),
}

fn event() -> impl Strategy<Value = Event> {
    let who = || prop_oneof![Just(Who::Upgrade), Just(Who::Scaling), Just(Who::Unreachable)];
    let ended = prop_oneof![
        Just(TaskState::TaskFailed),
        Just(TaskState::TaskFinished),
        Just(TaskState::TaskKilled),
        Just(TaskState::TaskGone),
        Just(TaskState::TaskUnknown)
    ];
    prop_oneof![
        2 => (push(), prop::bool::weighted(0.2)).prop_map(|(push, bad)| Event::Push(push, bad)),
        1 => prop::bool::weighted(0.1).prop_map(|delete| if delete { Event::Delete } else { Event::Cluster }),
        1 => (0usize..3).prop_map(Event::Lose),
        2 => (0usize..3).prop_map(Event::Return),
        4 => (0usize..12, ended).prop_map(|(place, state)| Event::Ended(place, state)),
        3 => (0usize..12, any::<bool>()).prop_map(|(place, healthy)| Event::Health(place, healthy)),
        1 => (0usize..12, any::<bool>()).prop_map(|(place, wipe)| Event::Order(place, wipe)),
        1 => (0usize..12).prop_map(Event::Slow),
        1 => prop::bool::weighted(0.2).prop_map(|hurry| if hurry { Event::Hurry } else { Event::Cluster }),
        3 => (1i64..100_000).prop_map(Event::Tick),
        12 => Just(Event::Cluster),
        14 => who().prop_map(Event::Decide),
        14 => (who(), prop_oneof![4 => Just(0u8), 1 => any::<u8>()]).prop_map(|(who, lost)| Event::Commit(who, lost)),
    ]
}

/// What may happen where everyone mostly comes to rest between two events: so one change meets what another has left.
fn step() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (push(), prop::bool::weighted(0.1)).prop_map(|(push, bad)| Event::Push(push, bad)),
        1 => Just(Event::Delete),
        2 => (0usize..3).prop_map(Event::Lose),
        2 => (0usize..3).prop_map(Event::Return),
        2 => (0usize..12).prop_map(Event::Slow),
        1 => (0usize..12).prop_map(|place| Event::Ended(place, TaskState::TaskKilled)),
        1 => (0usize..12, any::<bool>()).prop_map(|(place, wipe)| Event::Order(place, wipe)),
        8 => Just(Event::Settle),
        2 => event(),
    ]
}

fn push() -> impl Strategy<Value = Push> {
    let share = || prop_oneof![Just(0.0), Just(0.25), Just(0.5), Just(1.0)];
    let unreachable = prop_oneof![Just(None), Just(Some((0, 0))), Just(Some((20, 60))), Just(Some((60, 20)))];
    (0u32..8, share(), share(), any::<bool>(), any::<bool>(), unreachable, any::<bool>()).prop_map(
        |(instances, min, over, checked, oldest_first, unreachable, restart)| Push {
            instances,
            min,
            over,
            checked,
            oldest_first,
            unreachable,
            restart,
            ..Push::default()
        },
    )
}

fn happen(world: &mut World, event: &Event) {
    let nth = |world: &World, place: usize| -> Option<Uuid> {
        let alive: Vec<Uuid> = world.view().observed.keys().copied().collect();
        alive.get(place % alive.len().max(1)).copied()
    };
    match event {
        Event::Push(push, bad) => {
            world.push(push);
            if *bad && let Some(accepted) = world.view().accepted {
                world.bad.insert(accepted.value.config_ms);
            }
        }
        Event::Delete => world.delete(),
        Event::Lose(agent) => world.lose(&format!("agent-{}", agent + 1)),
        Event::Return(agent) => world.bring_back(&format!("agent-{}", agent + 1)),
        Event::Ended(place, state) => {
            if let Some(uuid) = nth(world, *place) {
                world.set_state(uuid, *state);
            }
        }
        Event::Health(place, healthy) => {
            if let Some(uuid) = nth(world, *place) {
                world.set_health(uuid, *healthy);
            }
        }
        Event::Order(place, wipe) => {
            if let Some(uuid) = nth(world, *place) {
                world.order(uuid, *wipe);
            }
        }
        Event::Slow(place) => {
            if let Some(uuid) = nth(world, *place) {
                world.slow.insert(uuid);
            }
        }
        Event::Hurry => world.hurry(),
        Event::Tick(millis) => world.now += millis,
        Event::Cluster => drop(world.run_cluster()),
        Event::Settle => world.settle(),
        Event::Decide(who) => world.decide(*who),
        Event::Commit(who, lost) => drop(world.commit(*who, |place| place < 8 && lost & (1 << place) != 0)),
    }
}

/// The last fault is over: everyone is reachable, and what is wanted can become healthy.
fn recover(world: &mut World) {
    for agent in world.agents.clone() {
        world.bring_back(&agent);
    }
    world.bad.clear();
    world.slow.clear();
    for uuid in world.view().observed.keys() {
        world.set_health(*uuid, true);
    }
    for who in ALL {
        world.commit(who, |_| false);
    }
    // As long as the longest delay: what must be launched again is.
    for _ in 0..40 {
        world.tick(120_000);
    }
}

fn is_as_wanted(world: &mut World) -> Result<(), TestCaseError> {
    let view = world.view();
    let Some(accepted) = &view.accepted else {
        prop_assert_eq!(world.keys.all().count(), 0, "keys of a deleted pod are left: {:?}", world.keys.all().collect::<Vec<_>>());
        return Ok(());
    };
    let config = podium_types::id::Version::from_millis(accepted.value.config_ms);
    let wanted = podium_controllers::runtime::definition_in_force(&view).unwrap().scaling.instances;
    let census = Census::take(&view);
    prop_assert_eq!(census.members.len(), wanted as usize, "{:?}", world.picture());
    prop_assert!(census.members.iter().all(|member| member.config == config && member.is_healthy()), "{:?}", world.picture());
    prop_assert!(view.deployment.is_none(), "the deployment did not end");
    prop_assert_eq!(view.sets.keys().collect::<Vec<_>>(), vec![&config]);
    prop_assert!(view.reach.is_empty() && view.tombstones.is_empty());
    prop_assert_eq!(view.observed.len(), wanted as usize);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_the_last_fault_everything_is_as_wanted_and_stays_so(
        first in push(),
        resident in prop::bool::weighted(0.3),
        events in prop::collection::vec(event(), 1..160),
    ) {
        live(first, resident, events)?;
    }

    #[test]
    fn instances_with_persistent_volumes_outlive_any_order_of_changes(first in push(), events in prop::collection::vec(step(), 1..40)) {
        live(first, true, events)?;
    }
}

/// From the first push to the last fault, and to what is to be then.
fn live(first: Push, resident: bool, events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut world = World::new(3);
    world.push(&Push { resident, ..first });
    for mut event in events {
        if let Event::Push(push, _) = &mut event {
            push.resident = resident;
        }
        happen(&mut world, &event);
    }
    recover(&mut world);
    is_as_wanted(&mut world)?;
    let revision = world.revision;
    world.tick(10_000_000);
    prop_assert_eq!(world.revision, revision, "written although nothing changed");
    prop_assert_eq!(world.wake(), None, "a timer is left");
    Ok(())
}

#[test]
fn a_deletion_gives_up_who_is_away_and_one_that_was_taken_back_nobody() {
    for taken_back in [false, true] {
        let mut world = World::new(3);
        let push = Push { instances: 2, resident: true, ..Push::default() };
        world.push(&push);
        world.settle();
        world.lose("agent-1");
        world.delete();
        world.decide(Who::Unreachable);
        if taken_back {
            world.push(&push);
        }
        world.commit(Who::Unreachable, |_| false);
        assert_eq!(world.view().tombstones.is_empty(), taken_back);
        if !taken_back {
            world.push(&push);
        }
        recover(&mut world);
        is_as_wanted(&mut world).unwrap();
    }
}
