//! Status updates on their way: from an executor or the agent itself to disk, from there to the master,
//! again and again until the framework acknowledges; and an executor's calls, which bring them.

use bytes::Bytes;
use podium_proto::mesos::v1::{
    ContainerStatus, ExecutorId, FrameworkId, FrameworkInfo, NetworkInfo, TaskId, TaskState, TaskStatus,
    executor::{Call, Event, call, event},
    network_info::{IpAddress, Protocol},
    task_status::Source,
};
use tokio::time::Instant;

use super::{
    executor_api::{Outlet, Refusal},
    journal::Table,
    life::event,
    owner::{Effect, Key, Owner, TaskKey, Timer, Verdict},
    record::{TaskRecord, UpdateRecord},
    streams::{Acknowledged, Pushed, state_of},
};
use crate::{
    executor::now,
    link::{FromAgent, is_terminal},
};

impl Owner {
    /// A status of the agent's own making.
    pub fn report(&mut self, key: &TaskKey, verdict: &Verdict) {
        let executor = self.tasks.get(key).and_then(|task| task.executor.clone());
        self.report_under(key, executor.as_ref(), verdict);
    }

    /// As [`Owner::report`], of a task that was to be run by this executor.
    pub fn report_under(&mut self, key: &TaskKey, executor: Option<&Key>, verdict: &Verdict) {
        let status = TaskStatus {
            task_id: TaskId { value: key.task.clone() },
            state: verdict.state.into(),
            message: Some(verdict.message.clone()),
            agent_id: Some(self.agent_id.clone()),
            executor_id: executor.map(|key| ExecutorId { value: key.executor.clone() }),
            source: Some(Source::Agent.into()),
            reason: Some(verdict.reason.into()),
            uuid: Some(Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes())),
            timestamp: Some(now()),
            ..TaskStatus::default()
        };
        self.take(key, status, None);
    }

    /// Takes an update in: written once, acknowledged to the executor that sent it when that is done.
    fn take(&mut self, key: &TaskKey, status: TaskStatus, sender: Option<&Key>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let silent = task.executor.as_ref().and_then(|key| self.executors.get(key)).is_some_and(|executor| executor.silent);
        let uuid = status.uuid.clone().unwrap_or_default();
        let pushed = if silent { Pushed::TooLate } else { task.stream.push(status.clone()) };
        match pushed {
            Pushed::Queued(number) => {
                self.batch.put(Table::Updates, key.update(number), &UpdateRecord { status });
                self.batch.then.push(Effect::Stored { task: key.clone(), number, executor: sender.cloned(), uuid });
            }
            Pushed::Known | Pushed::TooLate => self.confirm(key, sender, uuid),
            // The effect that is under way goes to the executor by its key, whichever its subscription.
            Pushed::BeingWritten => {}
        }
    }

    fn confirm(&mut self, task: &TaskKey, sender: Option<&Key>, uuid: Bytes) {
        let Some(executor) = sender.and_then(|key| self.executors.get_mut(key)) else { return };
        let acknowledged = event::Acknowledged { task_id: TaskId { value: task.task.clone() }, uuid };
        executor.send(&Event { acknowledged: Some(acknowledged), ..event(event::Type::Acknowledged) });
    }

    /// An update is on disk.
    pub fn stored(&mut self, key: &TaskKey, number: u64, sender: Option<&Key>, uuid: &Bytes) {
        self.confirm(key, sender, uuid.clone());
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.stream.durable(number);
        if task.stream.head().is_some_and(|head| head.number == number) {
            self.forward(key);
        }
    }

    /// Sends the head of a stream, and sees to its being sent again.
    pub fn forward(&mut self, key: &TaskKey) {
        if !self.registered || self.stopping.is_some() {
            return;
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some((status, wait)) = task.stream.send() else { return };
        let latest = task.stream.latest().or_else(|| state_of(&status)).unwrap_or(TaskState::TaskUnknown);
        let retry = Instant::now() + wait;
        task.retry = Some(retry);
        self.timers.insert((retry, Timer::Retry(key.clone())));
        let framework_id = FrameworkId { value: key.framework.clone() };
        self.tell(FromAgent::Update { agent_id: self.agent_id.clone(), framework_id, status: Box::new(status), latest });
    }

    /// Sends a head again, unless another timer has taken over.
    pub fn retry(&mut self, key: &TaskKey, at: Instant) {
        if self.tasks.get(key).is_some_and(|task| task.retry == Some(at)) {
            self.forward(key);
        }
    }

    pub fn acknowledge(&mut self, key: &TaskKey, uuid: &Bytes) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let (number, closed) = match task.stream.acknowledge(uuid) {
            Acknowledged::Ignored => return,
            Acknowledged::Next(number) => (number, false),
            Acknowledged::Closed(number) => (number, true),
        };
        task.retry = None;
        self.batch.delete(Table::Updates, key.update(number));
        let Some(executor) = task.executor.clone() else {
            if closed {
                self.drop_task(key);
            }
            return;
        };
        let record =
            TaskRecord { acknowledged: task.stream.acknowledged.clone(), uuids: task.stream.uuids.iter().cloned().collect(), closed };
        self.batch.put(Table::Tasks, key.bytes(), &record);
        if closed { self.forget_if_over(&executor) } else { self.forward(key) }
    }

    /// Forgets a task and all that is on disk about it.
    pub fn drop_task(&mut self, key: &TaskKey) {
        let Some(task) = self.tasks.remove(key) else { return };
        for number in task.stream.numbers() {
            self.batch.delete(Table::Updates, key.update(number));
        }
        self.batch.delete(Table::Tasks, key.bytes());
    }

    /// The framework is back: it gets every head at once, and executors that start later its newest word about itself.
    pub fn framework_subscribed(&mut self, framework: FrameworkInfo) {
        let Some(id) = framework.id.clone() else { return };
        for (_, executor) in self.executors.iter_mut().filter(|(key, _)| key.framework == id.value) {
            executor.record.framework = framework.clone();
        }
        self.frameworks.insert(id.value.clone(), framework);
        let heads: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(key, task)| key.framework == id.value && task.stream.head().is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for key in heads {
            self.forward(&key);
        }
    }

    /// SUBSCRIBE: the newest stream wins.
    pub fn subscribe(&mut self, call: Call, mut outlet: Outlet) -> Result<(), Refusal> {
        let key = self.known(&call)?;
        let subscribe = call.subscribe.ok_or(Refusal::bad("the call has no subscribe part"))?;
        for update in &subscribe.unacknowledged_updates {
            self.judge(&key, &update.status)?;
        }
        let Some(executor) = self.executors.get_mut(&key) else { return Err(Refusal::bad("unknown executor")) };
        executor.generation += 1;
        outlet.watch(key.clone(), executor.generation, self.own.clone());
        executor.outlet = Some(outlet);
        // An executor that has tasks was given them, whatever we remember.
        executor.delivered |= !subscribe.unacknowledged_tasks.is_empty() || !subscribe.unacknowledged_updates.is_empty();
        self.greet(&key);
        for update in subscribe.unacknowledged_updates {
            self.update(&key, update.status);
        }
        Ok(())
    }

    /// Any other call of an executor.
    pub fn call(&mut self, call: Call) -> Result<(), Refusal> {
        let key = self.known(&call)?;
        if self.executors.get(&key).is_none_or(|executor| executor.outlet.is_none()) {
            return Err(Refusal::forbidden("the executor is not subscribed"));
        }
        match call.r#type.map(call::Type::try_from) {
            Some(Ok(call::Type::Update)) => {
                let status = call.update.ok_or(Refusal::bad("the call has no update part"))?.status;
                self.judge(&key, &status)?;
                self.update(&key, status);
                Ok(())
            }
            Some(Ok(call::Type::Message)) if call.message.is_none() => Err(Refusal::bad("the call has no message part")),
            // A framework of this engine has no way to receive one: Mesos promises no more than an attempt.
            Some(Ok(call::Type::Message | call::Type::Heartbeat)) => Ok(()),
            Some(Ok(call::Type::Subscribe | call::Type::Unknown) | Err(_)) | None => {
                Err(Refusal::bad("the call's type is missing or unknown"))
            }
        }
    }

    fn known(&self, call: &Call) -> Result<Key, Refusal> {
        let key = Key { framework: call.framework_id.value.clone(), executor: call.executor_id.value.clone() };
        if !self.executors.keys().any(|known| known.framework == key.framework) {
            return Err(Refusal::bad("Framework cannot be found"));
        }
        let alive = self
            .executors
            .get(&key)
            .is_some_and(|executor| matches!(executor.life, super::owner::Life::Launching | super::owner::Life::Alive));
        if alive { Ok(key) } else { Err(Refusal::bad("Executor cannot be found")) }
    }

    /// Mesos' rules for an executor's update.
    fn judge(&self, executor: &Key, status: &TaskStatus) -> Result<(), Refusal> {
        if status.uuid.as_ref().is_none_or(|uuid| uuid.len() != 16) {
            return Err(Refusal::bad("the update's uuid must have 16 bytes"));
        }
        if status.source != Some(Source::Executor.into()) {
            return Err(Refusal::bad("the update's source must be SOURCE_EXECUTOR"));
        }
        match state_of(status) {
            None => return Err(Refusal::bad("the update's state is unknown")),
            Some(TaskState::TaskStaging) => return Err(Refusal::bad("TASK_STAGING is not for executors to send")),
            Some(_) => {}
        }
        let key = TaskKey { framework: executor.framework.clone(), task: status.task_id.value.clone() };
        let own = self.tasks.get(&key).is_some_and(|task| task.executor.as_ref() == Some(executor));
        if own { Ok(()) } else { Err(Refusal::bad("the executor has no such task")) }
    }

    /// Completes an executor's update with what only the agent knows.
    fn update(&mut self, executor: &Key, mut status: TaskStatus) {
        let key = TaskKey { framework: executor.framework.clone(), task: status.task_id.value.clone() };
        status.agent_id = Some(self.agent_id.clone());
        status.executor_id = Some(ExecutorId { value: executor.executor.clone() });
        status.timestamp.get_or_insert_with(now);
        if let Some(executor) = self.executors.get_mut(executor) {
            executor.delivered = true;
        }
        if !state_of(&status).is_some_and(is_terminal) {
            let ip = self.address.ip();
            let protocol = if ip.is_ipv4() { Protocol::IPv4 } else { Protocol::IPv6 };
            let address = IpAddress { protocol: Some(protocol.into()), ip_address: Some(ip.to_string()) };
            let container = status.container_status.get_or_insert_with(ContainerStatus::default);
            if container.network_infos.is_empty() {
                container.network_infos.push(NetworkInfo { ip_addresses: vec![address], ..NetworkInfo::default() });
            }
        }
        self.take(&key, status, Some(executor));
    }
}
