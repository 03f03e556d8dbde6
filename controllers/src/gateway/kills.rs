//! Kills of one instance: repeated ever more slowly until its tasks have ended, and at last of the whole executor.

use podium_types::definition::PodDefinition;

use super::entry::Entry;
use super::output::Call;
use super::reconcile::agent_id;

/// First pause between two kills of an instance; it doubles up to [`LONGEST_KILL_PAUSE_MS`].
const KILL_PAUSE_MS: i64 = 10_000;
const LONGEST_KILL_PAUSE_MS: i64 = 60_000;

/// An executor that outlives the longest grace of its containers by so much is ended as a whole.
const SHUTDOWN_AFTER_MS: i64 = 60_000;

impl Entry {
    /// A KILL for every task, back to back, so that each keeps its own grace; at last the end of the whole executor.
    pub fn kill_calls(&mut self, now: i64, grace_ms: i64) -> Vec<Call> {
        let Some(observed) = &self.observed else { return Vec::new() };
        let agent = agent_id(&observed.agent_id);
        let mut calls: Vec<Call> =
            self.killable().map(|task| Call::Kill { task_id: task.task_id.clone(), agent_id: agent.clone() }).collect();
        if self.kill.attempts == 0 {
            self.kill.since_ms = now;
        }
        if let Some(agent_id) = agent.filter(|_| now >= self.kill.since_ms.saturating_add(grace_ms).saturating_add(SHUTDOWN_AFTER_MS)) {
            calls.push(Call::Shutdown { executor_id: observed.executor_id.clone(), agent_id });
        }
        let pause = KILL_PAUSE_MS.saturating_mul(1 << self.kill.attempts.min(3)).min(LONGEST_KILL_PAUSE_MS);
        self.kill.attempts = self.kill.attempts.saturating_add(1);
        self.kill.next_ms = now.saturating_add(pause);
        calls
    }
}

pub(super) fn longest_grace_ms(definition: &PodDefinition) -> i64 {
    let graces = definition.containers.iter().filter_map(|container| container.lifecycle.as_ref()?.kill_grace_period_seconds);
    let longest = graces.fold(3.0, f64::max) * 1000.0;
    #[allow(clippy::cast_possible_truncation, reason = "clamped")]
    let longest = longest.clamp(0.0, 1e12) as i64;
    longest
}
