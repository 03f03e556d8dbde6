//! What a restart of the master keeps.

use podium_engine::Settings;
use podium_proto::mesos::v1::TaskState;
use podium_proto::mesos::v1::scheduler::{Call, call};

use super::{World, agents, engine};
use crate::client::{Client, Kind, Refused, info, info_with_id};

#[tokio::test]
async fn a_completed_framework_stays_completed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = engine(folder.path(), agents(0), Settings::default()).await;
    let client = Client::subscribe(first.address(), info_with_id("f")).await;
    client.expect(call::Type::Teardown, Call::default()).await;
    first.abort().await;
    let second = engine(folder.path(), agents(0), Settings::default()).await;
    match Client::try_subscribe(second.address(), Kind::Protobuf, info_with_id("f"), vec![]).await {
        Err(Refused::Event(message)) => assert_eq!(message, "Framework has been removed"),
        other => panic!("{:?}", other.err()),
    }
    Client::subscribe(second.address(), info_with_id("g")).await;
    second.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_the_engine_is_started_without_is_answered_as_gone_and_may_come_back_later() {
    let folder = tempfile::tempdir().unwrap();
    let first = engine(folder.path(), agents(1), Settings::default()).await;
    let mut client = Client::subscribe(first.address(), info_with_id("f")).await;
    client.launch_one("t", &[]).await;
    first.abort().await;
    let second = engine(folder.path(), agents(0), Settings::default()).await;
    let mut client = Client::subscribe(second.address(), info_with_id("f")).await;
    client.reconcile(&[("t", Some("simulated-S0"))]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskGoneByOperator));
    second.shutdown().await;
    let third = engine(folder.path(), agents(1), Settings::default()).await;
    let mut client = Client::subscribe(third.address(), info_with_id("f")).await;
    client.offer_of(16.0).await;
    client.reconcile(&[("t", Some("simulated-S0"))]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskGone), "simulated tasks live in memory");
    third.shutdown().await;
}

#[tokio::test]
async fn agents_stay_unreachable_over_a_failover_and_others_are_given_up_in_time() {
    let settings = Settings { agent_reregister_timeout: std::time::Duration::from_millis(500), ..Settings::default() };
    let world = World::start_with(agents(2), settings).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    world.simulation().lose(0).await.unwrap();
    client.until(|event| event.failure.clone()).await;
    // The other one is restarting meanwhile, and takes too long.
    world.simulation().restart(1, std::time::Duration::from_secs(3600)).await.unwrap();
    world.engine.fail_over_master().await;
    while client.event().await.is_some() {}
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.reconcile(&[("t", Some("simulated-S1")), ("t", Some("simulated-S0"))]).await;
    let first = client.update().await;
    assert_eq!((first.state, first.agent_id.unwrap().value.as_str()), (TaskState::TaskUnreachable.into(), "simulated-S0"));
    let failure = client.until(|event| {
        assert!(event.update.is_none(), "silence until the agent is given up: {event:?}");
        event.failure.clone()
    });
    assert_eq!(failure.await.agent_id.unwrap().value, "simulated-S1");
    client.reconcile(&[("t", Some("simulated-S1"))]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskUnreachable));
    world.stop().await;
}

#[tokio::test]
async fn tasks_come_back_with_their_agents_before_their_framework_does() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let used = client.launch_one("t", &[]).await;
    world.engine.fail_over_master().await;
    while client.event().await.is_some() {}
    assert_eq!(client.call(call::Type::Revive, Call::default()).await.0, 400, "the framework cannot be found");
    // What the task uses is not offered to others.
    let mut other = Client::subscribe(world.address(), info("other", &[])).await;
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 2 {
        let offer = other.offer().await;
        let cpus = offer.resources.iter().find(|resource| resource.name == "cpus").unwrap().scalar.unwrap().value;
        seen.insert(offer.agent_id.value, cpus);
    }
    assert!(seen[&used.agent_id.value] < 16.0, "{seen:?}");
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.reconcile(&[]).await;
    let status = client.update().await;
    assert_eq!((status.task_id.value.as_str(), status.state), ("t", TaskState::TaskRunning.into()));
    client.kill("t").await;
    client.reach("t", TaskState::TaskKilled).await;
    world.stop().await;
}

#[tokio::test]
async fn a_folder_serves_one_engine_at_a_time() {
    let world = World::start(agents(0)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = podium_engine::Config {
        listener,
        data_dir: world.folder.path().to_owned(),
        agents: podium_engine::Agents::Simulated(agents(0)),
        settings: Settings::default(),
    };
    match podium_engine::Engine::start(second).await {
        Err(podium_engine::StartError::Locked { path }) => assert_eq!(path, world.folder.path()),
        other => panic!("{other:?}"),
    }
    world.stop().await;
}

#[tokio::test]
async fn a_kill_for_an_agent_that_is_not_back_yet_reaches_it_when_it_is() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.launch_one("t", &[]).await;
    world.simulation().restart(0, std::time::Duration::from_millis(300)).await.unwrap();
    world.engine.fail_over_master().await;
    while client.event().await.is_some() {}
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.kill("t").await;
    client.kill("stranger").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let status = client.update().await;
        client.acknowledge(&status).await;
        if let Ok(state @ (TaskState::TaskKilled | TaskState::TaskUnknown)) = TaskState::try_from(status.state) {
            seen.push((status.task_id.value, state));
        }
    }
    seen.sort();
    assert_eq!(seen, [("stranger".to_owned(), TaskState::TaskUnknown), ("t".to_owned(), TaskState::TaskKilled)]);
    world.stop().await;
}
