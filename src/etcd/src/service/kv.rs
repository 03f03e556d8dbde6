//! KV: Range, Put, DeleteRange, Txn, Compact.

use std::sync::Arc;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest, PbPutResponse, PbRangeRequest,
    PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use tonic::{Request, Response, Status};

use super::{Answers, unimplemented};
use crate::core::Core;
use crate::{apply, check, writer};

pub(super) struct Kv(pub(super) Arc<Core>);

#[tonic::async_trait]
impl PbKvService for Kv {
    type RangeStreamStream = Answers<PbRangeStreamResponse>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request)?;
        let build = apply::range(self.0.keyspace.read().view(), &request)?;
        let mut answer = build();
        answer.header = self.0.complete(answer.header);
        Ok(Response::new(answer))
    }

    /// Newer than the etcd that this server is held to.
    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(unimplemented("KV", "RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let request = request.into_inner();
        check::put(&request)?;
        let bytes = check::size(&request)?;
        let mut answer = self.0.submit(bytes, |reply| writer::Request::Put(request, reply)).await?;
        answer.header = self.0.complete(answer.header);
        Ok(Response::new(answer))
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        let request = request.into_inner();
        check::delete(&request)?;
        let bytes = check::size(&request)?;
        let mut answer = self.0.submit(bytes, |reply| writer::Request::Delete(request, reply)).await?;
        answer.header = self.0.complete(answer.header);
        Ok(Response::new(answer))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let request = request.into_inner();
        check::txn(&request)?;
        let mut answer = if apply::is_read_only(&request) {
            apply::read_txn(self.0.keyspace.read().view(), request)?
        } else {
            let bytes = check::size(&request)?;
            self.0.submit(bytes, |reply| writer::Request::Txn(request, reply)).await?
        };
        answer.header = self.0.complete(answer.header);
        Ok(Response::new(answer))
    }

    /// Compactions are physical at once, so `physical` changes nothing.
    async fn compact(&self, request: Request<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        let PbCompactionRequest { revision, .. } = request.into_inner();
        self.0.submit(0, |reply| writer::Request::Compact(revision, reply)).await?;
        Ok(Response::new(PbCompactionResponse { header: self.0.complete(None) }))
    }
}
