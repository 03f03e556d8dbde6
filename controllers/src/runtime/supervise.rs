//! Elections around work: whoever is elected works for one term; a term that ends badly costs that one election and
//! nothing else. Used for the controllers of [`super::drive`] and for the gateway, which has a driver of its own.

use std::sync::Arc;
use std::time::Duration;

use podium_retry::Backoff;
use podium_store::{Election, Index, Leadership, Session, Store, Writer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Clock;

/// What all controllers of one process stand on.
#[derive(Clone)]
pub struct Stage {
    /// The store.
    pub store: Store,
    /// Everything in it, in memory.
    pub index: Index,
    /// The lease that all elections rest on.
    pub session: Session,
    /// The time.
    pub clock: Clock,
    /// How long a controller may be busy with one thing before its election is given up.
    pub patience: Duration,
    /// Cancelled to stop.
    pub stop: CancellationToken,
}

/// One term of office.
#[derive(Clone)]
pub struct Term {
    /// The store.
    pub store: Store,
    /// Everything in it; it has reached `create_revision`.
    pub index: Index,
    /// Writes fenced by this leadership.
    pub writer: Writer,
    /// The time.
    pub clock: Clock,
    /// The revision at which the leadership began: nothing older may be decided on.
    pub create_revision: i64,
    /// The lease that the leadership rests on.
    pub lease: i64,
    /// Cancelled when the leadership is over: stop at once.
    pub lost: CancellationToken,
    /// Tells the watchdog what is going on.
    pub pulse: Pulse,
}

/// Why a term ended while the leadership was not lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Tells the watchdog when work begins and ends. Idle takes no sign of life, and so no timer.
#[derive(Debug, Clone)]
pub struct Pulse {
    busy: Arc<watch::Sender<u64>>,
}

/// Busy until it is dropped.
pub struct Busy<'a>(&'a Pulse);

impl Pulse {
    fn new() -> Self {
        Self { busy: Arc::new(watch::Sender::new(0)) }
    }

    /// Work begins; it must end within the patience of the stage.
    pub fn busy(&self) -> Busy<'_> {
        self.busy.send_modify(|count| *count += 1);
        Busy(self)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.send_modify(|count| *count += 1);
    }
}

/// Returns when something has been busy for longer than `patience` without a sign of life. Odd counts mean busy.
async fn watch_over(mut busy: watch::Receiver<u64>, patience: Duration) {
    loop {
        let count = *busy.borrow_and_update();
        let changed = busy.changed();
        let heard = match count % 2 {
            0 => changed.await.is_ok(),
            _ => match tokio::time::timeout(patience, changed).await {
                Ok(changed) => changed.is_ok(),
                Err(_) => return,
            },
        };
        if !heard {
            // The work is over, and nobody is left who could hang.
            std::future::pending::<()>().await;
        }
    }
}

/// Runs `work` for each term that is won, until the stage stops. Ends with the election resigned.
pub async fn supervise<F, Fut>(stage: Stage, name: &'static str, work: F)
where
    F: Fn(Term) -> Fut,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let election = Election::new(&stage.session, &stage.index, name);
    let mut backoff = Backoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(60));
    loop {
        let leadership = tokio::select! {
            () = stage.stop.cancelled() => return,
            leadership = election.campaign() => leadership,
        };
        let elected = tokio::time::Instant::now();
        let end = serve(&stage, &leadership, &work).await;
        leadership.resign().await;
        let Some(failure) = end else {
            if stage.stop.is_cancelled() {
                return;
            }
            continue;
        };
        if elected.elapsed() > Duration::from_secs(300) {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        tracing::error!(controller = name, %failure, ?delay, "a controller failed: its election is given up, the others go on");
        tokio::select! {
            () = stage.stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// One term; the failure that ended it, if one did.
async fn serve<F, Fut>(stage: &Stage, leadership: &Leadership, work: &F) -> Option<Failure>
where
    F: Fn(Term) -> Fut,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let pulse = Pulse::new();
    let watchdog = watch_over(pulse.busy.subscribe(), stage.patience);
    let lost = leadership.lost().clone();
    let term = Term {
        store: stage.store.clone(),
        index: stage.index.clone(),
        writer: Writer::start(&stage.store, leadership),
        clock: stage.clock,
        create_revision: leadership.create_revision(),
        lease: leadership.lease(),
        lost: lost.clone(),
        pulse,
    };
    let mut working = AbortOnDrop(tokio::spawn(work(term)));
    tokio::select! {
        () = stage.stop.cancelled() => None,
        () = lost.cancelled() => None,
        () = watchdog => Some(Failure(format!("gave no sign of life for {:?}", stage.patience))),
        end = &mut working.0 => match end {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(panic) => Some(Failure(format!("panicked: {panic}"))),
        },
    }
}

/// What is not over must not go on behind the back of the next term.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_hangs_is_noticed_and_who_is_idle_is_not() {
        let pulse = Pulse::new();
        let watchdog = watch_over(pulse.busy.subscribe(), PATIENCE);
        tokio::pin!(watchdog);
        let idle = tokio::time::timeout(Duration::from_secs(100_000), &mut watchdog).await;
        assert!(idle.is_err(), "idle is no hanging");
        for _ in 0..5 {
            let busy = pulse.busy();
            assert!(tokio::time::timeout(Duration::from_secs(9), &mut watchdog).await.is_err());
            drop(busy);
        }
        let start = tokio::time::Instant::now();
        let _busy = pulse.busy();
        watchdog.await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
