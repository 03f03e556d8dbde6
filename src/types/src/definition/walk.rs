//! Walking through JSON: typed access to an object's members that records what is wrong, and where,
//! instead of stopping. Used by [`super::schema`] only.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::nearest::unknown;
use super::read::{Stage, Violation, Warning};
use super::schema::shape::{Absent, Kind, Member, Of, Shape, Text};
use super::words::Word;

/// More violations than this are cut off: a definition can be half a megabyte of mistakes.
const MAX_FINDINGS: usize = 256;
/// Objects that one list may hold: each costs many times its bytes.
pub const MAX_OBJECTS: usize = 1000;
/// Regular expressions that are compiled for one definition: each may cost a millisecond.
const MAX_PATTERNS: usize = 200;
/// How much of an object is quoted in a message, in bytes.
const MAX_QUOTE: usize = 1024;
/// Beyond this, Marathon reads a whole number into 64 bits and says so.
const INT: i64 = i32::MAX as i64;

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

/// What stands in for an object that is none, or that is absent and filled with defaults.
static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// What stands in for a member that no table has: that is a mistake of ours, and must not become one of our users'.
static UNKNOWN: Member =
    Member { name: "", of: Of::Text(Text::Free), absent: Absent::Nothing, answered: super::schema::shape::Answered::Never, about: "" };

/// A JSON object with its path, read by the table of its members.
///
/// The plain readers ([`Object::text`], [`Object::number`], …) give what the table says when a member is absent; the ones
/// named `maybe_` give nothing.
pub(super) struct Object<'v> {
    pub(super) path: String,
    map: &'v Map<String, Value>,
    shape: &'static Shape,
    /// It is no object, which has been complained of: that its members are missing is not said besides.
    hollow: bool,
}

/// The path of a member; the root's is empty.
fn join(path: &str, name: &str) -> String {
    format!("{path}/{name}")
}

impl<'v> Object<'v> {
    /// Opens a value, warning of members that the table does not have. What is no object reads as an empty one.
    pub(super) fn open(value: &'v Value, path: String, shape: &'static Shape, f: &mut Findings) -> Self {
        let Value::Object(map) = value else {
            let message = match shape.kind {
                Kind::Bounded => format!("{} is not an object", quote(value)),
                Kind::Plain => "error.expected.jsobject".to_owned(),
            };
            f.structure(path.as_str(), message, "must be an object");
            return Self::hollow(path, shape);
        };
        let room = MAX_FINDINGS.saturating_sub(f.warnings.len());
        for name in map.keys().filter(|name| shape.member(name).is_none()).take(room) {
            f.warn(join(&path, name), unknown(name, shape));
        }
        Self { path, map, shape, hollow: false }
    }

    fn hollow(path: String, shape: &'static Shape) -> Self {
        Self { path, map: &EMPTY, shape, hollow: true }
    }

    /// Whether the value is an object at all.
    pub(super) fn is_whole(&self) -> bool {
        !self.hollow
    }

    /// The path of a member.
    pub(super) fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A member; `null` is as good as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn member(&self, name: &str) -> &'static Member {
        let member = self.shape.member(name);
        debug_assert!(member.is_some(), "{} has no member {name}", self.shape.name);
        member.unwrap_or(&UNKNOWN)
    }

    /// A member that is recorded as missing if the table says that it must be there.
    fn given(&self, name: &str, f: &mut Findings) -> Option<&'v Value> {
        let value = self.get(name);
        if value.is_none() && self.member(name).absent == Absent::Refused {
            self.missing(name, f);
        }
        value
    }

    /// Records that a member is missing.
    pub(super) fn missing(&self, name: &str, f: &mut Findings) {
        self.missing_since(name, if self.shape.kind == Kind::Plain { "is required" } else { "" }, f);
    }

    /// Records that a member is missing, and in words why it would be needed.
    pub(super) fn missing_since(&self, name: &str, hint: &str, f: &mut Findings) {
        if self.hollow {
            return;
        }
        let message = match self.shape.kind {
            Kind::Bounded => format!("'{name}' is undefined on object: {}", quote_map(self.map)),
            Kind::Plain => "error.path.missing".to_owned(),
        };
        f.structure(self.at(name), message, hint);
    }

    /// The object under a member, if there is one.
    pub(super) fn object(&self, name: &str, f: &mut Findings) -> Option<Self> {
        let value = self.given(name, f)?;
        let object = Object::open(value, self.at(name), self.shape_of(name)?, f);
        object.is_whole().then_some(object)
    }

    /// The object under a member; an empty one if there is none.
    pub(super) fn filled(&self, name: &str, f: &mut Findings) -> Self {
        let shape = self.shape_of(name).unwrap_or(self.shape);
        match self.given(name, f) {
            Some(value) => Object::open(value, self.at(name), shape, f),
            None => Self::hollow(self.at(name), shape),
        }
    }

    /// The table of the object, or of the items, that a member holds.
    fn shape_of(&self, name: &str) -> Option<&'static Shape> {
        let member = self.member(name);
        let shape = shape_in(&member.of);
        debug_assert!(shape.is_some(), "{name} holds no object");
        shape
    }

    /// Each object of an array.
    pub(super) fn each<T>(&self, name: &str, f: &mut Findings, read: impl Fn(Object<'v>, &mut Findings) -> T) -> Vec<T> {
        let Some(shape) = self.shape_of(name) else { return Vec::new() };
        if self.get(name).and_then(Value::as_array).is_some_and(|items| items.len() > MAX_OBJECTS) {
            f.structure(self.at(name), "error.maxLength", format!("must have at most {MAX_OBJECTS} items"));
        }
        self.items(name, f).take(MAX_OBJECTS).map(|(path, item)| read(Object::open(item, path, shape, f), f)).collect()
    }

    /// Each object of a map, by its name.
    pub(super) fn each_entry<T>(&self, name: &str, f: &mut Findings, read: impl Fn(Object<'v>, &mut Findings) -> T) -> BTreeMap<String, T> {
        let Some(shape) = self.shape_of(name) else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        for (path, key, value) in self.entries(name, f) {
            has_nul(key, || path.clone(), f);
            let object = Object::open(value, path, shape, f);
            if object.is_whole() {
                all.insert(key.to_owned(), read(object, f));
            }
        }
        all
    }

    pub(super) fn maybe_text(&self, name: &str, f: &mut Findings) -> Option<String> {
        let bounds = match self.member(name).of {
            Of::Text(bounds) => bounds,
            _ => Text::Free,
        };
        self.text_within(name, bounds, f)
    }

    /// A text whose bounds depend on its neighbours.
    pub(super) fn text_within(&self, name: &str, bounds: Text, f: &mut Findings) -> Option<String> {
        text(self.given(name, f)?, || self.at(name), bounds, f)
    }

    pub(super) fn text(&self, name: &str, f: &mut Findings) -> String {
        self.maybe_text(name, f).unwrap_or_default()
    }

    pub(super) fn maybe_flag(&self, name: &str, f: &mut Findings) -> Option<bool> {
        let flag = self.given(name, f)?.as_bool();
        if flag.is_none() {
            f.structure(self.at(name), "error.expected.jsboolean", "must be true or false");
        }
        flag
    }

    pub(super) fn flag(&self, name: &str, f: &mut Findings) -> bool {
        self.maybe_flag(name, f).unwrap_or(self.member(name).absent == Absent::Flag(true))
    }

    pub(super) fn maybe_number(&self, name: &str, f: &mut Findings) -> Option<f64> {
        let (min, max) = match self.member(name).of {
            Of::Number { min, max } => (min, max),
            _ => (f64::MIN, f64::MAX),
        };
        number(self.given(name, f)?, || self.at(name), min, max, f)
    }

    pub(super) fn number(&self, name: &str, f: &mut Findings) -> f64 {
        let absent = match self.member(name).absent {
            Absent::Number(number) => number,
            _ => 0.0,
        };
        self.maybe_number(name, f).unwrap_or(absent)
    }

    /// A whole number within the table's bounds, which must fit the type.
    pub(super) fn maybe_integer<T: TryFrom<i64>>(&self, name: &str, f: &mut Findings) -> Option<T> {
        let min = match self.member(name).of {
            Of::Integer { min, .. } => min,
            _ => i64::MIN,
        };
        self.integer_from(name, min, f).and_then(|whole| T::try_from(whole).ok())
    }

    pub(super) fn integer<T: TryFrom<i64> + Default>(&self, name: &str, f: &mut Findings) -> T {
        let given = self.maybe_integer(name, f);
        given.or_else(|| self.default_integer(name).and_then(|whole| T::try_from(whole).ok())).unwrap_or_default()
    }

    /// What the table says when a whole number is absent.
    pub(super) fn default_integer(&self, name: &str) -> Option<i64> {
        match self.member(name).absent {
            Absent::Integer(whole) => Some(whole),
            _ => None,
        }
    }

    /// A whole number whose lower bound is another than the table's: Marathon judges that one by a rule.
    pub(super) fn integer_from(&self, name: &str, min: i64, f: &mut Findings) -> Option<i64> {
        let max = match self.member(name).of {
            Of::Integer { max, .. } => max,
            _ => i64::MAX,
        };
        let Value::Number(number) = self.given(name, f)? else {
            f.structure(self.at(name), "error.expected.jsnumber", "must be a whole number");
            return None;
        };
        let whole = number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
            Some(float as i64)
        });
        match whole {
            Some(whole) if whole < min => f.structure(self.at(name), "error.min", format!("must be {min} or more")),
            // A bound that is that of Marathon's type itself is told as the type's.
            Some(whole) if whole > max && max != INT => f.structure(self.at(name), "error.max", format!("must be {max} or less")),
            Some(whole) if whole <= max => return Some(whole),
            _ if max > INT => f.structure(self.at(name), "error.expected.long", "must be a whole number"),
            _ => f.structure(self.at(name), "error.expected.int", format!("must be a whole number, {max} or less")),
        }
        None
    }

    pub(super) fn maybe_word<W: Word>(&self, name: &str, f: &mut Findings) -> Option<W> {
        word(self.given(name, f)?, || self.at(name), f)
    }

    /// A word; if it must be there and is not, any stands in for it.
    pub(super) fn word<W: Word>(&self, name: &str, absent: W, f: &mut Findings) -> W {
        let default = match self.member(name).absent {
            Absent::Word(word) => W::from_word(word),
            _ => None,
        };
        self.maybe_word(name, f).or(default).unwrap_or(absent)
    }

    /// The items of an array with their paths; an absent one has none.
    pub(super) fn items(&self, name: &str, f: &mut Findings) -> impl Iterator<Item = (String, &'v Value)> + use<'v> {
        let at = self.at(name);
        let items = match self.given(name, f) {
            None => [].as_slice(),
            Some(Value::Array(items)) => items.as_slice(),
            Some(_) => {
                f.structure(at.clone(), "error.expected.jsarray", "must be an array");
                [].as_slice()
            }
        };
        if let Of::List { min, .. } = self.member(name).of
            && self.get(name).is_some_and(Value::is_array)
            && items.len() < min
        {
            f.structure(at.clone(), "error.minLength", format!("must have {min} item{} at least", if min == 1 { "" } else { "s" }));
        }
        items.iter().enumerate().map(move |(index, item)| (format!("{at}({index})"), item))
    }

    pub(super) fn texts(&self, name: &str, f: &mut Findings) -> Vec<String> {
        // A broken item keeps its place, so that the paths of rules stay right.
        self.items(name, f).map(|(path, item)| text(item, || path.clone(), Text::Free, f).unwrap_or_default()).collect()
    }

    /// The members of an object that is a map; an absent one has none.
    pub(super) fn entries(&self, name: &str, f: &mut Findings) -> impl Iterator<Item = (String, &'v str, &'v Value)> + use<'v> {
        let at = self.at(name);
        let map = match self.given(name, f) {
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

/// The table of the object that stands in a value, in its items or among its forms.
fn shape_in(of: &Of) -> Option<&'static Shape> {
    match of {
        Of::Object(shape) => Some(shape),
        Of::List { of, .. } | Of::Map { of, .. } => shape_in(of),
        Of::Either(forms) => forms.iter().find_map(shape_in),
        Of::Text(_) | Of::Flag | Of::Number { .. } | Of::Integer { .. } | Of::Word(_) => None,
    }
}

/// A word of an enum, whatever its case.
pub(super) fn word<W: Word>(value: &Value, at: impl Fn() -> String, f: &mut Findings) -> Option<W> {
    let all = || format!("must be one of {}", W::NAMES.join(", "));
    let Value::String(text) = value else {
        f.structure(at(), "error.expected.jsstring", all());
        return None;
    };
    let word = W::from_word(text);
    if word.is_none() {
        f.structure(at(), "error.unknown.enum.literal", all());
    }
    word
}

/// A text within bounds.
pub(super) fn text(value: &Value, at: impl Fn() -> String, bounds: Text, f: &mut Findings) -> Option<String> {
    let Value::String(text) = value else {
        f.structure(at(), "error.expected.jsstring", "must be a string");
        return None;
    };
    let (min, max) = bounds.length();
    let mut sound = !has_nul(text, &at, f);
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
        // Of ids and times the reader knows better what to say.
        Text::Free | Text::NonEmpty | Text::Path | Text::PodId | Text::Time => true,
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

fn quote_map(map: &Map<String, Value>) -> String {
    // A map of JSON has text for keys and cannot fail to be written.
    cut(serde_json::to_string(map).unwrap_or_default())
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
