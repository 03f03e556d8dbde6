//! The writer: the one task that changes anything.
//!
//! It takes whatever requests have gathered, applies them in memory in their order, writes all that they changed in one
//! durable commit, and only then publishes it to readers and watchers and answers. While one group is on its way to the
//! disk the next one gathers, so the more there is to do, the larger the groups.
//!
//! It owns the leases, and sleeps until a request comes or the next lease runs out: an idle store does nothing.
//!
//! A disk that fails stops it for good: what was applied but is not durable was shown to nobody, and stays invisible.

use std::sync::Arc;

use etcd_client::proto::{PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse, PbTxnRequest, PbTxnResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::Retention;
use crate::apply;
use crate::core::{Core, Progress};
use crate::disk::{Journal, LeaseRecord, Record};
use crate::error::Refusal;
use crate::lease::{LeaseBook, LeaseStatus};
use crate::limits::QUEUED_REQUESTS;
use crate::mvcc::{Change, Keyspace, Span};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// A request in the queue, with the share of the queue's bytes that it holds until it is answered.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) _budget: OwnedSemaphorePermit,
}

/// All that goes through the writer: what changes something, and what asks about leases, which are the writer's own.
#[derive(Debug)]
pub(crate) enum Request {
    Put(PbPutRequest, Reply<PbPutResponse>),
    Delete(PbDeleteRequest, Reply<PbDeleteResponse>),
    Txn(PbTxnRequest, Reply<PbTxnResponse>),
    /// Compacts to a revision.
    Compact(i64, Reply<()>),
    /// Grants a lease; id 0 means any free one. Answers id and seconds.
    Grant {
        id: i64,
        ttl: i64,
        reply: Reply<(i64, i64)>,
    },
    Revoke {
        id: i64,
        reply: Reply<()>,
    },
    /// Renews a lease; answers its seconds, or nothing where there is no such lease.
    Renew {
        id: i64,
        reply: Reply<Option<i64>>,
    },
    LeaseStatus {
        id: i64,
        reply: Reply<Option<LeaseStatus>>,
    },
    Leases(Reply<Vec<i64>>),
}

/// The task's state.
pub(crate) struct Writer {
    core: Arc<Core>,
    journal: Arc<Journal>,
    leases: LeaseBook,
    retention: Retention,
    /// Requests applied since the store was created.
    index: i64,
    /// Leases granted since the start, for new ids.
    granted: u32,
}

/// Requests that were applied and await their common commit.
#[derive(Default)]
struct Group {
    record: Record,
    answers: Vec<Answer>,
}

/// Sends an answer that was worked out before the commit.
type Answer = Box<dyn FnOnce() + Send>;

impl Group {
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T, Refusal>) {
        // A caller that has gone needs no answer.
        self.answers.push(Box::new(move || drop(reply.send(answer))));
    }

    /// Whether there is nothing to write.
    fn is_clean(&self) -> bool {
        self.record.versions.is_empty() && self.record.leases.is_empty() && self.record.compaction.is_none()
    }
}

impl Writer {
    pub(crate) fn new(core: Arc<Core>, journal: Arc<Journal>, leases: LeaseBook, retention: Retention) -> Self {
        let index = core.progress.borrow().index;
        Writer { core, journal, leases, retention, index, granted: 0 }
    }

    /// Works until the server closes and the queue is empty, or until the disk fails.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Result<(), redb::Error> {
        let mut batch = Vec::new();
        loop {
            let closing = self.core.closing.clone();
            tokio::select! {
                biased;
                () = closing.cancelled(), if !jobs.is_closed() => jobs.close(),
                taken = jobs.recv_many(&mut batch, QUEUED_REQUESTS) => {
                    if taken == 0 {
                        return Ok(());
                    }
                }
                () = sleep_until(self.leases.next_deadline().unwrap_or_else(Instant::now)), if self.leases.next_deadline().is_some() => {}
            }
            self.work_off(&mut batch).await?;
        }
    }

    async fn work_off(&mut self, batch: &mut Vec<Job>) -> Result<(), redb::Error> {
        let mut group = Group::default();
        self.expire(&mut group);
        let mut budgets = Vec::with_capacity(batch.len());
        for Job { request, _budget } in batch.drain(..) {
            budgets.push(_budget);
            // Readers see a compaction at once, so everything before it has to be published first.
            let barrier = matches!(request, Request::Compact(..));
            if barrier {
                self.commit(std::mem::take(&mut group)).await?;
            }
            self.apply(&mut group, request);
            if barrier {
                self.commit(std::mem::take(&mut group)).await?;
            }
        }
        self.commit(group).await?;
        self.compact_overdue().await
    }

    fn apply(&mut self, group: &mut Group, request: Request) {
        let core = self.core.clone();
        let keyspace = &mut core.keyspace.write();
        match request {
            Request::Put(request, reply) => {
                let answer = self.put(group, keyspace, request);
                group.answer(reply, answer);
            }
            Request::Delete(request, reply) => {
                let mut transaction = keyspace.begin();
                let answer = apply::delete(&mut transaction, &request);
                let changes = transaction.finish();
                self.record(group, changes);
                group.answer(reply, Ok(answer));
            }
            Request::Txn(request, reply) => {
                let mut transaction = keyspace.begin();
                let answer = apply::txn(&mut transaction, &self.leases, request);
                let changes = transaction.finish();
                self.record(group, changes);
                group.answer(reply, answer);
            }
            Request::Compact(revision, reply) => {
                let answer = self.compact(group, keyspace, revision);
                group.answer(reply, answer);
            }
            Request::Grant { id, ttl, reply } => {
                let answer = self.grant(group, id, ttl);
                group.answer(reply, answer);
            }
            Request::Revoke { id, reply } => {
                let answer = self.revoke(group, keyspace, id);
                group.answer(reply, answer);
            }
            Request::Renew { id, reply } => {
                let answer = self.leases.renew(id, Instant::now());
                group.answer(reply, Ok(answer));
            }
            Request::LeaseStatus { id, reply } => {
                let answer = self.leases.status(id, Instant::now());
                group.answer(reply, Ok(answer));
            }
            Request::Leases(reply) => group.answer(reply, Ok(self.leases.ids())),
        }
    }

    fn put(&mut self, group: &mut Group, keyspace: &mut Keyspace, request: PbPutRequest) -> Result<PbPutResponse, Refusal> {
        apply::check_put(keyspace.head_view(), &self.leases, &request)?;
        let mut transaction = keyspace.begin();
        let answer = apply::put(&mut transaction, request);
        let changes = transaction.finish();
        self.record(group, changes);
        Ok(answer)
    }

    fn grant(&mut self, group: &mut Group, id: i64, ttl: i64) -> Result<(i64, i64), Refusal> {
        let id = if id == 0 { self.free_lease() } else { id };
        let ttl = self.leases.grant(id, ttl, Instant::now())?;
        group.record.leases.push(LeaseRecord::Granted { id, ttl });
        self.index += 1;
        Ok((id, ttl))
    }

    /// A lease id that was never used: the term is another one at each start.
    fn free_lease(&mut self) -> i64 {
        use crate::apply::Leases as _;
        loop {
            self.granted = self.granted.wrapping_add(1);
            let identity = self.core.identity;
            let id = ((identity.member & 0x7fff) << 48) | ((identity.term & 0xffff) << 32) | u64::from(self.granted);
            let id = id.cast_signed();
            if id != 0 && !self.leases.exists(id) {
                return id;
            }
        }
    }

    /// Ends a lease and deletes its keys in one revision.
    fn revoke(&mut self, group: &mut Group, keyspace: &mut Keyspace, id: i64) -> Result<(), Refusal> {
        let keys = self.leases.revoke(id)?;
        let mut transaction = keyspace.begin();
        for key in keys {
            transaction.delete(&Span::new(&key, &[]));
        }
        let changes = transaction.finish();
        self.record(group, changes);
        group.record.leases.push(LeaseRecord::Revoked { id });
        Ok(())
    }

    fn expire(&mut self, group: &mut Group) {
        let expired = self.leases.expired(Instant::now());
        if expired.is_empty() {
            return;
        }
        let core = self.core.clone();
        let keyspace = &mut core.keyspace.write();
        for id in expired {
            tracing::debug!(lease = id, "lease expired");
            // It was listed a moment ago, and nobody else revokes.
            let _ = self.revoke(group, keyspace, id);
        }
    }

    fn record(&mut self, group: &mut Group, changes: Vec<Change>) {
        self.leases.follow(&changes);
        self.index += 1;
        group.record.versions.extend(changes.into_iter().map(|change| change.version));
    }

    fn compact(&mut self, group: &mut Group, keyspace: &mut Keyspace, revision: i64) -> Result<(), Refusal> {
        let forgotten = keyspace.compact(revision)?;
        self.index += 1;
        group.record.compaction = Some((revision, forgotten));
        Ok(())
    }

    async fn compact_overdue(&mut self) -> Result<(), redb::Error> {
        let Retention { revisions, bytes } = self.retention;
        let Some(revision) = self.core.keyspace.read().overdue_compaction(revisions, bytes) else { return Ok(()) };
        let mut group = Group::default();
        let core = self.core.clone();
        if self.compact(&mut group, &mut core.keyspace.write(), revision).is_ok() {
            tracing::debug!(revision, "history compacted");
        }
        self.commit(group).await
    }

    /// Makes a group durable, shows it, and answers.
    async fn commit(&mut self, mut group: Group) -> Result<(), redb::Error> {
        if !group.is_clean() {
            let mut record = std::mem::take(&mut group.record);
            record.head = self.core.keyspace.read().head();
            record.index = self.index;
            let journal = self.journal.clone();
            let committed = tokio::task::spawn_blocking(move || journal.commit(&record)).await;
            match committed {
                Ok(done) => done?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
            self.publish();
        }
        for answer in group.answers {
            answer();
        }
        Ok(())
    }

    fn publish(&self) {
        let progress = {
            let mut keyspace = self.core.keyspace.write();
            keyspace.publish();
            Progress { published: keyspace.published(), compacted: keyspace.compacted(), index: self.index }
        };
        self.core.progress.send_replace(progress);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::core::{Identity, Storage};
    use crate::disk::{Files, Folder, Switch};

    /// A writer on a folder, without a network.
    fn writer(folder: &std::path::Path, retention: Retention) -> Arc<Core> {
        let switch = Switch::default();
        let folder = Folder::claim(folder).unwrap();
        let (journal, recovered) = Journal::open(folder, &Files, switch.clone(), (1, 2)).unwrap();
        let (jobs, queue) = mpsc::channel(QUEUED_REQUESTS);
        let identity = Identity { cluster: 1, member: 2, term: recovered.term };
        let closing = CancellationToken::new();
        let journal = Arc::new(journal);
        let disk = Storage { switch, journal: Arc::downgrade(&journal) };
        let core = Arc::new(Core::new(identity, recovered.keyspace, 0, disk, String::new(), closing, jobs));
        tokio::spawn(Writer::new(core.clone(), journal, LeaseBook::default(), retention).run(queue));
        core
    }

    async fn put(core: &Core, key: &str, lease: i64) -> i64 {
        let request = PbPutRequest { key: key.into(), lease, ..PbPutRequest::default() };
        core.submit(1, |reply| Request::Put(request, reply)).await.unwrap().header.unwrap().revision
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_takes_its_keys_along_in_one_revision_when_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let core = writer(folder.path(), Retention::UNBOUNDED);
        let (id, ttl) = core.submit(0, |reply| Request::Grant { id: 7, ttl: 10, reply }).await.unwrap();
        assert_eq!((id, ttl), (7, 10));
        put(&core, "a", 7).await;
        assert_eq!(put(&core, "b", 7).await, 3);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(core.submit(0, |reply| Request::Renew { id: 7, reply }).await, Ok(Some(10)));
        let mut progress = core.progress.subscribe();
        let renewed = Instant::now();
        progress.changed().await.unwrap();
        assert_eq!(renewed.elapsed().as_secs(), 10);
        assert_eq!(progress.borrow().published, 4);
        assert_eq!(core.keyspace.read().events(4, 4).count(), 2);
        assert_eq!(core.submit(0, |reply| Request::Renew { id: 7, reply }).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_store_publishes_nothing_in_a_whole_day() {
        let folder = tempfile::tempdir().unwrap();
        let core = writer(folder.path(), Retention::UNBOUNDED);
        put(&core, "a", 0).await;
        let mut progress = core.progress.subscribe();
        let day = Duration::from_secs(24 * 3600);
        assert!(tokio::time::timeout(day, progress.changed()).await.is_err());
    }

    #[tokio::test]
    async fn history_over_the_retention_is_forgotten_and_what_lives_stays() {
        let folder = tempfile::tempdir().unwrap();
        let core = writer(folder.path(), Retention { revisions: 10, bytes: usize::MAX });
        for n in 0..40 {
            put(&core, if n == 0 { "first" } else { "k" }, 0).await;
        }
        // An answered compaction means that the one before it, by the writer itself, is done.
        let refused = core.submit(0, |reply| Request::Compact(0, reply)).await;
        assert_eq!(refused, Err(Refusal::Compacted));
        let keyspace = core.keyspace.read();
        assert!(keyspace.published() - keyspace.compacted() <= 10, "{}", keyspace.compacted());
        assert!(keyspace.view().get(b"first").is_some() && keyspace.view().get(b"k").is_some());
        assert!(keyspace.events(0, 100).count() <= 11);
    }
}
