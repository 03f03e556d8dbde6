//! What a LAUNCH_GROUP must fulfil, in Mesos' order and words. Pure: the first fault is the answer for every task of the
//! group.

use std::collections::{BTreeMap, BTreeSet};

use podium_proto::mesos::v1::offer::operation::LaunchGroup;
use podium_proto::mesos::v1::{ContainerInfo, ExecutorInfo, Resource, TaskInfo, container_info, executor_info, resource};
use podium_proto::wire::amounts::{self, Amounts};
use podium_proto::wire::{json, resources};

use super::agents::Agent;
use super::framework::Framework;
use super::roles::check_id;
use super::stock::{Form, Stock};
use super::{resource_rules, task_rules};

/// Least resources of an executor, in thousandths of a core and of MiB.
const EXECUTOR_CPUS: i64 = 10;
const EXECUTOR_MEM: i64 = 32_000;

/// Where a group is to run.
pub(super) struct Place<'a> {
    pub(super) framework: &'a Framework,
    pub(super) agent: &'a Agent,
    /// The role of the offers.
    pub(super) role: &'a str,
    /// What the offers still hold.
    pub(super) available: &'a Stock,
}

/// A group that may be launched.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) executor: ExecutorInfo,
    pub(super) tasks: Vec<TaskInfo>,
    /// Of the tasks, and of the executor if it is new.
    pub(super) needed: Stock,
    pub(super) executor_is_new: bool,
}

/// Judges a group and fills in what a framework may leave out.
pub(super) fn check(group: LaunchGroup, place: &Place<'_>) -> Result<Plan, String> {
    let LaunchGroup { mut executor, task_group } = group;
    let mut tasks = task_group.tasks;
    if tasks.is_empty() {
        return Err("Task group contains no tasks".to_owned());
    }
    resource_rules::check_all(executor.resources.iter().chain(tasks.iter().flat_map(|task| &task.resources)))?;
    fill_roles(&mut executor.resources, place.role);
    for task in &mut tasks {
        fill_roles(&mut task.resources, place.role);
        match &mut task.executor {
            None => task.executor = Some(executor.clone()),
            Some(own) => fill_roles(&mut own.resources, place.role),
        }
    }
    tasks.iter().try_for_each(|task| check_task(task, place).map_err(|problem| of_task(task, &problem)))?;
    check_executor(&executor, &tasks, place)?;
    let executor_is_new = place.agent.executor(&place.framework.id, &executor.executor_id.value).is_none();
    let needed = check_sum(&executor, &tasks, executor_is_new, place)?;
    check_cgroups(&executor, &tasks)?;
    Ok(Plan { executor, tasks, needed, executor_is_new })
}

fn of_task(task: &TaskInfo, problem: &str) -> String {
    format!("Task '{}' is invalid: {problem}", task.task_id.value)
}

/// Resources that say nothing of a role are those of the offers.
pub(super) fn fill_roles(resources: &mut [Resource], role: &str) {
    for resource in resources {
        resource.allocation_info.get_or_insert_with(|| resource::AllocationInfo { role: Some(role.to_owned()) });
    }
}

fn check_task(task: &TaskInfo, place: &Place<'_>) -> Result<(), String> {
    check_common(task, place)?;
    task_rules::check_nested(task)?;
    task_rules::check_limits(task, true)
}

/// Of a task, however it is launched.
pub(super) fn check_common(task: &TaskInfo, place: &Place<'_>) -> Result<(), String> {
    check_id(&task.task_id.value)?;
    let (id, framework) = (&task.task_id.value, place.framework);
    if framework.tasks.contains_key(id) || framework.unreachable_tasks.contains_key(id) {
        return Err(format!("Task has duplicate ID: {id}"));
    }
    if task.agent_id.value != place.agent.id {
        return Err(format!("Task uses invalid agent {} while agent {} is expected", task.agent_id.value, place.agent.id));
    }
    task_rules::check(task)
}

fn kind_of(container: &ContainerInfo) -> Option<container_info::Type> {
    container_info::Type::try_from(container.r#type).ok()
}

/// What an executor says whose framework is another.
pub(super) fn wrong_framework(executor: &ExecutorInfo, place: &Place<'_>) -> String {
    let actual = executor.framework_id.as_ref().map(|id| id.value.as_str()).unwrap_or_default();
    format!("ExecutorInfo has an invalid FrameworkID (Actual: {actual} vs Expected: {})", place.framework.id)
}

fn check_executor(executor: &ExecutorInfo, tasks: &[TaskInfo], place: &Place<'_>) -> Result<(), String> {
    check_executor_kind(executor)?;
    check_id(&executor.executor_id.value)?;
    let framework_id = executor.framework_id.as_ref().ok_or("'ExecutorInfo.framework_id' must be set")?;
    if framework_id.value != place.framework.id {
        return Err(wrong_framework(executor, place));
    }
    task_rules::check_duration(executor.shutdown_grace_period.as_ref(), "ExecutorInfo's 'shutdown_grace_period'")?;
    resource_rules::check_kinds(&executor.resources).map_err(|problem| format!("Executor uses invalid resources: {problem}"))?;
    resource_rules::check_allocation(&executor.resources).map_err(|problem| format!("Invalid executor resources: {problem}"))?;
    check_parts(executor)?;
    check_least(executor)?;
    if let Some(running) = place.agent.executor(&place.framework.id, &executor.executor_id.value)
        && !same_executor(&running.info, executor)
    {
        return Err(format!("ExecutorInfo is not compatible with the running executor '{}'", executor.executor_id.value));
    }
    match tasks.iter().find(|task| task.executor.as_ref() != Some(executor)) {
        Some(task) => {
            let (task, executor) = (&task.task_id.value, &executor.executor_id.value);
            Err(format!("The `ExecutorInfo` of task '{task}' is different from executor '{executor}'"))
        }
        None => Ok(()),
    }
}

/// What is refused of an executor that brings its own program.
pub(super) const NO_CUSTOM: &str = "'CUSTOM' executors are not supported by this engine";

fn check_parts(executor: &ExecutorInfo) -> Result<(), String> {
    if let Some(command) = &executor.command {
        task_rules::check_command(command).map_err(|problem| format!("Executor's `CommandInfo` is invalid: {problem}"))?;
    }
    if let Some(container) = &executor.container {
        task_rules::check_container(container).map_err(|problem| format!("Executor's `ContainerInfo` is invalid: {problem}"))?;
    }
    if executor.command.is_some() { Err(NO_CUSTOM.to_owned()) } else { Ok(()) }
}

/// What every executor of a group must have.
fn check_least(executor: &ExecutorInfo) -> Result<(), String> {
    let (own, id) = (Amounts::of(&executor.resources), &executor.executor_id.value);
    let given = |amount: i64, text: String| if amount > 0 { text } else { "None".to_owned() };
    if own.cpus < EXECUTOR_CPUS {
        let cpus = given(own.cpus, amounts::quantity(own.cpus).to_string());
        return Err(format!("Executor '{id}' uses less CPUs ({cpus}) than the minimum required (0.01)"));
    }
    if own.mem < EXECUTOR_MEM {
        let mem = given(own.mem, format!("{}MB", own.mem / 1000));
        return Err(format!("Executor '{id}' uses less memory ({mem}) than the minimum required (32MB)"));
    }
    if own.disk <= 0 {
        return Err(format!("Executor '{id}' uses no disk"));
    }
    Ok(())
}

fn check_executor_kind(executor: &ExecutorInfo) -> Result<(), String> {
    let kind = executor.r#type.and_then(|kind| executor_info::Type::try_from(kind).ok());
    match (kind, &executor.command) {
        (None, _) => Err("'ExecutorInfo.type' must be set".to_owned()),
        (Some(executor_info::Type::Unknown), _) => Err("Unknown executor type".to_owned()),
        (Some(executor_info::Type::Default), Some(_)) => Err("'ExecutorInfo.command' must not be set for 'DEFAULT' executor".to_owned()),
        (Some(executor_info::Type::Custom), None) => Err("'ExecutorInfo.command' must be set for 'CUSTOM' executor".to_owned()),
        // Refused once its other parts are found right.
        (Some(executor_info::Type::Custom), Some(_)) => Ok(()),
        (Some(executor_info::Type::Default), None) => match &executor.container {
            Some(container) if kind_of(container) != Some(container_info::Type::Mesos) => {
                Err("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor".to_owned())
            }
            Some(container) if container.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some()) => {
                Err("'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor".to_owned())
            }
            _ => Ok(()),
        },
    }
}

/// The fields by which a running executor is the one that a group asks for.
fn same_executor(a: &ExecutorInfo, b: &ExecutorInfo) -> bool {
    #[allow(deprecated)]
    let sources = a.source == b.source;
    sources
        && a.r#type == b.r#type
        && a.executor_id == b.executor_id
        && a.data == b.data
        && Amounts::of(&a.resources) == Amounts::of(&b.resources)
        && a.command == b.command
        && a.framework_id == b.framework_id
        && a.name == b.name
        && a.container == b.container
        && a.discovery == b.discovery
}

/// No id twice, no port twice, and no more than the offers hold.
fn check_sum(executor: &ExecutorInfo, tasks: &[TaskInfo], executor_is_new: bool, place: &Place<'_>) -> Result<Stock, String> {
    let mut ids = BTreeSet::new();
    if let Some(task) = tasks.iter().find(|task| !ids.insert(&task.task_id.value)) {
        return Err(format!("Task has duplicate ID: {}", task.task_id.value));
    }
    let mut ports = Amounts::of(&executor.resources).ports;
    for task in tasks {
        let own = Amounts::of(&task.resources).ports;
        if ports.intersects(&own) {
            return Err(overlap(executor, tasks));
        }
        ports.union(&own);
    }
    resource_rules::check_revocable(tasks.iter().flat_map(|task| &task.resources).chain(&executor.resources))
        .map_err(|problem| format!("Task group and executor mix revocable and non-revocable resources: {problem}"))?;
    let mut needed = Vec::new();
    tasks.iter().for_each(|task| resources::add(&mut needed, &task.resources));
    if executor_is_new {
        resources::add(&mut needed, &executor.resources);
    }
    if !resource_rules::fits(&needed, place.available, place.role) {
        let (needed, available) = (resource_rules::describe_all(&needed), describe_available(place));
        return Err(format!("Total resources {needed} required by task group and its executor are more than available {available}"));
    }
    Ok(Stock::of(&needed))
}

fn overlap(executor: &ExecutorInfo, tasks: &[TaskInfo]) -> String {
    let tasks: Vec<String> = tasks.iter().map(|task| resource_rules::describe_all(&task.resources)).collect();
    let executor: Vec<String> = executor.resources.iter().filter_map(|resource| json::to_value(resource).ok()).map(sorted).collect();
    format!(
        "There are overlapping resources in the task group's task resources [ {} ] and/or executor resources [{}]",
        tasks.join(", "),
        executor.join(",")
    )
}

/// JSON whose members are in the order of their names.
fn sorted(value: serde_json::Value) -> String {
    let serde_json::Value::Object(fields) = value else { return value.to_string() };
    let ordered: BTreeMap<String, serde_json::Value> = fields.into_iter().collect();
    let fields: Vec<String> = ordered.into_iter().map(|(name, value)| format!("\"{name}\":{}", sorted(value))).collect();
    format!("{{{}}}", fields.join(","))
}

/// What the offers hold.
pub(super) fn describe_available(place: &Place<'_>) -> String {
    resource_rules::describe_all(&place.available.to_resources(Some(place.role), Form::New))
}

fn check_cgroups(executor: &ExecutorInfo, tasks: &[TaskInfo]) -> Result<(), String> {
    let of = |container: Option<&ContainerInfo>| {
        container.and_then(|container| container.linux_info.as_ref()).and_then(|linux| linux.share_cgroups)
    };
    if of(executor.container.as_ref()) == Some(true) {
        return Err("The 'share_cgroups' field cannot be set to 'true' on executor containers".to_owned());
    }
    let shared: BTreeSet<bool> = tasks.iter().map(|task| of(task.container.as_ref()).unwrap_or(true)).collect();
    if shared.len() > 1 {
        let rule = "If set, the value of 'share_cgroups' must be the same for all tasks in each task group and under a single executor";
        return Err(rule.to_owned());
    }
    Ok(())
}
