//! The task of one watch stream: requests in, responses out, never more of them in memory than one batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::watchers::{Wanted, Watchers};
use crate::core::{Core, Progress};
use crate::error::Refusal;
use crate::mvcc::Span;

/// etcd's interval between the progress notifications of a quiet watcher.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Wire numbers of `WatchCreateRequest.FilterType`.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

type Responses = mpsc::Sender<Result<PbWatchResponse, Status>>;

/// Serves a stream until the client has gone or the server closes.
pub(crate) async fn serve(core: Arc<Core>, requests: Streaming<PbWatchRequest>, responses: Responses) {
    let progress = core.progress.subscribe();
    let position = progress.borrow().published;
    let watchers = Watchers::new(core.identity, position);
    let next_report = Instant::now() + PROGRESS_INTERVAL;
    let mut stream = Stream { core, watchers, outbox: VecDeque::new(), progress, next_report };
    if let Err(status) = stream.run(requests, &responses).await {
        // A client that has gone hears nothing; one that has not is told why, as soon as it has taken the rest.
        let _ = responses.send(Err(status)).await;
    }
}

struct Stream {
    core: Arc<Core>,
    watchers: Watchers,
    /// What is ready to be sent; nothing is read from the log before it is empty.
    outbox: VecDeque<PbWatchResponse>,
    progress: watch::Receiver<Progress>,
    next_report: Instant,
}

impl Stream {
    async fn run(&mut self, mut requests: Streaming<PbWatchRequest>, responses: &Responses) -> Result<(), Status> {
        let mut listening = true;
        loop {
            if self.outbox.is_empty() {
                self.read_on();
            }
            tokio::select! {
                biased;
                () = self.core.closing.cancelled() => return Err(Refusal::Stopped.into()),
                () = responses.closed() => return Ok(()),
                permit = responses.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(response) = self.outbox.pop_front() {
                        permit.send(Ok(response));
                    }
                }
                request = requests.message(), if listening => match request? {
                    Some(request) => self.handle(request),
                    // A client that only stops asking may go on watching.
                    None => listening = false,
                },
                changed = self.progress.changed(), if self.outbox.is_empty() => {
                    changed.map_err(|_| Refusal::Stopped)?;
                }
                () = sleep_until(self.next_report), if self.watchers.want_progress() && self.outbox.is_empty() => {
                    self.next_report = Instant::now() + PROGRESS_INTERVAL;
                    self.outbox.extend(self.watchers.progress());
                }
            }
        }
    }

    fn read_on(&mut self) {
        self.progress.mark_unchanged();
        self.outbox.extend(self.watchers.advance(&self.core.keyspace.read()));
    }

    fn handle(&mut self, request: PbWatchRequest) {
        let current = self.core.published();
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(asked)) => {
                // etcd reads no key as the smallest one.
                let key: &[u8] = if asked.key.is_empty() { &[0] } else { &asked.key };
                let wanted = Wanted {
                    id: asked.watch_id,
                    span: Span::new(key, &asked.range_end),
                    start: asked.start_revision,
                    puts: !asked.filters.contains(&NO_PUT),
                    deletions: !asked.filters.contains(&NO_DELETE),
                    previous: asked.prev_kv,
                    fragment: asked.fragment,
                    progress: asked.progress_notify,
                };
                self.outbox.push_back(self.watchers.create(wanted, current));
            }
            Some(PbWatchRequestUnion::CancelRequest(asked)) => {
                self.outbox.extend(self.watchers.cancel(asked.watch_id, current));
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => self.watchers.ask_progress(),
            None => {}
        }
    }
}
