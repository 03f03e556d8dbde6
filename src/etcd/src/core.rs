//! What all services of one server share: the keyspace to read, the queue to the writer, and who we are.

use std::sync::{Arc, Weak};

use etcd_client::proto::PbResponseHeader;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::disk::{Journal, Switch};
use crate::error::Refusal;
use crate::limits::{QUEUED_BYTES, SNAPSHOTS};
use crate::mvcc::Keyspace;
use crate::writer::{Job, Reply, Request};

/// The ids in every answer's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) term: u64,
}

impl Identity {
    pub(crate) fn header(self, revision: i64) -> PbResponseHeader {
        PbResponseHeader { cluster_id: self.cluster, member_id: self.member, revision, raft_term: self.term }
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) identity: Identity,
    /// Locked for one selection or one group at a time, never across an await.
    pub(crate) keyspace: RwLock<Keyspace>,
    /// Tells watch streams that the published or the compacted revision has moved.
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) disk: Storage,
    /// The snapshots that are being sent. Each holds the journal.
    pub(crate) snapshots: TaskTracker,
    /// One for each that may still begin.
    pub(crate) snapshot_slots: Arc<Semaphore>,
    /// How the address of this server is written in member lists.
    pub(crate) client_url: String,
    /// Set when no new work is taken any more.
    pub(crate) closing: CancellationToken,
    jobs: mpsc::Sender<Job>,
    budget: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) published: i64,
    pub(crate) compacted: i64,
    /// Write requests applied since the store was created.
    pub(crate) index: i64,
}

/// What others than the writer, to whom the disk belongs, have of it.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) switch: Switch,
    /// Gone with the writer.
    pub(crate) journal: Weak<Journal>,
}

impl Core {
    pub(crate) fn new(
        identity: Identity,
        keyspace: Keyspace,
        index: i64,
        disk: Storage,
        client_url: String,
        closing: CancellationToken,
        jobs: mpsc::Sender<Job>,
    ) -> Self {
        let progress = Progress { published: keyspace.published(), compacted: keyspace.compacted(), index };
        Core {
            identity,
            keyspace: RwLock::new(keyspace),
            progress: watch::Sender::new(progress),
            disk,
            snapshots: TaskTracker::new(),
            snapshot_slots: Arc::new(Semaphore::new(SNAPSHOTS)),
            client_url,
            closing,
            jobs,
            budget: Arc::new(Semaphore::new(QUEUED_BYTES)),
        }
    }

    pub(crate) fn published(&self) -> i64 {
        self.progress.borrow().published
    }

    /// Completes a header: the ids, and the current revision where the verb has set none.
    pub(crate) fn complete(&self, header: Option<PbResponseHeader>) -> Option<PbResponseHeader> {
        let revision = header.map(|header| header.revision).filter(|revision| *revision != 0);
        Some(self.identity.header(revision.unwrap_or_else(|| self.published())))
    }

    /// Hands a request of about `bytes` to the writer, and waits until its effect is durable.
    ///
    /// Waits for room when the queue is full; whoever stops waiting before its turn has changed nothing.
    pub(crate) async fn submit<T>(&self, bytes: usize, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let permits = u32::try_from(bytes.clamp(1, QUEUED_BYTES)).unwrap_or(1);
        let budget = self.budget.clone().acquire_many_owned(permits).await.map_err(|_| Refusal::Stopped)?;
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { request: request(reply), _budget: budget }).await.map_err(|_| Refusal::Stopped)?;
        answer.await.map_err(|_| Refusal::Stopped)?
    }
}
