//! Put: writes one key.

use etcd_client::proto::{PbPutRequest, PbPutResponse};

use super::{Leases, header};
use crate::error::Refusal;
use crate::mvcc::{Transaction, View};

/// Whether a put on its own can be done. etcd looks at the lease first here, and at the key first inside a transaction.
pub(crate) fn check_alone(view: View<'_>, leases: &impl Leases, request: &PbPutRequest) -> Result<(), Refusal> {
    check_lease(leases, request)?;
    check_previous(view, request)
}

/// Whether a put of a transaction can be done.
pub(super) fn check_nested(view: View<'_>, leases: &impl Leases, request: &PbPutRequest) -> Result<(), Refusal> {
    check_previous(view, request)?;
    check_lease(leases, request)
}

fn check_lease(leases: &impl Leases, request: &PbPutRequest) -> Result<(), Refusal> {
    if request.lease != 0 && !leases.exists(request.lease) {
        return Err(Refusal::LeaseNotFound);
    }
    Ok(())
}

fn check_previous(view: View<'_>, request: &PbPutRequest) -> Result<(), Refusal> {
    if (request.ignore_value || request.ignore_lease) && view.get(&request.key).is_none() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

/// Puts a key, after a check.
pub(crate) fn put(transaction: &mut Transaction<'_>, request: PbPutRequest) -> PbPutResponse {
    let previous = transaction.view().get(&request.key).cloned();
    let value = match &previous {
        Some(previous) if request.ignore_value => previous.value.clone(),
        _ => request.value.into(),
    };
    let lease = match &previous {
        Some(previous) if request.ignore_lease => previous.lease,
        _ => request.lease,
    };
    transaction.put(request.key.into(), value, lease);
    let prev_kv = previous.filter(|_| request.prev_kv).map(|previous| previous.to_wire());
    PbPutResponse { header: header(transaction.revision()), prev_kv }
}
