//! POST /api/v1: the operator API, as far as clients of a small cluster call it.

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::master::call::{DrainAgent, Type};
use podium_proto::mesos::v1::master::response::{self, get_agents, get_executors, get_frameworks};
use podium_proto::mesos::v1::master::{Call, Response as Answer};
use podium_proto::mesos::v1::{
    AgentId, DrainConfig, DurationInfo, Flag, FrameworkId, Offer, Resource, Role, Task, TimeInfo, VersionInfo, agent_info,
};

use super::MESOS_VERSION;
use super::agents::Agent;
use super::framework::{Completed, Framework};
use super::http::{Service, not_acceptable, not_implemented, unavailable};
use super::offers::describe;
use super::state::{Now, State};
use super::stock::{Form, Stock};
use crate::encoding::Encoding;
use crate::http::{Body, empty, full, only, read_body, refuse_content, text};

/// What an operator's call comes to.
enum Outcome {
    Answer(Box<Answer>),
    Done,
    Refused(StatusCode, String),
    NotImplemented,
}

/// One request.
pub(super) async fn serve(request: Request<Incoming>, service: &Service) -> Response<Body> {
    if request.method() != Method::POST {
        return only(&[Method::POST], request.method());
    }
    let (head, body) = request.into_parts();
    let encoding = match Encoding::of_content(&head.headers) {
        Ok(encoding) => encoding,
        Err(error) => return refuse_content(error),
    };
    let body = match read_body(body, service.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let call: Call = match encoding.decode(&body) {
        Ok(call) => call,
        Err(error) => return refuse_content(error),
    };
    let Some(kind) = call.r#type.and_then(|kind| Type::try_from(kind).ok()) else {
        return text(StatusCode::BAD_REQUEST, "Failed to validate master::Call: Expecting 'type' to be present");
    };
    if let Some(part) = missing_part(&call, kind) {
        return text(StatusCode::BAD_REQUEST, format!("Failed to validate master::Call: Expecting '{part}' to be present"));
    }
    let Some(answer) = Encoding::of_accept(&head.headers) else { return not_acceptable() };
    match service.owner.ask(move |state, now| execute(state, &call, kind, now)).await {
        Ok(Outcome::Answer(message)) => {
            let mut response = Response::new(full(answer.encode(message.as_ref())));
            response.headers_mut().insert(header::CONTENT_TYPE, answer.content_type());
            response
        }
        Ok(Outcome::Done) => empty(StatusCode::OK),
        Ok(Outcome::Refused(status, reason)) => text(status, reason),
        Ok(Outcome::NotImplemented) => not_implemented(),
        Err(_) => unavailable(),
    }
}

/// The part that a call of this kind must have and has not.
fn missing_part(call: &Call, kind: Type) -> Option<&'static str> {
    let (part, present) = match kind {
        Type::GetMetrics => ("get_metrics", call.get_metrics.is_some()),
        Type::ListFiles => ("list_files", call.list_files.is_some()),
        Type::ReadFile => ("read_file", call.read_file.is_some()),
        Type::Teardown => ("teardown", call.teardown.is_some()),
        Type::MarkAgentGone => ("mark_agent_gone", call.mark_agent_gone.is_some()),
        Type::UpdateMaintenanceSchedule => ("update_maintenance_schedule", call.update_maintenance_schedule.is_some()),
        Type::StartMaintenance => ("start_maintenance", call.start_maintenance.is_some()),
        Type::StopMaintenance => ("stop_maintenance", call.stop_maintenance.is_some()),
        Type::DrainAgent => ("drain_agent", call.drain_agent.is_some()),
        Type::DeactivateAgent => ("deactivate_agent", call.deactivate_agent.is_some()),
        Type::ReactivateAgent => ("reactivate_agent", call.reactivate_agent.is_some()),
        _ => return None,
    };
    (!present).then_some(part)
}

fn execute(state: &mut State, call: &Call, kind: Type, now: Now) -> Outcome {
    match kind {
        Type::Teardown => teardown(state, call.teardown.as_ref().map_or("", |part| &part.framework_id.value), now),
        Type::MarkAgentGone => mark_gone(state, call.mark_agent_gone.as_ref().map_or("", |part| &part.agent_id.value), now),
        Type::DrainAgent => done(call.drain_agent.as_ref().map_or(Ok(()), |part| drain(state, part, now))),
        Type::DeactivateAgent => done(call.deactivate_agent.as_ref().map_or(Ok(()), |part| state.deactivate(&part.agent_id.value, now))),
        Type::ReactivateAgent => done(call.reactivate_agent.as_ref().map_or(Ok(()), |part| state.reactivate(&part.agent_id.value, now))),
        Type::UpdateMaintenanceSchedule => {
            let schedule = call.update_maintenance_schedule.as_ref().map(|part| part.schedule.clone());
            done(schedule.map_or(Ok(()), |schedule| state.update_schedule(schedule, now)))
        }
        Type::StartMaintenance => done(call.start_maintenance.as_ref().map_or(Ok(()), |part| state.start_maintenance(&part.machines, now))),
        Type::StopMaintenance => done(call.stop_maintenance.as_ref().map_or(Ok(()), |part| state.stop_maintenance(&part.machines, now))),
        query => match answer(state, query) {
            Some(answer) => Outcome::Answer(Box::new(answer)),
            None => Outcome::NotImplemented,
        },
    }
}

/// The answer to a question, if it is one that is answered here.
fn answer(state: &State, kind: Type) -> Option<Answer> {
    let started = state.started.as_secs_f64();
    let (kind, answer) = match kind {
        Type::GetHealth => {
            (response::Type::GetHealth, Answer { get_health: Some(response::GetHealth { healthy: true }), ..Answer::default() })
        }
        Type::GetVersion => {
            let version_info = VersionInfo { version: MESOS_VERSION.to_owned(), ..VersionInfo::default() };
            (response::Type::GetVersion, Answer { get_version: Some(response::GetVersion { version_info }), ..Answer::default() })
        }
        Type::GetFlags => {
            (response::Type::GetFlags, Answer { get_flags: Some(response::GetFlags { flags: flags(state) }), ..Answer::default() })
        }
        Type::GetMaster => {
            let get_master =
                response::GetMaster { master_info: Some(state.master_info()), start_time: Some(started), elected_time: Some(started) };
            (response::Type::GetMaster, Answer { get_master: Some(get_master), ..Answer::default() })
        }
        Type::GetState => (response::Type::GetState, Answer { get_state: Some(get_state(state)), ..Answer::default() }),
        Type::GetAgents => (response::Type::GetAgents, Answer { get_agents: Some(agents(state)), ..Answer::default() }),
        Type::GetFrameworks => (response::Type::GetFrameworks, Answer { get_frameworks: Some(frameworks(state)), ..Answer::default() }),
        Type::GetExecutors => (response::Type::GetExecutors, Answer { get_executors: Some(executors(state)), ..Answer::default() }),
        Type::GetTasks => (response::Type::GetTasks, Answer { get_tasks: Some(tasks(state)), ..Answer::default() }),
        Type::GetRoles => (response::Type::GetRoles, Answer { get_roles: Some(roles(state)), ..Answer::default() }),
        // There is nothing of this here, and that is the answer.
        Type::GetOperations => {
            (response::Type::GetOperations, Answer { get_operations: Some(response::GetOperations::default()), ..Answer::default() })
        }
        Type::GetWeights => (response::Type::GetWeights, Answer::default()),
        Type::GetQuota => (response::Type::GetQuota, Answer { get_quota: Some(response::GetQuota::default()), ..Answer::default() }),
        Type::GetMaintenanceStatus => {
            let get_maintenance_status = Some(response::GetMaintenanceStatus { status: state.maintenance_status() });
            (response::Type::GetMaintenanceStatus, Answer { get_maintenance_status, ..Answer::default() })
        }
        Type::GetMaintenanceSchedule => {
            let schedule = state.maintenance.schedule().clone();
            let get_maintenance_schedule = Some(response::GetMaintenanceSchedule { schedule });
            (response::Type::GetMaintenanceSchedule, Answer { get_maintenance_schedule, ..Answer::default() })
        }
        _ => return None,
    };
    Some(Answer { r#type: Some(kind.into()), ..answer })
}

fn teardown(state: &mut State, id: &str, now: Now) -> Outcome {
    if state.frameworks.get(id).is_none() {
        return Outcome::Refused(StatusCode::BAD_REQUEST, "No framework found with specified ID".to_owned());
    }
    state.remove_framework(id, now);
    Outcome::Done
}

/// POST /teardown: the older form of the same, with `frameworkId=` as the form's only field.
pub(super) async fn serve_teardown(request: Request<Incoming>, service: &Service) -> Response<Body> {
    if request.method() != Method::POST {
        return only(&[Method::POST], request.method());
    }
    let body = match read_body(request.into_body(), service.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let form = String::from_utf8_lossy(&body).into_owned();
    let Some(id) = form.split('&').find_map(|field| field.strip_prefix("frameworkId=")).map(str::to_owned) else {
        return text(StatusCode::BAD_REQUEST, "Missing 'frameworkId' query parameter in the request body");
    };
    match service.owner.ask(move |state, now| teardown(state, &id, now)).await {
        Ok(Outcome::Refused(status, reason)) => text(status, reason),
        Ok(_) => empty(StatusCode::OK),
        Err(_) => unavailable(),
    }
}

fn mark_gone(state: &mut State, id: &str, now: Now) -> Outcome {
    if state.gone.contains(id) {
        // Asked again, perhaps because the disk has not taken it yet: the answer waits for that.
        state.unsaved = true;
        return Outcome::Done;
    }
    if state.mark_gone(id, now) {
        return Outcome::Done;
    }
    Outcome::Refused(StatusCode::NOT_FOUND, format!("Agent '{id}' not found"))
}

fn done(result: Result<(), String>) -> Outcome {
    result.map_or_else(|reason| Outcome::Refused(StatusCode::BAD_REQUEST, reason), |()| Outcome::Done)
}

fn drain(state: &mut State, part: &DrainAgent, now: Now) -> Result<(), String> {
    let max_grace_period = part
        .max_grace_period
        .as_ref()
        .map(|grace| DurationInfo { nanoseconds: grace.seconds.saturating_mul(1_000_000_000).saturating_add(grace.nanos.into()) });
    state.drain(&part.agent_id.value, DrainConfig { max_grace_period, mark_gone: Some(part.mark_gone()) }, now)
}

pub(super) fn flags(state: &State) -> Vec<Flag> {
    let flag = |name: &str, value: String| Flag { name: name.to_owned(), value: Some(value) };
    vec![
        flag("allocation_interval", format!("{}ms", state.settings.pace.tick.as_millis())),
        flag("ip", state.address.ip().to_string()),
        flag("port", state.address.port().to_string()),
    ]
}

fn time(since_epoch: std::time::Duration) -> TimeInfo {
    TimeInfo { nanoseconds: i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX) }
}

fn get_state(state: &State) -> response::GetState {
    response::GetState {
        get_tasks: Some(tasks(state)),
        get_executors: Some(executors(state)),
        get_frameworks: Some(frameworks(state)),
        get_agents: Some(agents(state)),
    }
}

fn agents(state: &State) -> response::GetAgents {
    let recovered = state.recovering.iter().map(|id| podium_proto::mesos::v1::AgentInfo {
        id: Some(AgentId { value: id.clone() }),
        ..podium_proto::mesos::v1::AgentInfo::default()
    });
    let agents =
        state.agents.values().map(|agent| get_agents::Agent { offered_resources: offered(state, agent), ..self::agent(state, agent) });
    response::GetAgents { agents: agents.collect(), recovered_agents: recovered.collect() }
}

/// What of a real agent's capabilities ours have too.
pub(super) const AGENT_CAPABILITIES: [agent_info::capability::Type; 4] = [
    agent_info::capability::Type::MultiRole,
    agent_info::capability::Type::HierarchicalRole,
    agent_info::capability::Type::ReservationRefinement,
    agent_info::capability::Type::AgentDraining,
];

fn agent(state: &State, agent: &Agent) -> get_agents::Agent {
    let (drain, deactivated) = (state.draining.get(&agent.id), state.deactivated.contains(&agent.id));
    // In whole seconds, as in Mesos.
    let started = drain.and_then(|drain| drain.started).map(|started| time(std::time::Duration::from_secs(started.as_secs())));
    let mut agent_info = agent.info.clone();
    agent_info.port = Some(i32::from(agent.address.port()));
    get_agents::Agent {
        agent_info,
        active: !deactivated,
        deactivated: Some(deactivated),
        drain_info: drain.map(|drain| drain.info),
        estimated_drain_start_time: started,
        version: MESOS_VERSION.to_owned(),
        pid: Some(format!("{}@{}", agent.process(), agent.address)),
        registered_time: Some(time(agent.registered)),
        reregistered_time: agent.reregistered.map(time),
        total_resources: agent.total.to_resources(None, Form::Both),
        allocated_resources: agent.allocated.to_resources(None, Form::Both),
        capabilities: AGENT_CAPABILITIES.iter().map(|kind| agent_info::Capability { r#type: Some((*kind).into()) }).collect(),
        ..get_agents::Agent::default()
    }
}

/// What of an agent is offered, by role.
pub(super) fn offered(state: &State, agent: &Agent) -> Vec<Resource> {
    let mut sum = Vec::new();
    for offer in agent.offers.iter().filter_map(|id| state.offers.get(id)) {
        podium_proto::wire::resources::add(&mut sum, &offer.amounts.to_resources(Some(&offer.role), Form::Both));
    }
    sum
}

fn frameworks(state: &State) -> response::GetFrameworks {
    response::GetFrameworks {
        frameworks: state.frameworks.iter().map(|known| framework(state, known)).collect(),
        completed_frameworks: state.completed.iter().filter_map(completed).collect(),
        ..response::GetFrameworks::default()
    }
}

fn framework(state: &State, framework: &Framework) -> get_frameworks::Framework {
    let offers: Vec<Offer> = framework.offers.iter().filter_map(|id| offer(state, framework, id)).collect();
    let told_role = |role: &str| framework.has(Capability::MultiRole).then(|| role.to_owned());
    let mut allocated = Vec::new();
    for record in framework.tasks.values().filter(|record| !record.released) {
        podium_proto::wire::resources::add(&mut allocated, &record.amounts.to_resources(told_role(&record.role).as_deref(), Form::Both));
    }
    let mut offered = Vec::new();
    for record in framework.offers.iter().filter_map(|id| state.offers.get(id)) {
        podium_proto::wire::resources::add(&mut offered, &record.amounts.to_resources(Some(&record.role), Form::Both));
    }
    get_frameworks::Framework {
        framework_info: framework.info.clone(),
        active: framework.stream.is_some(),
        connected: framework.stream.is_some(),
        recovered: framework.recovered,
        registered_time: Some(time(framework.registered)),
        reregistered_time: framework.reregistered.map(time),
        offered_resources: offered,
        offers,
        inverse_offers: state
            .inverse_offers
            .iter()
            .filter(|((_, asked), _)| *asked == framework.id)
            .map(|(_, offer)| offer.clone())
            .collect(),
        allocated_resources: allocated,
        offer_constraints: Some(framework.constraints.given.clone()),
        ..get_frameworks::Framework::default()
    }
}

fn offer(state: &State, framework: &Framework, id: &str) -> Option<Offer> {
    let record = state.offers.get(id)?;
    let agent = state.agents.get(&record.agent)?;
    Some(describe(id, framework, &record.role, agent, &record.amounts, state.maintenance.unavailability(agent)))
}

/// What was completed before a restart is remembered by its id only, and not listed.
fn completed(completed: &Completed) -> Option<get_frameworks::Framework> {
    Some(get_frameworks::Framework {
        framework_info: completed.info.clone()?,
        active: false,
        connected: false,
        recovered: false,
        registered_time: Some(time(completed.registered)),
        reregistered_time: completed.reregistered.map(time),
        unregistered_time: Some(time(completed.unregistered)),
        offer_constraints: Some(podium_proto::mesos::v1::scheduler::OfferConstraints::default()),
        ..get_frameworks::Framework::default()
    })
}

fn executors(state: &State) -> response::GetExecutors {
    let of_agent = |agent: &Agent| -> Vec<get_executors::Executor> {
        let records = agent.executors.values().flat_map(|executors| executors.values());
        records
            .map(|record| get_executors::Executor { executor_info: record.info.clone(), agent_id: AgentId { value: agent.id.clone() } })
            .collect()
    };
    response::GetExecutors { executors: state.agents.values().flat_map(of_agent).collect(), ..response::GetExecutors::default() }
}

fn tasks(state: &State) -> response::GetTasks {
    let ended = |task: &&Task| podium_proto::mesos::v1::TaskState::try_from(task.state).is_ok_and(super::tasks::is_terminal);
    let all = || state.frameworks.iter().flat_map(|framework| framework.tasks.values().map(|record| &record.task));
    let completed = state
        .frameworks
        .iter()
        .flat_map(|framework| &framework.completed_tasks)
        .chain(state.completed.iter().flat_map(|completed| &completed.tasks))
        .chain(all().filter(ended));
    response::GetTasks {
        tasks: all().filter(|task| !ended(task)).cloned().collect(),
        completed_tasks: completed.cloned().collect(),
        unreachable_tasks: state.frameworks.iter().flat_map(|framework| framework.unreachable_tasks.values()).cloned().collect(),
        ..response::GetTasks::default()
    }
}

fn roles(state: &State) -> response::GetRoles {
    let roles = state.role_names().into_iter().map(|name| Role {
        weight: 1.0,
        frameworks: state
            .frameworks
            .iter()
            .filter(|framework| framework.roles.contains(&name))
            .map(|framework| FrameworkId { value: framework.id.clone() })
            .collect(),
        resources: {
            let scalars = Stock::from(state.held_by(&name).amounts).to_resources(None, Form::New);
            scalars.into_iter().filter(|resource| resource.scalar.is_some()).collect()
        },
        name,
    });
    response::GetRoles { roles: roles.collect() }
}
