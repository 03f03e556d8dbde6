//! The GET endpoints with v0 names: `/version`, `/flags`, `/state`, `/state-summary`, `/slaves`, `/frameworks`, `/tasks`,
//! `/roles`, `/metrics/snapshot`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, Uri, header};
use podium_proto::mesos::v1::{Attribute, Resource, Task, TaskState, TaskStatus};
use podium_proto::wire::amounts::{Amounts, quantity};
use podium_proto::wire::json;
use serde_json::{Map, Value, json};

use super::agents::Agent;
use super::framework::{Completed, Framework};
use super::http::{Service, unavailable};
use super::operator::{AGENT_CAPABILITIES, flags, offered};
use super::state::{Now, State};
use super::stock::Form;
use super::{MESOS_VERSION, roles};
use crate::http::{Body, full};

/// One request whose path is known.
pub(super) async fn serve(path: &str, uri: &Uri, service: &Service) -> Response<Body> {
    let query: HashMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let path = path.to_owned();
    let Ok(value) = service.owner.ask(move |state, _| view(state, &path, &query)).await else { return unavailable() };
    // What a JSON value holds can always be written.
    let mut response = Response::new(full(Bytes::from(json::ascii(&value).unwrap_or_default())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn view(state: &State, path: &str, query: &HashMap<String, String>) -> Value {
    match path {
        "/version" => json!({ "version": MESOS_VERSION }),
        "/flags" => json!({ "flags": flags_of(state) }),
        "/slaves" => {
            let wanted = query.get("slave_id");
            let full = state.agents.values().filter(|agent| wanted.is_none_or(|id| *id == agent.id)).map(|agent| full_slave(state, agent));
            json!({ "slaves": full.collect::<Vec<_>>(), "recovered_slaves": state.recovering })
        }
        "/frameworks" => {
            let wanted = |id: &str| query.get("framework_id").is_none_or(|given| given == id);
            json!({
                "frameworks": state.frameworks.iter().filter(|known| wanted(&known.id)).map(|known| framework(state, known)).collect::<Vec<_>>(),
                "completed_frameworks": state.completed.iter().filter(|known| wanted(&known.id)).filter_map(completed).collect::<Vec<_>>(),
                "unregistered_frameworks": [],
            })
        }
        "/tasks" => tasks(state, query),
        "/roles" => json!({ "roles": state.role_names().iter().map(|role| state.describe_role(role)).collect::<Vec<_>>() }),
        "/state-summary" => summary(state),
        "/metrics/snapshot" => metrics(state),
        _ => whole(state),
    }
}

fn flags_of(state: &State) -> Map<String, Value> {
    flags(state).into_iter().map(|flag| (flag.name, Value::from(flag.value))).collect()
}

fn seconds(since_epoch: Duration) -> f64 {
    since_epoch.as_secs_f64()
}

fn whole(state: &State) -> Value {
    json!({
        "version": MESOS_VERSION,
        "start_time": seconds(state.started),
        "elected_time": seconds(state.started),
        "id": state.master_id,
        "pid": format!("master@{}", state.address),
        "hostname": state.hostname(),
        "capabilities": ["AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"],
        "activated_slaves": count(state.agents.len() - state.count_deactivated()),
        "deactivated_slaves": count(state.count_deactivated()),
        "unreachable_slaves": count(state.unreachable.len()),
        "leader": format!("master@{}", state.address),
        "leader_info": {
            "id": state.master_id,
            "pid": format!("master@{}", state.address),
            "port": state.address.port(),
            "hostname": state.hostname(),
        },
        "flags": flags_of(state),
        "slaves": state.agents.values().map(|agent| slave(state, agent)).collect::<Vec<_>>(),
        "recovered_slaves": state.recovering,
        "frameworks": state.frameworks.iter().map(|known| framework(state, known)).collect::<Vec<_>>(),
        "completed_frameworks": state.completed.iter().filter_map(completed).collect::<Vec<_>>(),
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    })
}

/// Numbers for the scalars, which are always there, and text for the ports.
fn resources(amounts: &Amounts) -> Value {
    let mut object: Map<String, Value> =
        amounts.scalars().into_iter().map(|(name, amount)| (name.to_owned(), json!(quantity(amount)))).collect();
    if !amounts.ports.is_empty() {
        let ranges: Vec<String> = amounts.ports.ranges().map(|range| format!("{}-{}", range.start(), range.end())).collect();
        object.insert("ports".to_owned(), json!(format!("[{}]", ranges.join(", "))));
    }
    Value::Object(object)
}

fn attribute(attribute: &Attribute) -> (String, Value) {
    let value = match (&attribute.text, &attribute.scalar) {
        (Some(text), _) => json!(text.value),
        (None, Some(scalar)) => json!(scalar.value),
        (None, None) => Value::Null,
    };
    (attribute.name.clone(), value)
}

/// A number of things; numbers are doubles here.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

/// With the resources as protobuf's JSON besides.
fn full_slave(state: &State, agent: &Agent) -> Value {
    let full = |resources: &[Resource]| -> Value { resources.iter().filter_map(|resource| json::to_value(resource).ok()).collect() };
    let mut object = slave(state, agent);
    let (mut reserved, mut unreserved) = (Map::new(), Vec::new());
    for resource in agent.total.to_resources(None, Form::Both) {
        match podium_proto::wire::resources::role(&resource) {
            "*" => unreserved.push(resource),
            role => {
                let of_role = reserved.entry(role.to_owned()).or_insert_with(|| json!([]));
                if let (Value::Array(of_role), Ok(shown)) = (of_role, json::to_value(&resource)) {
                    of_role.push(shown);
                }
            }
        }
    }
    object["reserved_resources_full"] = Value::Object(reserved);
    object["unreserved_resources_full"] = full(&unreserved);
    object["used_resources_full"] = full(&agent.allocated.to_resources(None, Form::Both));
    object["offered_resources_full"] = full(&offered(state, agent));
    object
}

/// How many tasks are in each state, added to the description of whoever has them.
fn count_tasks<'a>(object: &mut Value, tasks: impl Iterator<Item = &'a Task>) {
    const COUNTED: [TaskState; 10] = [
        TaskState::TaskStaging,
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskKilling,
        TaskState::TaskFinished,
        TaskState::TaskKilled,
        TaskState::TaskFailed,
        TaskState::TaskLost,
        TaskState::TaskError,
        TaskState::TaskUnreachable,
    ];
    let states: Vec<i32> = tasks.map(|task| task.state).collect();
    for counted in COUNTED {
        object[counted.as_str_name()] = json!(states.iter().filter(|state| **state == i32::from(counted)).count());
    }
}

fn all_tasks(framework: &Framework) -> impl Iterator<Item = &Task> {
    let live = framework.tasks.values().map(|record| &record.task);
    live.chain(framework.unreachable_tasks.values()).chain(&framework.completed_tasks)
}

fn summary(state: &State) -> Value {
    let slaves = state.agents.values().map(|agent| {
        let mut object = slave(state, agent);
        let here = state.frameworks.iter().flat_map(all_tasks).filter(|task| task.agent_id.value == agent.id);
        count_tasks(&mut object, here);
        let ids: BTreeSet<&String> = agent.executors.keys().chain(agent.tasks.keys()).collect();
        object["framework_ids"] = json!(ids);
        object
    });
    let frameworks = state.frameworks.iter().map(|known| {
        let whole = framework(state, known);
        let mut object = json!({});
        for kept in [
            "id",
            "name",
            "used_resources",
            "offered_resources",
            "capabilities",
            "hostname",
            "webui_url",
            "active",
            "connected",
            "recovered",
        ] {
            if let Some(value) = whole.get(kept) {
                object[kept] = value.clone();
            }
        }
        count_tasks(&mut object, all_tasks(known));
        let agents: BTreeSet<&String> = all_tasks(known).map(|task| &task.agent_id.value).collect();
        object["slave_ids"] = json!(agents);
        object
    });
    json!({ "hostname": state.hostname(), "slaves": slaves.collect::<Vec<_>>(), "frameworks": frameworks.collect::<Vec<_>>() })
}

fn metrics(state: &State) -> Value {
    let mut total = Amounts::default();
    let mut used = Amounts::default();
    for agent in state.agents.values() {
        total.add(&agent.total.sum());
        used.add(&agent.allocated.sum());
    }
    let active = state.frameworks.iter().filter(|framework| framework.stream.is_some()).count();
    let mut metrics = json!({
        "master/elected": 1.0,
        "master/uptime_secs": seconds(Now::read().wall.saturating_sub(state.started)),
        "master/slaves_inactive": count(state.count_deactivated()),
        "master/slaves_active": count(state.agents.len() - state.count_deactivated()),
        "master/slaves_unreachable": count(state.unreachable.len()),
        "master/frameworks_active": count(active),
        "master/frameworks_disconnected": count(state.frameworks.iter().count().saturating_sub(active)),
        "master/outstanding_offers": count(state.offers.len()),
    });
    for ((name, total), (_, used)) in total.scalars().into_iter().zip(used.scalars()) {
        metrics[format!("master/{name}_total")] = json!(quantity(total));
        metrics[format!("master/{name}_used")] = json!(quantity(used));
    }
    for (name, told) in
        [("running", TaskState::TaskRunning), ("staging", TaskState::TaskStaging), ("unreachable", TaskState::TaskUnreachable)]
    {
        let tasks = state.frameworks.iter().flat_map(all_tasks).filter(|task| task.state == i32::from(told)).count();
        metrics[format!("master/tasks_{name}")] = json!(count(tasks));
    }
    metrics
}

/// By the role that it is reserved for.
fn reserved_by_role(agent: &Agent) -> Map<String, Value> {
    let mut roles: std::collections::BTreeMap<&str, Amounts> = std::collections::BTreeMap::new();
    for entry in agent.total.reserved() {
        roles.entry(podium_proto::wire::resources::role(entry)).or_default().add(&Amounts::of([entry]));
    }
    roles.into_iter().map(|(role, amounts)| (role.to_owned(), resources(&amounts))).collect()
}

fn slave(state: &State, agent: &Agent) -> Value {
    let mut object = json!({
        "id": agent.id,
        "hostname": agent.info.hostname,
        "port": agent.address.port(),
        "attributes": agent.info.attributes.iter().map(attribute).collect::<Map<_, _>>(),
        "pid": format!("{}@{}", agent.process(), agent.address),
        "registered_time": seconds(agent.registered),
        "resources": resources(&agent.total.sum()),
        "used_resources": resources(&agent.allocated.sum()),
        "offered_resources": resources(&agent.offered.sum()),
        "reserved_resources": reserved_by_role(agent),
        "unreserved_resources": resources(&agent.total.unreserved()),
        "active": !state.deactivated.contains(&agent.id),
        "deactivated": state.deactivated.contains(&agent.id),
        "version": MESOS_VERSION,
        "capabilities": AGENT_CAPABILITIES.map(|kind| kind.as_str_name()),
    });
    if let Some(domain) = agent.info.domain.as_ref().and_then(|domain| domain.fault_domain.as_ref()) {
        object["domain"] = json!({ "fault_domain": { "region": { "name": domain.region.name }, "zone": { "name": domain.zone.name } } });
    }
    if let Some(time) = agent.reregistered {
        object["reregistered_time"] = json!(seconds(time));
    }
    if let Some(drain) = state.draining.get(&agent.id) {
        object["drain_info"] = json::to_value(&drain.info).unwrap_or(Value::Null);
        if let Some(started) = drain.started {
            object["estimated_drain_start_time_seconds"] = json!(seconds(started));
        }
    }
    object
}

fn framework(state: &State, framework: &Framework) -> Value {
    let mut used = Amounts::default();
    for record in framework.tasks.values().filter(|record| !record.released) {
        used.add(&record.amounts.sum());
    }
    let mut offered = Amounts::default();
    for offer in framework.offers.iter().filter_map(|id| state.offers.get(id)) {
        offered.add(&offer.amounts.sum());
    }
    let live = framework.tasks.values().map(|record| &record.task);
    let mut object = described(&framework.id, &framework.info);
    object["active"] = json!(framework.stream.is_some());
    object["connected"] = json!(framework.stream.is_some());
    object["recovered"] = json!(framework.recovered);
    object["registered_time"] = json!(seconds(framework.registered));
    object["unregistered_time"] = json!(0.0);
    object["offer_constraints"] = json::to_value(&framework.constraints.given).unwrap_or_else(|_| json!({}));
    // Mesos tells it of those alone that came back.
    if let Some(time) = framework.reregistered.filter(|time| *time != framework.registered) {
        object["reregistered_time"] = json!(seconds(time));
    }
    object["used_resources"] = resources(&used);
    object["offered_resources"] = resources(&offered);
    used.add(&offered);
    object["resources"] = resources(&used);
    object["tasks"] = live.map(task).collect();
    object["unreachable_tasks"] = framework.unreachable_tasks.values().map(task).collect();
    object["completed_tasks"] = framework.completed_tasks.iter().map(task).collect();
    object["offers"] = framework.offers.iter().filter_map(|id| Some((id, state.offers.get(id)?))).map(|(id, offer)| {
        json!({ "id": id, "framework_id": framework.id, "slave_id": offer.agent, "allocation_info": { "role": offer.role }, "resources": resources(&offer.amounts.sum()) })
    }).collect();
    object["executors"] = state
        .agents
        .values()
        .filter_map(|agent| Some((agent, agent.executors.get(&framework.id)?)))
        .flat_map(|(agent, executors)| executors.iter().map(move |(id, record)| (agent, id, record)))
        .map(|(agent, id, record)| {
            json!({
                "executor_id": id,
                "name": record.info.name.clone().unwrap_or_default(),
                "framework_id": framework.id,
                "resources": resources(&record.amounts.sum()),
                "role": record.role,
                "type": "DEFAULT",
                "slave_id": agent.id,
            })
        })
        .collect();
    object
}

fn described(id: &str, info: &podium_proto::mesos::v1::FrameworkInfo) -> Value {
    let capabilities: Vec<&str> = info
        .capabilities
        .iter()
        .filter_map(|capability| podium_proto::mesos::v1::framework_info::capability::Type::try_from(capability.r#type?).ok())
        .map(|kind| kind.as_str_name())
        .collect();
    let mut object = json!({
        "id": id,
        "name": info.name,
        "user": info.user,
        "capabilities": capabilities,
        "hostname": info.hostname.clone().unwrap_or_default(),
        "failover_timeout": info.failover_timeout.unwrap_or_default(),
        "checkpoint": info.checkpoint(),
    });
    if roles::has(info, podium_proto::mesos::v1::framework_info::capability::Type::MultiRole) {
        object["roles"] = json!(info.roles);
    } else {
        object["role"] = json!(roles::of(info).first());
    }
    for (key, value) in [("webui_url", &info.webui_url), ("principal", &info.principal)] {
        if let Some(value) = value {
            object[key] = json!(value);
        }
    }
    object
}

fn completed(completed: &Completed) -> Option<Value> {
    let mut object = described(&completed.id, completed.info.as_ref()?);
    object["active"] = json!(false);
    object["connected"] = json!(false);
    object["recovered"] = json!(false);
    object["registered_time"] = json!(seconds(completed.registered));
    object["unregistered_time"] = json!(seconds(completed.unregistered));
    object["completed_tasks"] = completed.tasks.iter().map(task).collect();
    for held in ["used_resources", "offered_resources", "resources"] {
        object[held] = resources(&Amounts::default());
    }
    object["offer_constraints"] = json!({});
    object["unreachable_tasks"] = json!([]);
    object["tasks"] = json!([]);
    object["offers"] = json!([]);
    object["executors"] = json!([]);
    Some(object)
}

fn state_name(state: i32) -> &'static str {
    TaskState::try_from(state).map_or("TASK_UNKNOWN", |state| state.as_str_name())
}

fn task(task: &Task) -> Value {
    let mut object = json!({
        "id": task.task_id.value,
        "name": task.name,
        "framework_id": task.framework_id.value,
        "executor_id": task.executor_id.as_ref().map(|id| id.value.clone()).unwrap_or_default(),
        "slave_id": task.agent_id.value,
        "state": state_name(task.state),
        "resources": resources(&Amounts::of(&task.resources)),
        "role": task.resources.iter().find_map(|resource| resource.allocation_info.as_ref()?.role.clone()).unwrap_or_else(|| "*".to_owned()),
        "statuses": task.statuses.iter().map(status).collect::<Vec<_>>(),
    });
    if let Some(user) = &task.user {
        object["user"] = json!(user);
    }
    if let Some(labels) = &task.labels {
        object["labels"] = labels.labels.iter().map(|label| json!({ "key": label.key, "value": label.value })).collect();
    }
    for (key, value) in [
        ("container", task.container.as_ref().map(json::to_value)),
        ("discovery", task.discovery.as_ref().map(json::to_value)),
        ("health_check", task.health_check.as_ref().map(json::to_value)),
    ] {
        if let Some(Ok(value)) = value {
            object[key] = value;
        }
    }
    object
}

fn status(status: &TaskStatus) -> Value {
    let mut object = json!({ "state": state_name(status.state), "timestamp": status.timestamp.unwrap_or_default() });
    if let Some(healthy) = status.healthy {
        object["healthy"] = json!(healthy);
    }
    if let Some(Ok(container)) = status.container_status.as_ref().map(json::to_value) {
        object["container_status"] = container;
    }
    object
}

/// `/tasks`: live, unreachable and completed ones, newest name first unless asked otherwise.
fn tasks(state: &State, query: &HashMap<String, String>) -> Value {
    let number = |name: &str, default: usize| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let of_frameworks = state.frameworks.iter().flat_map(all_tasks);
    let wanted = |task: &&Task| {
        query.get("framework_id").is_none_or(|id| *id == task.framework_id.value)
            && query.get("task_id").is_none_or(|id| *id == task.task_id.value)
    };
    let mut found: Vec<&Task> = of_frameworks.chain(state.completed.iter().flat_map(|completed| &completed.tasks)).filter(wanted).collect();
    found.sort_by(|a, b| b.task_id.value.cmp(&a.task_id.value));
    if query.get("order").is_some_and(|order| order == "asc") {
        found.reverse();
    }
    json!({ "tasks": found.into_iter().skip(number("offset", 0)).take(number("limit", 100)).map(task).collect::<Vec<_>>() })
}
