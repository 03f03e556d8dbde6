//! What a reason of Mesos says to people, beside the state that it explains.

use podium_proto::mesos::v1::task_status::Reason;

/// A reason's number in words; `None` where it says no more than the state and its message do, or is none that we know.
#[must_use]
pub fn in_words(number: i32) -> Option<&'static str> {
    Some(match Reason::try_from(number).ok()? {
        // The value of a field that nobody set, states of health, answers to questions, and what is used nowhere.
        Reason::CommandExecutorFailed
        | Reason::TaskCheckStatusUpdated
        | Reason::TaskHealthCheckStatusUpdated
        | Reason::Reconciliation
        | Reason::AgentReregistered
        | Reason::ExecutorUnregistered
        | Reason::InvalidFrameworkid
        | Reason::MasterDisconnected
        | Reason::TaskUnknown => return None,
        Reason::ExecutorTerminated => "its executor ended",
        Reason::FrameworkRemoved => "Mesos removed the framework",
        Reason::GcError => "the agent could not prepare its sandbox, or lacks an isolator for its limits",
        Reason::InvalidOffers => "the offer was gone when the launch arrived",
        Reason::ContainerLimitationMemory => "over its memory limit",
        Reason::AgentDisconnected => "its agent lost the connection to the master",
        Reason::AgentRemoved => "its agent is lost",
        Reason::AgentRestarted => "its agent was restarted while it was being launched",
        Reason::AgentUnknown => "the master does not know its agent",
        Reason::TaskInvalid | Reason::TaskGroupInvalid => "Mesos refuses its definition",
        Reason::TaskUnauthorized | Reason::TaskGroupUnauthorized => "Mesos does not allow it",
        Reason::ContainerPreempted => "its resources were taken back",
        Reason::ResourcesUnknown => "the agent does not know a volume or reservation that it needs",
        Reason::ContainerLimitation => "over a limit",
        Reason::ContainerLimitationDisk => "over its disk limit",
        Reason::ContainerLaunchFailed => "its container could not be started",
        Reason::ContainerUpdateFailed => "the resources of its container could not be changed",
        Reason::ExecutorRegistrationTimeout => "its executor did not start in time",
        Reason::ExecutorReregistrationTimeout => "its executor did not come back after the agent's restart",
        Reason::IoSwitchboardExited => "the helper for its input and output ended",
        Reason::TaskKilledDuringLaunch => "killed before it was started",
        Reason::AgentRemovedByOperator => "an operator declared its agent gone",
        Reason::MaxCompletionTimeReached => "it took longer than it may",
        Reason::AgentDraining => "its agent is being drained",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_mesos_has_a_place_and_what_explains_an_end_has_words() {
        let silent: Vec<i32> = (0..=34).filter(|number| in_words(*number).is_none()).collect();
        assert_eq!(silent, [0, 2, 5, 7, 9, 16, 28, 29, 32]);
        assert!(Reason::try_from(35).is_err(), "a new reason needs words");
    }
}
