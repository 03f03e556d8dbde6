//! What one agent offers to one role, and what is left of it.

use std::collections::BTreeMap;

use podium_proto::mesos::v1;
use podium_proto::wire::amounts::{Amounts, scalar, thousandths};
use podium_proto::wire::ranges::RangeSet;
use podium_proto::wire::resources;

use super::accepted::Accepted;
use super::disks::{self, Disk, Tries, Wish};
use super::facts::AgentFacts;
use super::tree::Size;
use crate::reservation::Owner;

/// All offers of one agent to one role, merged: they can be accepted together, and only together.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The agent.
    pub agent_id: String,
    /// The role that the offers are for.
    pub role: String,
    /// The offers.
    pub offer_ids: Vec<v1::OfferId>,
    /// Where the agent's own API answers, such as `http://10.0.0.1:5051/slave(1)`.
    pub agent_url: Option<String>,
    /// What constraints ask.
    pub facts: AgentFacts,
    /// When the agent is taken down for maintenance.
    pub unavailable_from_ms: Option<i64>,
    /// True if GPUs were offered.
    pub has_gpus: bool,
    /// Reserved ones first, so that they are spent first.
    entries: Vec<Entry>,
    /// The sum of the entries.
    free: Amounts,
    /// Beside the agent's own, which is among the entries.
    disks: Vec<Disk>,
    /// What is reserved for instances, each for itself: nobody else may use it.
    pub(super) holdings: Vec<Holding>,
}

/// What is reserved for one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// For whom.
    pub owner: Owner,
    /// As offered, volumes among it.
    pub resources: Vec<v1::Resource>,
}

/// One resource of the offers, and how much of it is left.
#[derive(Debug, Clone)]
struct Entry {
    /// Name, role, reservation and allocation; without a value.
    account: v1::Resource,
    left: Left,
}

#[derive(Debug, Clone)]
enum Left {
    /// Thousandths.
    Scalar(Kind, i64),
    Ports(RangeSet),
}

/// The scalar resources that pods ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cpus,
    Mem,
    Disk,
    Gpus,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "cpus" => Some(Kind::Cpus),
            "mem" => Some(Kind::Mem),
            "disk" => Some(Kind::Disk),
            "gpus" => Some(Kind::Gpus),
            _ => None,
        }
    }

    fn of_sum(self, sum: &mut Amounts) -> &mut i64 {
        match self {
            Kind::Cpus => &mut sum.cpus,
            Kind::Mem => &mut sum.mem,
            Kind::Disk => &mut sum.disk,
            Kind::Gpus => &mut sum.gpus,
        }
    }
}

impl Left {
    /// What is usable of a resource.
    fn of(resource: &v1::Resource) -> Option<Self> {
        if let Some(kind) = Kind::of(&resource.name) {
            return resource.scalar.as_ref().map(|scalar| Left::Scalar(kind, thousandths(scalar.value)));
        }
        (resource.name == "ports").then(|| Left::Ports(resource.ranges.as_ref().map(real_ports).unwrap_or_default()))
    }
}

impl Entry {
    fn of(resource: &v1::Resource) -> Option<Self> {
        let left = Left::of(resource)?;
        Some(Entry { account: v1::Resource { scalar: None, ranges: None, set: None, ..resource.clone() }, left })
    }

    fn role(&self) -> &str {
        resources::role(&self.account)
    }

    fn piece(&self, scalar: Option<v1::value::Scalar>, ranges: Option<v1::value::Ranges>) -> v1::Resource {
        v1::Resource { scalar, ranges, ..self.account.clone() }
    }

    fn add_to(&self, sum: &mut Amounts) {
        match &self.left {
            Left::Scalar(kind, amount) => {
                let sum = kind.of_sum(sum);
                *sum = sum.saturating_add(*amount);
            }
            Left::Ports(ports) => sum.ports.union(ports),
        }
    }
}

/// Merges offers by agent and role, ordered by both.
#[must_use]
pub fn slots<'a>(offers: impl IntoIterator<Item = &'a v1::Offer>) -> Vec<Slot> {
    let mut merged: BTreeMap<(&str, &str), Vec<&v1::Offer>> = BTreeMap::new();
    for offer in offers {
        let role = offer.allocation_info.as_ref().and_then(|info| info.role.as_deref()).unwrap_or("*");
        merged.entry((offer.agent_id.value.as_str(), role)).or_default().push(offer);
    }
    let slot = |((_, role), mut offers): ((&str, &str), Vec<&v1::Offer>)| {
        // Whichever came first: what is placed must not depend on it.
        offers.sort_by(|a, b| a.id.value.cmp(&b.id.value));
        Slot::new(role, &offers)
    };
    merged.into_iter().filter_map(slot).collect()
}

impl Slot {
    fn new(role: &str, offers: &[&v1::Offer]) -> Option<Self> {
        let first = offers.first()?;
        let mut slot = Slot {
            agent_id: first.agent_id.value.clone(),
            role: role.to_owned(),
            offer_ids: offers.iter().map(|offer| offer.id.clone()).collect(),
            agent_url: first.url.as_ref().and_then(agent_url),
            facts: AgentFacts::of(first),
            unavailable_from_ms: first.unavailability.as_ref().map(|window| window.start.nanoseconds / 1_000_000),
            has_gpus: false,
            entries: Vec::new(),
            free: Amounts::default(),
            disks: Vec::new(),
            holdings: Vec::new(),
        };
        for resource in offers.iter().flat_map(|offer| &offer.resources) {
            if let Some(owner) = Owner::of(resource) {
                slot.hold(owner, resource);
            } else if let Some(entry) = Entry::of(resource).filter(|_| is_usable(resource)) {
                slot.merge(entry);
            } else if let Some(disk) = Disk::of(resource) {
                disk.merge_into(&mut slot.disks);
            }
        }
        slot.entries.sort_by_key(|entry| !resources::is_reserved(&entry.account));
        for entry in &slot.entries {
            entry.add_to(&mut slot.free);
        }
        slot.has_gpus = slot.free.gpus > 0;
        Some(slot)
    }

    fn hold(&mut self, owner: Owner, resource: &v1::Resource) {
        match self.holdings.iter_mut().find(|holding| holding.owner == owner) {
            Some(holding) => resources::add(&mut holding.resources, std::slice::from_ref(resource)),
            None => self.holdings.push(Holding { owner, resources: vec![resource.clone()] }),
        }
    }

    /// What is reserved for instances and not used by this pass.
    #[must_use]
    pub fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    /// Adds to the account that the entry belongs to, or as one of its own.
    fn merge(&mut self, mut entry: Entry) {
        if let Left::Ports(more) = &mut entry.left {
            // A port that an agent offers twice is still one port.
            for have in &self.entries {
                if let Left::Ports(have) = &have.left {
                    more.subtract(have);
                }
            }
        }
        let account = self.entries.iter_mut().find(|have| resources::same_account(&have.account, &entry.account));
        match (account.map(|account| &mut account.left), &entry.left) {
            (Some(Left::Scalar(_, have)), Left::Scalar(_, more)) => *have = have.saturating_add(*more),
            (Some(Left::Ports(have)), Left::Ports(more)) => have.union(more),
            _ => self.entries.push(entry),
        }
    }

    /// What is left, of all roles.
    #[must_use]
    pub fn free(&self) -> &Amounts {
        &self.free
    }

    /// What is left of entries whose role is accepted.
    pub(super) fn free_of(&self, accepted: &Accepted<'_>) -> Amounts {
        let mut sum = Amounts::default();
        self.entries.iter().filter(|entry| accepted.admits(entry.role())).for_each(|entry| entry.add_to(&mut sum));
        sum
    }

    /// How much there is of what is accepted.
    pub(super) fn size(&self, accepted: &Accepted<'_>) -> Size {
        if accepted.is_everything() { size(&self.free) } else { size(&self.free_of(accepted)) }
    }

    /// Takes exactly these amounts of thousandths, and nothing of what is zero.
    pub(super) fn take(&mut self, amounts: &[(Kind, i64)], accepted: &Accepted<'_>) -> Option<Vec<v1::Resource>> {
        let mut pieces = Vec::with_capacity(amounts.len());
        for (wanted, amount) in amounts {
            let mut missing = *amount;
            for entry in &mut self.entries {
                let Left::Scalar(kind, left) = &mut entry.left else { continue };
                let part = missing.min(*left);
                if kind == wanted && part > 0 && accepted.admits(resources::role(&entry.account)) {
                    *left -= part;
                    missing -= part;
                    pieces.push(entry.piece(Some(scalar(part)), None));
                }
            }
            *wanted.of_sum(&mut self.free) -= amount - missing;
            if missing > 0 {
                return None;
            }
        }
        Some(pieces)
    }

    /// Whether there is a disk for each of these volumes.
    pub(super) fn has_disks(&self, wishes: &[Wish<'_>], tries: &Tries) -> bool {
        disks::fit(&self.disks, wishes, tries)
    }

    /// Takes what these volumes want, in their order.
    pub(super) fn take_disks(&mut self, wishes: &[Wish<'_>]) -> Option<Vec<v1::Resource>> {
        disks::take(&mut self.disks, wishes)
    }

    /// Takes exactly these ports.
    pub(super) fn take_ports(&mut self, ports: &RangeSet, accepted: &Accepted<'_>) -> Option<Vec<v1::Resource>> {
        let mut pieces = Vec::new();
        let mut missing = ports.clone();
        for entry in &mut self.entries {
            let Left::Ports(left) = &mut entry.left else { continue };
            if missing.is_empty() || !accepted.admits(resources::role(&entry.account)) {
                continue;
            }
            let part: RangeSet = missing.iter().filter(|port| left.contains(*port)).collect();
            if !part.is_empty() {
                left.subtract(&part);
                missing.subtract(&part);
                self.free.ports.subtract(&part);
                pieces.push(entry.piece(None, Some(part.to_wire())));
            }
        }
        missing.is_empty().then_some(pieces)
    }
}

fn size(free: &Amounts) -> Size {
    [free.cpus, free.mem, free.disk, free.gpus, i64::try_from(free.ports.len()).unwrap_or(i64::MAX)]
}

/// Revocable and shared resources are not for ordinary tasks, and disks other than the agent's own only for volumes that ask for them.
fn is_usable(entry: &v1::Resource) -> bool {
    entry.revocable.is_none() && entry.shared.is_none() && entry.disk.is_none() && entry.provider_id.is_none()
}

/// Port 0 means any port and cannot be handed out; numbers above a port's range are an agent's mistake.
fn real_ports(ranges: &v1::value::Ranges) -> RangeSet {
    let mut ports = RangeSet::from_wire(ranges);
    ports.remove(0..=0);
    ports.remove(u64::from(u16::MAX) + 1..=u64::MAX);
    ports
}

fn agent_url(url: &v1::Url) -> Option<String> {
    let host = url.address.ip.as_ref().or(url.address.hostname.as_ref())?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port = u16::try_from(url.address.port).ok()?;
    Some(format!("{}://{host}:{port}{}", url.scheme, url.path.as_deref().unwrap_or_default()))
}
