//! Containers and what they consist of (reference section 1.3).

use super::*;
use crate::definition::walk::number;

const CONTAINER: &[&str] = &[
    "name",
    "exec",
    "resources",
    "resourceLimits",
    "endpoints",
    "image",
    "environment",
    "user",
    "healthCheck",
    "volumeMounts",
    "artifacts",
    "labels",
    "lifecycle",
    "linuxInfo",
    "tty",
    "check",
];

pub(super) fn all(pod: &Object<'_>, f: &mut Findings) -> Vec<Container> {
    let empty = pod.required("containers", f).and_then(Value::as_array).is_some_and(Vec::is_empty);
    if empty {
        f.structure("/containers", "error.minLength", "a pod has at least one container");
    }
    pod.items("containers", f).map(|(path, item)| container(item, path, f)).collect()
}

fn container(value: &Value, path: String, f: &mut Findings) -> Container {
    let Some(container) = Object::open(value, path, Kind::Bounded, CONTAINER, f) else {
        return stand_in();
    };
    if container.get("check").is_some() {
        f.warn(container.at("check"), "'check' is not performed: Mesos' general checks are not used, did you mean 'healthCheck'?");
    }
    Container {
        name: container.required_text("name", Text::Name, f),
        exec: exec(&container, f),
        resources: resources(&container, f),
        resource_limits: resource_limits(&container, f),
        endpoints: container.items("endpoints", f).map(|(path, item)| endpoint(item, path, f)).collect(),
        image: image(&container, f),
        environment: environment(&container, f),
        user: container.text("user", Text::Free, f),
        health_check: health_check(&container, f),
        volume_mounts: container.items("volumeMounts", f).map(|(path, item)| volume_mount(item, path, f)).collect(),
        artifacts: container.items("artifacts", f).map(|(path, item)| artifact(item, path, f)).collect(),
        labels: container.labels("labels", f),
        lifecycle: container
            .object("lifecycle", Kind::Bounded, &["killGracePeriodSeconds"], f)
            .map(|lifecycle| Lifecycle { kill_grace_period_seconds: lifecycle.number("killGracePeriodSeconds", 0.0, f64::MAX, f) }),
        linux_info: linux_info(&container, f),
        tty: container.flag("tty", f),
    }
}

/// Stands in for a container that is no object.
fn stand_in() -> Container {
    Container {
        name: String::new(),
        exec: None,
        resources: Resources::default(),
        resource_limits: None,
        endpoints: Vec::new(),
        image: None,
        environment: BTreeMap::new(),
        user: None,
        health_check: None,
        volume_mounts: Vec::new(),
        artifacts: Vec::new(),
        labels: BTreeMap::new(),
        lifecycle: None,
        linux_info: None,
        tty: None,
    }
}

fn exec(container: &Object<'_>, f: &mut Findings) -> Option<Exec> {
    let exec = container.object("exec", Kind::Plain, &["command", "overrideEntrypoint"], f)?;
    let override_entrypoint = exec.flag("overrideEntrypoint", f);
    exec.required("command", f)?;
    let command = command(&exec, true, f)?;
    Some(Exec { command, override_entrypoint })
}

/// A command, of which a shell line wins over an argument list. `""` is the image's own entry point, where one is meant.
fn command(parent: &Object<'_>, may_be_empty: bool, f: &mut Findings) -> Option<Command> {
    let command = parent.object("command", Kind::Bounded, &["shell", "argv"], f)?;
    let argv = command.get("argv").is_some();
    match command.get("shell").and_then(Value::as_str) {
        Some("") if may_be_empty && !argv => return Some(Command::Shell(String::new())),
        Some("") => {}
        Some(_) => return command.text("shell", Text::Free, f).map(Command::Shell),
        None if command.get("shell").is_some() && !argv => {
            command.text("shell", Text::Free, f);
            return None;
        }
        None => {}
    }
    let empty = command.required("argv", f)?.as_array().is_some_and(Vec::is_empty);
    if empty {
        f.structure(command.at("argv"), "error.minLength", "an argument list begins with the program");
    }
    Some(Command::Argv(command.texts("argv", f)))
}

impl Default for Resources {
    /// The documents' defaults; disk 0 as in their examples.
    fn default() -> Self {
        Self { cpus: 1.0, mem: 128.0, disk: 0.0, gpus: 0 }
    }
}

fn resources(container: &Object<'_>, f: &mut Findings) -> Resources {
    let default = Resources::default();
    container.required("resources", f);
    let Some(object) = container.object("resources", Kind::Bounded, &["cpus", "mem", "disk", "gpus"], f) else {
        return default;
    };
    Resources {
        cpus: object.number("cpus", 0.001, f64::MAX, f).unwrap_or(default.cpus),
        mem: object.number("mem", 0.001, f64::MAX, f).unwrap_or(default.mem),
        disk: object.number("disk", 0.0, f64::MAX, f).unwrap_or(default.disk),
        gpus: object.count("gpus", f).unwrap_or(default.gpus),
    }
}

fn resource_limits(container: &Object<'_>, f: &mut Findings) -> Option<ResourceLimits> {
    let object = container.object("resourceLimits", Kind::Plain, &["cpus", "mem"], f)?;
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

fn endpoint(value: &Value, path: String, f: &mut Findings) -> Endpoint {
    let known = ["name", "containerPort", "hostPort", "protocol", "labels", "networkNames"];
    let Some(object) = Object::open(value, path, Kind::Bounded, &known, f) else {
        return Endpoint {
            name: String::new(),
            container_port: None,
            host_port: None,
            protocol: Vec::new(),
            labels: BTreeMap::new(),
            network_names: Vec::new(),
        };
    };
    let port = |name, min, f: &mut Findings| object.integer(name, min, 65535, f).and_then(|port| u16::try_from(port).ok());
    Endpoint {
        name: object.required_text("name", Text::Name, f),
        container_port: port("containerPort", 1, f),
        host_port: port("hostPort", 0, f),
        protocol: object.texts("protocol", f),
        labels: object.labels("labels", f),
        network_names: object.texts("networkNames", f),
    }
}

fn image(container: &Object<'_>, f: &mut Findings) -> Option<Image> {
    let image = container.object("image", Kind::Bounded, &["kind", "id", "pullConfig", "forcePull", "labels"], f)?;
    let pull_config = image
        .object("pullConfig", Kind::Plain, &["secret"], f)
        .map(|config| config.required_text("secret", Text::NonEmpty, f))
        // A broken one leaves an empty name, which the rules pass over.
        .filter(|secret| !secret.is_empty());
    Some(Image {
        kind: image.required_word("kind", f).unwrap_or(ImageKind::Docker),
        id: image.required_text("id", Text::Path, f),
        pull_config,
        force_pull: Some(image.flag("forcePull", f).unwrap_or(false)),
        labels: image.labels("labels", f),
    })
}

fn health_check(container: &Object<'_>, f: &mut Findings) -> Option<HealthCheck> {
    let known =
        ["http", "tcp", "exec", "gracePeriodSeconds", "intervalSeconds", "maxConsecutiveFailures", "timeoutSeconds", "delaySeconds"];
    let check = container.object("healthCheck", Kind::Bounded, &known, f)?;
    let probes = [http(&check, f), tcp(&check, f), command_probe(&check, f)];
    let given = ["http", "tcp", "exec"].into_iter().filter(|kind| check.get(kind).is_some()).count();
    if given != 1 {
        f.rule(check.path.clone(), "Only one of http, tcp, or command may be specified");
    }
    let mut seconds = |name, default| check.count(name, f).unwrap_or(default);
    Some(HealthCheck {
        grace_period_seconds: seconds("gracePeriodSeconds", 300),
        interval_seconds: seconds("intervalSeconds", 60),
        max_consecutive_failures: seconds("maxConsecutiveFailures", 3),
        timeout_seconds: seconds("timeoutSeconds", 20),
        delay_seconds: seconds("delaySeconds", 2),
        // Without one the check is refused; an empty endpoint is passed over by the rules.
        probe: probes.into_iter().flatten().next().unwrap_or(Probe::Tcp { endpoint: String::new() }),
    })
}

fn http(check: &Object<'_>, f: &mut Findings) -> Option<Probe> {
    let http = check.object("http", Kind::Bounded, &["endpoint", "path", "scheme"], f)?;
    Some(Probe::Http {
        endpoint: http.required_text("endpoint", Text::Name, f),
        path: http.text("path", Text::Path, f),
        scheme: http.word("scheme", f).unwrap_or(HttpScheme::Http),
    })
}

fn tcp(check: &Object<'_>, f: &mut Findings) -> Option<Probe> {
    let tcp = check.object("tcp", Kind::Bounded, &["endpoint"], f)?;
    Some(Probe::Tcp { endpoint: tcp.required_text("endpoint", Text::Name, f) })
}

fn command_probe(check: &Object<'_>, f: &mut Findings) -> Option<Probe> {
    let exec = check.object("exec", Kind::Plain, &["command"], f)?;
    exec.required("command", f)?;
    Some(Probe::Exec { command: command(&exec, false, f)? })
}

fn volume_mount(value: &Value, path: String, f: &mut Findings) -> VolumeMount {
    let known = ["name", "mountPath", "readOnly"];
    let Some(mount) = Object::open(value, path, Kind::Bounded, &known, f) else {
        return VolumeMount { name: String::new(), mount_path: String::new(), read_only: false };
    };
    VolumeMount {
        // Of a secret or persistent volume the name is free text; whether it exists is a rule.
        name: mount.required_text("name", Text::NonEmpty, f),
        mount_path: mount.required_text("mountPath", Text::Path, f),
        read_only: mount.flag("readOnly", f).unwrap_or(false),
    }
}

fn artifact(value: &Value, path: String, f: &mut Findings) -> Artifact {
    let known = ["uri", "extract", "executable", "cache", "destPath"];
    let Some(artifact) = Object::open(value, path, Kind::Bounded, &known, f) else {
        return Artifact { uri: String::new(), extract: true, executable: false, cache: false, dest_path: None };
    };
    Artifact {
        uri: artifact.required_text("uri", Text::Path, f),
        extract: artifact.flag("extract", f).unwrap_or(true),
        executable: artifact.flag("executable", f).unwrap_or(false),
        cache: artifact.flag("cache", f).unwrap_or(false),
        dest_path: artifact.text("destPath", Text::Path, f),
    }
}
