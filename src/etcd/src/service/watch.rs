//! Watch: one task a stream.

use std::sync::Arc;

use etcd_client::proto::{PbWatchRequest, PbWatchResponse, PbWatchService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;
use crate::limits::WATCH_QUEUE;
use crate::watch;

pub(super) struct Watch(pub(super) Arc<Core>);

#[tonic::async_trait]
impl PbWatchService for Watch {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, stream) = mpsc::channel(WATCH_QUEUE);
        tokio::spawn(watch::serve(self.0.clone(), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
