//! What a task must fulfil that is launched by itself, under Mesos' own command executor; in Mesos' order and words. Pure.

use podium_proto::mesos::v1::{ExecutorId, ExecutorInfo, FrameworkId, TaskInfo, executor_info, health_check};

use super::group_rules::{NO_CUSTOM, Place, check_common, describe_available, fill_roles, wrong_framework};
use super::stock::Stock;
use super::{resource_rules, task_rules};

/// A task that may be launched.
#[derive(Debug)]
pub(super) struct Single {
    pub(super) task: TaskInfo,
    /// What runs it: see [`command_executor`].
    pub(super) executor: ExecutorInfo,
    pub(super) needed: Stock,
}

/// Judges a task and fills in what a framework may leave out.
pub(super) fn check(mut task: TaskInfo, place: &Place<'_>) -> Result<Single, String> {
    resource_rules::check_all(&task.resources)?;
    fill_roles(&mut task.resources, place.role);
    if task.command.is_some() == task.executor.is_some() {
        return Err("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present".to_owned());
    }
    // Only here: in a group the type must be given.
    if let Some(health) = task.health_check.as_mut().filter(|health| health.r#type.is_none()) {
        let kind = if health.command.is_some() { health_check::Type::Command } else { health_check::Type::Http };
        health.r#type = Some(kind.into());
    }
    check_common(&task, place)?;
    if let Some(executor) = &task.executor {
        return Err(refuse_executor(executor, place));
    }
    if !resource_rules::fits(&task.resources, place.available, place.role) {
        let (needed, available) = (resource_rules::describe_all(&task.resources), describe_available(place));
        return Err(format!("Total resources {needed} required by task and its executor is more than available {available}"));
    }
    task_rules::check_nested(&task)?;
    task_rules::check_limits(&task, false)?;
    Ok(Single { executor: command_executor(&task, &place.framework.id), needed: Stock::of(&task.resources), task })
}

/// Why a task with an executor of its own is not launched.
fn refuse_executor(executor: &ExecutorInfo, place: &Place<'_>) -> String {
    let kind = executor.r#type.and_then(|kind| executor_info::Type::try_from(kind).ok());
    if matches!(kind, Some(executor_info::Type::Default | executor_info::Type::Unknown)) {
        "'ExecutorInfo.type' must be 'CUSTOM'".to_owned()
    } else if executor.command.is_none() {
        "'ExecutorInfo.command' must be set for 'CUSTOM' executor".to_owned()
    } else if executor.framework_id.as_ref().is_some_and(|id| id.value != place.framework.id) {
        wrong_framework(executor, place)
    } else {
        NO_CUSTOM.to_owned()
    }
}

/// What stands for Mesos' command executor: named like its task, using nothing, unknown to frameworks.
fn command_executor(task: &TaskInfo, framework: &str) -> ExecutorInfo {
    ExecutorInfo {
        r#type: Some(executor_info::Type::Custom.into()),
        executor_id: ExecutorId { value: task.task_id.value.clone() },
        framework_id: Some(FrameworkId { value: framework.to_owned() }),
        name: Some(format!("Command Executor (Task: {})", task.task_id.value)),
        ..ExecutorInfo::default()
    }
}

/// Whether this is a [`command_executor`]: no other executor of this engine is of type CUSTOM.
pub(super) fn is_command_executor(executor: &ExecutorInfo) -> bool {
    executor.r#type == Some(executor_info::Type::Custom.into())
}
