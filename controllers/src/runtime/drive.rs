//! The loop of a [`Controller`] for one term: index → decision → writes, one pod at a time.
//!
//! It promises: a pod is decided on only by a view that has reached the election and the controller's own last write of
//! it, and never while a write of it is unanswered; work is proportional to changes; at rest no timer runs and nothing
//! is written.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use podium_store::index::{Changes, Kinds, Position};
use podium_store::view::PodView;
use podium_store::writer::{Group, Outcome};
use podium_types::id::PodId;
use tokio::sync::watch;

use super::queue::{Again, WorkQueue};
use super::supervise::{Failure, Term};
use super::{Controller, RandomIds};

/// Pods that are decided on before events are looked at again.
const SLICE: usize = 32;

/// Groups that may be unanswered before decisions wait: some four full transactions.
const UNANSWERED: usize = 512;

/// Runs one controller until its leadership is lost or it fails.
pub async fn drive<C: Controller>(controller: Arc<C>, term: Term) -> Result<(), Failure> {
    let changes = term.index.changes(Kinds::of(controller.watches()));
    let positions = term.index.positions();
    let drive = Drive { controller, term, changes, positions, queue: WorkQueue::default(), answers: FuturesUnordered::new() };
    drive.run().await
}

struct Drive<C> {
    controller: Arc<C>,
    term: Term,
    changes: Changes,
    positions: watch::Receiver<Position>,
    queue: WorkQueue,
    answers: FuturesUnordered<BoxFuture<'static, (PodId, Outcome)>>,
}

/// What a look at a pod came to.
enum Look {
    /// The index holds no key of it.
    Gone,
    /// The index is not new enough.
    Behind,
    /// It holds a record that this build can't read.
    Unreadable,
    Decided {
        groups: Vec<Group>,
        wake: Option<i64>,
    },
}

impl<C: Controller> Drive<C> {
    async fn run(mut self) -> Result<(), Failure> {
        let lost = self.term.lost.clone();
        loop {
            tokio::select! {
                biased;
                () = lost.cancelled() => return Ok(()),
                Some((pod, outcome)) = self.answers.next(), if !self.answers.is_empty() => {
                    if !self.settle(&pod, outcome) {
                        return Ok(());
                    }
                }
                batch = self.changes.next() => {
                    if batch.replaced {
                        return Ok(());
                    }
                    batch.pods.iter().for_each(|pod| self.queue.look(pod));
                }
                Ok(()) = self.positions.changed(), if self.queue.is_waiting() => {
                    let revision = self.positions.borrow_and_update().revision;
                    self.queue.reached(revision);
                }
                () = self.queue.expired() => {}
                () = std::future::ready(()), if self.queue.has_next() && self.answers.len() < UNANSWERED => self.work().await?,
            }
        }
    }

    /// Looks at some pods.
    async fn work(&mut self) -> Result<(), Failure> {
        for _ in 0..SLICE {
            let Some((pod, after)) = self.queue.next() else { return Ok(()) };
            let start = Instant::now();
            match self.look(&pod, after)? {
                Look::Gone | Look::Unreadable => self.queue.rest(&pod, None, Duration::ZERO),
                Look::Behind => self.queue.hold(&pod, after),
                Look::Decided { groups, wake } if groups.is_empty() => {
                    self.queue.rest(&pod, wake.map(|at| self.term.clock.until(at)), start.elapsed());
                }
                Look::Decided { groups, .. } => self.submit(pod, groups).await,
            }
        }
        // A long list of pods must not keep this thread from everyone else.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn look(&self, pod: &PodId, after: i64) -> Result<Look, Failure> {
        let _busy = self.term.pulse.busy();
        let after = after.max(self.term.create_revision);
        self.term.index.read(|state| {
            if state.revision() < after {
                return Ok(Look::Behind);
            }
            match state.pod(pod) {
                None => Ok(Look::Gone),
                Some(view) if self.is_unreadable(view) => Ok(Look::Unreadable),
                Some(view) => self.decide(view),
            }
        })
    }

    /// A decision that would rest on a record of a newer build leaves the pod to that build.
    fn is_unreadable(&self, view: &PodView) -> bool {
        let unreadable = view.unreadable.keys().find(|key| self.controller.watches().contains(&key.kind()));
        if let Some(key) = unreadable {
            tracing::warn!(controller = self.controller.name(), %key, "a record can't be read by this build: the pod is left alone");
        }
        unreadable.is_some()
    }

    fn decide(&self, view: &PodView) -> Result<Look, Failure> {
        let now = self.term.clock.now();
        let decide = || {
            let decision = self.controller.decide(view, now);
            let groups = match decision.intents.is_empty() {
                true => Vec::new(),
                false => self.controller.apply(view, decision.intents, now, &mut RandomIds),
            };
            Look::Decided { groups, wake: decision.wake }
        };
        // Nothing of ours is changed by a decision, so nothing is left half-changed by one that panics.
        std::panic::catch_unwind(AssertUnwindSafe(decide))
            .map_err(|panic| Failure(format!("panicked over pod {}: {}", view.id, told(&*panic))))
    }

    async fn submit(&mut self, pod: PodId, groups: Vec<Group>) {
        tracing::debug!(controller = self.controller.name(), %pod, groups = groups.len(), "writes");
        self.queue.write(&pod, groups.len());
        for group in groups {
            let ticket = self.term.writer.submit(group).await;
            let pod = pod.clone();
            self.answers.push(Box::pin(async move { (pod, ticket.await) }));
        }
    }

    /// Takes an answer. False: the leadership is over.
    fn settle(&mut self, pod: &PodId, outcome: Outcome) -> bool {
        let (revision, again) = match outcome {
            Outcome::NotLeader => return false,
            // Nothing was changed by it: were it right to ask for it again at once, it would be so for ever.
            Outcome::Committed { revision: 0 } => (0, Some(Again::Soon)),
            Outcome::Committed { revision } => (revision, None),
            Outcome::Conflict { revision } | Outcome::Unknown { revision } => (revision, Some(Again::Soon)),
            Outcome::Refused(reason) => {
                tracing::error!(controller = self.controller.name(), %pod, reason, "the store refuses a write");
                (0, Some(Again::Later))
            }
        };
        self.queue.answered(pod, revision, again);
        // The index may have come as far already, and then says no more.
        self.queue.reached(self.term.index.position().revision);
        true
    }
}

fn told(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "for no stated reason",
    }
}
