//! The statuses of pods, kept as the JSON that they are answered in: a pod's is made anew when something of it has changed,
//! or when a time in it has passed, and not for every reader. Of the instances only those are then made anew whose own records
//! have changed, and those that are not stable, since what they wait for may be another's.
//!
//! Promises: an answer is never older than the index that it is asked of; what is kept is bounded by the pods and the instances there are.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use podium_controllers::admission::is_active;
use podium_controllers::health::status::{InstanceState, InstanceStatus, Instances, PodStatus, changes_at, pod_status_with, state_of};
use podium_store::index::{Index, IndexState};
use podium_store::view::PodView;
use podium_types::id::{PodId, Version};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

/// Bytes of a status that was not made yet, for the choice of how to send it: that of a pod with one instance.
const USUAL_SIZE: usize = 2_000;

/// One pod's status but for its [`opening`].
#[derive(Debug)]
pub(crate) struct Fragment {
    /// Of the view that it was made from.
    stamp: u64,
    /// Wall milliseconds from which on it may say something else, though nothing was written.
    until: i64,
    /// The members, and the closing brace.
    members: Bytes,
    /// What in it can be used again.
    stable: HashMap<Uuid, Arc<StableInstance>>,
    /// Of the index: the revisions of another say nothing about it.
    generation: u64,
}

/// A stable instance's status.
#[derive(Debug)]
struct StableInstance {
    records: Records,
    json: Box<RawValue>,
}

/// Of which revisions an instance's own records are: the instance, what was observed of it, and of its agent's absence.
type Records = (i64, Option<i64>, Option<i64>);

/// An instance's status in that of its pod.
enum Part {
    Stable(Arc<StableInstance>),
    Other(Box<InstanceStatus>),
}

/// The fragments of all pods that were asked for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Statuses {
    index: Index,
    /// Locked only by who reads the index already: the other way round, two readers and the index' writer could wait for each other.
    fragments: Arc<Mutex<HashMap<PodId, Arc<Fragment>>>>,
}

/// The statuses that a listing is of: what is at hand, and the pods whose status is made when the client comes to it.
pub(crate) struct Listing {
    found: Vec<Result<Arc<Fragment>, PodId>>,
    /// None of the statuses is older.
    pub(crate) revision: i64,
    now: i64,
    statuses: Statuses,
}

impl Statuses {
    pub(crate) fn new(index: Index) -> Self {
        Self { index, fragments: Arc::default() }
    }

    /// The status of one pod but for its [`opening`], and the revision that it is of; `None` for one that is not there, or on its
    /// way out.
    pub(crate) fn one(&self, id: &PodId, now: i64) -> Option<(Bytes, i64)> {
        let (fragment, revision) = self.index.read(|state| (self.of(state, id, now), state.revision()));
        Some((fragment?.members.clone(), revision))
    }

    /// The statuses of all pods that `wanted` lets pass.
    pub(crate) fn all(&self, now: i64, wanted: impl Fn(&PodId) -> bool) -> Listing {
        let mut active = 0;
        let (found, revision) = self.index.read(|state| {
            let fragments = self.fragments.lock();
            let known = |view: &PodView| match fragments.get(&view.id) {
                Some(fragment) if fragment.holds(view, now) => Ok(Arc::clone(fragment)),
                _ => Err(view.id.clone()),
            };
            let pods = state.pods().filter(|view| is_active(view)).inspect(|_| active += 1);
            let found: Vec<_> = pods.filter(|view| wanted(&view.id)).map(known).collect();
            (found, state.revision())
        });
        self.forget_gone(active);
        Listing { found, revision, now, statuses: self.clone() }
    }

    /// The kept one if it still holds, else a new one.
    fn of(&self, state: &IndexState, id: &PodId, now: i64) -> Option<Arc<Fragment>> {
        let view = state.pod(id).filter(|view| is_active(view))?;
        let known = self.fragments.lock().get(id).cloned();
        if let Some(known) = known.as_ref().filter(|fragment| fragment.holds(view, now)) {
            return Some(Arc::clone(known));
        }
        let generation = state.generation();
        let before = known.as_deref().filter(|known| known.generation == generation);
        let made = Arc::new(Fragment::make(view, now, generation, before)?);
        self.fragments.lock().insert(id.clone(), Arc::clone(&made));
        Some(made)
    }

    /// Drops what is kept of pods that are gone, once they are as many as the `active` ones. Their views stay for as long as their
    /// versions do.
    fn forget_gone(&self, active: usize) {
        self.index.read(|state| {
            let mut fragments = self.fragments.lock();
            if fragments.len() > 2 * active + 16 {
                fragments.retain(|id, _| state.pod(id).is_some_and(is_active));
            }
        });
    }
}

impl Listing {
    /// About how many bytes they are.
    pub(crate) fn size(&self) -> usize {
        self.found.iter().map(|one| one.as_ref().map_or(USUAL_SIZE, |fragment| fragment.members.len())).sum()
    }

    /// Each status but for its [`opening`]. Those that are not at hand are made one at a time, so that the index is never held for
    /// long and the first client of a new process does not wait for all of them; pods that are gone by then are left out.
    pub(crate) fn values(self) -> impl Iterator<Item = Bytes> + Send + 'static {
        let Self { found, now, statuses, .. } = self;
        found.into_iter().filter_map(move |one| match one {
            Ok(fragment) => Some(fragment.members.clone()),
            Err(id) => Some(statuses.one(&id, now)?.0),
        })
    }
}

impl Fragment {
    fn make(view: &PodView, now: i64, generation: u64, before: Option<&Self>) -> Option<Self> {
        let mut instances = Instances::of(view, now);
        let mut stable = HashMap::new();
        let status = pod_status_with(view, now, |member| {
            if state_of(member) != InstanceState::Stable {
                return Part::Other(Box::new(instances.status(member)));
            }
            let reach = view.reach.get(&member.uuid).map(|reach| reach.mod_revision);
            let records = (member.held.mod_revision, member.observed.map(|observed| observed.mod_revision), reach);
            let known = before.and_then(|before| before.stable.get(&member.uuid)).filter(|known| known.records == records);
            let known = known.cloned().or_else(|| {
                let json = to_raw_value(&instances.status(member)).ok()?;
                Some(Arc::new(StableInstance { records, json }))
            });
            match known {
                Some(known) => {
                    stable.insert(member.uuid, Arc::clone(&known));
                    Part::Stable(known)
                }
                None => Part::Other(Box::new(instances.status(member))),
            }
        })?;
        let json = Bytes::from(serde_json::to_vec(&PodStatus { last_updated: None, ..status }).ok()?);
        // Without its opening brace, which stands before the time.
        let members = json.slice(1..);
        Some(Self { stamp: view.stamp, until: changes_at(view, now).unwrap_or(i64::MAX), members, stable, generation })
    }

    fn holds(&self, view: &PodView, now: i64) -> bool {
        self.stamp == view.stamp && now < self.until
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Stable(known) => known.json.serialize(serializer),
            Self::Other(status) => status.serialize(serializer),
        }
    }
}

/// How each status of an answer begins.
pub(crate) fn opening(now: i64) -> Bytes {
    format!("{{\"lastUpdated\":\"{}\",", Version::from_millis(now)).into()
}
