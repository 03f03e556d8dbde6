//! What one task, its checks, its container and its resources must fulfil, wherever it is to run. Pure.

use std::path::{Component, Path};

use podium_proto::mesos::v1::{
    CheckInfo, CommandInfo, ContainerInfo, DurationInfo, Environment, HealthCheck, Resource, TaskInfo, Volume, check_info, container_info,
    environment, health_check, value, volume,
};

/// Everything about a task that depends on nothing else.
pub(super) fn check(task: &TaskInfo) -> Result<(), String> {
    check_duration(task.kill_policy.as_ref().and_then(|policy| policy.grace_period.as_ref()), "Task's 'kill_policy.grace_period'")?;
    check_duration(task.max_completion_time.as_ref(), "Task's 'max_completion_time'")?;
    if let Some(check) = &task.check {
        check_check(check)?;
    }
    if let Some(check) = &task.health_check {
        check_health(check)?;
    }
    if let Some(command) = &task.command {
        check_command(command)?;
    }
    if let Some(container) = &task.container {
        check_container(container)?;
        if !container.network_infos.is_empty() && task.health_check.as_ref().is_some_and(over_the_network) {
            return Err("HTTP and TCP health checks are not supported for tasks that join a network".to_owned());
        }
    }
    check_limits(task)
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

fn check_times(what: &str, times: &[(&str, Option<f64>)]) -> Result<(), String> {
    match times.iter().find(|(_, time)| time.is_some_and(|time| time.is_nan() || time < 0.0)) {
        Some((name, _)) => Err(format!("{what}: '{name}' must be non-negative")),
        None => Ok(()),
    }
}

fn check_path(path: Option<&String>, what: &str) -> Result<(), String> {
    match path {
        Some(path) if !path.starts_with('/') => Err(format!("{what}: the path '{}' must start with '/'", path.escape_debug())),
        _ => Ok(()),
    }
}

fn check_health(check: &HealthCheck) -> Result<(), String> {
    const WHAT: &str = "Health check";
    check_times(
        WHAT,
        &[
            ("delay_seconds", check.delay_seconds),
            ("grace_period_seconds", check.grace_period_seconds),
            ("interval_seconds", check.interval_seconds),
            ("timeout_seconds", check.timeout_seconds),
        ],
    )?;
    let kind = check.r#type.ok_or("Health check must specify 'type'")?;
    match health_check::Type::try_from(kind) {
        Ok(health_check::Type::Command) => {
            check_command(check.command.as_ref().ok_or("Expecting 'command' to be set for COMMAND health check")?)
        }
        Ok(health_check::Type::Http) => {
            let http = check.http.as_ref().ok_or("Expecting 'http' to be set for HTTP health check")?;
            if let Some(scheme) = http.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
                return Err(format!("Unsupported HTTP health check scheme: '{}'", scheme.escape_debug()));
            }
            check_path(http.path.as_ref(), "HTTP health check")
        }
        Ok(health_check::Type::Tcp) => {
            check.tcp.as_ref().map(|_| ()).ok_or_else(|| "Expecting 'tcp' to be set for TCP health check".to_owned())
        }
        Ok(health_check::Type::Unknown) | Err(_) => Err("The health check's type is unknown".to_owned()),
    }
}

fn check_check(check: &CheckInfo) -> Result<(), String> {
    check_times(
        "Check",
        &[("delay_seconds", check.delay_seconds), ("interval_seconds", check.interval_seconds), ("timeout_seconds", check.timeout_seconds)],
    )?;
    let kind = check.r#type.ok_or("Check must specify 'type'")?;
    match check_info::Type::try_from(kind) {
        Ok(check_info::Type::Command) => {
            check_command(&check.command.as_ref().ok_or("Expecting 'command' to be set for COMMAND check")?.command)
        }
        Ok(check_info::Type::Http) => {
            check_path(check.http.as_ref().ok_or("Expecting 'http' to be set for HTTP check")?.path.as_ref(), "HTTP check")
        }
        Ok(check_info::Type::Tcp) => check.tcp.as_ref().map(|_| ()).ok_or_else(|| "Expecting 'tcp' to be set for TCP check".to_owned()),
        Ok(check_info::Type::Unknown) | Err(_) => Err("The check's type is unknown".to_owned()),
    }
}

fn check_command(command: &CommandInfo) -> Result<(), String> {
    command.environment.as_ref().map_or(Ok(()), check_environment)
}

fn check_environment(environment: &Environment) -> Result<(), String> {
    for variable in &environment.variables {
        let name = &variable.name;
        match environment::variable::Type::try_from(variable.r#type.unwrap_or(environment::variable::Type::Value.into())) {
            Ok(environment::variable::Type::Value) if variable.secret.is_some() => {
                return Err(format!("Environment variable '{name}' of type 'VALUE' must not have a secret set"));
            }
            Ok(environment::variable::Type::Value) if variable.value.is_none() => {
                return Err(format!("Environment variable '{name}' of type 'VALUE' must have a value set"));
            }
            Ok(environment::variable::Type::Secret) if variable.value.is_some() => {
                return Err(format!("Environment variable '{name}' of type 'SECRET' must not have a value set"));
            }
            Ok(environment::variable::Type::Secret) if variable.secret.is_none() => {
                return Err(format!("Environment variable '{name}' of type 'SECRET' must have a secret set"));
            }
            Ok(environment::variable::Type::Unknown) | Err(_) => {
                return Err(format!("Environment variable '{name}' of type 'UNKNOWN' is not allowed"));
            }
            Ok(environment::variable::Type::Value | environment::variable::Type::Secret) => {}
        }
    }
    Ok(())
}

/// Volumes and the type of a container.
pub(super) fn check_container(container: &ContainerInfo) -> Result<(), String> {
    match container_info::Type::try_from(container.r#type) {
        Ok(container_info::Type::Docker) if container.docker.is_none() => {
            return Err("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo".to_owned());
        }
        Ok(_) => {}
        Err(_) => return Err("The type of the container is unknown".to_owned()),
    }
    container.volumes.iter().try_for_each(check_volume)
}

fn check_volume(volume: &Volume) -> Result<(), String> {
    let given = [volume.host_path.is_some(), volume.image.is_some(), volume.source.is_some()];
    if given.into_iter().filter(|set| *set).count() != 1 {
        return Err(format!("Volume '{}': exactly one of 'host_path', 'image' and 'source' must be set", volume.container_path));
    }
    let Some(source) = &volume.source else { return Ok(()) };
    use volume::source::Type;
    let matching = match source.r#type.and_then(|kind| Type::try_from(kind).ok()) {
        Some(Type::DockerVolume) => source.docker_volume.is_some(),
        Some(Type::SandboxPath) => match &source.sandbox_path {
            Some(sandbox) => return check_sandbox_path(volume, sandbox),
            None => false,
        },
        Some(Type::Secret) => source.secret.is_some(),
        Some(Type::HostPath) => source.host_path.is_some(),
        Some(Type::CsiVolume) => source.csi_volume.is_some(),
        Some(Type::Unknown) | None => return Err(format!("Volume '{}': the type of its 'source' is not set", volume.container_path)),
    };
    if matching { Ok(()) } else { Err(format!("Volume '{}': its 'source' does not hold what its type says", volume.container_path)) }
}

fn check_sandbox_path(volume: &Volume, sandbox: &volume::source::SandboxPath) -> Result<(), String> {
    use volume::source::sandbox_path::Type;
    let path = Path::new(&sandbox.path);
    if path.is_absolute() || path.components().any(|component| component == Component::ParentDir) {
        return Err(format!("Volume '{}': the sandbox path '{}' must stay below the sandbox", volume.container_path, sandbox.path));
    }
    match sandbox.r#type.and_then(|kind| Type::try_from(kind).ok()) {
        Some(Type::Parent | Type::Self_) => Ok(()),
        Some(Type::Unknown) | None => Err(format!("Volume '{}': the type of its sandbox path is not set", volume.container_path)),
    }
}

fn check_limits(task: &TaskInfo) -> Result<(), String> {
    if task.limits.is_empty() {
        Ok(())
    } else {
        Err("The agent is not capable of TASK_RESOURCE_LIMITS, but the task sets 'limits'".to_owned())
    }
}

/// What is wrong with one entry; this engine's agents have unreserved cpus, mem, disk, gpus and ports only.
pub(super) fn check_resource(resource: &Resource) -> Result<(), String> {
    let name = &resource.name;
    if name.is_empty() {
        return Err("Empty resource name".to_owned());
    }
    match value::Type::try_from(resource.r#type) {
        Ok(value::Type::Scalar) => {
            let amount = resource.scalar.as_ref().ok_or_else(|| format!("Resource '{name}' has no scalar"))?.value;
            if !amount.is_finite() || amount < 0.0 || (amount != 0.0 && amount < 0.001) {
                return Err(format!("Resource '{name}' has the invalid amount {amount}"));
            }
            if name == "gpus" && amount.fract() != 0.0 {
                return Err("The 'gpus' resource must be an unsigned integer".to_owned());
            }
            known(name, &["cpus", "mem", "disk", "gpus"])?;
        }
        Ok(value::Type::Ranges) => {
            let ranges = resource.ranges.as_ref().ok_or_else(|| format!("Resource '{name}' has no ranges"))?;
            if ranges.range.iter().any(|range| range.end < range.begin) {
                return Err(format!("Resource '{name}' has a range that ends before it begins"));
            }
            known(name, &["ports"])?;
        }
        Ok(value::Type::Set) | Err(_) => return Err(format!("Resource '{name}' is not offered")),
        Ok(value::Type::Text) => return Err(format!("Resource '{name}' must not be a text")),
    }
    #[allow(deprecated)]
    let reserved =
        resource.role.as_deref().is_some_and(|role| role != "*") || resource.reservation.is_some() || !resource.reservations.is_empty();
    if reserved || resource.disk.is_some() || resource.revocable.is_some() || resource.shared.is_some() || resource.provider_id.is_some() {
        return Err(format!("Resource '{name}' is not offered with this reservation, disk, provider or kind"));
    }
    Ok(())
}

fn known(name: &str, names: &[&str]) -> Result<(), String> {
    if names.contains(&name) { Ok(()) } else { Err(format!("Resource '{}' is not offered", name.escape_debug())) }
}
