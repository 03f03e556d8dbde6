//! A store, a cluster and a gateway, as small as the decisions allow: one pod, no I/O, a clock that is set by hand.
//!
//! The store checks every condition of a group as etcd does. Three promises are checked at each write of a controller:
//! it raises the instances above no ceiling, takes the healthy ones below no floor, and no record goes while a task of it,
//! of whatever incarnation, is alive and no tombstone tells what to do with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use podium_controllers::runtime::{Controller, Ids, Now};
use podium_controllers::scaling::Scaling;
use podium_controllers::unreachable::Unreachable;
use podium_controllers::upgrade::Upgrade;
use podium_proto::mesos::v1::TaskState;
use podium_proto::records::accepted::Phase;
use podium_proto::records::deployment::Kind;
use podium_proto::records::{Accepted, Deployment, Goal, Instance, Kill, Observed, Reset, observed};
use podium_store::Key;
use podium_store::codec;
use podium_store::view::{Held, PodView, StoredDefinition};
use podium_store::writer::{Compare, Group, Op};
use podium_types::condition::{self, Condition};
use podium_types::definition::{PodDefinition, Settings, read};
use podium_types::id::{PodId, Version};
use uuid::Uuid;

/// What stands behind a key.
#[derive(Clone)]
pub struct Entry {
    value: Bytes,
    create_revision: i64,
    mod_revision: i64,
}

/// The keys of one pod.
#[derive(Default)]
pub struct Keys(BTreeMap<Key, Entry>);

/// What a push may say; the rest of the definition never matters here.
#[derive(Debug, Clone)]
pub struct Push {
    pub instances: u32,
    pub min: f64,
    pub over: f64,
    pub checked: bool,
    pub oldest_first: bool,
    pub backoff: f64,
    pub unreachable: Option<(u64, u64)>,
    /// With a persistent volume; the same for all pushes of a world.
    pub resident: bool,
    /// A new config, or only other numbers.
    pub restart: bool,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            instances: 1,
            min: 1.0,
            over: 1.0,
            checked: false,
            oldest_first: false,
            backoff: 1.0,
            unreachable: Some((60, 600)),
            resident: false,
            restart: true,
        }
    }
}

/// One controller with its groups that were decided and not yet answered.
pub struct Worker<C: Controller> {
    pub controller: C,
    pub pending: Vec<Group>,
    /// Wall time at which it wants to look again.
    pub wake: Option<i64>,
}

pub struct World {
    pub now: i64,
    pub pod: PodId,
    pub keys: Keys,
    /// Read once.
    definitions: BTreeMap<Version, Arc<PodDefinition>>,
    pub revision: i64,
    pub upgrade: Worker<Upgrade>,
    pub scaling: Worker<Scaling>,
    pub unreachable: Worker<Unreachable>,
    /// Agents that are away.
    pub lost: BTreeSet<String>,
    pub agents: Vec<String>,
    /// Configs whose instances never become healthy.
    pub bad: BTreeSet<i64>,
    /// Instances that take their time to end when they are killed.
    pub slow: BTreeSet<Uuid>,
    ids: Counter,
    /// Instances in the order in which they were created.
    pub names: Vec<Uuid>,
    /// What happened, for people.
    pub log: Vec<String>,
}

struct Counter(u128);

impl Ids for Counter {
    fn draw(&mut self) -> Uuid {
        self.0 += 1;
        Uuid::from_u128(self.0)
    }
}

impl<C: Controller + Default> Default for Worker<C> {
    fn default() -> Self {
        Self { controller: C::default(), pending: Vec::new(), wake: None }
    }
}

impl<C: Controller> Worker<C> {
    /// Decides, and leaves the groups pending.
    fn decide(&mut self, view: &PodView, now: i64, ids: &mut Counter) {
        let decision = self.controller.decide(view, Now(now));
        self.wake = decision.wake;
        if !decision.intents.is_empty() {
            self.pending = self.controller.apply(view, decision.intents, Now(now), ids);
        }
    }
}

/// Which controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Upgrade,
    Scaling,
    Unreachable,
}

pub const ALL: [Who; 3] = [Who::Upgrade, Who::Scaling, Who::Unreachable];

impl World {
    pub fn new(agents: usize) -> Self {
        Self {
            now: 1_000_000,
            pod: PodId::new("/a").unwrap(),
            keys: Keys::default(),
            definitions: BTreeMap::new(),
            revision: 1,
            upgrade: Worker::default(),
            scaling: Worker::default(),
            unreachable: Worker::default(),
            lost: BTreeSet::new(),
            agents: (1..=agents).map(|n| format!("agent-{n}")).collect(),
            bad: BTreeSet::new(),
            slow: BTreeSet::new(),
            ids: Counter(0),
            names: Vec::new(),
            log: Vec::new(),
        }
    }

    pub fn view(&self) -> PodView {
        self.keys.view(&self.pod, &self.definitions)
    }

    /// As the API does: one transaction puts the version, what is accepted and the deployment.
    pub fn push(&mut self, push: &Push) {
        let view = self.view();
        let last = view.versions.keys().next_back().copied();
        let version = Version::next(self.now, last);
        let previous = view.accepted.as_ref().map(|held| held.value);
        let active = previous.filter(|accepted| Phase::try_from(accepted.phase) == Ok(Phase::Active));
        let config_ms = match active {
            Some(accepted) if !push.restart => accepted.config_ms,
            _ => version.as_millis(),
        };
        let kind = match (active, push.restart) {
            (None, _) => Kind::Start,
            (Some(_), true) => Kind::Restart,
            (Some(_), false) => Kind::Scale,
        };
        let mut definition = definition(push);
        definition.version = Some(version);
        // What tells one config from another.
        definition.labels.insert("config".to_owned(), config_ms.to_string());
        self.put(Key::Version(self.pod.clone(), version), serde_json::to_vec(&definition).unwrap().into());
        self.definitions.insert(version, Arc::new(definition));
        let accepted = Accepted { version_ms: version.as_millis(), config_ms, phase: Phase::Active.into(), ..Accepted::default() };
        self.put(Key::Accepted(self.pod.clone()), codec::encode(accepted));
        self.put_deployment(kind, version.as_millis());
        self.now += 1;
    }

    /// As the API does when a deployment is rolled back: by the judge itself.
    pub fn go_back(&mut self) {
        let view = self.view();
        let mut versions = view.versions.values().rev();
        let definition = versions.nth(1).and_then(|held| held.value.definition()).expect("there was a version before");
        let push = podium_controllers::admission::Push {
            definition: (*definition).clone(),
            source: podium_controllers::admission::PushSource::Api { spec_json: Bytes::new() },
        };
        let plan = podium_controllers::admission::plan_back(&view, push, self.now, Uuid::nil()).expect("nothing speaks against it");
        assert!(self.holds(&plan.group));
        self.definitions.insert(plan.version, plan.definition);
        // Neither the author's words nor a verdict matter here.
        let ops = plan.group.ops.into_iter().filter(|op| !matches!(op.key(), Key::Spec(_) | Key::Verdict(_)));
        for op in ops {
            let Op::Put(key, value) = op else { panic!("{op:?}") };
            self.put(key, value);
        }
        self.now += 1;
    }

    pub fn delete(&mut self) {
        let Some(held) = self.view().accepted else { return };
        let accepted = Accepted { phase: Phase::Deleting.into(), ..held.value };
        self.put(Key::Accepted(self.pod.clone()), codec::encode(accepted));
        self.put_deployment(Kind::Stop, accepted.version_ms);
    }

    /// As the API does: somebody wants an instance killed.
    pub fn order(&mut self, uuid: Uuid, wipe: bool) {
        let Some(held) = self.view().instances.remove(&uuid) else { return };
        let order = Kill { incarnation: held.value.incarnation, wipe, ordered_ms: self.now, ..Kill::default() };
        self.put(Key::Kill(self.pod.clone(), uuid), codec::encode(order));
    }

    /// As the API does: somebody wants the back-off forgotten.
    pub fn hurry(&mut self) {
        self.put(Key::Reset(self.pod.clone()), codec::encode(Reset { ordered_ms: self.now, ..Reset::default() }));
    }

    fn put_deployment(&mut self, kind: Kind, version_ms: i64) {
        let deployment = Deployment { id: "d".to_owned(), kind: kind.into(), version_ms, started_ms: self.now, ..Deployment::default() };
        self.put(Key::Deployment(self.pod.clone()), codec::encode(deployment));
    }

    /// Lets a controller decide, unless its last groups are not answered yet.
    pub fn decide(&mut self, who: Who) {
        let (view, now) = (self.view(), self.now);
        match who {
            Who::Upgrade if self.upgrade.pending.is_empty() => self.upgrade.decide(&view, now, &mut self.ids),
            Who::Scaling if self.scaling.pending.is_empty() => self.scaling.decide(&view, now, &mut self.ids),
            Who::Unreachable if self.unreachable.pending.is_empty() => self.unreachable.decide(&view, now, &mut self.ids),
            _ => {}
        }
    }

    /// Commits a controller's pending groups; those whose place `lost` names never reach the store. How many were written.
    pub fn commit(&mut self, who: Who, lost: impl Fn(usize) -> bool) -> usize {
        let groups = match who {
            Who::Upgrade => std::mem::take(&mut self.upgrade.pending),
            Who::Scaling => std::mem::take(&mut self.scaling.pending),
            Who::Unreachable => std::mem::take(&mut self.unreachable.pending),
        };
        let mut written = 0;
        for (place, group) in groups.into_iter().enumerate() {
            assert!(group.compares.len() < 128 && group.ops.len() < 128, "{who:?}: a group that etcd refuses");
            if !lost(place) && self.holds(&group) {
                let before = self.counts();
                let lasting = self.lasting();
                self.write(&group);
                // What somebody ordered outranks the floor.
                let ordered = group.ops.iter().any(|op| matches!(op, Op::Delete(Key::Kill(..))));
                self.check(who, if ordered { (before.0, 0) } else { before });
                let orphans = self.orphans();
                assert!(orphans.is_empty(), "{who:?} left tasks of {orphans:?} without a record");
                if !ordered && self.definitions.values().any(|definition| definition.is_resident()) {
                    let (left, wanted) = (self.lasting().0, lasting.1);
                    assert!(
                        left >= lasting.0.min(wanted),
                        "{who:?} gave up the data of an instance: {} became {left} of {wanted}",
                        lasting.0
                    );
                }
                written += 1;
            }
        }
        written
    }

    pub fn is_pending(&self) -> bool {
        !(self.upgrade.pending.is_empty() && self.scaling.pending.is_empty() && self.unreachable.pending.is_empty())
    }

    pub fn wake(&self) -> Option<i64> {
        [self.upgrade.wake, self.scaling.wake, self.unreachable.wake].into_iter().flatten().min()
    }

    fn holds(&self, group: &Group) -> bool {
        group.compares.iter().all(|compare| {
            let entry = self.keys.0.get(compare.key());
            match compare {
                Compare::Absent(_) => entry.is_none(),
                Compare::Present(_) => entry.is_some(),
                Compare::Unchanged(_, revision) => entry.is_some_and(|entry| entry.mod_revision == *revision),
                Compare::SameLife(_, revision) => entry.is_some_and(|entry| entry.create_revision == *revision),
            }
        })
    }

    fn write(&mut self, group: &Group) {
        self.revision += 1;
        let mut seen = BTreeSet::new();
        for op in &group.ops {
            assert!(seen.insert(op.key()), "{} twice in one group", op.key());
            match op {
                Op::Put(key, value) => {
                    self.tell(key, value);
                    self.put_at(key.clone(), value.clone());
                }
                Op::Delete(key) => {
                    if self.keys.0.remove(key).is_some() {
                        let name = self.name_of(key);
                        self.log.push(format!("del {name}"));
                    }
                }
                Op::PutLeased(..) => panic!("no controller of these leases anything"),
            }
        }
    }

    fn put(&mut self, key: Key, value: Bytes) {
        self.revision += 1;
        self.put_at(key, value);
    }

    fn put_at(&mut self, key: Key, value: Bytes) {
        let create_revision = self.keys.0.get(&key).map_or(self.revision, |entry| entry.create_revision);
        if let Key::Instance(_, uuid) = &key
            && !self.names.contains(uuid)
        {
            self.names.push(*uuid);
        }
        self.keys.0.insert(key, Entry { value, create_revision, mod_revision: self.revision });
    }

    /// Instances that take places, and healthy ones, counted from the records by other code than the decisions'.
    fn counts(&self) -> (usize, usize) {
        let view = self.view();
        let (mut occupied, mut healthy) = (0, 0);
        for (uuid, held) in &view.instances {
            let any = view.observed.get(uuid).map(|held| &held.value);
            let observed = any.filter(|seen| seen.incarnation == held.value.incarnation);
            let reach = view.reach.get(uuid).map(|held| held.value);
            let lost = |since: i64| any.is_some_and(|seen| seen.tasks.iter().any(|task| away_since(task) == Some(since)));
            let gone = reach.is_some_and(|reach| reach.expunged || (reach.inactive && lost(reach.unreachable_ms)));
            let alive = any.is_some_and(|seen| seen.tasks.iter().any(condition::task_is_alive));
            let running = held.value.goal == i32::from(Goal::Running);
            occupied += usize::from(!gone && (running || alive));
            let well = observed.is_some_and(|seen| seen.tasks.iter().all(|task| task.state == Some(TaskState::TaskRunning as i32)));
            let checked = self.is_checked(held.value.config_ms);
            let confirmed = !checked || observed.is_some_and(|seen| seen.tasks.iter().all(|task| task.healthy == Some(true)));
            // Somebody wants its end: whether it still runs is a matter of time.
            let ordered = held.value.kill_incarnation == held.value.incarnation;
            healthy += usize::from(running && well && confirmed && !gone && !ordered);
        }
        (occupied, healthy)
    }

    fn is_checked(&self, config_ms: i64) -> bool {
        let definition = self.view().versions.get(&Version::from_millis(config_ms)).and_then(|held| held.value.definition());
        definition.is_some_and(|definition| definition.containers[0].health_check.is_some())
    }

    fn is_resident(&self, config_ms: i64) -> bool {
        let definition = self.view().versions.get(&Version::from_millis(config_ms)).and_then(|held| held.value.definition());
        definition.is_some_and(|definition| definition.is_resident())
    }

    /// Instances that are to stay and were not given up, and how many should.
    fn lasting(&self) -> (usize, usize) {
        let view = self.view();
        let given_up = |uuid: &Uuid| view.reach.get(uuid).is_some_and(|held| held.value.expunged);
        let running = view.instances.iter().filter(|(uuid, held)| held.value.goal == i32::from(Goal::Running) && !given_up(uuid)).count();
        let accepted = view.accepted.as_ref().filter(|held| Phase::try_from(held.value.phase) == Ok(Phase::Active));
        let definition = accepted.and_then(|_| podium_controllers::runtime::definition_in_force(&view));
        (running, definition.map_or(0, |definition| definition.scaling.instances as usize))
    }

    /// What runs, or perhaps runs, without a record that wants it or condemns it: the gateway leaves it alone, for ever.
    fn orphans(&self) -> Vec<String> {
        let view = self.view();
        let alive = view.observed.iter().filter(|(_, held)| held.value.tasks.iter().any(condition::task_is_alive));
        let lost = alive.filter(|(uuid, _)| !view.instances.contains_key(uuid) && !view.tombstones.contains_key(uuid));
        lost.map(|(uuid, _)| self.instance_name(*uuid)).collect()
    }

    /// By the bounds that stand in the sets when it is written, whatever was read to decide on it.
    fn check(&mut self, who: Who, before: (usize, usize)) {
        let after = self.counts();
        let view = self.view();
        let ceiling = view.sets.values().map(|set| set.value.ceiling as usize).max().unwrap_or(0);
        let floor = view.sets.values().map(|set| set.value.floor as usize).max().unwrap_or(0);
        assert!(after.0 <= before.0.max(ceiling), "{who:?} raised {} instances to {}, the ceiling is {ceiling}", before.0, after.0);
        assert!(after.1 >= before.1.min(floor), "{who:?} took {} healthy instances to {}, the floor is {floor}", before.1, after.1);
    }

    /// One step of the gateway and the cluster for every instance; how many things changed.
    pub fn run_cluster(&mut self) -> usize {
        let view = self.view();
        let mut changes = 0;
        for (uuid, held) in &view.instances {
            let observed = view.observed.get(uuid).map(|held| &held.value);
            changes += usize::from(self.step(*uuid, &held.value, observed, view.reach.contains_key(uuid)));
        }
        for (uuid, held) in &view.observed {
            if view.instances.contains_key(uuid) {
                continue;
            }
            let ended = held.value.tasks.iter().all(|task| !condition::task_is_alive(task));
            if ended && !view.tombstones.contains_key(uuid) {
                self.remove(Key::Observed(self.pod.clone(), *uuid));
                changes += 1;
            } else if !ended && view.tombstones.contains_key(uuid) && !self.lost.contains(&held.value.agent_id) {
                changes += usize::from(self.kill(*uuid));
            }
        }
        changes
    }

    fn step(&mut self, uuid: Uuid, instance: &Instance, observed: Option<&Observed>, buried: bool) -> bool {
        let condition = condition::of_instance(instance, observed, None);
        let wanted = instance.goal == i32::from(Goal::Running);
        let away = observed.is_some_and(|observed| self.lost.contains(&observed.agent_id));
        let buried = buried && self.view().tombstones.contains_key(&uuid);
        match condition {
            // What is left of the last incarnation ends first.
            Condition::Scheduled if observed.is_some_and(|observed| observed.tasks.iter().any(condition::task_is_alive)) => {
                return !away && self.kill(uuid);
            }
            // Its data is there, and nowhere else.
            Condition::Scheduled if away && self.is_resident(instance.config_ms) => return false,
            Condition::Scheduled if wanted && instance.not_before_ms <= self.now => return self.launch(uuid, instance),
            Condition::Scheduled => return false,
            _ if condition.is_terminal() || away => return false,
            _ if !wanted || buried || condition::is_to_be_killed(instance) => return self.kill(uuid),
            Condition::Provisioned => self.set_state(uuid, TaskState::TaskStarting),
            Condition::Starting | Condition::Unreachable => self.set_state(uuid, TaskState::TaskRunning),
            Condition::Running if self.is_unsettled(instance, observed) => self.set_health(uuid, !self.bad.contains(&instance.config_ms)),
            _ => return false,
        }
        true
    }

    fn is_unsettled(&self, instance: &Instance, observed: Option<&Observed>) -> bool {
        self.is_checked(instance.config_ms) && observed.is_some_and(|observed| observed.tasks.iter().any(|task| task.healthy.is_none()))
    }

    /// Whether there is an agent for it.
    fn launch(&mut self, uuid: Uuid, instance: &Instance) -> bool {
        let agents: Vec<&String> = self.agents.iter().filter(|agent| !self.lost.contains(*agent)).collect();
        let place = self.names.iter().position(|known| *known == uuid).unwrap();
        let home = self.view().observed.get(&uuid).map(|held| held.value.agent_id.clone()).filter(|_| self.is_resident(instance.config_ms));
        let any = || agents.get(place % agents.len().max(1)).map(|agent| (*agent).clone());
        let Some(agent) = home.or_else(any) else { return false };
        let task = observed::Task {
            container: "c".to_owned(),
            task_id: format!("{uuid}.c.{}", instance.incarnation),
            since_ms: self.now,
            ..observed::Task::default()
        };
        let observed = Observed {
            incarnation: instance.incarnation,
            config_ms: instance.config_ms,
            agent_id: agent,
            tasks: vec![task],
            provisioned_ms: self.now,
            ..Observed::default()
        };
        self.put(Key::Observed(self.pod.clone(), uuid), codec::encode(observed));
        true
    }

    fn observe(&mut self, uuid: Uuid, change: impl Fn(&mut observed::Task)) {
        let Some(held) = self.view().observed.remove(&uuid) else { return };
        let mut observed = held.value;
        observed.tasks.iter_mut().for_each(change);
        self.put(Key::Observed(self.pod.clone(), uuid), codec::encode(observed));
    }

    /// A task says that it is in another state. Ended ones say no more.
    pub fn set_state(&mut self, uuid: Uuid, state: TaskState) {
        let now = self.now;
        self.observe(uuid, |task| {
            if !condition::task_is_alive(task) {
                return;
            }
            task.state = Some(state as i32);
            task.since_ms = now;
            task.unreachable_ms = if state == TaskState::TaskUnreachable { now } else { 0 };
            if state == TaskState::TaskRunning && task.running_ms == 0 {
                task.running_ms = now;
            }
        });
    }

    /// It is told to end. Whether it has.
    fn kill(&mut self, uuid: Uuid) -> bool {
        let ends = !self.slow.contains(&uuid);
        if ends {
            self.set_state(uuid, TaskState::TaskKilled);
        }
        ends
    }

    pub fn set_health(&mut self, uuid: Uuid, healthy: bool) {
        self.observe(uuid, |task| task.healthy = Some(healthy));
    }

    pub fn lose(&mut self, agent: &str) {
        self.lost.insert(agent.to_owned());
        for uuid in self.on_agent(agent) {
            self.set_state(uuid, TaskState::TaskUnreachable);
        }
    }

    pub fn bring_back(&mut self, agent: &str) {
        self.lost.remove(agent);
        for uuid in self.on_agent(agent) {
            self.set_state(uuid, TaskState::TaskRunning);
        }
    }

    fn on_agent(&self, agent: &str) -> Vec<Uuid> {
        self.view().observed.iter().filter(|(_, held)| held.value.agent_id == agent).map(|(uuid, _)| *uuid).collect()
    }

    /// Earliest time at which something is due: a controller's wake-up or a delayed launch.
    pub fn next_due(&self) -> Option<i64> {
        let view = self.view();
        let launches = view.instances.values().map(|held| held.value.not_before_ms).filter(|at| *at > self.now).min();
        self.wake().filter(|at| *at > self.now).into_iter().chain(launches).min()
    }

    /// Lets everyone act until nobody has anything left to do at this time.
    pub fn settle(&mut self) {
        for _ in 0..400 {
            let mut changes = 0;
            for who in ALL {
                self.decide(who);
                changes += self.commit(who, |_| false);
            }
            if changes + self.run_cluster() == 0 {
                return;
            }
        }
        panic!("does not come to rest: {:#?}", self.log.iter().rev().take(30).collect::<Vec<_>>());
    }

    /// Lets time pass, with everything that becomes due meanwhile.
    pub fn tick(&mut self, millis: i64) {
        let end = self.now + millis;
        self.settle();
        while let Some(due) = self.next_due().filter(|due| *due <= end) {
            self.now = due;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn remove(&mut self, key: Key) {
        self.revision += 1;
        self.keys.0.remove(&key);
    }

    fn tell(&mut self, key: &Key, value: &Bytes) {
        let name = self.name_of(key);
        let text = match key {
            Key::Set(..) => {
                let set: podium_proto::records::ReplicaSet = codec::decode(value).unwrap();
                format!("{name} wanted {} of {}..{}", set.wanted, set.floor, set.ceiling)
            }
            Key::Instance(..) => {
                let instance: Instance = codec::decode(value).unwrap();
                let wait =
                    if instance.not_before_ms > self.now { format!(" in {} ms", instance.not_before_ms - self.now) } else { String::new() };
                let goal = match instance.goal == i32::from(Goal::Running) {
                    true if condition::is_to_be_killed(&instance) => "end",
                    true => "run",
                    false => "stop",
                };
                format!("{name} {goal} {}#{}{wait}", self.config_name(instance.config_ms), instance.incarnation)
            }
            Key::Delay(_) => {
                let delay: podium_proto::records::Delay = codec::decode(value).unwrap();
                format!("{name} {} ms, {} ended", delay.delay_ms, delay.history.len())
            }
            Key::Reach(..) => {
                let reach: podium_proto::records::Reach = codec::decode(value).unwrap();
                format!("{name} {}", if reach.expunged { "expunged" } else { "inactive" })
            }
            _ => name,
        };
        self.log.push(text);
    }

    fn name_of(&self, key: &Key) -> String {
        match key {
            Key::Set(_, config) => format!("set {}", self.config_name(config.as_millis())),
            Key::Instance(_, uuid) => self.instance_name(*uuid),
            Key::Reach(_, uuid) => format!("reach {}", self.instance_name(*uuid)),
            Key::Tombstone(_, uuid) => format!("tombstone {}", self.instance_name(*uuid)),
            Key::Kill(_, uuid) => format!("kill {}", self.instance_name(*uuid)),
            Key::Reset(_) => "reset".to_owned(),
            Key::Deployment(_) => "deployment".to_owned(),
            Key::Delay(_) => "delay".to_owned(),
            Key::Accepted(_) => "accepted".to_owned(),
            other => other.to_string(),
        }
    }

    fn config_name(&self, config_ms: i64) -> String {
        let place = self.view().versions.keys().position(|version| version.as_millis() == config_ms);
        format!("v{}", place.map_or(0, |place| place + 1))
    }

    fn instance_name(&self, uuid: Uuid) -> String {
        format!("i{}", self.names.iter().position(|known| *known == uuid).map_or(self.names.len() + 1, |place| place + 1))
    }

    /// The instances and what they are, one a line.
    pub fn picture(&self) -> Vec<String> {
        let view = self.view();
        let mut lines: Vec<(usize, String)> = view
            .instances
            .iter()
            .map(|(uuid, held)| {
                let observed = view.observed.get(uuid).map(|held| &held.value);
                let condition = condition::of_instance(&held.value, observed, view.reach.get(uuid).map(|held| &held.value));
                let agent = observed.map_or("-", |observed| observed.agent_id.as_str());
                let place = self.names.iter().position(|known| known == uuid).unwrap();
                let config = self.config_name(held.value.config_ms);
                (place, format!("i{} {config}#{} {} {agent}", place + 1, held.value.incarnation, condition.as_str()))
            })
            .collect();
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

impl Keys {
    /// What the index would hold.
    fn view(&self, pod: &PodId, definitions: &BTreeMap<Version, Arc<PodDefinition>>) -> PodView {
        fn held<R: codec::Record>(entry: &Entry) -> Held<R> {
            Held { value: codec::decode(&entry.value).unwrap(), mod_revision: entry.mod_revision, create_revision: entry.create_revision }
        }
        let mut view = PodView::new(pod.clone());
        for (key, entry) in &self.0 {
            match key {
                Key::Accepted(_) => view.accepted = Some(held(entry)),
                Key::Deployment(_) => view.deployment = Some(held(entry)),
                Key::Delay(_) => view.delay = Some(held(entry)),
                Key::Set(_, config) => drop(view.sets.insert(*config, held(entry))),
                Key::Instance(_, uuid) => drop(view.instances.insert(*uuid, held(entry))),
                Key::Observed(_, uuid) => drop(view.observed.insert(*uuid, held(entry))),
                Key::Reach(_, uuid) => drop(view.reach.insert(*uuid, held(entry))),
                Key::Tombstone(_, uuid) => drop(view.tombstones.insert(*uuid, held(entry))),
                Key::Kill(_, uuid) => drop(view.kills.insert(*uuid, held(entry))),
                Key::Reset(_) => view.reset = Some(held(entry)),
                Key::Version(_, version) => {
                    let value = StoredDefinition::known(entry.value.clone(), definitions[version].clone());
                    let (mod_revision, create_revision) = (entry.mod_revision, entry.create_revision);
                    view.versions.insert(*version, Held { value, mod_revision, create_revision });
                }
                other => panic!("nobody here writes {other}"),
            }
        }
        view
    }

    /// All keys but those that the history keeps.
    pub fn all(&self) -> impl Iterator<Item = &Key> {
        self.0.keys().filter(|key| !matches!(key, Key::Version(..) | Key::Deleted(_)))
    }
}

fn away_since(task: &observed::Task) -> Option<i64> {
    match condition::of_task(task) {
        Condition::Unreachable => Some(task.unreachable_ms),
        Condition::Unknown => Some(task.since_ms),
        _ => None,
    }
}

/// A definition as a user would push it.
fn definition(push: &Push) -> PodDefinition {
    let check = push.checked.then(|| serde_json::json!({"exec": {"command": {"shell": "true"}}}));
    let unreachable = match push.unreachable.filter(|_| !push.resident) {
        Some((inactive, expunge)) => serde_json::json!({"inactiveAfterSeconds": inactive, "expungeAfterSeconds": expunge}),
        None => serde_json::json!("disabled"),
    };
    let volumes = if push.resident { serde_json::json!([{"name": "v", "persistent": {"size": 1}}]) } else { serde_json::json!([]) };
    let json = serde_json::json!({
        "id": "/a",
        "volumes": volumes,
        "containers": [{"name": "c", "exec": {"command": {"shell": "sleep 1000"}}, "resources": {"cpus": 0.1, "mem": 32}, "healthCheck": check,
            "volumeMounts": if push.resident { serde_json::json!([{"name": "v", "mountPath": "v"}]) } else { serde_json::json!([]) }}],
        "scaling": {"kind": "fixed", "instances": push.instances},
        "scheduling": {
            "backoff": {"backoff": push.backoff, "backoffFactor": 2.0, "maxLaunchDelay": 3600},
            "upgrade": {"minimumHealthCapacity": push.min, "maximumOverCapacity": if push.resident { 0.0 } else { push.over }},
            "killSelection": if push.oldest_first { "OLDEST_FIRST" } else { "YOUNGEST_FIRST" },
            "unreachableStrategy": unreachable,
        },
    });
    // A role of its own: `*` can't be reserved for.
    let settings = if push.resident { Settings { default_role: "db".to_owned(), ..Settings::default() } } else { Settings::default() };
    read(json.to_string().as_bytes(), &settings).unwrap().definition
}
