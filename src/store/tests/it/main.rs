//! The store's promises against a server: each test runs against real etcd, and against the embedded server.

mod election;
mod harness;
mod index;
mod writer;
