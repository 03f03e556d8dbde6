//! Answers and refusals: every byte that leaves the API is built here, so that every error has the same shape.
//!
//! An error is `{"message": …}`, with `details` where there is more to say (reference section 1.2).

use std::iter::once;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderName, HeaderValue, PRAGMA, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::content::Content;

/// A finished answer.
pub type Answer = Response<Content>;

/// The header that tells which deployment a change began.
pub const DEPLOYMENT_ID: HeaderName = HeaderName::from_static("marathon-deployment-id");

/// The header that tells the store's revision of a write, and of the state that a read answers from.
pub const REVISION: HeaderName = HeaderName::from_static("x-podium-revision");

/// The header that tells what a push changed: `created`, `config`, `scale`, `settings`, `nothing` or `deleted`.
pub const CHANGE: HeaderName = HeaderName::from_static("x-podium-change");

/// The header by which a read asks for a state no older than a revision.
pub const MIN_REVISION: HeaderName = HeaderName::from_static("x-podium-min-revision");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request is refused: what the client gets instead of what it asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The answer's status.
    pub status: StatusCode,
    /// The JSON body.
    pub body: Value,
    /// Beyond the usual ones.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// `{"message": message}`.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "message": message.into() }), headers: Vec::new() }
    }

    /// `{"message": message, "details": details}`.
    pub fn detailed(status: StatusCode, message: impl Into<String>, details: Value) -> Self {
        Self { status, body: json!({ "message": message.into(), "details": details }), headers: Vec::new() }
    }

    /// A pod that is not there, in Marathon's words.
    pub fn no_pod(id: &impl std::fmt::Display) -> Self {
        Self::detailed(StatusCode::NOT_FOUND, format!("Pod '{id}' does not exist"), json!([]))
    }

    /// A path that is not ours.
    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "URI not found")
    }

    /// A route that does not know this method; `allow` names those that it knows.
    pub fn method(allow: &'static str) -> Self {
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        problem.headers.push((ALLOW, HeaderValue::from_static(allow)));
        problem
    }

    /// The same with one more header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same, of what is worth trying again soon.
    pub fn soon(self) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The answer that says so.
    pub fn into_answer(self) -> Answer {
        let mut answer = json_bytes(self.status, to_bytes(&self.body));
        for (name, value) in self.headers {
            answer.headers_mut().append(name, value);
        }
        answer
    }
}

/// An answer of a value as JSON.
pub fn json_value(status: StatusCode, value: &impl Serialize) -> Answer {
    json_bytes(status, to_bytes(value))
}

/// An answer of JSON that is serialized already.
pub fn json_bytes(status: StatusCode, body: Bytes) -> Answer {
    with_type(status, body, JSON)
}

/// An answer of a JSON array whose values are serialized already; in pieces if it is long.
pub fn json_array(values: Vec<Bytes>) -> Answer {
    let size = values.iter().map(Bytes::len).sum();
    json_list("[", Bytes::new(), values.into_iter(), size, "]")
}

/// An answer of JSON with a list of values of about `size` bytes together, each but for the `opening` that all have in common, and
/// what stands before and after them, brackets included; in pieces if it is long.
pub fn json_list(
    before: &'static str,
    opening: Bytes,
    values: impl Iterator<Item = Bytes> + Send + 'static,
    size: usize,
    after: &'static str,
) -> Answer {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let values = values.enumerate().flat_map(move |(at, value)| [text(if at == 0 { "" } else { "," }), opening.clone(), value]);
    json_parts(once(text(before)).chain(values).chain(once(text(after))), size)
}

/// An answer of JSON that is serialized already, in parts of about `size` bytes together; in pieces if it is long.
pub fn json_parts(parts: impl Iterator<Item = Bytes> + Send + 'static, size: usize) -> Answer {
    let mut answer = json_bytes(StatusCode::OK, Bytes::new());
    *answer.body_mut() = Content::joined(parts, size);
    answer
}

/// An answer of any other type.
pub fn with_type(status: StatusCode, body: Bytes, content_type: HeaderValue) -> Answer {
    let mut answer = Response::new(Content::Whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Content::default());
    *answer.status_mut() = status;
    answer
}

/// Adds a header whose value is ours to choose; text that no header may hold is left out.
pub fn header(answer: &mut Answer, name: HeaderName, value: impl ToString) {
    if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
        answer.headers_mut().append(name, value);
    }
}

/// The headers that every answer carries (reference section 2.1).
pub fn finish<B>(answer: &mut Response<B>) {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("0"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn to_bytes(value: &impl Serialize) -> Bytes {
    // Our own types have string keys and cannot fail; an answer that could not be written is empty, not a panic.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}
