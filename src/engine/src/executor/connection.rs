//! The executor's side of `/api/v1/executor`: one connection for the event stream, and one for calls that
//! lives as long as there is something to say (a thousand idle executors would otherwise hold a thousand more).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use podium_proto::{
    mesos::v1::executor::{Call, Event},
    wire::{recordio, text},
};
use prost::Message as _;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::codec::Decoder as _;

/// How long the agent may take to answer anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// A task group with many large containers fits.
const MAX_EVENT: usize = 16 << 20;
const PROTOBUF: &str = "application/x-protobuf";

/// Why the agent can't be talked to; all of them mean: try again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the agent took longer than {PATIENCE:?}")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error("the agent answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("impossible request: {0}")]
    Request(#[from] http::Error),
}

/// What comes from the agent.
#[derive(Debug)]
pub(crate) enum Incident {
    Event(Box<Event>),
    /// The stream or a call failed: this subscription is over.
    Lost(String),
}

/// One subscription; dropping it ends both connections.
pub(crate) struct Session {
    pub incidents: mpsc::Receiver<Incident>,
    calls: mpsc::UnboundedSender<Bytes>,
    _tasks: JoinSet<()>,
}

impl Session {
    /// Queues a call; should it fail, the session reports that it is lost. The queue holds what is
    /// unacknowledged, which the agent's own acknowledgements bound.
    pub fn send(&self, call: &Call) {
        let _ = self.calls.send(call.encode_to_vec().into());
    }
}

/// Where an agent hears its executors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `ip:port`.
    pub address: String,
    /// The API's path there: several agents may share an address.
    pub path: String,
    /// What the agent knows the executor by, where it asks for it.
    pub token: Option<String>,
}

/// Subscribes at `agent`.
pub(crate) async fn subscribe(agent: Endpoint, call: &Call) -> Result<Session, Error> {
    let mut tasks = JoinSet::new();
    let mut sender = connect(&agent.address, &mut tasks).await?;
    let response = timeout(PATIENCE, sender.send_request(request(&agent, call.encode_to_vec().into())?)).await??;
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let (report, incidents) = mpsc::channel(64);
    let (calls, queue) = mpsc::unbounded_channel();
    tasks.spawn(read(response.into_body(), report.clone(), sender));
    tasks.spawn(write(agent, queue, report));
    Ok(Session { incidents, calls, _tasks: tasks })
}

async fn connect(address: &str, tasks: &mut JoinSet<()>) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tasks.spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn request(agent: &Endpoint, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut builder = Request::post(&agent.path).header(header::HOST, &agent.address);
    builder = builder.header(header::CONTENT_TYPE, PROTOBUF).header(header::ACCEPT, PROTOBUF);
    if let Some(token) = &agent.token {
        builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    builder.body(Full::new(body))
}

async fn refusal(response: Response<Incoming>) -> Error {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), 4096).collect().await.map(|body| body.to_bytes());
    Error::Refused(status, String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_owned())
}

/// Turns the stream into incidents; `_sender` keeps its connection.
async fn read(mut body: Incoming, report: mpsc::Sender<Incident>, _sender: SendRequest<Full<Bytes>>) {
    let (mut codec, mut buffer) = (recordio::Codec::new(MAX_EVENT), BytesMut::new());
    let lost = loop {
        match body.frame().await {
            None => break "the agent closed the stream".to_owned(),
            Some(Err(error)) => break error.to_string(),
            Some(Ok(frame)) => buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
        }
        let outcome = loop {
            let record = match codec.decode(&mut buffer) {
                Ok(Some(record)) => record,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            };
            // An agent tells of itself, and its attributes are whatever somebody typed.
            let Ok(event) = text::decode::<Event>(&record) else { break Err("the agent sent an event that cannot be read".to_owned()) };
            if report.send(Incident::Event(Box::new(event))).await.is_err() {
                return;
            }
        };
        if let Err(error) = outcome {
            break error;
        }
    };
    let _ = report.send(Incident::Lost(lost)).await;
}

/// Sends calls one after another, in order: updates of one task must arrive as they happened.
async fn write(agent: Endpoint, mut queue: mpsc::UnboundedReceiver<Bytes>, report: mpsc::Sender<Incident>) {
    let mut next = queue.recv().await;
    while let Some(call) = next {
        next = match burst(&agent, call, &mut queue).await {
            Ok(Some(unsent)) => Some(unsent),
            Ok(None) => queue.recv().await,
            Err(error) => {
                let _ = report.send(Incident::Lost(error.to_string())).await;
                return;
            }
        };
    }
}

/// One connection's worth of calls: until none has come for a moment, or the agent has closed it, which it may whenever it likes.
/// Returns the call that found it closed; had the agent heard that after all, it would know the update again by its uuid.
async fn burst(agent: &Endpoint, first: Bytes, queue: &mut mpsc::UnboundedReceiver<Bytes>) -> Result<Option<Bytes>, Error> {
    const IDLE: Duration = Duration::from_millis(200);
    let mut tasks = JoinSet::new();
    let mut sender = connect(&agent.address, &mut tasks).await?;
    carry(agent, first, &mut sender).await?;
    while let Some(call) = timeout(IDLE, queue.recv()).await.ok().flatten() {
        match carry(agent, call.clone(), &mut sender).await {
            Ok(()) => {}
            Err(Error::Http(_)) => return Ok(Some(call)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn carry(agent: &Endpoint, call: Bytes, sender: &mut SendRequest<Full<Bytes>>) -> Result<(), Error> {
    sender.ready().await?;
    let response = timeout(PATIENCE, sender.send_request(request(agent, call)?)).await??;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    response.into_body().collect().await?;
    Ok(())
}
