//! The agent and its executors as real processes over real HTTP; the test plays the master.

mod groups;
mod rig;
