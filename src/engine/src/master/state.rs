//! What the master knows, and the one place where it changes: frameworks, agents, tasks, offers.
//!
//! [`State`] is plain data without I/O of its own: the owner task (`super::owner`) feeds it calls, messages
//! of agents and the time, and it answers by putting events into the frameworks' buffers and messages into the
//! agents' links, never waiting. The rules stand beside it, one concept a file: [`super::framework`],
//! [`super::agents`], [`super::offers`], [`super::accept`], [`super::tasks`], [`super::reconcile`], [`super::draining`],
//! [`super::maintenance`], [`super::inverse_offers`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podium_proto::mesos::v1::scheduler::call;
use podium_proto::mesos::v1::{Address, MasterInfo, TimeInfo, master_info};
use tokio::time::Instant;

use super::agent_link::AgentLink;
use super::agents::{Agent, Departed};
use super::draining::Drain;
use super::framework::{Completed, Frameworks};
use super::inverse_offers::InverseOffers;
use super::maintenance::{DownAgent, Maintenance};
use super::offers::{OfferRecord, Scalars};

/// How fast and how much; what a real master takes as flags.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two heartbeats of a stream; announced in SUBSCRIBED.
    pub heartbeat: Duration,
    /// When free resources are offered.
    pub pace: Pace,
    /// Events that may wait for one framework before its stream is closed.
    pub event_buffer: usize,
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// Connections served at a time.
    pub max_connections: usize,
    /// How long agents known before a restart may take to come back.
    pub agent_reregister_timeout: Duration,
    /// The host name told to frameworks, where it is not the listener's address.
    pub hostname: Option<String>,
    /// Region and zone of the master: frameworks without REGION_AWARE are offered its region only.
    pub domain: Option<podium_proto::mesos::v1::DomainInfo>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            pace: Pace::default(),
            event_buffer: 1 << 17,
            max_body: 32 << 20,
            max_connections: 1024,
            agent_reregister_timeout: Duration::from_secs(600),
            hostname: None,
            domain: None,
        }
    }
}

/// When free resources are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Declined and left over resources come back at the next tick.
    pub tick: Duration,
    /// Whether what ended tasks release is offered at once too, and not at the next tick.
    pub eager: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { tick: Duration::from_millis(50), eager: true }
    }
}

impl Pace {
    /// As a real master, whose default is a second.
    #[must_use]
    pub const fn every(allocation_interval: Duration) -> Self {
        Self { tick: allocation_interval, eager: false }
    }
}

/// Between two rounds of offers for released resources, so that a thousand ends are not a thousand offers.
const RELEASE_GAP: Duration = Duration::from_millis(10);

/// Between two tries to send into a full link.
const LINK_RETRY: Duration = Duration::from_millis(20);

/// AGENT_UPDATE, AGENT_DRAINING, and QUOTA_V2, which has no name in the v1 API.
const MASTER_CAPABILITIES: [i32; 3] = [1, 2, 3];

/// What is to happen at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Timer {
    /// A heartbeat on this stream.
    Heartbeat { framework: String, stream: String },
    /// The framework's `failover_timeout` has passed, if it is still in this disconnection.
    Failover { framework: String, epoch: u64 },
    /// The agent's earliest filter ended: it may be offered again.
    Filter { agent: String },
    /// Links that were full may have room.
    Backlog,
    /// An agent known before the restart has not come back.
    AgentGivenUp { agent: String },
}

/// The instant and the wall clock, read together once for each batch of work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall: Duration,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// Seconds since the epoch, as in `TaskStatus.timestamp`.
    pub(super) fn seconds(self) -> f64 {
        self.wall.as_secs_f64()
    }

    pub(super) fn time_info(self) -> TimeInfo {
        TimeInfo { nanoseconds: i64::try_from(self.wall.as_nanos()).unwrap_or(i64::MAX) }
    }
}

/// Everything that the master knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) master_id: String,
    pub(super) address: SocketAddr,
    pub(super) started: Duration,
    pub(super) frameworks: Frameworks,
    pub(super) completed: VecDeque<Completed>,
    pub(super) agents: BTreeMap<String, Agent>,
    /// Agents known from before the restart, or that said so, which have not registered yet.
    pub(super) recovering: BTreeSet<String>,
    pub(super) unreachable: BTreeMap<String, Departed>,
    pub(super) gone: BTreeSet<String>,
    /// Agents that are being emptied, or are empty, by an operator's word: here or not.
    pub(super) draining: BTreeMap<String, Drain>,
    /// By an operator's word these agents are offered to nobody: here or not.
    pub(super) deactivated: BTreeSet<String>,
    pub(super) maintenance: Maintenance,
    /// Agents of machines that are down, or were a moment ago.
    pub(super) down: BTreeMap<String, DownAgent>,
    /// By framework: KILLs of tasks that these agents may know.
    pub(super) put_off_kills: Vec<(String, call::Kill)>,
    /// Agents from before the restart that this engine was started without.
    pub(super) dismissed: BTreeSet<String>,
    pub(super) offers: HashMap<String, OfferRecord>,
    pub(super) inverse_offers: InverseOffers,
    pub(super) next_offer: u64,
    pub(super) next_framework: u64,
    /// Sum of all agents' totals, for dominant shares.
    pub(super) cluster: Scalars,
    /// Agents to consider in the next round of offers.
    pub(super) to_offer: BTreeSet<String>,
    /// When that round is due.
    pub(super) offer_at: Option<Instant>,
    pub(super) last_round: Option<Instant>,
    /// Something that must survive a restart has changed.
    pub(super) unsaved: bool,
    /// Agents whose link was full when something had to be sent.
    pub(super) backlogged: BTreeSet<String>,
    /// To agents that are gone, and have not heard yet what they are to end.
    pub(super) leaving: Vec<AgentLink>,
    /// To agents that are gone and came back, by id.
    pub(super) ignored: BTreeMap<String, AgentLink>,
    timers: BTreeMap<(Instant, u64), Timer>,
    next_timer: u64,
    /// By agent, the key of its one [`Timer::Filter`].
    filter_timers: HashMap<String, (Instant, u64)>,
}

impl State {
    pub(super) fn new(settings: Settings, master_id: String, address: SocketAddr, now: Now) -> Self {
        Self {
            settings,
            master_id,
            address,
            started: now.wall,
            frameworks: Frameworks::default(),
            completed: VecDeque::new(),
            agents: BTreeMap::new(),
            recovering: BTreeSet::new(),
            unreachable: BTreeMap::new(),
            gone: BTreeSet::new(),
            draining: BTreeMap::new(),
            deactivated: BTreeSet::new(),
            maintenance: Maintenance::default(),
            down: BTreeMap::new(),
            put_off_kills: Vec::new(),
            dismissed: BTreeSet::new(),
            offers: HashMap::new(),
            inverse_offers: InverseOffers::default(),
            next_offer: 0,
            next_framework: 0,
            cluster: Scalars::default(),
            to_offer: BTreeSet::new(),
            offer_at: None,
            last_round: None,
            unsaved: false,
            backlogged: BTreeSet::new(),
            leaving: Vec::new(),
            ignored: BTreeMap::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            filter_timers: HashMap::new(),
        }
    }

    /// The host name told to frameworks and clients.
    pub(super) fn hostname(&self) -> String {
        self.settings.hostname.clone().unwrap_or_else(|| self.address.ip().to_string())
    }

    pub(super) fn master_info(&self) -> MasterInfo {
        let ip = match self.address.ip() {
            // The historical field holds the address in network byte order, read as a little-endian number.
            std::net::IpAddr::V4(ip) => u32::from_le_bytes(ip.octets()),
            std::net::IpAddr::V6(_) => 0,
        };
        MasterInfo {
            id: self.master_id.clone(),
            ip,
            port: u32::from(self.address.port()),
            pid: Some(format!("master@{}", self.address)),
            hostname: Some(self.hostname()),
            version: Some(super::MESOS_VERSION.to_owned()),
            address: Some(Address {
                hostname: Some(self.hostname()),
                ip: Some(self.address.ip().to_string()),
                port: i32::from(self.address.port()),
            }),
            domain: self.settings.domain.clone(),
            capabilities: MASTER_CAPABILITIES.iter().map(|kind| master_info::Capability { r#type: Some(*kind) }).collect(),
        }
    }

    /// Puts a timer; a time too far away to be told is never.
    pub(super) fn set_timer(&mut self, now: Now, after: Duration, timer: Timer) {
        if let Some(at) = now.instant.checked_add(after) {
            self.next_timer += 1;
            self.timers.insert((at, self.next_timer), timer);
        }
    }

    /// Has an agent considered again when a filter ends, unless an earlier one already does.
    pub(super) fn await_filter(&mut self, agent: &str, until: Instant) {
        if self.filter_timers.get(agent).is_some_and(|(earlier, _)| *earlier <= until) {
            return;
        }
        self.drop_filter_timer(agent);
        self.next_timer += 1;
        let key = (until, self.next_timer);
        self.timers.insert(key, Timer::Filter { agent: agent.to_owned() });
        self.filter_timers.insert(agent.to_owned(), key);
    }

    pub(super) fn drop_filter_timer(&mut self, agent: &str) {
        if let Some(key) = self.filter_timers.remove(agent) {
            self.timers.remove(&key);
        }
    }

    /// Whether the agent was known before the restart, and may still come back.
    pub(super) fn is_awaited(&self, id: &str) -> bool {
        self.timers.values().any(|timer| matches!(timer, Timer::AgentGivenUp { agent } if agent == id))
    }

    #[cfg(test)]
    pub(super) fn count_filter_timers(&self) -> usize {
        self.timers.values().filter(|timer| matches!(timer, Timer::Filter { .. })).count()
    }

    #[cfg(test)]
    pub(super) fn next_filter(&self, agent: &str) -> Option<Instant> {
        self.filter_timers.get(agent).map(|(until, _)| *until)
    }

    /// When [`State::advance`] has something to do.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        match (timer, self.offer_at) {
            (Some(timer), Some(offer)) => Some(timer.min(offer)),
            (timer, offer) => timer.or(offer),
        }
    }

    /// Does what is due: timers, streams that overflowed, offers.
    pub(super) fn advance(&mut self, now: Now) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now.instant {
                break;
            }
            let timer = entry.remove();
            self.fire(timer, now);
        }
        for id in self.frameworks.take_broken() {
            tracing::warn!(framework = id, "the framework reads its events too slowly: its stream is closed");
            self.disconnect(&id, now);
        }
        if self.offer_at.is_some_and(|at| at <= now.instant) {
            self.offer_at = None;
            self.last_round = Some(now.instant);
            self.offer_round(now);
        }
        self.flush_links();
        if !self.backlogged.is_empty() || !self.leaving.is_empty() {
            self.set_timer(now, LINK_RETRY, Timer::Backlog);
        }
    }

    fn fire(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Heartbeat { framework, stream } => self.heartbeat(framework, stream, now),
            Timer::Failover { framework, epoch } => self.failover_timed_out(&framework, epoch, now),
            Timer::Backlog => {}
            Timer::Filter { agent } => self.filter_ended(&agent, now),
            Timer::AgentGivenUp { agent } => self.give_up_agent(&agent, now),
        }
    }

    /// The agent has something to offer; at once.
    pub(super) fn reconsider(&mut self, agent: &str, now: Now) {
        self.to_offer.insert(agent.to_owned());
        self.offer_by(now.instant);
    }

    /// The agent has something to offer, since tasks ended.
    pub(super) fn reconsider_released(&mut self, agent: &str, now: Now) {
        self.to_offer.insert(agent.to_owned());
        let gap = if self.settings.pace.eager { RELEASE_GAP.min(self.settings.pace.tick) } else { self.settings.pace.tick };
        let due = self.last_round.and_then(|last| last.checked_add(gap)).unwrap_or(now.instant);
        self.offer_by(due.max(now.instant));
    }

    /// The agent has something to offer at the next tick, since somebody has just not wanted it.
    pub(super) fn reconsider_later(&mut self, agent: &str, now: Now) {
        self.to_offer.insert(agent.to_owned());
        self.offer_by(now.instant + self.settings.pace.tick);
    }

    /// Every agent with free resources may have a taker, and there may be somebody new to ask about those whose machines are to be
    /// taken down; at once.
    pub(super) fn reconsider_all(&mut self, now: Now) {
        let worth_it = |agent: &&Agent| agent.has_free() || self.maintenance.unavailability(agent).is_some();
        self.to_offer.extend(self.agents.values().filter(worth_it).map(|agent| agent.id.clone()));
        if !self.to_offer.is_empty() {
            self.offer_by(now.instant);
        }
    }

    fn offer_by(&mut self, at: Instant) {
        self.offer_at = Some(self.offer_at.map_or(at, |earlier| earlier.min(at)));
    }
}
