//! The explicit form of a definition: every field present, `null`, `[]` or `{}` where empty, integral
//! numbers without a fraction. The shape is the sample answer of the documents; what this writes,
//! [`super::read`] reads back unchanged.

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::*;

/// A number as people write it: `32`, not `32.0`.
struct Number(f64);

/// Up to here every integral double is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < EXACT {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

/// Writes a struct member by member, in the order given.
macro_rules! explicit {
    ($kind:ty, $name:literal, $self:ident => { $($member:literal: $value:expr),+ $(,)? }) => {
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $self = self;
                let members = [$($member),+].len();
                let mut object = serializer.serialize_struct($name, members)?;
                $(object.serialize_field($member, &$value)?;)+
                object.end()
            }
        }
    };
}

explicit!(PodDefinition, "Pod", pod => {
    "id": pod.id,
    "version": pod.version,
    "role": pod.role,
    "user": pod.user,
    "labels": pod.labels,
    "environment": pod.environment,
    "containers": pod.containers,
    "secrets": pod.secrets,
    "volumes": pod.volumes,
    "networks": pod.networks,
    "scaling": pod.scaling,
    "scheduling": pod.scheduling,
    "executorResources": pod.executor_resources,
    "linuxInfo": pod.linux_info,
    "legacySharedCgroups": pod.legacy_shared_cgroups,
});

explicit!(Container, "Container", container => {
    "name": container.name,
    "exec": container.exec,
    "resources": container.resources,
    "resourceLimits": container.resource_limits,
    "endpoints": container.endpoints,
    "image": container.image,
    "environment": container.environment,
    "user": container.user,
    "healthCheck": container.health_check,
    "volumeMounts": container.volume_mounts,
    "artifacts": container.artifacts,
    "labels": container.labels,
    "lifecycle": container.lifecycle,
    "linuxInfo": container.linux_info,
    "tty": container.tty,
});

impl Serialize for EnvironmentValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Secret(name) => member("secret", name, serializer),
        }
    }
}

/// An object with one member.
fn member<S: Serializer>(name: &str, value: &(impl Serialize + ?Sized), serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, value)?;
    map.end()
}

explicit!(SecretSource, "Secret", secret => { "source": secret.source });

impl Serialize for Exec {
    // As in the sample answer: an exec without overrideEntrypoint has the one member.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("command", &self.command)?;
        if let Some(flag) = self.override_entrypoint {
            map.serialize_entry("overrideEntrypoint", &flag)?;
        }
        map.end()
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shell(line) => member("shell", line, serializer),
            Self::Argv(arguments) => member("argv", arguments, serializer),
        }
    }
}

explicit!(Resources, "Resources", resources => {
    "cpus": Number(resources.cpus),
    "mem": Number(resources.mem),
    "disk": Number(resources.disk),
    "gpus": resources.gpus,
});

explicit!(ExecutorResources, "ExecutorResources", resources => {
    "cpus": Number(resources.cpus),
    "mem": Number(resources.mem),
    "disk": Number(resources.disk),
});

explicit!(ResourceLimits, "ResourceLimits", limits => { "cpus": limits.cpus, "mem": limits.mem });

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Amount(amount) => Number(*amount).serialize(serializer),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

explicit!(Endpoint, "Endpoint", endpoint => {
    "name": endpoint.name,
    "containerPort": endpoint.container_port,
    "hostPort": endpoint.host_port,
    "protocol": endpoint.protocol,
    "labels": endpoint.labels,
    "networkNames": endpoint.network_names,
});

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Image", 5)?;
        object.serialize_field("kind", &self.kind)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("pullConfig", &self.pull_config.as_ref().map(PullConfig))?;
        object.serialize_field("forcePull", &self.force_pull)?;
        object.serialize_field("labels", &self.labels)?;
        object.end()
    }
}

struct PullConfig<'a>(&'a String);

impl Serialize for PullConfig<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        member("secret", self.0, serializer)
    }
}

impl Serialize for HealthCheck {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("HealthCheck", 8)?;
        for kind in ["http", "tcp", "exec"] {
            let probe = (probe_member(&self.probe) == kind).then_some(&self.probe);
            object.serialize_field(kind, &probe)?;
        }
        object.serialize_field("gracePeriodSeconds", &self.grace_period_seconds)?;
        object.serialize_field("intervalSeconds", &self.interval_seconds)?;
        object.serialize_field("maxConsecutiveFailures", &self.max_consecutive_failures)?;
        object.serialize_field("timeoutSeconds", &self.timeout_seconds)?;
        object.serialize_field("delaySeconds", &self.delay_seconds)?;
        object.end()
    }
}

/// The member of a health check that a probe stands under.
fn probe_member(probe: &Probe) -> &'static str {
    match probe {
        Probe::Http { .. } => "http",
        Probe::Tcp { .. } => "tcp",
        Probe::Exec { .. } => "exec",
    }
}

impl Serialize for Probe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Http { endpoint, path, scheme } => {
                let mut object = serializer.serialize_struct("Http", 3)?;
                object.serialize_field("endpoint", endpoint)?;
                object.serialize_field("path", path)?;
                object.serialize_field("scheme", scheme)?;
                object.end()
            }
            Self::Tcp { endpoint } => member("endpoint", endpoint, serializer),
            Self::Exec { command } => member("command", command, serializer),
        }
    }
}

impl Serialize for Volume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut host, mut secret, mut persistent) = (None, None, None);
        match &self.source {
            VolumeSource::Ephemeral => {}
            VolumeSource::Host(path) => host = Some(path),
            VolumeSource::Secret(name) => secret = Some(name),
            VolumeSource::Persistent(volume) => persistent = Some(volume),
        }
        let mut object = serializer.serialize_struct("Volume", 4)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("host", &host)?;
        object.serialize_field("secret", &secret)?;
        object.serialize_field("persistent", &persistent)?;
        object.end()
    }
}

impl Serialize for PersistentVolume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let constraints: Vec<_> = self.path_like.iter().map(|pattern| ["path", "LIKE", pattern]).collect();
        let mut object = serializer.serialize_struct("Persistent", 5)?;
        object.serialize_field("type", &self.kind)?;
        object.serialize_field("size", &self.size)?;
        object.serialize_field("maxSize", &self.max_size)?;
        object.serialize_field("profileName", &self.profile_name)?;
        object.serialize_field("constraints", &constraints)?;
        object.end()
    }
}

explicit!(VolumeMount, "VolumeMount", mount => {
    "name": mount.name,
    "mountPath": mount.mount_path,
    "readOnly": mount.read_only,
});

explicit!(Artifact, "Artifact", artifact => {
    "uri": artifact.uri,
    "extract": artifact.extract,
    "executable": artifact.executable,
    "cache": artifact.cache,
    "destPath": artifact.dest_path,
});

explicit!(Network, "Network", network => {
    "name": network.name,
    "mode": network.mode,
    "labels": network.labels,
});

explicit!(Scaling, "Scaling", scaling => {
    "kind": "fixed",
    "instances": scaling.instances,
    "maxInstances": scaling.max_instances,
});

explicit!(Scheduling, "Scheduling", scheduling => {
    "backoff": scheduling.backoff,
    "upgrade": scheduling.upgrade,
    "placement": scheduling.placement,
    "killSelection": scheduling.kill_selection,
    "unreachableStrategy": scheduling.unreachable_strategy,
});

explicit!(Backoff, "Backoff", backoff => {
    "backoff": Number(backoff.backoff),
    "backoffFactor": Number(backoff.backoff_factor),
    "maxLaunchDelay": Number(backoff.max_launch_delay),
});

explicit!(Upgrade, "Upgrade", upgrade => {
    "minimumHealthCapacity": Number(upgrade.minimum_health_capacity),
    "maximumOverCapacity": Number(upgrade.maximum_over_capacity),
});

explicit!(Placement, "Placement", placement => {
    "constraints": placement.constraints,
    "acceptedResourceRoles": placement.accepted_resource_roles,
});

explicit!(Constraint, "Constraint", constraint => {
    "fieldName": constraint.field_name,
    "operator": constraint.operator,
    "value": constraint.value,
});

impl Serialize for UnreachableStrategy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Disabled => serializer.serialize_str("disabled"),
            Self::After { inactive_after_seconds, expunge_after_seconds } => {
                let mut object = serializer.serialize_struct("UnreachableStrategy", 2)?;
                object.serialize_field("inactiveAfterSeconds", inactive_after_seconds)?;
                object.serialize_field("expungeAfterSeconds", expunge_after_seconds)?;
                object.end()
            }
        }
    }
}

explicit!(LinuxInfo, "LinuxInfo", info => { "seccomp": info.seccomp, "ipcInfo": info.ipc_info });

explicit!(Seccomp, "Seccomp", seccomp => {
    "profileName": seccomp.profile_name,
    "unconfined": seccomp.unconfined,
});

explicit!(IpcInfo, "IpcInfo", info => { "mode": info.mode, "shmSize": info.shm_size });

explicit!(Lifecycle, "Lifecycle", lifecycle => {
    "killGracePeriodSeconds": lifecycle.kill_grace_period_seconds.map(Number),
});
