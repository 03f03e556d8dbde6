//! Reading a definition: from bytes to the canonical form, or to every violation at once.
//!
//! Two stages, as in Marathon: structure (types, bounds, patterns, enums), then rules. Marathon stops
//! between them; here the rules run on whatever part of the structure was sound, so that one answer tells all.

use std::collections::HashSet;
use std::fmt;

use super::document::{self, Document};
use super::walk::Findings;
use super::{Constraint, PodDefinition, rules, schema};
use crate::id::PodId;

/// The longest definition that is read, in bytes.
pub const MAX_BYTES: usize = 512 * 1024;

/// What defaults depend on, and the definition does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name that a container network without one gets; `None`: such a pod is refused.
    pub default_network_name: Option<String>,
    /// The role of pods that name none.
    pub default_role: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { default_network_name: None, default_role: "*".to_owned() }
    }
}

/// A definition that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The canonical form. Its version is the author's, which means nothing: who accepts it sets another.
    pub definition: PodDefinition,
    /// What was read over, for its author to look at; refused under `?strict=true`.
    pub warnings: Vec<Warning>,
}

/// A field that was read over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where: `/containers(0)/resource`.
    pub path: String,
    /// What about it, naming the nearest known field.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Which stage of reading found a violation. Decides the head of Marathon's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Types, bounds, patterns, enums: "Invalid JSON".
    Structure,
    /// What the parts mean together: "Object is not valid".
    Rule,
}

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, as Marathon writes it: `/containers(0)/name`; `/` for the whole.
    pub path: String,
    /// Marathon's message.
    pub message: String,
    /// The same in words, where Marathon's message is a code (`error.min`); else empty.
    pub hint: String,
    /// Which stage found it.
    pub stage: Stage,
}

impl Violation {
    /// A violation of a rule.
    pub fn rule(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: String::new(), stage: Stage::Rule }
    }

    /// A violation of the structure.
    pub fn structure(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: hint.into(), stage: Stage::Structure }
    }

    /// The message for people: with the hint, if there is one.
    pub fn text(&self) -> String {
        if self.hint.is_empty() { self.message.clone() } else { format!("{} ({})", self.message, self.hint) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text())
    }
}

/// Why a definition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes are no JSON (400). Line and column count from 1; both 0: unknown, as of an empty body.
    #[error("{message} at line {line} column {column}")]
    NotJson {
        /// What the parser says, without the place.
        message: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// More than [`MAX_BYTES`] (413).
    #[error("the definition has {size} bytes, the limit is {MAX_BYTES}")]
    TooLarge {
        /// In bytes.
        size: usize,
    },
    /// JSON, but no valid definition (422).
    #[error("{}", in_words(.violations))]
    Invalid {
        /// Every violation, structure first.
        violations: Vec<Violation>,
        /// What was read over besides, as in [`Reading`].
        warnings: Vec<Warning>,
    },
}

impl ReadError {
    /// Everything that is wrong as violations, for records and status: what is no JSON has the path "".
    pub fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Invalid { violations, .. } => violations.clone(),
            Self::NotJson { .. } => vec![Violation::structure("", format!("Invalid JSON: {self}"), "")],
            Self::TooLarge { .. } => vec![Violation::structure("", self.to_string(), "")],
        }
    }

    /// The head of Marathon's answer: `Invalid JSON` if the structure is broken, else `Object is not valid`.
    pub fn headline(&self) -> &'static str {
        match self {
            Self::Invalid { violations, .. } if violations.iter().all(|violation| violation.stage == Stage::Rule) => "Object is not valid",
            _ => "Invalid JSON",
        }
    }
}

fn in_words(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads a definition that carries its own id.
pub fn read(json: &[u8], settings: &Settings) -> Result<Reading, ReadError> {
    read_document(json, None, None, settings)
}

/// Reads a definition that belongs to `id` (the spec's key, or the URL): an absent id means that one, another is refused.
/// `present` is the definition in force, if there is one: its role stays valid, also if the server's default is another by now.
pub fn read_as(json: &[u8], id: &PodId, present: Option<&PodDefinition>, settings: &Settings) -> Result<Reading, ReadError> {
    read_document(json, Some(id), present.and_then(|present| present.role.as_deref()), settings)
}

/// Reads a definition as it was stored: in the explicit form, by us, after it had been accepted. Its rules are
/// not judged again, since they may have changed meanwhile; its version is kept.
pub fn read_stored(json: &[u8]) -> Result<PodDefinition, ReadError> {
    let mut findings = Findings::default();
    let definition = schema::pod(&parse(json)?.value, None, None, &mut findings);
    let (violations, warnings) = findings.finish();
    // What a rule says is not asked here, though some are noticed while reading; but without its id it is no pod's.
    if violations.iter().any(|violation| violation.stage == Stage::Structure || violation.path == "/id") {
        return Err(ReadError::Invalid { violations, warnings });
    }
    Ok(definition)
}

fn read_document(json: &[u8], id: Option<&PodId>, role: Option<&str>, settings: &Settings) -> Result<Reading, ReadError> {
    let document = parse(json)?;
    let mut findings = Findings::default();
    let mut definition = schema::pod(&document.value, id, Some(settings), &mut findings);
    document.twice.into_iter().for_each(|path| findings.warn(path, "is given more than once; the last one counts"));
    rules::judge(&definition, role, settings, &mut findings);
    match findings.finish() {
        (violations, warnings) if violations.is_empty() => {
            collapse(&mut definition.scheduling.placement.constraints);
            Ok(Reading { definition, warnings })
        }
        (violations, warnings) => Err(ReadError::Invalid { violations, warnings }),
    }
}

/// Constraints are a set: of equal ones the first remains. Done last, since rules speak of them by index.
fn collapse(constraints: &mut Vec<Constraint>) {
    let mut seen = HashSet::new();
    constraints.retain(|constraint| seen.insert((constraint.field_name.clone(), constraint.operator.as_str(), constraint.value.clone())));
}

fn parse(json: &[u8]) -> Result<Document, ReadError> {
    if json.len() > MAX_BYTES {
        return Err(ReadError::TooLarge { size: json.len() });
    }
    document::parse(json).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = error.to_string();
        ReadError::NotJson { message: text.strip_suffix(&place).unwrap_or(&text).to_owned(), line: error.line(), column: error.column() }
    })
}
