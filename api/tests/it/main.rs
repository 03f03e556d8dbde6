//! The API over real sockets, on a real store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod access;
mod away;
mod cases;
mod connections;
mod definitions;
mod events;
mod fuzz;
mod given;
mod link;
mod openapi;
mod reads;
mod reference;
mod refusals;
mod world;
mod writes;
