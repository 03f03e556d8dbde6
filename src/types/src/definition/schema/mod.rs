//! The structure of a definition: each member's type, bounds and default (reference sections 1.3 to 1.9).
//!
//! Reading never stops: what is broken is recorded and a default stands in for it, so that the rules can
//! judge the rest. A value made of stand-ins never leaves this crate, since there is a violation then.

mod container;
mod scheduling;

use std::collections::BTreeMap;

use serde_json::Value;

use super::read::Settings;
use super::walk::{Findings, Kind, Object, Text, has_nul, text};
use super::words::Word;
use super::*;
use crate::id::{IdError, PodId, Version};

const POD: &[&str] = &[
    "id",
    "version",
    "role",
    "user",
    "labels",
    "environment",
    "containers",
    "secrets",
    "volumes",
    "networks",
    "scaling",
    "scheduling",
    "executorResources",
    "linuxInfo",
    "legacySharedCgroups",
];

/// Reads a pod. `key` is the id that it must have, if one is known; without `settings` the definition is
/// a stored one, whose defaults were filled in before.
pub(super) fn pod(value: &Value, key: Option<&PodId>, settings: Option<&Settings>, f: &mut Findings) -> PodDefinition {
    let empty = Value::Object(serde_json::Map::new());
    let mut nothing = Findings::default();
    let root = Object::open(value, String::new(), Kind::Bounded, POD, f);
    let whole = root.is_some();
    // What is no object at all has no members to complain of.
    let f = if whole { f } else { &mut nothing };
    let Some(pod) = root.or_else(|| Object::open(&empty, String::new(), Kind::Bounded, POD, f)) else {
        return stand_in();
    };
    let id = id(&pod, key, f);
    let volumes: Vec<Volume> = pod.items("volumes", f).map(|(path, item)| volume(item, path, f)).collect();
    let resident = volumes.iter().any(|volume| matches!(volume.source, VolumeSource::Persistent(_)));
    let mut definition = PodDefinition {
        id,
        version: version(&pod, f),
        user: pod.text("user", Text::Free, f),
        labels: pod.labels("labels", f),
        environment: environment(&pod, f),
        containers: container::all(&pod, f),
        secrets: secrets(&pod, f),
        networks: pod.items("networks", f).map(|(path, item)| network(item, path, f)).collect(),
        scaling: scheduling::scaling(&pod, f),
        scheduling: scheduling::scheduling(&pod, resident, f),
        executor_resources: executor_resources(&pod, f),
        role: pod.text("role", Text::NonEmpty, f),
        linux_info: linux_info(&pod, f),
        legacy_shared_cgroups: pod.flag("legacySharedCgroups", f).filter(|on| *on),
        volumes,
    };
    if let Some(settings) = settings {
        fill(&mut definition, settings);
    }
    definition
}

/// Stands in for a pod that is no object.
fn stand_in() -> PodDefinition {
    PodDefinition {
        id: PodId::stand_in(),
        version: None,
        user: None,
        labels: BTreeMap::new(),
        environment: BTreeMap::new(),
        containers: Vec::new(),
        secrets: BTreeMap::new(),
        volumes: Vec::new(),
        networks: Vec::new(),
        scaling: Scaling::default(),
        scheduling: Scheduling::default(),
        executor_resources: ExecutorResources::default(),
        role: None,
        linux_info: None,
        legacy_shared_cgroups: None,
    }
}

/// Defaults that depend on the server or on other members (reference section 1.11).
fn fill(pod: &mut PodDefinition, settings: &Settings) {
    for network in &mut pod.networks {
        if network.mode == NetworkMode::Container && network.name.is_none() {
            network.name = settings.default_network_name.clone();
        }
    }
    if !pod.networks.iter().any(|network| network.mode == NetworkMode::Container) {
        for endpoint in pod.containers.iter_mut().flat_map(|container| &mut container.endpoints) {
            endpoint.host_port.get_or_insert(0);
        }
    }
    pod.role.get_or_insert_with(|| settings.default_role.clone());
}

fn id(pod: &Object<'_>, key: Option<&PodId>, f: &mut Findings) -> PodId {
    let given = match (pod.get("id"), key) {
        (None, Some(key)) => return key.clone(),
        _ => pod.required("id", f).and_then(|value| text(value, || pod.at("id"), Text::NonEmpty, f)),
    };
    let stand_in = || key.cloned().unwrap_or_else(PodId::stand_in);
    let Some(given) = given else { return stand_in() };
    match PodId::new(&given) {
        Ok(id) => {
            if let Some(key) = key.filter(|key| **key != id) {
                f.rule("/id", format!("'{key}' does not match definition's id ('{id}')"));
            }
            id
        }
        Err(IdError::Segment) if !given.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./".contains(&b)) => {
            f.structure("/id", "error.pattern", "must consist of lower-case letters, digits and inner dashes, separated by /");
            stand_in()
        }
        Err(error) => {
            f.rule("/id", error.to_string());
            stand_in()
        }
    }
}

fn version(pod: &Object<'_>, f: &mut Findings) -> Option<Version> {
    let given = pod.text("version", Text::Free, f)?;
    let version = given.parse().ok();
    if version.is_none() {
        f.structure("/version", "error.expected.date.isoformat", "must be a time such as 2021-07-27T10:00:00.000Z");
    }
    version
}

/// `^[a-zA-Z_][a-zA-Z0-9_]{0,253}?$`
fn is_variable(name: &str) -> bool {
    name.len() <= 254
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(super) fn environment(object: &Object<'_>, f: &mut Findings) -> BTreeMap<String, EnvironmentValue> {
    let mut environment = BTreeMap::new();
    for (path, name, value) in object.entries("environment", f) {
        if !is_variable(name) {
            f.structure(path.clone(), "error.pattern", "must consist of letters, digits and underscores, and begin with no digit");
        }
        let value = match value {
            Value::String(text) => {
                has_nul(text, || path.clone(), f);
                Some(EnvironmentValue::Text(text.clone()))
            }
            Value::Object(_) => Object::open(value, path, Kind::Plain, &["secret"], f).map(|reference| {
                // A broken reference leaves an empty name, which the rules pass over.
                EnvironmentValue::Secret(reference.required_text("secret", Text::Free, f))
            }),
            _ => {
                f.structure(format!("{path}/secret"), "error.path.missing", "a value is a string or {\"secret\": \"name\"}");
                None
            }
        };
        if let Some(value) = value {
            environment.insert(name.to_owned(), value);
        }
    }
    environment
}

fn secrets(pod: &Object<'_>, f: &mut Findings) -> BTreeMap<String, SecretSource> {
    let mut secrets = BTreeMap::new();
    for (path, name, value) in pod.entries("secrets", f) {
        has_nul(name, || path.clone(), f);
        if let Some(secret) = Object::open(value, path, Kind::Bounded, &["source"], f) {
            secrets.insert(name.to_owned(), SecretSource { source: secret.required_text("source", Text::NonEmpty, f) });
        }
    }
    secrets
}

fn network(value: &Value, path: String, f: &mut Findings) -> Network {
    let object = Object::open(value, path, Kind::Bounded, &["name", "mode", "labels"], f);
    let Some(network) = object else {
        return Network { name: None, mode: NetworkMode::Container, labels: BTreeMap::new() };
    };
    Network {
        name: network.text("name", Text::NetworkName, f),
        mode: network.word("mode", f).unwrap_or(NetworkMode::Container),
        labels: network.labels("labels", f),
    }
}

fn volume(value: &Value, path: String, f: &mut Findings) -> Volume {
    let known = ["name", "host", "secret", "persistent"];
    let Some(volume) = Object::open(value, path, Kind::Bounded, &known, f) else {
        return Volume { name: String::new(), source: VolumeSource::Ephemeral };
    };
    let [host, secret, persistent] = ["host", "secret", "persistent"].map(|kind| volume.get(kind).is_some());
    if usize::from(host) + usize::from(secret) + usize::from(persistent) > 1 {
        f.rule(volume.path.clone(), "Only one of host, secret or persistent may be specified");
    }
    let source = if persistent {
        persistent_volume(&volume, f).map(VolumeSource::Persistent)
    } else if secret {
        volume.text("secret", Text::NonEmpty, f).map(VolumeSource::Secret)
    } else {
        volume.text("host", Text::Free, f).map(VolumeSource::Host)
    };
    let bounds = if persistent || secret { Text::NonEmpty } else { Text::Name };
    Volume { name: volume.required_text("name", bounds, f), source: source.unwrap_or(VolumeSource::Ephemeral) }
}

fn persistent_volume(volume: &Object<'_>, f: &mut Findings) -> Option<PersistentVolume> {
    let known = ["type", "size", "maxSize", "profileName", "constraints"];
    let object = volume.object("persistent", Kind::Bounded, &known, f)?;
    let size = |name, f: &mut Findings| object.integer(name, 0, i64::MAX, f).and_then(|size| u64::try_from(size).ok());
    object.required("size", f);
    let profile_name = object.text("profileName", Text::Free, f);
    let default = if profile_name.is_some() { PersistentKind::Mount } else { PersistentKind::Root };
    let mut path_like = Vec::new();
    for (path, item) in object.items("constraints", f) {
        let words: Vec<_> = item.as_array().into_iter().flatten().map(Value::as_str).collect();
        match words.as_slice() {
            [Some("path"), Some(operator), Some(pattern)] if Operator::from_word(operator) == Some(Operator::Like) => {
                f.pattern(path, pattern);
                path_like.push((*pattern).to_owned());
            }
            _ => f.structure(path, "illegal volume constraint", "must be [\"path\", \"LIKE\", \"<regular expression>\"]"),
        }
    }
    Some(PersistentVolume {
        kind: object.word("type", f).unwrap_or(default),
        size: size("size", f).unwrap_or(0),
        max_size: size("maxSize", f),
        profile_name,
        path_like,
    })
}

fn executor_resources(pod: &Object<'_>, f: &mut Findings) -> ExecutorResources {
    let default = ExecutorResources::default();
    let Some(object) = pod.object("executorResources", Kind::Bounded, &["cpus", "mem", "disk"], f) else {
        return default;
    };
    ExecutorResources {
        cpus: object.number("cpus", 0.1, f64::MAX, f).unwrap_or(default.cpus),
        mem: object.number("mem", 32.0, f64::MAX, f).unwrap_or(default.mem),
        disk: object.number("disk", 10.0, f64::MAX, f).unwrap_or(default.disk),
    }
}

impl Default for ExecutorResources {
    /// What the documents say that the executor reserves, and the disk of their table.
    fn default() -> Self {
        Self { cpus: 0.1, mem: 32.0, disk: 10.0 }
    }
}

pub(super) fn linux_info(object: &Object<'_>, f: &mut Findings) -> Option<LinuxInfo> {
    let info = object.object("linuxInfo", Kind::Plain, &["seccomp", "ipcInfo"], f)?;
    let seccomp = info.object("seccomp", Kind::Plain, &["profileName", "unconfined"], f).map(|seccomp| Seccomp {
        profile_name: seccomp.text("profileName", Text::Free, f),
        unconfined: seccomp.flag("unconfined", f).unwrap_or(false),
    });
    let ipc_info = info
        .object("ipcInfo", Kind::Plain, &["mode", "shmSize"], f)
        .map(|ipc| IpcInfo { mode: ipc.required_word("mode", f).unwrap_or(IpcMode::Private), shm_size: ipc.count("shmSize", f) });
    Some(LinuxInfo { seccomp, ipc_info })
}
