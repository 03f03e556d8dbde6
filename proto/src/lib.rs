//! The messages that Podium speaks and stores, generated at build time from `proto/proto/`:
//! Mesos v1 ([`mesos`]) and Podium's own etcd records ([`records`]); and [`wire`], the encodings
//! that prost does not have: RecordIO, Mesos' JSON dialect, resource arithmetic. No policy.

/// Mesos v1: tasks, offers, resources, the scheduler, executor and operator APIs.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod mesos {
    /// Package `mesos.v1`.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.rs"));
        /// Package `mesos.v1.scheduler`.
        pub mod scheduler {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.scheduler.rs"));
        }
        /// Package `mesos.v1.executor`.
        pub mod executor {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.executor.rs"));
        }
        /// Package `mesos.v1.master`.
        pub mod master {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.master.rs"));
        }
        /// Package `mesos.v1.agent`.
        pub mod agent {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.agent.rs"));
        }
        /// Package `mesos.v1.maintenance`.
        pub mod maintenance {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.maintenance.rs"));
        }
        /// Package `mesos.v1.quota`.
        pub mod quota {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.quota.rs"));
        }
        /// Package `mesos.v1.allocator`.
        pub mod allocator {
            include!(concat!(env!("OUT_DIR"), "/mesos.v1.allocator.rs"));
        }
    }
}

/// Podium's own records, as they stand in etcd (`podium/v1/records.proto`).
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod records {
    include!(concat!(env!("OUT_DIR"), "/podium.v1.rs"));
}

/// The descriptors of every message above, for reading and writing JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod wire;
