//! Who is there: a pod's instances with what follows from their records. Read by every decision that counts instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_proto::records::{Goal, Instance, Observed};
use podium_store::view::{Held, PodView};
use podium_types::condition::{self, Condition};
use podium_types::definition::PodDefinition;
use podium_types::id::Version;
use uuid::Uuid;

/// All instances of a pod.
pub struct Census<'a> {
    /// By uuid.
    pub members: Vec<Member<'a>>,
}

/// One instance, and what its records say together.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// Which instance.
    pub uuid: Uuid,
    /// The config that it runs.
    pub config: Version,
    /// Its record.
    pub held: &'a Held<Instance>,
    /// What was last observed of it, of whatever incarnation.
    pub observed: Option<&'a Held<Observed>>,
    /// The condition of its present incarnation.
    pub condition: Condition,
    /// Running, every checked container has said that it is healthy, and nobody has ordered its end.
    pub healthy: bool,
    /// Since when nobody can say how it is, or how what is left of its last launch is, by Mesos' time stamps; `None`: it is not
    /// away. Milliseconds.
    pub away_since_ms: Option<i64>,
    /// Its agent is away for so long that it no longer counts.
    pub inactive: bool,
    /// It was given up: its record is to go.
    pub expunged: bool,
}

impl<'a> Census<'a> {
    /// Joins the records of one pod.
    pub fn take(view: &'a PodView) -> Self {
        let mut definitions = Definitions { view, known: BTreeMap::new() };
        let members = view.instances.iter().map(|(uuid, held)| Member::join(view, *uuid, held, &mut definitions)).collect();
        Self { members }
    }

    /// Instances of one config.
    pub fn of(&self, config: Version) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(move |member| member.config == config)
    }

    /// Healthy instances that are wanted, of every config: what a floor is compared with.
    pub fn healthy(&self) -> usize {
        self.members.iter().filter(|member| member.is_healthy()).count()
    }
}

impl<'a> Member<'a> {
    fn join(view: &'a PodView, uuid: Uuid, held: &'a Held<Instance>, definitions: &mut Definitions<'_>) -> Self {
        let config = Version::from_millis(held.value.config_ms);
        let observed = view.observed.get(&uuid);
        let reach = view.reach.get(&uuid).map(|reach| &reach.value);
        let record = observed.map(|observed| &observed.value);
        let condition = condition::of_instance(&held.value, record, reach);
        let healthy = condition == Condition::Running && !condition::is_to_be_killed(&held.value) && {
            let definition = definitions.of(config);
            condition::is_healthy(&held.value, record, reach, |container| has_check(definition, container))
        };
        // What is left of an earlier launch is as good a reason to wait, or to give it up, as the present one.
        let away_since_ms = record.filter(|record| is_away(condition::of_observed(record, reach))).and_then(away_since);
        Self {
            uuid,
            config,
            held,
            observed,
            condition,
            healthy,
            away_since_ms,
            // A record of an earlier absence says nothing about this one.
            inactive: reach.is_some_and(|reach| reach.inactive && Some(reach.unreachable_ms) == away_since_ms),
            expunged: reach.is_some_and(|reach| reach.expunged),
        }
    }

    /// Whether its goal is to run.
    pub fn is_wanted(&self) -> bool {
        Goal::try_from(self.held.value.goal) == Ok(Goal::Running)
    }

    /// Whether it fills a place of its replica set.
    pub fn counts(&self) -> bool {
        self.is_wanted() && !self.inactive && !self.expunged
    }

    /// Whether it is one of the healthy instances that a floor protects.
    pub fn is_healthy(&self) -> bool {
        self.healthy && self.counts()
    }

    /// Whether the launch of its present incarnation was recorded.
    pub fn is_launched(&self) -> bool {
        self.condition != Condition::Scheduled
    }

    /// Whether the present incarnation runs, or was sent to run.
    pub fn is_under_way(&self) -> bool {
        self.is_launched() && !self.condition.is_terminal()
    }

    /// Whether nothing of it runs or was sent to run: never launched, or ended, and so has all of its earlier launches.
    pub fn is_idle(&self) -> bool {
        !self.is_under_way() && !self.observed.is_some_and(|observed| is_open(&observed.value))
    }

    /// Whether it takes one of the places that a ceiling allows: it runs, perhaps runs, or may be launched at any time.
    pub fn occupies(&self) -> bool {
        self.counts() || !(self.is_idle() || self.inactive || self.expunged)
    }

    /// When the launch that was last recorded of it was recorded; 0: none was. Milliseconds.
    pub fn launched_ms(&self) -> i64 {
        self.observed.map_or(0, |observed| observed.value.provisioned_ms)
    }

    /// When its present incarnation began to run; before that, when it was created. Milliseconds.
    pub fn since_ms(&self) -> i64 {
        let running = self
            .observed
            .filter(|_| self.is_launched())
            .and_then(|observed| observed.value.tasks.iter().map(|task| task.running_ms).filter(|running| *running > 0).min());
        running.unwrap_or(self.held.value.created_ms)
    }
}

/// The definition of the version in force, also while the pod is being deleted: grace periods and times come from it.
pub fn definition_in_force(view: &PodView) -> Option<Arc<PodDefinition>> {
    definition_of(view, Version::from_millis(view.accepted.as_ref()?.value.version_ms))
}

/// When the agent was lost, or Mesos' knowledge of the tasks.
fn away_since(observed: &Observed) -> Option<i64> {
    let away = observed.tasks.iter().filter(|task| is_away(condition::of_task(task)));
    away.map(|task| if task.unreachable_ms > 0 { task.unreachable_ms } else { task.since_ms }).max()
}

/// Whether an instance is to be counted for what was observed of it, without a record of its own too: something of it runs, or it
/// was taken on and is its data. The latter it is until the gateway has noted that it ended: it would be taken on again.
pub fn is_open(observed: &Observed) -> bool {
    (observed.adopted && observed.reservation.is_some()) || observed.tasks.iter().any(condition::task_is_alive)
}

/// Whether nobody can say how it is: its agent is away, or Mesos has no record of it.
pub fn is_away(condition: Condition) -> bool {
    matches!(condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown)
}

/// The definitions of the configs that run; each is looked up once.
struct Definitions<'a> {
    view: &'a PodView,
    known: BTreeMap<Version, Option<Arc<PodDefinition>>>,
}

impl Definitions<'_> {
    fn of(&mut self, config: Version) -> Option<&PodDefinition> {
        let view = self.view;
        self.known.entry(config).or_insert_with(|| definition_of(view, config)).as_deref()
    }
}

/// The definition of a version, if it is there and can be read.
pub(crate) fn definition_of(view: &PodView, version: Version) -> Option<Arc<PodDefinition>> {
    view.versions.get(&version)?.value.definition()
}

/// Whether a definition checks the health of a container.
pub(crate) fn has_check(definition: Option<&PodDefinition>, container: &str) -> bool {
    definition.is_some_and(|definition| definition.containers.iter().any(|known| known.name == container && known.health_check.is_some()))
}
