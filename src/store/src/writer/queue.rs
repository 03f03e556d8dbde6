//! What waits to be written, and which keys are spoken for. Pure.
//!
//! Two groups touch when one writes a key that the other writes or compares. Groups that touch never share a
//! transaction (etcd would evaluate the second's conditions before the first's writes) and never stand in two
//! unanswered ones; they go in the order in which they came.

use std::collections::{HashMap, VecDeque};

use super::batch::{self, Room, Size};
use super::group::Group;
use crate::key::{Key, Keyspace};

/// A group on its way.
#[derive(Debug)]
pub(super) struct Job<R> {
    pub group: Group,
    pub reply: R,
    size: Size,
    /// Travels alone: a transaction that held it was refused as a whole.
    pub alone: bool,
}

impl<R> Job<R> {
    pub(super) fn new(group: Group, reply: R, keys: &Keyspace) -> Self {
        let size = batch::size(&group, keys);
        Self { group, reply, size, alone: false }
    }
}

/// Keys that are spoken for.
#[derive(Debug, Default)]
pub(super) struct Taken {
    keys: HashMap<Key, Use>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Written,
    /// By that many groups.
    Compared(usize),
}

impl Taken {
    fn touches(&self, group: &Group) -> bool {
        group.ops.iter().any(|op| self.keys.contains_key(op.key()))
            || group.compares.iter().any(|compare| self.keys.get(compare.key()) == Some(&Use::Written))
    }

    fn add(&mut self, group: &Group) {
        for op in &group.ops {
            self.keys.insert(op.key().clone(), Use::Written);
        }
        for compare in &group.compares {
            let used = self.keys.entry(compare.key().clone()).or_insert(Use::Compared(0));
            if let Use::Compared(times) = used {
                *times += 1;
            }
        }
    }

    /// Lets go of an answered group's keys.
    pub(super) fn release(&mut self, group: &Group) {
        for op in &group.ops {
            self.keys.remove(op.key());
        }
        for compare in &group.compares {
            match self.keys.get_mut(compare.key()) {
                Some(Use::Compared(times)) if *times > 1 => *times -= 1,
                Some(Use::Compared(_)) => drop(self.keys.remove(compare.key())),
                Some(Use::Written) | None => {}
            }
        }
    }
}

/// Takes from the front of `waiting` as many groups as one transaction holds, and marks their keys as taken. What has
/// to wait for a key holds back whatever touches it behind it.
pub(super) fn next_batch<R>(waiting: &mut VecDeque<Job<R>>, taken: &mut Taken) -> Vec<Job<R>> {
    let mut batch: Vec<Job<R>> = Vec::new();
    let mut room = Room::default();
    let mut held_back = Taken::default();
    let mut rest = VecDeque::with_capacity(waiting.len());
    while let Some(job) = waiting.pop_front() {
        let free = !taken.touches(&job.group) && !held_back.touches(&job.group) && (!job.alone || batch.is_empty());
        if free && room.admit(job.size) {
            taken.add(&job.group);
            let full = job.alone || room.is_full();
            batch.push(job);
            if full {
                break;
            }
        } else {
            held_back.add(&job.group);
            rest.push_back(job);
        }
    }
    rest.append(waiting);
    *waiting = rest;
    batch
}
