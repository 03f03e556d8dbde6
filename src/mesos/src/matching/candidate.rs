//! One pod's instances as matching sees them: what one takes, which slots may be used, and why another may not.

use podium_proto::wire::amounts::{Amounts, thousandths};
use podium_proto::wire::ranges::RangeSet;
use podium_types::definition::{Constraint, Operator, PersistentKind, PersistentVolume, PodDefinition};

use super::accepted::{Accepted, AcceptedRoles};
use super::constraint::{Counting, Fixed, is_fixed};
use super::disks::{Tries, Wish};
use super::slot::Kind;
use super::tree::Size;
use super::{Group, Paid, Reason, Rules, Slot, Waiting, choose_ports};

/// Pods with this label decide for themselves whether agents with GPUs are too good for them.
pub(super) const GPU_LABEL: &str = "GPU_SCHEDULING_BEHAVIOR";

/// What one instance takes.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    /// Executor and containers together; its ports are the fixed ones.
    total: Amounts,
    /// Host ports to be chosen.
    any_ports: u64,
    /// Volumes that are not on the agent's own disk.
    disks: Vec<PersistentVolume>,
}

/// Equal for demands that fit the same slots.
pub(super) type Signature = (Size, RangeSet, Vec<PersistentVolume>);

impl Demand {
    fn of(definition: &PodDefinition) -> Self {
        let executor = &definition.executor_resources;
        let mut total = Amounts {
            cpus: thousandths(executor.cpus),
            mem: thousandths(executor.mem),
            disk: thousandths(executor.disk),
            ..Amounts::default()
        };
        let mut any_ports = 0;
        for container in &definition.containers {
            let resources = &container.resources;
            total.cpus = total.cpus.saturating_add(thousandths(resources.cpus));
            total.mem = total.mem.saturating_add(thousandths(resources.mem));
            total.disk = total.disk.saturating_add(thousandths(resources.disk));
            total.gpus = total.gpus.saturating_add(gpus(resources.gpus));
            for port in container.endpoints.iter().filter_map(|endpoint| endpoint.host_port) {
                if port == 0 {
                    any_ports += 1;
                } else {
                    total.ports.insert(port.into()..=port.into());
                }
            }
        }
        let mut disks = Vec::new();
        for (_, volume) in definition.persistent_volumes() {
            match volume.kind {
                PersistentKind::Root => total.disk = total.disk.saturating_add(volume_size(volume)),
                PersistentKind::Path | PersistentKind::Mount => disks.push(volume.clone()),
            }
        }
        Demand { total, any_ports, disks }
    }

    pub fn size(&self) -> Size {
        let ports = i64::try_from(self.any_ports.saturating_add(self.total.ports.len())).unwrap_or(i64::MAX);
        [self.total.cpus, self.total.mem, self.total.disk, self.total.gpus, ports]
    }

    pub fn signature(&self) -> Signature {
        (self.size(), self.total.ports.clone(), self.disks.clone())
    }
}

/// What a volume takes, in thousandths of a MiB. Mesos knows no volume of nothing.
pub(super) fn volume_size(volume: &PersistentVolume) -> i64 {
    i64::try_from(volume.size.max(1)).unwrap_or(i64::MAX).saturating_mul(1000)
}

pub(super) fn gpus(devices: u32) -> i64 {
    i64::from(devices) * 1000
}

/// Pods of the same key may use the same slots.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    role: &'a str,
    accepted: Accepted<'a>,
    leaves_region: bool,
    shares_gpu_agents: bool,
    fixed: Vec<(&'a str, u8, Option<&'a str>)>,
}

/// A group ready to be matched.
pub(super) struct Candidate<'a> {
    group: &'a Group<'a>,
    pub demand: Demand,
    pub accepted: Accepted<'a>,
    /// What its volumes want of disks other than the agent's own.
    wishes: Vec<Wish<'a>>,
    tries: &'a Tries,
    leaves_region: bool,
    shares_gpu_agents: bool,
}

impl<'a> Candidate<'a> {
    pub fn new(group: &'a Group<'a>, rules: &Rules, tries: &'a Tries) -> Self {
        let placement = &group.definition.scheduling.placement;
        let demand = Demand::of(group.definition);
        let shares_gpu_agents = match group.definition.labels.get(GPU_LABEL).map(String::as_str) {
            Some("unrestricted") => true,
            Some("restricted") => false,
            _ => rules.share_gpu_agents,
        };
        Candidate {
            group,
            accepted: if group.definition.is_resident() {
                // What it takes is to be reserved for it, and so must not be yet.
                Accepted::new(&[], AcceptedRoles::Unreserved)
            } else {
                Accepted::new(&placement.accepted_resource_roles, rules.accepted_roles)
            },
            wishes: group.definition.persistent_volumes().filter_map(|(_, volume)| Wish::of(volume)).collect(),
            tries,
            leaves_region: placement.constraints.iter().any(|constraint| matches!(constraint.field_name.as_str(), "@region" | "@zone")),
            shares_gpu_agents: shares_gpu_agents || demand.total.gpus > 0,
            demand,
        }
    }

    fn constraints(&self) -> &'a [Constraint] {
        &self.group.definition.scheduling.placement.constraints
    }

    pub fn key(&self) -> Key<'a> {
        let fixed = self.constraints().iter().filter(|constraint| is_fixed(constraint));
        let word = |constraint: &'a Constraint| {
            let operator = match constraint.operator {
                Operator::Unique => 0,
                Operator::Cluster => 1,
                Operator::GroupBy => 2,
                Operator::Like => 3,
                Operator::Unlike => 4,
                Operator::MaxPer => 5,
                Operator::Is => 6,
            };
            (constraint.field_name.as_str(), operator, constraint.value.as_deref())
        };
        Key {
            role: self.group.role,
            accepted: self.accepted,
            leaves_region: self.leaves_region,
            shares_gpu_agents: self.shares_gpu_agents,
            fixed: fixed.map(word).collect(),
        }
    }

    /// The constraints that depend on the agent alone.
    pub fn fixed(&self) -> Fixed<'a> {
        Fixed::of(self.constraints().iter())
    }

    /// The other constraints, with what already runs counted; `eligible` are the slots that could take more.
    pub fn counting<'b>(&'b self, eligible: impl Iterator<Item = &'b Slot> + Clone) -> Counting<'a> {
        let instances = self.group.definition.scaling.instances;
        Counting::new(self.constraints(), instances, self.group.counted, eligible.map(|slot| &slot.facts))
    }

    fn may_use_region(&self, slot: &Slot, rules: &Rules) -> bool {
        self.leaves_region || rules.home_region.is_none() || slot.facts.region.is_none() || slot.facts.region == rules.home_region
    }

    fn is_scarce(&self, slot: &Slot) -> bool {
        slot.has_gpus && !self.shares_gpu_agents
    }

    /// Whether the pod may use the slot at all, whatever is left of it and wherever other instances are.
    pub fn is_eligible(&self, slot: &Slot, fixed: &Fixed<'_>, rules: &Rules) -> bool {
        slot.role == self.group.role
            && self.may_use_region(slot, rules)
            && !rules.is_closing(slot)
            && !self.is_scarce(slot)
            && fixed.admits(&slot.facts)
    }

    /// The first reason against this slot, in funnel order; none if the instance fits.
    pub fn refusal(&self, slot: &Slot, fixed: &Fixed<'_>, counting: &Counting<'_>, rules: &Rules) -> Option<Reason> {
        let nothing_accepted = || !self.accepted.is_everything() && slot.free_of(&self.accepted).is_empty();
        if slot.role != self.group.role || nothing_accepted() {
            return Some(Reason::UnfulfilledRole);
        }
        if !self.may_use_region(slot, rules) || !fixed.admits(&slot.facts) || !counting.admits(&slot.facts) {
            return Some(Reason::UnfulfilledConstraint);
        }
        if rules.is_closing(slot) {
            return Some(Reason::AgentMaintenance);
        }
        self.shortage(slot).or(self.is_scarce(slot).then_some(Reason::DeclinedScarceResources))
    }

    /// What is not enough of the slot.
    pub fn shortage(&self, slot: &Slot) -> Option<Reason> {
        if self.accepted.is_everything() { self.lacks(slot, slot.free()) } else { self.lacks(slot, &slot.free_of(&self.accepted)) }
    }

    /// The same, where so much of it is accepted.
    fn lacks(&self, slot: &Slot, free: &Amounts) -> Option<Reason> {
        let wanted = &self.demand.total;
        let ports = || {
            let enough = free.ports.len() >= self.demand.any_ports.saturating_add(wanted.ports.len());
            !enough || !free.ports.contains_all(&wanted.ports)
        };
        if free.cpus < wanted.cpus {
            Some(Reason::InsufficientCpus)
        } else if free.mem < wanted.mem {
            Some(Reason::InsufficientMemory)
        } else if free.disk < wanted.disk || !slot.has_disks(&self.wishes, self.tries) {
            Some(Reason::InsufficientDisk)
        } else if free.gpus < wanted.gpus {
            Some(Reason::InsufficientGpus)
        } else {
            ports().then_some(Reason::InsufficientPorts)
        }
    }

    /// Pays for one instance out of the slot; none if its entries do not suffice after all, and the slot is spoilt then.
    pub fn pay(&self, slot: &mut Slot, waiting: Waiting) -> Option<Paid> {
        let definition = self.group.definition;
        let accepted = &self.accepted;
        let chosen = if accepted.is_everything() {
            choose_ports(definition, &slot.free().ports, waiting)
        } else {
            choose_ports(definition, &slot.free_of(accepted).ports, waiting)
        };
        let (host_ports, all_ports) = chosen?;
        let executor = &definition.executor_resources;
        let amounts =
            [(Kind::Cpus, thousandths(executor.cpus)), (Kind::Mem, thousandths(executor.mem)), (Kind::Disk, thousandths(executor.disk))];
        let mut executor_resources = slot.take(&amounts, accepted)?;
        executor_resources.extend(slot.take_ports(&all_ports, accepted)?);
        let mut task_resources = Vec::with_capacity(definition.containers.len());
        for container in &definition.containers {
            let wanted = &container.resources;
            let amounts = [
                (Kind::Cpus, thousandths(wanted.cpus)),
                (Kind::Mem, thousandths(wanted.mem)),
                (Kind::Disk, thousandths(wanted.disk)),
                (Kind::Gpus, gpus(wanted.gpus)),
            ];
            task_resources.push(slot.take(&amounts, accepted)?);
        }
        let mut disks = slot.take_disks(&self.wishes)?.into_iter();
        let volumes = definition.persistent_volumes().map(|(_, volume)| {
            if volume.kind != PersistentKind::Root {
                return disks.next();
            }
            let mut pieces = slot.take(&[(Kind::Disk, volume_size(volume))], accepted)?;
            // A volume is one resource.
            pieces.pop().filter(|_| pieces.is_empty())
        });
        let volumes = volumes.collect::<Option<Vec<_>>>()?;
        Some(Paid { host_ports, executor_resources, task_resources, volumes })
    }
}
