//! One task of the executor: its container, and how far it has come.

use std::time::Duration;

use podium_proto::mesos::v1::{DurationInfo, KillPolicy, TaskInfo, TaskState, task_status};
use rustix::process::{Pid, WaitStatus};
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

use super::{spawn::Program, status};

/// Mesos' grace between SIGTERM and SIGKILL, where nobody says otherwise.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(3);

/// Why a container is being killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The framework wants it, its health check does, or a sibling or the executor is ending.
    Wanted,
    /// It ran longer than its `max_completion_time`.
    TooLong,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    pub state: TaskState,
    pub message: String,
    pub reason: Option<task_status::Reason>,
}

/// How far a task has come.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Known, its process not started yet.
    Starting,
    Running {
        pid: Pid,
    },
    /// SIGTERM was sent; SIGKILL follows, and follows again.
    Killing {
        pid: Pid,
        cause: Cause,
        kill_at: Instant,
    },
    /// Its first process is gone; what that left behind is being killed.
    Sweeping {
        pid: Pid,
        ending: Ending,
        give_up: Instant,
    },
    Ended,
}

/// A program that is run beside a container, and waited for: a COMMAND health check, or what extracts an archive.
#[derive(Debug)]
pub(crate) struct Aside {
    pub pid: Pid,
    pub reply: oneshot::Sender<Result<i32, String>>,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub info: TaskInfo,
    /// Which group it came with.
    pub group: u64,
    /// Id of its container.
    pub container: String,
    pub phase: Phase,
    /// The agent has stored an update of it, and so knows that we have it.
    pub confirmed: bool,
    pub healthy: Option<bool>,
    /// When it must have ended by itself.
    pub complete_by: Option<Instant>,
    pub program: Option<Program>,
    pub checker: Option<AbortHandle>,
    pub probe: Option<Aside>,
    /// Why its latest probe could not be started: said once, and again when it changes.
    pub hindrance: Option<String>,
}

impl Task {
    pub fn new(info: TaskInfo, group: u64) -> Task {
        Task {
            info,
            group,
            container: uuid::Uuid::new_v4().to_string(),
            phase: Phase::Starting,
            confirmed: false,
            healthy: None,
            complete_by: None,
            program: None,
            checker: None,
            probe: None,
            hindrance: None,
        }
    }

    /// Its first process, while that is not known to have ended.
    pub fn pid(&self) -> Option<Pid> {
        match self.phase {
            Phase::Running { pid } | Phase::Killing { pid, .. } => Some(pid),
            Phase::Starting | Phase::Sweeping { .. } | Phase::Ended => None,
        }
    }

    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The time between SIGTERM and SIGKILL.
    pub fn grace(&self, policy: Option<&KillPolicy>) -> Duration {
        let given = policy.or(self.info.kill_policy.as_ref()).and_then(|policy| policy.grace_period.as_ref());
        given.map_or(DEFAULT_GRACE, duration)
    }

    /// What the end of its first process means.
    pub fn ending(&self, exit: WaitStatus) -> Ending {
        let message = status::ending(exit);
        let (state, reason) = match self.phase {
            Phase::Killing { cause: Cause::TooLong, .. } => (TaskState::TaskFailed, Some(task_status::Reason::MaxCompletionTimeReached)),
            Phase::Killing { .. } => (TaskState::TaskKilled, None),
            _ if exit.exit_status() == Some(0) => (TaskState::TaskFinished, None),
            _ => (TaskState::TaskFailed, None),
        };
        Ending { state, message, reason }
    }

    /// When something has to be done about it.
    pub fn deadline(&self) -> Option<Instant> {
        /// Between two looks at what a container left behind; its end is noticed by itself.
        const LOOK: Duration = Duration::from_millis(20);
        match &self.phase {
            Phase::Running { .. } => self.complete_by,
            Phase::Killing { kill_at, .. } => Some(*kill_at),
            Phase::Sweeping { give_up, .. } => Some((*give_up).min(Instant::now() + LOOK)),
            Phase::Starting | Phase::Ended => None,
        }
    }
}

/// Mesos' durations are signed; less than nothing is nothing.
pub(crate) fn duration(info: &DurationInfo) -> Duration {
    Duration::from_nanos(u64::try_from(info.nanoseconds).unwrap_or(0))
}
