//! A client without manners: it sends the protocol's messages as they are, also those that no client library would.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbHashKvRequest, PbHashKvResponse, PbLeaseGrantRequest,
    PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest, PbLeaseLeasesResponse,
    PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbTxnRequest, PbTxnResponse, PbWatchRequest, PbWatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone)]
pub struct Wire(Grpc<Channel>);

/// A request and the method that takes it.
pub trait Call: prost::Message + 'static {
    type Answer: prost::Message + Default + 'static;
    const METHOD: &'static str;
}

macro_rules! calls {
    ($($request:ty => $answer:ty, $method:literal;)*) => {
        $(impl Call for $request {
            type Answer = $answer;
            const METHOD: &'static str = concat!("/etcdserverpb.", $method);
        })*
    };
}

calls! {
    PbRangeRequest => PbRangeResponse, "KV/Range";
    PbPutRequest => PbPutResponse, "KV/Put";
    PbDeleteRequest => PbDeleteResponse, "KV/DeleteRange";
    PbTxnRequest => PbTxnResponse, "KV/Txn";
    PbCompactionRequest => PbCompactionResponse, "KV/Compact";
    PbLeaseGrantRequest => PbLeaseGrantResponse, "Lease/LeaseGrant";
    PbLeaseRevokeRequest => PbLeaseRevokeResponse, "Lease/LeaseRevoke";
    PbLeaseTimeToLiveRequest => PbLeaseTimeToLiveResponse, "Lease/LeaseTimeToLive";
    PbLeaseLeasesRequest => PbLeaseLeasesResponse, "Lease/LeaseLeases";
    PbHashKvRequest => PbHashKvResponse, "Maintenance/HashKV";
}

impl Wire {
    pub async fn connect(address: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect().await;
        Wire(Grpc::new(channel.expect("the server answers")).max_decoding_message_size(1 << 30))
    }

    pub async fn call<C: Call>(&mut self, request: C) -> Result<C::Answer, Status> {
        self.0.ready().await.expect("the connection lives");
        let codec = ProstCodec::<C, C::Answer>::default();
        Ok(self.0.unary(Request::new(request), PathAndQuery::from_static(C::METHOD), codec).await?.into_inner())
    }

    /// Opens a watch stream with a first request: where further ones go in, and where responses come out.
    pub async fn watch(&mut self, first: PbWatchRequest) -> (mpsc::Sender<PbWatchRequest>, Streaming<PbWatchResponse>) {
        self.stream("/etcdserverpb.Watch/Watch", first).await
    }

    pub async fn keep_alive(&mut self, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
        let (_requests, mut answers) = self.stream("/etcdserverpb.Lease/LeaseKeepAlive", PbLeaseKeepAliveRequest { id }).await;
        Ok(answers.message().await?.expect("an answer"))
    }

    /// A Go server opens its side of a stream with its first answer only, so the first request can't wait for that.
    async fn stream<Q, A>(&mut self, method: &'static str, first: Q) -> (mpsc::Sender<Q>, Streaming<A>)
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.0.ready().await.expect("the connection lives");
        let (requests, queue) = mpsc::channel(64);
        requests.send(first).await.expect("there is room");
        let codec = ProstCodec::<Q, A>::default();
        let request = Request::new(ReceiverStream::new(queue));
        let answers = self.0.streaming(request, PathAndQuery::from_static(method), codec).await;
        (requests, answers.expect("the stream opens").into_inner())
    }
}
