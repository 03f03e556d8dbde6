//! Why a pod's instances wait, for people: `queue/<pod>`, when it changes, at most every ten seconds. Pure.

use std::collections::BTreeMap;

use podium_mesos::matching::{Reason, Slot};
use podium_proto::records::Queue;
use podium_proto::records::queue::UnusedOffer;

/// Who waits for less is not worth a record.
const FIRST_AFTER_MS: i64 = 2_000;

/// Between two records of one pod.
const AGAIN_AFTER_MS: i64 = 10_000;

/// Refused offers that are shown whole.
const EXAMPLES: usize = 5;

/// Ranges of ports that are shown of one.
const RANGES: usize = 20;

/// One pod's waiting.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when something waits; `None`: nothing does.
    since_ms: Option<i64>,
    offers_seen: u64,
    /// Why the latest offer of each agent was of no use; `None`: it was used, or could have been.
    latest: BTreeMap<String, Option<Reason>>,
    refused_ever: BTreeMap<Reason, u64>,
    /// When offers were last looked at for it.
    explained_ms: i64,
    last_unused_ms: i64,
    last_used_ms: i64,
    /// The newest last.
    examples: Vec<UnusedOffer>,
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
                let Waiting { written, written_ms, writing, deleting, .. } = std::mem::take(self);
                *self = Waiting { written, written_ms, writing, deleting, ..Waiting::default() };
            }
            _ => {}
        }
    }

    pub fn since_ms(&self) -> i64 {
        self.since_ms.unwrap_or(i64::MAX)
    }

    pub fn explained_ms(&self) -> i64 {
        self.explained_ms
    }

    /// Waits long enough for its refusals to be of interest.
    pub fn is_remarkable(&self, now: i64) -> bool {
        self.since_ms.is_some_and(|since| now >= since.saturating_add(FIRST_AFTER_MS))
    }

    /// These offers were looked at, and why each was of no use; `None`: it was used, or could have been.
    pub fn saw<'a>(&mut self, offers: impl Iterator<Item = (&'a Slot, Option<Reason>)>, now: i64) {
        self.explained_ms = now;
        for (slot, reason) in offers {
            self.offers_seen = self.offers_seen.saturating_add(1);
            match self.latest.get_mut(&slot.agent_id) {
                // The agent is offered to several roles, and what another role is offered says nothing of ours.
                Some(Some(_)) if reason == Some(Reason::UnfulfilledRole) => {}
                Some(latest) => *latest = reason,
                None => drop(self.latest.insert(slot.agent_id.clone(), reason)),
            }
            if let Some(reason) = reason {
                let ever = self.refused_ever.entry(reason).or_default();
                *ever = ever.saturating_add(1);
                self.last_unused_ms = now;
                self.show(slot, reason, now);
            }
        }
    }

    /// One of its instances goes to an offer.
    pub fn used(&mut self, now: i64) {
        self.last_used_ms = now;
    }

    /// The agent is gone: what it offered counts no more.
    pub fn agent_left(&mut self, agent_id: &str) {
        self.latest.remove(agent_id);
        self.examples.retain(|offer| offer.agent_id != agent_id);
    }

    fn show(&mut self, slot: &Slot, reason: Reason, now: i64) {
        match self.examples.iter().position(|offer| offer.agent_id == slot.agent_id) {
            Some(known) => drop(self.examples.remove(known)),
            // One pass looks at all offers: the first few of it do.
            None if self.examples.len() >= EXAMPLES && self.examples.iter().all(|offer| offer.at_ms == now) => return,
            None if self.examples.len() >= EXAMPLES => drop(self.examples.remove(0)),
            None => {}
        }
        self.examples.push(example(slot, reason, now));
    }

    /// The write that is due, if one is; it counts as under way then.
    /// `refusal`: why Mesos refuses the pod's role.
    pub fn write(&mut self, waiting: usize, refusal: Option<&str>, now: i64) -> Option<QueueWrite> {
        if self.writing {
            return None;
        }
        let write = match (self.since_ms, &self.written) {
            (None, None) => return None,
            (None, Some(_)) => QueueWrite::Delete,
            (Some(since), written) => {
                let record = Queue { role_refused: refusal.unwrap_or_default().to_owned(), ..self.record(waiting, since, now) };
                let rested = written.is_none() || now >= self.written_ms.saturating_add(AGAIN_AFTER_MS);
                // The number of offers alone is no news.
                let told = |record: &Queue| (record.waiting, record.agents, record.refused.clone(), record.role_refused.clone());
                let news = written.as_ref().is_none_or(|old| told(old) != told(&record));
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
        for reason in self.latest.values().flatten() {
            *refused.entry(reason.as_str().to_owned()).or_default() += 1;
        }
        Queue {
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            since_ms,
            offers_seen: self.offers_seen,
            refused,
            updated_ms: now,
            agents: u32::try_from(self.latest.len()).unwrap_or(u32::MAX),
            refused_ever: self.refused_ever.iter().map(|(reason, count)| (reason.as_str().to_owned(), *count)).collect(),
            last_unused_ms: self.last_unused_ms,
            last_used_ms: self.last_used_ms,
            unused: self.examples.clone(),
            ..Queue::default()
        }
    }
}

fn example(slot: &Slot, reason: Reason, now: i64) -> UnusedOffer {
    let free = slot.free();
    let ports: Vec<String> = free.ports.ranges().take(RANGES).map(|range| format!("{}-{}", range.start(), range.end())).collect();
    UnusedOffer {
        offer_id: slot.offer_ids.first().map(|id| id.value.clone()).unwrap_or_default(),
        agent_id: slot.agent_id.clone(),
        hostname: slot.facts.hostname.clone(),
        reason: reason.as_str().to_owned(),
        at_ms: now,
        cpus: free.cpus,
        mem: free.mem,
        disk: free.disk,
        gpus: free.gpus,
        ports: ports.join(","),
        attributes: slot.facts.attributes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use podium_mesos::matching::slots;
    use podium_proto::mesos::v1;
    use podium_proto::wire::resources::{ranges_entry, scalar_entry};

    use super::*;

    fn slot(agent: &str) -> Slot {
        let offer = v1::Offer {
            id: v1::OfferId { value: format!("offer of {agent}") },
            agent_id: v1::AgentId { value: agent.into() },
            hostname: "host".into(),
            resources: vec![scalar_entry("cpus", 1500), ranges_entry("ports", &[31_000..=31_005, 31_010..=31_010].into_iter().collect())],
            ..v1::Offer::default()
        };
        slots([&offer]).remove(0)
    }

    fn saw(waiting: &mut Waiting, agent: &str, reason: Option<Reason>, now: i64) {
        waiting.saw([(&slot(agent), reason)].into_iter(), now);
    }

    #[test]
    fn short_waits_are_not_written_and_long_ones_only_when_they_change() {
        let mut waiting = Waiting::default();
        waiting.set(true, 0);
        assert_eq!(waiting.write(1, None, 1_999), None);
        saw(&mut waiting, "S1", Some(Reason::InsufficientCpus), 1);
        let Some(QueueWrite::Put(first)) = waiting.write(1, None, 2_000) else { panic!("a record is due") };
        assert_eq!((first.waiting, first.since_ms, first.offers_seen, first.refused["InsufficientCpus"]), (1, 0, 1, 1));
        assert_eq!(waiting.write(2, None, 30_000), None, "the last is not answered");
        assert_eq!(waiting.written(true, 30_000), None);
        saw(&mut waiting, "S1", Some(Reason::InsufficientCpus), 2);
        assert_eq!(waiting.write(1, None, 30_000), None, "the same reason again is no news");
        saw(&mut waiting, "S1", Some(Reason::InsufficientMemory), 3);
        assert_eq!(waiting.write(1, None, 11_999), None, "too soon");
        assert!(matches!(waiting.write(1, None, 12_000), Some(QueueWrite::Put(_))));
        waiting.set(false, 13_000);
        assert_eq!(waiting.written(true, 13_000), Some(13_000), "the wait ended while the record was written");
        assert_eq!(waiting.write(0, None, 13_000), Some(QueueWrite::Delete));
        assert_eq!(waiting.written(false, 14_000), Some(24_000), "the record is still there");
        assert_eq!(waiting.write(0, None, 24_000), Some(QueueWrite::Delete));
        assert_eq!(waiting.written(true, 24_000), None);
        assert!(waiting.is_idle());
    }

    #[test]
    fn every_refusal_is_counted_once_for_its_agent_and_once_for_ever() {
        let mut waiting = Waiting::default();
        waiting.set(true, 0);
        for (agent, reason, at) in [
            ("S1", Some(Reason::InsufficientCpus), 1),
            ("S2", Some(Reason::InsufficientCpus), 1),
            ("S1", Some(Reason::InsufficientPorts), 2),
            ("S3", None, 3),
        ] {
            saw(&mut waiting, agent, reason, at);
        }
        waiting.used(4);
        let record = waiting.record(1, 0, 5);
        assert_eq!((record.offers_seen, record.agents, record.last_unused_ms, record.last_used_ms), (4, 3, 2, 4));
        assert_eq!(record.refused, [("InsufficientCpus".to_owned(), 1), ("InsufficientPorts".to_owned(), 1)].into());
        assert_eq!(record.refused_ever, [("InsufficientCpus".to_owned(), 2), ("InsufficientPorts".to_owned(), 1)].into());
        let last = record.unused.last().unwrap();
        assert_eq!((last.agent_id.as_str(), last.reason.as_str(), last.cpus), ("S1", "InsufficientPorts", 1500));
        assert_eq!(last.ports, "31000-31005,31010-31010");
        waiting.agent_left("S1");
        let record = waiting.record(1, 0, 5);
        assert_eq!((record.agents, record.refused.len(), record.unused.len()), (2, 1, 1));
        waiting.set(false, 6);
        waiting.set(true, 7);
        assert_eq!(waiting.record(1, 7, 7), Queue { waiting: 1, since_ms: 7, updated_ms: 7, ..Queue::default() }, "a new wait");
    }

    #[test]
    fn a_few_refused_offers_are_shown_the_newest_of_them() {
        let mut waiting = Waiting::default();
        waiting.set(true, 0);
        let all: Vec<Slot> = (0..100).map(|n| slot(&format!("S{n}"))).collect();
        waiting.saw(all.iter().map(|slot| (slot, Some(Reason::InsufficientCpus))), 1);
        assert_eq!(waiting.record(1, 0, 1).unused.len(), EXAMPLES);
        saw(&mut waiting, "S50", Some(Reason::InsufficientMemory), 2);
        let record = waiting.record(1, 0, 2);
        assert_eq!((record.unused.len(), record.unused[EXAMPLES - 1].agent_id.as_str()), (EXAMPLES, "S50"));
        assert_eq!(record.refused_ever["InsufficientCpus"], 100);
    }
}
