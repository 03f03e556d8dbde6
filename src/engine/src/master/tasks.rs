//! The task table: updates on their way to the framework, acknowledgements on their way back, kills.
//!
//! The agent keeps the update streams. The master frees resources as soon as the newest state is terminal, and keeps
//! the task, so that its id stays used, until the terminal update is acknowledged.

use bytes::Bytes;
use podium_proto::mesos::v1::scheduler::call;
use podium_proto::mesos::v1::task_status::{Reason, Source};
use podium_proto::mesos::v1::{AgentId, ExecutorId, ExecutorInfo, FrameworkId, Task, TaskId, TaskInfo, TaskState, TaskStatus};

use super::agents::ExecutorRecord;
use super::framework::{Framework, failure, update};
use super::state::{Now, State};
use super::stock::Stock;
use crate::link::ToAgent;
pub(super) use crate::link::is_terminal;

/// Kills that may wait for agents known before a restart; a framework that misses one asks again.
const PUT_OFF_KILLS: usize = 10_000;

/// A task that a framework may ask about.
#[derive(Debug)]
pub(super) struct TaskRecord {
    pub(super) task: Task,
    pub(super) role: String,
    pub(super) amounts: Stock,
    /// The newest state that the agent has told; `task.status_update_state` is the last one forwarded.
    pub(super) latest: TaskState,
    /// Its resources are no longer counted.
    pub(super) released: bool,
    /// The framework's latest KILL, to be repeated to an agent that comes back.
    pub(super) kill: Option<call::Kill>,
}

/// A status that the master makes: without a uuid, sent once.
pub(super) fn master_status(task_id: TaskId, state: TaskState, reason: Option<Reason>, now: Now) -> TaskStatus {
    TaskStatus {
        task_id,
        state: state.into(),
        source: Some(Source::Master.into()),
        reason: reason.map(Into::into),
        timestamp: Some(now.seconds()),
        ..TaskStatus::default()
    }
}

/// Books a status in the task: one is kept for each run of equal states, without its data.
pub(super) fn note(task: &mut Task, status: &TaskStatus, latest: TaskState) {
    task.state = latest.into();
    let kept = TaskStatus { data: None, ..status.clone() };
    match task.statuses.last_mut().filter(|last| last.state == kept.state) {
        Some(last) => *last = kept,
        None => task.statuses.push(kept),
    }
}

impl TaskRecord {
    /// A task as launched, or as an agent tells it; it is staging until a status says otherwise.
    /// Without an executor, where that is the command executor.
    pub(super) fn new(framework: &Framework, agent_id: &str, info: TaskInfo, executor: Option<&ExecutorId>, role: String) -> Self {
        let amounts = Stock::of(&info.resources);
        let of_executor = || info.executor.as_ref().and_then(|executor| executor.command.as_ref()?.user.clone());
        let user = info.command.as_ref().and_then(|command| command.user.clone()).or_else(of_executor);
        let task = Task {
            name: info.name,
            task_id: info.task_id,
            framework_id: framework.framework_id(),
            executor_id: executor.cloned(),
            agent_id: AgentId { value: agent_id.to_owned() },
            state: TaskState::TaskStaging.into(),
            resources: info.resources,
            labels: info.labels,
            discovery: info.discovery,
            container: info.container,
            user,
            health_check: info.health_check,
            kill_policy: info.kill_policy,
            limits: info.limits,
            ..Task::default()
        };
        Self { task, role, amounts, latest: TaskState::TaskStaging, released: false, kill: None }
    }

    /// The state that reconciliation answers: that of the last update forwarded.
    pub(super) fn told_state(&self) -> TaskState {
        self.task.status_update_state.and_then(|state| TaskState::try_from(state).ok()).unwrap_or(self.latest)
    }

    /// As remembered of a removed framework; the framework is not told.
    pub(super) fn end_with_framework(mut self, now: Now) -> Task {
        if !is_terminal(self.latest) {
            let status = master_status(self.task.task_id.clone(), TaskState::TaskKilled, Some(Reason::FrameworkRemoved), now);
            note(&mut self.task, &status, TaskState::TaskKilled);
        }
        self.task
    }

    fn forwarded(&mut self, status: &TaskStatus) {
        self.task.status_update_state = Some(status.state);
        self.task.status_update_uuid.clone_from(&status.uuid);
        note(&mut self.task, status, self.latest);
    }
}

impl Framework {
    /// The framework uses, or is offered, that much less.
    pub(super) fn release(&mut self, role: &str, amounts: &Stock) {
        if let Some(sum) = self.allocated.get_mut(role) {
            sum.subtract(amounts);
        }
    }
}

/// The role that a task's or executor's resources are allocated to.
pub(super) fn role_of(resources: &[podium_proto::mesos::v1::Resource], framework: &Framework) -> String {
    let told = resources.iter().find_map(|resource| resource.allocation_info.as_ref().and_then(|info| info.role.clone()));
    told.or_else(|| framework.roles.first().cloned()).unwrap_or_else(|| "*".to_owned())
}

impl State {
    /// An update from an agent: forwarded first, then booked.
    pub(super) fn status_update(&mut self, agent_id: &str, framework_id: &str, mut status: TaskStatus, latest: TaskState, now: Now) {
        let latest = self.as_drained(agent_id, framework_id, &mut status, latest);
        if self.completed.iter().any(|completed| completed.id == framework_id) {
            self.must_send(agent_id, ToAgent::ShutdownFramework { framework_id: FrameworkId { value: framework_id.to_owned() } });
            return;
        }
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        if framework.stream.is_some() {
            if let Some(record) = framework.tasks.get_mut(&status.task_id.value) {
                record.latest = latest;
                record.forwarded(&status);
            }
        } else if let Some(record) = framework.tasks.get_mut(&status.task_id.value) {
            // Not forwarded: the agent tries again, and reconciliation keeps answering what was told last.
            record.latest = latest;
            record.task.state = latest.into();
        }
        let task_id = status.task_id.value.clone();
        self.frameworks.send(framework_id, update(status));
        if is_terminal(latest) {
            self.release_task(agent_id, framework_id, &task_id, now);
        }
    }

    /// The task has ended: what it used is free.
    fn release_task(&mut self, agent_id: &str, framework_id: &str, task_id: &str, now: Now) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        let Some(record) = framework.tasks.get_mut(task_id).filter(|record| !record.released) else { return };
        record.released = true;
        let (role, amounts) = (record.role.clone(), record.amounts.clone());
        framework.release(&role, &amounts);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.give_back(&amounts);
        }
        self.reconsider_released(agent_id, now);
    }

    /// An executor has ended: what it used is free, and its framework hears a FAILURE.
    pub(super) fn executor_exited(&mut self, agent_id: &str, framework_id: &str, executor_id: &str, status: i32, now: Now) {
        if let Some(agent) = self.down.get_mut(agent_id) {
            agent.ending.remove(&(framework_id.to_owned(), executor_id.to_owned()));
            self.bring_up_if_over(agent_id, now);
            return;
        }
        let Some(record) = self.agents.get_mut(agent_id).and_then(|agent| agent.remove_executor(framework_id, executor_id)) else { return };
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            framework.release(&record.role, &record.amounts);
        }
        self.frameworks.send(framework_id, failure(agent_id.to_owned(), Some((executor_id.to_owned(), status))));
        self.reconsider_released(agent_id, now);
    }

    /// ACKNOWLEDGE: routed to the agent; that of a terminal update ends the task. Silently dropped if the agent is
    /// not registered.
    pub(super) fn acknowledge(&mut self, framework_id: &str, call: call::Acknowledge, now: Now) {
        let Some(agent) = self.agents.get_mut(&call.agent_id.value) else { return };
        let acknowledge = ToAgent::Acknowledge {
            framework_id: FrameworkId { value: framework_id.to_owned() },
            task_id: call.task_id.clone(),
            uuid: call.uuid.clone(),
        };
        if !agent.send(acknowledge) {
            return;
        }
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        let ended = framework.tasks.get(&call.task_id.value).is_some_and(|record| ends_task(record, &call.agent_id, &call.uuid));
        if ended && let Some(record) = framework.tasks.remove(&call.task_id.value) {
            framework.remember_completed(record.task);
            agent.remove_task(framework_id, &call.task_id.value);
            self.check_drained(&call.agent_id.value, now);
        }
    }

    /// KILL: forwarded each time it is sent, and again to an agent that comes back. For a task not known it is answered
    /// as reconciliation would, or, where that is silent until an agent has registered, put off as long.
    pub(super) fn kill(&mut self, framework_id: &str, call: call::Kill, now: Now) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        let Some(record) = framework.tasks.get_mut(&call.task_id.value) else {
            let task = call::reconcile::Task { task_id: call.task_id.clone(), agent_id: call.agent_id.clone() };
            if self.may_come_back(&task) {
                self.put_off_kill(framework_id, call);
            } else {
                self.reconcile_task(framework_id, &task, now);
            }
            return;
        };
        let agent_id = record.task.agent_id.value.clone();
        if call.agent_id.as_ref().is_some_and(|given| given.value != agent_id) {
            return;
        }
        let first = record.kill.replace(call.clone()).is_none();
        let message = kill_message(framework_id, call);
        if first {
            self.must_send(&agent_id, message);
        } else if let Some(agent) = self.agents.get_mut(&agent_id) {
            agent.send(message);
        }
    }

    fn put_off_kill(&mut self, framework_id: &str, call: call::Kill) {
        if self.put_off_kills.len() < PUT_OFF_KILLS {
            self.put_off_kills.push((framework_id.to_owned(), call));
        } else {
            tracing::warn!(task = call.task_id.value, "too many kills wait for agents to come back: one is dropped");
        }
    }

    /// Carries out the kills that were put off, as far as their agents have come back or been given up.
    pub(super) fn catch_up_on_kills(&mut self, now: Now) {
        for (framework_id, call) in std::mem::take(&mut self.put_off_kills) {
            self.kill(&framework_id, call, now);
        }
    }

    /// Repeats to an agent that is back the KILL that it may not have heard, or has forgotten.
    pub(super) fn repeat_kill(&mut self, agent_id: &str, framework_id: &str, call: call::Kill) {
        let Some(record) = self.frameworks.get_mut(framework_id).and_then(|framework| framework.tasks.get_mut(&call.task_id.value)) else {
            return;
        };
        record.kill = Some(call.clone());
        self.must_send(agent_id, kill_message(framework_id, call));
    }

    /// SHUTDOWN: silently ignored if agent or executor is unknown.
    pub(super) fn shutdown_executor(&mut self, framework_id: &str, call: call::Shutdown) {
        if let Some(agent) = self.agents.get_mut(&call.agent_id.value)
            && agent.executor(framework_id, &call.executor_id.value).is_some()
        {
            let framework_id = FrameworkId { value: framework_id.to_owned() };
            agent.send(ToAgent::ShutdownExecutor { framework_id, executor_id: call.executor_id });
        }
    }

    /// Books an executor that an agent says it runs.
    pub(super) fn book_executor(&mut self, agent_id: &str, framework_id: &str, info: ExecutorInfo) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        let role = role_of(&info.resources, framework);
        let amounts = Stock::of(&info.resources);
        framework.allocated.entry(role.clone()).or_default().add(&amounts);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.add_executor(framework_id, ExecutorRecord { info, role, amounts });
        }
    }

    /// Books a task that an agent says it runs; a framework that was told otherwise before is told its state.
    pub(super) fn book_returned(
        &mut self,
        agent_id: &str,
        framework_id: &str,
        info: TaskInfo,
        mut status: TaskStatus,
        announce: bool,
        now: Now,
    ) {
        let Ok(state) = TaskState::try_from(status.state) else { return };
        let state = self.as_drained(agent_id, framework_id, &mut status, state);
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        // What has none is run by a command executor.
        let executor = info.executor.as_ref().map(|executor| executor.executor_id.clone());
        let role = role_of(&info.resources, framework);
        let mut record = TaskRecord::new(framework, agent_id, info, executor.as_ref(), role);
        record.latest = state;
        record.released = is_terminal(state);
        note(&mut record.task, &status, state);
        framework.unreachable_tasks.remove(&record.task.task_id.value);
        if !record.released {
            framework.allocated.entry(record.role.clone()).or_default().add(&record.amounts);
        }
        if let Some(agent) = self.agents.get_mut(agent_id) {
            if !record.released {
                agent.allocated.add(&record.amounts);
            }
            agent.tasks.entry(framework_id.to_owned()).or_default().insert(record.task.task_id.value.clone());
        }
        let told = TaskStatus {
            uuid: None,
            data: None,
            source: Some(Source::Master.into()),
            reason: Some(Reason::AgentReregistered.into()),
            timestamp: Some(now.seconds()),
            agent_id: Some(AgentId { value: agent_id.to_owned() }),
            executor_id: executor,
            ..status
        };
        framework.tasks.insert(record.task.task_id.value.clone(), record);
        if announce {
            self.frameworks.send(framework_id, update(told));
        }
    }

    /// The agent came back without a task that the master had launched there: the launch was lost on its way.
    pub(super) fn task_never_arrived(&mut self, framework_id: &str, record: TaskRecord, now: Now) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        let state = framework.aware_or_lost(TaskState::TaskDropped);
        let mut task = record.task;
        let mut status = master_status(task.task_id.clone(), state, Some(Reason::Reconciliation), now);
        status.agent_id = Some(task.agent_id.clone());
        status.executor_id.clone_from(&task.executor_id);
        status.message = Some("The agent does not know this task".to_owned());
        note(&mut task, &status, state);
        framework.remember_completed(task);
        if !is_terminal(record.latest) {
            self.frameworks.send(framework_id, update(status));
        }
    }

    /// What an agent that is back no longer knows is no longer unreachable: it has ended.
    pub(super) fn drop_unreachable_tasks_of(&mut self, agent_id: &str) {
        self.frameworks.for_each_mut(|framework| {
            framework.unreachable_tasks.retain(|_, task| task.agent_id.value != agent_id);
        });
    }

    /// Tasks of an unreachable agent that an operator marked as gone.
    pub(super) fn unreachable_tasks_gone(&mut self, agent_id: &str, now: Now) {
        let mut told = Vec::new();
        self.frameworks.for_each_mut(|framework| {
            let ids: Vec<String> = framework
                .unreachable_tasks
                .values()
                .filter(|task| task.agent_id.value == agent_id)
                .map(|task| task.task_id.value.clone())
                .collect();
            for mut task in ids.iter().filter_map(|id| framework.unreachable_tasks.remove(id)).collect::<Vec<_>>() {
                let state = framework.aware_or_lost(TaskState::TaskGoneByOperator);
                let reason = if state == TaskState::TaskLost { Reason::AgentRemoved } else { Reason::AgentRemovedByOperator };
                let mut status = master_status(task.task_id.clone(), state, Some(reason), now);
                status.message = Some(MARKED_GONE.to_owned());
                status.agent_id = Some(task.agent_id.clone());
                status.executor_id.clone_from(&task.executor_id);
                note(&mut task, &status, state);
                framework.remember_completed(task);
                told.push((framework.id.clone(), status));
            }
        });
        for (framework, status) in told {
            self.frameworks.send(&framework, update(status));
        }
    }
}

/// Of a task whose agent an operator has given up.
pub(super) const MARKED_GONE: &str = "Agent has been marked gone";

fn kill_message(framework_id: &str, call: call::Kill) -> ToAgent {
    ToAgent::KillTask { framework_id: FrameworkId { value: framework_id.to_owned() }, task_id: call.task_id, kill_policy: call.kill_policy }
}

fn ends_task(record: &TaskRecord, agent: &AgentId, uuid: &Bytes) -> bool {
    record.task.agent_id == *agent && is_terminal(record.told_state()) && record.task.status_update_uuid.as_ref() == Some(uuid)
}
