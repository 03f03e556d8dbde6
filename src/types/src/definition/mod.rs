//! The pod definition in its canonical form: every default filled in, enums in their canonical spelling.
//!
//! A value of [`PodDefinition`] has been read and normalised, and is what is stored, answered and launched.
//! It serializes to the documents' explicit form: every field present, `null`, `[]` or `{}` where empty.
//! Sources: the user's documents, then Marathon (reference sections 1.3 to 1.11).
//!
//! ```text
//! bytes --read--> PodDefinition + warnings      (read: structure, rules, defaults; every violation at once)
//! PodDefinition --Serialize--> explicit form    (write; read_stored gives the same value back)
//! old, new --config_changed--> Change           (change)
//! ```

mod change;
mod document;
mod nearest;
mod read;
mod rules;
pub mod schema;
mod walk;
mod words;
mod write;

pub use change::{Change, config_changed, update_violations};
pub use read::{MAX_BYTES, ReadError, Reading, Settings, Stage, Violation, Warning, read, read_as, read_stored};
pub use walk::MAX_OBJECTS;

use std::collections::BTreeMap;

use crate::id::{PodId, Version};

/// A pod: containers that are launched together on one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct PodDefinition {
    /// `/web/frontend`.
    pub id: PodId,
    /// When this definition was accepted; `None` until then.
    pub version: Option<Version>,
    /// The account that containers run as, unless they name their own.
    pub user: Option<String>,
    /// Metadata of the pod.
    pub labels: BTreeMap<String, String>,
    /// Inherited by every container.
    pub environment: BTreeMap<String, EnvironmentValue>,
    /// At least one; names are unique.
    pub containers: Vec<Container>,
    /// Secrets that environment, volumes and images refer to by name.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Volumes that containers mount by name.
    pub volumes: Vec<Volume>,
    /// Empty means: the host's network.
    pub networks: Vec<Network>,
    /// How many instances.
    pub scaling: Scaling,
    /// When, where and how fast.
    pub scheduling: Scheduling,
    /// What the executor itself takes.
    pub executor_resources: ExecutorResources,
    /// The Mesos role; `None` means the server's default role.
    pub role: Option<String>,
    /// Only `ipc_info` is legal here.
    pub linux_info: Option<LinuxInfo>,
    /// `Some(true)` or `None`.
    pub legacy_shared_cgroups: Option<bool>,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Unique in the pod; `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, at most 63 characters.
    pub name: String,
    /// `None`: the image's own entry point.
    pub exec: Option<Exec>,
    /// What it takes of the agent.
    pub resources: Resources,
    /// Upper bounds beyond `resources`.
    pub resource_limits: Option<ResourceLimits>,
    /// Ports it listens on.
    pub endpoints: Vec<Endpoint>,
    /// `None`: no image, the agent's own file system.
    pub image: Option<Image>,
    /// Overrides the pod's.
    pub environment: BTreeMap<String, EnvironmentValue>,
    /// Overrides the pod's.
    pub user: Option<String>,
    /// Mesos performs it.
    pub health_check: Option<HealthCheck>,
    /// Where the pod's volumes appear.
    pub volume_mounts: Vec<VolumeMount>,
    /// Files fetched into the sandbox before the start.
    pub artifacts: Vec<Artifact>,
    /// Metadata of the container.
    pub labels: BTreeMap<String, String>,
    /// How it ends.
    pub lifecycle: Option<Lifecycle>,
    /// Seccomp and IPC.
    pub linux_info: Option<LinuxInfo>,
    /// Whether it gets a terminal.
    pub tty: Option<bool>,
}

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentValue {
    /// As it stands.
    Text(String),
    /// The name of one of the pod's secrets.
    Secret(String),
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// The path in the secret store.
    pub source: String,
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The command.
    pub command: Command,
    /// As given; effective with an argument list only.
    pub override_entrypoint: Option<bool>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Given to `/bin/sh -c`; empty means the image's own entry point.
    Shell(String),
    /// The argument list, program first; never empty.
    Argv(Vec<String>),
}

/// Resources of one container. Memory and disk in MiB.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    /// CPU shares.
    pub cpus: f64,
    /// MiB.
    pub mem: f64,
    /// MiB.
    pub disk: f64,
    /// Whole devices.
    pub gpus: u32,
}

/// Resources of the executor. Memory and disk in MiB.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorResources {
    /// At least 0.1.
    pub cpus: f64,
    /// At least 32.
    pub mem: f64,
    /// At least 10.
    pub disk: f64,
}

/// Upper bounds of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceLimits {
    /// CPU shares.
    pub cpus: Option<Limit>,
    /// MiB.
    pub mem: Option<Limit>,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// At most this much.
    Amount(f64),
    /// `"unlimited"`.
    Unlimited,
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique in the pod.
    pub name: String,
    /// Required with container networks.
    pub container_port: Option<u16>,
    /// 0: any port of the offer; `None`: no host port.
    pub host_port: Option<u16>,
    /// `tcp`, `udp`, `http`, …: free text, as given.
    pub protocol: Vec<String>,
    /// Metadata for discovery.
    pub labels: BTreeMap<String, String>,
    /// Which of several container networks; empty: all.
    pub network_names: Vec<String>,
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its format.
    pub kind: ImageKind,
    /// Its name.
    pub id: String,
    /// Names the secret with the registry's credentials.
    pub pull_config: Option<String>,
    /// Pull even when cached.
    pub force_pull: Option<bool>,
    /// For APPC images.
    pub labels: BTreeMap<String, String>,
}

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// `DOCKER`.
    Docker,
    /// `APPC`.
    Appc,
}

/// A health check, performed by Mesos. All times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Failures in this time after the start are ignored.
    pub grace_period_seconds: u32,
    /// Between the end of a probe and the next.
    pub interval_seconds: u32,
    /// As many in a row kill the container.
    pub max_consecutive_failures: u32,
    /// A probe that takes longer has failed; less than the interval.
    pub timeout_seconds: u32,
    /// Before the first probe.
    pub delay_seconds: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET whose answer is below 400.
    Http {
        /// An endpoint of the same container.
        endpoint: String,
        /// `/ping`.
        path: Option<String>,
        /// `HTTP` or `HTTPS`.
        scheme: HttpScheme,
    },
    /// A connection.
    Tcp {
        /// An endpoint of the same container.
        endpoint: String,
    },
    /// A command that exits with 0.
    Exec {
        /// The command.
        command: Command,
    },
}

/// The scheme of an HTTP health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpScheme {
    /// `HTTP`.
    Http,
    /// `HTTPS`.
    Https,
}

/// A volume of the pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Unique in the pod.
    pub name: String,
    /// What stands behind it.
    pub source: VolumeSource,
}

/// What stands behind a volume.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeSource {
    /// A directory shared by the containers of one instance, gone with it.
    Ephemeral,
    /// A path of the agent, or one relative to the executor's sandbox.
    Host(String),
    /// The name of one of the pod's secrets.
    Secret(String),
    /// Disk that outlives the instance.
    Persistent(PersistentVolume),
}

impl PodDefinition {
    /// The volumes that outlive instances, by name.
    pub fn persistent_volumes(&self) -> impl Iterator<Item = (&str, &PersistentVolume)> {
        self.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::Persistent(persistent) => Some((volume.name.as_str(), persistent)),
            VolumeSource::Ephemeral | VolumeSource::Host(_) | VolumeSource::Secret(_) => None,
        })
    }

    /// Whether instances have volumes that outlive them: they stay where their disks are.
    pub fn is_resident(&self) -> bool {
        self.persistent_volumes().next().is_some()
    }
}

/// Disk that outlives the instance. Sizes in MiB.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PersistentVolume {
    /// `root`, `path` or `mount`.
    pub kind: PersistentKind,
    /// MiB.
    pub size: u64,
    /// MiB.
    pub max_size: Option<u64>,
    /// The disk profile asked for.
    pub profile_name: Option<String>,
    /// Regular expressions that the disk's path must match (`["path", "LIKE", …]`).
    pub path_like: Vec<String>,
}

/// The kind of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PersistentKind {
    /// The agent's own disk.
    Root,
    /// A directory given to Mesos.
    Path,
    /// A whole mount.
    Mount,
}

/// Where a volume appears in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
    /// Relative to the container's sandbox, or absolute.
    pub mount_path: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// A file fetched into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where from.
    pub uri: String,
    /// Unpack it if it is an archive.
    pub extract: bool,
    /// Make it executable.
    pub executable: bool,
    /// Keep it in the agent's cache.
    pub cache: bool,
    /// Its name in the sandbox.
    pub dest_path: Option<String>,
}

/// A network that the pod joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Of a container network only.
    pub name: Option<String>,
    /// How.
    pub mode: NetworkMode,
    /// For the network's driver.
    pub labels: BTreeMap<String, String>,
}

/// How a pod joins a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// `container`: an address of its own on a named network.
    Container,
    /// `container/bridge`.
    Bridge,
    /// `host`.
    Host,
}

/// How many instances; the kind is always `fixed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// Wanted now.
    pub instances: u32,
    /// Enforced upper bound of `instances`.
    pub max_instances: Option<u32>,
}

/// When, where and how fast instances are launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduling {
    /// The pace of relaunches.
    pub backoff: Backoff,
    /// How a new version replaces the old.
    pub upgrade: Upgrade,
    /// Where instances may run.
    pub placement: Placement,
    /// Who goes first when there are too many.
    pub kill_selection: KillSelection,
    /// What becomes of instances on lost agents.
    pub unreachable_strategy: UnreachableStrategy,
}

/// The pace of relaunches. Times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// After the first failure.
    pub backoff: f64,
    /// Each further failure multiplies by this.
    pub backoff_factor: f64,
    /// Upper bound.
    pub max_launch_delay: f64,
}

/// How a new version replaces the old. Both are shares of the instance count, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Upgrade {
    /// Healthy instances that must remain.
    pub minimum_health_capacity: f64,
    /// Instances beyond the count.
    pub maximum_over_capacity: f64,
}

/// Where instances may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// Empty: the server's default.
    pub accepted_resource_roles: Vec<String>,
}

/// One rule of placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// `hostname`, `@region`, `@zone` or an agent's attribute.
    pub field_name: String,
    /// What is asked of it.
    pub operator: Operator,
    /// The operator's operand.
    pub value: Option<String>,
}

/// The operators of constraints (reference section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// No two instances share the value.
    Unique,
    /// All instances share the value.
    Cluster,
    /// Evenly over the values.
    GroupBy,
    /// The value matches a regular expression.
    Like,
    /// The value does not match.
    Unlike,
    /// At most so many instances a value.
    MaxPer,
    /// Equal.
    Is,
}

/// Who goes first when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillSelection {
    /// `YOUNGEST_FIRST`.
    YoungestFirst,
    /// `OLDEST_FIRST`.
    OldestFirst,
}

/// What becomes of instances on lost agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableStrategy {
    /// `"disabled"`: they are waited for, for ever.
    Disabled,
    /// Counted from the agent's loss.
    After {
        /// Seconds until a replacement is launched.
        inactive_after_seconds: u64,
        /// Seconds until it is given up.
        expunge_after_seconds: u64,
    },
}

/// Linux settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxInfo {
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// IPC namespace.
    pub ipc_info: Option<IpcInfo>,
}

/// System call filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seccomp {
    /// A profile of the agent.
    pub profile_name: Option<String>,
    /// No filter.
    pub unconfined: bool,
}

/// IPC namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpcInfo {
    /// Own or shared.
    pub mode: IpcMode,
    /// Size of /dev/shm in MiB.
    pub shm_size: Option<u32>,
}

/// Own or shared IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpcMode {
    /// `PRIVATE`.
    Private,
    /// `SHARE_PARENT`.
    ShareParent,
}

/// How a container ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifecycle {
    /// Between SIGTERM and SIGKILL; `None`: Mesos' own.
    pub kill_grace_period_seconds: Option<f64>,
}
