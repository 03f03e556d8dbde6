//! The two capacities of an upgrade, as whole instances.

use podium_types::definition::Upgrade;

/// How far binary fractions may be off: `10 x (1 + 0.1)` is 11, although its product is a little more.
const TOLERANCE: f64 = 1e-9;

/// Bounds that an upgrade of a pod keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Instances that the pod should have.
    pub instances: u32,
    /// Healthy ones that must remain.
    pub floor: u32,
    /// As many there may be at once.
    pub ceiling: u32,
}

impl Capacity {
    /// `floor = ceil(N x min)`, `ceiling = floor(N (1 + over))`, one more where both are equal: otherwise nothing could move.
    pub fn of(instances: u32, upgrade: &Upgrade) -> Self {
        let count = f64::from(instances);
        let tolerance = TOLERANCE * count.max(1.0);
        let floor = whole((count * share(upgrade.minimum_health_capacity) - tolerance).ceil()).min(instances);
        let ceiling = whole((count * (1.0 + share(upgrade.maximum_over_capacity)) + tolerance).floor()).max(instances);
        Self { instances, floor, ceiling: if floor == ceiling { ceiling.saturating_add(1) } else { ceiling } }
    }

    /// Where instances have persistent volumes each is launched again in its place: none beside the others, and one at least may
    /// be away meanwhile.
    pub fn in_place(instances: u32, upgrade: &Upgrade) -> Self {
        let floor = Self::of(instances, upgrade).floor.min(instances.saturating_sub(1));
        Self { instances, floor, ceiling: instances }
    }

    /// Nothing may remain.
    pub fn none() -> Self {
        Self { instances: 0, floor: 0, ceiling: 0 }
    }
}

fn share(share: f64) -> f64 {
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

/// A conversion that saturates, as `as` does for floats.
fn whole(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(instances: u32, min: f64, over: f64) -> (u32, u32) {
        let capacity = Capacity::of(instances, &Upgrade { minimum_health_capacity: min, maximum_over_capacity: over });
        (capacity.floor, capacity.ceiling)
    }

    #[test]
    fn shares_become_whole_instances_on_the_safe_side() {
        assert_eq!(capacity(10, 1.0, 1.0), (10, 20));
        assert_eq!(capacity(10, 0.5, 0.2), (5, 12));
        assert_eq!(capacity(3, 0.5, 0.5), (2, 4));
        assert_eq!(capacity(0, 1.0, 1.0), (0, 1));
    }

    #[test]
    fn binary_fractions_do_not_cost_an_instance() {
        assert_eq!(capacity(10, 0.7, 0.1), (7, 11));
        assert_eq!(capacity(100, 0.07, 0.29), (7, 129));
        assert_eq!(capacity(1_000_000, 0.000_001, 0.3), (1, 1_300_000));
    }

    #[test]
    fn where_both_are_equal_one_more_is_allowed() {
        assert_eq!(capacity(3, 1.0, 0.0), (3, 4));
        assert_eq!(capacity(1, 1.0, 0.5), (1, 2));
        assert_eq!(capacity(3, 0.5, 0.0), (2, 3));
    }

    #[test]
    fn in_place_nothing_is_above_the_count_and_something_can_always_move() {
        for (instances, min, floor) in [(1, 1.0, 0), (1, 0.5, 0), (3, 1.0, 2), (4, 0.5, 2), (0, 1.0, 0)] {
            let upgrade = Upgrade { minimum_health_capacity: min, maximum_over_capacity: 0.0 };
            assert_eq!(Capacity::in_place(instances, &upgrade), Capacity { instances, floor, ceiling: instances }, "{instances} {min}");
        }
    }

    #[test]
    fn shares_outside_their_range_are_cut() {
        assert_eq!(capacity(3, f64::NAN, f64::INFINITY), (0, 6));
        assert_eq!(capacity(1_000_000, 7.0, -1.0), (1_000_000, 1_000_001));
    }
}
