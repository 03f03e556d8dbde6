//! What single revisions did, for who tells others of every step and not only of how things are now.
//!
//! Promises: from the position that a follower is told on, every revision comes once and in order, whole transactions only,
//! until it is told that some are missing. Nothing is kept or copied while nobody follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use etcd_client::proto::PbEvent;
use podium_proto::records::{Accepted, Deployment, Instance, Observed, Reach, Verdict};
use podium_types::id::PodId;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::Position;
use super::state::IndexState;
use crate::key::{Key, Keyspace};

/// Revisions that wait for a slow follower. A busy store makes some hundred a second.
const WAITING: usize = 1_024;

/// One revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Which.
    pub revision: i64,
    /// The pods whose records it touched, by id; none where it touched others.
    pub pods: Vec<PodTurn>,
}

/// What one revision did to one pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodTurn {
    /// Which.
    pub id: PodId,
    /// What stood before it.
    pub before: Excerpt,
    /// What stands after it.
    pub after: Excerpt,
}

/// Of a pod, what is told of: the version in force, the verdict on the last push, the deployment, and the instances that a
/// revision touched.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Excerpt {
    /// The version in force.
    pub accepted: Option<Accepted>,
    /// Why the last push was refused.
    pub verdict: Option<Verdict>,
    /// The running deployment.
    pub deployment: Option<Deployment>,
    /// All records of the touched instances.
    pub instances: BTreeMap<Uuid, InstanceRecords>,
}

/// What is on record of one instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InstanceRecords {
    /// What it should be.
    pub instance: Option<Instance>,
    /// What was observed of it.
    pub observed: Option<Observed>,
    /// Whether its agent has been away for long.
    pub reach: Option<Reach>,
}

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// The next revision.
    Turn(Arc<Turn>),
    /// Revisions are missing: the index was read anew, or the follower was too slow.
    Missing,
}

/// A follower of the index.
#[derive(Debug)]
pub struct Turns {
    receiver: broadcast::Receiver<Told>,
    /// Every revision after this one is told.
    pub from: Position,
}

impl Turns {
    pub(super) fn new(receiver: broadcast::Receiver<Told>, from: Position) -> Self {
        Self { receiver, from }
    }

    /// Waits for the next; `None` when the index is gone. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Told> {
        match self.receiver.recv().await {
            Ok(told) => Some(told),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Told::Missing),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

pub(super) fn sender() -> broadcast::Sender<Told> {
    broadcast::Sender::new(WAITING)
}

/// The instances that a revision touches, by pod.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<PodId, BTreeSet<Uuid>>);

impl Touched {
    /// What the events of one revision touch of what is told of.
    pub(super) fn by(keys: &Keyspace, events: &[PbEvent]) -> Self {
        let mut touched = Self::default();
        for key in events.iter().filter_map(|event| keys.parse(&event.kv.as_ref()?.key)) {
            match key {
                Key::Accepted(pod) | Key::Verdict(pod) | Key::Deployment(pod) => drop(touched.0.entry(pod).or_default()),
                Key::Instance(pod, uuid) | Key::Observed(pod, uuid) | Key::Reach(pod, uuid) => {
                    touched.0.entry(pod).or_default().insert(uuid);
                }
                _ => {}
            }
        }
        touched
    }

    /// Every key that an excerpt of them rests on.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.0.iter().flat_map(|(pod, uuids)| {
            let of_instance =
                |uuid: &Uuid| [Key::Instance(pod.clone(), *uuid), Key::Observed(pod.clone(), *uuid), Key::Reach(pod.clone(), *uuid)];
            [Key::Accepted(pod.clone()), Key::Verdict(pod.clone()), Key::Deployment(pod.clone())]
                .into_iter()
                .chain(uuids.iter().flat_map(of_instance))
        })
    }

    /// What stands there now.
    pub(super) fn excerpts(&self, state: &IndexState) -> Vec<Excerpt> {
        self.0.iter().map(|(pod, uuids)| excerpt(state, pod, uuids)).collect()
    }

    /// The turn, from what stood there before and what stands there now.
    pub(super) fn turn(self, revision: i64, before: Vec<Excerpt>, state: &IndexState) -> Turn {
        let after = self.excerpts(state);
        let pods = self.0.into_keys().zip(before.into_iter().zip(after)).map(|(id, (before, after))| PodTurn { id, before, after });
        Turn { revision, pods: pods.collect() }
    }
}

fn excerpt(state: &IndexState, pod: &PodId, uuids: &BTreeSet<Uuid>) -> Excerpt {
    let Some(view) = state.pod(pod) else {
        return Excerpt { instances: uuids.iter().map(|uuid| (*uuid, InstanceRecords::default())).collect(), ..Excerpt::default() };
    };
    let of_instance = |uuid: &Uuid| InstanceRecords {
        instance: view.instances.get(uuid).map(|held| held.value),
        observed: view.observed.get(uuid).map(|held| held.value.clone()),
        reach: view.reach.get(uuid).map(|held| held.value),
    };
    Excerpt {
        accepted: view.accepted.as_ref().map(|held| held.value),
        verdict: view.verdict.as_ref().map(|held| held.value.clone()),
        deployment: view.deployment.as_ref().map(|held| held.value.clone()),
        instances: uuids.iter().map(|uuid| (*uuid, of_instance(uuid))).collect(),
    }
}
