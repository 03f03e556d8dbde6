//! How pods are, for those who ask: [`status::pod_status`] answers the API, the [`Health`] controller keeps
//! `status/<pod id>` for people and pipelines ([`report`]).
//!
//! A deleted pod's goes with its last keys, which upgrade removes; that of a refused push with the push, here.
//! The key is written at once when something changes, then at most twice a second, and never while nothing changes:
//! its only time stamp, `updatedAt`, is that of the last change. A spec that can't be any pod's is answered too ([`strays`]).

pub mod report;
pub mod status;
mod strays;
mod words;

pub use words::quarantine;

use std::sync::Arc;

use bytes::Bytes;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use podium_store::{Key, Kind};
use serde_json::Value;

use crate::runtime::{Controller, Decision, Failure, Ids, Now, Term, drive};

/// The shortest time between two writes of one status, in milliseconds.
pub const PACE_MS: i64 = 500;

/// The controller.
#[derive(Debug, Default)]
pub struct Health;

/// One term: pods, and what is none.
pub async fn run(term: Term) -> Result<(), Failure> {
    tokio::select! {
        end = drive(Arc::new(Health), term.clone()) => end,
        end = strays::run(term) => end,
    }
}

/// What the status key should become.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// This JSON.
    Write(Bytes),
    /// Nothing: no pod, and no refused push, is there to tell of.
    Remove,
}

impl Controller for Health {
    type Intent = Intent;

    fn name(&self) -> &'static str {
        "health"
    }

    fn watches(&self) -> &'static [Kind] {
        use Kind::*;
        &[Spec, Accepted, Version, Verdict, Deployment, Instance, Observed, Reach, Delay, Queue, Unknown, Quarantine, Status]
    }

    fn decide(&self, view: &PodView, now: Now) -> Decision<Intent> {
        decide(view, now)
    }

    fn apply(&self, view: &PodView, intents: Vec<Intent>, _now: Now, _ids: &mut dyn Ids) -> Vec<Group> {
        let key = Key::Status(view.id.clone());
        let seen = Compare::as_seen(key.clone(), view.status.as_ref());
        // With the pod goes its status, by upgrade's hand: what was decided before must not come after.
        let there = Compare::as_seen(Key::Accepted(view.id.clone()), view.accepted.as_ref());
        intents
            .into_iter()
            .map(|intent| {
                let op = match intent {
                    Intent::Write(json) => Op::Put(key.clone(), json),
                    Intent::Remove => Op::Delete(key.clone()),
                };
                Group::new(view.id.clone()).when(seen.clone()).when(there.clone()).then(op)
            })
            .collect()
    }
}

/// What the status key should say, if it says something else, and when to look again. Pure.
pub fn decide(view: &PodView, now: Now) -> Decision<Intent> {
    let written = view.status.as_ref().and_then(|held| serde_json::from_slice::<Value>(&held.value).ok());
    let updated = written.as_ref().and_then(report::updated_ms);
    // Too early to write is also too early to look: a pod of many instances changes often while it starts.
    // A time stamp from the future is of a clock that was set back, and holds nothing up.
    if let Some(next) = updated.map(|updated| updated.saturating_add(PACE_MS)).filter(|next| (now.0 + 1..=now.0 + PACE_MS).contains(next)) {
        return Decision { intents: Vec::new(), wake: Some(next) };
    }
    let Some(report) = report::Report::of(view, now.0) else {
        let gone = view.status.is_some();
        return if gone { Decision::now(vec![Intent::Remove]) } else { Decision::nothing() };
    };
    let same = updated.is_some_and(|updated| written == Some(report.json(updated)));
    let intents = if same { Vec::new() } else { vec![Intent::Write(report.json(now.0).to_string().into())] };
    Decision { intents, wake: words::next_launch(view, now.0) }
}

#[cfg(test)]
mod tests;
