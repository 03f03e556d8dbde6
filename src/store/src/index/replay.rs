//! Turns of the past: a watch from an old revision, with no more of the state around it than its events touch.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbKeyValue, PbTxnOpResponse, PbWatchResponse};
use etcd_client::{GetOptions, Txn, TxnOp, WatchOptions, WatchStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::Index;
use super::feed::{Part, revision_of};
use super::state::{Changed, IndexState};
use super::turns::{Touched, Turn};
use crate::key::Key;
use crate::store::{Store, StoreError};

/// Keys read in one transaction: below etcd's limit of 128 operations.
const READS: usize = 100;

/// Who wants to be told of more than so many keys' past reads what is now.
const MAX_KEYS: usize = 20_000;

/// Where nothing came for so long, the store is asked how far it has told.
const QUIET: Duration = Duration::from_secs(1);

/// The id of a watch's answer to that.
const PROGRESS: i64 = -1;

/// How far the store has told, by its own word.
///
/// An etcd before 3.4.25 answers ahead of events that it has yet to send, and, where many ask for long histories, for seconds. So
/// its word counts only once it has told the newest event that is known from elsewhere; and then the word before the last, for
/// events that nobody here knows of: deletions before the index was listed.
#[derive(Debug)]
struct Progress {
    /// It has told all events up to this revision.
    reached: i64,
    /// What it said last, since the last event; 0: nothing.
    said: i64,
}

impl Progress {
    fn event(&mut self, revision: i64) {
        (self.reached, self.said) = (revision, 0);
    }

    /// It says that it has told all up to a revision; that up to which this is certain.
    fn answer(&mut self, revision: i64, newest_event: i64) -> Option<i64> {
        let before = std::mem::replace(&mut self.said, revision);
        (before > 0 && self.reached >= newest_event).then_some(before)
    }
}

/// A walk through the store's history.
pub struct Replay {
    store: Store,
    stream: WatchStream,
    part: Part,
    /// What is known of the present.
    index: Index,
    /// When the store is asked how far it has told.
    ask_at: Instant,
    progress: Progress,
    /// Holds the keys that were touched so far, as of the revision that was told last.
    state: IndexState,
    known: HashSet<Key>,
    ready: VecDeque<Turn>,
    room: Arc<Semaphore>,
    /// One for each known key.
    taken: Option<OwnedSemaphorePermit>,
}

impl Replay {
    /// Begins at a revision, with it. It goes on into the present and never ends by itself. `room` is what all walks together may
    /// keep, in keys; `index` is of the same store.
    pub async fn start(store: &Store, index: &Index, revision: i64, room: &Arc<Semaphore>) -> Result<Self, StoreError> {
        let options = WatchOptions::new().with_prefix().with_start_revision(revision).with_fragment();
        let mut watches = store.watches().await?;
        let stream = store.answer(watches.watch(store.keyspace().root(), Some(options))).await?;
        let (part, state) = (Part::default(), IndexState::default());
        Ok(Self {
            store: store.clone(),
            stream,
            part,
            index: index.clone(),
            ask_at: Instant::now() + QUIET,
            progress: Progress { reached: revision - 1, said: 0 },
            state,
            known: HashSet::new(),
            ready: VecDeque::new(),
            room: Arc::clone(room),
            taken: None,
        })
    }

    /// The next revision, without pods where it touched nothing that is told of; also one that touched nothing at all, when the
    /// store says in a quiet time that it has told all up to it. After an error, also of compaction, it is at its end. Not to be
    /// cancelled and taken up again.
    pub async fn next(&mut self) -> Result<Turn, StoreError> {
        loop {
            if let Some(turn) = self.ready.pop_front() {
                return Ok(turn);
            }
            let response = self.message().await?;
            if response.created {
                continue;
            }
            if response.watch_id == PROGRESS {
                let newest = self.index.read(IndexState::newest_event);
                let told = self.progress.answer(response.header.map_or(0, |header| header.revision), newest);
                if let Some(revision) = told.filter(|_| !self.part.is_open()) {
                    return Ok(Turn { revision, pods: Vec::new() });
                }
                continue;
            }
            let step = self.part.take(response);
            for events in step.events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
                self.revision(events).await?;
                self.progress.event(events.first().map_or(0, revision_of));
            }
        }
    }

    /// The next of the watch's own; asks for one where none comes.
    async fn message(&mut self) -> Result<PbWatchResponse, StoreError> {
        let lost = |reason: String| StoreError::Unavailable { endpoints: "the watch".to_owned(), reason };
        loop {
            let message = tokio::select! {
                message = self.stream.message() => message,
                () = sleep_until(self.ask_at) => {
                    self.stream.request_progress().await.map_err(|error| lost(error.to_string()))?;
                    self.ask_at = Instant::now() + QUIET;
                    continue;
                }
            };
            self.ask_at = Instant::now() + QUIET;
            let response = match message {
                Ok(Some(response)) => response.0,
                Ok(None) => return Err(lost("the server ended the stream".to_owned())),
                Err(error) => return Err(lost(error.to_string())),
            };
            if response.canceled {
                return Err(if response.compact_revision > 0 { StoreError::Compacted } else { lost(response.cancel_reason) });
            }
            return Ok(response);
        }
    }

    async fn revision(&mut self, events: &[PbEvent]) -> Result<(), StoreError> {
        let revision = events.first().map_or(0, revision_of);
        let touched = Touched::by(self.store.keyspace(), events);
        let unknown: Vec<Key> = touched.keys().filter(|key| !self.known.contains(key)).collect();
        if self.known.len() + unknown.len() > MAX_KEYS {
            return Err(StoreError::TooLarge(format!("more than {MAX_KEYS} keys changed since then")));
        }
        self.make_room(unknown.len())?;
        for keys in unknown.chunks(READS) {
            self.read(keys, revision - 1).await?;
        }
        self.known.extend(unknown);
        let before = touched.excerpts(&self.state);
        for event in events {
            let Some(kv) = event.kv.as_ref() else { continue };
            match self.store.keyspace().parse(&kv.key).filter(|key| self.known.contains(key)) {
                Some(key) if event.r#type == 0 => self.put(key, kv.clone()),
                Some(key) => self.state.delete(&key, &mut Changed::default()),
                None => {}
            }
        }
        self.ready.push_back(touched.turn(revision, before, &self.state));
        Ok(())
    }

    fn make_room(&mut self, keys: usize) -> Result<(), StoreError> {
        let full = || {
            StoreError::TooLarge("others who ask for what they missed leave no room for all the keys that changed since then".to_owned())
        };
        let more = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(keys).map_err(|_| full())?).map_err(|_| full())?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Reads keys as they stood at a revision.
    async fn read(&mut self, keys: &[Key], revision: i64) -> Result<(), StoreError> {
        if revision <= 0 {
            return Ok(());
        }
        let get = |key: &Key| TxnOp::get(self.store.keyspace().encode(key), Some(GetOptions::new().with_revision(revision)));
        let txn = Txn::new().and_then(keys.iter().map(get).collect::<Vec<_>>());
        let mut kv = self.store.kv().await?;
        let answer = self.store.answer(kv.txn(txn)).await?;
        for response in answer.0.responses {
            if let Some(PbTxnOpResponse::ResponseRange(range)) = response.response {
                for kv in range.kvs {
                    if let Some(key) = self.store.keyspace().parse(&kv.key) {
                        self.put(key, kv);
                    }
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Key, kv: PbKeyValue) {
        self.state.put(key, Bytes::from(kv.value), kv.mod_revision, kv.create_revision, &mut Changed::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_word_counts_only_behind_the_newest_known_event_and_only_when_it_was_said_before() {
        let mut progress = Progress { reached: 4, said: 0 };
        for _ in 0..5 {
            assert_eq!(progress.answer(90, 80), None, "the event at 80 is yet to come");
        }
        progress.event(79);
        assert_eq!((progress.answer(90, 80), progress.answer(91, 80)), (None, None));
        progress.event(80);
        assert_eq!((progress.answer(91, 80), progress.answer(95, 80)), (None, Some(91)));
        assert_eq!(progress.answer(96, 96), None, "another event has become known");
        let mut from_now = Progress { reached: 80, said: 0 };
        assert_eq!((from_now.answer(90, 80), from_now.answer(90, 80)), (None, Some(90)), "of nothing but revisions of others");
    }
}
