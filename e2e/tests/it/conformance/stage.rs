//! Where a scenario plays: one master, and what it said, in order.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use podium_e2e::process::signal_process;
use podium_engine::simulated::SimulationHandle;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::client::{Connection, Format, Headers, OPERATOR, PATIENCE, Reply, SCHEDULER, Stream, subscribe};
use super::plain::Names;

/// Headers of an answer that clients act upon.
const TOLD_HEADERS: [&str; 4] = ["content-type", "allow", "location", "www-authenticate"];

pub const ROLE: &str = "pods";

/// Cuts agents off, as if their machines had been lost.
#[derive(Debug)]
pub enum Saw {
    /// The process of the real master and its agents.
    Real(u32),
    /// The embedded engine's simulated agents, and how many of them are left.
    Embedded(SimulationHandle, usize),
}

impl Saw {
    /// The last agent that is still there. Nobody tells the master.
    async fn lose_last_agent(&mut self) {
        match self {
            Saw::Real(process) => signal_process(*process, Signal::USR1),
            Saw::Embedded(agents, left) => {
                *left -= 1;
                agents.lose(*left).await.unwrap();
            }
        }
    }
}

/// One master, and the transcript of what it said.
pub struct Stage {
    pub address: SocketAddr,
    pub format: Format,
    pub connection: Connection,
    pub names: Names,
    said: Vec<(String, Value)>,
    master: Option<Value>,
    pub saw: Option<Saw>,
}

impl Stage {
    pub async fn new(address: SocketAddr, format: Format) -> Self {
        let mut connection = Connection::new(address);
        let state = connection.get("/state").await.json();
        let names = Names::new(address, text(&state["hostname"]));
        Self { address, format, connection, names, said: Vec::new(), master: None, saw: None }
    }

    /// On this stage agents can be lost.
    pub fn with_saw(self, saw: Option<Saw>) -> Self {
        Self { saw, ..self }
    }

    pub async fn lose_last_agent(&mut self) {
        self.saw.as_mut().expect("a stage on which agents can be lost").lose_last_agent().await;
    }

    /// The master has been started again, and answers here.
    pub async fn move_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.connection = Connection::new(address);
        let state = self.connection.get("/state").await.json();
        self.names.master_is(address, text(&state["hostname"]));
        // Its id is another one, and this is no news.
        self.master = None;
    }

    pub fn into_transcript(self) -> Vec<(String, Value)> {
        self.said
    }

    /// Writes down what was said at this step.
    ///
    /// # Panics
    /// When it was told before: one would hide the other in the comparison.
    pub fn told(&mut self, step: impl Into<String>, what: Value) {
        let step = step.into();
        assert!(self.said.iter().all(|(known, _)| *known != step), "the step '{step}' is told twice");
        self.said.push((step, self.names.plain(what)));
    }

    pub fn told_reply(&mut self, step: impl Into<String>, reply: &Reply) {
        let mut told = json!({ "status": reply.status });
        for name in TOLD_HEADERS {
            if let Some(value) = reply.header(name) {
                told[name] = json!(value);
            }
        }
        let text = String::from_utf8_lossy(&reply.body);
        told["body"] = match serde_json::from_slice(&reply.body) {
            Ok(body) if reply.header("content-type") == Some("application/json") => body,
            _ => json!(text),
        };
        self.told(step, told);
    }

    pub async fn post(&mut self, step: &str, path: &str, headers: Headers<'_>, body: impl Into<Bytes>) -> Reply {
        let reply = self.connection.request(Method::POST, path, headers, body.into()).await;
        self.told_reply(step, &reply);
        reply
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        let reply = self.connection.get(path).await;
        self.told_reply(format!("GET {path}"), &reply);
        reply
    }

    /// An operator's call; its answer is not written down.
    pub async fn operate(&mut self, call: Value) -> Reply {
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        self.connection.request(Method::POST, OPERATOR, &headers, call.to_string().into()).await
    }

    /// A SUBSCRIBE with this framework, whatever comes of it: written down with its first two events.
    pub async fn try_subscribe(&mut self, step: &str, call: Value) -> Option<Framework> {
        let kind = self.format.content_type();
        let body = self.format.call(&call);
        self.try_subscribe_raw(step, &[("content-type", kind), ("accept", kind)], body).await
    }

    pub async fn try_subscribe_raw(&mut self, step: &str, headers: Headers<'_>, body: impl Into<Bytes>) -> Option<Framework> {
        let mut stream = match subscribe(self.address, headers, body.into()).await {
            Ok(stream) => stream,
            Err(reply) => {
                self.told_reply(step, &reply);
                return None;
            }
        };
        let stream_id = stream.headers.get("mesos-stream-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let mut first = soon(&mut stream).await;
        let (mut offers, mut early) = (BTreeMap::new(), VecDeque::new());
        let second = loop {
            let event = soon(&mut stream).await;
            // Both kinds of offers may come before the first heartbeat.
            match event["type"].as_str() {
                Some("OFFERS") => keep_offers(&mut offers, &event),
                Some("INVERSE_OFFERS") => early.push_back(event),
                _ => break event,
            }
        };
        self.shorten(&mut first);
        let id = first["subscribed"]["framework_id"]["value"].as_str().unwrap_or_default().to_owned();
        if !id.is_empty() {
            self.names.learn(&id, "<framework>");
        }
        let content_type = stream.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let events = [first, second];
        self.told(
            step,
            json!({ "status": 200, "content-type": content_type, "stream id": self.names.plain_text(&stream_id), "events": events }),
        );
        let calls = Connection::new(self.address);
        let framework = Framework { id, stream_id, stream, calls, format: self.format, offers, early, settled: 0 };
        (!framework.id.is_empty()).then_some(framework)
    }

    /// What every SUBSCRIBED says of the master is written down once in a scenario.
    fn shorten(&mut self, event: &mut Value) {
        let Some(subscribed) = event["subscribed"].as_object_mut() else { return };
        let said = subscribed.remove("master_info");
        if self.master.is_none() {
            self.master = said.clone();
            subscribed.extend(said.map(|said| ("master_info".to_owned(), said)));
        } else if said != self.master {
            subscribed.insert("master_info".to_owned(), json!("another"));
        }
    }

    /// A framework that is subscribed.
    pub async fn subscribe(&mut self, info: Value) -> Framework {
        let mut call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info } });
        if let Some(id) = call["subscribe"]["framework_info"].get("id").cloned() {
            call["framework_id"] = id;
        }
        self.subscribe_by(call).await
    }

    pub async fn subscribe_by(&mut self, call: Value) -> Framework {
        let framework = self.try_subscribe("a subscription", call).await.expect("a subscription");
        // Said by every scenario: enough to have it in one.
        self.said.retain(|(step, _)| step != "a subscription");
        framework
    }

    /// Waits until so many offers are there, and names their agents.
    pub async fn offers(&mut self, framework: &mut Framework, count: usize) -> Vec<Value> {
        let awaited = async {
            while framework.offers.len() < count {
                framework.event().await.expect("an offer before the stream ends");
            }
        };
        if tokio::time::timeout(PATIENCE, awaited).await.is_err() {
            panic!("not {count} offers in time, but {}", framework.offers.len());
        }
        let mut offers: Vec<Value> = std::mem::take(&mut framework.offers).into_values().collect();
        // Agents' ids are given out in the order in which they happen to register.
        offers.sort_by_key(|offer| offer["hostname"].as_str().map(str::to_owned));
        for (number, offer) in offers.iter().enumerate() {
            self.names.learn(text(&offer["agent_id"]["value"]), &format!("<agent {}>", number + 1));
            let address = &offer["url"]["address"];
            let port = address["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
            self.names.learn(&format!("{}:{port}", text(&address["ip"])), "<agent's address>");
            self.names.learn_port(port);
        }
        offers
    }
}

impl Stage {
    /// Waits until so many offers are outstanding, and leaves them so.
    pub async fn offers_stay(&mut self, framework: &mut Framework, count: usize) {
        let all = self.offers(framework, count).await;
        framework.offers = all.into_iter().map(|offer| (text(&offer["id"]["value"]).to_owned(), offer)).collect();
    }
}

/// The next event of a subscription that has just begun.
async fn soon(stream: &mut Stream) -> Value {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event in time").unwrap_or_else(|| json!("the end"))
}

fn keep_offers(offers: &mut BTreeMap<String, Value>, event: &Value) {
    for offer in event["offers"]["offers"].as_array().into_iter().flatten() {
        offers.insert(text(&offer["id"]["value"]).to_owned(), offer.clone());
    }
}

/// A subscribed framework.
pub struct Framework {
    pub id: String,
    pub stream_id: String,
    format: Format,
    stream: Stream,
    calls: Connection,
    /// Outstanding, by id.
    pub offers: BTreeMap<String, Value>,
    /// What came before the first heartbeat.
    early: VecDeque<Value>,
    settled: u32,
}

impl Framework {
    /// The next event but heartbeats and offers; these are kept, and rescinded ones forgotten.
    async fn event(&mut self) -> Option<Value> {
        let event = match self.early.pop_front() {
            Some(event) => event,
            None => self.stream.next().await?,
        };
        keep_offers(&mut self.offers, &event);
        if let Some(rescinded) = event["rescind"]["offer_id"]["value"].as_str() {
            self.offers.remove(rescinded);
        }
        Some(event)
    }

    async fn worth_telling(&mut self) -> Option<Value> {
        let awaited = async {
            loop {
                let event = self.event().await?;
                if !matches!(event["type"].as_str(), Some("HEARTBEAT" | "OFFERS")) {
                    return Some(event);
                }
            }
        };
        tokio::time::timeout(PATIENCE, awaited).await.expect("something worth telling in time")
    }

    /// So many events, heartbeats and offers not counted.
    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let Some(event) = self.worth_telling().await else {
                events.push(json!("the end"));
                return events;
            };
            events.push(event);
        }
        events
    }

    /// The statuses of the next updates, other events dropped.
    pub async fn updates(&mut self, count: usize) -> Vec<Value> {
        let mut statuses = Vec::new();
        while statuses.len() < count {
            let mut event = self.worth_telling().await.expect("an update before the stream ends");
            if event["type"] == "UPDATE" {
                statuses.push(event["update"]["status"].take());
            }
        }
        statuses
    }

    /// Acknowledges each update of this task until it has this state, and returns that one.
    pub async fn reach(&mut self, task: &str, state: &str) -> Value {
        loop {
            let status = self.updates(1).await.remove(0);
            self.acknowledge(&status).await;
            if status["task_id"]["value"] == task && status["state"] == state {
                return status;
            }
        }
    }

    pub async fn acknowledge(&mut self, status: &Value) {
        if !status["uuid"].is_null() {
            let acknowledge = json!({ "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"] });
            self.call("ACKNOWLEDGE", json!({ "acknowledge": acknowledge })).await;
        }
    }

    /// Everything that came until now, heartbeats and offers left out: until the answer to a question asked last.
    pub async fn settle(&mut self) -> Vec<Value> {
        self.settled += 1;
        let mark = format!("mark-{}", self.settled);
        self.call("RECONCILE", json!({ "reconcile": { "tasks": [{ "task_id": { "value": mark } }] } })).await;
        let mut events = Vec::new();
        loop {
            let event = self.worth_telling().await.expect("an answer before the stream ends");
            if event["update"]["status"]["task_id"]["value"] == mark.as_str() {
                return events;
            }
            events.push(event);
        }
    }

    /// Everything until the master ends the stream.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.worth_telling().await {
            events.push(event);
        }
        events
    }

    /// Sends a call of this framework.
    pub async fn send(&mut self, kind: &str, rest: Value) -> Reply {
        let stream_id = self.stream_id.clone();
        self.send_as(Some(&stream_id), kind, rest).await
    }

    pub async fn send_as(&mut self, stream_id: Option<&str>, kind: &str, rest: Value) -> Reply {
        let mut call = json!({ "framework_id": { "value": self.id }, "type": kind });
        for (key, value) in rest.as_object().into_iter().flatten() {
            call[key] = value.clone();
        }
        let content_type = self.format.content_type();
        let mut headers = vec![("content-type", content_type), ("accept", content_type)];
        headers.extend(stream_id.map(|id| ("mesos-stream-id", id)));
        self.calls.request(Method::POST, SCHEDULER, &headers, self.format.call(&call)).await
    }

    /// Sends a call that must be taken.
    pub async fn call(&mut self, kind: &str, rest: Value) {
        let reply = self.send(kind, rest).await;
        assert!(reply.status == 202 && reply.body.is_empty(), "{kind}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
    }

    /// ACCEPT of these offers; what is left over is not filtered.
    pub async fn accept(&mut self, offers: &[&Value], operations: Vec<Value>) {
        let ids: Vec<&Value> = offers.iter().map(|offer| &offer["id"]).collect();
        self.call("ACCEPT", json!({ "accept": { "offer_ids": ids, "operations": operations, "filters": { "refuse_seconds": 0.0 } } }))
            .await;
    }

    pub async fn decline(&mut self, offers: &[Value], refuse_seconds: f64) {
        let ids: Vec<&Value> = offers.iter().map(|offer| &offer["id"]).collect();
        self.call("DECLINE", json!({ "decline": { "offer_ids": ids, "filters": { "refuse_seconds": refuse_seconds } } })).await;
    }

    /// Ends the framework and waits until its stream has ended.
    pub async fn teardown(&mut self) -> Vec<Value> {
        self.call("TEARDOWN", json!({})).await;
        self.rest().await
    }
}

/// A text that must be one.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}

/// The FrameworkInfo of a framework like ours.
pub fn info() -> Value {
    info_with(&["MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE", "RESERVATION_REFINEMENT"])
}

pub fn info_with(capabilities: &[&str]) -> Value {
    let capabilities: Vec<Value> = capabilities.iter().map(|kind| json!({ "type": kind })).collect();
    json!({ "user": "root", "name": "conformance", "roles": [ROLE], "checkpoint": true, "capabilities": capabilities })
}

/// `value` with fields put in or, where null, taken out.
pub fn with(mut value: Value, changes: Value) -> Value {
    for (key, change) in changes.as_object().into_iter().flatten() {
        if change.is_null() {
            value.as_object_mut().unwrap().remove(key);
        } else {
            value[key] = change.clone();
        }
    }
    value
}

pub fn scalar(name: &str, value: f64) -> Value {
    json!({ "name": name, "type": "SCALAR", "scalar": { "value": value } })
}

pub fn ports(begin: u64, end: u64) -> Value {
    json!({ "name": "ports", "type": "RANGES", "ranges": { "range": [{ "begin": begin, "end": end }] } })
}

/// A task of a tenth of a core.
pub fn task(id: &str, offer: &Value) -> Value {
    json!({
        "name": id,
        "task_id": { "value": id },
        "agent_id": offer["agent_id"],
        "command": { "value": "sleep 1000" },
        "resources": [scalar("cpus", 0.1), scalar("mem", 32.0)],
    })
}

pub fn executor(id: &str, framework: &str) -> Value {
    json!({
        "type": "DEFAULT",
        "executor_id": { "value": id },
        "framework_id": { "value": framework },
        "resources": [scalar("cpus", 0.1), scalar("mem", 32.0), scalar("disk", 10.0)],
    })
}

pub fn launch_group(executor: Value, tasks: Vec<Value>) -> Value {
    json!({ "type": "LAUNCH_GROUP", "launch_group": { "executor": executor, "task_group": { "tasks": tasks } } })
}

pub fn launch(tasks: Vec<Value>) -> Value {
    json!({ "type": "LAUNCH", "launch": { "task_infos": tasks } })
}
