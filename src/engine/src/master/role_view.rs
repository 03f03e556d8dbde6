//! What roles hold, as operators are told: a role's own, and that of the roles below it.

use std::collections::BTreeSet;

use podium_proto::wire::amounts::{Amounts, quantity};
use serde_json::{Value, json};

use super::state::State;
use super::stock::Stock;

/// Sums over several agents: ports are counted, since the same number stands for one on each.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) amounts: Amounts,
    ports: u64,
}

impl Held {
    fn add(&mut self, stock: &Stock) {
        let amounts = stock.sum();
        self.ports = self.ports.saturating_add(amounts.ports.len());
        self.amounts.add(&amounts);
    }

    /// What there is of each kind, nothing left out as 0.
    fn to_json(&self) -> Value {
        let scalars = self.amounts.scalars().into_iter().filter(|(_, amount)| *amount > 0);
        let mut object: serde_json::Map<String, Value> = scalars.map(|(name, amount)| (name.to_owned(), json!(quantity(amount)))).collect();
        if self.ports > 0 {
            #[allow(clippy::cast_precision_loss)]
            object.insert("ports".to_owned(), json!(self.ports as f64));
        }
        Value::Object(object)
    }
}

/// Whether a role is this one, or one below it.
pub(super) fn is_within(role: &str, parent: &str) -> bool {
    role.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl State {
    /// Roles that some framework has.
    pub(super) fn role_names(&self) -> BTreeSet<String> {
        self.frameworks.iter().flat_map(|framework| framework.roles.iter().cloned()).collect()
    }

    fn offered_to(&self, role: &str, held: &mut Held) {
        self.offers.values().filter(|offer| is_within(&offer.role, role)).for_each(|offer| held.add(&offer.amounts));
    }

    fn allocated_to(&self, role: &str, held: &mut Held) {
        let tasks = self.frameworks.iter().flat_map(|framework| framework.tasks.values());
        tasks.filter(|task| !task.released && is_within(&task.role, role)).for_each(|task| held.add(&task.amounts));
        let executors = self.agents.values().flat_map(|agent| agent.executors.values()).flat_map(|executors| executors.values());
        executors.filter(|executor| is_within(&executor.role, role)).for_each(|executor| held.add(&executor.amounts));
    }

    /// What the role uses or is offered.
    pub(super) fn held_by(&self, role: &str) -> Held {
        let mut held = Held::default();
        self.allocated_to(role, &mut held);
        self.offered_to(role, &mut held);
        held
    }

    /// What is reserved for the role.
    fn reserved_for(&self, role: &str) -> Held {
        let mut held = Held::default();
        for entry in self.agents.values().flat_map(|agent| agent.total.reserved()) {
            if is_within(podium_proto::wire::resources::role(entry), role) {
                held.add(&Stock::of(std::slice::from_ref(entry)));
            }
        }
        held
    }

    /// The entry of a role in `/roles`.
    pub(super) fn describe_role(&self, role: &str) -> Value {
        let (mut allocated, mut offered) = (Held::default(), Held::default());
        self.allocated_to(role, &mut allocated);
        self.offered_to(role, &mut offered);
        let frameworks = self.frameworks.iter().filter(|framework| framework.roles.contains(role));
        json!({
            "name": role,
            "weight": 1.0,
            "quota": { "role": role, "guarantee": {}, "limit": {}, "consumed": {} },
            "resources": self.held_by(role).to_json(),
            "allocated": allocated.to_json(),
            "offered": offered.to_json(),
            "reserved": self.reserved_for(role).to_json(),
            "frameworks": frameworks.map(|framework| framework.id.clone()).collect::<Vec<_>>(),
        })
    }
}
