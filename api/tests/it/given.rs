//! What controllers write, put into the store by hand: the API is tested without them.

use podium_proto::mesos::v1::TaskState;
use podium_proto::records::{Goal, Instance, Observed, observed};
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
/// given /a settles          its deployment ended
/// given /a is gone          its deletion came to its end
/// given there is no store   from here on
/// ```
pub async fn happen(world: &mut World, words: &str, seen: i64) -> i64 {
    let words: Vec<&str> = words.split(' ').collect();
    if words == ["there", "is", "no", "store"] {
        world.etcd.take().expect("the store is there").kill().await;
        return seen;
    }
    let pod = PodId::new(words[0]).expect("a pod's id");
    let group = Group::new(pod.clone());
    let group = match &words[1..] {
        ["runs", many] => (1..=many.parse().unwrap()).fold(group, |group, n| running(world, group, &pod, n)),
        ["waits", n] => group.then(Op::record(Key::Instance(pod.clone(), Uuid::from_u128(n.parse().unwrap())), instance(world, &pod))),
        ["settles"] => group.then(Op::Delete(Key::Deployment(pod))),
        ["is", "gone"] => group.then(Op::Delete(Key::Deployment(pod.clone()))).then(Op::Delete(Key::Accepted(pod))),
        other => panic!("nobody knows how to {other:?}"),
    };
    world.store().await.commit(group).await.committed().expect("the store takes it")
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
