//! The engine as one thing: a master and its agents, started and stopped together.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::master::{Master, MasterError, Settings};
use crate::simulated::{SimulatedAgents, Simulation, SimulationHandle};

/// What to start.
#[derive(Debug)]
pub struct Config {
    /// Where the master serves.
    pub listener: TcpListener,
    /// What must survive a restart is kept below it; nobody else may use it meanwhile.
    pub data_dir: PathBuf,
    /// What runs tasks.
    pub agents: Agents,
    /// The master's: heartbeat, pace of offers, limits.
    pub settings: Settings,
}

/// What runs tasks.
#[derive(Debug)]
pub enum Agents {
    /// Timers in place of processes.
    Simulated(SimulatedAgents),
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its master did not.
    #[error(transparent)]
    Master(#[from] MasterError),
}

/// A running engine. Dropped, it goes on until the runtime ends: call [`Engine::shutdown`] or [`Engine::abort`].
#[derive(Debug)]
pub struct Engine {
    master: Master,
    simulation: Option<Simulation>,
}

impl Engine {
    /// Starts a master and its agents; agents register by themselves soon after.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { listener, data_dir, agents, settings } = config;
        let master = Master::start(listener, data_dir.join("master"), settings).await?;
        let simulation = match agents {
            Agents::Simulated(agents) => Some(Simulation::start(&agents, master.address(), master.link())),
        };
        Ok(Self { master, simulation })
    }

    /// Where the master listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.master.address()
    }

    /// Faults on demand, where the agents are simulated.
    #[must_use]
    pub fn simulation(&self) -> Option<SimulationHandle> {
        self.simulation.as_ref().map(Simulation::handle)
    }

    /// The master forgets everything, as after the election of another: for fault tests.
    pub async fn fail_over_master(&self) {
        self.master.fail_over().await;
    }

    /// Stops all instances, and then the engine. The next start reports them as ended.
    pub async fn shutdown(self) {
        if let Some(simulation) = self.simulation {
            simulation.stop().await;
        }
        self.master.stop().await;
    }

    /// Stops as a crash would, as far as a process can do that to a part of itself: instances run on.
    pub async fn abort(self) {
        if let Some(simulation) = self.simulation {
            simulation.stop().await;
        }
        self.master.stop().await;
    }
}
