//! A backup as `etcdctl snapshot save` takes it: etcd's own file, which `etcdctl snapshot restore` makes a real etcd of.
//!
//! It is made of what is durable at one moment, while writes go on, and without a second copy on disk or in memory: the
//! file's plan takes some bytes a page. Whoever stops reading is dropped, so that nobody holds the past for ever; few are served at a time.

mod bolt;

use etcd_client::proto::PbSnapshotResponse;
use prost::Message as _;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::disk::Image;
use crate::error::Refusal;
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_PATIENCE, SNAPSHOT_QUEUE, SNAPSHOT_TIME};
use bolt::{FIRST_PAGE, Item, PAGE, Plan, Planner};

/// etcd's buckets that are empty here, as no user, role or alarm can be made.
const EMPTY: [&str; 7] = ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];

/// How etcd keeps a lease.
#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    /// Seconds, as granted.
    #[prost(int64, tag = "2")]
    ttl: i64,
}

type Message = Result<PbSnapshotResponse, Status>;

/// The way to a reader.
pub(crate) struct Outlet {
    chunks: mpsc::Sender<Message>,
    /// A place that is kept for the word that the file does not come whole: who has stalled has left no other.
    last: mpsc::OwnedPermit<Message>,
}

impl Outlet {
    /// One on which some messages may wait, and what comes out.
    pub fn open() -> Result<(Self, mpsc::Receiver<Message>), Status> {
        let (chunks, out) = mpsc::channel(SNAPSHOT_QUEUE + 1);
        let last = chunks.clone().try_reserve_owned().map_err(|_| Status::internal("a new channel has room"))?;
        Ok((Self { chunks, last }, out))
    }

    /// Ends what the reader gets.
    pub fn break_off(self, status: Status) {
        tracing::warn!(%status, "a snapshot was not taken to its end");
        self.last.send(Err(status));
    }
}

/// Sends the file and its SHA-256, chunk by chunk. Blocks: for a thread of its own.
pub(crate) fn send(image: &Image, outlet: Outlet, closing: &CancellationToken) {
    let chunks = &outlet.chunks;
    let mut sender =
        Sender { chunks, closing, end: Instant::now() + SNAPSHOT_TIME, chunk: Vec::new(), remaining: 0, hash: Context::new(&SHA256) };
    if let Err(status) = sender.send(image) {
        outlet.break_off(status);
    }
}

struct Sender<'a> {
    chunks: &'a mpsc::Sender<Message>,
    closing: &'a CancellationToken,
    end: Instant,
    chunk: Vec<u8>,
    /// Bytes of the file and its hash that were not sent yet.
    remaining: u64,
    hash: Context,
}

impl Sender<'_> {
    fn send(&mut self, image: &Image) -> Result<(), Status> {
        let keys = self.plan(FIRST_PAGE, image.versions().map(|version| version.map(|(key, value)| (key, value.len()))))?;
        let leases = leases(image)?;
        let lease_plan = self.plan(keys.end, leases.iter().map(|(key, value)| Ok((key.clone(), value.len()))))?;
        let root = lease_plan.end;
        self.remaining = (root + 1) * PAGE as u64 + SHA256_OUTPUT_LEN as u64;
        self.lay(&bolt::first_pages(root + 1))?;
        keys.write(&mut image.versions(), &mut |page| self.lay(page))?;
        lease_plan.write(&mut leases.into_iter().map(Ok), &mut |page| self.lay(page))?;
        self.lay(&bolt::root_page(root, &buckets(image, &keys, &lease_plan)))?;
        let hash = self.hash.clone().finish();
        self.chunk.extend(hash.as_ref());
        self.flush()
    }

    fn plan(&self, first: u64, items: impl Iterator<Item = Result<(Vec<u8>, usize), Status>>) -> Result<Plan, Status> {
        let mut planner = Planner::new(first);
        for item in items {
            if self.closing.is_cancelled() {
                return Err(stopped());
            }
            if self.chunks.is_closed() {
                return Err(gone());
            }
            let (key, value) = item?;
            planner.item(&key, value);
        }
        Ok(planner.finish())
    }

    fn lay(&mut self, page: &[u8]) -> Result<(), Status> {
        self.hash.update(page);
        self.chunk.extend_from_slice(page);
        if self.chunk.len() < SNAPSHOT_CHUNK_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Status> {
        let blob = std::mem::take(&mut self.chunk);
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        let answer = PbSnapshotResponse { remaining_bytes: self.remaining, blob, ..PbSnapshotResponse::default() };
        Handle::current().block_on(async {
            tokio::select! {
                sent = timeout(SNAPSHOT_PATIENCE, self.chunks.send(Ok(answer))) => match sent {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(gone()),
                    Err(_) => Err(Status::deadline_exceeded("the reader of the snapshot has stalled")),
                },
                () = sleep_until(self.end) => Err(Status::deadline_exceeded("the snapshot was not read in time")),
                () = self.closing.cancelled() => Err(stopped()),
            }
        })
    }
}

fn gone() -> Status {
    Status::cancelled("the reader has gone")
}

fn stopped() -> Status {
    Refusal::Stopped.into()
}

/// In the order of their ids as etcd writes them, without a sign.
fn leases(image: &Image) -> Result<Vec<Item>, Status> {
    let mut leases: Vec<Item> = image
        .leases()
        .map(|lease| lease.map(|(id, ttl)| (id.to_be_bytes().to_vec(), Lease { id, ttl }.encode_to_vec())))
        .collect::<Result<_, _>>()?;
    leases.sort_unstable();
    Ok(leases)
}

/// All buckets, by name.
fn buckets(image: &Image, keys: &Plan, leases: &Plan) -> Vec<Item> {
    let mut meta = vec![(b"consistent_index".to_vec(), image.index.to_be_bytes().to_vec())];
    if image.compacted > 0 {
        let revision = crate::mvcc::Version::place_bytes(image.compacted, 0);
        meta.extend([b"finishedCompactRev", &b"scheduledCompactRev"[..]].map(|name| (name.to_vec(), revision.clone())));
    }
    let mut buckets: Vec<Item> = EMPTY.map(|name| (name.as_bytes().to_vec(), bolt::inline(&[]))).into();
    buckets.push((b"key".to_vec(), keys.reference()));
    buckets.push((b"lease".to_vec(), leases.reference()));
    buckets.push((b"meta".to_vec(), bolt::inline(&meta)));
    buckets.sort_unstable();
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Files, Folder, Journal, Switch};

    #[tokio::test]
    async fn a_reader_that_left_no_room_is_told_that_the_file_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(Folder::claim(folder.path()).unwrap(), &Files, Switch::default(), (5, 6)).unwrap();
        let (image, closing) = (journal.image().unwrap(), CancellationToken::new());
        let (outlet, mut out) = Outlet::open().unwrap();
        while outlet.chunks.try_send(Ok(PbSnapshotResponse::default())).is_ok() {}
        closing.cancel();
        tokio::task::spawn_blocking(move || send(&image, outlet, &closing)).await.unwrap();
        let mut told = Vec::new();
        while let Some(message) = out.recv().await {
            told.push(message.is_ok());
        }
        assert_eq!(told, [[true; SNAPSHOT_QUEUE].as_slice(), &[false]].concat());
    }
}
