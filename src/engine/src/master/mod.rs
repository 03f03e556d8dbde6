//! The master: frameworks over HTTP on one side, agents by [`crate::link`] on the other.
//!
//! ```text
//!   connection -> http -> scheduler_api / operator --Command--> owner task { State } --Event--> stream body -> connection
//!                                                                   |  ^
//!                                                          ToAgent  v  |  FromAgent
//!                                                                  agents
//! ```
//!
//! One task owns [`state::State`]: no locks. Everything that waits for it waits in a bounded channel; it waits for nobody.

mod accept;
mod agent_link;
mod agents;
mod constraints;
mod draining;
mod framework;
mod group_rules;
mod http;
#[cfg(test)]
mod invariants;
mod inverse_offers;
mod machine_http;
mod maintenance;
mod offers;
mod operator;
mod owner;
mod persist;
mod reconcile;
mod reservations;
mod resource_rules;
mod role_view;
mod roles;
mod scheduler_api;
mod single_rules;
mod state;
mod state_json;
mod stock;
mod task_rules;
mod tasks;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use state::{Pace, Settings};

use crate::link::{FromAgent, LINK_CAPACITY};

/// The version whose behaviour this engine follows. Clients parse it: digits and dots only.
pub const MESOS_VERSION: &str = "1.11.0";

/// Calls waiting for the owner task.
const COMMANDS: usize = 1024;

/// Why the master did not start.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Its listener is not usable.
    #[error("the listener of the Mesos master has no address: {0}")]
    Listener(#[source] std::io::Error),
    /// Its state can't be read.
    #[error("the state of the Mesos master in {path} can't be read: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A running master.
#[derive(Debug)]
pub struct Master {
    address: SocketAddr,
    agents: mpsc::Sender<FromAgent>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    owner: owner::Handle,
}

impl Master {
    /// Starts serving on the listener. What must survive a restart is kept in `data_dir`.
    ///
    /// # Errors
    /// The listener has no address, or the state file exists and can't be read.
    pub async fn start(listener: TcpListener, data_dir: PathBuf, settings: Settings) -> Result<Self, MasterError> {
        let address = listener.local_addr().map_err(MasterError::Listener)?;
        let kept = persist::load(&data_dir).await?;
        let (agents, from_agents) = mpsc::channel(LINK_CAPACITY);
        let (commands, calls) = mpsc::channel(COMMANDS);
        let stop = CancellationToken::new();
        let owner = owner::Handle::new(commands);
        let saver = persist::Saver::start(data_dir);
        let state = owner::first_state(settings.clone(), address, &kept);
        let tasks = vec![
            tokio::spawn(owner::run(state, calls, from_agents, saver, stop.clone())),
            tokio::spawn(http::serve(listener, owner.clone(), settings, stop.clone())),
        ];
        Ok(Self { address, agents, stop, tasks, owner })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where agents send.
    #[must_use]
    pub fn link(&self) -> mpsc::Sender<FromAgent> {
        self.agents.clone()
    }

    /// Names all agents that there are: what was known of others before a restart is answered as gone, at once
    /// and not only when they have not come back in time.
    pub async fn expect_agents(&self, ids: Vec<String>) {
        self.owner.expect_agents(ids).await;
    }

    /// Forgets everything as a newly elected master does: streams end, tasks are unknown until agents register again.
    /// For fault tests; agents see their links close.
    pub async fn fail_over(&self) {
        self.owner.fail_over().await;
    }

    /// Ends all streams and connections, and stops. What was to be saved is saved.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // A task that panicked has nothing more to end.
            let _ = task.await;
        }
    }
}
