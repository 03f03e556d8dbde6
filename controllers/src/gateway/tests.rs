//! The core in scenarios: what happens, and what it then says is to be done. No network, no clock, no store.

mod offers;
mod residents;
mod roles;
mod strays;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use podium_mesos::secret::SecretValues;
use podium_mesos::task_group::label;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{self, Offer, OfferId, Task, TaskState, TaskStatus};
use podium_proto::records::order::Kind;
use podium_proto::records::unknown_instance::Why;
use podium_proto::records::{Accepted, Framework, Goal, Instance, Observed, Order, Tombstone, Unknown};
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_store::Key;
use podium_store::view::{Held, PodView, StoredDefinition};
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_types::definition::{Settings as Reading, read};
use podium_types::id::{PodId, Version};
use uuid::Uuid;

use super::Settings;
use super::core::Core;
use super::framework::{Identity, vouched};
use super::output::{Call, Output, Token};
use super::quarantine::Custody;
use super::secrets;
use super::state::GatewayState;
use super::survey::{Shown, Trouble};

const CONFIG: i64 = 1_000;
const NOW: i64 = 1_700_000_000_000;

fn pod() -> PodId {
    PodId::new("/a").unwrap()
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn task_id(n: u128, incarnation: u32) -> String {
    format!("a.instance-{}.c.{incarnation}", uuid(n))
}

/// One pod's records, the core, and what it said so far.
struct World {
    core: Core,
    view: PodView,
    revision: i64,
    now: i64,
    writes: Vec<(Token, Group)>,
    calls: Vec<Call>,
    surveys: Vec<u64>,
    /// Our record.
    framework: Held<Framework>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let identity = Identity { framework_id: "F".into(), cluster_id: "C".into(), lease: 7 };
        let mut view = PodView::new(pod());
        let json = br#"{"id":"/a","containers":[{"name":"c","exec":{"command":{"shell":"x"}},"resources":{"cpus":0.1,"mem":32},
            "environment":{"S":{"secret":"s"}}}],"secrets":{"s":{"source":"s"}}}"#;
        let definition = read(json, &Reading::default()).unwrap().definition;
        let stored = StoredDefinition::known(Bytes::from_static(json), Arc::new(definition));
        view.versions.insert(Version::from_millis(CONFIG), held(stored, 1));
        view.accepted = Some(held(Accepted { config_ms: CONFIG, version_ms: CONFIG, ..Accepted::default() }, 1));
        World {
            core: Core::new(settings, identity),
            view,
            revision: 10,
            now: NOW,
            writes: Vec::new(),
            calls: Vec::new(),
            surveys: Vec::new(),
            framework: held(Framework { framework_id: "F".into(), cluster_id: "C".into(), ..Framework::default() }, 2),
        }
    }

    fn subscribed() -> Self {
        let mut world = Self::new(Settings::default());
        world.subscribe(&[]);
        world.calls.clear();
        world
    }

    /// Subscribes; Mesos shows these tasks.
    fn subscribe(&mut self, tasks: &[Task]) {
        let roles = self.core.roles_to_subscribe();
        self.core.subscribed(None, &roles, &[], self.now);
        self.settle();
        self.survey(Ok(tasks.to_vec()));
    }

    /// Answers the last survey; all agents are there.
    fn survey(&mut self, tasks: Result<Vec<Task>, String>) {
        self.survey_with(tasks.map(|tasks| Shown { tasks, away: 0 }).map_err(Trouble::from));
    }

    fn survey_with(&mut self, shown: Result<Shown, Trouble>) {
        let round = self.surveys.pop().expect("a survey is under way");
        self.core.surveyed(round, shown, self.revision, self.now);
        self.settle();
    }

    fn instance(&mut self, n: u128, goal: Option<Goal>, incarnation: u32) {
        self.revision += 1;
        match goal {
            Some(goal) => {
                let instance = Instance { config_ms: CONFIG, goal: goal.into(), incarnation, ..Instance::default() };
                self.view.instances.insert(uuid(n), held(instance, self.revision));
            }
            None => drop(self.view.instances.remove(&uuid(n))),
        }
        self.core.pod_changed(&pod(), Some(&self.view), self.revision, self.now);
        self.settle();
    }

    fn settle(&mut self) {
        let values: SecretValues = [("s".to_owned(), podium_mesos::secret::SecretValue::new("v"))].into();
        let secrets = secrets::Known { values, read: ["s".to_owned()].into(), stuck: false };
        assert_eq!(self.core.place(&secrets, self.revision, self.now), std::collections::BTreeSet::new());
        self.core.tick(self.now);
        for output in self.core.take() {
            match output {
                Output::Call(call) => self.calls.push(call),
                Output::Write(token, group) => self.writes.push((token, group)),
                Output::Survey(round) => self.surveys.push(round),
                Output::Vouch(revision) => self.writes.push((Token::Framework, vouched(&self.framework, revision))),
            }
        }
    }

    fn offer(&mut self, n: u32) {
        self.core.offered(vec![offer_of(n, "S1")], self.now);
        self.settle();
    }

    /// Answers the oldest write.
    fn answer(&mut self, outcome: Outcome) {
        let (token, group) = self.writes.remove(0);
        if outcome.committed().is_some() {
            for op in group.ops {
                match (op, outcome.committed()) {
                    (Op::Put(Key::Observed(_, uuid), bytes), Some(revision)) => {
                        let record = <Observed as prost::Message>::decode(bytes).unwrap();
                        self.view.observed.insert(uuid, held(record, revision));
                    }
                    (Op::Put(Key::Framework, bytes), Some(revision)) => {
                        self.framework = held(<Framework as prost::Message>::decode(bytes).unwrap(), revision);
                    }
                    (Op::Delete(Key::Observed(_, uuid)), Some(_)) => drop(self.view.observed.remove(&uuid)),
                    _ => {}
                }
            }
        }
        self.core.written(token, outcome, self.now);
        self.settle();
    }

    fn commit(&mut self) {
        self.revision += 1;
        self.answer(Outcome::Committed { revision: self.revision });
    }

    fn update(&mut self, task: &str, state: TaskState, uuid: Option<u8>) {
        let reason = if uuid.is_none() { Some(Reason::Reconciliation.into()) } else { None };
        let status = TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state.into(),
            uuid: uuid.map(|uuid| Bytes::from(vec![uuid; 16])),
            agent_id: Some(v1::AgentId { value: "S1".into() }),
            reason,
            ..TaskStatus::default()
        };
        self.core.update(&status, self.now);
        self.settle();
    }

    fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    fn at(&mut self, now: i64) {
        self.now = now;
        self.settle();
    }

    /// An instance that runs, with everything acknowledged.
    fn running() -> Self {
        let mut world = Self::subscribed();
        world.instance(1, Some(Goal::Running), 1);
        world.offer(1);
        world.commit();
        world.update(&task_id(1, 1), TaskState::TaskRunning, Some(1));
        world.commit();
        world.calls.clear();
        world
    }

    /// A later survey of the same subscription.
    fn survey_again(&mut self, tasks: &[Task]) {
        self.core.survey.want(self.now);
        self.at(self.now + 1_000);
        self.survey(Ok(tasks.to_vec()));
    }

    fn strays(&self) -> Vec<String> {
        self.core.strays.to_ask().map(|(id, _)| id).collect()
    }

    fn quarantine(&self) -> Option<String> {
        self.core.custody.quarantine.as_ref().map(|quarantine| quarantine.reason.clone())
    }

    fn state(&self) -> GatewayState {
        let mut state = GatewayState::default();
        self.core.tell(&mut state);
        state
    }
}

/// An offer with room for five instances of the pod.
fn offer_of(n: u32, agent: &str) -> Offer {
    let ports = std::iter::once(31_000..=31_009).collect();
    let resources =
        vec![scalar_entry("cpus", 1_000), scalar_entry("mem", 1_000_000), scalar_entry("disk", 1_000_000), ranges_entry("ports", &ports)];
    Offer {
        id: OfferId { value: format!("O{n}") },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: v1::AgentId { value: agent.into() },
        hostname: format!("host of {agent}"),
        resources,
        ..Offer::default()
    }
}

fn held<T>(value: T, revision: i64) -> Held<T> {
    Held { value, mod_revision: revision, create_revision: revision }
}

fn kills(calls: &[Call]) -> Vec<&str> {
    calls.iter().filter_map(|call| if let Call::Kill { task_id, .. } = call { Some(task_id.as_str()) } else { None }).collect()
}

fn acknowledged(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Acknowledge(_))).count()
}

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

/// A task as the master shows it; its labels name this store (cluster, revision).
fn shown(task_id: &str, labels: Option<(&str, i64)>) -> Task {
    let label = |(key, value): (&str, String)| v1::Label { key: key.to_owned(), value: Some(value) };
    let labels = labels.map(|(cluster, revision)| v1::Labels {
        labels: [
            (label::POD, "/a".to_owned()),
            (label::CONFIG, Version::from_millis(CONFIG).to_string()),
            (label::INCARNATION, task_id.rsplit('.').next().unwrap().to_owned()),
            (label::CLUSTER, cluster.to_owned()),
            (label::REVISION, revision.to_string()),
        ]
        .map(label)
        .into(),
    });
    Task {
        task_id: v1::TaskId { value: task_id.to_owned() },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: v1::AgentId { value: "S1".into() },
        state: TaskState::TaskRunning.into(),
        labels,
        ..Task::default()
    }
}

/// Without those that only ask for offers, or for none.
fn beyond_demand(calls: Vec<Call>) -> Vec<Call> {
    calls.into_iter().filter(|call| !matches!(call, Call::Revive(_) | Call::Suppress(_))).collect()
}

fn order(kind: Kind, ids: &[String]) -> BTreeMap<Uuid, Order> {
    [(uuid(1_000), Order { kind: kind.into(), ids: ids.to_vec(), ..Order::default() })].into()
}

fn instance_id(n: u128) -> String {
    format!("a.instance-{}", uuid(n))
}

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
