//! Machines that are scheduled for maintenance and taken down: what operators are answered, what frameworks are offered and asked.

use http::Method;
use serde_json::{Value, json};

use super::super::stage::{Framework, Stage, info, with};
use super::loss::{ask_about, start};

pub(super) fn machine(number: usize) -> Value {
    json!({ "hostname": format!("simulated-{number}"), "ip": "127.0.0.1" })
}

/// A window with these machines that begins in 2033.
pub(super) fn window(machines: &[Value], duration: Value) -> Value {
    json!({ "machine_ids": machines, "unavailability": { "start": { "nanoseconds": 2_000_000_000_000_000_000_u64 }, "duration": duration } })
}

pub(super) fn schedule(windows: &[Value]) -> Value {
    json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": { "schedule": { "windows": windows } } })
}

pub(super) fn start_of(machines: &[Value]) -> Value {
    json!({ "type": "START_MAINTENANCE", "start_maintenance": { "machines": machines } })
}

pub(super) fn stop_of(machines: &[Value]) -> Value {
    json!({ "type": "STOP_MAINTENANCE", "stop_maintenance": { "machines": machines } })
}

pub(super) async fn tell(stage: &mut Stage, step: &str, call: Value) {
    let reply = stage.operate(call).await;
    stage.told_reply(step, &reply);
}

pub(super) async fn tell_plan(stage: &mut Stage, step: &str) {
    tell(stage, &format!("{step}: the schedule"), json!({ "type": "GET_MAINTENANCE_SCHEDULE" })).await;
    let mut status = stage.operate(json!({ "type": "GET_MAINTENANCE_STATUS" })).await.json();
    if let Some(machines) = status.pointer_mut("/get_maintenance_status/status/draining_machines").and_then(Value::as_array_mut) {
        machines.sort_by_key(Value::to_string);
    }
    stage.told(format!("{step}: the status"), status);
}

/// So many events in an order of their own: machines are gone through in any.
pub(super) async fn heard(stage: &mut Stage, framework: &mut Framework, step: &str, count: usize) -> Vec<Value> {
    let mut events = framework.events(count).await;
    events.sort_by_key(|event| event["type"].to_string());
    stage.told(step, json!(events));
    events
}

pub(super) async fn offered(stage: &mut Stage, framework: &mut Framework, step: &str) {
    offered_of(stage, framework, step, 2).await;
}

/// As [`offered`], of so many agents.
pub(super) async fn offered_of(stage: &mut Stage, framework: &mut Framework, step: &str, agents: usize) {
    stage.offers_stay(framework, agents).await;
    let told: Vec<Value> = framework.offers.values().map(|offer| json!([offer["hostname"], offer["unavailability"]])).collect();
    let mut told: Vec<String> = told.iter().map(Value::to_string).collect();
    told.sort();
    stage.told(step, json!(told));
}

fn asked(events: &[Value]) -> Vec<Value> {
    let all = events.iter().filter_map(|event| event["inverse_offers"]["inverse_offers"].as_array()).flatten();
    all.map(|offer| offer["id"].clone()).collect()
}

pub async fn words(stage: &mut Stage) {
    let named = |name: &str| json!({ "hostname": name });
    let null = Value::Null;
    for (step, call) in [
        ("no schedule", json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {} })),
        ("no part", json!({ "type": "UPDATE_MAINTENANCE_SCHEDULE" })),
        ("no part to start", json!({ "type": "START_MAINTENANCE" })),
        ("no part to stop", json!({ "type": "STOP_MAINTENANCE" })),
        ("a window of no machines", schedule(&[window(&[], null.clone())])),
        ("a negative duration", schedule(&[window(&[named("a")], json!({ "nanoseconds": -1 }))])),
        ("a machine without a name", schedule(&[window(&[json!({})], null.clone())])),
        ("a machine with empty names", schedule(&[window(&[json!({ "hostname": "", "ip": "" })], null.clone())])),
        ("no address", schedule(&[window(&[json!({ "ip": "300.0.0.1" })], null.clone())])),
        ("another kind of address", schedule(&[window(&[json!({ "ip": "::1" })], null.clone())])),
        ("one twice", schedule(&[window(&[named("a")], null.clone()), window(&[named("b"), named("A")], null.clone())])),
        ("none to start", start_of(&[])),
        ("one twice to start", start_of(&[named("a"), named("A")])),
        ("an agent's, not scheduled, to start", start_of(&[machine(0)])),
        ("an agent's, not scheduled, to stop", stop_of(&[machine(0)])),
        ("an unknown one to start", start_of(&[named("a\"b")])),
        ("an unknown one to stop", stop_of(&[named("nobody")])),
        ("two scheduled", schedule(&[window(&[named("A"), named("b")], null.clone())])),
        ("started under another spelling", start_of(&[named("a")])),
        ("started twice", start_of(&[named("a")])),
        ("scheduled to stop", stop_of(&[named("b")])),
        ("taken out while it is down", schedule(&[window(&[named("b")], null.clone())])),
        ("moved while it is down", schedule(&[window(&[named("a")], json!({ "nanoseconds": 1 })), window(&[named("c")], null)])),
    ] {
        tell(stage, step, call).await;
    }
    tell_plan(stage, "one down, one to go").await;
    tell(stage, "stopped", stop_of(&[named("a")])).await;
    tell(stage, "stopped twice", stop_of(&[named("a")])).await;
    tell_plan(stage, "one to go").await;
    tell(stage, "nothing more", schedule(&[])).await;
    tell_plan(stage, "nothing more").await;
}

/// The same by the endpoints that came before the operator API.
pub async fn older_endpoints(stage: &mut Stage) {
    let start = json!({ "nanoseconds": 2_000_000_000_000_000_000_u64 });
    let windows = json!({ "windows": [{ "machine_ids": [{ "hostname": "a" }], "unavailability": { "start": start } }] });
    for (step, path, body) in [
        ("nothing to start", "/machine/down", "[]".to_owned()),
        ("an unknown one to start", "/machine/down", r#"[{"hostname":"a"}]"#.to_owned()),
        ("one scheduled", "/maintenance/schedule", windows.to_string()),
        ("scheduled to stop", "/machine/up", r#"[{"hostname":"a"}]"#.to_owned()),
        ("started", "/master/machine/down", r#"[{"hostname":"a"}]"#.to_owned()),
        ("taken out while it is down", "/master/maintenance/schedule", "{}".to_owned()),
    ] {
        stage.post(step, path, &[], body).await;
    }
    for path in ["/maintenance/schedule", "/maintenance/status", "/machine/down", "/machine/up"] {
        stage.get(path).await;
        // Parsers differ in their words.
        let reply = stage.connection.request(Method::POST, path, &[], "nonsense".into()).await;
        stage.told(format!("nonsense to {path}"), json!(reply.status));
        let reply = stage.connection.request(Method::PUT, path, &[], "".into()).await;
        stage.told_reply(format!("PUT {path}"), &reply);
    }
    stage.post("stopped", "/machine/up", &[], r#"[{"hostname":"a"}]"#).await;
    tell_plan(stage, "after all").await;
}

pub async fn offers_and_inverse_offers(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    stage.offers_stay(&mut framework, 2).await;
    tell(stage, "scheduled", schedule(&[window(&[machine(0)], Value::Null)])).await;
    let events = heard(stage, &mut framework, "what it hears", 3).await;
    offered(stage, &mut framework, "what it is offered").await;
    tell_plan(stage, "unanswered").await;
    let shown = stage.operate(json!({ "type": "GET_FRAMEWORKS" })).await.json();
    let frameworks = shown["get_frameworks"]["frameworks"].as_array().cloned().unwrap_or_default();
    let own = frameworks.iter().find(|shown| shown["framework_info"]["id"]["value"] == framework.id.as_str());
    stage.told("as operators see it", own.map(|shown| shown["inverse_offers"].clone()).unwrap_or_default());

    let answer = |ids: &[Value], seconds: f64| json!({ "inverse_offer_ids": ids, "filters": { "refuse_seconds": seconds } });
    let foreign = json!({ "value": "nobody's" });
    framework.call("ACCEPT_INVERSE_OFFERS", json!({ "accept_inverse_offers": answer(std::slice::from_ref(&foreign), 0.0) })).await;
    framework.call("DECLINE_INVERSE_OFFERS", json!({ "decline_inverse_offers": answer(&[foreign], 0.0) })).await;
    framework.call("ACCEPT_INVERSE_OFFERS", json!({ "accept_inverse_offers": answer(&asked(&events), 3600.0) })).await;
    let events = framework.settle().await;
    stage.told("accepted", json!(events));
    tell_plan(stage, "accepted").await;

    tell(stage, "moved", schedule(&[window(&[machine(0)], json!({ "nanoseconds": 7 }))])).await;
    let events = heard(stage, &mut framework, "what it hears of the move", 3).await;
    tell_plan(stage, "moved").await;
    stage.offers_stay(&mut framework, 2).await;
    framework.call("DECLINE_INVERSE_OFFERS", json!({ "decline_inverse_offers": answer(&asked(&events), 0.0) })).await;
    heard(stage, &mut framework, "asked again", 1).await;
    tell_plan(stage, "declined").await;

    tell(stage, "moved again", schedule(&[window(&[machine(0), machine(1)], Value::Null)])).await;
    let mut events = framework.events(4).await;
    // Both may be asked about at once.
    while asked(&events).len() < 2 {
        events.extend(framework.events(1).await);
    }
    let rescinded: Vec<&Value> = events.iter().filter(|event| event["type"] != "INVERSE_OFFERS").collect();
    let mut kinds: Vec<String> = rescinded.iter().map(|event| event["type"].to_string()).collect();
    kinds.sort();
    stage.told("what it hears of two", json!(kinds));
    offered(stage, &mut framework, "what it is offered of two").await;
    tell(stage, "cancelled", schedule(&[])).await;
    heard(stage, &mut framework, "what it hears of the end", 4).await;
    offered(stage, &mut framework, "what it is offered after all").await;
    tell_plan(stage, "cancelled").await;
    framework.teardown().await;
}

/// By the next leader of a framework, after the one before has refused for an hour.
pub async fn a_subscription_that_is_taken_over(stage: &mut Stage) {
    let lasting = with(info(), json!({ "failover_timeout": 600.0 }));
    let mut framework = stage.subscribe(lasting.clone()).await;
    stage.offers_stay(&mut framework, 2).await;
    tell(stage, "scheduled", schedule(&[window(&[machine(0)], Value::Null)])).await;
    let events = framework.events(3).await;
    let answer = json!({ "inverse_offer_ids": asked(&events), "filters": { "refuse_seconds": 3600.0 } });
    framework.call("DECLINE_INVERSE_OFFERS", json!({ "decline_inverse_offers": answer })).await;
    stage.offers_stay(&mut framework, 2).await;
    let mut next = stage.subscribe(with(lasting, json!({ "id": { "value": framework.id } }))).await;
    let events = next.events(1).await;
    stage.told("what the next one hears", json!(events));
    tell_plan(stage, "asked again").await;
    next.teardown().await;
    tell(stage, "cancelled", schedule(&[])).await;
}

pub async fn whom_it_does_not_concern(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 2).await;
    framework.decline(&offers, 3600.0).await;
    tell(stage, "scheduled", schedule(&[window(&[machine(0)], Value::Null)])).await;
    let events = framework.settle().await;
    stage.told("without offers", json!(events));
    framework.call("REVIVE", json!({})).await;
    heard(stage, &mut framework, "with offers", 1).await;
    offered(stage, &mut framework, "what it is offered").await;
    let agent = framework.offers.values().find(|offer| offer["hostname"] == "simulated-0").map(|offer| offer["agent_id"].clone());
    tell(stage, "drained", json!({ "type": "DRAIN_AGENT", "drain_agent": { "agent_id": agent } })).await;
    tell(stage, "deactivated", json!({ "type": "DEACTIVATE_AGENT", "deactivate_agent": { "agent_id": agent } })).await;
    heard(stage, &mut framework, "what it hears then", 2).await;
    tell(stage, "reactivated", json!({ "type": "REACTIVATE_AGENT", "reactivate_agent": { "agent_id": agent } })).await;
    heard(stage, &mut framework, "and then", 1).await;
    framework.teardown().await;
    tell(stage, "cancelled", schedule(&[])).await;
}

/// The last agent that is left.
pub async fn an_agent_that_is_taken_down(stage: &mut Stage) {
    let (mut framework, agent) = start(stage, info(), 1).await;
    let hostname = framework.offers.values().next().map(|offer| offer["hostname"].clone()).unwrap_or_default();
    let machine = [json!({ "hostname": hostname, "ip": "127.0.0.1" })];
    tell(stage, "scheduled", schedule(&[window(&machine, Value::Null)])).await;
    heard(stage, &mut framework, "what it hears", 2).await;
    stage.offers_stay(&mut framework, 1).await;
    tell(stage, "started", start_of(&machine)).await;
    let events = framework.events(4).await;
    stage.told("what it hears then", json!(events));
    tell_plan(stage, "down").await;
    let agents = stage.operate(json!({ "type": "GET_AGENTS" })).await.json();
    stage.told("agents", json!(agents["get_agents"]["agents"].as_array().map_or(0, Vec::len)));
    ask_about(stage, &mut framework, &agent, "down").await;
    tell(stage, "stopped", stop_of(&machine)).await;
    tell_plan(stage, "up").await;
    framework.teardown().await;
}
