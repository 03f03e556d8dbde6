//! The engine over its network protocols.

mod client;
mod scheduler;
