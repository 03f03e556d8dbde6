//! Turns one instance of a pod, with the resources that an offer gives it, into what Mesos launches: an
//! executor and its task group. A pure function; the gateway calls it when it accepts offers.
//!
//! Rules: the reference's section 4 (launching a pod instance), field by field.

mod container;
mod environment;
mod network;

use podium_proto::mesos::v1;
use podium_types::definition::{Container, PersistentKind, PersistentVolume, PodDefinition};
use podium_types::id::{InstanceId, Version};

use crate::matching::admits_no_path;
use crate::secret::SecretValues;

/// Labels by which a task is recognised when its records are lost.
pub mod label {
    /// The pod's id.
    pub const POD: &str = "podium.pod";
    /// The version that the instance was launched from.
    pub const CONFIG: &str = "podium.config";
    /// Which launch of the instance.
    pub const INCARNATION: &str = "podium.incarnation";
    /// The store that the instance belongs to.
    pub const CLUSTER: &str = "podium.cluster";
    /// The store's revision when the launch was decided.
    pub const REVISION: &str = "podium.revision";
}

/// Seconds that an executor may take beyond its slowest container before the agent ends it.
const SHUTDOWN_MARGIN_SECONDS: f64 = 5.0;

/// Mesos' own grace between SIGTERM and SIGKILL.
const DEFAULT_KILL_GRACE_SECONDS: f64 = 3.0;

/// Why an instance cannot be launched as it is defined. Trying again changes nothing until someone acts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A secret has no value.
    #[error("secret `{name}` has no value: there is no file `{source_path}` below --secrets-dir")]
    Secret {
        /// As the definition names it.
        name: String,
        /// Where it was looked for.
        source_path: String,
    },
    /// A container network without a name, and no default.
    #[error("network {index} has no name, and there is no --default-network-name")]
    NetworkName {
        /// Position in the definition.
        index: usize,
    },
    /// An endpoint that is checked or mapped has no port that could be.
    #[error("endpoint `{endpoint}` of container `{container}` has no {what}")]
    Port {
        /// The container.
        container: String,
        /// Its endpoint.
        endpoint: String,
        /// Which port is missing.
        what: &'static str,
    },
    /// A persistent volume of which there can be none.
    #[error("persistent volume `{volume}`: {why}")]
    Persistent {
        /// Its name.
        volume: String,
        /// Why not.
        why: &'static str,
    },
    /// The definition, or what was packed for it, contradicts itself.
    #[error("{0}")]
    Inconsistent(String),
}

/// What the server adds to every pod.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For container networks without a name.
    pub default_network_name: Option<String>,
    /// Name of the CNI network that stands for `container/bridge`.
    pub bridge_name: String,
    /// Stands before the endpoint variables.
    pub env_vars_prefix: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { default_network_name: None, bridge_name: "mesos-bridge".to_owned(), env_vars_prefix: None }
    }
}

/// Where an instance goes and what it gets there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// The agent.
    pub agent_id: String,
    /// Its name.
    pub hostname: String,
    /// For each container, for each of its endpoints, the host port.
    pub host_ports: Vec<Vec<Option<u16>>>,
    /// For the executor: its own, all host ports of the pod, and the persistent volumes.
    pub executor_resources: Vec<v1::Resource>,
    /// For each container.
    pub task_resources: Vec<Vec<v1::Resource>>,
}

/// Whose launch this is.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// The framework that launches.
    pub framework_id: &'a str,
    /// The store.
    pub cluster_id: &'a str,
    /// The store's revision when the launch was decided.
    pub revision: i64,
    /// The version that the instance is launched from.
    pub config: Version,
}

/// Everything that a task group is made of.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// What to run.
    pub definition: &'a PodDefinition,
    /// Which instance.
    pub instance: &'a InstanceId,
    /// Which launch of it.
    pub incarnation: u32,
    /// Where.
    pub placement: &'a Placement,
    /// For whom.
    pub identity: Identity<'a>,
    /// The server's.
    pub settings: &'a Settings,
    /// Values by source.
    pub secrets: &'a SecretValues,
}

/// Builds the executor and the task group of one instance.
///
/// # Errors
/// [`BuildError`]; the instance then cannot run and people must be told.
pub fn build(launch: &Launch<'_>) -> Result<(v1::ExecutorInfo, v1::TaskGroupInfo), BuildError> {
    let definition = launch.definition;
    let resources = &launch.placement.task_resources;
    if resources.len() != definition.containers.len() || launch.placement.host_ports.len() != definition.containers.len() {
        return Err(BuildError::Inconsistent("what was packed does not fit the definition's containers".to_owned()));
    }
    for (name, volume) in definition.persistent_volumes() {
        check_volume(name, volume)?;
    }
    let tasks = definition.containers.iter().enumerate().zip(resources);
    let tasks = tasks.map(|((index, container), resources)| task(launch, index, container, resources)).collect::<Result<_, _>>()?;
    Ok((executor(launch)?, v1::TaskGroupInfo { tasks }))
}

/// Whether there can be such a volume: it becomes a folder of its name in the executor's sandbox.
fn check_volume(name: &str, volume: &PersistentVolume) -> Result<(), BuildError> {
    let is_root = volume.kind == PersistentKind::Root;
    let why = if is_root && volume.profile_name.is_some() {
        "an agent's own disk (type `root`) has no profile: ask for the type `path` or `mount`"
    } else if is_root && !admits_no_path(volume) {
        "an agent's own disk (type `root`) has no path that could match: ask for the type `path` or `mount`"
    } else if matches!(name, "." | "..") || name.contains(['/', '\0']) {
        "its name becomes that of a folder, which this cannot be"
    } else {
        return Ok(());
    };
    Err(BuildError::Persistent { volume: name.to_owned(), why })
}

fn executor(launch: &Launch<'_>) -> Result<v1::ExecutorInfo, BuildError> {
    let definition = launch.definition;
    let longest_grace = definition.containers.iter().map(kill_grace_seconds).fold(DEFAULT_KILL_GRACE_SECONDS, f64::max);
    let linux = container::linux_info(definition, definition.linux_info.as_ref());
    let linux_info = v1::LinuxInfo {
        // An executor must not say that it shares its cgroups; unset means the same.
        share_cgroups: linux.share_cgroups.filter(|shared| !shared),
        ..linux
    };
    Ok(v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Default.into()),
        executor_id: v1::ExecutorId { value: launch.instance.executor_id(launch.incarnation) },
        framework_id: Some(v1::FrameworkId { value: launch.identity.framework_id.to_owned() }),
        resources: launch.placement.executor_resources.clone(),
        labels: Some(labels(&definition.labels, launch)),
        shutdown_grace_period: Some(duration(longest_grace + SHUTDOWN_MARGIN_SECONDS)),
        container: Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos.into(),
            network_infos: network::infos(launch)?,
            linux_info: Some(linux_info),
            ..v1::ContainerInfo::default()
        }),
        ..v1::ExecutorInfo::default()
    })
}

fn task(launch: &Launch<'_>, index: usize, container: &Container, resources: &[v1::Resource]) -> Result<v1::TaskInfo, BuildError> {
    let grace = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.kill_grace_period_seconds);
    Ok(v1::TaskInfo {
        name: container.name.clone(),
        task_id: v1::TaskId { value: launch.instance.task_id(&container.name, launch.incarnation).to_string() },
        agent_id: v1::AgentId { value: launch.placement.agent_id.clone() },
        resources: resources.to_vec(),
        limits: container::limits(container),
        labels: Some(labels(&container.labels, launch)),
        command: Some(container::command(launch, container)?),
        container: Some(container::container_info(launch, container)?),
        health_check: network::health_check(launch, index, container)?,
        kill_policy: grace.map(|grace| v1::KillPolicy { grace_period: Some(duration(grace)) }),
        discovery: Some(network::discovery(launch, index, container)?),
        ..v1::TaskInfo::default()
    })
}

fn kill_grace_seconds(container: &Container) -> f64 {
    container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.kill_grace_period_seconds).unwrap_or(DEFAULT_KILL_GRACE_SECONDS)
}

/// Seconds as Mesos wants them; what is negative, not a number or over 200 years is cut to that range.
fn duration(seconds: f64) -> v1::DurationInfo {
    let nanoseconds = (seconds * 1e9).clamp(0.0, 6.3e18);
    #[allow(clippy::cast_possible_truncation)] // clamped; NaN becomes 0
    v1::DurationInfo { nanoseconds: nanoseconds as i64 }
}

fn labels<'a>(own: impl IntoIterator<Item = (&'a String, &'a String)>, launch: &Launch<'_>) -> v1::Labels {
    let identity = &launch.identity;
    let ours = [
        (label::POD, launch.definition.id.to_string()),
        (label::CONFIG, identity.config.to_string()),
        (label::INCARNATION, launch.incarnation.to_string()),
        (label::CLUSTER, identity.cluster_id.to_owned()),
        (label::REVISION, identity.revision.to_string()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.clone(), value.clone()));
    // A definition cannot pass itself off as another store's.
    let own = own.filter(|(key, _)| !ours.iter().any(|(ours, _)| ours == key));
    let ours = ours.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    v1::Labels { labels: own.chain(ours).map(|(key, value)| v1::Label { key, value: Some(value) }).collect() }
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
