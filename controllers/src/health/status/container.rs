//! One container of an instance (reference section 3.4).

use std::borrow::Cow;

use podium_proto::mesos::v1::TaskState;
use podium_proto::records::{Observed, observed};
use podium_types::condition::{self, Condition};
use podium_types::definition::{Container, PodDefinition, Probe};
use podium_types::id::Version;
use schemars::JsonSchema;
use serde::Serialize;

use super::Amounts;
use crate::health::words;

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Mesos' word for the state of its task.
    pub status: String,
    /// When it began to run, else when it was launched.
    pub status_since: Version,
    /// When anything about it last changed.
    pub last_updated: Version,
    /// As `last_updated`.
    pub last_changed: Version,
    /// The task id, while the task is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Its ports, while the task is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,
    /// Its health, if it is checked and runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCondition>,
    /// What it takes, while the task is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Amounts>,
    /// What Mesos last said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination: Option<Terminated>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// The agent's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_host_port: Option<u32>,
    /// What its health check said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}

/// A condition of a container or an instance. Of a container there is one at most: `healthy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    /// `healthy`; of an instance also `launched`, `running`, `reachable` or `recorded`.
    pub name: &'static str,
    /// `true` or `false`, as text.
    pub value: &'static str,
    /// Of a container whether Mesos reported it, of an instance why it is not so, in words.
    pub reason: Cow<'static, str>,
    /// When it changed.
    pub last_changed: Version,
    /// As `last_changed`.
    pub last_updated: Version,
}

impl StatusCondition {
    /// Something that is not as it should be.
    pub(super) fn lacking(name: &'static str, reason: String, since: Version) -> Self {
        Self { name, value: "false", reason: reason.into(), last_changed: since, last_updated: since }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    /// Its exit code, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Terminated {
    /// `None` if nothing is known.
    pub(super) fn of(exit_code: Option<i32>, message: &str) -> Option<Self> {
        let message = Some(words::short(message)).filter(|message| !message.is_empty());
        (exit_code.is_some() || message.is_some()).then_some(Self { exit_code, message })
    }
}

/// All containers that were observed, in the definition's order.
pub(super) fn all(observed: &Observed, definition: Option<&PodDefinition>) -> Vec<ContainerStatus> {
    let containers = definition.map(|definition| definition.containers.as_slice()).unwrap_or_default();
    let place = |task: &&observed::Task| containers.iter().position(|container| container.name == task.container).unwrap_or(usize::MAX);
    let mut tasks: Vec<&observed::Task> = observed.tasks.iter().collect();
    tasks.sort_by_key(place);
    tasks.into_iter().map(|task| status(observed, task, containers.iter().find(|container| container.name == task.container))).collect()
}

fn status(observed: &Observed, task: &observed::Task, definition: Option<&Container>) -> ContainerStatus {
    let condition = condition::of_task(task);
    let ended = condition.is_terminal();
    let there = !ended && condition != Condition::Unknown;
    // Before anything was heard, Mesos would say that it is on its way.
    let state = task.state.map_or(TaskState::TaskStaging, |state| TaskState::try_from(state).unwrap_or(TaskState::TaskUnknown));
    let since = if task.running_ms > 0 { task.running_ms } else { observed.provisioned_ms };
    let changed = Version::from_millis(since.max(task.since_ms).max(task.healthy_since_ms));
    ContainerStatus {
        name: task.container.clone(),
        status: state.as_str_name().to_owned(),
        status_since: Version::from_millis(since),
        last_updated: changed,
        last_changed: changed,
        container_id: there.then(|| task.task_id.clone()),
        endpoints: definition.filter(|_| there).map(|container| endpoints(task, container)).unwrap_or_default(),
        conditions: definition.filter(|container| container.health_check.is_some()).and_then(|_| health(task)).into_iter().collect(),
        resources: definition.filter(|_| there && condition != Condition::Provisioned).map(|container| {
            let resources = &container.resources;
            Amounts { cpus: resources.cpus, mem: resources.mem, disk: resources.disk, gpus: resources.gpus }
        }),
        message: Some(words::short(&task.message)).filter(|message| !message.is_empty()),
        termination: ended.then(|| Terminated::of(task.exit_code, &task.message)).flatten(),
    }
}

fn endpoints(task: &observed::Task, container: &Container) -> Vec<EndpointStatus> {
    let checked = container.health_check.as_ref().and_then(|check| match &check.probe {
        Probe::Http { endpoint, .. } | Probe::Tcp { endpoint } => Some(endpoint),
        Probe::Exec { .. } => None,
    });
    let endpoints = container.endpoints.iter().enumerate();
    endpoints
        .map(|(index, endpoint)| EndpointStatus {
            name: endpoint.name.clone(),
            allocated_host_port: task.host_ports.get(index).copied().filter(|port| *port > 0),
            healthy: task.healthy.filter(|_| checked == Some(&endpoint.name)),
        })
        .collect()
}

/// The health of a checked container that runs or is away.
fn health(task: &observed::Task) -> Option<StatusCondition> {
    let condition = condition::of_task(task);
    if !matches!(condition, Condition::Running | Condition::Unreachable | Condition::Killing) {
        return None;
    }
    let (value, reason, changed_ms) = match task.healthy {
        Some(true) => ("true", "health-reported-by-mesos", task.healthy_since_ms),
        Some(false) => ("false", "health-reported-by-mesos", task.healthy_since_ms),
        None => ("false", "health-unreported-by-mesos", task.running_ms),
    };
    let changed = Version::from_millis(changed_ms.max(task.running_ms));
    Some(StatusCondition { name: "healthy", value, reason: reason.into(), last_changed: changed, last_updated: changed })
}
