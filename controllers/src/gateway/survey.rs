//! Asking the master which tasks run, with their labels: the scheduler API never shows labels, the operator API does.
//!
//! Asked at each subscription before anything is launched, killed or reconciled, so that a store that is not the one
//! that launched what runs is known as such before anybody acts by it; and again when a task without a record shows up.
//! Until the first answer nothing is launched, and until the first good one nothing is killed.
//!
//! A master that has just begun to lead shows only tasks of agents that have come back to it. While it waits for some,
//! its answer is half of one: what it shows is taken in, it is asked again, and nothing is killed by a gateway that has
//! not seen a whole answer yet. One that has knows that this store launched what runs, and need not wait.

use std::collections::BTreeSet;
use std::time::Duration;

use podium_mesos::operator::{Operator, OperatorError};
use podium_proto::mesos::v1::Task;

/// Between two rounds, at least.
const PAUSE_MS: i64 = 1_000;

/// Between two rounds that brought no answer, at most.
const LONGEST_PAUSE_MS: i64 = 30_000;

/// For the whole of one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a master shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Our tasks that have not ended.
    pub tasks: Vec<Task>,
    /// Agents that the master knows of and that have not come back to it: of their tasks it knows nothing.
    pub away: usize,
}

/// Why it shows nothing.
#[derive(Debug)]
pub(super) struct Trouble {
    pub reason: String,
    /// Asking again soon is of no use, and costs much.
    pub lasting: bool,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self { reason, lasting: false }
    }
}

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
    /// Some subscription of this gateway had a whole answer.
    seen_whole: bool,
    /// Why the last question brought none, or half of one.
    pub failure: Option<String>,
}

impl Survey {
    /// A new subscription: everything is open again.
    pub fn begin(&mut self, now: i64) {
        *self = Self { round: self.round, seen_whole: self.seen_whole, due_ms: Some(now), ..Self::default() };
    }

    /// The subscription is over.
    pub fn stop(&mut self) {
        *self = Self { round: self.round + 1, seen_whole: self.seen_whole, ..Self::default() };
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
    pub fn answered(&mut self, round: u64, shown: Result<&Shown, &Trouble>, now: i64) -> Option<BTreeSet<String>> {
        if round != self.round || !self.in_flight {
            return None;
        }
        self.in_flight = false;
        self.tried = true;
        self.seen_whole |= shown.is_ok_and(|shown| shown.away == 0);
        self.done |= shown.is_ok() && self.seen_whole;
        let failure = match shown {
            Ok(Shown { away: 0, .. }) => None,
            Ok(Shown { away: 1, .. }) => Some("one agent has not come back to the new leading master yet".to_owned()),
            Ok(Shown { away, .. }) => Some(format!("{away} agents have not come back to the new leading master yet")),
            Err(trouble) => Some(trouble.reason.clone()),
        };
        // Half an answer is enough for one who knows the other half.
        self.failure = failure.clone().filter(|_| !self.done);
        if failure.is_some() {
            let least = if shown.is_err_and(|trouble| trouble.lasting) { LONGEST_PAUSE_MS } else { PAUSE_MS };
            self.pause_ms = self.pause_ms.saturating_mul(2).clamp(least, LONGEST_PAUSE_MS);
            self.due_ms = Some(now.saturating_add(self.pause_ms));
        } else {
            self.pause_ms = 0;
        }
        Some(std::mem::take(&mut self.heard))
    }
}

/// Asks for the tasks of our framework.
pub(super) async fn ask(operator: Operator, framework_id: String) -> Result<Shown, Trouble> {
    let both = async {
        // In this order: the tasks of an agent that is back by the first answer are in the second.
        let away = operator.agents_away().await?;
        Ok::<_, OperatorError>((away, operator.tasks(&framework_id).await?))
    };
    let (away, tasks) = match tokio::time::timeout(PATIENCE, both).await {
        Ok(answers) => answers.map_err(|error| Trouble { reason: error.to_string(), lasting: error.is_too_large() })?,
        Err(_) => return Err(format!("no whole answer to GET_AGENTS and GET_TASKS within {} s", PATIENCE.as_secs()).into()),
    };
    Ok(Shown { tasks, away })
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
        let (whole, away) = (Shown::default(), Trouble::from("away".to_owned()));
        assert_eq!(survey.answered(first, Ok(&whole), 5), None);
        let second = survey.due(5).unwrap();
        assert_eq!(survey.answered(second, Err(&away), 5), Some(BTreeSet::new()));
        assert!(survey.tried && !survey.done);
        assert_eq!(survey.next_wake(), Some(1_005));
        let third = survey.due(1_005).unwrap();
        survey.answered(third, Err(&away), 2_000);
        assert_eq!(survey.next_wake(), Some(4_000));
        let fourth = survey.due(4_000).unwrap();
        survey.heard("t");
        assert_eq!(survey.answered(fourth, Ok(&whole), 4_001), Some(["t".to_owned()].into()));
        assert!(survey.done && survey.failure.is_none() && survey.next_wake().is_none());
    }

    #[test]
    fn half_an_answer_is_enough_only_for_one_who_has_seen_a_whole_one_and_is_completed_in_any_case() {
        let mut survey = Survey::default();
        let (whole, half) = (Shown::default(), Shown { away: 2, ..Shown::default() });
        survey.begin(0);
        let round = survey.due(0).unwrap();
        survey.answered(round, Ok(&half), 0);
        assert!(survey.tried && !survey.done);
        assert!(survey.failure.as_ref().is_some_and(|text| text.contains("2 agents")), "{:?}", survey.failure);
        let round = survey.due(1_000).unwrap();
        survey.answered(round, Ok(&whole), 1_000);
        assert!(survey.done && survey.failure.is_none() && survey.next_wake().is_none());
        survey.stop();
        survey.begin(2_000);
        let round = survey.due(2_000).unwrap();
        survey.answered(round, Ok(&half), 2_000);
        assert!(survey.done && survey.failure.is_none());
        assert_eq!(survey.next_wake(), Some(3_000), "the other half is asked for all the same");
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_asked_for_again_soon() {
        let mut survey = Survey::default();
        survey.begin(0);
        let round = survey.due(0).unwrap();
        survey.answered(round, Err(&Trouble { reason: "large".to_owned(), lasting: true }), 0);
        assert_eq!(survey.next_wake(), Some(LONGEST_PAUSE_MS));
    }
}
