//! What the simulation waits for; one wheel for all agents.

use super::agent::Pair;

/// A task, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TaskKey {
    pub(super) agent: usize,
    pub(super) framework: String,
    pub(super) task: String,
}

/// What is due.
#[derive(Debug, Clone)]
pub(super) enum Due {
    /// A task moves on to this step of its life, if it is still before it.
    Step(TaskKey, Step),
    /// The head of a task's update stream was not acknowledged in time.
    Resend(TaskKey),
    /// An executor of a framework that was shut down has ended.
    Ended { agent: usize, executor: Pair },
    /// An agent's partition, or its recovery, is over.
    Return { agent: usize, absence: u64 },
}

/// Steps of a simulated life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The launch arrived.
    Launched,
    /// `TASK_STARTING` is sent.
    Starting,
    /// `TASK_RUNNING` is sent.
    Running,
    /// One more result of its health check, while running.
    Checked,
    /// It is being killed.
    Killing,
    /// It ends as its script says.
    Exits,
    /// It ends killed.
    Killed,
}
