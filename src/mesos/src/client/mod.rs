//! The v1 scheduler API of a Mesos master, seen from a framework: one subscription at a time, kept up
//! across lost connections, silent masters and elections, until someone takes the framework over.
//!
//! A role that the master refuses must not cost the others theirs: a SUBSCRIBE that is refused is followed by one without any
//! role, whose owner then asks for its roles by [`Calls::update_roles`] and hears which of them is refused.
//!
//! Promises: events arrive in the master's order; every subscription is announced by [`Event::Subscribed`]
//! and ended by [`Event::Disconnected`]; calls belong to one subscription and never leak into the next,
//! where their offers and intentions would be void. Events of kinds that this build does not know are skipped; a record
//! that is no event, or half of one, ends the subscription: were it one of offers, nobody could ever give them back. 202 only means that the master has queued a call.
//! Rules: the reference's sections 1 and 4. The gateway is the only user.

mod calls;
mod candidates;
mod masters;
mod run;
mod session;
mod zookeeper;

use std::time::Duration;

pub use podium_http::{Credentials, Trust, TrustError};
use podium_proto::mesos::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use calls::PROTOBUF;
pub use calls::{Calls, RolesAnswer, SubscriptionOver};
pub(crate) use candidates::Candidates;
pub use masters::{Ensemble, Masters, NoMasters};
pub(crate) use session::MAX_REDIRECTS;

/// Path of the scheduler API below a master's address.
const PATH: &str = "/api/v1/scheduler";

/// What can go wrong before anything is tried.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is nobody to ask.
    #[error("no Mesos master is given")]
    NoMaster,
    /// An address or the credentials cannot be used.
    #[error(transparent)]
    Http(#[from] podium_http::Error),
}

/// To whom, as whom, and how patiently.
#[derive(Debug, Clone)]
pub struct MesosConfig {
    /// Who they are, or who knows the leading one.
    pub masters: Masters,
    /// Who we are; its `roles` are replaced by the present ones, its `id` must be set.
    pub framework: v1::FrameworkInfo,
    /// The roles to subscribe for: as they are when it is tried. Within a subscription [`Calls::update_roles`] changes them.
    pub roles: watch::Receiver<Vec<String>>,
    /// The roles, and perhaps others, for which nothing shall be offered at the beginning of a subscription: as they are when
    /// it is tried.
    pub idle: watch::Receiver<Vec<String>>,
    /// The framework's principal and secret.
    pub credentials: Option<Credentials>,
    /// Who vouches for `https://` masters. With it, masters without a scheme are spoken to by https.
    pub trust: Option<Trust>,
    /// After so many intervals without any record the connection is given up.
    pub missed_heartbeats: u32,
    /// Until SUBSCRIBED tells the master's own.
    pub heartbeat: Duration,
    /// For one answer of the master, SUBSCRIBED included.
    pub response_timeout: Duration,
    /// Longest pause between two attempts to subscribe.
    pub longest_backoff: Duration,
    /// Events waiting for their owner before the stream is read no further.
    pub event_capacity: usize,
}

impl MesosConfig {
    /// A configuration with Mesos' own figures.
    #[must_use]
    pub fn new(masters: Masters, framework: v1::FrameworkInfo, roles: watch::Receiver<Vec<String>>) -> Self {
        MesosConfig {
            masters,
            framework,
            roles,
            idle: watch::channel(Vec::new()).1,
            credentials: None,
            trust: None,
            missed_heartbeats: 5,
            heartbeat: Duration::from_secs(15),
            response_timeout: Duration::from_secs(30),
            longest_backoff: Duration::from_secs(15),
            event_capacity: 4096,
        }
    }
}

/// A framework that lives long: checkpointing, aware of partitions, with a failover timeout of a week.
#[must_use]
pub fn framework_info(name: &str, user: &str, id: &str) -> v1::FrameworkInfo {
    use v1::framework_info::capability::Type;
    let capabilities =
        [Type::PartitionAware, Type::TaskKillingState, Type::MultiRole, Type::ReservationRefinement, Type::RegionAware, Type::GpuResources];
    v1::FrameworkInfo {
        name: name.to_owned(),
        user: user.to_owned(),
        id: Some(v1::FrameworkId { value: id.to_owned() }),
        checkpoint: Some(true),
        failover_timeout: Some(604_800.0),
        capabilities: capabilities.map(|capability| v1::framework_info::Capability { r#type: Some(capability.into()) }).into(),
        ..v1::FrameworkInfo::default()
    }
}

/// Agents that own GPUs are not to be offered: for clusters that keep them to other frameworks.
pub fn renounce_gpus(framework: &mut v1::FrameworkInfo) {
    use v1::framework_info::capability::Type;
    framework.capabilities.retain(|capability| capability.r#type != Some(Type::GpuResources.into()));
}

/// What the owner of a subscription must know.
#[derive(Debug)]
pub enum Event {
    /// The master has taken us on. Offers of earlier subscriptions are void, and all roles get offers again but the
    /// suppressed ones.
    Subscribed {
        /// For this subscription only.
        calls: Calls,
        /// As the master knows us.
        framework_id: String,
        /// The master.
        master: Option<Box<v1::MasterInfo>>,
        /// For which we are subscribed; none where the master has refused us with them just before.
        roles: Vec<String>,
        /// For which nothing will be offered until [`Calls::revive`].
        suppressed: Vec<String>,
    },
    /// The subscription is over; another will be tried, unless [`Event::Stopped`] follows.
    Disconnected {
        /// In words.
        reason: String,
    },
    /// An attempt to subscribe failed; more follow, ever more slowly.
    Unavailable {
        /// In words.
        reason: String,
    },
    /// Resources to launch on.
    Offers(Vec<v1::Offer>),
    /// An offer is void.
    Rescind(v1::OfferId),
    /// Whether agents may be taken down for maintenance. The answers are advice.
    InverseOffers(Vec<v1::InverseOffer>),
    /// News of a task. Acknowledge it iff it has a uuid.
    Update(Box<v1::TaskStatus>),
    /// An executor ended or an agent was lost: a hint, not reliable.
    Failure(v1::scheduler::event::Failure),
    /// No subscription is tried any more.
    Stopped(Stop),
}

/// Why the client gave up for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Another process subscribed with our framework id: two must not fight over it.
    FailedOver,
    /// The framework was torn down, or its failover timeout elapsed: its tasks are dead.
    Removed {
        /// The master's words.
        message: String,
    },
    /// We were told to.
    Cancelled,
}

/// Starts a task that keeps the framework subscribed until `cancel`, or until it is taken over or removed.
///
/// # Errors
/// [`ConfigError`].
pub fn connect(config: MesosConfig, cancel: CancellationToken) -> Result<mpsc::Receiver<Event>, ConfigError> {
    let candidates = Candidates::new(&config.masters, config.trust.is_some())?;
    let (sender, receiver) = mpsc::channel(config.event_capacity.max(1));
    let client = run::client(&config)?;
    tokio::spawn(run::run(config, candidates, client, sender, cancel));
    Ok(receiver)
}

#[cfg(test)]
mod tests;
