//! Wall time that never jumps: read once, then counted on the monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::Now;

/// The clock of one process. Under tokio's paused time it stands still, and goes as the test says.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_ms: i64,
}

impl Clock {
    /// Reads the wall clock, for the only time.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// A clock that shows so many milliseconds since the epoch now.
    pub fn at(started_ms: i64) -> Self {
        Self { started: Instant::now(), started_ms }
    }

    /// Milliseconds since the epoch.
    pub fn now(&self) -> Now {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now(self.started_ms.saturating_add(elapsed))
    }

    /// How long until it shows `at` milliseconds; nothing if it has.
    pub fn until(&self, at: i64) -> Duration {
        let whole = at.saturating_sub(self.started_ms);
        let target = Duration::from_millis(u64::try_from(whole).unwrap_or(0));
        target.saturating_sub(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_has_come_to_a_time_exactly_when_it_was_waited_for() {
        let clock = Clock::at(5_000);
        tokio::time::advance(clock.until(6_500)).await;
        assert_eq!(clock.now(), Now(6_500));
        assert_eq!(clock.until(6_500), Duration::ZERO);
        assert_eq!(clock.until(i64::MIN), Duration::ZERO);
    }
}
