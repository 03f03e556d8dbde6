//! The engine over its network protocols.

mod agent;
mod client;
mod scheduler;
