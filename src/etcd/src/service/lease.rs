//! Lease: grant, revoke, keep-alive, time to live, list.

use std::sync::Arc;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseStatus, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::Answers;
use crate::core::Core;
use crate::error::Refusal;
use crate::writer;

pub(super) struct Lease(pub(super) Arc<Core>);

#[tonic::async_trait]
impl PbLeaseService for Lease {
    type LeaseKeepAliveStream = Answers<PbLeaseKeepAliveResponse>;

    async fn lease_grant(&self, request: Request<PbLeaseGrantRequest>) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { id, ttl } = request.into_inner();
        let (id, ttl) = self.0.submit(0, |reply| writer::Request::Grant { id, ttl, reply }).await?;
        Ok(Response::new(PbLeaseGrantResponse { header: self.0.complete(None), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<PbLeaseRevokeRequest>) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let PbLeaseRevokeRequest { id } = request.into_inner();
        self.0.submit(0, |reply| writer::Request::Revoke { id, reply }).await?;
        Ok(Response::new(PbLeaseRevokeResponse { header: self.0.complete(None) }))
    }

    /// Answers each request in its turn, until either side ends.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let core = self.0.clone();
        let answers = futures_util::stream::try_unfold(request.into_inner(), move |mut requests| {
            let core = core.clone();
            async move {
                let next = tokio::select! {
                    next = requests.message() => next?,
                    () = core.closing.cancelled() => return Err(Refusal::Stopped.into()),
                };
                let Some(request) = next else { return Ok(None) };
                Ok(Some((keep_alive(&core, request.id).await?, requests)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(&self, request: Request<PbLeaseTimeToLiveRequest>) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let PbLeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let status = self.0.submit(0, |reply| writer::Request::LeaseStatus { id, reply }).await?;
        let header = self.0.complete(None);
        let answer = match status {
            Some(status) => PbLeaseTimeToLiveResponse {
                header,
                id,
                ttl: status.remaining,
                granted_ttl: status.granted,
                keys: if keys { status.keys.iter().map(|key| key.to_vec()).collect() } else { Vec::new() },
            },
            None => PbLeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() },
        };
        Ok(Response::new(answer))
    }

    async fn lease_leases(&self, _: Request<PbLeaseLeasesRequest>) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let ids = self.0.submit(0, writer::Request::Leases).await?;
        let leases = ids.into_iter().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse { header: self.0.complete(None), leases }))
    }
}

/// The header is taken before the renewal, as etcd does: a client must not see its lease renewed at a revision at which
/// it was already revoked.
async fn keep_alive(core: &Core, id: i64) -> Result<PbLeaseKeepAliveResponse, Refusal> {
    let header = core.complete(None);
    let ttl = core.submit(0, |reply| writer::Request::Renew { id, reply }).await?;
    Ok(PbLeaseKeepAliveResponse { header, id, ttl: ttl.unwrap_or(0) })
}
