//! Launching, updates and their acknowledgement, kills, scripted lives.

use podium_proto::mesos::v1::scheduler::{Call, call};
use podium_proto::mesos::v1::task_status::{Reason, Source};
use podium_proto::mesos::v1::{AgentId, ExecutorId, HealthCheck, TaskId, TaskState, health_check};

use super::{QUIET, World, agents};
use crate::client::{Client, Kind, ROLE, a_task, info};

#[tokio::test]
async fn a_group_is_launched_runs_and_dies_as_one_in_both_encodings() {
    let world = World::start(agents(1)).await;
    for kind in [Kind::Json, Kind::Protobuf] {
        let mut client = Client::try_subscribe(world.address(), kind, info("test", &[]), vec![]).await.unwrap();
        let offer = client.offer().await;
        assert_eq!(offer.allocation_info.as_ref().unwrap().role.as_deref(), Some(ROLE));
        assert_eq!(offer.agent_id.value, "simulated-S0");
        let group = client.group("e", vec![a_task("t1", &offer, &[]), a_task("t2", &offer, &[])]);
        client.accept(&[&offer], vec![group], 0.0).await;
        let first = client.update().await;
        assert_eq!((first.state, first.source), (TaskState::TaskStarting.into(), Some(Source::Executor.into())));
        assert_eq!(first.executor_id.as_ref().unwrap().value, "e");
        assert_eq!(first.uuid.as_ref().unwrap().len(), 16);
        client.acknowledge(&first).await;
        client.reach("t1", TaskState::TaskRunning).await;
        client.kill("t1").await;
        let failure = async {
            let mut ended = std::collections::BTreeSet::new();
            let mut failure = None;
            while ended.len() < 2 || failure.is_none() {
                let event = client.event().await.unwrap();
                failure = event.failure.or(failure);
                let Some(status) = event.update.map(|update| update.status) else { continue };
                client.acknowledge(&status).await;
                if status.state == i32::from(TaskState::TaskKilled) {
                    ended.insert(status.task_id.value);
                }
            }
            failure
        };
        let failure = failure.await.unwrap();
        assert_eq!((failure.executor_id.unwrap().value.as_str(), failure.status), ("e", Some(0)));
        client.expect(call::Type::Teardown, Call::default()).await;
        while client.event().await.is_some() {}
    }
    world.stop().await;
}

#[tokio::test]
async fn an_update_waits_for_the_acknowledgement_of_the_one_before() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    let starting = client.update().await;
    let early = tokio::time::timeout(QUIET, client.update()).await;
    assert!(early.is_err(), "{early:?}");
    client.acknowledge(&starting).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskRunning));
    world.stop().await;
}

#[tokio::test]
async fn a_task_id_is_free_again_only_when_its_last_update_is_acknowledged() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t", &offer, &[("SIM_RUN_MS", "1"), ("SIM_EXIT", "7")])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    let starting = client.update().await;
    client.acknowledge(&starting).await;
    let running = client.update().await;
    client.acknowledge(&running).await;
    let failed = client.update().await;
    assert_eq!((failed.state, failed.message.as_deref()), (TaskState::TaskFailed.into(), Some("Command exited with status 7")));
    // The resources are free although nothing was acknowledged.
    let offer = client.offer_of(16.0).await;
    let group = client.group("e2", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    let refused = client.update().await;
    assert!(refused.message.as_ref().unwrap().contains("duplicate ID"), "{refused:?}");
    client.acknowledge(&failed).await;
    let offer = client.offer().await;
    let group = client.group("e3", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    client.reach("t", TaskState::TaskRunning).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stubborn_task_dies_at_the_end_of_the_grace_that_the_kill_names() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    client.launch_one("t", &[("SIM_IGNORE_KILL", "true")]).await;
    let grace = podium_proto::mesos::v1::DurationInfo { nanoseconds: 400_000_000 };
    let kill = call::Kill {
        task_id: TaskId { value: "t".to_owned() },
        agent_id: Some(AgentId { value: "another".to_owned() }),
        kill_policy: Some(podium_proto::mesos::v1::KillPolicy { grace_period: Some(grace) }),
    };
    client.expect(call::Type::Kill, Call { kill: Some(kill.clone()), ..Call::default() }).await;
    let ignored = tokio::time::timeout(QUIET, client.update()).await;
    assert!(ignored.is_err(), "a kill for another agent's task is ignored: {ignored:?}");
    let asked = tokio::time::Instant::now();
    client.expect(call::Type::Kill, Call { kill: Some(call::Kill { agent_id: None, ..kill }), ..Call::default() }).await;
    let killing = client.update().await;
    assert_eq!(killing.state, i32::from(TaskState::TaskKilling));
    client.acknowledge(&killing).await;
    client.reach("t", TaskState::TaskKilled).await;
    assert!(asked.elapsed() >= std::time::Duration::from_millis(400), "{:?}", asked.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn scripted_health_and_launch_failures_are_told_as_a_real_executor_would() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let mut checked = a_task("checked", &offer, &[("SIM_HEALTHY", "true,false,kill")]);
    let tcp = Some(health_check::TcpCheckInfo { port: 1, ..Default::default() });
    checked.health_check = Some(HealthCheck { r#type: Some(health_check::Type::Tcp.into()), tcp, ..HealthCheck::default() });
    let broken = a_task("broken", &offer, &[("SIM_LAUNCH_FAILURE", "no such image")]);
    let operations = vec![client.group("e1", vec![checked]), client.group("e2", vec![broken])];
    client.accept(&[&offer], operations, 3600.0).await;
    let mut seen = Vec::new();
    let mut failed = None;
    while failed.is_none() || seen.last() != Some(&(i32::from(TaskState::TaskKilled), Some(false))) {
        let status = client.update().await;
        client.acknowledge(&status).await;
        if status.task_id.value == "broken" {
            failed = Some(status);
        } else {
            seen.push((status.state, status.healthy));
        }
    }
    let running = i32::from(TaskState::TaskRunning);
    assert_eq!(seen[1..4], [(running, None), (running, Some(true)), (running, Some(false))]);
    let failed = failed.unwrap();
    assert_eq!((failed.state, failed.reason), (TaskState::TaskFailed.into(), Some(Reason::ContainerLaunchFailed.into())));
    assert_eq!(failed.message.as_deref(), Some("no such image"));
    world.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_an_executor_and_one_of_an_unknown_executor_is_ignored() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.launch_one("t", &[]).await;
    for executor in ["unknown", "executor-t"] {
        let shutdown = call::Shutdown { executor_id: ExecutorId { value: executor.to_owned() }, agent_id: offer.agent_id.clone() };
        client.expect(call::Type::Shutdown, Call { shutdown: Some(shutdown), ..Call::default() }).await;
    }
    client.reach("t", TaskState::TaskKilled).await;
    world.stop().await;
}
