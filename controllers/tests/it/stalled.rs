//! The gateway while a real etcd stands still: it goes on hearing Mesos, declines offers and acknowledges nothing.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use podium_controllers::gateway::{self, FirstFramework};
use podium_controllers::{Config, Controllers};
use podium_mesos::client::Masters;
use podium_proto::mesos::v1::scheduler::{Call, Event, call, event};
use podium_proto::mesos::v1::{AgentId, FrameworkId, Offer, OfferId, TaskId, TaskState, TaskStatus};
use podium_proto::records::{Goal, Instance, Observed, observed};
use podium_proto::wire::recordio;
use podium_store::writer::{Group, Op};
use podium_store::{Key, Store};
use podium_types::definition::Settings;
use podium_types::id::{InstanceId, PodId};
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::replica::{LONG, connect, pod, until, within};

/// More than the writer has room for.
const INSTANCES: u128 = 4_000;

/// A real etcd.
struct Etcd {
    address: SocketAddr,
    process: Child,
    _data: TempDir,
}

impl Etcd {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        // Where it says, as to systemd, that it is ready.
        let notices = data.path().join("ready");
        let ready = UnixDatagram::bind(&notices).unwrap();
        // It can't be told to take any free port.
        let [client, peer] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).map(|port| port.local_addr().unwrap());
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--name", "t", "--log-level", "error", "--data-dir"]).arg(data.path().join("etcd"));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("t={peer_url}")]).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.env("NOTIFY_SOCKET", &notices).spawn().expect("etcd is installed");
        let etcd = Self { address: client, process, _data: data };
        let mut notice = [0; 64];
        let length = within(ready.recv(&mut notice)).await.expect("etcd says that it is ready");
        assert_eq!(&notice[..length], b"READY=1");
        etcd
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A master that says what the test wants, and tells the test what it is called for.
struct Master {
    address: String,
    calls: mpsc::UnboundedReceiver<Call>,
    events: mpsc::UnboundedSender<Event>,
}

type Events = Arc<Mutex<Option<mpsc::UnboundedReceiver<Event>>>>;

impl Master {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (told, calls) = mpsc::unbounded_channel();
        let (events, to_tell) = mpsc::unbounded_channel();
        let to_tell: Events = Arc::new(Mutex::new(Some(to_tell)));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, told.clone(), Arc::clone(&to_tell)));
            }
        });
        Self { address, calls, events }
    }

    fn say(&self, kind: event::Type, event: Event) {
        self.events.send(Event { r#type: Some(kind.into()), ..event }).unwrap();
    }

    fn offer(&self, id: &str) {
        let offer = Offer {
            id: OfferId { value: id.to_owned() },
            framework_id: FrameworkId { value: "F".to_owned() },
            agent_id: AgentId { value: "S1".to_owned() },
            hostname: "host".to_owned(),
            ..Offer::default()
        };
        self.say(event::Type::Offers, Event { offers: Some(event::Offers { offers: vec![offer] }), ..Event::default() });
    }

    /// For how long this offer is declined.
    async fn declined(&mut self, id: &str) -> f64 {
        loop {
            let call = within(self.calls.recv()).await.unwrap();
            assert!(call.acknowledge.is_none(), "nothing that is not durable is acknowledged");
            if let Some(decline) = call.decline.filter(|decline| decline.offer_ids.iter().any(|offer| offer.value == id)) {
                return decline.filters.unwrap().refuse_seconds.unwrap();
            }
        }
    }
}

async fn serve(mut socket: TcpStream, told: mpsc::UnboundedSender<Call>, events: Events) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        if !head.starts_with("post /api/v1/scheduler") {
            socket.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.ok()?;
            continue;
        }
        let call = Call::decode(body.as_slice()).unwrap();
        if call.subscribe.is_some() {
            let mut events = events.lock().take().expect("one subscription");
            socket.write_all(b"HTTP/1.1 200 OK\r\nMesos-Stream-Id: s\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
            told.send(call).ok()?;
            while let Some(event) = events.recv().await {
                let record = recordio::encode(&event.encode_to_vec());
                let chunk = [format!("{:x}\r\n", record.len()).as_bytes(), &record, b"\r\n"].concat();
                socket.write_all(&chunk).await.ok()?;
            }
            return None;
        }
        told.send(call).ok()?;
        socket.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
}

fn task_id(pod: &PodId, n: u128) -> String {
    InstanceId { pod: pod.clone(), uuid: Uuid::from_u128(n) }.task_id("c", 1).to_string()
}

/// Records of instances that run.
async fn fill(store: &Store, pod: &PodId) {
    let all: Vec<u128> = (1..=INSTANCES).collect();
    for some in all.chunks(50) {
        let group = some.iter().fold(Group::new(pod.clone()), |group, n| {
            let uuid = Uuid::from_u128(*n);
            let task = observed::Task {
                container: "c".to_owned(),
                task_id: task_id(pod, *n),
                state: Some(TaskState::TaskRunning.into()),
                ..observed::Task::default()
            };
            let instance = Instance { config_ms: 1, goal: Goal::Running.into(), incarnation: 1, ..Instance::default() };
            let seen = Observed { incarnation: 1, config_ms: 1, agent_id: "S1".to_owned(), tasks: vec![task], ..Observed::default() };
            let group = group.then(Op::record(Key::Instance(pod.clone(), uuid), instance));
            group.then(Op::record(Key::Observed(pod.clone(), uuid), seen))
        });
        assert!(store.commit(group).await.committed().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_etcd_stands_still_mesos_is_heard_offers_are_declined_and_nothing_is_acknowledged() {
    let etcd = Etcd::start().await;
    let (store, index) = connect(etcd.address).await;
    let web = pod("/web");
    fill(&store, &web).await;
    let mut master = Master::start().await;
    let masters = Masters::List(vec![master.address.clone()]);
    let (sender, state) = gateway::state_channel();
    let settings = gateway::Settings { masters, first_framework: FirstFramework::Take("F".to_owned()), ..Default::default() };
    let cut_off = Duration::from_millis(u64::try_from(settings.cut_off_ms).unwrap());
    let controllers = Controllers::start(Config {
        store: store.clone(),
        index: index.clone(),
        which: [gateway::NAME].into(),
        settings: Settings::default(),
        identity: "stalled".to_owned(),
        // Longer than etcd stands still.
        lease_ttl: LONG,
        gateway: Some((settings, sender)),
    });
    within(master.calls.recv()).await.unwrap();
    let framework_id = FrameworkId { value: "F".to_owned() };
    let subscribed = Some(event::Subscribed { framework_id, heartbeat_interval_seconds: Some(1_000.0), master_info: None });
    master.say(event::Type::Subscribed, Event { subscribed, ..Event::default() });
    master.offer("before");
    assert_eq!(master.declined("before").await, 120.0, "nothing waits");

    etcd.signal("-STOP");
    let stopped = Instant::now();
    for n in 1..=INSTANCES {
        let status = TaskStatus {
            task_id: TaskId { value: task_id(&web, n) },
            agent_id: Some(AgentId { value: "S1".to_owned() }),
            state: TaskState::TaskFailed.into(),
            uuid: Some(n.to_be_bytes().to_vec().into()),
            ..TaskStatus::default()
        };
        master.say(event::Type::Update, Event { update: Some(event::Update { status }), ..Event::default() });
    }
    master.offer("first");
    assert_eq!(master.declined("first").await, 5.0, "cut off");
    assert!(stopped.elapsed() >= cut_off, "offers wait for {cut_off:?}, not for {:?}", stopped.elapsed());
    master.offer("second");
    assert_eq!(master.declined("second").await, 5.0, "and go on being declined");
    assert!(state.borrow().subscribed);

    etcd.signal("-CONT");
    let mut left: std::collections::BTreeSet<String> = (1..=INSTANCES).map(|n| task_id(&web, n)).collect();
    while !left.is_empty() {
        let call = within(master.calls.recv()).await.unwrap();
        if call.r#type() == call::Type::Acknowledge {
            left.remove(&call.acknowledge.unwrap().task_id.value);
        }
    }
    let ended = |held: &podium_store::view::Held<Observed>| held.value.tasks[0].state == Some(TaskState::TaskFailed.into());
    until(&index, "what is acknowledged, in the store", |state| state.pod(&web).unwrap().observed.values().all(ended)).await;
    within(controllers.shutdown()).await;
}
