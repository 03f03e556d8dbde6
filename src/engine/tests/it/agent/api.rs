//! The agent's HTTP side: the test plays an executor, an operator, and a web page that means no good.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use podium_proto::mesos::v1::TaskState;

use super::{
    rig::{Rig, state, task},
    wait::{PATIENCE, eventually_at},
};

/// An agent whose executors do nothing: the test subscribes in their place.
async fn idle_executor() -> (Rig, SocketAddr) {
    let mut rig = Rig::on(tempfile::tempdir().unwrap(), &["/bin/sleep", "1000"]).await;
    rig.launch("e", vec![task("t", "true")]).await;
    // Known from the moment that it is to be started: whatever else is refused has another reason.
    rig.settled().await;
    let address = rig.agent.as_ref().unwrap().address();
    (rig, address)
}

async fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Status and body of an answer that ends.
async fn answer(address: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let mut stream = send(address, &format!("{head}\r\nConnection: close"), body).await;
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAccept: application/json");
    answer(address, &head, &body.to_string()).await
}

fn call(kind: &str) -> Value {
    json!({ "executor_id": { "value": "e" }, "framework_id": { "value": "framework" }, "type": kind })
}

fn with(mut call: Value, name: &str, part: Value) -> Value {
    call[name] = part;
    call
}

/// An event stream, read record by record.
struct Events {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Events {
    async fn subscribe(address: SocketAddr) -> Events {
        let head = format!("POST /slave(1)/api/v1/executor HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json");
        let call = with(call("SUBSCRIBE"), "subscribe", json!({}));
        Events { stream: send(address, &head, &call.to_string()).await, buffer: Vec::new() }
    }

    /// One chunk holds one record: `<size>\r\n<length>\n<json>\r\n`.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if let Some(at) = text.find('{')
                && let Some(end) = text[at..].find("\r\n")
            {
                let event = serde_json::from_str(&text[at..at + end]).unwrap();
                self.buffer.drain(..at + end);
                return Some(event);
            }
            if text.ends_with("0\r\n\r\n") {
                return None;
            }
            let mut part = [0; 4096];
            match timeout(PATIENCE, self.stream.read(&mut part)).await.unwrap().unwrap_or(0) {
                0 => return None,
                read => self.buffer.extend_from_slice(&part[..read]),
            }
        }
    }

    async fn of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event["type"] == kind {
                return event;
            }
        }
    }
}

fn update(uuid: &str, state: &str, source: &str) -> Value {
    let status = json!({ "task_id": { "value": "t" }, "state": state, "source": source, "uuid": uuid });
    with(call("UPDATE"), "update", json!({ "status": status }))
}

/// Sixteen bytes of 'A', 'B' and so on.
const A: &str = "QUFBQUFBQUFBQUFBQUFBQQ==";
const B: &str = "QkJCQkJCQkJCQkJCQkJCQg==";

#[tokio::test]
async fn an_executor_in_json_is_given_its_group_and_has_its_updates_acknowledged() {
    let (mut rig, address) = idle_executor().await;
    let mut events = Events::subscribe(address).await;
    let subscribed = events.of("SUBSCRIBED").await;
    assert_eq!(subscribed["subscribed"]["executor_info"]["executor_id"], json!({ "value": "e" }));
    assert_eq!(subscribed["subscribed"]["agent_info"]["id"]["value"], json!(rig.agent_id.value));
    let group = events.of("LAUNCH_GROUP").await;
    assert_eq!(group["launch_group"]["task_group"]["tasks"][0]["task_id"]["value"], "t");
    assert_eq!(post(address, "/api/v1/executor", &update(A, "TASK_RUNNING", "SOURCE_EXECUTOR")).await.0, 202);
    assert_eq!(events.of("ACKNOWLEDGED").await["acknowledged"]["uuid"], A);
    assert_eq!(state(&rig.update().await), TaskState::TaskRunning);
    // Sent again, it is acknowledged again, and travels once.
    assert_eq!(post(address, "/api/v1/executor", &update(A, "TASK_RUNNING", "SOURCE_EXECUTOR")).await.0, 202);
    assert_eq!(events.of("ACKNOWLEDGED").await["acknowledged"]["uuid"], A);
    assert_eq!(post(address, "/api/v1/executor", &update(B, "TASK_FINISHED", "SOURCE_EXECUTOR")).await.0, 202);
    assert_eq!(state(&rig.update().await), TaskState::TaskFinished);
}

#[tokio::test]
async fn the_newest_subscription_wins() {
    let (_rig, address) = idle_executor().await;
    let mut first = Events::subscribe(address).await;
    first.of("SUBSCRIBED").await;
    let mut second = Events::subscribe(address).await;
    second.of("SUBSCRIBED").await;
    while first.next().await.is_some() {}
    assert_eq!(post(address, "/api/v1/executor", &update(A, "TASK_RUNNING", "SOURCE_EXECUTOR")).await.0, 202);
    second.of("ACKNOWLEDGED").await;
}

#[tokio::test]
async fn calls_against_the_rules_are_refused_with_mesos_statuses() {
    let (_rig, address) = idle_executor().await;
    let path = "/api/v1/executor";
    assert_eq!(post(address, path, &update(A, "TASK_RUNNING", "SOURCE_EXECUTOR")).await.0, 403, "not subscribed");
    let mut events = Events::subscribe(address).await;
    events.of("SUBSCRIBED").await;
    let stranger = with(call("UPDATE"), "executor_id", json!({ "value": "other" }));
    let foreign = with(call("UPDATE"), "framework_id", json!({ "value": "other" }));
    for (why, bad) in [
        ("a short uuid", update("QUFB", "TASK_RUNNING", "SOURCE_EXECUTOR")),
        ("a foreign source", update(A, "TASK_RUNNING", "SOURCE_AGENT")),
        ("staging", update(A, "TASK_STAGING", "SOURCE_EXECUTOR")),
        ("no update", call("UPDATE")),
        ("no subscribe", call("SUBSCRIBE")),
        ("no type", json!({ "executor_id": { "value": "e" }, "framework_id": { "value": "framework" } })),
        ("no ids", json!({ "type": "UPDATE" })),
        ("an unknown executor", stranger),
        ("an unknown framework", foreign),
    ] {
        assert_eq!(post(address, path, &bad).await.0, 400, "{why}");
    }
    let head = |more: &str| format!("POST {path} HTTP/1.1\r\nHost: {address}{more}");
    let subscribe = with(call("SUBSCRIBE"), "subscribe", json!({})).to_string();
    assert_eq!(answer(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}"), "").await.0, 405);
    assert_eq!(answer(address, &head(""), &subscribe).await.0, 400, "no content type");
    assert_eq!(answer(address, &head("\r\nContent-Type: application/json; charset=utf-8"), &subscribe).await.0, 415);
    assert_eq!(answer(address, &head("\r\nContent-Type: application/json\r\nAccept: text/html"), &subscribe).await.0, 406);
    assert_eq!(answer(address, &head("\r\nContent-Type: application/json"), "{").await.0, 400);
    assert_eq!(post(address, path, &with(call("MESSAGE"), "message", json!({ "data": A }))).await.0, 202);
}

#[tokio::test]
async fn an_operator_reads_the_health_the_state_and_the_files_of_sandboxes_only() {
    let mut rig = Rig::new().await;
    let address = rig.agent.as_ref().unwrap().address();
    rig.launch("e", vec![task("t", "echo hello; exec sleep 1000")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    let sandbox = rig.task_sandbox("e", "t");
    let output = sandbox.join("stdout");
    eventually_at(&output, "the output", || (std::fs::read_to_string(&output).unwrap() == "hello\n").then_some(())).await;

    let (status, body) = post(address, "/api/v1", &json!({ "type": "GET_HEALTH" })).await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()["get_health"]["healthy"].clone()), (200, json!(true)));
    let (_, body) = post(address, "/slave(1)/api/v1", &json!({ "type": "GET_STATE" })).await;
    let tasks = &serde_json::from_str::<Value>(&body).unwrap()["get_state"]["get_tasks"]["launched_tasks"];
    assert_eq!((&tasks[0]["task_id"]["value"], &tasks[0]["state"]), (&json!("t"), &json!("TASK_RUNNING")));
    assert_eq!(post(address, "/api/v1", &json!({ "type": "LAUNCH_CONTAINER" })).await.0, 501);

    let path = sandbox.join("stdout").to_str().unwrap().to_owned();
    let read = |path: &str| json!({ "type": "READ_FILE", "read_file": { "path": path, "offset": 1, "length": 3 } });
    let (status, body) = post(address, "/api/v1", &read(&path)).await;
    let file = serde_json::from_str::<Value>(&body).unwrap()["read_file"].clone();
    assert_eq!((status, file), (200, json!({ "size": 6, "data": "ZWxs" })));
    let list = |path: &str| json!({ "type": "LIST_FILES", "list_files": { "path": path } });
    let (_, body) = post(address, "/api/v1", &list("/frameworks/framework/executors/e/runs/latest")).await;
    assert!(body.contains("/frameworks/framework/executors/e/runs/latest/stdout"), "{body}");
    assert_eq!(post(address, "/api/v1", &read("/etc/passwd")).await.0, 404);
    let records = rig.folder.path().join("agent.redb");
    assert_eq!(post(address, "/api/v1", &read(records.to_str().unwrap())).await.0, 404);

    let get = |path: &str| answer_to_get(address, path.to_owned());
    assert_eq!(get(&format!("/files/read?path={path}&offset=0")).await, (200, json!({ "offset": 0, "data": "hello\n" })));
    assert_eq!(get(&format!("/slave(1)/files/read?path={path}&offset=-1")).await, (200, json!({ "offset": 6, "data": "" })));
    let (status, entries) = get(&format!("/files/browse?path={}", sandbox.display())).await;
    assert_eq!((status, entries.as_array().unwrap().len()), (200, 2), "stdout and stderr");
    assert_eq!(get("/files/read?path=/etc/passwd&offset=0").await.0, 404);
}

async fn answer_to_get(address: SocketAddr, path: String) -> (u16, Value) {
    let (status, body) = answer(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}"), "").await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_page_of_another_host_is_not_served() {
    let rig = Rig::new().await;
    let address = rig.agent.as_ref().unwrap().address();
    assert_eq!(answer(address, "GET /health HTTP/1.1\r\nHost: evil.example", "").await.0, 403);
    assert_eq!(answer(address, "GET /health HTTP/1.1\r\nHost: localhost:1", "").await.0, 200);
    assert_eq!(answer(address, "GET /nothing HTTP/1.1\r\nHost: localhost", "").await.0, 404);
}
