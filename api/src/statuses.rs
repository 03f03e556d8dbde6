//! The statuses of pods, kept as the JSON that they are answered in: a pod's is made anew when something of it has changed,
//! or when a time in it has passed, and not for every reader.
//!
//! Promises: an answer is never older than the index that it is asked of; what is kept is bounded by the pods there are.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use podium_controllers::admission::is_active;
use podium_controllers::health::status::{PodStatus, changes_at, pod_status};
use podium_store::index::{Index, IndexState};
use podium_store::view::PodView;
use podium_types::id::{PodId, Version};

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
        if let Some(known) = self.fragments.lock().get(id).filter(|fragment| fragment.holds(view, now)) {
            return Some(Arc::clone(known));
        }
        let made = Arc::new(Fragment::make(view, now)?);
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
    fn make(view: &PodView, now: i64) -> Option<Self> {
        let status = PodStatus { last_updated: None, ..pod_status(view, now)? };
        let json = Bytes::from(serde_json::to_vec(&status).ok()?);
        // Without its opening brace, which stands before the time.
        let members = json.slice(1..);
        Some(Self { stamp: view.stamp, until: changes_at(view, now).unwrap_or(i64::MAX), members })
    }

    fn holds(&self, view: &PodView, now: i64) -> bool {
        self.stamp == view.stamp && now < self.until
    }
}

/// How each status of an answer begins.
pub(crate) fn opening(now: i64) -> Bytes {
    format!("{{\"lastUpdated\":\"{}\",", Version::from_millis(now)).into()
}
