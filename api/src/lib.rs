//! The REST API: Marathon's `/v2/pods` and its neighbours, on warp filters under our own accept loop.
//!
//! Promises: what is answered 2xx is in the store; a reply to a write is seen by every later read of the same
//! process; every refusal is JSON that says what to do; nothing a client sends makes it panic or grow without bound.
//!
//! ```text
//! server  accepts ─► routes ─► guard (which pages may talk to us) ─► access (who it is) ─► pods | plain (the rest)
//!                                push, instances, deployments, queue ─► a plan ─► commit ─► store ─► index has it ─► answer
//!                                all that is read ◄── index
//! ```

mod access;
mod answer;
mod commit;
mod content;
mod deployments;
mod dry_run;
mod events;
mod groups;
mod guard;
mod instances;
mod judging;
mod leader;
mod logs;
mod metrics;
mod openapi;
mod path;
mod plain;
mod pods;
mod pulse;
mod push;
mod queue;
mod refused;
mod request;
mod routes;
mod server;
mod statuses;
mod tls;
mod unknown;
mod without_apps;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use podium_controllers::gateway::GatewayState;
use podium_store::Store;
use podium_store::index::{Index, Position};
use podium_types::definition::Settings;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::answer::Problem;
use crate::events::Events;
use crate::guard::Guard;
use crate::judging::Judging;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::server::Serving;
use crate::statuses::Statuses;
use crate::tls::Tls;

pub use crate::access::{AccessConfig, AccessError, NewToken, Password, Right};
pub use crate::request::MAX_BODY;
pub use crate::server::Limits;
pub use crate::tls::TlsFiles;

/// What the API needs.
pub struct ApiConfig {
    /// Where to listen: bound already, so that a taken port is the caller's error to explain.
    pub listener: TcpListener,
    /// Where changes are written.
    pub store: Store,
    /// Where everything is read.
    pub index: Index,
    /// What the defaults of definitions depend on.
    pub settings: Settings,
    /// What `/v2/info` tells.
    pub info: Info,
    /// What the gateway of this process knows, for `/readyz`.
    pub gateway: watch::Receiver<GatewayState>,
    /// Asks agents for the logs of containers.
    pub agents: podium_http::Client,
    /// Host names by which the server may be called, beyond `localhost` and IP addresses; `*`: every name.
    pub host_names: Vec<String>,
    /// Origins whose pages may call, as `https://host[:port]`; `*`: all pages may read.
    pub cors_origins: Vec<String>,
    /// Who may call; nobody named: everyone may do everything.
    pub access: AccessConfig,
    /// The certificate for `https`; without it the API speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How it treats its clients.
    pub limits: Limits,
}

/// What this server tells about itself. Everyone can read it: no secrets here.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// The framework's name, as Mesos shows it.
    pub framework_name: String,
    /// Who this process is in elections: the very text of its candidacies. What stands before its first `/` is where its API answers.
    pub identity: String,
    /// The address of the Mesos masters, as given.
    pub mesos: Option<String>,
    /// Seconds that Mesos keeps the framework's tasks without it.
    pub failover_timeout: f64,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener is of no use.
    #[error("the API's listener: {0}")]
    Listener(#[from] std::io::Error),
    /// A file that says who may call, or the certificate.
    #[error(transparent)]
    File(#[from] AccessError),
}

/// A running API server.
#[derive(Debug)]
pub struct Server {
    serving: Serving,
}

impl Server {
    /// Serves until it is shut down or dropped. Needs a tokio runtime. Requests are answered with 503 until the index is ready.
    pub fn start(config: ApiConfig) -> Result<Self, StartError> {
        let ApiConfig { listener, store, index, settings, info, gateway, agents, host_names, cors_origins, access, tls, limits } = config;
        let port = listener.local_addr()?.port();
        let metrics = Metrics::new(index.clone());
        let (guard, access) = (Guard::new(&host_names, &cors_origins), Arc::new(Access::open(access, limits.look_again)?));
        let stop = CancellationToken::new();
        let events = Events::new(index.clone(), store.clone(), access.clone(), gateway.clone(), &limits, stop.clone());
        let tls = tls.map(|files| Tls::open(files, limits.look_again)).transpose()?;
        let encrypted = tls.is_some();
        let pulse = Pulse::start(store.clone(), limits.store_patience, stop.clone());
        let api = Arc::new(Api {
            store,
            statuses: Statuses::new(index.clone()),
            index,
            settings,
            info,
            gateway,
            agents,
            port,
            encrypted,
            guard,
            access,
            events,
            metrics,
            catch_up: limits.catch_up,
            write_patience: limits.write_patience,
            judging: Judging::default(),
            pulse,
            newest_write: Mutex::default(),
        });
        Ok(Self { serving: Serving::start(listener, routes::routes(api), tls, limits, stop)? })
    }

    /// Where it listens, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// Stops accepting, lets requests under way end, and returns after [`Limits::drain`] at the latest.
    pub async fn shutdown(self) {
        self.serving.shutdown().await;
    }
}

/// What all handlers share.
struct Api {
    store: Store,
    index: Index,
    settings: Settings,
    info: Info,
    gateway: watch::Receiver<GatewayState>,
    agents: podium_http::Client,
    statuses: Statuses,
    port: u16,
    encrypted: bool,
    guard: Guard,
    access: Arc<Access>,
    events: Events,
    metrics: Metrics,
    catch_up: Duration,
    write_patience: Duration,
    judging: Judging,
    pulse: Pulse,
    /// The newest revision that this process has written, in the generation of the index that the write rested on.
    newest_write: Mutex<Position>,
}

impl Api {
    /// Waits until the index is at least as new as `revision` and as what this process has written, and at any rate has been
    /// read once.
    async fn caught_up(&self, revision: i64) -> Result<Position, Problem> {
        let written = *self.newest_write.lock();
        let here = self.index.position();
        // Of another store, or of another state of this one, the revisions are others.
        let own = if written.generation == here.generation { written.revision } else { 0 };
        let wanted = revision.max(own).max(1);
        if here.revision >= wanted {
            return Ok(here);
        }
        self.index.wait_for(wanted, self.catch_up).await.map_err(|behind| {
            let message = match behind.reached.revision {
                0 => "the store has not been read yet: is it reachable?".to_owned(),
                _ => behind.to_string(),
            };
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).soon()
        })
    }

    /// Notes a write, which is durable by now, so that no read of this process is older, and gives the index time to show it.
    async fn written(&self, write: Position) {
        {
            let mut newest = self.newest_write.lock();
            if (newest.generation, newest.revision) < (write.generation, write.revision) {
                *newest = write;
            }
        }
        if let Err(behind) = self.index.wait_for(write.revision, self.catch_up).await {
            tracing::warn!(%behind, "a write is answered before this process has seen it: until then reads are refused");
        }
    }
}
