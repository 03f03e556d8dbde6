//! Reading a span: filters, order, limit and count as etcd's Range has them.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Span, Version, View};
use crate::error::Refusal;

/// What to select. Numbers of 0 mean "no such condition", as on the wire.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) span: Span,
    /// The revision to read at; 0 and less is the current one.
    pub(crate) revision: i64,
    /// 0 and less is no limit.
    pub(crate) limit: i64,
    pub(crate) sort: Sort,
    pub(crate) count_only: bool,
    pub(crate) modified_min: i64,
    pub(crate) modified_max: i64,
    pub(crate) created_min: i64,
    pub(crate) created_max: i64,
}

/// By which column, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) by: SortBy,
    pub(crate) order: Option<Ordering>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortBy {
    Key,
    Version,
    Created,
    Modified,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    Ascending,
    Descending,
}

/// What was selected, at the view's revision.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) versions: Vec<Arc<Version>>,
    pub(crate) more: bool,
    /// All keys that live in the span, whatever the filters and the limit say.
    pub(crate) count: i64,
}

impl View<'_> {
    pub(crate) fn select(&self, wanted: &Selection) -> Result<Selected, Refusal> {
        let revision = self.resolve(wanted.revision)?;
        let live = self.live(&wanted.span, revision);
        if wanted.count_only {
            return Ok(Selected { versions: Vec::new(), more: false, count: count_of(live.count()) });
        }
        let limit = usize::try_from(wanted.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        // One version over the limit is kept to know whether there is more; etcd then sorts what it kept, and so do we.
        let keep = if wanted.needs_all() { usize::MAX } else { limit.saturating_add(1) };
        let mut count = 0;
        let mut versions = Vec::new();
        for version in live {
            count += 1;
            if versions.len() < keep && wanted.admits(version) {
                versions.push(version.clone());
            }
        }
        wanted.sort.apply(&mut versions);
        let more = versions.len() > limit;
        versions.truncate(limit);
        Ok(Selected { versions, more, count: count_of(count) })
    }
}

fn count_of(keys: usize) -> i64 {
    i64::try_from(keys).unwrap_or(i64::MAX)
}

impl Selection {
    /// Whether the limit counts only after filtering and sorting everything.
    fn needs_all(&self) -> bool {
        self.sort.order.is_some()
            || [self.modified_min, self.modified_max, self.created_min, self.created_max].iter().any(|bound| *bound != 0)
    }

    fn admits(&self, version: &Version) -> bool {
        (self.modified_max == 0 || version.modified <= self.modified_max)
            && (self.modified_min == 0 || version.modified >= self.modified_min)
            && (self.created_max == 0 || version.created <= self.created_max)
            && (self.created_min == 0 || version.created >= self.created_min)
    }
}

impl Sort {
    fn apply(self, versions: &mut [Arc<Version>]) {
        let order = match (self.order, self.by) {
            (None, SortBy::Key) => return,
            (order, _) => order.unwrap_or(Ordering::Ascending),
        };
        match self.by {
            SortBy::Key => sort_by(versions, order, |version| &version.key),
            SortBy::Version => sort_by(versions, order, |version| &version.version),
            SortBy::Created => sort_by(versions, order, |version| &version.created),
            SortBy::Modified => sort_by(versions, order, |version| &version.modified),
            SortBy::Value => sort_by(versions, order, |version| &version.value),
        }
    }
}

/// Sorts stably, so that equal ones stay in the order of their keys whichever way the order goes.
fn sort_by<K: Ord>(versions: &mut [Arc<Version>], order: Ordering, column: impl Fn(&Version) -> &K) {
    match order {
        Ordering::Ascending => versions.sort_by(|a, b| column(a).cmp(column(b))),
        Ordering::Descending => versions.sort_by(|a, b| Reverse(column(a)).cmp(&Reverse(column(b)))),
    }
}
