//! The vocabulary of the tables in [`super::tables`]: what an object's members are, as data.
//!
//! One table has three readers: the reader of definitions takes types, bounds and defaults from it, the API makes its
//! OpenAPI document of it, and the reference page is written from it. So none of them can know a field that the others don't.

/// How Marathon words what is missing: types that carry bounds quote the object, plain ones do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `'name' is undefined on object: {…}`.
    Bounded,
    /// `error.path.missing`.
    Plain,
}

/// An object with named members.
#[derive(Debug)]
pub struct Shape {
    /// Its name in the API's document: `Endpoint`.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// How Marathon speaks of its members.
    pub kind: Kind,
    /// In the order in which they are answered.
    pub members: &'static [Member],
}

impl Shape {
    /// The member of a name.
    pub fn member(&self, name: &str) -> Option<&'static Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub of: Of,
    /// What its absence means.
    pub absent: Absent,
    /// When it stands in an answer.
    pub answered: Answered,
    /// What it is, in a sentence.
    pub about: &'static str,
}

/// What a member may hold.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// A string within bounds.
    Text(Text),
    /// `true` or `false`.
    Flag,
    /// A number, bounds included; `f64::MIN` and `f64::MAX` are no bounds.
    Number {
        /// At least this.
        min: f64,
        /// At most this.
        max: f64,
    },
    /// A whole number, bounds included.
    Integer {
        /// At least this.
        min: i64,
        /// At most this.
        max: i64,
    },
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// An object.
    Object(&'static Shape),
    /// An array.
    List {
        /// What each item is.
        of: &'static Of,
        /// So many items at least.
        min: usize,
    },
    /// An object whose members' names are free.
    Map {
        /// What a name may be.
        key: Key,
        /// What each member is.
        of: &'static Of,
    },
    /// One of several forms.
    Either(&'static [Of]),
}

/// The bounds of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
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
    /// The id of a pod.
    PodId,
    /// A time stamp: `2021-07-27T10:00:00.000Z`.
    Time,
}

impl Text {
    /// The fewest and the most characters, as Marathon counts them: in UTF-16.
    pub fn length(self) -> (usize, usize) {
        match self {
            Self::Free | Self::Time => (0, usize::MAX),
            Self::NonEmpty | Self::PodId => (1, usize::MAX),
            Self::Path => (1, 1024),
            Self::Name | Self::NetworkName => (1, 63),
        }
    }

    /// The regular expression that the whole text must match, if there is one.
    pub fn pattern(self) -> Option<&'static str> {
        match self {
            Self::Name => Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
            Self::NetworkName => Some("^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$"),
            Self::PodId => Some("^(/(([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])\\.)*([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]))+$"),
            Self::Free | Self::NonEmpty | Self::Path | Self::Time => None,
        }
    }
}

/// What the names in a map may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Anything.
    Free,
    /// A variable of the environment: [`VARIABLE`].
    Variable,
}

/// What a variable's name must match.
pub const VARIABLE: &str = "^[a-zA-Z_][a-zA-Z0-9_]{0,253}?$";

/// What it means that a member is absent, or `null`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Absent {
    /// The definition is refused.
    Refused,
    /// There is none: it is answered as `null`, `[]` or `{}`.
    Nothing,
    /// An object of its members' defaults.
    Filled,
    /// This number.
    Number(f64),
    /// This whole number.
    Integer(i64),
    /// This flag.
    Flag(bool),
    /// This word.
    Word(&'static str),
}

/// When a member stands in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Always: it is `null`, `[]` or `{}` if there is none.
    Always,
    /// When it was given.
    WhenGiven,
    /// Never: it is read over.
    Never,
}

/// A member that may be absent.
pub(super) const fn member(name: &'static str, of: Of, about: &'static str) -> Member {
    Member { name, of, absent: Absent::Nothing, answered: Answered::Always, about }
}

impl Member {
    pub(super) const fn required(self) -> Self {
        Self { absent: Absent::Refused, ..self }
    }

    /// What stands in for it when it is absent.
    pub(super) const fn or(self, absent: Absent) -> Self {
        Self { absent, ..self }
    }

    pub(super) const fn answered(self, answered: Answered) -> Self {
        Self { answered, ..self }
    }
}

/// A number that is bounded from below only.
pub(super) const fn at_least(min: f64) -> Of {
    Of::Number { min, max: f64::MAX }
}

/// Any number of items, as [`Of::List`].
pub(super) const fn list(of: &'static Of) -> Of {
    Of::List { of, min: 0 }
}

/// A map from any text to any text.
pub(super) const LABELS: Of = Of::Map { key: Key::Free, of: &Of::Text(Text::Free) };
