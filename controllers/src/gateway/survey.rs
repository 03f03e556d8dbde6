//! Asking the master which tasks run, with their labels: the scheduler API never shows labels, the operator API does.
//!
//! Asked at each subscription before anything is launched, killed or reconciled, so that a store that is not the one
//! that launched what runs is known as such before anybody acts by it; and again when a task without a record shows up.
//! Until the first answer nothing is launched, and until the first good one nothing is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use podium_mesos::operator::Operator;
use podium_proto::mesos::v1::Task;

/// Between two rounds, at least.
const PAUSE_MS: i64 = 1_000;

/// Between two rounds that brought no answer, at most.
const LONGEST_PAUSE_MS: i64 = 30_000;

/// For the whole of one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the questions stand.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Which round is under way; answers to earlier ones are void.
    round: u64,
    in_flight: bool,
    /// Tasks of which something was heard since the question was sent: that is newer than the answer.
    heard: BTreeSet<String>,
    due_ms: Option<i64>,
    pause_ms: i64,
    /// This subscription's first question was answered, or was not answered in time.
    pub tried: bool,
    /// This subscription had a good answer.
    pub done: bool,
    /// Why the last question brought none.
    pub failure: Option<String>,
}

impl Survey {
    /// A new subscription: everything is open again.
    pub fn begin(&mut self, now: i64) {
        *self = Self { round: self.round, due_ms: Some(now), ..Self::default() };
    }

    /// The subscription is over.
    pub fn stop(&mut self) {
        *self = Self { round: self.round + 1, ..Self::default() };
    }

    /// Asks soon.
    pub fn want(&mut self, now: i64) {
        if self.due_ms.is_none() && !self.in_flight {
            self.due_ms = Some(now.saturating_add(PAUSE_MS));
        }
    }

    /// The round to ask in, if it is time to.
    pub fn due(&mut self, now: i64) -> Option<u64> {
        if self.in_flight || self.due_ms.is_none_or(|due| due > now) {
            return None;
        }
        self.due_ms = None;
        self.in_flight = true;
        self.heard.clear();
        self.round += 1;
        Some(self.round)
    }

    pub fn next_wake(&self) -> Option<i64> {
        self.due_ms
    }

    /// Something was heard of this task.
    pub fn heard(&mut self, task_id: &str) {
        if self.in_flight {
            self.heard.insert(task_id.to_owned());
        }
    }

    /// An answer: whether it is one to this round, and then the tasks about which something newer is known.
    pub fn answered(&mut self, round: u64, failure: Option<&str>, now: i64) -> Option<BTreeSet<String>> {
        if round != self.round || !self.in_flight {
            return None;
        }
        self.in_flight = false;
        self.tried = true;
        self.done |= failure.is_none();
        self.failure = failure.map(str::to_owned);
        if failure.is_some() {
            self.pause_ms = self.pause_ms.saturating_mul(2).clamp(PAUSE_MS, LONGEST_PAUSE_MS);
            self.due_ms = Some(now.saturating_add(self.pause_ms));
        } else {
            self.pause_ms = 0;
        }
        Some(std::mem::take(&mut self.heard))
    }
}

/// Asks for the tasks of our framework.
pub(super) async fn ask(operator: Operator, framework_id: String) -> Result<Vec<Task>, String> {
    let tasks = match tokio::time::timeout(PATIENCE, operator.tasks()).await {
        Ok(tasks) => tasks.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no whole answer to GET_TASKS within {} s", PATIENCE.as_secs())),
    };
    Ok(tasks.into_iter().filter(|task| task.framework_id.value == framework_id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_an_earlier_round_is_void_and_a_failure_is_tried_again_ever_later() {
        let mut survey = Survey::default();
        survey.begin(0);
        let first = survey.due(0).unwrap();
        assert_eq!(survey.due(0), None, "one at a time");
        survey.heard("t");
        survey.begin(5);
        assert_eq!(survey.answered(first, None, 5), None);
        let second = survey.due(5).unwrap();
        assert_eq!(survey.answered(second, Some("away"), 5), Some(BTreeSet::new()));
        assert!(survey.tried && !survey.done);
        assert_eq!(survey.next_wake(), Some(1_005));
        let third = survey.due(1_005).unwrap();
        survey.answered(third, Some("away"), 2_000);
        assert_eq!(survey.next_wake(), Some(4_000));
        let fourth = survey.due(4_000).unwrap();
        survey.heard("t");
        assert_eq!(survey.answered(fourth, None, 4_001), Some(["t".to_owned()].into()));
        assert!(survey.done && survey.failure.is_none() && survey.next_wake().is_none());
    }
}
