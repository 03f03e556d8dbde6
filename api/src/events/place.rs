//! Where an event stands in the history of which store: its id.

use std::fmt;
use std::str::FromStr;

use podium_store::index::IndexState;

/// The `number`th event of a revision, from 1. As a place to go on after, 0 stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// etcd's revision.
    pub revision: i64,
    /// Of the events that this revision means.
    pub number: u32,
}

/// The id of an event: `<revision>-<number>-<store>`. Revisions of two stores say nothing about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub place: Place,
    /// As [`Named::at`] gives it.
    pub store: u32,
}

/// By what a store is known: etcd's own id of its cluster, which a restored backup changes unless it is restored under the same names,
/// and ours, which is another wherever a gateway began with an empty store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Named {
    etcd: u64,
    /// Since which revision, and what.
    ours: Option<(i64, String)>,
}

impl Named {
    /// The names of the store that the index follows.
    pub(super) fn of(index: &IndexState) -> Self {
        let ours = index.framework().map(|held| (held.create_revision, held.value.cluster_id.clone()));
        Self { etcd: index.cluster_id(), ours }
    }

    /// Whether this is etcd's id of the cluster.
    pub(super) fn is_of(&self, cluster_id: u64) -> bool {
        self.etcd == cluster_id
    }

    /// The id of an event. Every replica that knows a revision gives its events the same.
    pub(super) fn id(&self, place: Place) -> Id {
        // A place before the first event of a revision is where the one before it ended.
        Id { place, store: self.at(place.revision - i64::from(place.number == 0)) }
    }

    /// Both names in 32 bits (FNV-1a): as they stood at a revision, so that the later one makes no earlier id wrong.
    fn at(&self, revision: i64) -> u32 {
        let ours = self.ours.iter().filter(|(since, _)| *since <= revision).flat_map(|(_, name)| name.bytes());
        self.etcd.to_be_bytes().into_iter().chain(ours).fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:08x}", self.place.revision, self.place.number, self.store)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(());
        let (revision, number, store) = (part()?, part()?, part()?);
        let place = Place { revision: revision.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? };
        let id = Self { place, store: u32::from_str_radix(store, 16).map_err(|_| ())? };
        // One spelling each, and room for the next.
        (id.to_string() == text && (1..i64::MAX).contains(&place.revision)).then_some(id).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_its_place_comes_after_those_before_it() {
        let id: Id = "12-3-0a1b2c3d".parse().unwrap();
        let place = Place { revision: 12, number: 3 };
        assert_eq!((id, id.to_string().as_str()), (Id { place, store: 0x0a1b_2c3d }, "12-3-0a1b2c3d"));
        assert!(place < Place { revision: 13, number: 0 } && place > Place { revision: 12, number: 0 });
        let bad =
            ["", "-", "12", "12-", "-3", "12-3", "12-3-", "12-3-a", "12-3-0A1B2C3D", "12-3-0a1b2c3d-1", "12-3-+a1b2c3d", "é-3-0a1b2c3d"];
        let bad_places = ["0-1", "+1-2", "01-2", "9223372036854775807-1", "99999999999999999999-1", "a-b"];
        for bad in bad.map(str::to_owned).into_iter().chain(bad_places.map(|place| format!("{place}-0a1b2c3d"))) {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_tells_its_store_by_the_names_that_it_had_then() {
        let ours = |name: &str| Some((7, name.to_owned()));
        let (young, named) = (Named { etcd: 5, ours: None }, Named { etcd: 5, ours: ours("A") });
        let place = |revision, number| Place { revision, number };
        for early in [place(6, 1), place(7, 0)] {
            assert_eq!(young.id(early), named.id(early));
        }
        for late in [place(7, 1), place(8, 0), place(900, 2)] {
            let others = [&young, &Named { etcd: 6, ours: ours("A") }, &Named { etcd: 5, ours: ours("B") }];
            assert!(others.iter().all(|other| other.id(late) != named.id(late)), "{late:?}");
        }
    }
}
