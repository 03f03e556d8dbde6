//! `/maintenance/schedule`, `/maintenance/status`, `/machine/down` and `/machine/up`: the older form of the operator API's calls about
//! maintenance, with bodies in JSON alone.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use podium_proto::mesos::v1::MachineId;
use podium_proto::mesos::v1::maintenance::Schedule;
use podium_proto::wire::json;
use prost::{Message, Name};
use serde_json::Value;

use super::http::{Service, unavailable};
use super::owner::Stopping;
use crate::http::{Body, empty, full, only, read_body, text};

/// One request whose path is known.
pub(super) async fn serve(path: &str, request: Request<Incoming>, service: &Service) -> Response<Body> {
    let allowed: &[Method] = match path {
        "/maintenance/schedule" => &[Method::GET, Method::POST],
        "/maintenance/status" => &[Method::GET],
        _ => &[Method::POST],
    };
    if !allowed.contains(request.method()) {
        return only(allowed, request.method());
    }
    if request.method() == Method::GET {
        return match path {
            "/maintenance/status" => told(service.owner.ask(|state, _| state.maintenance_status()).await),
            _ => told(service.owner.ask(|state, _| state.maintenance.schedule().clone()).await),
        };
    }
    let body = match read_body(request.into_body(), service.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let done = if path == "/maintenance/schedule" {
        match json::from_slice::<Schedule>(&body) {
            Ok(schedule) => service.owner.ask(move |state, now| state.update_schedule(schedule, now)).await,
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        }
    } else {
        let down = path == "/machine/down";
        match machines(&body) {
            Ok(ids) if down => service.owner.ask(move |state, now| state.start_maintenance(&ids, now)).await,
            Ok(ids) => service.owner.ask(move |state, now| state.stop_maintenance(&ids, now)).await,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        }
    };
    match done {
        Ok(Ok(())) => empty(StatusCode::OK),
        Ok(Err(reason)) => text(StatusCode::BAD_REQUEST, reason),
        Err(Stopping) => unavailable(),
    }
}

fn machines(body: &[u8]) -> Result<Vec<MachineId>, String> {
    let ids: Vec<Value> = serde_json::from_slice(body).map_err(|error| format!("a list of machines is expected: {error}"))?;
    ids.iter().map(|id| json::from_value(id).map_err(|error| error.to_string())).collect()
}

fn told<M: Message + Name>(message: Result<M, Stopping>) -> Response<Body> {
    let Ok(message) = message else { return unavailable() };
    let written = json::to_value(&message).and_then(|value| json::ascii(&value));
    let body = match written {
        Ok(body) => body,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer can't be written as JSON: {error}")),
    };
    let mut response = Response::new(full(Bytes::from(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
