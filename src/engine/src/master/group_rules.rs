//! What a LAUNCH_GROUP must fulfil: table 3.3 of the reference, in its order. Pure: the first fault is the
//! answer for every task of the group.

use std::collections::BTreeSet;

use podium_proto::mesos::v1::offer::operation::LaunchGroup;
use podium_proto::mesos::v1::{ContainerInfo, ExecutorInfo, Resource, TaskInfo, container_info, executor_info, resource};
use podium_proto::wire::amounts::Amounts;

use super::agents::Agent;
use super::framework::Framework;
use super::roles::check_id;
use super::task_rules;

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
    pub(super) available: &'a Amounts,
}

/// A group that may be launched.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) executor: ExecutorInfo,
    pub(super) tasks: Vec<TaskInfo>,
    /// Of the tasks, and of the executor if it is new.
    pub(super) needed: Amounts,
    pub(super) executor_is_new: bool,
}

/// Judges a group and fills in what a framework may leave out.
pub(super) fn check(group: LaunchGroup, place: &Place<'_>) -> Result<Plan, String> {
    let LaunchGroup { mut executor, task_group } = group;
    let mut tasks = task_group.tasks;
    if tasks.is_empty() {
        return Err("Task group contains no tasks".to_owned());
    }
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
    format!("Task '{}' is invalid: {problem}", task.task_id.value.escape_debug())
}

fn fill_roles(resources: &mut [Resource], role: &str) {
    for resource in resources {
        resource.allocation_info.get_or_insert_with(|| resource::AllocationInfo { role: Some(role.to_owned()) });
    }
}

fn check_task(task: &TaskInfo, place: &Place<'_>) -> Result<(), String> {
    check_id(&task.task_id.value)?;
    let (id, framework) = (&task.task_id.value, place.framework);
    if framework.tasks.contains_key(id) || framework.unreachable_tasks.contains_key(id) {
        return Err(format!("Task has duplicate ID: {id}"));
    }
    if task.agent_id.value != place.agent.id {
        return Err(format!("Task uses invalid agent {} while agent {} is expected", task.agent_id.value, place.agent.id));
    }
    task_rules::check(task)?;
    check_resources(&task.resources, place.role)?;
    if task.container.as_ref().is_some_and(|container| kind_of(container) == Some(container_info::Type::Docker)) {
        return Err("Docker ContainerInfo is not supported on the task".to_owned());
    }
    Ok(())
}

fn kind_of(container: &ContainerInfo) -> Option<container_info::Type> {
    container_info::Type::try_from(container.r#type).ok()
}

/// Each entry valid, unreserved, and for the offers' role.
fn check_resources(resources: &[Resource], role: &str) -> Result<(), String> {
    if resources.is_empty() {
        return Err("Task uses no resources".to_owned());
    }
    for resource in resources {
        task_rules::check_resource(resource)?;
        let allocated = resource.allocation_info.as_ref().and_then(|info| info.role.as_deref());
        if allocated != Some(role) {
            return Err(format!(
                "Resource '{}' is allocated to role '{}' instead of '{role}'",
                resource.name,
                allocated.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

fn check_executor(executor: &ExecutorInfo, tasks: &[TaskInfo], place: &Place<'_>) -> Result<(), String> {
    check_executor_kind(executor)?;
    check_id(&executor.executor_id.value).map_err(|problem| format!("Executor ID is invalid: {problem}"))?;
    let framework_id = executor.framework_id.as_ref().ok_or("'ExecutorInfo.framework_id' must be set")?;
    if framework_id.value != place.framework.id {
        return Err(format!(
            "ExecutorInfo has an invalid FrameworkID (Actual: {} vs Expected: {})",
            framework_id.value, place.framework.id
        ));
    }
    task_rules::check_duration(executor.shutdown_grace_period.as_ref(), "ExecutorInfo's 'shutdown_grace_period'")?;
    check_resources(&executor.resources, place.role).map_err(|problem| format!("Executor uses invalid resources: {problem}"))?;
    let own = Amounts::of(&executor.resources);
    if own.cpus < EXECUTOR_CPUS || own.mem < EXECUTOR_MEM || own.disk <= 0 {
        return Err("Executor must use at least 0.01 cpus, 32 MB mem and some disk".to_owned());
    }
    if let Some(running) = place.agent.executor(&place.framework.id, &executor.executor_id.value)
        && !same_executor(&running.info, executor)
    {
        return Err(format!("ExecutorInfo is not compatible with the running executor '{}'", executor.executor_id.value));
    }
    match tasks.iter().find(|task| task.executor.as_ref() != Some(executor)) {
        Some(task) => Err(of_task(task, "its 'TaskInfo.executor' is not the executor of the group")),
        None => Ok(()),
    }
}

fn check_executor_kind(executor: &ExecutorInfo) -> Result<(), String> {
    let kind = executor.r#type.and_then(|kind| executor_info::Type::try_from(kind).ok());
    match (kind, &executor.command) {
        (None, _) => Err("'ExecutorInfo.type' must be set".to_owned()),
        (Some(executor_info::Type::Unknown), _) => Err("Unknown executor type".to_owned()),
        (Some(executor_info::Type::Default), Some(_)) => Err("'ExecutorInfo.command' must not be set for 'DEFAULT' executor".to_owned()),
        (Some(executor_info::Type::Custom), None) => Err("'ExecutorInfo.command' must be set for 'CUSTOM' executor".to_owned()),
        (Some(executor_info::Type::Custom), Some(_)) => Err("'CUSTOM' executors are not supported by this engine".to_owned()),
        (Some(executor_info::Type::Default), None) => match &executor.container {
            Some(container) if kind_of(container) != Some(container_info::Type::Mesos) => {
                Err("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor".to_owned())
            }
            Some(container) if container.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some()) => {
                Err("'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor".to_owned())
            }
            Some(container) => task_rules::check_container(container),
            None => Ok(()),
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

/// No port twice, no id twice, and no more than the offers hold.
fn check_sum(executor: &ExecutorInfo, tasks: &[TaskInfo], executor_is_new: bool, place: &Place<'_>) -> Result<Amounts, String> {
    let mut ids = BTreeSet::new();
    let own = Amounts::of(&executor.resources);
    let mut ports = own.ports.clone();
    let mut needed = if executor_is_new { own } else { Amounts::default() };
    for task in tasks {
        if !ids.insert(&task.task_id.value) {
            return Err(format!("Task has duplicate ID: {}", task.task_id.value));
        }
        let amounts = Amounts::of(&task.resources);
        if ports.intersects(&amounts.ports) {
            return Err(of_task(task, "it uses ports that the group already uses"));
        }
        ports.union(&amounts.ports);
        needed.add(&amounts);
    }
    if !place.available.contains(&needed) {
        return Err(format!(
            "Total resources required by the task group and its executor are more than available: {}",
            shortage(place.available, &needed)
        ));
    }
    Ok(needed)
}

fn shortage(available: &Amounts, needed: &Amounts) -> String {
    use podium_proto::wire::amounts::quantity;
    let scalars = available.scalars().into_iter().zip(needed.scalars());
    let short = scalars.filter(|((_, have), (_, want))| want > have);
    let mut words: Vec<String> =
        short.map(|((name, have), (_, want))| format!("{name} {} of {}", quantity(want), quantity(have))).collect();
    if !available.ports.contains_all(&needed.ports) {
        words.push("ports that are not offered".to_owned());
    }
    words.join(", ")
}

fn check_cgroups(executor: &ExecutorInfo, tasks: &[TaskInfo]) -> Result<(), String> {
    let of = |container: Option<&ContainerInfo>| {
        container.and_then(|container| container.linux_info.as_ref()).and_then(|linux| linux.share_cgroups)
    };
    if of(executor.container.as_ref()) == Some(true) {
        return Err("'share_cgroups' must not be true on the executor".to_owned());
    }
    let shared: BTreeSet<bool> = tasks.iter().map(|task| of(task.container.as_ref()).unwrap_or(true)).collect();
    if shared.len() > 1 {
        return Err("'share_cgroups' must be equal for all tasks of a task group".to_owned());
    }
    Ok(())
}
