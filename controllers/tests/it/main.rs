//! Tests of the controllers from outside: scenarios and properties of the decisions in a small world without I/O,
//! and the runtime against a real store.

mod properties;
mod scenarios;
mod world;
