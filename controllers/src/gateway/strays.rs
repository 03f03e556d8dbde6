//! Tasks that run and of which the store has no record, or an older one: who they are and why they are strange. Pure.
//!
//! A task is judged by its id, and by its labels as soon as Mesos has shown them ([`super::survey`]): [`judge`]. What is
//! left of an earlier launch of ours is killed. Everything else is left alone, listed in `unknown/<pod>`, and, where it
//! shows that the store is not the one that launched it, the reason for a quarantine ([`super::quarantine`]).
//!
//! With an old backup all that runs is strange, and Mesos tells of each task by itself: so what is asked with each of them is
//! counted as they come and go, and none of it looks at all of them.

use std::collections::{BTreeMap, BTreeSet};

use podium_mesos::task_group::label;
use podium_proto::mesos::v1::{Labels, TaskState};
use podium_proto::records::unknown_instance::Why;
use podium_proto::records::{Unknown, UnknownInstance};
use podium_types::id::{PodId, TaskId, Version};
use uuid::Uuid;

use super::output::Call;
use super::state::UnknownTask;

/// Instances of one pod that are listed; more are counted.
const MOST_LISTED: usize = 1_000;

/// Tasks that the replica of the gateway tells of, of those that no pod's id is in.
const MOST_FOREIGN: usize = 1_000;

/// Between two kills of a task of which nothing is heard.
const KILL_AGAIN_MS: i64 = 30_000;

/// What a task's labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub config_ms: i64,
    pub cluster_id: String,
    pub revision: i64,
}

impl Origin {
    /// `None`: some label of ours is missing, or they speak of another task than this one.
    pub fn read(labels: &Labels, id: &TaskId) -> Option<Self> {
        let of = |key: &str| labels.labels.iter().find(|label| label.key == key).and_then(|label| label.value.as_deref());
        let same = of(label::POD)? == id.instance.pod.as_str() && of(label::INCARNATION)?.parse() == Ok(id.incarnation);
        let config_ms = of(label::CONFIG)?.parse::<Version>().ok()?.as_millis();
        let (cluster_id, revision) = (of(label::CLUSTER)?.to_owned(), of(label::REVISION)?.parse().ok()?);
        same.then_some(Self { config_ms, cluster_id, revision })
    }
}

/// What the store knows of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Known {
    /// The newest incarnation of its instance; 0: the store knows none.
    pub newest: u32,
    /// There is an instance of the very incarnation, and no record of its launch.
    pub unrecorded: bool,
    /// The record of the launch names the task.
    pub recorded: bool,
    /// An operator has taken it on.
    pub adopted: bool,
    /// Neither an instance nor a tombstone says what is to become of it.
    pub orphaned: bool,
    /// A tombstone names it.
    pub buried: bool,
}

/// What a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As the store says.
    Ours,
    /// It fits to an instance of which no launch is recorded.
    Adoptable,
    /// What is left of an earlier launch, or was buried: to be killed.
    Leftover,
    /// To be left alone, and shown.
    Stray(Why),
}

/// The rule of DESIGN's promise 6. `revision` is the store's.
pub(super) fn judge(incarnation: u32, origin: Option<&Origin>, known: Known, cluster_id: &str, revision: i64) -> Verdict {
    if known.adopted && known.recorded && !known.orphaned {
        return Verdict::Ours;
    }
    if origin.is_some_and(|origin| origin.cluster_id != cluster_id) {
        return Verdict::Stray(Why::OtherCluster);
    }
    let newer = known.newest > 0 && incarnation > known.newest && !known.recorded;
    if newer || origin.is_some_and(|origin| origin.revision > revision) {
        return Verdict::Stray(Why::Ahead);
    }
    let forgotten = if origin.is_some() { Why::Forgotten } else { Why::Unlabelled };
    match known {
        Known { buried: true, .. } => Verdict::Leftover,
        Known { recorded: true, orphaned: false, .. } => Verdict::Ours,
        Known { recorded: true, .. } => Verdict::Stray(forgotten),
        Known { unrecorded: true, .. } => Verdict::Adoptable,
        Known { newest, .. } if incarnation < newest => Verdict::Leftover,
        _ => Verdict::Stray(forgotten),
    }
}

/// Whether such a task shows that the store is not, or no longer, the one that launched it.
pub(super) fn raises(why: Why) -> bool {
    matches!(why, Why::Forgotten | Why::Ahead | Why::OtherCluster)
}

/// A task that is left alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stray {
    pub agent_id: Option<String>,
    pub state: TaskState,
    pub origin: Option<Origin>,
    pub why: Why,
    /// Mesos was asked for its labels since it is known.
    pub asked: bool,
    /// An operator wants it killed: when, or when again.
    pub kill_ms: Option<i64>,
}

/// Tasks without a record.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Ours, superseded or buried; by task id: the agent, and when to kill it (again).
    condemned: BTreeMap<String, (Option<String>, i64)>,
    /// The same, by the time.
    condemned_by_time: BTreeSet<(i64, String)>,
    pods: BTreeMap<PodId, BTreeMap<TaskKey, Stray>>,
    /// Those whose id is none of ours.
    foreign: BTreeMap<String, Stray>,
    /// Kills that an operator has ordered, by the time: [`Stray::kill_ms`].
    ordered: BTreeSet<(i64, Ordered)>,
    /// How many of the pods' labels are yet to be asked for.
    unasked: usize,
    /// How many of the pods' show that the store is not what it was.
    raising: usize,
    /// Pods whose list may be another than before.
    pub dirty: BTreeSet<PodId>,
    /// Entries that were looked at so far.
    #[cfg(test)]
    pub visited: std::cell::Cell<u64>,
}

/// A task within its pod.
type TaskKey = (Uuid, u32, String);

/// Whose kill is ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ordered {
    Ours(PodId, TaskKey),
    Foreign(String),
}

/// Before every task of this instance.
fn first(uuid: Uuid) -> TaskKey {
    (uuid, u32::MIN, String::new())
}

/// The earliest, if its time has come.
fn pop_due<T: Ord>(times: &mut BTreeSet<(i64, T)>, now: i64) -> Option<(i64, T)> {
    if times.first().is_some_and(|(at, _)| *at <= now) { times.pop_first() } else { None }
}

/// Keeps a number of entries of a kind: whether this one was of it, and whether it is now.
fn count(number: &mut usize, was: bool, is: bool) {
    match (was, is) {
        (false, true) => *number += 1,
        (true, false) => *number = number.saturating_sub(1),
        _ => {}
    }
}

fn key(id: &TaskId) -> TaskKey {
    (id.instance.uuid, id.incarnation, id.container.clone())
}

impl Strays {
    fn visit(&self) {
        #[cfg(test)]
        self.visited.set(self.visited.get() + 1);
    }

    /// To be killed until it has ended.
    pub fn condemn(&mut self, task_id: &str, agent_id: Option<String>, now: i64) {
        if !self.condemned.contains_key(task_id) {
            self.condemned.insert(task_id.to_owned(), (agent_id, now));
            self.condemned_by_time.insert((now, task_id.to_owned()));
        }
    }

    /// To be left alone, and shown.
    pub fn show(&mut self, id: &TaskId, agent_id: Option<String>, state: TaskState, origin: Option<Origin>, why: Why) {
        let tasks = self.pods.entry(id.instance.pod.clone()).or_default();
        let old = tasks.get(&key(id));
        if old.is_none() {
            tracing::warn!(task_id = %id, why = why.as_str_name(), "a task runs of which the store has no record; it is left alone");
        }
        let stray = Stray {
            agent_id: agent_id.or_else(|| old.and_then(|old| old.agent_id.clone())),
            state,
            asked: origin.is_some() || old.is_some_and(|old| old.asked),
            kill_ms: old.and_then(|old| old.kill_ms),
            origin,
            why,
        };
        if old != Some(&stray) {
            count(&mut self.unasked, old.is_some_and(|old| !old.asked), !stray.asked);
            count(&mut self.raising, old.is_some_and(|old| raises(old.why)), raises(stray.why));
            tasks.insert(key(id), stray);
            self.dirty.insert(id.instance.pod.clone());
        }
    }

    /// The same for a task whose id is none of ours.
    pub fn show_foreign(&mut self, task_id: &str, agent_id: Option<String>, state: TaskState) {
        if self.foreign.len() < MOST_FOREIGN || self.foreign.contains_key(task_id) {
            let kill_ms = self.foreign.get(task_id).and_then(|old| old.kill_ms);
            let stray = Stray { agent_id, state, origin: None, why: Why::Unlabelled, asked: true, kill_ms };
            if self.foreign.insert(task_id.to_owned(), stray).is_none() {
                tracing::warn!(task_id, "a task runs whose id is none of ours; it is left alone");
            }
        }
    }

    /// It has ended, or is as the store says.
    pub fn forget(&mut self, task_id: &str, id: Option<&TaskId>) {
        if let Some((_, at)) = self.condemned.remove(task_id) {
            self.condemned_by_time.remove(&(at, task_id.to_owned()));
        }
        match id {
            Some(id) => self.remove(&id.instance.pod, &key(id)),
            None => {
                if let Some(at) = self.foreign.remove(task_id).and_then(|stray| stray.kill_ms) {
                    self.ordered.remove(&(at, Ordered::Foreign(task_id.to_owned())));
                }
            }
        }
    }

    /// A record says what is to become of it, and nothing of a later state of the store, or of another.
    pub fn recognise(&mut self, id: &TaskId, adopted: bool) {
        if adopted || self.get(id).is_some_and(|stray| matches!(stray.why, Why::Unlabelled | Why::Forgotten)) {
            self.remove(&id.instance.pod, &key(id));
        }
    }

    fn remove(&mut self, pod: &PodId, key: &TaskKey) {
        if let Some(tasks) = self.pods.get_mut(pod)
            && let Some(stray) = tasks.remove(key)
        {
            count(&mut self.unasked, !stray.asked, false);
            count(&mut self.raising, raises(stray.why), false);
            if let Some(at) = stray.kill_ms {
                self.ordered.remove(&(at, Ordered::Ours(pod.clone(), key.clone())));
            }
            self.dirty.insert(pod.clone());
            if tasks.is_empty() {
                self.pods.remove(pod);
            }
        }
    }

    /// Every one that is of a pod.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Stray)> {
        let all = self.pods.iter().flat_map(|(pod, tasks)| tasks.iter().map(move |(key, stray)| (pod, key, stray)));
        all.inspect(|_| self.visit()).map(|(pod, key, stray)| (task(pod, key), stray))
    }

    /// One of them.
    pub fn get(&self, id: &TaskId) -> Option<&Stray> {
        self.pods.get(&id.instance.pod)?.get(&key(id))
    }

    /// Those of one instance.
    pub fn of_instance<'a>(&'a self, pod: &'a PodId, uuid: Uuid) -> impl Iterator<Item = (TaskId, &'a Stray)> {
        let tasks = self.pods.get(pod).into_iter().flat_map(move |tasks| tasks.range(first(uuid)..));
        let here = tasks.inspect(|_| self.visit()).take_while(move |((of, ..), _)| *of == uuid);
        here.map(move |(key, stray)| (task(pod, key), stray))
    }

    /// The instances of a pod that have any.
    pub fn instances(&self, pod: &PodId) -> BTreeSet<Uuid> {
        self.pods.get(pod).into_iter().flatten().inspect(|_| self.visit()).map(|((uuid, ..), _)| *uuid).collect()
    }

    /// Tasks to ask Mesos about: nothing else would tell that they have ended. By id: the agent.
    pub fn to_ask(&self) -> impl Iterator<Item = (String, String)> {
        let foreign = self.foreign.iter().map(|(id, stray)| (id.clone(), stray));
        foreign
            .chain(self.tasks().map(|(id, stray)| (id.to_string(), stray)))
            .map(|(id, stray)| (id, stray.agent_id.clone().unwrap_or_default()))
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.foreign.is_empty()
    }

    /// Whether the labels of some are yet to be asked for.
    pub fn any_unasked(&self) -> bool {
        self.unasked > 0
    }

    /// They are being asked for.
    pub fn asked(&mut self) {
        if std::mem::take(&mut self.unasked) > 0 {
            self.pods.values_mut().flat_map(BTreeMap::values_mut).for_each(|stray| stray.asked = true);
        }
    }

    /// Whether some show that the store is not what it was.
    pub fn any_raising(&self) -> bool {
        self.raising > 0
    }

    /// The first of them.
    pub fn raising(&self) -> Option<(TaskId, &Stray)> {
        if self.raising > 0 { self.tasks().find(|(_, stray)| raises(stray.why)) } else { None }
    }

    /// An operator wants this instance, or this foreign task, killed. False: there is none.
    pub fn order_kill(&mut self, pod: Option<(&PodId, Uuid)>, task_id: &str, now: i64) -> bool {
        let Some((pod, uuid)) = pod else {
            let Some(stray) = self.foreign.get_mut(task_id) else { return false };
            if stray.kill_ms.is_none() {
                stray.kill_ms = Some(now);
                self.ordered.insert((now, Ordered::Foreign(task_id.to_owned())));
            }
            return true;
        };
        let mut found = false;
        let tasks = self.pods.get_mut(pod).into_iter().flat_map(|tasks| tasks.range_mut(first(uuid)..));
        for (key, stray) in tasks.take_while(|((of, ..), _)| *of == uuid) {
            if stray.kill_ms.is_none() {
                stray.kill_ms = Some(now);
                self.ordered.insert((now, Ordered::Ours(pod.clone(), key.clone())));
            }
            found = true;
        }
        found
    }

    /// Kills that an operator has ordered and that are due.
    pub fn ordered_kills(&mut self, now: i64) -> Vec<Call> {
        let again = now.saturating_add(KILL_AGAIN_MS);
        let mut calls = Vec::new();
        while let Some((_, ordered)) = pop_due(&mut self.ordered, now) {
            self.visit();
            let (task_id, stray) = match &ordered {
                Ordered::Foreign(task_id) => (task_id.clone(), self.foreign.get_mut(task_id)),
                Ordered::Ours(pod, key) => (task(pod, key).to_string(), self.pods.get_mut(pod).and_then(|tasks| tasks.get_mut(key))),
            };
            if let Some(stray) = stray {
                stray.kill_ms = Some(again);
                calls.push(Call::Kill { task_id, agent_id: stray.agent_id.clone() });
                self.ordered.insert((again, ordered));
            }
        }
        calls
    }

    /// Kills that are due of what was condemned.
    pub fn due(&mut self, now: i64) -> Vec<Call> {
        let again = now.saturating_add(KILL_AGAIN_MS);
        let mut calls = Vec::new();
        while let Some((_, task_id)) = pop_due(&mut self.condemned_by_time, now) {
            self.visit();
            if let Some((agent_id, next)) = self.condemned.get_mut(&task_id) {
                *next = again;
                calls.push(Call::Kill { task_id: task_id.clone(), agent_id: agent_id.clone() });
                self.condemned_by_time.insert((again, task_id));
            }
        }
        calls
    }

    /// When a condemned task is to be killed.
    pub fn next_wake(&self) -> Option<i64> {
        self.condemned_by_time.first().map(|(at, _)| *at)
    }

    /// When a kill is due that an operator has ordered.
    pub fn next_ordered(&self) -> Option<i64> {
        self.ordered.first().map(|(at, _)| *at)
    }

    /// What `unknown/<pod>` is to say.
    pub fn record(&self, pod: &PodId) -> Option<Unknown> {
        let mut instances: Vec<UnknownInstance> = Vec::new();
        let (mut last, mut more) = (None, 0u32);
        for ((uuid, incarnation, container), stray) in self.pods.get(pod)?.iter().inspect(|_| self.visit()) {
            let same = last.replace((uuid, incarnation)) == Some((uuid, incarnation));
            if same {
                // Of those that are counted only, no containers are told.
                if let Some(last) = instances.last_mut().filter(|_| more == 0) {
                    last.containers.push(container.clone());
                }
            } else if instances.len() >= MOST_LISTED {
                more = more.saturating_add(1);
            } else {
                instances.push(UnknownInstance {
                    uuid: uuid.to_string(),
                    incarnation: *incarnation,
                    containers: vec![container.clone()],
                    agent_id: stray.agent_id.clone().unwrap_or_default(),
                    why: stray.why.into(),
                    config_ms: stray.origin.as_ref().map_or(0, |origin| origin.config_ms),
                    cluster_id: stray.origin.as_ref().map(|origin| origin.cluster_id.clone()).unwrap_or_default(),
                    revision: stray.origin.as_ref().map_or(0, |origin| origin.revision),
                });
            }
        }
        Some(Unknown { instances, more, ..Unknown::default() })
    }

    /// Those that no pod's list holds, for `/readyz` of this replica.
    pub fn foreign(&self) -> impl Iterator<Item = UnknownTask> {
        self.foreign.iter().map(|(task_id, stray)| UnknownTask {
            task_id: task_id.clone(),
            agent_id: stray.agent_id.clone(),
            state: stray.state.as_str_name().to_owned(),
        })
    }
}

fn task(pod: &PodId, (uuid, incarnation, container): &TaskKey) -> TaskId {
    let instance = podium_types::id::InstanceId { pod: pod.clone(), uuid: *uuid };
    TaskId { instance, container: container.clone(), incarnation: *incarnation }
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::Label;

    use super::*;

    fn origin(cluster_id: &str, revision: i64) -> Origin {
        Origin { config_ms: 7, cluster_id: cluster_id.to_owned(), revision }
    }

    fn judged(incarnation: u32, origin: Option<&Origin>, known: Known) -> Verdict {
        judge(incarnation, origin, known, "C", 100)
    }

    #[test]
    fn a_task_is_judged_by_its_labels_and_by_what_the_store_knows() {
        let ours = origin("C", 100);
        let recorded = Known { newest: 2, recorded: true, ..Known::default() };
        let nothing = Known { orphaned: true, ..Known::default() };
        for (incarnation, origin, known, verdict) in [
            (2, Some(&ours), recorded, Verdict::Ours),
            (2, None, recorded, Verdict::Ours),
            (2, Some(&ours), Known { newest: 2, unrecorded: true, ..Known::default() }, Verdict::Adoptable),
            (1, Some(&ours), Known { newest: 2, ..Known::default() }, Verdict::Leftover),
            (1, Some(&ours), Known { buried: true, ..nothing }, Verdict::Leftover),
            (3, Some(&ours), Known { newest: 2, ..Known::default() }, Verdict::Stray(Why::Ahead)),
            (3, None, Known { newest: 2, ..Known::default() }, Verdict::Stray(Why::Ahead)),
            (1, Some(&ours), nothing, Verdict::Stray(Why::Forgotten)),
            (1, None, nothing, Verdict::Stray(Why::Unlabelled)),
            (2, Some(&ours), Known { orphaned: true, ..recorded }, Verdict::Stray(Why::Forgotten)),
        ] {
            assert_eq!(judged(incarnation, origin, known), verdict, "{incarnation} {origin:?} {known:?}");
        }
    }

    #[test]
    fn a_later_revision_and_another_cluster_outweigh_every_record_until_an_operator_has_taken_the_task_on() {
        let recorded = Known { newest: 1, recorded: true, ..Known::default() };
        let buried = Known { buried: true, orphaned: true, ..Known::default() };
        let unrecorded = Known { newest: 1, unrecorded: true, ..Known::default() };
        for known in [recorded, buried, unrecorded, Known::default()] {
            assert_eq!(judged(1, Some(&origin("C", 101)), known), Verdict::Stray(Why::Ahead), "{known:?}");
            assert_eq!(judged(1, Some(&origin("D", 1)), known), Verdict::Stray(Why::OtherCluster), "{known:?}");
        }
        for origin in [origin("C", 101), origin("D", 1)] {
            assert_eq!(judged(1, Some(&origin), Known { adopted: true, ..recorded }), Verdict::Ours);
        }
        assert!(!raises(Why::Unlabelled) && raises(Why::Ahead) && raises(Why::Forgotten) && raises(Why::OtherCluster));
    }

    #[test]
    fn labels_are_believed_only_when_all_are_there_and_speak_of_this_task() {
        let id: TaskId = format!("a.instance-{}.c.3", Uuid::from_u128(1)).parse().unwrap();
        let labels = |pod: &str, incarnation: &str| Labels {
            labels: [
                (label::POD, pod),
                (label::CONFIG, "2021-07-27T10:00:00.000Z"),
                (label::INCARNATION, incarnation),
                (label::CLUSTER, "C"),
                (label::REVISION, "12"),
            ]
            .map(|(key, value)| Label { key: key.to_owned(), value: Some(value.to_owned()) })
            .into(),
        };
        let read = Origin::read(&labels("/a", "3"), &id).unwrap();
        assert_eq!((read.config_ms, read.cluster_id.as_str(), read.revision), (1_627_380_000_000, "C", 12));
        assert_eq!(Origin::read(&labels("/b", "3"), &id), None);
        assert_eq!(Origin::read(&labels("/a", "4"), &id), None);
        for missing in 0..5 {
            let mut labels = labels("/a", "3");
            labels.labels.remove(missing);
            assert_eq!(Origin::read(&labels, &id), None, "without label {missing}");
        }
    }

    #[test]
    fn the_list_of_a_pod_names_each_instance_once_with_its_containers() {
        let mut strays = Strays::default();
        let id = |n: u128, container: &str| -> TaskId { format!("a.instance-{}.{container}.1", Uuid::from_u128(n)).parse().unwrap() };
        for task in [id(1, "c"), id(1, "d"), id(2, "c")] {
            strays.show(&task, Some("S1".to_owned()), TaskState::TaskRunning, Some(origin("C", 5)), Why::Forgotten);
        }
        let pod = PodId::new("/a").unwrap();
        let record = strays.record(&pod).unwrap();
        assert_eq!(record.instances.iter().map(|one| one.containers.join("+")).collect::<Vec<_>>(), ["c+d", "c"]);
        assert_eq!(strays.instances(&pod).len(), 2);
        strays.dirty.clear();
        strays.show(&id(2, "c"), Some("S1".to_owned()), TaskState::TaskRunning, Some(origin("C", 5)), Why::Forgotten);
        assert!(strays.dirty.is_empty(), "the same again is no news");
        strays.forget(&id(2, "c").to_string(), Some(&id(2, "c")));
        assert_eq!(strays.record(&pod).unwrap().instances.len(), 1);
        for container in ["c", "d"] {
            strays.forget(&id(1, container).to_string(), Some(&id(1, container)));
        }
        assert!(strays.record(&pod).is_none() && strays.is_empty());
    }
}
