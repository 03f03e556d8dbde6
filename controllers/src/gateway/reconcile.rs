//! Asking Mesos about tasks: explicitly about all that have not ended, then implicitly; again for those of which
//! nothing was heard, ever more slowly; and all of it from time to time.

use std::collections::BTreeMap;

use super::core::Core;
use super::entry::Entry;
use super::output::Call;

/// Tasks in one call.
const PER_CALL: usize = 1_000;

/// Before the first repetition.
const FIRST_RETRY_MS: i64 = 15_000;

/// A round of questions.
#[derive(Debug, Default)]
pub(super) struct Reconciliation {
    /// Asked about and not heard of; by task id: the agent.
    unheard: BTreeMap<String, String>,
    retry_ms: i64,
    next_ms: Option<i64>,
    full_ms: i64,
}

impl Reconciliation {
    /// Begins a full round about these tasks.
    pub fn begin(&mut self, tasks: BTreeMap<String, String>, now: i64, period_ms: i64) -> Vec<Call> {
        self.unheard = tasks;
        self.retry_ms = FIRST_RETRY_MS;
        self.full_ms = now.saturating_add(period_ms);
        self.schedule(now);
        let mut calls = self.ask();
        calls.push(Call::Reconcile(Vec::new()));
        calls
    }

    /// Asks about these tasks out of turn; what is not answered is asked again with the rest.
    pub fn ask_about(&mut self, tasks: impl Iterator<Item = (String, String)>, now: i64) -> Vec<Call> {
        let tasks: BTreeMap<String, String> = tasks.collect();
        if tasks.is_empty() || self.next_ms.is_none() {
            return Vec::new();
        }
        let calls = questions(&tasks);
        self.unheard.extend(tasks);
        self.retry_ms = FIRST_RETRY_MS;
        self.schedule(now);
        calls
    }

    /// No subscription, no questions.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// Something was heard of this task.
    pub fn heard(&mut self, task_id: &str) {
        self.unheard.remove(task_id);
    }

    /// Whether a full round is due.
    pub fn is_full_due(&self, now: i64) -> bool {
        self.next_ms.is_some() && now >= self.full_ms
    }

    /// Repeats what was not answered.
    pub fn retry(&mut self, now: i64, period_ms: i64) -> Vec<Call> {
        if self.next_ms.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.retry_ms = self.retry_ms.saturating_mul(2).min(period_ms);
        self.schedule(now);
        self.ask()
    }

    pub fn next_wake(&self) -> Option<i64> {
        self.next_ms
    }

    fn schedule(&mut self, now: i64) {
        let retry = if self.unheard.is_empty() { self.full_ms } else { now.saturating_add(self.retry_ms) };
        self.next_ms = Some(retry.min(self.full_ms));
    }

    fn ask(&self) -> Vec<Call> {
        questions(&self.unheard)
    }
}

fn questions(tasks: &BTreeMap<String, String>) -> Vec<Call> {
    let tasks: Vec<(String, Option<String>)> = tasks.iter().map(|(task, agent)| (task.clone(), agent_id(agent))).collect();
    tasks.chunks(PER_CALL).map(|chunk| Call::Reconcile(chunk.to_vec())).collect()
}

impl Core {
    /// Mesos has lost an agent: what runs there is asked about.
    pub fn ask_about_agent(&mut self, agent_id: &str, now: i64) {
        let there = self.agents.get(agent_id).into_iter().flatten();
        let entries = there.filter_map(|(id, uuid)| self.pods.get(id)?.entries.get(uuid)).filter(|entry| entry.held_by.is_none());
        let tasks: Vec<String> = entries.flat_map(|entry| entry.alive().map(|task| task.task_id.clone())).collect();
        for call in self.reconciliation.ask_about(tasks.into_iter().map(|task| (task, agent_id.to_owned())), now) {
            self.call(call);
        }
    }
}

impl Entry {
    /// Asks about every task that has not ended, and no more for `confirm_ms`.
    pub fn ask(&mut self, now: i64, confirm_ms: i64) -> Option<Call> {
        self.ask_ms = now.saturating_add(confirm_ms);
        self.doubtful = false;
        let agent = self.observed.as_ref().and_then(|observed| agent_id(&observed.agent_id));
        let tasks: Vec<_> = self.alive().map(|task| (task.task_id.clone(), agent.clone())).collect();
        (!tasks.is_empty()).then_some(Call::Reconcile(tasks))
    }
}

/// An empty id is none.
pub(super) fn agent_id(id: &str) -> Option<String> {
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_heard_of_is_asked_about_again() {
        let mut round = Reconciliation::default();
        let tasks = [("a".to_owned(), "S1".to_owned()), ("b".to_owned(), String::new())].into();
        let asked = vec![("a".to_owned(), Some("S1".to_owned())), ("b".to_owned(), None)];
        assert_eq!(round.begin(tasks, 0, 600_000), [Call::Reconcile(asked), Call::Reconcile(Vec::new())]);
        round.heard("a");
        assert_eq!(round.retry(14_999, 600_000), []);
        assert_eq!(round.retry(15_000, 600_000), [Call::Reconcile(vec![("b".to_owned(), None)])]);
        assert_eq!(round.next_wake(), Some(45_000));
        round.heard("b");
        assert_eq!(round.retry(45_000, 600_000), []);
        assert_eq!((round.next_wake(), round.is_full_due(600_000)), (Some(600_000), true));
    }

    #[test]
    fn an_agents_tasks_are_asked_about_out_of_turn_and_again_until_they_are_heard_of() {
        let mut round = Reconciliation::default();
        assert_eq!(round.ask_about([("a".to_owned(), "S1".to_owned())].into_iter(), 0), []);
        round.begin(BTreeMap::new(), 0, 600_000);
        let asked = vec![("a".to_owned(), Some("S1".to_owned()))];
        assert_eq!(round.ask_about([("a".to_owned(), "S1".to_owned())].into_iter(), 100_000), [Call::Reconcile(asked.clone())]);
        assert_eq!(round.retry(115_000, 600_000), [Call::Reconcile(asked)]);
        round.heard("a");
        assert_eq!(round.retry(145_000, 600_000), []);
    }

    #[test]
    fn many_tasks_are_asked_about_in_several_calls() {
        let mut round = Reconciliation::default();
        let tasks = (0..2_500).map(|n| (format!("t{n}"), "S1".to_owned())).collect();
        let sizes: Vec<usize> =
            round.begin(tasks, 0, 600_000).iter().map(|call| if let Call::Reconcile(tasks) = call { tasks.len() } else { 0 }).collect();
        assert_eq!(sizes, [1_000, 1_000, 500, 0]);
    }
}
