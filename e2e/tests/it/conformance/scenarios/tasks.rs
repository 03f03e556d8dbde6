//! The life of tasks on an agent that runs them: updates and their order, kills, groups, what is said of tasks that are known.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::client::Format;
use super::super::stage::{Framework, Stage, executor, info, launch_group, task, text, with};

/// Told once, by [`one_that_ends_well`].
const ADDRESSES: [&str; 1] = ["network_infos"];

const ENDED: [&str; 5] = ["TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED"];

/// A framework of whoever runs this test: tasks run as its user.
pub(super) fn own_info() -> Value {
    let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    with(info(), json!({ "user": String::from_utf8_lossy(&user).trim() }))
}

pub(super) fn command(id: &str, offer: &Value, command: &str) -> Value {
    with(task(id, offer), json!({ "command": { "value": command } }))
}

/// Launches one group; the executor is named like its first task.
async fn start(stage: &mut Stage, info: Value, commands: &[(&str, &str)]) -> (Framework, Value) {
    let mut framework = stage.subscribe(info).await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    let tasks = commands.iter().map(|(id, text)| command(id, &offer, text)).collect();
    let group = launch_group(executor(&format!("executor-{}", commands[0].0), &framework.id), tasks);
    framework.accept(&[&offer], vec![group]).await;
    (framework, offer)
}

/// Acknowledges everything until these tasks have ended and their executor too; what was said, by task.
pub(super) async fn to_the_end(framework: &mut Framework, tasks: usize) -> Value {
    let mut updates: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let (mut ended, mut failure) = (0, Value::Null);
    while ended < tasks || failure.is_null() {
        let mut event = framework.events(1).await.remove(0);
        if event["type"] == "FAILURE" {
            failure = event["failure"].take();
            continue;
        }
        let status = event["update"]["status"].take();
        framework.acknowledge(&status).await;
        ended += usize::from(ENDED.contains(&text(&status["state"])));
        updates.entry(text(&status["task_id"]["value"]).to_owned()).or_default().push(status);
    }
    json!({ "updates": updates, "failure": failure })
}

pub async fn one_that_ends_well(stage: &mut Stage) {
    let (mut framework, _) = start(stage, own_info(), &[("a", "true")]).await;
    let told = to_the_end(&mut framework, 1).await;
    stage.told("a task", told);
    framework.teardown().await;
    stage.names.left_out = ADDRESSES.to_vec();
    stage.format = Format::Protobuf;
    let (mut framework, _) = start(stage, own_info(), &[("a", "true")]).await;
    let told = to_the_end(&mut framework, 1).await;
    stage.told("in protobuf", told);
    framework.teardown().await;
}

pub async fn one_that_fails_and_its_group(stage: &mut Stage) {
    stage.names.left_out = ADDRESSES.to_vec();
    let (mut framework, _) = start(stage, own_info(), &[("a", "sleep 1000"), ("b", "sleep 0.2; exit 3")]).await;
    let told = to_the_end(&mut framework, 2).await;
    stage.told("a group", told);
    framework.teardown().await;
}

pub async fn killed(stage: &mut Stage) {
    stage.names.left_out = ADDRESSES.to_vec();
    for (step, info) in
        [("TASK_KILLING_STATE", own_info()), ("without", with(own_info(), json!({ "capabilities": [{ "type": "MULTI_ROLE" }] })))]
    {
        let (mut framework, offer) = start(stage, info, &[("a", "sleep 1000")]).await;
        framework.reach("a", "TASK_RUNNING").await;
        framework.call("KILL", json!({ "kill": { "task_id": { "value": "a" }, "agent_id": { "value": "elsewhere" } } })).await;
        let events = framework.settle().await;
        stage.told(format!("{step}: on another agent"), json!(events));
        framework.call("KILL", json!({ "kill": { "task_id": { "value": "a" }, "agent_id": offer["agent_id"] } })).await;
        let told = to_the_end(&mut framework, 1).await;
        stage.told(step, told);
        framework.teardown().await;
    }
}

pub async fn shut_down_with_their_executor(stage: &mut Stage) {
    stage.names.left_out = ADDRESSES.to_vec();
    let (mut framework, offer) = start(stage, own_info(), &[("a", "sleep 1000")]).await;
    framework.reach("a", "TASK_RUNNING").await;
    framework.call("SHUTDOWN", json!({ "shutdown": { "executor_id": { "value": "executor-a" }, "agent_id": offer["agent_id"] } })).await;
    let told = to_the_end(&mut framework, 1).await;
    stage.told("SHUTDOWN", told);
    framework.teardown().await;
}

async fn ask(framework: &mut Framework, tasks: Value) -> Value {
    framework.call("RECONCILE", json!({ "reconcile": { "tasks": tasks } })).await;
    json!(framework.settle().await)
}

pub async fn unacknowledged_and_asked_for(stage: &mut Stage) {
    stage.names.left_out = ADDRESSES.to_vec();
    let (mut framework, offer) = start(stage, with(own_info(), json!({ "failover_timeout": 600.0 })), &[("a", "sleep 1000")]).await;
    let starting = framework.updates(1).await.remove(0);
    let about = json!([{ "task_id": { "value": "a" }, "agent_id": offer["agent_id"] }]);
    let told = ask(&mut framework, about.clone()).await;
    stage.told("asked for before the first acknowledgement", told);
    let wrong = with(starting.clone(), json!({ "uuid": "q83vEjRWSJCrze8SNFZ4kA==" }));
    framework.acknowledge(&wrong).await;
    let events = framework.settle().await;
    stage.told("acknowledged with another uuid", json!(events));
    // The stream's head comes again at a new subscription, under its old uuid.
    let again = with(own_info(), json!({ "id": { "value": framework.id }, "failover_timeout": 600.0 }));
    let mut framework = stage.subscribe(again).await;
    let repeated = framework.updates(1).await.remove(0);
    stage.told("subscribed again", json!([repeated["uuid"] == starting["uuid"], repeated]));
    framework.acknowledge(&repeated).await;
    framework.reach("a", "TASK_RUNNING").await;
    let told = ask(&mut framework, about).await;
    stage.told("asked for while it runs", told);
    let told = ask(&mut framework, json!([{ "task_id": { "value": "a" }, "agent_id": { "value": "elsewhere" } }])).await;
    stage.told("asked for on another agent", told);
    let told = ask(&mut framework, json!([])).await;
    stage.told("all asked for", told);
    let end = framework.teardown().await;
    stage.told("torn down", json!(end));
    let tasks = stage.connection.get(&format!("/tasks?framework_id={}", framework.id)).await.json();
    stage.told("/tasks afterwards", tasks);
}

pub async fn used_ids(stage: &mut Stage) {
    let (mut framework, _) = start(stage, own_info(), &[("a", "sleep 1000")]).await;
    framework.reach("a", "TASK_RUNNING").await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    stage.told("executors in the next offer", offer["executor_ids"].clone());
    let renamed = with(executor("executor-a", &framework.id), json!({ "name": "renamed" }));
    let operations = vec![
        launch_group(executor("another", &framework.id), vec![command("a", &offer, "true")]),
        launch_group(renamed, vec![command("b", &offer, "true")]),
    ];
    framework.accept(&[&offer], operations).await;
    let statuses = framework.updates(2).await;
    stage.told("a used task id and a changed executor", json!(statuses));
    framework.teardown().await;
}

/// The executor of a first task has ended, and its agent keeps it: that end is not acknowledged.
pub async fn executor_ids_of_executors_that_ended(stage: &mut Stage) {
    stage.names.left_out = ADDRESSES.to_vec();
    let (mut framework, _) = start(stage, own_info(), &[("a", "true")]).await;
    let (mut end, mut failure) = (Value::Null, Value::Null);
    while end.is_null() || failure.is_null() {
        let mut event = framework.events(1).await.remove(0);
        let status = event["update"]["status"].take();
        match status["state"].as_str() {
            None => failure = event,
            Some("TASK_FINISHED") => end = status,
            _ => framework.acknowledge(&status).await,
        }
    }
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    let group = launch_group(executor("executor-a", &framework.id), vec![command("b", &offer, "sleep 1000")]);
    framework.accept(&[&offer], vec![group]).await;
    let mut events = framework.events(2).await;
    events.sort_by_key(|event| event["type"].to_string());
    stage.told("launched under its id", json!(events));
    let shown = stage.operate(json!({ "type": "GET_EXECUTORS" })).await.json();
    let ours = shown["get_executors"]["executors"].as_array().into_iter().flatten();
    let ours = ours.filter(|entry| entry.to_string().contains(&framework.id)).count();
    stage.told("executors that operators see then", json!(ours));
    framework.acknowledge(&events[1]["update"]["status"]).await;
    framework.acknowledge(&end).await;
    framework.teardown().await;
}

pub async fn as_operators_see_them(stage: &mut Stage) {
    stage.names.left_out = ADDRESSES.to_vec();
    let labels = json!({ "labels": { "labels": [{ "key": "k", "value": "v" }] } });
    let mut framework = stage.subscribe(own_info()).await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    let group = launch_group(executor("executor-seen", &framework.id), vec![with(command("seen", &offer, "sleep 1000"), labels)]);
    framework.accept(&[&offer], vec![group]).await;
    framework.reach("seen", "TASK_RUNNING").await;
    for (kind, field, list) in [("GET_TASKS", "get_tasks", "tasks"), ("GET_EXECUTORS", "get_executors", "executors")] {
        let answer = stage.operate(json!({ "type": kind })).await.json();
        let ours = answer[field][list].as_array().into_iter().flatten();
        let ours: Vec<&Value> = ours.filter(|entry| entry.to_string().contains(&framework.id)).collect();
        stage.told(kind, json!(ours));
    }
    let tasks = stage.connection.get(&format!("/tasks?framework_id={}&task_id=seen", framework.id)).await.json();
    stage.told("/tasks", tasks);
    framework.teardown().await;
}
