//! Faults on demand. Each is worked in before the call returns; what follows from it arrives as on a real cluster.

use std::time::Duration;

use podium_proto::mesos::v1::TaskState;
use tokio::sync::{mpsc, oneshot};

/// The agent or task named is not there, or the simulation has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such simulated agent or task")]
pub struct NoSuch;

/// One fault; agents by their number.
#[derive(Debug)]
pub(super) enum Fault {
    /// Lost to the master; its tasks run on.
    Lose { agent: usize, back_after: Option<Duration> },
    /// A lost one is back.
    Return { agent: usize },
    /// Everything on it ends without a word; it is lost.
    Crash { agent: usize },
    /// Its agent process restarts: it registers when `after` has passed, its tasks untouched.
    Restart { agent: usize, after: Duration },
    /// A task ends by itself.
    End { task: String, state: TaskState },
    /// The next launches get lost on their way.
    DropLaunches { agent: usize, count: usize },
    /// Every unacknowledged update is sent again, as by an impatient agent.
    Duplicate { agent: usize },
}

pub(super) type Request = (Fault, oneshot::Sender<Result<(), NoSuch>>);

/// Works faults into running simulated agents, which are named by their number.
#[derive(Debug, Clone)]
pub struct SimulationHandle {
    faults: mpsc::Sender<Request>,
    count: usize,
}

impl SimulationHandle {
    pub(super) fn new(faults: mpsc::Sender<Request>, count: usize) -> Self {
        Self { faults, count }
    }

    /// How many agents there are; their ids are [`super::agent_id`] of 0 to one less.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    async fn work_in(&self, fault: Fault) -> Result<(), NoSuch> {
        let (reply, answer) = oneshot::channel();
        self.faults.send((fault, reply)).await.map_err(|_| NoSuch)?;
        answer.await.map_err(|_| NoSuch)?
    }

    /// Cuts an agent off for a time: its tasks become unreachable, run on, and are known again afterwards.
    ///
    /// # Errors
    /// No such agent.
    pub async fn partition(&self, agent: usize, time: Duration) -> Result<(), NoSuch> {
        self.work_in(Fault::Lose { agent, back_after: Some(time) }).await
    }

    /// Cuts an agent off until [`SimulationHandle::bring_back`].
    ///
    /// # Errors
    /// No such agent.
    pub async fn lose(&self, agent: usize) -> Result<(), NoSuch> {
        self.work_in(Fault::Lose { agent, back_after: None }).await
    }

    /// Ends everything on an agent without a word, as when its machine dies, and cuts it off.
    ///
    /// # Errors
    /// No such agent.
    pub async fn crash(&self, agent: usize) -> Result<(), NoSuch> {
        self.work_in(Fault::Crash { agent }).await
    }

    /// A lost or crashed agent comes back, with what still runs there.
    ///
    /// # Errors
    /// No such agent.
    pub async fn bring_back(&self, agent: usize) -> Result<(), NoSuch> {
        self.work_in(Fault::Return { agent }).await
    }

    /// Restarts the agent's process: it collects its executors for a time, then registers again.
    ///
    /// # Errors
    /// No such agent.
    pub async fn restart(&self, agent: usize, after: Duration) -> Result<(), NoSuch> {
        self.work_in(Fault::Restart { agent, after }).await
    }

    /// Ends a task, by its id, in a terminal state.
    ///
    /// # Errors
    /// No such task, or it has ended already.
    pub async fn end_task(&self, task: &str, state: TaskState) -> Result<(), NoSuch> {
        self.work_in(Fault::End { task: task.to_owned(), state }).await
    }

    /// Loses the next launches that are sent to an agent.
    ///
    /// # Errors
    /// No such agent.
    pub async fn drop_launches(&self, agent: usize, count: usize) -> Result<(), NoSuch> {
        self.work_in(Fault::DropLaunches { agent, count }).await
    }

    /// Sends every unacknowledged update of an agent once more.
    ///
    /// # Errors
    /// No such agent.
    pub async fn duplicate_updates(&self, agent: usize) -> Result<(), NoSuch> {
        self.work_in(Fault::Duplicate { agent }).await
    }
}
