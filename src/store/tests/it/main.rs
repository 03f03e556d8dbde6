//! The store's promises against a server: each test runs against real etcd, and against the embedded server.
#![allow(clippy::unwrap_used, reason = "what a test can't go on without is its failure")]

mod election;
mod harness;
mod index;
mod secure;
mod turns;
mod writer;
