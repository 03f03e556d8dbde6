//! Judges what was pushed, keeps what was accepted, and prunes history.
//!
//! ```text
//!   REST --- plan_push, plan_delete ---.
//!                                      +--> specs, accepted, versions, deployments, verdicts   (one transaction)
//!   etcdctl --> specs --> [`Admission`] '
//! ```
//!
//! [`plan_push`], [`plan_delete`] and [`plan_refusal`] are the judge that the API and the controller share. A bad push
//! changes nothing but the verdict. A push while the pod is being deleted revives it: a new config, since re-creation
//! always is one, that upgrade rolls out while the old instances go; nothing waits for the deletion's end.

mod plan;
mod prune;

pub use plan::{DeletePlan, PlanError, Push, PushPlan, PushSource, Source, plan_back, plan_delete, plan_push, plan_refusal};
pub use prune::{KEPT_MS, KEPT_VERSIONS};

use podium_proto::records::Accepted;
use podium_proto::records::accepted::Phase;
use podium_store::view::{Held, PodView};
use podium_store::writer::{Compare, Group, Op};
use podium_store::{Key, Kind};
use podium_types::definition::{self, Reading, Settings, Violation, Warning};
use podium_types::id::{PodId, Version};

use crate::runtime::{Controller, Decision, Ids, Now, definition_in_force};

/// Fields that one line of the log names; a definition can hold thousands.
const LOGGED_FIELDS: usize = 16;

/// The controller: judges what was put straight into etcd.
#[derive(Debug, Default)]
pub struct Admission {
    settings: Settings,
}

impl Admission {
    /// Judges with these defaults; the API must use the same.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }
}

/// One change that admission wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// The spec is good: it takes effect.
    Accept(Box<Reading>),
    /// The spec is bad: only its verdict changes.
    Refuse(Vec<Violation>),
    /// The spec was deleted: the pod goes.
    Delete,
    /// The refused spec was deleted: so is its verdict.
    Acquit,
    /// The pod is gone: from now on its history ages.
    Age,
    /// Definitions that are too old, or too many.
    Prune(Vec<Version>),
}

impl Controller for Admission {
    type Intent = Intent;

    fn name(&self) -> &'static str {
        "admission"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Spec, Kind::Accepted, Kind::Version, Kind::Verdict, Kind::Set]
    }

    fn decide(&self, view: &PodView, now: Now) -> Decision<Intent> {
        decide(view, &self.settings, now)
    }

    fn apply(&self, view: &PodView, intents: Vec<Intent>, now: Now, ids: &mut dyn Ids) -> Vec<Group> {
        intents.into_iter().filter_map(|intent| group(view, intent, now, ids)).collect()
    }
}

/// The revision of the spec that `accepted` speaks of: its own where the API wrote both.
pub fn judged_revision(accepted: &Held<Accepted>) -> i64 {
    if accepted.value.spec_revision == 0 { accepted.mod_revision } else { accepted.value.spec_revision }
}

/// Whether the pod is there for its users: accepted, and not being deleted.
pub fn is_active(view: &PodView) -> bool {
    view.accepted.as_ref().is_some_and(|accepted| Phase::try_from(accepted.value.phase) == Ok(Phase::Active))
}

/// The spec if nobody has judged it yet.
fn unjudged(view: &PodView) -> Option<&Held<bytes::Bytes>> {
    let spec = view.spec.as_ref()?;
    let accepted = view.accepted.as_ref().map(judged_revision);
    let refused = view.verdict.as_ref().filter(|verdict| !verdict.value.violations.is_empty()).map(|verdict| verdict.value.spec_revision);
    // Compared as equal and not as older, so that a store that was copied, with other revisions, is judged afresh.
    (![accepted, refused].contains(&Some(spec.mod_revision))).then_some(spec)
}

/// What must change for `accepted` to say what the spec says. Pure.
pub fn decide(view: &PodView, settings: &Settings, now: Now) -> Decision<Intent> {
    let judged = [Key::Accepted(view.id.clone()), Key::Verdict(view.id.clone())];
    if judged.iter().any(|key| view.unreadable.contains_key(key)) {
        // A newer Podium wrote it and judges by its own rules.
        return Decision::nothing();
    }
    if let Some(spec) = unjudged(view) {
        let present = definition_in_force(view);
        return Decision::now(vec![match definition::read_as(&spec.value, &view.id, present.as_deref(), settings) {
            Ok(reading) => Intent::Accept(Box::new(reading)),
            Err(error) => Intent::Refuse(error.violations()),
        }]);
    }
    if view.spec.is_none() {
        if is_active(view) {
            return Decision::now(vec![Intent::Delete]);
        }
        if view.verdict.is_some() {
            return Decision::now(vec![Intent::Acquit]);
        }
    }
    prune::decide(view, now)
}

/// Logs the fields of an accepted definition that mean nothing to Podium: one line a definition.
pub fn tell_what_was_read_over(pod: &PodId, warnings: &[Warning]) {
    if !warnings.is_empty() {
        let fields: Vec<String> = warnings.iter().take(LOGGED_FIELDS).map(Warning::to_string).collect();
        tracing::warn!(%pod, count = warnings.len(), fields = fields.join("; "), "unknown fields of a definition were read over");
    }
}

fn group(view: &PodView, intent: Intent, now: Now, ids: &mut dyn Ids) -> Option<Group> {
    match intent {
        Intent::Accept(reading) => {
            let spec = view.spec.as_ref()?;
            tell_what_was_read_over(&view.id, &reading.warnings);
            let push = Push { definition: reading.definition, source: PushSource::Spec { mod_revision: spec.mod_revision } };
            match plan_push(Some(view), push, now.0, ids.draw(), true) {
                Ok(plan) => Some(plan.group),
                Err(PlanError::Refused(violations)) => Some(plan_refusal(view, spec.mod_revision, &violations, now.0)),
                Err(error) => {
                    tracing::error!(pod = %view.id, %error, "a spec can't be judged");
                    None
                }
            }
        }
        Intent::Refuse(violations) => Some(plan_refusal(view, view.spec.as_ref()?.mod_revision, &violations, now.0)),
        Intent::Delete => plan_delete(view, Source::Spec, now.0, ids.draw(), true).ok().map(|plan| plan.group),
        Intent::Acquit => Some(acquittal(view)),
        Intent::Age => Some(prune::note(view, now)),
        Intent::Prune(versions) => Some(prune::group(view, versions)),
    }
}

/// Deletes the verdict while there is no spec that it could be about.
fn acquittal(view: &PodView) -> Group {
    let key = Key::Verdict(view.id.clone());
    Group::new(view.id.clone())
        .when(Compare::Absent(Key::Spec(view.id.clone())))
        .when(Compare::as_seen(key.clone(), view.verdict.as_ref()))
        .then(Op::Delete(key))
}

#[cfg(test)]
mod tests;
