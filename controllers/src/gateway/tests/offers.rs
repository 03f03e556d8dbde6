//! Every offer is used or declined at once, whatever else happens to it.

use std::collections::BTreeMap;

use podium_proto::mesos::v1::{InverseOffer, TimeInfo, Unavailability};
use podium_proto::records::Queue;
use proptest::prelude::*;

use super::*;

fn id(n: u32) -> OfferId {
    OfferId { value: format!("O{n}") }
}

fn declined(calls: &[Call]) -> Vec<(&str, f64)> {
    let declines = calls.iter().filter_map(|call| match call {
        Call::Decline { offer_ids, refuse_seconds } => Some(offer_ids.iter().map(|id| (id.value.as_str(), *refuse_seconds))),
        _ => None,
    });
    declines.flatten().collect()
}

/// The offers of each ACCEPT, how many launches it carries, and how long the rest is not offered again.
fn accepted(calls: &[Call]) -> Vec<(Vec<&str>, usize, f64)> {
    let accepts = calls.iter().filter_map(|call| match call {
        Call::Accept { offer_ids, operations, refuse_seconds } => {
            Some((offer_ids.iter().map(|id| id.value.as_str()).collect(), operations.len(), *refuse_seconds))
        }
        _ => None,
    });
    accepts.collect()
}

impl World {
    /// So many instances, numbered from 1, that all wait.
    fn waiting(count: u128) -> Self {
        let mut world = World::subscribed();
        (1..=count).for_each(|n| world.instance(n, Some(Goal::Running), 1));
        world.calls();
        world
    }

    fn offers(&mut self, offers: impl IntoIterator<Item = (u32, &'static str)>) {
        self.core.offered(offers.into_iter().map(|(n, agent)| offer_of(n, agent)).collect(), self.now);
    }

    fn queue(&mut self) -> Option<Queue> {
        let (_, group) = self.writes.iter().find(|(token, _)| matches!(token, Token::Queue(_)))?;
        match group.ops.first()? {
            Op::PutLeased(_, bytes, _) | Op::Put(_, bytes) => Some(<Queue as prost::Message>::decode(bytes.clone()).unwrap()),
            Op::Delete(_) => None,
        }
    }
}

#[test]
fn an_offer_that_is_rescinded_before_it_is_looked_at_is_as_if_it_had_never_come() {
    let mut world = World::waiting(1);
    world.offers([(1, "S1"), (2, "S2")]);
    world.core.rescinded(&id(1));
    world.settle();
    world.commit();
    assert_eq!(accepted(&world.calls()), [(vec!["O2"], 1, 120.0)]);
}

#[test]
fn a_launch_whose_offer_is_rescinded_while_it_is_recorded_is_sent_for_mesos_to_say_that_it_never_ran() {
    let mut world = World::waiting(1);
    world.offer(1);
    world.core.rescinded(&id(1));
    world.settle();
    world.commit();
    assert_eq!(accepted(&world.calls()).len(), 1);
    world.update(&task_id(1, 1), TaskState::TaskDropped, None);
    world.commit();
    assert_eq!(world.view.observed[&uuid(1)].value.tasks[0].state, Some(TaskState::TaskDropped.into()));
    world.offer(2);
    assert!(world.writes.is_empty(), "its next incarnation is scaling's to decide");
    world.instance(1, Some(Goal::Running), 2);
    world.offer(3);
    world.commit();
    assert_eq!(accepted(&world.calls()).len(), 1);
}

#[test]
fn offers_to_other_roles_do_not_hide_why_those_to_its_own_were_of_no_use() {
    let mut world = World::waiting(1);
    world.at(world.now + 60_000);
    world.commit();
    let poor = Offer { resources: Vec::new(), ..offer_of(1, "S1") };
    world.core.offered(vec![poor], world.now);
    world.at(world.now + 10_000);
    let refused = world.queue().unwrap().refused;
    assert_eq!(refused.get("InsufficientCpus"), Some(&1), "{refused:?}");
    world.commit();
    for n in 2..10 {
        let role = Some(v1::resource::AllocationInfo { role: Some("other".to_owned()) });
        let mut foreign = Offer { allocation_info: role.clone(), ..offer_of(n, "S1") };
        foreign.resources.iter_mut().for_each(|resource| resource.allocation_info = role.clone());
        world.core.offered(vec![foreign], world.now);
        world.at(world.now + 10_000);
    }
    let now = world.queue().map_or_else(|| refused.clone(), |queue| queue.refused);
    assert_eq!(now, refused);
}

#[test]
fn nothing_is_launched_on_offers_of_a_lost_agent() {
    let mut world = World::waiting(1);
    world.offers([(1, "S1"), (2, "S2"), (3, "S1")]);
    world.core.agent_left("S1");
    world.settle();
    world.commit();
    let calls = world.calls();
    assert_eq!(declined(&calls), [("O1", 5.0), ("O3", 5.0)]);
    assert_eq!(accepted(&calls), [(vec!["O2"], 1, 120.0)]);
}

#[test]
fn nothing_is_launched_on_offers_that_a_drained_agent_made_before() {
    let mut world = World::running();
    world.instance(2, Some(Goal::Running), 1);
    world.calls();
    world.offers([(5, "S1")]);
    let status = TaskStatus {
        task_id: v1::TaskId { value: task_id(1, 1) },
        state: TaskState::TaskKilled.into(),
        uuid: Some(Bytes::from_static(&[9; 16])),
        agent_id: Some(v1::AgentId { value: "S1".into() }),
        reason: Some(Reason::AgentDraining.into()),
        ..TaskStatus::default()
    };
    world.core.update(&status, world.now);
    world.settle();
    let calls = world.calls();
    assert_eq!((declined(&calls), accepted(&calls)), (vec![("O5", 5.0)], vec![]));
    world.offer(6);
    world.commit();
    world.commit();
    assert_eq!(accepted(&world.calls()).len(), 1, "what is offered afterwards is good");
}

#[test]
fn offers_of_one_agent_are_accepted_together_and_those_of_two_apart() {
    let mut world = World::waiting(10);
    world.offers([(1, "S1"), (2, "S1"), (3, "S2")]);
    world.settle();
    assert_eq!(world.writes.len(), 10);
    (0..10).for_each(|_| world.commit());
    let calls = world.calls();
    let mut accepts = accepted(&calls);
    accepts.sort_by(|a, b| a.0.cmp(&b.0));
    let launches: usize = accepts.iter().map(|(_, launches, _)| launches).sum();
    assert_eq!((launches, accepts.len()), (10, 2), "{accepts:?}");
    assert_eq!(accepts[0].0, ["O1", "O2"]);
    assert_eq!(accepts[1].0, ["O3"]);
}

#[test]
fn the_rest_of_an_offer_comes_back_at_once_while_something_waits_and_else_late() {
    let mut world = World::waiting(6);
    world.offer(1);
    (0..5).for_each(|_| world.commit());
    assert_eq!(accepted(&world.calls()), [(vec!["O1"], 5, 0.0)], "the sixth waits");
    world.offers([(2, "S2")]);
    world.settle();
    world.commit();
    let calls = world.calls();
    assert_eq!(accepted(&calls), [(vec!["O2"], 1, 120.0)]);
    assert!(calls.contains(&Call::Suppress(vec!["*".into()])), "nothing waits any more");
    world.instance(7, Some(Goal::Running), 1);
    world.at(NOW + 200);
    assert!(world.calls().contains(&Call::Revive(vec!["*".into()])), "filters and suppression end when something new waits");
}

#[test]
fn a_subscription_without_anything_that_waits_is_suppressed_from_its_beginning_and_revived_when_something_does() {
    let mut world = World::new(Settings::default());
    let idle = world.core.idle_roles();
    assert_eq!(idle, ["*"]);
    world.core.subscribed(None, &idle, &idle, world.now);
    world.settle();
    world.survey(Ok(Vec::new()));
    assert!(!world.calls().iter().any(|call| matches!(call, Call::Suppress(_) | Call::Revive(_))), "Mesos knows already");
    world.instance(1, Some(Goal::Running), 1);
    world.at(NOW + 200);
    assert_eq!(world.core.idle_roles(), Vec::<String>::new());
    assert!(world.calls().contains(&Call::Revive(vec!["*".into()])));
}

#[test]
fn an_agent_whose_maintenance_has_begun_is_refused_for_that_reason() {
    let mut world = World::waiting(1);
    let closing = |start_ms: i64| Unavailability { start: TimeInfo { nanoseconds: start_ms * 1_000_000 }, duration: None };
    let begun = Offer { unavailability: Some(closing(NOW)), ..offer_of(1, "S1") };
    world.core.offered(vec![begun], world.now);
    world.settle();
    assert_eq!(declined(&world.calls()), [("O1", 5.0)]);
    world.at(NOW + 2_000);
    let queue = world.queue().expect("a record after two seconds");
    assert_eq!(queue.refused, [("AgentMaintenance".to_owned(), 1)].into());
    assert_eq!((queue.agents, queue.offers_seen, queue.unused[0].offer_id.as_str()), (1, 1, "O1"));
    let later = Offer { unavailability: Some(closing(NOW + 3_600_000)), ..offer_of(2, "S1") };
    world.core.offered(vec![later], world.now);
    world.settle();
    assert!(world.writes.iter().any(|(token, _)| matches!(token, Token::Observed(..))), "until then it is good");
}

#[test]
fn an_inverse_offer_is_accepted_when_the_pods_can_spare_the_agent() {
    let inverse = |agent: &str| InverseOffer {
        id: OfferId { value: format!("I-{agent}") },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: Some(v1::AgentId { value: agent.into() }),
        unavailability: Unavailability { start: TimeInfo { nanoseconds: 0 }, duration: None },
        ..InverseOffer::default()
    };
    // The one instance that the definition asks for runs on S1.
    let mut world = World::running();
    world.core.inverse_offered(vec![inverse("S1"), inverse("S2")], world.now);
    world.settle();
    let answer = |agent: &str, accept| Call::AnswerInverse {
        offer_ids: vec![OfferId { value: format!("I-{agent}") }],
        accept,
        refuse_seconds: 60.0,
    };
    assert_eq!(world.calls(), [answer("S2", true), answer("S1", false)]);
    world.instance(2, Some(Goal::Running), 1);
    world.offers([(7, "S2")]);
    world.settle();
    world.commit();
    world.update(&task_id(2, 1), TaskState::TaskRunning, Some(7));
    world.commit();
    world.calls();
    // That S2 may go, as it was told before, holds no longer.
    world.at(NOW + 60_000);
    world.calls();
    world.core.inverse_offered(vec![inverse("S1"), inverse("S2")], world.now);
    world.settle();
    assert_eq!(world.calls(), [answer("S1", true), answer("S2", false)], "another runs elsewhere, and is needed then");
    world.core.inverse_offered(vec![inverse("S2")], world.now);
    world.settle();
    assert_eq!(world.calls(), [answer("S2", false)]);
}

#[test]
fn each_of_many_pods_that_fit_nowhere_is_told_why_in_its_turn() {
    let mut world = World::subscribed();
    let pods: Vec<PodId> = (0..130).map(|n| PodId::new(&format!("/p{n}")).unwrap()).collect();
    for id in &pods {
        let json = format!(
            r#"{{"id":"{id}","containers":[{{"name":"c","exec":{{"command":{{"shell":"x"}}}},"resources":{{"cpus":99,"mem":32}}}}]}}"#
        );
        let definition = read(json.as_bytes(), &Reading::default()).unwrap().definition;
        let mut view = PodView::new(id.clone());
        view.versions.insert(Version::from_millis(CONFIG), held(StoredDefinition::known(Bytes::from(json), Arc::new(definition)), 1));
        view.accepted = Some(held(Accepted { config_ms: CONFIG, version_ms: CONFIG, ..Accepted::default() }, 1));
        let instance = Instance { config_ms: CONFIG, goal: Goal::Running.into(), incarnation: 1, ..Instance::default() };
        view.instances.insert(uuid(1), held(instance, world.revision));
        world.core.pod_changed(id, Some(&view), world.revision, world.now);
    }
    for n in 1..=3 {
        world.now += 1_000;
        world.offer(n);
    }
    let told = |id: &PodId| world.core.pods[id].waiting.explained_ms() > 0;
    assert_eq!(pods.iter().filter(|id| !told(id)).collect::<Vec<_>>(), Vec::<&PodId>::new());
}

#[test]
fn offers_wait_until_the_secrets_for_what_they_are_used_for_are_read_and_if_that_takes_too_long_they_are_declined() {
    let mut world = World::waiting(1);
    world.offers([(1, "S1")]);
    let nothing = secrets::Known::default();
    for _ in 0..2 {
        assert_eq!(world.core.place(&nothing, world.revision, world.now), ["s".to_owned()].into());
        assert!(world.core.take().is_empty(), "nothing is done before");
    }
    world.settle();
    world.commit();
    assert_eq!(accepted(&world.calls()), [(vec!["O1"], 1, 120.0)]);

    world.instance(2, Some(Goal::Running), 1);
    world.calls();
    world.offers([(2, "S1")]);
    let stuck = secrets::Known { stuck: true, ..nothing };
    assert!(world.core.place(&stuck, world.revision, world.now).is_empty());
    world.settle();
    assert_eq!(declined(&world.calls()), [("O2", 5.0)]);
    assert_eq!(world.state().waiting, 1);
    world.offer(3);
    world.commit();
    assert_eq!(accepted(&world.calls()).len(), 1, "later it is launched");
}

#[test]
fn a_lost_subscription_takes_its_offers_with_it() {
    let mut world = World::waiting(1);
    world.offers([(1, "S1")]);
    world.core.disconnected();
    world.core.subscribed(None, &["*".to_owned()], &[], world.now);
    world.settle();
    let calls = world.calls();
    assert!(world.writes.is_empty() && accepted(&calls).is_empty() && declined(&calls).is_empty(), "{calls:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Offer(usize),
    Wait,
    Rescind(usize),
    Leave(usize),
    Commit,
    Conflict,
    Settle,
    Unwant(u128),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3).prop_map(Step::Offer),
        3 => Just(Step::Wait),
        1 => (0usize..20).prop_map(Step::Rescind),
        1 => (0usize..3).prop_map(Step::Leave),
        4 => Just(Step::Commit),
        1 => Just(Step::Conflict),
        2 => Just(Step::Settle),
        1 => (1u128..10).prop_map(Step::Unwant),
    ]
}

proptest! {
    #[test]
    fn every_offer_is_answered_once_and_none_is_kept(steps in proptest::collection::vec(any_step(), 1..60)) {
        let agents = ["S1", "S2", "S3"];
        let mut world = World::subscribed();
        let (mut made, mut instances) = (0u32, 0u128);
        let mut rescinded = Vec::new();
        for step in steps {
            match step {
                Step::Offer(agent) => {
                    made += 1;
                    world.offers([(made, agents[agent])]);
                }
                Step::Wait => {
                    instances += 1;
                    world.instance(instances, Some(Goal::Running), 1);
                }
                Step::Unwant(n) if n <= instances => world.instance(n, Some(Goal::Decommissioned), 1),
                Step::Unwant(_) => {}
                Step::Rescind(n) => {
                    rescinded.push(format!("O{n}"));
                    world.core.rescinded(&id(u32::try_from(n).unwrap()));
                }
                Step::Leave(agent) => world.core.agent_left(agents[agent]),
                Step::Commit if !world.writes.is_empty() => world.commit(),
                Step::Conflict if !world.writes.is_empty() => {
                    let revision = world.revision;
                    world.answer(Outcome::Conflict { revision });
                }
                Step::Commit | Step::Conflict | Step::Settle => world.settle(),
            }
        }
        world.settle();
        while !world.writes.is_empty() {
            world.commit();
        }
        let calls = world.calls();
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        for call in &calls {
            if let Call::Accept { offer_ids, .. } | Call::Decline { offer_ids, .. } = call {
                offer_ids.iter().for_each(|id| *answers.entry(id.value.clone()).or_default() += 1);
            }
        }
        for n in 1..=made {
            let offer = format!("O{n}");
            match answers.get(&offer) {
                Some(1) => {}
                None => prop_assert!(rescinded.contains(&offer), "{} is kept: {:?}", offer, calls),
                Some(times) => prop_assert!(false, "{} is answered {} times", offer, times),
            }
        }
        let mut launched = std::collections::BTreeSet::new();
        for call in &calls {
            let Call::Accept { operations, .. } = call else { continue };
            for task in operations.iter().flat_map(|operation| &operation.launch_group.as_ref().unwrap().task_group.tasks) {
                prop_assert!(launched.insert(task.task_id.value.clone()), "{} is launched twice", task.task_id.value);
            }
        }
    }
}

#[test]
fn cut_off_from_the_store_offers_are_declined_and_nothing_is_killed() {
    let mut world = World::running();
    world.core.cut_off = true;
    world.instance(1, Some(Goal::Decommissioned), 1);
    world.instance(2, Some(Goal::Running), 1);
    world.calls();
    world.offer(5);
    let calls = world.calls();
    assert!(matches!(calls.as_slice(), [Call::Decline { .. }]), "{calls:?}");
    assert!(world.writes.is_empty());
    world.core.cut_off = false;
    world.at(NOW + 2_000);
    assert_eq!(kills(&world.calls()), [task_id(1, 1)]);
}

#[test]
fn offers_are_declined_for_long_when_nothing_waits_and_briefly_when_something_does_not_fit() {
    let mut world = World::subscribed();
    world.offer(1);
    assert!(matches!(world.calls().as_slice(), [Call::Decline { refuse_seconds, .. }] if *refuse_seconds == 120.0));
    for n in 1..=9 {
        world.instance(n, Some(Goal::Running), 1);
    }
    world.calls();
    world.offer(2);
    assert_eq!(world.writes.len(), 5, "of 0.2 cpus each");
    world.offer(3);
    assert_eq!(world.writes.len(), 9);
}
