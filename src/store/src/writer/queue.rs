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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use podium_types::id::PodId;

    use super::super::group::{Compare, Op};
    use super::*;

    fn key(name: &str) -> Key {
        Key::Accepted(PodId::new(&format!("/{name}")).unwrap())
    }

    /// Writes the first key, and compares the others.
    fn job(name: u32, writes: &str, compares: &[&str]) -> Job<u32> {
        let group = Group::global().then(Op::Put(key(writes), Bytes::new()));
        let group = compares.iter().fold(group, |group, name| group.when(Compare::Absent(key(name))));
        Job::new(group, name, &Keyspace::default())
    }

    fn names(batch: &[Job<u32>]) -> Vec<u32> {
        batch.iter().map(|job| job.reply).collect()
    }

    #[test]
    fn groups_that_touch_go_one_after_the_other_in_their_order() {
        let mut taken = Taken::default();
        // 2 touches 1, 3 touches 2 and not 1, 4 touches nobody, 5 compares what only 4 compares.
        let jobs = [job(1, "a", &[]), job(2, "b", &["a"]), job(3, "c", &["b"]), job(4, "d", &["x"]), job(5, "e", &["x"])];
        let mut waiting = VecDeque::from(jobs);
        let first = next_batch(&mut waiting, &mut taken);
        assert_eq!(names(&first), [1, 4, 5]);
        assert!(next_batch(&mut waiting, &mut taken).is_empty(), "2 waits for 1, and 3 behind it");
        first.iter().for_each(|job| taken.release(&job.group));
        let second = next_batch(&mut waiting, &mut taken);
        assert_eq!(names(&second), [2]);
        second.iter().for_each(|job| taken.release(&job.group));
        assert_eq!(names(&next_batch(&mut waiting, &mut taken)), [3]);
    }

    #[test]
    fn a_key_stays_taken_until_its_last_reader_is_answered() {
        let mut taken = Taken::default();
        let mut waiting = VecDeque::from([job(1, "a", &["x"]), job(2, "b", &["x"]), job(3, "x", &[])]);
        let readers = next_batch(&mut waiting, &mut taken);
        assert_eq!(names(&readers), [1, 2]);
        taken.release(&readers[0].group);
        assert!(next_batch(&mut waiting, &mut taken).is_empty());
        taken.release(&readers[1].group);
        assert_eq!(names(&next_batch(&mut waiting, &mut taken)), [3]);
        assert_eq!(taken.keys.len(), 1);
    }

    #[test]
    fn a_batch_ends_at_etcds_limit_of_operations() {
        let mut taken = Taken::default();
        let mut waiting: VecDeque<_> = (0..200).map(|n| job(n, &format!("a{n}"), &["x", "y"])).collect();
        assert_eq!(next_batch(&mut waiting, &mut taken).len(), 126, "and two conditions in each");
        assert_eq!(names(&next_batch(&mut waiting, &mut taken)), (126..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_refused_group_is_tried_again_by_itself() {
        let mut taken = Taken::default();
        let mut waiting = VecDeque::from([job(1, "a", &[]), job(2, "b", &[]), job(3, "c", &[])]);
        waiting[1].alone = true;
        assert_eq!(names(&next_batch(&mut waiting, &mut taken)), [1, 3]);
        assert_eq!(names(&next_batch(&mut waiting, &mut taken)), [2]);
    }
}
