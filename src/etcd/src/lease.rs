//! The leases and what is attached to them. Pure: the time comes from the caller, the writer task, which owns the book.
//!
//! What is durable is that a lease exists and how long it was granted for; renewals are not. So after a restart every
//! lease begins its full time again, as in etcd: nobody's lease runs out because the server was away.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::apply::Leases;
use crate::error::Refusal;
use crate::limits::{LEASE_TTL_MAX, LEASE_TTL_MIN};
use crate::mvcc::Change;

/// All leases, and when each runs out.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    leases: HashMap<i64, Lease>,
    deadlines: BTreeSet<(Instant, i64)>,
}

#[derive(Debug)]
struct Lease {
    /// Seconds, as granted.
    ttl: i64,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

/// What LeaseTimeToLive tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeaseStatus {
    /// Whole seconds that are left.
    pub(crate) remaining: i64,
    /// Seconds, as granted.
    pub(crate) granted: i64,
    /// The attached keys, in their order.
    pub(crate) keys: Vec<Bytes>,
}

impl LeaseBook {
    /// Grants a lease and returns the seconds it was granted for, which may be more than asked.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<i64, Refusal> {
        if ttl > LEASE_TTL_MAX {
            return Err(Refusal::TtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(LEASE_TTL_MIN);
        self.restore(id, ttl, now);
        Ok(ttl)
    }

    /// Takes back a lease from disk, with its full time before it.
    pub(crate) fn restore(&mut self, id: i64, ttl: i64, now: Instant) {
        let deadline = deadline(ttl, now);
        self.deadlines.insert((deadline, id));
        self.leases.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
    }

    /// Ends a lease and hands over the keys that go with it, in their order.
    pub(crate) fn revoke(&mut self, id: i64) -> Result<BTreeSet<Bytes>, Refusal> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        self.deadlines.remove(&(lease.deadline, id));
        Ok(lease.keys)
    }

    /// Gives a lease its full time again and returns it, in seconds.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = deadline(lease.ttl, now);
        self.deadlines.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    pub(crate) fn status(&self, id: i64, now: Instant) -> Option<LeaseStatus> {
        let lease = self.leases.get(&id)?;
        let remaining = lease.deadline.saturating_duration_since(now).as_secs();
        Some(LeaseStatus {
            remaining: i64::try_from(remaining).unwrap_or(i64::MAX),
            granted: lease.ttl,
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// All leases, the one that runs out first first.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.deadlines.iter().map(|(_, id)| *id).collect()
    }

    /// Follows the keys of a transaction from lease to lease.
    pub(crate) fn follow(&mut self, changes: &[Change]) {
        for Change { version, lease_before } in changes {
            if *lease_before == version.lease {
                continue;
            }
            if let Some(lease) = self.leases.get_mut(lease_before) {
                lease.keys.remove(&version.key);
            }
            self.attach(version.lease, &version.key);
        }
    }

    /// Attaches a key to a lease, if there is that lease.
    pub(crate) fn attach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    /// The leases whose time is over.
    pub(crate) fn expired(&self, now: Instant) -> Vec<i64> {
        self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id).collect()
    }

    /// When the next lease runs out, unless it is renewed.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

impl Leases for LeaseBook {
    fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }
}

/// A clock that can't count that far gets a deadline that nobody lives to see.
fn deadline(ttl: i64, now: Instant) -> Instant {
    const GENERATION: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
    now.checked_add(ttl).unwrap_or_else(|| now + GENERATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_granted_for_at_least_the_shortest_time_and_at_most_the_longest() {
        let mut book = LeaseBook::default();
        let now = Instant::now();
        assert_eq!(book.grant(1, -5, now), Ok(LEASE_TTL_MIN));
        assert_eq!(book.grant(1, 10, now), Err(Refusal::LeaseExists));
        assert_eq!(book.grant(2, LEASE_TTL_MAX + 1, now), Err(Refusal::TtlTooLarge));
        assert_eq!(book.grant(2, LEASE_TTL_MAX, now), Ok(LEASE_TTL_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn leases_run_out_in_their_order_and_a_renewal_puts_one_off() {
        let mut book = LeaseBook::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        book.grant(1, 10, start).unwrap();
        book.grant(2, 20, start).unwrap();
        assert_eq!((book.ids(), book.next_deadline()), (vec![1, 2], Some(after(10))));
        assert_eq!(book.expired(after(9)), []);
        assert_eq!(book.renew(1, after(9)), Some(10));
        assert_eq!(book.expired(after(19)), [1]);
        assert_eq!(book.expired(after(20)), [1, 2]);
        assert_eq!(book.status(2, after(15)).unwrap().remaining, 5);
        assert_eq!(book.renew(3, start), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_belongs_to_the_lease_of_its_last_put_alone() {
        let mut book = LeaseBook::default();
        let mut keyspace = crate::mvcc::Keyspace::new();
        let now = Instant::now();
        book.grant(1, 10, now).unwrap();
        book.grant(2, 10, now).unwrap();
        for (key, lease) in [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 0)] {
            let mut transaction = keyspace.begin();
            transaction.put(key.into(), Bytes::new(), lease);
            book.follow(&transaction.finish());
        }
        let mut transaction = keyspace.begin();
        transaction.delete(&crate::mvcc::Span::new(b"c", b""));
        book.follow(&transaction.finish());
        assert_eq!(book.status(1, now).unwrap().keys, Vec::<Bytes>::new());
        assert_eq!(book.revoke(2), Ok(BTreeSet::from(["a".into()])));
    }
}
