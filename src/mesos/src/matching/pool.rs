//! The slots that pods of one kind may use at all, sorted out once for all of them.
//!
//! What a slot has left only shrinks during a pass. So the tree of a pool may say more than there is: what it finds is
//! looked at, and corrected then.

use std::collections::{HashMap, HashSet};

use super::candidate::{Candidate, Demand, Key, Signature};
use super::tree::{NOTHING, Size, Tree};
use super::{Rules, Slot};

/// Pools that are kept at once: each takes memory for every slot.
const MOST_POOLS: usize = 32;

/// All pools of one pass.
#[derive(Default)]
pub(super) struct Pools<'a> {
    known: HashMap<Key<'a>, Pool>,
}

impl<'a> Pools<'a> {
    /// The pool of this pod.
    pub fn of(&mut self, candidate: &Candidate<'a>, slots: &[Slot], rules: &Rules) -> &mut Pool {
        let key = candidate.key();
        if self.known.len() >= MOST_POOLS && !self.known.contains_key(&key) {
            self.known.clear();
        }
        self.known.entry(key).or_insert_with(|| Pool::new(candidate, slots, rules))
    }
}

/// The slots that pods of one kind may use.
pub(super) struct Pool {
    /// Indices of slots, ascending.
    members: Vec<usize>,
    /// By position among the members.
    tree: Tree,
    /// Demands for which there is no room, wherever other instances are.
    hopeless: HashSet<Signature>,
}

impl Pool {
    fn new(candidate: &Candidate<'_>, slots: &[Slot], rules: &Rules) -> Self {
        let fixed = candidate.fixed();
        let eligible = slots.iter().enumerate().filter(|(_, slot)| candidate.is_eligible(slot, &fixed, rules));
        let (members, sizes): (Vec<usize>, Vec<Size>) = eligible.map(|(index, slot)| (index, slot.size(&candidate.accepted))).unzip();
        Pool { members, tree: Tree::new(sizes.into_iter()), hopeless: HashSet::new() }
    }

    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// There was no room for another that wanted the same.
    pub fn is_hopeless(&self, demand: &Demand) -> bool {
        !self.hopeless.is_empty() && self.hopeless.contains(&demand.signature())
    }

    pub fn give_up(&mut self, demand: &Demand) {
        self.hopeless.insert(demand.signature());
    }

    /// The first slot from position `start` on, and then from the beginning, that is open, large enough and accepted;
    /// its position and index.
    pub fn find(
        &mut self,
        start: usize,
        wanted: &Size,
        slots: &[Slot],
        closed: &Closed,
        size: impl Fn(&Slot) -> Size,
        accept: impl Fn(&Slot) -> bool,
    ) -> Option<(usize, usize)> {
        let start = start.min(self.members.len());
        for range in [start..self.members.len(), 0..start] {
            let mut from = range.start;
            while from < range.end {
                let mut corrected = None;
                let members = &self.members;
                let found = self.tree.find(from..range.end, wanted, |position| {
                    let Some((index, slot)) = members.get(position).and_then(|index| Some((*index, slots.get(*index)?))) else {
                        return false;
                    };
                    let left = if closed.is(index) { NOTHING } else { size(slot) };
                    let fits = left.iter().zip(wanted).all(|(left, wanted)| left >= wanted);
                    corrected = (!fits).then_some(left);
                    !fits || accept(slot)
                });
                let Some(position) = found else { break };
                match corrected {
                    Some(left) => self.tree.set(position, left),
                    None => return self.members.get(position).map(|index| (position, *index)),
                }
                from = position + 1;
            }
        }
        None
    }
}

/// Slots that take no more in this pass.
pub(super) struct Closed {
    closed: Vec<bool>,
    placed: Vec<usize>,
    most: Option<usize>,
}

impl Closed {
    pub fn new(slots: usize, most: Option<usize>) -> Self {
        Closed { closed: vec![false; slots], placed: vec![0; slots], most }
    }

    pub fn is(&self, slot: usize) -> bool {
        self.closed.get(slot).copied().unwrap_or(true)
    }

    pub fn close(&mut self, slot: usize) {
        if let Some(closed) = self.closed.get_mut(slot) {
            *closed = true;
        }
    }

    /// One more instance is there.
    pub fn used(&mut self, slot: usize) {
        let Some(placed) = self.placed.get_mut(slot) else { return };
        *placed += 1;
        if self.most.is_some_and(|most| *placed >= most) {
            self.close(slot);
        }
    }
}
