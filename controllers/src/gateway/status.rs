//! What a Mesos status update changes in the record of a task. Pure.
//!
//! Updates come at least once, and those of the master in no order with those of the agent. So: the same update
//! again changes nothing; a task that has ended stays ended, whatever the master still believes; a task that runs does
//! not go back to starting; what was lost may return; what an agent told earlier does not replace what it told later of
//! the same state. Numbers of states that this build does not know change nothing.

use bytes::Bytes;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{TaskState, TaskStatus};
use podium_proto::records::observed::{Network, Task};
use podium_types::condition::task_is_alive;

/// Longest message that is kept, in bytes (Marathon keeps 10,000 characters).
const LONGEST_MESSAGE: usize = 10_000;

/// What an update came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The record says all of it already.
    Nothing,
    /// The record must be written before the update is acknowledged.
    Changed,
}

/// Whether a state says that a task has ended. What was lost or is gone may return all the same ([`may_return`]).
fn is_end(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::TaskFinished
            | TaskState::TaskFailed
            | TaskState::TaskKilled
            | TaskState::TaskError
            | TaskState::TaskDropped
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
            | TaskState::TaskLost
    )
}

/// States from which a task may come back to life.
fn may_return(state: TaskState) -> bool {
    matches!(state, TaskState::TaskUnreachable | TaskState::TaskUnknown | TaskState::TaskLost | TaskState::TaskGoneByOperator)
}

/// How far a task has come; only forward among these.
fn progress(state: TaskState) -> u8 {
    match state {
        TaskState::TaskStaging => 1,
        TaskState::TaskStarting => 2,
        TaskState::TaskRunning => 3,
        TaskState::TaskKilling => 4,
        _ => 5,
    }
}

/// Whether an update may follow what is recorded.
fn may_follow(task: &Task, known: TaskState, next: TaskState, from_master: bool) -> bool {
    if !task_is_alive(task) {
        // Only the agent's own word, or that of an agent that came back, brings a lost task to life again.
        return may_return(known) && !from_master && known != next;
    }
    may_return(known) || may_return(next) || is_end(next) || progress(next) >= progress(known)
}

/// What an update is acknowledged by: 16 bytes. Anything else the master would refuse, and with it the subscription.
pub fn uuid(status: &TaskStatus) -> Option<&Bytes> {
    status.uuid.as_ref().filter(|uuid| uuid.len() == 16)
}

/// Applies an update; `now_ms` stands in where it tells no time.
pub fn apply(task: &mut Task, status: &TaskStatus, now_ms: i64) -> Applied {
    let Ok(next) = TaskState::try_from(status.state) else { return Applied::Nothing };
    let uuid = uuid(status);
    if uuid.is_some_and(|uuid| *uuid == task.last_uuid) {
        return Applied::Nothing;
    }
    let reason = status.reason.and_then(|reason| Reason::try_from(reason).ok());
    let from_master = uuid.is_none() && reason != Some(Reason::AgentReregistered);
    let known = task.state.and_then(|state| TaskState::try_from(state).ok());
    if known.is_some_and(|known| !may_follow(task, known, next, from_master)) {
        return Applied::Nothing;
    }
    let told_ms = uuid.and_then(|_| time_ms(status));
    // Forward steps count whatever the clock says, which may have been set back.
    if known == Some(next) && told_ms.is_some_and(|told| told < task.told_ms) {
        return Applied::Nothing;
    }
    let before = task.clone();
    if known != Some(next) {
        enter(task, next, status, now_ms);
    } else if uuid.is_some() {
        task.reason = status.reason;
        task.message = message(status);
    }
    health(task, status, now_ms);
    container(task, status);
    // Remembered for the next time, and not worth a write of its own.
    let applied = if *task == before { Applied::Nothing } else { Applied::Changed };
    if let Some(uuid) = uuid {
        task.last_uuid = uuid.clone();
    }
    task.told_ms = told_ms.unwrap_or(task.told_ms);
    applied
}

fn enter(task: &mut Task, state: TaskState, status: &TaskStatus, now_ms: i64) {
    let at = time_ms(status).unwrap_or(now_ms);
    task.state = Some(state.into());
    task.since_ms = at;
    task.reason = status.reason;
    task.message = message(status);
    if state == TaskState::TaskRunning && task.running_ms == 0 {
        task.running_ms = at;
    }
    task.unreachable_ms = match state {
        TaskState::TaskUnreachable => status.unreachable_time.as_ref().map_or(at, |time| time.nanoseconds / 1_000_000),
        _ => 0,
    };
    task.exit_code = match state {
        TaskState::TaskFinished => Some(exit_code(&task.message).unwrap_or(0)),
        TaskState::TaskFailed | TaskState::TaskKilled => exit_code(&task.message),
        _ => None,
    };
}

/// Absent says nothing: there was no result yet, or the update is about something else.
fn health(task: &mut Task, status: &TaskStatus, now_ms: i64) {
    if status.healthy.is_some() && status.healthy != task.healthy {
        task.healthy = status.healthy;
        task.healthy_since_ms = time_ms(status).unwrap_or(now_ms);
    }
}

/// Addresses and container ids are complete while it runs; later updates may lack them.
fn container(task: &mut Task, status: &TaskStatus) {
    let Some(container) = &status.container_status else { return };
    if let Some(id) = &container.container_id {
        task.mesos_container_id.clone_from(&id.value);
        if let Some(parent) = &id.parent {
            task.parent_container_id.clone_from(&parent.value);
        }
    }
    let networks: Vec<Network> = container
        .network_infos
        .iter()
        .map(|info| Network {
            name: info.name.clone().unwrap_or_default(),
            addresses: info.ip_addresses.iter().filter_map(|address| address.ip_address.clone()).collect(),
        })
        .filter(|network| !network.addresses.is_empty() || !network.name.is_empty())
        .collect();
    if !networks.is_empty() {
        task.networks = networks;
    }
}

/// The update's own time, which must be after 1970 and before the year 10000.
fn time_ms(status: &TaskStatus) -> Option<i64> {
    let ms = status.timestamp? * 1000.0;
    #[allow(clippy::cast_possible_truncation, reason = "its range is checked")]
    (1.0..253_402_300_800_000.0).contains(&ms).then_some(ms as i64)
}

fn message(status: &TaskStatus) -> String {
    let mut text = status.message.clone().unwrap_or_default();
    if text.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Mesos tells the exit code in words only: `Command exited with status 3`.
fn exit_code(message: &str) -> Option<i32> {
    let (_, rest) = message.split_once("exited with status ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit() && c != '-').next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use podium_proto::mesos::v1::{TimeInfo, task_status};
    use proptest::prelude::*;

    use super::*;

    fn update(state: TaskState, uuid: u8) -> TaskStatus {
        TaskStatus { state: state.into(), uuid: Some(Bytes::from(vec![uuid; 16])), timestamp: Some(f64::from(uuid)), ..Default::default() }
    }

    fn from_master(state: TaskState, reason: Reason) -> TaskStatus {
        TaskStatus { state: state.into(), reason: Some(reason.into()), timestamp: Some(99.5), ..Default::default() }
    }

    fn after(updates: &[TaskStatus]) -> Task {
        let mut task = Task::default();
        for update in updates {
            apply(&mut task, update, 7);
        }
        task
    }

    fn state(task: &Task) -> TaskState {
        TaskState::try_from(task.state.unwrap()).unwrap()
    }

    /// Rows: what is recorded. Columns: what comes next, in the same order: STARTING, RUNNING, FINISHED, FAILED, KILLED, LOST,
    /// STAGING, ERROR, KILLING, DROPPED, UNREACHABLE, GONE, GONE_BY_OPERATOR, UNKNOWN. `x`: recorded, whoever says it; `a`:
    /// only if the agent says it; `.`: no news.
    const FOLLOWS: [(TaskState, &str); 14] = [
        (TaskState::TaskStarting, ".xxxxx.xxxxxxx"),
        (TaskState::TaskRunning, "..xxxx.xxxxxxx"),
        (TaskState::TaskFinished, ".............."),
        (TaskState::TaskFailed, ".............."),
        (TaskState::TaskKilled, ".............."),
        (TaskState::TaskLost, "aaaaa.aaaaaaaa"),
        (TaskState::TaskStaging, "xxxxxx.xxxxxxx"),
        (TaskState::TaskError, ".............."),
        (TaskState::TaskKilling, "..xxxx.x.xxxxx"),
        (TaskState::TaskDropped, ".............."),
        (TaskState::TaskUnreachable, "xxxxxxxxxx.xxx"),
        (TaskState::TaskGone, ".............."),
        (TaskState::TaskGoneByOperator, "aaaaaaaaaaaa.a"),
        (TaskState::TaskUnknown, "xxxxxxxxxxxxx."),
    ];

    #[test]
    fn each_state_may_follow_those_that_it_may_and_no_others() {
        for (number, (known, row)) in FOLLOWS.iter().enumerate() {
            assert_eq!(*known as usize, number, "rows in the order of the numbers");
            for (next, expected) in row.chars().enumerate() {
                let next = TaskState::try_from(i32::try_from(next).unwrap()).unwrap();
                let moves = |status: &TaskStatus| {
                    let mut task = after(&[update(*known, 1)]);
                    // Whatever the clocks say: the update that follows tells an earlier time.
                    apply(&mut task, &TaskStatus { timestamp: Some(0.5), ..status.clone() }, 9);
                    state(&task) == next && next != *known
                };
                let (agent, master) = (moves(&update(next, 2)), moves(&from_master(next, Reason::Reconciliation)));
                let seen = match (agent, master) {
                    (true, true) => 'x',
                    (true, false) => 'a',
                    (false, false) => '.',
                    (false, true) => '!',
                };
                assert_eq!(seen, expected, "{} after {}", next.as_str_name(), known.as_str_name());
            }
        }
    }

    #[test]
    fn what_an_agent_told_before_does_not_replace_what_it_told_later() {
        let told =
            |at: f64, healthy, uuid| TaskStatus { timestamp: Some(at), healthy: Some(healthy), ..update(TaskState::TaskRunning, uuid) };
        let mut task = after(&[told(10.0, true, 1), told(12.0, false, 2)]);
        assert_eq!(apply(&mut task, &told(11.0, true, 3), 99), Applied::Nothing);
        assert_eq!(task.healthy, Some(false));
        assert_eq!(apply(&mut task, &told(13.0, true, 4), 99), Applied::Changed);
        // What the master repeats has no place in the agent's order.
        let repeated =
            TaskStatus { healthy: Some(false), timestamp: Some(5.0), ..from_master(TaskState::TaskRunning, Reason::Reconciliation) };
        assert_eq!(apply(&mut task, &repeated, 99), Applied::Changed);
        assert_eq!(task.healthy, Some(false));
    }

    #[test]
    fn a_duplicate_changes_nothing() {
        let mut task = after(&[update(TaskState::TaskRunning, 1)]);
        let before = task.clone();
        assert_eq!(apply(&mut task, &update(TaskState::TaskRunning, 1), 9), Applied::Nothing);
        assert_eq!(task, before);
    }

    #[test]
    fn reconciliation_never_overwrites_an_end_nor_goes_back() {
        for end in [TaskState::TaskFinished, TaskState::TaskFailed, TaskState::TaskKilled, TaskState::TaskGoneByOperator] {
            let mut task = after(&[update(TaskState::TaskRunning, 1), update(end, 2)]);
            assert_eq!(apply(&mut task, &from_master(TaskState::TaskRunning, Reason::Reconciliation), 9), Applied::Nothing);
            assert_eq!(state(&task), end);
        }
        let mut task = after(&[update(TaskState::TaskRunning, 1)]);
        assert_eq!(apply(&mut task, &from_master(TaskState::TaskStaging, Reason::Reconciliation), 9), Applied::Nothing);
        assert_eq!(apply(&mut task, &from_master(TaskState::TaskGone, Reason::Reconciliation), 9), Applied::Changed);
    }

    #[test]
    fn an_unreachable_task_remembers_since_when_and_may_return_or_turn_out_to_have_ended() {
        let lost = TaskStatus {
            unreachable_time: Some(TimeInfo { nanoseconds: 42_000_000 }),
            ..from_master(TaskState::TaskUnreachable, Reason::AgentRemoved)
        };
        let task = after(&[update(TaskState::TaskRunning, 1), lost.clone()]);
        assert_eq!((state(&task), task.unreachable_ms, task.running_ms), (TaskState::TaskUnreachable, 42, 1000));
        let back =
            after(&[update(TaskState::TaskRunning, 1), lost.clone(), from_master(TaskState::TaskRunning, Reason::AgentReregistered)]);
        assert_eq!((state(&back), back.unreachable_ms, back.running_ms), (TaskState::TaskRunning, 0, 1000));
        // It ended while the agent was away: its own clock says before the loss.
        let ended = after(&[update(TaskState::TaskRunning, 1), lost, update(TaskState::TaskFinished, 2)]);
        assert_eq!(state(&ended), TaskState::TaskFinished);
    }

    #[test]
    fn a_gone_task_is_revived_by_its_agent_alone() {
        let mut gone = after(&[from_master(TaskState::TaskGoneByOperator, Reason::AgentRemovedByOperator)]);
        assert_eq!(apply(&mut gone, &from_master(TaskState::TaskRunning, Reason::Reconciliation), 1), Applied::Nothing);
        assert_eq!(apply(&mut gone, &update(TaskState::TaskRunning, 3), 1), Applied::Changed);
        let mut failed = after(&[update(TaskState::TaskFailed, 1)]);
        assert_eq!(apply(&mut failed, &update(TaskState::TaskRunning, 3), 1), Applied::Nothing);
    }

    #[test]
    fn health_is_kept_until_told_otherwise() {
        let healthy = TaskStatus { healthy: Some(true), ..update(TaskState::TaskRunning, 2) };
        let mut task = after(&[update(TaskState::TaskRunning, 1), healthy]);
        assert_eq!((task.healthy, task.healthy_since_ms, task.since_ms), (Some(true), 2000, 1000));
        assert_eq!(apply(&mut task, &update(TaskState::TaskKilling, 3), 1), Applied::Changed);
        assert_eq!(task.healthy, Some(true));
    }

    #[test]
    fn the_exit_code_is_read_from_the_message() {
        let ended = |state, text: &str| {
            let status = TaskStatus { message: Some(text.into()), ..update(state, 1) };
            after(&[status]).exit_code
        };
        assert_eq!(ended(TaskState::TaskFailed, "Command exited with status 3"), Some(3));
        assert_eq!(ended(TaskState::TaskFailed, "Command exited with status 127: no such file"), Some(127));
        assert_eq!(ended(TaskState::TaskFailed, "Command terminated with signal Killed"), None);
        assert_eq!(ended(TaskState::TaskFinished, ""), Some(0));
        assert_eq!(ended(TaskState::TaskFailed, "exited with status 99999999999"), None);
    }

    #[test]
    fn an_unknown_state_is_no_state() {
        let mut task = Task::default();
        assert_eq!(apply(&mut task, &TaskStatus { state: 77, ..update(TaskState::TaskRunning, 1) }, 1), Applied::Nothing);
        assert_eq!(task.state, None);
    }

    #[test]
    fn addresses_and_container_ids_survive_updates_that_lack_them() {
        let mut status = update(TaskState::TaskRunning, 1);
        let id = podium_proto::mesos::v1::ContainerId {
            value: "nested".into(),
            parent: Some(Box::new(podium_proto::mesos::v1::ContainerId { value: "executor".into(), parent: None })),
        };
        status.container_status = Some(podium_proto::mesos::v1::ContainerStatus {
            container_id: Some(id),
            network_infos: vec![podium_proto::mesos::v1::NetworkInfo {
                ip_addresses: vec![podium_proto::mesos::v1::network_info::IpAddress {
                    ip_address: Some("10.0.0.1".into()),
                    protocol: None,
                }],
                ..Default::default()
            }],
            ..Default::default()
        });
        let task = after(&[status, update(TaskState::TaskFinished, 2)]);
        assert_eq!((task.mesos_container_id.as_str(), task.parent_container_id.as_str()), ("nested", "executor"));
        assert_eq!(task.networks[0].addresses, ["10.0.0.1"]);
    }

    proptest! {
        #[test]
        fn no_order_of_updates_brings_an_ended_task_back(
            updates in proptest::collection::vec((0i32..16, proptest::option::of(1u8..6), proptest::option::of(0i32..36)), 0..12),
        ) {
            let mut task = Task::default();
            let mut ended = None;
            for (number, uuid, reason) in updates {
                let status = TaskStatus {
                    state: number,
                    uuid: uuid.map(|uuid| Bytes::from(vec![uuid; 16])),
                    reason,
                    source: Some(task_status::Source::Master.into()),
                    ..Default::default()
                };
                apply(&mut task, &status, 5);
                if let Some(ended) = ended {
                    prop_assert_eq!(task.state, Some(ended));
                }
                let last = task.state.and_then(|state| TaskState::try_from(state).ok());
                if last.is_some_and(|last| is_end(last) && !may_return(last)) {
                    ended = task.state;
                }
            }
        }
    }
}
