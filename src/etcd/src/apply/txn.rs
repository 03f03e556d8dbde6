//! Txn: compares, then one of two lists of operations, which may be transactions themselves.
//!
//! All compares, nested ones too, are judged on the state before the transaction; then the chosen operations are checked;
//! then they are done, in their order, each seeing the ones before it.

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbRangeResponse, PbResponseOp, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest,
    PbTxnRequestOp, PbTxnResponse,
};

use super::{Leases, compare, delete, header, put, range};
use crate::error::Refusal;
use crate::mvcc::{Transaction, View};

/// The operations that the compares have chosen.
struct Plan {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Range(PbRangeRequest),
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(Plan),
}

/// Whether both lists hold reads alone: such a transaction does not go through the writer.
pub(crate) fn is_read_only(request: &PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| matches!(op.request, Some(PbTxnOpRequest::RequestRange(_))))
}

/// Answers a transaction for which [`is_read_only`] holds.
pub(crate) fn read_txn(view: View<'_>, request: PbTxnRequest) -> Result<PbTxnResponse, Refusal> {
    let plan = choose(view, request);
    check_ranges(view, &plan)?;
    let reads = plan.steps.iter().filter_map(|step| match step {
        Step::Range(request) => Some(response(PbTxnOpResponse::ResponseRange(read(view, request)))),
        _ => None,
    });
    Ok(PbTxnResponse { header: header(view.current()), succeeded: plan.succeeded, responses: reads.collect() })
}

/// Judges, checks and does a transaction. When refused, nothing has changed.
pub(crate) fn txn(transaction: &mut Transaction<'_>, leases: &impl Leases, request: PbTxnRequest) -> Result<PbTxnResponse, Refusal> {
    let view = transaction.view();
    let plan = choose(view, request);
    check_puts(view, leases, &plan)?;
    check_ranges(view, &plan)?;
    let mut answer = run(transaction, plan);
    answer.header = header(transaction.revision());
    Ok(answer)
}

fn choose(view: View<'_>, request: PbTxnRequest) -> Plan {
    let succeeded = compare::hold(view, &request.compare);
    let chosen = if succeeded { request.success } else { request.failure };
    let step = |op: PbTxnRequestOp| match op.request? {
        PbTxnOpRequest::RequestRange(request) => Some(Step::Range(request)),
        PbTxnOpRequest::RequestPut(request) => Some(Step::Put(request)),
        PbTxnOpRequest::RequestDeleteRange(request) => Some(Step::Delete(request)),
        PbTxnOpRequest::RequestTxn(request) => Some(Step::Txn(choose(view, request))),
    };
    Plan { succeeded, steps: chosen.into_iter().filter_map(step).collect() }
}

fn check_puts(view: View<'_>, leases: &impl Leases, plan: &Plan) -> Result<(), Refusal> {
    plan.steps.iter().try_for_each(|step| match step {
        Step::Put(request) => put::check_nested(view, leases, request),
        Step::Txn(plan) => check_puts(view, leases, plan),
        Step::Range(_) | Step::Delete(_) => Ok(()),
    })
}

/// A transaction takes 0 alone for the current revision, unlike a range on its own: a negative one is long compacted.
fn check_ranges(view: View<'_>, plan: &Plan) -> Result<(), Refusal> {
    plan.steps.iter().try_for_each(|step| match step {
        Step::Range(request) if request.revision == 0 => Ok(()),
        Step::Range(request) => view.readable(request.revision),
        Step::Txn(plan) => check_ranges(view, plan),
        Step::Put(_) | Step::Delete(_) => Ok(()),
    })
}

fn run(transaction: &mut Transaction<'_>, plan: Plan) -> PbTxnResponse {
    let mut responses = Vec::with_capacity(plan.steps.len());
    for step in plan.steps {
        responses.push(response(match step {
            Step::Range(request) => PbTxnOpResponse::ResponseRange(read(transaction.view(), &request)),
            Step::Put(request) => PbTxnOpResponse::ResponsePut(put::put(transaction, request)),
            Step::Delete(request) => PbTxnOpResponse::ResponseDeleteRange(delete::delete(transaction, &request)),
            Step::Txn(plan) => PbTxnOpResponse::ResponseTxn(run(transaction, plan)),
        }));
    }
    // etcd gives nested transactions an empty header; the outer one gets its revision from the caller.
    PbTxnResponse { header: header(0), succeeded: plan.succeeded, responses }
}

/// A read of a transaction. It was checked, and a revision that could be read before the transaction still can be.
fn read(view: View<'_>, request: &PbRangeRequest) -> PbRangeResponse {
    range::range(view, request).map(|build| build()).unwrap_or_default()
}

fn response(response: PbTxnOpResponse) -> PbResponseOp {
    PbResponseOp { response: Some(response) }
}
