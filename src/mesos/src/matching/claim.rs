//! Instances that have resources of their own: each goes to what is reserved for it, and nowhere else.

use podium_proto::mesos::v1;
use podium_proto::wire::amounts::{Amounts, thousandths};
use podium_proto::wire::resources;
use podium_types::definition::PodDefinition;

use super::candidate::{gpus, volume_size};
use super::{Paid, Placed, Rules, Slot, Waiting, choose_ports};

/// One such instance that waits.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// What it is.
    pub definition: &'a PodDefinition,
    /// Its role.
    pub role: &'a str,
    /// Its id.
    pub instance: &'a str,
    /// The same, short, with the launch that it waits for.
    pub next: Waiting,
    /// Where its resources are.
    pub agent_id: &'a str,
    /// The launch with which they were reserved; 0: it is not known.
    pub incarnation: u32,
}

/// Places those whose resources are in the slots, which are in the order of [`super::slots`]; their groups are their places
/// among the claims. What is reserved leaves its slot with them.
pub fn reclaim(slots: &mut [Slot], claims: &[Claim<'_>], rules: &Rules) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (group, claim) in claims.iter().enumerate() {
        let place = slots.binary_search_by(|slot| (slot.agent_id.as_str(), slot.role.as_str()).cmp(&(claim.agent_id, claim.role)));
        let Some((index, slot)) = place.ok().and_then(|index| Some((index, slots.get_mut(index)?))) else { continue };
        if rules.is_closing(slot) {
            continue;
        }
        let Some((holding, paid)) = claim.pay(slot) else { continue };
        slot.holdings.remove(holding);
        placed.push(paid.placed(group, claim.next.instance, index, true));
    }
    placed
}

impl Claim<'_> {
    fn is_owner(&self, owner: &crate::reservation::Owner) -> bool {
        owner.instance == self.instance && (self.incarnation == 0 || owner.incarnation == self.incarnation)
    }

    /// What is reserved for it in the slot, cut for executor and tasks; none if it is not all there.
    fn pay(&self, slot: &Slot) -> Option<(usize, Paid)> {
        let own = slot.holdings.iter().enumerate().filter(|(_, holding)| self.is_owner(&holding.owner));
        own.into_iter().find_map(|(index, holding)| Some((index, self.cut(&holding.resources)?)))
    }

    fn cut(&self, held: &[v1::Resource]) -> Option<Paid> {
        let mut rest = held.to_vec();
        let volumes = self.definition.persistent_volumes().map(|(name, volume)| {
            let at = rest.iter().position(|resource| is_volume(resource, name, volume_size(volume)))?;
            Some(rest.remove(at))
        });
        let volumes = volumes.collect::<Option<Vec<_>>>()?;
        let mut take = |name: &str, amount: i64| resources::take_scalar(&mut rest, name, amount, |resource| resource.disk.is_none()).ok();
        let executor = &self.definition.executor_resources;
        let mut executor_resources = Vec::new();
        for (name, amount) in [("cpus", executor.cpus), ("mem", executor.mem), ("disk", executor.disk)] {
            executor_resources.extend(take(name, thousandths(amount))?);
        }
        let mut task_resources = Vec::with_capacity(self.definition.containers.len());
        for container in &self.definition.containers {
            let wanted = &container.resources;
            let mut own = Vec::new();
            for (name, amount) in [
                ("cpus", thousandths(wanted.cpus)),
                ("mem", thousandths(wanted.mem)),
                ("disk", thousandths(wanted.disk)),
                ("gpus", gpus(wanted.gpus)),
            ] {
                own.extend(take(name, amount)?);
            }
            task_resources.push(own);
        }
        let (host_ports, all_ports) = choose_ports(self.definition, &Amounts::of(&rest).ports, self.next)?;
        executor_resources.extend(resources::take_ranges(&mut rest, "ports", &all_ports, |_| true).ok()?);
        Some(Paid { host_ports, executor_resources, task_resources, volumes })
    }
}

/// Whether this is the volume of that name. On a disk of its own it may be larger than was asked for.
fn is_volume(resource: &v1::Resource, name: &str, size: i64) -> bool {
    let disk = resource.disk.as_ref().filter(|disk| disk.persistence.is_some());
    let at = disk.and_then(|disk| disk.volume.as_ref()).map(|volume| volume.container_path.as_str());
    at == Some(name) && Amounts::of([resource]).disk >= size
}
