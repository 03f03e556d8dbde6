//! Walking through JSON: typed access to an object's members that records what is wrong, and where,
//! instead of stopping. Used by [`super::schema`] only.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::read::{Stage, Violation, Warning};
use super::words::Word;

/// More violations than this are cut off: a definition can be half a megabyte of mistakes.
const MAX_FINDINGS: usize = 256;
/// Regular expressions that are compiled for one definition: each may cost a millisecond.
const MAX_PATTERNS: usize = 200;
/// How much of an object is quoted in a message, in bytes.
const MAX_QUOTE: usize = 1024;
/// The largest integer that Marathon reads into its 32 bits.
pub(super) const INT: i64 = i32::MAX as i64;

/// What was noticed so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    violations: Vec<Violation>,
    warnings: Vec<Warning>,
    cut: usize,
    patterns: usize,
}

impl Findings {
    pub(super) fn structure(&mut self, path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Violation::structure(path, message, hint));
    }

    pub(super) fn rule(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Violation::rule(path, message));
    }

    fn add(&mut self, violation: Violation) {
        if self.violations.len() < MAX_FINDINGS { self.violations.push(violation) } else { self.cut += 1 }
    }

    /// Records a text that is no regular expression; linear in time to match, and bounded in number and size.
    pub(super) fn pattern(&mut self, path: impl Into<String>, text: &str) {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            self.rule(path, format!("is one of more than {MAX_PATTERNS} regular expressions"));
        } else if regex::RegexBuilder::new(text).size_limit(1 << 19).build().is_err() {
            self.rule(path, "is not a valid regular expression");
        }
    }

    pub(super) fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.warnings.len() < MAX_FINDINGS {
            self.warnings.push(Warning { path: path.into(), message: message.into() });
        }
    }

    /// Whether the structure at, above or below a path is broken, so that a rule about it would speak of a stand-in.
    pub(super) fn broken(&self, path: &str) -> bool {
        let covers =
            |above: &str, below: &str| below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '(']));
        self.violations
            .iter()
            .filter(|violation| violation.stage == Stage::Structure)
            .any(|violation| covers(&violation.path, path) || covers(path, &violation.path))
    }

    /// Everything, structure first, each finding once.
    pub(super) fn finish(self) -> (Vec<Violation>, Vec<Warning>) {
        let mut seen = HashSet::new();
        let (mut violations, rules): (Vec<_>, Vec<_>) = self
            .violations
            .into_iter()
            .filter(|violation| seen.insert((violation.path.clone(), violation.message.clone())))
            .partition(|violation| violation.stage == Stage::Structure);
        violations.extend(rules);
        if self.cut > 0 {
            let stage = violations.first().map_or(Stage::Rule, |first| first.stage);
            let message = format!("{} further errors are not listed", self.cut);
            violations.push(Violation { path: "/".to_owned(), message, hint: String::new(), stage });
        }
        (violations, self.warnings)
    }
}

/// How Marathon words what is missing: types that carry bounds quote the object, plain ones do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bounded,
    Plain,
}

/// The bounds of a text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text {
    /// Anything.
    Free,
    /// At least one character.
    NonEmpty,
    /// 1 to 1024 characters.
    Path,
    /// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, 1 to 63.
    Name,
    /// As a name, with underscores inside.
    NetworkName,
}

/// A JSON object with its path.
pub(super) struct Object<'v> {
    pub(super) path: String,
    map: &'v Map<String, Value>,
    whole: &'v Value,
    kind: Kind,
}

/// The path of a member; the root's is empty.
fn join(path: &str, name: &str) -> String {
    format!("{path}/{name}")
}

impl<'v> Object<'v> {
    /// Opens a value as an object, warning of members that are not `known`.
    pub(super) fn open(value: &'v Value, path: String, kind: Kind, known: &[&str], f: &mut Findings) -> Option<Self> {
        let Value::Object(map) = value else {
            let message = match kind {
                Kind::Bounded => format!("{} is not an object", quote(value)),
                Kind::Plain => "error.expected.jsobject".to_owned(),
            };
            f.structure(path, message, "must be an object");
            return None;
        };
        let room = MAX_FINDINGS.saturating_sub(f.warnings.len());
        for name in map.keys().filter(|name| !known.contains(&name.as_str())).take(room) {
            f.warn(join(&path, name), unknown(name, known));
        }
        Some(Self { path, map, whole: value, kind })
    }

    /// The path of a member.
    pub(super) fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A member; `null` is as good as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A member that must be there.
    pub(super) fn required(&self, name: &str, f: &mut Findings) -> Option<&'v Value> {
        let value = self.get(name);
        if value.is_none() {
            self.missing(name, f);
        }
        value
    }

    /// Records that a member is missing.
    pub(super) fn missing(&self, name: &str, f: &mut Findings) {
        let message = match self.kind {
            Kind::Bounded => format!("'{name}' is undefined on object: {}", quote(self.whole)),
            Kind::Plain => "error.path.missing".to_owned(),
        };
        f.structure(self.at(name), message, if self.kind == Kind::Plain { "is required" } else { "" });
    }

    pub(super) fn object(&self, name: &str, kind: Kind, known: &[&str], f: &mut Findings) -> Option<Self> {
        Object::open(self.get(name)?, self.at(name), kind, known, f)
    }

    pub(super) fn text(&self, name: &str, bounds: Text, f: &mut Findings) -> Option<String> {
        text(self.get(name)?, || self.at(name), bounds, f)
    }

    pub(super) fn required_text(&self, name: &str, bounds: Text, f: &mut Findings) -> String {
        self.required(name, f).and_then(|value| text(value, || self.at(name), bounds, f)).unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str, f: &mut Findings) -> Option<bool> {
        let flag = self.get(name)?.as_bool();
        if flag.is_none() {
            f.structure(self.at(name), "error.expected.jsboolean", "must be true or false");
        }
        flag
    }

    /// A number within bounds, both included.
    pub(super) fn number(&self, name: &str, min: f64, max: f64, f: &mut Findings) -> Option<f64> {
        number(self.get(name)?, || self.at(name), min, max, f)
    }

    /// A whole number within bounds, both included.
    pub(super) fn integer(&self, name: &str, min: i64, max: i64, f: &mut Findings) -> Option<i64> {
        let value = self.get(name)?;
        let number = match value {
            Value::Number(number) => number,
            _ => {
                f.structure(self.at(name), "error.expected.jsnumber", "must be a whole number");
                return None;
            }
        };
        let whole = number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
            Some(float as i64)
        });
        match whole {
            Some(whole) if whole < min => f.structure(self.at(name), "error.min", format!("must be {min} or more")),
            Some(whole) if whole > max => f.structure(self.at(name), "error.max", format!("must be {max} or less")),
            Some(whole) => return Some(whole),
            None => {
                let message = if max > INT { "error.expected.long" } else { "error.expected.int" };
                f.structure(self.at(name), message, "must be a whole number");
            }
        }
        None
    }

    /// As [`Object::integer`], for counts that Marathon keeps in 32 bits.
    pub(super) fn count(&self, name: &str, f: &mut Findings) -> Option<u32> {
        self.integer(name, 0, INT, f).and_then(|count| u32::try_from(count).ok())
    }

    pub(super) fn word<W: Word>(&self, name: &str, f: &mut Findings) -> Option<W> {
        self.as_word(name, self.get(name)?, f)
    }

    pub(super) fn required_word<W: Word>(&self, name: &str, f: &mut Findings) -> Option<W> {
        let value = self.required(name, f)?;
        self.as_word(name, value, f)
    }

    fn as_word<W: Word>(&self, name: &str, value: &Value, f: &mut Findings) -> Option<W> {
        let all = || W::WORDS.iter().map(|(_, word)| *word).collect::<Vec<_>>().join(", ");
        let Value::String(text) = value else {
            f.structure(self.at(name), "error.expected.jsstring", format!("must be one of {}", all()));
            return None;
        };
        let word = W::from_word(text);
        if word.is_none() {
            f.structure(self.at(name), "error.unknown.enum.literal", format!("must be one of {}", all()));
        }
        word
    }

    /// The items of an array with their paths; an absent one has none.
    pub(super) fn items(&self, name: &str, f: &mut Findings) -> impl Iterator<Item = (String, &'v Value)> + use<'v> {
        let at = self.at(name);
        let items = match self.get(name) {
            None => [].as_slice(),
            Some(Value::Array(items)) => items.as_slice(),
            Some(_) => {
                f.structure(at.clone(), "error.expected.jsarray", "must be an array");
                [].as_slice()
            }
        };
        items.iter().enumerate().map(move |(index, item)| (format!("{at}({index})"), item))
    }

    pub(super) fn texts(&self, name: &str, f: &mut Findings) -> Vec<String> {
        // A broken item keeps its place, so that the paths of rules stay right.
        self.items(name, f).map(|(path, item)| text(item, || path.clone(), Text::Free, f).unwrap_or_default()).collect()
    }

    /// The members of an object that is a map; an absent one has none.
    pub(super) fn entries(&self, name: &str, f: &mut Findings) -> impl Iterator<Item = (String, &'v str, &'v Value)> + use<'v> {
        let at = self.at(name);
        let map = match self.get(name) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                f.structure(at.clone(), "error.expected.jsobject", "must be an object");
                None
            }
        };
        map.into_iter().flatten().map(move |(key, value)| (join(&at, key), key.as_str(), value))
    }

    /// A map from text to text.
    pub(super) fn labels(&self, name: &str, f: &mut Findings) -> BTreeMap<String, String> {
        self.entries(name, f)
            .filter_map(|(path, key, value)| {
                has_nul(key, || path.clone(), f);
                text(value, || path.clone(), Text::Free, f).map(|value| (key.to_owned(), value))
            })
            .collect()
    }
}

/// A text within bounds.
pub(super) fn text(value: &Value, at: impl Fn() -> String, bounds: Text, f: &mut Findings) -> Option<String> {
    let Value::String(text) = value else {
        f.structure(at(), "error.expected.jsstring", "must be a string");
        return None;
    };
    let (min, max) = match bounds {
        Text::Free => (0, usize::MAX),
        Text::NonEmpty => (1, usize::MAX),
        Text::Path => (1, 1024),
        Text::Name | Text::NetworkName => (1, 63),
    };
    let mut sound = !has_nul(text, &at, f);
    // Characters as Marathon counts them: in UTF-16.
    let length = text.encode_utf16().count();
    if length < min {
        f.structure(at(), "error.minLength", "must not be empty");
        return None;
    }
    if length > max {
        f.structure(at(), "error.maxLength", format!("must have at most {max} characters"));
        sound = false;
    }
    let matches = match bounds {
        Text::Name => is_name(text, ""),
        Text::NetworkName => is_name(text, "_"),
        Text::Free | Text::NonEmpty | Text::Path => true,
    };
    if !matches {
        f.structure(at(), "error.pattern", "must consist of lower-case letters, digits and inner dashes");
        sound = false;
    }
    sound.then(|| text.clone())
}

/// No path, variable or command can carry a NUL to where it is used.
pub(super) fn has_nul(text: &str, at: impl Fn() -> String, f: &mut Findings) -> bool {
    let found = text.contains('\0');
    if found {
        f.structure(at(), "error.pattern", "must not contain a NUL character");
    }
    found
}

pub(super) fn number(value: &Value, at: impl Fn() -> String, min: f64, max: f64, f: &mut Findings) -> Option<f64> {
    let Some(number) = value.as_f64().filter(|number| number.is_finite()) else {
        f.structure(at(), "error.expected.jsnumber", "must be a number");
        return None;
    };
    if number < min {
        f.structure(at(), "error.min", format!("must be {min} or more"));
        return None;
    }
    if number > max {
        f.structure(at(), "error.max", format!("must be {max} or less"));
        return None;
    }
    Some(number)
}

fn is_name(text: &str, also_inside: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-' || also_inside.contains(c))
}

/// A value as compact JSON, cut where it gets long.
fn quote(value: &Value) -> String {
    cut(value.to_string())
}

/// A text cut to what a message can bear.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > MAX_QUOTE {
        let end = (0..=MAX_QUOTE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Fields that are often written one level too high or under another product's name, and where they belong.
const MISPLACED: &[(&str, &str)] = &[
    ("upgrade", "scheduling.upgrade"),
    ("upgradestrategy", "scheduling.upgrade"),
    ("placement", "scheduling.placement"),
    ("killselection", "scheduling.killSelection"),
    ("unreachablestrategy", "scheduling.unreachableStrategy"),
    ("inactiveafterseconds", "scheduling.unreachableStrategy.inactiveAfterSeconds"),
    ("expungeafterseconds", "scheduling.unreachableStrategy.expungeAfterSeconds"),
    ("backoff", "scheduling.backoff"),
    ("backofffactor", "scheduling.backoff.backoffFactor"),
    ("maxlaunchdelay", "scheduling.backoff.maxLaunchDelay"),
    ("constraints", "scheduling.placement.constraints"),
    ("acceptedresourceroles", "scheduling.placement.acceptedResourceRoles"),
    ("instances", "scaling.instances"),
    ("maxinstances", "scaling.maxInstances"),
    ("cpus", "containers[].resources.cpus"),
    ("mem", "containers[].resources.mem"),
    ("disk", "containers[].resources.disk"),
    ("gpus", "containers[].resources.gpus"),
    ("cmd", "containers[].exec.command.shell"),
    ("command", "containers[].exec.command"),
    ("env", "environment"),
    ("uris", "artifacts"),
    ("healthchecks", "healthCheck"),
    ("taskkillgraceperiodseconds", "lifecycle.killGracePeriodSeconds"),
];

/// What to say of an unknown field: the nearest known one of this object, or where the field belongs.
fn unknown(name: &str, known: &[&str]) -> String {
    let lower: String = name.chars().take(64).collect::<String>().to_lowercase();
    let shown: String = name.chars().take(64).collect();
    let nearest = known
        .iter()
        .map(|field| (distance(&lower, &field.to_lowercase()), *field))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, field)| *distance <= 2.max(field.len().min(lower.len()) / 3) && *distance < lower.len());
    let misplaced = MISPLACED.iter().find(|(word, _)| *word == lower).map(|(_, place)| *place);
    match (nearest, misplaced) {
        (Some((0 | 1, field)), _) | (Some((_, field)), None) => format!("unknown field '{shown}': did you mean '{field}'?"),
        (_, Some(place)) => format!("unknown field '{shown}': did you mean '{place}'?"),
        (None, None) => format!("unknown field '{shown}'; known here: {}", known.join(", ")),
    }
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (cells, y) in row.windows(2).zip(&b) {
            let [diagonal, above] = cells else { continue };
            let left = next.last().copied().unwrap_or(i + 1);
            next.push((diagonal + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
