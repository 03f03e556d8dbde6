//! POST /api/v1: the operator API, as far as clients of a small cluster call it.

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::master::call::Type;
use podium_proto::mesos::v1::master::response::{self, get_agents, get_executors, get_frameworks};
use podium_proto::mesos::v1::master::{Call, Response as Answer};
use podium_proto::mesos::v1::{AgentId, Flag, FrameworkId, Offer, OfferId, Resource, Role, Task, TimeInfo, VersionInfo};

use super::MESOS_VERSION;
use super::agents::Agent;
use super::encoding::{ContentError, Encoding};
use super::framework::{Completed, Framework};
use super::http::{Body, Service, empty, full, only, read_body, text, unavailable};
use super::offers::to_resources;
use super::state::{Now, State};

/// What an operator's call comes to.
enum Outcome {
    Answer(Box<Answer>),
    Done,
    Refused(StatusCode, String),
}

/// One request.
pub(super) async fn serve(request: Request<Incoming>, service: &Service) -> Response<Body> {
    if request.method() != Method::POST {
        return only(&Method::POST);
    }
    let (head, body) = request.into_parts();
    let encoding = match Encoding::of_content(&head.headers) {
        Ok(encoding) => encoding,
        Err(ContentError::Unsupported) => {
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Expecting 'Content-Type' of application/json or application/x-protobuf");
        }
        Err(_) => return text(StatusCode::BAD_REQUEST, "Expecting 'Content-Type' to be present"),
    };
    let body = match read_body(body, service.max_body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let call: Call = match encoding.decode(&body) {
        Ok(call) => call,
        Err(ContentError::Malformed(reason)) => return text(StatusCode::BAD_REQUEST, format!("Failed to parse the body: {reason}")),
        Err(_) => return text(StatusCode::BAD_REQUEST, "Failed to parse the body"),
    };
    let Some(answer) = Encoding::of_accept(&head.headers) else {
        return text(StatusCode::NOT_ACCEPTABLE, "Expecting 'Accept' to allow application/json or application/x-protobuf");
    };
    match service.owner.ask(move |state, now| execute(state, &call, now)).await {
        Ok(Outcome::Answer(message)) => {
            let mut response = Response::new(full(answer.encode(message.as_ref())));
            response.headers_mut().insert(header::CONTENT_TYPE, answer.content_type());
            response
        }
        Ok(Outcome::Done) => empty(StatusCode::OK),
        Ok(Outcome::Refused(status, reason)) => text(status, reason),
        Err(_) => unavailable(),
    }
}

fn answer(kind: response::Type, rest: Answer) -> Outcome {
    Outcome::Answer(Box::new(Answer { r#type: Some(kind.into()), ..rest }))
}

fn execute(state: &mut State, call: &Call, now: Now) -> Outcome {
    let Some(kind) = call.r#type.and_then(|kind| Type::try_from(kind).ok()) else {
        return Outcome::Refused(StatusCode::BAD_REQUEST, "Failed to validate master::Call: Expecting 'type' to be present".to_owned());
    };
    match kind {
        Type::GetHealth => {
            let get_health = Some(response::GetHealth { healthy: true });
            answer(response::Type::GetHealth, Answer { get_health, ..Answer::default() })
        }
        Type::GetVersion => {
            let version_info = VersionInfo { version: MESOS_VERSION.to_owned(), ..VersionInfo::default() };
            answer(response::Type::GetVersion, Answer { get_version: Some(response::GetVersion { version_info }), ..Answer::default() })
        }
        Type::GetFlags => {
            answer(response::Type::GetFlags, Answer { get_flags: Some(response::GetFlags { flags: flags(state) }), ..Answer::default() })
        }
        Type::GetMaster => {
            let started = state.started.as_secs_f64();
            let get_master =
                response::GetMaster { master_info: Some(state.master_info()), start_time: Some(started), elected_time: Some(started) };
            answer(response::Type::GetMaster, Answer { get_master: Some(get_master), ..Answer::default() })
        }
        Type::GetState => answer(response::Type::GetState, Answer { get_state: Some(get_state(state)), ..Answer::default() }),
        Type::GetAgents => answer(response::Type::GetAgents, Answer { get_agents: Some(agents(state)), ..Answer::default() }),
        Type::GetFrameworks => {
            answer(response::Type::GetFrameworks, Answer { get_frameworks: Some(frameworks(state)), ..Answer::default() })
        }
        Type::GetExecutors => answer(response::Type::GetExecutors, Answer { get_executors: Some(executors(state)), ..Answer::default() }),
        Type::GetTasks => answer(response::Type::GetTasks, Answer { get_tasks: Some(tasks(state)), ..Answer::default() }),
        Type::GetRoles => answer(response::Type::GetRoles, Answer { get_roles: Some(roles(state)), ..Answer::default() }),
        Type::Teardown => teardown(state, call.teardown.as_ref().map(|teardown| teardown.framework_id.value.as_str()), now),
        Type::MarkAgentGone => mark_gone(state, call.mark_agent_gone.as_ref().map(|mark| mark.agent_id.value.as_str()), now),
        _ => Outcome::Refused(StatusCode::NOT_IMPLEMENTED, format!("{} is not served by this engine", kind.as_str_name())),
    }
}

fn teardown(state: &mut State, id: Option<&str>, now: Now) -> Outcome {
    let Some(id) = id else { return Outcome::Refused(StatusCode::BAD_REQUEST, "Expecting 'teardown' to be present".to_owned()) };
    if state.frameworks.get(id).is_none() {
        return Outcome::Refused(StatusCode::BAD_REQUEST, format!("No framework found with ID {id}"));
    }
    state.remove_framework(id, now);
    Outcome::Done
}

fn mark_gone(state: &mut State, id: Option<&str>, now: Now) -> Outcome {
    let Some(id) = id else { return Outcome::Refused(StatusCode::BAD_REQUEST, "Expecting 'mark_agent_gone' to be present".to_owned()) };
    if state.gone.contains(id) || state.mark_gone(id, now) {
        return Outcome::Done;
    }
    Outcome::Refused(StatusCode::NOT_FOUND, format!("No agent found with ID {id}"))
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
    response::GetAgents { agents: state.agents.values().map(agent).collect(), recovered_agents: recovered.collect() }
}

fn agent(agent: &Agent) -> get_agents::Agent {
    get_agents::Agent {
        agent_info: agent.info.clone(),
        active: true,
        version: MESOS_VERSION.to_owned(),
        pid: Some(format!("slave(1)@{}", agent.address)),
        registered_time: Some(time(agent.registered)),
        reregistered_time: agent.reregistered.map(time),
        total_resources: to_resources(&agent.total, None, false),
        allocated_resources: to_resources(&agent.allocated, None, false),
        offered_resources: to_resources(&agent.offered, None, false),
        ..get_agents::Agent::default()
    }
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
    let used: Vec<Resource> = framework
        .tasks
        .values()
        .filter(|record| !record.released)
        .flat_map(|record| to_resources(&record.amounts, framework.has(Capability::MultiRole).then_some(record.role.as_str()), false))
        .collect();
    let mut allocated = Vec::new();
    podium_proto::wire::resources::add(&mut allocated, &used);
    get_frameworks::Framework {
        framework_info: framework.info.clone(),
        active: framework.stream.is_some(),
        connected: framework.stream.is_some(),
        recovered: framework.recovered,
        registered_time: Some(time(framework.registered)),
        reregistered_time: framework.reregistered.map(time),
        offered_resources: offers.iter().flat_map(|offer| offer.resources.clone()).collect(),
        offers,
        allocated_resources: allocated,
        ..get_frameworks::Framework::default()
    }
}

fn offer(state: &State, framework: &Framework, id: &str) -> Option<Offer> {
    let record = state.offers.get(id)?;
    let agent = state.agents.get(&record.agent)?;
    Some(Offer {
        id: OfferId { value: id.to_owned() },
        framework_id: framework.framework_id(),
        agent_id: AgentId { value: agent.id.clone() },
        hostname: agent.info.hostname.clone(),
        resources: to_resources(&record.amounts, Some(&record.role), false),
        ..Offer::default()
    })
}

/// What was completed before a restart is remembered by its id only, and not listed.
fn completed(completed: &Completed) -> Option<get_frameworks::Framework> {
    Some(get_frameworks::Framework {
        framework_info: completed.info.clone()?,
        active: false,
        connected: false,
        recovered: false,
        registered_time: Some(time(completed.registered)),
        unregistered_time: Some(time(completed.unregistered)),
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
    let names: std::collections::BTreeSet<&String> = state.frameworks.iter().flat_map(|framework| &framework.roles).collect();
    let roles = names.into_iter().map(|name| Role {
        name: name.clone(),
        weight: 1.0,
        frameworks: state
            .frameworks
            .iter()
            .filter(|framework| framework.roles.contains(name))
            .map(|framework| FrameworkId { value: framework.id.clone() })
            .collect(),
        resources: Vec::new(),
    });
    response::GetRoles { roles: roles.collect() }
}
