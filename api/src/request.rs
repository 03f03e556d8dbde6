//! What a handler needs of a request: the head as plain data, the query, and the body under a cap.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::access::Caller;
use crate::answer::{MIN_REVISION, Problem};
use crate::path::decode;

/// The longest body that is read, in bytes: what a spec may hold in the store.
pub const MAX_BODY: usize = 512 * 1024;

/// A body must have arrived in this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body as it arrives.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Head {
    /// As sent.
    pub method: Method,
    /// What follows the `?`; empty if nothing does.
    pub query: String,
    /// As sent.
    pub headers: HeaderMap,
    /// The address at the other end of the connection.
    pub peer: Option<IpAddr>,
    /// Who asks, and what they may do: nothing, until the request was admitted.
    pub(crate) caller: Caller,
}

fn parameter(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    Some((decode(key)?, decode(&value.replace('+', " "))?))
}

/// So much of a body is read at most, though it is refused, in bytes.
const MAX_DRAINED: usize = 16 * MAX_BODY;

/// How long the next piece of such a body is waited for.
const DRAIN_PAUSE: Duration = Duration::from_secs(1);

/// Characters of a content coding that an answer repeats.
const LONGEST_CODING: usize = 40;

impl Head {
    /// A request of somebody who is not known yet.
    pub fn new(method: Method, query: String, headers: HeaderMap) -> Self {
        Self { method, query, headers, peer: None, caller: Caller::nobody() }
    }

    /// Marathon's booleans: `true` in any case is true, everything else is false.
    pub fn flag(&self, name: &str) -> bool {
        self.values(name).iter().any(|value| value.eq_ignore_ascii_case("true"))
    }

    /// All values of a query parameter, decoded, in their order; what cannot be decoded is left out.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.parameters().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// All query parameters and their values, decoded, in their order; what cannot be decoded is left out.
    pub fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.query.split('&').filter_map(parameter)
    }

    /// The first pair of the query that cannot be decoded.
    pub fn undecodable(&self) -> Option<&str> {
        self.query.split('&').find(|pair| parameter(pair).is_none())
    }

    /// A header as text; absent when it is missing or no text.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether a header of entity tags names one that matches; `None`: there is no such header. A tag that is no text is none of
    /// ours, and yet a condition.
    pub fn any_tag(&self, name: HeaderName, matches: impl Fn(&str) -> bool) -> Option<bool> {
        let values = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
        values.flat_map(|value| value.split(',').map(str::trim)).map(matches).reduce(|one, other| one || other)
    }

    /// The revision that the client wants to see at least; 0 when it does not say.
    pub fn min_revision(&self) -> Result<i64, Problem> {
        match self.headers.get(MIN_REVISION) {
            None => Ok(0),
            Some(value) => {
                value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|revision| *revision >= 0).ok_or_else(|| {
                    Problem::new(StatusCode::BAD_REQUEST, "X-Podium-Min-Revision must be a revision of the store: a whole number")
                })
            }
        }
    }

    /// Whether the client accepts a media type at all; no Accept header accepts everything.
    pub fn accepts(&self, kind: &str, subtype: &str) -> bool {
        let mut given = false;
        for value in self.headers.get_all(http::header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                given = true;
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().unwrap_or_default();
                let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0)));
                let (main, sub) = media.split_once('/').unwrap_or((media, "*"));
                if !refused && (main == "*" || main.eq_ignore_ascii_case(kind)) && (sub == "*" || sub.eq_ignore_ascii_case(subtype)) {
                    return true;
                }
            }
        }
        !given
    }

    /// Refuses anything but `application/json`: a web page can send every other type without asking us first.
    pub fn demand_json(&self) -> Result<(), Problem> {
        let given = self.header(CONTENT_TYPE).unwrap_or_default();
        let media = given.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type: send the header `Content-Type: application/json`"))
    }

    /// Collects the body, at most [`MAX_BODY`] bytes of it, whether its length was announced or not.
    pub async fn collect(&self, body: Body) -> Result<Bytes, Problem> {
        if let Some(coding) = self.headers.get(CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let coding: String = String::from_utf8_lossy(coding.as_bytes()).chars().take(LONGEST_CODING).collect();
            let message = format!("Unsupported Media Type: a body with `Content-Encoding: {coding}` isn't unpacked; send it as it is");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let announced = self.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
        // Who asks first hears it first.
        let most = if self.headers.contains_key(EXPECT) { MAX_BODY } else { MAX_DRAINED };
        if announced > most as u64 {
            return Err(too_large());
        }
        let collected = async {
            if announced > MAX_BODY as u64 {
                drain(body, 0).await;
                return Err(too_large());
            }
            collect(body).await
        };
        match tokio::time::timeout(BODY_TIMEOUT, collected).await {
            Ok(collected) => collected,
            Err(_) if announced > MAX_BODY as u64 => Err(too_large()),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive in {} s", BODY_TIMEOUT.as_secs()))),
        }
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body broke off"))?;
        let size = collected.len() + chunk.len();
        if size > MAX_BODY {
            drain(body, size).await;
            return Err(too_large());
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

/// Reads the rest of a body that is too large, and throws it away: many clients hear no answer before they have sent all.
async fn drain(mut body: Body, mut size: usize) {
    while size <= MAX_DRAINED
        && let Ok(Some(Ok(chunk))) = tokio::time::timeout(DRAIN_PAUSE, body.next()).await
    {
        size += chunk.len();
    }
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY} bytes"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(query: &str, headers: &[(&'static str, &'static str)]) -> Head {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        Head::new(Method::GET, query.to_owned(), headers)
    }

    #[test]
    fn only_the_word_true_is_true() {
        for yes in ["force=true", "x=1&force=TRUE", "%66orce=true"] {
            assert!(head(yes, &[]).flag("force"), "{yes}");
        }
        for no in ["", "force", "force=1", "force=yes", "forced=true", "force=%zz"] {
            assert!(!head(no, &[]).flag("force"), "{no}");
        }
    }

    #[test]
    fn accept_is_read_with_wildcards_and_refusals() {
        assert!(head("", &[]).accepts("text", "plain"));
        assert!(head("", &[("accept", "*/*")]).accepts("text", "plain"));
        assert!(head("", &[("accept", "application/json, text/*;q=0.5")]).accepts("text", "plain"));
        assert!(!head("", &[("accept", "application/json")]).accepts("text", "plain"));
        assert!(!head("", &[("accept", "text/plain;q=0, application/json")]).accepts("text", "plain"));
    }

    #[test]
    fn a_form_is_not_json() {
        assert!(head("", &[("content-type", "application/json; charset=utf-8")]).demand_json().is_ok());
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert_eq!(head("", &[("content-type", bad)]).demand_json().unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }

    #[tokio::test]
    async fn a_body_over_the_cap_is_refused_whether_announced_or_not() {
        let chunks =
            |count: usize| -> Body { Box::pin(futures_util::stream::iter((0..count).map(|_| Ok(Bytes::from(vec![b'x'; MAX_BODY / 4]))))) };
        assert_eq!(head("", &[]).collect(chunks(4)).await.unwrap().len(), MAX_BODY);
        assert_eq!(head("", &[]).collect(chunks(5)).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let announced = head("", &[("content-length", "524289")]);
        assert_eq!(announced.collect(chunks(0)).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never: Body = Box::pin(futures_util::stream::pending());
        assert_eq!(head("", &[]).collect(never).await.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
    }
}
