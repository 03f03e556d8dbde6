//! Changes: POST, PUT and DELETE. The definition is judged, admission plans the writes, the store takes them or
//! names a conflict, and the answer waits until this process sees what it wrote.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ETAG, HOST, HeaderValue, IF_MATCH, LOCATION, RETRY_AFTER, WARNING};
use podium_controllers::admission::{PlanError, Push, PushSource, Source, is_active, plan_delete, plan_push, tell_what_was_read_over};
use podium_controllers::runtime::definition_in_force;
use podium_store::Key;
use podium_store::codec;
use podium_store::view::PodView;
use podium_store::writer::{Group, Outcome};
use podium_types::definition::{Change, ReadError, Reading, Violation, Warning, read, read_as};
use podium_types::id::{PodId, Version};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Api;
use crate::answer::{Answer, CHANGE, DEPLOYMENT_ID, Problem, REVISION, empty, header, json_bytes};
use crate::pods::{etag, in_force};
use crate::request::{Body, Head};

/// Others may write the same pod between our look and our write; so often is it tried again.
const ATTEMPTS: usize = 8;
/// How long the index gets to show what a write ran into, when the store cannot say at which revision.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// More warnings would not fit into an answer's head.
const MAX_WARNINGS: usize = 16;

/// What is to be written, and what to answer when it is.
#[derive(Debug)]
struct Plan {
    group: Group,
    /// The definition that it puts, or finds, in force; `None` for a deletion.
    definition: Option<(Version, Bytes)>,
    /// In one word, for `X-Podium-Change`.
    change: &'static str,
}

/// A change that the store has confirmed.
#[derive(Debug)]
struct Written {
    revision: i64,
    definition: Option<(Version, Bytes)>,
    change: &'static str,
}

/// POST: a pod that is not there yet.
pub async fn create(api: &Api, head: &Head, body: Body) -> Result<Answer, Problem> {
    let spec = body_of(head, body).await?;
    let reading = judged(read(&spec, &api.settings), head)?;
    let id = reading.definition.id.clone();
    head.caller.demand_write(&id)?;
    let deployment = Uuid::new_v4();
    let plan = |view: &PodView, now| match is_active(view) {
        true => Err(Problem::new(StatusCode::CONFLICT, format!("A pod with id [{id}] already exists."))),
        false => plan_put(view, &reading, &spec, now, deployment, head.flag("force")),
    };
    let written = write(api, &id, head, deployment, plan).await?;
    tell_what_was_read_over(&id, &reading.warnings);
    let mut answer = pushed(StatusCode::CREATED, &written, deployment, &reading.warnings);
    let host = head.header(HOST).unwrap_or_default();
    header(&mut answer, LOCATION, if host.is_empty() { format!("/v2/pods{id}") } else { format!("http://{host}/v2/pods{id}") });
    Ok(answer)
}

/// PUT: a pod as it should be, there or not.
pub async fn replace(api: &Api, id: &PodId, head: &Head, body: Body) -> Result<Answer, Problem> {
    let spec = body_of(head, body).await?;
    let present = api.index.read(|state| state.pod(id).and_then(definition_in_force));
    let reading = judged(read_as(&spec, id, present.as_deref(), &api.settings), head)
        .map_err(|problem| other_id(&spec, id, api).unwrap_or(problem))?;
    let deployment = Uuid::new_v4();
    let plan = |view: &PodView, now| {
        if_match(head, view)?;
        plan_put(view, &reading, &spec, now, deployment, head.flag("force"))
    };
    let written = write(api, id, head, deployment, plan).await?;
    tell_what_was_read_over(id, &reading.warnings);
    Ok(pushed(StatusCode::OK, &written, deployment, &reading.warnings))
}

/// DELETE: the pod is gone at once for everyone who asks; its instances are stopped in the course of a deployment.
pub async fn delete(api: &Api, id: &PodId, head: &Head) -> Result<Answer, Problem> {
    let deployment = Uuid::new_v4();
    let plan = |view: &PodView, now| {
        if_match(head, view)?;
        let plan = plan_delete(view, Source::Api, now, deployment, head.flag("force")).map_err(|error| not_planned(error, &[]))?;
        Ok(Plan { group: plan.group, definition: None, change: "deleted" })
    };
    let written = write(api, id, head, deployment, plan).await?;
    let mut answer = empty(StatusCode::ACCEPTED);
    stamp(&mut answer, &written, deployment);
    header(&mut answer, LOCATION, "/v2/deployments");
    Ok(answer)
}

async fn body_of(head: &Head, body: Body) -> Result<Bytes, Problem> {
    head.demand_json()?;
    let spec = head.collect(body).await?;
    match spec.iter().all(u8::is_ascii_whitespace) {
        true => Err(Problem::detailed(StatusCode::BAD_REQUEST, "Please specify data in JSON format", json!("the body is empty"))),
        false => Ok(spec),
    }
}

fn plan_put(view: &PodView, reading: &Reading, spec: &Bytes, now: i64, deployment: Uuid, force: bool) -> Result<Plan, Problem> {
    let push = Push { definition: reading.definition.clone(), source: PushSource::Api { spec_json: spec.clone() } };
    let plan = plan_push(Some(view), push, now, deployment, force).map_err(|error| not_planned(error, &reading.warnings))?;
    let change = match plan.change {
        _ if !is_active(view) => "created",
        Change::Config => "config",
        Change::ScaleOnly => "scale",
        Change::SettingsOnly => "settings",
        Change::Nothing => "nothing",
    };
    Ok(Plan { group: plan.group, definition: Some((plan.version, plan.json)), change })
}

fn not_planned(error: PlanError, warnings: &[Warning]) -> Problem {
    match error {
        PlanError::Locked { deployment } => locked(&deployment),
        PlanError::Refused(violations) => refused(&ReadError::Invalid { violations, warnings: warnings.to_vec() }),
        PlanError::NotFound(id) => Problem::no_pod(&id),
        PlanError::Unreadable(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Plans and writes, again and again while others write the same pod, a bounded number of times.
async fn write(
    api: &Api,
    id: &PodId,
    head: &Head,
    deployment: Uuid,
    plan: impl Fn(&PodView, i64) -> Result<Plan, Problem>,
) -> Result<Written, Problem> {
    let mut seen = api.caught_up(head.min_revision()?).await?.revision;
    for _ in 0..ATTEMPTS {
        let now = jiff::Timestamp::now().as_millisecond();
        let Plan { group, definition, change } = api.index.read(|state| {
            seen = state.revision();
            match state.pod(id) {
                Some(view) => plan(view, now),
                None => plan(&PodView::new(id.clone()), now),
            }
        })?;
        match api.store.commit(group).await {
            // Revision 0: there was nothing to change, and what we saw was still so.
            Outcome::Committed { revision } => {
                return Ok(seen_here(api, Written { revision: revision.max(seen), definition, change }).await);
            }
            Outcome::Conflict { revision } => catch_up_with_conflict(api, seen, revision).await,
            Outcome::Unknown { .. } => return unknown(api, id, deployment, definition, change).await,
            Outcome::Refused(reason) => {
                return Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("nothing was changed: the store refuses the write: {reason}"),
                ));
            }
            Outcome::NotLeader => return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a write without an election lost one")),
        }
    }
    let message = format!("nothing was changed: others changed {id} {ATTEMPTS} times meanwhile; try again");
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, HeaderValue::from_static("1")))
}

/// Waits until the index shows the write. It is durable by now: when the index lags, the answer says so by its revision.
async fn seen_here(api: &Api, written: Written) -> Written {
    if let Err(behind) = api.index.wait_for(written.revision, api.catch_up).await {
        tracing::warn!(%behind, "a write is answered before this process has seen it");
    }
    written
}

/// Lets the index come to see what the write ran into.
async fn catch_up_with_conflict(api: &Api, seen: i64, revision: i64) {
    let (wanted, patience) = if revision > seen { (revision, api.catch_up) } else { (seen + 1, CONFLICT_PAUSE) };
    // If it stays behind, the next attempt conflicts again, and their number is bounded.
    let _ = api.index.wait_for(wanted, patience).await;
}

/// The store did not answer: asks once what became of the write, and says what is known.
async fn unknown(
    api: &Api,
    id: &PodId,
    deployment: Uuid,
    definition: Option<(Version, Bytes)>,
    change: &'static str,
) -> Result<Written, Problem> {
    if let Some(revision) = confirmed(api, id, deployment, definition.as_ref()).await {
        return Ok(seen_here(api, Written { revision, definition, change }).await);
    }
    let mut details = Map::new();
    details.insert("deploymentId".to_owned(), json!(deployment.to_string()));
    if let Some((version, _)) = &definition {
        details.insert("version".to_owned(), json!(version));
    }
    let message = format!("the store did not confirm the change of {id} in time: it may still take effect; look before you repeat it");
    Err(Problem::detailed(StatusCode::SERVICE_UNAVAILABLE, message, Value::Object(details))
        .with(RETRY_AFTER, HeaderValue::from_static("1")))
}

/// The revision of our write, if the store holds it: its very version, or its very deployment.
async fn confirmed(api: &Api, id: &PodId, deployment: Uuid, definition: Option<&(Version, Bytes)>) -> Option<i64> {
    if let Some((version, json)) = definition {
        let held = api.store.get(&Key::Version(id.clone(), *version)).await.ok()??;
        return (held.value == *json).then_some(held.mod_revision);
    }
    let held = api.store.get(&Key::Deployment(id.clone())).await.ok()??;
    let record: podium_proto::records::Deployment = codec::decode(&held.value).ok()?;
    (record.id == deployment.to_string()).then_some(held.mod_revision)
}

fn pushed(status: StatusCode, written: &Written, deployment: Uuid, warnings: &[Warning]) -> Answer {
    let (version, json) = written.definition.clone().unwrap_or_default();
    let mut answer = json_bytes(status, json);
    stamp(&mut answer, written, deployment);
    header(&mut answer, ETAG, etag(version));
    for warning in in_headers(warnings) {
        header(&mut answer, WARNING, warning);
    }
    answer
}

/// Warnings as headers tell them; of those that do not fit, the number.
fn in_headers(warnings: &[Warning]) -> impl Iterator<Item = String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    let more = (more > 0).then(|| format!("{more} further fields were read over"));
    let told = warnings.iter().take(MAX_WARNINGS).map(Warning::to_string).chain(more);
    told.map(|text| format!("299 podium {}", quoted(&text)))
}

/// Names the deployment even when nothing is to be deployed: Marathon does, and who waits for its end finds it ended.
fn stamp(answer: &mut Answer, written: &Written, deployment: Uuid) {
    header(answer, DEPLOYMENT_ID, deployment);
    header(answer, REVISION, written.revision);
    header(answer, CHANGE, written.change);
}

/// A quoted string for a header: what no header may hold becomes `?`.
fn quoted(text: &str) -> String {
    let inner = text.chars().take(500).map(|c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        ' '..='~' => c.to_string(),
        _ => "?".to_owned(),
    });
    format!("\"{}\"", inner.collect::<String>())
}

/// Refuses when the pod is no longer what the client last saw.
fn if_match(head: &Head, view: &PodView) -> Result<(), Problem> {
    let wanted: Vec<&str> = head.headers.get_all(IF_MATCH).iter().filter_map(|value| value.to_str().ok()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let current = in_force(view).map(|(version, _)| version);
    let matches = |tag: &str| current.is_some_and(|version| tag == "*" || tag == etag(version));
    if wanted.iter().flat_map(|value| value.split(',')).any(|tag| matches(tag.trim())) {
        return Ok(());
    }
    let now = current.map_or_else(|| "it does not exist".to_owned(), |version| format!("its version is {version}"));
    let problem = Problem::new(StatusCode::PRECONDITION_FAILED, format!("{} is not what If-Match asks for: {now}", view.id));
    let tag = current.and_then(|version| HeaderValue::try_from(etag(version)).ok());
    Err(tag.into_iter().fold(problem, |problem, tag| problem.with(ETAG, tag)))
}

/// A body that is valid in itself but of another pod, in Marathon's words.
fn other_id(spec: &[u8], id: &PodId, api: &Api) -> Option<Problem> {
    let theirs = read(spec, &api.settings).ok()?.definition.id;
    (theirs != *id).then(|| Problem::new(StatusCode::BAD_REQUEST, format!("'{id}' does not match definition's id ('{theirs}')")))
}

/// A definition that may be pushed, or the answer to one that may not.
fn judged(reading: Result<Reading, ReadError>, head: &Head) -> Result<Reading, Problem> {
    let (mut violations, warnings) = match reading {
        Ok(reading) if reading.warnings.is_empty() || !head.flag("strict") => return Ok(reading),
        Ok(reading) => (Vec::new(), reading.warnings),
        Err(ReadError::Invalid { violations, warnings }) if head.flag("strict") => (violations, warnings),
        Err(error) => return Err(refused(&error)),
    };
    violations.extend(warnings.iter().map(|warning| Violation::structure(&warning.path, &warning.message, "")));
    Err(refused(&ReadError::Invalid { violations, warnings: Vec::new() }))
}

/// The answer to a definition that cannot be accepted (reference section 1.2).
fn refused(error: &ReadError) -> Problem {
    match error {
        ReadError::NotJson { .. } => Problem::detailed(StatusCode::BAD_REQUEST, "Invalid JSON", json!(error.to_string())),
        ReadError::TooLarge { .. } => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        ReadError::Invalid { violations, warnings } => {
            let problem = Problem::detailed(StatusCode::UNPROCESSABLE_ENTITY, error.headline(), details(violations));
            in_headers(warnings).filter_map(|warning| HeaderValue::try_from(warning).ok()).fold(problem, |p, value| p.with(WARNING, value))
        }
    }
}

/// One entry a path, in the order in which the paths were first complained of.
pub(crate) fn details(violations: &[Violation]) -> Value {
    let mut entries: Vec<(&str, Vec<&str>, Vec<&str>)> = Vec::new();
    for violation in violations {
        let at = entries.iter().position(|(path, ..)| *path == violation.path).unwrap_or_else(|| {
            entries.push((&violation.path, Vec::new(), Vec::new()));
            entries.len() - 1
        });
        if let Some((_, errors, hints)) = entries.get_mut(at) {
            errors.push(&violation.message);
            if !violation.hint.is_empty() {
                hints.push(&violation.hint);
            }
        }
    }
    let entry = |(path, errors, hints): (&str, Vec<&str>, Vec<&str>)| match hints.is_empty() {
        true => json!({ "path": path, "errors": errors }),
        false => json!({ "path": path, "errors": errors, "hints": hints }),
    };
    Value::Array(entries.into_iter().map(entry).collect())
}

/// The refusal of a change while another is on its way.
pub(crate) fn locked(deployment: &str) -> Problem {
    let message = "App is locked by one or more deployments. Override with the option '?force=true'. \
                   View details at '/v2/deployments/<DEPLOYMENT_ID>'.";
    let mut problem = Problem::new(StatusCode::CONFLICT, message);
    if let Some(body) = problem.body.as_object_mut() {
        body.insert("deployments".to_owned(), json!([{ "id": deployment }]));
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_of_one_path_stand_in_one_entry_with_their_hints() {
        let violations = [Violation::rule("/a", "x"), Violation::structure("/b", "error.min", "at least 0.1"), Violation::rule("/a", "y")];
        let expected = json!([{"path": "/a", "errors": ["x", "y"]}, {"path": "/b", "errors": ["error.min"], "hints": ["at least 0.1"]}]);
        assert_eq!(details(&violations), expected);
    }

    #[test]
    fn a_warning_fits_into_a_header_whatever_it_says() {
        assert_eq!(quoted("a \"b\" \\ é\r\nx: y"), "\"a \\\"b\\\" \\\\ ???x: y\"");
        assert!(HeaderValue::from_str(&quoted("\u{0}\u{7f}é")).is_ok());
    }

    #[test]
    fn if_match_compares_the_version_in_force() {
        let put = |headers| Head::new(http::Method::PUT, String::new(), headers);
        let head = |tag: &'static str| put([(IF_MATCH, HeaderValue::from_static(tag))].into_iter().collect());
        let nobody = PodView::new(PodId::new("/a").unwrap());
        assert_eq!(if_match(&head("*"), &nobody).unwrap_err().status, StatusCode::PRECONDITION_FAILED);
        assert!(if_match(&put(http::HeaderMap::new()), &nobody).is_ok());
    }
}
