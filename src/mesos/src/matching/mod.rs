//! Which waiting instance goes to which offer: a pure, deterministic function of offers, pods and rules.
//!
//! One pass places a whole batch. Offers are merged by agent and role into [`Slot`]s, a tree over what
//! they have left finds the next one that is large enough, and only those are looked at closely. What
//! cannot be placed is explained by Marathon's ten reasons ([`explain`]). Called by the gateway.

mod constraint;
mod facts;
mod slot;
mod tree;

use std::collections::HashMap;

use podium_proto::mesos::v1;
use podium_proto::wire::amounts::{Amounts, thousandths};
use podium_proto::wire::ranges::RangeSet;
use podium_types::definition::PodDefinition;
use uuid::Uuid;

use constraint::{Checker, Verdicts};
pub use facts::AgentFacts;
pub use slot::{Slot, slots};
use tree::Tree;

/// Pods with this label decide for themselves whether agents with GPUs are too good for them.
const GPU_LABEL: &str = "GPU_SCHEDULING_BEHAVIOR";

/// Why an offer is of no use to a pod. The order is that of Marathon's funnel: the first that applies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The offer is for another role, or has nothing in the roles that the pod accepts.
    UnfulfilledRole,
    /// A constraint does not hold, or the agent stands in another region.
    UnfulfilledConstraint,
    /// The pod waits for its reservation.
    NoCorrespondingReservationFound,
    /// The agent is about to be taken down.
    AgentMaintenance,
    /// Too few CPU shares.
    InsufficientCpus,
    /// Too little memory.
    InsufficientMemory,
    /// Too little disk.
    InsufficientDisk,
    /// Too few GPUs.
    InsufficientGpus,
    /// A fixed host port is taken, or there are too few ports.
    InsufficientPorts,
    /// The agent has GPUs and the pod needs none.
    DeclinedScarceResources,
}

impl Reason {
    /// All, in funnel order.
    pub const ALL: [Reason; 10] = [
        Reason::UnfulfilledRole,
        Reason::UnfulfilledConstraint,
        Reason::NoCorrespondingReservationFound,
        Reason::AgentMaintenance,
        Reason::InsufficientCpus,
        Reason::InsufficientMemory,
        Reason::InsufficientDisk,
        Reason::InsufficientGpus,
        Reason::InsufficientPorts,
        Reason::DeclinedScarceResources,
    ];

    /// Marathon's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::UnfulfilledRole => "UnfulfilledRole",
            Reason::UnfulfilledConstraint => "UnfulfilledConstraint",
            Reason::NoCorrespondingReservationFound => "NoCorrespondingReservationFound",
            Reason::AgentMaintenance => "AgentMaintenance",
            Reason::InsufficientCpus => "InsufficientCpus",
            Reason::InsufficientMemory => "InsufficientMemory",
            Reason::InsufficientDisk => "InsufficientDisk",
            Reason::InsufficientGpus => "InsufficientGpus",
            Reason::InsufficientPorts => "InsufficientPorts",
            Reason::DeclinedScarceResources => "DeclinedScarceResources",
        }
    }
}

/// What resources a pod accepts that does not say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceptedRoles {
    /// Reserved for its role, and unreserved.
    #[default]
    Any,
    /// Unreserved only.
    Unreserved,
    /// Reserved for its role only.
    Reserved,
}

/// The server's rules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// For pods without `acceptedResourceRoles`.
    pub accepted_roles: AcceptedRoles,
    /// The master's region; pods leave it only by a constraint on `@region` or `@zone`.
    pub home_region: Option<String>,
    /// Now, in milliseconds since the epoch: agents whose maintenance begins by then are avoided.
    pub maintenance_before_ms: i64,
    /// Offers with GPUs are open to pods that need none.
    pub share_gpu_agents: bool,
    /// At most so many instances on one offer in one pass.
    pub max_per_offer: Option<usize>,
}

/// Instances of one config of one pod: alike in all that matters here.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What they are.
    pub definition: &'a PodDefinition,
    /// Their role.
    pub role: &'a str,
    /// Those that wait, in the order in which they are to be placed.
    pub waiting: &'a [Uuid],
    /// Where the pod's other instances run: those that constraints count.
    pub counted: &'a [AgentFacts],
}

/// One instance with its place, paid for out of the slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Index of its group.
    pub group: usize,
    /// Which instance.
    pub instance: Uuid,
    /// Index of its slot.
    pub slot: usize,
    /// For each container, for each endpoint, its host port.
    pub host_ports: HostPorts,
    /// For the executor: its own and all host ports.
    pub executor_resources: Vec<v1::Resource>,
    /// For each container.
    pub task_resources: Vec<Vec<v1::Resource>>,
}

/// For each container, for each endpoint, its host port.
pub type HostPorts = Vec<Vec<Option<u16>>>;

/// What was taken out of a slot for one instance.
struct Paid {
    host_ports: HostPorts,
    executor_resources: Vec<v1::Resource>,
    task_resources: Vec<Vec<v1::Resource>>,
}

/// What one instance takes.
#[derive(Debug, Clone)]
struct Demand {
    /// Executor and containers together; its ports are the fixed ones.
    total: Amounts,
    /// Host ports to be chosen.
    any_ports: u64,
}

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
            total.gpus = total.gpus.saturating_add(i64::from(resources.gpus) * 1000);
            for port in container.endpoints.iter().filter_map(|endpoint| endpoint.host_port) {
                if port == 0 {
                    any_ports += 1;
                } else {
                    total.ports.insert(port.into()..=port.into());
                }
            }
        }
        Demand { total, any_ports }
    }

    fn size(&self) -> tree::Size {
        let ports = i64::try_from(self.any_ports.saturating_add(self.total.ports.len())).unwrap_or(i64::MAX);
        [self.total.cpus, self.total.mem, self.total.disk, self.total.gpus, ports]
    }
}

/// A group ready to be matched.
struct Candidate<'a> {
    group: &'a Group<'a>,
    demand: Demand,
    checker: Checker,
    leaves_region: bool,
    shares_gpu_agents: bool,
}

impl<'a> Candidate<'a> {
    fn new(group: &'a Group<'a>, slots: &[Slot], rules: &Rules) -> Self {
        let constraints = &group.definition.scheduling.placement.constraints;
        let shares_gpu_agents = match group.definition.labels.get(GPU_LABEL).map(String::as_str) {
            Some("unrestricted") => true,
            Some("restricted") => false,
            _ => rules.share_gpu_agents,
        };
        Candidate {
            group,
            demand: Demand::of(group.definition),
            checker: Checker::new(constraints, group.definition.scaling.instances, group.counted, slots),
            leaves_region: constraints.iter().any(|constraint| matches!(constraint.field_name.as_str(), "@region" | "@zone")),
            shares_gpu_agents,
        }
    }

    /// Whether the pod may spend an entry that belongs to `role`.
    fn accepts(&self, role: &str, rules: &Rules) -> bool {
        let accepted = &self.group.definition.scheduling.placement.accepted_resource_roles;
        if !accepted.is_empty() {
            return accepted.iter().any(|accepted| accepted == role);
        }
        match rules.accepted_roles {
            AcceptedRoles::Any => true,
            AcceptedRoles::Unreserved => role == "*",
            AcceptedRoles::Reserved => role != "*",
        }
    }

    fn accepts_everything(&self, rules: &Rules) -> bool {
        rules.accepted_roles == AcceptedRoles::Any && self.group.definition.scheduling.placement.accepted_resource_roles.is_empty()
    }

    /// The first reason against this slot, in funnel order; none if the instance fits.
    fn refusal(&self, index: usize, slot: &Slot, rules: &Rules, verdicts: &mut Verdicts) -> Option<Reason> {
        if slot.role != self.group.role {
            return Some(Reason::UnfulfilledRole);
        }
        let filtered = (!self.accepts_everything(rules)).then(|| slot.free_of(|role| self.accepts(role, rules)));
        let free = filtered.as_ref().unwrap_or(slot.free());
        if filtered.is_some() && free.is_empty() {
            return Some(Reason::UnfulfilledRole);
        }
        let away = rules.home_region.is_some() && slot.facts.region.is_some() && slot.facts.region != rules.home_region;
        if (away && !self.leaves_region) || !self.checker.admits(index, &slot.facts, verdicts) {
            return Some(Reason::UnfulfilledConstraint);
        }
        if slot.unavailable_from_ms.is_some_and(|from| from <= rules.maintenance_before_ms) {
            return Some(Reason::AgentMaintenance);
        }
        let short = self.shortage(free);
        let scarce = slot.has_gpus && self.demand.total.gpus == 0 && !self.shares_gpu_agents;
        short.or(scarce.then_some(Reason::DeclinedScarceResources))
    }

    fn shortage(&self, free: &Amounts) -> Option<Reason> {
        let wanted = &self.demand.total;
        let scalars = [
            (free.cpus, wanted.cpus, Reason::InsufficientCpus),
            (free.mem, wanted.mem, Reason::InsufficientMemory),
            (free.disk, wanted.disk, Reason::InsufficientDisk),
            (free.gpus, wanted.gpus, Reason::InsufficientGpus),
        ];
        let short = scalars.into_iter().find(|(free, wanted, _)| free < wanted).map(|(_, _, reason)| reason);
        let ports = || {
            let enough = free.ports.len() >= self.demand.any_ports.saturating_add(wanted.ports.len());
            !enough || !free.ports.contains_all(&wanted.ports)
        };
        short.or_else(|| ports().then_some(Reason::InsufficientPorts))
    }

    /// Pays for one instance out of the slot; none, and nothing paid, if its entries do not suffice after all.
    fn pay(&self, slot: &mut Slot, instance: Uuid, rules: &Rules) -> Option<Paid> {
        let definition = self.group.definition;
        let eligible = |role: &str| self.accepts(role, rules);
        let (host_ports, all_ports) = choose_ports(definition, &slot.free_of(eligible).ports, instance)?;
        let mut purse = slot.purse(eligible);
        let executor = &definition.executor_resources;
        let mut executor_resources = purse.take(&[("cpus", executor.cpus), ("mem", executor.mem), ("disk", executor.disk)])?;
        executor_resources.extend(purse.take_ports(&all_ports)?);
        let mut task_resources = Vec::with_capacity(definition.containers.len());
        for container in &definition.containers {
            let wanted = &container.resources;
            let amounts = [("cpus", wanted.cpus), ("mem", wanted.mem), ("disk", wanted.disk), ("gpus", f64::from(wanted.gpus))];
            task_resources.push(purse.take(&amounts)?);
        }
        purse.settle();
        Some(Paid { host_ports, executor_resources, task_resources })
    }
}

/// Chooses the host ports of one instance. Where any port will do, the instance's id decides at which one
/// the search begins, so that a port just given back is not the next one used.
fn choose_ports(definition: &PodDefinition, free: &RangeSet, instance: Uuid) -> Option<(HostPorts, RangeSet)> {
    let fixed = definition.containers.iter().flat_map(|container| &container.endpoints).filter_map(|endpoint| endpoint.host_port);
    let fixed: RangeSet = fixed.filter(|port| *port != 0).map(u64::from).collect();
    let mut open = free.clone();
    open.subtract(&fixed);
    let mut all = fixed;
    let mut chosen = Vec::with_capacity(definition.containers.len());
    let mut draw = instance.as_u64_pair().0 ^ instance.as_u64_pair().1;
    for container in &definition.containers {
        let mut ports = Vec::with_capacity(container.endpoints.len());
        for endpoint in &container.endpoints {
            let port = match endpoint.host_port {
                Some(0) => {
                    let drawn = open.nth(draw.checked_rem(open.len())?)?;
                    draw = draw.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    open.remove(drawn..=drawn);
                    all.insert(drawn..=drawn);
                    Some(u16::try_from(drawn).ok()?)
                }
                given => given,
            };
            ports.push(port);
        }
        chosen.push(ports);
    }
    Some((chosen, all))
}

/// Places as many waiting instances as fit, in the order of groups and instances. Each placement is paid
/// for out of its slot, so that what remains in the slots can be declined or used by another pass.
///
/// An instance that is not placed fits no slot, given the placements before it.
pub fn place(slots: &mut [Slot], groups: &[Group<'_>], rules: &Rules) -> Vec<Placed> {
    let mut tree = Tree::new(slots.iter().map(Slot::size));
    let mut verdicts = Verdicts::default();
    let mut placed_in: HashMap<usize, usize> = HashMap::new();
    let mut all = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let Some(first) = group.waiting.first() else { continue };
        let mut candidate = Candidate::new(group, slots, rules);
        verdicts.begin(&candidate.checker, slots.len());
        let size = candidate.demand.size();
        // Each pod begins its round at another slot, so that pods spread over the agents.
        let mut cursor = usize::try_from(first.as_u128() % (slots.len().max(1) as u128)).unwrap_or(0);
        for instance in group.waiting {
            let fits = |slot: usize, state: &[Slot], verdicts: &mut Verdicts| {
                let full = rules.max_per_offer.is_some_and(|most| placed_in.get(&slot).is_some_and(|placed| *placed >= most));
                !full && state.get(slot).is_some_and(|found| candidate.refusal(slot, found, rules, verdicts).is_none())
            };
            let found = tree.find_round(cursor, &size, |slot| fits(slot, slots, &mut verdicts));
            // Its siblings want the same, and nothing has changed since.
            let Some(found) = found else { break };
            let Some(slot) = slots.get_mut(found) else { break };
            let Some(paid) = candidate.pay(slot, *instance, rules) else { break };
            let Paid { host_ports, executor_resources, task_resources } = paid;
            tree.set(found, slot.size());
            *placed_in.entry(found).or_default() += 1;
            candidate.checker.count(&slot.facts);
            cursor = found + 1;
            all.push(Placed { group: index, instance: *instance, slot: found, host_ports, executor_resources, task_resources });
        }
    }
    all
}

/// For a pod that waits: why each slot is of no use to it; none where it would fit now.
#[must_use]
pub fn explain(slots: &[Slot], group: &Group<'_>, rules: &Rules) -> Vec<Option<Reason>> {
    let candidate = Candidate::new(group, slots, rules);
    let mut verdicts = Verdicts::default();
    verdicts.begin(&candidate.checker, slots.len());
    slots.iter().enumerate().map(|(index, slot)| candidate.refusal(index, slot, rules, &mut verdicts)).collect()
}

#[cfg(test)]
pub(crate) mod tests;
