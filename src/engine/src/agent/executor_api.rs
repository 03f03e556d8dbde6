//! `/api/v1/executor`: what an executor sends is read and checked here, and answered by the agent's owner.

use bytes::Bytes;
use http::StatusCode;
use podium_proto::{
    mesos::v1::executor::{Call, Event, call},
    wire::{json, recordio},
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::{
    http::{Answer, streamed},
    owner::{Key, Message},
};
use crate::{encoding::Encoding, http::text};

/// Events waiting for one executor; one who lets so many wait has to subscribe again.
const WAITING: usize = 256;

/// A call that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub why: String,
}

impl Refusal {
    pub fn bad(why: &str) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, why: why.to_owned() }
    }

    pub fn forbidden(why: &str) -> Refusal {
        Refusal { status: StatusCode::FORBIDDEN, why: why.to_owned() }
    }
}

/// The agent's end of an event stream.
#[derive(Debug)]
pub(super) struct Outlet {
    events: mpsc::Sender<Bytes>,
    encoding: Encoding,
    /// Ends with the body of the answer.
    gone: oneshot::Receiver<()>,
}

impl Outlet {
    /// `false` when the stream is over, or its reader too slow.
    pub fn send(&self, event: &Event) -> bool {
        let record = match self.encoding {
            Encoding::Protobuf => event.encode_to_vec(),
            Encoding::Json => match json::to_text(event) {
                Ok(text) => text.into_bytes(),
                Err(error) => {
                    tracing::error!(%error, "an event cannot be written as JSON");
                    return false;
                }
            },
        };
        self.events.try_send(recordio::encode(&record)).is_ok()
    }

    /// Has the owner told when the reader of this stream goes.
    pub fn watch(&mut self, key: Key, generation: u64, owner: mpsc::Sender<Message>) {
        let gone = std::mem::replace(&mut self.gone, oneshot::channel().1);
        tokio::spawn(async move {
            let _ = gone.await;
            let _ = owner.send(Message::Unsubscribed { key, generation }).await;
        });
    }
}

/// Carries out one call.
pub(super) async fn handle(call: Call, accept: Option<Encoding>, owner: &mpsc::Sender<Message>) -> Answer {
    if call.r#type != Some(call::Type::Subscribe.into()) {
        let (reply, answer) = oneshot::channel();
        return match ask(owner, Message::Call { call: Box::new(call), reply }, answer).await {
            Ok(()) => text(StatusCode::ACCEPTED, ""),
            Err(refusal) => text(refusal.status, refusal.why),
        };
    }
    let Some(encoding) = accept else {
        return text(StatusCode::NOT_ACCEPTABLE, "a subscription is answered in application/json or application/x-protobuf");
    };
    let (events, queue) = mpsc::channel(WAITING);
    let (reply, answer) = oneshot::channel();
    let (here, gone) = oneshot::channel();
    let outlet = Outlet { events, encoding, gone };
    match ask(owner, Message::Subscribe { call: Box::new(call), outlet, reply }, answer).await {
        Ok(()) => streamed(encoding, queue, here),
        Err(refusal) => text(refusal.status, refusal.why),
    }
}

async fn ask(owner: &mpsc::Sender<Message>, message: Message, answer: oneshot::Receiver<Result<(), Refusal>>) -> Result<(), Refusal> {
    let ending = || Refusal { status: StatusCode::SERVICE_UNAVAILABLE, why: "the agent is stopping".to_owned() };
    owner.send(message).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())?
}
