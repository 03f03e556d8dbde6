//! Who may: a caller is known by a password or a token, and may read or write the pods below a path.
//!
//! Promises: secrets are compared in constant time and never printed; a file that changes is read again; a file that
//! breaks leaves in force what it said before, and the log says so.

mod credentials;
mod fresh;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use podium_types::id::PodId;
use ring::digest;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use crate::answer::Problem;

pub use credentials::Password;
pub(crate) use fresh::Fresh;
pub use tokens::{NewToken, Right};

use tokens::Tokens;

/// Who may call, as the operator wrote it.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// Marathon's one pair of user and password, which may do everything.
    pub password: Option<Password>,
    /// The same, from a file with one line `user:password`.
    pub credentials_file: Option<PathBuf>,
    /// Bearer tokens: see [`NewToken::line`].
    pub tokens_file: Option<PathBuf>,
}

impl AccessConfig {
    /// Whether it names nobody: then everyone may do everything.
    pub fn is_open(&self) -> bool {
        self.password.is_none() && self.credentials_file.is_none() && self.tokens_file.is_none()
    }
}

/// What the configuration cannot be used for.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct AccessError {
    /// Which file.
    pub file: String,
    /// What is wrong with it; without a word of its content.
    pub reason: String,
}

/// Decides who a caller is.
#[derive(Debug)]
pub(crate) struct Access {
    open: bool,
    password: Option<Password>,
    file: Option<Fresh<Password>>,
    tokens: Option<Fresh<Tokens>>,
}

/// Who calls, and what they may do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Caller {
    grants: Grants,
}

#[derive(Debug, Clone, PartialEq)]
enum Grants {
    Everything,
    Listed(Arc<[Grant]>),
}

/// A right to the pods below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    right: Right,
    /// `/` for all, else `/a/b` for that pod and those below it.
    prefix: String,
}

impl Grant {
    fn covers(&self, id: &str) -> bool {
        self.prefix == "/" || id.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Access {
    /// Reads the files.
    pub(crate) fn open(config: AccessConfig, look_again: Duration) -> Result<Self, AccessError> {
        let open = config.is_open();
        let file = config.credentials_file.map(|path| Fresh::open(vec![path], look_again, credentials::read)).transpose()?;
        let tokens = config.tokens_file.map(|path| Fresh::open(vec![path], look_again, Tokens::read)).transpose()?;
        Ok(Self { open, password: config.password, file, tokens })
    }

    /// Who sends these headers; a refusal when nobody is known by them.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.open {
            return Ok(Caller { grants: Grants::Everything });
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, secret) = given.split_once(' ').unwrap_or((given, ""));
        let secret = secret.trim();
        let grants = match scheme.to_ascii_lowercase().as_str() {
            "basic" => self.by_password(secret),
            "bearer" => self.tokens.as_ref().and_then(|tokens| tokens.get().grants(secret)).map(Grants::Listed),
            _ => None,
        };
        grants.map(|grants| Caller { grants }).ok_or_else(|| self.unknown(given.is_empty()))
    }

    /// Returns when these headers no longer tell of who they told of, with the same rights.
    pub(crate) async fn until_others(&self, headers: &HeaderMap, caller: &Caller) {
        let (mut file, mut tokens) = (self.file.as_ref().map(Fresh::changes), self.tokens.as_ref().map(Fresh::changes));
        while self.caller(headers).is_ok_and(|now| now == *caller) {
            tokio::select! {
                () = changed(&mut file) => {}
                () = changed(&mut tokens) => {}
            }
        }
    }

    fn by_password(&self, encoded: &str) -> Option<Grants> {
        let pair = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
        // Both are looked at whatever the first says: the time tells nothing.
        let known = self.password.as_ref().is_some_and(|password| password.is(&pair));
        let filed = self.file.as_ref().is_some_and(|file| file.get().is(&pair));
        (known | filed).then_some(Grants::Everything)
    }

    fn unknown(&self, silent: bool) -> Problem {
        let message = match silent {
            true => "Authentication required: send a password or a token",
            false => "Invalid username or password, or an unknown token.",
        };
        let mut problem = Problem::new(StatusCode::UNAUTHORIZED, message);
        if self.password.is_some() || self.file.is_some() {
            problem = problem.with(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Mesosphere\""));
        }
        if self.tokens.is_some() {
            problem = problem.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"podium\""));
        }
        problem
    }
}

/// Returns when the files were read again; never, where there are none.
async fn changed<T>(changes: &mut Option<watch::Receiver<Arc<T>>>) {
    let again = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !again {
        std::future::pending().await
    }
}

impl Caller {
    /// Who may do nothing but ask whether the server lives.
    pub(crate) fn nobody() -> Self {
        Self { grants: Grants::Listed([].into()) }
    }

    /// Whether a pod may be seen; listings leave out the others.
    pub(crate) fn may_read(&self, id: &PodId) -> bool {
        self.has(Right::Read, id.as_str())
    }

    /// Whether everything may be seen, what belongs to no pod included.
    pub(crate) fn may_read_all(&self) -> bool {
        self.has(Right::Read, "/")
    }

    /// Refuses who may not see a pod, whether it is there or not.
    pub(crate) fn demand_read(&self, id: &PodId) -> Result<(), Problem> {
        self.demand(Right::Read, id.as_str())
    }

    /// Refuses who may not change a pod.
    pub(crate) fn demand_write(&self, id: &PodId) -> Result<(), Problem> {
        self.demand(Right::Write, id.as_str())
    }

    /// Refuses who may change no pod whatever, before anything is done for them.
    pub(crate) fn demand_write_somewhere(&self) -> Result<(), Problem> {
        let somewhere = match &self.grants {
            Grants::Everything => true,
            Grants::Listed(grants) => grants.iter().any(|grant| grant.right >= Right::Write),
        };
        if somewhere { Ok(()) } else { Err(unauthorized()) }
    }

    fn has(&self, right: Right, id: &str) -> bool {
        match &self.grants {
            Grants::Everything => true,
            Grants::Listed(grants) => grants.iter().any(|grant| grant.right >= right && grant.covers(id)),
        }
    }

    fn demand(&self, right: Right, id: &str) -> Result<(), Problem> {
        match self.has(right, id) {
            true => Ok(()),
            false => Err(unauthorized()),
        }
    }
}

fn unauthorized() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Not Authorized to perform this action!")
}

/// What load balancers and supervisors ask, which have no password.
const OPEN: [&str; 3] = ["/ping", "/livez", "/readyz"];

/// What shows each caller only what that caller may see, by itself, with everything below it.
const FILTERED: [&str; 8] =
    ["/v2/openapi.json", "/v2/events", "/v2/groups", "/v2/info", "/v2/apps", "/v2/tasks", "/v2/plugins", "/v2/podium/refused"];

/// What judges changes as well by itself, by the pod that they are about.
const JUDGED: [&str; 3] = ["/v2/pods", "/v2/deployments", "/v2/queue"];

/// Whether a path answers callers that nobody knows.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN.contains(&path.trim_end_matches('/'))
}

/// Refuses a request that the handler of its path would not judge by itself: those of pods do. Whatever is not known to show
/// parts wants the right to the whole.
pub(crate) fn demand(caller: &Caller, method: &Method, path: &str) -> Result<(), Problem> {
    let path = path.trim_end_matches('/');
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let below = |root: &&str| path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match JUDGED.iter().any(below) || (reads && (OPEN.contains(&path) || FILTERED.iter().any(below))) {
        true => Ok(()),
        false => caller.demand(if reads { Right::Read } else { Right::Write }, "/"),
    }
}

/// What is kept of a secret: 256 bits from which it cannot be had back, as long as it was drawn at random.
fn digest_of(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
    hash
}

fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(grants: &[(Right, &str)]) -> Caller {
        let grants: Vec<Grant> = grants.iter().map(|(right, prefix)| Grant { right: *right, prefix: (*prefix).to_owned() }).collect();
        Caller { grants: Grants::Listed(grants.into()) }
    }

    fn id(id: &str) -> PodId {
        PodId::new(id).unwrap()
    }

    fn status(result: Result<(), Problem>) -> Option<u16> {
        result.err().map(|problem| problem.status.as_u16())
    }

    #[test]
    fn a_right_reaches_the_pods_below_its_path_and_no_sibling() {
        let team = caller(&[(Right::Read, "/team"), (Right::Write, "/team/web")]);
        assert!(team.may_read(&id("/team")) && team.may_read(&id("/team/x/y")) && team.may_read(&id("/team/web")));
        assert!(!team.may_read(&id("/teams")) && !team.may_read(&id("/other")) && !team.may_read_all());
        assert_eq!(status(team.demand_write(&id("/team/web/a"))), None);
        assert_eq!(status(team.demand_write(&id("/team/webs"))), Some(403));
        assert_eq!(status(team.demand_read(&id("/other"))), Some(403));
        assert!(caller(&[(Right::Write, "/")]).may_read_all());
        assert!(!Caller::nobody().may_read(&id("/team")));
    }

    #[test]
    fn what_no_handler_filters_wants_the_right_to_the_whole() {
        let part = caller(&[(Right::Write, "/team")]);
        let whole = caller(&[(Right::Read, "/")]);
        for path in ["/v2/pods", "/v2/pods/", "/v2/pods/::status", "/v2/deployments", "/v2/events/", "/ping"] {
            assert_eq!(status(demand(&part, &Method::GET, path)), None, "{path}");
        }
        for path in ["/metrics", "/v2/leader", "/v2/anything", "/v2/podsx", "/", ""] {
            assert_eq!(status(demand(&part, &Method::GET, path)), Some(403), "{path}");
            assert_eq!(status(demand(&whole, &Method::GET, path)), None, "{path}");
        }
        for path in ["/v2/leader", "/v2/events", "/v2/tasks/delete"] {
            assert_eq!(status(demand(&whole, &Method::DELETE, path)), Some(403), "{path}");
        }
    }
}
