//! The agent and its executors as real processes over real HTTP; the test plays the master.

mod alone;
mod api;
mod artifacts;
mod groups;
mod health;
mod kills;
mod links;
mod recovery;
pub(crate) mod rig;
pub(crate) mod wait;
