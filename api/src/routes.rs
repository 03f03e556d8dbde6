//! The filters: from a connection's request to the handler that knows it, and from a refusal to its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Buf;
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use warp::filters::BoxedFilter;
use warp::{Filter, Rejection, Reply};

use crate::answer::{Answer, Problem, finish};
use crate::request::{Body, Head};
use crate::{Api, plain, pods};

/// A refusal on its way through the filters; the only kind of rejection that our own filters use.
#[derive(Debug)]
struct Refused(Problem);

impl warp::reject::Reject for Refused {}

/// Where the DC/OS command line, and what else goes through its proxy, looks for us.
const PROXIED: &str = "/service/marathon";

/// Everything that the server answers.
pub fn routes(api: Arc<Api>) -> BoxedFilter<(Answer,)> {
    let shared = warp::any().map(move || Arc::clone(&api)).boxed();
    let answered = warp::path::full()
        .and(shared.clone())
        .and(head())
        .and(body())
        .and_then(|path: warp::path::FullPath, api: Arc<Api>, head: Head, body: Body| async move {
            let began = Instant::now();
            let path = without_prefix(path.as_str());
            let (route, result) = match pods_tail(path) {
                Some(tail) => pods::handle(&api, tail, &head, body).await,
                None => plain::handle(&api, path, &head, body).await,
            };
            counted(&api, route, &head, began, result)
        })
        .boxed();
    guard(shared).and(answered).recover(answer_refusal).unify().map(finished).boxed()
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

fn counted(api: &Api, route: &'static str, head: &Head, began: Instant, result: Result<Answer, Problem>) -> Result<Answer, Rejection> {
    let status = result.as_ref().map_or_else(|problem| problem.status, Answer::status);
    api.metrics.request(route, &head.method, status, began.elapsed());
    result.map_err(|problem| warp::reject::custom(Refused(problem)))
}

/// Lets pass only who may talk to us.
fn guard(shared: BoxedFilter<(Arc<Api>,)>) -> BoxedFilter<()> {
    shared
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and_then(|api: Arc<Api>, method: Method, headers: HeaderMap| async move {
            api.guard.check(&method, &headers).map_err(|problem| {
                api.metrics.request("refused", &method, problem.status, std::time::Duration::ZERO);
                warp::reject::custom(Refused(problem))
            })
        })
        .untuple_one()
        .boxed()
}

fn head() -> BoxedFilter<(Head,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method().and(query).and(warp::header::headers_cloned()).map(|method, query, headers| Head { method, query, headers }).boxed()
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

async fn answer_refusal(rejection: Rejection) -> Result<Answer, Infallible> {
    if let Some(Refused(problem)) = rejection.find::<Refused>() {
        return Ok(problem.clone().into_answer());
    }
    tracing::error!(?rejection, "a request was refused by a filter that should refuse none");
    Ok(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_answer())
}

fn finished(mut answer: Answer) -> Answer {
    finish(&mut answer);
    answer
}

/// warp answers what implements its `Reply`; ours is a plain response, which does.
const fn _is_a_reply<T: Reply>() {}
const _: () = _is_a_reply::<Answer>();

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
