//! Fenced writes in batches: how one controller writes for as long as it leads.
//!
//! It promises: a group happens as a whole or not at all, and another group's conflict does not touch it; nothing
//! is written once another leads; two groups that touch a key go one after the other, in order; at most
//! [`IN_FLIGHT`] transactions are unanswered. A transaction without an answer is never repeated: a barrier (a write
//! of our own election key, which every fence compares) first makes sure that it can't happen any more, and then
//! its groups are [`Outcome::Unknown`].

pub(crate) mod batch;
mod group;
mod queue;
mod run;

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

pub use group::{Compare, Group, Op, Outcome};
use queue::Job;

use crate::election::Leadership;
use crate::key::Keyspace;
use crate::store::Store;

/// Transactions that may be unanswered at a time: measured as most of the throughput at half the latency.
pub const IN_FLIGHT: usize = 4;

/// Groups that wait; a submitter waits while there are more.
const QUEUE: usize = 1024;

/// Writes for one leadership. Cheap to clone. With the last clone it ends, after everything submitted was answered.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job<oneshot::Sender<Outcome>>>,
    keys: Keyspace,
}

/// The outcome of a submitted group, once there is one. Dropping it does not take the group back.
#[derive(Debug)]
pub struct Ticket {
    outcome: Result<oneshot::Receiver<Outcome>, Option<Outcome>>,
}

impl Writer {
    /// Starts to write for this leadership. Needs a tokio runtime.
    pub fn start(store: &Store, leadership: &Leadership) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run::run(store.clone(), leadership.reign(), queue));
        Self { jobs, keys: store.keyspace().clone() }
    }

    /// Hands a group over, waiting while the queue is full. Groups of one submitter keep their order.
    pub async fn submit(&self, group: Group) -> Ticket {
        if let Err(reason) = batch::check(&group, &self.keys) {
            return Ticket { outcome: Err(Some(Outcome::Refused(reason))) };
        }
        let (reply, outcome) = oneshot::channel();
        match self.jobs.send(Job::new(group, reply, &self.keys)).await {
            Ok(()) => Ticket { outcome: Ok(outcome) },
            Err(_) => Ticket { outcome: Err(Some(Outcome::NotLeader)) },
        }
    }

    /// Hands a group over and waits for what becomes of it.
    pub async fn write(&self, group: Group) -> Outcome {
        self.submit(group).await.await
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match &mut self.outcome {
            // The writer drops what it has no answer for only when the leadership is over.
            Ok(receiver) => Pin::new(receiver).poll(context).map(|outcome| outcome.unwrap_or(Outcome::NotLeader)),
            Err(outcome) => Poll::Ready(outcome.take().unwrap_or(Outcome::NotLeader)),
        }
    }
}
