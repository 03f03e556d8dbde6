//! The gRPC face: one file a service of etcd's API. Each checks a request, passes it on, and completes the header.

mod cluster;
mod kv;
mod lease;
mod maintenance;
mod status;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use tokio_stream::Stream;
use tonic::Status;
use tonic::service::Routes;

use crate::core::Core;
use crate::limits::MESSAGE_BYTES;

use status::InGoWords;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services over one core.
pub(crate) fn routes(core: &Arc<Core>) -> InGoWords<Routes> {
    let routes = Routes::new(PbKvServer::new(kv::Kv(core.clone())).max_decoding_message_size(MESSAGE_BYTES))
        .add_service(PbWatchServer::new(watch::Watch(core.clone())).max_decoding_message_size(MESSAGE_BYTES))
        .add_service(PbLeaseServer::new(lease::Lease(core.clone())).max_decoding_message_size(MESSAGE_BYTES))
        .add_service(PbClusterServer::new(cluster::Cluster(core.clone())).max_decoding_message_size(MESSAGE_BYTES))
        .add_service(PbMaintenanceServer::new(maintenance::Maintenance(core.clone())).max_decoding_message_size(MESSAGE_BYTES));
    InGoWords(routes.prepare())
}

/// What a server of Go's gRPC says of a method that it does not have.
fn unimplemented(service: &str, method: &str) -> Status {
    Status::unimplemented(format!("unknown method {method} for service etcdserverpb.{service}"))
}
