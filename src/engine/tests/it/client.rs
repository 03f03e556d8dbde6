//! A small framework over real HTTP, as strict as one that a user would write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use podium_proto::mesos::v1::framework_info::{Capability, capability};
use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::scheduler::{Call, Event, call, event};
use podium_proto::mesos::v1::{
    AgentId, CommandInfo, ExecutorId, ExecutorInfo, Filters, FrameworkId, FrameworkInfo, Label, Labels, Offer, OfferId, TaskGroupInfo,
    TaskId, TaskInfo, TaskState, TaskStatus, executor_info,
};
use podium_proto::wire::resources::scalar_entry;
use podium_proto::wire::{json, recordio};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const ROLE: &str = "pods";

/// Either content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Protobuf,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Json => "application/json",
            Kind::Protobuf => "application/x-protobuf",
        }
    }

    pub fn write(self, call: &Call) -> Bytes {
        match self {
            Kind::Json => json::to_text(call).unwrap().into(),
            Kind::Protobuf => call.encode_to_vec().into(),
        }
    }

    fn read(self, record: &[u8]) -> Event {
        match self {
            Kind::Json => json::from_slice(record).unwrap(),
            Kind::Protobuf => Event::decode(record).unwrap(),
        }
    }
}

async fn connect(address: SocketAddr) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        // The answer's reader sees what goes wrong.
        let _ = connection.await;
    });
    sender
}

/// Sends one request on its own connection, which lives as long as the answer's body is read.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
    let mut sender = connect(address).await;
    tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
}

pub fn post(address: SocketAddr, path: &str, content_type: Option<&str>, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(Method::POST).uri(path).header(header::HOST, address.to_string());
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

pub async fn text_of(response: http::Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

pub async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let request =
        Request::builder().method(Method::GET).uri(path).header(header::HOST, address.to_string()).body(Full::new(Bytes::new())).unwrap();
    text_of(send(address, request).await).await
}

/// The FrameworkInfo of a long-lived framework.
pub fn info(name: &str, extra: &[capability::Type]) -> FrameworkInfo {
    let base = [
        capability::Type::MultiRole,
        capability::Type::PartitionAware,
        capability::Type::TaskKillingState,
        capability::Type::ReservationRefinement,
    ];
    FrameworkInfo {
        user: "somebody".to_owned(),
        name: name.to_owned(),
        roles: vec![ROLE.to_owned()],
        checkpoint: Some(true),
        failover_timeout: Some(3600.0),
        capabilities: base.iter().chain(extra).map(|kind| Capability { r#type: Some((*kind).into()) }).collect(),
        ..FrameworkInfo::default()
    }
}

/// As [`info`], for a framework with this id.
pub fn info_with_id(id: &str) -> FrameworkInfo {
    FrameworkInfo { id: Some(FrameworkId { value: id.to_owned() }), ..info("test", &[]) }
}

type Events = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Bytes, recordio::Error>> + Send>>;

/// The connection that all calls share, so that they are handled in their order.
#[derive(Default)]
struct Calls {
    connection: tokio::sync::Mutex<Option<hyper::client::conn::http1::SendRequest<Full<Bytes>>>>,
}

impl Calls {
    async fn send(&self, address: SocketAddr, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        let mut connection = self.connection.lock().await;
        let mut sender = match connection.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => connect(address).await,
        };
        sender.ready().await.unwrap();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let answer = text_of(response).await;
        *connection = Some(sender);
        answer
    }
}

/// A subscribed framework.
pub struct Client {
    pub address: SocketAddr,
    pub kind: Kind,
    pub id: String,
    pub stream_id: String,
    pub heartbeat_seconds: f64,
    events: Events,
    calls: Calls,
    /// Offers not yet used.
    pub offers: BTreeMap<String, Offer>,
}

/// What came instead of a subscription.
#[derive(Debug)]
pub enum Refused {
    Status(StatusCode, String),
    Event(String),
}

impl Client {
    pub async fn subscribe(address: SocketAddr, info: FrameworkInfo) -> Self {
        Self::try_subscribe(address, Kind::Protobuf, info, vec![]).await.unwrap()
    }

    pub async fn try_subscribe(address: SocketAddr, kind: Kind, info: FrameworkInfo, suppressed: Vec<String>) -> Result<Self, Refused> {
        let call = Call {
            framework_id: info.id.clone(),
            r#type: Some(call::Type::Subscribe.into()),
            subscribe: Some(call::Subscribe { framework_info: info, suppressed_roles: suppressed, offer_constraints: None }),
            ..Call::default()
        };
        Self::open(address, kind, call).await
    }

    pub async fn open(address: SocketAddr, kind: Kind, call: Call) -> Result<Self, Refused> {
        let request = post(address, "/api/v1/scheduler", Some(kind.name()), &[("accept", kind.name())], kind.write(&call));
        let response = send(address, request).await;
        if response.status() != StatusCode::OK {
            let (status, text) = text_of(response).await;
            return Err(Refused::Status(status, text));
        }
        assert_eq!(response.headers()[header::CONTENT_TYPE], kind.name());
        let stream_id = response.headers()["mesos-stream-id"].to_str().unwrap().to_owned();
        let body = response.into_body().into_data_stream().map(|data| data.map_err(std::io::Error::other));
        let events = Box::pin(FramedRead::new(StreamReader::new(body), recordio::Codec::new(recordio::MAX_RECORD)));
        let mut client = Self {
            address,
            kind,
            id: String::new(),
            stream_id,
            heartbeat_seconds: 0.0,
            events,
            calls: Calls::default(),
            offers: BTreeMap::new(),
        };
        let first = client.next().await.expect("a stream begins with an event");
        if let Some(error) = first.error {
            assert!(client.next().await.is_none(), "a stream ends after ERROR");
            return Err(Refused::Event(error.message));
        }
        let subscribed = first.subscribed.expect("SUBSCRIBED comes first");
        assert!(subscribed.master_info.is_some());
        client.id = subscribed.framework_id.value;
        client.heartbeat_seconds = subscribed.heartbeat_interval_seconds.unwrap();
        assert_eq!(client.next().await.unwrap().r#type, Some(event::Type::Heartbeat.into()), "a heartbeat follows at once");
        Ok(client)
    }

    /// The next event, or the stream's end.
    pub async fn next(&mut self) -> Option<Event> {
        let record = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("an event in time")?;
        Some(self.kind.read(&record.ok()?))
    }

    /// The next event but heartbeats; offers and rescinds are booked on the way, and returned too.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.r#type == Some(event::Type::Heartbeat.into()) {
                continue;
            }
            for offer in event.offers.iter().flat_map(|offers| &offers.offers) {
                self.offers.insert(offer.id.value.clone(), offer.clone());
            }
            if let Some(rescind) = &event.rescind {
                self.offers.remove(&rescind.offer_id.value);
            }
            return Some(event);
        }
    }

    /// Waits for an event that `wanted` makes something of.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let event = self.event().await.expect("the stream is open");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        })
        .await
        .expect("the event in time")
    }

    /// An outstanding offer, awaited if there is none; it is taken out of the book.
    pub async fn offer(&mut self) -> Offer {
        while self.offers.is_empty() {
            self.until(|event| event.offers.as_ref().map(|_| ())).await;
        }
        self.offers.pop_first().unwrap().1
    }

    /// Waits for one offer of exactly so many cpus, giving back others: what was used is free again.
    pub async fn offer_of(&mut self, cpus: f64) -> Offer {
        let full = async {
            loop {
                let offer = self.offer().await;
                let named = offer.resources.iter().filter(|resource| resource.name == "cpus");
                if named.filter_map(|resource| resource.scalar).map(|scalar| scalar.value).sum::<f64>() == cpus {
                    break offer;
                }
                self.decline(&offer, 0.0).await;
            }
        };
        tokio::time::timeout(PATIENCE, full).await.expect("such an offer in time")
    }

    /// The next status update, of any task.
    pub async fn update(&mut self) -> TaskStatus {
        self.until(|event| event.update.as_ref().map(|update| update.status.clone())).await
    }

    /// Acknowledges updates until this task has this state; that one is acknowledged too.
    pub async fn reach(&mut self, task: &str, state: TaskState) -> TaskStatus {
        loop {
            let status = self.update().await;
            self.acknowledge(&status).await;
            if status.task_id.value == task && status.state == i32::from(state) {
                return status;
            }
        }
    }

    pub async fn acknowledge(&self, status: &TaskStatus) {
        let (Some(uuid), Some(agent_id)) = (status.uuid.clone(), status.agent_id.clone()) else { return };
        let acknowledge = call::Acknowledge { agent_id, task_id: status.task_id.clone(), uuid };
        self.expect(call::Type::Acknowledge, Call { acknowledge: Some(acknowledge), ..Call::default() }).await;
    }

    /// Sends a call of this framework; answers the status.
    pub async fn call(&self, kind: call::Type, rest: Call) -> (StatusCode, String) {
        let stream_id = self.stream_id.clone();
        self.call_as(&stream_id, kind, rest).await
    }

    pub async fn call_as(&self, stream_id: &str, kind: call::Type, rest: Call) -> (StatusCode, String) {
        let call = Call { framework_id: Some(FrameworkId { value: self.id.clone() }), r#type: Some(kind.into()), ..rest };
        let headers = [("mesos-stream-id", stream_id)];
        let request = post(self.address, "/api/v1/scheduler", Some(self.kind.name()), &headers, self.kind.write(&call));
        self.calls.send(self.address, request).await
    }

    /// Sends a call that must be taken.
    pub async fn expect(&self, kind: call::Type, rest: Call) {
        let (status, text) = self.call(kind, rest).await;
        assert_eq!((status, text.as_str()), (StatusCode::ACCEPTED, ""), "{kind:?}");
    }

    pub async fn accept(&self, offers: &[&Offer], operations: Vec<Operation>, refuse_seconds: f64) {
        let offer_ids = offers.iter().map(|offer| offer.id.clone()).collect();
        self.accept_ids(offer_ids, operations, refuse_seconds).await;
    }

    pub async fn accept_ids(&self, offer_ids: Vec<OfferId>, operations: Vec<Operation>, refuse_seconds: f64) {
        let filters = Some(Filters { refuse_seconds: Some(refuse_seconds) });
        self.expect(call::Type::Accept, Call { accept: Some(call::Accept { offer_ids, operations, filters }), ..Call::default() }).await;
    }

    pub async fn decline(&self, offer: &Offer, refuse_seconds: f64) {
        let decline = call::Decline { offer_ids: vec![offer.id.clone()], filters: Some(Filters { refuse_seconds: Some(refuse_seconds) }) };
        self.expect(call::Type::Decline, Call { decline: Some(decline), ..Call::default() }).await;
    }

    pub async fn kill(&self, task: &str) {
        let kill = call::Kill { task_id: TaskId { value: task.to_owned() }, ..call::Kill::default() };
        self.expect(call::Type::Kill, Call { kill: Some(kill), ..Call::default() }).await;
    }

    pub async fn revive(&self) {
        self.expect(call::Type::Revive, Call::default()).await;
    }

    /// Asks about tasks; none named asks about all.
    pub async fn reconcile(&self, tasks: &[(&str, Option<&str>)]) {
        let tasks = tasks
            .iter()
            .map(|(task, agent)| call::reconcile::Task {
                task_id: TaskId { value: (*task).to_owned() },
                agent_id: agent.map(|value| AgentId { value: value.to_owned() }),
            })
            .collect();
        self.expect(call::Type::Reconcile, Call { reconcile: Some(call::Reconcile { tasks }), ..Call::default() }).await;
    }

    /// Launches one group of one task, and waits until it runs.
    pub async fn launch_one(&mut self, task: &str, labels: &[(&str, &str)]) -> Offer {
        let offer = self.offer().await;
        let group = self.group(&format!("executor-{task}"), vec![a_task(task, &offer, labels)]);
        self.accept(&[&offer], vec![group], 3600.0).await;
        self.reach(task, TaskState::TaskRunning).await;
        offer
    }

    pub fn executor(&self, id: &str) -> ExecutorInfo {
        ExecutorInfo {
            executor_id: ExecutorId { value: id.to_owned() },
            framework_id: Some(FrameworkId { value: self.id.clone() }),
            r#type: Some(executor_info::Type::Default.into()),
            resources: vec![scalar_entry("cpus", 10), scalar_entry("mem", 32_000), scalar_entry("disk", 10_000)],
            ..ExecutorInfo::default()
        }
    }

    pub fn group(&self, executor: &str, tasks: Vec<TaskInfo>) -> Operation {
        launch_group(self.executor(executor), tasks)
    }
}

pub fn launch_group(executor: ExecutorInfo, tasks: Vec<TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::LaunchGroup.into()),
        launch_group: Some(operation::LaunchGroup { executor, task_group: TaskGroupInfo { tasks } }),
        ..Operation::default()
    }
}

/// A task of a tenth of a core.
pub fn a_task(id: &str, offer: &Offer, labels: &[(&str, &str)]) -> TaskInfo {
    TaskInfo {
        name: id.to_owned(),
        task_id: TaskId { value: id.to_owned() },
        agent_id: offer.agent_id.clone(),
        resources: vec![scalar_entry("cpus", 100), scalar_entry("mem", 32_000)],
        command: Some(CommandInfo { value: Some("sleep 1000".to_owned()), ..CommandInfo::default() }),
        labels: Some(Labels {
            labels: labels.iter().map(|(key, value)| Label { key: (*key).to_owned(), value: Some((*value).to_owned()) }).collect(),
        }),
        ..TaskInfo::default()
    }
}
