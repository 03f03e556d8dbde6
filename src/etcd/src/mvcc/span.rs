//! A set of neighbouring keys, as requests write it with `key` and `range_end`.

use std::ops::Bound;

use bytes::Bytes;

/// One key, all keys from one on, or the keys of a half-open interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    start: Bytes,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Single,
    Unbounded,
    Before(Bytes),
}

/// The first and the last key of a range of an ordered map.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Span {
    /// Reads etcd's convention: no `range_end` is the key alone, a single zero byte is everything from the key on.
    pub(crate) fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Unbounded,
            end => End::Before(Bytes::copy_from_slice(end)),
        };
        Span { start: Bytes::copy_from_slice(key), end }
    }

    /// The key, when this is one key alone.
    pub(crate) fn single(&self) -> Option<&Bytes> {
        (self.end == End::Single).then_some(&self.start)
    }

    /// Whether no key can be in it: an interval that ends before it starts.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => self.start == key,
            End::Unbounded => key >= &self.start[..],
            End::Before(end) => key >= &self.start[..] && key < &end[..],
        }
    }

    /// The bounds for `BTreeMap::range`, or none where that would panic because nothing lies between them.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = Bound::Included(&self.start[..]);
        match &self.end {
            End::Single => Some((start, start)),
            End::Unbounded => Some((start, Bound::Unbounded)),
            End::Before(end) => (!self.is_empty()).then(|| (start, Bound::Excluded(&end[..]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_its_start_and_not_its_end() {
        let span = Span::new(b"b", b"d");
        assert!(!span.contains(b"a") && span.contains(b"b") && span.contains(b"c\xff") && !span.contains(b"d"));
        assert!(Span::new(b"b", b"").contains(b"b") && !Span::new(b"b", b"").contains(b"b\0"));
        assert!(Span::new(b"b", b"\0").contains(b"\xff") && !Span::new(b"b", b"\0").contains(b"a"));
    }

    #[test]
    fn an_inverted_span_holds_nothing_and_offers_no_bounds() {
        for (key, end) in [(&b"b"[..], &b"a"[..]), (b"b", b"b")] {
            let span = Span::new(key, end);
            assert!(span.is_empty() && span.bounds().is_none() && !span.contains(key));
        }
    }
}
