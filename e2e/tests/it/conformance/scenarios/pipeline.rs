//! What becomes of a request before a framework is asked: table 1.2 of the Mesos API.

use http::Method;
use serde_json::{Value, json};

use super::super::client::SCHEDULER;
use super::super::stage::{Stage, info, with};

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

fn subscribe_call() -> String {
    json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info() } }).to_string()
}

pub async fn methods_and_paths(stage: &mut Stage) {
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for path in [SCHEDULER, "/api/v1"] {
            let reply = stage.connection.request(method.clone(), path, &[JSON], "{}".into()).await;
            stage.told_reply(format!("{method} {path}"), &reply);
        }
    }
    for path in
        ["/master/api/v1/scheduler", "/api/v1/scheduler/", "/api/v1/scheduler/more", "/api/v1/operator", "/master/api/v1", "/api/v1/"]
    {
        stage.post(&format!("POST {path}"), path, &[JSON], "{}").await;
    }
    for path in ["/nothing", "/api", "/api/v2", "/master/nothing", "/slave(9)/state", "/api/v1/executor"] {
        stage.post(&format!("POST {path}"), path, &[JSON], "{}").await;
    }
    for path in
        ["/health", "/version", "/state", "/slaves", "/frameworks", "/tasks", "/roles", "/state-summary", "/metrics/snapshot", "/redirect"]
    {
        let reply = stage.connection.request(Method::POST, path, &[], "".into()).await;
        stage.told(format!("POST {path}"), json!([reply.status, reply.header("content-type")]));
    }
    let reply = stage.connection.get("/teardown").await;
    stage.told_reply("GET /teardown", &reply);
    for path in ["/health", "/master/health", "/health/", "/redirect", "/master/redirect", "/nothing", "/master/nothing"] {
        stage.get(path).await;
    }
}

pub async fn content_types(stage: &mut Stage) {
    let body = subscribe_call();
    stage.post("no content type", SCHEDULER, &[], body.clone()).await;
    let others = ["text/plain", "application/json; charset=utf-8", "Application/JSON", "application/protobuf", "application/recordio"];
    for kind in others {
        stage.post(&format!("'{kind}'"), SCHEDULER, &[("content-type", kind)], body.clone()).await;
    }
    stage.post("a broken body of an unknown type", SCHEDULER, &[("content-type", "text/plain")], "{").await;
    stage.post("a broken body without a type", SCHEDULER, &[], "{").await;
}

pub async fn bodies(stage: &mut Stage) {
    let bad = [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"SUBSCRIBE\"",
        "{}",
        "{}x",
        r#"{"type":null}"#,
        r#"{"type":"NONSENSE"}"#,
        r#"{"type":1}"#,
        r#"{"type":"UNKNOWN"}"#,
        r#"{"type":"SUBSCRIBE"}"#,
        r#"{"type":"SUBSCRIBE","subscribe":{}}"#,
        r#"{"type":"SUBSCRIBE","subscribe":[]}"#,
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{}}}"#,
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"name":"x"}}}"#,
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":7,"name":"x"}}}"#,
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"x","checkpoint":"yes"}}}"#,
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"x","failover_timeout":"soon"}}}"#,
        r#"{"type":"SUBSCRIBE","framework_id":"f","subscribe":{"framework_info":{"user":"u","name":"x"}}}"#,
    ];
    for body in bad {
        stage.post(&format!("JSON {body}"), SCHEDULER, &[JSON], body).await;
    }
    for (name, body) in [
        ("nothing", &b""[..]),
        ("no message", b"\xff\xff\xff"),
        ("text", b"{}"),
        ("type alone", b"\x10\x01"),
        ("an unknown type", b"\x10\x63"),
    ] {
        stage.post(&format!("protobuf of {name}"), SCHEDULER, &[PROTOBUF], body).await;
    }
}

pub async fn accepted_types(stage: &mut Stage) {
    let accepts: [Option<&str>; 9] = [
        None,
        Some("*/*"),
        Some("application/*"),
        Some("application/json"),
        Some("application/x-protobuf"),
        Some("application/x-protobuf, application/json;q=0.1"),
        Some("application/json;q=0, application/x-protobuf"),
        Some("text/html"),
        Some("application/recordio"),
    ];
    for accept in accepts {
        let mut headers = vec![JSON];
        headers.extend(accept.map(|accept| ("accept", accept)));
        let step = format!("Accept: {}", accept.unwrap_or("nothing"));
        if let Some(mut framework) = stage.try_subscribe_raw(&step, &headers, subscribe_call()).await {
            framework.teardown().await;
        }
    }
    // Calls that are answered without a body accept anything.
    stage.post("a call that accepts text alone", SCHEDULER, &[JSON, ("accept", "text/html")], r#"{"type":"TEARDOWN"}"#).await;
}

const CALLS: [&str; 16] = [
    "TEARDOWN",
    "ACCEPT",
    "DECLINE",
    "ACCEPT_INVERSE_OFFERS",
    "DECLINE_INVERSE_OFFERS",
    "REVIVE",
    "SUPPRESS",
    "KILL",
    "SHUTDOWN",
    "ACKNOWLEDGE",
    "ACKNOWLEDGE_OPERATION_STATUS",
    "RECONCILE",
    "RECONCILE_OPERATIONS",
    "MESSAGE",
    "REQUEST",
    "UPDATE_FRAMEWORK",
];

pub async fn parts_of_calls(stage: &mut Stage) {
    for kind in CALLS {
        let call = json!({ "type": kind, "framework_id": { "value": "nobody" } });
        stage.post(&format!("{kind} without its part"), SCHEDULER, &[JSON], call.to_string()).await;
    }
    let parts = [
        ("ACCEPT", json!({ "accept": {} })),
        ("KILL", json!({ "kill": {} })),
        ("ACKNOWLEDGE", json!({ "acknowledge": { "agent_id": { "value": "a" }, "task_id": { "value": "t" } } })),
        ("ACKNOWLEDGE", json!({ "acknowledge": { "agent_id": { "value": "a" }, "task_id": { "value": "t" }, "uuid": "" } })),
        ("ACKNOWLEDGE", json!({ "acknowledge": { "agent_id": { "value": "a" }, "task_id": { "value": "t" }, "uuid": "AAAA" } })),
        ("ACKNOWLEDGE", json!({ "acknowledge": { "agent_id": { "value": "a" }, "task_id": { "value": "t" }, "uuid": "no base64!" } })),
        ("ACKNOWLEDGE_OPERATION_STATUS", json!({ "acknowledge_operation_status": { "uuid": "AAAA", "operation_id": { "value": "o" } } })),
        ("SHUTDOWN", json!({ "shutdown": { "executor_id": { "value": "e" } } })),
        ("MESSAGE", json!({ "message": { "agent_id": { "value": "a" }, "executor_id": { "value": "e" } } })),
        ("UPDATE_FRAMEWORK", json!({ "update_framework": { "framework_info": info() } })),
        ("RECONCILE", json!({ "reconcile": { "tasks": [{}] } })),
    ];
    for (number, (kind, part)) in parts.into_iter().enumerate() {
        let call = with(with(json!({ "type": kind, "framework_id": { "value": "nobody" } }), part), json!({}));
        stage.post(&format!("part {number} of {kind}"), SCHEDULER, &[JSON], call.to_string()).await;
    }
}

fn part_of(kind: &str) -> Value {
    match kind {
        "ACCEPT" => json!({ "accept": { "offer_ids": [] } }),
        "DECLINE" => json!({ "decline": {} }),
        "ACCEPT_INVERSE_OFFERS" => json!({ "accept_inverse_offers": {} }),
        "DECLINE_INVERSE_OFFERS" => json!({ "decline_inverse_offers": {} }),
        "KILL" => json!({ "kill": { "task_id": { "value": "t" } } }),
        "SHUTDOWN" => json!({ "shutdown": { "executor_id": { "value": "e" }, "agent_id": { "value": "a" } } }),
        "ACKNOWLEDGE" => {
            json!({ "acknowledge": { "agent_id": { "value": "a" }, "task_id": { "value": "t" }, "uuid": "q83vEjRWSJCrze8SNFZ4kA==" } })
        }
        "RECONCILE" => json!({ "reconcile": {} }),
        "RECONCILE_OPERATIONS" => json!({ "reconcile_operations": {} }),
        "ACKNOWLEDGE_OPERATION_STATUS" => {
            json!({ "acknowledge_operation_status": { "agent_id": { "value": "a" }, "uuid": "q83vEjRWSJCrze8SNFZ4kA==", "operation_id": { "value": "o" } } })
        }
        "MESSAGE" => json!({ "message": { "agent_id": { "value": "a" }, "executor_id": { "value": "e" }, "data": "" } }),
        "REQUEST" => json!({ "request": {} }),
        "UPDATE_FRAMEWORK" => json!({ "update_framework": { "framework_info": with(info(), json!({ "id": { "value": "nobody" } })) } }),
        _ => json!({}),
    }
}

pub async fn framework_ids_of_calls(stage: &mut Stage) {
    for kind in CALLS {
        let call = with(part_of(kind), json!({ "type": kind }));
        stage.post(&format!("{kind} of no framework"), SCHEDULER, &[JSON], call.to_string()).await;
        let call = with(call, json!({ "framework_id": { "value": "nobody" } }));
        stage.post(&format!("{kind} of an unknown framework"), SCHEDULER, &[JSON, ("mesos-stream-id", "s")], call.to_string()).await;
    }
    let empty = json!({ "type": "TEARDOWN", "framework_id": { "value": "" } });
    stage.post("an empty id", SCHEDULER, &[JSON], empty.to_string()).await;
}

pub async fn stream_ids(stage: &mut Stage) {
    stage.post("SUBSCRIBE with a stream id", SCHEDULER, &[JSON, ("mesos-stream-id", "s")], subscribe_call()).await;
    let mut framework = stage.subscribe(with(info(), json!({ "roles": [] }))).await;
    for kind in ["REVIVE", "KILL", "UPDATE_FRAMEWORK", "RECONCILE_OPERATIONS"] {
        let mut part = part_of(kind);
        if kind == "UPDATE_FRAMEWORK" {
            part["update_framework"]["framework_info"]["id"]["value"] = json!(framework.id);
        }
        let reply = framework.send_as(None, kind, part.clone()).await;
        stage.told_reply(format!("{kind} without a stream id"), &reply);
        let reply = framework.send_as(Some("another"), kind, part).await;
        stage.told_reply(format!("{kind} with another stream id"), &reply);
    }
    let reply = framework
        .send("SUBSCRIBE", json!({ "subscribe": { "framework_info": with(info(), json!({ "id": { "value": framework.id } })) } }))
        .await;
    stage.told_reply("SUBSCRIBE with the right stream id", &reply);
    for kind in CALLS.into_iter().filter(|kind| !matches!(*kind, "TEARDOWN" | "UPDATE_FRAMEWORK")) {
        let reply = framework.send(kind, part_of(kind)).await;
        stage.told_reply(format!("{kind} with the right stream id"), &reply);
    }
    // Not among them: a call of type UNKNOWN, which crashes a real master.
    let events = framework.settle().await;
    stage.told("what came of them", json!(events));
    let end = framework.teardown().await;
    stage.told("the end", json!(end));
    let reply = framework.send("REVIVE", json!({})).await;
    stage.told_reply("REVIVE after TEARDOWN", &reply);
}

pub async fn a_framework_that_is_away(stage: &mut Stage) {
    let framework = stage.subscribe(with(info(), json!({ "roles": [], "failover_timeout": 600.0 }))).await;
    let (id, stream_id) = (framework.id.clone(), framework.stream_id.clone());
    drop(framework);
    let path = format!("/frameworks?framework_id={id}");
    while stage.connection.get(&path).await.json()["frameworks"][0]["connected"] != json!(false) {
        tokio::task::yield_now().await;
    }
    for (step, headers) in [("the old stream id", vec![JSON, ("mesos-stream-id", stream_id.as_str())]), ("no stream id", vec![JSON])] {
        let call = json!({ "type": "REVIVE", "framework_id": { "value": id } });
        stage.post(step, SCHEDULER, &headers, call.to_string()).await;
    }
    let mut back = stage.subscribe(with(info(), json!({ "id": { "value": id }, "roles": [] }))).await;
    let end = back.teardown().await;
    stage.told("the end", json!(end));
}
