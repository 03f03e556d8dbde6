//! The compares of a transaction: each holds for all keys of its span, or does not.

use std::cmp::Ordering;

use etcd_client::proto::{PbCompare, PbTargetUnion};

use crate::mvcc::{Span, Version, View};

/// Wire numbers of `Compare.CompareTarget`.
const TARGET_VERSION: i32 = 0;
const TARGET_CREATED: i32 = 1;
const TARGET_MODIFIED: i32 = 2;
const TARGET_VALUE: i32 = 3;
const TARGET_LEASE: i32 = 4;

/// Wire numbers of `Compare.CompareResult`.
const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

/// Whether every compare of a list holds.
pub(super) fn hold(view: View<'_>, compares: &[PbCompare]) -> bool {
    compares.iter().all(|compare| holds(view, compare))
}

fn holds(view: View<'_>, compare: &PbCompare) -> bool {
    let mut live = view.live(&Span::new(&compare.key, &compare.range_end), view.current()).peekable();
    if live.peek().is_none() {
        // A key that is not there has all numbers 0, but no value: the wire can't tell an empty value from none.
        return compare.target != TARGET_VALUE && satisfies(compare, 0, &[]);
    }
    live.all(|version| satisfies(compare, number(compare.target, version), &version.value))
}

fn number(target: i32, version: &Version) -> i64 {
    match target {
        TARGET_VERSION => version.version,
        TARGET_CREATED => version.created,
        TARGET_MODIFIED => version.modified,
        TARGET_LEASE => version.lease,
        _ => 0,
    }
}

/// Compares with what the request gives. A target of which it gives nothing, or another's, is compared with nothing: 0
/// or the empty value. Numbers that the enumerations do not have come out as in etcd: an unknown target is equal, an
/// unknown result holds.
fn satisfies(compare: &PbCompare, actual: i64, value: &[u8]) -> bool {
    let given = match (&compare.target_union, compare.target) {
        (Some(PbTargetUnion::Version(given)), TARGET_VERSION)
        | (Some(PbTargetUnion::CreateRevision(given)), TARGET_CREATED)
        | (Some(PbTargetUnion::ModRevision(given)), TARGET_MODIFIED)
        | (Some(PbTargetUnion::Lease(given)), TARGET_LEASE) => *given,
        _ => 0,
    };
    let ordering = match (&compare.target_union, compare.target) {
        (Some(PbTargetUnion::Value(given)), TARGET_VALUE) => value.cmp(given),
        (_, TARGET_VALUE) => value.cmp(&[]),
        (_, TARGET_VERSION | TARGET_CREATED | TARGET_MODIFIED | TARGET_LEASE) => actual.cmp(&given),
        _ => Ordering::Equal,
    };
    match compare.result {
        EQUAL => ordering.is_eq(),
        NOT_EQUAL => ordering.is_ne(),
        GREATER => ordering.is_gt(),
        LESS => ordering.is_lt(),
        _ => true,
    }
}
