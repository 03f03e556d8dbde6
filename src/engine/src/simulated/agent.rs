//! One simulated agent: its executors and tasks, as plain data. What changes in time is in [`super::world`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podium_proto::mesos::v1::task_status::{Reason, Source};
use podium_proto::mesos::v1::{
    AgentId, AgentInfo, ContainerId, ContainerStatus, ExecutorId, ExecutorInfo, FrameworkInfo, NetworkInfo, Resource, TaskInfo, TaskState,
    TaskStatus, network_info,
};

use super::script::Script;
use super::streams::Updates;
use super::timers::Step;
use crate::link::KnownExecutor;

/// Framework and task, or framework and executor.
pub(super) type Pair = (String, String);

/// A simulated task.
#[derive(Debug)]
pub(super) struct SimTask {
    pub(super) info: TaskInfo,
    pub(super) framework: Arc<FrameworkInfo>,
    /// Absent for a task that this agent never had.
    pub(super) executor: Option<String>,
    pub(super) script: Script,
    pub(super) step: Step,
    pub(super) ended: bool,
    pub(super) updates: Updates,
    container: ContainerId,
}

/// A simulated executor.
#[derive(Debug)]
pub(super) struct SimExecutor {
    pub(super) info: ExecutorInfo,
    pub(super) framework: Arc<FrameworkInfo>,
    /// Tasks that have not ended.
    pub(super) running: BTreeSet<String>,
    /// Tasks whose last update is not acknowledged.
    pub(super) open: BTreeSet<String>,
    container: ContainerId,
}

/// A simulated agent.
#[derive(Debug)]
pub(super) struct SimAgent {
    pub(super) info: AgentInfo,
    pub(super) tasks: HashMap<Pair, SimTask>,
    pub(super) executors: HashMap<Pair, SimExecutor>,
    /// The master can reach it, and it the master.
    pub(super) reachable: bool,
    /// Counts absences, so that the end of an old one is known as such.
    pub(super) absence: u64,
    /// What of its resources is reserved.
    pub(super) checkpointed: Vec<Resource>,
    /// Launches that are to be lost.
    pub(super) drop_launches: usize,
}

fn fresh_container(parent: Option<&ContainerId>) -> ContainerId {
    ContainerId { value: uuid::Uuid::new_v4().to_string(), parent: parent.cloned().map(Box::new) }
}

impl SimExecutor {
    pub(super) fn new(info: ExecutorInfo, framework: Arc<FrameworkInfo>) -> Self {
        Self { info, framework, running: BTreeSet::new(), open: BTreeSet::new(), container: fresh_container(None) }
    }
}

impl SimTask {
    pub(super) fn new(info: TaskInfo, framework: Arc<FrameworkInfo>, executor: &SimExecutor) -> Self {
        Self {
            script: Script::of(&info),
            container: fresh_container(Some(&executor.container)),
            executor: Some(executor.info.executor_id.value.clone()),
            info,
            framework,
            step: Step::Launched,
            ended: false,
            updates: Updates::default(),
        }
    }

    /// A task that a kill names and this agent does not know: it only has a last word to say.
    pub(super) fn unknown(info: TaskInfo) -> Self {
        Self {
            script: Script::of(&info),
            container: fresh_container(None),
            executor: None,
            info,
            framework: Arc::default(),
            step: Step::Killed,
            ended: true,
            updates: Updates::default(),
        }
    }

    /// From a kill to its end; the stubborn use the grace period that is given, or else their own.
    pub(super) fn time_to_end(&self, given: Option<Duration>) -> Duration {
        if self.script.ignore_kill { given.unwrap_or(self.script.grace) } else { self.script.stop }
    }

    /// An update of this task, with a fresh uuid.
    pub(super) fn status(&self, agent: &AgentInfo, address: std::net::IpAddr, state: TaskState, seconds: f64) -> TaskStatus {
        let ip = network_info::IpAddress { ip_address: Some(address.to_string()), ..network_info::IpAddress::default() };
        TaskStatus {
            task_id: self.info.task_id.clone(),
            state: state.into(),
            agent_id: agent.id.clone(),
            timestamp: Some(seconds),
            executor_id: self.executor.as_ref().map(|value| ExecutorId { value: value.clone() }),
            source: Some(Source::Executor.into()),
            uuid: Some(Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes())),
            container_status: Some(ContainerStatus {
                container_id: Some(self.container.clone()),
                network_infos: vec![NetworkInfo { ip_addresses: vec![ip], ..NetworkInfo::default() }],
                ..ContainerStatus::default()
            }),
            ..TaskStatus::default()
        }
    }
}

impl SimAgent {
    pub(super) fn new(info: AgentInfo) -> Self {
        Self {
            info,
            tasks: HashMap::new(),
            executors: HashMap::new(),
            reachable: true,
            absence: 0,
            checkpointed: Vec::new(),
            drop_launches: 0,
        }
    }

    pub(super) fn id(&self) -> AgentId {
        self.info.id.clone().unwrap_or_default()
    }

    /// What it tells when it registers: every executor, with its tasks whose last update is not acknowledged, in the state told last.
    pub(super) fn known(&self) -> Vec<KnownExecutor> {
        let known = self.executors.iter().map(|(pair, running)| {
            let (executor, framework) = (running.info.clone(), (*running.framework).clone());
            (pair.clone(), KnownExecutor { executor, framework, tasks: Vec::new() })
        });
        let mut known: HashMap<Pair, KnownExecutor> = known.collect();
        for ((framework, _), task) in &self.tasks {
            let Some(executor) = &task.executor else { continue };
            let Some(entry) = known.get_mut(&(framework.clone(), executor.clone())) else { continue };
            entry.tasks.push((task.info.clone(), self.told(task)));
        }
        known.into_values().collect()
    }

    fn told(&self, task: &SimTask) -> TaskStatus {
        let staging = || TaskStatus {
            task_id: task.info.task_id.clone(),
            state: TaskState::TaskStaging.into(),
            agent_id: self.info.id.clone(),
            source: Some(Source::Agent.into()),
            ..TaskStatus::default()
        };
        task.updates.sent().cloned().unwrap_or_else(staging)
    }

    /// The framework is heard of no more; its executors that still have something to end, with the time that it takes.
    pub(super) fn shut_down_framework(&mut self, id: &str) -> Vec<(Pair, Duration)> {
        self.executors.retain(|(framework, _), executor| framework != id || !executor.running.is_empty());
        let mut ending: HashMap<Pair, Duration> = HashMap::new();
        for ((framework, _), task) in self.tasks.iter().filter(|((framework, _), task)| framework == id && !task.ended) {
            let Some(executor) = &task.executor else { continue };
            let longest = ending.entry((framework.clone(), executor.clone())).or_default();
            *longest = task.time_to_end(None).max(*longest);
        }
        self.tasks.retain(|(framework, _), _| framework != id);
        ending.into_iter().collect()
    }

    /// The last update of a task was acknowledged: the task is forgotten, and its executor with the last one.
    pub(super) fn close(&mut self, framework: &str, task: &str) {
        let Some(closed) = self.tasks.remove(&(framework.to_owned(), task.to_owned())) else { return };
        let Some(executor) = closed.executor else { return };
        let pair = (framework.to_owned(), executor);
        if let Some(executor) = self.executors.get_mut(&pair) {
            executor.open.remove(task);
            if executor.open.is_empty() {
                self.executors.remove(&pair);
            }
        }
    }
}

/// Marks a status as made by the agent for this reason.
pub(super) fn by_agent(status: TaskStatus, reason: Reason, message: &str) -> TaskStatus {
    TaskStatus { source: Some(Source::Agent.into()), reason: Some(reason.into()), message: Some(message.to_owned()), ..status }
}
