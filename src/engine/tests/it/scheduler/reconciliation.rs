//! What the master answers about tasks.

use std::time::Duration;

use podium_proto::mesos::v1::task_status::{Reason, Source};
use podium_proto::mesos::v1::{FrameworkInfo, TaskState, TaskStatus};

use super::{QUIET, World, agents};
use crate::client::{Client, info, info_with_id};

fn check(status: &TaskStatus, task: &str, state: TaskState) {
    let reason = Some(Reason::Reconciliation.into());
    assert_eq!((status.task_id.value.as_str(), status.state, status.reason), (task, state.into(), reason), "{status:?}");
    assert_eq!((status.source, &status.uuid, &status.data), (Some(Source::Master.into()), &None, &None));
    assert!(status.message.as_ref().unwrap().starts_with("Reconciliation: "));
}

/// Nothing is answered for a while.
async fn silence(client: &mut Client) {
    let update = tokio::time::timeout(QUIET, client.update()).await;
    assert!(update.is_err(), "{update:?}");
}

#[tokio::test]
async fn each_case_of_the_table_has_its_answer_for_those_who_know_partitions_and_for_those_who_do_not() {
    let world = World::start(agents(3)).await;
    for aware in [true, false] {
        let mut info = info("test", &[]);
        if !aware {
            info.capabilities.retain(|capability| capability.r#type != Some(5));
        }
        let mut client = Client::subscribe(world.address(), info).await;
        let (lost, gone) = ("simulated-S1", "simulated-S2");
        if aware {
            client.launch_one("known", &[]).await;
            world.simulation().lose(1).await.unwrap();
            let operator = format!(r#"{{"type":"MARK_AGENT_GONE","mark_agent_gone":{{"agent_id":{{"value":"{gone}"}}}}}}"#);
            let request = crate::client::post(world.address(), "/api/v1", Some("application/json"), &[], operator.into());
            assert_eq!(crate::client::send(world.address(), request).await.status(), 200);
            client.until(|event| event.failure.clone()).await;
            client.until(|event| event.failure.clone()).await;
            client.reconcile(&[("known", None)]).await;
            let known = client.update().await;
            check(&known, "known", TaskState::TaskRunning);
            assert_eq!(known.executor_id.as_ref().unwrap().value, "executor-known");
            assert!(known.container_status.is_some());
            client.reconcile(&[]).await;
            check(&client.update().await, "known", TaskState::TaskRunning);
            silence(&mut client).await;
        }
        let or_lost = |state| if aware { state } else { TaskState::TaskLost };
        for (agent, state) in [
            (Some("simulated-S0"), TaskState::TaskGone),
            (Some(lost), TaskState::TaskUnreachable),
            (Some(gone), TaskState::TaskGoneByOperator),
            (Some("never-seen"), TaskState::TaskUnknown),
            (None, TaskState::TaskUnknown),
        ] {
            client.reconcile(&[("ghost", agent)]).await;
            let status = client.update().await;
            check(&status, "ghost", or_lost(state));
            assert_eq!(status.unreachable_time.is_some(), agent == Some(lost), "{agent:?}");
        }
        // A kill of what nobody knows is answered in the same way.
        client.kill("ghost").await;
        check(&client.update().await, "ghost", or_lost(TaskState::TaskUnknown));
    }
    world.stop().await;
}

#[tokio::test]
async fn the_answer_is_the_last_state_forwarded_even_if_the_agent_knows_a_newer_one() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![crate::client::a_task("t", &offer, &[("SIM_RUN_MS", "1")])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    let starting = client.update().await;
    // It finishes meanwhile: its executor's end is told, its updates wait behind the first.
    client.until(|event| event.failure.clone()).await;
    client.reconcile(&[("t", None)]).await;
    check(&client.update().await, "t", TaskState::TaskStarting);
    client.acknowledge(&starting).await;
    let finished = client.reach("t", TaskState::TaskFinished).await;
    assert_eq!(finished.message.as_deref(), Some("Command exited with status 0"));
    client.reconcile(&[("t", Some("simulated-S0"))]).await;
    check(&client.update().await, "t", TaskState::TaskGone);
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_answered_about_agents_that_may_come_back_from_a_master_failover() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.launch_one("t", &[]).await;
    // The one agent restarts together with the master, and takes its time.
    world.simulation().restart(0, Duration::from_millis(1500)).await.unwrap();
    world.engine.fail_over_master().await;
    while client.event().await.is_some() {}
    let mut client = Client::subscribe(world.address(), FrameworkInfo { ..info_with_id("f") }).await;
    client.reconcile(&[("t", Some("simulated-S0")), ("ghost", None)]).await;
    client.reconcile(&[]).await;
    silence(&mut client).await;
    // With its registration the answers are back.
    loop {
        client.reconcile(&[("t", Some("simulated-S0"))]).await;
        if let Ok(status) = tokio::time::timeout(Duration::from_millis(200), client.update()).await {
            check(&status, "t", TaskState::TaskRunning);
            break;
        }
    }
    client.reconcile(&[("ghost", None)]).await;
    let ghost =
        client.until(|event| event.update.as_ref().map(|update| update.status.clone()).filter(|status| status.task_id.value == "ghost"));
    check(&ghost.await, "ghost", TaskState::TaskUnknown);
    world.stop().await;
}
