//! The agent's listener: routes, content types and bodies. What a call means is told by
//! [`super::executor_api`] and [`super::operator`].

use std::{convert::Infallible, net::IpAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use podium_proto::{
    mesos::v1::{agent, executor},
    wire::json,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{executor_api, files::Files, operator, owner::Message};

/// A call with many large unacknowledged updates fits.
const MAX_BODY: usize = 16 << 20;
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// Whatever is sent back.
pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The two languages of Mesos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Protobuf => PROTOBUF,
        }
    }
}

/// What every request needs.
#[derive(Debug)]
pub(super) struct Context {
    pub owner: mpsc::Sender<Message>,
    pub files: Files,
    /// By which this machine may be called, addresses and `localhost` aside.
    pub hostname: String,
}

/// Serves until it is dropped; so do its connections.
pub(super) async fn serve(listener: TcpListener, context: Arc<Context>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let context = Arc::clone(&context);
                    let service = service_fn(move |request| {
                        let context = Arc::clone(&context);
                        async move { Ok::<_, Infallible>(route(request, &context).await) }
                    });
                    connections.spawn(async move {
                        // A connection that breaks is its client's to notice.
                        let _ = http1::Builder::new().max_buf_size(64 << 10).serve_connection(TokioIo::new(stream), service).await;
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: giving others time to close theirs is all there is to do.
                    tracing::warn!(%error, "the agent cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn route(request: Request<Incoming>, context: &Context) -> Answer {
    if !host_is_ours(request.headers(), &context.hostname) {
        return text(StatusCode::FORBIDDEN, "the Host header names another machine");
    }
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let path = path.strip_prefix("/slave(1)").unwrap_or(&path);
    match path {
        "/api/v1/executor" => match read::<executor::Call>(request).await {
            Ok((call, format)) => executor_api::handle(call, format, &context.owner).await,
            Err(answer) => *answer,
        },
        "/health" => text(StatusCode::OK, ""),
        "/files/read" | "/files/browse" => {
            operator::files(path, request.uri().query().unwrap_or_default(), request.method(), &context.files).await
        }
        _ if path == "/api/v1" || path.starts_with("/api/v1/") => match read::<agent::Call>(request).await {
            Ok((call, format)) => operator::handle(call, format, context).await,
            Err(answer) => *answer,
        },
        _ => text(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// A web page that has its own name resolve to this machine must not get through.
fn host_is_ours(headers: &HeaderMap, hostname: &str) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = host.to_str().unwrap_or_default().parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    name == "localhost" || name == hostname || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Reads a call by Mesos' rules for methods and content types; and the form in which to answer, if any is acceptable.
async fn read<M>(request: Request<Incoming>) -> Result<(M, Option<Format>), Box<Answer>>
where
    M: prost::Message + prost::Name + Default,
{
    if request.method() != Method::POST {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "this is called with POST");
        answer.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static("POST"));
        return Err(Box::new(answer));
    }
    let refuse = |status, why: &str| Err(Box::new(text(status, why)));
    let accept = acceptable(request.headers());
    let Some(content) = request.headers().get(header::CONTENT_TYPE).cloned() else {
        return refuse(StatusCode::BAD_REQUEST, "Expecting 'Content-Type' to be present");
    };
    let format = match content.as_bytes() {
        bytes if bytes == JSON.as_bytes() => Format::Json,
        bytes if bytes == PROTOBUF.as_bytes() => Format::Protobuf,
        _ => return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Expecting 'Content-Type' of application/json or application/x-protobuf"),
    };
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("the request's body cannot be read: {error}")),
    };
    let call = match format {
        Format::Json => json::from_slice(&body),
        Format::Protobuf => json::from_protobuf(&body),
    };
    match call {
        Ok(call) => Ok((call, accept)),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("Failed to parse the call: {error}")),
    }
}

/// JSON wherever it is acceptable, as in Mesos; nothing at all accepts everything.
fn acceptable(headers: &HeaderMap) -> Option<Format> {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()) else { return Some(Format::Json) };
    let accepts = |name: &str| {
        accept.split(',').map(str::trim).any(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|quality| quality.parse::<f64>() == Ok(0.0)));
            !refused && (range == name || range == "*/*" || range == "application/*")
        })
    };
    [Format::Json, Format::Protobuf].into_iter().find(|format| accepts(format.name()))
}

/// A plain answer.
pub(super) fn text(status: StatusCode, body: &str) -> Answer {
    whole(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

/// An answer that is complete.
pub(super) fn whole(status: StatusCode, content: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content));
    answer
}

/// A stream of framed records, one a chunk; `here` goes with it.
pub(super) fn streamed(format: Format, queue: mpsc::Receiver<Bytes>, here: oneshot::Sender<()>) -> Answer {
    let mut answer = Response::new(StreamBody::new(Records { queue, _here: here }).boxed());
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(format.name()));
    answer
}

struct Records {
    queue: mpsc::Receiver<Bytes>,
    _here: oneshot::Sender<()>,
}

impl Stream for Records {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.queue.poll_recv(context).map(|record| record.map(|record| Ok(Frame::data(record))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(accept: Option<&'static str>) -> Option<Format> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(accept));
        }
        acceptable(&headers)
    }

    #[test]
    fn json_is_preferred_unless_it_is_not_acceptable() {
        assert_eq!(accepting(None), Some(Format::Json));
        assert_eq!(accepting(Some("*/*")), Some(Format::Json));
        assert_eq!(accepting(Some("application/x-protobuf")), Some(Format::Protobuf));
        assert_eq!(accepting(Some("application/json;q=0, application/x-protobuf")), Some(Format::Protobuf));
        assert_eq!(accepting(Some("text/html")), None);
    }

    #[test]
    fn only_addresses_and_our_own_names_are_hosts_of_ours() {
        let ours = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, http::HeaderValue::from_static(host));
            host_is_ours(&headers, "box")
        };
        assert!(ours("127.0.0.1:5051") && ours("[::1]:5051") && ours("localhost:1") && ours("box"));
        assert!(!ours("evil.example:5051") && !ours(""));
    }
}
