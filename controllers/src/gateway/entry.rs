//! One instance as the gateway holds it, and what is due about it. Pure.
//!
//! The gateway is the only writer of `observed`, so its own copy is the truth: it is read from the index once, and
//! again only after a write whose outcome was not the one expected.

use bytes::Bytes;
use podium_proto::mesos::v1::offer::Operation;
use podium_proto::records::{Goal, Instance, Observed, Tombstone, observed};
use podium_store::view::Held;
use podium_types::condition::{self, Condition};

use super::Settings;
use super::residents::GiveBack;

/// An update to be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ack {
    pub agent_id: String,
    pub task_id: String,
    pub uuid: Bytes,
}

/// An unanswered write of the record.
#[derive(Debug)]
pub(super) enum Writing {
    /// The intent to launch, before the launch is sent on this slot.
    Launch { slot: u64, operations: Vec<Operation> },
    /// What was observed; these updates are acknowledged when it is durable.
    Update { acks: Vec<Ack> },
    /// Nothing is left to know.
    Delete,
}

/// Repeated kills of one instance.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kill {
    /// When the first one was sent; 0: none was.
    pub since_ms: i64,
    pub attempts: u32,
    pub next_ms: i64,
}

/// All that is known of one instance.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub instance: Option<Held<Instance>>,
    pub tombstone: Option<Tombstone>,
    pub observed: Option<Observed>,
    /// Of the durable record's last write; 0: there is none.
    pub revision: i64,
    /// The record differs from the durable one.
    pub dirty: bool,
    pub writing: Option<Writing>,
    /// Wait for the next write.
    pub acks: Vec<Ack>,
    /// To be read again once the index has reached this revision.
    pub reload: Option<i64>,
    /// The slot whose ACCEPT is yet to carry the launch.
    pub held_by: Option<u64>,
    pub kill: Kill,
    /// Asked about no earlier than this, when its launch is overdue.
    pub ask_ms: i64,
    /// Perhaps it was never sent: Mesos is to be asked at once.
    pub doubtful: bool,
    /// How what it has reserved is given back.
    pub give_back: GiveBack,
    /// Nothing is reserved for it any more, as far as anybody can tell.
    pub is_released: bool,
    /// Left alone until then: the store refused its record.
    pub rest_until_ms: i64,
    /// When it is looked at again, as listed in the core's timers.
    pub wake: Option<i64>,
    /// Where it is, as listed by agent; empty: nowhere.
    pub agent_id: String,
}

/// What is due about an instance now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// It waits for an offer.
    pub waits: bool,
    /// Its tasks are to be killed.
    pub kill: bool,
    /// Mesos is to be asked about its tasks.
    pub ask: bool,
    /// What is reserved for it is to be given back.
    pub release: bool,
    /// Its record is to be deleted.
    pub delete: bool,
    /// Look again then.
    pub wake: Option<i64>,
}

impl Due {
    fn wake_at(&mut self, at: i64) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl Entry {
    /// Tasks of the record that have not ended.
    pub fn alive(&self) -> impl Iterator<Item = &observed::Task> {
        self.observed.iter().flat_map(|observed| &observed.tasks).filter(|task| condition::task_is_alive(task))
    }

    /// Tasks that a KILL can reach: one sent to an agent that is away is forgotten.
    pub fn killable(&self) -> impl Iterator<Item = &observed::Task> {
        self.alive().filter(|task| !matches!(condition::of_task(task), Condition::Unreachable | Condition::Unknown))
    }

    pub fn is_wanted(&self) -> bool {
        self.instance.as_ref().is_some_and(|held| Goal::try_from(held.value.goal) == Ok(Goal::Running))
    }

    /// Somebody has ordered the end of its present incarnation; the next one is scaling's to begin.
    fn is_to_be_killed(&self) -> bool {
        self.instance.as_ref().is_some_and(|held| condition::is_to_be_killed(&held.value))
    }

    /// Its tasks were launched by us, and no record wants them or condemns them: somebody has emptied the store.
    pub fn is_orphaned(&self) -> bool {
        self.instance.is_none() && self.tombstone.is_none() && self.alive().next().is_some()
    }

    /// An operator has taken it on: it is wanted, though scaling has yet to write that down.
    pub fn is_taken_on(&self) -> bool {
        self.instance.is_none() && self.observed.as_ref().is_some_and(|observed| observed.adopted)
    }

    /// Nothing is known, and nothing under way.
    pub fn is_empty(&self) -> bool {
        self.instance.is_none() && self.tombstone.is_none() && self.observed.is_none() && self.writing.is_none() && self.reload.is_none()
    }

    /// What is known of it is what the store holds: nothing is left to write, and no write is in doubt.
    pub fn is_durable(&self) -> bool {
        self.revision > 0 && !self.dirty && self.writing.is_none() && self.reload.is_none()
    }

    fn incarnation(&self) -> u32 {
        self.instance.as_ref().map_or(0, |held| held.value.incarnation)
    }

    /// What is due. Nothing while a write of it is unanswered: its outcome brings the next look.
    pub fn due(&self, now: i64, settings: &Settings) -> Due {
        let mut due = Due::default();
        if self.writing.is_some() || self.reload.is_some() {
            return due;
        }
        if self.rest_until_ms > now {
            due.wake_at(self.rest_until_ms);
            return due;
        }
        let any_alive = self.alive().next().is_some();
        due.ask = self.doubtful && any_alive && self.held_by.is_none();
        let observed_incarnation = self.observed.as_ref().map_or(0, |observed| observed.incarnation);
        if self.is_wanted() && observed_incarnation >= self.incarnation() {
            if !self.is_to_be_killed() {
                self.overdue(now, settings, &mut due);
            } else if self.killable().next().is_some() {
                self.kill_when_due(now, &mut due);
            }
        } else if self.killable().next().is_some() {
            // Not wanted, or what is left of the last incarnation. That nothing is said of it is no order to kill.
            if !self.is_orphaned() {
                self.kill_when_due(now, &mut due);
            }
        } else if self.is_wanted() && !any_alive {
            let not_before = self.instance.as_ref().map_or(0, |held| held.value.not_before_ms);
            due.waits = not_before <= now;
            if !due.waits {
                due.wake_at(not_before);
            }
        } else if self.instance.is_none() && self.tombstone.is_none() && !any_alive && self.observed.is_some() {
            due.release = self.holds() && !self.is_taken_on();
            due.delete = !self.holds();
        }
        due
    }

    fn kill_when_due(&self, now: i64, due: &mut Due) {
        // A launch that is not sent yet can't be killed.
        if self.held_by.is_some() {
            return;
        }
        due.kill = self.kill.next_ms <= now;
        if !due.kill {
            due.wake_at(self.kill.next_ms);
        }
    }

    /// A launch of which nothing is heard is asked about and never repeated; one that does not get to run is killed.
    fn overdue(&self, now: i64, settings: &Settings, due: &mut Due) {
        let Some(observed) = &self.observed else { return };
        if self.held_by.is_some() {
            return;
        }
        for task in &observed.tasks {
            match condition::of_task(task) {
                Condition::Provisioned => {
                    let at = self.ask_ms.max(observed.provisioned_ms.saturating_add(settings.launch_confirm_ms));
                    due.ask |= at <= now;
                    due.wake_at(if at <= now { now.saturating_add(settings.launch_confirm_ms) } else { at });
                }
                Condition::Staging | Condition::Starting => {
                    let at = task.since_ms.saturating_add(settings.launch_timeout_ms);
                    if at <= now {
                        self.kill_when_due(now, due);
                    } else {
                        due.wake_at(at);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::TaskState;

    use super::*;

    fn entry(goal: Option<Goal>, incarnation: u32, observed: Option<(u32, Option<TaskState>)>) -> Entry {
        let instance = goal.map(|goal| Held {
            value: Instance { goal: goal.into(), incarnation, ..Instance::default() },
            mod_revision: 5,
            create_revision: 5,
        });
        let observed = observed.map(|(incarnation, state)| Observed {
            incarnation,
            provisioned_ms: 1_000,
            tasks: vec![observed::Task { state: state.map(Into::into), since_ms: 1_000, ..Default::default() }],
            ..Observed::default()
        });
        Entry { instance, observed, ..Entry::default() }
    }

    fn due(entry: &Entry, now: i64) -> Due {
        entry.due(now, &Settings::default())
    }

    #[test]
    fn an_instance_waits_only_when_nothing_of_its_last_incarnation_lives() {
        let running = Some(Goal::Running);
        assert!(due(&entry(running, 1, None), 0).waits);
        assert!(due(&entry(running, 2, Some((1, Some(TaskState::TaskFailed)))), 0).waits);
        let rest = due(&entry(running, 2, Some((1, Some(TaskState::TaskRunning)))), 0);
        assert!(rest.kill && !rest.waits);
        assert!(!due(&entry(running, 2, Some((1, Some(TaskState::TaskUnreachable)))), 0).waits);
        assert!(!due(&entry(running, 1, Some((1, Some(TaskState::TaskFailed)))), 0).waits, "its relaunch is not ours to decide");
    }

    #[test]
    fn what_was_ordered_to_end_is_killed_and_not_launched_again_as_it_was() {
        let mut ordered = entry(Some(Goal::Running), 2, Some((2, Some(TaskState::TaskRunning))));
        ordered.instance.as_mut().unwrap().value.kill_incarnation = 2;
        assert_eq!(due(&ordered, 0), Due { kill: true, ..Due::default() });
        ordered.observed.as_mut().unwrap().tasks[0].state = Some(TaskState::TaskKilled.into());
        assert_eq!(due(&ordered, 0), Due::default(), "the next incarnation is scaling's to begin");
        ordered.instance.as_mut().unwrap().value.incarnation = 3;
        assert!(due(&ordered, 0).waits);
    }

    #[test]
    fn it_is_not_launched_before_its_time() {
        let mut early = entry(Some(Goal::Running), 1, None);
        early.instance.as_mut().unwrap().value.not_before_ms = 50;
        assert_eq!(due(&early, 49), Due { wake: Some(50), ..Due::default() });
        assert!(due(&early, 50).waits);
    }

    #[test]
    fn what_is_not_wanted_is_killed_unless_its_agent_is_away() {
        for goal in [Some(Goal::Stopped), Some(Goal::Decommissioned)] {
            assert!(due(&entry(goal, 1, Some((1, Some(TaskState::TaskRunning)))), 0).kill);
            assert!(due(&entry(goal, 1, Some((1, None))), 0).kill);
            assert_eq!(due(&entry(goal, 1, Some((1, Some(TaskState::TaskUnreachable)))), 0), Due::default());
        }
    }

    #[test]
    fn what_no_record_speaks_of_is_left_alone() {
        for state in [None, Some(TaskState::TaskRunning), Some(TaskState::TaskStarting)] {
            let mut orphan = entry(None, 1, Some((1, state)));
            assert!(orphan.is_orphaned());
            assert_eq!(due(&orphan, i64::MAX / 2), Due::default());
            orphan.tombstone = Some(Tombstone::default());
            assert!(due(&orphan, 0).kill, "a tombstone is a word");
        }
    }

    #[test]
    fn the_record_goes_when_instance_tombstone_and_tasks_are_gone() {
        let mut ended = entry(None, 1, Some((1, Some(TaskState::TaskKilled))));
        assert!(due(&ended, 0).delete);
        ended.tombstone = Some(Tombstone::default());
        assert!(!due(&ended, 0).delete);
        assert!(!due(&entry(Some(Goal::Decommissioned), 1, Some((1, Some(TaskState::TaskKilled)))), 0).delete);
    }

    #[test]
    fn silence_after_a_launch_is_asked_about_and_starting_for_too_long_is_killed() {
        let settings = Settings::default();
        let silent = entry(Some(Goal::Running), 1, Some((1, None)));
        assert_eq!(due(&silent, 1_000).wake, Some(1_000 + settings.launch_confirm_ms));
        let late = due(&silent, 1_000 + settings.launch_confirm_ms);
        assert!(late.ask && !late.kill && !late.waits);
        let starting = entry(Some(Goal::Running), 1, Some((1, Some(TaskState::TaskStarting))));
        assert!(!due(&starting, 1_000).kill);
        assert!(due(&starting, 1_000 + settings.launch_timeout_ms).kill);
    }

    #[test]
    fn nothing_is_due_while_a_write_is_unanswered() {
        let mut writing = entry(None, 1, Some((1, Some(TaskState::TaskRunning))));
        writing.writing = Some(Writing::Update { acks: Vec::new() });
        assert_eq!(due(&writing, i64::MAX), Due::default());
    }
}
