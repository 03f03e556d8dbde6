//! Sets of whole numbers kept as inclusive ranges: the ports of offers and agents.

use std::fmt;
use std::ops::RangeInclusive;

use crate::mesos::v1::value;

/// A set of numbers, as sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges.iter().map(|(begin, end)| format!("{begin}-{end}"))).finish()
    }
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        RangeSet { ranges: Vec::new() }
    }

    /// From the wire; ranges that end before they begin hold nothing.
    #[must_use]
    pub fn from_wire(ranges: &value::Ranges) -> Self {
        ranges.range.iter().map(|range| range.begin..=range.end).collect()
    }

    /// For the wire.
    #[must_use]
    pub fn to_wire(&self) -> value::Ranges {
        value::Ranges { range: self.ranges.iter().map(|&(begin, end)| value::Range { begin, end }).collect() }
    }

    /// True if nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in it; saturated at `u64::MAX`.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, (begin, end)| sum.saturating_add((end - begin).saturating_add(1)))
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u64>> + '_ {
        self.ranges.iter().map(|&(begin, end)| begin..=end)
    }

    /// Every number, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges().flatten()
    }

    /// The number with `n` smaller ones before it.
    #[must_use]
    pub fn nth(&self, mut n: u64) -> Option<u64> {
        for (begin, end) in &self.ranges {
            let beyond = end - begin;
            if n <= beyond {
                return Some(begin + n);
            }
            n -= beyond + 1;
        }
        None
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|(begin, _)| *begin)
    }

    /// True if `number` is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let after = self.ranges.partition_point(|(begin, _)| *begin <= number);
        after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|(_, end)| number <= *end)
    }

    /// True if every number of `other` is in it.
    #[must_use]
    pub fn contains_all(&self, other: &RangeSet) -> bool {
        other.ranges.iter().all(|(begin, end)| {
            let after = self.ranges.partition_point(|(start, _)| start <= begin);
            after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|(_, last)| end <= last)
        })
    }

    /// True if some number is in both.
    #[must_use]
    pub fn intersects(&self, other: &RangeSet) -> bool {
        other.ranges.iter().any(|(begin, end)| {
            let after = self.ranges.partition_point(|(start, _)| start <= end);
            after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|(_, last)| begin <= last)
        })
    }

    /// Adds a range; one that ends before it begins adds nothing.
    pub fn insert(&mut self, range: RangeInclusive<u64>) {
        let (mut begin, mut end) = range.into_inner();
        if end < begin {
            return;
        }
        // All that overlap or touch the new range melt into it.
        let from = self.ranges.partition_point(|(_, last)| last.saturating_add(1) < begin);
        let to = self.ranges.partition_point(|(start, _)| *start <= end.saturating_add(1));
        if let Some(&(start, _)) = self.ranges.get(from).filter(|_| from < to) {
            begin = begin.min(start);
        }
        if let Some(&(_, last)) = to.checked_sub(1).filter(|last| from <= *last).and_then(|last| self.ranges.get(last)) {
            end = end.max(last);
        }
        self.ranges.splice(from..to.max(from), [(begin, end)]);
    }

    /// Removes a range, wherever it is in the set.
    pub fn remove(&mut self, range: RangeInclusive<u64>) {
        let (begin, end) = range.into_inner();
        if end < begin {
            return;
        }
        let from = self.ranges.partition_point(|(_, last)| *last < begin);
        let to = self.ranges.partition_point(|(start, _)| *start <= end).max(from);
        let mut rest = Vec::with_capacity(2);
        for &(start, last) in self.ranges.get(from..to).unwrap_or_default() {
            if start < begin {
                rest.push((start, begin - 1));
            }
            if last > end {
                rest.push((end + 1, last));
            }
        }
        self.ranges.splice(from..to, rest);
    }

    /// Adds every number of `other`.
    pub fn union(&mut self, other: &RangeSet) {
        for range in other.ranges() {
            self.insert(range);
        }
    }

    /// Removes every number of `other`.
    pub fn subtract(&mut self, other: &RangeSet) {
        for range in other.ranges() {
            self.remove(range);
        }
    }
}

impl FromIterator<RangeInclusive<u64>> for RangeSet {
    fn from_iter<T: IntoIterator<Item = RangeInclusive<u64>>>(ranges: T) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        // Sorted, each insert lands at the end: no quadratic time on hostile input.
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut set = RangeSet::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl FromIterator<u64> for RangeSet {
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        numbers.into_iter().map(|number| number..=number).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn adjacent_ranges_melt_and_removal_splits() {
        let mut set: RangeSet = [10..=12, 13..=15, 20..=20].into_iter().collect();
        assert_eq!(format!("{set:?}"), r#"["10-15", "20-20"]"#);
        set.remove(12..=13);
        assert_eq!(set.iter().collect::<Vec<_>>(), [10, 11, 14, 15, 20]);
    }

    #[test]
    fn the_ends_of_the_number_range_do_not_overflow() {
        let mut set: RangeSet = std::iter::once(0..=u64::MAX).collect();
        assert_eq!(set.len(), u64::MAX);
        set.insert(5..=u64::MAX);
        set.remove(u64::MAX..=u64::MAX);
        set.remove(0..=0);
        assert!(!set.contains(0) && !set.contains(u64::MAX) && set.contains(1));
        #[allow(clippy::reversed_empty_ranges)]
        set.insert(9..=3);
        set.remove(0..=u64::MAX);
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..40), other in proptest::collection::vec((0u64..60, 0u64..12), 0..4)) {
            let (mut set, mut plain) = (RangeSet::new(), BTreeSet::new());
            for (add, begin, length) in steps {
                if add {
                    set.insert(begin..=begin + length);
                    plain.extend(begin..=begin + length);
                } else {
                    set.remove(begin..=begin + length);
                    plain.retain(|number| !(begin..=begin + length).contains(number));
                }
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
                prop_assert!(set.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
            let other: RangeSet = other.into_iter().map(|(begin, length)| begin..=begin + length).collect();
            prop_assert_eq!(set.len(), plain.len() as u64);
            prop_assert!((0..80).all(|number| set.contains(number) == plain.contains(&number)));
            prop_assert!((0..80).all(|n| set.nth(n) == plain.iter().nth(n as usize).copied()));
            prop_assert_eq!(set.contains_all(&other), other.iter().all(|number| plain.contains(&number)));
            prop_assert_eq!(set.intersects(&other), other.iter().any(|number| plain.contains(&number)));
            prop_assert_eq!(RangeSet::from_wire(&set.to_wire()), set);
        }
    }
}
