//! Elections: who of many replicas runs a controller.
//!
//! One lease a process ([`Session`]), one key a controller under that lease, `elections/<name>/<lease>`; the candidate
//! of the lowest create revision leads. That revision is the fence of its writes, so that losing an election late
//! harms nothing. A leadership is lost at once when its key goes, when the lease goes, or when the lease may have
//! gone by our own monotonic clock; and it is given up by [`Leadership::resign`], by dropping it (a panic does), or by
//! a [`Watchdog`] that is not fed.

mod predecessor;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::Txn;
use podium_retry::Backoff;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use predecessor::end_sessions_of;
pub use session::{Lease, Session, SessionConfig};

use crate::index::{Index, Kinds};
use crate::key::{Key, Kind};
use crate::store::{LASTING, Store, StoreError};
use crate::writer::batch::Answer;
use crate::writer::{Compare, Group, Op, Outcome};

/// One election, as one process sees it.
#[derive(Clone)]
pub struct Election {
    session: Session,
    index: Index,
    name: String,
}

/// This process leads an election, until [`Leadership::lost`]. Dropping it gives it up.
pub struct Leadership {
    reign: Reign,
    candidacy: Arc<Candidacy>,
}

/// What a writer needs to know of a leadership.
#[derive(Debug, Clone)]
pub(crate) struct Reign {
    pub key: Key,
    pub create_revision: i64,
    pub lease: i64,
    pub identity: Bytes,
    pub lost: CancellationToken,
}

impl Election {
    /// The election of this name: lower-case letters, digits and hyphens, as a controller's name is.
    pub fn new(session: &Session, index: &Index, name: &str) -> Self {
        Self { session: session.clone(), index: index.clone(), name: name.to_owned() }
    }

    /// Stands for election and waits until it is won. Dropping the future withdraws.
    pub async fn campaign(&self) -> Leadership {
        let mut backoff = Backoff::reconnect();
        loop {
            let lease = self.session.lease().await;
            let key = Key::Election(self.name.clone(), lease.id);
            // From here on the key may be there: whatever happens, it is withdrawn in the end.
            let mut candidacy = Candidacy::new(self.session.store().clone(), key, &lease);
            if let Some(create_revision) = self.stand(&candidacy).await {
                candidacy.create_revision = create_revision;
                if let Some(leadership) = self.win(&lease, candidacy).await {
                    return leadership;
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Puts our key, unless it is there already; its create revision. `None`: the lease was lost meanwhile.
    async fn stand(&self, candidacy: &Candidacy) -> Option<i64> {
        let Key::Election(_, lease) = candidacy.key else { return None };
        let absent = Compare::Absent(candidacy.key.clone());
        let put = Op::PutLeased(candidacy.key.clone(), self.session.identity(), lease);
        let mut backoff = Backoff::reconnect();
        loop {
            let keys = candidacy.store.keyspace();
            let txn = Txn::new().when([absent.to_etcd(keys)]).and_then([put.to_etcd(keys)]).or_else([absent.to_read(keys)]);
            match candidacy.store.transact(txn).await {
                Ok(Answer { first_read: Some((create_revision, _)), .. }) => return Some(create_revision),
                Ok(answer) => return Some(answer.revision),
                Err(error) => {
                    tracing::warn!(election = self.name, %error, "can't stand for election; trying again");
                    if matches!(error, StoreError::Refused(_)) {
                        candidacy.lease.doubt.notify_one();
                    }
                }
            }
            tokio::select! {
                () = candidacy.lost.cancelled() => return None,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Waits until our key is the oldest one; `None`: it is gone.
    async fn win(&self, lease: &Lease, candidacy: Candidacy) -> Option<Leadership> {
        let mut changes = self.index.changes(Kinds::of(&[Kind::Election]));
        loop {
            match standing(&self.index, &self.name, &candidacy) {
                Standing::Leads => break,
                Standing::Gone => return None,
                Standing::Waits => {}
            }
            tokio::select! {
                () = lease.lost.cancelled() => return None,
                batch = changes.next() => if batch.replaced { return None },
            }
        }
        let reign = Reign {
            key: candidacy.key.clone(),
            create_revision: candidacy.create_revision,
            lease: lease.id,
            identity: self.session.identity(),
            lost: candidacy.lost.clone(),
        };
        tracing::info!(election = self.name, revision = reign.create_revision, "leads");
        let leadership = Leadership { reign: reign.clone(), candidacy: Arc::new(candidacy) };
        tokio::spawn(guard(self.index.clone(), self.name.clone(), leadership.candidacy.clone(), changes));
        Some(leadership)
    }
}

/// Ends a leadership when its key is no longer the oldest.
async fn guard(index: Index, name: String, candidacy: Arc<Candidacy>, mut changes: crate::index::Changes) {
    loop {
        tokio::select! {
            () = candidacy.lost.cancelled() => break,
            batch = changes.next() => {
                if batch.replaced || !matches!(standing(&index, &name, &candidacy), Standing::Leads) {
                    break;
                }
            }
        }
    }
    if !candidacy.withdrawn.load(Ordering::Acquire) {
        tracing::warn!(election = name, "leads no longer");
        // Keys go by hand, or with their lease.
        candidacy.lease.doubt.notify_one();
    }
    candidacy.withdraw();
}

enum Standing {
    Leads,
    Waits,
    Gone,
}

fn standing(index: &Index, name: &str, candidacy: &Candidacy) -> Standing {
    index.read(|state| {
        let mut candidates = state.candidates(name);
        let is_ours = |candidate: &crate::index::Candidate| candidate.create_revision == candidacy.create_revision;
        if state.revision() < candidacy.create_revision {
            Standing::Waits
        } else if candidates.next().is_some_and(is_ours) {
            Standing::Leads
        } else if candidates.any(is_ours) {
            Standing::Waits
        } else {
            Standing::Gone
        }
    })
}

impl Leadership {
    /// The revision at which this leadership's key came into being: the fence of its writes, and what an index must
    /// have reached before anything is decided.
    pub fn create_revision(&self) -> i64 {
        self.reign.create_revision
    }

    /// The lease that it rests on; also for keys that are to go with it.
    pub fn lease(&self) -> i64 {
        self.reign.lease
    }

    /// Cancelled once this process leads no longer: stop at once.
    pub fn lost(&self) -> &CancellationToken {
        &self.reign.lost
    }

    /// Gives it up, and returns when the key is deleted, its lease is gone, or, where the store refuses us, nothing keeps it alive.
    pub async fn resign(self) {
        if let Some(deletion) = self.candidacy.withdraw() {
            // Aborted only when the runtime shuts down.
            let _ = deletion.await;
        }
    }

    /// Something that must be fed every so often, or the leadership is given up: for a controller that hangs.
    pub fn watchdog(&self, limit: Duration) -> Watchdog {
        let fed = Arc::new(Notify::new());
        tokio::spawn(watch(self.candidacy.clone(), fed.clone(), limit));
        Watchdog { fed }
    }

    pub(crate) fn reign(&self) -> Reign {
        self.reign.clone()
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.candidacy.withdraw();
    }
}

/// See [`Leadership::watchdog`].
#[derive(Debug, Clone)]
pub struct Watchdog {
    fed: Arc<Notify>,
}

impl Watchdog {
    /// Says that the controller is alive.
    pub fn feed(&self) {
        self.fed.notify_one();
    }
}

async fn watch(candidacy: Arc<Candidacy>, fed: Arc<Notify>, limit: Duration) {
    loop {
        tokio::select! {
            () = candidacy.lost.cancelled() => return,
            outcome = tokio::time::timeout(limit, fed.notified()) => if outcome.is_err() {
                tracing::error!(election = %candidacy.key, ?limit, "gave no sign of life: this leadership is given up");
                candidacy.withdraw();
                return;
            }
        }
    }
}

/// Our key in an election; it is deleted when this is dropped.
struct Candidacy {
    store: Store,
    key: Key,
    /// 0: not known yet.
    create_revision: i64,
    lost: CancellationToken,
    lease: Lease,
    withdrawn: AtomicBool,
}

impl Candidacy {
    fn new(store: Store, key: Key, lease: &Lease) -> Self {
        Self { store, key, create_revision: 0, lost: lease.lost.child_token(), lease: lease.clone(), withdrawn: AtomicBool::new(false) }
    }

    /// Ends it: first for us, then in the store. `None`: that was done before, or can't be done here.
    fn withdraw(&self) -> Option<tokio::task::JoinHandle<()>> {
        self.lost.cancel();
        if self.withdrawn.swap(true, Ordering::AcqRel) {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let same = match self.create_revision {
            0 => Compare::Present(self.key.clone()),
            revision => Compare::SameLife(self.key.clone(), revision),
        };
        let group = Group::global().when(same).then(Op::Delete(self.key.clone()));
        Some(runtime.spawn(delete(self.store.clone(), group, self.lease.clone())))
    }
}

impl Drop for Candidacy {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// A key that stays would lead, and nobody behind it: so it is deleted, however long that takes, or goes with its lease. A store that
/// refuses us, as after a change of our password, would keep the key for as long as the lease is kept alive.
async fn delete(store: Store, group: Group, lease: Lease) {
    let mut backoff = Backoff::reconnect();
    let mut refused_since: Option<tokio::time::Instant> = None;
    loop {
        match store.commit(group.clone()).await {
            Outcome::Committed { .. } | Outcome::Conflict { .. } | Outcome::NotLeader => return,
            Outcome::Refused(reason) => {
                tracing::warn!(reason, "the store refuses to delete our election key");
                if refused_since.get_or_insert_with(tokio::time::Instant::now).elapsed() >= LASTING {
                    lease.given_up.cancel();
                }
            }
            Outcome::Unknown { .. } => {}
        }
        tokio::select! {
            () = lease.lost.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}
