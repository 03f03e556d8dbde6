//! The task that runs all simulated agents: one wheel of timers, all links, all faults.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{
    AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy, TaskGroupInfo, TaskId, TaskInfo, TaskState, TaskStatus,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use super::agent::{Pair, SimAgent, SimExecutor, SimTask, by_agent};
use super::faults::{Fault, NoSuch, Request};
use super::script::{Health, grace};
use super::streams::Acknowledged;
use super::timers::{Due, Step, TaskKey};
use crate::link::{FromAgent, LINK_CAPACITY, ToAgent, is_terminal};

/// The default executor's grace for the rest of a group when one of its tasks has failed or was killed.
const GROUP_GRACE: Duration = Duration::from_secs(3);

/// A link, closed or not: what arrives for which agent, and for which of its registrations.
type Link = futures_util::stream::BoxStream<'static, (usize, u64, Option<ToAgent>)>;

/// All simulated agents.
pub(super) struct World {
    agents: Vec<SimAgent>,
    address: SocketAddr,
    to_master: mpsc::Sender<FromAgent>,
    links: SelectAll<Link>,
    timers: DelayQueue<Due>,
    /// For the master, in order; sent when all that is due was done.
    outbox: Vec<FromAgent>,
}

impl World {
    pub(super) fn new(infos: Vec<AgentInfo>, address: SocketAddr, to_master: mpsc::Sender<FromAgent>) -> Self {
        let agents = infos.into_iter().map(SimAgent::new).collect();
        Self { agents, address, to_master, links: SelectAll::new(), timers: DelayQueue::new(), outbox: Vec::new() }
    }

    /// Runs until told to stop, or until the master has gone for good.
    pub(super) async fn run(mut self, mut faults: mpsc::Receiver<Request>, stop: CancellationToken) {
        for agent in 0..self.agents.len() {
            self.register(agent);
        }
        loop {
            for message in std::mem::take(&mut self.outbox) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = self.to_master.send(message) => if sent.is_err() { return },
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some((agent, registration, message)) = self.links.next() => self.receive(agent, registration, message),
                Some(due) = self.timers.next() => self.fire(due.into_inner()),
                Some((fault, reply)) = faults.recv() => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.work_in(fault));
                }
            }
        }
    }

    /// Tells the master that the agent is there, with what runs on it.
    fn register(&mut self, number: usize) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        agent.reachable = true;
        agent.absence += 1;
        let registration = agent.absence;
        let (link, messages) = mpsc::channel(LINK_CAPACITY);
        let messages = ReceiverStream::new(messages).map(Some).chain(futures_util::stream::once(async { None }));
        self.links.push(messages.map(move |message| (number, registration, message)).boxed());
        let executors = agent.known();
        let over: Vec<Pair> =
            agent.executors.iter().filter(|(_, executor)| executor.running.is_empty()).map(|(pair, _)| pair.clone()).collect();
        let (info, checkpointed) = (Box::new(agent.info.clone()), agent.checkpointed.clone());
        self.outbox.push(FromAgent::Register { info, address: self.address, executors, checkpointed, link });
        self.resend_all(number, |_| true);
        for (framework, executor) in over {
            self.executor_exited(number, framework, executor);
        }
    }

    fn receive(&mut self, number: usize, registration: u64, message: Option<ToAgent>) {
        // What was sent to an agent that has left meanwhile got lost on its way.
        if !self.agents.get(number).is_some_and(|agent| agent.reachable && agent.absence == registration) {
            return;
        }
        match message {
            // The master has forgotten the agent: it is a new one.
            None => self.register(number),
            Some(ToAgent::RunTaskGroup { framework, executor, group, .. }) => self.launch(number, *framework, *executor, group),
            Some(ToAgent::KillTask { framework_id, task_id, kill_policy }) => self.kill(number, framework_id, task_id, kill_policy),
            Some(ToAgent::Acknowledge { framework_id, task_id, uuid }) => self.acknowledge(number, &framework_id, &task_id, &uuid),
            Some(ToAgent::ShutdownExecutor { framework_id, executor_id }) => self.shutdown_executor(number, &framework_id, &executor_id),
            Some(ToAgent::ShutdownFramework { framework_id }) => {
                let ending = self.agents.get_mut(number).map(|agent| agent.shut_down_framework(&framework_id.value));
                for (executor, after) in ending.into_iter().flatten() {
                    self.timers.insert(Due::Ended { agent: number, executor }, after);
                }
            }
            Some(ToAgent::CheckpointResources { resources }) => {
                if let Some(agent) = self.agents.get_mut(number) {
                    agent.checkpointed = resources;
                }
            }
            Some(ToAgent::FrameworkSubscribed { framework }) => {
                let id = framework.id.as_ref().map(|id| id.value.clone()).unwrap_or_default();
                self.resend_all(number, |framework| framework == id);
            }
        }
    }

    fn launch(&mut self, number: usize, framework: FrameworkInfo, info: ExecutorInfo, group: TaskGroupInfo) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        if agent.drop_launches > 0 {
            agent.drop_launches -= 1;
            return;
        }
        let framework_id = framework.id.as_ref().map(|id| id.value.clone()).unwrap_or_default();
        let framework = Arc::new(framework);
        let pair = (framework_id.clone(), info.executor_id.value.clone());
        let executor = agent.executors.entry(pair).or_insert_with(|| SimExecutor::new(info, framework.clone()));
        for info in group.tasks {
            let id = info.task_id.value.clone();
            let task = SimTask::new(info, framework.clone(), executor);
            executor.running.insert(id.clone());
            executor.open.insert(id.clone());
            let key = TaskKey { agent: number, framework: framework_id.clone(), task: id.clone() };
            self.timers.insert(Due::Step(key, Step::Starting), task.script.launch);
            agent.tasks.insert((framework_id.clone(), id), task);
        }
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::Step(key, step) => self.step(key, step),
            Due::Resend(key) => self.send_head(&key),
            Due::Ended { agent, executor } => {
                if self.agents.get_mut(agent).is_some_and(|agent| agent.executors.remove(&executor).is_some()) {
                    self.executor_exited(agent, executor.0, executor.1);
                }
            }
            Due::Return { agent, absence } => {
                if self.agents.get(agent).is_some_and(|known| !known.reachable && known.absence == absence) {
                    self.register(agent);
                }
            }
        }
    }

    fn task(&mut self, key: &TaskKey) -> Option<&mut SimTask> {
        self.agents.get_mut(key.agent)?.tasks.get_mut(&(key.framework.clone(), key.task.clone()))
    }

    /// A task moves on in its life, unless it has ended or is already further.
    fn step(&mut self, key: TaskKey, step: Step) {
        let Some(task) = self.task(&key).filter(|task| !task.ended && task.step <= step) else { return };
        let checked = step == Step::Checked;
        if !checked && task.step == step {
            return;
        }
        if !checked {
            task.step = step;
        }
        let script = task.script.clone();
        match step {
            Step::Launched => {}
            Step::Starting => match script.launch_failure {
                Some(message) => self.end(&key, TaskState::TaskFailed, |status| by_agent(status, Reason::ContainerLaunchFailed, &message)),
                None => {
                    self.update(&key, TaskState::TaskStarting, |status| status);
                    self.timers.insert(Due::Step(key, Step::Running), script.start);
                }
            },
            Step::Running => {
                self.update(&key, TaskState::TaskRunning, |status| status);
                if !script.health.is_empty() {
                    self.timers.insert(Due::Step(key.clone(), Step::Checked), script.health_pause);
                }
                if let Some(run) = script.run {
                    self.timers.insert(Due::Step(key, Step::Exits), run);
                }
            }
            Step::Checked => self.check_health(key),
            Step::Killing => {}
            Step::Exits => {
                let state = if script.exit == 0 { TaskState::TaskFinished } else { TaskState::TaskFailed };
                let message = format!("Command exited with status {}", script.exit);
                self.end(&key, state, |status| TaskStatus { message: Some(message), ..status });
            }
            Step::Killed => self.end(&key, TaskState::TaskKilled, |status| TaskStatus {
                message: Some("Command terminated with signal Terminated".to_owned()),
                ..status
            }),
        }
    }

    fn check_health(&mut self, key: TaskKey) {
        let Some(task) = self.task(&key).filter(|task| task.step == Step::Running) else { return };
        let Some(result) = task.script.health.pop_front() else { return };
        let (pause, more) = (task.script.health_pause, !task.script.health.is_empty());
        let reason = Reason::TaskHealthCheckStatusUpdated;
        match result {
            Health::Healthy | Health::Unhealthy => {
                let healthy = result == Health::Healthy;
                self.update(&key, TaskState::TaskRunning, |status| TaskStatus {
                    healthy: Some(healthy),
                    reason: Some(reason.into()),
                    ..status
                });
                if more {
                    self.timers.insert(Due::Step(key, Step::Checked), pause);
                }
            }
            Health::Kill => self.end(&key, TaskState::TaskKilled, |status| TaskStatus { healthy: Some(false), ..status }),
        }
    }

    /// Queues an update of a task, and sends it if it is the head.
    fn update(&mut self, key: &TaskKey, state: TaskState, finish: impl FnOnce(TaskStatus) -> TaskStatus) {
        let (ip, seconds) = (self.address.ip(), seconds_now());
        let Some(agent) = self.agents.get_mut(key.agent) else { return };
        let Some(task) = agent.tasks.get_mut(&(key.framework.clone(), key.task.clone())) else { return };
        let status = finish(task.status(&agent.info, ip, state, seconds));
        if task.updates.push(status) {
            self.send_head(key);
        }
    }

    /// A task ends; unless it finished well, its group ends with it, and the executor with its last task.
    fn end(&mut self, key: &TaskKey, state: TaskState, finish: impl FnOnce(TaskStatus) -> TaskStatus) {
        let Some(task) = self.task(key).filter(|task| !task.ended) else { return };
        task.ended = true;
        task.step = Step::Killed;
        let executor = task.executor.clone();
        self.update(key, state, finish);
        let Some(executor) = executor else { return };
        let pair = (key.framework.clone(), executor);
        let Some(known) = self.agents.get_mut(key.agent).and_then(|agent| agent.executors.get_mut(&pair)) else { return };
        known.running.remove(&key.task);
        let rest: Vec<String> = known.running.iter().cloned().collect();
        if rest.is_empty() {
            self.executor_exited(key.agent, pair.0, pair.1);
        } else if state != TaskState::TaskFinished {
            for task in rest {
                self.kill_softly(&TaskKey { task, ..key.clone() }, Some(GROUP_GRACE));
            }
        }
    }

    fn executor_exited(&mut self, number: usize, framework: String, executor: String) {
        let Some(agent) = self.agents.get(number).filter(|agent| agent.reachable) else { return };
        self.outbox.push(FromAgent::ExecutorExited {
            agent_id: agent.id(),
            framework_id: FrameworkId { value: framework },
            executor_id: ExecutorId { value: executor },
            status: 0,
        });
    }

    fn kill(&mut self, number: usize, framework: FrameworkId, task_id: TaskId, policy: Option<KillPolicy>) {
        let key = TaskKey { agent: number, framework: framework.value, task: task_id.value.clone() };
        if self.task(&key).is_none() {
            let Some(agent) = self.agents.get_mut(number) else { return };
            let info = TaskInfo { task_id, ..TaskInfo::default() };
            agent.tasks.insert((key.framework.clone(), key.task.clone()), SimTask::unknown(info));
            self.update(&key, TaskState::TaskDropped, |status| {
                by_agent(status, Reason::ExecutorTerminated, "The task is unknown to the agent")
            });
            return;
        }
        self.kill_softly(&key, policy.and_then(|policy| policy.grace_period).map(grace));
    }

    /// KILLING for those who want to hear of it, then the end: at once, or after the grace period for the stubborn.
    fn kill_softly(&mut self, key: &TaskKey, given: Option<Duration>) {
        let Some(task) = self.task(key).filter(|task| !task.ended && task.step < Step::Killing) else { return };
        task.step = Step::Killing;
        let after = task.time_to_end(given);
        let told = task.framework.capabilities.iter().any(|capability| capability.r#type == Some(Capability::TaskKillingState.into()));
        if told {
            self.update(key, TaskState::TaskKilling, |status| status);
        }
        self.timers.insert(Due::Step(key.clone(), Step::Killed), after);
    }

    fn shutdown_executor(&mut self, number: usize, framework: &FrameworkId, executor: &ExecutorId) {
        let pair = (framework.value.clone(), executor.value.clone());
        let running = self.agents.get(number).and_then(|agent| agent.executors.get(&pair)).map(|executor| executor.running.clone());
        for task in running.unwrap_or_default() {
            self.kill_softly(&TaskKey { agent: number, framework: pair.0.clone(), task }, Some(GROUP_GRACE));
        }
    }

    fn acknowledge(&mut self, number: usize, framework: &FrameworkId, task: &TaskId, uuid: &bytes::Bytes) {
        let key = TaskKey { agent: number, framework: framework.value.clone(), task: task.value.clone() };
        let Some(known) = self.task(&key) else { return };
        let outcome = known.updates.acknowledge(uuid);
        let timer = if outcome == Acknowledged::Stale { None } else { known.updates.timer.take() };
        if let Some(timer) = timer {
            self.timers.try_remove(&timer);
        }
        match outcome {
            Acknowledged::Stale => {}
            Acknowledged::Next => self.send_head(&key),
            Acknowledged::Closed => {
                if let Some(agent) = self.agents.get_mut(number) {
                    agent.close(&key.framework, &key.task);
                }
            }
        }
    }

    /// Sends the head of a stream, and waits for its acknowledgement; unreachable agents send when they are back.
    fn send_head(&mut self, key: &TaskKey) {
        let Some(agent) = self.agents.get_mut(key.agent).filter(|agent| agent.reachable) else { return };
        let agent_id = agent.id();
        let Some(task) = agent.tasks.get_mut(&(key.framework.clone(), key.task.clone())) else { return };
        let Some((status, latest)) = task.updates.head() else { return };
        let wait = task.updates.next_wait();
        if let Some(timer) = task.updates.timer.take() {
            self.timers.try_remove(&timer);
        }
        task.updates.timer = Some(self.timers.insert(Due::Resend(key.clone()), wait));
        let framework_id = FrameworkId { value: key.framework.clone() };
        self.outbox.push(FromAgent::Update { agent_id, framework_id, status: Box::new(status), latest });
    }

    /// Sends the heads of an agent's streams at once, of the frameworks chosen.
    fn resend_all(&mut self, number: usize, chosen: impl Fn(&str) -> bool) {
        let Some(agent) = self.agents.get(number) else { return };
        let pairs: Vec<(String, String)> = agent.tasks.keys().filter(|(framework, _)| chosen(framework)).cloned().collect();
        for (framework, task) in pairs {
            let key = TaskKey { agent: number, framework, task };
            if let Some(known) = self.task(&key) {
                known.updates.forget_tries();
            }
            self.send_head(&key);
        }
    }

    fn work_in(&mut self, fault: Fault) -> Result<(), NoSuch> {
        match fault {
            Fault::Lose { agent, back_after } => self.lose(agent, back_after),
            Fault::Return { agent } => {
                self.agents.get(agent).filter(|known| !known.reachable).ok_or(NoSuch)?;
                self.register(agent);
                Ok(())
            }
            Fault::Crash { agent } => {
                let known = self.agents.get_mut(agent).ok_or(NoSuch)?;
                known.tasks.clear();
                known.executors.clear();
                self.lose(agent, None)
            }
            Fault::Restart { agent, after } => self.restart(agent, after),
            Fault::End { task, state } => self.end_by_name(&task, state),
            Fault::DropLaunches { agent, count } => {
                self.agents.get_mut(agent).ok_or(NoSuch)?.drop_launches = count;
                Ok(())
            }
            Fault::Duplicate { agent } => {
                self.agents.get(agent).ok_or(NoSuch)?;
                self.resend_all(agent, |_| true);
                Ok(())
            }
        }
    }

    /// The agent's absence; its number tells a later one from it.
    fn leave(&mut self, number: usize, back_after: Option<Duration>) -> Result<&SimAgent, NoSuch> {
        let agent = self.agents.get_mut(number).ok_or(NoSuch)?;
        agent.reachable = false;
        agent.absence += 1;
        if let Some(after) = back_after {
            self.timers.insert(Due::Return { agent: number, absence: agent.absence }, after);
        }
        Ok(agent)
    }

    fn lose(&mut self, number: usize, back_after: Option<Duration>) -> Result<(), NoSuch> {
        let agent_id = self.leave(number, back_after)?.id();
        self.outbox.push(FromAgent::Lost { agent_id });
        Ok(())
    }

    fn restart(&mut self, number: usize, after: Duration) -> Result<(), NoSuch> {
        let agent_id = self.leave(number, Some(after))?.id();
        self.outbox.push(FromAgent::Recovering { agent_id });
        Ok(())
    }

    fn end_by_name(&mut self, task: &str, state: TaskState) -> Result<(), NoSuch> {
        let found = self.agents.iter().enumerate().find_map(|(agent, known)| {
            let live = known.tasks.iter().find(|((_, id), found)| id == task && !found.ended);
            live.map(|((framework, id), _)| TaskKey { agent, framework: framework.clone(), task: id.clone() })
        });
        let key = found.filter(|_| is_terminal(state)).ok_or(NoSuch)?;
        self.end(&key, state, |status| TaskStatus { message: Some("Ended by the simulation".to_owned()), ..status });
        Ok(())
    }
}

/// Seconds since the epoch, as in `TaskStatus.timestamp`.
fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
