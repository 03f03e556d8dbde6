//! The life of executors: launched, given their group, told to kill, ended, cleaned up after.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use podium_proto::mesos::v1::{
    AgentId, ContainerId, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy, TaskGroupInfo, TaskId, TaskState,
    executor::{Event, event},
    framework_info::capability,
    task_status::Reason,
};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, WaitOptions},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::Instant,
};

use super::{
    journal::Table,
    launcher::{Order, Started},
    owner::{Effect, Executor, Key, Life, Message, Owner, Task, TaskKey, Timer, Verdict},
    record::{ExecutorRecord, ProcessRecord},
    streams::Stream,
    volumes,
};
use crate::{
    executor::{ADDRESS_FILE, MARKER, OPEN_FILES, processes},
    link::{FromAgent, is_terminal},
};

/// Mesos' `executor_registration_timeout`.
pub(super) const REGISTRATION: Duration = Duration::from_secs(60);
/// Mesos' `executor_shutdown_grace_period`.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long instances outlive their agent.
const RECOVERY_TIMEOUT: &str = "7days";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a framework wants to know a lost launch from a lost task.
pub(super) fn dropped(framework: Option<&FrameworkInfo>) -> TaskState {
    let aware = Some(capability::Type::PartitionAware.into());
    let capabilities = framework.map(|framework| framework.capabilities.as_slice()).unwrap_or_default();
    if capabilities.iter().any(|capability| capability.r#type == aware) { TaskState::TaskDropped } else { TaskState::TaskLost }
}

impl Executor {
    pub fn new(record: ExecutorRecord, life: Life) -> Executor {
        Executor {
            record,
            life,
            process: None,
            recorded: false,
            outlet: None,
            generation: 0,
            delivered: false,
            kills: std::collections::BTreeMap::new(),
            shutdown: false,
            silent: false,
            verdict: None,
            exit: -1,
        }
    }

    /// Sends an event, if it is subscribed; one who can't keep up has to subscribe again.
    pub fn send(&mut self, event: &Event) {
        if self.outlet.as_ref().is_some_and(|outlet| !outlet.send(event)) {
            self.outlet = None;
        }
    }
}

pub(super) fn event(kind: event::Type) -> Event {
    Event { r#type: Some(kind.into()), ..Event::default() }
}

impl Owner {
    /// Records a group; its executor is started when that is durable.
    pub fn run_group(&mut self, framework: FrameworkInfo, executor: ExecutorInfo, launch_executor: bool, group: TaskGroupInfo) {
        let Some(framework_id) = framework.id.as_ref().or(executor.framework_id.as_ref()).map(|id| id.value.clone()) else {
            tracing::error!("the master sent a task group of a framework without an id");
            return;
        };
        self.frameworks.insert(framework_id.clone(), framework.clone());
        let key = Key { framework: framework_id, executor: executor.executor_id.value.clone() };
        let keys: Vec<TaskKey> =
            group.tasks.iter().map(|task| TaskKey { framework: key.framework.clone(), task: task.task_id.value.clone() }).collect();
        if keys.iter().any(|task| self.tasks.contains_key(task)) {
            // The master asked twice for what is known: the stream speaks for it.
            return;
        }
        let names = [&key.framework, &key.executor].into_iter().chain(keys.iter().map(|key| &key.task));
        if names.into_iter().any(|name| !names_a_folder(name)) {
            tracing::error!(executor = key.executor, "the master sent a task group with an id that it should have refused");
            if launch_executor {
                self.tell_exited(&key, -1);
            }
            for task in keys {
                let verdict = Verdict::new(TaskState::TaskError, Reason::TaskGroupInvalid, "an id of the group cannot name a folder");
                self.refuse(task, None, &verdict);
            }
            return;
        }
        if let Some(why) = self.no_place_for_group(&key, launch_executor) {
            if launch_executor {
                self.tell_exited(&key, -1);
            }
            let verdict = Verdict::new(dropped(Some(&framework)), Reason::ExecutorTerminated, why);
            for task in keys {
                self.refuse(task, Some(&key), &verdict);
            }
            return;
        }
        for task in keys {
            self.tasks.insert(task, Task { executor: Some(key.clone()), stream: Stream::default(), retry: None });
        }
        let container = uuid::Uuid::new_v4().to_string();
        let record = ExecutorRecord { framework, executor, tasks: group.tasks, container, framework_marked: true };
        self.batch.put(Table::Executors, key.bytes(), &record);
        self.batch.then.push(Effect::Launch(key.clone()));
        self.executors.insert(key, Executor::new(record, Life::Launching));
    }

    /// Why a group can't be run; in Mesos' words, but that a real agent gives a group to an executor that runs another.
    fn no_place_for_group(&self, key: &Key, launch_executor: bool) -> Option<&'static str> {
        match (launch_executor, self.executors.contains_key(key)) {
            _ if self.stopping.is_some() => Some("the agent is stopping"),
            // It has ended, and is kept for its tasks' updates.
            (true, true) => Some("Master wants to launch executor, but one already exists"),
            (false, false) => Some("No executor is expected to launch and there is none running"),
            (false, true) => Some("the agent starts one executor for each task group, and this one has been given its own"),
            (true, false) => None,
        }
    }

    /// Answers for a task that will never run here, under this executor if it was to be run by one.
    pub fn refuse(&mut self, key: TaskKey, executor: Option<&Key>, verdict: &Verdict) {
        self.tasks.entry(key.clone()).or_insert_with(|| Task { executor: None, stream: Stream::default(), retry: None });
        self.report_under(&key, executor, verdict);
    }

    /// Has the process of a recorded executor started.
    pub fn order(&mut self, key: &Key) {
        let Some(executor) = self.executors.get(key) else { return };
        if executor.shutdown || self.stopping.is_some() {
            self.exited(key, -1);
            return;
        }
        let sandbox = sandbox(&self.folder, &self.agent_id, key, &executor.record.container);
        let environment = self.environment(key, executor, &sandbox.to_string_lossy());
        let volumes = match volumes::of(&self.folder, &self.checkpointed, &executor.record.executor.resources) {
            Ok(volumes) => volumes,
            Err(why) => {
                self.started(key, Err(why));
                return;
            }
        };
        if self.launcher.send(Order { key: key.clone(), sandbox, volumes, environment }).is_err() {
            self.started(key, Err("the agent's launcher has ended".to_owned()));
        }
    }

    fn environment(&self, key: &Key, executor: &Executor, sandbox: &str) -> Vec<(String, String)> {
        let checkpoint = executor.record.framework.checkpoint();
        let address = self.address.to_string();
        let mut all = vec![
            ("PATH", PATH.to_owned()),
            ("LIBPROCESS_PORT", "0".to_owned()),
            ("MESOS_AGENT_ENDPOINT", address.clone()),
            ("MESOS_CHECKPOINT", if checkpoint { "1" } else { "0" }.to_owned()),
            ("MESOS_DIRECTORY", sandbox.to_owned()),
            ("MESOS_EXECUTOR_ID", key.executor.clone()),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", format!("{}secs", shutdown_grace(&executor.record.executor).as_secs_f64())),
            ("MESOS_FRAMEWORK_ID", key.framework.clone()),
            ("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned()),
            ("MESOS_SANDBOX", sandbox.to_owned()),
            ("MESOS_SLAVE_ID", self.agent_id.value.clone()),
            ("MESOS_SLAVE_PID", format!("slave(1)@{address}")),
            (MARKER, self.marker(key)),
            (ADDRESS_FILE, self.folder.join(super::ADDRESS).to_string_lossy().into_owned()),
        ];
        if checkpoint {
            all.push(("MESOS_RECOVERY_TIMEOUT", RECOVERY_TIMEOUT.to_owned()));
            all.push(("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs".to_owned()));
        }
        if let Some(limit) = self.open_files {
            all.push((OPEN_FILES, limit.to_string()));
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The launcher's answer: the process is recorded, and watched from now on.
    pub fn started(&mut self, key: &Key, result: Result<Started, String>) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        match result {
            Ok(started) => {
                executor.process = Some(started);
                executor.life = Life::Alive;
                let record = ProcessRecord { pid: started.pid.as_raw_nonzero().get(), start: started.start, boot: boot(), ended: false };
                self.batch.put(Table::Processes, key.bytes(), &record);
                self.batch.then.push(Effect::Recorded(key.clone()));
                tokio::spawn(watch(key.clone(), started, self.own.clone()));
                self.timers.insert((Instant::now() + REGISTRATION, Timer::Registration(key.clone())));
                if self.executors.get(key).is_some_and(|executor| executor.shutdown) || self.stopping.is_some() {
                    self.destroy(key);
                }
            }
            Err(error) => {
                executor.verdict =
                    Some(Verdict::new(TaskState::TaskFailed, Reason::ContainerLaunchFailed, format!("cannot start the executor: {error}")));
                self.exited(key, -1);
            }
        }
    }

    /// Hands a subscribed executor its group, once its process is on disk.
    pub fn deliver(&mut self, key: &Key) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        if executor.delivered || !executor.recorded || executor.outlet.is_none() || executor.shutdown {
            return;
        }
        executor.delivered = true;
        let tasks = executor.record.tasks.clone();
        let launch = event::LaunchGroup { task_group: TaskGroupInfo { tasks } };
        executor.send(&Event { launch_group: Some(launch), ..event(event::Type::LaunchGroup) });
    }

    /// What a fresh subscription begins with.
    pub fn greet(&mut self, key: &Key) {
        let info = self.info.clone();
        let Some(executor) = self.executors.get_mut(key) else { return };
        let subscribed = event::Subscribed {
            executor_info: executor.record.executor.clone(),
            framework_info: executor.record.framework.clone(),
            agent_info: info,
            container_id: Some(ContainerId { value: executor.record.container.clone(), parent: None }),
        };
        executor.send(&Event { subscribed: Some(subscribed), ..event(event::Type::Subscribed) });
        self.deliver(key);
        let Some(executor) = self.executors.get_mut(key) else { return };
        for (task, policy) in executor.kills.clone() {
            executor.send(&kill(task, policy));
        }
        if executor.shutdown {
            executor.send(&event(event::Type::Shutdown));
        }
        if self.awaited.remove(key) && self.awaited.is_empty() {
            self.register();
        }
    }

    /// A kill of the framework's.
    pub fn kill_task(&mut self, framework: String, task: String, policy: Option<KillPolicy>) {
        let task = TaskKey { framework, task };
        let Some(known) = self.tasks.get(&task) else {
            let state = dropped(self.frameworks.get(&task.framework));
            self.refuse(task, None, &Verdict::new(state, Reason::ExecutorTerminated, "the agent knows no such task"));
            return;
        };
        if known.stream.latest().is_some_and(is_terminal) {
            return;
        }
        let Some(key) = known.executor.clone() else { return };
        let Some(executor) = self.executors.get_mut(&key) else { return };
        if executor.delivered || executor.life == Life::Dying {
            executor.kills.insert(task.task.clone(), policy);
            executor.send(&kill(task.task, policy));
            return;
        }
        // Nothing of the group has run: all of it is over at once.
        executor.shutdown = true;
        let verdict = Verdict::new(
            TaskState::TaskKilled,
            Reason::TaskKilledDuringLaunch,
            "the task group was killed before it was delivered to its executor",
        );
        for task in self.live_tasks(&key) {
            self.report(&task, &verdict);
        }
        self.destroy(&key);
    }

    /// Tells an executor to end, and sees to it that it does.
    pub fn shut_down(&mut self, key: &Key) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        if executor.shutdown || executor.life == Life::Dead {
            return;
        }
        executor.shutdown = true;
        if !executor.delivered {
            self.destroy(key);
            return;
        }
        executor.send(&event(event::Type::Shutdown));
        let grace = shutdown_grace(&executor.record.executor);
        self.timers.insert((Instant::now() + grace, Timer::Destroy(key.clone())));
    }

    pub fn shut_down_framework(&mut self, framework: &str) {
        self.frameworks.remove(framework);
        let keys: Vec<Key> = self.executors.keys().filter(|key| key.framework == framework).cloned().collect();
        for key in keys {
            if let Some(executor) = self.executors.get_mut(&key) {
                executor.silent = true;
            }
            self.shut_down(&key);
            self.forget_if_over(&key);
        }
        // Nobody is left to acknowledge what was refused.
        let orphans: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(key, task)| key.framework == framework && task.executor.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            self.drop_task(&key);
        }
    }

    /// Kills the executor's process and all that carries its marker; the rest follows from its end.
    pub fn destroy(&mut self, key: &Key) {
        let Some(executor) = self.executors.get(key) else { return };
        if executor.life != Life::Alive {
            return;
        }
        let (survivors, marker) = (self.survivors.clone(), self.marker(key));
        tokio::spawn(async move { survivors.end(marker).await });
    }

    pub fn not_registered(&mut self, key: &Key) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        if executor.generation > 0 || executor.life != Life::Alive {
            return;
        }
        let (reason, message) = if executor.delivered {
            (Reason::ExecutorReregistrationTimeout, "the executor did not come back to the agent")
        } else {
            (Reason::ExecutorRegistrationTimeout, "the executor did not subscribe at the agent")
        };
        executor.verdict = Some(Verdict::new(TaskState::TaskFailed, reason, format!("{message} within {REGISTRATION:?}")));
        self.destroy(key);
    }

    /// The executor's process is gone: so must be all that it started, before its tasks are called ended.
    pub fn exited(&mut self, key: &Key, status: i32) {
        let live = !self.live_tasks(key).is_empty();
        let marker = self.marker(key);
        let Some(executor) = self.executors.get_mut(key).filter(|executor| matches!(executor.life, Life::Launching | Life::Alive)) else {
            return;
        };
        executor.life = Life::Dying;
        // Of one that is no child of this process, having been started by the last run, no status is to be had. It ends by itself
        // once its containers have ended, and well: that is what it does without a status too, as far as anybody can see.
        executor.exit = if status < 0 && !live { 0 } else { status };
        executor.outlet = None;
        if status == 0 && !live {
            // It ended by itself, which it does only when nothing is left below it.
            self.swept(key);
            return;
        }
        let (survivors, own, key) = (self.survivors.clone(), self.own.clone(), key.clone());
        tokio::spawn(async move {
            survivors.end(marker).await;
            let _ = own.send(Message::Swept { key }).await;
        });
    }

    /// Nothing of the executor is left.
    pub fn swept(&mut self, key: &Key) {
        let Some(executor) = self.executors.get_mut(key).filter(|executor| executor.life == Life::Dying) else { return };
        executor.life = Life::Dead;
        let status = executor.exit;
        let sandbox = sandbox(&self.folder, &self.agent_id, key, &executor.record.container);
        let process = executor.process.take();
        let verdict = executor.verdict.clone().unwrap_or_else(|| {
            let how = if status < 0 { String::new() } else { format!(" (wait status {status})") };
            Verdict::new(TaskState::TaskFailed, Reason::ExecutorTerminated, format!("the executor ended before its containers did{how}"))
        });
        let (pid, start) = process.map_or((0, 0), |process| (process.pid.as_raw_nonzero().get(), process.start));
        self.batch.put(Table::Processes, key.bytes(), &ProcessRecord { pid, start, boot: boot(), ended: true });
        let verdict = if self.stopping.is_some() { super::stopping::verdict() } else { verdict };
        for task in self.live_tasks(key) {
            self.report(&task, &verdict);
        }
        self.tell_exited(key, status);
        self.sandboxes.ended(sandbox);
        self.forget_if_over(key);
        if self.awaited.remove(key) && self.awaited.is_empty() {
            self.register();
        }
    }

    /// Forgets an executor that has ended and whose updates are all acknowledged, or nobody's.
    pub fn forget_if_over(&mut self, key: &Key) {
        let Some(executor) = self.executors.get(key).filter(|executor| executor.life == Life::Dead) else { return };
        let tasks: Vec<TaskKey> = executor
            .record
            .tasks
            .iter()
            .map(|task| TaskKey { framework: key.framework.clone(), task: task.task_id.value.clone() })
            .collect();
        let over = tasks.iter().all(|task| self.tasks.get(task).is_none_or(|task| task.stream.closed()));
        if !over && !executor.silent {
            return;
        }
        for task in tasks {
            self.drop_task(&task);
        }
        self.executors.remove(key);
        self.batch.delete(Table::Executors, key.bytes());
        self.batch.delete(Table::Processes, key.bytes());
    }

    /// Of an executor that has ended, or that was never started; -1 when nobody can say how.
    pub fn tell_exited(&mut self, key: &Key, status: i32) {
        let framework_id = FrameworkId { value: key.framework.clone() };
        let executor_id = ExecutorId { value: key.executor.clone() };
        self.tell(FromAgent::ExecutorExited { agent_id: self.agent_id.clone(), framework_id, executor_id, status });
    }

    /// To the master, once it knows us.
    pub fn tell(&mut self, word: FromAgent) {
        if self.registered && self.stopping.is_none() {
            self.outbox.push_back(word);
        }
    }
}

/// Mesos' tree of sandboxes, as far as an agent's is the same for all.
pub(super) fn frameworks_folder(folder: &Path, agent: &AgentId) -> PathBuf {
    folder.join("slaves").join(&agent.value).join("frameworks")
}

/// The sandbox of an executor's run.
pub(super) fn sandbox(folder: &Path, agent: &AgentId, key: &Key, container: &str) -> PathBuf {
    frameworks_folder(folder, agent).join(&key.framework).join("executors").join(&key.executor).join("runs").join(container)
}

fn kill(task: String, policy: Option<KillPolicy>) -> Event {
    let kill = event::Kill { task_id: TaskId { value: task }, kill_policy: policy };
    Event { kill: Some(kill), ..event(event::Type::Kill) }
}

/// Ids become parts of paths: the master has checked them, and this is the last place that can.
fn names_a_folder(id: &str) -> bool {
    !matches!(id, "" | "." | "..") && !id.contains(['/', '\0'])
}

pub(super) fn shutdown_grace(executor: &ExecutorInfo) -> Duration {
    let given = executor.shutdown_grace_period.as_ref().and_then(|period| u64::try_from(period.nanoseconds).ok());
    given.map_or(SHUTDOWN_GRACE, Duration::from_nanos)
}

/// The kernel's id of this boot: process ids and start times mean nothing after another one.
pub(super) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Waits for the end of a process, our child or not, and tells how it ended when that can be known.
pub(super) async fn watch(key: Key, process: Started, messages: mpsc::Sender<Message>) {
    let status = end_of(process).await;
    let _ = messages.send(Message::Exited { key, status }).await;
}

async fn end_of(process: Started) -> i32 {
    let fd = loop {
        match rustix::process::pidfd_open(process.pid, PidfdFlags::empty()) {
            Ok(fd) => break fd,
            Err(Errno::SRCH) => return wait_status(process.pid),
            // Out of descriptors, most likely: no reason to take it for ended.
            Err(error) => {
                tracing::warn!(%error, "an executor can't be watched yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    // Read after the descriptor was opened: if it is the right process now, the descriptor is its.
    if processes::stat(process.pid).is_none_or(|stat| stat.start != process.start) {
        return -1;
    }
    // What the deprecation is about (an object that gives out another descriptor later) an owned descriptor can't do,
    // and the successor can only be called in unsafe code.
    #[allow(deprecated)]
    if let Ok(fd) = AsyncFd::with_interest(fd, Interest::READABLE) {
        let _ = fd.readable().await;
    }
    wait_status(process.pid)
}

fn wait_status(pid: Pid) -> i32 {
    match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => status.as_raw(),
        Ok(None) | Err(_) => -1,
    }
}
