//! What an agent finds when it starts again: its executors may have gone on, ended, or never been started.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use podium_proto::mesos::v1::{AgentId, FrameworkInfo, Resource, TaskStatus};
use rustix::process::Pid;
use tokio::time::Instant;

use super::{
    journal::{JournalError, Stored, Table, decode},
    launcher::Started,
    life::{boot, sandbox, watch},
    owner::{Effect, Executor, Key, Life, Owner, Task, TaskKey, Timer},
    record::{CheckpointRecord, ExecutorRecord, ProcessRecord, TaskRecord, UpdateRecord},
    streams::Stream,
};
use crate::{
    executor::processes,
    link::{FromAgent, KnownExecutor, is_terminal},
};

/// How long living executors are waited for before the master is told without them.
const RECOVERY: Duration = Duration::from_secs(5);

/// The agent's memory, put together from its records.
#[derive(Default)]
pub(super) struct Memory {
    pub executors: Vec<(Key, Executor)>,
    pub tasks: Vec<(TaskKey, Task)>,
    /// What of the agent's resources is reserved.
    pub checkpointed: Vec<Resource>,
}

impl Memory {
    /// The frameworks of all executors.
    pub fn frameworks(&self) -> HashMap<String, FrameworkInfo> {
        self.executors.iter().map(|(key, executor)| (key.framework.clone(), executor.record.framework.clone())).collect()
    }

    /// The sandboxes of executors that have not ended, as far as the records tell.
    pub fn living_sandboxes(&self, folder: &Path, agent: &AgentId) -> HashSet<PathBuf> {
        let living = self.executors.iter().filter(|(_, executor)| executor.life != Life::Dead);
        living.map(|(key, executor)| sandbox(folder, agent, key, &executor.record.container)).collect()
    }
}

/// Reads all records.
pub(super) fn read(path: &Path, mut stored: Stored) -> Result<Memory, JournalError> {
    let mut take = |table| stored.tables.remove(&table).unwrap_or_default();
    let damaged = |table| JournalError::Damaged { path: path.display().to_string(), table };
    let executors: Vec<(Vec<u8>, ExecutorRecord)> = decode(path, "executors", take(Table::Executors))?;
    let mut processes: HashMap<Vec<u8>, ProcessRecord> = decode(path, "processes", take(Table::Processes))?.into_iter().collect();
    let mut known: HashMap<Vec<u8>, TaskRecord> = decode(path, "tasks", take(Table::Tasks))?.into_iter().collect();
    let mut queues: HashMap<TaskKey, Vec<(u64, TaskStatus)>> = HashMap::new();
    for (key, update) in decode::<UpdateRecord>(path, "updates", take(Table::Updates))? {
        let (task, number) = TaskKey::from_update(&key).ok_or_else(|| damaged("updates"))?;
        queues.entry(task).or_default().push((number, update.status));
    }
    let checkpoint: Vec<(Vec<u8>, CheckpointRecord)> = decode(path, "checkpoint", take(Table::Checkpoint))?;
    let checkpointed = checkpoint.into_iter().flat_map(|(_, record)| record.resources).collect();
    let mut memory = Memory { checkpointed, ..Memory::default() };
    for (bytes, record) in executors {
        let key = Key::from_bytes(&bytes).ok_or_else(|| damaged("executors"))?;
        for info in &record.tasks {
            let task = TaskKey { framework: key.framework.clone(), task: info.task_id.value.clone() };
            let TaskRecord { acknowledged, uuids, closed } = known.remove(&task.bytes()).unwrap_or_default();
            let stream = Stream::restored(acknowledged, uuids, closed, queues.remove(&task).unwrap_or_default());
            memory.tasks.push((task, Task { executor: Some(key.clone()), stream, retry: None }));
        }
        memory.executors.push((key, restored(record, processes.remove(&bytes))));
    }
    // Updates about tasks that were refused at once have no executor.
    for (task, queue) in queues {
        memory.tasks.push((task, Task { executor: None, stream: Stream::restored(None, Vec::<Bytes>::new(), false, queue), retry: None }));
    }
    Ok(memory)
}

/// An executor as far as its records tell; whether it lives is for [`Owner::recover`] to find out.
fn restored(record: ExecutorRecord, process: Option<ProcessRecord>) -> Executor {
    let life = if process.as_ref().is_some_and(|process| process.ended) { Life::Dead } else { Life::Launching };
    let mut executor = Executor::new(record, life);
    executor.recorded = process.is_some();
    executor.process = process.filter(|process| !process.ended).and_then(|process| {
        // After another boot a process of this id is another one: no start time fits.
        let start = if process.boot == boot() { process.start } else { u64::MAX };
        Some(Started { pid: Pid::from_raw(process.pid)?, start })
    });
    executor
}

impl Owner {
    /// Finds out what has become of the executors; the master hears of them when all are accounted for.
    pub fn recover(&mut self) {
        let found: Vec<(Pid, String)> = if self.executors.is_empty() { Vec::new() } else { self.marked() };
        let mut lost = Vec::new();
        let mut fresh = Vec::new();
        for (key, executor) in &mut self.executors {
            match executor.process {
                _ if executor.life == Life::Dead => {}
                Some(process) if alive(process) => {
                    executor.life = Life::Alive;
                    self.awaited.insert(key.clone());
                }
                Some(_) => lost.push(key.clone()),
                None if executor.recorded => lost.push(key.clone()),
                None => fresh.push(key.clone()),
            }
        }
        for key in self.executors.keys().cloned().collect::<Vec<_>>() {
            self.remember_delivery(&key);
        }
        for key in fresh {
            self.recover_unrecorded(&key, &found);
        }
        for key in lost {
            if let Some(executor) = self.executors.get_mut(&key) {
                executor.life = Life::Alive;
            }
            self.awaited.insert(key.clone());
            self.exited(&key, -1);
        }
        for key in &self.awaited {
            let Some(executor) = self.executors.get(key).filter(|executor| executor.life == Life::Alive) else { continue };
            let Some(process) = executor.process else { continue };
            tokio::spawn(watch(key.clone(), process, self.own.clone()));
            self.timers.insert((Instant::now() + super::life::REGISTRATION, Timer::Registration(key.clone())));
        }
        self.end_strays(&found);
        if self.awaited.is_empty() {
            self.register();
        } else {
            self.timers.insert((Instant::now() + RECOVERY, Timer::Recovery));
        }
    }

    fn marked(&self) -> Vec<(Pid, String)> {
        processes::marked().into_iter().filter(|(_, marker)| processes::covers(&self.agent_id.value, marker)).collect()
    }

    /// A group of which the executor has said something was delivered. One that was not, and of which a task has
    /// ended all the same, was killed before and must not be.
    fn remember_delivery(&mut self, key: &Key) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        let keys = executor.record.tasks.iter().map(|info| TaskKey { framework: key.framework.clone(), task: info.task_id.value.clone() });
        let streams: Vec<&Stream> = keys.filter_map(|key| self.tasks.get(&key)).map(|task| &task.stream).collect();
        executor.delivered = streams.iter().any(|stream| stream.heard_executor());
        executor.shutdown = !executor.delivered && streams.iter().any(|stream| stream.latest().is_some_and(is_terminal));
    }

    /// An executor of which no process is on disk was never given its group. It may have been started all the same,
    /// and is then taken as it is; else it is started now.
    fn recover_unrecorded(&mut self, key: &Key, found: &[(Pid, String)]) {
        let marker = self.marker(key);
        let process = found
            .iter()
            .filter(|(_, value)| *value == marker)
            .find_map(|(pid, _)| Some(Started { pid: *pid, start: processes::stat(*pid)?.start }));
        let Some(executor) = self.executors.get_mut(key) else { return };
        executor.life = Life::Launching;
        match process {
            Some(process) => {
                executor.process = Some(process);
                executor.life = Life::Alive;
                let record = ProcessRecord { pid: process.pid.as_raw_nonzero().get(), start: process.start, boot: boot(), ended: false };
                self.batch.put(Table::Processes, key.bytes(), &record);
                self.batch.then.push(Effect::Recorded(key.clone()));
                self.awaited.insert(key.clone());
            }
            None => self.batch.then.push(Effect::Launch(key.clone())),
        }
    }

    /// Ends processes that carry our marker and belong to no executor that lives.
    fn end_strays(&self, found: &[(Pid, String)]) {
        let living: Vec<String> =
            self.executors.iter().filter(|(_, executor)| executor.life != Life::Dead).map(|(key, _)| self.marker(key)).collect();
        let strays: HashSet<&String> = found
            .iter()
            .map(|(_, marker)| marker)
            .filter(|marker| !living.iter().any(|living| processes::covers(living, marker)))
            .collect();
        for marker in strays {
            tracing::warn!(marker, "ending processes of an instance that nobody knows");
            let (survivors, marker) = (self.survivors.clone(), marker.clone());
            tokio::spawn(async move { survivors.end(marker).await });
        }
    }

    /// Tells the master of this agent, once, and of all that runs here; updates travel from now on.
    pub fn register(&mut self) {
        if self.registered {
            return;
        }
        self.registered = true;
        let executors = self.executors.iter().map(|(key, executor)| self.known_executor(key, executor)).collect();
        let dead: Vec<Key> =
            self.executors.iter().filter(|(_, executor)| executor.life == Life::Dead).map(|(key, _)| key.clone()).collect();
        let (info, checkpointed) = (Box::new(self.info.clone()), self.checkpointed.clone());
        self.tell(FromAgent::Register { info, address: self.address, executors, checkpointed, link: self.link.clone() });
        let tasks: Vec<TaskKey> = self.tasks.keys().cloned().collect();
        for key in tasks {
            self.forward(&key);
        }
        for key in dead {
            self.tell_exited(&key, -1);
        }
    }

    fn known_executor(&self, key: &Key, executor: &Executor) -> KnownExecutor {
        let tasks = executor.record.tasks.iter().filter_map(|info| {
            let task = self.tasks.get(&TaskKey { framework: key.framework.clone(), task: info.task_id.value.clone() })?;
            if task.stream.closed() {
                return None;
            }
            let status = task.stream.forwarded().cloned().unwrap_or_else(|| TaskStatus {
                task_id: info.task_id.clone(),
                state: podium_proto::mesos::v1::TaskState::TaskStaging.into(),
                agent_id: Some(self.agent_id.clone()),
                ..TaskStatus::default()
            });
            Some((info.clone(), status))
        });
        KnownExecutor { executor: executor.record.executor.clone(), framework: executor.record.framework.clone(), tasks: tasks.collect() }
    }
}

/// Whether this very process still runs.
fn alive(process: Started) -> bool {
    processes::stat(process.pid).is_some_and(|stat| stat.start == process.start && !stat.zombie)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use podium_proto::mesos::v1::{ExecutorId, ExecutorInfo, FrameworkId};
    use tokio::{net::TcpListener, sync::mpsc};

    use super::*;
    use crate::{
        agent::{Agent, AgentConfig, Retention, journal::Batch, journal::Journal},
        executor::MARKER,
    };

    fn sleeping(marker: &str) -> Child {
        Command::new("sleep").arg("1000").env(MARKER, marker).spawn().unwrap()
    }

    async fn killed(mut child: Child) -> bool {
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let status = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it is ended in time").unwrap();
        !status.success()
    }

    /// What an earlier build has recorded of the executor `e` of the framework `f`.
    async fn recorded(path: &Path, process: &Child) {
        let (done, mut written) = mpsc::unbounded_channel();
        let (journal, _) = Journal::open(path, "agent", done).unwrap();
        let id = FrameworkId { value: "f".to_owned() };
        let executor =
            ExecutorInfo { executor_id: ExecutorId { value: "e".to_owned() }, framework_id: Some(id.clone()), ..ExecutorInfo::default() };
        let framework = FrameworkInfo { id: Some(id), ..FrameworkInfo::default() };
        let record = ExecutorRecord { framework, executor, tasks: Vec::new(), container: "run".to_owned(), framework_marked: false };
        let key = Key { framework: "f".to_owned(), executor: "e".to_owned() };
        let pid = Pid::from_child(process);
        let start = processes::stat(pid).unwrap().start;
        let mut batch = Batch { then: vec![()], ..Batch::default() };
        batch.put(Table::Executors, key.bytes(), &record);
        let process = ProcessRecord { pid: pid.as_raw_nonzero().get(), start, boot: boot(), ended: false };
        batch.put(Table::Processes, key.bytes(), &process);
        journal.write(batch).await;
        written.recv().await.unwrap();
        journal.close().await;
    }

    #[tokio::test]
    async fn an_executor_of_an_earlier_build_is_known_by_the_marker_that_it_carries() {
        let folder = tempfile::tempdir().unwrap();
        let (mut executor, mut container) = (sleeping("agent/e"), sleeping("agent/e/c"));
        let (forgotten, stray) = (sleeping("agent/x/c"), sleeping("agent/g/e/c"));
        recorded(&folder.path().join("agent.redb"), &executor).await;
        let (to_master, _words) = mpsc::channel(16);
        let agent = Agent::start(AgentConfig {
            data_dir: folder.path().to_owned(),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            resources: Vec::new(),
            attributes: Vec::new(),
            hostname: "localhost".to_owned(),
            executor_command: vec!["/bin/false".into()],
            retention: Retention::default(),
            to_master,
        });
        let agent = agent.await.unwrap();
        assert!(killed(forgotten).await && killed(stray).await, "nobody knows these");
        assert!(executor.try_wait().unwrap().is_none() && container.try_wait().unwrap().is_none(), "these run on");
        // Waited for by the agent, as its parent here.
        executor.kill().unwrap();
        assert!(killed(container).await, "what it leaves is ended with it");
        agent.abandon().await;
    }
}
