//! Cluster: a cluster of one, which can't be changed.

use std::sync::Arc;

use etcd_client::proto::{
    PbClusterService, PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest, PbMemberListResponse, PbMemberPromoteRequest,
    PbMemberPromoteResponse, PbMemberRemoveRequest, PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use crate::core::Core;

/// The name of the only member, as an etcd that was given none calls itself.
const NAME: &str = "default";

pub(super) struct Cluster(pub(super) Arc<Core>);

fn single(method: &str) -> Status {
    Status::unimplemented(format!("{method}: this is Podium's embedded store, a cluster of one; use etcd for more members"))
}

#[tonic::async_trait]
impl PbClusterService for Cluster {
    async fn member_list(&self, _: Request<PbMemberListRequest>) -> Result<Response<PbMemberListResponse>, Status> {
        let member = PbMember {
            id: self.0.identity.member,
            name: NAME.to_owned(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: vec![self.0.client_url.clone()],
            is_learner: false,
        };
        Ok(Response::new(PbMemberListResponse { header: self.0.complete(None), members: vec![member] }))
    }

    async fn member_add(&self, _: Request<PbMemberAddRequest>) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(single("MemberAdd"))
    }

    async fn member_remove(&self, _: Request<PbMemberRemoveRequest>) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(single("MemberRemove"))
    }

    async fn member_update(&self, _: Request<PbMemberUpdateRequest>) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(single("MemberUpdate"))
    }

    async fn member_promote(&self, _: Request<PbMemberPromoteRequest>) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(single("MemberPromote"))
    }
}
