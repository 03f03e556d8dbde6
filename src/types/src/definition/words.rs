//! The canonical spelling of every enum. Input is matched whatever its case (reference section 1.2).

use super::{HttpScheme, ImageKind, IpcMode, KillSelection, NetworkMode, Operator, PersistentKind};

/// An enum that is written as one word.
pub(super) trait Word: Copy + 'static {
    /// Every value with its canonical spelling.
    const WORDS: &'static [(Self, &'static str)];
    /// The spellings alone.
    const NAMES: &'static [&'static str];

    /// The value that a text means, whatever its case.
    fn from_word(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, word)| word.eq_ignore_ascii_case(text)).map(|(value, _)| *value)
    }
}

macro_rules! words {
    ($($kind:ident { $($value:ident = $word:literal),+ $(,)? })+) => {$(
        impl Word for $kind {
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$value, $word)),+];
            const NAMES: &'static [&'static str] = &[$($word),+];
        }
        impl $kind {
            /// The canonical spelling.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word),+ }
            }
        }
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )+};
}

words! {
    ImageKind { Docker = "DOCKER", Appc = "APPC" }
    HttpScheme { Http = "HTTP", Https = "HTTPS" }
    PersistentKind { Root = "root", Path = "path", Mount = "mount" }
    NetworkMode { Container = "container", Bridge = "container/bridge", Host = "host" }
    Operator {
        Unique = "UNIQUE", Cluster = "CLUSTER", GroupBy = "GROUP_BY", Like = "LIKE", Unlike = "UNLIKE",
        MaxPer = "MAX_PER", Is = "IS",
    }
    KillSelection { YoungestFirst = "YOUNGEST_FIRST", OldestFirst = "OLDEST_FIRST" }
    IpcMode { Private = "PRIVATE", ShareParent = "SHARE_PARENT" }
}
