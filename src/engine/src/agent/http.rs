//! The agent's routes. What a call means is told by [`super::executor_api`] and [`super::operator`].

use std::{convert::Infallible, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use podium_proto::mesos::v1::{agent, executor};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{executor_api, files::Files, operator, owner::Message};
use crate::{
    encoding::Encoding,
    http::{Body, host_name, is_local, only, read_body, refuse_content, text},
};

/// A call with many large unacknowledged updates fits.
const MAX_BODY: usize = 16 << 20;
/// A machine runs a thousand executors, with a stream each and a call now and then.
const MAX_CONNECTIONS: usize = 4096;

/// Whatever is sent back.
pub(super) type Answer = Response<Body>;

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
    let route = move |request| {
        let context = Arc::clone(&context);
        async move { route(request, &context).await }
    };
    crate::http::serve(listener, MAX_CONNECTIONS, CancellationToken::new(), route).await;
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
    host_name(host).is_some_and(|name| is_local(&name) || name.eq_ignore_ascii_case(hostname))
}

/// Reads a call by Mesos' rules for methods and content types; and the form in which to answer, if any is acceptable.
async fn read<M>(request: Request<Incoming>) -> Result<(M, Option<Encoding>), Box<Answer>>
where
    M: prost::Message + prost::Name + Default,
{
    if request.method() != Method::POST {
        return Err(Box::new(only(&[Method::POST], request.method())));
    }
    let (head, body) = request.into_parts();
    let encoding = Encoding::of_content(&head.headers).map_err(|error| Box::new(refuse_content(error)))?;
    let body = read_body(body, MAX_BODY).await.map_err(Box::new)?;
    let call = encoding.decode(&body).map_err(|error| Box::new(refuse_content(error)))?;
    Ok((call, Encoding::of_accept(&head.headers)))
}

/// A stream of framed records, one a chunk; `here` goes with it.
pub(super) fn streamed(encoding: Encoding, queue: mpsc::Receiver<Bytes>, here: oneshot::Sender<()>) -> Answer {
    let mut answer = Response::new(StreamBody::new(Records { queue, _here: here }).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, encoding.content_type());
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
