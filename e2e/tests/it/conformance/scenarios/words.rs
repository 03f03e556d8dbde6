//! Calls about tasks and executors that nobody has: KILL, ACKNOWLEDGE, RECONCILE, SHUTDOWN and the rest.

use serde_json::{Value, json};

use super::super::stage::{Stage, info, info_with, with};

/// A framework that leaves its offers alone, and the agents' ids.
async fn start(stage: &mut Stage, info: Value) -> (super::super::stage::Framework, Vec<Value>) {
    let mut framework = stage.subscribe(info).await;
    let offers = stage.offers(&mut framework, 2).await;
    (framework, offers)
}

pub async fn kill(stage: &mut Stage) {
    for (words, info) in [("PARTITION_AWARE", info()), ("without PARTITION_AWARE", info_with(&["MULTI_ROLE"]))] {
        let (mut framework, offers) = start(stage, info).await;
        let agent = offers[0]["agent_id"].clone();
        for (step, kill) in [
            ("no agent", json!({})),
            ("a registered agent", json!({ "agent_id": agent })),
            ("an unknown agent", json!({ "agent_id": { "value": "elsewhere" } })),
            ("a bad task id", json!({ "task_id": { "value": "a/b" } })),
            ("an empty task id", json!({ "task_id": { "value": "" } })),
            ("a grace period", json!({ "kill_policy": { "grace_period": { "nanoseconds": 1 } } })),
            ("a negative grace period", json!({ "kill_policy": { "grace_period": { "nanoseconds": -1 } } })),
        ] {
            let reply = framework.send("KILL", json!({ "kill": with(json!({ "task_id": { "value": "nobody" } }), kill) })).await;
            stage.told_reply(format!("{words}, {step}: the reply"), &reply);
            let events = framework.settle().await;
            stage.told(format!("{words}, {step}"), json!(events));
        }
        framework.teardown().await;
    }
}

pub async fn acknowledge(stage: &mut Stage) {
    let (mut framework, offers) = start(stage, info()).await;
    let uuid = "q83vEjRWSJCrze8SNFZ4kA==";
    for (step, agent, uuid) in [
        ("an unknown task", offers[0]["agent_id"].clone(), json!(uuid)),
        ("an unknown agent", json!({ "value": "elsewhere" }), json!(uuid)),
        ("a uuid of zeros", offers[0]["agent_id"].clone(), json!("AAAAAAAAAAAAAAAAAAAAAA==")),
        ("a uuid without a version", offers[0]["agent_id"].clone(), json!("q83vEjRW+JCrze8SNFZ4kA==")),
        ("a short uuid", offers[0]["agent_id"].clone(), json!("AAAA")),
        ("an empty uuid", offers[0]["agent_id"].clone(), json!("")),
        ("no uuid", offers[0]["agent_id"].clone(), Value::Null),
    ] {
        let reply = framework
            .send("ACKNOWLEDGE", json!({ "acknowledge": { "agent_id": agent, "task_id": { "value": "nobody" }, "uuid": uuid } }))
            .await;
        stage.told_reply(step, &reply);
    }
    let events = framework.settle().await;
    stage.told("what came of it", json!(events));
    framework.teardown().await;
}

async fn ask(stage: &mut Stage, words: &str, info: Value) {
    let (mut framework, offers) = start(stage, info).await;
    let agent = offers[0]["agent_id"].clone();
    let about = |task: &str, agent: Value| with(json!({ "task_id": { "value": task } }), json!({ "agent_id": agent }));
    for (step, tasks) in [
        ("all tasks", json!([])),
        ("no agent", json!([about("a", Value::Null)])),
        ("a registered agent", json!([about("a", agent.clone())])),
        ("an unknown agent", json!([about("a", json!({ "value": "elsewhere" }))])),
        ("a bad task id", json!([about("a/b", Value::Null)])),
        ("an empty agent id", json!([about("a", json!({ "value": "" }))])),
        ("the same twice, and another", json!([about("a", Value::Null), about("b", agent), about("a", Value::Null)])),
    ] {
        framework.call("RECONCILE", json!({ "reconcile": { "tasks": tasks } })).await;
        let events = framework.settle().await;
        stage.told(format!("{words}{step}"), json!(events));
    }
    framework.teardown().await;
}

pub async fn reconcile(stage: &mut Stage) {
    ask(stage, "", info()).await;
}

pub async fn reconcile_without_partition_aware(stage: &mut Stage) {
    ask(stage, "", info_with(&["MULTI_ROLE"])).await;
}

pub async fn message_request_shutdown(stage: &mut Stage) {
    let (mut framework, offers) = start(stage, info()).await;
    let agent = offers[0]["agent_id"].clone();
    let elsewhere = json!({ "value": "elsewhere" });
    for agent in [agent, elsewhere] {
        framework.call("MESSAGE", json!({ "message": { "agent_id": agent, "executor_id": { "value": "nobody" }, "data": "eA==" } })).await;
        framework.call("SHUTDOWN", json!({ "shutdown": { "agent_id": agent, "executor_id": { "value": "nobody" } } })).await;
    }
    framework.call("REQUEST", json!({ "request": { "requests": [{ "resources": [] }] } })).await;
    let events = framework.settle().await;
    stage.told("what came of it", json!(events));
    framework.teardown().await;
}

pub async fn operations_of_others(stage: &mut Stage) {
    let (mut framework, offers) = start(stage, info()).await;
    let agent = offers[0]["agent_id"].clone();
    for (step, operation) in [
        ("no agent", json!({ "operation_id": { "value": "o" } })),
        ("a registered agent", json!({ "operation_id": { "value": "o" }, "agent_id": agent })),
        ("an unknown agent", json!({ "operation_id": { "value": "o" }, "agent_id": { "value": "elsewhere" } })),
        ("an unknown provider", json!({ "operation_id": { "value": "o" }, "agent_id": agent, "resource_provider_id": { "value": "p" } })),
    ] {
        let reply = framework.send("RECONCILE_OPERATIONS", json!({ "reconcile_operations": { "operations": [operation] } })).await;
        stage.told_reply(format!("{step}: the reply"), &reply);
        let events = framework.settle().await;
        stage.told(step, json!(events));
    }
    framework.call("RECONCILE_OPERATIONS", json!({ "reconcile_operations": {} })).await;
    let acknowledge = json!({ "agent_id": agent, "uuid": "q83vEjRWSJCrze8SNFZ4kA==", "operation_id": { "value": "o" } });
    framework.call("ACKNOWLEDGE_OPERATION_STATUS", json!({ "acknowledge_operation_status": acknowledge })).await;
    let inverse = json!({ "inverse_offer_ids": [{ "value": "nothing" }] });
    framework.call("ACCEPT_INVERSE_OFFERS", json!({ "accept_inverse_offers": inverse })).await;
    framework.call("DECLINE_INVERSE_OFFERS", json!({ "decline_inverse_offers": inverse })).await;
    let events = framework.settle().await;
    stage.told("what came of the rest", json!(events));
    framework.teardown().await;
}
