//! `/v2/deployments`: what is on its way, in Marathon's form (reference section 2.5), and how to take it back.

use http::StatusCode;
use podium_proto::records::Deployment;
use podium_proto::records::deployment::Kind;
use podium_store::Key;
use podium_store::index::IndexState;
use podium_store::view::{Held, PodView};
use podium_store::writer::{Compare, Group, Op};
use podium_types::id::{PodId, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, empty, header, json_value};
use crate::request::Head;
use crate::{commit, push};

/// All running deployments.
pub fn list(api: &Api, head: &Head) -> Result<Answer, Problem> {
    let (deployments, revision) = api.index.read(|state| {
        let deployments: Vec<(PodId, Deployment)> = state
            .pods()
            .filter(|pod| head.caller.may_read(&pod.id))
            .filter_map(|pod| Some((pod.id.clone(), pod.deployment.as_ref()?.value.clone())))
            .collect();
        (deployments, state.revision())
    });
    let body: Vec<Value> = deployments.iter().map(|(pod, deployment)| as_json(pod, deployment)).collect();
    let mut answer = json_value(StatusCode::OK, &body);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

/// DELETE: takes back what the deployment brought, by another deployment; with `force` only the deployment ends.
pub async fn cancel(api: &Api, id: &str, head: &Head) -> Result<Answer, Problem> {
    api.caught_up(head.min_revision()?).await?;
    let is_it = |view: &&PodView| head.caller.may_read(&view.id) && view.deployment.as_ref().is_some_and(|held| held.value.id == id);
    let pod = api.index.read(|state| state.pods().find(is_it).map(|view| view.id.clone())).ok_or_else(|| unknown(id))?;
    head.caller.demand_write(&pod)?;
    if head.flag("force") { drop_it(api, &pod, id, head).await } else { roll_back(api, &pod, id, head).await }
}

fn unknown(id: &str) -> Problem {
    let id: String = id.chars().take(64).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("DeploymentPlan {id} does not exist"))
}

/// The running deployment, if it still is the one that was asked for.
fn running<'a>(view: &'a PodView, id: &str) -> Result<&'a Held<Deployment>, Problem> {
    view.deployment.as_ref().filter(|held| held.value.id == id).ok_or_else(|| unknown(id))
}

/// The pod is locked no longer. The controllers go on towards what is in force: that is changed by PUT, or rolled back.
/// First it is marked, and then it goes: who sees it go must know that nothing was achieved.
async fn drop_it(api: &Api, pod: &PodId, id: &str, head: &Head) -> Result<Answer, Problem> {
    let mark = |state: &IndexState, _| {
        let held = running(state.pod(pod).ok_or_else(|| unknown(id))?, id)?;
        let key = Key::Deployment(pod.clone());
        let marked = Deployment { dropped: true, ..held.value.clone() };
        Ok((Group::new(pod.clone()).when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::record(key, marked)), ()))
    };
    let (marked, ()) = commit::write(api, head, pod, mark).await?.confirmed(pod)?;
    let remove = |state: &IndexState, _| {
        let key = Key::Deployment(pod.clone());
        // Upgrade takes away what is marked, too, and may have been faster.
        let left = state.pod(pod).and_then(|view| view.deployment.as_ref()).filter(|held| held.value.id == id);
        let group = Group::new(pod.clone());
        let group = left.map_or(group.clone(), |held| group.when(Compare::Unchanged(key.clone(), held.mod_revision)).then(Op::Delete(key)));
        Ok((group, ()))
    };
    // Where this fails, upgrade does it: the deployment is dropped by its mark.
    let removed = commit::write(api, head, pod, remove).await.and_then(|written| written.confirmed(pod));
    let revision = removed.map_or(marked, |(revision, ())| revision);
    let mut answer = empty(StatusCode::ACCEPTED);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

async fn roll_back(api: &Api, pod: &PodId, id: &str, head: &Head) -> Result<Answer, Problem> {
    let new = Uuid::new_v4();
    let changed = push::write(api, pod, head, new, |view, now| plan_back(view, id, now, new)).await?;
    let now = Version::from_millis(jiff::Timestamp::now().as_millisecond());
    let version = changed.in_force.as_ref().map_or(now, |in_force| in_force.version);
    let mut answer = json_value(StatusCode::OK, &json!({ "version": version, "deploymentId": new.to_string() }));
    push::stamp(&mut answer, &changed, new);
    Ok(answer)
}

/// The change that leads back to where the deployment came from: what was created goes, all else becomes what it was. Whatever came
/// into force later took the deployment's place.
fn plan_back(view: &PodView, id: &str, now: i64, new: Uuid) -> Result<push::Plan, Problem> {
    let held = running(view, id)?;
    let mut plan = match Kind::try_from(held.value.kind) {
        Ok(Kind::Start) => push::plan_end(view, now, new, true)?,
        Ok(Kind::Scale | Kind::Restart | Kind::Stop) => {
            let before = Version::from_millis(held.value.previous_version_ms);
            let stored = view.versions.get(&before).map(|stored| &stored.value);
            let (json, definition) = stored.and_then(|stored| Some((&stored.json, stored.definition()?))).ok_or_else(|| {
                Problem::new(StatusCode::CONFLICT, format!("version {before} of {} cannot be read any more: PUT what should run", view.id))
            })?;
            push::plan_return(view, &definition, json, now, new).map_err(|error| push::not_planned(error, &[]))?
        }
        Err(_) => {
            let message = format!("{}'s deployment was begun by a newer version of Podium: ask a replica of that version", view.id);
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
    };
    plan.group = plan.group.when(Compare::Unchanged(Key::Deployment(view.id.clone()), held.mod_revision));
    Ok(plan)
}

/// The steps that Marathon would take for a deployment of this kind.
fn actions(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Start => &["StartPod", "ScalePod"],
        Kind::Scale => &["ScalePod"],
        Kind::Restart => &["RestartPod"],
        Kind::Stop => &["StopPod"],
    }
}

/// The plan of a deployment, as events tell it. Of what stood before and shall stand after, the root group's id and version alone:
/// clients exist that can't read a plan without the two.
pub(crate) fn plan(pod: &PodId, deployment: &Deployment) -> Value {
    let version = Version::from_millis(deployment.version_ms);
    let before = (deployment.previous_version_ms > 0).then(|| Version::from_millis(deployment.previous_version_ms));
    json!({
        "id": deployment.id,
        "version": version,
        "original": { "id": "/", "version": before },
        "target": { "id": "/", "version": version },
        "steps": steps(pod, deployment),
    })
}

/// The step that a deployment is at: the first, as soon as there is one.
pub(crate) fn step(pod: &PodId, deployment: &Deployment) -> Value {
    let at = usize::try_from(deployment.current_step).unwrap_or(usize::MAX).saturating_sub(1);
    let mut steps = steps(pod, deployment);
    match steps.len().checked_sub(1) {
        Some(last) => steps.swap_remove(at.min(last)),
        None => json!({ "actions": [] }),
    }
}

fn steps(pod: &PodId, deployment: &Deployment) -> Vec<Value> {
    // A kind that a newer replica wrote has steps that this build cannot name.
    let actions = Kind::try_from(deployment.kind).map(actions).unwrap_or_default();
    actions.iter().map(|action| json!({ "actions": [{ "action": action, "pod": pod }] })).collect()
}

fn as_json(pod: &PodId, deployment: &Deployment) -> Value {
    // A kind that a newer replica wrote has steps that this build cannot name.
    let actions = Kind::try_from(deployment.kind).map(actions).unwrap_or_default();
    let step = usize::try_from(deployment.current_step).unwrap_or(usize::MAX).min(actions.len());
    let current: Vec<Value> = step
        .checked_sub(1)
        .and_then(|at| actions.get(at))
        .map(|action| json!({ "action": action, "pod": pod, "readinessCheckResults": [] }))
        .into_iter()
        .collect();
    json!({
        "id": deployment.id,
        "version": Version::from_millis(deployment.version_ms),
        "affectedApps": [],
        "affectedPods": [pod],
        "steps": steps(pod, deployment),
        "currentActions": current,
        "currentStep": step,
        "totalSteps": actions.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_shows_its_steps_and_where_it_is() {
        let pod = PodId::new("/web").unwrap();
        let record = Deployment { id: "d".to_owned(), kind: Kind::Start as i32, current_step: 2, ..Default::default() };
        let json = as_json(&pod, &record);
        assert_eq!(
            json["steps"],
            json!([{"actions": [{"action": "StartPod", "pod": "/web"}]}, {"actions": [{"action": "ScalePod", "pod": "/web"}]}])
        );
        assert_eq!(json["currentActions"], json!([{"action": "ScalePod", "pod": "/web", "readinessCheckResults": []}]));
        assert_eq!((json["currentStep"].as_u64(), json["totalSteps"].as_u64()), (Some(2), Some(2)));
        assert_eq!(as_json(&pod, &Deployment { current_step: 9, kind: 77, ..Default::default() })["currentStep"], 0);
    }
}
