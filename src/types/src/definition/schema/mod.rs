//! The structure of a definition: [`tables`] says what its members are, this reads them.
//!
//! Reading never stops: what is broken is recorded and a default stands in for it, so that the rules can
//! judge the rest. A value made of stand-ins never leaves this crate, since there is a violation then.

mod container;
mod id;
mod scheduling;
pub mod shape;
pub mod tables;

use std::collections::BTreeMap;

use serde_json::Value;

use super::read::Settings;
use super::walk::{Findings, Object, has_nul, text};
use super::words::Word;
use super::*;
use crate::id::{PodId, Version};
use shape::Text;

/// Reads a pod. `key` is the id that it must have, if one is known; without `settings` the definition is
/// a stored one, whose defaults were filled in before.
pub(super) fn pod(value: &Value, key: Option<&PodId>, settings: Option<&Settings>, f: &mut Findings) -> PodDefinition {
    let pod = Object::open(value, String::new(), &tables::POD, f);
    let id = id::read(&pod, key, f);
    let volumes = pod.each("volumes", f, |volume, f| self::volume(&volume, f));
    let resident = volumes.iter().any(|volume| matches!(volume.source, VolumeSource::Persistent(_)));
    let mut definition = PodDefinition {
        id,
        version: version(&pod, f),
        user: pod.maybe_text("user", f),
        labels: pod.labels("labels", f),
        environment: environment(&pod, f),
        containers: pod.each("containers", f, |container, f| container::read(&container, f)),
        secrets: pod.each_entry("secrets", f, |secret, f| SecretSource { source: secret.text("source", f) }),
        networks: pod.each("networks", f, |network, f| self::network(&network, f)),
        scaling: scheduling::scaling(&pod, f),
        scheduling: scheduling::scheduling(&pod, resident, f),
        executor_resources: executor_resources(&pod, f),
        role: pod.maybe_text("role", f),
        linux_info: linux_info(&pod, f),
        legacy_shared_cgroups: pod.maybe_flag("legacySharedCgroups", f).filter(|on| *on),
        volumes,
    };
    if let Some(settings) = settings {
        fill(&mut definition, settings);
    }
    definition
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

fn version(pod: &Object<'_>, f: &mut Findings) -> Option<Version> {
    let given = pod.maybe_text("version", f)?;
    let version = given.parse().ok();
    if version.is_none() {
        f.structure("/version", "error.expected.date.isoformat", "must be a time such as 2021-07-27T10:00:00.000Z");
    }
    version
}

/// [`shape::VARIABLE`].
fn is_variable(name: &str) -> bool {
    name.len() <= 254
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn environment(object: &Object<'_>, f: &mut Findings) -> BTreeMap<String, EnvironmentValue> {
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
            Value::Object(_) => {
                let reference = Object::open(value, path, &tables::SECRET_REFERENCE, f);
                Some(EnvironmentValue::Secret(reference.text("secret", f)))
            }
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

fn network(network: &Object<'_>, f: &mut Findings) -> Network {
    Network {
        name: network.maybe_text("name", f),
        mode: network.word("mode", NetworkMode::Container, f),
        labels: network.labels("labels", f),
    }
}

fn volume(volume: &Object<'_>, f: &mut Findings) -> Volume {
    let [host, secret, persistent] = ["host", "secret", "persistent"].map(|kind| volume.get(kind).is_some());
    if usize::from(host) + usize::from(secret) + usize::from(persistent) > 1 {
        f.rule(volume.path.clone(), "Only one of host, secret or persistent may be specified");
    }
    let source = if persistent {
        persistent_volume(volume, f).map(VolumeSource::Persistent)
    } else if secret {
        volume.maybe_text("secret", f).map(VolumeSource::Secret)
    } else {
        volume.maybe_text("host", f).map(VolumeSource::Host)
    };
    let bounds = if persistent || secret { Text::NonEmpty } else { Text::Name };
    let name = volume.text_within("name", bounds, f).unwrap_or_default();
    Volume { name, source: source.unwrap_or(VolumeSource::Ephemeral) }
}

fn persistent_volume(volume: &Object<'_>, f: &mut Findings) -> Option<PersistentVolume> {
    let object = volume.object("persistent", f)?;
    let profile_name = object.maybe_text("profileName", f);
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
        kind: object.word("type", default, f),
        size: object.integer("size", f),
        max_size: object.maybe_integer("maxSize", f),
        profile_name,
        path_like,
    })
}

fn executor_resources(pod: &Object<'_>, f: &mut Findings) -> ExecutorResources {
    let object = pod.filled("executorResources", f);
    ExecutorResources { cpus: object.number("cpus", f), mem: object.number("mem", f), disk: object.number("disk", f) }
}

fn linux_info(object: &Object<'_>, f: &mut Findings) -> Option<LinuxInfo> {
    let info = object.object("linuxInfo", f)?;
    let seccomp = info
        .object("seccomp", f)
        .map(|seccomp| Seccomp { profile_name: seccomp.maybe_text("profileName", f), unconfined: seccomp.flag("unconfined", f) });
    let ipc_info = info
        .object("ipcInfo", f)
        .map(|ipc| IpcInfo { mode: ipc.word("mode", IpcMode::Private, f), shm_size: ipc.maybe_integer("shmSize", f) });
    Some(LinuxInfo { seccomp, ipc_info })
}
