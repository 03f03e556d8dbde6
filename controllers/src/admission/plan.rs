//! The judge: what one push or deletion writes, as one group. Pure; the caller commits and tells its client.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use podium_proto::records::accepted::Phase;
use podium_proto::records::deployment::Kind as DeploymentKind;
use podium_proto::records::verdict;
use podium_proto::records::{Accepted, Deployment, Goal, Verdict};
use podium_store::Key;
use podium_store::view::{Held, PodView};
use podium_store::writer::{Compare, Group, Op};
use podium_types::definition::{Change, MAX_BYTES, PodDefinition, Violation, config_changed, update_violations};
use podium_types::id::{PodId, Version};
use uuid::Uuid;

/// A definition that was read, and where it comes from.
#[derive(Debug, Clone)]
pub struct Push {
    /// As [`podium_types::definition::read_as`] gave it; its version is replaced.
    pub definition: PodDefinition,
    /// Who pushed it.
    pub source: PushSource,
}

/// Where a push comes from.
#[derive(Debug, Clone)]
pub enum PushSource {
    /// The API: the spec is written in the same transaction.
    Api {
        /// As its author sent it.
        spec_json: Bytes,
    },
    /// It stands in `specs` already.
    Spec {
        /// The revision that was read.
        mod_revision: i64,
    },
}

/// Who deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The API: the spec is deleted in the same transaction.
    Api,
    /// The spec is gone already.
    Spec,
}

/// What a good push writes.
#[derive(Debug)]
pub struct PushPlan {
    /// To commit. Without writes if the very same spec is in force already: its compares still say so.
    pub group: Group,
    /// The version in force afterwards; that of before if nothing changes.
    pub version: Version,
    /// The version that last changed what runs.
    pub config: Version,
    /// The deployment that begins; `None`: nothing is to be deployed.
    pub deployment: Option<Uuid>,
    /// What the push changes. A pod that is created or comes back changes its config.
    pub change: Change,
    /// What is in force afterwards, with its version.
    pub definition: Arc<PodDefinition>,
    /// The same in the explicit form, as answered.
    pub json: Bytes,
}

/// What a deletion writes.
#[derive(Debug)]
pub struct DeletePlan {
    /// To commit.
    pub group: Group,
    /// The deployment that stops the pod.
    pub deployment: Uuid,
}

/// Why nothing is planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A deployment is running and `force` was not asked for (409). Its id, as in `deployments`.
    #[error(
        "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
    )]
    Locked {
        /// The running deployment's id.
        deployment: String,
    },
    /// The definition may not replace the one in force (422).
    #[error("{}", .0.iter().map(Violation::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Violation>),
    /// There is no such pod (404).
    #[error("Pod '{0}' does not exist")]
    NotFound(PodId),
    /// A record that the decision rests on cannot be read by this build (503): a newer Podium wrote it, or it is damaged.
    #[error("{0} can't be read by this version of Podium; upgrade it, ask the newer replica, or mend the record if it is damaged")]
    Unreadable(String),
}

/// What `accepted` says, and the definition that it names.
struct InForce<'a> {
    held: &'a Held<Accepted>,
    version: Version,
    config: Version,
    deleting: bool,
    /// `None` if the stored text cannot be read; any push replaces it.
    definition: Option<Arc<PodDefinition>>,
}

impl<'a> InForce<'a> {
    fn of(view: &'a PodView) -> Option<Self> {
        let held = view.accepted.as_ref()?;
        let version = Version::from_millis(held.value.version_ms);
        Some(Self {
            held,
            version,
            config: Version::from_millis(held.value.config_ms),
            deleting: Phase::try_from(held.value.phase) == Ok(Phase::Deleting),
            definition: view.versions.get(&version).and_then(|stored| stored.value.definition()),
        })
    }

    fn change(&self, new: &PodDefinition) -> Change {
        match &self.definition {
            Some(old) if !self.deleting => config_changed(old, new),
            _ => Change::Config,
        }
    }
}

/// Plans what a good definition writes: `versions`, `accepted` and, where anything is to be deployed, `deployments`;
/// for the API `specs` too. Without `force` the API waits for a running deployment; a push that changes nothing never does.
///
/// `view` is what the caller knows of the pod (`None`: nothing), and everything that the plan rests on is compared:
/// on a conflict look again. `deployment` is the id that a deployment would have.
pub fn plan_push(view: Option<&PodView>, push: Push, now_ms: i64, deployment: Uuid, force: bool) -> Result<PushPlan, PlanError> {
    let empty = PodView::new(push.definition.id.clone());
    plan(view.unwrap_or(&empty), push, now_ms, deployment, force, |_| None)
}

/// Plans that a pod becomes again what it was, as a push with `force`; but where instances still run what the definition says,
/// theirs is the config: they stay, and those that were to take their place go.
pub fn plan_back(view: &PodView, push: Push, now_ms: i64, deployment: Uuid) -> Result<PushPlan, PlanError> {
    plan(view, push, now_ms, deployment, true, |definition| config_that_runs(view, definition))
}

/// The newest config of instances that are to run on, and that are as a definition says.
fn config_that_runs(view: &PodView, definition: &PodDefinition) -> Option<Version> {
    let wanted = view.instances.values().filter(|held| Goal::try_from(held.value.goal) == Ok(Goal::Running));
    let configs: BTreeSet<Version> = wanted.map(|held| Version::from_millis(held.value.config_ms)).collect();
    let same = |config: &&Version| {
        let old = view.versions.get(config).and_then(|stored| stored.value.definition());
        old.is_some_and(|old| config_changed(&old, definition) != Change::Config)
    };
    configs.iter().rev().find(same).copied()
}

/// `known` is the config under which a definition runs already, if its instances are to stay.
fn plan(
    view: &PodView,
    push: Push,
    now_ms: i64,
    deployment: Uuid,
    force: bool,
    known: impl FnOnce(&PodDefinition) -> Option<Version>,
) -> Result<PushPlan, PlanError> {
    let Push { definition, source } = push;
    readable(view)?;
    let in_force = InForce::of(view);
    let change = in_force.as_ref().map_or(Change::Config, |in_force| in_force.change(&definition));
    if let Some(in_force) = in_force.as_ref().filter(|_| change == Change::Nothing) {
        return Ok(plan_same(view, in_force, &source, definition));
    }
    if let Some(old) = in_force.as_ref().filter(|in_force| !in_force.deleting).and_then(|in_force| in_force.definition.as_deref()) {
        refuse(update_violations(old, &definition, force))?;
    }
    let version = Version::next(now_ms, last_version(view));
    let known = if change == Change::Config { known(&definition) } else { None };
    let config = match in_force.as_ref().filter(|_| change != Change::Config) {
        Some(in_force) => in_force.config,
        None => known.unwrap_or(version),
    };
    let definition = PodDefinition { version: Some(version), ..definition };
    let json = explicit(&definition)?;
    let mut group = group_for(view, &source);
    if matches!(source, PushSource::Api { .. }) && !force {
        group = unlocked(view, group)?;
    }
    group = group
        .when(Compare::Absent(Key::Version(view.id.clone(), version)))
        .then(Op::Put(Key::Version(view.id.clone(), version), json.clone()))
        .then(put_accepted(view, version, config, &source))
        .then(Op::Delete(Key::Verdict(view.id.clone())));
    if let Some(config) = known {
        // Those who run it may have ended meanwhile, and the history let go of it: of a config that is not there nothing starts.
        group = group.when(Compare::Present(Key::Version(view.id.clone(), config)));
    }
    if in_force.is_none() {
        // Seen or not: the pod is back, and its history ages no more.
        group = group.then(Op::Delete(Key::Deleted(view.id.clone())));
    }
    let rest = rest_of_deployment(view);
    if rest.is_some() && matches!(change, Change::SettingsOnly | Change::ScaleOnly) {
        // Should it end meanwhile, nothing is left to do.
        group = group.when(Compare::as_seen(Key::Deployment(view.id.clone()), view.deployment.as_ref()));
    }
    let kind = match (change, &in_force) {
        (Change::Nothing, _) => None,
        (Change::SettingsOnly, _) => rest,
        (Change::ScaleOnly, _) => rest.or(Some(DeploymentKind::Scale)),
        (Change::Config, Some(in_force)) if !in_force.deleting => Some(DeploymentKind::Restart),
        (Change::Config, _) => Some(DeploymentKind::Start),
    };
    if let Some(kind) = kind {
        let previous = in_force.as_ref().map_or(0, |in_force| in_force.version.as_millis());
        group = group.then(put_deployment(view, deployment, kind, version, previous, now_ms));
    }
    let deployment = kind.map(|_| deployment);
    Ok(PushPlan { group, version, config, deployment, change, definition: Arc::new(definition), json })
}

/// What is left to do of the running deployment for one that takes its place without another config: what is being replaced
/// still is; of a pod that is being started, instances are still to come.
fn rest_of_deployment(view: &PodView) -> Option<DeploymentKind> {
    let running = view.deployment.as_ref().filter(|held| !held.value.dropped)?;
    match DeploymentKind::try_from(running.value.kind).ok()? {
        DeploymentKind::Restart => Some(DeploymentKind::Restart),
        DeploymentKind::Start | DeploymentKind::Scale | DeploymentKind::Stop => Some(DeploymentKind::Scale),
    }
}

/// The definition is in force already: only that this spec was judged is new, and not even that if it is the same text.
fn plan_same(view: &PodView, in_force: &InForce<'_>, source: &PushSource, definition: PodDefinition) -> PushPlan {
    let (version, config) = (in_force.version, in_force.config);
    let mut group = group_for(view, source);
    let settled = match (source, &view.spec) {
        (PushSource::Api { spec_json }, Some(spec)) => {
            *spec_json == spec.value && super::judged_revision(in_force.held) == spec.mod_revision && view.verdict.is_none()
        }
        _ => false,
    };
    if settled {
        group.ops.clear();
        group = group.when(Compare::as_seen(Key::Spec(view.id.clone()), view.spec.as_ref()));
    } else {
        group = group.then(put_accepted(view, version, config, source)).then(Op::Delete(Key::Verdict(view.id.clone())));
    }
    let definition = in_force.definition.clone().unwrap_or_else(|| Arc::new(definition));
    let json = view.versions.get(&version).map(|stored| stored.value.json.clone()).unwrap_or_default();
    PushPlan { group, version, config, deployment: None, change: Change::Nothing, definition, json }
}

/// Plans what a bad spec writes: its verdict, and nothing else.
pub fn plan_refusal(view: &PodView, spec_revision: i64, violations: &[Violation], now_ms: i64) -> Group {
    let pod = &view.id;
    let violations =
        violations.iter().map(|violation| verdict::Violation { path: violation.path.clone(), message: violation.text() }).collect();
    let verdict = Verdict { schema: 0, spec_revision, violations, judged_ms: now_ms };
    Group::new(pod.clone())
        .when(Compare::Unchanged(Key::Spec(pod.clone()), spec_revision))
        .when(Compare::as_seen(Key::Verdict(pod.clone()), view.verdict.as_ref()))
        .then(Op::record(Key::Verdict(pod.clone()), verdict))
}

/// Plans a deletion: `accepted` turns Deleting, since grace periods need the definition, and a deployment stops the
/// instances. The pod is gone for its users at once.
pub fn plan_delete(view: &PodView, source: Source, now_ms: i64, deployment: Uuid, force: bool) -> Result<DeletePlan, PlanError> {
    readable(view)?;
    let in_force = InForce::of(view).filter(|in_force| !in_force.deleting).ok_or_else(|| PlanError::NotFound(view.id.clone()))?;
    let pod = &view.id;
    let mut group = Group::new(pod.clone()).when(Compare::Unchanged(Key::Accepted(pod.clone()), in_force.held.mod_revision));
    match source {
        Source::Api => {
            if !force {
                group = unlocked(view, group)?;
            }
            group = group.then(Op::Delete(Key::Spec(pod.clone())));
        }
        Source::Spec => group = group.when(Compare::Absent(Key::Spec(pod.clone()))),
    }
    let version = in_force.version;
    let accepted = Accepted { phase: Phase::Deleting.into(), ..in_force.held.value };
    let group = group
        .then(Op::record(Key::Accepted(pod.clone()), accepted))
        .then(Op::Delete(Key::Verdict(pod.clone())))
        .then(put_deployment(view, deployment, DeploymentKind::Stop, version, version.as_millis(), now_ms));
    Ok(DeletePlan { group, deployment })
}

/// A group that rests on `accepted` as seen and, for a spec that stands already, on that spec; for the API it writes the spec.
fn group_for(view: &PodView, source: &PushSource) -> Group {
    let pod = &view.id;
    let group = Group::new(pod.clone()).when(Compare::as_seen(Key::Accepted(pod.clone()), view.accepted.as_ref()));
    match source {
        PushSource::Api { spec_json } => group.then(Op::Put(Key::Spec(pod.clone()), spec_json.clone())),
        PushSource::Spec { mod_revision } => group.when(Compare::Unchanged(Key::Spec(pod.clone()), *mod_revision)),
    }
}

/// Demands that no deployment is running.
fn unlocked(view: &PodView, group: Group) -> Result<Group, PlanError> {
    match &view.deployment {
        Some(running) => Err(PlanError::Locked { deployment: running.value.id.clone() }),
        None => Ok(group.when(Compare::Absent(Key::Deployment(view.id.clone())))),
    }
}

fn readable(view: &PodView) -> Result<(), PlanError> {
    let pod = &view.id;
    let rests_on = [Key::Accepted(pod.clone()), Key::Deployment(pod.clone()), Key::Verdict(pod.clone())];
    match rests_on.iter().find(|key| view.unreadable.contains_key(*key)) {
        Some(key) => Err(PlanError::Unreadable(key.to_string())),
        None => Ok(()),
    }
}

/// The newest version that was ever in force, also of an earlier pod of this id.
fn last_version(view: &PodView) -> Option<Version> {
    let history = view.versions.last_key_value().map(|(version, _)| *version);
    let accepted = view.accepted.as_ref().map(|held| Version::from_millis(held.value.version_ms));
    history.max(accepted)
}

fn refuse(violations: Vec<Violation>) -> Result<(), PlanError> {
    if violations.is_empty() { Ok(()) } else { Err(PlanError::Refused(violations)) }
}

/// The explicit form as bytes. It is as long as a spec may be at most: so it can be read again and sent back, and the
/// transaction with the spec beside it stays below etcd's 1.5 MiB.
fn explicit(definition: &PodDefinition) -> Result<Bytes, PlanError> {
    let json = serde_json::to_vec(definition).map_err(|error| PlanError::Refused(vec![Violation::rule("/", error.to_string())]))?;
    if json.len() > MAX_BYTES {
        let message = format!("the definition has {} bytes with all its defaults, the limit is {MAX_BYTES}", json.len());
        return Err(PlanError::Refused(vec![Violation::rule("/", message)]));
    }
    Ok(json.into())
}

fn put_accepted(view: &PodView, version: Version, config: Version, source: &PushSource) -> Op {
    let spec_revision = match source {
        PushSource::Api { .. } => 0,
        PushSource::Spec { mod_revision } => *mod_revision,
    };
    let accepted =
        Accepted { schema: 0, version_ms: version.as_millis(), config_ms: config.as_millis(), spec_revision, phase: Phase::Active.into() };
    Op::record(Key::Accepted(view.id.clone()), accepted)
}

fn put_deployment(view: &PodView, id: Uuid, kind: DeploymentKind, version: Version, previous_version_ms: i64, now_ms: i64) -> Op {
    let deployment = Deployment {
        schema: 0,
        id: id.to_string(),
        kind: kind.into(),
        version_ms: version.as_millis(),
        previous_version_ms,
        started_ms: now_ms,
        current_step: 0,
        dropped: false,
    };
    Op::record(Key::Deployment(view.id.clone()), deployment)
}
