//! What a pod is: identifiers ([`id`]), the definition ([`definition`]), its defaults and rules, and the
//! status computed from what was observed. Pure: no I/O, no clock, no randomness.

pub mod condition;
pub mod definition;
pub mod id;
