//! What operators say of agents and machines: drained, deactivated, down for maintenance; and what of it outlives a restart.

use std::time::{Duration, Instant};

use http::StatusCode;
use podium_engine::{Engine, Settings};
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{DurationInfo, KillPolicy, TaskInfo, TaskState};
use serde_json::{Value, json};

use super::{QUIET, World, agents, engine};
use crate::client::{Client, a_task, info_with_id, post, send, text_of};

async fn ask(engine: &Engine, call: Value) -> (StatusCode, Value) {
    let request = post(engine.address(), "/api/v1", Some("application/json"), &[], call.to_string().into());
    let (status, text) = text_of(send(engine.address(), request).await).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn tell(engine: &Engine, call: Value) {
    assert_eq!(ask(engine, call.clone()).await, (StatusCode::OK, json!("")), "{call}");
}

async fn of_agent(engine: &Engine, kind: &str, agent: &str) {
    tell(engine, json!({ "type": kind, (kind.to_lowercase()): { "agent_id": { "value": agent } } })).await;
}

/// By agent: whether it is deactivated, and how far it is drained.
async fn shown(engine: &Engine) -> Vec<Value> {
    let (_, agents) = ask(engine, json!({ "type": "GET_AGENTS" })).await;
    let all = agents["get_agents"]["agents"].as_array().cloned().unwrap_or_default();
    all.iter().map(|agent| json!([agent["agent_info"]["id"]["value"], agent["deactivated"], agent["drain_info"]["state"]])).collect()
}

/// Waits until all of the agents are back after a restart.
async fn all_shown(engine: &Engine, count: usize) -> Vec<Value> {
    let awaited = async {
        loop {
            let shown = shown(engine).await;
            if shown.len() == count {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::client::PATIENCE, awaited).await.expect("all agents are back in time")
}

#[tokio::test]
async fn agents_stay_drained_and_deactivated_over_a_failover_and_a_restart() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let agent = client.launch_one("t", &[("SIM_STOP_MS", "700")]).await.agent_id.value;
    let other = if agent == "simulated-S0" { "simulated-S1" } else { "simulated-S0" };
    of_agent(&world.engine, "DRAIN_AGENT", &agent).await;
    of_agent(&world.engine, "DEACTIVATE_AGENT", other).await;
    world.engine.fail_over_master().await;
    while client.event().await.is_some() {}

    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let status = loop {
        let status = client.update().await;
        if status.state == i32::from(TaskState::TaskKilled) {
            break status;
        }
        client.acknowledge(&status).await;
    };
    assert_eq!(status.reason, Some(Reason::AgentDraining.into()));
    let expected = |drained: &str| {
        let mut both = [json!([agent, true, drained]), json!([other, true, null])];
        both.sort_by_key(Value::to_string);
        both.to_vec()
    };
    assert_eq!(shown(&world.engine).await, expected("DRAINING"), "not before the last word is acknowledged");
    client.acknowledge(&status).await;
    assert_eq!(shown(&world.engine).await, expected("DRAINED"));

    let World { engine: first, folder } = world;
    first.abort().await;
    let second = engine(folder.path(), agents(2), Settings::default()).await;
    assert_eq!(all_shown(&second, 2).await, expected("DRAINED"));
    let mut client = Client::subscribe(second.address(), info_with_id("f")).await;
    assert!(tokio::time::timeout(QUIET, client.offer()).await.is_err(), "neither is offered");
    of_agent(&second, "REACTIVATE_AGENT", &agent).await;
    assert_eq!(client.offer().await.agent_id.value, agent);
    of_agent(&second, "REACTIVATE_AGENT", other).await;
    assert_eq!(client.offer().await.agent_id.value, other);
    second.shutdown().await;
}

#[tokio::test]
async fn an_agent_registers_again_when_its_machine_is_up_also_after_a_restart() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let agent = client.launch_one("t", &[]).await;
    let machines = json!([{ "hostname": agent.hostname, "ip": "127.0.0.1" }]);
    let windows = json!([{ "machine_ids": machines, "unavailability": { "start": { "nanoseconds": 5 } } }]);
    tell(
        &world.engine,
        json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": { "schedule": { "windows": windows } } }),
    )
    .await;
    let asked = client.until(|event| event.inverse_offers.clone()).await;
    assert_eq!(asked.inverse_offers[0].agent_id.as_ref().unwrap(), &agent.agent_id);
    tell(&world.engine, json!({ "type": "START_MAINTENANCE", "start_maintenance": { "machines": machines } })).await;
    let status = client.update().await;
    assert_eq!((status.state, status.reason), (TaskState::TaskLost.into(), Some(Reason::AgentRemoved.into())));
    assert_eq!(shown(&world.engine).await.len(), 1);

    let World { engine: first, folder } = world;
    first.abort().await;
    let second = engine(folder.path(), agents(2), Settings::default()).await;
    let mut client = Client::subscribe(second.address(), info_with_id("f")).await;
    assert_ne!(client.offer().await.agent_id, agent.agent_id);
    assert!(tokio::time::timeout(QUIET, client.offer()).await.is_err(), "the other is not offered");
    client.reconcile(&[("t", Some(&agent.agent_id.value))]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskUnknown), "it may not come back");
    let (_, status) = ask(&second, json!({ "type": "GET_MAINTENANCE_STATUS" })).await;
    assert_eq!(status["get_maintenance_status"]["status"], json!({ "down_machines": machines }));

    tell(&second, json!({ "type": "STOP_MAINTENANCE", "stop_maintenance": { "machines": machines } })).await;
    let offer = client.offer().await;
    assert_eq!((&offer.agent_id, &offer.unavailability), (&agent.agent_id, &None));
    let (_, schedule) = ask(&second, json!({ "type": "GET_MAINTENANCE_SCHEDULE" })).await;
    assert_eq!(schedule["get_maintenance_schedule"]["schedule"], json!({}));
    let group = client.group("executor-again", vec![a_task("again", &offer, &[])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    client.reach("again", TaskState::TaskRunning).await;
    second.shutdown().await;
}

/// What a task that ignores kills is granted.
const GRACE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_agent_whose_machine_is_up_again_registers_when_what_it_ran_has_ended() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let offer = client.offer().await;
    let grace_period = DurationInfo { nanoseconds: i64::try_from(GRACE.as_nanos()).unwrap() };
    let task = TaskInfo {
        kill_policy: Some(KillPolicy { grace_period: Some(grace_period) }),
        ..a_task("t", &offer, &[("SIM_IGNORE_KILL", "true")])
    };
    client.accept(&[&offer], vec![client.group("e", vec![task])], 0.0).await;
    client.reach("t", TaskState::TaskRunning).await;

    let machines = json!([{ "hostname": offer.hostname, "ip": "127.0.0.1" }]);
    let windows = json!([{ "machine_ids": machines, "unavailability": { "start": { "nanoseconds": 5 } } }]);
    let schedule = json!({ "schedule": { "windows": windows } });
    tell(&world.engine, json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": schedule })).await;
    let started = Instant::now();
    tell(&world.engine, json!({ "type": "START_MAINTENANCE", "start_maintenance": { "machines": machines } })).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskLost));
    client.offers.clear();
    tell(&world.engine, json!({ "type": "STOP_MAINTENANCE", "stop_maintenance": { "machines": machines } })).await;
    client.reconcile(&[("t", Some(&offer.agent_id.value))]).await;
    let state = client.update().await.state;
    let soon = started.elapsed() < GRACE;
    assert!(!soon || state == i32::from(TaskState::TaskUnknown), "nobody may say that it has ended: {state}");

    let again = client.offer().await;
    assert!(started.elapsed() >= GRACE, "offered while the task may use what is offered");
    assert_eq!((&again.agent_id, &again.resources), (&offer.agent_id, &offer.resources));
    client.reconcile(&[("t", Some(&offer.agent_id.value))]).await;
    assert_eq!(client.update().await.state, i32::from(TaskState::TaskGone));
    world.stop().await;
}
