//! Podium on a real Apache Mesos: master, agents, etcd and server are real, the executor is `podium executor`. What
//! the embedded engine can do as well, it is asked to do in the same way.

mod disks;
mod failover;
mod features;
mod ground;
mod logs;
mod masters;
mod residents;
mod roles;
mod upkeep;
