//! `/v2/deployments`: what is on its way, in Marathon's form (reference section 2.5).

use http::StatusCode;
use podium_proto::records::Deployment;
use podium_proto::records::deployment::Kind;
use podium_types::id::{PodId, Version};
use serde_json::{Value, json};

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, header, json_value};
use crate::request::Head;

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

/// The steps that Marathon would take for a deployment of this kind.
fn actions(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Start => &["StartPod", "ScalePod"],
        Kind::Scale => &["ScalePod"],
        Kind::Restart => &["RestartPod"],
        Kind::Stop => &["StopPod"],
    }
}

fn as_json(pod: &PodId, deployment: &Deployment) -> Value {
    // A kind that a newer replica wrote has steps that this build cannot name.
    let actions = Kind::try_from(deployment.kind).map(actions).unwrap_or_default();
    let steps: Vec<Value> = actions.iter().map(|action| json!({ "actions": [{ "action": action, "pod": pod }] })).collect();
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
        "steps": steps,
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
