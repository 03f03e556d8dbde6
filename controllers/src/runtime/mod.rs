//! What all controllers share: an index, a pure decision, a small applier.
//!
//! A [`Controller`] is three things: which keys matter to it ([`Controller::watches`]), a decision about one pod
//! without I/O, clock or randomness ([`Controller::decide`]), and an applier that turns intents into fenced groups
//! of writes ([`Controller::apply`]). To add one: implement the trait in a folder of its own, and list it where the
//! process starts its controllers.

mod census;
mod clock;
mod drive;
mod queue;
mod supervise;

pub use census::{Census, Member, definition_in_force, is_away, is_open};
pub(crate) use census::{definition_of, has_check};
pub use clock::Clock;
pub use drive::drive;
pub use supervise::{Busy, Failure, Pulse, Stage, Term, supervise};

use podium_store::Kind;
use podium_store::view::PodView;
use podium_store::writer::Group;
use uuid::Uuid;

/// Wall time of a decision, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub i64);

/// What a decision asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<I> {
    /// In order of urgency; empty when all is as it should be.
    pub intents: Vec<I>,
    /// Look again at this wall time in milliseconds, even if no key changes; `None`: only when one does.
    pub wake: Option<i64>,
}

impl<I> Decision<I> {
    /// All is as it should be.
    pub fn nothing() -> Self {
        Self { intents: Vec::new(), wake: None }
    }

    /// Just these intents.
    pub fn now(intents: Vec<I>) -> Self {
        Self { intents, wake: None }
    }

    /// Asks to be looked at again at `at`, or earlier if already asked for.
    pub fn wake_at(&mut self, at: i64) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Where an applier draws the ids that a decision must not.
pub trait Ids {
    /// A uuid that was never drawn before.
    fn draw(&mut self) -> Uuid;
}

/// Random ids.
#[derive(Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn draw(&mut self) -> Uuid {
        Uuid::new_v4()
    }
}

/// One controller: reconciles one pod at a time, for every pod.
///
/// The runtime calls [`Controller::decide`] with a view that is at least as new as this process' election and as this
/// controller's own last write for the pod, and never while a write of this controller for the pod is unanswered.
/// Level-triggered: nothing tells what changed, and every intent that is still right is asked for again.
pub trait Controller: Send + Sync + 'static {
    /// One change that it wants.
    type Intent: Send;

    /// The name of its election, and of `--controllers`.
    fn name(&self) -> &'static str;

    /// The kinds of keys whose change can change a decision.
    fn watches(&self) -> &'static [Kind];

    /// What to do about this pod. Pure: the same view and time give the same decision.
    fn decide(&self, view: &PodView, now: Now) -> Decision<Self::Intent>;

    /// Intents as groups of writes, with every revision of `view` that they rest on compared. Groups are committed or
    /// refused one by one, so each subset of them must be right; no key stands in two groups.
    fn apply(&self, view: &PodView, intents: Vec<Self::Intent>, now: Now, ids: &mut dyn Ids) -> Vec<Group>;
}
