//! What an instance is: its condition, computed from the records and never stored.
//!
//! Rules: Marathon's (reference section 6.1), on Podium's records. `not launched yet` and `launched, nothing
//! heard` are told apart by the incarnation: an observation of an older incarnation says nothing about the present one.

use podium_proto::mesos::v1::TaskState;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::records::{Instance, Observed, Reach, observed};

/// The condition of a task or an instance. Ordered: the strongest of its tasks' conditions is the instance's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// Killed on request.
    Killed,
    /// Ended with exit code 0.
    Finished,
    /// Running.
    Running,
    /// Recorded, and perhaps sent; nothing heard yet.
    Provisioned,
    /// Mesos has no record of it; may come back.
    Unknown,
    /// On its way to the agent.
    Staging,
    /// The executor is starting it.
    Starting,
    /// A kill is under way.
    Killing,
    /// The agent is away.
    Unreachable,
    /// Never arrived.
    Dropped,
    /// The agent says that it is no more.
    Gone,
    /// Ended badly.
    Failed,
    /// Refused by Mesos.
    Error,
    /// Waits for its (next) launch.
    Scheduled,
    /// The agent is away for so long that a replacement was asked for.
    UnreachableInactive,
}

impl Condition {
    /// Whether this incarnation has ended for good.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Killed | Self::Finished | Self::Dropped | Self::Gone | Self::Failed | Self::Error)
    }

    /// Marathon's name, as in events and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "Killed",
            Self::Finished => "Finished",
            Self::Running => "Running",
            Self::Provisioned => "Provisioned",
            Self::Unknown => "Unknown",
            Self::Staging => "Staging",
            Self::Starting => "Starting",
            Self::Killing => "Killing",
            Self::Unreachable => "Unreachable",
            Self::Dropped => "Dropped",
            Self::Gone => "Gone",
            Self::Failed => "Failed",
            Self::Error => "Error",
            Self::Scheduled => "Scheduled",
            Self::UnreachableInactive => "UnreachableInactive",
        }
    }
}

/// How Mesos begins to say, while reconciling, that it has no record of a task.
const UNKNOWN_TO_MESOS: &str = "Reconciliation: Task is unknown to the";

/// The condition of one observed task.
pub fn of_task(task: &observed::Task) -> Condition {
    let Some(state) = task.state else { return Condition::Provisioned };
    let reason = task.reason.and_then(|reason| Reason::try_from(reason).ok());
    match TaskState::try_from(state) {
        Ok(TaskState::TaskStaging) => Condition::Staging,
        Ok(TaskState::TaskStarting) => Condition::Starting,
        Ok(TaskState::TaskRunning) => Condition::Running,
        Ok(TaskState::TaskKilling) => Condition::Killing,
        Ok(TaskState::TaskFinished) => Condition::Finished,
        Ok(TaskState::TaskFailed) => Condition::Failed,
        Ok(TaskState::TaskKilled) => Condition::Killed,
        Ok(TaskState::TaskError) => Condition::Error,
        Ok(TaskState::TaskDropped) => Condition::Dropped,
        Ok(TaskState::TaskGone | TaskState::TaskGoneByOperator) => Condition::Gone,
        Ok(TaskState::TaskUnreachable) => Condition::Unreachable,
        Ok(TaskState::TaskLost) if task.message.starts_with(UNKNOWN_TO_MESOS) => Condition::Unknown,
        Ok(TaskState::TaskLost) => match reason {
            Some(Reason::Reconciliation | Reason::AgentDisconnected | Reason::AgentRemoved) => Condition::Unreachable,
            Some(Reason::TaskUnknown) => Condition::Unknown,
            _ => Condition::Gone,
        },
        Ok(TaskState::TaskUnknown) | Err(_) => Condition::Unknown,
    }
}

/// Whether this task can still run: neither terminal nor merely recorded in a past incarnation.
pub fn task_is_alive(task: &observed::Task) -> bool {
    !of_task(task).is_terminal()
}

/// The condition of an instance's present incarnation.
pub fn of_instance(instance: &Instance, observed: Option<&Observed>, reach: Option<&Reach>) -> Condition {
    match observed {
        Some(observed) if observed.incarnation == instance.incarnation => of_observed(observed, reach),
        _ => Condition::Scheduled,
    }
}

/// The condition that an observation tells, whatever incarnation it is of. Terminal only when every task has ended:
/// the next incarnation is not launched beside the rest of the last.
pub fn of_observed(observed: &Observed, reach: Option<&Reach>) -> Condition {
    let strongest = observed.tasks.iter().map(of_task).max().unwrap_or(Condition::Provisioned);
    if strongest.is_terminal() {
        // One container has failed and Mesos is still ending the others.
        let alive = observed.tasks.iter().map(of_task).filter(|condition| !condition.is_terminal()).max();
        if strongest > Condition::Finished
            && let Some(alive) = alive
        {
            return if alive == Condition::Unreachable { inactive(reach) } else { Condition::Killing };
        }
        return strongest;
    }
    if strongest == Condition::Unreachable { inactive(reach) } else { strongest }
}

fn inactive(reach: Option<&Reach>) -> Condition {
    if reach.is_some_and(|reach| reach.inactive) { Condition::UnreachableInactive } else { Condition::Unreachable }
}

/// Whether every container that is checked has reported that it is healthy; without checks: whether it runs.
/// `checked` tells of a container's name whether its definition has a health check.
pub fn is_healthy(instance: &Instance, observed: Option<&Observed>, reach: Option<&Reach>, checked: impl Fn(&str) -> bool) -> bool {
    of_instance(instance, observed, reach) == Condition::Running
        && observed.is_some_and(|observed| {
            observed
                .tasks
                .iter()
                .filter(|task| of_task(task) == Condition::Running)
                .all(|task| !checked(&task.container) || task.healthy == Some(true))
        })
}

/// Whether somebody has ordered the end of its present incarnation.
pub fn is_to_be_killed(instance: &Instance) -> bool {
    instance.incarnation > 0 && instance.kill_incarnation == instance.incarnation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(states: &[TaskState]) -> Observed {
        let tasks = states.iter().map(|state| observed::Task { state: Some(*state as i32), ..Default::default() }).collect();
        Observed { incarnation: 1, tasks, ..Default::default() }
    }

    #[test]
    fn a_finished_container_leaves_its_siblings_running() {
        assert_eq!(of_observed(&observed(&[TaskState::TaskFinished, TaskState::TaskRunning]), None), Condition::Running);
        assert_eq!(of_observed(&observed(&[TaskState::TaskFinished, TaskState::TaskFinished]), None), Condition::Finished);
    }

    #[test]
    fn a_failed_instance_is_not_terminal_before_its_last_container_ended() {
        assert_eq!(of_observed(&observed(&[TaskState::TaskFailed, TaskState::TaskRunning]), None), Condition::Killing);
        assert_eq!(of_observed(&observed(&[TaskState::TaskFailed, TaskState::TaskKilled]), None), Condition::Failed);
    }

    #[test]
    fn an_older_incarnations_end_means_scheduled() {
        let instance = Instance { incarnation: 2, ..Default::default() };
        assert_eq!(of_instance(&instance, Some(&observed(&[TaskState::TaskFailed])), None), Condition::Scheduled);
    }

    #[test]
    fn every_state_of_mesos_has_its_condition_and_of_a_lost_task_the_reason_decides() {
        use Condition::*;
        let of = |state: i32, reason: Option<i32>| of_task(&observed::Task { state: Some(state), reason, ..Default::default() });
        // By number: STARTING, RUNNING, FINISHED, FAILED, KILLED, LOST, STAGING, ERROR, KILLING, DROPPED, UNREACHABLE, GONE,
        // GONE_BY_OPERATOR, UNKNOWN; then what no Mesos has sent yet.
        let expected = [
            Starting,
            Running,
            Finished,
            Failed,
            Killed,
            Gone,
            Staging,
            Error,
            Killing,
            Dropped,
            Unreachable,
            Gone,
            Gone,
            Unknown,
            Unknown,
        ];
        for (state, expected) in (0..).zip(expected) {
            assert_eq!(of(state, None), expected, "state {state}");
            // 9 RECONCILIATION, 10 AGENT_DISCONNECTED, 11 AGENT_REMOVED: it may run on where nobody sees it. 16 TASK_UNKNOWN.
            for reason in -1..=35 {
                let lost = match reason {
                    9..=11 => Unreachable,
                    16 => Unknown,
                    _ => Gone,
                };
                let expected = if state == i32::from(TaskState::TaskLost) { lost } else { expected };
                assert_eq!(of(state, Some(reason)), expected, "state {state}, reason {reason}");
            }
        }
        assert!(TaskState::try_from(14).is_err(), "a new state needs a condition");
        assert_eq!(of_task(&observed::Task::default()), Provisioned);
    }
}
