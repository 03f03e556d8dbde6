//! One lease a process, kept alive.
//!
//! The store counts a lease from when it handles a keep-alive; we count from when we sent it, and a tenth less. So
//! whoever rests on the lease has heard that it is lost before the store gives it to anyone else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podium_retry::Backoff;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::Store;

/// How a process holds its lease.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// How long the lease outlives its process: how long a crashed leader's work stands still. Whole seconds; etcd
    /// grants no less than 2.
    pub ttl: Duration,
    /// Who this process is, for people who look at the election keys.
    pub identity: String,
}

/// The lease of one process. Cheap to clone; the lease is revoked with the last clone.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _last: Arc<DropGuard>,
    ended: CancellationToken,
}

struct Shared {
    store: Store,
    config: SessionConfig,
    lease: watch::Sender<Option<Lease>>,
    doubt: Arc<Notify>,
}

/// A lease as long as it is held.
#[derive(Debug, Clone)]
pub struct Lease {
    /// etcd's id of it.
    pub id: i64,
    /// Cancelled when it is lost, or may be.
    pub lost: CancellationToken,
    /// Told when something speaks against the lease: the store is then asked at once.
    pub(crate) doubt: Arc<Notify>,
    /// Cancelled by who can't take back otherwise what rests on the lease: it is kept alive no more.
    pub(crate) given_up: CancellationToken,
}

impl Session {
    /// Starts to hold a lease. Needs a tokio runtime.
    pub fn start(store: &Store, config: SessionConfig) -> Self {
        let shared = Arc::new(Shared { store: store.clone(), config, lease: watch::Sender::new(None), doubt: Arc::default() });
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(run(shared.clone(), stop.clone(), ended.clone().drop_guard()));
        Self { shared, stop: stop.clone(), _last: Arc::new(stop.drop_guard()), ended }
    }

    /// The lease that is held, waiting until there is one.
    pub async fn lease(&self) -> Lease {
        let mut leases = self.shared.lease.subscribe();
        let held = leases.wait_for(Option::is_some).await.ok().and_then(|lease| lease.clone());
        match held {
            Some(lease) => lease,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// The lease that is held right now.
    pub fn held(&self) -> Option<Lease> {
        self.shared.lease.borrow().clone()
    }

    /// Gives everything up that rests on the lease, in every clone: leaderships are lost at once, and the lease is
    /// revoked, so that others need not wait for its end.
    pub async fn close(self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }

    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(crate) fn identity(&self) -> Bytes {
        Bytes::copy_from_slice(self.shared.config.identity.as_bytes())
    }
}

async fn run(shared: Arc<Shared>, stop: CancellationToken, _ended: DropGuard) {
    let mut backoff = Backoff::reconnect();
    loop {
        let held = tokio::select! {
            () = stop.cancelled() => return,
            held = grant(&shared) => held,
        };
        if let Some(held) = held {
            backoff.reset();
            let lease = held.lease.clone();
            shared.lease.send_replace(Some(lease.clone()));
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = lease.given_up.cancelled() => false,
                reason = shared.store.locked_out() => {
                    tracing::error!(reason, "the store lets us write no more: who leads here can do nothing, and others may");
                    lease.given_up.cancel();
                    false
                }
                reason = keep(&shared, held) => {
                    tracing::warn!(lease = format!("{:x}", lease.id), reason, "the lease is lost, and every leadership with it");
                    false
                }
            };
            lease.lost.cancel();
            shared.lease.send_replace(None);
            if lease.given_up.is_cancelled() {
                tracing::warn!(lease = format!("{:x}", lease.id), "the lease is given up, and every leadership with it");
            }
            if stopped || lease.given_up.is_cancelled() {
                revoke(&shared.store, lease.id).await;
            }
            if stopped {
                return;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

struct Held {
    lease: Lease,
    ttl: Duration,
    /// Not held any more from here on.
    until: Instant,
}

async fn grant(shared: &Shared) -> Option<Held> {
    let sent = Instant::now();
    let seconds = i64::try_from(shared.config.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
    let granted = async { shared.store.answer(shared.store.leases().await?.grant(seconds, None)).await };
    match granted.await {
        Ok(granted) => {
            let ttl = seconds_of(granted.ttl());
            let (lost, given_up) = (CancellationToken::new(), CancellationToken::new());
            let lease = Lease { id: granted.id(), lost, doubt: shared.doubt.clone(), given_up };
            Some(Held { lease, ttl, until: deadline(sent, ttl) })
        }
        Err(error) => {
            tracing::warn!(%error, "no lease from the store; trying again");
            None
        }
    }
}

fn seconds_of(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

fn deadline(sent: Instant, ttl: Duration) -> Instant {
    sent + ttl - ttl / 10
}

/// Keeps the lease until it is lost; says why.
async fn keep(shared: &Shared, mut held: Held) -> &'static str {
    let mut backoff = Backoff::reconnect();
    let mut next_beat = Instant::now() + held.ttl / 3;
    loop {
        if let Some(reason) = beat(shared, &mut held, &mut next_beat, &mut backoff).await {
            return reason;
        }
        // The stream broke: open another, as long as there is time.
        let again = Instant::now() + backoff.next_delay();
        if again >= held.until {
            sleep_until(held.until).await;
            return "the store did not answer in time";
        }
        sleep_until(again).await;
        next_beat = Instant::now();
    }
}

/// Keeps the lease over one stream; `None`: the stream broke.
async fn beat(shared: &Shared, held: &mut Held, next_beat: &mut Instant, backoff: &mut Backoff) -> Option<&'static str> {
    const LATE: &str = "the store did not answer in time";
    const GONE: &str = "the store has dropped it";
    rest(shared, (*next_beat).min(held.until)).await;
    let sent = Instant::now();
    // One lost answer is not the end: after a third of the time the stream is opened anew.
    let patience = |sent: Instant, held: &Held| (sent + held.ttl / 3).min(held.until);
    let mut leases = shared.store.leases().await.ok()?;
    let (mut keeper, mut answers) = match timeout_at(patience(sent, held), leases.keep_alive(held.lease.id)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(etcd_client::Error::LeaseKeepAliveError(_))) => return Some(GONE),
        Ok(Err(_)) => return None,
        Err(_) if Instant::now() >= held.until => return Some(LATE),
        Err(_) => return None,
    };
    held.until = deadline(sent, held.ttl);
    backoff.reset();
    loop {
        rest(shared, Instant::now() + held.ttl / 3).await;
        let sent = Instant::now();
        if sent >= held.until {
            return Some(LATE);
        }
        keeper.keep_alive().await.ok()?;
        match timeout_at(patience(sent, held), answers.message()).await {
            Ok(Ok(Some(answer))) if answer.ttl() <= 0 => return Some(GONE),
            Ok(Ok(Some(answer))) => held.until = deadline(sent, seconds_of(answer.ttl())),
            Ok(Ok(None) | Err(_)) => return None,
            Err(_) if Instant::now() >= held.until => return Some(LATE),
            Err(_) => return None,
        }
    }
}

/// Waits for the next beat, or for a doubt.
async fn rest(shared: &Shared, until: Instant) {
    tokio::select! {
        () = sleep_until(until) => {}
        () = shared.doubt.notified() => {}
    }
}

/// Best effort: otherwise the lease runs out by itself.
async fn revoke(store: &Store, id: i64) {
    let revoked = async { store.answer(store.leases().await?.revoke(id)).await };
    if let Err(error) = revoked.await {
        tracing::info!(%error, "the lease could not be revoked and will run out");
    }
}
