//! The client commands, as scripts meet them: the real binary against a real server, by output and exit code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod offline;
mod online;
mod world;
