//! What the end-to-end tests and the benchmark share: the binary under test, clusters in their two forms,
//! processes found by a marker in their environment, and waiting for a state with a bound.
//!
//! Everything runs on free ports of 127.0.0.1 and in folders of its own, and is ended by process id.

pub mod api;
pub mod binary;
pub mod cluster;
pub mod etcd;
pub mod mesos;
pub mod mesos_server;
pub mod process;
pub mod sandbox;
pub mod wait;
pub mod zookeeper;
