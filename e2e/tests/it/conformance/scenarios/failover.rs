//! A master that was killed with its agent: what its next run says to a framework that comes back, of what ran on meanwhile.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::client::PATIENCE;
use super::super::stage::{Framework, Stage, executor, info, launch_group, task, with};
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
