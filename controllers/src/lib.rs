//! What keeps the cluster as the store says it should be: one folder a controller, and [`runtime`], which
//! they share. Each controller watches, decides and writes its own keys; it is elected, switched off and
//! crashes alone, and talks to the others only through the store. `CONTRIBUTING.md` draws who writes what.

pub mod admission;
pub mod gateway;
pub mod health;
pub mod runtime;
pub mod scaling;
mod start;
pub mod unreachable;
pub mod upgrade;

pub use start::{Config, Controllers, NAMES};
