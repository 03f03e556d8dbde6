//! Marathon's one pair of user and password.

use std::fmt;

use super::{digest_of, same};

/// A user's name with its password. Only a hash is kept, and nothing is printed.
#[derive(Clone)]
pub struct Password {
    hash: [u8; 32],
}

impl Password {
    /// Reads `user:password`; `None` if one of them is missing. What follows the first colon is the password.
    pub fn parse(pair: &str) -> Option<Self> {
        let (user, password) = pair.split_once(':')?;
        (!user.is_empty() && !password.is_empty()).then(|| Self { hash: digest_of(pair.as_bytes()) })
    }

    /// Whether this is the pair, in constant time.
    pub(super) fn is(&self, pair: &[u8]) -> bool {
        same(&self.hash, &digest_of(pair))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Reads a file of one line.
pub(super) fn read(texts: &[Vec<u8>]) -> Result<Password, String> {
    let text = texts.first().map(|text| String::from_utf8_lossy(text)).unwrap_or_default();
    let line = text.trim_end_matches(['\r', '\n']);
    let is_one = !line.contains(['\r', '\n']);
    Password::parse(line).filter(|_| is_one).ok_or_else(|| "it should hold one line `user:password`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_needs_both_and_prints_neither() {
        let password = Password::parse("me:se:cret").unwrap();
        assert!(password.is(b"me:se:cret") && !password.is(b"me:se") && !password.is(b""));
        assert_eq!(format!("{password:?}"), "Password(…)");
        for bad in ["", "me", "me:", ":secret"] {
            assert!(Password::parse(bad).is_none(), "{bad}");
        }
        assert!(read(&[b"me:secret\n".to_vec()]).unwrap().is(b"me:secret"));
        assert!(read(&[b"me:secret\nyou:secret\n".to_vec()]).is_err());
        assert!(!read(&[b"hunter2\n".to_vec()]).unwrap_err().contains("hunter2"));
    }
}
