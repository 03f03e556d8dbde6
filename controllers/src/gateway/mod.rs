//! The gateway: the one elected owner of the Mesos subscription. It launches waiting instances on offers, writes down
//! what becomes of tasks, and kills what is not wanted.
//!
//! It promises: the record of a launch is durable before the launch is sent; an update is acknowledged when its effect
//! is durable; a launch that was recorded is repeated only on Mesos' word, never on silence; what another store
//! launched is never killed. DESIGN sections 3 to 5 and `CONTRIBUTING.md`, step 4, are the specification.
//!
//! [`core`] decides: a state machine without I/O, clock or randomness, from offers ([`offers`], [`placing`]), what Mesos says of
//! tasks ([`updates`]), changed pods ([`pod`]), outcomes of writes ([`writes`]) and the time to what is to be done
//! ([`output`]). [`driver`] is the little that is asynchronous around it.
//!
//! Promise 6, of stores that are not the ones that launched what runs: [`survey`] asks Mesos what runs before anything
//! else is done, [`strays`] judges it, [`quarantine`] keeps what follows in the store.
//!
//! What instances with persistent volumes have reserved is the business of [`residents`].

mod core;
mod demand;
mod driver;
mod entry;
mod framework;
mod kills;
mod offers;
mod output;
mod placing;
mod pod;
mod quarantine;
mod queue;
mod reconcile;
mod residents;
mod roles;
mod secrets;
mod slate;
mod state;
mod status;
mod strays;
mod survey;
#[cfg(test)]
mod tests;
mod updates;
mod writes;

use std::path::PathBuf;

pub use podium_mesos::client::{Credentials, Masters, Trust};
use podium_mesos::matching::AcceptedRoles;
use podium_mesos::task_group;
use tokio::sync::watch;

pub use driver::run;
pub use state::{GatewayState, UnknownTask};

/// What is said while the store has a record of the framework that nobody here can read.
pub const FRAMEWORK_UNREADABLE: &str = "the record of the framework (the key `framework`) can't be read by this version of Podium, and who we are \
    to Mesos isn't guessed: start the newer version that wrote it, or put the record back from a snapshot";

/// Name of its election, and in `--controllers`.
pub const NAME: &str = "gateway";

/// Where the framework's id comes from when the store has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FirstFramework {
    /// A new one, unless Mesos keeps tasks of a framework of our name that nobody speaks for: the store may have
    /// forgotten it, and that is for people to say.
    #[default]
    Ask,
    /// A new one.
    New,
    /// This one: the store has forgotten it.
    Take(String),
}

/// How the gateway behaves. Times in milliseconds where not said otherwise.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Mesos masters, or the ZooKeeper that knows the leading one.
    pub masters: Masters,
    /// As whom we act, without credentials; with them, their principal counts.
    pub principal: Option<String>,
    /// For masters that authenticate frameworks.
    pub credentials: Option<Credentials>,
    /// Who vouches for `https://` masters.
    pub trust: Option<Trust>,
    /// What to do for a framework id when the store has none.
    pub first_framework: FirstFramework,
    /// For so long Mesos keeps our tasks while we are away.
    pub failover_timeout_seconds: f64,
    /// Agents that own GPUs are to be offered.
    pub gpus: bool,
    /// The framework's name for people.
    pub framework_name: String,
    /// The account that tasks run as unless their definition names one.
    pub user: String,
    /// The role of pods without one.
    pub default_role: String,
    /// Where values of secrets lie, by their source.
    pub secrets_dir: Option<PathBuf>,
    /// What is added to every pod.
    pub task_group: task_group::Settings,
    /// For pods without `acceptedResourceRoles`.
    pub accepted_roles: AcceptedRoles,
    /// Offers with GPUs are open to pods that need none.
    pub share_gpu_agents: bool,
    /// At most so many instances on one offer at once; the rest of the offer comes back immediately.
    pub max_per_offer: Option<usize>,
    /// Silence after a launch for so long is asked about.
    pub launch_confirm_ms: i64,
    /// Staging or starting for longer than this is killed.
    pub launch_timeout_ms: i64,
    /// How long an agent is not offered again when nothing waits. A REVIVE ends it.
    pub decline_seconds: f64,
    /// The same, when something waits that does not fit.
    pub decline_waiting_seconds: f64,
    /// Between two REVIVEs.
    pub min_revive_ms: i64,
    /// Between two full reconciliations.
    pub reconcile_ms: i64,
    /// Longest pause between two attempts to subscribe, in seconds.
    pub longest_backoff_seconds: u64,
    /// An unanswered write for so long means that the store is away: nothing is launched or killed.
    pub cut_off_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            masters: Masters::List(Vec::new()),
            principal: None,
            credentials: None,
            trust: None,
            first_framework: FirstFramework::default(),
            failover_timeout_seconds: 604_800.0,
            gpus: true,
            framework_name: "podium".to_owned(),
            user: "root".to_owned(),
            default_role: "*".to_owned(),
            secrets_dir: None,
            task_group: task_group::Settings::default(),
            accepted_roles: AcceptedRoles::default(),
            share_gpu_agents: false,
            max_per_offer: Some(500),
            launch_confirm_ms: 60_000,
            launch_timeout_ms: 300_000,
            decline_seconds: 120.0,
            decline_waiting_seconds: 5.0,
            min_revive_ms: 200,
            reconcile_ms: 600_000,
            longest_backoff_seconds: 5,
            cut_off_ms: 3_000,
        }
    }
}

/// A handle on what the gateway of this process knows, for the API; it says so when this process does not lead.
pub fn state_channel() -> (watch::Sender<GatewayState>, watch::Receiver<GatewayState>) {
    watch::channel(GatewayState::default())
}
