//! What master and agents say to each other. They live in one process, so this is a pair of bounded
//! channels and not a wire protocol; the messages are those that a real master and agent exchange.
//!
//! The master owns the task table, offers and frameworks; the agent owns executors and the status
//! update streams (one FIFO a task, kept until the framework acknowledged its head).

use podium_proto::mesos::v1::{
    AgentId, AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy, Resource, TaskGroupInfo, TaskId, TaskInfo,
    TaskState, TaskStatus,
};
use tokio::sync::mpsc;

/// Messages waiting for one agent, or for the master from all agents; a full channel makes the sender wait.
pub const LINK_CAPACITY: usize = 4096;

/// From the master to one agent.
#[derive(Debug)]
pub enum ToAgent {
    /// Launch a task group. The agent always answers with status updates.
    RunTaskGroup {
        /// The framework as of its latest subscription.
        framework: Box<FrameworkInfo>,
        /// What is to run it.
        executor: Box<ExecutorInfo>,
        /// The executor is a new one for the master. An agent that starts none tells its end all the same, since the master counts its
        /// resources as used until then.
        launch_executor: bool,
        /// Its tasks, each already validated.
        group: TaskGroupInfo,
    },
    /// Kill one task. A task that the agent does not know is answered with a terminal update.
    KillTask {
        /// Whose task.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// Overrides the task's own.
        kill_policy: Option<KillPolicy>,
    },
    /// The framework has dealt with this update: send the stream's next one.
    Acknowledge {
        /// Whose task.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// Of the update; 16 bytes.
        uuid: bytes::Bytes,
    },
    /// End an executor and all its tasks.
    ShutdownExecutor {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// What of the agent's resources is reserved from now on, with all its persistent volumes: to be written down, volumes to be made
    /// or removed, before anything that follows is carried out.
    CheckpointResources {
        /// All that is reserved.
        resources: Vec<Resource>,
    },
    /// The framework is gone for good: end all its executors, send no updates.
    ShutdownFramework {
        /// Which.
        framework_id: FrameworkId,
    },
    /// A framework has subscribed (again): resend every unacknowledged head at once.
    FrameworkSubscribed {
        /// As of this subscription.
        framework: Box<FrameworkInfo>,
    },
}

/// An executor that was running when the agent (re-)registered.
#[derive(Debug, Clone)]
pub struct KnownExecutor {
    /// The executor.
    pub executor: ExecutorInfo,
    /// Its framework, as the agent last knew it.
    pub framework: FrameworkInfo,
    /// Its tasks that are not terminal-and-acknowledged, each with the state last forwarded.
    pub tasks: Vec<(TaskInfo, TaskStatus)>,
}

/// From an agent to the master.
#[derive(Debug)]
pub enum FromAgent {
    /// The agent is there; sent once, after its executors have reconnected or were given up, so that
    /// reconciliation can stay silent until then. [`FromAgent::Recovering`] precedes it after a restart.
    Register {
        /// Its id is set by the agent (kept in its data folder); resources are its total.
        info: Box<AgentInfo>,
        /// `ip:port` of its own HTTP listener, as in `slave(1)@ip:port`.
        address: std::net::SocketAddr,
        /// What runs there already; and what has ended while updates of it are unacknowledged: for that, the updates
        /// and an [`FromAgent::ExecutorExited`] follow at once.
        executors: Vec<KnownExecutor>,
        /// As of the last [`ToAgent::CheckpointResources`].
        checkpointed: Vec<Resource>,
        /// Where the master sends.
        link: mpsc::Sender<ToAgent>,
    },
    /// An agent of this id exists and is still collecting its executors: answer no reconciliation about it.
    Recovering {
        /// Which.
        agent_id: AgentId,
    },
    /// The head of one task's update stream (again): its uuid is set and must be acknowledged.
    Update {
        /// Which agent.
        agent_id: AgentId,
        /// Whose task.
        framework_id: FrameworkId,
        /// The update.
        status: Box<TaskStatus>,
        /// The newest state that the agent knows, which may be ahead of `status`: a terminal one frees the resources.
        latest: TaskState,
    },
    /// An executor ended; `status` is the raw wait word, -1 unknown. Its tasks' terminal updates come by themselves.
    /// Also sent after [`FromAgent::Register`] for each executor named there that has ended already: until then the master counts its
    /// resources as used.
    ExecutorExited {
        /// Which agent.
        agent_id: AgentId,
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// The raw wait word.
        status: i32,
    },
    /// The agent is lost (simulated faults): its tasks become unreachable.
    Lost {
        /// Which.
        agent_id: AgentId,
    },
}

/// True for the states that no update of an executor follows.
pub(crate) fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskLost
        | TaskState::TaskError
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    }
}
