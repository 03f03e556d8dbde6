//! Pods with persistent volumes: an instance is its data, so a new config is run by the instances that there are, launched again
//! each in its place; and none goes for good but where the definition in force wants fewer.

use podium_proto::records::accepted::Phase;
use podium_store::view::PodView;
use podium_types::definition::PodDefinition;
use podium_types::id::Version;

use super::Plan;
use crate::runtime::{Census, Member};

/// What of a pod's surplus goes, and what moves on to the config in force.
pub struct Residents<'m, 'a> {
    /// The config in force, where this is such a pod.
    config: Option<Version>,
    /// As many more than are wanted there are: so many may go.
    excess: usize,
    /// As many fewer than are wanted there are: so many may come.
    lack: usize,
    /// Of old configs, beyond what these want.
    movable: Vec<&'m Member<'a>>,
    /// Of the new config, beside those that may come.
    missing: usize,
}

impl<'m, 'a> Residents<'m, 'a> {
    /// Whether it is such a pod, and how many instances it has and should have.
    pub fn of(view: &PodView, census: &Census<'_>, definition: Option<&PodDefinition>) -> Self {
        let (accepted, definition) = (view.accepted.as_ref(), definition.filter(|definition| definition.is_resident()));
        let config = accepted.filter(|_| definition.is_some()).map(|accepted| Version::from_millis(accepted.value.config_ms));
        let deleting = accepted.is_some_and(|accepted| Phase::try_from(accepted.value.phase) == Ok(Phase::Deleting));
        let wanted = definition.filter(|_| !deleting).map_or(0, |definition| definition.scaling.instances as usize);
        let counted = census.members.iter().filter(|member| member.counts()).count();
        let (excess, lack) = (counted.saturating_sub(wanted), wanted.saturating_sub(counted));
        Self { config, excess, lack, movable: Vec::new(), missing: 0 }
    }

    /// Of so many that a set lacks: how many may be created.
    pub fn missing(&mut self, config: Version, missing: usize) -> usize {
        let Some(present) = self.config else { return missing };
        let created = missing.min(self.lack);
        self.lack -= created;
        if config == present {
            self.missing = missing - created;
        }
        created
    }

    /// Of these that a set has too many: who is to go for good. The others of old configs may move on.
    pub fn victims(&mut self, config: Version, mut victims: Vec<&'m Member<'a>>) -> Vec<&'m Member<'a>> {
        let Some(present) = self.config else { return victims };
        let kept = victims.split_off(victims.len().min(self.excess));
        self.excess -= victims.len();
        if config != present {
            self.movable.extend(kept);
        }
        victims
    }

    /// Those that move on, as far as the new config lacks some.
    pub fn conclude(self, plan: &mut Plan<'_>) {
        let Some(config) = self.config else { return };
        let moved: Vec<_> = self.movable.into_iter().take(self.missing).map(|member| member.uuid).collect();
        if moved.is_empty() {
            return;
        }
        plan.ended.retain(|member| !moved.contains(&member.uuid));
        plan.moved.push((config, moved));
    }
}
