//! Whether the store answers: it is asked now and then by one small read, so that a probe hears at once that the store is frozen
//! or away, and load balancers can turn to a replica that reaches it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use podium_store::{Key, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Questions in the time after which silence counts.
const QUESTIONS: u32 = 4;

/// When the store answered last.
#[derive(Debug)]
pub(crate) struct Pulse {
    heard: Arc<Mutex<Instant>>,
    patience: Duration,
}

impl Pulse {
    /// Asks until `stop`; who is silent for longer than `patience` counts as away. Needs a tokio runtime.
    pub fn start(store: Store, patience: Duration, stop: CancellationToken) -> Self {
        let heard = Arc::new(Mutex::new(Instant::now()));
        let pulse = Self { heard: Arc::clone(&heard), patience };
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(patience / QUESTIONS)).await.is_some() {
                // A read that a majority of the members stands behind; the store has limits of its own for how long it waits.
                if store.get(&Key::Framework).await.is_ok() {
                    *heard.lock() = Instant::now();
                }
            }
        });
        pulse
    }

    /// For how long the store has been silent, if that is too long.
    pub fn silence(&self) -> Option<Duration> {
        Some(self.heard.lock().elapsed()).filter(|silence| *silence > self.patience)
    }
}
