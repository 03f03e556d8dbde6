//! HTTP as raw as a scheduler may send it: any header, any body, the answer as it came.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use podium_proto::mesos::v1::scheduler::{Call, Event};
use podium_proto::wire::{json, recordio};
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const SCHEDULER: &str = "/api/v1/scheduler";
pub const OPERATOR: &str = "/api/v1";

/// How calls and events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Protobuf,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Protobuf => "application/x-protobuf",
        }
    }

    pub fn call(self, call: &Value) -> Bytes {
        match self {
            Format::Json => call.to_string().into(),
            Format::Protobuf => json::from_value::<Call>(call).unwrap().encode_to_vec().into(),
        }
    }

    fn event(self, record: &[u8]) -> Value {
        match self {
            Format::Json => serde_json::from_slice(record).unwrap(),
            Format::Protobuf => json::to_value(&Event::decode(record).unwrap()).unwrap(),
        }
    }
}

/// A request's headers.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// An answer whose body has ended.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// An answer whose body goes on: the events of a subscription.
pub struct Stream {
    pub headers: http::HeaderMap,
    format: Format,
    records: std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Bytes, recordio::Error>> + Send>>,
}

impl Stream {
    /// The next event; `None` when the master has ended the stream.
    pub async fn next(&mut self) -> Option<Value> {
        let record = self.records.next().await?;
        Some(self.format.event(&record.ok()?))
    }
}

/// A connection that is kept, so that calls are handled in their order.
pub struct Connection {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    async fn send(&mut self, method: Method, path: &str, headers: Headers<'_>, body: Bytes) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => connect(self.address).await,
        };
        sender.ready().await.unwrap();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request.body(Full::new(body)).unwrap()));
        let response = response.await.expect("an answer in time").unwrap();
        self.sender = Some(sender);
        response
    }

    pub async fn request(&mut self, method: Method, path: &str, headers: Headers<'_>, body: Bytes) -> Reply {
        let response = self.send(method, path, headers, body).await;
        reply(response).await
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.request(Method::GET, path, &[], Bytes::new()).await
    }
}

/// Sends a SUBSCRIBE on a connection of its own.
pub async fn subscribe(address: SocketAddr, headers: Headers<'_>, body: Bytes) -> Result<Stream, Reply> {
    let response = Connection::new(address).send(Method::POST, SCHEDULER, headers, body).await;
    let format = match response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
        Some("application/x-protobuf") => Format::Protobuf,
        _ => Format::Json,
    };
    if response.status() != http::StatusCode::OK {
        return Err(reply(response).await);
    }
    let headers = response.headers().clone();
    let body = response.into_body().into_data_stream().map(|data| data.map_err(std::io::Error::other));
    let records = Box::pin(FramedRead::new(StreamReader::new(body), recordio::Codec::new(recordio::MAX_RECORD)));
    Ok(Stream { headers, format, records })
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        // Whoever reads the answer sees what goes wrong.
        let _ = connection.await;
    });
    sender
}

async fn reply(response: http::Response<Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body in time").unwrap().to_bytes();
    Reply { status: head.status.as_u16(), headers: head.headers, body }
}
