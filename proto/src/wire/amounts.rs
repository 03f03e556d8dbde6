//! A compact sum of resources, for matching and for the allocator: thousandths and ports, whatever
//! role or reservation they come from. [`super::resources`] works on the exact entries.

use super::ranges::RangeSet;
use crate::mesos::v1::{Resource, value};

/// Thousandths of the largest quantity that is taken for real; what is above is cut to it.
const MOST: f64 = 1e15;

/// A quantity of the wire in thousandths, rounded as Mesos does. Negative quantities and what is not a
/// number count as 0: a hostile or broken agent must not create resources.
#[must_use]
pub fn thousandths(quantity: f64) -> i64 {
    let rounded = (quantity * 1000.0).round();
    if rounded.is_nan() || rounded <= 0.0 {
        return 0;
    }
    // Within ±2^53 every f64 that was rounded is an exact i64.
    #[allow(clippy::cast_possible_truncation)]
    let exact = rounded.min(MOST) as i64;
    exact
}

/// Thousandths as a quantity of the wire.
#[must_use]
pub fn quantity(thousandths: i64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let quantity = thousandths as f64 / 1000.0;
    quantity
}

/// A scalar of the wire.
#[must_use]
pub fn scalar(thousandths: i64) -> value::Scalar {
    value::Scalar { value: quantity(thousandths) }
}

/// How much of the four scalar resources, and which ports. Quantities are in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Cores.
    pub cpus: i64,
    /// MiB.
    pub mem: i64,
    /// MiB.
    pub disk: i64,
    /// GPUs.
    pub gpus: i64,
    /// Host ports.
    pub ports: RangeSet,
}

impl Amounts {
    /// The sum of these entries; names other than the five are left out.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut sum = Amounts::default();
        for resource in resources {
            if resource.name == "ports" {
                if let Some(ranges) = &resource.ranges {
                    sum.ports.union(&RangeSet::from_wire(ranges));
                }
            } else if let (Some(target), Some(scalar)) = (sum.scalar_mut(&resource.name), &resource.scalar) {
                *target = target.saturating_add(thousandths(scalar.value));
            }
        }
        sum
    }

    fn scalar_mut(&mut self, name: &str) -> Option<&mut i64> {
        match name {
            "cpus" => Some(&mut self.cpus),
            "mem" => Some(&mut self.mem),
            "disk" => Some(&mut self.disk),
            "gpus" => Some(&mut self.gpus),
            _ => None,
        }
    }

    /// The four scalars by name, in the order in which Mesos prints them.
    #[must_use]
    pub fn scalars(&self) -> [(&'static str, i64); 4] {
        [("cpus", self.cpus), ("mem", self.mem), ("disk", self.disk), ("gpus", self.gpus)]
    }

    /// True if there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scalars().iter().all(|(_, amount)| *amount == 0) && self.ports.is_empty()
    }

    /// True if `other` fits in.
    #[must_use]
    pub fn contains(&self, other: &Amounts) -> bool {
        self.cpus >= other.cpus
            && self.mem >= other.mem
            && self.disk >= other.disk
            && self.gpus >= other.gpus
            && self.ports.contains_all(&other.ports)
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Amounts) {
        self.cpus = self.cpus.saturating_add(other.cpus);
        self.mem = self.mem.saturating_add(other.mem);
        self.disk = self.disk.saturating_add(other.disk);
        self.gpus = self.gpus.saturating_add(other.gpus);
        self.ports.union(&other.ports);
    }

    /// Takes `other` out if all of it fits in; otherwise answers false and changes nothing.
    #[must_use]
    pub fn subtract(&mut self, other: &Amounts) -> bool {
        let fits = self.contains(other);
        if fits {
            self.cpus -= other.cpus;
            self.mem -= other.mem;
            self.disk -= other.disk;
            self.gpus -= other.gpus;
            self.ports.subtract(&other.ports);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thousandths_round_as_mesos_does_and_refuse_nonsense() {
        assert_eq!(thousandths(0.1 + 0.2), 300);
        assert_eq!(thousandths(0.0004), 0);
        assert_eq!(thousandths(-3.0), 0);
        assert_eq!(thousandths(f64::NAN), 0);
        assert_eq!(thousandths(f64::INFINITY), 1_000_000_000_000_000);
        assert_eq!(quantity(300), 0.3);
    }

    proptest! {
        #[test]
        fn what_is_taken_out_can_be_put_back(have in amounts(), want in amounts()) {
            let mut rest = have.clone();
            let fits = rest.subtract(&want);
            prop_assert_eq!(fits, have.contains(&want));
            if fits {
                prop_assert!(!rest.ports.intersects(&want.ports));
                rest.add(&want);
            }
            prop_assert_eq!(rest, have);
        }
    }

    fn amounts() -> impl Strategy<Value = Amounts> {
        let ports = proptest::collection::vec((0u64..30, 0u64..20), 0..2)
            .prop_map(|ranges| ranges.into_iter().map(|(begin, length)| begin..=begin + length).collect());
        (0i64..10, 0i64..10, 0i64..10, 0i64..2, ports).prop_map(|(cpus, mem, disk, gpus, ports)| Amounts { cpus, mem, disk, gpus, ports })
    }
}
