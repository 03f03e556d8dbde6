//! What a simulated task does, told by its labels or its environment (labels win):
//!
//! | name | meaning | default |
//! |---|---|---|
//! | `SIM_LAUNCH_MS` | from the launch to `TASK_STARTING` | 2 |
//! | `SIM_START_MS` | from `TASK_STARTING` to `TASK_RUNNING` | 10 |
//! | `SIM_RUN_MS` | from `TASK_RUNNING` to its end | runs until killed |
//! | `SIM_EXIT` | its exit code at that end: 0 is `TASK_FINISHED`, others `TASK_FAILED` | 0 |
//! | `SIM_HEALTHY` | results of its health check in turn: `true`, `false`, `kill` (the check kills it), comma-separated | `true` if it has a check |
//! | `SIM_HEALTH_MS` | before each of those results | 10 |
//! | `SIM_STOP_MS` | from a kill to its end | 5 |
//! | `SIM_IGNORE_KILL` | `true`: it ends only when its grace period has passed | `false` |
//! | `SIM_LAUNCH_FAILURE` | it never starts: `TASK_FAILED` with this message | |
//!
//! A value that can't be read counts as absent.

use std::collections::VecDeque;
use std::time::Duration;

use podium_proto::mesos::v1::TaskInfo;

/// Mesos' grace period where neither kill nor task names one.
const DEFAULT_GRACE: Duration = Duration::from_secs(3);

/// One result of a simulated health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It passed.
    Healthy,
    /// It failed.
    Unhealthy,
    /// It failed so often that the task is killed.
    Kill,
}

/// The life of a simulated task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// From the launch to STARTING.
    pub launch: Duration,
    /// From STARTING to RUNNING.
    pub start: Duration,
    /// From RUNNING to its end; for ever if absent.
    pub run: Option<Duration>,
    /// At that end.
    pub exit: i32,
    /// In turn.
    pub health: VecDeque<Health>,
    /// Before each result.
    pub health_pause: Duration,
    /// From a kill to the end.
    pub stop: Duration,
    /// It waits for the end of its grace period.
    pub ignore_kill: bool,
    /// Of its kill policy.
    pub grace: Duration,
    /// It never starts.
    pub launch_failure: Option<String>,
}

impl Script {
    /// The script of a task.
    #[must_use]
    pub fn of(task: &TaskInfo) -> Self {
        let milliseconds = |name: &str| find(task, name).and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
        let checked = task.health_check.is_some();
        let health = match find(task, "SIM_HEALTHY") {
            Some(text) => text.split(',').filter_map(health).collect(),
            None if checked => VecDeque::from([Health::Healthy]),
            None => VecDeque::new(),
        };
        let policy = task.kill_policy.as_ref().and_then(|policy| policy.grace_period);
        Self {
            launch: milliseconds("SIM_LAUNCH_MS").unwrap_or(Duration::from_millis(2)),
            start: milliseconds("SIM_START_MS").unwrap_or(Duration::from_millis(10)),
            run: milliseconds("SIM_RUN_MS"),
            exit: find(task, "SIM_EXIT").and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            health,
            health_pause: milliseconds("SIM_HEALTH_MS").unwrap_or(Duration::from_millis(10)),
            stop: milliseconds("SIM_STOP_MS").unwrap_or(Duration::from_millis(5)),
            ignore_kill: find(task, "SIM_IGNORE_KILL").is_some_and(|text| text.trim() == "true"),
            grace: policy.map_or(DEFAULT_GRACE, grace),
            launch_failure: find(task, "SIM_LAUNCH_FAILURE").map(str::to_owned),
        }
    }
}

/// A duration of the wire; negative ones never pass the master.
#[must_use]
pub fn grace(duration: podium_proto::mesos::v1::DurationInfo) -> Duration {
    Duration::from_nanos(u64::try_from(duration.nanoseconds).unwrap_or_default())
}

fn health(text: &str) -> Option<Health> {
    match text.trim() {
        "true" => Some(Health::Healthy),
        "false" => Some(Health::Unhealthy),
        "kill" => Some(Health::Kill),
        _ => None,
    }
}

fn find<'a>(task: &'a TaskInfo, name: &str) -> Option<&'a str> {
    let labels = task.labels.iter().flat_map(|labels| &labels.labels);
    let label = labels.filter(|label| label.key == name).find_map(|label| label.value.as_deref());
    let environment = task.command.iter().filter_map(|command| command.environment.as_ref()).flat_map(|environment| &environment.variables);
    label.or_else(|| environment.filter(|variable| variable.name == name).find_map(|variable| variable.value.as_deref()))
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::{CommandInfo, Environment, Label, Labels, environment};

    use super::*;

    #[test]
    fn labels_win_over_the_environment_and_nonsense_counts_as_absent() {
        let variable =
            |name: &str, value: &str| environment::Variable { name: name.to_owned(), value: Some(value.to_owned()), ..Default::default() };
        let task = TaskInfo {
            labels: Some(Labels { labels: vec![Label { key: "SIM_RUN_MS".to_owned(), value: Some("7".to_owned()) }] }),
            command: Some(CommandInfo {
                environment: Some(Environment {
                    variables: vec![variable("SIM_RUN_MS", "9"), variable("SIM_EXIT", "3"), variable("SIM_START_MS", "soon")],
                }),
                ..CommandInfo::default()
            }),
            ..TaskInfo::default()
        };
        let script = Script::of(&task);
        assert_eq!((script.run, script.exit, script.start), (Some(Duration::from_millis(7)), 3, Duration::from_millis(10)));
        assert!(script.health.is_empty());
    }
}
