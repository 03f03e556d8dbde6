//! The master's side: frameworks over HTTP against simulated agents.

mod agent_loss;
mod launches;
mod offers;
mod operator;
mod pipeline;
mod reconciliation;
mod restarts;
mod scale;
mod subscriptions;
mod upkeep;
mod validation;

use std::time::Duration;

use podium_engine::simulated::{SimulatedAgents, SimulationHandle};
use podium_engine::{Agents, Config, Engine, Settings};
use tokio::net::TcpListener;

/// An engine in its own folder.
struct World {
    engine: Engine,
    folder: tempfile::TempDir,
}

impl World {
    async fn start(agents: SimulatedAgents) -> Self {
        Self::start_with(agents, Settings::default()).await
    }

    async fn start_with(agents: SimulatedAgents, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path(), agents, settings).await;
        Self { engine, folder }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.engine.address()
    }

    fn simulation(&self) -> SimulationHandle {
        self.engine.simulation().unwrap()
    }

    async fn stop(self) {
        self.engine.shutdown().await;
        self.folder.close().unwrap();
    }
}

async fn engine(folder: &std::path::Path, agents: SimulatedAgents, settings: Settings) -> Engine {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config { listener, data_dir: folder.to_owned(), agents: Agents::Simulated(agents), settings };
    Engine::start(config).await.unwrap()
}

fn agents(count: usize) -> SimulatedAgents {
    SimulatedAgents { count, ..SimulatedAgents::default() }
}

/// How long a test watches where it is about something that must not come.
const QUIET: Duration = Duration::from_millis(300);
