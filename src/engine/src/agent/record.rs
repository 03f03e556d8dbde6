//! What the agent keeps on disk, as protobuf. Field numbers are for ever: add, never reuse.

use podium_proto::mesos::v1::{ExecutorInfo, FrameworkInfo, Resource, TaskInfo, TaskStatus};

/// An executor and its one group, written before its process is started.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExecutorRecord {
    #[prost(message, required, tag = "1")]
    pub framework: FrameworkInfo,
    #[prost(message, required, tag = "2")]
    pub executor: ExecutorInfo,
    #[prost(message, repeated, tag = "3")]
    pub tasks: Vec<TaskInfo>,
    /// Names the run: the last part of the sandbox's path.
    #[prost(string, required, tag = "4")]
    pub container: String,
    /// Whether its processes' marker names the framework too. Executors of earlier builds, which may run on, carry one without.
    #[prost(bool, tag = "5")]
    pub framework_marked: bool,
}

/// The process of an executor. Without this record the group was never handed to anyone, so that a process
/// may safely be started; it is written before the group is handed over.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProcessRecord {
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
    /// From `/proc/<pid>/stat`: ids are used again, this pair is not until the next boot.
    #[prost(uint64, required, tag = "2")]
    pub start: u64,
    /// The kernel's id of this boot.
    #[prost(string, required, tag = "3")]
    pub boot: String,
    /// It is gone, and all that it had started.
    #[prost(bool, required, tag = "4")]
    pub ended: bool,
}

/// What is known of a task beside its queued updates.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TaskRecord {
    /// The last update that the framework acknowledged.
    #[prost(message, optional, tag = "1")]
    pub acknowledged: Option<TaskStatus>,
    /// The uuids acknowledged last: an executor may send them again after a crash of ours.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub uuids: Vec<bytes::Bytes>,
    /// Its terminal update was acknowledged: nothing follows.
    #[prost(bool, required, tag = "3")]
    pub closed: bool,
}

/// An update that the framework has not acknowledged.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UpdateRecord {
    #[prost(message, required, tag = "1")]
    pub status: TaskStatus,
}

/// What of the agent's resources is reserved, with its persistent volumes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CheckpointRecord {
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<Resource>,
}
