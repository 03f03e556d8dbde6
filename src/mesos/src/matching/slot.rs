//! What one agent offers to one role, and what is left of it.

use std::collections::BTreeMap;

use podium_proto::mesos::v1;
use podium_proto::wire::amounts::{Amounts, thousandths};
use podium_proto::wire::ranges::RangeSet;
use podium_proto::wire::resources;

use super::facts::AgentFacts;
use super::tree::Size;

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
    /// Usable entries that are left: reserved ones first, so that they are spent first.
    left: Vec<v1::Resource>,
    free: Amounts,
}

/// Merges offers by agent and role, ordered by both.
#[must_use]
pub fn slots<'a>(offers: impl IntoIterator<Item = &'a v1::Offer>) -> Vec<Slot> {
    let mut merged: BTreeMap<(&str, &str), Slot> = BTreeMap::new();
    for offer in offers {
        let role = offer.allocation_info.as_ref().and_then(|info| info.role.as_deref()).unwrap_or("*");
        let key = (offer.agent_id.value.as_str(), role);
        match merged.get_mut(&key) {
            Some(slot) => slot.merge(offer),
            None => {
                merged.insert(key, Slot::new(offer, role));
            }
        }
    }
    merged.into_values().collect()
}

impl Slot {
    fn new(offer: &v1::Offer, role: &str) -> Self {
        let mut slot = Slot {
            agent_id: offer.agent_id.value.clone(),
            role: role.to_owned(),
            offer_ids: Vec::new(),
            agent_url: offer.url.as_ref().and_then(agent_url),
            facts: AgentFacts::of(offer),
            unavailable_from_ms: offer.unavailability.as_ref().map(|window| window.start.nanoseconds / 1_000_000),
            has_gpus: false,
            left: Vec::new(),
            free: Amounts::default(),
        };
        slot.merge(offer);
        slot
    }

    fn merge(&mut self, offer: &v1::Offer) {
        self.offer_ids.push(offer.id.clone());
        let usable = offer.resources.iter().filter(|entry| is_usable(entry)).cloned();
        let usable: Vec<v1::Resource> = usable.collect();
        resources::add(&mut self.left, &usable);
        for entry in self.left.iter_mut().filter(|entry| entry.name == "ports") {
            entry.ranges = entry.ranges.as_ref().map(real_ports);
        }
        self.left.sort_by_key(|entry| !resources::is_reserved(entry));
        self.free = Amounts::of(&self.left);
        self.has_gpus |= self.free.gpus > 0;
    }

    /// What is left, of all roles.
    #[must_use]
    pub fn free(&self) -> &Amounts {
        &self.free
    }

    /// What is left of entries whose role is accepted.
    pub(super) fn free_of(&self, accepts: impl Fn(&str) -> bool) -> Amounts {
        Amounts::of(self.left.iter().filter(|entry| accepts(resources::role(entry))))
    }

    pub(super) fn size(&self) -> Size {
        let ports = i64::try_from(self.free.ports.len()).unwrap_or(i64::MAX);
        [self.free.cpus, self.free.mem, self.free.disk, self.free.gpus, ports]
    }

    /// Takes for one instance; nothing is gone from the slot before it is settled.
    pub(super) fn purse<F: Fn(&str) -> bool>(&mut self, accepts: F) -> Purse<'_, F> {
        Purse { left: self.left.clone(), slot: self, accepts }
    }
}

/// Entries on their way out of a slot.
pub(super) struct Purse<'a, F> {
    slot: &'a mut Slot,
    left: Vec<v1::Resource>,
    accepts: F,
}

impl<F: Fn(&str) -> bool> Purse<'_, F> {
    /// Exactly these amounts; nothing of what is zero.
    pub fn take(&mut self, amounts: &[(&str, f64)]) -> Option<Vec<v1::Resource>> {
        let mut taken = Vec::new();
        for (name, amount) in amounts {
            let amount = thousandths(*amount);
            if amount > 0 {
                let accepts = |entry: &v1::Resource| (self.accepts)(resources::role(entry));
                taken.extend(resources::take_scalar(&mut self.left, name, amount, accepts).ok()?);
            }
        }
        Some(taken)
    }

    /// Exactly these ports.
    pub fn take_ports(&mut self, ports: &RangeSet) -> Option<Vec<v1::Resource>> {
        if ports.is_empty() {
            return Some(Vec::new());
        }
        let accepts = |entry: &v1::Resource| (self.accepts)(resources::role(entry));
        resources::take_ranges(&mut self.left, "ports", ports, accepts).ok()
    }

    /// All has been taken: the slot now has what is left.
    pub fn settle(self) {
        self.slot.free = Amounts::of(&self.left);
        self.slot.left = self.left;
    }
}

/// Revocable and shared resources, and disks other than the agent's own, are not for ordinary tasks.
fn is_usable(entry: &v1::Resource) -> bool {
    entry.revocable.is_none() && entry.shared.is_none() && entry.disk.is_none() && entry.provider_id.is_none()
}

/// Port 0 means any port and cannot be handed out; numbers above a port's range are an agent's mistake.
fn real_ports(ranges: &v1::value::Ranges) -> v1::value::Ranges {
    let mut ports = RangeSet::from_wire(ranges);
    ports.remove(0..=0);
    ports.remove(u64::from(u16::MAX) + 1..=u64::MAX);
    ports.to_wire()
}

fn agent_url(url: &v1::Url) -> Option<String> {
    let host = url.address.ip.as_ref().or(url.address.hostname.as_ref())?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port = u16::try_from(url.address.port).ok()?;
    Some(format!("{}://{host}:{port}{}", url.scheme, url.path.as_deref().unwrap_or_default()))
}
