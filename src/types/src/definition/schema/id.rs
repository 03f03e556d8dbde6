//! The id of a pod as its definition gives it (reference section 1.4).

use super::shape::Text;
use super::{Findings, Object, PodId};
use crate::id::IdError;

/// Reads the id. Marathon judges its characters with the structure, and what it means as a path by rules.
pub(super) fn read(pod: &Object<'_>, key: Option<&PodId>, f: &mut Findings) -> PodId {
    let stand_in = || key.cloned().unwrap_or_else(PodId::stand_in);
    if pod.get("id").is_none() {
        if key.is_none() {
            pod.missing("id", f);
        }
        return stand_in();
    }
    let Some(given) = pod.text_within("id", Text::NonEmpty, f) else { return stand_in() };
    match PodId::new(&given) {
        Ok(id) => {
            if let Some(key) = key.filter(|key| **key != id) {
                f.rule("/id", format!("'{key}' does not match definition's id ('{id}')"));
            }
            return id;
        }
        Err(IdError::Segment) if !of_known_characters(&given) => {
            f.structure("/id", "error.pattern", "must consist of lower-case letters, digits and inner dashes, separated by /");
        }
        Err(error) => f.rule("/id", error.to_string()),
    }
    stand_in()
}

fn of_known_characters(id: &str) -> bool {
    id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./".contains(&b))
}
