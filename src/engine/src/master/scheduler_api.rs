//! POST /api/v1/scheduler: rows 6 to 22 of the reference's request pipeline, in their order.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use podium_proto::mesos::v1::scheduler::{Call, Event, call};
use podium_proto::wire::recordio;
use tokio::sync::{mpsc, oneshot};

use super::framework::framework_id_of;
use super::http::{Service, not_acceptable, not_implemented, unavailable};
use super::owner::Refusal;
use crate::encoding::Encoding;
use crate::http::{Body, empty, only, read_body, refuse_content, text};

/// The header that ties calls to a subscription.
const STREAM_ID: &str = "mesos-stream-id";

/// One request, from the method to the answer.
pub(super) async fn serve(request: Request<Incoming>, service: &Service) -> Response<Body> {
    if request.method() != Method::POST {
        return only(&[Method::POST], request.method());
    }
    let (head, body) = request.into_parts();
    let encoding = match Encoding::of_content(&head.headers) {
        Ok(encoding) => encoding,
        Err(error) => return refuse_content(error),
    };
    let body = match read_body(body, service.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let call: Call = match encoding.decode(&body) {
        Ok(call) => call,
        Err(error) => return refuse_content(error),
    };
    drop(body);
    let Some(kind) = call.r#type.and_then(|kind| call::Type::try_from(kind).ok()) else {
        return text(StatusCode::BAD_REQUEST, "Failed to validate scheduler::Call: Expecting 'type' to be present");
    };
    if let Err(problem) = check_form(&call, kind) {
        return text(StatusCode::BAD_REQUEST, format!("Failed to validate scheduler::Call: {problem}"));
    }
    let answer = Encoding::of_accept(&head.headers);
    if answer.is_none() && matches!(kind, call::Type::Subscribe | call::Type::ReconcileOperations) {
        return not_acceptable();
    }
    let stream = head.headers.get(STREAM_ID).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match (kind, call.subscribe, answer) {
        (call::Type::Subscribe, Some(subscribe), Some(answer)) => {
            if stream.is_some() {
                return text(StatusCode::BAD_REQUEST, "Subscribe calls should not include the 'Mesos-Stream-Id' header");
            }
            open(subscribe, answer, service).await
        }
        (kind, subscribe, _) => forward(Call { subscribe, ..call }, kind, stream, service).await,
    }
}

/// Rows 9 to 11: the call's own part, and the framework's id.
fn check_form(call: &Call, kind: call::Type) -> Result<(), String> {
    let id = call.framework_id.as_ref().map(|id| id.value.as_str());
    let (name, present) = match kind {
        call::Type::Subscribe => {
            let subscribe = call.subscribe.as_ref().ok_or("Expecting 'subscribe' to be present")?;
            if id.filter(|id| !id.is_empty()) != framework_id_of(&subscribe.framework_info) {
                return Err("'framework_id' differs from 'subscribe.framework_info.id'".to_owned());
            }
            return Ok(());
        }
        call::Type::Accept => ("accept", call.accept.is_some()),
        call::Type::Decline => ("decline", call.decline.is_some()),
        call::Type::AcceptInverseOffers => ("accept_inverse_offers", call.accept_inverse_offers.is_some()),
        call::Type::DeclineInverseOffers => ("decline_inverse_offers", call.decline_inverse_offers.is_some()),
        call::Type::Kill => ("kill", call.kill.is_some()),
        call::Type::Shutdown => ("shutdown", call.shutdown.is_some()),
        call::Type::Acknowledge => ("acknowledge", call.acknowledge.is_some()),
        call::Type::AcknowledgeOperationStatus => ("acknowledge_operation_status", call.acknowledge_operation_status.is_some()),
        call::Type::Reconcile => ("reconcile", call.reconcile.is_some()),
        call::Type::ReconcileOperations => ("reconcile_operations", call.reconcile_operations.is_some()),
        call::Type::Message => ("message", call.message.is_some()),
        call::Type::Request => ("request", call.request.is_some()),
        call::Type::UpdateFramework => ("update_framework", call.update_framework.is_some()),
        call::Type::Teardown | call::Type::Revive | call::Type::Suppress | call::Type::Unknown => ("", true),
    };
    if !present {
        return Err(format!("Expecting '{name}' to be present"));
    }
    let uuid = match kind {
        call::Type::Acknowledge => call.acknowledge.as_ref().map(|acknowledge| &acknowledge.uuid),
        call::Type::AcknowledgeOperationStatus => call.acknowledge_operation_status.as_ref().map(|acknowledge| &acknowledge.uuid),
        _ => None,
    };
    if uuid.is_some_and(|uuid| !is_uuid(uuid)) {
        return Err("Not a valid UUID".to_owned());
    }
    if id.is_none() {
        return Err("Expecting 'framework_id' to be present".to_owned());
    }
    let named = call.update_framework.as_ref().filter(|_| kind == call::Type::UpdateFramework);
    if named.is_some_and(|update| framework_id_of(&update.framework_info) != id) {
        return Err("'framework_id' differs from 'update_framework.framework_info.id'".to_owned());
    }
    Ok(())
}

/// Sixteen bytes that name a version of UUIDs that there is.
fn is_uuid(bytes: &[u8]) -> bool {
    uuid::Uuid::from_slice(bytes).is_ok_and(|uuid| (1..=5).contains(&uuid.get_version_num()))
}

async fn forward(call: Call, kind: call::Type, stream: Option<String>, service: &Service) -> Response<Body> {
    match service.owner.call(call, stream).await {
        Ok(Ok(())) if kind == call::Type::UpdateFramework => empty(StatusCode::OK),
        Ok(Ok(())) => empty(StatusCode::ACCEPTED),
        Ok(Err(Refusal::Bad(reason))) => text(StatusCode::BAD_REQUEST, reason),
        Ok(Err(Refusal::Forbidden(reason))) => text(StatusCode::FORBIDDEN, reason),
        Ok(Err(Refusal::Unknown)) => not_implemented(),
        Err(_) => unavailable(),
    }
}

/// Opens the event stream.
async fn open(subscribe: call::Subscribe, encoding: Encoding, service: &Service) -> Response<Body> {
    let Ok(subscription) = service.owner.subscribe(subscribe).await else { return unavailable() };
    let (open, gone) = oneshot::channel();
    if let Some(framework) = subscription.framework_id {
        let (owner, stream) = (service.owner.clone(), subscription.stream_id.clone());
        tokio::spawn(async move {
            // The other end says nothing: it is dropped with the answer's body.
            let _ = gone.await;
            owner.stream_closed(framework, stream).await;
        });
    }
    let events = EventStream { events: subscription.events, encoding, _open: open };
    let mut response = Response::new(events.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, encoding.content_type());
    if let Ok(id) = HeaderValue::from_str(&subscription.stream_id) {
        response.headers_mut().insert(STREAM_ID, id);
    }
    response
}

/// The body of a subscription: each frame is one record, and so one HTTP chunk, which weak clients rely on.
struct EventStream {
    events: mpsc::Receiver<Box<Event>>,
    encoding: Encoding,
    /// Dropped with the body, which tells the owner task.
    _open: oneshot::Sender<()>,
}

impl hyper::body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let encoding = self.encoding;
        self.events.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(recordio::encode(&encoding.encode(event.as_ref()))))))
    }
}
