//! The status update stream of one task: a queue of which only the head travels, again and again until it
//! is acknowledged. Pure: no clock, no disk; its owner writes what the answers say.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use podium_proto::mesos::v1::{TaskState, TaskStatus, task_status};

use crate::link::is_terminal;

/// The first pause before an unacknowledged update is sent again; it doubles.
const RETRY: Duration = Duration::from_secs(10);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(600);
/// Acknowledged uuids remembered: an executor sends again only what was in flight when we crashed.
pub(super) const REMEMBERED: usize = 32;

/// An update in its queue.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    /// Orders the updates of a task on disk.
    pub number: u64,
    pub status: TaskStatus,
    /// It is on disk, and may travel.
    pub durable: bool,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    queue: VecDeque<Queued>,
    next: u64,
    /// The last update that was acknowledged.
    pub acknowledged: Option<TaskStatus>,
    pub uuids: VecDeque<Bytes>,
    closed: bool,
    /// What was queued behind the terminal update: never sent, still on disk.
    behind: Vec<u64>,
    /// Times that the head was sent.
    sent: u32,
}

/// What became of an update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is in the queue under this number, and must be written.
    Queued(u64),
    /// It was seen before, and is on disk.
    Known,
    /// It was seen before and is being written.
    BeingWritten,
    /// The task has already ended.
    TooLate,
}

/// What an acknowledgement did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It was not for the head: an old or a foreign one.
    Ignored,
    /// The head of this number is gone.
    Next(u64),
    /// The terminal update of this number is acknowledged: the stream is over; whatever was behind it is not sent.
    Closed(u64),
}

impl Stream {
    /// As it was on disk; `queue` in its order, all durable.
    pub fn restored(acknowledged: Option<TaskStatus>, uuids: Vec<Bytes>, closed: bool, queue: Vec<(u64, TaskStatus)>) -> Stream {
        let next = queue.iter().map(|(number, _)| number.saturating_add(1)).max().unwrap_or(0);
        let queue = queue.into_iter().map(|(number, status)| Queued { number, status, durable: true }).collect();
        Stream { queue, next, acknowledged, uuids: uuids.into(), closed, behind: Vec::new(), sent: 0 }
    }

    pub fn push(&mut self, status: TaskStatus) -> Pushed {
        if let Some(known) = self.queue.iter().find(|queued| queued.status.uuid == status.uuid) {
            return if known.durable { Pushed::Known } else { Pushed::BeingWritten };
        }
        if status.uuid.as_ref().is_some_and(|uuid| self.uuids.contains(uuid)) {
            return Pushed::Known;
        }
        if self.closed || self.latest().is_some_and(is_terminal) {
            return Pushed::TooLate;
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.queue.push_back(Queued { number, status, durable: false });
        Pushed::Queued(number)
    }

    /// The update of that number is on disk.
    pub fn durable(&mut self, number: u64) {
        if let Some(queued) = self.queue.iter_mut().find(|queued| queued.number == number) {
            queued.durable = true;
        }
    }

    pub fn acknowledge(&mut self, uuid: &Bytes) -> Acknowledged {
        if self.queue.front().is_none_or(|head| head.status.uuid.as_ref() != Some(uuid)) {
            return Acknowledged::Ignored;
        }
        let Some(head) = self.queue.pop_front() else { return Acknowledged::Ignored };
        self.sent = 0;
        self.uuids.push_back(uuid.clone());
        while self.uuids.len() > REMEMBERED {
            self.uuids.pop_front();
        }
        self.closed = state_of(&head.status).is_some_and(is_terminal);
        self.acknowledged = Some(head.status);
        if self.closed {
            self.behind = self.queue.drain(..).map(|queued| queued.number).collect();
            return Acknowledged::Closed(head.number);
        }
        Acknowledged::Next(head.number)
    }

    /// The update to send now, and how long to wait for its acknowledgement.
    pub fn send(&mut self) -> Option<(TaskStatus, Duration)> {
        let head = self.queue.front().filter(|head| head.durable)?;
        let wait = RETRY.saturating_mul(1 << self.sent.min(10)).min(RETRY_MAX);
        self.sent = self.sent.saturating_add(1);
        Some((head.status.clone(), wait))
    }

    /// The numbers of all that is queued, as they are on disk.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.behind.iter().copied().chain(self.queue.iter().map(|queued| queued.number))
    }

    /// The update that travels now, or will when it is on disk.
    pub fn head(&self) -> Option<&Queued> {
        self.queue.front()
    }

    /// The newest state that anyone reported.
    pub fn latest(&self) -> Option<TaskState> {
        self.queue.back().map(|queued| &queued.status).or(self.acknowledged.as_ref()).and_then(state_of)
    }

    /// What the framework may know: the head once sent, else the last one acknowledged.
    pub fn forwarded(&self) -> Option<&TaskStatus> {
        self.queue.front().filter(|_| self.sent > 0).map(|head| &head.status).or(self.acknowledged.as_ref())
    }

    /// Whether any of it came from the executor.
    pub fn heard_executor(&self) -> bool {
        let theirs = Some(task_status::Source::Executor.into());
        self.queue.iter().map(|queued| &queued.status).chain(&self.acknowledged).any(|status| status.source == theirs)
    }

    pub fn closed(&self) -> bool {
        self.closed
    }
}

/// The state of a status, unless it is of a kind unknown to us.
pub(super) fn state_of(status: &TaskStatus) -> Option<TaskState> {
    TaskState::try_from(status.state).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(id: u8, state: TaskState) -> TaskStatus {
        TaskStatus { state: state.into(), uuid: Some(Bytes::copy_from_slice(&[id; 16])), ..TaskStatus::default() }
    }

    fn pushed(stream: &mut Stream, id: u8, state: TaskState) {
        let Pushed::Queued(number) = stream.push(update(id, state)) else { panic!("not queued") };
        stream.durable(number);
    }

    fn uuid(id: u8) -> Bytes {
        Bytes::copy_from_slice(&[id; 16])
    }

    #[test]
    fn only_the_head_travels_and_the_next_follows_its_acknowledgement() {
        let mut stream = Stream::default();
        pushed(&mut stream, 1, TaskState::TaskStarting);
        pushed(&mut stream, 2, TaskState::TaskRunning);
        assert_eq!(stream.send().unwrap().0.uuid, Some(uuid(1)));
        assert_eq!(stream.acknowledge(&uuid(2)), Acknowledged::Ignored);
        assert_eq!(stream.acknowledge(&uuid(1)), Acknowledged::Next(0));
        assert_eq!(stream.send().unwrap().0.uuid, Some(uuid(2)));
        assert_eq!(stream.latest(), Some(TaskState::TaskRunning));
    }

    #[test]
    fn an_update_that_is_not_on_disk_is_not_sent() {
        let mut stream = Stream::default();
        assert_eq!(stream.push(update(1, TaskState::TaskStarting)), Pushed::Queued(0));
        assert!(stream.send().is_none());
        assert_eq!(stream.push(update(1, TaskState::TaskStarting)), Pushed::BeingWritten);
        stream.durable(0);
        assert!(stream.send().is_some());
    }

    #[test]
    fn a_duplicate_is_known_even_after_its_acknowledgement() {
        let mut stream = Stream::default();
        pushed(&mut stream, 1, TaskState::TaskStarting);
        assert_eq!(stream.push(update(1, TaskState::TaskStarting)), Pushed::Known);
        stream.acknowledge(&uuid(1));
        assert_eq!(stream.push(update(1, TaskState::TaskStarting)), Pushed::Known);
    }

    #[test]
    fn nothing_follows_a_terminal_update() {
        let mut stream = Stream::default();
        pushed(&mut stream, 1, TaskState::TaskFinished);
        assert_eq!(stream.push(update(2, TaskState::TaskFailed)), Pushed::TooLate);
        assert_eq!(stream.acknowledge(&uuid(1)), Acknowledged::Closed(0));
        assert!(stream.closed());
        assert_eq!(stream.push(update(3, TaskState::TaskRunning)), Pushed::TooLate);
    }

    #[test]
    fn the_pause_before_sending_again_doubles_up_to_ten_minutes_and_starts_anew_with_the_next_head() {
        let mut stream = Stream::default();
        pushed(&mut stream, 1, TaskState::TaskStarting);
        pushed(&mut stream, 2, TaskState::TaskRunning);
        let pauses: Vec<u64> = (0..8).map(|_| stream.send().unwrap().1.as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        stream.acknowledge(&uuid(1));
        assert_eq!(stream.send().unwrap().1.as_secs(), 10);
    }

    #[test]
    fn a_restored_stream_goes_on_with_its_numbers() {
        let mut stream = Stream::restored(None, vec![], false, vec![(4, update(1, TaskState::TaskRunning))]);
        assert_eq!(stream.push(update(2, TaskState::TaskFailed)), Pushed::Queued(5));
        assert_eq!(stream.send().unwrap().0.uuid, Some(uuid(1)));
    }
}
