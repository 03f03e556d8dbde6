//! A master made of two channels, and the groups that the tests launch.

use std::{collections::VecDeque, fs, path::PathBuf, time::Duration};

use podium_engine::{
    agent::{Agent, AgentConfig, DEFAULT_RESOURCES, Retention, parse_resources},
    executor::MARKER,
    link::{FromAgent, KnownExecutor, LINK_CAPACITY, ToAgent},
};
use podium_proto::mesos::v1::{
    AgentId, AgentInfo, CommandInfo, DurationInfo, Environment, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy,
    TaskGroupInfo, TaskId, TaskInfo, TaskState, TaskStatus, environment::Variable, executor_info, framework_info::Capability,
    framework_info::capability,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

use super::wait::PATIENCE;

pub struct Rig {
    pub folder: TempDir,
    pub agent: Option<Agent>,
    pub from_agent: mpsc::Receiver<FromAgent>,
    pub link: mpsc::Sender<ToAgent>,
    pub agent_id: AgentId,
    pub info: AgentInfo,
    /// What the latest `Register` said.
    pub known: Vec<KnownExecutor>,
    pub recovering: bool,
    pub exits: Vec<(String, i32)>,
    /// Updates that were read past while something else was awaited.
    pub updates: VecDeque<TaskStatus>,
    /// Acknowledge as they come.
    pub acknowledge: bool,
    /// For the next start.
    pub retention: Retention,
}

pub fn framework() -> FrameworkInfo {
    let capability = |kind: capability::Type| Capability { r#type: Some(kind.into()) };
    FrameworkInfo {
        user: String::new(),
        name: "test".into(),
        id: Some(FrameworkId { value: "framework".into() }),
        checkpoint: Some(true),
        capabilities: vec![capability(capability::Type::TaskKillingState), capability(capability::Type::PartitionAware)],
        ..FrameworkInfo::default()
    }
}

pub fn executor(id: &str) -> ExecutorInfo {
    ExecutorInfo {
        executor_id: ExecutorId { value: id.into() },
        framework_id: framework().id,
        r#type: Some(executor_info::Type::Default.into()),
        ..ExecutorInfo::default()
    }
}

/// A task that runs a line of shell.
pub fn task(id: &str, script: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: TaskId { value: id.into() },
        agent_id: AgentId { value: "whichever".into() },
        command: Some(CommandInfo { value: Some(script.into()), ..CommandInfo::default() }),
        ..TaskInfo::default()
    }
}

pub fn with_grace(mut task: TaskInfo, grace: Duration) -> TaskInfo {
    task.kill_policy = Some(policy(grace));
    task
}

pub fn policy(grace: Duration) -> KillPolicy {
    KillPolicy { grace_period: Some(DurationInfo { nanoseconds: i64::try_from(grace.as_nanos()).unwrap() }) }
}

pub fn with_variable(mut task: TaskInfo, name: &str, value: &str) -> TaskInfo {
    let command = task.command.as_mut().unwrap();
    let variable = Variable { name: name.into(), value: Some(value.into()), ..Variable::default() };
    command.environment.get_or_insert_with(Environment::default).variables.push(variable);
    task
}

pub fn state(status: &TaskStatus) -> TaskState {
    TaskState::try_from(status.state).unwrap()
}

impl Rig {
    pub async fn new() -> Rig {
        Rig::on(tempfile::tempdir().unwrap(), &[env!("CARGO_BIN_EXE_podium-executor")]).await
    }

    pub async fn on(folder: TempDir, command: &[&str]) -> Rig {
        let (link, _) = mpsc::channel(1);
        let (_, from_agent) = mpsc::channel(1);
        let mut rig = Rig {
            folder,
            agent: None,
            from_agent,
            link,
            agent_id: AgentId::default(),
            info: AgentInfo::default(),
            known: Vec::new(),
            recovering: false,
            exits: Vec::new(),
            updates: VecDeque::new(),
            acknowledge: true,
            retention: Retention::default(),
        };
        rig.begin(command).await;
        rig.registered().await;
        rig
    }

    /// Starts an agent on the folder, without waiting for what it has to say.
    pub async fn begin(&mut self, command: &[&str]) {
        let (to_master, from_agent) = mpsc::channel(LINK_CAPACITY);
        self.from_agent = from_agent;
        self.recovering = false;
        let agent = Agent::start(AgentConfig {
            data_dir: self.folder.path().to_owned(),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            resources: parse_resources(DEFAULT_RESOURCES).unwrap(),
            attributes: Vec::new(),
            hostname: "localhost".into(),
            executor_command: command.iter().map(Into::into).collect(),
            retention: self.retention,
            to_master,
        })
        .await
        .unwrap();
        self.agent_id = agent.id().clone();
        self.agent = Some(agent);
    }

    pub async fn registered(&mut self) {
        loop {
            match self.word().await {
                FromAgent::Register { info, executors, link, .. } => {
                    self.info = *info;
                    self.known = executors;
                    self.link = link;
                    return;
                }
                FromAgent::Recovering { .. } => self.recovering = true,
                _ => {}
            }
        }
    }

    /// As `kill -9` of the agent.
    pub async fn crash(&mut self) {
        self.agent.take().unwrap().abandon().await;
    }

    pub async fn restart(&mut self) {
        self.begin(&[env!("CARGO_BIN_EXE_podium-executor")]).await;
        self.registered().await;
    }

    pub async fn word(&mut self) -> FromAgent {
        timeout(PATIENCE, self.from_agent.recv()).await.expect("the agent is silent").expect("the agent has gone")
    }

    pub async fn launch(&self, id: &str, tasks: Vec<TaskInfo>) {
        self.launch_under(executor(id), true, tasks).await;
    }

    /// As [`Rig::launch`]; the executor may be one that this master believes to be running.
    pub async fn launch_under(&self, executor: ExecutorInfo, launch_executor: bool, tasks: Vec<TaskInfo>) {
        let (framework, executor) = (Box::new(framework()), Box::new(executor));
        self.send(ToAgent::RunTaskGroup { framework, executor, launch_executor, group: TaskGroupInfo { tasks } }).await;
    }

    pub async fn send(&self, word: ToAgent) {
        self.link.send(word).await.unwrap();
    }

    pub async fn kill(&self, task: &str, kill_policy: Option<KillPolicy>) {
        self.send(ToAgent::KillTask { framework_id: framework().id.unwrap(), task_id: TaskId { value: task.into() }, kill_policy }).await;
    }

    /// The next update, acknowledged unless told otherwise.
    pub async fn update(&mut self) -> TaskStatus {
        match self.updates.pop_front() {
            Some(status) => status,
            None => self.fresh().await,
        }
    }

    /// The next update that has not been read past.
    async fn fresh(&mut self) -> TaskStatus {
        loop {
            match self.word().await {
                FromAgent::Update { status, .. } => {
                    if self.acknowledge {
                        self.acknowledge(&status).await;
                    }
                    return *status;
                }
                FromAgent::ExecutorExited { executor_id, status, .. } => self.exits.push((executor_id.value, status)),
                _ => {}
            }
        }
    }

    /// All that was acknowledged before is on disk: what is said after it was written after it.
    pub async fn settled(&mut self) {
        self.kill("nobody", None).await;
        while self.update().await.task_id.value != "nobody" {}
    }

    pub async fn acknowledge(&self, status: &TaskStatus) {
        let (task_id, uuid) = (status.task_id.clone(), status.uuid.clone().unwrap());
        // An agent that has just been stopped does not mind.
        let _ = self.link.send(ToAgent::Acknowledge { framework_id: framework().id.unwrap(), task_id, uuid }).await;
    }

    /// The next update of `task` in `wanted`; what is read past is kept, that task's own aside.
    pub async fn until(&mut self, task: &str, wanted: TaskState) -> TaskStatus {
        self.until_told(task, |status| state(status) == wanted).await
    }

    /// As [`Rig::until`], of any update.
    pub async fn until_told(&mut self, task: &str, wanted: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        let mut kept = VecDeque::new();
        loop {
            let status = self.update().await;
            if status.task_id.value != task {
                kept.push_back(status);
            } else if wanted(&status) {
                kept.append(&mut self.updates);
                self.updates = kept;
                return status;
            }
        }
    }

    /// The terminal updates of these tasks, in the order of the names.
    pub async fn ends(&mut self, tasks: &[&str]) -> Vec<TaskStatus> {
        let mut ends: Vec<Option<TaskStatus>> = vec![None; tasks.len()];
        while ends.iter().any(Option::is_none) {
            let status = self.update().await;
            let ended = matches!(
                state(&status),
                TaskState::TaskFinished | TaskState::TaskFailed | TaskState::TaskKilled | TaskState::TaskDropped | TaskState::TaskGone
            );
            if let Some(at) = tasks.iter().position(|task| ended && *task == status.task_id.value) {
                ends[at] = Some(status);
            }
        }
        ends.into_iter().flatten().collect()
    }

    pub async fn exited(&mut self, executor: &str) -> i32 {
        loop {
            if let Some((_, status)) = self.exits.iter().find(|(id, _)| id == executor) {
                return *status;
            }
            match self.word().await {
                FromAgent::ExecutorExited { executor_id, status, .. } => self.exits.push((executor_id.value, status)),
                FromAgent::Update { status, .. } => {
                    if self.acknowledge {
                        self.acknowledge(&status).await;
                    }
                    self.updates.push_back(*status);
                }
                _ => {}
            }
        }
    }

    /// Where the sandboxes of an executor are.
    pub fn runs(&self, executor: &str) -> PathBuf {
        let executors = self.folder.path().join("slaves").join(&self.agent_id.value).join("frameworks/framework/executors");
        executors.join(executor).join("runs")
    }

    /// The newest sandbox of an executor.
    pub fn sandbox(&self, executor: &str) -> PathBuf {
        fs::canonicalize(self.runs(executor).join("latest")).unwrap()
    }

    pub fn task_sandbox(&self, executor: &str, task: &str) -> PathBuf {
        fs::canonicalize(self.sandbox(executor).join("tasks").join(task)).unwrap()
    }

    /// The processes of all instances of this agent: id and command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        marked(&format!("{MARKER}={}", self.agent_id.value))
    }

    /// The processes of one executor's containers that run `command`.
    pub fn running(&self, executor: &str, command: &str) -> Vec<i32> {
        let marker = format!("{MARKER}={}/framework/{executor}/", self.agent_id.value);
        marked(&marker).into_iter().filter(|(_, line)| line == command).map(|(pid, _)| pid).collect()
    }

    /// The executor process itself.
    pub fn executor_pid(&self, executor: &str) -> i32 {
        let wanted = format!("{MARKER}={}/framework/{executor}", self.agent_id.value);
        let found = all().find(|pid| environment(*pid).contains(&wanted));
        found.expect("there is no such executor")
    }
}

impl Drop for Rig {
    /// Whatever a failed test has left is ended by its process ids.
    fn drop(&mut self) {
        self.agent = None;
        // What they have started meanwhile, the next round finds.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(|(pid, _)| end(pid));
        }
    }
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

/// Kills a process and waits for its end.
fn end(pid: i32) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(process) = rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::PidfdFlags::empty())
    else {
        return;
    };
    let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience));
}

pub fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub fn environment(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

fn marked(prefix: &str) -> Vec<(i32, String)> {
    let carries = |pid: &i32| environment(*pid).iter().any(|entry| entry.starts_with(prefix));
    all().filter(carries).map(|pid| (pid, command_line(pid))).collect()
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}
