//! The one task that owns all that the agent knows. Everything reaches it as a message; what it decides is
//! written by the journal first, and acted upon when that is durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    path::PathBuf,
};

use bytes::Bytes;
use podium_proto::mesos::v1::{
    AgentId, AgentInfo, FrameworkInfo, KillPolicy, Resource, TaskState, executor,
    task_status::{self, Reason},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    executor_api::{Outlet, Refusal},
    gc::Collector,
    journal::{Batch, Journal},
    launcher::{Order, Started},
    operator::Summary,
    record::ExecutorRecord,
    streams::Stream,
    survivors::Survivors,
    volumes::{self, Change},
};
use crate::link::{FromAgent, ToAgent};

/// An executor's name: its framework's id and its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub framework: String,
    pub executor: String,
}

/// A task's name: its framework's id and its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TaskKey {
    pub framework: String,
    pub task: String,
}

/// What reaches the owner, the master's words aside.
pub(super) enum Message {
    /// The launcher has done its work.
    Started { key: Key, result: Result<Started, String> },
    /// An executor's process is gone; -1 when nobody can say how.
    Exited { key: Key, status: i32 },
    /// And so is everything that carried its marker.
    Swept { key: Key },
    /// An executor wants its events.
    Subscribe { call: Box<executor::Call>, outlet: Outlet, reply: oneshot::Sender<Result<(), Refusal>> },
    /// Any other call of an executor.
    Call { call: Box<executor::Call>, reply: oneshot::Sender<Result<(), Refusal>> },
    /// An executor's stream has ended.
    Unsubscribed { key: Key, generation: u64 },
    /// For those who look on.
    Summary { reply: oneshot::Sender<Summary> },
    /// End everything; the answer comes when nothing is left and all of it is on disk.
    Stop { reply: oneshot::Sender<()> },
}

/// What follows a durable write.
#[derive(Debug)]
pub(super) enum Effect {
    /// The executor is recorded: its process may be started.
    Launch(Key),
    /// Its process is recorded: it may be given its group.
    Recorded(Key),
    /// An update is recorded: it may travel, and its sender may forget it.
    Stored { task: TaskKey, number: u64, executor: Option<Key>, uuid: Bytes },
    /// What is reserved is recorded: volumes that are new are to be made, others removed.
    Volumes(Vec<Change>),
    /// All that was asked for before is on disk.
    Reply(oneshot::Sender<()>),
}

/// What the owner does next.
enum Next {
    Durable(Vec<Effect>),
    Message(Message),
    Word(ToAgent),
    /// The master was told something.
    Told,
    Due,
}

/// How far an executor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It is being written, or started.
    Launching,
    /// There is a process.
    Alive,
    /// There was one; what it left behind is being killed.
    Dying,
    /// Nothing is left of it but updates.
    Dead,
}

/// What is said of the tasks that are still alive when their executor ends.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub state: TaskState,
    pub reason: Reason,
    pub message: String,
}

pub(super) struct Executor {
    pub record: ExecutorRecord,
    pub life: Life,
    pub process: Option<Started>,
    /// The process is on disk.
    pub recorded: bool,
    pub outlet: Option<Outlet>,
    /// Counts subscriptions, to tell the end of an old one from that of the present one.
    pub generation: u64,
    /// It has been given its group.
    pub delivered: bool,
    /// Kills that it has been sent, to be sent again should it re-subscribe.
    pub kills: BTreeMap<String, Option<KillPolicy>>,
    /// It has been told to end.
    pub shutdown: bool,
    /// Its framework is gone: nobody is told anything.
    pub silent: bool,
    pub verdict: Option<Verdict>,
    pub exit: i32,
}

/// A task's stream and where it belongs; no executor for those that were refused at once.
pub(super) struct Task {
    pub executor: Option<Key>,
    pub stream: Stream,
    /// When its head is sent again.
    pub retry: Option<Instant>,
}

/// Something to do at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The executor must have subscribed.
    Registration(Key),
    /// The executor must have ended.
    Destroy(Key),
    /// The head of this task's stream is sent again.
    Retry(TaskKey),
    /// Executors that have not come back are waited for no longer.
    Recovery,
}

pub(super) struct Owner {
    pub agent_id: AgentId,
    pub info: AgentInfo,
    pub address: SocketAddr,
    /// Holds sandboxes and the address file.
    pub folder: PathBuf,
    pub journal: Journal<Effect>,
    pub durable: mpsc::UnboundedReceiver<Vec<Effect>>,
    pub launcher: mpsc::UnboundedSender<Order>,
    pub survivors: Survivors,
    /// Hears of each sandbox whose executor has ended.
    pub sandboxes: Collector,
    pub messages: mpsc::Receiver<Message>,
    /// To itself, for what is awaited elsewhere.
    pub own: mpsc::Sender<Message>,
    pub to_master: mpsc::Sender<FromAgent>,
    pub from_master: mpsc::Receiver<ToAgent>,
    pub link: mpsc::Sender<ToAgent>,
    /// Bounded by what is known: at most a head for each task and an end for each executor.
    pub outbox: VecDeque<FromAgent>,
    /// As of their latest word: what they can do decides in which words they are answered.
    pub frameworks: HashMap<String, FrameworkInfo>,
    pub executors: HashMap<Key, Executor>,
    pub tasks: HashMap<TaskKey, Task>,
    /// What of its resources is reserved, with its persistent volumes.
    pub checkpointed: Vec<Resource>,
    pub timers: BTreeSet<(Instant, Timer)>,
    /// Executors that were alive and have not come back.
    pub awaited: BTreeSet<Key>,
    pub registered: bool,
    /// Set while everything is being ended.
    pub stopping: Option<oneshot::Sender<()>>,
    pub batch: Batch<Effect>,
    /// The limit of open files that executors are to give their containers.
    pub open_files: Option<u64>,
}

impl Owner {
    /// Works until it has been stopped, or dropped by whoever runs it.
    pub async fn run(mut self) {
        self.recover();
        self.flush().await;
        loop {
            match self.next().await {
                Next::Durable(effects) => effects.into_iter().for_each(|effect| self.effect(effect)),
                Next::Message(message) => self.message(message),
                Next::Word(word) => self.word(word),
                Next::Told => {}
                Next::Due => self.due(),
            }
            self.flush().await;
            if self.stopping.is_some() && self.all_gone() {
                break;
            }
        }
        self.finish_stop().await;
    }

    async fn next(&mut self) -> Next {
        let timer = self.timers.first().map(|(at, _)| *at);
        let timer = async move {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(effects) = self.durable.recv() => Next::Durable(effects),
            Some(message) = self.messages.recv() => Next::Message(message),
            Some(word) = self.from_master.recv() => Next::Word(word),
            permit = self.to_master.reserve(), if !self.outbox.is_empty() => {
                match (permit, self.outbox.pop_front()) {
                    (Ok(permit), Some(word)) => permit.send(word),
                    // There is no master any more.
                    (Err(_), _) | (_, None) => self.outbox.clear(),
                }
                Next::Told
            }
            () = timer => Next::Due,
        }
    }

    async fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.journal.write(std::mem::take(&mut self.batch)).await;
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Started { key, result } => self.started(&key, result),
            Message::Exited { key, status } => self.exited(&key, status),
            Message::Swept { key } => self.swept(&key),
            Message::Subscribe { call, outlet, reply } => {
                let answer = self.subscribe(*call, outlet);
                let _ = reply.send(answer);
            }
            Message::Call { call, reply } => {
                let answer = self.call(*call);
                let _ = reply.send(answer);
            }
            Message::Unsubscribed { key, generation } => {
                if let Some(executor) = self.executors.get_mut(&key).filter(|executor| executor.generation == generation) {
                    executor.outlet = None;
                }
            }
            Message::Summary { reply } => {
                let _ = reply.send(self.summary());
            }
            Message::Stop { reply } => self.stop(reply),
        }
    }

    fn word(&mut self, word: ToAgent) {
        match word {
            ToAgent::RunTaskGroup { framework, executor, launch_executor, group } => {
                self.run_group(*framework, *executor, launch_executor, group);
            }
            ToAgent::KillTask { framework_id, task_id, kill_policy } => self.kill_task(framework_id.value, task_id.value, kill_policy),
            ToAgent::Acknowledge { framework_id, task_id, uuid } => {
                self.acknowledge(&TaskKey { framework: framework_id.value, task: task_id.value }, &uuid);
            }
            ToAgent::ShutdownExecutor { framework_id, executor_id } => {
                self.shut_down(&Key { framework: framework_id.value, executor: executor_id.value });
            }
            ToAgent::ShutdownFramework { framework_id } => self.shut_down_framework(&framework_id.value),
            ToAgent::FrameworkSubscribed { framework } => self.framework_subscribed(*framework),
            ToAgent::CheckpointResources { resources } => self.checkpoint(resources),
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch(key) => self.order(&key),
            Effect::Recorded(key) => {
                if let Some(executor) = self.executors.get_mut(&key) {
                    executor.recorded = true;
                }
                self.deliver(&key);
            }
            Effect::Stored { task, number, executor, uuid } => self.stored(&task, number, executor.as_ref(), &uuid),
            Effect::Volumes(changes) => volumes::carry_out(&self.folder, &changes),
            Effect::Reply(reply) => {
                let _ = reply.send(());
            }
        }
    }

    fn due(&mut self) {
        let now = Instant::now();
        while let Some((at, timer)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Registration(key) => self.not_registered(&key),
                Timer::Destroy(key) => self.destroy(&key),
                Timer::Retry(key) => self.retry(&key, at),
                Timer::Recovery => {
                    for key in std::mem::take(&mut self.awaited) {
                        tracing::warn!(executor = key.executor, "a running executor has not come back yet; registering without it");
                    }
                    self.register();
                }
            }
        }
    }

    /// The tasks of an executor that have not ended.
    pub fn live_tasks(&self, key: &Key) -> Vec<TaskKey> {
        let Some(executor) = self.executors.get(key) else { return Vec::new() };
        let keys = executor.record.tasks.iter().map(|task| TaskKey { framework: key.framework.clone(), task: task.task_id.value.clone() });
        keys.filter(|key| self.tasks.get(key).is_some_and(|task| !task.stream.latest().is_some_and(crate::link::is_terminal))).collect()
    }

    /// Value of the marker variable of an executor's processes. Frameworks choose their executors' ids, and two may choose the same.
    pub fn marker(&self, key: &Key) -> String {
        let agent = &self.agent_id.value;
        let marked = self.executors.get(key).is_none_or(|executor| executor.record.framework_marked);
        if marked { format!("{agent}/{}/{}", key.framework, key.executor) } else { format!("{agent}/{}", key.executor) }
    }
}

impl Key {
    /// As it stands on disk; ids hold no control characters.
    pub fn bytes(&self) -> Vec<u8> {
        join(&self.framework, &self.executor)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        let (framework, executor) = split(bytes)?;
        Some(Key { framework, executor })
    }
}

impl TaskKey {
    /// As it stands on disk.
    pub fn bytes(&self) -> Vec<u8> {
        join(&self.framework, &self.task)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<TaskKey> {
        let (framework, task) = split(bytes)?;
        Some(TaskKey { framework, task })
    }

    /// The key of one of its updates: they sort by their numbers.
    pub fn update(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.push(0);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes
    }

    pub fn from_update(bytes: &[u8]) -> Option<(TaskKey, u64)> {
        let (rest, number) = bytes.split_last_chunk::<8>()?;
        Some((TaskKey::from_bytes(rest.strip_suffix(&[0])?)?, u64::from_be_bytes(*number)))
    }
}

fn join(one: &str, other: &str) -> Vec<u8> {
    [one.as_bytes(), &[0], other.as_bytes()].concat()
}

fn split(bytes: &[u8]) -> Option<(String, String)> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    let (one, other) = bytes.split_at_checked(at)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some((text(one)?, text(other.strip_prefix(&[0])?)?))
}

impl Verdict {
    pub fn new(state: TaskState, reason: task_status::Reason, message: impl Into<String>) -> Verdict {
        Verdict { state, reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_disk_as_they_went() {
        let key = TaskKey { framework: "f".into(), task: "t.1".into() };
        assert_eq!(TaskKey::from_bytes(&key.bytes()), Some(key.clone()));
        for number in [0, 255, 256, u64::MAX] {
            assert_eq!(TaskKey::from_update(&key.update(number)), Some((key.clone(), number)));
        }
        assert!(key.update(255) < key.update(256));
        assert_eq!(TaskKey::from_update(b"short"), None);
        assert_eq!(Key::from_bytes(b"no separator"), None);
    }
}
