//! Arithmetic on lists of Mesos resources, exact to the entry: scalars in whole thousandths, port
//! ranges and sets, each entry with its own role, reservation, allocation and disk.
//!
//! Used by the embedded master and agents for accounting, and by offer matching to spend exactly what
//! was offered. Sums that need no entries are in [`super::amounts`].

use std::collections::BTreeSet;

use super::amounts::{scalar, thousandths};
use super::ranges::RangeSet;
use crate::mesos::v1::resource::DiskInfo;
use crate::mesos::v1::resource::disk_info::source;
use crate::mesos::v1::{Resource, value};

/// Some of what was asked for is not there; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not enough {name}")]
pub struct Shortage {
    /// Name of the first resource that falls short.
    pub name: String,
}

/// What an entry holds, whatever it belongs to.
#[derive(Debug, Clone, PartialEq)]
enum Holding {
    Scalar(i64),
    Ranges(RangeSet),
    Set(BTreeSet<String>),
}

impl Holding {
    fn of(resource: &Resource) -> Self {
        if let Some(ranges) = &resource.ranges {
            Holding::Ranges(RangeSet::from_wire(ranges))
        } else if let Some(set) = &resource.set {
            Holding::Set(set.item.iter().cloned().collect())
        } else {
            Holding::Scalar(resource.scalar.as_ref().map_or(0, |scalar| thousandths(scalar.value)))
        }
    }

    fn store(&self, resource: &mut Resource) {
        match self {
            Holding::Scalar(amount) => resource.scalar = Some(scalar(*amount)),
            Holding::Ranges(ranges) => resource.ranges = Some(ranges.to_wire()),
            Holding::Set(items) => resource.set = Some(value::Set { item: items.iter().cloned().collect() }),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Holding::Scalar(amount) => *amount <= 0,
            Holding::Ranges(ranges) => ranges.is_empty(),
            Holding::Set(items) => items.is_empty(),
        }
    }

    fn add(&mut self, other: &Holding) {
        match (self, other) {
            (Holding::Scalar(sum), Holding::Scalar(more)) => *sum = sum.saturating_add(*more),
            (Holding::Ranges(sum), Holding::Ranges(more)) => sum.union(more),
            (Holding::Set(sum), Holding::Set(more)) => sum.extend(more.iter().cloned()),
            _ => {}
        }
    }

    /// Moves what both have out of `self` and `wanted`.
    fn cancel(&mut self, wanted: &mut Holding) {
        match (self, wanted) {
            (Holding::Scalar(have), Holding::Scalar(want)) => {
                let both = (*have).min(*want).max(0);
                *have -= both;
                *want -= both;
            }
            (Holding::Ranges(have), Holding::Ranges(want)) => {
                let before = have.clone();
                have.subtract(want);
                want.subtract(&before);
            }
            (Holding::Set(have), Holding::Set(want)) => {
                let both: Vec<String> = have.intersection(want).cloned().collect();
                have.retain(|item| !both.contains(item));
                want.retain(|item| !both.contains(item));
            }
            _ => {}
        }
    }
}

/// True if two entries differ at most in how much they hold, so that they belong to one account.
#[must_use]
#[allow(deprecated)]
pub fn same_account(a: &Resource, b: &Resource) -> bool {
    a.name == b.name
        && a.r#type == b.r#type
        && a.reservations == b.reservations
        && a.reservation == b.reservation
        && role(a) == role(b)
        && a.allocation_info == b.allocation_info
        && a.provider_id == b.provider_id
        && same_disk(a.disk.as_ref(), b.disk.as_ref())
        && a.revocable.is_some() == b.revocable.is_some()
        && a.shared.is_some() == b.shared.is_some()
}

/// As Mesos compares disks: where a volume is mounted is up to whoever uses it.
fn same_disk(a: Option<&DiskInfo>, b: Option<&DiskInfo>) -> bool {
    let parts = |disk: Option<&DiskInfo>| {
        disk.map(|disk| (disk.source.clone(), disk.persistence.as_ref().map(|persistence| persistence.id.clone())))
    };
    parts(a) == parts(b)
}

/// True for a disk that exists only as a whole: a persistent volume, a mounted or a raw disk.
#[must_use]
pub fn is_indivisible(resource: &Resource) -> bool {
    resource.shared.is_some()
        || resource.disk.as_ref().is_some_and(|disk| {
            let whole = disk.source.as_ref().is_some_and(|source| {
                matches!(source::Type::try_from(source.r#type), Ok(source::Type::Mount | source::Type::Block | source::Type::Raw) | Err(_))
            });
            whole || disk.persistence.is_some()
        })
}

/// The role for which the entry is reserved, in either of the formats; `*` if for none.
#[must_use]
#[allow(deprecated)] // frameworks without RESERVATION_REFINEMENT still send it
pub fn role(resource: &Resource) -> &str {
    match resource.reservations.last() {
        Some(reservation) => reservation.role.as_deref().unwrap_or("*"),
        None => resource.role.as_deref().unwrap_or("*"),
    }
}

/// True if the entry is reserved for some role.
#[must_use]
pub fn is_reserved(resource: &Resource) -> bool {
    role(resource) != "*"
}

/// True if the entry holds nothing.
#[must_use]
pub fn is_empty(resource: &Resource) -> bool {
    Holding::of(resource).is_empty()
}

/// An unreserved scalar entry; `amount` in thousandths.
#[must_use]
pub fn scalar_entry(name: &str, amount: i64) -> Resource {
    Resource { name: name.to_owned(), r#type: value::Type::Scalar.into(), scalar: Some(scalar(amount)), ..Resource::default() }
}

/// An unreserved entry of ranges.
#[must_use]
pub fn ranges_entry(name: &str, ranges: &RangeSet) -> Resource {
    Resource { name: name.to_owned(), r#type: value::Type::Ranges.into(), ranges: Some(ranges.to_wire()), ..Resource::default() }
}

/// Adds entries, merging those of one account.
pub fn add(sum: &mut Vec<Resource>, more: &[Resource]) {
    for entry in more.iter().filter(|entry| !is_empty(entry)) {
        let account = sum.iter_mut().find(|have| same_account(have, entry) && !is_indivisible(have));
        match account {
            Some(have) => {
                let mut holding = Holding::of(have);
                holding.add(&Holding::of(entry));
                holding.store(have);
            }
            None => sum.push(entry.clone()),
        }
    }
}

/// Takes entries out, each from its own account.
///
/// # Errors
/// [`Shortage`] if they are not all there; nothing is changed then.
pub fn subtract(from: &mut Vec<Resource>, entries: &[Resource]) -> Result<(), Shortage> {
    let mut rest = from.clone();
    for entry in entries {
        let mut wanted = Holding::of(entry);
        for have in rest.iter_mut().filter(|have| same_account(have, entry)) {
            let mut holding = Holding::of(have);
            if is_indivisible(have) && holding != wanted {
                continue;
            }
            holding.cancel(&mut wanted);
            holding.store(have);
            if wanted.is_empty() {
                break;
            }
        }
        if !wanted.is_empty() {
            return Err(Shortage { name: entry.name.clone() });
        }
        rest.retain(|have| !is_empty(have));
    }
    *from = rest;
    Ok(())
}

/// True if `entries` could be taken out of `have`.
#[must_use]
pub fn contains(have: &[Resource], entries: &[Resource]) -> bool {
    subtract(&mut have.to_vec(), entries).is_ok()
}

/// Takes exactly `amount` thousandths of a scalar out of the entries that `eligible` admits, in their
/// order; answers what was taken, with each entry's role, reservation and allocation.
///
/// # Errors
/// [`Shortage`] if there is less; nothing is changed then.
pub fn take_scalar(
    from: &mut Vec<Resource>,
    name: &str,
    amount: i64,
    eligible: impl Fn(&Resource) -> bool,
) -> Result<Vec<Resource>, Shortage> {
    take(from, name, Holding::Scalar(amount), eligible)
}

/// As [`take_scalar`], for all of `wanted`, such as host ports.
///
/// # Errors
/// As [`take_scalar`].
pub fn take_ranges(
    from: &mut Vec<Resource>,
    name: &str,
    wanted: &RangeSet,
    eligible: impl Fn(&Resource) -> bool,
) -> Result<Vec<Resource>, Shortage> {
    take(from, name, Holding::Ranges(wanted.clone()), eligible)
}

fn take(
    from: &mut Vec<Resource>,
    name: &str,
    mut wanted: Holding,
    eligible: impl Fn(&Resource) -> bool,
) -> Result<Vec<Resource>, Shortage> {
    let mut taken = Vec::new();
    for entry in from.iter() {
        let before = Holding::of(entry);
        if wanted.is_empty() || entry.name != name || is_indivisible(entry) || !eligible(entry) {
            continue;
        }
        let mut left = before.clone();
        left.cancel(&mut wanted);
        let mut part = before;
        part.cancel(&mut left.clone());
        if !part.is_empty() {
            let mut piece = entry.clone();
            part.store(&mut piece);
            taken.push(piece);
        }
    }
    if !wanted.is_empty() {
        return Err(Shortage { name: name.to_owned() });
    }
    subtract(from, &taken)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mesos::v1::resource::{AllocationInfo, ReservationInfo, disk_info::Persistence};

    fn reserved(mut entry: Resource, role: &str) -> Resource {
        entry.reservations.push(ReservationInfo { role: Some(role.to_owned()), ..Default::default() });
        entry.allocation_info = Some(AllocationInfo { role: Some(role.to_owned()) });
        entry
    }

    fn ports(range: std::ops::RangeInclusive<u64>) -> Resource {
        ranges_entry("ports", &std::iter::once(range).collect())
    }

    #[test]
    fn a_third_of_a_core_three_times_is_exact() {
        let mut rest = vec![scalar_entry("cpus", 300)];
        for _ in 0..3 {
            subtract(&mut rest, &[scalar_entry("cpus", 100)]).unwrap();
        }
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn reserved_and_unreserved_are_different_accounts() {
        let have = [scalar_entry("cpus", 1000), reserved(scalar_entry("cpus", 1000), "web")];
        assert!(contains(&have, &have));
        assert!(!contains(&have, &[scalar_entry("cpus", 1500)]));
        assert_eq!(role(&have[1]), "web");
        assert!(is_reserved(&have[1]) && !is_reserved(&have[0]));
    }

    #[test]
    fn taking_spans_entries_and_copies_their_reservations() {
        let mut offer = vec![reserved(scalar_entry("mem", 64_000), "web"), scalar_entry("mem", 64_000)];
        let taken = take_scalar(&mut offer, "mem", 96_000, |_| true).unwrap();
        assert_eq!(taken, [reserved(scalar_entry("mem", 64_000), "web"), scalar_entry("mem", 32_000)]);
        assert_eq!(offer, [scalar_entry("mem", 32_000)]);
        let short = take_scalar(&mut offer, "mem", 33_000, |_| true).unwrap_err();
        assert_eq!(short.to_string(), "not enough mem");
        assert_eq!(offer, [scalar_entry("mem", 32_000)]);
    }

    #[test]
    fn a_port_is_taken_once() {
        let mut offer = vec![reserved(ports(31_000..=31_001), "web"), ports(31_000..=31_005)];
        let wanted: RangeSet = [31_001, 31_003].into_iter().collect();
        let taken = take_ranges(&mut offer, "ports", &wanted, |_| true).unwrap();
        assert_eq!(taken, [reserved(ports(31_001..=31_001), "web"), ports(31_003..=31_003)]);
    }

    #[test]
    fn persistent_volumes_are_neither_split_nor_merged() {
        let disk = DiskInfo { persistence: Some(Persistence { id: "v".into(), principal: None }), ..Default::default() };
        let volume = Resource { disk: Some(disk), ..scalar_entry("disk", 5_000) };
        let mut sum = vec![volume.clone()];
        add(&mut sum, std::slice::from_ref(&volume));
        assert_eq!(sum.len(), 2);
        assert!(!contains(&sum, &[Resource { scalar: Some(scalar(1_000)), ..volume.clone() }]));
        assert!(contains(&sum, &[volume]));
        assert!(take_scalar(&mut sum, "disk", 1_000, |_| true).is_err());
    }

    fn entry() -> impl Strategy<Value = Resource> {
        let plain = prop_oneof![
            (prop_oneof![Just("cpus"), Just("mem")], 0i64..5000).prop_map(|(name, amount)| scalar_entry(name, amount)),
            (0u64..20, 0u64..10).prop_map(|(begin, length)| ports(begin..=begin + length)),
        ];
        (plain, any::<bool>()).prop_map(|(entry, web)| if web { reserved(entry, "web") } else { entry })
    }

    proptest! {
        #[test]
        fn adding_and_taking_away_gives_what_was_before(have in proptest::collection::vec(entry(), 0..6), more in proptest::collection::vec(entry(), 0..6)) {
            let mut before = Vec::new();
            add(&mut before, &have);
            // Ports are a set: only those not yet there can be added and taken away again.
            let more: Vec<Resource> = more.into_iter().filter(|entry| entry.name != "ports").collect();
            let mut sum = before.clone();
            add(&mut sum, &more);
            prop_assert!(contains(&sum, &before));
            subtract(&mut sum, &more).unwrap();
            prop_assert!(contains(&sum, &before) && contains(&before, &sum), "{:?} {:?}", sum, before);
        }

        #[test]
        fn taking_gives_exactly_what_was_asked_or_changes_nothing(have in proptest::collection::vec(entry(), 0..6), amount in 0i64..12_000) {
            let mut sum = Vec::new();
            add(&mut sum, &have);
            let before = sum.clone();
            let total: i64 = crate::wire::amounts::Amounts::of(&before).cpus;
            match take_scalar(&mut sum, "cpus", amount, |_| true) {
                Ok(taken) => {
                    prop_assert_eq!(crate::wire::amounts::Amounts::of(&taken).cpus, amount);
                    prop_assert!(contains(&before, &taken));
                    prop_assert_eq!(crate::wire::amounts::Amounts::of(&sum).cpus, total - amount);
                }
                Err(_) => {
                    prop_assert!(total < amount);
                    prop_assert_eq!(sum, before);
                }
            }
        }
    }
}
