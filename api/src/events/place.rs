//! Where an event stands in the store's history: its id.

use std::fmt;
use std::str::FromStr;

/// The `number`th event of a revision, from 1. As a place to go on after, 0 stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// etcd's revision.
    pub revision: i64,
    /// Of the events that this revision means.
    pub number: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.revision, self.number)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (revision, number) = text.split_once('-').ok_or(())?;
        let place = Self { revision: revision.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? };
        // One spelling each, and room for the next.
        (place.to_string() == text && (1..i64::MAX).contains(&place.revision)).then_some(place).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_comes_after_those_before_it() {
        let place: Place = "12-3".parse().unwrap();
        assert_eq!((place, place.to_string().as_str()), (Place { revision: 12, number: 3 }, "12-3"));
        assert!(place < Place { revision: 13, number: 0 } && place > Place { revision: 12, number: 0 });
        for bad in ["", "-", "12", "12-", "-3", "0-1", "+1-2", "01-2", "1-2-3", "9223372036854775807-1", "99999999999999999999-1", "a-b"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
