//! What operators and their tools ask: the v1 operator API, and the GET endpoints that real clients use.

use serde_json::{Value, json};

use super::super::client::OPERATOR;
use super::super::stage::{Stage, info, with};

const JSON: (&str, &str) = ("content-type", "application/json");
const ACCEPT: (&str, &str) = ("accept", "application/json");

pub async fn forms(stage: &mut Stage) {
    let health = r#"{"type":"GET_HEALTH"}"#;
    stage.post("no content type", OPERATOR, &[], health).await;
    stage.post("another content type", OPERATOR, &[("content-type", "text/plain")], health).await;
    stage.post("no accept", OPERATOR, &[JSON], health).await;
    stage.post("accepts text alone", OPERATOR, &[JSON, ("accept", "text/html")], health).await;
    stage.post("accepts protobuf", OPERATOR, &[JSON, ("accept", "application/x-protobuf")], health).await;
    stage.post("in protobuf", OPERATOR, &[("content-type", "application/x-protobuf"), ACCEPT], &b"\x08\x01"[..]).await;
    for body in [
        "",
        "{",
        "{}",
        r#"{"type":"NONSENSE"}"#,
        r#"{"type":"UNKNOWN"}"#,
        r#"{"type":"TEARDOWN"}"#,
        r#"{"type":"MARK_AGENT_GONE"}"#,
        r#"{"type":"READ_FILE"}"#,
        r#"{"type":"LIST_FILES"}"#,
        r#"{"type":"DRAIN_AGENT"}"#,
        r#"{"type":"DEACTIVATE_AGENT"}"#,
        r#"{"type":"REACTIVATE_AGENT"}"#,
        r#"{"type":"GET_METRICS"}"#,
    ] {
        stage.post(&format!("body {body}"), OPERATOR, &[JSON, ACCEPT], body).await;
    }
}

/// Of all that is listed, this framework's.
fn own(list: &Value, id: &str) -> Value {
    let of = |entry: &&Value| entry["id"] == id || entry["framework_info"]["id"]["value"] == id;
    list.as_array().into_iter().flatten().find(of).cloned().unwrap_or(Value::Null)
}

/// In the order of their agents.
fn sort_offers(stage: &Stage, framework: &mut Value) {
    if let Some(offers) = framework["offers"].as_array_mut() {
        offers.sort_by_key(|offer| stage.names.plain(offer["slave_id"].clone()).to_string());
    }
}

pub async fn queries(stage: &mut Stage) {
    for kind in
        ["GET_HEALTH", "GET_MASTER", "GET_MAINTENANCE_STATUS", "GET_MAINTENANCE_SCHEDULE", "GET_WEIGHTS", "GET_QUOTA", "GET_OPERATIONS"]
    {
        let reply = stage.operate(json!({ "type": kind })).await;
        stage.told_reply(kind, &reply);
    }
    let version = stage.operate(json!({ "type": "GET_VERSION" })).await.json();
    // When and by whom it was built is told by `/version`.
    stage.told("GET_VERSION", version["get_version"]["version_info"]["version"].clone());
    let mut framework = stage
        .subscribe(with(
            info(),
            json!({ "failover_timeout": 600.0, "hostname": "here", "webui_url": "http://here", "principal": "somebody" }),
        ))
        .await;
    let offers = stage.offers(&mut framework, 2).await;
    let mut agents = stage.operate(json!({ "type": "GET_AGENTS" })).await.json();
    let agent = |agents: &Value| {
        agents["get_agents"]["agents"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|agent| agent["agent_info"]["id"] == offers[0]["agent_id"])
            .cloned()
    };
    let first = agent(&agents);
    agents["get_agents"].as_object_mut().unwrap().retain(|list, _| list == "recovered_agents");
    stage.told("GET_AGENTS", json!([first, agents]));
    let frameworks = stage.operate(json!({ "type": "GET_FRAMEWORKS" })).await.json();
    let mut ours = own(&frameworks["get_frameworks"]["frameworks"], &framework.id);
    if let Some(offers) = ours["offers"].as_array_mut() {
        offers.sort_by_key(|offer| offer["hostname"].to_string());
    }
    stage.told("GET_FRAMEWORKS", ours);
    for kind in ["GET_TASKS", "GET_EXECUTORS"] {
        let answer = stage.operate(json!({ "type": kind })).await.json();
        stage.told(kind, json!([answer["type"]]));
    }
    framework.teardown().await;
}

pub async fn state(stage: &mut Stage) {
    stage.get("/version").await;
    stage.get("/health").await;
    let mut framework = stage
        .subscribe(with(
            info(),
            json!({ "failover_timeout": 600.0, "hostname": "here", "webui_url": "http://here", "principal": "somebody" }),
        ))
        .await;
    let offers = stage.offers(&mut framework, 2).await;
    let slave = |list: &Value| list.as_array().into_iter().flatten().find(|slave| slave["id"] == offers[0]["agent_id"]["value"]).cloned();
    let mut slaves = stage.connection.get("/slaves").await.json();
    let first = slave(&slaves["slaves"]);
    slaves.as_object_mut().unwrap().remove("slaves");
    stage.told("/slaves", json!([first, slaves]));
    for path in [
        "/slaves?slave_id=nothing",
        "/frameworks?framework_id=nothing",
        "/tasks?framework_id=nothing",
        "/tasks?task_id=nothing&limit=1&offset=1&order=asc",
    ] {
        stage.get(path).await;
    }
    let mut frameworks = stage.connection.get(&format!("/frameworks?framework_id={}", framework.id)).await.json();
    sort_offers(stage, &mut frameworks["frameworks"][0]);
    stage.told("/frameworks", frameworks);
    let state = stage.connection.get("/master/state").await.json();
    let mut rest = state.clone();
    for part in ["slaves", "frameworks", "completed_frameworks", "flags"] {
        rest.as_object_mut().unwrap().remove(part);
    }
    let mut ours = own(&state["frameworks"], &framework.id);
    sort_offers(stage, &mut ours);
    let mut theirs = slave(&state["slaves"]);
    // Told by `/slaves` and `/version`.
    theirs.iter_mut().for_each(|slave| drop(slave.as_object_mut().unwrap().remove("capabilities")));
    rest.as_object_mut().unwrap().retain(|key, _| !key.starts_with("build_") && !key.starts_with("git_"));
    stage.told("/state", json!([ours, theirs, rest]));
    let summary = stage.connection.get("/state-summary").await.json();
    let mut theirs = slave(&summary["slaves"]);
    theirs.iter_mut().for_each(|slave| drop(slave.as_object_mut().unwrap().remove("capabilities")));
    stage.told("/state-summary", json!([own(&summary["frameworks"], &framework.id), theirs, summary["cluster"]]));
    let plain: Vec<String> = ["/state.json", "/master/slaves", "/master/tasks", "/tasks.json", "/flags", "/metrics/snapshot", "/roles"]
        .map(str::to_owned)
        .into();
    for path in plain {
        let reply = stage.connection.get(&path).await;
        stage.told(format!("GET {path}"), json!([reply.status, reply.header("content-type")]));
    }
    let completed = framework.teardown().await;
    stage.told("the end", json!(completed));
    let frameworks = stage.connection.get(&format!("/frameworks?framework_id={}", framework.id)).await.json();
    stage.told("/frameworks once it has ended", frameworks);
}

pub async fn roles(stage: &mut Stage) {
    let mut framework = stage.subscribe(with(info(), json!({ "roles": ["conformance", "conformance/a"] }))).await;
    stage.offers(&mut framework, 2).await;
    let answer = stage.operate(json!({ "type": "GET_ROLES" })).await.json();
    let named = |list: &Value| -> Vec<Value> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter(|role| role["name"].as_str().is_some_and(|name| name.starts_with("conformance")))
            .cloned()
            .collect()
    };
    stage.told("GET_ROLES", json!(named(&answer["get_roles"]["roles"])));
    let answer = stage.connection.get("/roles").await.json();
    stage.told("/roles", json!(named(&answer["roles"])));
    framework.teardown().await;
}

pub async fn teardown(stage: &mut Stage) {
    for (step, call) in [
        ("an unknown framework", json!({ "type": "TEARDOWN", "teardown": { "framework_id": { "value": "nobody" } } })),
        ("no id", json!({ "type": "TEARDOWN", "teardown": {} })),
    ] {
        let reply = stage.operate(call).await;
        stage.told_reply(step, &reply);
    }
    let mut framework = stage.subscribe(with(info(), json!({ "roles": [] }))).await;
    let call = json!({ "type": "TEARDOWN", "teardown": { "framework_id": { "value": framework.id } } });
    let reply = stage.operate(call.clone()).await;
    stage.told_reply("ours", &reply);
    let end = framework.rest().await;
    stage.told("what it hears", json!(end));
    let reply = stage.operate(call).await;
    stage.told_reply("once more", &reply);
    for (step, body) in [("by /teardown, an unknown framework", "frameworkId=nobody".to_owned()), ("by /teardown, no id", String::new())] {
        stage.post(step, "/teardown", &[("content-type", "application/x-www-form-urlencoded")], body).await;
    }
    let mut framework = stage.subscribe(with(info(), json!({ "roles": [] }))).await;
    stage
        .post(
            "by /master/teardown",
            "/master/teardown",
            &[("content-type", "application/x-www-form-urlencoded")],
            format!("frameworkId={}", framework.id),
        )
        .await;
    let end = framework.rest().await;
    stage.told("what it hears then", json!(end));
}

pub async fn agents_marked_gone(stage: &mut Stage) {
    for (step, call) in [
        ("an unknown agent", json!({ "type": "MARK_AGENT_GONE", "mark_agent_gone": { "agent_id": { "value": "nobody" } } })),
        ("no id", json!({ "type": "MARK_AGENT_GONE", "mark_agent_gone": {} })),
        ("an unknown agent drained", json!({ "type": "DRAIN_AGENT", "drain_agent": { "agent_id": { "value": "nobody" } } })),
        ("an unknown agent deactivated", json!({ "type": "DEACTIVATE_AGENT", "deactivate_agent": { "agent_id": { "value": "nobody" } } })),
        ("an unknown agent reactivated", json!({ "type": "REACTIVATE_AGENT", "reactivate_agent": { "agent_id": { "value": "nobody" } } })),
    ] {
        let reply = stage.operate(call).await;
        stage.told_reply(step, &reply);
    }
}
