//! The index: everything under the prefix in memory, fed by one watch, shared by every reader of the process.
//!
//! It promises: a reader sees all keys at one revision, whole transactions only; a change reaches every
//! subscriber that asked for its kind, at least once; what waits for a slow subscriber is a set of pod ids and
//! never a queue of events. It survives lost connections, compaction and restored stores by itself.

mod feed;
mod replay;
mod state;
mod subscribe;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use replay::Replay;
pub use state::{Candidate, IndexState, Kinds, Stray};
pub use subscribe::{Batch, Changes};
pub use turns::{Excerpt, InstanceRecords, PodTurn, Told, Turn, Turns};

use crate::store::Store;
use state::Changed;
use subscribe::Subscribers;

/// The index of one process. Cheap to clone; the feed ends with the last clone.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
    _feed: Arc<DropGuard>,
}

/// Where the index stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// See [`IndexState::revision`]; 0: the first list is not complete.
    pub revision: i64,
    /// See [`IndexState::generation`].
    pub generation: u64,
}

/// The index did not come as far as was asked for, in the time given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index stands at revision {} and did not reach {wanted} in time; is the store reachable?", reached.revision)]
pub struct Behind {
    /// Where it stands.
    pub reached: Position,
    /// What was waited for.
    pub wanted: i64,
}

struct Shared {
    state: RwLock<IndexState>,
    position: watch::Sender<Position>,
    subscribers: Subscribers,
    turns: tokio::sync::broadcast::Sender<Told>,
}

impl Index {
    /// Starts to feed an index from the store; it is empty until [`Index::ready`]. Needs a tokio runtime.
    pub fn start(store: &Store) -> Self {
        let shared = Arc::new(Shared {
            state: RwLock::default(),
            position: watch::Sender::new(Position::default()),
            subscribers: Subscribers::default(),
            turns: turns::sender(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(feed::run(shared.clone(), store.clone(), stop.clone()));
        Self { shared, _feed: Arc::new(stop.drop_guard()) }
    }

    /// Waits until the first list is complete. Retries for ever: bound it with a time-out where that matters.
    pub async fn ready(&self) {
        // The sender lives as long as `self`: this can't fail.
        let _ = self.shared.position.subscribe().wait_for(|position| position.revision > 0).await;
    }

    /// Looks at the index. The closure runs under a read lock: keep it short, and take no second look inside.
    pub fn read<R>(&self, look: impl FnOnce(&IndexState) -> R) -> R {
        look(&self.shared.state.read())
    }

    /// Where the index stands now.
    pub fn position(&self) -> Position {
        self.read(IndexState::position)
    }

    /// Hears of every later change of position.
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.shared.position.subscribe()
    }

    /// Waits until the index has reached a revision of this generation. Only revisions of writes under the prefix
    /// are sure to be reached: others' writes do not reach the index.
    pub async fn wait_for(&self, revision: i64, timeout: Duration) -> Result<Position, Behind> {
        let mut positions = self.shared.position.subscribe();
        let arrived = tokio::time::timeout(timeout, positions.wait_for(|position| position.revision >= revision)).await;
        match arrived {
            Ok(Ok(position)) => Ok(*position),
            _ => Err(Behind { reached: self.position(), wanted: revision }),
        }
    }

    /// Hears of every single revision from now on.
    pub fn turns(&self) -> Turns {
        // Registered first: the feed looks for followers under the lock that the position is read under.
        let receiver = self.shared.turns.subscribe();
        Turns::new(receiver, self.position())
    }

    /// Hears of changes of these kinds of keys. The first batch names every pod that there is.
    pub fn changes(&self, kinds: Kinds) -> Changes {
        Changes::new(self.clone(), kinds)
    }
}

impl Shared {
    /// Publishes what `step` does to the state: first the state, then who is to look again, then the position.
    fn update(&self, step: impl FnOnce(&mut IndexState) -> Changed) {
        let (changed, position) = {
            let mut state = self.state.write();
            let changed = step(&mut state);
            (changed, state.position())
        };
        self.subscribers.notify(&changed, position);
        self.position.send_replace(position);
    }
}
