//! One server, as the commands talk to it: URLs, headers, and refusals turned into [`Failure`]s.
//!
//! It remembers the newest revision that an answer named and sends it along, so that a read after a write sees
//! that write on whichever replica it lands.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use podium_http::{Body, Client, ClientConfig, Method, StatusCode, Trust, Url};
use podium_types::id::PodId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::identity;
use crate::cli::ServerArgs;

const REVISION: HeaderName = HeaderName::from_static("x-podium-revision");
const CHANGE: HeaderName = HeaderName::from_static("x-podium-change");
const MIN_REVISION: HeaderName = HeaderName::from_static("x-podium-min-revision");
const LOG_OFFSET: HeaderName = HeaderName::from_static("x-podium-log-offset");
const LOG_SIZE: HeaderName = HeaderName::from_static("x-podium-log-size");
const TASK: HeaderName = HeaderName::from_static("x-podium-task");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A server.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    base: String,
    /// Who we are to the server, if it wants to know.
    authorization: Option<HeaderValue>,
    /// The newest revision seen; 0: none yet.
    revision: i64,
}

/// An answer of the server that is no refusal.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The body; `null` if there is none.
    pub body: Value,
    /// What `If-Match` may compare.
    pub etag: Option<String>,
    /// In one word, what a change changed.
    pub change: Option<String>,
    /// What the server wants said about the request.
    pub warnings: Vec<String>,
}

/// A part of what a container has printed.
#[derive(Debug, Clone)]
pub struct LogPart {
    /// Of its first byte, from the log's beginning.
    pub offset: u64,
    /// Bytes in the whole log.
    pub size: u64,
    /// Whose log it is: another task's is another log.
    pub task: String,
    /// The bytes.
    pub data: Bytes,
}

/// A change of a pod.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Supersede a running deployment.
    pub force: bool,
    /// Refuse unknown fields.
    pub strict: bool,
    /// Only if the pod is still what it was.
    pub if_match: Option<&'a str>,
    /// Tell what would happen, and change nothing.
    pub dry_run: bool,
}

/// The body of a refusal.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Value,
}

impl Connection {
    /// Takes the address; nothing is sent yet.
    pub fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let url = podium_http::parse_url(&args.server).map_err(|error| Failure::Usage(format!("--server: {error}")))?;
        let trust = args.ca_file.as_deref().map(Trust::of_file).transpose();
        let config = ClientConfig {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(40),
            trust: trust.map_err(|error| Failure::Usage(format!("--ca-file: {error}")))?,
            ..ClientConfig::default()
        };
        let client = Client::new(config).map_err(|error| Failure::Usage(error.to_string()))?;
        let authorization = identity::authorization(args)?;
        Ok(Self { client, base: url.to_string().trim_end_matches('/').to_owned(), authorization, revision: 0 })
    }

    /// Reads `path`.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, None, None).await
    }

    /// Reads `path` as a value of our own.
    pub async fn get_as<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let body = self.get(path).await?.body;
        serde_json::from_value(body)
            .map_err(|error| Failure::Failed(format!("{}{path} answered something else than expected: {error}", self.base)))
    }

    /// Posts a body.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(Method::POST, path, Some(body), None).await
    }

    /// Puts a definition.
    pub async fn put(&mut self, id: &PodId, definition: &Value, change: Change<'_>) -> Result<Answer, Failure> {
        let path = format!("/v2/pods{id}?force={}&strict={}&dryRun={}", change.force, change.strict, change.dry_run);
        self.send(Method::PUT, &path, Some(definition), change.if_match).await
    }

    /// Deletes a pod.
    pub async fn delete(&mut self, id: &PodId, force: bool) -> Result<Answer, Failure> {
        self.send(Method::DELETE, &format!("/v2/pods{id}?force={force}"), None, None).await
    }

    /// Reads a part of a log.
    pub async fn log_part(&mut self, path: &str) -> Result<LogPart, Failure> {
        let (headers, data) = self.exchange(Method::GET, path, None, None).await?;
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name| text(name).and_then(|text| text.parse().ok());
        match (number(&LOG_OFFSET), number(&LOG_SIZE), text(&TASK)) {
            (Some(offset), Some(size), Some(task)) => Ok(LogPart { offset, size, task: task.to_owned(), data }),
            _ => Err(Failure::Failed(format!("{}{path} answered no part of a log: is that a Podium server of this version?", self.base))),
        }
    }

    /// Opens a stream of what happens from now on.
    pub async fn events(&self) -> Result<Body, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, EVENTS);
        headers.extend(self.authorization.iter().map(|value| (AUTHORIZATION, value.clone())));
        let response = self.client.request(Method::GET, &self.url("/v2/events")?, headers, Vec::new()).await.map_err(unreachable)?;
        if response.status.is_success() { Ok(response.body) } else { Err(refusal(response.status, &[])) }
    }

    /// The store has come to this revision: what is read from now on must not be older.
    pub fn has_seen(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        format!("{}{path}", self.base).parse().map_err(|_| Failure::Usage(format!("--server: {} is no URL", self.base)))
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&Value>, if_match: Option<&str>) -> Result<Answer, Failure> {
        let (headers, body) = self.exchange(method, path, body, if_match).await?;
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .map_err(|_| Failure::Failed(format!("{}{path} did not answer JSON: is that a Podium server?", self.base)))?,
        };
        let texts =
            |name: HeaderName| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>();
        let warnings = texts(http::header::WARNING).iter().map(|warning| warn_text(warning)).collect();
        Ok(Answer { body, etag: texts(ETAG).into_iter().next(), change: texts(CHANGE).into_iter().next(), warnings })
    }

    /// One request and its whole answer; a refusal is a failure.
    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let url = self.url(path)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, JSON);
        headers.extend(self.authorization.iter().map(|value| (AUTHORIZATION, value.clone())));
        if self.revision > 0 {
            headers.insert(MIN_REVISION, HeaderValue::from(self.revision));
        }
        if let Some(tag) = if_match.and_then(|tag| HeaderValue::from_str(tag).ok()) {
            headers.insert(IF_MATCH, tag);
        }
        let bytes = match body {
            Some(body) => {
                headers.insert(CONTENT_TYPE, JSON);
                body.to_string().into_bytes()
            }
            None => Vec::new(),
        };
        let response = self.client.request(method, &url, headers, bytes).await.map_err(unreachable)?;
        let (status, headers) = (response.status, response.headers.clone());
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        if let Some(revision) = headers.get(REVISION).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()) {
            self.has_seen(revision);
        }
        Ok((headers, body))
    }
}

fn unreachable(error: podium_http::Error) -> Failure {
    let hint = if error.nothing_was_sent() { "; is the server running, and is --server right?" } else { "" };
    Failure::Unreachable(format!("{error}{hint}"))
}

/// The text within `299 podium "…"`.
fn warn_text(header: &str) -> String {
    match header.split_once('"') {
        Some((_, text)) => text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\"").replace("\\\\", "\\"),
        None => header.to_owned(),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let message = if refusal.message.is_empty() { format!("the server answered {status}") } else { refusal.message.clone() };
    match status.as_u16() {
        404 => Failure::NotFound(message),
        412 => Failure::Changed(message),
        400 | 413 | 415 | 422 => Failure::Refused(violations(&refusal.details).unwrap_or_else(|| vec![message])),
        _ => Failure::Failed(message),
    }
}

/// One line for every violation: `<JSON path>: <message>`.
fn violations(details: &Value) -> Option<Vec<String>> {
    if let Some(text) = details.as_str() {
        return Some(vec![format!("not JSON: {text}")]);
    }
    let mut lines = Vec::new();
    for detail in details.as_array()? {
        let path = detail.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()).unwrap_or("/");
        let texts =
            |name: &str| detail.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
        let hints = texts("hints").join("; ");
        for error in texts("errors") {
            lines.push(if hints.is_empty() { format!("{path}: {error}") } else { format!("{path}: {error} ({hints})") });
        }
    }
    if lines.is_empty() { None } else { Some(lines) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_one_line_a_violation() {
        let body =
            br#"{"message":"Invalid JSON","details":[{"path":"/containers(0)/name","errors":["error.pattern"],"hints":["lower case"]},
                        {"path":"","errors":["a","b"]}]}"#;
        let expected = ["/containers(0)/name: error.pattern (lower case)", "/: a", "/: b"].map(str::to_owned).to_vec();
        assert_eq!(refusal(StatusCode::UNPROCESSABLE_ENTITY, body), Failure::Refused(expected));
        assert_eq!(refusal(StatusCode::BAD_REQUEST, br#"{"message":"Invalid JSON","details":"expected value"}"#).code(), 4);
        assert_eq!(refusal(StatusCode::NOT_FOUND, br#"{"message":"Pod '/a' does not exist","details":[]}"#).code(), 3);
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>").to_string(), "the server answered 502 Bad Gateway");
    }

    #[test]
    fn a_warning_is_unpacked_from_its_header() {
        assert_eq!(warn_text("299 podium \"/x: unknown; did you mean \\\"y\\\"?\""), "/x: unknown; did you mean \"y\"?");
    }
}
