//! Where definitions are judged: off the workers that serve everybody, and a few at a time, so that what long or hostile ones
//! cost together is bounded.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::Semaphore;

use crate::answer::Problem;

/// Definitions that are judged at a time; the others wait.
const AT_ONCE: usize = 4;

/// The places of those that are being judged.
#[derive(Debug)]
pub(crate) struct Judging {
    places: Arc<Semaphore>,
}

impl Default for Judging {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Judging {
    /// Judges when there is room. The place is held until that is done, also for a client that has left.
    pub async fn run<T: Send + 'static>(&self, judge: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the definition could not be judged");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|closed| failed(closed.to_string()))?;
        let judging = tokio::task::spawn_blocking(move || {
            let judged = judge();
            drop(place);
            judged
        });
        judging.await.map_err(|panic| failed(panic.to_string()))
    }
}
