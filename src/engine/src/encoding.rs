//! The two content types, in both directions, and who accepts which.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use podium_proto::wire::json;
use prost::{Message, Name};

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Mesos' dialect, one ASCII line.
    Json,
    /// Protobuf.
    Protobuf,
}

/// What is wrong with a request's content.
#[derive(Debug)]
pub(crate) enum ContentError {
    /// 400.
    Missing,
    /// 415.
    Unsupported,
    /// 400; as the answer's body tells it.
    Malformed(String),
}

impl Encoding {
    pub(crate) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        })
    }

    /// The request's own, by an exact `Content-Type`.
    pub(crate) fn of_content(headers: &HeaderMap) -> Result<Self, ContentError> {
        let given = headers.get(header::CONTENT_TYPE).ok_or(ContentError::Missing)?;
        match given.as_bytes() {
            b"application/json" => Ok(Self::Json),
            b"application/x-protobuf" => Ok(Self::Protobuf),
            _ => Err(ContentError::Unsupported),
        }
    }

    /// The answer's, by `Accept`: JSON wherever it will do, also where nothing is said; `None` if neither will.
    pub(crate) fn of_accept(headers: &HeaderMap) -> Option<Self> {
        let given: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if given.is_empty() {
            return Some(Self::Json);
        }
        let ranges: Vec<(String, bool)> = given.iter().flat_map(|value| value.split(',')).map(media_range).collect();
        [(Self::Json, "application/json"), (Self::Protobuf, "application/x-protobuf")]
            .into_iter()
            .find(|(_, name)| accepts(&ranges, name))
            .map(|(encoding, _)| encoding)
    }

    pub(crate) fn decode<M: Message + Name + Default>(self, body: &[u8]) -> Result<M, ContentError> {
        let read = match self {
            Self::Json => json::from_slice(body).map_err(|error| misread::<M>(&error)),
            Self::Protobuf => json::from_protobuf(body).map_err(|_| format!("Failed to parse body into {} protobuf", M::NAME)),
        };
        read.map_err(ContentError::Malformed)
    }

    /// Writes a message of ours; one that can't be written is a fault of this program, and told in the log.
    pub(crate) fn encode<M: Message + Name>(self, message: &M) -> Bytes {
        match self {
            Self::Protobuf => message.encode_to_vec().into(),
            Self::Json => match json::to_text(message) {
                Ok(text) => text.into(),
                Err(error) => {
                    tracing::error!(%error, "a message can't be written as JSON");
                    Bytes::new()
                }
            },
        }
    }
}

/// What is wrong with a JSON body; in Mesos' words where ours would say no more.
fn misread<M: Name>(error: &json::Error) -> String {
    let name = M::NAME;
    match error {
        json::Error::Syntax(error) => format!("Failed to parse body into JSON: {error}"),
        json::Error::Field { path, .. } if path == "." => format!("Failed to convert JSON into {name} protobuf: Expecting a JSON object"),
        json::Error::Field { path, problem } if problem == json::MISSING => {
            format!("Failed to convert JSON into {name} protobuf: Missing required fields: {path}")
        }
        other => format!("Failed to convert JSON into {name} protobuf: {other}"),
    }
}

/// A media range and whether it is allowed; `q=0` forbids.
fn media_range(text: &str) -> (String, bool) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let forbidden = parts
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(key, value)| key.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f64>().is_ok_and(|q| q <= 0.0));
    (name, !forbidden)
}

/// The most specific range that fits decides.
fn accepts(ranges: &[(String, bool)], name: &str) -> bool {
    [name, "application/*", "*/*"]
        .into_iter()
        .find_map(|candidate| ranges.iter().find(|(range, _)| range == candidate))
        .is_some_and(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(values: &[&'static str]) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        Encoding::of_accept(&headers)
    }

    #[test]
    fn json_is_answered_wherever_it_will_do() {
        assert_eq!(accept(&[]), Some(Encoding::Json));
        assert_eq!(accept(&["*/*"]), Some(Encoding::Json));
        assert_eq!(accept(&["application/x-protobuf"]), Some(Encoding::Protobuf));
        assert_eq!(accept(&["application/x-protobuf, application/json;q=0.1"]), Some(Encoding::Json));
        assert_eq!(accept(&["application/*", "application/json;q=0"]), Some(Encoding::Protobuf));
        assert_eq!(accept(&["text/html"]), None);
        assert_eq!(accept(&["*/*;q=0"]), None);
    }

    #[test]
    fn content_types_must_be_exact() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            Encoding::of_content(&headers)
        };
        assert!(matches!(of("application/json"), Ok(Encoding::Json)));
        assert!(matches!(of("application/json; charset=utf-8"), Err(ContentError::Unsupported)));
        assert!(matches!(of("Application/JSON"), Err(ContentError::Unsupported)));
        assert!(matches!(Encoding::of_content(&HeaderMap::new()), Err(ContentError::Missing)));
    }
}
