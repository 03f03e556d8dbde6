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

/// Everything that the server answers.
pub fn routes(api: Arc<Api>) -> BoxedFilter<(Answer,)> {
    let shared = warp::any().map(move || Arc::clone(&api)).boxed();
    let pods = warp::path("v2")
        .and(warp::path("pods"))
        .and(warp::path::tail())
        .and(shared.clone())
        .and(head())
        .and(body())
        .and_then(|tail: warp::path::Tail, api: Arc<Api>, head: Head, body: Body| async move {
            let began = Instant::now();
            let (route, result) = pods::handle(&api, tail.as_str(), &head, body).await;
            counted(&api, route, &head, began, result)
        })
        // Here already: what the pods refuse must not be offered to the routes below.
        .recover(answer_own_refusal)
        .unify()
        .boxed();
    let plain = warp::path::full()
        .and(shared.clone())
        .and(head())
        .and_then(|path: warp::path::FullPath, api: Arc<Api>, head: Head| async move {
            let began = Instant::now();
            let (route, result) = plain::handle(&api, path.as_str(), &head).await;
            counted(&api, route, &head, began, result)
        })
        .boxed();
    guard(shared).and(pods.or(plain).unify()).recover(answer_refusal).unify().map(finished).boxed()
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

async fn answer_own_refusal(rejection: Rejection) -> Result<Answer, Rejection> {
    match rejection.find::<Refused>() {
        Some(Refused(problem)) => Ok(problem.clone().into_answer()),
        None => Err(rejection),
    }
}

async fn answer_refusal(rejection: Rejection) -> Result<Answer, Infallible> {
    Ok(answer_own_refusal(rejection).await.unwrap_or_else(|rejection| {
        tracing::error!(?rejection, "a request was refused by a filter that should refuse none");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_answer()
    }))
}

fn finished(mut answer: Answer) -> Answer {
    finish(&mut answer);
    answer
}

/// warp answers what implements its `Reply`; ours is a plain response, which does.
const fn _is_a_reply<T: Reply>() {}
const _: () = _is_a_reply::<Answer>();
