//! ACCEPT: the offers are checked, then the operations run in order against what the offers hold.

use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::scheduler::call;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{Filters, OfferId, OperationState, OperationStatus, TaskGroupInfo, TaskInfo, TaskState};

use super::agents::ExecutorRecord;
use super::framework::{filter_duration, update};
use super::group_rules;
use super::offers::OfferRecord;
use super::reconcile::operation_update;
use super::single_rules::{self, Single};
use super::state::{Now, State};
use super::stock::Stock;
use super::tasks::{TaskRecord, master_status};
use crate::link::ToAgent;

/// What is said of a launch that has an id.
fn identity_of(kind: &str) -> String {
    format!("The `id` field cannot be set on {kind} operations")
}

/// What the offers of one ACCEPT hold together.
pub(super) struct Bundle {
    pub(super) role: String,
    pub(super) agent: String,
    pub(super) left: Stock,
    /// Something was launched or reserved, so that what is left may be offered again at once.
    pub(super) used: bool,
}

impl State {
    /// ACCEPT. A call whose offers are not all good is void, and the good ones of them are returned without filter.
    pub(super) fn accept(&mut self, framework_id: &str, call: call::Accept, now: Now) {
        match self.take_bundle(framework_id, &call.offer_ids, now) {
            Ok(mut bundle) => {
                for operation in call.operations {
                    self.operate(framework_id, operation, &mut bundle, now);
                }
                self.return_rest(framework_id, bundle, call.filters, now);
            }
            Err(message) => {
                for operation in call.operations {
                    self.drop_operation(framework_id, operation, &message, now);
                }
            }
        }
    }

    fn take_bundle(&mut self, framework_id: &str, ids: &[OfferId], now: Now) -> Result<Bundle, String> {
        let checked = self.check_offers(framework_id, ids);
        let mut taken = Vec::new();
        for id in ids {
            // Of another framework's offer nothing is touched.
            if self.offers.get(&id.value).is_some_and(|offer| offer.framework == framework_id) {
                taken.extend(self.take_offer(&id.value));
            }
        }
        if let Err(message) = checked {
            for record in &taken {
                self.reconsider_later(&record.agent, now);
            }
            return Err(message);
        }
        let mut taken = taken.into_iter();
        let Some(OfferRecord { role, agent, mut amounts, .. }) = taken.next() else { return Err("No offers specified".to_owned()) };
        for record in taken {
            amounts.add(&record.amounts);
        }
        Ok(Bundle { role, agent, left: amounts, used: false })
    }

    fn check_offers(&self, framework_id: &str, ids: &[OfferId]) -> Result<(), String> {
        let first = ids.first().ok_or("No offers specified")?;
        let record = |id: &OfferId| self.offers.get(&id.value).ok_or_else(|| format!("Offer {} is no longer valid", id.value));
        let first = record(first)?;
        let mut seen = std::collections::BTreeSet::new();
        for id in ids {
            let offer = record(id)?;
            if !seen.insert(&id.value) {
                return Err(format!("Duplicate offer {} in offer list", id.value));
            }
            if offer.framework != framework_id {
                return Err(format!("Offer {} is no longer valid", id.value));
            }
            if offer.role != first.role {
                return Err(format!(
                    "Aggregated offers must be allocated to the same role. Offer {} uses role '{}' but another is using role '{}'",
                    id.value, offer.role, first.role
                ));
            }
            if offer.agent != first.agent {
                return Err(format!(
                    "Aggregated offers must belong to one single agent. Offer {} uses agent {} and agent {}",
                    id.value, offer.agent, first.agent
                ));
            }
        }
        Ok(())
    }

    fn operate(&mut self, framework_id: &str, operation: Operation, bundle: &mut Bundle, now: Now) {
        match operation.r#type.and_then(|kind| operation::Type::try_from(kind).ok()) {
            Some(operation::Type::LaunchGroup) => {
                let identified = operation.id.is_some();
                let Some(group) = operation.launch_group else { return };
                self.launch_group(framework_id, group, identified, bundle, now);
            }
            Some(operation::Type::Launch) => {
                let identified = operation.id.is_some();
                for task in operation.launch.map(|launch| launch.task_infos).unwrap_or_default() {
                    self.launch_single(framework_id, task, identified, bundle, now);
                }
            }
            Some(kind @ (operation::Type::Reserve | operation::Type::Unreserve | operation::Type::Create | operation::Type::Destroy)) => {
                if let Err(problem) = self.convert(framework_id, kind, &operation, bundle) {
                    tracing::warn!(framework = framework_id, operation = kind.as_str_name(), problem, "an operation is refused");
                    self.refuse_operation(framework_id, operation, &problem);
                }
            }
            // As in Mesos: logged there, and nobody is told.
            Some(operation::Type::Unknown) | None => {}
            Some(_) => self.refuse_operation(framework_id, operation, "This operation is not supported by this engine"),
        }
    }

    fn launch_group(&mut self, framework_id: &str, group: operation::LaunchGroup, identified: bool, bundle: &mut Bundle, now: Now) {
        let (Some(framework), Some(agent)) = (self.frameworks.get(framework_id), self.agents.get(&bundle.agent)) else { return };
        let tasks = group.task_group.tasks.clone();
        let place = group_rules::Place { framework, agent, role: &bundle.role, available: &bundle.left };
        let checked = if identified { Err(identity_of("LAUNCH_GROUP")) } else { group_rules::check(group, &place) };
        match checked {
            Ok(plan) => self.launch(framework_id, plan, bundle),
            Err(message) => self.refuse_tasks(framework_id, &tasks, Reason::TaskGroupInvalid, &message, now),
        }
    }

    /// One task of a LAUNCH: others of the same operation are launched or refused by themselves.
    fn launch_single(&mut self, framework_id: &str, task: TaskInfo, identified: bool, bundle: &mut Bundle, now: Now) {
        let (Some(framework), Some(agent)) = (self.frameworks.get(framework_id), self.agents.get(&bundle.agent)) else { return };
        let given = task.clone();
        let place = group_rules::Place { framework, agent, role: &bundle.role, available: &bundle.left };
        let checked = if identified { Err(identity_of("LAUNCH")) } else { single_rules::check(task, &place) };
        match checked {
            Ok(Single { task, executor, needed }) => {
                let plan = group_rules::Plan { executor, tasks: vec![task], needed, executor_is_new: false };
                self.launch(framework_id, plan, bundle);
            }
            Err(message) => self.refuse_tasks(framework_id, &[given], Reason::TaskInvalid, &message, now),
        }
    }

    /// Books a group that passed every rule, and sends it to its agent.
    fn launch(&mut self, framework_id: &str, plan: group_rules::Plan, bundle: &mut Bundle) {
        let group_rules::Plan { executor, tasks, needed, executor_is_new } = plan;
        let (Some(framework), Some(agent)) = (self.frameworks.get_mut(framework_id), self.agents.get_mut(&bundle.agent)) else { return };
        if !bundle.left.subtract(&needed) {
            return;
        }
        bundle.used = true;
        framework.allocated.entry(bundle.role.clone()).or_default().add(&needed);
        if executor_is_new {
            let amounts = Stock::of(&executor.resources);
            agent.add_executor(framework_id, ExecutorRecord { info: executor.clone(), role: bundle.role.clone(), amounts });
        }
        for task in &tasks {
            let known = (!single_rules::is_command_executor(&executor)).then_some(&executor.executor_id);
            let record = TaskRecord::new(framework, &bundle.agent, task.clone(), known, bundle.role.clone());
            agent.allocated.add(&record.amounts);
            agent.tasks.entry(framework_id.to_owned()).or_default().insert(task.task_id.value.clone());
            framework.tasks.insert(task.task_id.value.clone(), record);
        }
        let launch_executor = executor_is_new || single_rules::is_command_executor(&executor);
        let (framework, executor) = (Box::new(framework.info.clone()), Box::new(executor));
        self.must_send(&bundle.agent, ToAgent::RunTaskGroup { framework, executor, launch_executor, group: TaskGroupInfo { tasks } });
    }

    fn return_rest(&mut self, framework_id: &str, bundle: Bundle, filters: Option<Filters>, now: Now) {
        if bundle.left.is_empty() {
            return;
        }
        let Bundle { role, agent, left, used } = bundle;
        self.refuse(OfferRecord { framework: framework_id.to_owned(), role, agent: agent.clone(), amounts: left }, filters, now);
        if used && filter_duration(filters).is_none() {
            self.reconsider_released(&agent, now);
        } else {
            self.reconsider_later(&agent, now);
        }
    }

    /// The whole ACCEPT is void.
    fn drop_operation(&mut self, framework_id: &str, operation: Operation, message: &str, now: Now) {
        let tasks = match operation.r#type.and_then(|kind| operation::Type::try_from(kind).ok()) {
            Some(operation::Type::Launch) => operation.launch.map(|launch| launch.task_infos).unwrap_or_default(),
            Some(operation::Type::LaunchGroup) => operation.launch_group.map(|group| group.task_group.tasks).unwrap_or_default(),
            _ => {
                let message = format!("Operation attempted with invalid offers: {message}");
                return self.refuse_operation(framework_id, operation, &message);
            }
        };
        let Some(state) = self.frameworks.get(framework_id).map(|framework| framework.aware_or_lost(TaskState::TaskDropped)) else {
            return;
        };
        for task in tasks {
            let mut status = master_status(task.task_id, state, Some(Reason::InvalidOffers), now);
            status.agent_id = Some(task.agent_id);
            status.message = Some(format!("Task launched with invalid offers: {message}"));
            self.frameworks.send(framework_id, update(status));
        }
    }

    fn refuse_tasks(&mut self, framework_id: &str, tasks: &[TaskInfo], reason: Reason, message: &str, now: Now) {
        for task in tasks {
            let mut status = master_status(task.task_id.clone(), TaskState::TaskError, Some(reason), now);
            status.agent_id = Some(task.agent_id.clone());
            status.message = Some(message.to_owned());
            self.frameworks.send(framework_id, update(status));
        }
    }

    /// An operation without an id fails in silence.
    fn refuse_operation(&mut self, framework_id: &str, operation: Operation, message: &str) {
        if let Some(id) = operation.id {
            let status = OperationStatus {
                operation_id: Some(id),
                state: OperationState::OperationError.into(),
                message: Some(message.to_owned()),
                ..OperationStatus::default()
            };
            self.frameworks.send(framework_id, operation_update(status));
        }
    }
}
