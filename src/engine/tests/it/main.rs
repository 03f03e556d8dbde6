//! The engine over its network protocols.
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
mod client;
mod scheduler;
mod volumes;
