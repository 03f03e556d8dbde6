//! Which pods to look at, and when: each at most once, never while it is being written, and no earlier than the index
//! has reached what its last write needs. Holds a slot for a pod only while there is something to remember of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::poll_fn;
use podium_retry::Backoff;
use podium_types::id::PodId;
use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

/// A look that takes less is repeated as often as there is a reason to.
const CHEAP: Duration = Duration::from_millis(1);

/// After a look that took so long, nine times as long passes before the next: a tenth of a core at most.
const PAUSE: u32 = 9;

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The farthest time to wait for; whoever wants to wait longer is asked again then.
const FARTHEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Pods to look at.
#[derive(Default)]
pub(super) struct WorkQueue {
    slots: HashMap<PodId, Slot>,
    ready: VecDeque<PodId>,
    /// By the revision that is waited for.
    waiting: BTreeMap<i64, Vec<PodId>>,
    timers: DelayQueue<PodId>,
}

#[derive(Default)]
struct Slot {
    state: State,
    /// The index must have reached this revision before the pod is decided on again.
    after: i64,
    timer: Option<Key>,
    retry: Option<Backoff>,
}

#[derive(Default, PartialEq)]
enum State {
    /// Waits for a change or its timer.
    #[default]
    Resting,
    /// In `ready`.
    Ready,
    /// In `waiting`.
    Waiting,
    /// It took long to look at, and rests until its timer. Whether it has changed meanwhile, and else when it is due.
    Pausing { changed: bool, wake: Option<Instant> },
    /// So many groups are unanswered; whether any of them asks for another try.
    Writing { groups: usize, again: Option<Again> },
}

/// Why a pod is to be looked at again after its writes were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Again {
    /// Somebody else was faster, or nobody knows.
    Soon,
    /// The store does not take it.
    Later,
}

impl WorkQueue {
    /// Asks for a look at a pod.
    pub fn look(&mut self, pod: &PodId) {
        let slot = match self.slots.get_mut(pod) {
            Some(slot) => slot,
            None => self.slots.entry(pod.clone()).or_default(),
        };
        match &mut slot.state {
            State::Resting => {
                slot.state = State::Ready;
                self.ready.push_back(pod.clone());
            }
            State::Pausing { changed, .. } => *changed = true,
            // It will be looked at anyway, later than now.
            State::Ready | State::Waiting | State::Writing { .. } => {}
        }
    }

    /// The next pod to look at, and the revision that the index must have reached. What follows is [`Self::hold`],
    /// [`Self::rest`] or [`Self::write`].
    pub fn next(&mut self) -> Option<(PodId, i64)> {
        let pod = self.ready.pop_front()?;
        let slot = self.slots.get_mut(&pod)?;
        slot.state = State::Resting;
        Some((pod, slot.after))
    }

    /// Whether any pod is to be looked at now.
    pub fn has_next(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The index has not come so far yet: look when it has.
    pub fn hold(&mut self, pod: &PodId, revision: i64) {
        if let Some(slot) = self.slots.get_mut(pod) {
            slot.state = State::Waiting;
            self.waiting.entry(revision).or_default().push(pod.clone());
        }
    }

    /// Whether any pod waits for the index.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The index has reached this revision.
    pub fn reached(&mut self, revision: i64) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= revision) {
            for pod in entry.remove() {
                if let Some(slot) = self.slots.get_mut(&pod) {
                    slot.state = State::Ready;
                    self.ready.push_back(pod);
                }
            }
        }
    }

    /// Nothing to do for now: look again after `wake`, or when something changes. A look that took long is followed by a
    /// pause, so that a large pod that changes all the time does not keep a whole core busy.
    pub fn rest(&mut self, pod: &PodId, wake: Option<Duration>, took: Duration) {
        let pause = (took * PAUSE).min(LONGEST_PAUSE);
        let pauses = took >= CHEAP && wake.is_none_or(|wake| wake > pause);
        self.set_timer(pod, if pauses { Some(pause) } else { wake });
        if let Some(slot) = self.slots.get_mut(pod) {
            slot.retry = None;
            if pauses {
                slot.state = State::Pausing { changed: false, wake: wake.map(|wake| Instant::now() + wake.min(FARTHEST)) };
            } else if slot.timer.is_none() {
                self.slots.remove(pod);
            }
        }
    }

    /// A pause is over: the pod is looked at if it has changed, and rests on if it has not.
    fn resume(&mut self, pod: &PodId) {
        let Some(slot) = self.slots.get_mut(pod) else { return };
        let State::Pausing { changed, wake } = std::mem::take(&mut slot.state) else { return };
        match (changed, wake) {
            (true, _) => self.look(pod),
            (false, Some(wake)) => self.set_timer(pod, Some(wake.saturating_duration_since(Instant::now()))),
            (false, None) => drop(self.slots.remove(pod)),
        }
    }

    /// Its groups are on their way: look when all are answered.
    pub fn write(&mut self, pod: &PodId, groups: usize) {
        self.set_timer(pod, None);
        if let Some(slot) = self.slots.get_mut(pod) {
            slot.state = State::Writing { groups, again: None };
        }
    }

    /// One of its groups was answered. What was written or met stands at `revision`.
    pub fn answered(&mut self, pod: &PodId, revision: i64, asks: Option<Again>) {
        let Some(slot) = self.slots.get_mut(pod) else { return };
        slot.after = slot.after.max(revision);
        let State::Writing { groups, again } = &mut slot.state else { return };
        *groups = groups.saturating_sub(1);
        *again = (*again).max(asks);
        if *groups > 0 {
            return;
        }
        let (again, after) = (*again, slot.after);
        match again {
            None => {
                slot.retry = None;
                self.hold(pod, after);
            }
            Some(again) => {
                slot.state = State::Resting;
                let backoff = slot.retry.get_or_insert_with(|| match again {
                    Again::Soon => Backoff::conflict(),
                    Again::Later => Backoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(60)),
                });
                let delay = backoff.next_delay();
                self.set_timer(pod, Some(delay));
            }
        }
    }

    /// Waits for the next timer; pending for ever while there is none. Cancelling it loses nothing.
    pub async fn expired(&mut self) {
        poll_fn(|context| self.poll_expired(context)).await;
    }

    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.timers.poll_expired(context) {
            Poll::Ready(Some(expired)) => {
                let pod = expired.into_inner();
                let slot = self.slots.get_mut(&pod);
                let pausing = slot.is_some_and(|slot| {
                    slot.timer = None;
                    matches!(slot.state, State::Pausing { .. })
                });
                if pausing {
                    self.resume(&pod);
                } else {
                    self.look(&pod);
                }
                Poll::Ready(())
            }
            // An empty queue registers no waker: a later insert is followed by a later poll, in the same loop.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn set_timer(&mut self, pod: &PodId, wake: Option<Duration>) {
        let Some(slot) = self.slots.get_mut(pod) else { return };
        let wake = wake.map(|wake| wake.min(FARTHEST));
        match (&slot.timer, wake) {
            (Some(timer), Some(wake)) => self.timers.reset(timer, wake),
            (None, Some(wake)) => slot.timer = Some(self.timers.insert(pod.clone(), wake)),
            (Some(timer), None) => {
                self.timers.try_remove(timer);
                slot.timer = None;
            }
            (None, None) => {}
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str) -> PodId {
        PodId::new(id).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_changes_often_is_looked_at_once() {
        let mut queue = WorkQueue::default();
        (0..5).for_each(|_| queue.look(&pod("/a")));
        assert_eq!(queue.next(), Some((pod("/a"), 0)));
        assert_eq!(queue.next(), None);
        queue.rest(&pod("/a"), None, Duration::ZERO);
        assert_eq!(queue.len(), 0, "nothing is remembered of a pod at rest");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_not_looked_at_before_all_its_writes_are_seen() {
        let mut queue = WorkQueue::default();
        queue.look(&pod("/a"));
        queue.next();
        queue.write(&pod("/a"), 2);
        queue.look(&pod("/a"));
        assert!(!queue.has_next(), "two groups are unanswered");
        queue.answered(&pod("/a"), 7, None);
        assert!(!queue.has_next() && !queue.is_waiting(), "one group is unanswered");
        queue.answered(&pod("/a"), 5, None);
        queue.reached(6);
        queue.look(&pod("/a"));
        assert!(!queue.has_next(), "the index is at 6");
        queue.reached(7);
        assert_eq!(queue.next(), Some((pod("/a"), 7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_tried_again_later_each_time() {
        let mut queue = WorkQueue::default();
        let mut waited = Vec::new();
        queue.look(&pod("/a"));
        for _ in 0..3 {
            queue.next();
            queue.write(&pod("/a"), 1);
            queue.answered(&pod("/a"), 3, Some(Again::Soon));
            let start = tokio::time::Instant::now();
            queue.expired().await;
            waited.push(start.elapsed());
            assert!(queue.has_next());
        }
        assert!(waited.is_sorted() && waited[0] > Duration::ZERO, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_when_it_was_asked_to_and_earlier_on_a_change() {
        let mut queue = WorkQueue::default();
        queue.look(&pod("/a"));
        queue.next();
        queue.rest(&pod("/a"), Some(Duration::from_secs(60)), Duration::ZERO);
        queue.look(&pod("/a"));
        assert_eq!(queue.next(), Some((pod("/a"), 0)));
        queue.rest(&pod("/a"), Some(Duration::from_secs(50)), Duration::ZERO);
        let start = tokio::time::Instant::now();
        queue.expired().await;
        assert_eq!(start.elapsed().as_secs(), 50);
        assert!(queue.has_next());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_takes_long_to_look_at_is_looked_at_once_a_pause_however_often_it_changes() {
        let mut queue = WorkQueue::default();
        queue.look(&pod("/a"));
        queue.next();
        queue.rest(&pod("/a"), None, Duration::from_millis(5));
        (0..9).for_each(|_| queue.look(&pod("/a")));
        assert!(!queue.has_next());
        let start = tokio::time::Instant::now();
        queue.expired().await;
        assert_eq!(start.elapsed().as_millis(), 45);
        assert_eq!(queue.next(), Some((pod("/a"), 0)));
        // Nothing changes in the next pause, and what it was to wake for is not forgotten.
        queue.rest(&pod("/a"), Some(Duration::from_secs(60)), Duration::from_secs(1));
        queue.expired().await;
        assert_eq!((start.elapsed().as_millis(), queue.has_next()), (245, false));
        queue.expired().await;
        assert_eq!((start.elapsed().as_secs(), queue.has_next()), (60, true));
        queue.next();
        queue.rest(&pod("/a"), None, Duration::from_millis(5));
        queue.expired().await;
        assert_eq!((queue.has_next(), queue.len()), (false, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_of_the_far_future_does_no_harm() {
        let mut queue = WorkQueue::default();
        queue.look(&pod("/a"));
        queue.next();
        queue.rest(&pod("/a"), Some(Duration::from_millis(i64::MAX as u64)), Duration::ZERO);
        tokio::time::advance(FARTHEST + Duration::from_secs(1)).await;
        queue.expired().await;
        assert!(queue.has_next());
    }
}
