//! The gateway with all other controllers, on a real store and the embedded engine with simulated agents: each reached
//! over its network protocol.

use std::time::Duration;

use podium_controllers::gateway::{self, FirstFramework, GatewayState};
use podium_controllers::{Config, Controllers, NAMES};
use podium_engine::simulated::SimulatedAgents;
use podium_engine::{Agents, Engine};
use podium_mesos::client::Masters;
use podium_mesos::operator::{KnownFramework, Operator};
use podium_proto::mesos::v1::master::{Call, call};
use podium_proto::mesos::v1::{FrameworkId, TaskState};
use podium_proto::records::{Framework, observed};
use podium_store::index::IndexState;
use podium_store::writer::{Group, Op};
use podium_store::{Index, Key, Store};
use podium_types::definition::Settings;
use podium_types::id::PodId;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::replica::{Server, delete, pod, push, until, until_runs, within};

pub struct Cluster {
    pub store: Store,
    pub index: Index,
    engine: Engine,
    controllers: Option<Controllers>,
    state: watch::Receiver<GatewayState>,
    _server: Server,
    _data: TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let server = Server::start().await;
        let (store, index) = server.connect().await;
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agents = Agents::Simulated(SimulatedAgents { count: 2, ..SimulatedAgents::default() });
        let settings = podium_engine::Settings::default();
        let engine = Engine::start(podium_engine::Config { listener, data_dir: data.path().into(), agents, settings }).await.unwrap();
        let (controllers, state) = controllers(&store, &index, &engine);
        Self { store, index, engine, controllers: Some(controllers), state, _server: server, _data: data }
    }

    /// With a pod of which so many instances run.
    pub async fn with_pod(instances: u32) -> (Self, PodId) {
        let (cluster, web) = (Self::start().await, pod("/web"));
        push(&cluster.store, &web, instances, "sleep 1000").await;
        until_runs(&cluster.index, &web, instances as usize).await;
        (cluster, web)
    }

    /// Other processes take over from the present one.
    pub async fn replace_controllers(&mut self) {
        self.stop_controllers().await;
        self.start_controllers();
    }

    pub async fn stop_controllers(&mut self) {
        within(self.controllers.take().unwrap().shutdown()).await;
    }

    pub fn start_controllers(&mut self) {
        let (controllers, state) = controllers(&self.store, &self.index, &self.engine);
        (self.controllers, self.state) = (Some(controllers), state);
    }

    /// Ids of tasks that the master says run, sorted.
    pub async fn running(&self) -> Vec<String> {
        let tasks = operator(&self.engine).tasks(&framework_id(&self.index).unwrap()).await.unwrap();
        let mut ids: Vec<String> = tasks.into_iter().map(|task| task.task_id.value).collect();
        ids.sort();
        ids
    }

    /// What runs ends. The controllers are stopped, and go on with a store that is as it was when all that it had was the framework.
    pub async fn restore_its_beginning(&mut self) {
        self.stop_controllers().await;
        for task in self.running().await {
            self.engine.simulation().unwrap().end_task(&task, TaskState::TaskFailed).await.unwrap();
        }
        let framework = self.index.read(|state| state.framework().unwrap().value.clone());
        let server = Server::start().await;
        (self.store, self.index) = server.connect().await;
        self._server = server;
        assert!(self.store.commit(Group::global().then(Op::record(Key::Framework, framework))).await.committed().is_some());
        self.start_controllers();
    }

    pub async fn stop(mut self) {
        within(self.controllers.take().unwrap().shutdown()).await;
        within(self.engine.shutdown()).await;
    }

    /// Task ids with their incarnation, sorted.
    pub fn tasks(&self, id: &PodId) -> Vec<String> {
        let tasks = |state: &IndexState| {
            let observed = state.pod(id).map(|view| view.observed.values().flat_map(|held| &held.value.tasks));
            observed.into_iter().flatten().map(|task| task.task_id.clone()).collect::<Vec<_>>()
        };
        let mut tasks = self.index.read(tasks);
        tasks.sort();
        tasks
    }
}

fn controllers(store: &Store, index: &Index, engine: &Engine) -> (Controllers, watch::Receiver<GatewayState>) {
    controllers_beginning_with(FirstFramework::Ask, store, index, engine)
}

fn controllers_beginning_with(
    first_framework: FirstFramework,
    store: &Store,
    index: &Index,
    engine: &Engine,
) -> (Controllers, watch::Receiver<GatewayState>) {
    let (sender, state) = gateway::state_channel();
    let masters = Masters::List(vec![engine.address().to_string()]);
    // Of one role, so that something can be reserved.
    let default_role = "test".to_owned();
    let reading = Settings { default_role: default_role.clone(), ..Settings::default() };
    let settings = gateway::Settings { masters, first_framework, default_role, longest_backoff_seconds: 1, ..Default::default() };
    let controllers = Controllers::start(Config {
        store: store.clone(),
        index: index.clone(),
        which: NAMES.into(),
        settings: reading,
        identity: "gateway test".to_owned(),
        lease_ttl: Duration::from_secs(5),
        gateway: Some((settings, sender)),
    });
    (controllers, state)
}

fn operator(engine: &Engine) -> Operator {
    Operator::new(&Masters::List(vec![engine.address().to_string()]), None, None).unwrap()
}

/// What the master knows.
async fn frameworks(engine: &Engine) -> Vec<KnownFramework> {
    operator(engine).frameworks().await.unwrap()
}

/// An operator ends a framework.
async fn tear_down(engine: &Engine, framework_id: &str) {
    let teardown = call::Teardown { framework_id: FrameworkId { value: framework_id.to_owned() } };
    let call = Call { r#type: Some(call::Type::Teardown.into()), teardown: Some(teardown), ..Call::default() };
    let url = podium_http::parse_url(&format!("{}/api/v1", engine.address())).unwrap();
    let mut headers = http::HeaderMap::new();
    for name in [http::header::CONTENT_TYPE, http::header::ACCEPT] {
        headers.insert(name, http::HeaderValue::from_static("application/x-protobuf"));
    }
    let client = podium_http::Client::new(podium_http::ClientConfig::default()).unwrap();
    let answer = client.request(podium_http::Method::POST, &url, headers, prost::Message::encode_to_vec(&call)).await.unwrap();
    assert_eq!(answer.status, 200);
}

fn framework_id(index: &Index) -> Option<String> {
    index.read(|state| state.framework().map(|held| held.value.framework_id.clone()))
}

pub async fn until_gone(index: &Index, id: &PodId) {
    until(index, &format!("the end of {id}"), |state| {
        state.pod(id).is_none_or(|view| view.accepted.is_none() && view.instances.is_empty() && view.observed.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_is_relaunched_when_it_fails_and_leaves_nothing_behind() {
    let (cluster, web) = Cluster::with_pod(5).await;
    let before = cluster.tasks(&web);
    assert!(before.iter().all(|task| task.ends_with(".c.1")), "{before:?}");

    let victim = before[0].clone();
    cluster.engine.simulation().unwrap().end_task(&victim, TaskState::TaskFailed).await.unwrap();
    let again = format!("{}.2", victim.strip_suffix(".1").unwrap());
    until(&cluster.index, "the next incarnation", |state| {
        let tasks = state.pod(&web).unwrap().observed.values().flat_map(|held| &held.value.tasks);
        tasks.into_iter().any(|task| task.task_id == again && task.state == Some(TaskState::TaskRunning.into()))
    })
    .await;
    assert_eq!(cluster.tasks(&web)[1..], before[1..], "the others are not touched");

    delete(&cluster.store, Key::Spec(web.clone())).await;
    until_gone(&cluster.index, &web).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_launches_nothing_twice_and_loses_nothing() {
    let (mut cluster, web) = Cluster::with_pod(20).await;
    let before = cluster.tasks(&web);
    cluster.replace_controllers().await;
    within(cluster.state.wait_for(|state| state.subscribed)).await.unwrap();
    // The new gateway works, and what it found runs on under its old ids.
    push(&cluster.store, &web, 21, "sleep 1000").await;
    until_runs(&cluster.index, &web, 21).await;
    let after = cluster.tasks(&web);
    assert!(before.iter().all(|task| after.contains(task)), "{before:?} became {after:?}");
    assert!(cluster.index.read(|state| state.quarantine().is_none() && state.pods().all(|view| view.unknown.is_none())));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_is_survived() {
    let (cluster, web) = Cluster::with_pod(3).await;
    let before = cluster.tasks(&web);
    within(cluster.engine.fail_over_master()).await;
    push(&cluster.store, &web, 6, "sleep 1000").await;
    until_runs(&cluster.index, &web, 6).await;
    let after = cluster.tasks(&web);
    assert!(before.iter().all(|task| after.contains(task)), "{before:?} became {after:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_nowhere_waits_with_its_reasons() {
    let cluster = Cluster::start().await;
    let huge = pod("/huge");
    let json = r#"{"id":"/huge","containers":[{"name":"c","exec":{"command":{"shell":"x"}},"resources":{"cpus":1000,"mem":32}}]}"#;
    super::replica::put(&cluster.store, Key::Spec(huge.clone()), json.to_owned()).await;
    until(&cluster.index, "the reason why it waits", |state| {
        let queue = state.pod(&huge).and_then(|view| view.queue.as_ref());
        queue.is_some_and(|queue| queue.value.waiting == 1 && queue.value.refused.get("InsufficientCpus") == Some(&2))
    })
    .await;
    delete(&cluster.store, Key::Spec(huge.clone())).await;
    until(&cluster.index, "the end of the wait", |state| state.pod(&huge).is_none_or(|view| view.queue.is_none())).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_framework_that_mesos_removed_begins_anew_and_what_is_wanted_runs_once() {
    let (cluster, web) = Cluster::with_pod(3).await;
    let (before, old) = (cluster.tasks(&web), framework_id(&cluster.index).unwrap());
    let store_id = cluster.index.read(|state| state.framework().unwrap().value.cluster_id.clone());
    tear_down(&cluster.engine, &old).await;
    until(&cluster.index, "another framework", |state| state.framework().is_some_and(|held| held.value.framework_id != old)).await;
    // Of each task Mesos says that it is gone, and its instance is launched again under its own id.
    let again: Vec<String> = before.iter().map(|task| format!("{}.2", task.strip_suffix(".1").unwrap())).collect();
    until(&cluster.index, "the next incarnations", |state| {
        let tasks = state.pod(&web).unwrap().observed.values().flat_map(|held| &held.value.tasks);
        let running = tasks.filter(|task| again.contains(&task.task_id) && task.state == Some(TaskState::TaskRunning.into()));
        running.count() == 3
    })
    .await;
    let new = framework_id(&cluster.index).unwrap();
    let known = frameworks(&cluster.engine).await;
    assert_eq!(known.iter().map(|one| (one.id.as_str(), one.connected)).collect::<Vec<_>>(), [(new.as_str(), true)]);
    assert_eq!(cluster.index.read(|state| state.framework().unwrap().value.cluster_id.clone()), store_id, "the store is the same");
    until_runs(&cluster.index, &web, 3).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_forgotten_its_framework_begins_no_second_one_until_a_person_says_so() {
    let (mut cluster, web) = Cluster::with_pod(3).await;
    let (before, old) = (cluster.tasks(&web), framework_id(&cluster.index).unwrap());
    within(cluster.controllers.take().unwrap().shutdown()).await;
    delete(&cluster.store, Key::Framework).await;
    until(&cluster.index, "no framework", |state| state.framework().is_none()).await;

    let (controllers, mut state) = controllers(&cluster.store, &cluster.index, &cluster.engine);
    let told = |state: &GatewayState| state.trouble.as_ref().is_some_and(|text| text.contains(&format!("--framework-id {old}")));
    within(state.wait_for(told)).await.unwrap();
    let known = frameworks(&cluster.engine).await;
    assert_eq!(known.iter().map(|one| (one.id.as_str(), one.connected)).collect::<Vec<_>>(), [(old.as_str(), false)]);
    assert_eq!(framework_id(&cluster.index), None);
    within(controllers.shutdown()).await;

    let take = FirstFramework::Take(old.clone());
    let (controllers, mut state) = controllers_beginning_with(take, &cluster.store, &cluster.index, &cluster.engine);
    within(state.wait_for(|state| state.subscribed)).await.unwrap();
    cluster.controllers = Some(controllers);
    push(&cluster.store, &web, 4, "sleep 1000").await;
    until_runs(&cluster.index, &web, 4).await;
    let after = cluster.tasks(&web);
    assert!(before.iter().all(|task| after.contains(task)), "{before:?} became {after:?}");
    assert_eq!(framework_id(&cluster.index), Some(old));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_framework_begins_anew_though_another_stores_framework_is_away() {
    let (mut cluster, _) = Cluster::with_pod(2).await;
    let theirs = framework_id(&cluster.index).unwrap();

    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let (others, _state) = controllers(&store, &index, &cluster.engine);
    let api = pod("/api");
    push(&store, &api, 3, "sleep 1000").await;
    until_runs(&index, &api, 3).await;
    cluster.stop_controllers().await;
    let old = framework_id(&index).unwrap();
    tear_down(&cluster.engine, &old).await;
    let again = |task: &observed::Task| task.task_id.ends_with(".2") && task.state == Some(TaskState::TaskRunning.into());
    until(&index, "the next incarnations", |state| {
        state.pod(&api).unwrap().observed.values().flat_map(|held| &held.value.tasks).filter(|task| again(task)).count() == 3
    })
    .await;
    let new = framework_id(&index).unwrap();
    assert!(new != old && new != theirs, "{new}");
    within(others.shutdown()).await;
    cluster.start_controllers();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_person_must_say_how_to_go_on_nothing_is_said_to_run() {
    let (mut cluster, web) = Cluster::with_pod(3).await;
    cluster.stop_controllers().await;
    // The store's own tasks run under a framework that it does not know any more, since somebody made it take another.
    let first = framework_id(&cluster.index).unwrap();
    let held = cluster.index.read(|state| state.framework().cloned()).unwrap();
    let record = Framework { framework_id: "podium-other".to_owned(), ..held.value };
    let replaced = cluster.store.commit(Group::global().then(Op::record(Key::Framework, record))).await;
    assert!(replaced.committed().is_some());
    until(&cluster.index, "the other id", |state| state.framework().unwrap().value.framework_id == "podium-other").await;
    cluster.start_controllers();
    until(&cluster.index, "the next incarnations", |state| {
        let tasks = state.pod(&web).unwrap().observed.values().flat_map(|held| &held.value.tasks);
        tasks.filter(|task| task.task_id.ends_with(".2") && task.state == Some(TaskState::TaskRunning.into())).count() == 3
    })
    .await;

    tear_down(&cluster.engine, "podium-other").await;
    let told = |state: &GatewayState| state.trouble.as_ref().is_some_and(|text| text.contains(&format!("--framework-id {first}")));
    within(cluster.state.wait_for(told)).await.unwrap();
    until(&cluster.index, "tasks of which nothing is known", |state| {
        let tasks = state.pod(&web).unwrap().observed.values().flat_map(|held| &held.value.tasks);
        tasks.filter(|task| task.state == Some(TaskState::TaskUnknown.into())).count() == 3
    })
    .await;
    until(&cluster.index, "a status that says so", |state| {
        let status = state.pod(&web).and_then(|view| view.status.as_ref());
        status.is_some_and(|held| String::from_utf8_lossy(&held.value).contains(r#""phase":"Degraded""#))
    })
    .await;
    assert_eq!(framework_id(&cluster.index).as_deref(), Some("podium-other"));
    cluster.stop_controllers().await;

    let (controllers, _state) = controllers_beginning_with(FirstFramework::New, &cluster.store, &cluster.index, &cluster.engine);
    cluster.controllers = Some(controllers);
    until(&cluster.index, "another framework", |state| state.framework().unwrap().value.framework_id != "podium-other").await;
    until_runs(&cluster.index, &web, 3).await;
    cluster.stop().await;
}
