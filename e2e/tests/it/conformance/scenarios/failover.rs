//! A master that was killed with its agent: what its next run says to a framework that comes back, of what ran on meanwhile.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::client::PATIENCE;
use super::super::stage::{Framework, Stage, executor, info, launch_group, task, text, with};
use super::drain::{drained, shown, tell};
use super::maintenance::{self, heard, machine, offered_of, schedule, start_of, stop_of, tell_plan, window};
use super::tasks::{own_info, to_the_end};

/// What the framework knows from before.
pub struct Kept {
    stage: Stage,
    id: String,
    agent: Value,
}

fn lasting() -> Value {
    with(own_info(), json!({ "failover_timeout": 600.0 }))
}

/// A task runs, and nothing of it is unacknowledged.
pub async fn before(mut stage: Stage) -> Kept {
    stage.names.left_out = vec!["network_infos"];
    let mut framework = stage.subscribe(lasting()).await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    let group = launch_group(executor("executor-a", &framework.id), vec![task("a", &offer), task("b", &offer)]);
    framework.accept(&[&offer], vec![group]).await;
    let mut running = 0;
    while running < 2 {
        let status = framework.updates(1).await.remove(0);
        framework.acknowledge(&status).await;
        running += usize::from(status["state"] == "TASK_RUNNING");
    }
    framework.settle().await;
    Kept { id: framework.id.clone(), agent: offer["agent_id"].clone(), stage }
}

/// Both are back, at this address: the framework too.
pub async fn after(kept: Kept, address: SocketAddr) -> Stage {
    let Kept { mut stage, id, agent } = kept;
    stage.move_to(address).await;
    let call = json!({
        "type": "SUBSCRIBE",
        "framework_id": { "value": id },
        "subscribe": { "framework_info": with(lasting(), json!({ "id": { "value": id } })) }
    });
    let mut framework = stage.try_subscribe("back again", call).await.expect("a subscription");
    for task in ["a", "b"] {
        known_again(&mut stage, &mut framework, task, &agent).await;
    }
    for (step, tasks) in [
        ("a task that never was", json!([{ "task_id": { "value": "never" }, "agent_id": agent }])),
        ("of an agent that never was", json!([{ "task_id": { "value": "never" }, "agent_id": { "value": "nobody" } }])),
    ] {
        framework.call("RECONCILE", json!({ "reconcile": { "tasks": tasks } })).await;
        let events = framework.settle().await;
        stage.told(step, json!(events));
    }
    framework.call("KILL", json!({ "kill": { "task_id": { "value": "a" }, "agent_id": agent } })).await;
    let told = to_the_end(&mut framework, 2).await;
    stage.told("killed", told);
    let mut stranger = stage.subscribe(with(info(), json!({ "roles": [] }))).await;
    stranger.teardown().await;
    framework.teardown().await;
    stage
}

/// Asks until the master knows the task again: its agent, and the task's executor, may be on their way back.
async fn known_again(stage: &mut Stage, framework: &mut Framework, task: &str, agent: &Value) {
    let asked = async {
        loop {
            let about = json!([{ "task_id": { "value": task }, "agent_id": agent }]);
            framework.call("RECONCILE", json!({ "reconcile": { "tasks": about } })).await;
            let events = framework.settle().await;
            if !events.is_empty() {
                return events;
            }
        }
    };
    let events = tokio::time::timeout(PATIENCE, asked).await.expect("the task is known again in time");
    stage.told(format!("{task}, asked for"), json!(events));
}

/// Five agents: one is scheduled for maintenance, one is drained, one deactivated, one drained while it is cut off, and the machine of
/// one that is cut off is taken down. Answers the agents' ids.
pub async fn operators_before(mut stage: Stage) -> (Stage, Vec<Value>) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 5).await;
    let agents: Vec<Value> = offers.iter().map(|offer| offer["agent_id"].clone()).collect();
    tell(&mut stage, "drained", "DRAIN_AGENT", &agents[1], json!({})).await;
    drained(&mut stage, "it is drained", &agents[1]).await;
    tell(&mut stage, "deactivated", "DEACTIVATE_AGENT", &agents[2], json!({})).await;
    let rescinded = framework.events(2).await;
    assert!(rescinded.iter().all(|event| event["type"] == "RESCIND"), "{rescinded:?}");
    for _ in 0..2 {
        stage.lose_last_agent().await;
        // An offer is taken back, and the loss told.
        let mut kinds: Vec<Value> = framework.events(2).await.iter().map(|event| event["type"].clone()).collect();
        kinds.sort_by_key(Value::to_string);
        assert_eq!(kinds, ["FAILURE", "RESCIND"]);
    }
    tell(&mut stage, "drained while it is cut off", "DRAIN_AGENT", &agents[3], json!({})).await;
    maintenance::tell(&mut stage, "scheduled", schedule(&[window(&[machine(0), machine(4)], Value::Null)])).await;
    maintenance::tell(&mut stage, "taken down while it is cut off", start_of(&[machine(4)])).await;
    tell_plan(&mut stage, "before").await;
    framework.teardown().await;
    (stage, agents)
}

/// The master is back, at this address, and all five agents too: one of them to a machine that is down.
pub async fn operators_after((mut stage, agents): (Stage, Vec<Value>), address: SocketAddr) -> Stage {
    stage.move_to(address).await;
    tell_plan(&mut stage, "after").await;
    let mut framework = stage.subscribe(info()).await;
    heard(&mut stage, &mut framework, "what a framework hears", 1).await;
    offered_of(&mut stage, &mut framework, "what it is offered", 1).await;
    drained(&mut stage, "drained before", &agents[1]).await;
    let as_shown = shown(&mut stage, &agents[2]).await;
    stage.told("deactivated before", as_shown);
    drained(&mut stage, "drained while it was cut off, and back", &agents[3]).await;
    on_a_machine_that_is_down(&mut stage, &mut framework, &agents[4], "down").await;
    tell(&mut stage, "marked gone", "MARK_AGENT_GONE", &agents[4], json!({})).await;
    on_a_machine_that_is_down(&mut stage, &mut framework, &agents[4], "gone").await;
    for agent in &agents[1..=3] {
        let step = format!("reactivated: {}", text(&stage.names.plain(agent.clone())["value"]));
        tell(&mut stage, &step, "REACTIVATE_AGENT", agent, json!({})).await;
    }
    offered_of(&mut stage, &mut framework, "what it is offered then", 4).await;
    maintenance::tell(&mut stage, "stopped", stop_of(&[machine(4)])).await;
    tell_plan(&mut stage, "up").await;
    framework.teardown().await;
    stage
}

async fn on_a_machine_that_is_down(stage: &mut Stage, framework: &mut Framework, agent: &Value, when: &str) {
    framework.call("RECONCILE", json!({ "reconcile": { "tasks": [{ "task_id": { "value": "a" }, "agent_id": agent }] } })).await;
    let events = framework.settle().await;
    stage.told(format!("{when}: a task there, asked for"), json!(events));
    let state = stage.connection.get("/state").await.json();
    stage.told(format!("{when}: agents"), json!([state["slaves"].as_array().map(Vec::len), state["unreachable_slaves"]]));
}
