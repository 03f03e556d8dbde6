//! A real store, replicas of the controllers on it, and a gateway that plays the cluster: what is launched runs, what is
//! to stop has stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use podium_controllers::runtime::{Clock, Controller, Decision, Ids, Now, Stage, drive, supervise};
use podium_controllers::{Config, Controllers};
use podium_proto::mesos::v1::TaskState;
use podium_proto::records::{Goal, Observed, observed};
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_store::{Index, Key, Kind, Session, SessionConfig, Store, StoreConfig};
use podium_types::condition;
use podium_types::definition::Settings;
use podium_types::id::PodId;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything here takes: reaching it is a failure.
pub const LONG: Duration = Duration::from_secs(60);

/// The lease of a replica: short, so that a crash is noticed soon.
const TTL: Duration = Duration::from_secs(2);

/// A store of its own.
pub struct Server {
    address: std::net::SocketAddr,
    _server: podium_etcd::Server,
    _data: TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = podium_etcd::Server::start(podium_etcd::Config::new(listener, data.path())).await.unwrap();
        Self { address, _server: server, _data: data }
    }

    pub async fn connect(&self) -> (Store, Index) {
        connect(self.address).await
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

pub async fn connect(address: std::net::SocketAddr) -> (Store, Index) {
    let store = Store::connect(StoreConfig::new([format!("http://{address}")])).await.unwrap();
    let index = Index::start(&store);
    within(index.ready()).await;
    (store, index)
}

/// All controllers but the gateway, which is the one below.
pub struct Replica {
    pub controllers: Controllers,
    pub gateway: Work,
}

impl Replica {
    pub fn start(store: &Store, index: &Index, identity: &str) -> Self {
        let controllers = Controllers::start(Config {
            store: store.clone(),
            index: index.clone(),
            which: BTreeSet::from(["admission", "upgrade", "scaling", "unreachable", "health"]),
            settings: Settings::default(),
            identity: identity.to_owned(),
            lease_ttl: TTL,
            gateway: None,
        });
        Self { controllers, gateway: Work::start(store, index, identity, Cluster) }
    }

    pub async fn shutdown(self) {
        self.controllers.shutdown().await;
        self.gateway.stop().await;
    }
}

/// One controller of a test, at work.
pub struct Work {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Work {
    pub fn start<C: Controller>(store: &Store, index: &Index, identity: &str, controller: C) -> Self {
        let stop = CancellationToken::new();
        let stage = Stage {
            store: store.clone(),
            index: index.clone(),
            session: Session::start(store, SessionConfig { ttl: TTL, identity: identity.to_owned() }),
            clock: Clock::start(),
            patience: LONG,
            stop: stop.clone(),
        };
        let (name, controller) = (controller.name(), Arc::new(controller));
        let task = tokio::spawn(async move { supervise(stage, name, |term| drive(controller.clone(), term)).await });
        Self { stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        within(self.task).await.unwrap();
    }
}

/// Plays gateway and cluster.
struct Cluster;

impl Controller for Cluster {
    type Intent = Group;

    fn name(&self) -> &'static str {
        "gateway"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Instance, Kind::Observed, Kind::Tombstone]
    }

    fn decide(&self, view: &PodView, now: Now) -> Decision<Group> {
        let mut decision = Decision::nothing();
        for (uuid, held) in &view.instances {
            let seen = view.observed.get(uuid).filter(|seen| seen.value.incarnation == held.value.incarnation);
            let wanted = held.value.goal == i32::from(Goal::Running);
            let key = Key::Observed(view.id.clone(), *uuid);
            match seen {
                None if wanted && held.value.not_before_ms > now.0 => decision.wake_at(held.value.not_before_ms),
                None if wanted => decision.intents.push(
                    Group::new(view.id.clone())
                        .when(Compare::Unchanged(Key::Instance(view.id.clone(), *uuid), held.mod_revision))
                        .then(Op::record(key, running(held.value.incarnation, held.value.config_ms, now.0))),
                ),
                Some(seen) if !wanted && is_alive(&seen.value) => {
                    decision.intents.push(Group::new(view.id.clone()).then(Op::record(key, ended(&seen.value, TaskState::TaskKilled))));
                }
                _ => {}
            }
        }
        for (uuid, held) in view.observed.iter().filter(|(uuid, _)| !view.instances.contains_key(*uuid)) {
            let key = Key::Observed(view.id.clone(), *uuid);
            decision
                .intents
                .push(Group::new(view.id.clone()).when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::Delete(key)));
        }
        decision
    }

    fn apply(&self, _view: &PodView, intents: Vec<Group>, _now: Now, _ids: &mut dyn Ids) -> Vec<Group> {
        intents
    }
}

fn running(incarnation: u32, config_ms: i64, now: i64) -> Observed {
    let task = observed::Task {
        container: "c".to_owned(),
        task_id: format!("c.{incarnation}"),
        state: Some(TaskState::TaskRunning as i32),
        since_ms: now,
        running_ms: now,
        ..observed::Task::default()
    };
    Observed { incarnation, config_ms, agent_id: "agent".to_owned(), tasks: vec![task], provisioned_ms: now, ..Observed::default() }
}

fn is_alive(observed: &Observed) -> bool {
    observed.tasks.iter().any(condition::task_is_alive)
}

pub fn ended(observed: &Observed, state: TaskState) -> Observed {
    let mut observed = observed.clone();
    observed.tasks.iter_mut().for_each(|task| task.state = Some(state as i32));
    observed
}

/// An instance of the pod ends by itself.
pub async fn fail_one(store: &Store, index: &Index, pod: &PodId) -> (Uuid, u32) {
    let (uuid, seen, revision) = index.read(|state| {
        let (uuid, held) = state.pod(pod).unwrap().observed.iter().next().unwrap();
        (*uuid, held.value.clone(), held.mod_revision)
    });
    let key = Key::Observed(pod.clone(), uuid);
    let group =
        Group::new(pod.clone()).when(Compare::Unchanged(key.clone(), revision)).then(Op::record(key, ended(&seen, TaskState::TaskFailed)));
    committed(store.commit(group).await);
    (uuid, seen.incarnation)
}

/// Pushes a definition as `etcdctl put` does.
pub async fn push(store: &Store, pod: &PodId, instances: u32, command: &str) {
    let json = serde_json::json!({
        "id": pod,
        "containers": [{"name": "c", "exec": {"command": {"shell": command}}, "resources": {"cpus": 0.1, "mem": 32}}],
        "scaling": {"kind": "fixed", "instances": instances},
        "scheduling": {"backoff": {"backoff": 0.05}},
    });
    put(store, Key::Spec(pod.clone()), json.to_string()).await;
}

pub async fn put(store: &Store, key: Key, value: String) -> i64 {
    committed(store.commit(Group::global().then(Op::Put(key, value.into_bytes().into()))).await)
}

pub async fn delete(store: &Store, key: Key) {
    committed(store.commit(Group::global().then(Op::Delete(key))).await);
}

fn committed(outcome: Outcome) -> i64 {
    outcome.committed().unwrap_or_else(|| panic!("not written: {outcome:?}"))
}

/// Waits until the index shows this, looking again whenever it moves.
pub async fn until(index: &Index, what: &str, mut shows: impl FnMut(&IndexState) -> bool) {
    let mut positions = index.positions();
    let shown = async {
        while !index.read(&mut shows) {
            positions.changed().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(LONG, shown).await.is_ok(), "never came: {what}");
}

/// Waits until exactly these many instances run, healthy and without a deployment.
pub async fn until_runs(index: &Index, pod: &PodId, instances: usize) {
    until(index, &format!("{instances} of {pod}"), |state| {
        state.pod(pod).is_some_and(|view| {
            let running = |uuid: &Uuid| {
                let (instance, seen) = (&view.instances[uuid].value, view.observed.get(uuid));
                condition::of_instance(instance, seen.map(|seen| &seen.value), None) == condition::Condition::Running
            };
            view.accepted.is_some()
                && view.deployment.is_none()
                && view.instances.len() == instances
                && view.observed.len() == instances
                && view.instances.keys().all(running)
        })
    })
    .await;
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it takes too long")
}

pub fn pod(id: &str) -> PodId {
    PodId::new(id).unwrap()
}
