//! The pace of relaunches: how long after an end the next launch may be. Marathon's rules (reference section 6.8), but for
//! one: an end raises the delay only if its instance was launched after the delay was last raised. What ends together says
//! one thing and not many: of a hundred instances that are lost at once each waits the first delay, and not an hour.
//! What is launched then and ends again raises it once more.

use podium_proto::records::Delay;
use podium_types::condition::Condition;
use podium_types::definition::Backoff;

/// No factor makes a delay shorter than this, if the first is not.
const SHORTEST_MS: i64 = 1_000;

/// Whether an end in this condition slows the pod down. `Finished` does: a pod is meant to run on.
pub fn slows_down(condition: Condition) -> bool {
    use Condition::{Dropped, Error, Failed, Finished, Gone};
    matches!(condition, Dropped | Error | Failed | Gone | Finished)
}

/// The pace of one config of a pod, as it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Milliseconds; `None`: nothing has failed for long enough.
    delay_ms: Option<i64>,
    /// When it was last raised.
    reference_ms: i64,
}

impl Pace {
    /// Reads the record of a config. It is forgotten `maxLaunchDelay` after the last failure or launch, whichever is later.
    pub fn read(record: Option<&Delay>, config_ms: i64, last_launch_ms: i64, backoff: &Backoff, now: i64) -> Self {
        let Some(record) = record.filter(|record| record.config_ms == config_ms && record.reference_ms > 0) else {
            return Self { delay_ms: None, reference_ms: 0 };
        };
        let forgotten_ms = record.reference_ms.max(last_launch_ms).saturating_add(millis(backoff.max_launch_delay));
        let delay_ms = (now <= forgotten_ms).then_some(record.delay_ms.max(0));
        Self { delay_ms, reference_ms: record.reference_ms }
    }

    /// An instance that was launched at `launched_ms` ended; it is `now`.
    pub fn slow_down(&mut self, backoff: &Backoff, launched_ms: i64, now: i64) {
        if self.delay_ms.is_some() && launched_ms <= self.reference_ms {
            return;
        }
        let longest = millis(backoff.max_launch_delay);
        let next = match self.delay_ms {
            None => millis(backoff.backoff),
            // By a factor below 1 it would come to nothing, and to launches without a pause.
            Some(delay) => ((delay as f64 * backoff.backoff_factor) as i64).max(millis(backoff.backoff).min(SHORTEST_MS)),
        };
        self.delay_ms = Some(next.clamp(0, longest));
        self.reference_ms = now;
    }

    /// When what ended just now may be launched again.
    pub fn after_an_end_ms(&self, now: i64) -> i64 {
        now.saturating_add(self.delay_ms.unwrap_or(0))
    }

    /// When any other launch may be; 0: at once.
    pub fn not_before_ms(&self, now: i64) -> i64 {
        match self.delay_ms {
            Some(delay) if self.reference_ms.saturating_add(delay) > now => self.reference_ms.saturating_add(delay),
            _ => 0,
        }
    }

    /// Writes it down.
    pub fn store(&self, record: &mut Delay, config_ms: i64) {
        record.config_ms = config_ms;
        record.delay_ms = self.delay_ms.unwrap_or(0);
        record.reference_ms = if self.delay_ms.is_some() { self.reference_ms } else { 0 };
    }
}

/// Seconds of a definition as milliseconds; saturating, as `as` does for floats.
fn millis(seconds: f64) -> i64 {
    (seconds.max(0.0) * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { backoff: 1.0, backoff_factor: 1.15, max_launch_delay: 3600.0 };

    /// So many generations of instances that ended, the last of them at 1000.
    fn ended(times: i64, backoff: &Backoff) -> Delay {
        let mut pace = Pace::read(None, 7, 0, backoff, 1_000);
        (1..=times).for_each(|time| pace.slow_down(backoff, 1_000 - times + time, 1_000 - times + time));
        let mut record = Delay::default();
        pace.store(&mut record, 7);
        record
    }

    #[test]
    fn each_generation_that_ends_multiplies_the_delay_up_to_the_longest() {
        assert_eq!(ended(1, &BACKOFF).delay_ms, 1_000);
        assert_eq!(ended(2, &BACKOFF).delay_ms, 1_150);
        assert_eq!(ended(3, &BACKOFF).delay_ms, 1_322);
        assert_eq!(ended(200, &BACKOFF).delay_ms, 3_600_000);
        assert_eq!(ended(1, &Backoff { backoff: 5.0, max_launch_delay: 2.0, ..BACKOFF }).delay_ms, 2_000);
        assert_eq!(ended(9, &Backoff { backoff: 0.0, ..BACKOFF }).delay_ms, 0);
        let ever_less = Backoff { backoff: 4.0, backoff_factor: 0.5, ..BACKOFF };
        assert_eq!([1, 2, 3, 9].map(|times| ended(times, &ever_less).delay_ms), [4_000, 2_000, 1_000, 1_000]);
        assert_eq!(ended(9, &Backoff { backoff: 0.5, backoff_factor: 0.0, ..BACKOFF }).delay_ms, 500);
    }

    #[test]
    fn ends_of_one_generation_raise_the_delay_once() {
        let mut pace = Pace::default();
        (0..100).for_each(|nth| pace.slow_down(&BACKOFF, 900, 1_000 + nth));
        assert_eq!((pace.delay_ms, pace.after_an_end_ms(1_099)), (Some(1_000), 2_099));
        pace.slow_down(&BACKOFF, 2_100, 2_500);
        pace.slow_down(&BACKOFF, 2_101, 2_500);
        assert_eq!((pace.delay_ms, pace.after_an_end_ms(2_500)), (Some(1_150), 3_650));
    }

    #[test]
    fn it_is_forgotten_after_a_quiet_time_and_by_another_config() {
        let record = ended(2, &BACKOFF);
        let read = |config, launched, now| Pace::read(Some(&record), config, launched, &BACKOFF, now).delay_ms;
        assert_eq!(read(7, 0, 3_601_000), Some(1_150));
        assert_eq!(read(7, 0, 3_601_001), None);
        assert_eq!(read(7, 5_000, 3_601_001), Some(1_150), "a launch since then keeps it alive");
        assert_eq!(read(8, 0, 1_000), None);
    }

    #[test]
    fn a_launch_waits_for_the_rest_of_the_delay_only() {
        let record = ended(1, &BACKOFF);
        let pace = Pace::read(Some(&record), 7, 0, &BACKOFF, 1_000);
        assert_eq!(pace.not_before_ms(1_500), 2_000);
        assert_eq!(pace.not_before_ms(2_000), 0);
    }

    #[test]
    fn only_ends_by_itself_slow_a_pod_down() {
        use Condition::*;
        assert!([Dropped, Error, Failed, Gone, Finished].into_iter().all(slows_down));
        assert!(![Killed, Unknown, Unreachable, UnreachableInactive, Running].into_iter().any(slows_down));
    }
}
