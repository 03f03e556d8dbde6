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
    heard: Arc<Mutex<Heard>>,
    patience: Duration,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    /// Why there was no answer since.
    trouble: Option<String>,
}

/// A silence that is too long.
#[derive(Debug)]
pub(crate) struct Silence {
    /// Since the last answer.
    pub lasts: Duration,
    /// In the store's words; it may name the store's addresses.
    pub reason: String,
}

impl Pulse {
    /// Asks until `stop`; who is silent for longer than `patience` counts as away. Needs a tokio runtime.
    pub fn start(store: Store, patience: Duration, stop: CancellationToken) -> Self {
        let heard = Arc::new(Mutex::new(Heard { at: Instant::now(), trouble: None }));
        let pulse = Self { heard: Arc::clone(&heard), patience };
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(patience / QUESTIONS)).await.is_some() {
                // A read that a majority of the members stands behind; the store has limits of its own for how long it waits.
                let trouble = store.get(&Key::Framework).await.err().map(|error| error.to_string());
                let mut heard = heard.lock();
                match (&heard.trouble, &trouble) {
                    (None, Some(reason)) => tracing::warn!(reason, "the store does not answer"),
                    (Some(_), None) => tracing::info!("the store answers again"),
                    _ => {}
                }
                if trouble.is_none() {
                    heard.at = Instant::now();
                }
                heard.trouble = trouble;
            }
        });
        pulse
    }

    /// The store's silence, if it lasts too long.
    pub fn silence(&self) -> Option<Silence> {
        let heard = self.heard.lock();
        let lasts = Some(heard.at.elapsed()).filter(|lasts| *lasts > self.patience)?;
        // Nothing came of the very question yet.
        let reason = heard.trouble.clone().unwrap_or_else(|| "nothing is heard of it".to_owned());
        Some(Silence { lasts, reason })
    }
}
