//! Bearer tokens: a file of hashes, so that who reads it can call nothing.
//!
//! ```text
//! # name   hash            rights  below
//! ci       sha256:3f5a…    write   /team/web
//! ci       sha256:3f5a…    read    /
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use podium_types::id::PodId;
use ring::rand::{SecureRandom, SystemRandom};

use super::{Grant, digest_of, same};

/// What a token may do with the pods below its path. Who may write may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look.
    Read,
    /// Look and change.
    Write,
}

impl Right {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err("the right is `read` or `write`".to_owned()),
        }
    }
}

/// A token that was just drawn. It cannot be had again from its line.
pub struct NewToken {
    /// What its owner sends.
    pub secret: String,
    /// What goes into the server's file of tokens.
    pub line: String,
}

impl NewToken {
    /// Draws a token. `name` is for people, without white space; `prefix` is `/` or a pod's id.
    pub fn draw(name: &str, right: Right, prefix: &str) -> Result<Self, String> {
        check_name(name)?;
        let prefix = check_prefix(prefix)?;
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no randomness to give".to_owned())?;
        let secret = format!("podium-{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes));
        let hash = hex(&digest_of(secret.as_bytes()));
        Ok(Self { line: format!("{name} sha256:{hash} {} {prefix}", right.as_str()), secret })
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("line", &self.line).finish_non_exhaustive()
    }
}

/// All tokens of a file.
pub(super) struct Tokens {
    known: Vec<([u8; 32], Arc<[Grant]>)>,
}

impl Tokens {
    /// Reads the file; the error names the line.
    pub(super) fn read(texts: &[Vec<u8>]) -> Result<Self, String> {
        let text = texts.first().map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
        let mut grants: BTreeMap<[u8; 32], Vec<Grant>> = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (hash, grant) = grant(line).map_err(|reason| format!("line {}: {reason}", at + 1))?;
            grants.entry(hash).or_default().push(grant);
        }
        Ok(Self { known: grants.into_iter().map(|(hash, grants)| (hash, grants.into())).collect() })
    }

    /// What this token may do; every hash is compared, whichever fits.
    pub(super) fn grants(&self, secret: &str) -> Option<Arc<[Grant]>> {
        let given = digest_of(secret.as_bytes());
        let mut found = None;
        for (hash, grants) in &self.known {
            if same(hash, &given) {
                found = Some(grants.clone());
            }
        }
        found
    }
}

fn grant(line: &str) -> Result<([u8; 32], Grant), String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, hash, right, prefix] = fields[..] else {
        return Err("four fields are wanted: name, hash, right, path".to_owned());
    };
    check_name(name)?;
    let hash =
        hash.strip_prefix("sha256:").and_then(unhex).ok_or("the hash is `sha256:` and 64 hexadecimal digits; `podium token` makes it")?;
    Ok((hash, Grant { right: right.parse()?, prefix: check_prefix(prefix)? }))
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    match !name.is_empty() && name.len() <= 64 && name.chars().all(good) {
        true => Ok(()),
        false => Err("the name is made of letters, digits and `._-@`, at most 64".to_owned()),
    }
}

fn check_prefix(prefix: &str) -> Result<String, String> {
    if prefix == "/" {
        return Ok(prefix.to_owned());
    }
    if !prefix.starts_with('/') {
        return Err(format!("the path `{prefix}` must begin with a slash"));
    }
    PodId::new(prefix.trim_end_matches('/')).map(|id| id.to_string()).map_err(|error| format!("the path `{prefix}`: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Tokens, String> {
        Tokens::read(&[text.as_bytes().to_vec()])
    }

    #[test]
    fn a_new_token_is_known_by_its_line_and_not_printed() {
        let token = NewToken::draw("ci", Right::Write, "/team/").unwrap();
        assert!(token.line.ends_with(" write /team") && !token.line.contains(&token.secret));
        assert!(!format!("{token:?}").contains(&token.secret));
        let known = tokens(&format!("# mine\n\n{}\nci {} read /\n", token.line, token.line.split(' ').nth(1).unwrap())).unwrap();
        let grants = known.grants(&token.secret).unwrap();
        assert_eq!(grants.len(), 2, "two lines of one token add up");
        assert!(known.grants("podium-x").is_none() && known.grants("").is_none());
        assert_ne!(NewToken::draw("ci", Right::Write, "/").unwrap().secret, token.secret);
    }

    #[test]
    fn a_bad_line_is_named() {
        let hash = format!("sha256:{}", "a".repeat(64));
        for (line, reason) in [
            ("ci".to_owned(), "four fields"),
            (format!("ci {hash} admin /"), "`read` or `write`"),
            (format!("ci {hash} read team"), "slash"),
            (format!("ci {hash} read /Team"), "/Team"),
            (format!("c/i {hash} read /"), "name"),
            ("ci sha256:ab read /".to_owned(), "64"),
            (format!("ci {} read /", "a".repeat(64)), "sha256:"),
            (format!("ci sha256:+{} read /", "a".repeat(63)), "64"),
        ] {
            let error = tokens(&format!("# head\n{line}\n")).err().expect(&line);
            assert!(error.starts_with("line 2: ") && error.contains(reason), "{line}: {error}");
        }
        assert!(NewToken::draw("a b", Right::Read, "/").is_err());
    }
}
