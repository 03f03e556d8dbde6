//! Range: reads at a revision.

use etcd_client::proto::{PbRangeRequest, PbRangeResponse};

use super::header;
use crate::error::Refusal;
use crate::mvcc::{Ordering, Selection, Sort, SortBy, Span, View};

/// Reads what the request asks for.
///
/// The selected versions are shared, not copied, so whoever holds a lock around the view can let go of it before the
/// returned closure builds the answer.
pub(crate) fn range(view: View<'_>, request: &PbRangeRequest) -> Result<impl FnOnce() -> PbRangeResponse + use<>, Refusal> {
    let selected = view.select(&selection(request)?)?;
    let (revision, keys_only) = (view.current(), request.keys_only);
    Ok(move || {
        let wire = |version: &std::sync::Arc<crate::mvcc::Version>| {
            if keys_only { version.to_wire_key() } else { version.to_wire() }
        };
        PbRangeResponse {
            header: header(revision),
            kvs: selected.versions.iter().map(wire).collect(),
            more: selected.more,
            count: selected.count,
        }
    })
}

fn selection(request: &PbRangeRequest) -> Result<Selection, Refusal> {
    Ok(Selection {
        span: Span::new(&request.key, &request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort: sort(request)?,
        count_only: request.count_only,
        modified_min: request.min_mod_revision,
        modified_max: request.max_mod_revision,
        created_min: request.min_create_revision,
        created_max: request.max_create_revision,
    })
}

/// Reads the two enumerations of the wire. Numbers that etcd's own do not have are refused.
pub(crate) fn sort(request: &PbRangeRequest) -> Result<Sort, Refusal> {
    let order = match request.sort_order {
        0 => None,
        1 => Some(Ordering::Ascending),
        2 => Some(Ordering::Descending),
        _ => return Err(Refusal::InvalidSort),
    };
    let by = match request.sort_target {
        0 => SortBy::Key,
        1 => SortBy::Version,
        2 => SortBy::Created,
        3 => SortBy::Modified,
        4 => SortBy::Value,
        _ => return Err(Refusal::InvalidSort),
    };
    Ok(Sort { by, order })
}
