//! Starts the controllers of a process, and stops them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use podium_store::{Index, Session, SessionConfig, Store};
use podium_types::definition::Settings;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::gateway::{self, GatewayState};
use crate::health::{self, Health};
use crate::runtime::{Clock, Controller, Stage, drive, supervise};
use crate::scaling::Scaling;
use crate::unreachable::Unreachable;
use crate::upgrade::Upgrade;

/// The names of all controllers, as in `--controllers` and in the elections.
pub const NAMES: [&str; 6] = ["admission", "upgrade", "scaling", "unreachable", "health", "gateway"];

/// How long a controller may be busy with one pod, at least: decisions take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the controllers of a process need.
pub struct Config {
    /// The store.
    pub store: Store,
    /// Its index, which the whole process shares.
    pub index: Index,
    /// Which controllers this process stands for election with, of [`NAMES`].
    pub which: BTreeSet<&'static str>,
    /// How pushed definitions are read.
    pub settings: Settings,
    /// Who this process is, for people who look at the elections.
    pub identity: String,
    /// How long a crashed leader's work stands still.
    pub lease_ttl: Duration,
    /// How to reach Mesos, and whom to tell what the gateway knows; without it nothing is launched.
    pub gateway: Option<(gateway::Settings, watch::Sender<GatewayState>)>,
}

/// The running controllers of a process.
pub struct Controllers {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    session: Option<Session>,
}

impl Controllers {
    /// Starts them: each stands for its election, and works while it leads. Needs a tokio runtime.
    pub fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if config.which.is_empty() {
            return Self { stop, tasks, session: None };
        }
        let session = Session::start(&config.store, SessionConfig { ttl: config.lease_ttl, identity: config.identity });
        let stage = Stage {
            store: config.store,
            index: config.index,
            session: session.clone(),
            clock: Clock::start(),
            patience: PATIENCE.max(config.lease_ttl),
            stop: stop.clone(),
        };
        let mut starter = Starter { stage: &stage, which: &config.which, tasks: &mut tasks };
        starter.start(Admission::new(config.settings));
        starter.start(Upgrade);
        starter.start(Scaling);
        starter.start(Unreachable);
        starter.start_health();
        if let Some((settings, state)) = config.gateway {
            starter.start_gateway(settings, state);
        }
        Self { stop, tasks, session: Some(session) }
    }

    /// Gives up every election, and returns when others may lead.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Starter<'a> {
    stage: &'a Stage,
    which: &'a BTreeSet<&'static str>,
    tasks: &'a mut JoinSet<()>,
}

impl Starter<'_> {
    fn start<C: Controller>(&mut self, controller: C) {
        let name = controller.name();
        if self.which.contains(name) {
            let (stage, controller) = (self.stage.clone(), Arc::new(controller));
            self.tasks.spawn(async move { supervise(stage, name, |term| drive(controller.clone(), term)).await });
        }
    }

    fn start_health(&mut self) {
        if self.which.contains(Health.name()) {
            let stage = self.stage.clone();
            self.tasks.spawn(supervise(stage, Health.name(), health::run));
        }
    }

    fn start_gateway(&mut self, settings: gateway::Settings, state: watch::Sender<GatewayState>) {
        if self.which.contains(gateway::NAME) {
            let (stage, settings) = (self.stage.clone(), Arc::new(settings));
            let work = move |term| gateway::run(settings.clone(), state.clone(), term);
            self.tasks.spawn(async move { supervise(stage, gateway::NAME, work).await });
        }
    }
}
