//! Agents that are drained, deactivated and reactivated: what operators are answered and see, and what becomes of tasks.

use serde_json::{Value, json};

use super::super::stage::{Framework, Stage, executor, info, info_with, launch_group, text, with};
use super::loss::{ask_about, start};
use super::tasks::{command, own_info, to_the_end};

pub(super) async fn tell(stage: &mut Stage, step: &str, kind: &str, agent: &Value, rest: Value) {
    let part = with(json!({ "agent_id": agent }), rest);
    let reply = stage.operate(json!({ "type": kind, (kind.to_lowercase()): part })).await;
    stage.told_reply(step, &reply);
}

/// What is shown of the agent, besides what it has; grace periods are told in full.
pub(super) async fn shown(stage: &mut Stage, agent: &Value) -> Value {
    let agents = stage.operate(json!({ "type": "GET_AGENTS" })).await.json();
    let all = agents["get_agents"]["agents"].as_array().cloned().unwrap_or_default();
    let of_api = all.into_iter().find(|shown| shown["agent_info"]["id"] == *agent).unwrap_or_default();
    let slaves = stage.connection.get("/slaves").await.json();
    let all = slaves["slaves"].as_array().cloned().unwrap_or_default();
    let of_json = all.into_iter().find(|shown| shown["id"] == agent["value"]).unwrap_or_default();
    let told = |shown: &Value| {
        let times = ["estimated_drain_start_time", "estimated_drain_start_time_seconds"];
        let begun = times.iter().any(|name| !shown[*name].is_null());
        json!([shown["active"], shown["deactivated"], shown["drain_info"].to_string(), begun])
    };
    json!([told(&of_api), told(&of_json)])
}

/// Tells how the agent is shown when it is drained. Nobody is told of that; but what takes time, the ends of its tasks, was awaited
/// before, so that a look or two are enough.
pub(super) async fn drained(stage: &mut Stage, step: &str, agent: &Value) {
    let awaited = async {
        loop {
            let shown = shown(stage, agent).await;
            if shown.as_array().into_iter().flatten().all(|shown| shown.to_string().contains("DRAINED")) {
                return shown;
            }
        }
    };
    let shown = tokio::time::timeout(super::super::client::PATIENCE, awaited).await.expect("the agent is drained in time");
    stage.told(step, shown);
}

pub async fn agents_without_tasks(stage: &mut Stage) {
    let nobody = json!({ "value": "nobody" });
    for kind in ["DRAIN_AGENT", "DEACTIVATE_AGENT", "REACTIVATE_AGENT"] {
        tell(stage, &format!("{kind} of nobody"), kind, &nobody, json!({})).await;
        tell(stage, &format!("{kind} without an id"), kind, &Value::Null, json!({ "agent_id": null })).await;
    }
    let mut framework = stage.subscribe(info()).await;
    let agent = stage.offers(&mut framework, 2).await[0]["agent_id"].clone();
    let in_words = json!({ "agent_id": agent, "max_grace_period": "5s" });
    let reply = stage.operate(json!({ "type": "DRAIN_AGENT", "drain_agent": in_words })).await;
    // Parsers differ in their words.
    stage.told("a time in words", json!(reply.status));
    tell(stage, "drained", "DRAIN_AGENT", &agent, json!({ "max_grace_period": { "seconds": 5, "nanos": 500 } })).await;
    let events = framework.events(1).await;
    stage.told("what its framework hears", json!(events));
    drained(stage, "it is drained", &agent).await;
    let counted = stage.connection.get("/state").await.json();
    stage.told("counted", json!([counted["activated_slaves"], counted["deactivated_slaves"]]));
    tell(stage, "drained again, for ever", "DRAIN_AGENT", &agent, json!({ "max_grace_period": { "seconds": -1 } })).await;
    drained(stage, "it is drained again", &agent).await;
    tell(stage, "deactivated too", "DEACTIVATE_AGENT", &agent, json!({})).await;
    tell(stage, "reactivated", "REACTIVATE_AGENT", &agent, json!({})).await;
    offered_again(stage, &mut framework, "reactivated", &agent).await;
    tell(stage, "deactivated", "DEACTIVATE_AGENT", &agent, json!({})).await;
    let events = framework.events(1).await;
    stage.told("what it hears when it is deactivated", json!(events));
    let as_shown = shown(stage, &agent).await;
    stage.told("deactivated: as it is shown", as_shown);
    tell(stage, "deactivated again", "DEACTIVATE_AGENT", &agent, json!({})).await;
    tell(stage, "reactivated too", "REACTIVATE_AGENT", &agent, json!({})).await;
    offered_again(stage, &mut framework, "after that", &agent).await;
    tell(stage, "reactivated twice", "REACTIVATE_AGENT", &agent, json!({})).await;
    framework.teardown().await;
}

/// Waits for its next offer, which stays.
async fn offered_again(stage: &mut Stage, framework: &mut Framework, step: &str, agent: &Value) {
    framework.offers.clear();
    stage.offers_stay(framework, 1).await;
    let whose = framework.offers.values().all(|offer| offer["agent_id"] == *agent);
    let as_shown = shown(stage, agent).await;
    stage.told(format!("{step}: as it is shown and offered"), json!([as_shown, whose]));
}

/// One task ends when it is told to; the other, which would take an hour, when the operator's time is over.
pub async fn tasks_on_a_drained_agent(stage: &mut Stage) {
    stage.names.left_out = vec!["network_infos"];
    let mut framework = stage.subscribe(own_info()).await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    let agent = offer["agent_id"].clone();
    let hour = json!({ "kill_policy": { "grace_period": { "nanoseconds": 3_600_000_000_000_u64 } } });
    let deaf = with(command("deaf", &offer, "trap '' TERM; echo; while true; do sleep 1; done"), hour);
    for task in [command("obedient", &offer, "exec sleep 1000"), deaf] {
        let id = text(&task["task_id"]["value"]).to_owned();
        let group = launch_group(executor(&format!("executor-{id}"), &framework.id), vec![task]);
        let offer = match framework.offers.pop_first() {
            Some((_, offer)) => offer,
            None if id == "obedient" => offer.clone(),
            None => stage.offers(&mut framework, 1).await.remove(0),
        };
        framework.accept(&[&offer], vec![group]).await;
        framework.reach(&id, "TASK_RUNNING").await;
    }
    stage.offers_stay(&mut framework, 1).await;
    tell(stage, "drained", "DRAIN_AGENT", &agent, json!({ "max_grace_period": { "seconds": 1 } })).await;
    let events = framework.events(1).await;
    stage.told("what its framework hears first", json!(events));
    let as_shown = shown(stage, &agent).await;
    stage.told("while it is drained", as_shown);
    tell(stage, "reactivated too early", "REACTIVATE_AGENT", &agent, json!({})).await;
    let mut ends = to_the_end(&mut framework, 2).await;
    if let Some(ends) = ends.as_object_mut() {
        ends.remove("failure");
    }
    stage.told("its tasks", ends);
    drained(stage, "it is drained", &agent).await;
    tell(stage, "reactivated", "REACTIVATE_AGENT", &agent, json!({})).await;
    stage.offers_stay(&mut framework, 1).await;
    let as_shown = shown(stage, &agent).await;
    stage.told("as before", as_shown);
    framework.teardown().await;
}

/// The last of two agents that are left. Its framework does not hear of the kill but of the end alone: for Mesos both are ends here.
pub async fn an_agent_that_is_to_be_gone(stage: &mut Stage) {
    stage.names.left_out = vec!["network_infos"];
    let (mut framework, agent) = start(stage, info_with(&["MULTI_ROLE", "PARTITION_AWARE", "RESERVATION_REFINEMENT"]), 2).await;
    tell(stage, "drained", "DRAIN_AGENT", &agent, json!({ "mark_gone": true })).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Value| event["failure"]["agent_id"] != agent) {
        let event = framework.events(1).await.remove(0);
        framework.acknowledge(&event["update"]["status"]).await;
        // Its executor may have ended before.
        if event["failure"]["executor_id"].is_null() {
            events.push(event);
        }
    }
    stage.told("what it hears", json!(events));
    ask_about(stage, &mut framework, &agent, "gone").await;
    let as_shown = shown(stage, &agent).await;
    stage.told("no longer shown", as_shown);
    tell(stage, "reactivated when gone", "REACTIVATE_AGENT", &agent, json!({})).await;
    framework.teardown().await;
}
