//! What is wrong with a request on its face, before it is queued and whatever the state is.

mod overlap;

use etcd_client::proto::{PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};

use crate::apply;
use crate::error::Refusal;
use crate::limits::{ENVELOPE_BYTES, REQUEST_BYTES, TXN_OPERATIONS};

pub(crate) fn range(request: &PbRangeRequest) -> Result<(), Refusal> {
    key(&request.key)?;
    apply::sort(request).map(drop)
}

pub(crate) fn put(request: &PbPutRequest) -> Result<(), Refusal> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub(crate) fn delete(request: &PbDeleteRequest) -> Result<(), Refusal> {
    key(&request.key)
}

pub(crate) fn txn(request: &PbTxnRequest) -> Result<(), Refusal> {
    operations(request, TXN_OPERATIONS)?;
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

/// Refuses a write request whose encoding is longer than etcd would let through its log.
pub(crate) fn size(request: &impl prost::Message) -> Result<usize, Refusal> {
    let bytes = request.encoded_len();
    if bytes + ENVELOPE_BYTES > REQUEST_BYTES {
        return Err(Refusal::RequestTooLarge);
    }
    Ok(bytes)
}

fn key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// A transaction counts for the longest of its three lists; a nested one may use what is then left of `allowed`.
fn operations(request: &PbTxnRequest, allowed: usize) -> Result<(), Refusal> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = allowed.checked_sub(longest).ok_or(Refusal::TooManyOperations)?;
    request.compare.iter().try_for_each(|compare| key(&compare.key))?;
    request.success.iter().chain(&request.failure).try_for_each(|op| operation(op, left))
}

fn operation(op: &PbTxnRequestOp, left: usize) -> Result<(), Refusal> {
    match &op.request {
        Some(PbTxnOpRequest::RequestRange(request)) => range(request),
        Some(PbTxnOpRequest::RequestPut(request)) => put(request),
        Some(PbTxnOpRequest::RequestDeleteRange(request)) => delete(request),
        Some(PbTxnOpRequest::RequestTxn(request)) => operations(request, left),
        None => Err(Refusal::KeyNotFound),
    }
}
