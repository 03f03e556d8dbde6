//! Agents that operators take down: drained, or in maintenance. Instances move, and nothing more is launched there; alike on both
//! engines.

use std::collections::{BTreeMap, BTreeSet};

use podium_e2e::wait::eventually;
use serde_json::{Value, json};

use super::ground::Ground;
use crate::{marker, pod};

#[test]
fn instances_move_away_from_agents_that_are_taken_down_on_the_embedded_engine() {
    taken_down(&Ground::simulated(2));
}

#[test]
fn instances_move_away_from_agents_that_are_taken_down_on_a_real_mesos() {
    taken_down(&Ground::real());
}

/// An instance that counted as crashed would be launched again after an hour, when every wait here has long been given up.
fn slow_after_a_crash(mut pod: Value) -> Value {
    pod["scheduling"]["backoff"] = json!({ "backoff": 3600, "backoffFactor": 1.15, "maxLaunchDelay": 3600 });
    pod
}

fn operate(ground: &Ground, call: &Value) -> Value {
    let answer = ground.master.call("POST", "/api/v1", Some(&call.to_string()));
    assert_eq!(answer.status, 200, "{call}: {answer:?}");
    answer.json()
}

/// Agents by instance, of all that are to run and do.
fn placed(ground: &Ground, id: &str, instances: usize) -> BTreeMap<String, String> {
    let status = ground.api.stable(id, instances);
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
    let all = status["instances"].as_array().into_iter().flatten();
    all.map(|instance| (text(&instance["id"]), text(&instance["agentHostname"]))).collect()
}

fn agents(placed: &BTreeMap<String, String>) -> BTreeSet<&String> {
    placed.values().collect()
}

/// Id and draining of the agent with this name.
fn agent(ground: &Ground, hostname: &str) -> (Value, Value) {
    let agents = operate(ground, &json!({ "type": "GET_AGENTS" }));
    let mut all = agents["get_agents"]["agents"].as_array().into_iter().flatten();
    let agent = all.find(|agent| agent["agent_info"]["hostname"] == hostname).unwrap_or_else(|| panic!("no {hostname}: {agents}"));
    (agent["agent_info"]["id"].clone(), agent["drain_info"]["state"].clone())
}

fn scale(ground: &Ground, definition: &mut Value, instances: u32) {
    definition["scaling"]["instances"] = json!(instances);
    let path = format!("/v2/pods{}", definition["id"].as_str().unwrap());
    let answer = ground.api.call("PUT", &path, Some(&definition.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn schedule(ground: &Ground, machine: &Value, start: u64) {
    let windows = json!([{ "machine_ids": [machine], "unavailability": { "start": { "nanoseconds": start } } }]);
    let part = json!({ "schedule": { "windows": windows } });
    operate(ground, &json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": part }));
}

fn taken_down(ground: &Ground) {
    let mut moves = slow_after_a_crash(pod("/moves", 4, &marker(), &["exec sleep 3001"]));
    // What is lost with a machine is waited for as long as this says: Mesos does not say that it is not coming back.
    moves["scheduling"]["unreachableStrategy"] = json!({ "inactiveAfterSeconds": 0, "expungeAfterSeconds": 0 });
    ground.api.create(&moves);
    let before = placed(ground, "/moves", 4);
    let drained = before.values().next().unwrap().clone();
    let mut stays = pod("/stays", 2, &marker(), &["exec sleep 3002"]);
    let elsewhere = json!([{ "fieldName": "@hostname", "operator": "UNLIKE", "value": drained }]);
    stays["scheduling"]["placement"] = json!({ "constraints": elsewhere });
    ground.api.create(&stays);
    let untouched = placed(ground, "/stays", 2);
    let other = untouched.values().next().unwrap().clone();

    let (id, _) = agent(ground, &drained);
    operate(ground, &json!({ "type": "DRAIN_AGENT", "drain_agent": { "agent_id": id, "max_grace_period": { "seconds": 2 } } }));
    let after = eventually("all instances run elsewhere", || {
        let after = placed(ground, "/moves", 4);
        if after.values().all(|agent| *agent == other) { Ok(after) } else { Err(format!("{after:?}")) }
    });
    let kept = |placed: &BTreeMap<String, String>| placed.iter().filter(|(_, agent)| **agent == other).map(|(id, _)| id.clone()).collect();
    let (kept_before, all_after): (BTreeSet<String>, BTreeSet<String>) = (kept(&before), kept(&after));
    assert!(kept_before.is_subset(&all_after), "what ran elsewhere runs on: {before:?} {after:?}");
    assert_eq!(placed(ground, "/stays", 2), untouched);
    eventually("the agent is drained", || match agent(ground, &drained).1 {
        state if state == "DRAINED" => Ok(()),
        state => Err(state.to_string()),
    });
    scale(ground, &mut moves, 5);
    assert_eq!(agents(&placed(ground, "/moves", 5)), BTreeSet::from([&other]), "nothing is launched on it");
    operate(ground, &json!({ "type": "REACTIVATE_AGENT", "reactivate_agent": { "agent_id": id } }));

    maintained(ground, &mut moves, &other, &drained);
}

/// `full` is to be taken down, where everything runs; it can be had again by `free`.
fn maintained(ground: &Ground, moves: &mut Value, full: &str, free: &str) {
    let machine = json!({ "hostname": full, "ip": "127.0.0.1" });
    schedule(ground, &machine, 4_000_000_000_000_000_000);
    eventually("the inverse offer is declined: every instance is there", || {
        let status = operate(ground, &json!({ "type": "GET_MAINTENANCE_STATUS" }));
        let told = &status["get_maintenance_status"]["status"]["draining_machines"][0];
        if told["statuses"][0]["status"] == "DECLINE" { Ok(()) } else { Err(status.to_string()) }
    });
    // The window has begun.
    schedule(ground, &machine, 5);
    scale(ground, moves, 7);
    let placed_now = placed(ground, "/moves", 7);
    assert_eq!(placed_now.values().filter(|agent| *agent == free).count(), 2, "the new ones: {placed_now:?}");

    operate(ground, &json!({ "type": "START_MAINTENANCE", "start_maintenance": { "machines": [machine] } }));
    eventually("all instances run where the machine is up", || {
        let placed_now = placed(ground, "/moves", 7);
        if placed_now.values().all(|agent| agent == free) { Ok(()) } else { Err(format!("{placed_now:?}")) }
    });
    operate(ground, &json!({ "type": "STOP_MAINTENANCE", "stop_maintenance": { "machines": [machine] } }));
}
