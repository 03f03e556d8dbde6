//! The engine as one thing: a master and its agents, started and stopped together.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use podium_proto::mesos::v1::{Attribute, Resource};
use tokio::net::TcpListener;

use crate::agent::{Agent, AgentConfig, AgentError};
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
    /// This machine: an executor process an instance.
    Real(RealAgent),
    /// Timers in place of processes.
    Simulated(SimulatedAgents),
}

/// This machine as an agent.
#[derive(Debug)]
pub struct RealAgent {
    /// Where its executors find it, and where its files are read.
    pub listener: TcpListener,
    /// Its total; see [`crate::agent::parse_resources`].
    pub resources: Vec<Resource>,
    /// See [`crate::agent::parse_attributes`].
    pub attributes: Vec<Attribute>,
    /// As frameworks see it.
    pub hostname: String,
    /// Program and arguments of the executor.
    pub executor_command: Vec<OsString>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its master did not.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// Its agent did not.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// A running engine. Dropped, it goes on until the runtime ends: call [`Engine::shutdown`] or [`Engine::abort`].
#[derive(Debug)]
pub struct Engine {
    master: Master,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Real(Box<Agent>),
    Simulated(Simulation),
}

impl Engine {
    /// Starts a master and its agents; agents register by themselves soon after.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { listener, data_dir, agents, settings } = config;
        let master = Master::start(listener, data_dir.join("master"), settings).await?;
        let running = match agents {
            Agents::Simulated(agents) => Running::Simulated(Simulation::start(&agents, master.address(), master.link())),
            Agents::Real(RealAgent { listener, resources, attributes, hostname, executor_command }) => {
                let (data_dir, to_master) = (data_dir.join("agent"), master.link());
                let config = AgentConfig { data_dir, listener, resources, attributes, hostname, executor_command, to_master };
                Running::Real(Box::new(Agent::start(config).await?))
            }
        };
        Ok(Self { master, running })
    }

    /// Where the master listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.master.address()
    }

    /// Faults on demand, where the agents are simulated.
    #[must_use]
    pub fn simulation(&self) -> Option<SimulationHandle> {
        match &self.running {
            Running::Simulated(simulation) => Some(simulation.handle()),
            Running::Real(_) => None,
        }
    }

    /// The master forgets everything, as after the election of another: for fault tests.
    pub async fn fail_over_master(&self) {
        self.master.fail_over().await;
    }

    /// Stops all instances, and then the engine. The next start reports them as ended.
    pub async fn shutdown(self) {
        match self.running {
            Running::Real(agent) => agent.shutdown().await,
            Running::Simulated(simulation) => simulation.stop().await,
        }
        self.master.stop().await;
    }

    /// Stops as a crash would, as far as a process can do that to a part of itself: instances run on.
    pub async fn abort(self) {
        match self.running {
            Running::Real(agent) => agent.abandon().await,
            Running::Simulated(simulation) => simulation.stop().await,
        }
        self.master.stop().await;
    }
}
