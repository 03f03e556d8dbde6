//! How the API writes: plans on what this process sees, commits, and plans again when somebody else was faster.
//!
//! Promises: what is confirmed is durable, and no later read of this process is older; what the store did not answer for is
//! never repeated; others' writes are met a bounded number of times, in bounded time.

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use podium_store::index::{IndexState, Position};
use podium_store::writer::{Group, Outcome};
use serde_json::Value;
use tokio::time::Instant;

use crate::Api;
use crate::answer::Problem;
use crate::request::Head;

/// Others may write the same between our look and our write; so often is it tried again.
const ATTEMPTS: usize = 8;
/// What a refusal begins with when nothing of the request has happened.
const UNCHANGED: &str = "nothing was changed: ";
/// How long the index gets to show what a write ran into, when the store cannot say at which revision.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// What became of a write.
pub enum Written<T> {
    /// The store holds it, as of this revision.
    Confirmed(i64, T),
    /// The store did not answer: it may still take effect. Planned on what the index showed then.
    Unconfirmed(Position, T),
}

/// Plans and writes. `plan` sees the index and the time in milliseconds; what it gives beside the group comes back with the
/// outcome. `what` is written, for the words of a refusal.
pub async fn write<T>(
    api: &Api,
    head: &Head,
    what: &impl Display,
    plan: impl Fn(&IndexState, i64) -> Result<(Group, T), Problem>,
) -> Result<Written<T>, Problem> {
    let deadline = Instant::now() + api.write_patience;
    let mut seen = api.caught_up(head.min_revision()?).await?;
    for _ in 0..ATTEMPTS {
        let now = jiff::Timestamp::now().as_millisecond();
        let (group, planned) = api.index.read(|state| {
            seen = state.position();
            plan(state, now)
        })?;
        match api.store.commit(group).await {
            // Revision 0: there was nothing to change, and what we saw was still so.
            Outcome::Committed { revision } => {
                let revision = revision.max(seen.revision);
                api.written(Position { revision, ..seen }).await;
                return Ok(Written::Confirmed(revision, planned));
            }
            Outcome::Conflict { revision } => catch_up_with_conflict(api, seen.revision, revision).await,
            Outcome::Unknown { .. } => return Ok(Written::Unconfirmed(seen, planned)),
            Outcome::Refused(reason) => return Err(unchanged(&format!("the store refuses the write: {reason}"))),
            Outcome::NotLeader => return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a write without an election lost one")),
        }
        // Only ever before a commit: one that was sent is waited for.
        if Instant::now() >= deadline {
            return Err(unchanged(&format!("others changed {what} meanwhile, and this server sees it too late; try again")).soon());
        }
    }
    Err(unchanged(&format!("others changed {what} {ATTEMPTS} times meanwhile; try again")).soon())
}

fn unchanged(why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{UNCHANGED}{why}"))
}

/// The same failure of a request that comes in several writes and has made some before: `done` says which, and so do `details`.
/// Repeating the request is no longer the thing to do.
pub fn partly(mut problem: Problem, done: &str, details: Value) -> Problem {
    let message = problem.body.get("message").and_then(Value::as_str).unwrap_or_default();
    let message = format!("{done}; the rest failed: {}", message.strip_prefix(UNCHANGED).unwrap_or(message));
    problem.body = serde_json::json!({ "message": message, "details": details });
    problem.headers.retain(|(name, _)| *name != RETRY_AFTER);
    problem
}

impl<T> Written<T> {
    /// The revision of a write that the store confirmed, or the refusal of one that it did not.
    pub fn confirmed(self, what: &impl Display) -> Result<(i64, T), Problem> {
        match self {
            Self::Confirmed(revision, planned) => Ok((revision, planned)),
            Self::Unconfirmed(..) => Err(unconfirmed(what, Value::Null)),
        }
    }
}

/// What is answered when the store did not confirm a write; `details` tell by what to find out what became of it.
pub fn unconfirmed(what: &impl Display, details: Value) -> Problem {
    let message = format!("the store did not confirm the change of {what} in time: it may still take effect; look before you repeat it");
    let problem = match details {
        Value::Null => Problem::new(StatusCode::SERVICE_UNAVAILABLE, message),
        details => Problem::detailed(StatusCode::SERVICE_UNAVAILABLE, message, details),
    };
    problem.soon()
}

/// Lets the index come to see what the write ran into.
async fn catch_up_with_conflict(api: &Api, seen: i64, revision: i64) {
    let (wanted, patience) = if revision > seen { (revision, api.catch_up) } else { (seen + 1, CONFLICT_PAUSE) };
    // If it stays behind, the next attempt conflicts again, and their number is bounded.
    let _ = api.index.wait_for(wanted, patience).await;
}
