//! The HTTP side: the accept loop, its limits, and the routes. Longest prefix wins, a trailing slash and a
//! leading `/master` mean nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::owner::Handle;
use super::state::Settings;
use super::{operator, scheduler_api, state_json};

/// For a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two tries when no connection can be accepted, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

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
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (service, stop) = (service.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, service, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, service: Arc<Service>, stop: CancellationToken) {
    // Events are small and must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection refuses TCP_NODELAY");
    }
    let handler = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, std::convert::Infallible>(route(request, &service).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), handler);
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended with an error");
            }
        }
        // Streams never end by themselves: they are cut.
        () = stop.cancelled() => {}
    }
}

/// A plain-text answer.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// 405 with what would do.
pub(super) fn only(method: &Method, given: &Method) -> Response<Body> {
    let why = format!("405 Method Not Allowed. Expecting one of {{ '{method}' }}, but received '{given}'.");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, why);
    if let Ok(allow) = HeaderValue::from_str(method.as_str()) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
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

/// Reads a whole body within the limits; otherwise the answer that says why not.
pub(super) async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, Response<Body>> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(text(StatusCode::PAYLOAD_TOO_LARGE, format!("The body has more than {limit} bytes")))
        }
        Ok(Err(error)) => Err(text(StatusCode::BAD_REQUEST, format!("The body can't be read: {error}"))),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")),
    }
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
    address.ip().is_loopback() && !host.to_str().is_ok_and(is_local)
}

fn is_local(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let Some(name) = uri.host() else { return false };
    name.eq_ignore_ascii_case("localhost") || name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_no_local_hosts() {
        for good in ["localhost", "LOCALHOST:5050", "127.0.0.1:5050", "[::1]:5050", "10.1.2.3"] {
            assert!(is_local(good), "{good}");
        }
        for bad in ["evil.example", "evil.example:5050", "localhost.evil.example", "", "127.0.0.1.evil.example:80"] {
            assert!(!is_local(bad), "{bad}");
        }
    }
}
