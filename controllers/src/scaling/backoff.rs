//! The pace of relaunches: how long after an end the next launch may be. Marathon's rules (reference section 6.8).

use podium_proto::records::Delay;
use podium_types::condition::Condition;
use podium_types::definition::Backoff;

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
    /// The delay counts from here.
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

    /// One more instance ended at `now`.
    pub fn slow_down(&mut self, backoff: &Backoff, now: i64) {
        let longest = millis(backoff.max_launch_delay);
        let next = match self.delay_ms {
            None => millis(backoff.backoff),
            Some(delay) => (delay as f64 * backoff.backoff_factor.max(1.0)) as i64,
        };
        self.delay_ms = Some(next.clamp(0, longest));
        self.reference_ms = now;
    }

    /// When the next launch may be; 0: at once.
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

    fn ended(times: usize, backoff: &Backoff) -> Delay {
        let mut pace = Pace::read(None, 7, 0, backoff, 1_000);
        (0..times).for_each(|_| pace.slow_down(backoff, 1_000));
        let mut record = Delay::default();
        pace.store(&mut record, 7);
        record
    }

    #[test]
    fn each_end_multiplies_the_delay_up_to_the_longest() {
        assert_eq!(ended(1, &BACKOFF).delay_ms, 1_000);
        assert_eq!(ended(2, &BACKOFF).delay_ms, 1_150);
        assert_eq!(ended(3, &BACKOFF).delay_ms, 1_322);
        assert_eq!(ended(200, &BACKOFF).delay_ms, 3_600_000);
        assert_eq!(ended(1, &Backoff { backoff: 5.0, max_launch_delay: 2.0, ..BACKOFF }).delay_ms, 2_000);
        assert_eq!(ended(9, &Backoff { backoff: 0.0, ..BACKOFF }).delay_ms, 0);
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
