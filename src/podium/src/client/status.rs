//! The parts of a pod's status that the commands look at, read leniently: a newer server may say more.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::terminal::Tone;

/// What `::status` answers of one pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// The pod.
    pub id: String,
    /// The definition in force.
    pub spec: Spec,
    /// `STABLE`, `DEGRADED`, `TERMINAL`.
    pub status: String,
    /// Why it is not stable, in words.
    pub message: Option<String>,
    /// Since when.
    pub status_since: Option<String>,
    /// The server's time of the answer.
    pub last_updated: Option<String>,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
    /// What ended lately.
    pub termination_history: Vec<Termination>,
}

/// The parts of the definition that are shown.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The version in force.
    pub version: Option<String>,
    /// How many.
    pub scaling: Scaling,
    /// Their names.
    pub containers: Vec<ContainerSpec>,
}

/// The part of a container's definition that is shown.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
}

/// How many.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Scaling {
    /// Wanted.
    pub instances: u64,
}

/// One instance.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    /// Its id.
    pub id: String,
    /// `PENDING`, `STAGING`, `STABLE`, `DEGRADED`, `TERMINAL`.
    pub status: String,
    /// Since when.
    pub status_since: Option<String>,
    /// Why, in words.
    pub message: Option<String>,
    /// Where it runs.
    pub agent_hostname: Option<String>,
    /// Its containers.
    pub containers: Vec<ContainerStatus>,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Mesos' word.
    pub status: String,
    /// Why, in words.
    pub message: Option<String>,
    /// Its ports.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// The agent's port.
    pub allocated_host_port: Option<u16>,
}

/// An instance's end.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Termination {
    /// Whose; with Marathon's capital D.
    #[serde(rename = "instanceID")]
    pub instance_id: String,
    /// When it began.
    pub started_at: Option<String>,
    /// When it ended.
    pub terminated_at: Option<String>,
    /// Why, in words.
    pub message: Option<String>,
    /// How each container ended.
    pub containers: Vec<ContainerEnd>,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerEnd {
    /// Its task.
    pub container_id: String,
    /// `TaskFailed`, ….
    pub last_known_state: String,
    /// Why, in words.
    pub message: Option<String>,
    /// How its process ended.
    pub termination: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exit {
    /// Its exit code.
    pub exit_code: Option<i64>,
    /// Why, in words.
    pub message: Option<String>,
}

/// A definition that was put into the store and refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The pod, or what was meant to be one's id.
    pub id: String,
    /// What is in force instead.
    pub version: Option<String>,
    /// What is wrong with it.
    pub errors: Vec<Violation>,
}

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Violation {
    /// Where.
    pub path: String,
    /// What.
    pub message: String,
}

impl Refused {
    /// The first error, and how many more there are.
    pub fn reason(&self) -> String {
        let first = self.errors.first().map(|error| format!("{}: {}", error.path, error.message)).unwrap_or_default();
        match self.errors.len().saturating_sub(1) {
            0 => first,
            more => format!("{first} (and {more} more)"),
        }
    }
}

/// A running deployment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    /// Its id.
    pub id: String,
    /// The version that it brings about.
    pub version: String,
    /// Always one pod here.
    pub affected_pods: Vec<String>,
    /// What it does now.
    pub current_actions: Vec<Value>,
    /// From 1; 0: not begun.
    pub current_step: u64,
    /// How many there are.
    pub total_steps: u64,
}

impl PodStatus {
    /// How many instances are stable.
    pub fn stable(&self) -> usize {
        self.instances.iter().filter(|instance| instance.status == "STABLE").count()
    }

    /// How many instances are stable, and how many are wanted.
    pub fn count(&self) -> String {
        match (self.stable(), self.spec.scaling.instances) {
            (stable, wanted) if stable as u64 > wanted => format!("{stable} instances stable, {wanted} wanted"),
            (stable, wanted) => format!("{stable} of {wanted} instances stable"),
        }
    }

    /// How long nothing has changed, by the server's own clock; `None`: it does not say.
    pub fn stable_for(&self) -> Option<Duration> {
        let time = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
        let passed = time(&self.last_updated)?.as_millisecond() - time(&self.status_since)?.as_millisecond();
        Some(Duration::from_millis(u64::try_from(passed).unwrap_or(0)))
    }

    /// Why it is not stable, in the best words there are.
    pub fn reason(&self) -> Option<String> {
        let own = self.message.clone().filter(|message| !message.is_empty());
        own.or_else(|| self.instances.iter().filter(|instance| instance.status != "STABLE").find_map(InstanceStatus::reason))
            .or_else(|| self.termination_history.last().filter(|_| self.status != "STABLE").map(Termination::reason))
    }
}

impl InstanceStatus {
    /// Why it is not stable.
    pub fn reason(&self) -> Option<String> {
        let own = self.message.clone().filter(|message| !message.is_empty());
        own.or_else(|| {
            self.containers.iter().find_map(|container| {
                let message = container.message.as_deref().filter(|message| !message.is_empty())?;
                Some(format!("container {}: {message}", container.name))
            })
        })
    }
}

impl Termination {
    /// Why it ended, naming the container at fault where that is known.
    pub fn reason(&self) -> String {
        let culprit = self
            .containers
            .iter()
            .find(|container| !matches!(container.last_known_state.as_str(), "TaskKilled" | "TaskFinished" | "TaskRunning"))
            .or(self.containers.first());
        let own = self.message.as_deref().filter(|message| !message.is_empty());
        let Some(culprit) = culprit else { return own.unwrap_or("it ended").to_owned() };
        // The second last part of a task id is the container's name.
        let name = culprit.container_id.rsplit('.').nth(1).unwrap_or(&culprit.container_id);
        let mut text = format!("container {name}: {}", culprit.last_known_state);
        let exit = culprit.termination.as_ref();
        if let Some(code) = exit.and_then(|exit| exit.exit_code) {
            text.push_str(&format!(", exit code {code}"));
        }
        let words = culprit.message.as_deref().or(exit.and_then(|exit| exit.message.as_deref())).filter(|words| !words.is_empty()).or(own);
        if let Some(words) = words {
            text.push_str(&format!(": {words}"));
        }
        text
    }
}

/// What a status word means.
pub fn tone(status: &str) -> Option<Tone> {
    match status {
        "STABLE" | "TASK_RUNNING" => Some(Tone::Good),
        "DEGRADED" | "PENDING" | "STAGING" | "TASK_STAGING" | "TASK_STARTING" | "TASK_KILLING" => Some(Tone::Uneasy),
        "TERMINAL" | "TASK_FINISHED" | "TASK_KILLED" => Some(Tone::Faint),
        "REFUSED" | "TASK_FAILED" | "TASK_ERROR" | "TASK_LOST" | "TASK_UNREACHABLE" | "TASK_DROPPED" | "TASK_GONE" => Some(Tone::Bad),
        _ => None,
    }
}
