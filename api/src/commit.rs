//! How the API writes: plans on what this process sees, commits, and plans again when somebody else was faster.
//!
//! Promises: what is confirmed is durable, and seen by this process' reads; what the store did not answer for is never
//! repeated; others' writes are met a bounded number of times.

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use podium_store::index::IndexState;
use podium_store::writer::{Group, Outcome};
use serde_json::Value;

use crate::Api;
use crate::answer::Problem;
use crate::request::Head;

/// Others may write the same between our look and our write; so often is it tried again.
const ATTEMPTS: usize = 8;
/// How long the index gets to show what a write ran into, when the store cannot say at which revision.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// What became of a write.
pub enum Written<T> {
    /// The store holds it, as of this revision.
    Confirmed(i64, T),
    /// The store did not answer: it may still take effect.
    Unconfirmed(T),
}

/// Plans and writes. `plan` sees the index and the time in milliseconds; what it gives beside the group comes back with the
/// outcome. `what` is written, for the words of a refusal.
pub async fn write<T>(
    api: &Api,
    head: &Head,
    what: &impl Display,
    plan: impl Fn(&IndexState, i64) -> Result<(Group, T), Problem>,
) -> Result<Written<T>, Problem> {
    let mut seen = api.caught_up(head.min_revision()?).await?.revision;
    for _ in 0..ATTEMPTS {
        let now = jiff::Timestamp::now().as_millisecond();
        let (group, planned) = api.index.read(|state| {
            seen = state.revision();
            plan(state, now)
        })?;
        match api.store.commit(group).await {
            // Revision 0: there was nothing to change, and what we saw was still so.
            Outcome::Committed { revision } => {
                let revision = revision.max(seen);
                seen_here(api, revision).await;
                return Ok(Written::Confirmed(revision, planned));
            }
            Outcome::Conflict { revision } => catch_up_with_conflict(api, seen, revision).await,
            Outcome::Unknown { .. } => return Ok(Written::Unconfirmed(planned)),
            Outcome::Refused(reason) => {
                let message = format!("nothing was changed: the store refuses the write: {reason}");
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message));
            }
            Outcome::NotLeader => return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a write without an election lost one")),
        }
    }
    let message = format!("nothing was changed: others changed {what} {ATTEMPTS} times meanwhile; try again");
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, HeaderValue::from_static("1")))
}

impl<T> Written<T> {
    /// The revision of a write that the store confirmed, or the refusal of one that it did not.
    pub fn confirmed(self, what: &impl Display) -> Result<(i64, T), Problem> {
        match self {
            Self::Confirmed(revision, planned) => Ok((revision, planned)),
            Self::Unconfirmed(_) => Err(unconfirmed(what, Value::Null)),
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
    problem.with(RETRY_AFTER, HeaderValue::from_static("1"))
}

/// Waits until the index shows the write. It is durable by now: when the index lags, the answer says so by its revision.
pub async fn seen_here(api: &Api, revision: i64) {
    if let Err(behind) = api.index.wait_for(revision, api.catch_up).await {
        tracing::warn!(%behind, "a write is answered before this process has seen it");
    }
}

/// Lets the index come to see what the write ran into.
async fn catch_up_with_conflict(api: &Api, seen: i64, revision: i64) {
    let (wanted, patience) = if revision > seen { (revision, api.catch_up) } else { (seen + 1, CONFLICT_PAUSE) };
    // If it stays behind, the next attempt conflicts again, and their number is bounded.
    let _ = api.index.wait_for(wanted, patience).await;
}
