//! What controllers write, put into the store by hand: the API is tested without them.

use podium_proto::mesos::v1::TaskState;
use podium_proto::records::queue::UnusedOffer;
use podium_proto::records::{Goal, Instance, Observed, Queue, observed};
use podium_store::Key;
use podium_store::writer::{Group, Op};
use podium_types::id::{InstanceId, PodId};
use uuid::Uuid;

use crate::world::World;

/// Does what the words say; up to where the store must be read to see it. `seen`: up to where it was read before.
///
/// ```text
/// given /a runs 2           its instances 1 and 2 run, on agents S1 and S2
/// given /a waits 3          its instance 3 was never launched
/// given /a pauses 3         the same, and back-off keeps it for an hour
/// given /a fits nowhere     an offer came that was too small
/// given /a settles          its deployment ended
/// given /a is gone          its deletion came to its end
/// given host-1 leads        it owns the gateway
/// given there is no store   from here on
/// ```
pub async fn happen(world: &mut World, words: &str, seen: i64) -> i64 {
    let words: Vec<&str> = words.split(' ').collect();
    if words == ["there", "is", "no", "store"] {
        world.etcd.take().expect("the store is there").kill().await;
        return seen;
    }
    if let [name, "leads"] = words[..] {
        let candidacy = Op::Put(Key::Election("gateway".to_owned(), 1), name.to_owned().into());
        return world.store().await.commit(Group::global().then(candidacy)).await.committed().expect("the store takes it");
    }
    let pod = PodId::new(words[0]).expect("a pod's id");
    let group = Group::new(pod.clone());
    let group = match &words[1..] {
        ["runs", many] => (1..=many.parse().unwrap()).fold(group, |group, n| running(world, group, &pod, n)),
        ["waits", n] => group.then(Op::record(nth(&pod, n), instance(world, &pod))),
        ["pauses", n] => {
            let not_before_ms = jiff::Timestamp::now().as_millisecond() + 3_600_000;
            group.then(Op::record(nth(&pod, n), Instance { not_before_ms, ..instance(world, &pod) }))
        }
        ["fits", "nowhere"] => group.then(Op::record(Key::Queue(pod), queue())),
        ["settles"] => group.then(Op::Delete(Key::Deployment(pod))),
        ["is", "gone"] => group.then(Op::Delete(Key::Deployment(pod.clone()))).then(Op::Delete(Key::Accepted(pod))),
        other => panic!("nobody knows how to {other:?}"),
    };
    world.store().await.commit(group).await.committed().expect("the store takes it")
}

fn nth(pod: &PodId, n: &str) -> Key {
    Key::Instance(pod.clone(), Uuid::from_u128(n.parse().unwrap()))
}

fn queue() -> Queue {
    let text = |text: &str| text.to_owned();
    let offer = UnusedOffer {
        offer_id: text("O1"),
        agent_id: text("S1"),
        hostname: text("h"),
        reason: text("InsufficientCpus"),
        at_ms: 1_627_380_000_000,
        cpus: 50,
        ports: text("31000-31005,31010-31010"),
        attributes: [(text("rack"), text("a"))].into(),
        ..UnusedOffer::default()
    };
    Queue {
        waiting: 1,
        since_ms: 1,
        agents: 1,
        offers_seen: 3,
        refused: [(text("InsufficientCpus"), 1)].into(),
        refused_ever: [(text("InsufficientCpus"), 3)].into(),
        last_unused_ms: 1_627_380_000_000,
        unused: vec![offer],
        ..Queue::default()
    }
}

fn instance(world: &World, pod: &PodId) -> Instance {
    let config_ms = world.accepted(pod).config_ms;
    Instance { config_ms, goal: Goal::Running.into(), incarnation: 1, created_ms: config_ms, ..Instance::default() }
}

fn running(world: &World, group: Group, pod: &PodId, n: u128) -> Group {
    let (uuid, instance) = (Uuid::from_u128(n), instance(world, pod));
    let id = InstanceId { pod: pod.clone(), uuid };
    let since_ms = instance.created_ms + 9_000;
    let task = observed::Task {
        container: "c".to_owned(),
        task_id: id.task_id("c", 1).to_string(),
        state: Some(TaskState::TaskRunning.into()),
        since_ms,
        running_ms: since_ms,
        ..observed::Task::default()
    };
    let observed = Observed {
        incarnation: 1,
        config_ms: instance.config_ms,
        agent_id: format!("S{n}"),
        hostname: format!("10.0.0.{n}"),
        region: "r1".to_owned(),
        zone: "z1".to_owned(),
        executor_id: id.executor_id(1),
        tasks: vec![task],
        provisioned_ms: instance.created_ms,
        role: "*".to_owned(),
        ..Observed::default()
    };
    group.then(Op::record(Key::Instance(pod.clone(), uuid), instance)).then(Op::record(Key::Observed(pod.clone(), uuid), observed))
}

/// Whether there is a key of this name below the prefix.
pub async fn is_stored(world: &World, key: &str) -> bool {
    let store = world.store().await;
    let key = store.keyspace().parse(format!("{}{key}", store.keyspace().root()).as_bytes()).expect("one of our keys");
    store.get(&key).await.expect("the store answers").is_some()
}
