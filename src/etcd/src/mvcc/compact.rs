//! Forgetting history: work proportional to the history that goes, never to the keys that stay.

use std::sync::Arc;

use super::{Keyspace, Version};
use crate::error::Refusal;

impl Keyspace {
    /// Forgets what was superseded or deleted before or at `revision`, and returns it, to be removed from disk.
    ///
    /// What was live at `revision` can still be read at it, and events of `revision` itself can still be watched: so a
    /// deletion of that very revision stays until the next compaction.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<Vec<Arc<Version>>, Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.head {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        let past = self.log.partition_point(|version| version.modified <= revision);
        let touched: Vec<_> = self.log.range(..past).map(|version| version.key.clone()).collect();
        let mut forgotten = Vec::new();
        for key in touched {
            if let Some(versions) = self.index.get_mut(&key) {
                forget(versions, revision, &mut forgotten);
                if versions.is_empty() {
                    self.index.remove(&key);
                }
            }
        }
        let before = self.log.partition_point(|version| version.modified < revision);
        self.log_weight -= self.log.drain(..before).map(|version| version.weight()).sum::<usize>();
        Ok(forgotten)
    }

    /// The revision to compact to so that the history stays within a number of revisions and of bytes; none while it does.
    ///
    /// It leaves half of what is allowed, so that compactions are rare and each is worth its write.
    pub(crate) fn overdue_compaction(&self, revisions: i64, bytes: usize) -> Option<i64> {
        let oldest = self.compacted.max(0);
        if self.published - oldest <= revisions && self.log_weight <= bytes {
            return None;
        }
        let by_count = self.published.saturating_sub(revisions / 2);
        let mut excess = self.log_weight.saturating_sub(bytes / 2);
        let over = |version: &&Arc<Version>| {
            let inside = excess == 0;
            excess = excess.saturating_sub(version.weight());
            inside
        };
        let by_weight = match self.log_weight > bytes {
            true => self.log.iter().find(over).map_or(self.published, |version| version.modified),
            false => oldest,
        };
        Some(by_count.max(by_weight).min(self.published)).filter(|revision| *revision > self.compacted)
    }
}

/// Takes from a key's versions what nobody can ask for once `revision` is compacted.
fn forget(versions: &mut Vec<Arc<Version>>, revision: i64, forgotten: &mut Vec<Arc<Version>>) {
    let Some(latest) = versions.partition_point(|version| version.modified <= revision).checked_sub(1) else { return };
    let gone = versions.get(latest).is_some_and(|version| version.is_tombstone() && version.modified < revision);
    forgotten.extend(versions.drain(..latest + usize::from(gone)));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mvcc::Span;

    fn write(keyspace: &mut Keyspace, key: &'static str, value: &'static str) {
        let mut transaction = keyspace.begin();
        transaction.put(Bytes::from(key), Bytes::from(value), 0);
        transaction.finish();
        keyspace.publish();
    }

    fn delete(keyspace: &mut Keyspace, key: &str) {
        let mut transaction = keyspace.begin();
        transaction.delete(&Span::new(key.as_bytes(), &[]));
        transaction.finish();
        keyspace.publish();
    }

    #[test]
    fn a_compaction_forgets_what_was_superseded_and_what_was_deleted_before_it() {
        let mut keyspace = Keyspace::new();
        write(&mut keyspace, "a", "1");
        write(&mut keyspace, "a", "2");
        write(&mut keyspace, "b", "1");
        delete(&mut keyspace, "b");
        write(&mut keyspace, "a", "3");
        let forgotten = keyspace.compact(5).unwrap();
        assert_eq!(forgotten.iter().map(|version| version.modified).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(keyspace.view().before(b"a", 6).map(|version| version.modified), Some(3));
        assert_eq!(keyspace.events(0, 9).map(|version| version.modified).collect::<Vec<_>>(), [5, 6]);
        let forgotten = keyspace.compact(6).unwrap();
        assert_eq!(forgotten.iter().map(|version| version.modified).collect::<Vec<_>>(), [5, 3]);
        assert!(!keyspace.index.contains_key(&b"b"[..]));
    }

    #[test]
    fn a_deletion_of_the_compacted_revision_itself_can_be_watched_until_the_next_compaction() {
        let mut keyspace = Keyspace::new();
        write(&mut keyspace, "a", "1");
        delete(&mut keyspace, "a");
        write(&mut keyspace, "b", "1");
        let events =
            |keyspace: &Keyspace| keyspace.events(0, 9).map(|version| (version.modified, version.is_tombstone())).collect::<Vec<_>>();
        keyspace.compact(3).unwrap();
        assert_eq!(events(&keyspace), [(3, true), (4, false)]);
        keyspace.compact(4).unwrap();
        assert_eq!(events(&keyspace), [(4, false)]);
        assert!(!keyspace.index.contains_key(&b"a"[..]));
    }

    #[test]
    fn the_past_and_the_future_can_not_be_compacted() {
        let mut keyspace = Keyspace::new();
        write(&mut keyspace, "a", "1");
        assert_eq!(keyspace.compact(3), Err(Refusal::FutureRevision));
        assert_eq!(keyspace.compact(2), Ok(Vec::new()));
        assert_eq!(keyspace.compact(2), Err(Refusal::Compacted));
    }

    #[test]
    fn a_compaction_is_overdue_by_count_or_by_weight_and_then_leaves_half() {
        let mut keyspace = Keyspace::new();
        for _ in 0..100 {
            write(&mut keyspace, "a", "1");
        }
        assert_eq!(keyspace.overdue_compaction(101, usize::MAX), None);
        assert_eq!(keyspace.overdue_compaction(50, usize::MAX), Some(101 - 25));
        let weight = keyspace.log_weight;
        assert_eq!(keyspace.overdue_compaction(i64::MAX, weight), None);
        let revision = keyspace.overdue_compaction(i64::MAX, weight - 1).unwrap();
        keyspace.compact(revision).unwrap();
        assert!(keyspace.log_weight <= weight / 2 + weight / 50, "{} of {weight}", keyspace.log_weight);
        assert_eq!(keyspace.overdue_compaction(i64::MAX, weight - 1), None);
    }
}
