//! Containers and what they consist of (reference section 1.3).

use super::*;
use crate::definition::walk::number;

pub(super) fn read(container: &Object<'_>, f: &mut Findings) -> Container {
    if container.get("check").is_some() {
        f.warn(container.at("check"), "'check' is not performed: Mesos' general checks are not used, did you mean 'healthCheck'?");
    }
    Container {
        name: container.text("name", f),
        exec: exec(container, f),
        resources: resources(container, f),
        resource_limits: resource_limits(container, f),
        endpoints: container.each("endpoints", f, |endpoint, f| self::endpoint(&endpoint, f)),
        image: image(container, f),
        environment: environment(container, f),
        user: container.maybe_text("user", f),
        health_check: health_check(container, f),
        volume_mounts: container.each("volumeMounts", f, |mount, f| volume_mount(&mount, f)),
        artifacts: container.each("artifacts", f, |artifact, f| self::artifact(&artifact, f)),
        labels: container.labels("labels", f),
        lifecycle: container
            .object("lifecycle", f)
            .map(|lifecycle| Lifecycle { kill_grace_period_seconds: lifecycle.maybe_number("killGracePeriodSeconds", f) }),
        linux_info: linux_info(container, f),
        tty: container.maybe_flag("tty", f),
    }
}

fn exec(container: &Object<'_>, f: &mut Findings) -> Option<Exec> {
    let exec = container.object("exec", f)?;
    let override_entrypoint = exec.maybe_flag("overrideEntrypoint", f);
    Some(Exec { command: command(&exec, true, f)?, override_entrypoint })
}

/// A command, of which a shell line wins over an argument list. `""` is the image's own entry point, where one is meant.
fn command(parent: &Object<'_>, may_be_empty: bool, f: &mut Findings) -> Option<Command> {
    let command = parent.object("command", f)?;
    match command.get("shell") {
        Some(Value::String(line)) if !line.is_empty() => return command.maybe_text("shell", f).map(Command::Shell),
        Some(Value::String(_)) if may_be_empty && command.get("argv").is_none() => return Some(Command::Shell(String::new())),
        _ if command.get("argv").is_some() => return Some(Command::Argv(command.texts("argv", f))),
        // Of the two forms Marathon complains of the last one.
        Some(Value::String(_)) => command.missing_since("argv", "shell must not be empty", f),
        Some(_) => command.missing_since("argv", "shell must be a string", f),
        None => command.missing_since("argv", "a command is {\"shell\": \"…\"} or {\"argv\": […]}", f),
    }
    None
}

fn resources(container: &Object<'_>, f: &mut Findings) -> Resources {
    let object = container.filled("resources", f);
    Resources {
        cpus: object.number("cpus", f),
        mem: object.number("mem", f),
        disk: object.number("disk", f),
        gpus: object.integer("gpus", f),
    }
}

fn resource_limits(container: &Object<'_>, f: &mut Findings) -> Option<ResourceLimits> {
    let object = container.object("resourceLimits", f)?;
    let limit = |name, f: &mut Findings| match object.get(name)? {
        Value::String(word) if word.eq_ignore_ascii_case("unlimited") => Some(Limit::Unlimited),
        Value::String(word) => {
            let word: String = word.chars().take(64).collect();
            f.structure(object.at(name), format!("'{word}' is an invalid resource limit. It must be 'unlimited' or a number"), "");
            None
        }
        value => number(value, || object.at(name), f64::MIN, f64::MAX, f).map(Limit::Amount),
    };
    Some(ResourceLimits { cpus: limit("cpus", f), mem: limit("mem", f) })
}

fn endpoint(endpoint: &Object<'_>, f: &mut Findings) -> Endpoint {
    Endpoint {
        name: endpoint.text("name", f),
        container_port: endpoint.maybe_integer("containerPort", f),
        host_port: endpoint.maybe_integer("hostPort", f),
        protocol: endpoint.texts("protocol", f),
        labels: endpoint.labels("labels", f),
        network_names: endpoint.texts("networkNames", f),
    }
}

fn image(container: &Object<'_>, f: &mut Findings) -> Option<Image> {
    let image = container.object("image", f)?;
    let pull_config = image
        .object("pullConfig", f)
        .map(|config| config.text("secret", f))
        // A broken one leaves an empty name, which the rules pass over.
        .filter(|secret| !secret.is_empty());
    Some(Image {
        kind: image.word("kind", ImageKind::Docker, f),
        id: image.text("id", f),
        pull_config,
        force_pull: Some(image.flag("forcePull", f)),
        labels: image.labels("labels", f),
    })
}

fn health_check(container: &Object<'_>, f: &mut Findings) -> Option<HealthCheck> {
    let check = container.object("healthCheck", f)?;
    let probes = [http(&check, f), tcp(&check, f), command_probe(&check, f)];
    let given = ["http", "tcp", "exec"].into_iter().filter(|kind| check.get(kind).is_some()).count();
    if given != 1 {
        f.rule(check.path.clone(), "Only one of http, tcp, or command may be specified");
    }
    Some(HealthCheck {
        grace_period_seconds: check.integer("gracePeriodSeconds", f),
        interval_seconds: check.integer("intervalSeconds", f),
        max_consecutive_failures: check.integer("maxConsecutiveFailures", f),
        timeout_seconds: check.integer("timeoutSeconds", f),
        delay_seconds: check.integer("delaySeconds", f),
        // Without one the check is refused; an empty endpoint is passed over by the rules.
        probe: probes.into_iter().flatten().next().unwrap_or(Probe::Tcp { endpoint: String::new() }),
    })
}

fn http(check: &Object<'_>, f: &mut Findings) -> Option<Probe> {
    let http = check.object("http", f)?;
    Some(Probe::Http {
        endpoint: http.text("endpoint", f),
        path: http.maybe_text("path", f),
        scheme: http.word("scheme", HttpScheme::Http, f),
    })
}

fn tcp(check: &Object<'_>, f: &mut Findings) -> Option<Probe> {
    let tcp = check.object("tcp", f)?;
    Some(Probe::Tcp { endpoint: tcp.text("endpoint", f) })
}

fn command_probe(check: &Object<'_>, f: &mut Findings) -> Option<Probe> {
    let exec = check.object("exec", f)?;
    Some(Probe::Exec { command: command(&exec, false, f)? })
}

fn volume_mount(mount: &Object<'_>, f: &mut Findings) -> VolumeMount {
    VolumeMount { name: mount.text("name", f), mount_path: mount.text("mountPath", f), read_only: mount.flag("readOnly", f) }
}

fn artifact(artifact: &Object<'_>, f: &mut Findings) -> Artifact {
    Artifact {
        uri: artifact.text("uri", f),
        extract: artifact.flag("extract", f),
        executable: artifact.flag("executable", f),
        cache: artifact.flag("cache", f),
        dest_path: artifact.maybe_text("destPath", f),
    }
}
