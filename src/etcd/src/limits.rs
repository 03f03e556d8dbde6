//! The bounds of the server, in one place: those that etcd documents and clients count on, and our own.

/// The most bytes of one write request, as etcd's `--max-request-bytes` has by default.
pub(crate) const REQUEST_BYTES: usize = 3 * 512 * 1024;
/// What etcd lets a gRPC message be larger than a request.
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// The most bytes of one received message, and of one watch message for a watcher that asked for fragments.
pub(crate) const MESSAGE_BYTES: usize = REQUEST_BYTES + GRPC_OVERHEAD_BYTES;
/// What etcd's raft envelope adds to a write request before it is measured against [`REQUEST_BYTES`].
pub(crate) const ENVELOPE_BYTES: usize = 18;
/// The most operations of one transaction, nested ones included as `txn::check` tells (etcd's `--max-txn-ops`).
pub(crate) const TXN_OPERATIONS: usize = 128;

/// Seconds: the shortest lease. etcd derives it from its default election timeout (1.5 of 1 s, rounded up).
pub(crate) const LEASE_TTL_MIN: i64 = 2;
/// Seconds: the longest lease, etcd's `MaxLeaseTTL`.
pub(crate) const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Write requests that wait for the writer; further callers wait in their own connection.
pub(crate) const QUEUED_REQUESTS: usize = 1024;
/// Bytes of write requests that wait or are being committed.
pub(crate) const QUEUED_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of events gathered for one watch stream at a time. Only whole revisions are gathered, so one revision that is
/// larger still travels, alone.
pub(crate) const WATCH_BATCH_BYTES: usize = 1024 * 1024;
/// Bytes of a snapshot that travel in one message, at least, as from etcd.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 32 * 1024;
/// Messages of a snapshot handed to a connection and not yet written by it.
pub(crate) const SNAPSHOT_QUEUE: usize = 4;
/// Snapshots sent at a time: each holds a thread, and all that was durable when it began.
pub(crate) const SNAPSHOTS: usize = 2;
/// A snapshot that is not read to its end by then is broken off.
pub(crate) const SNAPSHOT_TIME: std::time::Duration = std::time::Duration::from_secs(30 * 60);
/// A reader of a snapshot that takes nothing for so long is dropped: what it holds can't be reused meanwhile.
pub(crate) const SNAPSHOT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// Watch messages handed to a connection and not yet written by it.
pub(crate) const WATCH_QUEUE: usize = 4;
