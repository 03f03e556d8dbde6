//! DeleteRange: deletes the keys of a span.

use etcd_client::proto::{PbDeleteRequest, PbDeleteResponse};

use super::header;
use crate::mvcc::{Span, Transaction};

/// Deletes what lives in the span. Where nothing does, no revision comes to be.
pub(crate) fn delete(transaction: &mut Transaction<'_>, request: &PbDeleteRequest) -> PbDeleteResponse {
    let span = Span::new(&request.key, &request.range_end);
    let prev_kvs = if request.prev_kv {
        let view = transaction.view();
        view.live(&span, view.current()).map(|version| version.to_wire()).collect()
    } else {
        Vec::new()
    };
    let deleted = transaction.delete(&span);
    PbDeleteResponse { header: header(transaction.revision()), deleted, prev_kvs }
}
