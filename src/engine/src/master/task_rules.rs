//! What one task, its checks, its command and its container must fulfil, wherever it is to run; in Mesos' words. Pure.

use podium_proto::mesos::v1::{
    CheckInfo, CommandInfo, ContainerInfo, DurationInfo, Environment, HealthCheck, Secret, TaskInfo, Volume, check_info, container_info,
    environment, health_check, secret, volume,
};
use podium_proto::wire::amounts::{self, Amounts};

use super::resource_rules;

/// Everything about a task that depends on nothing else, but its limits.
pub(super) fn check(task: &TaskInfo) -> Result<(), String> {
    check_duration(task.kill_policy.as_ref().and_then(|policy| policy.grace_period.as_ref()), "Task's 'kill_policy.grace_period'")?;
    check_duration(task.max_completion_time.as_ref(), "Task's `max_completion_time`")?;
    if let Some(check) = &task.check {
        check_check(check).map_err(|problem| format!("Task uses invalid check: {problem}"))?;
    }
    if let Some(check) = &task.health_check {
        check_health(check).map_err(|problem| format!("Task uses invalid health check: {problem}"))?;
    }
    check_resources(task)?;
    if let Some(command) = &task.command {
        check_command(command).map_err(|problem| format!("Task's `CommandInfo` is invalid: {problem}"))?;
    }
    if let Some(container) = &task.container {
        check_container(container).map_err(|problem| format!("Task's `ContainerInfo` is invalid: {problem}"))?;
    }
    Ok(())
}

fn check_resources(task: &TaskInfo) -> Result<(), String> {
    if task.resources.is_empty() {
        return Err("Task uses no resources".to_owned());
    }
    resource_rules::check_kinds(&task.resources).map_err(|problem| format!("Task uses invalid resources: {problem}"))?;
    resource_rules::check_allocation(&task.resources).map_err(|problem| format!("Invalid task resources: {problem}"))?;
    resource_rules::check_revocable(&task.resources)
        .map_err(|problem| format!("Task mixes revocable and non-revocable resources: {problem}"))
}

/// What only runs under an executor of containers like itself: no Docker, and no checks over a network of the task's own.
pub(super) fn check_nested(task: &TaskInfo) -> Result<(), String> {
    let Some(container) = &task.container else { return Ok(()) };
    if container_info::Type::try_from(container.r#type) == Ok(container_info::Type::Docker) {
        return Err("Docker ContainerInfo is not supported on the task".to_owned());
    }
    if !container.network_infos.is_empty() && task.health_check.as_ref().is_some_and(over_the_network) {
        return Err("HTTP and TCP health checks are not supported for nested containers not joining parent's network".to_owned());
    }
    Ok(())
}

/// No duration of a task may be negative.
pub(super) fn check_duration(duration: Option<&DurationInfo>, what: &str) -> Result<(), String> {
    match duration {
        Some(duration) if duration.nanoseconds < 0 => Err(format!("{what} must be non-negative")),
        _ => Ok(()),
    }
}

fn over_the_network(check: &HealthCheck) -> bool {
    let kind = check.r#type.and_then(|kind| health_check::Type::try_from(kind).ok());
    matches!(kind, Some(health_check::Type::Http | health_check::Type::Tcp))
}

fn check_times(times: &[(&str, Option<f64>)]) -> Result<(), String> {
    match times.iter().find(|(_, time)| time.is_some_and(|time| time.is_nan() || time < 0.0)) {
        Some((name, _)) => Err(format!("Expecting '{name}' to be non-negative")),
        None => Ok(()),
    }
}

fn check_path(path: Option<&String>, what: &str) -> Result<(), String> {
    match path {
        Some(path) if !path.starts_with('/') => Err(format!("The path '{path}' of {what} must start with '/'")),
        _ => Ok(()),
    }
}

fn missing(field: &str, what: &str) -> String {
    format!("Expecting '{field}' to be set for {what}")
}

/// The command of a COMMAND check, of either sort.
fn check_probe(command: &CommandInfo, what: &str) -> Result<(), String> {
    if command.value.is_none() {
        let form = if command.shell() { "shell command" } else { "executable path" };
        return Err(format!("Command {} must contain '{form}'", what.to_lowercase()));
    }
    check_command(command).map_err(|problem| format!("{what}'s `CommandInfo` is invalid: {problem}"))
}

fn check_health(check: &HealthCheck) -> Result<(), String> {
    let kind = check.r#type.ok_or("HealthCheck must specify 'type'")?;
    match health_check::Type::try_from(kind) {
        Ok(health_check::Type::Command) => {
            check_probe(check.command.as_ref().ok_or_else(|| missing("command", "COMMAND health check"))?, "Health check")?;
        }
        Ok(health_check::Type::Http) => {
            let http = check.http.as_ref().ok_or_else(|| missing("http", "HTTP health check"))?;
            if let Some(scheme) = http.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
                return Err(format!("Unsupported HTTP health check scheme: '{scheme}'"));
            }
            check_path(http.path.as_ref(), "HTTP health check")?;
        }
        Ok(health_check::Type::Tcp) => check.tcp.as_ref().map(|_| ()).ok_or_else(|| missing("tcp", "TCP health check"))?,
        Ok(health_check::Type::Unknown) | Err(_) => return Err("'UNKNOWN' is not a valid health check type".to_owned()),
    }
    check_times(&[
        ("delay_seconds", check.delay_seconds),
        ("grace_period_seconds", check.grace_period_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ])
}

fn check_check(check: &CheckInfo) -> Result<(), String> {
    let kind = check.r#type.ok_or("CheckInfo must specify 'type'")?;
    match check_info::Type::try_from(kind) {
        Ok(check_info::Type::Command) => {
            check_probe(&check.command.as_ref().ok_or_else(|| missing("command", "COMMAND check"))?.command, "Check")?;
        }
        Ok(check_info::Type::Http) => {
            check_path(check.http.as_ref().ok_or_else(|| missing("http", "HTTP check"))?.path.as_ref(), "HTTP check")?;
        }
        Ok(check_info::Type::Tcp) => check.tcp.as_ref().map(|_| ()).ok_or_else(|| missing("tcp", "TCP check"))?,
        Ok(check_info::Type::Unknown) | Err(_) => return Err("'UNKNOWN' is not a valid check type".to_owned()),
    }
    check_times(&[
        ("delay_seconds", check.delay_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ])
}

/// The environment of a command.
pub(super) fn check_command(command: &CommandInfo) -> Result<(), String> {
    command.environment.as_ref().map_or(Ok(()), check_environment)
}

fn check_environment(environment: &Environment) -> Result<(), String> {
    use environment::variable::Type;
    environment.variables.iter().try_for_each(|variable| {
        let (name, value, secret) = (&variable.name, variable.value.is_some(), variable.secret.as_ref());
        match Type::try_from(variable.r#type.unwrap_or(Type::Value.into())) {
            Ok(Type::Value) if secret.is_some() => Err(format!("Environment variable '{name}' of type 'VALUE' must not have a secret set")),
            Ok(Type::Value) if !value => Err(format!("Environment variable '{name}' of type 'VALUE' must have a value set")),
            Ok(Type::Value) => Ok(()),
            Ok(Type::Secret) => {
                let secret = secret.ok_or_else(|| format!("Environment variable '{name}' of type 'SECRET' must have a secret set"))?;
                if value {
                    return Err(format!("Environment variable '{name}' of type 'SECRET' must not have a value set"));
                }
                check_secret_variable(name, secret)
            }
            Ok(Type::Unknown) | Err(_) => Err("Environment variable of type 'UNKNOWN' is not allowed".to_owned()),
        }
    })
}

fn check_secret_variable(name: &str, secret: &Secret) -> Result<(), String> {
    check_secret(secret).map_err(|problem| format!("Environment variable '{name}' specifies an invalid secret: {problem}"))?;
    if secret.value.as_ref().is_some_and(|value| value.data.contains(&0)) {
        return Err(format!(
            "Environment variable '{name}' specifies a secret containing null bytes, which is not allowed in the environment"
        ));
    }
    Ok(())
}

fn check_secret(secret: &Secret) -> Result<(), String> {
    let (value, reference) = (("value", secret.value.is_some()), ("reference", secret.reference.is_some()));
    let (kind, wanted, other) = match secret.r#type.and_then(|kind| secret::Type::try_from(kind).ok()) {
        Some(secret::Type::Value) => ("VALUE", value, reference),
        Some(secret::Type::Reference) => ("REFERENCE", reference, value),
        Some(secret::Type::Unknown) | None => return Ok(()),
    };
    match (wanted, other) {
        ((name, false), _) => Err(format!("Secret of type {kind} must have the '{name}' field set")),
        (_, (name, true)) => Err(format!("Secret of type {kind} must not have the '{name}' field set")),
        _ => Ok(()),
    }
}

/// Volumes and the type of a container.
pub(super) fn check_container(container: &ContainerInfo) -> Result<(), String> {
    container.volumes.iter().try_for_each(check_volume).map_err(|problem| format!("Invalid volume: {problem}"))?;
    if container_info::Type::try_from(container.r#type) == Ok(container_info::Type::Docker) && container.docker.is_none() {
        return Err("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo".to_owned());
    }
    Ok(())
}

/// Where a volume's path leads is the agent's matter.
fn check_volume(volume: &Volume) -> Result<(), String> {
    use volume::source::Type;
    let given = [volume.host_path.is_some(), volume.image.is_some(), volume.source.is_some()];
    if given.into_iter().filter(|set| *set).count() != 1 {
        return Err("Only one of them should be set: 'host_path', 'image' and 'source'".to_owned());
    }
    let Some(source) = &volume.source else { return Ok(()) };
    let (field, kind, given) = match source.r#type.and_then(|kind| Type::try_from(kind).ok()) {
        Some(Type::DockerVolume) => ("docker_volume", "DOCKER_VOLUME", source.docker_volume.is_some()),
        Some(Type::SandboxPath) => ("sandbox_path", "SANDBOX_PATH", source.sandbox_path.is_some()),
        Some(Type::Secret) => ("secret", "SECRET", source.secret.is_some()),
        Some(Type::HostPath) => ("host_path", "HOST_PATH", source.host_path.is_some()),
        Some(Type::CsiVolume) => ("csi_volume", "CSI", source.csi_volume.is_some()),
        Some(Type::Unknown) | None => return Err("'source.type' is unknown".to_owned()),
    };
    if given { Ok(()) } else { Err(format!("'source.{field}' is not set for {kind} volume")) }
}

/// Limits above the request; of a task in a group also that it shares no cgroup. This engine's agents enforce none, and so take none.
pub(super) fn check_limits(task: &TaskInfo, in_group: bool) -> Result<(), String> {
    if task.limits.is_empty() {
        return Ok(());
    }
    if task.limits.keys().any(|name| name != "cpus" && name != "mem") {
        return Err("Only cpus and mem may be included in a task's resource limits".to_owned());
    }
    let linux = task.container.as_ref().and_then(|container| container.linux_info.as_ref());
    if in_group && linux.and_then(|linux| linux.share_cgroups) != Some(false) {
        return Err(
            "Resource limits may only be set for tasks within a task group when the 'share_cgroups' field is set to 'false'.".to_owned()
        );
    }
    let requested = Amounts::of(&task.resources);
    let below = |name: &str, requested: i64| task.limits.get(name).is_some_and(|limit| amounts::thousandths(limit.value) < requested);
    if below("cpus", requested.cpus) {
        return Err("The cpu limit must be greater than or equal to the cpu request".to_owned());
    }
    if below("mem", requested.mem) {
        return Err("The memory limit must be greater than or equal to the memory request".to_owned());
    }
    Err("The agent is not capable of TASK_RESOURCE_LIMITS, but the task sets 'limits'".to_owned())
}
