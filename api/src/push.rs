//! Changes: POST, PUT and DELETE. The definition is judged, admission plans the writes, the store takes them or
//! names a conflict, and the answer waits until this process sees what it wrote.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ETAG, HOST, HeaderValue, IF_MATCH, IF_NONE_MATCH, LOCATION, WARNING};
use podium_controllers::admission::{
    PlanError, Push, PushPlan, PushSource, Source, is_active, judged_revision, plan_back, plan_delete, plan_push, tell_what_was_read_over,
};
use podium_controllers::runtime::definition_in_force;
use podium_proto::records::Accepted;
use podium_proto::records::accepted::Phase;
use podium_store::Key;
use podium_store::codec;
use podium_store::index::{IndexState, Position};
use podium_store::view::{Held, PodView};
use podium_store::writer::Group;
use podium_types::definition::{Change, PodDefinition, ReadError, Reading, Settings, Violation, Warning, read, read_as};
use podium_types::id::{PodId, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Api;
use crate::answer::{Answer, CHANGE, DEPLOYMENT_ID, Problem, REVISION, empty, header, json_bytes};
use crate::commit::{self, Written};
use crate::dry_run::{self, Trial};
use crate::pods::{etag, in_force, names_weakly};
use crate::request::{Body, Head};

/// The query that asks what a change would do.
pub(crate) const DRY_RUN: &str = "dryRun";
/// The query that refuses what is otherwise read over.
const STRICT: &str = "strict";
/// What a change is called that changes nothing.
const NOTHING: &str = "nothing";
/// What a deletion has to wait for.
const DELETED_IN_QUARANTINE: &str =
    "quarantine: nothing is stopped until every unknown instance is settled; `podium get unknown` lists them";
/// Warnings of one answer, in bytes together: ordinary proxies take no longer heads. Kubernetes' bound, too.
const MAX_WARNING_BYTES: usize = 4 * 1024;
/// Warnings of one answer: several clients' libraries read no more than a hundred headers.
const MAX_WARNINGS: usize = 64;
/// Characters of a warning where not all fit in whole: of most, the path and that the field is unknown.
const SHORT_WARNING: usize = 80;

/// What is to be written, and what to answer when it is.
#[derive(Debug)]
pub struct Plan {
    pub group: Group,
    /// What it changes, in one word, for `X-Podium-Change`.
    pub change: &'static str,
    /// What it puts, or finds, in force; `None` for a deletion.
    pub in_force: Option<InForce>,
}

/// What is in force after a change.
#[derive(Debug)]
pub struct InForce {
    /// Of the definition.
    pub version: Version,
    /// As answered.
    pub json: Bytes,
    definition: Arc<PodDefinition>,
    config: Version,
    /// As its author sent it.
    spec: Bytes,
}

/// A change that the store has confirmed.
#[derive(Debug)]
pub struct Changed {
    revision: i64,
    change: &'static str,
    /// As in the plan.
    pub in_force: Option<InForce>,
}

/// POST: a pod that is not there yet.
pub async fn create(api: &Api, head: &Head, body: Body) -> Result<Answer, Problem> {
    head.caller.demand_write_somewhere()?;
    let spec = body_of(head, body).await?;
    let (text, settings, strict) = (spec.clone(), api.settings.clone(), head.flag(STRICT));
    let reading = api.judging.run(move || judged(read(&text, &settings), strict)).await??;
    let id = reading.definition.id.clone();
    head.caller.demand_write(&id)?;
    let deployment = Uuid::new_v4();
    let plan = |view: &PodView, now| match is_active(view) {
        true => Err(Problem::new(StatusCode::CONFLICT, format!("A pod with id [{id}] already exists."))),
        false => {
            precondition(head, view)?;
            plan_put(view, &reading, &spec, now, deployment, head.flag("force"))
        }
    };
    if head.flag(DRY_RUN) {
        return tried(api, &id, head, plan, &reading.warnings).await;
    }
    let changed = write(api, &id, head, deployment, plan).await?;
    tell_what_was_read_over(&id, &reading.warnings);
    let mut answer = pushed(StatusCode::CREATED, changed, deployment, &reading.warnings);
    let host = head.header(HOST).unwrap_or_default();
    let scheme = if api.encrypted { "https" } else { "http" };
    header(&mut answer, LOCATION, if host.is_empty() { format!("/v2/pods{id}") } else { format!("{scheme}://{host}/v2/pods{id}") });
    Ok(answer)
}

/// PUT: a pod as it should be, there or not.
pub async fn replace(api: &Api, id: &PodId, head: &Head, body: Body) -> Result<Answer, Problem> {
    let spec = body_of(head, body).await?;
    // What is in force, as new as the client knows it: the definition is judged by it.
    api.caught_up(head.min_revision()?).await?;
    let present = api.index.read(|state| state.pod(id).and_then(definition_in_force));
    let (text, pod, settings, strict) = (spec.clone(), id.clone(), api.settings.clone(), head.flag(STRICT));
    let judge = move || {
        judged(read_as(&text, &pod, present.as_deref(), &settings), strict)
            .map_err(|problem| other_id(&text, &pod, &settings).unwrap_or(problem))
    };
    let reading = api.judging.run(judge).await??;
    let deployment = Uuid::new_v4();
    let plan = |view: &PodView, now| {
        precondition(head, view)?;
        plan_put(view, &reading, &spec, now, deployment, head.flag("force"))
    };
    if head.flag(DRY_RUN) {
        return tried(api, id, head, plan, &reading.warnings).await;
    }
    let changed = write(api, id, head, deployment, plan).await?;
    tell_what_was_read_over(id, &reading.warnings);
    Ok(pushed(StatusCode::OK, changed, deployment, &reading.warnings))
}

/// DELETE: the pod is gone at once for everyone who asks; its instances are stopped in the course of a deployment.
pub async fn delete(api: &Api, id: &PodId, head: &Head) -> Result<Answer, Problem> {
    let deployment = Uuid::new_v4();
    let plan = |view: &PodView, now| {
        precondition(head, view)?;
        plan_end(view, now, deployment, head.flag("force"))
    };
    if head.flag(DRY_RUN) {
        return tried(api, id, head, plan, &[]).await;
    }
    let changed = write(api, id, head, deployment, plan).await?;
    let mut answer = empty(StatusCode::ACCEPTED);
    stamp(&mut answer, &changed, deployment);
    header(&mut answer, LOCATION, "/v2/deployments");
    if api.index.read(|state| state.quarantine().is_some()) {
        header(&mut answer, WARNING, format!("299 podium {}", quoted(DELETED_IN_QUARANTINE)));
    }
    Ok(answer)
}

/// Plans the change, and tells of it instead of writing it.
async fn tried(
    api: &Api,
    id: &PodId,
    head: &Head,
    plan: impl Fn(&PodView, i64) -> Result<Plan, Problem>,
    warnings: &[Warning],
) -> Result<Answer, Problem> {
    api.caught_up(head.min_revision()?).await?;
    let now = jiff::Timestamp::now().as_millisecond();
    let mut answer = api.index.read(|state| {
        let trial = |view: &PodView| {
            let Plan { change, in_force, .. } = plan(view, now)?;
            let definition = in_force.as_ref().map(|in_force| &*in_force.definition);
            let trial = Trial { change, definition, config: in_force.as_ref().map(|in_force| in_force.config) };
            let mut answer = dry_run::answer(view, &trial);
            header(&mut answer, REVISION, state.revision());
            Ok(answer)
        };
        state.pod(id).map_or_else(|| trial(&PodView::new(id.clone())), trial)
    })?;
    for warning in in_headers(warnings) {
        header(&mut answer, WARNING, warning);
    }
    Ok(answer)
}

/// A body that is there and is called JSON.
pub async fn body_of(head: &Head, body: Body) -> Result<Bytes, Problem> {
    head.demand_json()?;
    let spec = head.collect(body).await?;
    match spec.iter().all(u8::is_ascii_whitespace) {
        true => Err(Problem::detailed(StatusCode::BAD_REQUEST, "Please specify data in JSON format", json!("the body is empty"))),
        false => Ok(spec),
    }
}

fn plan_put(view: &PodView, reading: &Reading, spec: &Bytes, now: i64, deployment: Uuid, force: bool) -> Result<Plan, Problem> {
    plan_definition(view, &reading.definition, spec, now, deployment, force).map_err(|error| not_planned(error, &reading.warnings))
}

/// Plans that a definition takes effect; `spec` is what its author wrote.
fn plan_definition(
    view: &PodView,
    definition: &PodDefinition,
    spec: &Bytes,
    now: i64,
    deployment: Uuid,
    force: bool,
) -> Result<Plan, PlanError> {
    let push = Push { definition: definition.clone(), source: PushSource::Api { spec_json: spec.clone() } };
    Ok(Plan::of(view, plan_push(Some(view), push, now, deployment, force)?, spec))
}

/// Plans that the pod becomes again what a definition says, whatever is on its way.
pub fn plan_return(view: &PodView, definition: &PodDefinition, spec: &Bytes, now: i64, deployment: Uuid) -> Result<Plan, PlanError> {
    let push = Push { definition: definition.clone(), source: PushSource::Api { spec_json: spec.clone() } };
    Ok(Plan::of(view, plan_back(view, push, now, deployment)?, spec))
}

impl Plan {
    fn of(view: &PodView, plan: PushPlan, spec: &Bytes) -> Self {
        let change = match plan.change {
            _ if !is_active(view) => "created",
            Change::Config => "config",
            Change::ScaleOnly => "scale",
            Change::SettingsOnly => "settings",
            Change::Nothing => NOTHING,
        };
        let PushPlan { group, version, config, definition, json, .. } = plan;
        Self { group, change, in_force: Some(InForce { version, json, definition, config, spec: spec.clone() }) }
    }
}

/// Plans that the pod goes.
pub fn plan_end(view: &PodView, now: i64, deployment: Uuid, force: bool) -> Result<Plan, Problem> {
    let plan = plan_delete(view, Source::Api, now, deployment, force).map_err(|error| not_planned(error, &[]))?;
    Ok(Plan { group: plan.group, change: "deleted", in_force: None })
}

/// The answer to a change that cannot be.
pub fn not_planned(error: PlanError, warnings: &[Warning]) -> Problem {
    match error {
        PlanError::Locked { deployment } => locked(&deployment),
        PlanError::Refused(violations) => refused(&ReadError::Invalid { violations, warnings: warnings.to_vec() }),
        PlanError::NotFound(id) => Problem::no_pod(&id),
        PlanError::Unreadable(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// Plans and writes. What the store did not answer for is looked up once, and otherwise told as what is known.
pub async fn write(
    api: &Api,
    id: &PodId,
    head: &Head,
    deployment: Uuid,
    plan: impl Fn(&PodView, i64) -> Result<Plan, Problem>,
) -> Result<Changed, Problem> {
    let plan = |state: &IndexState, now: i64| {
        let Plan { group, change, in_force } = match state.pod(id) {
            Some(view) => plan(view, now),
            None => plan(&PodView::new(id.clone()), now),
        }?;
        Ok((group, (change, in_force)))
    };
    match commit::write(api, head, id, plan).await? {
        Written::Confirmed(revision, (change, in_force)) => Ok(Changed { revision, change, in_force }),
        Written::Unconfirmed(seen, (change, in_force)) => {
            let Some(revision) = found(api, id, deployment, change, in_force.as_ref()).await else {
                return Err(commit::unconfirmed(id, known(deployment, in_force.as_ref())));
            };
            api.written(Position { revision, ..seen }).await;
            Ok(Changed { revision, change, in_force })
        }
    }
}

/// By what to find out what became of a change.
fn known(deployment: Uuid, in_force: Option<&InForce>) -> Value {
    let mut details = json!({ "deploymentId": deployment.to_string() });
    if let Some(in_force) = in_force {
        details["version"] = json!(in_force.version);
    }
    details
}

/// The revision of our write, if the store shows that it has happened: by its very version, or its very deployment; of one
/// that changes nothing by what it was to bring about.
async fn found(api: &Api, id: &PodId, deployment: Uuid, change: &str, in_force: Option<&InForce>) -> Option<i64> {
    match in_force {
        Some(in_force) if change == NOTHING => settled(api, id, in_force).await,
        Some(InForce { version, json, .. }) => {
            let held = api.store.get(&Key::Version(id.clone(), *version)).await.ok()??;
            (held.value == *json).then_some(held.mod_revision)
        }
        None => {
            let held = api.store.get(&Key::Deployment(id.clone())).await.ok()??;
            let record: podium_proto::records::Deployment = codec::decode(&held.value).ok()?;
            (record.id == deployment.to_string()).then_some(held.mod_revision)
        }
    }
}

/// Since when the spec is as its author sent it, judged by that text, in force, and without a verdict: the version alone is older
/// than the push, and says nothing.
async fn settled(api: &Api, id: &PodId, in_force: &InForce) -> Option<i64> {
    let (spec, accepted, verdict) = (Key::Spec(id.clone()), Key::Accepted(id.clone()), Key::Verdict(id.clone()));
    let (spec, accepted, verdict) = tokio::join!(api.store.get(&spec), api.store.get(&accepted), api.store.get(&verdict));
    let (spec, accepted) = (spec.ok()??, accepted.ok()??);
    let value: Accepted = codec::decode(&accepted.value).ok()?;
    let accepted = Held { value, mod_revision: accepted.mod_revision, create_revision: accepted.create_revision };
    let ours = spec.value == in_force.spec && judged_revision(&accepted) == spec.mod_revision;
    let stands = accepted.value.version_ms == in_force.version.as_millis() && accepted.value.phase() == Phase::Active;
    (ours && stands && verdict.ok()?.is_none()).then_some(spec.mod_revision.max(accepted.mod_revision))
}

fn pushed(status: StatusCode, changed: Changed, deployment: Uuid, warnings: &[Warning]) -> Answer {
    let (version, json) = changed.in_force.as_ref().map(|now| (now.version, now.json.clone())).unwrap_or_default();
    let mut answer = json_bytes(status, json);
    stamp(&mut answer, &changed, deployment);
    header(&mut answer, ETAG, etag(version));
    for warning in in_headers(warnings) {
        header(&mut answer, WARNING, warning);
    }
    answer
}

/// Warnings as headers tell them: in whole if all fit, else shortened; of those that do not fit even so, the number.
fn in_headers(warnings: &[Warning]) -> Vec<String> {
    let value = |text: &str| format!("299 podium {}", quoted(text));
    let mut told: Vec<String> = warnings.iter().take(MAX_WARNINGS).map(|warning| value(&warning.to_string())).collect();
    if told.iter().map(String::len).sum::<usize>() > MAX_WARNING_BYTES {
        let short = |warning: &Warning| value(&warning.to_string().chars().take(SHORT_WARNING).collect::<String>());
        let mut room = MAX_WARNING_BYTES;
        let fits = |text: &String| room.checked_sub(text.len()).map(|left| room = left).is_some();
        told = warnings.iter().take(MAX_WARNINGS).map(short).take_while(fits).collect();
    }
    let more = warnings.len() - told.len();
    if more > 0 {
        told.push(value(&format!("{more} further fields were read over")));
    }
    told
}

/// Names the deployment even when nothing is to be deployed: Marathon does, and who waits for its end finds it ended.
pub fn stamp(answer: &mut Answer, changed: &Changed, deployment: Uuid) {
    header(answer, DEPLOYMENT_ID, deployment);
    header(answer, REVISION, changed.revision);
    header(answer, CHANGE, changed.change);
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

/// Refuses when the pod is no longer what the client last saw, or is what it should not be.
fn precondition(head: &Head, view: &PodView) -> Result<(), Problem> {
    let current = in_force(view).map(|(version, _)| version);
    let matches = |tag: &str| current.is_some_and(|version| tag == "*" || tag == etag(version));
    let weakly = |tag: &str| current.is_some_and(|version| names_weakly(tag, version));
    let failed = match (head.any_tag(IF_MATCH, matches), head.any_tag(IF_NONE_MATCH, weakly)) {
        (Some(false), _) => "If-Match",
        (_, Some(true)) => "If-None-Match",
        _ => return Ok(()),
    };
    let now = current.map_or_else(|| "it does not exist".to_owned(), |version| format!("its version is {version}"));
    let problem = Problem::new(StatusCode::PRECONDITION_FAILED, format!("{} is not what {failed} asks for: {now}", view.id));
    let tag = current.and_then(|version| HeaderValue::try_from(etag(version)).ok());
    Err(tag.into_iter().fold(problem, |problem, tag| problem.with(ETAG, tag)))
}

/// A body that is valid in itself but of another pod, in Marathon's words.
fn other_id(spec: &[u8], id: &PodId, settings: &Settings) -> Option<Problem> {
    let theirs = read(spec, settings).ok()?.definition.id;
    (theirs != *id).then(|| Problem::new(StatusCode::BAD_REQUEST, format!("'{id}' does not match definition's id ('{theirs}')")))
}

/// A definition that may be pushed, or the answer to one that may not.
fn judged(reading: Result<Reading, ReadError>, strict: bool) -> Result<Reading, Problem> {
    let (mut violations, warnings) = match reading {
        Ok(reading) if reading.warnings.is_empty() || !strict => return Ok(reading),
        Ok(reading) => (Vec::new(), reading.warnings),
        Err(ReadError::Invalid { violations, warnings }) if strict => (violations, warnings),
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
            in_headers(warnings)
                .into_iter()
                .filter_map(|warning| HeaderValue::try_from(warning).ok())
                .fold(problem, |p, value| p.with(WARNING, value))
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
    fn a_precondition_is_about_the_version_in_force() {
        let put = |headers| Head::new(http::Method::PUT, String::new(), headers);
        let head = |tag: &'static str| put([(IF_MATCH, HeaderValue::from_static(tag))].into_iter().collect());
        let nobody = PodView::new(PodId::new("/a").unwrap());
        assert_eq!(precondition(&head("*"), &nobody).unwrap_err().status, StatusCode::PRECONDITION_FAILED);
        assert!(precondition(&put(http::HeaderMap::new()), &nobody).is_ok());
        let garbled = put([(IF_MATCH, HeaderValue::from_bytes(b"\"\xff\"").unwrap())].into_iter().collect());
        assert_eq!(precondition(&garbled, &nobody).unwrap_err().status, StatusCode::PRECONDITION_FAILED);
    }
}
