//! `/v2/pods/{id}::instances`: killing instances (reference section 2.4). An order is written for each, and scaling carries
//! it out: without `wipe` the instance is launched again under its id, with `wipe` another takes its place.

use std::collections::BTreeSet;

use http::StatusCode;
use podium_controllers::admission::is_active;
use podium_controllers::runtime::{Census, Member, definition_in_force};
use podium_proto::records::{Goal, Kill, Observed};
use podium_store::Key;
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use podium_types::id::{IdError, InstanceId, PodId, Version};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, header, json_value};
use crate::commit;
use crate::push::body_of;
use crate::request::{Body, Head};

/// Instances that one transaction orders about, at two compares each.
const AT_ONCE: usize = 50;

/// DELETE of one.
pub async fn kill_one(api: &Api, pod: &PodId, instance: &str, head: &Head) -> Result<Answer, Problem> {
    let unknown = || Problem::detailed(StatusCode::NOT_FOUND, format!("Task '{instance}' does not exist"), json!([]));
    let named = named(instance, pod).map_err(|error| bad_ids(&[("/".to_owned(), error)]))?;
    let (killed, revision) = kill(api, pod, &Vec::from_iter(named), head).await?;
    let instance = killed.into_iter().next().ok_or_else(unknown)?;
    let mut answer = json_value(StatusCode::OK, &instance);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

/// DELETE of those that the body lists; what is no instance of the pod is passed over.
pub async fn kill_listed(api: &Api, pod: &PodId, head: &Head, body: Body) -> Result<Answer, Problem> {
    let uuids = listed(&body_of(head, body).await?, pod)?;
    let (killed, revision) = kill(api, pod, &uuids, head).await?;
    let mut answer = json_value(StatusCode::OK, &killed);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

/// The uuid in an instance's id; `None`: it is of no instance of this pod.
fn named(text: &str, pod: &PodId) -> Result<Option<Uuid>, IdError> {
    let (safe, rest) = text.rsplit_once('.').filter(|(safe, _)| !safe.is_empty()).ok_or(IdError::Instance)?;
    let uuid = ["instance-", "marathon-"].iter().find_map(|kind| rest.strip_prefix(kind)).filter(|uuid| !uuid.is_empty());
    let uuid = uuid.ok_or(IdError::Instance)?;
    let uuid = Uuid::try_parse(uuid).map_err(|_| IdError::Uuid(uuid.chars().take(64).collect()))?;
    Ok((safe == pod.safe_id()).then_some(uuid))
}

/// The uuids that a body lists, each once.
fn listed(body: &[u8], pod: &PodId) -> Result<Vec<Uuid>, Problem> {
    let json: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::detailed(StatusCode::BAD_REQUEST, "Invalid JSON", json!(error.to_string())))?;
    let wrong = |path: String, error| {
        Problem::detailed(StatusCode::UNPROCESSABLE_ENTITY, "Invalid JSON", json!([{ "path": path, "errors": [error] }]))
    };
    let items = json.as_array().ok_or_else(|| wrong(String::new(), "error.expected.jsarray"))?;
    let (mut uuids, mut bad) = (BTreeSet::new(), Vec::new());
    for (at, item) in items.iter().enumerate() {
        let text = item.as_str().ok_or_else(|| wrong(format!("({at})"), "error.expected.jsstring"))?;
        match named(text, pod) {
            Ok(uuid) => uuids.extend(uuid),
            Err(error) => bad.push((format!("({at})"), error)),
        }
    }
    if bad.is_empty() { Ok(uuids.into_iter().collect()) } else { Err(bad_ids(&bad)) }
}

fn bad_ids(bad: &[(String, IdError)]) -> Problem {
    if let Some((_, error)) = bad.iter().find(|(_, error)| matches!(error, IdError::Uuid(_))) {
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    }
    let details: Vec<Value> = bad.iter().map(|(path, error)| json!({ "path": path, "errors": [error.to_string()] })).collect();
    Problem::detailed(StatusCode::UNPROCESSABLE_ENTITY, "Object is not valid", json!(details))
}

/// Orders the end of these; those that there are, as they were, and the revision of the last order.
async fn kill(api: &Api, pod: &PodId, uuids: &[Uuid], head: &Head) -> Result<(Vec<Value>, i64), Problem> {
    let (mut killed, mut revision) = (Vec::new(), 0);
    let mut chunks = uuids.chunks(AT_ONCE);
    // Of an empty list, too, is to be known whether there is such a pod.
    let mut chunk = Some(chunks.next().unwrap_or_default());
    while let Some(uuids) = chunk {
        let plan = |state: &IndexState, now| plan(state, pod, uuids, head.flag("wipe"), now);
        let written = commit::write(api, head, pod, plan).await.and_then(|written| written.confirmed(pod));
        let (written, instances) = written.map_err(|problem| half_done(problem, &killed))?;
        killed.extend(instances);
        revision = written;
        chunk = chunks.next();
    }
    Ok((killed, revision))
}

/// Names the instances whose end was ordered before the failure: asked for once more, those that took their place would go.
fn half_done(problem: Problem, killed: &[Value]) -> Problem {
    if killed.is_empty() {
        return problem;
    }
    let ordered: Vec<&Value> = killed.iter().filter_map(|instance| instance.get("instanceId")).collect();
    let done = format!("the end of {} instances is ordered, they stand in `details`", ordered.len());
    commit::partly(problem, &done, json!({ "ordered": ordered }))
}

fn plan(state: &IndexState, pod: &PodId, uuids: &[Uuid], wipe: bool, now: i64) -> Result<(Group, Vec<Value>), Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("Path '{pod}' does not exist"));
    let view = state.pod(pod).filter(|view| is_active(view)).ok_or_else(missing)?;
    let census = Census::take(view);
    let mut group = Group::new(pod.clone()).when(Compare::Present(Key::Accepted(pod.clone())));
    let mut instances = Vec::new();
    for member in census.members.iter().filter(|member| uuids.contains(&member.uuid)) {
        let key = Key::Kill(pod.clone(), member.uuid);
        let standing = view.kills.get(&member.uuid);
        let order = Kill {
            incarnation: member.held.value.incarnation,
            wipe: wipe || standing.is_some_and(|standing| standing.value.wipe),
            ordered_ms: now,
            ..Kill::default()
        };
        group = group
            .when(Compare::SameLife(Key::Instance(pod.clone(), member.uuid), member.held.create_revision))
            .when(Compare::as_seen(key.clone(), standing))
            .then(Op::record(key, order));
        instances.push(as_json(view, member));
    }
    Ok((group, instances))
}

/// An instance as Marathon shows it.
fn as_json(view: &PodView, member: &Member<'_>) -> Value {
    let observed = member.observed.map(|held| &held.value).filter(|_| member.is_launched());
    let since_ms = observed.map_or(member.held.value.created_ms, |observed| {
        let changes = observed.tasks.iter().flat_map(|task| [task.since_ms, task.healthy_since_ms]);
        changes.max().unwrap_or(0).max(observed.provisioned_ms)
    });
    let mut state = Map::new();
    state.insert("condition".to_owned(), json!(member.condition.as_str()));
    state.insert("since".to_owned(), json!(Version::from_millis(since_ms)));
    if let Some(running_ms) = observed.and_then(|observed| observed.tasks.iter().map(|task| task.running_ms).filter(|ms| *ms > 0).min()) {
        state.insert("activeSince".to_owned(), json!(Version::from_millis(running_ms)));
    }
    if let Some(healthy) = observed.and_then(health) {
        state.insert("healthy".to_owned(), json!(healthy));
    }
    let goal = Goal::try_from(member.held.value.goal).unwrap_or(Goal::Running);
    state.insert("goal".to_owned(), json!(goal_name(goal)));
    json!({
        "instanceId": InstanceId { pod: view.id.clone(), uuid: member.uuid }.to_string(),
        "agentInfo": agent_info(observed),
        "runSpecVersion": member.config,
        "state": state,
        "unreachableStrategy": definition_in_force(view).map(|definition| json!(definition.scheduling.unreachable_strategy)),
    })
}

/// `None`: nobody has said.
fn health(observed: &Observed) -> Option<bool> {
    observed.tasks.iter().filter_map(|task| task.healthy).reduce(|all, healthy| all && healthy)
}

fn goal_name(goal: Goal) -> &'static str {
    match goal {
        Goal::Running => "Running",
        Goal::Stopped => "Stopped",
        Goal::Decommissioned => "Decommissioned",
    }
}

fn agent_info(observed: Option<&Observed>) -> Value {
    let Some(observed) = observed else { return json!({ "host": "", "attributes": [] }) };
    let attributes: Vec<Value> = observed.attributes.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
    let mut info = json!({ "host": observed.hostname, "attributes": attributes });
    for (name, value) in [("agentId", &observed.agent_id), ("region", &observed.region), ("zone", &observed.zone)] {
        if !value.is_empty() {
            info[name] = json!(value);
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_read_by_its_shape_and_of_another_pod_it_is_nobody() {
        let pod = PodId::new("/a/b").unwrap();
        let uuid = Uuid::from_u128(7);
        assert_eq!(named(&format!("a_b.instance-{uuid}"), &pod), Ok(Some(uuid)));
        assert_eq!(named(&format!("a.instance-{uuid}"), &pod), Ok(None));
        assert_eq!(named(&format!("a_b.marathon-{uuid}"), &pod), Ok(Some(uuid)));
        assert_eq!(named("a_b.instance-x", &pod), Err(IdError::Uuid("x".to_owned())));
        for bad in ["", ".", "a_b", ".instance-x", "a_b.instance-", "a_b.task-x"] {
            assert_eq!(named(bad, &pod), Err(IdError::Instance), "{bad}");
        }
    }
}
