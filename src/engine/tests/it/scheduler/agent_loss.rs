//! Agents that leave, and come back or not.

use std::time::Duration;

use podium_proto::mesos::v1::TaskState;
use podium_proto::mesos::v1::task_status::Reason;

use super::{World, agents};
use crate::client::{Client, a_task, info};

#[tokio::test]
async fn tasks_of_an_unreachable_agent_are_unreachable_and_run_again_when_it_is_back() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    client.launch_one("t", &[]).await;
    world.simulation().partition(0, Duration::from_millis(400)).await.unwrap();
    let away = client.update().await;
    assert_eq!((away.state, away.reason), (TaskState::TaskUnreachable.into(), Some(Reason::AgentRemoved.into())));
    assert!(away.unreachable_time.is_some() && away.uuid.is_none());
    // A real master, too, looks for it where the question says that it is.
    for (agent, state) in [(Some("simulated-S0"), TaskState::TaskUnreachable), (None, TaskState::TaskUnknown)] {
        client.reconcile(&[("t", agent)]).await;
        assert_eq!(client.update().await.state, i32::from(state));
    }
    let back = client.update().await;
    assert_eq!((back.state, back.reason), (TaskState::TaskRunning.into(), Some(Reason::AgentReregistered.into())));
    assert!(back.uuid.is_none());
    client.kill("t").await;
    client.reach("t", TaskState::TaskKilled).await;
    world.stop().await;
}

#[tokio::test]
async fn what_happened_during_a_partition_is_told_after_it() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    client.launch_one("t", &[]).await;
    world.simulation().lose(0).await.unwrap();
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskUnreachable));
    world.simulation().end_task("t", TaskState::TaskFailed).await.unwrap();
    world.simulation().bring_back(0).await.unwrap();
    let back = client.update().await;
    assert_eq!(back.reason, Some(Reason::AgentReregistered.into()));
    let failed = client.reach("t", TaskState::TaskFailed).await;
    assert!(failed.uuid.is_some());
    // The executor's end was not heard; what it used is free all the same.
    client.offer_of(16.0).await;
    world.stop().await;
}

#[tokio::test]
async fn tasks_of_a_machine_that_died_are_gone_when_it_is_back_empty() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    client.launch_one("t", &[]).await;
    world.simulation().crash(0).await.unwrap();
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskUnreachable));
    world.simulation().bring_back(0).await.unwrap();
    client.offer().await;
    client.reconcile(&[("t", Some("simulated-S0"))]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskGone));
    world.stop().await;
}

#[tokio::test]
async fn a_launch_that_got_lost_is_told_when_the_agent_registers_again() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    world.simulation().drop_launches(0, 1).await.unwrap();
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    client.reconcile(&[("t", None)]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskStaging));
    world.simulation().restart(0, Duration::from_millis(10)).await.unwrap();
    let dropped = client.update().await;
    assert_eq!((dropped.state, dropped.reason), (TaskState::TaskDropped.into(), Some(Reason::Reconciliation.into())));
    client.offer_of(16.0).await;
    world.stop().await;
}

#[tokio::test]
async fn an_agent_marked_as_gone_never_comes_back() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.launch_one("t", &[]).await;
    let agent = offer.agent_id.value.clone();
    let operator = format!(r#"{{"type":"MARK_AGENT_GONE","mark_agent_gone":{{"agent_id":{{"value":"{agent}"}}}}}}"#);
    for _ in 0..2 {
        let request = crate::client::post(world.address(), "/api/v1", Some("application/json"), &[], operator.clone().into());
        assert_eq!(crate::client::send(world.address(), request).await.status(), 200, "twice is once");
    }
    let gone = client.update().await;
    assert_eq!((gone.state, gone.reason), (TaskState::TaskGoneByOperator.into(), Some(Reason::AgentRemovedByOperator.into())));
    world.simulation().restart(0, Duration::from_millis(10)).await.unwrap();
    world.simulation().restart(1, Duration::from_millis(10)).await.unwrap();
    client.revive().await;
    let offer = client.offer().await;
    assert_ne!(offer.agent_id.value, agent);
    world.stop().await;
}

#[tokio::test]
async fn updates_sent_twice_have_one_uuid_and_acknowledgements_of_old_ones_do_nothing() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    let first = client.update().await;
    world.simulation().duplicate_updates(0).await.unwrap();
    let again = client.update().await;
    assert_eq!(first.uuid, again.uuid);
    client.acknowledge(&first).await;
    let running = client.update().await;
    assert_eq!(running.state, i32::from(TaskState::TaskRunning));
    client.acknowledge(&first).await;
    world.simulation().duplicate_updates(0).await.unwrap();
    assert_eq!(client.update().await.uuid, running.uuid, "the head is still the one not acknowledged");
    world.stop().await;
}
