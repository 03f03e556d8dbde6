//! Which waiting instance goes to which offer: a pure, deterministic function of offers, pods and rules.
//!
//! One pass places a whole batch. Offers are merged by agent and role into [`Slot`]s. Pods that may use the same of them
//! share a pool, which is sorted out once; in it a tree over what is left finds the next slot that is large enough, and
//! only those are looked at closely. What cannot be placed is explained by Marathon's ten reasons ([`explain`]). Called
//! by the gateway.

mod accepted;
mod candidate;
mod claim;
mod constraint;
mod disks;
mod facts;
mod pool;
mod slot;
mod tree;

use podium_proto::mesos::v1;
use podium_proto::wire::ranges::RangeSet;
use podium_types::definition::PodDefinition;
use uuid::Uuid;

pub use accepted::AcceptedRoles;
use candidate::Candidate;
pub use claim::{Claim, reclaim};
use constraint::Counting;
use disks::Tries;
pub(crate) use disks::admits_no_path;
#[cfg(test)]
pub(crate) use disks::tests::offered as offered_disk;
pub use facts::AgentFacts;
use pool::{Closed, Pool, Pools};
pub use slot::{Holding, Slot, slots};

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
    /// Too little disk, or no disk of the kind that a volume asks for.
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

impl Rules {
    /// Whether the slot's agent is about to be taken down.
    fn is_closing(&self, slot: &Slot) -> bool {
        slot.unavailable_from_ms.is_some_and(|from| from <= self.maintenance_before_ms)
    }
}

/// One instance that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub instance: Uuid,
    /// How often it will have been launched then.
    pub incarnation: u32,
}

/// Instances of one config of one pod: alike in all that matters here.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What they are.
    pub definition: &'a PodDefinition,
    /// Their role.
    pub role: &'a str,
    /// Those that wait, in the order in which they are to be placed.
    pub waiting: &'a [Waiting],
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
    /// For each persistent volume.
    pub volumes: Vec<v1::Resource>,
    /// All of it is reserved for the instance. Where it has persistent volumes and this is not so, that is to be done.
    pub is_reserved: bool,
}

/// For each container, for each endpoint, its host port.
pub type HostPorts = Vec<Vec<Option<u16>>>;

/// What was taken out of a slot for one instance.
struct Paid {
    host_ports: HostPorts,
    executor_resources: Vec<v1::Resource>,
    task_resources: Vec<Vec<v1::Resource>>,
    volumes: Vec<v1::Resource>,
}

impl Paid {
    fn placed(self, group: usize, instance: Uuid, slot: usize, is_reserved: bool) -> Placed {
        let Paid { host_ports, executor_resources, task_resources, volumes } = self;
        Placed { group, instance, slot, host_ports, executor_resources, task_resources, volumes, is_reserved }
    }
}

/// Chooses the host ports of one instance. Where any port will do, the instance's id decides at which one the search
/// begins, so that a port just given back is not the next one used; and each incarnation begins behind the ports of the
/// one before: whoever still speaks to those, or still holds them, shall not meet it.
fn choose_ports(definition: &PodDefinition, free: &RangeSet, waiting: Waiting) -> Option<(HostPorts, RangeSet)> {
    if definition.containers.iter().all(|container| container.endpoints.iter().all(|endpoint| endpoint.host_port.is_none())) {
        return Some((definition.containers.iter().map(|container| vec![None; container.endpoints.len()]).collect(), RangeSet::new()));
    }
    let fixed = definition.containers.iter().flat_map(|container| &container.endpoints).filter_map(|endpoint| endpoint.host_port);
    let fixed: RangeSet = fixed.filter(|port| *port != 0).map(u64::from).collect();
    let mut open = free.clone();
    open.subtract(&fixed);
    let mut all = fixed;
    let mut chosen = Vec::with_capacity(definition.containers.len());
    let endpoints = definition.containers.iter().flat_map(|container| &container.endpoints);
    let any = endpoints.filter(|endpoint| endpoint.host_port == Some(0)).count() as u64;
    if any > open.len() {
        return None;
    }
    let (high, low) = waiting.instance.as_u64_pair();
    let begin = (high ^ low).checked_rem(open.len()).unwrap_or(0);
    let mut place = begin.saturating_add(u64::from(waiting.incarnation).saturating_mul(any));
    for container in &definition.containers {
        let mut ports = Vec::with_capacity(container.endpoints.len());
        for endpoint in &container.endpoints {
            let port = match endpoint.host_port {
                Some(0) => {
                    let drawn = open.nth(place.checked_rem(open.len())?)?;
                    place = place.saturating_add(1);
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
    let mut pools = Pools::default();
    let tries = Tries::of_pass();
    let mut closed = Closed::new(slots.len(), rules.max_per_offer);
    let mut all = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let Some(first) = group.waiting.first() else { continue };
        let candidate = Candidate::new(group, rules, &tries);
        let pool = pools.of(&candidate, slots, rules);
        if pool.is_hopeless(&candidate.demand) {
            continue;
        }
        let mut counting = candidate.counting(pool.members().iter().filter_map(|slot| slots.get(*slot)));
        // Each pod begins its round at another slot, so that pods spread over the agents.
        let mut cursor = usize::try_from(first.instance.as_u128() % (pool.members().len().max(1) as u128)).unwrap_or(0);
        for waiting in group.waiting {
            // Its siblings want the same, and nothing gets better.
            let Some(placed) = put(slots, pool, &mut closed, &candidate, &mut counting, &mut cursor, *waiting) else {
                if counting.is_empty() {
                    pool.give_up(&candidate.demand);
                }
                break;
            };
            all.push(Placed { group: index, ..placed });
        }
    }
    all
}

/// Puts one instance into the next slot that takes it.
fn put(
    slots: &mut [Slot],
    pool: &mut Pool,
    closed: &mut Closed,
    candidate: &Candidate<'_>,
    counting: &mut Counting<'_>,
    cursor: &mut usize,
    waiting: Waiting,
) -> Option<Placed> {
    let wanted = candidate.demand.size();
    loop {
        let size = |slot: &Slot| slot.size(&candidate.accepted);
        let accept = |slot: &Slot| counting.admits(&slot.facts) && candidate.shortage(slot).is_none();
        let (position, found) = pool.find(*cursor, &wanted, slots, closed, size, accept)?;
        *cursor = position + 1;
        let slot = slots.get_mut(found)?;
        let Some(paid) = candidate.pay(slot, waiting) else {
            // Its entries contradict each other.
            closed.close(found);
            continue;
        };
        closed.used(found);
        counting.count(&slot.facts);
        return Some(paid.placed(0, waiting.instance, found, false));
    }
}

/// For a pod that waits: why each slot is of no use to it; none where it would fit now.
#[must_use]
pub fn explain(slots: &[Slot], group: &Group<'_>, rules: &Rules) -> Vec<Option<Reason>> {
    let tries = Tries::of_pass();
    let candidate = Candidate::new(group, rules, &tries);
    let fixed = candidate.fixed();
    let eligible: Vec<bool> = slots.iter().map(|slot| candidate.is_eligible(slot, &fixed, rules)).collect();
    let counting = candidate.counting(slots.iter().zip(&eligible).filter(|(_, eligible)| **eligible).map(|(slot, _)| slot));
    slots.iter().map(|slot| candidate.refusal(slot, &fixed, &counting, rules)).collect()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
