//! `/v2/pods`: one path parser, and one match of method and verb.

use std::str::FromStr;

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{Method, StatusCode};
use podium_controllers::admission::{PlanError, is_active};
use podium_store::Key;
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_types::id::{PodId, Version};
use serde_json::json;

use crate::access::Caller;
use crate::answer::{Answer, Problem, REVISION, empty, header, json_array, json_bytes, json_list, json_value};
use crate::openapi::{self, route};
use crate::path::{PathError, PodPath, Verb, parse};
use crate::push::not_planned;
use crate::request::{Body, Head};
use crate::{Api, instances, logs, push, statuses};

/// Answers one request; names the route for the metrics.
pub async fn handle(api: &Api, tail: &str, head: &Head, body: Body) -> (&'static str, Result<Answer, Problem>) {
    match parse(tail) {
        Ok(path) => {
            let route = route(&path);
            let answer = match openapi::judge(route, head) {
                Ok(()) => dispatch(api, path, head, body).await,
                Err(problem) => Err(problem),
            };
            (route, answer)
        }
        Err(error) => ("unknown", Err(bad_path(&error))),
    }
}

fn route(path: &PodPath) -> &'static str {
    match (&path.id, &path.verb) {
        (None, Verb::Definition) => route!("/v2/pods"),
        (None, _) => route!("/v2/pods/::status"),
        (Some(_), Verb::Definition) => route!("/v2/pods/{id}"),
        (Some(_), Verb::Status) => route!("/v2/pods/{id}::status"),
        (Some(_), Verb::Versions) => route!("/v2/pods/{id}::versions"),
        (Some(_), Verb::Logs) => route!("/v2/pods/{id}::logs"),
        (Some(_), Verb::Version(_)) => route!("/v2/pods/{id}::versions/{version}"),
        (Some(_), Verb::Instances) => route!("/v2/pods/{id}::instances"),
        (Some(_), Verb::Instance(_)) => route!("/v2/pods/{id}::instances/{instance}"),
    }
}

fn bad_path(error: &PathError) -> Problem {
    match error {
        PathError::Verb(_) => Problem::new(StatusCode::NOT_FOUND, format!("URI not found: {error}")),
        PathError::Encoding => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
        PathError::Id(_) => Problem::detailed(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Object is not valid",
            json!([{ "path": "/", "errors": [error.to_string()] }]),
        ),
    }
}

async fn dispatch(api: &Api, path: PodPath, head: &Head, body: Body) -> Result<Answer, Problem> {
    let read = matches!(head.method, Method::GET | Method::HEAD);
    if let Some(id) = &path.id {
        if read { head.caller.demand_read(id) } else { head.caller.demand_write(id) }?;
    }
    match (path.id, path.verb) {
        (None, Verb::Definition) if head.method == Method::POST => push::create(api, head, body).await,
        (None, Verb::Definition) if !read => Err(Problem::method("GET, HEAD, POST")),
        (Some(id), Verb::Definition) if head.method == Method::PUT => push::replace(api, &id, head, body).await,
        (Some(id), Verb::Definition) if head.method == Method::DELETE => push::delete(api, &id, head).await,
        (Some(_), Verb::Definition) if !read => Err(Problem::method("GET, HEAD, PUT, DELETE")),
        (Some(id), Verb::Instances) if head.method == Method::DELETE => instances::kill_listed(api, &id, head, body).await,
        (Some(id), Verb::Instance(instance)) if head.method == Method::DELETE => instances::kill_one(api, &id, &instance, head).await,
        (_, verb) if !read => Err(Problem::method(allowed(&verb))),
        (id, verb) => {
            api.caught_up(head.min_revision()?).await?;
            match (id, verb) {
                (None, Verb::Definition) => Ok(all(api, &head.caller)),
                (None, _) => Ok(all_status(api, &head.caller)),
                (Some(id), Verb::Status) => status(api, &id),
                (Some(id), Verb::Definition) => definition(api, &id, head),
                (Some(id), Verb::Versions) => versions(api, &id),
                (Some(id), Verb::Logs) => logs::read(api, &id, head).await,
                (Some(id), Verb::Version(stamp)) => version(api, &id, &stamp),
                (Some(_), verb @ (Verb::Instances | Verb::Instance(_))) => Err(Problem::method(allowed(&verb))),
            }
        }
    }
}

/// The methods that something about a pod knows, the definition itself aside.
fn allowed(verb: &Verb) -> &'static str {
    if matches!(verb, Verb::Instances | Verb::Instance(_)) { "DELETE" } else { "GET, HEAD" }
}

/// The version in force and its definition as stored; `None` for a pod that is not there, or on its way out.
pub(crate) fn in_force(view: &PodView) -> Option<(Version, &Bytes)> {
    let accepted = view.accepted.as_ref().filter(|_| is_active(view))?;
    let version = Version::from_millis(accepted.value.version_ms);
    Some((version, &view.versions.get(&version)?.value.json))
}

/// Why there is nothing to tell of a pod: it is not there, or what says what is in force can't be read, though perhaps it runs.
pub(crate) fn nothing_of(state: &IndexState, id: &PodId) -> Problem {
    let accepted = Key::Accepted(id.clone());
    match state.pod(id).filter(|view| view.unreadable.contains_key(&accepted)) {
        Some(_) => not_planned(PlanError::Unreadable(accepted.to_string()), &[]),
        None => Problem::no_pod(id),
    }
}

/// The entity tag of a pod: its version, which no two definitions share.
pub(crate) fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// Whether a tag names this version, or `*` any. A proxy that has packed an answer anew may have made its tag a weak one; that the
/// pod is as it was is told by that, too.
pub(crate) fn names_weakly(tag: &str, version: Version) -> bool {
    tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag(version)
}

/// Reads under the index' lock, and stamps the answer with the revision that it is of.
fn read(api: &Api, look: impl FnOnce(&IndexState) -> Result<Answer, Problem>) -> Result<Answer, Problem> {
    let (answer, revision) = api.index.read(|state| (look(state), state.revision()));
    answer.map(|mut answer| {
        header(&mut answer, REVISION, revision);
        answer
    })
}

fn all(api: &Api, caller: &Caller) -> Answer {
    let (fragments, revision) = api.index.read(|state| {
        let fragments: Vec<Bytes> =
            state.pods().filter(|view| caller.may_read(&view.id)).filter_map(in_force).map(|(_, json)| json.clone()).collect();
        (fragments, state.revision())
    });
    let mut answer = json_array(fragments);
    header(&mut answer, REVISION, revision);
    answer
}

/// The status of every pod that the caller may see.
fn all_status(api: &Api, caller: &Caller) -> Answer {
    let now = jiff::Timestamp::now().as_millisecond();
    let listing = api.statuses.all(now, |id| caller.may_read(id));
    let (revision, size) = (listing.revision, listing.size());
    let mut answer = json_list("[", statuses::opening(now), listing.values(), size, "]");
    header(&mut answer, REVISION, revision);
    answer
}

/// The pods there are whose id is wanted, each with its version in force, and the revision of that.
pub(crate) fn versions_in_force(api: &Api, wanted: impl Fn(&PodId) -> bool) -> (Vec<(PodId, Version)>, i64) {
    api.index.read(|state| {
        let pods = state.pods().filter(|view| wanted(&view.id));
        let pods = pods.filter_map(|view| Some((view.id.clone(), in_force(view)?.0)));
        (pods.collect(), state.revision())
    })
}

fn status(api: &Api, id: &PodId) -> Result<Answer, Problem> {
    let now = jiff::Timestamp::now().as_millisecond();
    let (members, revision) = api.statuses.one(id, now).ok_or_else(|| api.index.read(|state| nothing_of(state, id)))?;
    let mut answer = json_bytes(StatusCode::OK, [statuses::opening(now), members].concat().into());
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

fn definition(api: &Api, id: &PodId, head: &Head) -> Result<Answer, Problem> {
    read(api, |state| {
        let (version, json) = state.pod(id).and_then(in_force).ok_or_else(|| nothing_of(state, id))?;
        let is_known = head.any_tag(IF_NONE_MATCH, |tag| names_weakly(tag, version)).unwrap_or(false);
        let mut answer = if is_known { empty(StatusCode::NOT_MODIFIED) } else { json_bytes(StatusCode::OK, json.clone()) };
        header(&mut answer, ETAG, etag(version));
        Ok(answer)
    })
}

/// Those that are kept, of a pod that is gone too: one of them may be wanted back.
fn versions(api: &Api, id: &PodId) -> Result<Answer, Problem> {
    read(api, |state| {
        let view = state.pod(id).filter(|view| !view.versions.is_empty()).ok_or_else(|| Problem::no_pod(id))?;
        Ok(json_value(StatusCode::OK, &view.versions.keys().collect::<Vec<_>>()))
    })
}

fn version(api: &Api, id: &PodId, stamp: &str) -> Result<Answer, Problem> {
    let version = Version::from_str(stamp).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    read(api, |state| {
        let held = state.pod(id).and_then(|view| view.versions.get(&version)).ok_or_else(|| Problem::no_pod(id))?;
        Ok(json_bytes(StatusCode::OK, held.value.json.clone()))
    })
}
