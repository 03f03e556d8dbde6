//! Servers to test against, a proxy that breaks connections, and a few words that all tests share.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use podium_proto::records;
use podium_store::writer::{Group, Op};
use podium_store::{Index, Key, Session, SessionConfig, Store, StoreConfig};
use podium_types::id::PodId;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// Longer than anything here takes: reaching it is a failure.
pub const LONG: Duration = Duration::from_secs(30);

/// Which kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// `etcd`, found on the path.
    Etcd,
    /// The server that `podium dev` embeds.
    Embedded,
}

/// One server with its own data folder and port; ended with the value.
pub struct Server {
    flavour: Flavour,
    data: TempDir,
    address: SocketAddr,
    running: Running,
}

enum Running {
    Not,
    Process(Child),
    Embedded(podium_etcd::Server),
}

impl Server {
    /// A new, empty server.
    pub async fn start(flavour: Flavour) -> Self {
        let mut server = Self { flavour, data: tempfile::tempdir().unwrap(), address: free_address(), running: Running::Not };
        server.launch().await;
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of its own, with Podium's settings and short waits.
    pub async fn store(&self) -> Store {
        connect(self.address).await
    }

    /// A plain client, for what Podium does not do itself.
    pub async fn etcd(&self) -> etcd_client::Client {
        etcd_client::Client::connect([format!("http://{}", self.address)], None).await.unwrap()
    }

    /// Ends it, as a crash would.
    pub async fn stop(&mut self) {
        match std::mem::replace(&mut self.running, Running::Not) {
            Running::Process(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Running::Embedded(server) => server.kill().await,
            Running::Not => {}
        }
    }

    /// Starts it again on the same data and port.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.launch().await;
    }

    /// Puts an empty store in its place, on the same port.
    pub async fn replace(&mut self) {
        self.stop().await;
        self.data = tempfile::tempdir().unwrap();
        self.launch().await;
    }

    /// A copy of its data as of now.
    pub async fn backup(&mut self) -> TempDir {
        self.stop().await;
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.data.path(), copy.path());
        self.launch().await;
        copy
    }

    /// Puts a copy in its place, on the same port.
    pub async fn restore(&mut self, copy: TempDir) {
        self.stop().await;
        self.data = copy;
        self.launch().await;
    }

    /// Compacts everything up to the present.
    pub async fn compact(&self) {
        let mut etcd = self.etcd().await;
        let revision = etcd.get("x", None).await.unwrap().header().unwrap().revision();
        etcd.compact(revision, Some(etcd_client::CompactionOptions::new().with_physical())).await.unwrap();
    }

    async fn launch(&mut self) {
        match self.flavour {
            Flavour::Etcd => {
                let mut etcd = spawn_etcd(&self.data.path().join("etcd"), self.address);
                let mut log = Log::of(&mut etcd);
                self.running = Running::Process(etcd);
                log.says(&["serving client traffic"]).await;
            }
            Flavour::Embedded => {
                let listener = TcpListener::bind(self.address).await.unwrap();
                let mut config = podium_etcd::Config::new(listener, self.data.path());
                config.retention = podium_etcd::Retention::UNBOUNDED;
                self.running = Running::Embedded(podium_etcd::Server::start(config).await.unwrap());
            }
        }
        within(async { self.etcd().await.get("x", None).await }).await.expect("the server answers");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Running::Process(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What an etcd says.
pub struct Log(mpsc::UnboundedReceiver<String>);

impl Log {
    /// Reads it to its end, whether or not anybody wants to know.
    pub fn of(etcd: &mut Child) -> Self {
        let log = etcd.stderr.take().expect("its log is a pipe");
        let (lines, log_lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // A test that has its word reads no more.
                let _ = lines.send(line);
            }
        });
        Self(log_lines)
    }

    /// Passes over what it has said so far.
    pub fn skip(&mut self) {
        while self.0.try_recv().is_ok() {}
    }

    /// Waits for a line with all of these words.
    pub async fn says(&mut self, words: &[&str]) {
        within(async {
            loop {
                let line = self.0.recv().await.unwrap_or_else(|| panic!("etcd ended without {words:?}"));
                if words.iter().all(|word| line.contains(word)) {
                    return;
                }
            }
        })
        .await;
    }
}

fn spawn_etcd(data: &std::path::Path, address: SocketAddr) -> Child {
    let program = std::env::var_os("PODIUM_TEST_ETCD").map_or_else(|| PathBuf::from("etcd"), PathBuf::from);
    let client = format!("http://{address}");
    let peer = format!("http://{}", free_address());
    Command::new(&program)
        .arg("--data-dir")
        .arg(data)
        .args(["--name", "test", "--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        // Quick to elect itself, and so to grant short leases.
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        .args(["--logger", "zap", "--log-level", "info"])
        .args(["--grpc-keepalive-min-time", "100ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{} can't be started ({error}): install etcd-server, or name it in PODIUM_TEST_ETCD", program.display())
        })
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let target = to.join(entry.file_name().unwrap());
        if kind.is_dir() {
            copy_folder(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A store at this address, with short waits.
pub async fn connect(address: SocketAddr) -> Store {
    let mut config = StoreConfig::new([format!("http://{address}")]);
    config.request_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(1);
    config.keep_alive_interval = Duration::from_secs(1);
    config.keep_alive_timeout = Duration::from_secs(2);
    within(Store::connect(config)).await.unwrap()
}

/// A full index of this store.
pub async fn indexed(store: &Store) -> Index {
    let index = Index::start(store);
    within(index.ready()).await;
    index
}

/// A session with a lease so long that nothing happens because it ran out, on however busy a machine.
pub fn session(store: &Store, identity: &str) -> Session {
    short_session(store, identity, Duration::from_secs(120))
}

/// A session with a lease of this length.
pub fn short_session(store: &Store, identity: &str, ttl: Duration) -> Session {
    Session::start(store, SessionConfig { ttl, identity: identity.to_owned() })
}

/// The answer, or a failure.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it takes too long")
}

/// Waits until the index shows this, looking again whenever it moves.
pub async fn until(index: &Index, mut shows: impl FnMut(&podium_store::index::IndexState) -> bool) {
    let mut positions = index.positions();
    within(async {
        while !index.read(&mut shows) {
            positions.changed().await.unwrap();
        }
    })
    .await;
}

pub fn pod(id: &str) -> PodId {
    PodId::new(id).unwrap()
}

pub fn instance(pod: &PodId, n: u128) -> Key {
    Key::Instance(pod.clone(), Uuid::from_u128(n))
}

/// Puts an instance record.
pub fn create(pod: &PodId, n: u128) -> Group {
    Group::new(pod.clone()).then(Op::record(instance(pod, n), records::Instance { incarnation: 1, ..Default::default() }))
}

/// Puts a spec of so many bytes.
pub fn spec(pod: &PodId, size: usize) -> Group {
    Group::new(pod.clone()).then(Op::Put(Key::Spec(pod.clone()), Bytes::from(vec![b'x'; size])))
}

/// Commits a group that must go through, and returns its revision.
pub async fn commit(store: &Store, group: Group) -> i64 {
    store.commit(group).await.committed().expect("the group is committed")
}

/// A TCP proxy in front of a server.
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<Line>,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// Connections below this number are ended.
    cut_below: u64,
    /// Connections below this number are silent: what their clients send is kept back, what the server says is lost.
    hold_below: u64,
    /// What servers say is lost.
    swallow: bool,
    /// No new connections.
    refuse: bool,
    /// The next connection's number.
    next: u64,
}

impl Proxy {
    /// Forwards to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(Line::default());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.borrow().next;
                shared.send_modify(|line| line.next += 1);
                if !shared.borrow().refuse {
                    tokio::spawn(forward(client, target, number, shared.subscribe()));
                }
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection; new ones are welcome.
    pub fn cut(&self) {
        self.state.send_modify(|line| line.cut_below = line.next);
    }

    /// Ends every connection, and refuses new ones until [`Proxy::heal`].
    pub fn refuse(&self) {
        self.state.send_modify(|line| (line.refuse, line.cut_below) = (true, line.next));
    }

    /// Takes what clients send and answers nothing, without an error, until [`Proxy::heal`].
    pub fn swallow(&self) {
        self.state.send_modify(|line| line.swallow = true);
    }

    /// Forwards again, in new connections.
    pub fn heal(&self) {
        self.state.send_modify(|line| (line.refuse, line.swallow, line.cut_below) = (false, false, line.next));
    }

    /// The present connections fall silent, as when a network swallows packets; new ones work.
    pub fn hold(&self) {
        self.state.send_modify(|line| line.hold_below = line.next);
    }

    /// What clients said on held connections arrives at last.
    pub fn release(&self) {
        self.state.send_modify(|line| line.hold_below = 0);
    }
}

async fn forward(client: TcpStream, target: SocketAddr, number: u64, mut line: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, down) = (line.clone(), line.clone());
    tokio::select! {
        _ = upwards(from_client, to_server, number, up) => {}
        _ = downwards(from_server, to_client, number, down) => {}
        _ = line.wait_for(|line| number < line.cut_below) => {}
    }
}

/// From the client to the server. Once held, the server's side stays open after the client has gone.
async fn upwards(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, mut line: watch::Receiver<Line>) -> std::io::Result<()> {
    let (mut kept, mut open) = (Vec::new(), true);
    loop {
        let held = number < line.borrow_and_update().hold_below;
        if !held && !kept.is_empty() {
            to.write_all(&kept).await?;
            kept.clear();
        }
        if !held && !open {
            // The server is to act on what came late, and not on a client that has gone.
            std::future::pending::<()>().await;
        }
        tokio::select! {
            n = from.read_buf(&mut kept), if open => match n? {
                0 if held => open = false,
                0 => return Ok(()),
                _ => {}
            },
            _ = line.changed() => {}
        }
    }
}

/// From the server to the client.
async fn downwards(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, line: watch::Receiver<Line>) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut lost = false;
    loop {
        let n = from.read(&mut buffer).await?;
        let now = *line.borrow();
        // What comes after the cut came too late to pass.
        lost |= now.swallow || number < now.hold_below.max(now.cut_below);
        match n {
            0 if lost => std::future::pending().await,
            0 => return Ok(()),
            _ if lost => {}
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}

/// The same tests against every kind of server.
#[macro_export]
macro_rules! against_every_server {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        mod etcd {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::harness::Flavour::Etcd).await;
            })*
        }
        mod embedded {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::harness::Flavour::Embedded).await;
            })*
        }
    };
}
