//! Tasks that no record is about: what is left of earlier launches is killed, everything else is only shown.

use std::collections::BTreeMap;

use podium_proto::mesos::v1::TaskState;

use super::output::Call;
use super::state::UnknownTask;

/// Tasks that are shown at most; more are counted only in the log.
const MOST_SHOWN: usize = 1_000;

/// Between two kills of a task of which nothing is heard.
const KILL_AGAIN_MS: i64 = 30_000;

/// Tasks without a record.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Ours, superseded or buried; by task id: the agent, and when to kill it (again).
    condemned: BTreeMap<String, (Option<String>, i64)>,
    /// Not known to be ours.
    unknown: BTreeMap<String, UnknownTask>,
}

impl Strays {
    /// To be killed until it has ended.
    pub fn condemn(&mut self, task_id: &str, agent_id: Option<String>, now: i64) {
        self.unknown.remove(task_id);
        self.condemned.entry(task_id.to_owned()).or_insert((agent_id, now));
    }

    /// To be left alone, and shown.
    pub fn show(&mut self, task_id: &str, agent_id: Option<String>, state: TaskState, ahead: bool) {
        if !self.unknown.contains_key(task_id) {
            tracing::warn!(task_id, ahead, "a task runs of which the store knows nothing; it is left alone");
        }
        if self.unknown.len() < MOST_SHOWN || ahead {
            let task = UnknownTask { task_id: task_id.to_owned(), agent_id, state: state.as_str_name().to_owned(), ahead };
            self.unknown.insert(task_id.to_owned(), task);
        }
    }

    /// It has ended, or has a record now.
    pub fn forget(&mut self, task_id: &str) {
        self.condemned.remove(task_id);
        self.unknown.remove(task_id);
    }

    /// A record says what is to become of it.
    pub fn recognise(&mut self, task_id: &str) {
        self.unknown.remove(task_id);
    }

    pub fn unknown(&self) -> impl Iterator<Item = &UnknownTask> {
        self.unknown.values()
    }

    /// A task that a later state of this store has launched: while it runs, nothing may be killed.
    pub fn ahead(&self) -> Option<&UnknownTask> {
        self.unknown.values().find(|task| task.ahead)
    }

    /// Why nothing may be killed.
    pub fn quarantine(&self) -> Option<String> {
        let ahead = self.ahead()?;
        Some(format!("task {} was launched by a later state of this store: is this a restored backup? nothing is killed", ahead.task_id))
    }

    /// Kills that are due.
    pub fn due(&mut self, now: i64) -> Vec<Call> {
        let mut calls = Vec::new();
        for (task_id, (agent_id, next)) in &mut self.condemned {
            if *next <= now {
                *next = now.saturating_add(KILL_AGAIN_MS);
                calls.push(Call::Kill { task_id: task_id.clone(), agent_id: agent_id.clone() });
            }
        }
        calls
    }

    pub fn next_wake(&self) -> Option<i64> {
        self.condemned.values().map(|(_, next)| *next).min()
    }
}
