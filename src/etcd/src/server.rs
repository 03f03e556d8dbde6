//! Starting and stopping: wires disk, writer and services together.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::core::{Core, Identity, Storage};
use crate::disk::{Disk, Files, Folder, Journal, Recovered, Switch};
use crate::lease::LeaseBook;
use crate::limits::QUEUED_REQUESTS;
use crate::mvcc::Keyspace;
use crate::service;
use crate::writer::Writer;

/// How long clients get to take their last answers when the server is shut down.
const GRACE: Duration = Duration::from_secs(2);
/// When a silent connection is asked for a sign of life, and how long that may take; etcd's defaults.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a server needs. [`Config::new`] has the usual choices for everything but the first two.
#[derive(Debug)]
pub struct Config {
    /// Where to serve; bound by the caller, so that a taken port is the caller's error to explain.
    pub listener: TcpListener,
    /// The folder of the store; created where it is missing. No other process may have it.
    pub data_dir: PathBuf,
    /// How much history is kept.
    pub retention: Retention,
    /// The disk that `data_dir` is on.
    pub disk: Arc<dyn Disk>,
}

impl Config {
    /// The real disk and the default retention.
    #[must_use]
    pub fn new(listener: TcpListener, data_dir: impl Into<PathBuf>) -> Self {
        Config { listener, data_dir: data_dir.into(), retention: Retention::default(), disk: Arc::new(Files) }
    }
}

/// How much history is kept before it is compacted automatically, by whichever bound is met first. A compaction leaves
/// half of it. Clients that read or watch at an older revision get etcd's error for compacted revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Revisions; at least 1 is sensible, `i64::MAX` is without bound.
    pub revisions: i64,
    /// Bytes of memory of the versions written since the last compaction, roughly.
    pub bytes: usize,
}

impl Default for Retention {
    /// 10,000 revisions or 64 MiB: minutes of a busy cluster for a watcher to come back in, and little memory.
    fn default() -> Self {
        Retention { revisions: 10_000, bytes: 64 * 1024 * 1024 }
    }
}

impl Retention {
    /// Never compacts by itself, as an etcd without `--auto-compaction-retention`.
    pub const UNBOUNDED: Retention = Retention { revisions: i64::MAX, bytes: usize::MAX };
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process runs on this folder.
    #[error("the data folder {} is in use by another process; stop that one or choose another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a newer version of this program.
    #[error("{} has format {found}, and this build knows up to {known}: start a newer Podium on it", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this build can read.
        known: i64,
    },
    /// The folder or a file in it can't be made, opened or locked.
    #[error("can't use {}: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file can be read, but a record in it makes no sense.
    #[error("{} is damaged: a record of revision {revision} can't be read ({source}); restore the folder from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the history.
        revision: i64,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// The storage library can't open the file.
    #[error("can't open the store {}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: Box<redb::Error>,
    },
    /// The listener has no address.
    #[error("the listener has no address: {0}")]
    Listener(#[source] io::Error),
}

impl StartError {
    pub(crate) fn store(path: &Path, error: impl Into<redb::Error>) -> Self {
        StartError::Store { path: path.to_owned(), source: Box::new(error.into()) }
    }
}

/// A running server. Dropping it stops it as [`Server::kill`] does, without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    core: Arc<Core>,
    /// Cuts all connections.
    cut: CancellationToken,
    /// `None` once it was awaited.
    writer: Option<JoinHandle<Result<(), redb::Error>>>,
    serving: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the folder, reads the store into memory, and serves. What it returns is ready for requests.
    ///
    /// # Errors
    /// [`StartError`] tells what is in the way, and what to do about it.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        let Config { listener, data_dir, retention, disk } = config;
        let address = listener.local_addr().map_err(StartError::Listener)?;
        let switch = Switch::default();
        let opened = {
            let switch = switch.clone();
            tokio::task::spawn_blocking(move || Journal::open(Folder::claim(&data_dir)?, disk.as_ref(), switch, (random_id(), random_id())))
        };
        let (journal, recovered) = match opened.await {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let Recovered { cluster, member, term, index, keyspace, leases } = recovered;
        let leases = restore_leases(&leases, &keyspace);
        let (jobs, queue) = mpsc::channel(QUEUED_REQUESTS);
        let closing = CancellationToken::new();
        let journal = Arc::new(journal);
        let disk = Storage { switch, journal: Arc::downgrade(&journal) };
        let identity = Identity { cluster, member, term };
        let url = format!("http://{address}");
        let core = Arc::new(Core::new(identity, keyspace, index, disk, url, closing, jobs));
        let writer = tokio::spawn(write(Writer::new(core.clone(), journal, leases, retention), queue, core.closing.clone()));
        let cut = CancellationToken::new();
        let serving = tokio::spawn(serve(core.clone(), listener, cut.clone()));
        Ok(Server { address, core, cut, writer: Some(writer), serving: Some(serving) })
    }

    /// Where it serves, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when the server takes no more requests: it has stopped by itself, because its disk failed.
    pub async fn failed(&self) {
        self.core.closing.cancelled().await;
    }

    /// Stops: takes no more requests, makes durable what was accepted, answers it, ends all streams and gives the
    /// folder free.
    pub async fn shutdown(mut self) {
        self.core.closing.cancel();
        self.written().await;
        if let Some(mut serving) = self.serving.take()
            && timeout(GRACE, &mut serving).await.is_err()
        {
            self.cut.cancel();
            let _ = serving.await;
        }
    }

    /// Stops as if the process were killed: nothing more reaches the disk, nobody is told anything, and all connections
    /// break. When this completes, the folder is free for another server. For tests of what survives.
    pub async fn kill(mut self) {
        self.break_off();
        self.written().await;
        if let Some(serving) = self.serving.take() {
            let _ = serving.await;
        }
    }

    /// Waits until nobody holds the file any more; the server is closing.
    async fn written(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = writer.await;
        }
        self.core.snapshots.close();
        self.core.snapshots.wait().await;
    }

    fn break_off(&self) {
        self.core.disk.switch.cut();
        self.cut.cancel();
        self.core.closing.cancel();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.break_off();
        }
    }
}

/// Every lease begins its full time again.
fn restore_leases(leases: &[(i64, i64)], keyspace: &Keyspace) -> LeaseBook {
    let mut book = LeaseBook::default();
    let now = Instant::now();
    for (id, ttl) in leases {
        book.restore(*id, *ttl, now);
    }
    for version in keyspace.attached() {
        book.attach(version.lease, &version.key);
    }
    book
}

/// Runs the writer; a disk that fails closes the server.
async fn write(writer: Writer, queue: mpsc::Receiver<crate::writer::Job>, closing: CancellationToken) -> Result<(), redb::Error> {
    // However it ends, by a panic too: nobody may wait for a writer that is gone.
    let _closed = closing.clone().drop_guard();
    let ended = writer.run(queue).await;
    if let Err(error) = &ended
        && !closing.is_cancelled()
    {
        tracing::error!(%error, "the store can't be written any more: the server stops");
    }
    ended
}

/// Serves until the server closes and every connection has ended.
async fn serve(core: Arc<Core>, listener: TcpListener, cut: CancellationToken) {
    let closing = core.closing.clone();
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .serve_with_incoming_shutdown(service::routes(&core), connection::accept(listener, cut), closing.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the listener failed");
    }
}

/// An id from the operating system's randomness, through the hasher keys of the standard library. Never 0.
fn random_id() -> u64 {
    RandomState::new().hash_one(0).max(1)
}
