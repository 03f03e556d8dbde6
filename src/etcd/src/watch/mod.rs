//! Watch streams.
//!
//! Nothing is queued per watcher: a stream remembers up to which revision its client was told everything, and reads on in
//! the keyspace's log whenever the client has taken what it was sent. So a slow client costs no memory and holds nobody
//! up; when history that it still had to see is compacted, it is told so and its watchers end, as etcd does.
//!
//! `stream` is the effect, a task of its own for each gRPC stream; `watchers` decides what to send, without any I/O.

mod batch;
mod stream;
mod watchers;

pub(crate) use stream::serve;
