//! From a connection's request to the handler that knows its path, and from a refusal to its answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Buf;
use futures_util::StreamExt;
use http::header::ORIGIN;
use warp::Filter;
use warp::filters::BoxedFilter;

use crate::answer::{Answer, Problem, finish};
use crate::request::{Body, Head};
use crate::server::{Peer, Routes};
use crate::{Api, access, content, plain, pods, unknown};

/// Where the DC/OS command line, and what else goes through its proxy, looks for us.
const PROXIED: &str = "/service/marathon";

/// Characters of a stranger's path that are logged.
const LOGGED_PATH: usize = 200;

/// Everything that the server answers.
pub fn routes(api: Arc<Api>) -> Routes {
    let shared = warp::any().map(move || Arc::clone(&api)).boxed();
    warp::path::full()
        .and(shared)
        .and(head())
        .and(body())
        .then(|path: warp::path::FullPath, api: Arc<Api>, head: Head, body: Body| async move {
            content::into_reply(respond(&api, path.as_str(), head, body).await)
        })
        .boxed()
}

/// The answer to one request, whatever comes: who may talk to us, who it is, and then the handler that knows the path.
async fn respond(api: &Api, path: &str, head: Head, body: Body) -> Answer {
    let began = Instant::now();
    let path = without_prefix(path);
    let (method, headers) = (head.method.clone(), head.headers.clone());
    let (route, result) = match admitted(api, path, head) {
        Ok(Admitted::Asks(head)) => match pods_tail(path) {
            Some(tail) => pods::handle(api, tail, &head, body).await,
            None if path.starts_with(unknown::BELOW) => unknown::handle(api, path, &head, body).await,
            None => plain::handle(api, path, &head, body).await,
        },
        Ok(Admitted::Answered(answer)) => ("preflight", Ok(answer)),
        Err(problem) => ("refused", Err(problem)),
    };
    let answer = result.unwrap_or_else(Problem::into_answer);
    api.metrics.request(route, &method, answer.status(), began.elapsed());
    let mut answer = content::negotiate(&headers, answer);
    finish(&mut answer);
    api.guard.share(headers.get(ORIGIN), &mut answer);
    answer
}

/// A request that may be answered.
enum Admitted {
    /// With its caller.
    Asks(Head),
    /// A browser's question, which needs nobody else.
    Answered(Answer),
}

/// Lets pass only who may talk to us, and finds out who it is and whether they may ask this.
fn admitted(api: &Api, path: &str, mut head: Head) -> Result<Admitted, Problem> {
    api.guard.check(&head.method, &head.headers)?;
    if let Some(answer) = api.guard.preflight(&head.method, &head.headers) {
        return Ok(Admitted::Answered(answer));
    }
    match api.access.caller(&head.headers) {
        Ok(caller) => head.caller = caller,
        Err(_) if access::is_open(path) => {}
        Err(problem) => {
            // Anybody can cause this line, with any path.
            let path: String = path.chars().take(LOGGED_PATH).collect();
            tracing::debug!(peer = ?head.peer, path, "a request without a password or token that is known");
            return Err(problem);
        }
    }
    access::demand(&head.caller, &head.method, path)?;
    Ok(Admitted::Asks(head))
}

/// The path as we know it, for clients that put the proxy's prefix before every path.
fn without_prefix(path: &str) -> &str {
    path.strip_prefix(PROXIED).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path)
}

/// What follows `/v2/pods`; `None`: it is about something else.
fn pods_tail(path: &str) -> Option<&str> {
    let tail = path.strip_prefix("/v2/pods")?;
    if tail.is_empty() { Some(tail) } else { tail.strip_prefix('/') }
}

fn head() -> BoxedFilter<(Head,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let peer = warp::ext::optional::<Peer>();
    warp::method()
        .and(query)
        .and(warp::header::headers_cloned())
        .and(peer)
        .map(|method, query, headers, peer: Option<Peer>| Head { peer: peer.map(|peer| peer.0), ..Head::new(method, query, headers) })
        .boxed()
}

fn body() -> BoxedFilter<(Body,)> {
    warp::body::stream()
        .map(|stream| -> Body {
            // The stream's type has no name; boxed, handlers can take it.
            Box::pin(into_bytes(stream))
        })
        .boxed()
}

fn into_bytes<S, B>(stream: S) -> impl futures_util::Stream<Item = Result<bytes::Bytes, warp::Error>> + Send
where
    S: futures_util::Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    stream.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_prefix_is_optional_and_a_whole_segment() {
        for (path, ours) in [
            ("/service/marathon/v2/pods", "/v2/pods"),
            ("/service/marathon", ""),
            ("/service/marathonx/v2/pods", "/service/marathonx/v2/pods"),
            ("/v2/pods", "/v2/pods"),
        ] {
            assert_eq!(without_prefix(path), ours);
        }
        for (path, tail) in [("/v2/pods", Some("")), ("/v2/pods//a", Some("/a")), ("/v2/podsx", None), ("/v2/pods::status", None)] {
            assert_eq!(pods_tail(path), tail);
        }
    }
}
