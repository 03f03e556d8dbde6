//! Who hears of changes: each subscriber has a set of pods to look at again.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use podium_types::id::PodId;
use tokio::sync::Notify;

use super::state::{Changed, Kinds};
use super::{Index, Position};
use crate::key::Kind;

/// What has changed since the last batch, in the kinds that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The index is at this position or later.
    pub position: Position,
    /// Pods to look at again.
    pub pods: HashSet<PodId>,
    /// Elections whose candidates changed.
    pub elections: BTreeSet<String>,
    /// Whether a spec under a name that is no pod id changed, or its status.
    pub strays: bool,
    /// Whether the framework record changed.
    pub framework: bool,
    /// Whether operators' orders changed.
    pub orders: bool,
    /// Whether the store turned out to be another one or an older state since the last batch
    /// ([`super::IndexState::generation`]). Every pod is named then, gone ones too.
    pub replaced: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.elections.is_empty() && !self.strays && !self.framework && !self.orders && !self.replaced
    }
}

/// A subscription to changes.
pub struct Changes {
    index: Index,
    subscriber: Arc<Subscriber>,
}

struct Subscriber {
    kinds: Kinds,
    waiting: Mutex<Batch>,
    wake: Notify,
}

#[derive(Default)]
pub(super) struct Subscribers {
    all: Mutex<Vec<Weak<Subscriber>>>,
}

impl Changes {
    pub(super) fn new(index: Index, kinds: Kinds) -> Self {
        let subscriber = Arc::new(Subscriber { kinds, waiting: Mutex::default(), wake: Notify::new() });
        // Registered first, filled second: what changes in between is named twice, and nothing is missed.
        index.shared.subscribers.all.lock().push(Arc::downgrade(&subscriber));
        let (everything, position) = index.read(|state| (state.everything(), state.position()));
        if position.revision > 0 {
            subscriber.add(&everything, position);
        }
        Self { index, subscriber }
    }

    /// Waits for changes and takes them all. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Batch {
        loop {
            let woken = self.subscriber.wake.notified();
            let batch = std::mem::take(&mut *self.subscriber.waiting.lock());
            if !batch.is_empty() {
                return batch;
            }
            woken.await;
        }
    }

    /// The index that these changes are of.
    pub fn index(&self) -> &Index {
        &self.index
    }
}

impl Subscriber {
    fn add(&self, changed: &Changed, position: Position) {
        let mut waiting = self.waiting.lock();
        waiting.replaced |= changed.replaced;
        waiting.position = position;
        for (id, kinds) in &changed.pods {
            if self.kinds.meets(*kinds) && !waiting.pods.contains(id) {
                waiting.pods.insert(id.clone());
            }
        }
        if self.kinds.has(Kind::Election) {
            waiting.elections.extend(changed.elections.iter().cloned());
        }
        waiting.strays |= changed.strays && self.kinds.has(Kind::Stray);
        waiting.framework |= changed.framework && self.kinds.has(Kind::Framework);
        waiting.orders |= changed.orders && self.kinds.has(Kind::Order);
        let wake = !waiting.is_empty();
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
    }
}

impl Subscribers {
    pub(super) fn notify(&self, changed: &Changed, position: Position) {
        self.all.lock().retain(|subscriber| match subscriber.upgrade() {
            Some(subscriber) => {
                subscriber.add(changed, position);
                true
            }
            None => false,
        });
    }
}
