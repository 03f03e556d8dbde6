//! The status update stream of one task: a queue whose head is sent until it is acknowledged. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use podium_proto::mesos::v1::{TaskState, TaskStatus};
use tokio_util::time::delay_queue;

/// First wait for an acknowledgement; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(10);
const LAST_RETRY: Duration = Duration::from_secs(600);

/// Updates of one task, oldest first.
#[derive(Debug, Default)]
pub(super) struct Updates {
    queue: VecDeque<TaskStatus>,
    tries: u32,
    pub(super) timer: Option<delay_queue::Key>,
    /// The last one sent.
    sent: Option<TaskStatus>,
}

/// What an acknowledgement comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It is not the head's: nothing happens.
    Stale,
    /// There may be a next head to send.
    Next,
    /// That was the terminal one: the stream is closed.
    Closed,
}

impl Updates {
    /// Queues an update; true if it is the head and must be sent.
    pub(super) fn push(&mut self, status: TaskStatus) -> bool {
        self.queue.push_back(status);
        self.queue.len() == 1
    }

    /// The head, as it is sent now, and the newest state.
    pub(super) fn head(&mut self) -> Option<(TaskStatus, TaskState)> {
        let head = self.queue.front()?.clone();
        let newest = self.queue.back().and_then(|status| TaskState::try_from(status.state).ok())?;
        self.sent = Some(head.clone());
        Some((head, newest))
    }

    /// How long to wait for the acknowledgement of what is sent now.
    pub(super) fn next_wait(&mut self) -> Duration {
        let wait = FIRST_RETRY.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(LAST_RETRY);
        self.tries = self.tries.saturating_add(1);
        wait
    }

    /// Sends start anew: the framework or the master is new.
    pub(super) fn forget_tries(&mut self) {
        self.tries = 0;
    }

    pub(super) fn acknowledge(&mut self, uuid: &Bytes) -> Acknowledged {
        let Some(head) = self.queue.front().filter(|head| head.uuid.as_ref() == Some(uuid)) else { return Acknowledged::Stale };
        let terminal = TaskState::try_from(head.state).is_ok_and(crate::link::is_terminal);
        self.queue.pop_front();
        self.tries = 0;
        if terminal { Acknowledged::Closed } else { Acknowledged::Next }
    }

    /// The last status sent.
    pub(super) fn sent(&self) -> Option<&TaskStatus> {
        self.sent.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: TaskState, uuid: &'static [u8]) -> TaskStatus {
        TaskStatus { state: state.into(), uuid: Some(Bytes::from_static(uuid)), ..TaskStatus::default() }
    }

    #[test]
    fn the_next_update_waits_for_the_acknowledgement_of_the_head() {
        let mut updates = Updates::default();
        assert!(updates.push(status(TaskState::TaskStarting, b"1")));
        assert!(!updates.push(status(TaskState::TaskFinished, b"2")));
        let (head, newest) = updates.head().unwrap();
        assert_eq!((head.uuid.as_deref(), newest), (Some(b"1".as_slice()), TaskState::TaskFinished));
        assert_eq!(updates.acknowledge(&Bytes::from_static(b"2")), Acknowledged::Stale);
        assert_eq!(updates.acknowledge(&Bytes::from_static(b"1")), Acknowledged::Next);
        assert_eq!(updates.acknowledge(&Bytes::from_static(b"2")), Acknowledged::Closed);
    }

    #[test]
    fn waits_double_up_to_ten_minutes_and_start_anew() {
        let mut updates = Updates::default();
        let waits: Vec<u64> = (0..8).map(|_| updates.next_wait().as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        updates.forget_tries();
        assert_eq!(updates.next_wait().as_secs(), 10);
    }
}
