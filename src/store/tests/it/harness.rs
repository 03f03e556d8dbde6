//! Servers to test against, a proxy that breaks connections, and a few words that all tests share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use podium_proto::records;
use podium_store::writer::{Group, Op};
use podium_store::{Index, Key, Session, SessionConfig, Store, StoreConfig};
use podium_types::id::PodId;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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

    /// Compacts everything up to the present.
    pub async fn compact(&self) {
        let mut etcd = self.etcd().await;
        let revision = etcd.get("x", None).await.unwrap().header().unwrap().revision();
        etcd.compact(revision, Some(etcd_client::CompactionOptions::new().with_physical())).await.unwrap();
    }

    async fn launch(&mut self) {
        match self.flavour {
            Flavour::Etcd => self.running = Running::Process(spawn_etcd(&self.data.path().join("etcd"), self.address)),
            Flavour::Embedded => {
                let listener = TcpListener::bind(self.address).await.unwrap();
                let mut config = podium_etcd::Config::new(listener, self.data.path());
                config.retention = podium_etcd::Retention::UNBOUNDED;
                self.running = Running::Embedded(podium_etcd::Server::start(config).await.unwrap());
            }
        }
        let up = async {
            while TcpStream::connect(self.address).await.is_err() || !self.answers().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, up).await.expect("the server comes up");
    }

    async fn answers(&self) -> bool {
        let Ok(mut etcd) = etcd_client::Client::connect([format!("http://{}", self.address)], None).await else { return false };
        matches!(tokio::time::timeout(Duration::from_secs(1), etcd.get("x", None)).await, Ok(Ok(_)))
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
        .args(["--heartbeat-interval", "20", "--election-timeout", "200", "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{} can't be started ({error}): install etcd-server, or name it in PODIUM_TEST_ETCD", program.display())
        })
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A store at this address, with short waits.
pub async fn connect(address: SocketAddr) -> Store {
    let mut config = StoreConfig::new([format!("http://{address}")]);
    config.request_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(1);
    within(async {
        loop {
            match Store::connect(config.clone()).await {
                Ok(store) => return store,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

/// A full index of this store.
pub async fn indexed(store: &Store) -> Index {
    let index = Index::start(store);
    within(index.ready()).await;
    index
}

/// A session with a short lease.
pub fn session(store: &Store, identity: &str) -> Session {
    Session::start(store, SessionConfig { ttl: Duration::from_secs(2), identity: identity.to_owned() })
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

const PASSES: u8 = 0;
const SWALLOWS: u8 = 1;
const REFUSES: u8 = 2;

/// A TCP proxy in front of a server.
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    cut: watch::Sender<u64>,
}

impl Proxy {
    /// Forwards to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cut) = (Arc::new(AtomicU8::new(PASSES)), watch::Sender::new(0));
        let (shared, cuts) = (mode.clone(), cut.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) != REFUSES {
                    tokio::spawn(forward(client, target, shared.clone(), cuts.clone()));
                }
            }
        });
        Self { address, mode, cut }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection; new ones are welcome.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every connection, and refuses new ones until [`Proxy::heal`].
    pub fn refuse(&self) {
        self.mode.store(REFUSES, Ordering::SeqCst);
        self.cut();
    }

    /// Takes what clients send and answers nothing, without an error, until [`Proxy::heal`].
    pub fn swallow(&self) {
        self.mode.store(SWALLOWS, Ordering::SeqCst);
    }

    /// Forwards again, in new connections.
    pub fn heal(&self) {
        self.mode.store(PASSES, Ordering::SeqCst);
        self.cut();
    }
}

async fn forward(client: TcpStream, target: SocketAddr, mode: Arc<AtomicU8>, mut cuts: watch::Receiver<u64>) {
    cuts.mark_unchanged();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = tokio::io::AsyncReadExt::read(&mut from_server, &mut buffer).await?;
            if n == 0 {
                return Ok::<(), std::io::Error>(());
            }
            // Requests still arrive; only answers are lost.
            if mode.load(Ordering::SeqCst) == PASSES {
                tokio::io::AsyncWriteExt::write_all(&mut to_client, buffer.get(..n).unwrap_or_default()).await?;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = cuts.changed() => {}
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
