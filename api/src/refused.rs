//! Pushes straight to the store that were refused: by pod, with every error. Of a pod that runs, and of one that never came to be.

use podium_controllers::admission::is_active;
use podium_proto::records::Verdict;
use podium_store::index::Stray;
use podium_store::view::PodView;
use podium_types::id::{PodId, Version};
use serde_json::{Value, json};

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, header, json_array};
use crate::request::Head;

/// Those that the caller may see. Looks at one at a time, so that the index is never held for long: each is as of the revision that
/// is told or a later one.
pub async fn list(api: &Api, head: &Head) -> Result<Answer, Problem> {
    api.caught_up(head.min_revision()?).await?;
    let (pods, strays, revision) = api.index.read(|state| {
        let pods = state.pods().filter(|view| view.verdict.is_some() && head.caller.may_read(&view.id));
        // What is no pod's is nobody's part.
        let strays = state.strays().keys().filter(|_| head.caller.may_read_all());
        (pods.map(|view| view.id.clone()).collect::<Vec<PodId>>(), strays.cloned().collect::<Vec<_>>(), state.revision())
    });
    let pods = pods.iter().filter_map(|id| api.index.read(|state| of_pod(state.pod(id)?)));
    let strays = strays.iter().filter_map(|name| of_stray(name, &api.index.read(|state| state.strays().get(name).cloned())?));
    let refused = pods.chain(strays).map(|one| one.to_string().into());
    let mut answer = json_array(refused.collect());
    header(&mut answer, REVISION, revision);
    Ok(answer)
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
