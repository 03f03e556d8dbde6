//! Frameworks: subscription, failover (the latest subscription wins), disconnection, removal.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::scheduler::{Event, call, event};
use podium_proto::mesos::v1::{FrameworkId, FrameworkInfo, Task};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::agents::Agent;
use super::constraints::{self, Constraints};
use super::offers::{Filter, Scalars};
use super::roles;
use super::state::{Now, State, Timer};
use super::tasks::TaskRecord;
use crate::link::ToAgent;

/// Completed frameworks that are remembered.
const COMPLETED_FRAMEWORKS: usize = 50;
/// Completed and unreachable tasks that are remembered of one framework, each.
pub(super) const REMEMBERED_TASKS: usize = 1000;

/// A framework whose id may not be used again.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) id: String,
    /// Absent for what was completed before a restart.
    pub(super) info: Option<FrameworkInfo>,
    pub(super) registered: Duration,
    pub(super) reregistered: Option<Duration>,
    pub(super) unregistered: Duration,
    pub(super) tasks: Vec<Task>,
}

/// The open event stream of a subscription.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: String,
    events: mpsc::Sender<Box<Event>>,
}

/// One framework.
#[derive(Debug)]
pub(super) struct Framework {
    pub(super) id: String,
    pub(super) info: FrameworkInfo,
    pub(super) stream: Option<Stream>,
    /// Counts subscriptions and disconnections, so that an old failover timer is known as such.
    pub(super) epoch: u64,
    pub(super) registered: Duration,
    pub(super) reregistered: Option<Duration>,
    /// Known from an agent's executors only: it has not subscribed to this master yet.
    pub(super) recovered: bool,
    pub(super) roles: BTreeSet<String>,
    pub(super) suppressed: BTreeSet<String>,
    /// By role, then agent.
    pub(super) filters: HashMap<String, HashMap<String, Vec<Filter>>>,
    /// Until when it is not asked again whether an agent may be taken down.
    pub(super) inverse_filters: HashMap<String, Instant>,
    pub(super) tasks: BTreeMap<String, TaskRecord>,
    pub(super) unreachable_tasks: BTreeMap<String, Task>,
    pub(super) completed_tasks: VecDeque<Task>,
    /// Its outstanding offers.
    pub(super) offers: BTreeSet<String>,
    /// Which agents it wants to see offers of.
    pub(super) constraints: Constraints,
    /// What it uses or is offered, by role.
    pub(super) allocated: BTreeMap<String, Scalars>,
}

impl Framework {
    pub(super) fn new(id: String, info: FrameworkInfo, now: Now) -> Self {
        let roles = roles::of(&info);
        Self {
            id,
            info,
            stream: None,
            epoch: 0,
            registered: now.wall,
            reregistered: Some(now.wall),
            recovered: false,
            roles,
            suppressed: BTreeSet::new(),
            filters: HashMap::new(),
            inverse_filters: HashMap::new(),
            tasks: BTreeMap::new(),
            unreachable_tasks: BTreeMap::new(),
            completed_tasks: VecDeque::new(),
            offers: BTreeSet::new(),
            constraints: Constraints::default(),
            allocated: BTreeMap::new(),
        }
    }

    pub(super) fn framework_id(&self) -> FrameworkId {
        FrameworkId { value: self.id.clone() }
    }

    pub(super) fn has(&self, capability: Capability) -> bool {
        roles::has(&self.info, capability)
    }

    /// The state to send where frameworks without PARTITION_AWARE are told `TASK_LOST`.
    pub(super) fn aware_or_lost(&self, aware: podium_proto::mesos::v1::TaskState) -> podium_proto::mesos::v1::TaskState {
        if self.has(Capability::PartitionAware) { aware } else { podium_proto::mesos::v1::TaskState::TaskLost }
    }

    /// Remembers an ended task, as the last of a bounded list.
    pub(super) fn remember_completed(&mut self, task: Task) {
        while self.completed_tasks.len() >= REMEMBERED_TASKS {
            self.completed_tasks.pop_front();
        }
        self.completed_tasks.push_back(task);
    }

    /// Remembers a task of an unreachable agent; past the bound, the one first in order of ids is forgotten.
    pub(super) fn remember_unreachable(&mut self, task: Task) {
        while self.unreachable_tasks.len() >= REMEMBERED_TASKS {
            self.unreachable_tasks.pop_first();
        }
        self.unreachable_tasks.insert(task.task_id.value.clone(), task);
    }
}

/// All frameworks that are not completed, by id.
#[derive(Debug, Default)]
pub(super) struct Frameworks {
    by_id: BTreeMap<String, Framework>,
    broken: Vec<String>,
}

impl Frameworks {
    pub(super) fn get(&self, id: &str) -> Option<&Framework> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Framework> {
        self.by_id.get_mut(id)
    }

    pub(super) fn insert(&mut self, framework: Framework) {
        self.by_id.insert(framework.id.clone(), framework);
    }

    fn remove(&mut self, id: &str) -> Option<Framework> {
        self.by_id.remove(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Framework> {
        self.by_id.values()
    }

    pub(super) fn for_each_mut(&mut self, change: impl FnMut(&mut Framework)) {
        self.by_id.values_mut().for_each(change);
    }

    /// Puts an event into the framework's buffer. Without a stream it is dropped, as Mesos does; a full
    /// buffer breaks the stream, which [`State::advance`] then closes.
    pub(super) fn send(&mut self, id: &str, event: Event) {
        let Some(stream) = self.by_id.get(id).and_then(|framework| framework.stream.as_ref()) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = stream.events.try_send(Box::new(event))
            && !self.broken.iter().any(|broken| broken == id)
        {
            self.broken.push(id.to_owned());
        }
    }

    /// Puts an event into the buffer of every framework with a stream.
    pub(super) fn send_all(&mut self, event: &Event) {
        let connected: Vec<String> =
            self.iter().filter(|framework| framework.stream.is_some()).map(|framework| framework.id.clone()).collect();
        for id in connected {
            self.send(&id, event.clone());
        }
    }

    pub(super) fn take_broken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.broken)
    }
}

/// What a SUBSCRIBE gets: the id and events of its stream. After a refusal its only event is ERROR.
#[derive(Debug)]
pub(super) struct Subscription {
    /// For the header `Mesos-Stream-Id`.
    pub(super) stream_id: String,
    /// Absent when the framework was refused.
    pub(super) framework_id: Option<String>,
    pub(super) events: mpsc::Receiver<Box<Event>>,
}

/// An event that carries nothing but its type.
fn bare(kind: event::Type) -> Event {
    Event { r#type: Some(kind.into()), ..Event::default() }
}

fn error(message: &str) -> Event {
    Event { error: Some(event::Error { message: message.to_owned() }), ..bare(event::Type::Error) }
}

/// An UPDATE with this status.
pub(super) fn update(status: podium_proto::mesos::v1::TaskStatus) -> Event {
    Event { update: Some(event::Update { status }), ..bare(event::Type::Update) }
}

/// A FAILURE of an agent, or of an executor there.
pub(super) fn failure(agent_id: String, executor: Option<(String, i32)>) -> Event {
    let (executor_id, status) = executor.unzip();
    let failure = event::Failure {
        agent_id: Some(podium_proto::mesos::v1::AgentId { value: agent_id }),
        executor_id: executor_id.map(|value| podium_proto::mesos::v1::ExecutorId { value }),
        status,
    };
    Event { failure: Some(failure), ..bare(event::Type::Failure) }
}

impl State {
    /// A SUBSCRIBE whose form is right: table 1.5 of the reference. A refusal is a stream that says ERROR and ends.
    pub(super) fn subscribe(&mut self, call: call::Subscribe, now: Now) -> Subscription {
        let stream_id = uuid::Uuid::new_v4().to_string();
        let (events, receiver) = mpsc::channel(self.settings.event_buffer.max(4));
        match self.admit(&call) {
            Err(message) => {
                // A fresh channel has room for one event.
                let _ = events.try_send(Box::new(error(&message)));
                Subscription { stream_id, framework_id: None, events: receiver }
            }
            Ok(()) => {
                let id = self.adopt(call, Stream { id: stream_id.clone(), events }, now);
                Subscription { stream_id, framework_id: Some(id), events: receiver }
            }
        }
    }

    fn admit(&self, call: &call::Subscribe) -> Result<(), String> {
        let info = &call.framework_info;
        roles::check_framework(info, &call.suppressed_roles)?;
        constraints::check(call.offer_constraints.as_ref())?;
        let Some(id) = framework_id_of(info) else { return Ok(()) };
        roles::check_id(id)?;
        if self.completed.iter().any(|completed| completed.id == id) {
            return Err("Framework has been removed".to_owned());
        }
        if let Some(known) = self.frameworks.get(id)
            && !known.recovered
            && known.info.principal != info.principal
        {
            return Err("Changing framework's principal is not allowed.".to_owned());
        }
        Ok(())
    }

    /// Makes the subscriber the framework's only one and tells it so.
    fn adopt(&mut self, call: call::Subscribe, stream: Stream, now: Now) -> String {
        let id = framework_id_of(&call.framework_info).map_or_else(|| self.new_framework_id(), str::to_owned);
        if self.frameworks.get(&id).is_some() {
            self.take_over(&id, now);
        } else {
            self.frameworks.insert(Framework::new(id.clone(), call.framework_info.clone(), now));
        }
        let stream_id = stream.id.clone();
        let subscribed = event::Subscribed {
            framework_id: FrameworkId { value: id.clone() },
            heartbeat_interval_seconds: Some(self.settings.heartbeat.as_secs_f64()),
            master_info: Some(self.master_info()),
        };
        if let Some(framework) = self.frameworks.get_mut(&id) {
            framework.stream = Some(stream);
            framework.epoch += 1;
            framework.recovered = false;
        }
        self.apply_info(&id, call.framework_info, call.suppressed_roles, call.offer_constraints, now);
        self.frameworks.send(&id, Event { subscribed: Some(subscribed), ..bare(event::Type::Subscribed) });
        self.heartbeat(id.clone(), stream_id, now);
        self.tell_agents_of_subscription(&id);
        self.reconsider_all(now);
        tracing::info!(framework = id, "a framework subscribed");
        id
    }

    /// Ends the former subscription, if one is open: its stream gets ERROR, its offers vanish without RESCIND.
    fn take_over(&mut self, id: &str, now: Now) {
        self.frameworks.send(id, error("Framework failed over"));
        self.withdraw_offers(id, now);
        self.withdraw_inverse_offers(id);
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.stream = None;
            // Who was refused was another: the new one is asked anew, as it is offered anew what the other had declined.
            framework.inverse_filters.clear();
            framework.reregistered = Some(now.wall);
        }
    }

    /// Applies a (re-)subscription's or UPDATE_FRAMEWORK's settings; `user` and `checkpoint` keep their first values.
    fn apply_info(
        &mut self,
        id: &str,
        mut info: FrameworkInfo,
        suppressed: Vec<String>,
        offer_constraints: Option<podium_proto::mesos::v1::scheduler::OfferConstraints>,
        now: Now,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        info.id = Some(FrameworkId { value: id.to_owned() });
        info.user.clone_from(&framework.info.user);
        info.checkpoint = framework.info.checkpoint;
        framework.info = info;
        framework.roles = roles::of(&framework.info);
        framework.suppressed = suppressed.into_iter().collect();
        framework.constraints = Constraints::new(offer_constraints);
        framework.filters.retain(|role, _| framework.roles.contains(role) && framework.suppressed.contains(role));
        self.rescind_offers_of_removed_roles(id, now);
    }

    fn new_framework_id(&mut self) -> String {
        let id = format!("{}-{:04}", self.master_id, self.next_framework);
        self.next_framework += 1;
        id
    }

    /// Sends a heartbeat if the stream is still the framework's, and plans the next.
    pub(super) fn heartbeat(&mut self, framework: String, stream: String, now: Now) {
        let current = self.frameworks.get(&framework).and_then(|known| known.stream.as_ref()).is_some_and(|open| open.id == stream);
        if current {
            self.frameworks.send(&framework, bare(event::Type::Heartbeat));
            self.set_timer(now, self.settings.heartbeat, Timer::Heartbeat { framework, stream });
        }
    }

    fn tell_agents_of_subscription(&mut self, id: &str) {
        let Some(framework) = self.frameworks.get(id) else { return };
        for agent in self.agents.values_mut() {
            // Updates of an executor that has ended may still wait.
            if agent.executors.contains_key(id) || agent.tasks.contains_key(id) {
                agent.send(ToAgent::FrameworkSubscribed { framework: Box::new(framework.info.clone()) });
            }
        }
    }

    /// The reader of this stream has gone; nothing happens if another subscription has replaced it.
    pub(super) fn stream_closed(&mut self, id: &str, stream_id: &str, now: Now) {
        let current = self.frameworks.get(id).and_then(|known| known.stream.as_ref()).is_some_and(|open| open.id == stream_id);
        if current {
            tracing::info!(framework = id, "the framework's stream was closed");
            self.disconnect(id, now);
        }
    }

    /// Withdraws offers, clears filters, and starts the failover timer.
    pub(super) fn disconnect(&mut self, id: &str, now: Now) {
        self.withdraw_offers(id, now);
        self.withdraw_inverse_offers(id);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.stream = None;
        framework.filters.clear();
        framework.inverse_filters.clear();
        framework.epoch += 1;
        let epoch = framework.epoch;
        let after = roles::failover_timeout(&framework.info).unwrap_or_default();
        self.set_timer(now, after, Timer::Failover { framework: id.to_owned(), epoch });
    }

    pub(super) fn failover_timed_out(&mut self, id: &str, epoch: u64, now: Now) {
        if self.frameworks.get(id).is_some_and(|framework| framework.stream.is_none() && framework.epoch == epoch) {
            tracing::warn!(framework = id, "the framework did not come back within its failover timeout: it is removed");
            self.remove_framework(id, now);
        }
    }

    /// TEARDOWN, or the failover timeout: everything of it ends, its id is used up. The stream ends without ERROR.
    pub(super) fn remove_framework(&mut self, id: &str, now: Now) {
        self.withdraw_offers(id, now);
        self.withdraw_inverse_offers(id);
        let Some(framework) = self.frameworks.remove(id) else { return };
        self.maintenance.forget_framework(&framework.framework_id());
        for record in framework.tasks.values().filter(|record| !record.released) {
            if let Some(agent) = self.agents.get_mut(&record.task.agent_id.value) {
                agent.give_back(&record.amounts);
            }
        }
        let here = |agent: &&Agent| agent.executors.contains_key(id) || agent.tasks.contains_key(id);
        let agents: Vec<String> = self.agents.values().filter(here).map(|agent| agent.id.clone()).collect();
        for agent_id in agents {
            if let Some(agent) = self.agents.get_mut(&agent_id) {
                agent.forget_framework(id);
            }
            self.must_send(&agent_id, ToAgent::ShutdownFramework { framework_id: framework.framework_id() });
            self.reconsider_released(&agent_id, now);
            self.check_drained(&agent_id, now);
        }
        let ended = framework.tasks.into_values().map(|record| record.end_with_framework(now));
        let mut tasks: Vec<Task> = framework.completed_tasks.into_iter().chain(ended).collect();
        tasks.truncate(REMEMBERED_TASKS);
        while self.completed.len() >= COMPLETED_FRAMEWORKS {
            self.completed.pop_front();
        }
        self.completed.push_back(Completed {
            id: framework.id,
            info: Some(framework.info),
            registered: framework.registered,
            reregistered: framework.reregistered,
            unregistered: now.wall,
            tasks,
        });
        self.unsaved = true;
    }

    /// UPDATE_FRAMEWORK: all or nothing.
    pub(super) fn update_framework(&mut self, id: &str, call: call::UpdateFramework, now: Now) -> Result<(), String> {
        let Some(framework) = self.frameworks.get(id) else { return Err("Framework cannot be found".to_owned()) };
        let info = &call.framework_info;
        roles::check_framework(info, &call.suppressed_roles).map_err(|why| format!("Supplied FrameworkInfo is not valid: {why}"))?;
        constraints::check(call.offer_constraints.as_ref())
            .map_err(|why| format!("'UpdateFramework.offer_constraints' are not valid: {why}"))?;
        check_unchanged(&framework.info, info).map_err(|why| format!("FrameworkInfo update is not valid: {why}"))?;
        self.apply_info(id, call.framework_info, call.suppressed_roles, call.offer_constraints, now);
        self.tell_agents_of_subscription(id);
        self.reconsider_all(now);
        Ok(())
    }
}

/// What UPDATE_FRAMEWORK may not change.
fn check_unchanged(before: &FrameworkInfo, after: &FrameworkInfo) -> Result<(), String> {
    let refused = |field: &str, from: String, to: String| {
        Err(format!("Updating 'FrameworkInfo.{field}' is unsupported; attempted to update from '{from}' to '{to}'"))
    };
    if before.principal != after.principal {
        return Err("Changing framework's principal is not allowed.".to_owned());
    }
    if before.user != after.user {
        return refused("user", before.user.clone(), after.user.clone());
    }
    if before.checkpoint() != after.checkpoint() {
        return refused("checkpoint", before.checkpoint().to_string(), after.checkpoint().to_string());
    }
    Ok(())
}

/// The id that the framework asks for, if any; an empty one is none.
pub(super) fn framework_id_of(info: &FrameworkInfo) -> Option<&str> {
    info.id.as_ref().map(|id| id.value.as_str()).filter(|id| !id.is_empty())
}

/// When a filter of `seconds` ends: 5 s for nonsense, at most a year, none for 0.
pub(super) fn filter_duration(filters: Option<podium_proto::mesos::v1::Filters>) -> Option<Duration> {
    const DEFAULT: f64 = 5.0;
    const MOST: f64 = 31_536_000.0;
    let seconds = filters.and_then(|filters| filters.refuse_seconds).unwrap_or(DEFAULT);
    let seconds = if seconds.is_nan() || seconds < 0.0 { DEFAULT } else { seconds.min(MOST) };
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

/// When something that lasts `duration` from `now` ends.
pub(super) fn end_of(now: Now, duration: Duration) -> Option<Instant> {
    now.instant.checked_add(duration)
}
