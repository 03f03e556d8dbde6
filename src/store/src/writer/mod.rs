//! Fenced writes in batches.

pub(crate) mod batch;
mod group;

pub use group::{Compare, Group, Op, Outcome};
