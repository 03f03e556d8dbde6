//! Agents: registration and return, loss, "gone" by an operator's word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, Resource, TaskState};

use super::agent_link::AgentLink;
use super::draining::Drain;
use super::framework::{Framework, failure, update};
use super::maintenance::{DownAgent, machine_of};
use super::reservations::without_volume;
use super::single_rules::is_command_executor;
use super::state::{Now, State};
use super::stock::Stock;
use super::tasks::{self, TaskRecord};
use crate::link::{FromAgent, KnownExecutor, ToAgent};

/// An executor on an agent: its resources are taken until it has exited.
#[derive(Debug)]
pub(super) struct ExecutorRecord {
    pub(super) info: ExecutorInfo,
    pub(super) role: String,
    pub(super) amounts: Stock,
}

/// By framework, then executor.
type ExecutorsOf = HashMap<String, BTreeMap<String, ExecutorRecord>>;
/// By framework.
type TasksOf = HashMap<String, BTreeSet<String>>;

/// A registered agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: String,
    pub(super) info: AgentInfo,
    pub(super) address: SocketAddr,
    pub(super) registered: Duration,
    pub(super) reregistered: Option<Duration>,
    pub(super) total: Stock,
    /// What is reserved and finds no room in what the agent has now. It is not offered, and stays reserved.
    pub(super) unfit: Vec<Resource>,
    pub(super) allocated: Stock,
    pub(super) offered: Stock,
    pub(super) offers: BTreeSet<String>,
    pub(super) executors: ExecutorsOf,
    pub(super) tasks: TasksOf,
    /// The how manieth to register: several may share an address.
    number: usize,
    link: AgentLink,
}

/// What an agent says of itself when it registers.
struct Known {
    executors: Vec<KnownExecutor>,
    /// What of its resources is reserved, with the volumes.
    checkpointed: Vec<Resource>,
}

/// All that an agent has: what it was started with, of which this is reserved; and what of that finds no room in it.
fn with_reservations(id: &str, resources: &[Resource], checkpointed: &[Resource]) -> (Stock, Vec<Resource>) {
    let (mut total, mut unfit) = (Stock::of(resources), Vec::new());
    for entry in checkpointed {
        let unreserved = Stock::of(&[Resource { reservations: Vec::new(), ..without_volume(entry) }]);
        if total.subtract(&unreserved) {
            total.add(&Stock::of(std::slice::from_ref(entry)));
        } else {
            tracing::error!(
                agent = id,
                resource = entry.name,
                "the agent was started with less than is reserved there: that is not offered"
            );
            unfit.push(entry.clone());
        }
    }
    (total, unfit)
}

/// Why an agent is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// It is cut off.
    Unreachable,
    /// By an operator's word, for good.
    Gone,
    /// Its machine is taken down for maintenance.
    MachineDown,
}

/// An agent that was here and is lost.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) since: podium_proto::mesos::v1::TimeInfo,
}

impl Agent {
    fn new(id: &str, info: AgentInfo, address: SocketAddr, checkpointed: &[Resource], link: AgentLink, now: Now) -> Self {
        let (total, unfit) = with_reservations(id, &info.resources, checkpointed);
        Self {
            id: id.to_owned(),
            info,
            address,
            registered: now.wall,
            reregistered: None,
            total,
            unfit,
            allocated: Stock::default(),
            offered: Stock::default(),
            offers: BTreeSet::new(),
            executors: HashMap::new(),
            tasks: HashMap::new(),
            number: 0,
            link,
        }
    }

    /// As one whose machine is down, where this still ends.
    pub(super) fn down(self, ending: BTreeSet<(String, String)>) -> DownAgent {
        let Self { id, info, address, total, unfit, link, .. } = self;
        let checkpointed = total.reserved().iter().chain(&unfit).cloned().collect();
        DownAgent { id, info, address, checkpointed, link, ending }
    }

    /// What nobody uses and nobody is offered.
    pub(super) fn free(&self) -> Stock {
        self.total.clone().less(&self.allocated).less(&self.offered)
    }

    /// Whether that is anything; cheap, since it is asked of every agent at once.
    pub(super) fn has_free(&self) -> bool {
        let (total, allocated, offered) = (self.total.plain.scalars(), self.allocated.plain.scalars(), self.offered.plain.scalars());
        let mut scalars = total.into_iter().zip(allocated).zip(offered);
        scalars.any(|(((_, total), (_, allocated)), (_, offered))| total > allocated.saturating_add(offered)) || !self.free().is_empty()
    }

    /// The name of its process, as in `slave(1)@ip:port`.
    pub(super) fn process(&self) -> String {
        format!("slave({})", self.number)
    }

    /// The framework's executors here.
    pub(super) fn executor_ids(&self, framework: &str) -> Vec<ExecutorId> {
        self.executors.get(framework).into_iter().flat_map(BTreeMap::keys).map(|id| ExecutorId { value: id.clone() }).collect()
    }

    pub(super) fn executor(&self, framework: &str, executor: &str) -> Option<&ExecutorRecord> {
        self.executors.get(framework).and_then(|executors| executors.get(executor))
    }

    /// Sends what may be lost, as on a network; false if it was.
    pub(super) fn send(&mut self, message: ToAgent) -> bool {
        let sent = self.link.send(message);
        if !sent {
            tracing::debug!(agent = self.id, "a message to the agent was dropped: its link is full or closed");
        }
        sent
    }

    /// A task here no longer uses this.
    pub(super) fn give_back(&mut self, amounts: &Stock) {
        self.allocated = std::mem::take(&mut self.allocated).less(amounts);
    }

    /// Drops the framework's executors and tasks, and frees what the executors used.
    pub(super) fn forget_framework(&mut self, framework: &str) {
        for executor in self.executors.remove(framework).unwrap_or_default().into_values() {
            self.give_back(&executor.amounts);
        }
        self.tasks.remove(framework);
    }

    pub(super) fn add_executor(&mut self, framework: &str, record: ExecutorRecord) {
        self.allocated.add(&record.amounts);
        let id = record.info.executor_id.value.clone();
        self.executors.entry(framework.to_owned()).or_default().insert(id, record);
    }

    /// Takes the executor out and frees what it used.
    pub(super) fn remove_executor(&mut self, framework: &str, executor: &str) -> Option<ExecutorRecord> {
        let executors = self.executors.get_mut(framework)?;
        let record = executors.remove(executor)?;
        if executors.is_empty() {
            self.executors.remove(framework);
        }
        self.give_back(&record.amounts);
        Some(record)
    }

    pub(super) fn remove_task(&mut self, framework: &str, task: &str) {
        if let Some(tasks) = self.tasks.get_mut(framework) {
            tasks.remove(task);
            if tasks.is_empty() {
                self.tasks.remove(framework);
            }
        }
    }
}

impl State {
    /// A message of an agent.
    pub(super) fn agent_message(&mut self, message: FromAgent, now: Now) {
        match message {
            FromAgent::Recovering { agent_id } => {
                // One that was cut off is so until it registers, which its machine may forbid.
                let id = agent_id.value;
                if !self.agents.contains_key(&id) && !self.gone.contains(&id) && !self.unreachable.contains_key(&id) {
                    self.recovering.insert(id);
                }
            }
            FromAgent::Register { info, address, executors, checkpointed, link } => {
                self.register(*info, address, Known { executors, checkpointed }, AgentLink::new(link), now);
            }
            // Of an agent that has been taken out nothing is heard any more.
            FromAgent::Update { agent_id, .. } if !self.agents.contains_key(&agent_id.value) => {}
            FromAgent::Update { agent_id, framework_id, status, latest } => {
                self.status_update(&agent_id.value, &framework_id.value, *status, latest, now);
            }
            FromAgent::ExecutorExited { agent_id, framework_id, executor_id, status } => {
                self.executor_exited(&agent_id.value, &framework_id.value, &executor_id.value, status, now);
            }
            FromAgent::Lost { agent_id } => {
                self.ignored.remove(&agent_id.value);
                self.lose_agent(&agent_id.value, now);
            }
        }
    }

    /// An agent registers, or comes back with what runs there.
    fn register(&mut self, info: AgentInfo, address: SocketAddr, known: Known, link: AgentLink, now: Now) {
        let Some(id) = info.id.as_ref().map(|id| id.value.clone()).filter(|id| !id.is_empty()) else {
            tracing::error!("an agent registered without an id: it is ignored");
            return;
        };
        if self.gone.contains(&id) {
            tracing::warn!(agent = id, "an agent that an operator marked as gone came back: it is ignored");
            // What runs there is to end. The link is kept: one whose link ends takes the master for a new one, and is back at once.
            let mut link = link;
            let frameworks: BTreeSet<String> = known.executors.into_iter().filter_map(|known| Some(known.framework.id?.value)).collect();
            link.shut_down_frameworks(frameworks);
            self.ignored.insert(id, link);
            return;
        }
        // As an agent that is not back, if it was away: it is here when its machine is up.
        if self.maintenance.is_down(&machine_of(&info, address)) {
            self.take_down(&id, now);
            // Where nobody else waits for it, its own word that it comes back holds no longer.
            if !self.is_awaited(&id) {
                self.recovering.remove(&id);
            }
            let ending =
                known.executors.into_iter().filter_map(|known| Some((known.framework.id?.value, known.executor.executor_id.value)));
            self.keep_down(DownAgent { id, info, address, checkpointed: known.checkpointed, link, ending: ending.collect() });
            self.unsaved = true;
            self.catch_up_on_kills(now);
            return;
        }
        let mut agent = Agent::new(&id, info, address, &known.checkpointed, link, now);
        // Known from before a restart: the agent resends what matters by itself. Otherwise frameworks were told
        // something that is no longer true, or nothing at all.
        let recovered = self.recovering.remove(&id);
        self.unreachable.remove(&id);
        self.dismissed.remove(&id);
        self.down.remove(&id);
        let before = self.detach(&id, now);
        let announce = !recovered && before.is_none();
        self.unsaved |= before.is_none();
        self.cluster.add(&agent.total);
        agent.number = self.agents.len() + 1;
        if let Some(before) = &before {
            (agent.registered, agent.reregistered, agent.number) = (before.registered, Some(now.wall), before.number);
        }
        self.agents.insert(id.clone(), agent);
        let held = before.map(|before| self.take_tasks(before.executors, before.tasks)).unwrap_or_default();
        self.take_in(&id, known.executors, announce, held, now);
        self.catch_up_on_kills(now);
        self.kill_for_drain(&id);
        self.check_drained(&id, now);
        self.reconsider(&id, now);
        tracing::debug!(agent = id, "an agent registered");
    }

    /// An agent registers whose machine was down, and is up now that nothing is left of what it ran.
    pub(super) fn bring_up(&mut self, agent: DownAgent, now: Now) {
        let DownAgent { info, address, checkpointed, link, .. } = agent;
        self.register(info, address, Known { executors: Vec::new(), checkpointed }, link, now);
    }

    /// What was offered of the agent, and asked about it, is void.
    pub(super) fn rescind_all_of(&mut self, id: &str, now: Now) {
        let offers = self.agents.get(id).map(|agent| agent.offers.clone()).unwrap_or_default();
        self.rescind(offers, now);
        self.rescind_inverse_offers_of(id);
    }

    /// Takes a registered agent out, its offers rescinded, and what was refused of it forgotten.
    fn detach(&mut self, id: &str, now: Now) -> Option<Agent> {
        self.rescind_all_of(id, now);
        let agent = self.agents.remove(id)?;
        self.forget_filters_of(id);
        self.cluster.subtract(&agent.total);
        Some(agent)
    }

    /// Takes the tasks of an agent's former registration out of their frameworks.
    fn take_tasks(&mut self, executors: ExecutorsOf, tasks: TasksOf) -> BTreeMap<(String, String), TaskRecord> {
        let mut held = BTreeMap::new();
        for (framework_id, executors) in &executors {
            let Some(framework) = self.frameworks.get_mut(framework_id) else { continue };
            for executor in executors.values() {
                framework.release(&executor.role, &executor.amounts);
            }
        }
        for (framework_id, ids) in tasks {
            let Some(framework) = self.frameworks.get_mut(&framework_id) else { continue };
            for id in ids {
                if let Some(record) = framework.tasks.remove(&id) {
                    if !record.released {
                        framework.release(&record.role, &record.amounts);
                    }
                    held.insert((framework_id.clone(), id), record);
                }
            }
        }
        held
    }

    /// Books what an agent says runs there; `held` is what the master believed until now.
    fn take_in(
        &mut self,
        agent_id: &str,
        executors: Vec<KnownExecutor>,
        announce: bool,
        mut held: BTreeMap<(String, String), TaskRecord>,
        now: Now,
    ) {
        for known in executors {
            let Some(framework_id) = known.framework.id.as_ref().map(|id| id.value.clone()) else { continue };
            if self.completed.iter().any(|completed| completed.id == framework_id) {
                self.must_send(agent_id, ToAgent::ShutdownFramework { framework_id: FrameworkId { value: framework_id } });
                continue;
            }
            if self.frameworks.get(&framework_id).is_none() {
                let recovered = Framework { recovered: true, ..Framework::new(framework_id.clone(), known.framework.clone(), now) };
                self.frameworks.insert(recovered);
            }
            if !is_command_executor(&known.executor) {
                self.book_executor(agent_id, &framework_id, known.executor);
            }
            for (info, status) in known.tasks {
                let before = held.remove(&(framework_id.clone(), info.task_id.value.clone()));
                self.book_returned(agent_id, &framework_id, info, status, announce, now);
                if let Some(kill) = before.and_then(|record| record.kill) {
                    self.repeat_kill(agent_id, &framework_id, kill);
                }
            }
        }
        for ((framework_id, _), record) in held {
            self.task_never_arrived(&framework_id, record, now);
        }
        self.drop_unreachable_tasks_of(agent_id);
    }

    fn forget_filters_of(&mut self, agent_id: &str) {
        self.frameworks.for_each_mut(|framework| {
            for agents in framework.filters.values_mut() {
                agents.remove(agent_id);
            }
            framework.inverse_filters.remove(agent_id);
        });
        self.drop_filter_timer(agent_id);
    }

    /// The agent is unreachable: offers rescinded, tasks unreachable, everybody told.
    pub(super) fn lose_agent(&mut self, agent_id: &str, now: Now) {
        let since = now.time_info();
        self.recovering.remove(agent_id);
        self.down.remove(agent_id);
        if self.remove_agent(agent_id, Departure::Unreachable, now).is_some() {
            tracing::warn!(agent = agent_id, "an agent is unreachable");
            self.unreachable.insert(agent_id.to_owned(), Departed { since });
            self.unsaved = true;
        }
        self.catch_up_on_kills(now);
    }

    /// These agents are all there are: others that were known before a restart are not coming back.
    pub(super) fn expect_agents(&mut self, ids: &[String], now: Now) {
        let missing: Vec<String> = self.recovering.iter().filter(|id| !ids.contains(id)).cloned().collect();
        for id in missing {
            tracing::info!(agent = id, "an agent known before the restart is no longer one of this engine's");
            self.recovering.remove(&id);
            self.dismissed.insert(id);
            self.unsaved = true;
        }
        self.catch_up_on_kills(now);
    }

    /// An agent known before the restart has not come back in time.
    pub(super) fn give_up_agent(&mut self, agent_id: &str, now: Now) {
        if self.recovering.remove(agent_id) {
            tracing::warn!(agent = agent_id, "an agent known before the restart did not come back");
            self.unreachable.insert(agent_id.to_owned(), Departed { since: now.time_info() });
            self.unsaved = true;
            self.frameworks.send_all(&failure(agent_id.to_owned(), None));
            self.catch_up_on_kills(now);
        }
    }

    /// MARK_AGENT_GONE: irreversible. False if no such agent is known.
    pub(super) fn mark_gone(&mut self, agent_id: &str, now: Now) -> bool {
        let known = self.agents.contains_key(agent_id) || self.unreachable.contains_key(agent_id) || self.recovering.contains(agent_id);
        if !known {
            return false;
        }
        let running = self.agents.get(agent_id).map(|agent| self.executors_on(agent)).unwrap_or_default();
        let frameworks: BTreeSet<String> = running.into_iter().map(|(framework, _)| framework).collect();
        if let Some(mut agent) = self.remove_agent(agent_id, Departure::Gone, now)
            && agent.link.shut_down_frameworks(frameworks)
        {
            self.leaving.push(agent.link);
        }
        self.unreachable_tasks_gone(agent_id, now);
        self.unreachable.remove(agent_id);
        self.recovering.remove(agent_id);
        self.gone.insert(agent_id.to_owned());
        // An agent that was drained to be gone stays so for who would reactivate it, as in Mesos.
        if !self.draining.get(agent_id).is_some_and(Drain::mark_gone) {
            self.draining.remove(agent_id);
            self.deactivated.remove(agent_id);
        }
        self.unsaved = true;
        self.catch_up_on_kills(now);
        true
    }

    /// Takes an agent out with all that ran there, and tells everybody.
    pub(super) fn remove_agent(&mut self, agent_id: &str, departure: Departure, now: Now) -> Option<Agent> {
        // One that is cut off is noticed first, and given up later; an operator's word is carried out in one.
        if departure == Departure::Unreachable {
            self.rescind_all_of(agent_id, now);
        }
        let agent = self.agents.get_mut(agent_id)?;
        let hostname = agent.info.hostname.clone();
        let (executors, tasks) = (std::mem::take(&mut agent.executors), std::mem::take(&mut agent.tasks));
        for ((framework_id, _), record) in self.take_tasks(executors, tasks) {
            self.task_departed(&framework_id, record, departure, &hostname, now);
        }
        let agent = self.detach(agent_id, now)?;
        self.maintenance.forget_answers_of(agent_id);
        self.frameworks.send_all(&failure(agent_id.to_owned(), None));
        Some(agent)
    }

    /// The task's agent has left: its framework is told unless the task had ended before.
    fn task_departed(&mut self, framework_id: &str, record: TaskRecord, departure: Departure, hostname: &str, now: Now) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        if tasks::is_terminal(record.latest) {
            framework.remember_completed(record.task);
            return;
        }
        let (state, reason) = match departure {
            Departure::Unreachable => (TaskState::TaskUnreachable, Reason::AgentRemoved),
            Departure::Gone => (TaskState::TaskGoneByOperator, Reason::AgentRemovedByOperator),
            Departure::MachineDown => (TaskState::TaskLost, Reason::AgentRemoved),
        };
        let told = framework.aware_or_lost(state);
        let reason = if told == TaskState::TaskLost { Reason::AgentRemoved } else { reason };
        let mut status = tasks::master_status(record.task.task_id.clone(), told, Some(reason), now);
        status.agent_id = Some(record.task.agent_id.clone());
        status.executor_id.clone_from(&record.task.executor_id);
        let mut task = record.task;
        if state == TaskState::TaskUnreachable {
            status.message = Some("health check timed out".to_owned());
            status.unreachable_time = Some(now.time_info());
            tasks::note(&mut task, &status, told);
            framework.remember_unreachable(task);
        } else {
            status.message = Some(match departure {
                Departure::MachineDown => format!("Agent {hostname} removed: Operator initiated 'Machine DOWN'"),
                Departure::Unreachable | Departure::Gone => tasks::MARKED_GONE.to_owned(),
            });
            tasks::note(&mut task, &status, told);
            framework.remember_completed(task);
        }
        self.frameworks.send(framework_id, update(status));
    }

    /// Sends what must arrive, now or when the agent's link has room.
    pub(super) fn must_send(&mut self, agent_id: &str, message: ToAgent) {
        if self.agents.get_mut(agent_id).is_some_and(|agent| agent.link.must_send(message)) {
            self.backlogged.insert(agent_id.to_owned());
        }
    }

    /// Sends what found a full link.
    pub(super) fn flush_links(&mut self) {
        let (agents, down) = (&mut self.agents, &mut self.down);
        self.backlogged.retain(|id| {
            agents
                .get_mut(id)
                .map(|agent| &mut agent.link)
                .or_else(|| down.get_mut(id).map(|agent| &mut agent.link))
                .is_some_and(AgentLink::flush)
        });
        self.leaving.retain_mut(AgentLink::flush);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podium_proto::mesos::v1::AgentId;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::super::Settings;
    use super::*;
    use crate::link::ToAgent;

    fn register(state: &mut State, now: Now) -> mpsc::Receiver<ToAgent> {
        let (link, messages) = mpsc::channel(10);
        let info = AgentInfo { id: Some(AgentId { value: "S1".to_owned() }), hostname: "h".to_owned(), ..AgentInfo::default() };
        let address = state.address;
        let register = FromAgent::Register { info: Box::new(info), address, executors: Vec::new(), checkpointed: Vec::new(), link };
        state.agent_message(register, now);
        messages
    }

    #[test]
    fn an_agent_that_is_gone_and_comes_back_keeps_its_link() {
        let now = Now { instant: Instant::now(), wall: Duration::from_secs(1_700_000_000) };
        let mut state = State::new(Settings::default(), "master".to_owned(), "127.0.0.1:5050".parse().unwrap(), now);
        let first = register(&mut state, now);
        assert!(state.mark_gone("S1", now) && first.is_closed());
        let again = register(&mut state, now);
        assert!(!again.is_closed() && again.is_empty() && state.agents.is_empty());
        let third = register(&mut state, now);
        assert!(again.is_closed() && !third.is_closed(), "one an agent");
    }
}
