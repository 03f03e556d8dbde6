//! Groups as etcd transactions, and their answers. Pure.
//!
//! etcd counts compares and operations apart, at most [`MAX_OPS`] each, and adds to the outer list the longest
//! list found in any nested transaction. It evaluates every compare, nested ones included, before the first write.

use std::collections::HashSet;

use etcd_client::proto::PbTxnOpResponse;
use etcd_client::{Txn, TxnOp, TxnResponse};

use super::group::{Compare, Group, Op};
use crate::key::{Key, Keyspace};

/// etcd's `--max-txn-ops`.
pub(crate) const MAX_OPS: usize = 128;

/// Conditions of the fence, which the outer list holds at least.
const FENCE: usize = 2;

/// Where a transaction of many groups is cut, in bytes. etcd refuses requests above 1.5 MiB.
pub(crate) const MAX_BYTES: usize = 1_200_000;

/// The largest group: it travels by itself if need be, with some room for the framing.
const MAX_GROUP_BYTES: usize = 1_500_000;

/// What one group takes up in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// The longest of its lists.
    pub ops: usize,
    /// Keys and values, in compares, operations and reads.
    pub bytes: usize,
}

pub(crate) fn size(group: &Group, keys: &Keyspace) -> Size {
    let root = keys.root().len();
    // Keys are read twice where they are compared; 24 bytes for each message's own framing.
    let compares: usize = group.compares.iter().map(|compare| 2 * (root + compare.key().to_string().len() + 24)).sum();
    let ops: usize = group
        .ops
        .iter()
        .map(|op| {
            let value = match op {
                Op::Put(_, value) | Op::PutLeased(_, value, _) => value.len(),
                Op::Delete(_) => 0,
            };
            root + op.key().to_string().len() + value + 24
        })
        .sum();
    Size { ops: group.compares.len().max(group.ops.len()), bytes: compares + ops }
}

/// Whether etcd would take this group at all; in words if not.
pub(crate) fn check(group: &Group, keys: &Keyspace) -> Result<(), String> {
    let size = size(group, keys);
    if size.ops > MAX_OPS - FENCE {
        let most = MAX_OPS - FENCE;
        return Err(format!("a group of {} writes and {} conditions; at most {most} of each", group.ops.len(), group.compares.len()));
    }
    if size.bytes > MAX_GROUP_BYTES {
        return Err(format!("a group of {} bytes; at most {MAX_GROUP_BYTES}", size.bytes));
    }
    let mut seen = HashSet::new();
    match group.ops.iter().find(|op| !seen.insert(op.key())) {
        Some(twice) => Err(format!("a group that writes {} twice", twice.key())),
        None => Ok(()),
    }
}

/// Counts what still fits into one transaction.
#[derive(Debug, Default)]
pub(crate) struct Room {
    groups: usize,
    longest: usize,
    bytes: usize,
}

impl Room {
    /// Takes the group in if it fits.
    pub(crate) fn admit(&mut self, size: Size) -> bool {
        let longest = self.longest.max(size.ops);
        let fits = FENCE.max(self.groups + 1) + longest <= MAX_OPS && self.bytes + size.bytes <= MAX_BYTES;
        if fits || self.groups == 0 {
            self.groups += 1;
            self.longest = longest;
            self.bytes += size.bytes;
            return true;
        }
        false
    }

    /// Whether not even the smallest group fits.
    pub(crate) fn is_full(&self) -> bool {
        FENCE.max(self.groups + 1) + self.longest.max(1) > MAX_OPS || self.bytes >= MAX_BYTES
    }
}

/// One group as a transaction: its writes, or else what stands where it compared.
pub(crate) fn transaction(group: &Group, keys: &Keyspace) -> Txn {
    Txn::new()
        .when(group.compares.iter().map(|compare| compare.to_etcd(keys)).collect::<Vec<_>>())
        .and_then(group.ops.iter().map(|op| op.to_etcd(keys)).collect::<Vec<_>>())
        .or_else(group.compares.iter().map(|compare| compare.to_read(keys)).collect::<Vec<TxnOp>>())
}

/// Many groups in one transaction: each by itself, all behind one fence. When the fence fails, the answer's only
/// read is what stands at the fence's key.
pub(crate) fn fenced<'a>(fence: &Fence, groups: impl Iterator<Item = &'a Group>, keys: &Keyspace) -> Txn {
    let unmoved = Compare::Unchanged(fence.key.clone(), fence.mod_revision);
    Txn::new()
        .when([fence.held().to_etcd(keys), unmoved.to_etcd(keys)])
        .and_then(groups.map(|group| TxnOp::txn(transaction(group, keys))).collect::<Vec<_>>())
        .or_else([fence.held().to_read(keys)])
}

/// What makes a write of this leader's fail once it leads no more: its election key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    /// `elections/<name>/<lease>`.
    pub key: Key,
    /// Names the leadership.
    pub create_revision: i64,
    /// Moved by a barrier, so that what was sent before and comes late fails.
    pub mod_revision: i64,
}

impl Fence {
    /// That the leadership is still the same.
    pub(crate) fn held(&self) -> Compare {
        Compare::SameLife(self.key.clone(), self.create_revision)
    }
}

/// What etcd answered to a transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub succeeded: bool,
    /// The store's revision after it.
    pub revision: i64,
    /// Whether any key was changed.
    pub wrote: bool,
    /// Whether any was put: a store whose disk quota is used up still deletes.
    pub put: bool,
    /// The newest revision among the keys read.
    pub newest: i64,
    /// The first key read: its create and its mod revision.
    pub first_read: Option<(i64, i64)>,
    /// The nested transactions' answers, in order.
    pub nested: Vec<Answer>,
}

impl Answer {
    pub(crate) fn read(response: TxnResponse) -> Self {
        let revision = response.0.header.as_ref().map_or(0, |header| header.revision);
        Self::walk(response.0, revision)
    }

    fn walk(response: etcd_client::proto::PbTxnResponse, revision: i64) -> Self {
        let mut answer = Self { succeeded: response.succeeded, revision, ..Self::default() };
        for response in response.responses {
            match response.response {
                Some(PbTxnOpResponse::ResponsePut(_)) => (answer.wrote, answer.put) = (true, true),
                Some(PbTxnOpResponse::ResponseDeleteRange(delete)) => answer.wrote |= delete.deleted > 0,
                Some(PbTxnOpResponse::ResponseRange(range)) => {
                    for kv in range.kvs {
                        answer.newest = answer.newest.max(kv.mod_revision);
                        answer.first_read.get_or_insert((kv.create_revision, kv.mod_revision));
                    }
                }
                Some(PbTxnOpResponse::ResponseTxn(nested)) => {
                    let nested = Self::walk(nested, revision);
                    answer.wrote |= nested.wrote;
                    answer.put |= nested.put;
                    answer.nested.push(nested);
                }
                None => {}
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(sizes: &[(usize, usize)]) -> usize {
        let mut room = Room::default();
        sizes.iter().take_while(|(ops, bytes)| room.admit(Size { ops: *ops, bytes: *bytes })).count()
    }

    #[test]
    fn the_outer_list_and_the_longest_inner_one_share_the_limit() {
        assert_eq!(fits(&[(1, 10); 200]), 127);
        assert_eq!(fits(&[(2, 10); 200]), 126);
        assert_eq!(fits(&[(64, 10); 200]), 64);
        assert_eq!(fits(&[(126, 10), (1, 10), (1, 10)]), 2);
        assert_eq!(fits(&[(1, 10), (127, 10)]), 1);
    }

    #[test]
    fn a_transaction_is_cut_by_bytes_but_takes_one_group_of_any_size() {
        assert_eq!(fits(&[(1, 500_000); 5]), 2);
        assert_eq!(fits(&[(1, 1_400_000), (1, 1)]), 1);
    }
}
