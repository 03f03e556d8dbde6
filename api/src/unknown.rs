//! Tasks that run and of which the store has no record: who they are, and what an operator wants done about them.
//!
//! An order is written to the store and carried out by the gateway, wherever it leads; it is gone when that is done.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use podium_controllers::gateway::FRAMEWORK_UNREADABLE;
use podium_controllers::health;
use podium_proto::records::order::Kind;
use podium_proto::records::{Order, Quarantine, UnknownInstance};
use podium_store::Key;
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_store::writer::{Group, Op};
use podium_types::id::{InstanceId, PodId, TaskId, Version};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Answer, Problem, REVISION, header, json_value};
use crate::commit;
use crate::openapi::{self, route};
use crate::request::{Body, Head};
use crate::{Api, refused};

/// Orders that may wait to be carried out.
const MOST_ORDERS: usize = 1_000;

/// Ids in one order; more become several orders.
const IDS_PER_ORDER: usize = 1_000;

/// Orders that one request may become.
const ORDERS_PER_REQUEST: usize = 100;

/// What these routes begin with.
pub const BELOW: &str = "/v2/podium/";

/// What a client asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    kind: Wanted,
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Adopt,
    Kill,
}

/// Answers one request below [`BELOW`]; names the route for the metrics.
pub async fn handle(api: &Api, path: &str, head: &Head, body: Body) -> (&'static str, Result<Answer, Problem>) {
    let route = match path.strip_prefix(BELOW).unwrap_or_default().trim_end_matches('/') {
        "unknown" => UNKNOWN,
        "refused" => REFUSED,
        "orders" => ORDERS,
        _ => return ("unknown", Err(Problem::no_route())),
    };
    let read = matches!(head.method, Method::GET | Method::HEAD);
    let answer = match openapi::judge(route, head) {
        Err(problem) => Err(problem),
        Ok(()) if route == UNKNOWN && read => list(api, head).await,
        Ok(()) if route == REFUSED && read => refused::list(api, head).await,
        Ok(()) if route != ORDERS => Err(Problem::method("GET, HEAD")),
        Ok(()) if head.method == Method::POST => order(api, head, body).await,
        Ok(()) => Err(Problem::method("POST")),
    };
    (route, answer)
}

const UNKNOWN: &str = route!("/v2/podium/unknown");
const REFUSED: &str = route!("/v2/podium/refused");
const ORDERS: &str = route!("/v2/podium/orders");

async fn list(api: &Api, head: &Head) -> Result<Answer, Problem> {
    api.caught_up(head.min_revision()?).await?;
    let (body, revision) = api.index.read(|state| (listing(state), state.revision()));
    let mut answer = json_value(StatusCode::OK, &body);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

fn listing(state: &IndexState) -> Value {
    let mut more: u64 = 0;
    let mut instances = Vec::new();
    for view in state.pods() {
        let Some(held) = &view.unknown else { continue };
        more += u64::from(held.value.more);
        instances.extend(held.value.instances.iter().filter_map(|one| instance(view, one)));
    }
    let orders: Vec<Value> = state
        .orders()
        .iter()
        .map(|(uuid, held)| json!({ "id": uuid.to_string(), "kind": kind_name(held.value.kind), "ids": held.value.ids }))
        .collect();
    json!({ "quarantine": state.quarantine().map(|held| quarantine(&held.value)), "instances": instances, "more": more, "orders": orders })
}

fn kind_name(kind: i32) -> &'static str {
    match Kind::try_from(kind) {
        Ok(Kind::Adopt) => "adopt",
        Ok(Kind::Kill) => "kill",
        Err(_) => "unknown",
    }
}

fn quarantine(quarantine: &Quarantine) -> Value {
    json!({ "reason": quarantine.reason, "since": Version::from_millis(quarantine.since_ms) })
}

fn instance(view: &PodView, one: &UnknownInstance) -> Option<Value> {
    let id = InstanceId { pod: view.id.clone(), uuid: Uuid::try_parse(&one.uuid).ok()? };
    let labelled = one.config_ms > 0;
    Some(json!({
        "id": id.to_string(),
        "pod": view.id,
        "taskIds": task_ids(&id, one),
        "agentId": one.agent_id,
        "why": why(one),
        "config": labelled.then(|| Version::from_millis(one.config_ms)),
        "clusterId": labelled.then_some(&one.cluster_id),
        "revision": labelled.then_some(one.revision),
        "adoptable": view.accepted.is_some(),
    }))
}

fn task_ids(id: &InstanceId, one: &UnknownInstance) -> Vec<String> {
    one.containers.iter().map(|container| id.task_id(container, one.incarnation).to_string()).collect()
}

/// Why it is strange, in one word.
fn why(one: &UnknownInstance) -> &'static str {
    use podium_proto::records::unknown_instance::Why;
    match one.why() {
        Why::Unlabelled => "unlabelled",
        Why::Forgotten => "forgotten",
        Why::Ahead => "ahead",
        Why::OtherCluster => "other-cluster",
    }
}

/// Keys that `/readyz` names.
const NAMED_KEYS: usize = 8;

/// What `/readyz` tells of all this, and of records that say nothing.
#[derive(Debug, Default)]
pub struct Readiness {
    /// A line, if there is a quarantine.
    pub quarantine: Option<String>,
    /// A line for each task.
    pub tasks: Vec<String>,
    /// Further instances, that are not listed.
    pub more: usize,
    /// A line for pods' records that can't be read, and one for the framework's.
    pub unreadable: Vec<String>,
}

impl Readiness {
    /// Reads it off the index.
    pub fn of(state: &IndexState) -> Self {
        let mut readiness = Self { quarantine: state.quarantine().map(|held| health::quarantine(&held.value)), ..Self::default() };
        let (mut unreadable, mut count) = (Vec::new(), 0);
        for view in state.pods() {
            count += view.unreadable.len();
            unreadable.extend(view.unreadable.keys().take(NAMED_KEYS.saturating_sub(unreadable.len())).map(Key::to_string));
            let Some(held) = &view.unknown else { continue };
            readiness.more += held.value.more as usize;
            for one in &held.value.instances {
                let Ok(uuid) = Uuid::try_parse(&one.uuid) else { continue };
                let id = InstanceId { pod: view.id.clone(), uuid };
                let line = |task| format!("unknown task: {task} on {} ({}); it is left alone", one.agent_id, why(one));
                readiness.tasks.extend(task_ids(&id, one).into_iter().map(line));
            }
        }
        if count > 0 {
            let more = if count > unreadable.len() { format!(" and {} more", count - unreadable.len()) } else { String::new() };
            let keys = unreadable.join(", ");
            readiness.unreadable.push(format!(
                "{keys}{more} can't be read by this version of Podium: the pods are left alone until it is upgraded, or the records are mended"
            ));
        }
        if state.framework_is_unreadable() {
            readiness.unreadable.push(FRAMEWORK_UNREADABLE.to_owned());
        }
        readiness
    }
}

/// Judges an order by what is known here, and writes it.
async fn order(api: &Api, head: &Head, body: Body) -> Result<Answer, Problem> {
    head.demand_json()?;
    let body = head.collect(body).await?;
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| Problem::detailed(StatusCode::BAD_REQUEST, "Invalid JSON", json!(error.to_string())))?;
    api.caught_up(head.min_revision()?).await?;
    let ids = api.index.read(|state| resolve(state, &request))?;
    let now = jiff::Timestamp::now().as_millisecond();
    let kind = match request.kind {
        Wanted::Adopt => Kind::Adopt,
        Wanted::Kill => Kind::Kill,
    };
    let chunks: Vec<Vec<String>> =
        if ids.is_empty() { vec![Vec::new()] } else { ids.chunks(IDS_PER_ORDER).map(<[String]>::to_vec).collect() };
    if chunks.len() > ORDERS_PER_REQUEST {
        let most = ORDERS_PER_REQUEST * IDS_PER_ORDER;
        let message = format!("that is about {} instances, and one request takes {most}: order it pod by pod", ids.len());
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let mut written: Vec<Value> = Vec::new();
    let mut revision = 0;
    for ids in chunks {
        let uuid = Uuid::new_v4();
        let order = Order { kind: kind.into(), ids, created_ms: now, ..Order::default() };
        let told = json!({ "id": uuid.to_string(), "kind": kind_name(kind.into()), "ids": order.ids });
        let plan = |_: &IndexState, _| Ok((Group::global().then(Op::record(Key::Order(uuid), order.clone())), ()));
        let outcome = commit::write(api, head, &"the orders", plan).await.and_then(|written| written.confirmed(&"the orders"));
        (revision, ()) = outcome.map_err(|problem| half_done(problem, &written))?;
        written.push(told);
    }
    let mut answer = json_value(StatusCode::ACCEPTED, &json!({ "orders": written }));
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

/// Names the orders that were written before the failure.
fn half_done(problem: Problem, written: &[Value]) -> Problem {
    match written {
        [] => problem,
        written => {
            commit::partly(problem, &format!("{} orders are written, they stand in `details`", written.len()), json!({ "orders": written }))
        }
    }
}

/// The ids that an order is about, or why there can be no such order.
fn resolve(state: &IndexState, request: &Request) -> Result<Vec<String>, Problem> {
    if state.orders().len() >= MOST_ORDERS {
        let message = "too many orders wait to be carried out: is a gateway at work? See /readyz";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).soon());
    }
    if request.ids.is_empty() == request.all {
        return pick(state, request);
    }
    let message = if request.all { "`all` and `ids` exclude each other" } else { "which instances? Give `ids`, or `all`" };
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message))
}

fn pick(state: &IndexState, request: &Request) -> Result<Vec<String>, Problem> {
    let mut picked = BTreeSet::new();
    let mut homeless: BTreeSet<PodId> = BTreeSet::new();
    let mut take = |view: &PodView, uuid: Uuid| {
        if request.kind == Wanted::Adopt && view.accepted.is_none() {
            homeless.insert(view.id.clone());
        }
        picked.insert(InstanceId { pod: view.id.clone(), uuid }.to_string());
    };
    let uuids = |view: &PodView| -> Vec<Uuid> {
        view.unknown.iter().flat_map(|held| &held.value.instances).filter_map(|one| Uuid::try_parse(&one.uuid).ok()).collect()
    };
    if request.all {
        state.pods().for_each(|view| uuids(view).into_iter().for_each(|uuid| take(view, uuid)));
    }
    let mut missing = Vec::new();
    let mut foreign = BTreeSet::new();
    for id in &request.ids {
        let (pod, one) = match (id.starts_with('/'), id.parse::<InstanceId>(), id.parse::<TaskId>()) {
            (true, ..) => (PodId::lenient(id).ok(), None),
            (_, Ok(instance), _) => (Some(instance.pod), Some(instance.uuid)),
            (_, _, Ok(task)) => (Some(task.instance.pod), Some(task.instance.uuid)),
            // Of a task whose id is none of ours only the gateway knows.
            _ if request.kind == Wanted::Kill => {
                foreign.insert(id.clone());
                continue;
            }
            _ => (None, None),
        };
        let view = pod.and_then(|pod| state.pod(&pod));
        let found: Vec<Uuid> = view.map(uuids).unwrap_or_default().into_iter().filter(|uuid| one.is_none_or(|one| one == *uuid)).collect();
        match view {
            Some(view) if !found.is_empty() => found.into_iter().for_each(|uuid| take(view, uuid)),
            _ => missing.push(id.as_str()),
        }
    }
    if !missing.is_empty() {
        let message = format!("no unknown instance is, or belongs to, {}; /v2/podium/unknown lists them", missing.join(", "));
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    }
    if !homeless.is_empty() {
        let pods: Vec<&str> = homeless.iter().map(PodId::as_str).collect();
        let message =
            format!("nothing can be adopted of {}: the store has no such pod; push its definition first, or kill", pods.join(", "));
        return Err(Problem::new(StatusCode::CONFLICT, message));
    }
    picked.extend(foreign);
    Ok(picked.into_iter().collect())
}
