//! Tests of the controllers from outside: scenarios and properties of the decisions in a small world without I/O,
//! and the runtime against a real store.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod batches;
mod gateway;
mod properties;
mod pushes;
mod quarantine;
mod replica;
mod runtime;
mod scenarios;
mod stalled;
mod world;
