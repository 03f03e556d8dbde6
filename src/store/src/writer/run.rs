//! The writer's loop.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use podium_retry::Backoff;
use tokio::sync::{mpsc, oneshot};

use super::batch::{self, Answer, Fence};
use super::group::{Group, Op, Outcome};
use super::queue::{Job, Taken, next_batch};
use super::{IN_FLIGHT, QUEUE};
use crate::election::Reign;
use crate::store::{Store, StoreError};

type Request = Job<oneshot::Sender<Outcome>>;
type InFlight = FuturesUnordered<BoxFuture<'static, (Vec<Request>, Result<Answer, StoreError>)>>;

/// Writes what comes until the leadership is over, or nobody is left who could ask.
pub(super) async fn run(store: Store, reign: Reign, queue: mpsc::Receiver<Request>) {
    let fence = Fence { key: reign.key.clone(), create_revision: reign.create_revision, mod_revision: reign.create_revision };
    let lost = reign.lost.clone();
    let run = Run { store, reign, fence, queue, waiting: VecDeque::new(), taken: Taken::default() };
    // Dropping a request answers it: NotLeader.
    tokio::select! {
        biased;
        () = lost.cancelled() => {}
        () = run.serve() => {}
    }
}

struct Run {
    store: Store,
    reign: Reign,
    fence: Fence,
    queue: mpsc::Receiver<Request>,
    waiting: VecDeque<Request>,
    taken: Taken,
}

/// What is to be done after an answer.
enum Next {
    Continue,
    /// There was none: these groups may have happened.
    Barrier(Vec<Request>),
    /// Another leads.
    Stop,
}

impl Run {
    async fn serve(mut self) {
        let mut in_flight = InFlight::new();
        let mut open = true;
        while open || !self.waiting.is_empty() || !in_flight.is_empty() {
            self.launch(&mut in_flight);
            tokio::select! {
                Some((jobs, answer)) = in_flight.next(), if !in_flight.is_empty() => {
                    match self.settle(jobs, answer) {
                        Next::Continue => {}
                        Next::Barrier(doubtful) => {
                            if !self.pass_barrier(doubtful).await {
                                return;
                            }
                        }
                        Next::Stop => return,
                    }
                }
                job = self.queue.recv(), if open && self.waiting.len() < QUEUE => match job {
                    Some(job) => self.take(job),
                    None => open = false,
                },
            }
        }
    }

    /// Takes what has come, so that it travels together.
    fn take(&mut self, first: Request) {
        self.waiting.push_back(first);
        while self.waiting.len() < QUEUE
            && let Ok(job) = self.queue.try_recv()
        {
            self.waiting.push_back(job);
        }
    }

    fn launch(&mut self, in_flight: &mut InFlight) {
        while in_flight.len() < IN_FLIGHT {
            let jobs = next_batch(&mut self.waiting, &mut self.taken);
            if jobs.is_empty() {
                return;
            }
            let txn = batch::fenced(&self.fence, jobs.iter().map(|job| &job.group), self.store.keyspace());
            let store = self.store.clone();
            in_flight.push(Box::pin(async move { (jobs, store.transact(txn).await) }));
        }
    }

    /// Answers the groups of one transaction, or puts them back.
    fn settle(&mut self, jobs: Vec<Request>, answer: Result<Answer, StoreError>) -> Next {
        match answer {
            Ok(answer) if answer.succeeded => {
                let mut nested = answer.nested.into_iter();
                for job in jobs {
                    self.finish(job, nested.next().map_or(Outcome::Unknown { revision: answer.revision }, |answer| outcome(&answer)));
                }
                Next::Continue
            }
            Ok(answer) => match answer.first_read {
                // Ours still: only a barrier has moved the fence. Nothing of this transaction has happened.
                Some((create_revision, mod_revision)) if create_revision == self.fence.create_revision => {
                    self.fence.mod_revision = mod_revision;
                    self.put_back(jobs, false);
                    Next::Continue
                }
                _ => {
                    tracing::warn!(election = %self.fence.key, "a write was refused by its fence: this leadership is over");
                    self.reign.lost.cancel();
                    Next::Stop
                }
            },
            // The store says that it has not done it.
            Err(StoreError::Refused(reason) | StoreError::Config(reason)) => {
                if jobs.len() == 1 {
                    jobs.into_iter().for_each(|job| self.finish(job, Outcome::Refused(reason.clone())));
                } else {
                    // One of them is at fault, and the others must not suffer for it.
                    self.put_back(jobs, true);
                }
                Next::Continue
            }
            Err(error) => {
                tracing::warn!(%error, groups = jobs.len(), "a transaction was not answered");
                Next::Barrier(jobs)
            }
        }
    }

    fn finish(&mut self, job: Request, outcome: Outcome) {
        self.taken.release(&job.group);
        // Nobody may be waiting any more.
        let _ = job.reply.send(outcome);
    }

    /// In front of everything that waits: what touches them came later.
    fn put_back(&mut self, jobs: Vec<Request>, alone: bool) {
        for mut job in jobs.into_iter().rev() {
            self.taken.release(&job.group);
            job.alone |= alone;
            self.waiting.push_front(job);
        }
    }

    /// Moves the fence, so that transactions sent before and not yet done never will be; then tells the doubtful
    /// groups. False: the leadership is over.
    async fn pass_barrier(&mut self, doubtful: Vec<Request>) -> bool {
        let touch = Group::global().when(self.fence.held()).then(Op::PutLeased(
            self.fence.key.clone(),
            self.reign.identity.clone(),
            self.reign.lease,
        ));
        let mut backoff = Backoff::reconnect();
        loop {
            match self.store.commit(touch.clone()).await {
                Outcome::Committed { revision } => {
                    self.fence.mod_revision = revision;
                    doubtful.into_iter().for_each(|job| self.finish(job, Outcome::Unknown { revision }));
                    return true;
                }
                Outcome::Conflict { .. } | Outcome::NotLeader => {
                    self.reign.lost.cancel();
                    return false;
                }
                Outcome::Refused(reason) => tracing::warn!(reason, "the store refuses our own election key"),
                Outcome::Unknown { .. } => {}
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

fn outcome(answer: &Answer) -> Outcome {
    match (answer.succeeded, answer.wrote) {
        (true, true) => Outcome::Committed { revision: answer.revision },
        (true, false) => Outcome::Committed { revision: 0 },
        (false, _) => Outcome::Conflict { revision: answer.newest },
    }
}
