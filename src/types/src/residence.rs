//! Where an instance with persistent volumes lives: what is reserved for it, as its records tell. Pure.

use podium_proto::mesos::v1::TaskState;
use podium_proto::records::{Observed, observed};

/// The agent that has an instance's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residence<'a> {
    /// The agent's id.
    pub agent_id: &'a str,
    /// The agent's name; may be empty.
    pub hostname: &'a str,
    /// The launch with which it was reserved; 0: it is not known.
    pub incarnation: u32,
    /// Mesos has reserved it for sure: the instance is launched there or nowhere. Otherwise it was perhaps never sent, and it may
    /// begin anew elsewhere.
    pub is_made: bool,
}

/// The residence of an instance whose pod has persistent volumes, by what was last observed of it; none if it has none yet,
/// or no more.
#[must_use]
pub fn of(observed: &Observed) -> Option<Residence<'_>> {
    let gone = |task: &observed::Task| task.state == Some(TaskState::TaskGoneByOperator.into());
    if observed.tasks.iter().any(gone) {
        // Its agent does not come back, and its data neither.
        return None;
    }
    let ran = observed.adopted || observed.tasks.iter().any(has_run);
    match &observed.reservation {
        Some(known) => Some(Residence {
            agent_id: &known.agent_id,
            hostname: &known.hostname,
            incarnation: known.incarnation,
            is_made: known.made || ran,
        }),
        // It was taken on while it ran: that the record does not tell of a reservation does not mean that there is none.
        None => (ran && !observed.agent_id.is_empty()).then_some(Residence {
            agent_id: &observed.agent_id,
            hostname: &observed.hostname,
            incarnation: 0,
            is_made: true,
        }),
    }
}

/// Whether an executor has said something of the task: it stood on what was reserved for it.
fn has_run(task: &observed::Task) -> bool {
    let ran = [
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskKilling,
        TaskState::TaskFinished,
        TaskState::TaskFailed,
        TaskState::TaskKilled,
        TaskState::TaskUnreachable,
    ];
    let state = task.state.and_then(|state| TaskState::try_from(state).ok());
    task.running_ms > 0 || (!task.last_uuid.is_empty() && state.is_some_and(|state| ran.contains(&state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(reserved: Option<bool>, state: Option<TaskState>, told: bool) -> Observed {
        let reservation = reserved.map(|made| observed::Reservation {
            agent_id: "S1".to_owned(),
            incarnation: 2,
            made,
            ..observed::Reservation::default()
        });
        let task = observed::Task {
            state: state.map(Into::into),
            last_uuid: if told { vec![1] } else { Vec::new() }.into(),
            ..observed::Task::default()
        };
        Observed { agent_id: "S1".to_owned(), tasks: vec![task], reservation, ..Observed::default() }
    }

    #[test]
    fn what_was_perhaps_never_reserved_binds_no_instance() {
        let made = |reserved, state, told| of(&observed(reserved, state, told)).map(|residence| (residence.incarnation, residence.is_made));
        assert_eq!(made(Some(false), None, false), Some((2, false)));
        assert_eq!(made(Some(false), Some(TaskState::TaskError), false), Some((2, false)), "the master's word, perhaps about the RESERVE");
        assert_eq!(made(Some(false), Some(TaskState::TaskDropped), true), Some((2, false)), "the agent may not know the volume");
        assert_eq!(made(Some(false), Some(TaskState::TaskFailed), true), Some((2, true)));
        assert_eq!(made(Some(true), Some(TaskState::TaskDropped), false), Some((2, true)));
        assert_eq!(made(Some(true), Some(TaskState::TaskGoneByOperator), false), None, "its disks are gone");
        assert_eq!(made(None, None, false), None);
        assert_eq!(made(None, Some(TaskState::TaskRunning), true), Some((0, true)), "taken on while it ran");
    }
}
