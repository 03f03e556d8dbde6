//! Mesos as a framework sees it: the scheduler client ([`client`]), the operator API ([`operator`]), the files of
//! sandboxes ([`files`]), and pure functions of plain data: the building of task groups ([`task_group`]), what is reserved
//! for instances with persistent volumes ([`reservation`]), and the matching of offers ([`matching`]).
//!
//! What to launch, where and when is the gateway's business; this crate decides nothing that outlives a call.

#![forbid(unsafe_code)]

pub mod client;
pub mod files;
pub mod matching;
pub mod operator;
pub mod reservation;
pub mod secret;
pub mod task_group;
