//! The store of `podium dev`: an embedded, single-node server that speaks etcd's v3 API, durable in one folder.
//!
//! Whoever talks to it knows no difference from etcd: `etcdctl`, the clients of all languages, and Podium itself, which
//! reaches it through the network only. Its behaviour, answers and error texts are compared with a real etcd's in tests.
//!
//! How a write travels:
//!
//! ```text
//! service  -> check -> writer's queue -> apply, in memory -> disk, one commit a group -> publish -> answer
//!                                                                                          |
//! service  -> keyspace, at the published revision  <---------------------------------------+-> watch streams
//! ```
//!
//! Reads never wait for the disk, and nobody is shown what a crash could take back.

mod apply;
mod check;
mod connection;
mod core;
mod disk;
mod error;
mod lease;
mod limits;
mod mvcc;
mod server;
mod service;
mod snapshot;
mod watch;
mod writer;

pub use disk::{Disk, Files};
pub use redb::StorageBackend;
pub use server::{Config, Retention, Server, StartError};
