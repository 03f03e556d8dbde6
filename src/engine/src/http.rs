//! What the listeners of the master and of the agent have in common: the accept loop, and its limits in number, size and
//! time; bodies, plain answers, and what a `Host` may be.

use std::convert::Infallible;
use std::net::IpAddr;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::encoding::ContentError;

/// For a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two tries when no connection can be accepted, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers requests by `route`, on at most `places` connections at a time, until told to stop; returns when all have ended.
/// Dropped, it ends them at once.
pub(crate) async fn serve<R, F>(listener: TcpListener, places: usize, stop: CancellationToken, route: R)
where
    R: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(places));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let (route, stop) = (route.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, route, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection<R, F>(stream: TcpStream, route: R, stop: CancellationToken)
where
    R: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    // Events are small and must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection refuses TCP_NODELAY");
    }
    let handler = service_fn(move |request| {
        let answer = route(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 << 10)
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

/// Reads a whole body within the limits; otherwise the answer that says why not.
pub(crate) async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, Response<Body>> {
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

/// A plain-text answer.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    whole(status, HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from(text.into()))
}

/// An answer that is complete.
pub(crate) fn whole(status: StatusCode, content: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// 405 with what would do.
pub(crate) fn only(methods: &[Method], given: &Method) -> Response<Body> {
    let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let why = format!("405 Method Not Allowed. Expecting one of {{ '{}' }}, but received '{given}'.", methods.join("', '"));
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, why);
    if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// What is wrong with a request's content, by Mesos' rules.
pub(crate) fn refuse_content(error: ContentError) -> Response<Body> {
    match error {
        ContentError::Missing => text(StatusCode::BAD_REQUEST, "Expecting 'Content-Type' to be present"),
        ContentError::Unsupported => {
            text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Expecting 'Content-Type' of application/json or application/x-protobuf")
        }
        ContentError::Malformed(reason) => text(StatusCode::BAD_REQUEST, reason),
    }
}

/// The name in a `Host` header, without brackets and port.
pub(crate) fn host_name(host: &HeaderValue) -> Option<String> {
    let uri = host.to_str().ok()?.parse::<Uri>().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase())
}

/// An address, or `localhost`: any other name may come from a web page that had its own name point here.
pub(crate) fn is_local(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, timeout};

    use super::*;

    /// Echoes bodies of up to eight bytes; one connection at a time. The clock of these tests runs when nothing else does.
    async fn echo() -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, 1, stop.clone(), |request: Request<Incoming>| async move {
            match read_body(request.into_body(), 8).await {
                Ok(body) => whole(StatusCode::OK, HeaderValue::from_static("text/plain"), body),
                Err(refused) => refused,
            }
        }));
        (address, stop)
    }

    async fn send(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// All that comes until the other side ends.
    async fn received(mut stream: TcpStream) -> String {
        let mut text = String::new();
        timeout(10 * BODY_TIMEOUT, stream.read_to_string(&mut text)).await.expect("it is never cut").unwrap();
        text
    }

    const GOOD: &str = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfour";

    #[tokio::test(start_paused = true)]
    async fn who_sends_headers_too_slowly_is_cut_and_others_wait_for_the_place_no_longer() {
        let (address, _stop) = echo().await;
        let began = Instant::now();
        let slow = send(address, "POST / HTTP/1.1\r\nHo").await;
        let other = send(address, GOOD).await;
        assert!(received(other).await.ends_with("four"));
        assert!(began.elapsed() >= HEADER_TIMEOUT, "there was a second place");
        assert!(!received(slow).await.contains("200"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_a_body_too_slowly_or_too_much_is_refused() {
        let (address, _stop) = echo().await;
        let slow = send(address, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nf").await;
        assert!(received(slow).await.starts_with("HTTP/1.1 408 "));
        let large = send(address, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\nnine bytes").await;
        assert!(received(large).await.starts_with("HTTP/1.1 413 "));
        assert!(received(send(address, GOOD).await).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_stop_cuts_connections_that_are_open() {
        let (address, stop) = echo().await;
        let mut open = send(address, &GOOD.replace("Connection: close\r\n", "")).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"four") {
            assert_ne!(open.read_buf(&mut answer).await.unwrap(), 0, "it ends by itself");
        }
        stop.cancel();
        assert_eq!(received(open).await, "");
    }

    #[test]
    fn names_of_others_are_no_local_hosts() {
        let local = |host: &'static str| host_name(&HeaderValue::from_static(host)).is_some_and(|name| is_local(&name));
        for good in ["localhost", "LOCALHOST:5050", "127.0.0.1:5050", "[::1]:5050", "10.1.2.3"] {
            assert!(local(good), "{good}");
        }
        for bad in ["evil.example", "evil.example:5050", "localhost.evil.example", "", "127.0.0.1.evil.example:80"] {
            assert!(!local(bad), "{bad}");
        }
    }
}
