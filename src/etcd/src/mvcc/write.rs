//! A write transaction on the keyspace: all its changes share one revision, which exists only if something changed.

use std::sync::Arc;

use bytes::Bytes;

use super::{Keyspace, Span, Version, View};

/// One change of a transaction, and the lease that the key had before it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: Arc<Version>,
    /// 0 for none.
    pub(crate) lease_before: i64,
}

/// An open transaction. It can't fail: whoever opens it has checked its operations before.
/// Dropping it without [`Transaction::finish`] would leave changes of no revision, so it must be finished.
#[must_use]
pub(crate) struct Transaction<'a> {
    keyspace: &'a mut Keyspace,
    changes: Vec<Change>,
}

impl Keyspace {
    /// Opens a transaction on top of all that was applied.
    pub(crate) fn begin(&mut self) -> Transaction<'_> {
        Transaction { keyspace: self, changes: Vec::new() }
    }
}

impl Transaction<'_> {
    /// What the transaction's next operation sees: everything before it, its own earlier changes included.
    pub(crate) fn view(&self) -> View<'_> {
        View { keyspace: self.keyspace, current: self.revision() }
    }

    /// The revision that the transaction has come to: the next one as soon as anything changed.
    pub(crate) fn revision(&self) -> i64 {
        self.keyspace.head + i64::from(!self.changes.is_empty())
    }

    pub(crate) fn put(&mut self, key: Bytes, value: Bytes, lease: i64) {
        let modified = self.keyspace.head + 1;
        let previous = self.view().get(&key).map(|previous| (previous.created, previous.version, previous.lease));
        let (created, version, lease_before) = previous.unwrap_or((modified, 0, 0));
        let sub = self.next_sub();
        self.record(Version { key, value, modified, sub, created, version: version + 1, lease }, lease_before);
    }

    /// Deletes what lives in a span, and says how much that was.
    pub(crate) fn delete(&mut self, span: &Span) -> i64 {
        let doomed: Vec<_> = self.view().live(span, self.revision()).map(|version| (version.key.clone(), version.lease)).collect();
        let mut deleted = 0;
        for (key, lease) in doomed {
            let sub = self.next_sub();
            self.record(Version::tombstone(key, self.keyspace.head + 1, sub), lease);
            deleted += 1;
        }
        deleted
    }

    /// Ends the transaction; its changes are then part of `head`.
    pub(crate) fn finish(self) -> Vec<Change> {
        self.keyspace.head = self.revision();
        self.changes
    }

    fn next_sub(&self) -> i64 {
        self.changes.last().map_or(0, |change| change.version.sub + 1)
    }

    fn record(&mut self, version: Version, lease_before: i64) {
        let version = Arc::new(version);
        self.keyspace.log_weight += version.weight();
        self.keyspace.log.push_back(version.clone());
        self.keyspace.index.entry(version.key.clone()).or_default().push(version.clone());
        self.changes.push(Change { version, lease_before });
    }
}
