//! A Mesos in miniature: the v1 scheduler API of a master, agents that start one executor process an
//! instance, and the executor. Reached only through Mesos' own network protocols.
//!
//! ```text
//!   framework --HTTP /api/v1/scheduler--> master <--link--> agent <--HTTP /api/v1/executor--> executor process
//!                                            \<--link--> simulated agents (timers instead of processes)
//! ```

pub mod agent;
mod beneath;
mod encoding;
mod engine;
pub mod executor;
mod http;
pub mod link;
pub mod master;
pub mod simulated;

pub use engine::{Agents, Config, Engine, RealAgent, StartError};
pub use master::{Pace, Settings};
