//! The orderly end: every instance is stopped, nothing is left, and the next start tells so.

use std::time::Duration;

use podium_proto::mesos::v1::{TaskState, task_status::Reason};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::owner::{Effect, Key, Life, Message, Owner, Timer, Verdict};

/// How long a disk that takes nothing is waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the next start reports of the tasks that were running: a kill is nobody's fault, so that they are
/// launched again at once.
pub(super) fn verdict() -> Verdict {
    Verdict::new(TaskState::TaskKilled, Reason::ExecutorTerminated, "stopped because the agent was stopped")
}

impl Owner {
    /// Tells every executor to end.
    pub fn stop(&mut self, reply: oneshot::Sender<()>) {
        self.stopping = Some(reply);
        self.timers.retain(|(_, timer)| matches!(timer, Timer::Destroy(_)));
        let keys: Vec<Key> = self.executors.keys().cloned().collect();
        for key in &keys {
            self.shut_down(key);
        }
        // One who never subscribed can't be told.
        let deaf: Vec<Key> = self
            .executors
            .iter()
            .filter(|(_, executor)| executor.life == Life::Alive && executor.outlet.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        for key in deaf {
            self.timers.insert((Instant::now(), Timer::Destroy(key)));
        }
    }

    /// Whether every executor has ended and been cleaned up after.
    pub fn all_gone(&self) -> bool {
        self.executors.values().all(|executor| executor.life == Life::Dead)
    }

    /// Makes sure that nothing carries our marker, and that all of it is on disk.
    pub async fn finish_stop(mut self) {
        self.survivors.end(self.agent_id.value.clone()).await;
        let (written, durable) = oneshot::channel();
        self.batch.then.push(Effect::Reply(written));
        self.flush_last(durable).await;
        self.journal.close().await;
        if let Some(reply) = self.stopping.take() {
            let _ = reply.send(());
        }
    }

    async fn flush_last(&mut self, mut durable: oneshot::Receiver<()>) {
        self.journal.write(std::mem::take(&mut self.batch)).await;
        let patience = Instant::now() + LAST_WORDS;
        loop {
            tokio::select! {
                _ = &mut durable => return,
                done = self.durable.recv() => match done {
                    Some(effects) => for effect in effects {
                        if let Effect::Reply(reply) = effect {
                            let _ = reply.send(());
                        }
                    },
                    None => return,
                },
                () = sleep_until(patience) => {
                    tracing::error!("the agent's last words are not on disk: its next start finds its instances ended without them");
                    return;
                }
                // Nobody is waited for any more; what they say is answered by a closed connection.
                Some(message) = self.messages.recv() => drop::<Message>(message),
            }
        }
    }
}
