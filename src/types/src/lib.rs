//! What a pod is: identifiers ([`id`]), the definition with its defaults and rules ([`definition`]), and the
//! condition of what runs ([`condition`]), and where that has disks of its own ([`residence`]). Pure: no I/O, no clock, no randomness.

pub mod condition;
pub mod definition;
pub mod id;
pub mod reason;
pub mod residence;
