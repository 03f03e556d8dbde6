//! Back-off between attempts: exponential, with jitter, never above its cap, never giving up by itself.
//!
//! The only user of the crate `backoff`, which does three things that nobody here wants: it adds jitter above
//! the cap, it ends for ever after fifteen minutes, and its randomness cannot be seeded. So its jitter is
//! switched off and ours, which subtracts, takes its place.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// The delays before the second, third, … attempt at something.
#[derive(Debug, Clone)]
pub struct Backoff {
    inner: ExponentialBackoff,
    /// Which share of a delay is left to chance, in 0 to 1.
    jitter: f64,
    random: u64,
}

impl Backoff {
    /// Delays of `first`, `first * factor`, … up to `cap`, each shortened at random by up to a third.
    /// A factor below 1 counts as 1, a cap below `first` as `first`.
    pub fn new(first: Duration, factor: f64, cap: Duration) -> Self {
        let factor = if factor.is_finite() { factor.max(1.0) } else { 2.0 };
        let inner = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            randomization_factor: 0.0,
            multiplier: factor,
            max_interval: cap.max(first),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { inner, jitter: 1.0 / 3.0, random: seed() }
    }

    /// For a connection inside the data centre: 50 ms doubling up to 5 s.
    pub fn reconnect() -> Self {
        Self::new(Duration::from_millis(50), 2.0, Duration::from_secs(5))
    }

    /// For a write that met another's: 10 ms doubling up to 1 s.
    pub fn conflict() -> Self {
        Self::new(Duration::from_millis(10), 2.0, Duration::from_secs(1))
    }

    /// The same delays, exactly and every time: for tests, and where one attempter alone waits.
    #[must_use]
    pub fn without_jitter(mut self) -> Self {
        self.jitter = 0.0;
        self
    }

    /// The same jitter in every run of this seed.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = seed;
        self
    }

    /// How long to wait before the next attempt; at most the cap.
    pub fn next_delay(&mut self) -> Duration {
        let cap = self.inner.max_interval;
        let delay = self.inner.next_backoff().unwrap_or(cap).min(cap);
        delay.mul_f64(1.0 - self.jitter * self.chance())
    }

    /// The last attempt succeeded: begin again with the first delay.
    pub fn reset(&mut self) {
        self.inner.reset();
    }

    /// A number in 0 to 1 (SplitMix64; jitter needs nothing better).
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Differs between processes and between calls: std seeds its hash maps so.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(backoff: &mut Backoff, n: usize) -> Vec<u128> {
        (0..n).map(|_| backoff.next_delay().as_millis()).collect()
    }

    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(1)).without_jitter();
        assert_eq!(delays(&mut backoff, 6), [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(delays(&mut backoff, 2), [100, 200]);
    }

    #[test]
    fn jitter_shortens_by_at_most_a_third_and_never_passes_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(900), 1.0, Duration::from_millis(900)).seeded(7);
        let all = delays(&mut backoff, 1000);
        assert!(all.iter().all(|delay| (599..=900).contains(delay)));
        assert!(all.iter().min() < Some(&650) && all.iter().max() > Some(&850), "the delays are spread");
    }

    #[test]
    fn the_same_seed_gives_the_same_delays_and_another_does_not() {
        let run = |seed| delays(&mut Backoff::reconnect().seeded(seed), 20);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn it_never_gives_up() {
        let mut backoff = Backoff::new(Duration::ZERO, f64::NAN, Duration::ZERO);
        assert_eq!(delays(&mut backoff, 10_000).iter().sum::<u128>(), 0);
    }
}
