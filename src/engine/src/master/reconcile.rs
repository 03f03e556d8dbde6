//! Reconciliation: what the master answers about tasks that are asked for, or about all of them.

use podium_proto::mesos::v1::scheduler::{Event, call, event};
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{OperationState, OperationStatus, TaskState, TaskStatus};

use super::framework::update;
use super::state::{Now, State};
use super::tasks::{TaskRecord, master_status};

impl State {
    /// RECONCILE: explicit for the tasks named, implicit for none named.
    pub(super) fn reconcile(&mut self, framework_id: &str, tasks: &[call::reconcile::Task], now: Now) {
        if !tasks.is_empty() {
            for task in tasks {
                self.reconcile_task(framework_id, task, now);
            }
            return;
        }
        let Some(framework) = self.frameworks.get(framework_id) else { return };
        let answers: Vec<TaskStatus> = framework.tasks.values().map(|record| known(record, now)).collect();
        for answer in answers {
            self.frameworks.send(framework_id, update(answer));
        }
    }

    /// One explicit question; silence while the task's agent may still come back from a restart.
    pub(super) fn reconcile_task(&mut self, framework_id: &str, task: &call::reconcile::Task, now: Now) {
        if let Some(answer) = self.answer(framework_id, task, now) {
            self.frameworks.send(framework_id, update(answer));
        }
    }

    /// Whether an agent may know the task that has not come back from a restart: nothing can be said until then.
    pub(super) fn may_come_back(&self, task: &call::reconcile::Task) -> bool {
        match &task.agent_id {
            Some(agent) => self.recovering.contains(&agent.value),
            None => !self.recovering.is_empty(),
        }
    }

    fn answer(&self, framework_id: &str, task: &call::reconcile::Task, now: Now) -> Option<TaskStatus> {
        let framework = self.frameworks.get(framework_id)?;
        if let Some(record) = framework.tasks.get(&task.task_id.value) {
            return Some(known(record, now));
        }
        if self.may_come_back(task) {
            return None;
        }
        // Of an unreachable task too: a master looks at what the question says of its agent, and no further.
        let agent = task.agent_id.as_ref().map(|id| id.value.as_str());
        let departed = agent.and_then(|agent| self.unreachable.get(agent));
        let (state, message) = match agent {
            Some(agent) if self.agents.contains_key(agent) => (TaskState::TaskGone, "Task is unknown to the agent"),
            Some(_) if departed.is_some() => (TaskState::TaskUnreachable, "Task is unreachable"),
            Some(agent) if self.gone.contains(agent) || self.dismissed.contains(agent) => (TaskState::TaskGoneByOperator, "Task is gone"),
            _ => (TaskState::TaskUnknown, "Task is unknown"),
        };
        let told = framework.aware_or_lost(state);
        let mut status = master_status(task.task_id.clone(), told, Some(Reason::Reconciliation), now);
        status.message = Some(format!("Reconciliation: {message}"));
        status.agent_id = agent.map(|value| podium_proto::mesos::v1::AgentId { value: value.to_owned() });
        status.unreachable_time = departed.map(|departed| departed.since);
        Some(status)
    }

    /// RECONCILE_OPERATIONS: no operation of this engine has a status, so each named one is unknown.
    pub(super) fn reconcile_operations(&mut self, framework_id: &str, operations: &[call::reconcile_operations::Operation]) {
        for operation in operations {
            let message = match &operation.agent_id {
                None => Some("Operation is unknown and no 'agent_id' was provided"),
                Some(agent) if !self.agents.contains_key(&agent.value) => Some("Both operation and agent are unknown"),
                Some(_) => operation.resource_provider_id.is_none().then_some("Operation is unknown"),
            };
            let status = OperationStatus {
                operation_id: Some(operation.operation_id.clone()),
                state: OperationState::OperationUnknown.into(),
                message: message.map(|message| format!("Reconciliation: {message}")),
                agent_id: operation.agent_id.clone(),
                resource_provider_id: operation.resource_provider_id.clone(),
                ..OperationStatus::default()
            };
            self.frameworks.send(framework_id, operation_update(status));
        }
    }
}

/// An UPDATE_OPERATION_STATUS.
pub(super) fn operation_update(status: OperationStatus) -> Event {
    Event {
        r#type: Some(event::Type::UpdateOperationStatus.into()),
        update_operation_status: Some(event::UpdateOperationStatus { status }),
        ..Event::default()
    }
}

/// The state of the last update forwarded, with what that update said beside it.
fn known(record: &TaskRecord, now: Now) -> TaskStatus {
    let mut status = master_status(record.task.task_id.clone(), record.told_state(), Some(Reason::Reconciliation), now);
    status.message = Some("Reconciliation: Latest task state".to_owned());
    status.agent_id = Some(record.task.agent_id.clone());
    status.executor_id.clone_from(&record.task.executor_id);
    if let Some(last) = record.task.statuses.last() {
        status.healthy = last.healthy;
        status.check_status.clone_from(&last.check_status);
        status.container_status.clone_from(&last.container_status);
    }
    status
}
