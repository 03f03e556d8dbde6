//! `status/<pod id>`: what became of the last push and how the pod is, as JSON for people and pipelines.
//!
//! ```json
//! {"id": "/web", "specRevision": 12, "phase": "Running", "status": "STABLE", "version": "2021-07-27T10:00:00.000Z", "errors": [],
//!  "counts": {"wanted": 2, "running": 2, "healthy": 2, "upToDate": 2, "waiting": 0, "starting": 0, "unreachable": 0, "stopping": 0},
//!  "deployment": null, "reasons": [], "updatedAt": "2021-07-27T10:00:01.000Z"}
//! ```
//!
//! A pipeline waits until `specRevision` is that of its own put, and then for `phase`:
//!
//! | phase | meaning |
//! |---|---|
//! | `Refused` | the last push is bad: `errors` lists everything; what ran before runs on, as `version`, `status` and `counts` tell |
//! | `Deploying` | the last push is in force and being rolled out |
//! | `Running` | as many stable instances as wanted |
//! | `Degraded` | fewer: `reasons` tells why |
//! | `Deleting` | on its way out; the key goes with the last instance |
//!
//! `reasons` tells in every phase of a quarantine, and of instances that run unknown to the store.
//! `status` is that of the API's `::status`; `null` where no definition is in force.

use podium_proto::records::deployment::Kind as DeploymentKind;
use podium_store::view::PodView;
use podium_types::condition::Condition;
use podium_types::id::{IdError, Version};
use serde::Serialize;
use serde_json::{Value, json};

use super::status::{PodState, pod_state};
use super::words;
use crate::admission::{is_active, judged_revision};
use crate::runtime::{Census, Member, definition_in_force};

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Phase {
    /// The last push is bad.
    Refused,
    /// The last push is being rolled out.
    Deploying,
    /// As wanted.
    Running,
    /// Fewer stable instances than wanted.
    Degraded,
    /// On its way out.
    Deleting,
}

/// How many instances are how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// As the version in force says.
    pub wanted: u32,
    /// Every container was started, and none failed.
    pub running: usize,
    /// Running, and every health check says so.
    pub healthy: usize,
    /// Running the config in force.
    pub up_to_date: usize,
    /// Not launched yet, or waiting for the next launch.
    pub waiting: usize,
    /// Launched, not running yet.
    pub starting: usize,
    /// On an agent that is away.
    pub unreachable: usize,
    /// Being stopped.
    pub stopping: usize,
}

/// What the key says, its time stamp aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    body: Value,
}

impl Report {
    /// Looks at a pod; `None`: there is neither a pod nor a refused push.
    pub fn of(view: &PodView, now: i64) -> Option<Self> {
        let verdict = view.verdict.as_ref().map(|verdict| &verdict.value).filter(|verdict| !verdict.violations.is_empty());
        if verdict.is_none() && view.accepted.is_none() {
            return None;
        }
        let census = Census::take(view);
        let counts = counts(view, &census);
        let errors: Vec<Value> = verdict
            .iter()
            .flat_map(|verdict| &verdict.violations)
            .map(|violation| json!({ "path": violation.path, "message": violation.message }))
            .collect();
        let revision = verdict.map(|verdict| verdict.spec_revision).or_else(|| view.accepted.as_ref().map(judged_revision));
        let state = pod_state(view, &census);
        let phase = phase(view, verdict.is_some(), state);
        // A pod that is as it should be needs no reasons: an instance more, that ends, is none.
        let mut reasons = words::of_store(view);
        if phase != Phase::Running {
            reasons.extend(words::of_pod(view, &census.members, now));
        }
        let version = view.accepted.as_ref().map(|held| Version::from_millis(held.value.version_ms));
        let body = json!({
            "id": view.id,
            "specRevision": revision,
            "phase": phase,
            "status": state,
            "version": version,
            "errors": errors,
            "counts": counts,
            "deployment": deployment(view),
            "reasons": reasons,
        });
        Some(Self { body })
    }

    /// A spec under a name that is no pod id: refused, and there is nothing else to tell.
    pub fn of_stray(name: &str, spec_revision: i64, error: &IdError) -> Self {
        let message = format!("'{name}' is no pod id: {error}");
        let body = json!({
            "id": name,
            "specRevision": spec_revision,
            "phase": Phase::Refused,
            "status": null,
            "version": null,
            "errors": [{ "path": "/id", "message": message }],
            "counts": Counts::default(),
            "deployment": null,
            "reasons": [],
        });
        Self { body }
    }

    /// The value of the key, as changed at a time.
    pub fn json(&self, updated_ms: i64) -> Value {
        let mut body = self.body.clone();
        if let Value::Object(members) = &mut body {
            members.insert("updatedAt".to_owned(), Value::from(words::time(updated_ms)));
        }
        body
    }
}

/// When a written report was last changed.
pub fn updated_ms(written: &Value) -> Option<i64> {
    written.get("updatedAt")?.as_str()?.parse::<Version>().ok().map(Version::as_millis)
}

fn phase(view: &PodView, refused: bool, state: Option<PodState>) -> Phase {
    match state {
        _ if refused => Phase::Refused,
        Some(PodState::Terminal) => Phase::Deleting,
        _ if view.deployment.is_some() => Phase::Deploying,
        Some(PodState::Stable) => Phase::Running,
        Some(PodState::Degraded) | None => Phase::Degraded,
    }
}

fn counts(view: &PodView, census: &Census<'_>) -> Counts {
    let active = is_active(view);
    let config = view.accepted.as_ref().map(|held| Version::from_millis(held.value.config_ms));
    let wanted = definition_in_force(view).filter(|_| active).map_or(0, |definition| definition.scaling.instances);
    let mut counts = Counts { wanted, ..Counts::default() };
    for member in &census.members {
        count(&mut counts, member, config);
    }
    counts
}

fn count(counts: &mut Counts, member: &Member<'_>, config: Option<Version>) {
    let running = member.condition == Condition::Running;
    counts.running += usize::from(running);
    counts.healthy += usize::from(running && member.healthy);
    counts.up_to_date += usize::from(running && Some(member.config) == config);
    if !member.is_wanted() {
        counts.stopping += usize::from(!member.is_idle());
        return;
    }
    match member.condition {
        Condition::Running => {}
        Condition::Provisioned | Condition::Staging | Condition::Starting => counts.starting += 1,
        Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown => counts.unreachable += 1,
        Condition::Killing => counts.stopping += 1,
        _ => counts.waiting += 1,
    }
}

fn deployment(view: &PodView) -> Option<Value> {
    let deployment = &view.deployment.as_ref()?.value;
    let kind = DeploymentKind::try_from(deployment.kind).map_or("UNKNOWN", |kind| kind.as_str_name());
    Some(json!({ "id": deployment.id, "kind": kind, "version": Version::from_millis(deployment.version_ms) }))
}
