//! What the parts of a definition must mean together (reference sections 1.4 to 1.10). The paths are those
//! of the document, also where Marathon names a place that the document does not have.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use super::read::Settings;
use super::walk::{Findings, cut};
use super::*;
use crate::id::{InstanceId, MAX_MESOS_ID};

mod networks;
mod placement;

/// Judges a definition whose structure was read; passes over what rests on broken structure. `role` is the one that the
/// pod has now.
pub(super) fn judge(pod: &PodDefinition, role: Option<&str>, settings: &Settings, f: &mut Findings) {
    if pod.user.as_deref() == Some("") {
        f.rule("/user", "must not be empty");
    }
    lengths(pod, f);
    scaling(pod, f);
    secrets(pod, f);
    volumes(pod, f);
    networks::judge(pod, f);
    placement::judge(pod, role, settings, f);
    if let Some(info) = &pod.linux_info {
        if info.seccomp.is_some() {
            f.rule("/linuxInfo/seccomp", "Seccomp configuration on executor level is not supported");
        }
        ipc_info(info, "/linuxInfo", f);
    }
    if repeated(pod.containers.iter().map(|container| &container.name).filter(|name| !name.is_empty())) {
        f.rule("/containers", "container names must be unique");
    }
    for (index, container) in pod.containers.iter().enumerate() {
        judge_container(pod, container, &format!("/containers({index})"), f);
    }
    if pod.is_resident() {
        resident(pod, f);
    }
}

/// Whether anything occurs twice.
fn repeated<T: Hash + Eq>(items: impl IntoIterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    items.into_iter().any(|item| !seen.insert(item))
}

/// Mesos refuses task ids of more than 255 bytes, and an incarnation can grow to ten digits.
fn lengths(pod: &PodDefinition, f: &mut Findings) {
    if f.broken("/id") {
        return;
    }
    let instance = InstanceId { pod: pod.id.clone(), uuid: uuid::Uuid::nil() };
    let length = |name: &str| instance.task_id(name, u32::MAX).to_string().len();
    let message = |length: usize| format!("task ids of this pod would have {length} bytes, Mesos allows {MAX_MESOS_ID}");
    if length("x") > MAX_MESOS_ID {
        f.rule("/id", message(length("x")));
        return;
    }
    for (index, container) in pod.containers.iter().enumerate() {
        let length = length(&container.name);
        if length > MAX_MESOS_ID {
            f.rule(format!("/containers({index})/name"), message(length));
        }
    }
}

fn scaling(pod: &PodDefinition, f: &mut Findings) {
    let Scaling { instances, max_instances: Some(max) } = pod.scaling else { return };
    if instances > max && !f.broken("/scaling/instances") && !f.broken("/scaling/maxInstances") {
        f.rule("/scaling/instances", format!("got {instances}, expected {max} or less (maxInstances)"));
    }
}

/// Every reference to a secret names one of the pod's.
fn secrets(pod: &PodDefinition, f: &mut Findings) {
    if f.broken("/secrets") {
        return;
    }
    let unknown = |name: &String| !pod.secrets.contains_key(name);
    let environment = |map: &BTreeMap<String, EnvironmentValue>, at: &str, f: &mut Findings| {
        for (key, value) in map {
            let path = format!("{at}/environment/{key}/secret");
            if matches!(value, EnvironmentValue::Secret(name) if unknown(name)) && !f.broken(&path) {
                f.rule(path, "references an undefined secret");
            }
        }
    };
    environment(&pod.environment, "", f);
    for (index, container) in pod.containers.iter().enumerate() {
        environment(&container.environment, &format!("/containers({index})"), f);
        if container.image.as_ref().and_then(|image| image.pull_config.as_ref()).is_some_and(unknown) {
            f.rule(format!("/containers({index})/image/pullConfig"), "pullConfig.secret must refer to an existing secret");
        }
    }
    for (index, volume) in pod.volumes.iter().enumerate() {
        if matches!(&volume.source, VolumeSource::Secret(name) if unknown(name)) {
            f.rule(format!("/volumes({index})/secret"), "volume.secret must refer to an existing secret");
        }
    }
}

fn volumes(pod: &PodDefinition, f: &mut Findings) {
    let names: HashSet<&str> = pod.volumes.iter().map(|volume| volume.name.as_str()).collect();
    if repeated(pod.volumes.iter().map(|volume| &volume.name).filter(|name| !name.is_empty())) {
        f.rule("/volumes", "volume names must be unique");
    }
    let mounts = |container: &'_ Container| container.volume_mounts.iter().map(|mount| mount.name.clone()).collect::<Vec<_>>();
    let mounted: HashSet<String> = pod.containers.iter().flat_map(mounts).collect();
    let unsure = pod.containers.is_empty()
        || (0..pod.containers.len())
            .any(|index| f.broken(&format!("/containers({index})/volumeMounts")) || f.broken(&format!("/containers({index})")));
    for (index, volume) in pod.volumes.iter().enumerate() {
        if !unsure && !volume.name.is_empty() && !mounted.contains(&volume.name) {
            f.rule(format!("/volumes({index})"), "volume must be referenced by at least one container");
        }
    }
    if f.broken("/volumes") {
        return;
    }
    for (index, volume) in pod.volumes.iter().enumerate() {
        // Of these the name is free text, and a path below the executor's sandbox.
        if matches!(volume.source, VolumeSource::Persistent(_)) {
            inside(&volume.name, format!("/volumes({index})/name"), f);
        }
    }
    for (index, container) in pod.containers.iter().enumerate() {
        for (mount_index, mount) in container.volume_mounts.iter().enumerate() {
            if !mount.name.is_empty() && !names.contains(mount.name.as_str()) {
                let path = format!("/containers({index})/volumeMounts({mount_index})/name");
                f.rule(path, "Referenced Volume in VolumeMount should exist");
            }
        }
    }
}

fn judge_container(pod: &PodDefinition, container: &Container, at: &str, f: &mut Findings) {
    if let Some(check) = &container.health_check {
        health_check(container, check, &format!("{at}/healthCheck"), f);
    }
    if let Some(limits) = &container.resource_limits {
        let limits_at = format!("{at}/resourceLimits");
        if pod.legacy_shared_cgroups == Some(true) {
            f.rule(limits_at.clone(), "resourceLimits cannot be defined if legacySharedCgroups is enabled");
        }
        let both = [("cpus", limits.cpus, container.resources.cpus), ("mem", limits.mem, container.resources.mem)];
        for (name, limit, request) in both {
            if matches!(limit, Some(Limit::Amount(amount)) if amount < request) && !f.broken(&format!("{at}/resources/{name}")) {
                let message = format!("resource limit must be greater than or equal to requested resource ({request:?})");
                f.rule(format!("{limits_at}/{name}"), message);
            }
        }
    }
    if let Some(info) = &container.linux_info {
        seccomp(info, &format!("{at}/linuxInfo"), f);
        ipc_info(info, &format!("{at}/linuxInfo"), f);
    }
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        inside(&mount.mount_path, format!("{at}/volumeMounts({index})/mountPath"), f);
    }
    for (index, artifact) in container.artifacts.iter().enumerate() {
        inside(artifact.dest_path.as_deref().unwrap_or_default(), format!("{at}/artifacts({index})/destPath"), f);
    }
}

/// A path below the sandbox must not lead out of it.
fn inside(path: &str, at: String, f: &mut Findings) {
    if path.split('/').any(|segment| segment == "..") {
        f.rule(at, "must not contain '..'");
    }
}

fn health_check(container: &Container, check: &HealthCheck, at: &str, f: &mut Findings) {
    let (timeout, interval) = (check.timeout_seconds, check.interval_seconds);
    let sound = !f.broken(&format!("{at}/timeoutSeconds")) && !f.broken(&format!("{at}/intervalSeconds"));
    if timeout >= interval && sound {
        f.rule(format!("{at}/timeoutSeconds"), format!("got {timeout}, expected less than {interval}"));
    }
    let (kind, endpoint) = match &check.probe {
        Probe::Http { endpoint, .. } => ("http", endpoint),
        Probe::Tcp { endpoint } => ("tcp", endpoint),
        Probe::Exec { .. } => return,
    };
    let broken = container.endpoints.iter().any(|endpoint| endpoint.name.is_empty());
    if !endpoint.is_empty() && !broken && !container.endpoints.iter().any(|known| known.name == *endpoint) {
        f.rule(format!("{at}/{kind}/endpoint"), "contained in the container endpoints");
    }
}

fn seccomp(info: &LinuxInfo, at: &str, f: &mut Findings) {
    if let Some(seccomp) = &info.seccomp
        && !f.broken(&format!("{at}/seccomp"))
    {
        match (seccomp.profile_name.is_some(), seccomp.unconfined) {
            (true, true) => f.rule(format!("{at}/seccomp"), "Seccomp unconfined can NOT be true when Profile is defined"),
            (false, false) => f.rule(format!("{at}/seccomp"), "Seccomp unconfined must be true when Profile is NOT defined"),
            _ => {}
        }
    }
}

fn ipc_info(info: &LinuxInfo, at: &str, f: &mut Findings) {
    if matches!(info.ipc_info, Some(IpcInfo { mode: IpcMode::ShareParent, shm_size: Some(_) })) {
        f.rule(format!("{at}/ipcInfo"), "ipcInfo shmSize can NOT be set when mode is SHARE_PARENT");
    }
}

/// What persistent volumes forbid: their instances stay where their disks are.
fn resident(pod: &PodDefinition, f: &mut Findings) {
    let over = pod.scheduling.upgrade.maximum_over_capacity;
    if over != 0.0 && !f.broken("/scheduling/upgrade") {
        f.rule("/scheduling/upgrade/maximumOverCapacity", format!("got {over:?}, expected 0.0"));
    }
    if pod.scheduling.unreachable_strategy != UnreachableStrategy::Disabled && !f.broken("/scheduling/unreachableStrategy") {
        let message = "unreachableStrategy must be disabled for pods with persistent volumes";
        f.rule("/scheduling/unreachableStrategy", message);
    }
    let accepted = &pod.scheduling.placement.accepted_resource_roles;
    if !accepted.is_empty() && accepted != &["*"] {
        let message = "A resident pod must have `acceptedResourceRoles = [\"*\"]`.";
        f.rule("/scheduling/placement/acceptedResourceRoles", message);
    }
    if pod.role.as_deref() == Some("*") {
        f.rule("/role", "Resident pods cannot have the role *");
    }
}
