//! Maintenance: what `etcdctl endpoint`, `etcdctl alarm` and `etcdctl snapshot` ask for.

use std::sync::Arc;

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest,
    PbHashKvResponse, PbHashRequest, PbHashResponse, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest,
    PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::unimplemented;
use crate::core::Core;
use crate::error::Refusal;
use crate::limits::SNAPSHOTS;
use crate::snapshot::{self, Outlet};

/// The version of etcd whose behaviour this server has: clients choose by it what they may call.
const ETCD_VERSION: &str = "3.4.23";
/// Wire number of `AlarmRequest.AlarmAction`: raise an alarm.
const ACTIVATE: i32 = 1;

pub(super) struct Maintenance(pub(super) Arc<Core>);

#[tonic::async_trait]
impl PbMaintenanceService for Maintenance {
    type SnapshotStream = ReceiverStream<Result<PbSnapshotResponse, Status>>;

    /// There are no alarms: none to list, and none to end. Raising one by hand is not supported.
    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        if request.into_inner().action == ACTIVATE {
            return Err(Status::unimplemented("alarms can't be raised in Podium's embedded store"));
        }
        Ok(Response::new(PbAlarmResponse { header: self.0.complete(None), alarms: Vec::new() }))
    }

    async fn status(&self, _: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let core = &self.0;
        let index = u64::try_from(core.progress.borrow().index).unwrap_or(0);
        let bytes = i64::try_from(core.disk.switch.bytes()).unwrap_or(i64::MAX);
        Ok(Response::new(PbStatusResponse {
            header: core.complete(None),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: core.identity.member,
            raft_index: index,
            raft_applied_index: index,
            raft_term: core.identity.term,
            ..PbStatusResponse::default()
        }))
    }

    /// The file gives its free pages to the next writes, so there is nothing to do.
    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Result<Response<PbDefragmentResponse>, Status> {
        Ok(Response::new(PbDefragmentResponse::default()))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        Err(unimplemented("Maintenance", "Hash"))
    }

    async fn hash_kv(&self, request: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        let core = self.0.clone();
        let revision = request.into_inner().revision;
        let hashed = tokio::task::spawn_blocking(move || {
            let keyspace = core.keyspace.read();
            keyspace.hash(revision).map(|(hash, compacted)| (hash, compacted, keyspace.published()))
        });
        let (hash, compact_revision, published) = hashed.await.map_err(|_| Status::internal("the hash was interrupted"))??;
        let header = Some(self.0.identity.header(published));
        Ok(Response::new(PbHashKvResponse { header, hash, compact_revision, ..PbHashKvResponse::default() }))
    }

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let busy = |_| Status::resource_exhausted(format!("{SNAPSHOTS} snapshots are being sent already: try again when one is done"));
        let slot = Arc::clone(&self.0.snapshot_slots).try_acquire_owned().map_err(busy)?;
        let journal = self.0.disk.journal.upgrade().ok_or(Refusal::Stopped)?;
        let (outlet, stream) = Outlet::open()?;
        let closing = self.0.closing.clone();
        self.0.snapshots.spawn_blocking(move || {
            match journal.image() {
                Ok(image) => snapshot::send(&image, outlet, &closing),
                Err(error) => outlet.break_off(Status::internal(format!("the store can't be read: {error}"))),
            }
            drop(slot);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: bad leader transferee"))
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(unimplemented("Maintenance", "Downgrade"))
    }
}
