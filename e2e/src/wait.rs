//! Waiting for a state that nobody announces, such as a process in /proc: looked at in short steps, with a bound.

use std::time::{Duration, Instant};

/// Far beyond what anything here takes on an idle machine, so that a busy one does not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(20);

/// Looks until `probe` answers `Ok`, and returns that. `probe` says in its error what it saw instead.
///
/// # Panics
/// When [`PATIENCE`] has passed, with the last thing seen.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match probe() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > end => panic!("{what}: not within {PATIENCE:?}; last seen: {seen}"),
            Err(_) => std::thread::park_timeout(STEP),
        }
    }
}
