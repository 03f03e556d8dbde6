//! A key that the gateway keeps as it should be: what was written, and the write that is under way. Pure.

/// Before a write that did not happen, or perhaps did, is made again.
const AGAIN_MS: i64 = 1_000;

/// One key. The gateway is its only writer, so that nothing but its own writes changes it.
#[derive(Debug)]
pub(super) struct Slate<T> {
    /// What stands there; `None` within: the key is absent. Without: nobody knows.
    written: Option<Option<T>>,
    in_flight: Option<Option<T>>,
    rest_until_ms: i64,
}

impl<T: Clone + PartialEq> Slate<T> {
    /// As it was found.
    pub fn found(value: Option<T>) -> Self {
        Self { written: Some(value), in_flight: None, rest_until_ms: 0 }
    }

    /// What to write for it to become `wanted`.
    pub fn due(&mut self, wanted: &Option<T>, now: i64) -> Option<Option<T>> {
        if self.in_flight.is_some() || self.rest_until_ms > now || self.written.as_ref() == Some(wanted) {
            return None;
        }
        self.in_flight = Some(wanted.clone());
        Some(wanted.clone())
    }

    /// The write was answered.
    pub fn answered(&mut self, done: bool, now: i64) {
        let value = self.in_flight.take();
        self.written = value.filter(|_| done);
        if !done {
            self.rest_until_ms = now.saturating_add(AGAIN_MS);
        }
    }

    /// When to look again, if it is not as wanted.
    pub fn next_look(&self, wanted: &Option<T>) -> Option<i64> {
        (self.in_flight.is_none() && self.written.as_ref() != Some(wanted)).then_some(self.rest_until_ms)
    }

    /// When it may be written: `None` while a write is unanswered, whose answer tells.
    pub fn free_ms(&self) -> Option<i64> {
        self.in_flight.is_none().then_some(self.rest_until_ms)
    }

    /// Whether a write is unanswered.
    pub fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The key is known to be absent.
    pub fn is_blank(&self) -> bool {
        self.in_flight.is_none() && self.written == Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_not_written_again_and_what_is_in_doubt_is() {
        let mut slate = Slate::found(None);
        assert_eq!(slate.due(&None, 0), None);
        assert_eq!(slate.due(&Some(1), 0), Some(Some(1)));
        assert_eq!(slate.due(&Some(2), 0), None, "one write at a time");
        slate.answered(true, 0);
        assert_eq!(slate.due(&Some(1), 0), None);
        assert_eq!(slate.due(&Some(2), 0), Some(Some(2)));
        slate.answered(false, 0);
        assert_eq!((slate.due(&Some(2), 999), slate.next_look(&Some(2))), (None, Some(1_000)));
        assert_eq!(slate.due(&None, 1_000), Some(None));
        slate.answered(true, 1_000);
        assert!(slate.is_blank());
    }
}
