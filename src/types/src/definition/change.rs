//! What a new definition changes in comparison with the one in force.

use super::{PodDefinition, VolumeSource, read::Violation};

/// What differs between two definitions of one pod. Ordered by how much it stirs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not a thing, version aside.
    Nothing,
    /// Only what is read from the definition in force (kill selection, unreachable strategy, upgrade,
    /// back-off, the upper bound of instances): nothing is started or stopped because of it.
    SettingsOnly,
    /// The number of instances, and perhaps settings: nothing is restarted.
    ScaleOnly,
    /// What runs: a new config, instances are replaced.
    Config,
}

/// Compares two definitions, their versions aside. Scale, killSelection, unreachableStrategy, upgrade and
/// back-off change the version but not what runs.
pub fn config_changed(old: &PodDefinition, new: &PodDefinition) -> Change {
    let settings_of_new = |pod: &PodDefinition| {
        let mut pod = pod.clone();
        pod.version = new.version;
        pod.scaling = new.scaling.clone();
        pod.scheduling.backoff = new.scheduling.backoff.clone();
        pod.scheduling.upgrade = new.scheduling.upgrade.clone();
        pod.scheduling.kill_selection = new.scheduling.kill_selection;
        pod.scheduling.unreachable_strategy = new.scheduling.unreachable_strategy;
        pod
    };
    if settings_of_new(old) != *new {
        Change::Config
    } else if old.scaling.instances != new.scaling.instances {
        Change::ScaleOnly
    } else if old.scaling != new.scaling || old.scheduling != new.scheduling {
        Change::SettingsOnly
    } else {
        Change::Nothing
    }
}

/// What an update may not change because the pod has persistent volumes (reference sections 1.7 and 1.13). Empty: nothing.
/// `force` lets the role change, which moves no instance that there is.
pub fn update_violations(old: &PodDefinition, new: &PodDefinition, force: bool) -> Vec<Violation> {
    let persistent = |pod: &PodDefinition| {
        let mut volumes: Vec<_> =
            pod.volumes.iter().filter(|volume| matches!(volume.source, VolumeSource::Persistent(_))).cloned().collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes
    };
    let (before, after) = (persistent(old), persistent(new));
    if before.is_empty() && after.is_empty() {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let mut refuse = |path: &str, message: &str| violations.push(Violation::rule(path, message));
    if let (Some(was), Some(is)) = (&old.role, &new.role)
        && was != is
        && !force
    {
        let message = format!(
            "It is not possible to change the role for existing reservations. If you proceed with this change, all existing instances \
             will continue to run under the previous role, {was}. Only new instances will be allocated with the new role, {is}. In order \
             to continue, retry your request with ?force=true"
        );
        refuse("/role", &message);
    }
    if before != after {
        refuse("/volumes", "persistent volumes cannot be updated");
    }
    let (was, is) = (total(old), total(new));
    for (index, name) in ["cpus", "mem", "disk", "gpus"].into_iter().enumerate() {
        if was.get(index) != is.get(index) {
            refuse("/containers", &format!("{name} cannot be updated if a pod has persistent volumes"));
        }
    }
    if host_ports(old) != host_ports(new) {
        refuse("/containers", "host ports cannot be updated if a pod has persistent volumes");
    }
    violations
}

/// cpus, mem, disk and gpus of one instance, executor included, in thousandths as Mesos counts.
fn total(pod: &PodDefinition) -> [i64; 4] {
    let executor = &pod.executor_resources;
    let mut sum = [executor.cpus, executor.mem, executor.disk, 0.0];
    for container in &pod.containers {
        let resources = &container.resources;
        let parts = [resources.cpus, resources.mem, resources.disk, f64::from(resources.gpus)];
        sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
    }
    sum.map(|amount| (amount * 1000.0).round() as i64)
}

fn host_ports(pod: &PodDefinition) -> Vec<u16> {
    let mut ports: Vec<u16> =
        pod.containers.iter().flat_map(|container| &container.endpoints).filter_map(|endpoint| endpoint.host_port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
