//! Instances with persistent volumes: reserved once, launched there and nowhere else, given back when they are gone.

use podium_proto::mesos::v1::Resource;
use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::resource::AllocationInfo;
use podium_proto::records::observed::Reservation;
use podium_types::id::InstanceId;

use super::*;

const ROLE: &str = "db";

/// An offer to the role, with this beside what is unreserved.
fn offer_with(n: u32, agent: &str, held: &[Resource]) -> Offer {
    let mut offer = offer_of(n, agent);
    offer.resources.extend_from_slice(held);
    let allocated = AllocationInfo { role: Some(ROLE.to_owned()) };
    offer.resources.iter_mut().for_each(|resource| resource.allocation_info = Some(allocated.clone()));
    Offer { allocation_info: Some(allocated), ..offer }
}

/// The operations of the only ACCEPT.
fn operations(calls: Vec<Call>) -> Vec<Operation> {
    let mut accepts = calls.into_iter().filter_map(|call| match call {
        Call::Accept { operations, .. } => Some(operations),
        _ => None,
    });
    let operations = accepts.next().expect("an ACCEPT");
    assert_eq!(accepts.next(), None);
    operations
}

fn kinds(operations: &[Operation]) -> Vec<operation::Type> {
    operations.iter().map(|operation| operation::Type::try_from(operation.r#type.unwrap()).unwrap()).collect()
}

/// All that a launch uses.
fn used(operations: &[Operation]) -> Vec<Resource> {
    let group = operations.iter().find_map(|operation| operation.launch_group.clone()).expect("a launch");
    let tasks = group.task_group.tasks.into_iter().flat_map(|task| task.resources);
    group.executor.resources.into_iter().chain(tasks).collect()
}

fn volumes(resources: &[Resource]) -> Vec<String> {
    let disks = resources.iter().filter_map(|resource| resource.disk.as_ref()?.persistence.as_ref());
    disks.map(|persistence| persistence.id.clone()).collect()
}

impl World {
    /// Its pod has a persistent volume.
    fn resident() -> Self {
        let settings = Settings { principal: Some("somebody".to_owned()), ..Settings::default() };
        let mut world = World::new(settings);
        world.define(CONFIG, ROLE);
        world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
        world.subscribe(&[]);
        world.calls.clear();
        world
    }

    /// The same but for its role.
    fn define(&mut self, config: i64, role: &str) {
        let json = br#"{"id":"/a","volumes":[{"name":"v","persistent":{"size":64}}],"containers":[{"name":"c",
            "exec":{"command":{"shell":"x"}},"resources":{"cpus":0.1,"mem":32},"endpoints":[{"name":"e","hostPort":0}],
            "volumeMounts":[{"name":"v","mountPath":"v"}]}]}"#;
        let reading = Reading { default_role: role.to_owned(), ..Reading::default() };
        let definition = read(json, &reading).unwrap().definition;
        let stored = StoredDefinition::known(Bytes::from_static(json), Arc::new(definition));
        self.view.versions.insert(Version::from_millis(config), held(stored, 1));
    }

    /// Its only instance is launched on S1; what it uses from then on.
    fn settled() -> (Self, Vec<Resource>) {
        let mut world = World::resident();
        world.instance(1, Some(Goal::Running), 1);
        world.core.roles_answered(Ok(()), world.now);
        world.offered_with(1, "S1", &[]);
        world.commit();
        let used = used(&operations(world.calls()));
        world.update(&task_id(1, 1), TaskState::TaskRunning, Some(1));
        world.commit();
        world.calls();
        (world, used)
    }

    /// Its task ends, and scaling begins the next incarnation.
    fn ends(&mut self, incarnation: u32) {
        self.update(&task_id(1, incarnation), TaskState::TaskFailed, Some(7));
        self.commit();
        self.instance(1, Some(Goal::Running), incarnation + 1);
        self.calls();
    }

    /// The first launch of its instance was perhaps never made on S1, and the next is sent to S2: what the first would have used,
    /// and the operations of the other.
    fn moved() -> (Self, Vec<Resource>, Vec<Operation>) {
        let mut world = World::resident();
        world.instance(1, Some(Goal::Running), 1);
        world.offered_with(1, "S1", &[]);
        world.commit();
        let first = used(&operations(world.calls()));
        world.update(&task_id(1, 1), TaskState::TaskError, None);
        world.commit();
        world.instance(1, Some(Goal::Running), 2);
        world.offered_with(2, "S2", &[]);
        world.commit();
        let again = operations(world.calls());
        (world, first, again)
    }

    /// The task of its present launch ends, and so does the instance.
    fn goes(&mut self) {
        let launch = self.core.pods[&pod()].entries[&uuid(1)].observed.as_ref().unwrap().incarnation;
        self.instance(1, Some(Goal::Decommissioned), launch);
        self.update(&task_id(1, launch), TaskState::TaskKilled, Some(8));
        self.commit();
        self.instance(1, None, launch);
        self.calls();
    }

    fn offered_with(&mut self, n: u32, agent: &str, held: &[Resource]) {
        self.core.offered(vec![offer_with(n, agent, held)], self.now);
        self.settle();
    }

    fn reservation(&self) -> Option<Reservation> {
        self.core.pods[&pod()].entries.get(&uuid(1))?.observed.clone()?.reservation
    }

    fn deletes_its_record(&self) -> bool {
        self.writes.last().is_some_and(|(token, group)| matches!((token, &group.ops[0]), (Token::Observed(..), Op::Delete(_))))
    }

    fn gives_back(&mut self) -> bool {
        self.calls().iter().any(|call| matches!(call, Call::Accept { .. }))
    }
}

#[test]
fn the_first_launch_reserves_and_creates_in_the_accept_that_its_record_precedes() {
    let mut world = World::resident();
    world.instance(1, Some(Goal::Running), 1);
    world.offered_with(1, "S1", &[]);
    let reservation = world.reservation().unwrap();
    let id = format!("a#v#{}", uuid(1));
    assert_eq!(
        (reservation.agent_id.as_str(), reservation.made, reservation.volumes[0].persistence_id.as_str()),
        ("S1", false, id.as_str())
    );
    assert!(world.calls().iter().all(|call| !matches!(call, Call::Accept { .. })), "the record is not durable yet");
    world.commit();
    let operations = operations(world.calls());
    assert_eq!(kinds(&operations), [operation::Type::Reserve, operation::Type::Create, operation::Type::LaunchGroup]);
    let used = used(&operations);
    assert_eq!(volumes(&used), [id]);
    for resource in &used {
        let reservation = resource.reservations.last().unwrap();
        let labels: BTreeMap<&str, &str> =
            reservation.labels.as_ref().unwrap().labels.iter().map(|label| (label.key.as_str(), label.value.as_deref().unwrap())).collect();
        let instance = InstanceId { pod: pod(), uuid: uuid(1) }.to_string();
        assert_eq!((labels["marathon_framework_id"], labels["marathon_task_id"]), ("F", instance.as_str()));
        assert_eq!((reservation.principal.as_deref(), reservation.role.as_deref()), (Some("somebody"), Some(ROLE)));
    }
    let reserve = operations[0].reserve.as_ref().unwrap();
    assert!(podium_proto::wire::resources::contains(&reserve.resources, &used[..3]), "cpus, mem and disk of the executor");
}

#[test]
fn it_is_launched_again_on_its_own_resources_and_waits_for_nothing_else() {
    let (mut world, used) = World::settled();
    world.ends(1);
    world.offered_with(2, "S2", &[]);
    world.offered_with(3, "S1", &[]);
    assert!(world.writes.iter().all(|(token, _)| !matches!(token, Token::Observed(..))), "neither elsewhere nor beside what is its own");
    world.calls();
    world.offered_with(4, "S1", &used);
    world.commit();
    let operations = operations(world.calls());
    assert_eq!(kinds(&operations), [operation::Type::LaunchGroup]);
    assert!(podium_proto::wire::resources::contains(&used, &self::used(&operations)), "no more than is its own");
    assert!(world.reservation().unwrap().made);
}

/// The same, with another label.
fn relabelled(key: &str, value: &str, used: &[Resource]) -> Vec<Resource> {
    let mut resources = used.to_vec();
    let reservations = resources.iter_mut().flat_map(|resource| &mut resource.reservations);
    let labels = reservations.flat_map(|reservation| &mut reservation.labels.as_mut().unwrap().labels);
    labels.filter(|label| label.key == key).for_each(|label| label.value = Some(value.to_owned()));
    resources
}

/// The same, as another launch reserved it.
fn of_launch(incarnation: u32, used: &[Resource]) -> Vec<Resource> {
    relabelled("podium.incarnation", &incarnation.to_string(), used)
}

#[test]
fn an_instance_goes_on_in_the_role_of_what_it_has_whatever_role_its_pod_has_now() {
    let (mut world, used) = World::settled();
    world.define(CONFIG + 1, "other");
    world.update(&task_id(1, 1), TaskState::TaskKilled, Some(7));
    world.commit();
    world.revision += 1;
    let next = Instance { config_ms: CONFIG + 1, goal: Goal::Running.into(), incarnation: 2, ..Instance::default() };
    world.view.instances.insert(uuid(1), held(next, world.revision));
    world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
    world.settle();
    world.calls();
    assert!(world.core.role_waits(ROLE) && !world.core.role_waits("other"));
    world.offered_with(2, "S1", &used);
    world.commit();
    let operations = operations(world.calls());
    assert_eq!(kinds(&operations), [operation::Type::LaunchGroup], "on what it has");
    let record = &world.view.observed[&uuid(1)].value;
    assert_eq!((record.role.as_str(), record.config_ms, record.incarnation), (ROLE, CONFIG + 1, 2));
    assert!(!world.core.role_waits(ROLE));
}

#[test]
fn an_instance_for_which_nothing_was_reserved_for_sure_begins_anew_in_its_pods_role() {
    let mut world = World::resident();
    world.instance(1, Some(Goal::Running), 1);
    world.core.roles_answered(Ok(()), world.now);
    world.offered_with(1, "S1", &[]);
    world.commit();
    world.update(&task_id(1, 1), TaskState::TaskError, None);
    world.commit();
    world.define(CONFIG + 1, "other");
    world.revision += 1;
    let next = Instance { config_ms: CONFIG + 1, goal: Goal::Running.into(), incarnation: 2, ..Instance::default() };
    world.view.instances.insert(uuid(1), held(next, world.revision));
    world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
    world.settle();
    assert!(world.core.role_waits("other") && !world.core.role_waits(ROLE));
}

#[test]
fn it_finds_what_is_its_own_on_an_agent_that_is_back_under_another_id() {
    let (mut world, used) = World::settled();
    world.ends(1);
    world.offered_with(2, "S9", &of_launch(7, &used));
    assert!(world.writes.iter().all(|(token, _)| !matches!(token, Token::Observed(..))), "what another launch reserved is not its own");
    world.calls();
    world.offered_with(3, "S9", &used);
    world.commit();
    assert_eq!(kinds(&operations(world.calls())), [operation::Type::LaunchGroup]);
    assert_eq!(world.reservation().unwrap().agent_id, "S9");
}

#[test]
fn what_is_gone_is_given_back_on_an_agent_that_is_back_under_another_id() {
    let (mut world, used) = World::settled();
    world.goes();
    world.offered_with(2, "S9", &used);
    assert!(world.gives_back());
    world.commit();
    world.at(world.now + 5_000);
    world.offered_with(3, "S9", &[]);
    assert!(world.deletes_its_record());
}

#[test]
fn of_an_instance_whose_record_is_lost_the_newest_volume_is_taken() {
    let (_, used) = World::settled();
    let mut world = World::resident();
    world.instance(1, Some(Goal::Running), 5);
    world.core.offered(vec![offer_with(2, "S1", &of_launch(4, &used)), offer_with(3, "S2", &used)], world.now);
    world.settle();
    assert_eq!(world.reservation().map(|one| (one.agent_id, one.incarnation)), Some(("S1".to_owned(), 4)));
}

impl World {
    /// A later launch of its instance runs on S1, and is taken on by an operator's word.
    fn adopts(&mut self) -> Observed {
        self.survey_again(&[shown(&task_id(1, 2), Some(("C", 900)))]);
        assert!(self.quarantine().is_some());
        self.core.ordered(order(Kind::Adopt, &[instance_id(1)]), self.now);
        self.settle();
        while !self.writes.is_empty() {
            self.commit();
        }
        self.calls();
        self.view.observed[&uuid(1)].value.clone()
    }
}

#[test]
fn what_an_older_store_has_reserved_elsewhere_or_perhaps_never_does_not_bind_what_is_taken_on() {
    for (agent, end, told) in [("S2", TaskState::TaskFailed, Some(1)), ("S1", TaskState::TaskError, None)] {
        let mut world = World::resident();
        world.instance(1, Some(Goal::Running), 1);
        world.core.roles_answered(Ok(()), world.now);
        world.offered_with(1, agent, &[]);
        world.commit();
        let used = of_launch(2, &used(&operations(world.calls())));
        world.update(&task_id(1, 1), end, told);
        world.commit();
        let record = world.adopts();
        let reservation = record.reservation.unwrap();
        assert_eq!((record.role.as_str(), reservation.agent_id.as_str(), reservation.incarnation), (ROLE, "S1", 0), "{agent}");
        // It ends, and its next launch is on what it had.
        world.instance(1, Some(Goal::Running), 2);
        world.ends(2);
        world.offered_with(4, "S1", &used);
        world.commit();
        assert_eq!(kinds(&operations(world.calls())), [operation::Type::LaunchGroup], "{agent}");
    }
}

#[test]
fn what_is_taken_on_without_any_record_is_given_back_when_it_is_gone() {
    let (_, used) = World::settled();
    let used = of_launch(2, &used);
    let mut world = World::resident();
    let record = world.adopts();
    assert_eq!((record.role.as_str(), record.reservation.unwrap().agent_id.as_str()), (ROLE, "S1"));
    world.goes();
    world.offered_with(4, "S1", &used);
    assert!(world.gives_back());
}

#[test]
fn what_is_taken_on_without_any_record_is_given_back_on_an_agent_that_is_back_under_another_id() {
    let (_, used) = World::settled();
    let used = of_launch(2, &used);
    let mut world = World::resident();
    world.adopts();
    world.goes();
    world.offered_with(4, "S9", &used);
    assert!(world.gives_back());
    world.commit();
    world.at(world.now + 5_000);
    world.offered_with(5, "S9", &[]);
    assert!(world.deletes_its_record(), "its record does not wait for an id that is no more");
}

#[test]
fn what_is_taken_on_and_ends_before_it_is_counted_keeps_its_record_and_its_data() {
    let (_, used) = World::settled();
    let used = of_launch(2, &used);
    let mut world = World::resident();
    world.adopts();
    world.update(&task_id(1, 2), TaskState::TaskFailed, Some(8));
    world.commit();
    world.calls();
    for n in 0..20 {
        world.at(world.now + 10_000);
        world.offered_with(4 + n, "S1", if n == 0 { &used } else { &[] });
        assert!(!world.gives_back());
    }
    assert!(world.writes.iter().all(|(token, _)| !matches!(token, Token::Observed(..))), "its record stays");
    world.instance(1, Some(Goal::Running), 2);
    world.commit();
    assert!(!world.view.observed[&uuid(1)].value.adopted, "scaling has written it down");
    world.instance(1, Some(Goal::Running), 3);
    world.offered_with(30, "S1", &used);
    world.commit();
    assert_eq!(kinds(&operations(world.calls())), [operation::Type::LaunchGroup]);
}

#[test]
fn what_was_taken_on_for_a_pod_that_is_gone_before_it_is_counted_is_nobodys() {
    let (_, used) = World::settled();
    let used = of_launch(2, &used);
    for ends in [true, false] {
        let mut world = World::resident();
        world.adopts();
        if ends {
            world.update(&task_id(1, 2), TaskState::TaskFailed, Some(8));
            world.commit();
        }
        world.view.accepted = None;
        world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
        world.settle();
        while !world.writes.is_empty() {
            world.commit();
        }
        world.calls();
        world.offered_with(4, "S1", &used);
        assert_eq!((world.gives_back(), world.strays().len()), if ends { (true, 0) } else { (false, 1) }, "what runs is shown");
        assert!(!world.view.observed[&uuid(1)].value.adopted);
        if ends {
            world.commit();
            assert_eq!(world.reservation().unwrap().incarnation, 2, "its labels tell by which launch");
            world.at(world.now + 5_000);
            world.offered_with(5, "S1", &[]);
            assert!(world.deletes_its_record());
        }
    }
}

#[test]
fn what_only_a_newer_build_can_read_of_its_pod_ends_no_adoption() {
    let mut world = World::resident();
    world.adopts();
    world.view.accepted = None;
    world.view.unreadable.insert(Key::Accepted(pod()), 99);
    world.core.pod_changed(&pod(), Some(&world.view), world.revision, world.now);
    world.settle();
    assert!(world.writes.is_empty(), "{:?}", world.writes);
}

#[test]
fn a_record_without_a_role_asks_mesos_for_none() {
    let (mut world, _) = World::settled();
    world.view.observed.get_mut(&uuid(1)).unwrap().value.role = String::new();
    let mut next = World::new(Settings::default());
    next.view = world.view;
    next.core.pod_changed(&pod(), Some(&next.view), 99, next.now);
    assert_eq!(next.core.roles_to_subscribe(), [ROLE]);
}

#[test]
fn another_instance_uses_nothing_of_it() {
    let (mut world, used) = World::settled();
    world.instance(2, Some(Goal::Running), 1);
    let mut offer = offer_with(2, "S1", &used);
    offer.resources.retain(|resource| !resource.reservations.is_empty());
    world.core.offered(vec![offer], world.now);
    world.settle();
    assert!(world.writes.is_empty() && !world.gives_back(), "what is reserved is of an instance that runs");
}

#[test]
fn what_mesos_has_perhaps_never_reserved_binds_it_to_no_agent() {
    let (mut world, first, again) = World::moved();
    assert_eq!(kinds(&again)[0], operation::Type::Reserve);
    assert_eq!(volumes(&used(&again)), [format!("a#v#{}.2", uuid(1))], "another volume");
    // It was reserved after all: once the other is known to be made, the first is given back.
    world.offered_with(3, "S1", &first);
    assert!(!world.gives_back());
    world.update(&task_id(1, 2), TaskState::TaskRunning, Some(3));
    world.commit();
    world.offered_with(4, "S1", &first);
    assert_eq!(kinds(&operations(world.calls())), [operation::Type::Destroy, operation::Type::Unreserve]);
}

#[test]
fn what_was_given_back_after_a_move_says_nothing_of_what_the_instance_has_when_it_goes() {
    let (mut world, first, again) = World::moved();
    world.update(&task_id(1, 2), TaskState::TaskRunning, Some(3));
    world.commit();
    world.offered_with(3, "S1", &first);
    assert!(world.gives_back());
    world.at(world.now + 3_600_000);
    world.goes();
    world.offered_with(4, "S2", &[]);
    assert!(world.writes.is_empty(), "its executor may still use it");
    world.calls();
    world.offered_with(5, "S2", &used(&again));
    assert!(world.gives_back());
}

#[test]
fn what_an_earlier_launch_had_elsewhere_is_given_back_with_the_rest_and_shortens_no_wait_for_that() {
    let (mut world, first, again) = World::moved();
    world.goes();
    world.offered_with(3, "S1", &first);
    assert!(world.gives_back());
    world.at(world.now + 6_000);
    world.offered_with(4, "S2", &[]);
    assert!(world.writes.is_empty(), "its executor may still use it");
    world.calls();
    world.offered_with(5, "S2", &used(&again));
    assert!(world.gives_back());
    // The master has dropped the first of the two.
    world.at(world.now + 60_000);
    world.core.offered(vec![offer_with(6, "S1", &first), offer_with(7, "S2", &[])], world.now);
    world.settle();
    assert!(world.gives_back() && world.writes.is_empty(), "it is there still");
    world.at(world.now + 5_000);
    world.core.offered(vec![offer_with(8, "S1", &[]), offer_with(9, "S2", &[])], world.now);
    world.settle();
    assert!(world.deletes_its_record());
}

#[test]
fn an_agent_that_an_operator_has_given_up_takes_its_data_along() {
    let (mut world, _) = World::settled();
    world.update(&task_id(1, 1), TaskState::TaskGoneByOperator, None);
    world.commit();
    world.instance(1, Some(Goal::Running), 2);
    world.offered_with(2, "S2", &[]);
    world.commit();
    assert_eq!(kinds(&operations(world.calls()))[0], operation::Type::Reserve);
}

#[test]
fn what_a_gone_instance_had_is_given_back_before_its_record_goes() {
    let (mut world, used) = World::settled();
    world.goes();
    assert!(world.writes.is_empty(), "the record stays");
    world.offered_with(2, "S1", &[]);
    assert!(world.writes.is_empty(), "its executor may still use it");
    world.calls();
    world.offered_with(3, "S1", &used);
    assert_eq!(kinds(&operations(world.calls())), [operation::Type::Destroy, operation::Type::Unreserve]);
    world.at(world.now + 5_000);
    world.offered_with(4, "S1", &used);
    assert_eq!(operations(world.calls()).len(), 2, "the master has dropped it");
    world.offered_with(5, "S1", &[]);
    assert!(world.writes.is_empty(), "the next offer may be older than that");
    world.at(world.now + 5_000);
    world.offered_with(6, "S1", &[]);
    assert!(world.deletes_its_record());
}

#[test]
fn what_was_asked_over_a_subscription_that_broke_is_asked_again_at_once_and_not_taken_for_done() {
    let (mut world, used) = World::settled();
    world.goes();
    for n in 0..6 {
        // Each is lost with its subscription.
        world.offered_with(2 + n, "S1", &used);
        assert!(world.gives_back(), "attempt {n}");
        world.core.disconnected();
        world.at(world.now + 1_000);
        world.subscribe(&[]);
        world.calls();
    }
    world.at(world.now + 10_000);
    world.offered_with(10, "S1", &[]);
    assert!(world.writes.is_empty(), "that offer may be older than what is reserved, and nothing was asked over this subscription");
    world.offered_with(11, "S1", &used);
    assert!(world.gives_back());
    world.at(world.now + 5_000);
    world.offered_with(12, "S1", &[]);
    assert!(world.deletes_its_record());
}

#[test]
fn offers_are_asked_for_as_long_as_something_is_to_be_given_back() {
    let (mut world, used) = World::settled();
    world.instance(1, Some(Goal::Decommissioned), 1);
    world.update(&task_id(1, 1), TaskState::TaskKilled, Some(8));
    world.commit();
    world.at(world.now + 1_000);
    world.calls();
    world.instance(1, None, 1);
    world.at(world.now + 1_000);
    assert!(world.calls().iter().any(|call| matches!(call, Call::Revive(roles) if roles == &[ROLE.to_owned()])));
    world.offered_with(2, "S1", &used);
    world.calls();
    world.at(world.now + 5_000);
    world.offered_with(3, "S1", &[]);
    world.commit();
    world.at(world.now + 1_000);
    assert!(world.calls().iter().any(|call| matches!(call, Call::Suppress(roles) if roles.contains(&ROLE.to_owned()))));
}

#[test]
fn what_mesos_refuses_to_take_back_is_asked_for_ever_more_slowly_and_told_once() {
    let (mut world, used) = World::settled();
    world.goes();
    let begun = world.now;
    let mut sent = Vec::new();
    let mut records = 0;
    for n in 0..1_000 {
        world.at(begun + i64::from(n) * 5_000);
        world.offered_with(2 + n, "S1", &used);
        let calls = world.calls();
        if calls.iter().any(|call| matches!(call, Call::Accept { .. })) {
            sent.push((world.now - begun) / 1_000);
        } else {
            assert!(calls.iter().any(|call| matches!(call, Call::Decline { .. })), "others may have the rest");
        }
        while world.writes.iter().any(|(token, _)| matches!(token, Token::Observed(..))) {
            records += 1;
            world.commit();
        }
    }
    assert_eq!(sent[..8], [0, 5, 15, 35, 75, 155, 315, 635]);
    assert!(sent[8..].windows(2).all(|pair| pair[1] - pair[0] == 600), "{sent:?}");
    assert_eq!((records, world.reservation().unwrap().asked_in_vain), (1, 3), "it is written down that it was in vain");
}

#[test]
fn an_agents_clock_ends_no_record() {
    let (mut world, used) = World::settled();
    world.instance(1, Some(Goal::Decommissioned), 1);
    let status = TaskStatus {
        task_id: v1::TaskId { value: task_id(1, 1) },
        state: TaskState::TaskKilled.into(),
        uuid: Some(Bytes::from(vec![8; 16])),
        agent_id: Some(v1::AgentId { value: "S1".into() }),
        timestamp: Some((world.now - 120_000) as f64 / 1_000.0),
        ..TaskStatus::default()
    };
    world.core.update(&status, world.now);
    world.settle();
    world.commit();
    world.instance(1, None, 1);
    world.at(world.now + 1_000);
    world.offered_with(2, "S1", &[]);
    assert!(world.writes.is_empty(), "its executor may still use it");
    world.calls();
    world.offered_with(3, "S1", &used);
    assert!(world.gives_back());
}

#[test]
fn what_was_never_reserved_is_not_looked_for_for_ever() {
    let (mut world, _) = World::settled();
    world.goes();
    world.at(world.now + 61_000);
    world.offered_with(2, "S1", &[]);
    assert!(world.deletes_its_record());
}

#[test]
fn what_is_reserved_for_an_instance_that_the_store_does_not_know_is_left_alone() {
    let (_, used) = World::settled();
    let unknown = format!("gone.instance-{}", uuid(9));
    for (key, value) in [
        ("marathon_task_id", unknown.as_str()),
        ("marathon_framework_id", "another"),
        ("podium.cluster", "another"),
        ("marathon_task_id", "of-marathon"),
    ] {
        let mut world = World::resident();
        world.revision = 1_000;
        world.offered_with(2, "S1", &relabelled(key, value, &used));
        assert!(!world.gives_back(), "{key} {value}");
    }
}

#[test]
fn an_older_store_gives_nothing_back_and_begins_a_quarantine() {
    let (world, used) = World::settled();
    let later = world.revision;
    let mut world = World::resident();
    world.revision = 1;
    world.offered_with(2, "S1", &used);
    assert!(!world.gives_back() && later > 1);
    assert!(world.quarantine().is_some_and(|reason| reason.contains("disk is reserved")), "{:?}", world.quarantine());
    world.revision = 1_000;
    world.offered_with(3, "S1", &used);
    assert!(!world.gives_back(), "the store has caught up, and the quarantine stands");
}

#[test]
fn an_operators_word_about_what_is_reserved_holds_after_a_takeover_and_not_for_what_is_later_still() {
    let (_, used) = World::settled();
    let older = |vouched: i64| {
        let mut world = World::resident();
        world.revision = 1;
        world.core.custody = Custody::found(None, Vec::new()).with_vouched(vouched);
        world
    };
    let mut world = older(0);
    world.offered_with(2, "S1", &used);
    assert!(world.quarantine().is_some());
    world.core.ordered(order(Kind::Adopt, &[]), world.now);
    world.settle();
    assert_eq!(world.quarantine(), None);
    while !world.writes.is_empty() {
        world.commit();
    }
    let kept = &world.framework.value;
    assert_eq!((kept.framework_id.as_str(), kept.cluster_id.as_str()), ("F", "C"), "all else stays");

    let next = older(kept.vouched_revision);
    for mut world in [world, next] {
        world.revision = 1;
        world.offered_with(3, "S1", &used);
        assert_eq!((world.quarantine(), world.gives_back()), (None, false), "an operator has spoken");
        world.offered_with(4, "S1", &relabelled("podium.revision", "9000", &used));
        assert!(world.quarantine().is_some(), "of what is later than that he has not");
    }
}

#[test]
fn an_operators_word_is_added_to_the_record_as_it_is_and_brings_no_removed_framework_back() {
    let (_, used) = World::settled();
    let mut world = World::resident();
    world.revision = 1;
    world.offered_with(2, "S1", &used);
    world.commit();
    world.core.ordered(order(Kind::Adopt, &[]), world.now);
    world.settle();
    assert_eq!(world.writes[0].0, Token::Framework, "before the quarantine ends by it");
    world.answer(Outcome::Unknown { revision: 40 });
    while !world.writes.is_empty() {
        world.commit();
    }
    world.framework = held(Framework { framework_id: "G".into(), ..Framework::default() }, 50);
    world.at(world.now + 1_000);
    let [(Token::Framework, group)] = world.writes.as_slice() else { panic!("{:?}", world.writes) };
    assert_eq!(group.compares, [Compare::Unchanged(Key::Framework, 50)]);
    world.commit();
    let kept = &world.framework.value;
    assert!(kept.framework_id == "G" && kept.vouched_revision > 1, "{kept:?}");
}

#[test]
fn nothing_is_given_back_during_a_quarantine_or_without_a_survey() {
    let (mut world, used) = World::settled();
    world.goes();
    world.core.custody.quarantine = Some(podium_proto::records::Quarantine::default());
    world.offered_with(2, "S1", &used);
    assert!(!world.gives_back());
    world.core.custody.quarantine = None;
    world.core.survey.done = false;
    world.offered_with(3, "S1", &used);
    assert!(!world.gives_back());
    world.core.survey.done = true;
    world.offered_with(4, "S1", &used);
    assert!(world.gives_back());
}
