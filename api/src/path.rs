//! What follows `/v2/pods` in a request's path: Marathon's `{id}::{verb}` in all its spellings, as one pure parser.
//!
//! Promises: never panics, whatever the bytes; decodes percent signs exactly once; ids come out validated.

use podium_types::id::{IdError, PodId};

/// Which pod, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPath {
    /// `None`: all pods.
    pub id: Option<PodId>,
    /// What is asked of it.
    pub verb: Verb,
}

/// The word after `::`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// None: the definition itself.
    Definition,
    /// `::status`.
    Status,
    /// `::versions`.
    Versions,
    /// `::logs`.
    Logs,
    /// `::versions/<time stamp>`, the stamp as written.
    Version(String),
    /// `::instances`.
    Instances,
    /// `::instances/<instance id>`, the id as written.
    Instance(String),
}

/// Why a path names nothing of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `%zz`, or bytes that are no UTF-8.
    #[error("the path is not properly percent-encoded UTF-8")]
    Encoding,
    /// The id breaks the rules of pod ids.
    #[error(transparent)]
    Id(IdError),
    /// No such verb.
    #[error("`::{0}` is not known: use ::status, ::logs, ::versions, ::versions/<time stamp>, ::instances or ::instances/<instance id>")]
    Verb(String),
}

/// Reads the part of the path behind `/v2/pods`, as it came over the wire.
pub fn parse(tail: &str) -> Result<PodPath, PathError> {
    let tail = decode(tail).ok_or(PathError::Encoding)?;
    let (id, verb) = match tail.split_once("::") {
        Some((id, verb)) => (id, Some(verb)),
        None => (tail.as_str(), None),
    };
    let id = if id.bytes().all(|b| b == b'/') { None } else { Some(PodId::lenient(id).map_err(PathError::Id)?) };
    let verb = match verb.map(|verb| verb.trim_end_matches('/')) {
        None => Verb::Definition,
        Some("status") => Verb::Status,
        Some("versions") => Verb::Versions,
        Some("logs") => Verb::Logs,
        Some("instances") => Verb::Instances,
        Some(other) => match other.split_once('/') {
            Some(("versions", stamp)) if !stamp.contains('/') => Verb::Version(stamp.to_owned()),
            Some(("instances", id)) if !id.contains('/') => Verb::Instance(id.to_owned()),
            _ => return Err(PathError::Verb(other.chars().take(64).collect())),
        },
    };
    if id.is_none() && !matches!(verb, Verb::Definition | Verb::Status) {
        return Err(PathError::Id(IdError::Empty));
    }
    Ok(PodPath { id, verb })
}

/// Decodes `%xx`; `None` when a sequence is broken or the result is no UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' { hex(rest.next()?)? << 4 | hex(rest.next()?)? } else { byte };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(id: &str, verb: Verb) -> Result<PodPath, PathError> {
        Ok(PodPath { id: Some(PodId::new(id).unwrap()), verb })
    }

    #[test]
    fn every_spelling_of_an_id_names_the_same_pod() {
        for tail in ["a/b", "/a/b", "//a/b", "a/b/", "%2Fa%2Fb", "a%2fb"] {
            assert_eq!(parse(tail), pod("/a/b", Verb::Definition), "{tail}");
        }
        for tail in ["a/b::status", "//a/b::status", "a/b/::status", "a/b::status/", "a%2Fb%3A%3Astatus"] {
            assert_eq!(parse(tail), pod("/a/b", Verb::Status), "{tail}");
        }
        assert_eq!(parse("a::versions"), pod("/a", Verb::Versions));
        assert_eq!(parse("a::instances/"), pod("/a", Verb::Instances));
        assert_eq!(parse("a::instances/a.instance-x"), pod("/a", Verb::Instance("a.instance-x".to_owned())));
        assert_eq!(parse("a::versions/2026-01-01T00:00:00.000Z"), pod("/a", Verb::Version("2026-01-01T00:00:00.000Z".to_owned())));
    }

    #[test]
    fn no_id_means_all_pods() {
        for (tail, verb) in [("", Verb::Definition), ("/", Verb::Definition), ("::status", Verb::Status), ("/::status", Verb::Status)] {
            assert_eq!(parse(tail), Ok(PodPath { id: None, verb }), "{tail}");
        }
        assert_eq!(parse("::versions"), Err(PathError::Id(IdError::Empty)));
        assert_eq!(parse("::instances"), Err(PathError::Id(IdError::Empty)));
    }

    #[test]
    fn what_names_nothing_is_refused_with_the_reason() {
        assert_eq!(parse("a::tasks"), Err(PathError::Verb("tasks".to_owned())));
        assert_eq!(parse("a::versions/x/y"), Err(PathError::Verb("versions/x/y".to_owned())));
        for bad in ["A", "a/../b", "..", ".", "%2e%2e/etc", "a_b"] {
            assert!(matches!(parse(bad), Err(PathError::Id(_))), "{bad}");
        }
        for bad in ["%", "%2", "%zz", "%ff", "a%"] {
            assert_eq!(parse(bad), Err(PathError::Encoding), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic(tail in ".{0,60}") {
            let _ = parse(&tail);
        }

        #[test]
        fn a_path_of_odd_pieces_is_read_or_refused(pieces in proptest::collection::vec(
            prop::sample::select(vec!["::", ":", "/", "%2F", "%", "%3A", "%C3", "a", "status", "versions", "instances", "..", "é"]), 0..12)) {
            if let Ok(path) = parse(&pieces.concat())
                && let Some(id) = path.id {
                prop_assert!(PodId::new(id.as_str()).is_ok());
            }
        }
    }
}
