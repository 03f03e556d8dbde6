//! The two servers, and one case run against both.

use etcd_client::proto::{
    PbCompactionRequest, PbCompare, PbDeleteRequest, PbHashKvRequest, PbLeaseGrantRequest, PbLeaseLeasesRequest, PbLeaseRevokeRequest,
    PbLeaseTimeToLiveRequest, PbPutRequest, PbRangeRequest, PbResponseHeader, PbTargetUnion, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};
use podium_etcd::Server;
use tempfile::TempDir;
use tonic::Status;

use super::case::{Case, Compare, Op, Put, Range, Revision, Txn};
use super::watching::{Watch, differences};
use crate::fixture;
use crate::real::Etcd;
use crate::wire::Wire;

pub struct Pair {
    ours: Wire,
    theirs: Wire,
    /// The revision up to which both have forgotten their history.
    compacted: i64,
    _server: Server,
    _etcd: Etcd,
    _folder: TempDir,
}

impl Pair {
    pub async fn start() -> Self {
        let etcd = Etcd::start();
        let folder = tempfile::tempdir().expect("a folder");
        let server = fixture::start(folder.path()).await;
        let ours = Wire::connect(&server.address().to_string()).await;
        let theirs = Wire::connect(&etcd.address).await;
        Pair { ours, theirs, compacted: 0, _server: server, _etcd: etcd, _folder: folder }
    }

    /// Runs a case; the error tells the first difference.
    pub async fn run(&mut self, case: &Case) -> Result<(), String> {
        let base = self.begin().await?;
        let mut live = self.open(&case.live, base).await;
        self.apply(&case.first, base).await?;
        differences("live watchers", &mut live.0, &mut live.1).await?;
        drop(live);
        if let Some(revision) = case.compact {
            self.step(&Op::Compact(revision), base).await?;
        }
        self.apply(&case.second, base).await?;
        let mut replays = self.open(&case.replays, base).await;
        differences("replays", &mut replays.0, &mut replays.1).await?;
        self.step(&Op::Hash(Revision::Raw(0)), base).await
    }

    /// Empties both servers, and returns the revision from which the case counts.
    async fn begin(&mut self) -> Result<i64, String> {
        for id in 1..4 {
            self.step(&Op::Revoke(id), 0).await?;
        }
        let everything = || PbDeleteRequest { key: b"\0".to_vec(), range_end: b"\0".to_vec(), prev_kv: false };
        let (ours, theirs) = (self.ours.call(everything()).await, self.theirs.call(everything()).await);
        let revision = |answer: Result<etcd_client::proto::PbDeleteResponse, Status>| {
            answer.ok().and_then(|answer| answer.header).map(|header| header.revision)
        };
        match (revision(ours), revision(theirs)) {
            (Some(ours), Some(theirs)) if ours == theirs => Ok(ours),
            other => Err(format!("the servers begin at different revisions: {other:?}")),
        }
    }

    async fn open(&mut self, watchings: &[super::case::Watching], base: i64) -> (Watch, Watch) {
        let ours = Watch::open(&mut self.ours, watchings, base, self.compacted).await;
        let theirs = Watch::open(&mut self.theirs, watchings, base, self.compacted).await;
        (ours, theirs)
    }

    async fn apply(&mut self, ops: &[Op], base: i64) -> Result<(), String> {
        for op in ops {
            self.step(op, base).await?;
        }
        Ok(())
    }

    async fn step(&mut self, op: &Op, base: i64) -> Result<(), String> {
        let ours = outcome(&mut self.ours, op, base).await;
        let theirs = outcome(&mut self.theirs, op, base).await;
        if ours != theirs {
            return Err(format!("{op:?} (revisions count from {base})\n ours:   {ours}\n theirs: {theirs}"));
        }
        if let Op::Compact(revision) = op
            && !ours.starts_with("OutOfRange")
        {
            self.compacted = absolute(*revision, base);
        }
        Ok(())
    }
}

/// What a server makes of an operation, as text, without what must differ: ids, terms, and the seconds left.
async fn outcome(wire: &mut Wire, op: &Op, base: i64) -> String {
    match op {
        Op::Range(range) => shown(wire.call(range_request(range, base)).await, |answer| &mut answer.header),
        Op::Put(put) => shown(wire.call(put_request(put)).await, |answer| &mut answer.header),
        Op::Delete { span, previous } => {
            let request = PbDeleteRequest { key: span.key.into(), range_end: span.end.into(), prev_kv: *previous };
            shown(wire.call(request).await, |answer| &mut answer.header)
        }
        Op::Txn(txn) => shown(wire.call(txn_request(txn, base)).await, |answer| &mut answer.header),
        Op::Grant { id, ttl } => shown(wire.call(PbLeaseGrantRequest { id: *id, ttl: *ttl }).await, |answer| &mut answer.header),
        Op::Revoke(id) => shown(wire.call(PbLeaseRevokeRequest { id: *id }).await, |answer| &mut answer.header),
        Op::KeepAlive(id) => shown(wire.keep_alive(*id).await, |answer| &mut answer.header),
        Op::TimeToLive { id, keys } => {
            let mut answer = wire.call(PbLeaseTimeToLiveRequest { id: *id, keys: *keys }).await;
            if let Ok(answer) = &mut answer {
                answer.ttl = answer.ttl.signum();
                answer.keys.sort();
            }
            shown(answer, |answer| &mut answer.header)
        }
        Op::Leases => {
            let mut answer = wire.call(PbLeaseLeasesRequest {}).await;
            if let Ok(answer) = &mut answer {
                answer.leases.sort_by_key(|lease| lease.id);
            }
            shown(answer, |answer| &mut answer.header)
        }
        Op::Compact(revision) => {
            let request = PbCompactionRequest { revision: absolute(*revision, base), physical: true };
            shown(wire.call(request).await, |answer| &mut answer.header)
        }
        Op::Hash(revision) => {
            let request = PbHashKvRequest { revision: absolute(*revision, base) };
            shown(wire.call(request).await, |answer| &mut answer.header)
        }
    }
}

/// The ids of an outer header must be there, and are then left out.
fn shown<A: std::fmt::Debug>(answer: Result<A, Status>, header: impl FnOnce(&mut A) -> &mut Option<PbResponseHeader>) -> String {
    match answer {
        Ok(mut answer) => {
            if let Some(header) = header(&mut answer) {
                let complete = header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0;
                assert!(complete, "an incomplete header: {header:?}");
                *header = PbResponseHeader { revision: header.revision, ..PbResponseHeader::default() };
            }
            format!("{answer:?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

pub fn absolute(revision: Revision, base: i64) -> i64 {
    match revision {
        Revision::Raw(revision) => revision,
        Revision::Since(since) => base + since,
    }
}

fn range_request(range: &Range, base: i64) -> PbRangeRequest {
    let bound = |at: usize| range.bounds[at].map_or(0, |since| base + since);
    PbRangeRequest {
        key: range.span.key.into(),
        range_end: range.span.end.into(),
        limit: range.limit,
        revision: absolute(range.revision, base),
        sort_order: range.sort_order,
        sort_target: range.sort_target,
        serializable: range.serializable,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: bound(0),
        max_mod_revision: bound(1),
        min_create_revision: bound(2),
        max_create_revision: bound(3),
    }
}

fn put_request(put: &Put) -> PbPutRequest {
    PbPutRequest {
        key: put.key.into(),
        value: put.value.into(),
        lease: put.lease,
        prev_kv: put.previous,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn txn_request(txn: &Txn, base: i64) -> PbTxnRequest {
    let ops = |ops: &[Op]| ops.iter().map(|op| PbTxnRequestOp { request: Some(nested(op, base)) }).collect();
    PbTxnRequest {
        compare: txn.compares.iter().map(|compare| compare_request(compare, base)).collect(),
        success: ops(&txn.success),
        failure: ops(&txn.failure),
    }
}

fn nested(op: &Op, base: i64) -> PbTxnOpRequest {
    match op {
        Op::Range(range) => PbTxnOpRequest::RequestRange(range_request(range, base)),
        Op::Put(put) => PbTxnOpRequest::RequestPut(put_request(put)),
        Op::Delete { span, previous } => {
            PbTxnOpRequest::RequestDeleteRange(PbDeleteRequest { key: span.key.into(), range_end: span.end.into(), prev_kv: *previous })
        }
        Op::Txn(txn) => PbTxnOpRequest::RequestTxn(txn_request(txn, base)),
        other => panic!("{other:?} has no place in a transaction"),
    }
}

fn compare_request(compare: &Compare, base: i64) -> PbCompare {
    let target_union = compare.given.map(|(target, number)| match target {
        0 => PbTargetUnion::Version(absolute(number, 0)),
        1 => PbTargetUnion::CreateRevision(absolute(number, base)),
        2 => PbTargetUnion::ModRevision(absolute(number, base)),
        3 => PbTargetUnion::Value(compare.value.into()),
        _ => PbTargetUnion::Lease(absolute(number, 0)),
    });
    PbCompare {
        result: compare.result,
        target: compare.target,
        key: compare.span.key.into(),
        range_end: compare.span.end.into(),
        target_union,
    }
}
