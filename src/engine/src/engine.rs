//! The engine as one thing: a master and its agents, started and stopped together.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use podium_proto::mesos::v1::{Attribute, Resource};
use tokio::net::TcpListener;

use crate::agent::{Agent, AgentConfig, AgentError, Retention};
use crate::master::{Master, MasterError, Settings};
use crate::simulated::{SimulatedAgents, Simulation, SimulationHandle, agent_id};

/// Held for as long as an engine uses the folder.
const LOCK: &str = "engine.lock";

/// What to start.
#[derive(Debug)]
pub struct Config {
    /// Where the master serves.
    pub listener: TcpListener,
    /// What must survive a restart is kept below it: made when missing, and locked.
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
    /// Which sandboxes of ended executors are kept.
    pub retention: Retention,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder can't be used.
    #[error("the engine's folder {path} can't be used: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another engine uses the folder.
    #[error("the engine's folder {path} is in use by another process")]
    Locked {
        /// Which.
        path: PathBuf,
    },
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
    _lock: File,
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
        let lock = lock(&data_dir)?;
        let master = Master::start(listener, data_dir.join("master"), settings).await?;
        let running = match agents {
            Agents::Simulated(agents) => {
                master.expect_agents((0..agents.count).map(agent_id).collect()).await;
                Running::Simulated(Simulation::start(&agents, master.address(), master.link()))
            }
            Agents::Real(RealAgent { listener, resources, attributes, hostname, executor_command, retention }) => {
                let (data_dir, to_master) = (data_dir.join("agent"), master.link());
                let config = AgentConfig { data_dir, listener, resources, attributes, hostname, executor_command, retention, to_master };
                match Agent::start(config).await {
                    Ok(agent) => {
                        master.expect_agents(vec![agent.id().value.clone()]).await;
                        Running::Real(Box::new(agent))
                    }
                    Err(error) => {
                        master.stop().await;
                        return Err(error.into());
                    }
                }
            }
        };
        Ok(Self { master, running, _lock: lock })
    }

    /// Where the master listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.master.address()
    }

    /// Where the agent listens, if it is a real one.
    #[must_use]
    pub fn agent_address(&self) -> Option<SocketAddr> {
        match &self.running {
            Running::Real(agent) => Some(agent.address()),
            Running::Simulated(_) => None,
        }
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

/// Makes the folder and locks it for this process. Users of containers may pass through it, and hold no lock there.
fn lock(data_dir: &Path) -> Result<File, StartError> {
    let folder = |source| StartError::Folder { path: data_dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o711).create(data_dir).map_err(folder)?;
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(data_dir.join(LOCK)).map_err(folder)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Locked { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}
