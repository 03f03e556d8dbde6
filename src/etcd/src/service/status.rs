//! Refusals that come from gRPC itself, in the words of Go's gRPC: etcd's clients know those, and not tonic's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};

/// How tonic begins its refusal of a message that is too long; the two numbers follow.
const TOO_LONG: &str = "Error, decoded message length too large: found ";

/// Rewrites the refusals of the service inside.
#[derive(Debug, Clone)]
pub(crate) struct InGoWords<S>(pub(crate) S);

impl<S> Service<Request<Body>> for InGoWords<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // A refusal of gRPC itself carries its status in the headers, before any message.
            let refusal = Status::from_header_map(response.headers());
            Ok(match refusal.and_then(|refusal| reworded(&refusal, &path)) {
                Some(refusal) => refusal.into_http(),
                None => response,
            })
        })
    }
}

fn reworded(refusal: &Status, path: &str) -> Option<Status> {
    match refusal.code() {
        Code::OutOfRange => {
            let numbers = refusal.message().strip_prefix(TOO_LONG)?;
            let (found, limit) = numbers.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
            Some(Status::resource_exhausted(format!("grpc: received message larger than max ({found} vs. {limit})")))
        }
        Code::Unimplemented if refusal.message().is_empty() => {
            let (service, _) = path.strip_prefix('/')?.split_once('/')?;
            Some(Status::unimplemented(format!("unknown service {service}")))
        }
        _ => None,
    }
}
