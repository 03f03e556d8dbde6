//! The multi-version keyspace in memory: the serving copy of everything that is on disk.
//!
//! Two structures share the versions: an **index** from each key to its versions, and a **log** of all versions in the
//! order in which they were written, from the compacted revision on, which watchers replay.
//!
//! There are two ends. `head` is the last revision that the writer has applied; `published` is the last one that is
//! durable. Everyone but the writer reads at `published`: what is not on disk yet is in the index, but invisible. So
//! reads never wait for the disk, and nothing is shown that a crash could take back.
//!
//! The writer task owns all changes; readers hold the lock around it for the time of one selection only.

mod compact;
mod hash;
mod range;
mod span;
mod version;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Refusal;

pub(crate) use range::{Ordering, Selection, Sort, SortBy};
pub(crate) use span::Span;
pub(crate) use version::Version;
pub(crate) use write::{Change, Transaction};

/// The revision of a store that was never written, as in etcd.
pub(crate) const FIRST_REVISION: i64 = 1;
/// The compacted revision of a store that was never compacted, as in etcd.
pub(crate) const NEVER_COMPACTED: i64 = -1;

/// All versions of all keys since the compacted revision, and the latest one before it.
#[derive(Debug)]
pub(crate) struct Keyspace {
    /// The versions of a key are never empty and ascend.
    index: BTreeMap<Bytes, Vec<Arc<Version>>>,
    log: VecDeque<Arc<Version>>,
    log_weight: usize,
    head: i64,
    published: i64,
    compacted: i64,
}

impl Keyspace {
    pub(crate) fn new() -> Self {
        Keyspace {
            index: BTreeMap::new(),
            log: VecDeque::new(),
            log_weight: 0,
            head: FIRST_REVISION,
            published: FIRST_REVISION,
            compacted: NEVER_COMPACTED,
        }
    }

    /// Begins the rebuilding from disk of a store whose last revision was `head`: [`Keyspace::restore`] follows for each version.
    pub(crate) fn recovered(head: i64, compacted: i64) -> Self {
        Keyspace { head, published: head, compacted, ..Keyspace::new() }
    }

    /// Takes back one version from disk. They must come in the order in which they were written.
    pub(crate) fn restore(&mut self, version: Version) {
        let version = Arc::new(version);
        if version.modified >= self.compacted {
            self.log_weight += version.weight();
            self.log.push_back(version.clone());
        }
        self.index.entry(version.key.clone()).or_default().push(version);
    }

    /// The last applied revision, durable or not.
    pub(crate) fn head(&self) -> i64 {
        self.head
    }

    /// The last durable revision: what clients are told.
    pub(crate) fn published(&self) -> i64 {
        self.published
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Makes everything applied so far visible, once it is durable.
    pub(crate) fn publish(&mut self) {
        self.published = self.head;
    }

    /// What clients may see: all that is durable.
    pub(crate) fn view(&self) -> View<'_> {
        View { keyspace: self, current: self.published }
    }

    /// What the writer decides on: all that was applied.
    pub(crate) fn head_view(&self) -> View<'_> {
        View { keyspace: self, current: self.head }
    }

    /// The events from one revision to another, both included, in their order.
    pub(crate) fn events(&self, from: i64, to: i64) -> impl Iterator<Item = &Arc<Version>> {
        let first = self.log.partition_point(|version| version.modified < from);
        self.log.range(first..).take_while(move |version| version.modified <= to)
    }

    /// The live versions that are attached to a lease, for the lease book of a restarted store.
    pub(crate) fn attached(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.index.values().filter_map(|versions| versions.last()).filter(|version| version.lease != 0)
    }

    fn versions(&self, key: &[u8]) -> &[Arc<Version>] {
        self.index.get(key).map_or(&[], Vec::as_slice)
    }
}

/// The live version among a key's versions at a revision.
fn live_at(versions: &[Arc<Version>], revision: i64) -> Option<&Arc<Version>> {
    let visible = match versions.last() {
        Some(last) if last.modified <= revision => Some(last),
        _ => versions.partition_point(|version| version.modified <= revision).checked_sub(1).and_then(|at| versions.get(at)),
    };
    visible.filter(|version| !version.is_tombstone())
}

/// The keyspace as it was when `current` was the last revision.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    keyspace: &'a Keyspace,
    current: i64,
}

impl<'a> View<'a> {
    pub(crate) fn current(&self) -> i64 {
        self.current
    }

    /// The revision that a request means by `asked`, where 0 and less is the current one.
    pub(crate) fn resolve(&self, asked: i64) -> Result<i64, Refusal> {
        if asked <= 0 {
            return Ok(self.current);
        }
        self.readable(asked).map(|()| asked)
    }

    /// Whether the keyspace can still, and already, be read at a revision.
    pub(crate) fn readable(&self, revision: i64) -> Result<(), Refusal> {
        if revision > self.current {
            return Err(Refusal::FutureRevision);
        }
        if revision < self.keyspace.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }

    /// A key's live version.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&'a Arc<Version>> {
        live_at(self.keyspace.versions(key), self.current)
    }

    /// A key's version just before a revision; none when that was compacted.
    pub(crate) fn before(&self, key: &[u8], revision: i64) -> Option<&'a Arc<Version>> {
        let at = self.resolve(revision - 1).ok().filter(|_| revision > 1)?;
        live_at(self.keyspace.versions(key), at)
    }

    /// The live versions of a span at a resolved revision, by key.
    pub(crate) fn live(&self, span: &Span, revision: i64) -> impl Iterator<Item = &'a Arc<Version>> + use<'a> {
        let keyspace = self.keyspace;
        span.bounds()
            .map(|bounds| keyspace.index.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
            .filter_map(move |(_, versions)| live_at(versions, revision))
    }
}
