//! Stores that are not the ones that launched what runs: what is asked before anything is done, and what waits for an operator.

use super::*;

#[test]
fn a_task_ahead_of_the_store_stops_all_kills_also_after_its_end_until_an_operator_confirms() {
    let mut world = World::running();
    world.update(&task_id(1, 5), TaskState::TaskRunning, Some(3));
    let kept: Vec<&Token> = world.writes.iter().map(|(token, _)| token).collect();
    assert_eq!(kept, [&Token::Quarantine, &Token::Unknown(pod())]);
    world.commit();
    world.commit();
    world.instance(1, Some(Goal::Decommissioned), 1);
    world.at(NOW + 100_000);
    assert_eq!(kills(&world.calls()).len(), 0);
    world.update(&task_id(1, 5), TaskState::TaskFinished, Some(4));
    world.commit();
    world.at(NOW + 102_000);
    assert_eq!(kills(&world.calls()).len(), 0, "the store is no newer for that");

    world.core.ordered(order(Kind::Adopt, &[]), world.now);
    world.settle();
    assert_eq!(world.quarantine(), None);
    world.commit();
    world.commit();
    world.at(NOW + 104_000);
    assert_eq!(kills(&world.calls()), [task_id(1, 1)]);
    assert!(world.view.quarantine.is_none());
}

#[test]
fn nothing_is_launched_killed_or_reconciled_before_mesos_has_told_what_runs() {
    let before = World::running();
    let mut world = World::new(Settings::default());
    (world.view, world.revision) = (before.view, before.revision);
    world.core.subscribed(None, &["*".to_owned()], &[], world.now);
    world.instance(1, Some(Goal::Decommissioned), 1);
    world.instance(2, Some(Goal::Running), 1);
    world.offer(1);
    assert_eq!(beyond_demand(world.calls()), []);
    assert!(world.writes.is_empty());
    world.survey(Err("no master".to_owned()));
    assert_eq!(world.state().unchecked.as_deref(), Some("no master"));
    let calls = world.calls();
    assert!(calls.iter().any(|call| matches!(call, Call::Reconcile(_))) && kills(&calls).is_empty());
    assert_eq!(world.writes.len(), 1, "what waits is launched");
    world.at(NOW + 1_000);
    world.survey(Ok(vec![shown(&task_id(1, 1), Some(("C", 1)))]));
    world.at(NOW + 3_000);
    assert_eq!(kills(&world.calls()), [task_id(1, 1)]);
}

/// An older store: Mesos runs instance 1 in a later incarnation, and instance 5, of which nothing is known.
fn older() -> World {
    let before = World::running();
    let mut world = World::new(Settings::default());
    (world.view, world.revision) = (before.view, before.revision);
    world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
    world.subscribe(&[shown(&task_id(1, 2), Some(("C", 900))), shown(&task_id(5, 1), Some(("C", 11)))]);
    world
}

#[test]
fn an_older_store_is_known_as_such_before_anything_is_reconciled_and_launches_nothing_beside_what_runs() {
    let mut world = older();
    assert!(world.quarantine().unwrap().contains("at revision 900"), "{:?}", world.quarantine());
    assert_eq!(beyond_demand(world.calls()), [], "what reconciliation brings to light makes others act");
    let (_, group) = &world.writes[1];
    let [Op::Put(Key::Unknown(_), bytes)] = group.ops.as_slice() else { panic!("{group:?}") };
    let record = <Unknown as prost::Message>::decode(bytes.clone()).unwrap();
    let told: Vec<_> = record.instances.iter().map(|one| (one.incarnation, one.why(), one.revision)).collect();
    assert_eq!(told, [(2, Why::Ahead, 900), (1, Why::Forgotten, 11)]);
    world.commit();
    world.commit();
    assert!(matches!(world.calls().as_slice(), [Call::Reconcile(_), Call::Reconcile(_)]));

    world.update(&task_id(1, 1), TaskState::TaskGone, None);
    world.commit();
    world.instance(1, Some(Goal::Running), 2);
    world.instance(2, Some(Goal::Running), 1);
    world.instance(3, Some(Goal::Running), 1);
    world.calls();
    world.offer(1);
    assert_eq!(world.writes.len(), 1, "of two that wait, one: instance 5 runs unknown, and 1 in its own place");
}

#[test]
fn what_an_operator_adopts_is_recorded_and_what_he_has_killed_is_killed_in_quarantine_too() {
    let mut world = older();
    world.commit();
    world.commit();
    world.calls();
    world.core.ordered(order(Kind::Kill, &[instance_id(5)]), world.now);
    world.settle();
    assert_eq!(kills(&world.calls()), [task_id(5, 1)]);
    world.update(&task_id(5, 1), TaskState::TaskKilled, Some(9));
    assert!(world.quarantine().is_some(), "instance 1 is still ahead");
    while !world.writes.is_empty() {
        world.commit();
    }

    world.core.ordered(order(Kind::Adopt, &[instance_id(1)]), world.now);
    world.settle();
    while !world.writes.is_empty() {
        world.commit();
    }
    let record = &world.view.observed[&uuid(1)].value;
    assert_eq!((record.incarnation, record.adopted, record.agent_id.as_str()), (2, true, "S1"));
    assert_eq!(record.tasks[0].state, Some(TaskState::TaskRunning.into()));
    assert_eq!((world.quarantine(), world.strays()), (None, vec![]));
    world.survey_again(&[shown(&task_id(1, 2), Some(("C", 900)))]);
    assert_eq!(world.quarantine(), None, "an operator's word outweighs the labels");
}

#[test]
fn what_an_earlier_gateway_listed_and_does_not_run_any_more_is_taken_off_the_list_once_all_agents_are_back() {
    let mut world = World::new(Settings::default());
    let listed = Unknown { instances: vec![Default::default()], schema: 1, ..Unknown::default() };
    world.core.custody = Custody::found(None, vec![(pod(), listed)]);
    world.core.subscribed(None, &["*".to_owned()], &[], world.now);
    world.settle();
    world.survey_with(Ok(Shown { tasks: Vec::new(), away: 1 }));
    assert!(world.writes.is_empty(), "what runs on the agent that is away nobody knows");
    world.at(NOW + 1_000);
    world.survey(Ok(Vec::new()));
    let [(Token::Unknown(_), group)] = world.writes.as_slice() else { panic!("{:?}", world.writes) };
    assert_eq!(group.ops, [Op::Delete(Key::Unknown(pod()))]);
}

#[test]
fn an_adoption_is_done_only_when_its_record_is_durable() {
    for outcome in [Outcome::Unknown { revision: 90 }, Outcome::Refused("no space".to_owned())] {
        let mut world = older();
        while !world.writes.is_empty() {
            world.commit();
        }
        world.update(&task_id(5, 1), TaskState::TaskKilled, Some(9));
        while !world.writes.is_empty() {
            world.commit();
        }
        world.core.ordered(order(Kind::Adopt, &[instance_id(1)]), world.now);
        world.settle();
        assert!(matches!(world.writes.as_slice(), [(Token::Observed(..), _)]), "{:?}", world.writes);
        world.answer(outcome.clone());
        for (id, uuid) in world.core.reloads_due(90) {
            world.core.reload(&id, uuid, Some(&world.view), world.now);
        }
        world.settle();
        assert_eq!(world.strays(), [task_id(1, 2)], "{outcome:?}");
        assert!(world.quarantine().is_some());
        assert!(!world.writes.iter().any(|(token, _)| matches!(token, Token::Order(_) | Token::Quarantine | Token::Unknown(_))));
        world.at(NOW + 30_000);
        assert_eq!(world.writes.len(), 1, "it is tried again: {:?}", world.writes);
        while !world.writes.is_empty() {
            world.commit();
        }
        assert_eq!((world.quarantine(), world.strays()), (None, vec![]));
        assert_eq!(world.view.observed[&uuid(1)].value.incarnation, 2);
    }
}

#[test]
fn what_mesos_does_not_show_is_asked_about_and_forgotten_only_when_it_says_so() {
    let mut world = older();
    while !world.writes.is_empty() {
        world.commit();
    }
    world.calls();
    world.survey_again(&[shown(&task_id(1, 2), Some(("C", 900)))]);
    assert_eq!(world.strays(), [task_id(1, 2), task_id(5, 1)]);
    assert!(world.calls().contains(&Call::Reconcile(vec![(task_id(5, 1), Some("S1".into()))])));
    world.update(&task_id(5, 1), TaskState::TaskUnreachable, None);
    assert_eq!(world.strays(), [task_id(1, 2), task_id(5, 1)]);
    world.update(&task_id(5, 1), TaskState::TaskUnknown, None);
    assert_eq!(world.strays(), [task_id(1, 2)]);
}

#[test]
fn an_orphaned_record_that_mesos_does_not_show_is_no_reason_to_ask_for_ever() {
    let mut world = World::running();
    world.instance(1, None, 1);
    world.at(NOW + 1_000);
    world.survey(Ok(Vec::new()));
    world.at(NOW + 9_000);
    assert!(world.surveys.is_empty(), "{:?}", world.surveys);
    assert_eq!(world.strays(), [task_id(1, 1)]);
}

#[test]
fn a_gateway_that_has_not_seen_what_runs_on_every_agent_kills_nothing() {
    let before = World::running();
    let mut world = World::new(Settings::default());
    (world.view, world.revision) = (before.view, before.revision);
    world.core.subscribed(None, &["*".to_owned()], &[], world.now);
    world.instance(1, Some(Goal::Decommissioned), 1);
    let ours = vec![shown(&task_id(1, 1), Some(("C", 1)))];
    world.survey_with(Ok(Shown { tasks: ours.clone(), away: 1 }));
    assert!(world.state().unchecked.unwrap().contains("one agent has not"));
    world.at(NOW + 1_000);
    assert_eq!(kills(&world.calls()).len(), 0);
    world.survey(Ok(ours.clone()));
    world.at(NOW + 3_000);
    assert_eq!(kills(&world.calls()), [task_id(1, 1)]);
    world.core.subscribed(None, &["*".to_owned()], &[], world.now);
    world.settle();
    world.survey_with(Ok(Shown { tasks: ours, away: 1 }));
    world.at(NOW + 13_000);
    assert_eq!(kills(&world.calls()), [task_id(1, 1)], "that this store launched what runs is known since");
}

#[test]
fn nothing_is_reconciled_before_the_quarantine_is_durable() {
    let mut world = older();
    world.calls();
    let reconciled = |calls: Vec<Call>| calls.iter().any(|call| matches!(call, Call::Reconcile(_)));
    world.answer(Outcome::Unknown { revision: 50 });
    world.commit();
    world.at(NOW + 999);
    assert!(!reconciled(world.calls()));
    world.at(NOW + 1_000);
    assert!(matches!(world.writes.as_slice(), [(Token::Quarantine, _)]));
    world.commit();
    assert!(reconciled(world.calls()));
}

#[test]
fn a_quarantine_is_ended_only_by_an_order_that_is_about_it() {
    let mut world = older();
    for n in [(1, 2), (5, 1)] {
        world.update(&task_id(n.0, n.1), TaskState::TaskFinished, Some(9));
    }
    while !world.writes.is_empty() {
        world.commit();
    }
    world.core.ordered(order(Kind::Kill, &["typo".to_owned(), instance_id(77)]), world.now);
    world.settle();
    while !world.writes.is_empty() {
        world.commit();
    }
    assert!(world.quarantine().is_some());
    world.core.ordered(order(Kind::Kill, &[]), world.now);
    assert_eq!(world.quarantine(), None);
}

#[test]
fn a_task_of_another_cluster_begins_a_quarantine_although_a_record_names_it() {
    let mut world = World::running();
    world.survey_again(&[shown(&task_id(1, 1), Some(("D", 1)))]);
    assert!(world.quarantine().unwrap().contains("cluster D"), "{:?}", world.quarantine());
    world.instance(1, Some(Goal::Decommissioned), 1);
    world.at(NOW + 100_000);
    assert_eq!(kills(&world.calls()).len(), 0);
}

#[test]
fn what_was_heard_of_since_the_question_outweighs_the_answer() {
    let mut world = World::running();
    world.core.subscribed(None, &["*".to_owned()], &[], world.now);
    world.settle();
    world.update(&task_id(1, 1), TaskState::TaskFinished, Some(2));
    world.commit();
    world.instance(1, None, 1);
    world.commit();
    world.survey(Ok(vec![shown(&task_id(1, 1), Some(("C", 1)))]));
    assert_eq!((world.quarantine(), world.strays()), (None, vec![]));
}

#[test]
fn a_running_task_of_the_present_incarnation_without_a_record_is_taken_on() {
    let mut world = World::subscribed();
    world.instance(1, Some(Goal::Running), 1);
    world.update(&task_id(1, 1), TaskState::TaskRunning, Some(1));
    world.commit();
    let record = &world.view.observed[&uuid(1)].value;
    assert_eq!((record.agent_id.as_str(), record.tasks[0].state), ("S1", Some(TaskState::TaskRunning.into())));
    world.offer(1);
    assert!(world.writes.is_empty(), "it is not launched again");
}
