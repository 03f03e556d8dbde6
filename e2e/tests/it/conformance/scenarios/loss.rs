//! Agents that are lost: what their framework hears, unasked and asked, and what operators see.

use serde_json::{Value, json};

use super::super::stage::{Framework, Stage, executor, info, info_with, launch_group, task, text};

/// Launches one task on the last of the agents that are left, and waits until all of them are offered again.
pub(super) async fn start(stage: &mut Stage, info: Value, agents: usize) -> (Framework, Value) {
    let mut framework = stage.subscribe(info).await;
    let mut offers = stage.offers(&mut framework, agents).await;
    let last = offers.pop().unwrap();
    framework.decline(&offers, 0.0).await;
    let group = launch_group(executor("executor-a", &framework.id), vec![task("a", &last)]);
    framework.accept(&[&last], vec![group]).await;
    framework.reach("a", "TASK_RUNNING").await;
    stage.offers_stay(&mut framework, agents).await;
    (framework, last["agent_id"].clone())
}

/// What is said of the task, whoever asks.
pub(super) async fn ask_about(stage: &mut Stage, framework: &mut Framework, agent: &Value, when: &str) {
    for (step, tasks) in [
        ("asked for with its agent", json!([{ "task_id": { "value": "a" }, "agent_id": agent }])),
        ("asked for without", json!([{ "task_id": { "value": "a" } }])),
        ("another task of that agent", json!([{ "task_id": { "value": "other" }, "agent_id": agent }])),
        ("all tasks", json!([])),
    ] {
        framework.call("RECONCILE", json!({ "reconcile": { "tasks": tasks } })).await;
        let events = framework.settle().await;
        stage.told(format!("{when}: {step}"), json!(events));
    }
    framework.call("KILL", json!({ "kill": { "task_id": { "value": "a" }, "agent_id": agent } })).await;
    let events = framework.settle().await;
    stage.told(format!("{when}: killed"), json!(events));
    let shown = stage.operate(json!({ "type": "GET_TASKS" })).await.json();
    let mut tasks = json!({});
    for list in ["tasks", "completed_tasks", "unreachable_tasks"] {
        let ours = shown["get_tasks"][list].as_array().into_iter().flatten();
        let ours = ours.filter(|task| task["framework_id"]["value"] == framework.id.as_str());
        tasks[list] = ours.map(|task| json!([task["task_id"], task["state"]])).collect();
    }
    stage.told(format!("{when}: as operators see it"), tasks);
    let agents = stage.connection.get("/slaves").await.json();
    let known: Vec<&str> = agents["slaves"].as_array().into_iter().flatten().map(|agent| text(&agent["hostname"])).collect();
    stage.told(format!("{when}: agents that are left"), json!(known.len()));
}

/// What comes of it until the loss is told, and what of it in which order: an offer is taken back before that or with it.
async fn the_loss(framework: &mut Framework) -> Value {
    let mut events = framework.events(3).await;
    let kinds: Vec<Value> = events.iter().map(|event| event["type"].clone()).collect();
    events.sort_by_key(|event| event["type"].to_string());
    json!({ "order": kinds, "events": events })
}

pub async fn an_agent_that_is_cut_off(stage: &mut Stage) {
    let (mut framework, agent) = start(stage, info(), 5).await;
    stage.lose_last_agent().await;
    let told = the_loss(&mut framework).await;
    stage.told("what it hears", told);
    ask_about(stage, &mut framework, &agent, "cut off").await;
    let call = json!({ "type": "MARK_AGENT_GONE", "mark_agent_gone": { "agent_id": agent } });
    let reply = stage.operate(call).await;
    stage.told_reply("marked gone", &reply);
    let told = framework.events(1).await;
    stage.told("what it hears then", json!(told));
    ask_about(stage, &mut framework, &agent, "gone").await;
    framework.teardown().await;
}

pub async fn an_agent_that_is_cut_off_without_partition_aware(stage: &mut Stage) {
    let (mut framework, agent) = start(stage, info_with(&["MULTI_ROLE"]), 4).await;
    stage.lose_last_agent().await;
    let told = the_loss(&mut framework).await;
    stage.told("what it hears", told);
    ask_about(stage, &mut framework, &agent, "cut off").await;
    framework.teardown().await;
}

pub async fn an_agent_that_is_marked_gone(stage: &mut Stage) {
    let (mut framework, agent) = start(stage, info(), 3).await;
    let call = json!({ "type": "MARK_AGENT_GONE", "mark_agent_gone": { "agent_id": agent } });
    let reply = stage.operate(call.clone()).await;
    stage.told_reply("marked gone", &reply);
    let told = the_loss(&mut framework).await;
    stage.told("what it hears", told);
    ask_about(stage, &mut framework, &agent, "gone").await;
    let reply = stage.operate(call).await;
    stage.told_reply("once more", &reply);
    framework.teardown().await;
}
