//! Simulated agents: they speak to the master by the same [`crate::link`] as real ones, with the same update
//! streams, and have timers in place of executors. For scale tests and for faults on demand.
//!
//! What a simulated task does is scripted by its labels or environment: see [`script`]. Simulated tasks live in this
//! process's memory: after a restart they are gone, and reconciliation says so.

mod agent;
mod faults;
pub mod script;
mod streams;
mod timers;
mod world;

use podium_proto::mesos::v1::{AgentId, AgentInfo, Attribute, DomainInfo, Resource, domain_info, value};
use podium_proto::wire::amounts::Amounts;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use faults::{NoSuch, SimulationHandle};

use crate::link::FromAgent;

/// Faults waiting to be worked in.
const FAULTS: usize = 64;

/// The simulated machines.
#[derive(Debug, Clone)]
pub struct SimulatedAgents {
    /// How many; their ids are `simulated-S0`, `simulated-S1`, ...
    pub count: usize,
    /// Of each.
    pub resources: Vec<Resource>,
    /// Of each.
    pub attributes: Vec<Attribute>,
    /// Spreads them over this many racks: the attribute `rack` with the value `rack-0`, `rack-1`, ... 0 for none.
    pub racks: usize,
    /// Regions and zones, dealt out in turn; none for agents without a domain.
    pub zones: Vec<(String, String)>,
}

impl Default for SimulatedAgents {
    /// One agent of 16 cores, 64 GiB, 500 GB, and 20,000 ports.
    fn default() -> Self {
        let amounts =
            Amounts { cpus: 16_000, mem: 65_536_000, disk: 500_000_000, gpus: 0, ports: std::iter::once(10_000..=29_999).collect() };
        Self { count: 1, resources: resources(&amounts), attributes: Vec::new(), racks: 0, zones: Vec::new() }
    }
}

/// Thousandths and ports as an agent's resources.
#[must_use]
pub fn resources(amounts: &Amounts) -> Vec<Resource> {
    use podium_proto::wire::resources::{ranges_entry, scalar_entry};
    let scalars = amounts.scalars().into_iter().filter(|(_, amount)| *amount > 0).map(|(name, amount)| scalar_entry(name, amount));
    scalars.chain((!amounts.ports.is_empty()).then(|| ranges_entry("ports", &amounts.ports))).collect()
}

impl SimulatedAgents {
    /// The agent with this number.
    fn info(&self, number: usize) -> AgentInfo {
        let mut attributes = self.attributes.clone();
        if let Some(rack) = number.checked_rem(self.racks) {
            attributes.push(Attribute {
                name: "rack".to_owned(),
                r#type: value::Type::Text.into(),
                text: Some(value::Text { value: format!("rack-{rack}") }),
                ..Attribute::default()
            });
        }
        let zone = number.checked_rem(self.zones.len()).and_then(|index| self.zones.get(index));
        let domain = zone.map(|(region, zone)| DomainInfo {
            fault_domain: Some(domain_info::FaultDomain {
                region: domain_info::fault_domain::RegionInfo { name: region.clone() },
                zone: domain_info::fault_domain::ZoneInfo { name: zone.clone() },
            }),
        });
        AgentInfo {
            hostname: format!("simulated-{number}"),
            resources: self.resources.clone(),
            attributes,
            id: Some(AgentId { value: agent_id(number) }),
            port: None,
            domain,
        }
    }
}

/// The id of the agent with this number.
#[must_use]
pub fn agent_id(number: usize) -> String {
    format!("simulated-S{number}")
}

/// Running simulated agents.
#[derive(Debug)]
pub struct Simulation {
    handle: SimulationHandle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Simulation {
    /// Starts them; they register by themselves. `address` is what they tell as their own: nothing of theirs listens.
    #[must_use]
    pub fn start(agents: &SimulatedAgents, address: std::net::SocketAddr, to_master: mpsc::Sender<FromAgent>) -> Self {
        let (sender, faults) = mpsc::channel(FAULTS);
        let stop = CancellationToken::new();
        let infos = (0..agents.count).map(|number| agents.info(number)).collect();
        let task = tokio::spawn(world::World::new(infos, address, to_master).run(faults, stop.clone()));
        Self { handle: SimulationHandle::new(sender, agents.count), stop, task }
    }

    /// Faults on demand.
    #[must_use]
    pub fn handle(&self) -> SimulationHandle {
        self.handle.clone()
    }

    /// Ends them all at once.
    pub async fn stop(self) {
        self.stop.cancel();
        // A task that panicked has nothing more to end.
        let _ = self.task.await;
    }
}
