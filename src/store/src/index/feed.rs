//! What feeds the index: one list, then one watch from there, again and again.
//!
//! ```text
//!            nothing known, compacted, or the store was replaced
//!   ┌────────────────────────────────────────────────────────────┐
//!   ▼                                                            │
//!  list (pages of one revision) ──► watch from the next revision ┴─► lost: is it still the same store? ─► watch on
//! ```

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchResponse};
use etcd_client::{GetOptions, WatchOptions, WatchStream};
use podium_retry::Backoff;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::state::{Changed, IndexState, Mark};
use super::turns::{Told, Touched, Turn};
use crate::key::Key;
use crate::store::{Store, StoreError};

/// Keys a page. etcd counts the remaining keys for each page, so that small pages cost more in all.
const PAGE: i64 = 5_000;

/// Unknown keys that are named in the log; further ones are passed over in silence.
const MAX_NAMED: usize = 50;

/// Feeds the index until `stop`.
pub(super) async fn run(shared: Arc<Shared>, store: Store, stop: CancellationToken) {
    let feed = Feed { shared, store, backoff: Backoff::reconnect(), unknown: Default::default() };
    tokio::select! {
        () = stop.cancelled() => {}
        () = feed.follow() => {}
    }
}

struct Feed {
    shared: Arc<Shared>,
    store: Store,
    backoff: Backoff,
    /// Keys under the prefix that are not ours and were already named in the log.
    unknown: std::collections::HashSet<Vec<u8>>,
}

/// Why a watch ended.
enum Ended {
    /// The history since our revision is gone: list again.
    Compacted,
    /// Anything else: take it up again where it ended.
    Lost(String),
}

/// What the store is in relation to what the index holds.
enum Standing {
    /// The same store, at our revision or later.
    Same,
    /// Another store, or an older state of the same.
    Replaced(String),
    /// The index holds nothing yet.
    Unknown,
}

impl Feed {
    async fn follow(mut self) {
        let mut list = true;
        loop {
            match self.round(list).await {
                Ok(Ended::Compacted) => {
                    tracing::info!("the store's history was compacted under the index: listing again");
                    list = true;
                }
                Ok(Ended::Lost(reason)) => {
                    list = false;
                    tracing::info!(reason, "the watch ended: taking it up again");
                }
                Err(error) => {
                    tracing::warn!(%error, "the index can't be fed; trying again");
                }
            }
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }

    /// One list where needed, and one watch to its end.
    async fn round(&mut self, list: bool) -> Result<Ended, StoreError> {
        match self.standing().await? {
            Standing::Same if !list => {}
            Standing::Same | Standing::Unknown => self.list(false).await?,
            Standing::Replaced(how) => {
                tracing::error!(how, "the store is not what it was: everything is read anew");
                self.list(true).await?;
            }
        }
        let from = self.shared.state.read().revision;
        let options = WatchOptions::new().with_prefix().with_start_revision(from.saturating_add(1)).with_fragment().with_progress_notify();
        let mut watches = self.store.watches().await?;
        let stream = self.store.answer(watches.watch(self.store.keyspace().root(), Some(options))).await?;
        // The client connects anew without telling: where the store was replaced since we asked, this watch would wait
        // in silence for a revision that is far away.
        match self.standing().await? {
            Standing::Replaced(how) => Ok(Ended::Lost(how)),
            Standing::Same | Standing::Unknown => Ok(self.watch(stream).await),
        }
    }

    /// Asks a majority of the members where the store stands, and whether it remembers what we saw last.
    async fn standing(&self) -> Result<Standing, StoreError> {
        let (revision, cluster_id, mark) = {
            let state = self.shared.state.read();
            (state.revision, state.cluster_id, state.mark.clone())
        };
        if revision == 0 {
            return Ok(Standing::Unknown);
        }
        let mut kv = self.store.kv().await?;
        let key = self.store.keyspace().encode(&Key::Framework);
        let answer = self.store.answer(kv.get(key, Some(GetOptions::new().with_count_only()))).await?;
        let header = answer.0.header.unwrap_or_default();
        if header.cluster_id != cluster_id {
            return Ok(Standing::Replaced(format!("its cluster id is {:x}, it was {cluster_id:x}", header.cluster_id)));
        }
        if header.revision < revision {
            return Ok(Standing::Replaced(format!("it stands at revision {}, it stood at {revision}", header.revision)));
        }
        let Some(mark) = mark else { return Ok(Standing::Same) };
        let (key, seen) = (mark.key, if mark.is_deletion { 0 } else { mark.revision });
        // A restored backup may have been written to since, beyond our revision; but then its past is not ours.
        let then = GetOptions::new().with_revision(revision).with_keys_only();
        match self.store.answer(kv.get(key.clone(), Some(then))).await {
            Ok(answer) if answer.0.kvs.first().map_or(0, |kv| kv.mod_revision) == seen => Ok(Standing::Same),
            Ok(_) => Ok(Standing::Replaced(format!("{} did not stand there at revision {revision}", key.escape_ascii()))),
            // Nobody can tell any more; and the watch will say the same.
            Err(StoreError::Compacted) => Ok(Standing::Same),
            Err(error) => Err(error),
        }
    }

    /// Reads everything, at one revision, and puts it in the place of what was known.
    async fn list(&mut self, replaced: bool) -> Result<(), StoreError> {
        let mut fresh = IndexState::default();
        let root = self.store.keyspace().root().to_owned();
        let end = prefix_end(root.as_bytes());
        let mut from = root.into_bytes();
        let mut limit = PAGE;
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(limit);
            if fresh.revision > 0 {
                options = options.with_revision(fresh.revision);
            }
            let mut kv = self.store.kv().await?;
            let page = match self.store.answer(kv.get(from.clone(), Some(options))).await {
                Err(StoreError::TooLarge(_)) if limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                answer => answer?.0,
            };
            if fresh.revision == 0 {
                let header = page.header.unwrap_or_default();
                (fresh.revision, fresh.cluster_id) = (header.revision, header.cluster_id);
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            for kv in page.kvs {
                self.put(&mut fresh, kv, &mut Changed::default());
            }
            match last {
                Some(mut key) if page.more => {
                    key.push(0);
                    from = key;
                }
                _ => break,
            }
        }
        self.publish(fresh, replaced);
        Ok(())
    }

    fn publish(&self, mut fresh: IndexState, replaced: bool) {
        let mut old = None;
        self.shared.update(|state| {
            fresh.generation = state.generation + u64::from(replaced || state.generation == 0);
            let changed = if replaced {
                let mut all = state.everything();
                all.merge(fresh.everything());
                Changed { replaced, ..all }
            } else {
                state.difference(&fresh)
            };
            old = Some(std::mem::replace(state, fresh));
            changed
        });
        // Freed here and not under the lock.
        drop(old);
        let _ = self.shared.turns.send(Told::Missing);
    }

    /// Follows one watch to its end.
    async fn watch(&mut self, mut stream: WatchStream) -> Ended {
        let mut part = Part::default();
        let mut watch_id = None;
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response.0,
                Ok(None) => return Ended::Lost("the server ended the stream".to_owned()),
                Err(error) => return Ended::Lost(error.to_string()),
            };
            if response.canceled {
                return match response.compact_revision {
                    0 => Ended::Lost(response.cancel_reason),
                    _ => Ended::Compacted,
                };
            }
            self.backoff.reset();
            if response.created {
                watch_id = Some(response.watch_id);
                continue;
            }
            if watch_id == Some(response.watch_id) {
                self.apply(part.take(response));
            }
        }
    }

    fn apply(&mut self, step: Step) {
        if step.revision == 0 {
            return;
        }
        let shared = self.shared.clone();
        let mut turns = Vec::new();
        shared.update(|state| {
            let mut changed = Changed::default();
            // Looked at under the lock: whoever followed before is told of this revision.
            match shared.turns.receiver_count() {
                0 => step.events.into_iter().for_each(|event| self.event(state, event, &mut changed)),
                _ => turns = self.turns(state, step.events, &mut changed),
            }
            if state.revision < step.revision {
                // Followers hear how far the store is, too.
                if turns.last().is_none_or(|turn| turn.revision < step.revision) && shared.turns.receiver_count() > 0 {
                    turns.push(Turn { revision: step.revision, pods: Vec::new() });
                }
                state.revision = step.revision;
            }
            changed
        });
        for turn in turns {
            // Who followed may have left.
            let _ = shared.turns.send(Told::Turn(Arc::new(turn)));
        }
    }

    /// Applies events revision by revision, and keeps what each of them did.
    fn turns(&mut self, state: &mut IndexState, events: Vec<PbEvent>, changed: &mut Changed) -> Vec<Turn> {
        let mut turns = Vec::new();
        for events in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            let touched = Touched::by(self.store.keyspace(), events);
            let before = touched.excerpts(state);
            for event in events {
                self.event(state, event.clone(), changed);
            }
            turns.push(touched.turn(events.first().map_or(0, revision_of), before, state));
        }
        turns
    }

    fn event(&mut self, state: &mut IndexState, event: PbEvent, changed: &mut Changed) {
        let Some(kv) = event.kv else { return };
        match event.r#type {
            0 => self.put(state, kv, changed),
            1 => {
                if let Some(key) = self.store.keyspace().parse(&kv.key) {
                    state.delete(&key, changed);
                }
                state.mark = Some(Mark { key: kv.key, revision: kv.mod_revision, is_deletion: true });
            }
            other => tracing::warn!(other, "an event of an unknown type is passed over"),
        }
    }

    fn put(&mut self, state: &mut IndexState, kv: PbKeyValue, changed: &mut Changed) {
        match self.store.keyspace().parse(&kv.key) {
            Some(key) => state.put(key, Bytes::from(kv.value), kv.mod_revision, kv.create_revision, changed),
            None => self.name_unknown(&kv.key),
        }
        // Lists come in the order of keys, events in that of revisions.
        if kv.mod_revision >= state.newest_event() {
            state.mark = Some(Mark { key: kv.key, revision: kv.mod_revision, is_deletion: false });
        }
    }

    fn name_unknown(&mut self, key: &[u8]) {
        if self.unknown.len() < MAX_NAMED && !self.unknown.contains(key) {
            tracing::warn!(key = %key.escape_ascii(), "not a key that Podium knows; it is passed over");
            self.unknown.insert(key.to_vec());
        }
    }
}

/// Events to apply together, after which the index stands at `revision`; 0: nothing to do yet.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub events: Vec<PbEvent>,
    pub revision: i64,
}

/// Puts together what the server cut into fragments, so that no transaction is ever seen by halves. What is kept
/// back is the last revision of a message that goes on: one transaction at most.
#[derive(Debug, Default)]
pub(super) struct Part {
    events: Vec<PbEvent>,
}

impl Part {
    /// Whether more of a revision that has begun is to come.
    pub(super) fn is_open(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn take(&mut self, response: PbWatchResponse) -> Step {
        let header = response.header.map_or(0, |header| header.revision);
        // A message without events tells how far the store is. Its id is our watch's own: only these come in order.
        if response.events.is_empty() && self.events.is_empty() && !response.fragment {
            return Step { events: Vec::new(), revision: header };
        }
        let mut events = std::mem::take(&mut self.events);
        events.extend(response.events);
        let last = events.last().map_or(0, revision_of);
        if !response.fragment {
            return Step { events, revision: last };
        }
        let whole = events.partition_point(|event| revision_of(event) < last);
        self.events = events.split_off(whole);
        let revision = events.last().map_or(0, revision_of);
        Step { events, revision }
    }
}

pub(super) fn revision_of(event: &PbEvent) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// The first key behind all keys of this prefix; `\0`, etcd's "to the end", when there is none.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: i64) -> PbEvent {
        PbEvent { kv: Some(PbKeyValue { mod_revision: revision, ..Default::default() }), ..Default::default() }
    }

    fn message(fragment: bool, header: i64, revisions: &[i64]) -> PbWatchResponse {
        let mut response = PbWatchResponse { fragment, events: revisions.iter().map(|r| event(*r)).collect(), ..Default::default() };
        response.header = Some(etcd_client::proto::PbResponseHeader { revision: header, ..Default::default() });
        response
    }

    fn revisions(step: &Step) -> Vec<i64> {
        step.events.iter().map(revision_of).collect()
    }

    #[test]
    fn a_transaction_cut_into_fragments_is_applied_whole() {
        let mut part = Part::default();
        let first = part.take(message(true, 9, &[4, 5, 5]));
        assert_eq!((revisions(&first), first.revision), (vec![4], 4));
        let second = part.take(message(true, 9, &[5, 5]));
        assert_eq!((revisions(&second), second.revision), (vec![], 0));
        let last = part.take(message(false, 9, &[5, 6]));
        assert_eq!((revisions(&last), last.revision), (vec![5, 5, 5, 5, 5, 6], 6));
    }

    #[test]
    fn the_header_of_a_message_with_events_is_not_believed() {
        let step = Part::default().take(message(false, 900, &[4, 5]));
        assert_eq!(step.revision, 5);
    }

    #[test]
    fn a_progress_notice_moves_the_index_but_not_between_fragments() {
        let mut part = Part::default();
        assert_eq!(part.take(message(false, 7, &[])).revision, 7);
        part.take(message(true, 9, &[8]));
        assert_eq!(part.take(message(false, 9, &[])).revision, 8);
    }

    #[test]
    fn a_prefix_ends_before_its_next_sibling() {
        assert_eq!(prefix_end(b"/podium/"), b"/podium0");
        assert_eq!(prefix_end(&[b'a', 0xff]), b"b");
        assert_eq!(prefix_end(&[0xff]), [0]);
    }
}
