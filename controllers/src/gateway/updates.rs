//! What Mesos says of tasks: applied to a record, or about a task that has none.

use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{self, TaskState, TaskStatus};
use podium_proto::records::{Observed, observed};
use podium_types::condition;
use podium_types::id::{PodId, TaskId};
use uuid::Uuid;

use super::core::Core;
use super::entry::{Ack, Writing};
use super::output::Call;
use super::reconcile;
use super::residents;
use super::status::{self, Applied};

impl Core {
    /// A status update.
    pub fn update(&mut self, status: &TaskStatus, now: i64) {
        let task_id = status.task_id.value.as_str();
        // That nothing is known of it is no answer that lasts: its agent may come back any time.
        if status.state != i32::from(TaskState::TaskUnknown) {
            self.reconciliation.heard(task_id);
        }
        self.survey.heard(task_id);
        if status.reason == Some(Reason::AgentDraining.into())
            && let Some(agent) = &status.agent_id
        {
            self.agent_left(&agent.value);
        }
        let ack = status::uuid(status).and_then(|uuid| {
            let agent_id = status.agent_id.as_ref()?.value.clone();
            Some(Ack { agent_id, task_id: task_id.to_owned(), uuid: uuid.clone() })
        });
        if TaskState::try_from(status.state).is_err() {
            // Acknowledged all the same: it holds up what comes after it.
            tracing::warn!(task_id, state = status.state, "Mesos tells a task state that this build does not know; it is no news");
        }
        let Ok(id) = task_id.parse::<TaskId>() else {
            self.stray(None, status, now);
            self.acknowledge(ack);
            return;
        };
        let (pod, uuid) = (id.instance.pod.clone(), id.instance.uuid);
        if self.pods.get(&pod).is_some_and(|pod| pod.frozen) {
            return;
        }
        if !is_alive(status) {
            self.strays.forget(task_id, Some(&id));
        }
        if self.applies(&pod, uuid, task_id) {
            self.apply(&pod, uuid, status, ack, now);
        } else if self.is_adoptable(&id, status) {
            self.adopt(&id, status, now);
            self.apply(&pod, uuid, status, ack, now);
        } else {
            self.stray(Some(&id), status, now);
            self.acknowledge(ack);
        }
    }

    /// Our framework is no more, and no other may begin yet: nobody can say of any task what has become of it. Of those that are
    /// away already that is known, and since when.
    pub fn lost_sight(&mut self, now: i64) {
        self.disconnected();
        let entries = self.pods.values().flat_map(|pod| pod.entries.values());
        let alive: Vec<String> = entries.flat_map(|entry| entry.killable().map(|task| task.task_id.clone())).collect();
        for task_id in alive {
            let unknown =
                TaskStatus { task_id: v1::TaskId { value: task_id }, state: TaskState::TaskUnknown.into(), ..TaskStatus::default() };
            self.update(&unknown, now);
        }
    }

    fn acknowledge(&mut self, ack: Option<Ack>) {
        if let Some(ack) = ack {
            self.call(Call::Acknowledge(ack));
        }
    }

    fn applies(&mut self, id: &PodId, uuid: Uuid, task_id: &str) -> bool {
        let observed = self.entry_mut(id, uuid).and_then(|entry| entry.observed.as_ref());
        observed.is_some_and(|observed| observed.tasks.iter().any(|task| task.task_id == task_id))
    }

    fn apply(&mut self, id: &PodId, uuid: Uuid, status: &TaskStatus, ack: Option<Ack>, now: i64) {
        let Some(entry) = self.entry_mut(id, uuid) else { return };
        // Unacknowledged, it comes again when the record has been read.
        if entry.reload.is_some() {
            return;
        }
        let tasks = entry.observed.iter_mut().flat_map(|observed| &mut observed.tasks);
        let task = tasks.into_iter().find(|task| task.task_id == status.task_id.value);
        let changed = task.is_some_and(|task| status::apply(task, status, now) == Applied::Changed);
        entry.dirty |= changed;
        let is_away = matches!(status.state(), TaskState::TaskUnknown | TaskState::TaskUnreachable | TaskState::TaskLost);
        let missed = entry.observed.as_ref().filter(|_| is_away).and_then(|observed| reconcile::agent_id(&observed.agent_id));
        match (&mut entry.writing, entry.dirty) {
            (_, true) => entry.acks.extend(ack),
            (Some(Writing::Update { acks }), false) => acks.extend(ack),
            (_, false) => self.acknowledge(ack),
        }
        self.missed.extend(missed);
        self.look(id, uuid, now);
    }

    /// A task of the present incarnation, of which there is no record: an older state of this store launched it.
    fn is_adoptable(&mut self, id: &TaskId, status: &TaskStatus) -> bool {
        // What its labels say counts more than what the store does.
        if self.strays.get(id).is_some() {
            return false;
        }
        let Some(entry) = self.entry_mut(&id.instance.pod, id.instance.uuid) else { return false };
        let present = entry.instance.as_ref().is_some_and(|held| held.value.incarnation == id.incarnation);
        let recorded = entry.observed.as_ref().is_some_and(|observed| observed.incarnation >= id.incarnation);
        present && !recorded && entry.writing.is_none() && entry.reload.is_none() && entry.alive().next().is_none() && is_alive(status)
    }

    fn adopt(&mut self, id: &TaskId, status: &TaskStatus, now: i64) {
        let instance = id.instance.clone();
        tracing::warn!(%instance, "a running instance without a record is taken on");
        let Some(pod) = self.pods.get_mut(&instance.pod) else { return };
        let Some(entry) = pod.entries.get_mut(&instance.uuid) else { return };
        let Some(held) = &entry.instance else { return };
        let definition = pod.definitions.get(&held.value.config_ms);
        let containers = definition.map(|definition| definition.containers.iter().map(|one| one.name.clone()).collect());
        let containers: Vec<String> = containers.unwrap_or_else(|| vec![id.container.clone()]);
        let task = |container: String| observed::Task {
            task_id: instance.task_id(&container, id.incarnation).to_string(),
            container,
            ..observed::Task::default()
        };
        let agent_id = status.agent_id.as_ref().map(|agent| agent.value.clone()).unwrap_or_default();
        let (old, definition) = (entry.observed.take().unwrap_or_default(), definition.map(AsRef::as_ref));
        entry.observed = Some(Observed {
            incarnation: id.incarnation,
            role: residents::role(&old, definition, &self.settings.default_role).to_owned(),
            reservation: residents::taken_on(old.reservation, &agent_id, definition),
            config_ms: held.value.config_ms,
            agent_id,
            executor_id: instance.executor_id(id.incarnation),
            tasks: containers.into_iter().map(task).collect(),
            provisioned_ms: now,
            ..Observed::default()
        });
        entry.dirty = true;
    }
}

pub(super) fn is_alive(status: &TaskStatus) -> bool {
    let task = observed::Task { state: Some(status.state), reason: status.reason, ..observed::Task::default() };
    condition::task_is_alive(&task)
}
