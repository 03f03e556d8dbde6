//! What a case may do, and how it is drawn.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

/// A case: operations with some watchers open, then perhaps a compaction, more operations, and watchers of the past.
#[derive(Debug, Clone)]
pub struct Case {
    pub live: Vec<Watching>,
    pub first: Vec<Op>,
    pub compact: Option<Revision>,
    pub second: Vec<Op>,
    pub replays: Vec<Watching>,
}

/// A revision relative to the case's first one; `Raw` is sent as it is.
#[derive(Debug, Clone, Copy)]
pub enum Revision {
    Raw(i64),
    Since(i64),
}

#[derive(Debug, Clone)]
pub struct Span {
    pub key: &'static str,
    pub end: &'static str,
}

#[derive(Debug, Clone)]
pub enum Op {
    Range(Range),
    Put(Put),
    Delete { span: Span, previous: bool },
    Txn(Txn),
    Grant { id: i64, ttl: i64 },
    Revoke(i64),
    KeepAlive(i64),
    TimeToLive { id: i64, keys: bool },
    Leases,
    Compact(Revision),
    Hash(Revision),
}

#[derive(Debug, Clone)]
pub struct Range {
    pub span: Span,
    pub revision: Revision,
    pub limit: i64,
    pub sort_order: i32,
    pub sort_target: i32,
    pub keys_only: bool,
    pub count_only: bool,
    pub serializable: bool,
    /// Smallest and largest modified and created revision.
    pub bounds: [Option<i64>; 4],
}

#[derive(Debug, Clone)]
pub struct Put {
    pub key: &'static str,
    pub value: &'static str,
    pub lease: i64,
    pub previous: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

#[derive(Debug, Clone)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Debug, Clone)]
pub struct Compare {
    pub span: Span,
    pub result: i32,
    pub target: i32,
    /// Of which target a value is given, and which.
    pub given: Option<(i32, Revision)>,
    pub value: &'static str,
}

#[derive(Debug, Clone)]
pub struct Watching {
    pub span: Span,
    pub start: Option<Revision>,
    pub previous: bool,
    pub filters: Vec<i32>,
    pub fragment: bool,
}

const KEYS: [&str; 7] = ["a", "b", "c", "ca", "cb", "d", "e"];
const ENDS: [&str; 7] = ["", "", "b", "c", "cb", "e", "\0"];
const VALUES: [&str; 4] = ["", "x", "y", "zz"];

pub fn case() -> impl Strategy<Value = Case> {
    let compact = weighted(0.5, (0..25i64).prop_map(Revision::Since));
    (vec(watching(false), 0..3), vec(op(), 1..20), compact, vec(op(), 0..12), vec(watching(true), 0..4))
        .prop_map(|(live, first, compact, second, replays)| Case { live, first, compact, second, replays })
}

fn key() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => proptest::sample::select(&KEYS[..]), 1 => Just("")]
}

fn span() -> impl Strategy<Value = Span> {
    (key(), proptest::sample::select(&ENDS[..])).prop_map(|(key, end)| Span { key, end })
}

/// Mostly the current revision, else around those that the case makes.
fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![
        6 => Just(Revision::Raw(0)),
        1 => Just(Revision::Raw(-1)),
        1 => Just(Revision::Raw(1)),
        4 => (-3..25i64).prop_map(Revision::Since),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    1..4i64
}

fn range() -> impl Strategy<Value = Range> {
    let shape = (weighted_number(0..4), (0..3i32, 0..5i32), prop::bool::weighted(0.2), prop::bool::weighted(0.1), any::<bool>());
    let bounds = [weighted(0.1, 0..15i64), weighted(0.1, 0..15i64), weighted(0.1, 0..15i64), weighted(0.1, 0..15i64)];
    (span(), revision(), shape, bounds, prop::bool::weighted(0.02)).prop_map(
        |(span, revision, (limit, (sort_order, sort_target), keys_only, count_only, serializable), bounds, odd)| Range {
            span,
            revision,
            limit,
            // Two keys may be equal in all but the key, and etcd's sort is not stable: so only orders without ties.
            sort_order,
            sort_target: if odd { sort_target } else { [0, 3][usize::try_from(sort_target).unwrap_or(0) % 2] },
            keys_only,
            count_only,
            serializable,
            bounds,
        },
    )
}

fn weighted_number(range: std::ops::Range<i64>) -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(0), 1 => range]
}

fn put() -> impl Strategy<Value = Put> {
    (
        key(),
        proptest::sample::select(&VALUES[..]),
        prop_oneof![4 => Just(0), 1 => lease()],
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(key, value, lease, previous, ignore_value, ignore_lease)| Put {
            key,
            value,
            lease,
            previous,
            ignore_value,
            ignore_lease,
        })
}

fn delete() -> impl Strategy<Value = Op> {
    (span(), any::<bool>()).prop_map(|(span, previous)| Op::Delete { span, previous })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => range().prop_map(Op::Range),
        10 => put().prop_map(Op::Put),
        3 => delete(),
        8 => txn().prop_map(Op::Txn),
        2 => (lease(), prop_oneof![4 => 100..2000i64, 1 => Just(9_000_000_001), 1 => -1..3i64]).prop_map(|(id, ttl)| Op::Grant { id, ttl }),
        1 => lease().prop_map(Op::Revoke),
        1 => lease().prop_map(Op::KeepAlive),
        1 => (lease(), any::<bool>()).prop_map(|(id, keys)| Op::TimeToLive { id, keys }),
        1 => Just(Op::Leases),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let given = prop_oneof![
        3 => (0..5i32).prop_map(|n| Revision::Raw(n.into())),
        1 => (0..20i64).prop_map(Revision::Since),
    ];
    (span(), 0..4i32, 0..5i32, weighted(0.95, given), proptest::sample::select(&VALUES[..]), prop::bool::weighted(0.05)).prop_map(
        |(span, result, target, given, value, other)| Compare {
            span,
            result,
            target,
            given: given.map(|given| (if other { (target + 1) % 5 } else { target }, given)),
            value,
        },
    )
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = || {
        prop_oneof![
            3 => range().prop_map(Op::Range),
            5 => put().prop_map(Op::Put),
            // etcd takes a transaction apart that deletes from a key on and puts a key there: it must not be drawn.
            2 => delete().prop_filter("an open delete", |op| !matches!(op, Op::Delete { span, .. } if span.end == "\0")),
        ]
    };
    let plain = (vec(compare(), 0..3), vec(leaf(), 0..4), vec(leaf(), 0..3));
    let plain = plain.prop_map(|(compares, success, failure)| Txn { compares, success, failure }).boxed();
    plain.prop_recursive(3, 12, 3, move |inner| {
        let nested = inner.prop_map(Op::Txn);
        let list = || vec(prop_oneof![3 => leaf(), 2 => nested.clone()], 0..4);
        (vec(compare(), 0..3), list(), list()).prop_map(|(compares, success, failure)| Txn { compares, success, failure })
    })
}

fn watching(past: bool) -> impl Strategy<Value = Watching> {
    let start = if past {
        (-1..25i64).prop_map(|since| Some(Revision::Since(since))).boxed()
    } else {
        prop_oneof![Just(None), (2..12i64).prop_map(|since| Some(Revision::Since(since)))].boxed()
    };
    (span(), start, any::<bool>(), vec(0..2i32, 0..2), any::<bool>()).prop_map(|(span, start, previous, filters, fragment)| Watching {
        span,
        start,
        previous,
        filters,
        fragment,
    })
}
