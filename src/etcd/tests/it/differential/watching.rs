//! Watch streams of both servers, compared watcher by watcher.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::EventType;
use etcd_client::proto::{PbEvent, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::case::Watching;
use super::pair::absolute;
use crate::wire::Wire;

/// How long a server may take for anything: only a difference costs that much.
const PATIENCE: Duration = Duration::from_secs(15);

/// One stream with all watchers of a list.
pub struct Watch {
    requests: mpsc::Sender<PbWatchRequest>,
    responses: Streaming<PbWatchResponse>,
    told: BTreeMap<i64, Vec<String>>,
    compacted: i64,
}

impl Watch {
    /// Opens the watchers, and waits until each is confirmed or refused; `compacted` is the revision of the last compaction.
    pub async fn open(wire: &mut Wire, watchings: &[Watching], base: i64, compacted: i64) -> Self {
        let (requests, responses) = wire.watch(progress()).await;
        let mut watch = Watch { requests, responses, told: BTreeMap::new(), compacted };
        for (number, watching) in watchings.iter().enumerate() {
            watch.send(create(watching, base)).await;
            let confirmed = |watch: &Self| watch.told.values().flatten().filter(|told| told.starts_with("created")).count() > number;
            let deadline = Instant::now() + PATIENCE;
            while !confirmed(&watch) {
                assert!(watch.receive(deadline).await, "a watcher was not confirmed: {:?}", watch.told);
            }
        }
        watch
    }

    async fn send(&mut self, request: PbWatchRequest) {
        self.requests.send(request).await.expect("the stream is open");
    }

    /// Takes one response; false when none came in time.
    async fn receive(&mut self, deadline: Instant) -> bool {
        let Ok(response) = timeout_at(deadline, self.responses.message()).await else { return false };
        let response = response.expect("the stream goes on").expect("the stream does not end");
        let told = self.told.entry(response.watch_id).or_default();
        if response.created {
            told.push(format!("created, refused: {} {:?}", response.canceled, response.cancel_reason));
        } else if response.canceled {
            told.push(format!("canceled {}", response.compact_revision));
        } else if response.watch_id < 0 {
            told.push("progress".to_owned());
        }
        told.extend(response.events.iter().filter(|event| !is_deletion_at(event, self.compacted)).map(|event| format!("{event:?}")));
        true
    }

    /// Takes all that there is: the answer to a progress request comes after everything before it.
    async fn settle(&mut self) {
        let before = self.progresses();
        self.send(progress()).await;
        let deadline = Instant::now() + PATIENCE;
        while self.progresses() == before {
            assert!(self.receive(deadline).await, "no answer to a progress request");
        }
    }

    fn progresses(&self) -> usize {
        self.told.values().flatten().filter(|told| *told == "progress").count()
    }

    /// What each watcher was told, without the progress responses.
    fn told(&self) -> BTreeMap<i64, Vec<&String>> {
        let mut all = BTreeMap::new();
        for (id, told) in &self.told {
            let told: Vec<_> = told.iter().filter(|told| *told != "progress").collect();
            if !told.is_empty() {
                all.insert(*id, told);
            }
        }
        all
    }

    fn count(&self) -> usize {
        self.told().values().map(Vec::len).sum()
    }
}

/// Whether both streams told the same; ours says when it has told everything, and theirs gets the time to follow.
pub async fn differences(what: &str, ours: &mut Watch, theirs: &mut Watch) -> Result<(), String> {
    ours.settle().await;
    let deadline = Instant::now() + PATIENCE;
    while theirs.count() < ours.count() && theirs.receive(deadline).await {}
    theirs.settle().await;
    if ours.told() != theirs.told() {
        return Err(format!("{what}\n ours:   {:#?}\n theirs: {:#?}", ours.told(), theirs.told()));
    }
    Ok(())
}

/// Deletions of the very revision that was compacted are not compared: older releases of etcd forget them too early (its
/// issue 18089), newer ones and this server keep them, as the tests of `compact.rs` hold.
fn is_deletion_at(event: &PbEvent, revision: i64) -> bool {
    event.r#type == EventType::Delete as i32 && event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision)
}

fn progress() -> PbWatchRequest {
    PbWatchRequest { request_union: Some(PbWatchRequestUnion::ProgressRequest(Default::default())) }
}

fn create(watching: &Watching, base: i64) -> PbWatchRequest {
    let mut request = PbWatchRequestUnion::CreateRequest(Default::default());
    if let PbWatchRequestUnion::CreateRequest(create) = &mut request {
        create.key = watching.span.key.into();
        create.range_end = watching.span.end.into();
        create.start_revision = watching.start.map_or(0, |start| absolute(start, base));
        create.prev_kv = watching.previous;
        create.filters = watching.filters.clone();
        create.fragment = watching.fragment;
    }
    PbWatchRequest { request_union: Some(request) }
}
