//! Why a pod's instances wait, for people: `queue/<pod>`, when it changes, at most every ten seconds. Pure.

use std::collections::BTreeMap;

use podium_mesos::matching::Reason;
use podium_proto::records::Queue;

/// Who waits for less is not worth a record.
const FIRST_AFTER_MS: i64 = 2_000;

/// Between two records of one pod.
const AGAIN_AFTER_MS: i64 = 10_000;

/// One pod's waiting.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when something waits; `None`: nothing does.
    since_ms: Option<i64>,
    offers_seen: u64,
    /// Why the latest offer of each agent was of no use.
    refused: BTreeMap<String, Reason>,
    written: Option<Queue>,
    written_ms: i64,
    writing: bool,
    /// What is under way is the record's end.
    deleting: bool,
}

/// What is due about a record.
#[derive(Debug, PartialEq)]
pub(super) enum QueueWrite {
    Put(Queue),
    Delete,
}

impl Waiting {
    /// Something waits, or nothing does any more.
    pub fn set(&mut self, waits: bool, now: i64) {
        match (waits, self.since_ms) {
            (true, None) => self.since_ms = Some(now),
            (false, Some(_)) => {
                self.since_ms = None;
                self.offers_seen = 0;
                self.refused.clear();
            }
            _ => {}
        }
    }

    pub fn since_ms(&self) -> i64 {
        self.since_ms.unwrap_or(i64::MAX)
    }

    /// Waits long enough for its refusals to be of interest.
    pub fn is_remarkable(&self, now: i64) -> bool {
        self.since_ms.is_some_and(|since| now >= since.saturating_add(FIRST_AFTER_MS))
    }

    /// These agents were looked at, and why each is of no use.
    pub fn saw(&mut self, agents: impl Iterator<Item = (String, Option<Reason>)>) {
        for (agent, reason) in agents {
            self.offers_seen = self.offers_seen.saturating_add(1);
            match reason {
                Some(reason) => self.refused.insert(agent, reason),
                None => self.refused.remove(&agent),
            };
        }
    }

    /// The write that is due, if one is; it counts as under way then.
    pub fn write(&mut self, waiting: usize, now: i64) -> Option<QueueWrite> {
        if self.writing {
            return None;
        }
        let write = match (self.since_ms, &self.written) {
            (None, None) => return None,
            (None, Some(_)) => QueueWrite::Delete,
            (Some(since), written) => {
                let record = self.record(waiting, since, now);
                let rested = written.is_none() || now >= self.written_ms.saturating_add(AGAIN_AFTER_MS);
                // The number of offers alone is no news.
                let news = written.as_ref().is_none_or(|old| (old.waiting, &old.refused) != (record.waiting, &record.refused));
                if !self.is_remarkable(now) || !rested || !news {
                    return None;
                }
                QueueWrite::Put(record)
            }
        };
        self.writing = true;
        self.written_ms = now;
        match &write {
            QueueWrite::Put(record) => self.written = Some(record.clone()),
            QueueWrite::Delete => self.deleting = true,
        }
        Some(write)
    }

    /// The write was answered. One that did not happen is made good by the next; when to write what is left to
    /// delete: the wait may have ended meanwhile.
    pub fn written(&mut self, done: bool, now: i64) -> Option<i64> {
        self.writing = false;
        let deleting = std::mem::take(&mut self.deleting);
        if (deleting && done) || (!deleting && !done && self.since_ms.is_some()) {
            self.written = None;
        }
        let left = self.since_ms.is_none() && self.written.is_some();
        left.then(|| if done { now } else { now.saturating_add(AGAIN_AFTER_MS) })
    }

    /// When to look again.
    pub fn next_look(&self, now: i64) -> Option<i64> {
        let since = self.since_ms?;
        let next =
            if self.written.is_some() { self.written_ms.saturating_add(AGAIN_AFTER_MS) } else { since.saturating_add(FIRST_AFTER_MS) };
        Some(if next > now { next } else { now.saturating_add(AGAIN_AFTER_MS) })
    }

    /// Nothing waits and nothing is written.
    pub fn is_idle(&self) -> bool {
        self.since_ms.is_none() && self.written.is_none() && !self.writing
    }

    fn record(&self, waiting: usize, since_ms: i64, now: i64) -> Queue {
        let mut refused: BTreeMap<String, u32> = BTreeMap::new();
        for reason in self.refused.values() {
            *refused.entry(reason.as_str().to_owned()).or_default() += 1;
        }
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        Queue { waiting, since_ms, offers_seen: self.offers_seen, refused, updated_ms: now, ..Queue::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_are_not_written_and_long_ones_only_when_they_change() {
        let mut waiting = Waiting::default();
        waiting.set(true, 0);
        assert_eq!(waiting.write(1, 1_999), None);
        waiting.saw([("S1".to_owned(), Some(Reason::InsufficientCpus))].into_iter());
        let Some(QueueWrite::Put(first)) = waiting.write(1, 2_000) else { panic!("a record is due") };
        assert_eq!((first.waiting, first.since_ms, first.offers_seen, first.refused["InsufficientCpus"]), (1, 0, 1, 1));
        assert_eq!(waiting.write(2, 30_000), None, "the last is not answered");
        assert_eq!(waiting.written(true, 30_000), None);
        waiting.saw([("S1".to_owned(), Some(Reason::InsufficientCpus))].into_iter());
        assert_eq!(waiting.write(1, 30_000), None, "the same reason again is no news");
        waiting.saw([("S1".to_owned(), Some(Reason::InsufficientMemory))].into_iter());
        assert_eq!(waiting.write(1, 11_999), None, "too soon");
        assert!(matches!(waiting.write(1, 12_000), Some(QueueWrite::Put(_))));
        waiting.set(false, 13_000);
        assert_eq!(waiting.written(true, 13_000), Some(13_000), "the wait ended while the record was written");
        assert_eq!(waiting.write(0, 13_000), Some(QueueWrite::Delete));
        assert_eq!(waiting.written(false, 14_000), Some(24_000), "the record is still there");
        assert_eq!(waiting.write(0, 24_000), Some(QueueWrite::Delete));
        assert_eq!(waiting.written(true, 24_000), None);
        assert!(waiting.is_idle());
    }
}
