//! No transaction may touch a key twice: neither put it twice, nor put what it also deletes.
//!
//! The two lists of a nested transaction exclude each other, so both may put the same key.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use etcd_client::proto::{PbDeleteRequest, PbTxnOpRequest, PbTxnRequestOp};

use crate::error::Refusal;

/// Checks one list of operations with everything nested in it.
pub(super) fn check(ops: &[PbTxnRequestOp]) -> Result<(), Refusal> {
    touched(ops).map(drop)
}

/// The keys that a list may put and the spans that it may delete.
#[derive(Default)]
struct Touched<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Deletes,
}

fn touched(ops: &[PbTxnRequestOp]) -> Result<Touched<'_>, Refusal> {
    let mut all = Touched::default();
    for op in ops {
        if let Some(PbTxnOpRequest::RequestDeleteRange(request)) = &op.request {
            all.deletes.insert(request);
        }
    }
    for op in ops {
        if let Some(PbTxnOpRequest::RequestTxn(request)) = &op.request {
            all.nest(touched(&request.success)?, touched(&request.failure)?)?;
        }
    }
    for op in ops {
        if let Some(PbTxnOpRequest::RequestPut(request)) = &op.request {
            all.put(&request.key)?;
        }
    }
    Ok(all)
}

impl<'a> Touched<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }

    fn nest(&mut self, then: Touched<'a>, otherwise: Touched<'a>) -> Result<(), Refusal> {
        for key in then.puts.union(&otherwise.puts).copied().collect::<Vec<_>>() {
            self.put(key)?;
        }
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }
}

/// Deleted spans, merged where they meet, so that looking up a key stays cheap however many there are.
#[derive(Default)]
struct Deletes {
    /// From each span's start to its end, both as etcd's tree sees them.
    spans: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Deletes {
    /// etcd compares `range_end` as it stands here: the zero byte that means "from this key on" elsewhere is an ordinary
    /// end that lies before every key, so such a delete collides with nothing.
    fn insert(&mut self, request: &PbDeleteRequest) {
        let end = match request.range_end.as_slice() {
            [] => [request.key.as_slice(), &[0]].concat(),
            end => end.to_vec(),
        };
        if end > request.key {
            self.merge(request.key.clone(), end);
        }
    }

    fn extend(&mut self, others: Deletes) {
        for (start, end) in others.spans {
            self.merge(start, end);
        }
    }

    fn merge(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        while let Some((other, _)) = self.spans.range(..=end.clone()).next_back() {
            let other = other.clone();
            let Some(other_end) = self.spans.get(&other).filter(|other_end| **other_end >= start).cloned() else { break };
            self.spans.remove(&other);
            start = start.min(other);
            end = end.max(other_end);
        }
        self.spans.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let upto: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Included(key));
        self.spans.range::<[u8], _>(upto).next_back().is_some_and(|(_, end)| key < end.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbPutRequest, PbTxnRequest};

    use super::*;

    fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
        PbTxnRequestOp { request: Some(request) }
    }

    fn put(key: &str) -> PbTxnRequestOp {
        op(PbTxnOpRequest::RequestPut(PbPutRequest { key: key.into(), ..PbPutRequest::default() }))
    }

    fn delete(key: &str, end: &str) -> PbTxnRequestOp {
        op(PbTxnOpRequest::RequestDeleteRange(PbDeleteRequest { key: key.into(), range_end: end.into(), prev_kv: false }))
    }

    fn txn(success: Vec<PbTxnRequestOp>, failure: Vec<PbTxnRequestOp>) -> PbTxnRequestOp {
        op(PbTxnOpRequest::RequestTxn(PbTxnRequest { compare: Vec::new(), success, failure }))
    }

    #[test]
    fn a_key_is_put_once_and_never_both_put_and_deleted() {
        let refused = Err(Refusal::DuplicateKey);
        assert_eq!(check(&[put("a"), put("b"), delete("c", "")]), Ok(()));
        assert_eq!(check(&[put("a"), put("a")]), refused);
        assert_eq!(check(&[put("b"), delete("a", "c")]), refused);
        assert_eq!(check(&[put("c"), delete("a", "c")]), Ok(()));
        assert_eq!(check(&[delete("a", "c"), delete("b", "d"), delete("b", "")]), Ok(()));
        assert_eq!(check(&[delete("a", "c"), delete("e", "g"), delete("b", "f"), put("d")]), refused);
    }

    #[test]
    fn the_branches_of_a_nested_transaction_exclude_each_other_and_nothing_else() {
        let refused = Err(Refusal::DuplicateKey);
        assert_eq!(check(&[txn(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(&[txn(vec![put("a")], vec![]), put("a")]), refused);
        assert_eq!(check(&[txn(vec![put("a")], vec![]), txn(vec![], vec![put("a")])]), refused);
        assert_eq!(check(&[txn(vec![], vec![delete("a", "c")]), put("b")]), refused);
        assert_eq!(check(&[delete("a", "c"), txn(vec![put("b")], vec![])]), refused);
    }
}
