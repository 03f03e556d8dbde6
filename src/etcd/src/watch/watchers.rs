//! The watchers of one stream: who gets which events.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::PbWatchResponse;

use super::batch::Batch;
use crate::core::Identity;
use crate::limits::WATCH_BATCH_BYTES;
use crate::mvcc::{Keyspace, Span, Version};

/// The id in responses that concern no watcher, or all of them.
pub(super) const NO_WATCHER: i64 = -1;

/// What a client asks to watch.
#[derive(Debug)]
pub(super) struct Wanted {
    /// 0 lets the stream choose.
    pub(super) id: i64,
    pub(super) span: Span,
    /// 0 is from now on; a future revision is waited for.
    pub(super) start: i64,
    pub(super) puts: bool,
    pub(super) deletions: bool,
    pub(super) previous: bool,
    pub(super) fragment: bool,
    pub(super) progress: bool,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) span: Span,
    /// The first revision that it has not been told about. Once it has caught up with the stream, only what it started from.
    next: i64,
    puts: bool,
    deletions: bool,
    pub(super) previous: bool,
    pub(super) fragment: bool,
    progress: bool,
    /// Whether it was sent anything since the last progress notification.
    active: bool,
}

impl Watcher {
    fn wants(&self, version: &Version) -> bool {
        version.modified >= self.next && if version.is_tombstone() { self.deletions } else { self.puts }
    }
}

/// All watchers of a stream.
#[derive(Debug)]
pub(super) struct Watchers {
    identity: Identity,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    /// Everyone who has caught up was told everything up to here.
    position: i64,
    /// Who started in the past and has not caught up, in turn.
    behind: VecDeque<i64>,
    /// Who has caught up: those of single keys by their key, and the others.
    by_key: HashMap<Bytes, Vec<i64>>,
    by_span: Vec<i64>,
    /// Whether the client asked for a progress response and has not got it.
    progress_asked: bool,
}

impl Watchers {
    pub(super) fn new(identity: Identity, position: i64) -> Self {
        Watchers {
            identity,
            watchers: BTreeMap::new(),
            next_id: 0,
            position,
            behind: VecDeque::new(),
            by_key: HashMap::new(),
            by_span: Vec::new(),
            progress_asked: false,
        }
    }

    /// Adds a watcher, or says why not, in etcd's words. `current` is the store's revision.
    pub(super) fn create(&mut self, wanted: Wanted, current: i64) -> PbWatchResponse {
        let refused = if wanted.start < 0 {
            Some("etcdserver: mvcc: required revision has been compacted")
        } else if wanted.span.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if wanted.id != 0 && self.watchers.contains_key(&wanted.id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        };
        let id = match refused {
            Some(_) => NO_WATCHER,
            None => self.add(wanted, current),
        };
        PbWatchResponse {
            created: true,
            canceled: refused.is_some(),
            cancel_reason: refused.unwrap_or_default().to_owned(),
            ..self.response(id, current)
        }
    }

    fn add(&mut self, wanted: Wanted, current: i64) -> i64 {
        let id = if wanted.id == 0 { self.free_id() } else { wanted.id };
        let next = if wanted.start == 0 { current + 1 } else { wanted.start };
        let Wanted { span, puts, deletions, previous, fragment, progress, .. } = wanted;
        self.watchers.insert(id, Watcher { span, next, puts, deletions, previous, fragment, progress, active: false });
        if next <= self.position {
            self.behind.push_back(id);
        } else {
            self.join(id);
        }
        id
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Ends a watcher; nothing is to be said of one that does not exist.
    pub(super) fn cancel(&mut self, id: i64, current: i64) -> Option<PbWatchResponse> {
        self.remove(id)?;
        Some(PbWatchResponse { canceled: true, ..self.response(id, current) })
    }

    pub(super) fn ask_progress(&mut self) {
        self.progress_asked = true;
    }

    /// Whether any watcher wants to hear from time to time how far it is.
    pub(super) fn want_progress(&self) -> bool {
        self.watchers.values().any(|watcher| watcher.progress)
    }

    /// The regular notifications for those who were sent nothing since the last ones.
    pub(super) fn progress(&mut self) -> Vec<PbWatchResponse> {
        let (identity, position, behind) = (self.identity, self.position, &self.behind);
        let due = self.watchers.iter_mut().filter_map(|(id, watcher)| {
            let quiet = watcher.progress && !watcher.active && !behind.contains(id);
            watcher.active = false;
            quiet.then(|| response(identity, *id, position))
        });
        due.collect()
    }

    /// The next responses to send, in their order; none when everyone has been told everything.
    pub(super) fn advance(&mut self, keyspace: &Keyspace) -> Vec<PbWatchResponse> {
        loop {
            let sent = match self.behind.front() {
                Some(id) => self.catch_up(*id, keyspace),
                None if self.position < keyspace.published() => self.follow(keyspace),
                None => return self.asked_progress().into_iter().collect(),
            };
            if !sent.is_empty() {
                return sent;
            }
        }
    }

    fn asked_progress(&mut self) -> Option<PbWatchResponse> {
        std::mem::take(&mut self.progress_asked).then(|| self.response(NO_WATCHER, self.position))
    }

    /// Replays the past to one watcher, until it is where the others are.
    fn catch_up(&mut self, id: i64, keyspace: &Keyspace) -> Vec<PbWatchResponse> {
        let position = self.position;
        let Some(watcher) = self.watchers.get_mut(&id) else {
            self.behind.pop_front();
            return Vec::new();
        };
        if watcher.next < keyspace.compacted() {
            return self.compacted(id, keyspace.compacted()).into_iter().collect();
        }
        let reach = reach(keyspace, watcher.next, position);
        let mut batch = Batch::default();
        for version in keyspace.events(watcher.next, reach) {
            if watcher.span.contains(&version.key) && watcher.wants(version) {
                batch.push(version, watcher, keyspace);
            }
        }
        watcher.next = reach + 1;
        watcher.active |= !batch.is_empty();
        let fragment = watcher.fragment;
        if reach == position {
            self.behind.pop_front();
            self.join(id);
        }
        batch.into_responses(&self.response(id, reach), fragment)
    }

    /// Tells everyone who has caught up what has happened since.
    fn follow(&mut self, keyspace: &Keyspace) -> Vec<PbWatchResponse> {
        if self.position + 1 < keyspace.compacted() {
            return self.overtaken(keyspace.compacted());
        }
        let reach = reach(keyspace, self.position + 1, keyspace.published());
        let mut batches: BTreeMap<i64, Batch> = BTreeMap::new();
        for version in keyspace.events(self.position + 1, reach) {
            for id in self.interested(version) {
                if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.active = true;
                    batches.entry(id).or_default().push(version, watcher, keyspace);
                }
            }
        }
        self.position = reach;
        let respond = |(id, batch): (i64, Batch)| {
            let fragment = self.watchers.get(&id).is_some_and(|watcher| watcher.fragment);
            batch.into_responses(&self.response(id, reach), fragment)
        };
        batches.into_iter().flat_map(respond).collect()
    }

    fn interested(&self, version: &Arc<Version>) -> Vec<i64> {
        let by_key = self.by_key.get(&version.key).into_iter().flatten();
        let by_span = self.by_span.iter().filter(|id| self.watchers.get(id).is_some_and(|watcher| watcher.span.contains(&version.key)));
        by_key.chain(by_span).filter(|id| self.watchers.get(id).is_some_and(|watcher| watcher.wants(version))).copied().collect()
    }

    /// The client was so slow that history it had not seen is gone: whoever needed it ends.
    fn overtaken(&mut self, compacted: i64) -> Vec<PbWatchResponse> {
        self.position = compacted - 1;
        let lost: Vec<_> = self.watchers.iter().filter(|(_, watcher)| watcher.next < compacted).map(|(id, _)| *id).collect();
        lost.into_iter().filter_map(|id| self.compacted(id, compacted)).collect()
    }

    fn compacted(&mut self, id: i64, compacted: i64) -> Option<PbWatchResponse> {
        self.remove(id)?;
        // etcd gives no revision here.
        Some(PbWatchResponse { canceled: true, compact_revision: compacted, ..self.response(id, 0) })
    }

    fn join(&mut self, id: i64) {
        let Some(watcher) = self.watchers.get(&id) else { return };
        match watcher.span.single() {
            Some(key) => self.by_key.entry(key.clone()).or_default().push(id),
            None => self.by_span.push(id),
        }
    }

    fn remove(&mut self, id: i64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&id)?;
        self.behind.retain(|behind| *behind != id);
        self.by_span.retain(|joined| *joined != id);
        if let Some(key) = watcher.span.single()
            && let Some(ids) = self.by_key.get_mut(key)
        {
            ids.retain(|joined| *joined != id);
            if ids.is_empty() {
                self.by_key.remove(key);
            }
        }
        Some(watcher)
    }

    fn response(&self, id: i64, revision: i64) -> PbWatchResponse {
        response(self.identity, id, revision)
    }
}

fn response(identity: Identity, watch_id: i64, revision: i64) -> PbWatchResponse {
    PbWatchResponse { header: Some(identity.header(revision)), watch_id, ..PbWatchResponse::default() }
}

/// How far to read at once: whole revisions, of about a batch's bytes, and at least one.
fn reach(keyspace: &Keyspace, from: i64, to: i64) -> i64 {
    let mut weight = 0;
    for version in keyspace.events(from, to) {
        if weight > WATCH_BATCH_BYTES && version.modified > from {
            return version.modified - 1;
        }
        weight += version.weight();
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Identity = Identity { cluster: 1, member: 2, term: 3 };

    fn keyspace(puts: &[(&'static str, &'static str)]) -> Keyspace {
        let mut keyspace = Keyspace::new();
        puts.iter().for_each(|(key, value)| put(&mut keyspace, key, value));
        keyspace
    }

    fn put(keyspace: &mut Keyspace, key: &'static str, value: &'static str) {
        let mut transaction = keyspace.begin();
        transaction.put(Bytes::from(key), Bytes::from(value), 0);
        transaction.finish();
        keyspace.publish();
    }

    fn wanted(key: &str, end: &str, start: i64) -> Wanted {
        let span = Span::new(key.as_bytes(), end.as_bytes());
        Wanted { id: 0, span, start, puts: true, deletions: true, previous: false, fragment: false, progress: false }
    }

    /// All that is to be sent, as watcher and the revisions of its events.
    fn told(watchers: &mut Watchers, keyspace: &Keyspace) -> Vec<(i64, Vec<i64>)> {
        let mut told = Vec::new();
        loop {
            let responses = watchers.advance(keyspace);
            if responses.is_empty() {
                return told;
            }
            let revisions = |response: &PbWatchResponse| {
                response.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).collect()
            };
            told.extend(responses.iter().map(|response| (response.watch_id, revisions(response))));
        }
    }

    #[test]
    fn a_watcher_of_the_past_is_told_it_once_and_then_what_follows() {
        let mut keyspace = keyspace(&[("a", "1"), ("b", "1"), ("a", "2")]);
        let mut watchers = Watchers::new(US, 4);
        watchers.create(wanted("a", "", 2), 4);
        watchers.create(wanted("a", "c", 3), 4);
        watchers.create(wanted("a", "c", 0), 4);
        assert_eq!(told(&mut watchers, &keyspace), [(0, vec![2, 4]), (1, vec![3, 4])]);
        put(&mut keyspace, "a", "3");
        assert_eq!(told(&mut watchers, &keyspace), [(0, vec![5]), (1, vec![5]), (2, vec![5])]);
        assert_eq!(told(&mut watchers, &keyspace), []);
    }

    #[test]
    fn a_watcher_of_the_future_hears_nothing_before_it() {
        let mut keyspace = keyspace(&[]);
        let mut watchers = Watchers::new(US, 1);
        watchers.create(wanted("a", "", 3), 1);
        put(&mut keyspace, "a", "1");
        assert_eq!(told(&mut watchers, &keyspace), []);
        put(&mut keyspace, "a", "2");
        assert_eq!(told(&mut watchers, &keyspace), [(0, vec![3])]);
    }

    #[test]
    fn a_canceled_watcher_hears_nothing_more_and_its_id_is_free() {
        let mut keyspace = keyspace(&[]);
        let mut watchers = Watchers::new(US, 1);
        watchers.create(Wanted { id: 7, ..wanted("a", "", 0) }, 1);
        assert!(watchers.create(Wanted { id: 7, ..wanted("b", "", 0) }, 1).canceled);
        assert!(watchers.cancel(7, 1).is_some_and(|response| response.canceled));
        assert!(watchers.cancel(7, 1).is_none());
        put(&mut keyspace, "a", "1");
        assert_eq!(told(&mut watchers, &keyspace), []);
        assert!(!watchers.create(Wanted { id: 7, ..wanted("b", "", 0) }, 2).canceled);
    }

    #[test]
    fn who_was_too_slow_for_a_compaction_is_told_so_and_who_needs_nothing_of_it_is_not() {
        let mut keyspace = keyspace(&[]);
        let mut watchers = Watchers::new(US, 1);
        watchers.create(wanted("a", "", 0), 1);
        watchers.create(wanted("a", "", 5), 1);
        for value in ["1", "2", "3", "4"] {
            put(&mut keyspace, "a", value);
        }
        keyspace.compact(4).unwrap();
        let lost = watchers.advance(&keyspace);
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].watch_id, lost[0].canceled, lost[0].compact_revision), (0, true, 4));
        assert_eq!(told(&mut watchers, &keyspace), [(1, vec![5])]);
        watchers.create(wanted("a", "", 3), 5);
        assert_eq!(watchers.advance(&keyspace)[0].compact_revision, 4);
    }

    #[test]
    fn an_answer_to_a_progress_request_comes_after_all_events_before_it() {
        let keyspace = keyspace(&[("a", "1")]);
        let mut watchers = Watchers::new(US, 1);
        watchers.create(wanted("a", "", 0), 1);
        watchers.ask_progress();
        assert_eq!(told(&mut watchers, &keyspace), [(0, vec![2]), (NO_WATCHER, vec![])]);
    }

    #[test]
    fn only_quiet_watchers_that_asked_are_notified_of_progress() {
        let mut keyspace = keyspace(&[]);
        let mut watchers = Watchers::new(US, 1);
        watchers.create(Wanted { progress: true, ..wanted("a", "", 0) }, 1);
        watchers.create(Wanted { progress: true, ..wanted("b", "", 0) }, 1);
        watchers.create(wanted("c", "", 0), 1);
        put(&mut keyspace, "a", "1");
        told(&mut watchers, &keyspace);
        let notified: Vec<_> = watchers.progress().iter().map(|response| response.watch_id).collect();
        assert_eq!(notified, [1]);
        assert_eq!(watchers.progress().len(), 2);
    }

    #[test]
    fn large_histories_come_in_several_responses_of_whole_revisions_unless_fragments_are_wanted() {
        let large: &'static str = "x".repeat(700 * 1024).leak();
        let mut keyspace = keyspace(&[("a", large), ("a", large), ("a", large)]);
        let mut transaction = keyspace.begin();
        ["a", "b", "c", "d"].iter().for_each(|key| transaction.put(Bytes::from(*key), Bytes::from(large), 0));
        transaction.finish();
        keyspace.publish();
        let mut watchers = Watchers::new(US, 5);
        watchers.create(wanted("a", "z", 2), 5);
        assert_eq!(told(&mut watchers, &keyspace), [(0, vec![2, 3]), (0, vec![4]), (0, vec![5; 4])]);
        watchers.create(Wanted { fragment: true, ..wanted("a", "z", 5) }, 5);
        let fragments = watchers.advance(&keyspace);
        assert_eq!(
            fragments.iter().map(|response| (response.events.len(), response.fragment)).collect::<Vec<_>>(),
            [(2, true), (2, false)]
        );
    }
}
