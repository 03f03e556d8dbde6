//! Finds the next slot that is large enough without looking at those that are not: a tree whose inner
//! nodes hold, for each resource, the most that any slot below has.

use std::ops::Range;

/// cpus, mem, disk, gpus, number of ports.
pub(super) type Size = [i64; 5];

/// Less than any demand.
pub(super) const NOTHING: Size = [i64::MIN; 5];

pub(super) struct Tree {
    /// A complete binary tree: children of `n` are `2n` and `2n + 1`, leaves begin at `leaves`.
    nodes: Vec<Size>,
    leaves: usize,
}

impl Tree {
    pub fn new(sizes: impl ExactSizeIterator<Item = Size>) -> Self {
        let leaves = sizes.len().next_power_of_two().max(1);
        let mut nodes = vec![NOTHING; 2 * leaves];
        for (node, size) in nodes.iter_mut().skip(leaves).zip(sizes) {
            *node = size;
        }
        let mut tree = Tree { nodes, leaves };
        for node in (1..leaves).rev() {
            tree.refresh(node);
        }
        tree
    }

    fn node(&self, index: usize) -> Size {
        self.nodes.get(index).copied().unwrap_or(NOTHING)
    }

    fn refresh(&mut self, index: usize) {
        let (left, right) = (self.node(2 * index), self.node(2 * index + 1));
        if let Some(node) = self.nodes.get_mut(index) {
            *node = std::array::from_fn(|resource| most(&left, resource).max(most(&right, resource)));
        }
    }

    /// The slot has changed.
    pub fn set(&mut self, slot: usize, size: Size) {
        let mut index = self.leaves + slot;
        if let Some(node) = self.nodes.get_mut(index) {
            *node = size;
        }
        while index > 1 {
            index /= 2;
            self.refresh(index);
        }
    }

    /// The first slot of `range` that is large enough and that `accept` takes.
    pub fn find(&self, range: Range<usize>, wanted: &Size, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        self.search(1, 0, self.leaves, range, wanted, &mut accept)
    }

    /// Searches the node that stands for slots `from..from + width` for one within `range`.
    fn search(
        &self,
        index: usize,
        from: usize,
        width: usize,
        range: Range<usize>,
        wanted: &Size,
        accept: &mut impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let outside = from >= range.end || from + width <= range.start;
        let node = self.node(index);
        if outside || node.iter().zip(wanted).any(|(have, wanted)| have < wanted) {
            return None;
        }
        if width == 1 {
            return accept(from).then_some(from);
        }
        let half = width / 2;
        self.search(2 * index, from, half, range.clone(), wanted, accept)
            .or_else(|| self.search(2 * index + 1, from + half, half, range, wanted, accept))
    }
}

fn most(size: &Size, resource: usize) -> i64 {
    size.get(resource).copied().unwrap_or(i64::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            mut sizes in proptest::collection::vec([0i64..4, 0i64..4, 0i64..4, 0i64..2, 0i64..3], 0..20),
            changes in proptest::collection::vec((0usize..20, [0i64..4, 0i64..4, 0i64..4, 0i64..2, 0i64..3]), 0..5),
            start in 0usize..22,
            end in 0usize..22,
            wanted in [0i64..4, 0i64..4, 0i64..4, 0i64..2, 0i64..3],
            refused in 0usize..20,
        ) {
            let mut tree = Tree::new(sizes.clone().into_iter());
            for (slot, size) in changes {
                if slot < sizes.len() {
                    sizes[slot] = size;
                    tree.set(slot, size);
                }
            }
            let fits = |slot: &usize| *slot != refused && sizes[*slot].iter().zip(&wanted).all(|(have, wanted)| have >= wanted);
            let (start, end) = (start.min(sizes.len()), end.min(sizes.len()));
            let plain = (start..end).find(fits);
            prop_assert_eq!(tree.find(start..end, &wanted, |slot| slot != refused), plain);
        }
    }
}
