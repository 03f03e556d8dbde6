//! The master's routes. Longest prefix wins, a trailing slash and a leading `/master` mean nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::owner::Handle;
use super::state::Settings;
use super::{machine_http, operator, scheduler_api, state_json};
use crate::http::{Body, empty, host_name, is_local, text};

/// What a handler needs.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) owner: Handle,
    pub(super) max_body: usize,
    address: SocketAddr,
}

/// Accepts connections until told to stop, and returns when all have ended.
pub(super) async fn serve(listener: TcpListener, owner: Handle, settings: Settings, stop: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return };
    let service = Arc::new(Service { owner, max_body: settings.max_body, address });
    let route = move |request| {
        let service = Arc::clone(&service);
        async move { route(request, &service).await }
    };
    crate::http::serve(listener, settings.max_connections, stop, route).await;
}

/// 406.
pub(super) fn not_acceptable() -> Response<Body> {
    text(StatusCode::NOT_ACCEPTABLE, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'")
}

/// 501.
pub(super) fn not_implemented() -> Response<Body> {
    text(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented.")
}

/// 503: the engine is stopping.
pub(super) fn unavailable() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "The master is stopping")
}

async fn route(request: Request<Incoming>, service: &Service) -> Response<Body> {
    if is_foreign(&request, service.address) {
        return text(StatusCode::FORBIDDEN, "The Host header names neither an address nor localhost");
    }
    let path = request.uri().path().trim_end_matches('/');
    let path = path.strip_prefix("/master").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path).to_owned();
    match path.as_str() {
        "/api/v1/scheduler" => scheduler_api::serve(request, service).await,
        // What only answers is asked by any method, as in Mesos.
        "/health" => empty(StatusCode::OK),
        "/redirect" => redirect(service.address),
        "/version" | "/flags" | "/state" | "/state-summary" | "/slaves" | "/frameworks" | "/tasks" | "/roles" | "/metrics/snapshot" => {
            state_json::serve(&path, request.uri(), service).await
        }
        "/maintenance/schedule" | "/maintenance/status" | "/machine/down" | "/machine/up" => {
            machine_http::serve(&path, request, service).await
        }
        "/teardown" => operator::serve_teardown(request, service).await,
        "/api/v1" => operator::serve(request, service).await,
        // What posts to a longer path than is known lands on the longest prefix that is.
        longer if longer.starts_with("/api/v1/scheduler/") => scheduler_api::serve(request, service).await,
        longer if longer.starts_with("/api/v1/") => operator::serve(request, service).await,
        _ => text(StatusCode::NOT_FOUND, "404 Not Found."),
    }
}

/// To itself: it is the only master there is.
fn redirect(address: SocketAddr) -> Response<Body> {
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    if let Ok(location) = HeaderValue::from_str(&format!("//{address}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// On a loopback listener a name that is neither an address nor `localhost` comes from a web page that had its own name
/// point here.
fn is_foreign(request: &Request<Incoming>, address: SocketAddr) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return false };
    address.ip().is_loopback() && !host_name(host).is_some_and(|name| is_local(&name))
}
