//! Pushes straight to the store that were refused: by pod, with every error. Of a pod that runs, and of one that never came to be.

use http::StatusCode;
use podium_controllers::admission::is_active;
use podium_proto::records::Verdict;
use podium_store::index::{IndexState, Stray};
use podium_store::view::PodView;
use podium_types::id::Version;
use serde_json::{Value, json};

use crate::Api;
use crate::access::Caller;
use crate::answer::{Answer, Problem, REVISION, header, json_value};
use crate::request::Head;

/// Those that the caller may see.
pub async fn list(api: &Api, head: &Head) -> Result<Answer, Problem> {
    api.caught_up(head.min_revision()?).await?;
    let (body, revision) = api.index.read(|state| (listing(state, &head.caller), state.revision()));
    let mut answer = json_value(StatusCode::OK, &body);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

fn listing(state: &IndexState, caller: &Caller) -> Value {
    let pods = state.pods().filter(|view| caller.may_read(&view.id)).filter_map(of_pod);
    // What is no pod's is nobody's part.
    let strays = state.strays().iter().filter(|_| caller.may_read_all()).filter_map(|(name, stray)| of_stray(name, stray));
    Value::Array(pods.chain(strays).collect())
}

fn of_pod(view: &PodView) -> Option<Value> {
    let verdict = view.verdict.as_ref().map(|held| &held.value).filter(|verdict| !verdict.violations.is_empty())?;
    let version = view.accepted.as_ref().filter(|_| is_active(view)).map(|held| Version::from_millis(held.value.version_ms));
    let Verdict { spec_revision, violations, judged_ms, .. } = verdict;
    let errors: Vec<Value> = violations.iter().map(|one| json!({ "path": one.path, "message": one.message })).collect();
    let judged = Version::from_millis(*judged_ms);
    Some(json!({ "id": view.id, "version": version, "specRevision": spec_revision, "judgedAt": judged, "errors": errors }))
}

/// A spec under a name that is no pod id, as its status tells it.
fn of_stray(name: &str, stray: &Stray) -> Option<Value> {
    let revision = stray.spec?;
    let told: Value = serde_json::from_slice(&stray.status.as_ref()?.value).ok()?;
    let (errors, judged) = (told.get("errors")?, told.get("updatedAt")?);
    Some(json!({ "id": name, "version": null, "specRevision": revision, "judgedAt": judged, "errors": errors }))
}
