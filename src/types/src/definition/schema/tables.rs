//! Every member of a definition: its type, bounds, default and meaning (the documents' tables; where they are silent,
//! reference sections 1.3 to 1.9). The order is that of answers.

use super::shape::{Absent, Answered, Key, Kind, LABELS, Of, Shape, Text, at_least, list, member};
use crate::definition::words::Word;
use crate::definition::{HttpScheme, ImageKind, IpcMode, KillSelection, NetworkMode, Operator, PersistentKind};

/// The largest integer that Marathon reads into its 32 bits.
pub(super) const INT: i64 = i32::MAX as i64;

/// The longest time that is read, in seconds: in milliseconds, and added to any date, it still fits 64 bits.
pub(super) const MAX_SECONDS: i64 = i64::MAX / 2000;

const NAME: Of = Of::Text(Text::Name);
const FREE: Of = Of::Text(Text::Free);
const PATH: Of = Of::Text(Text::Path);
const NON_EMPTY: Of = Of::Text(Text::NonEmpty);
/// Instances of one pod: what is more is a slip of the finger, and would be millions of records before it is taken back.
const MOST_INSTANCES: i64 = 100_000;
const COUNT: Of = Of::Integer { min: 0, max: INT };
const SECONDS: Of = Of::Integer { min: 0, max: MAX_SECONDS };
const SHARE: Of = Of::Number { min: 0.0, max: 1.0 };
const ENVIRONMENT: Of = Of::Map { key: Key::Variable, of: &Of::Either(&[FREE, Of::Object(&SECRET_REFERENCE)]) };
const TRUE: Absent = Absent::Flag(true);
const FALSE: Absent = Absent::Flag(false);

/// A pod: containers that are launched together on one agent.
pub static POD: Shape = Shape {
    name: "Pod",
    about: "Containers that are launched together on one agent.",
    kind: Kind::Bounded,
    members: &[
        member("id", Of::Text(Text::PodId), "Unique: `/web/frontend`. A PUT may leave it out.").required(),
        member("version", Of::Text(Text::Time), "When this definition was accepted; what is sent is read over."),
        member(
            "role",
            NON_EMPTY,
            "The Mesos role to launch with; by default the server's, `*`. In a group its first segment is allowed too.",
        ),
        member("user", FREE, "The account that containers run as, unless they name their own; not empty."),
        member("labels", LABELS, "Metadata of the pod."),
        member("environment", ENVIRONMENT, "Variables that every container inherits: a string, or `{\"secret\": name}`."),
        member("containers", Of::List { of: &Of::Object(&CONTAINER), min: 1 }, "The containers; their names are unique.").required(),
        member(
            "secrets",
            Of::Map { key: Key::Free, of: &Of::Object(&SECRET) },
            "Secrets that environment, volumes and images refer to by name.",
        ),
        member("volumes", list(&Of::Object(&VOLUME)), "Volumes that containers mount by name; each must be mounted."),
        member("networks", list(&Of::Object(&NETWORK)), "The networks that the pod joins; none is the host's."),
        member("scaling", Of::Object(&SCALING), "How many instances.").or(Absent::Filled),
        member("scheduling", Of::Object(&SCHEDULING), "When, where and how fast instances are launched.").or(Absent::Filled),
        member("executorResources", Of::Object(&EXECUTOR_RESOURCES), "What the executor itself takes.").or(Absent::Filled),
        member("linuxInfo", Of::Object(&LINUX_INFO), "Linux settings; for a pod `ipcInfo` only."),
        member(
            "legacySharedCgroups",
            Of::Flag,
            "Containers share the executor's cgroups; excludes `resourceLimits`. `false` means absent.",
        ),
    ],
};

/// One container of a pod.
pub(super) static CONTAINER: Shape = Shape {
    name: "Container",
    about: "One container of a pod.",
    kind: Kind::Bounded,
    members: &[
        member("name", NAME, "Unique in the pod.").required(),
        member("exec", Of::Object(&EXEC), "What to execute; without it the image's own entry point."),
        member("resources", Of::Object(&RESOURCES), "What it takes of the agent; `{}` takes the defaults.").required(),
        member("resourceLimits", Of::Object(&RESOURCE_LIMITS), "What it may use beyond its resources, at most."),
        member("endpoints", list(&Of::Object(&ENDPOINT)), "The ports that it listens on."),
        member("image", Of::Object(&IMAGE), "Its image; without one the agent's own file system."),
        member("environment", ENVIRONMENT, "Overrides the pod's."),
        member("user", FREE, "Overrides the pod's."),
        member("healthCheck", Of::Object(&HEALTH_CHECK), "How Mesos finds out whether it is healthy."),
        member("volumeMounts", list(&Of::Object(&VOLUME_MOUNT)), "Where the pod's volumes appear."),
        member("artifacts", list(&Of::Object(&ARTIFACT)), "Files that are fetched into the sandbox before the start."),
        member("labels", LABELS, "Metadata of the container."),
        member("lifecycle", Of::Object(&LIFECYCLE), "How it ends."),
        member("linuxInfo", Of::Object(&LINUX_INFO), "Linux settings."),
        member("tty", Of::Flag, "Whether it gets a terminal."),
        member("check", Of::Either(&[]), "Mesos' general check is not performed: read over, with a warning.").answered(Answered::Never),
    ],
};

pub(super) static EXEC: Shape = Shape {
    name: "Exec",
    about: "What to execute.",
    kind: Kind::Plain,
    members: &[
        member("command", Of::Object(&COMMAND), "The command.").required(),
        member("overrideEntrypoint", Of::Flag, "With `argv`: its first word replaces the image's entry point.")
            .answered(Answered::WhenGiven),
    ],
};

pub(super) static COMMAND: Shape = Shape {
    name: "Command",
    about: "A command in one of its two forms; `shell` wins over `argv`.",
    kind: Kind::Bounded,
    members: &[
        member("shell", FREE, "Given to `/bin/sh -c`; `\"\"` is the image's own entry point (not in a health check).")
            .answered(Answered::WhenGiven),
        member("argv", Of::List { of: &FREE, min: 1 }, "The argument list, program first.").answered(Answered::WhenGiven),
    ],
};

pub(super) static RESOURCES: Shape = Shape {
    name: "Resources",
    about: "What a container takes of the agent.",
    kind: Kind::Bounded,
    members: &[
        member("cpus", at_least(0.001), "CPU shares.").or(Absent::Number(1.0)),
        member("mem", at_least(0.001), "Memory in MiB.").or(Absent::Number(128.0)),
        member("disk", at_least(0.0), "Disk in MiB.").or(Absent::Number(0.0)),
        member("gpus", COUNT, "Whole devices.").or(Absent::Integer(0)),
    ],
};

const LIMIT: Of = Of::Either(&[Of::Number { min: f64::MIN, max: f64::MAX }, Of::Word(&["unlimited"])]);

pub(super) static RESOURCE_LIMITS: Shape = Shape {
    name: "ResourceLimits",
    about: "Upper bounds of a container: a number not below its resources, or `unlimited`.",
    kind: Kind::Plain,
    members: &[member("cpus", LIMIT, "CPU shares."), member("mem", LIMIT, "Memory in MiB.")],
};

pub(super) static ENDPOINT: Shape = Shape {
    name: "Endpoint",
    about: "A port that a container listens on.",
    kind: Kind::Bounded,
    members: &[
        member("name", NAME, "Unique in the pod.").required(),
        member(
            "containerPort",
            Of::Integer { min: 1, max: 65535 },
            "The port inside; required on `container` networks, not allowed on the host's. Unique in the pod.",
        ),
        member(
            "hostPort",
            Of::Integer { min: 0, max: 65535 },
            "The agent's port; 0 takes any that is offered, which is the default except on `container` networks. Unique in the pod.",
        ),
        member("protocol", list(&FREE), "`tcp`, `udp`, `http`, …: free text without duplicates."),
        member("labels", LABELS, "Metadata for discovery."),
        member(
            "networkNames",
            list(&FREE),
            "Which of several `container` networks; none is all. Exactly one with a `hostPort` on several networks.",
        ),
    ],
};

pub(super) static IMAGE: Shape = Shape {
    name: "Image",
    about: "A container image.",
    kind: Kind::Bounded,
    members: &[
        member("kind", Of::Word(ImageKind::NAMES), "Its format.").required(),
        member("id", PATH, "Its name: `nginx:latest`.").required(),
        member("pullConfig", Of::Object(&PULL_CONFIG), "How to be let in by its registry."),
        member("forcePull", Of::Flag, "Pull it even when the agent has it.").or(FALSE),
        member("labels", LABELS, "For APPC images."),
    ],
};

pub(super) static PULL_CONFIG: Shape = Shape {
    name: "PullConfig",
    about: "How to be let in by an image's registry.",
    kind: Kind::Plain,
    members: &[member("secret", NON_EMPTY, "The name of one of the pod's secrets.").required()],
};

pub(super) static HEALTH_CHECK: Shape = Shape {
    name: "HealthCheck",
    about: "How Mesos finds out whether a container is healthy: exactly one of `http`, `tcp` and `exec`.",
    kind: Kind::Bounded,
    members: &[
        member("http", Of::Object(&HTTP_CHECK), "A request whose answer is below 400."),
        member("tcp", Of::Object(&TCP_CHECK), "A connection."),
        member("exec", Of::Object(&EXEC_CHECK), "A command that exits with 0."),
        member("gracePeriodSeconds", COUNT, "Failures in this time after the start are read over.").or(Absent::Integer(300)),
        member("intervalSeconds", COUNT, "Between two checks.").or(Absent::Integer(60)),
        member("maxConsecutiveFailures", COUNT, "So many in a row end the container.").or(Absent::Integer(3)),
        member("timeoutSeconds", COUNT, "A check that takes longer has failed; less than the interval.").or(Absent::Integer(20)),
        member("delaySeconds", COUNT, "Before the first check.").or(Absent::Integer(2)),
    ],
};

pub(super) static HTTP_CHECK: Shape = Shape {
    name: "HttpHealthCheck",
    about: "A request whose answer is below 400.",
    kind: Kind::Bounded,
    members: &[
        member("endpoint", NAME, "An endpoint of the same container.").required(),
        member("path", PATH, "What to ask for: `/ping`."),
        member("scheme", Of::Word(HttpScheme::NAMES), "How to ask.").or(Absent::Word("HTTP")),
    ],
};

pub(super) static TCP_CHECK: Shape = Shape {
    name: "TcpHealthCheck",
    about: "A connection.",
    kind: Kind::Bounded,
    members: &[member("endpoint", NAME, "An endpoint of the same container.").required()],
};

pub(super) static EXEC_CHECK: Shape = Shape {
    name: "CommandHealthCheck",
    about: "A command that exits with 0.",
    kind: Kind::Plain,
    members: &[member("command", Of::Object(&COMMAND), "The command.").required()],
};

pub(super) static VOLUME_MOUNT: Shape = Shape {
    name: "VolumeMount",
    about: "Where a volume appears in a container.",
    kind: Kind::Bounded,
    members: &[
        member("name", NAME, "One of the pod's volumes.").required(),
        member("mountPath", PATH, "Relative to the container's sandbox; or absolute, in a container with an image. Without `..`.")
            .required(),
        member(
            "readOnly",
            Of::Flag,
            "Whether writing is refused. Not enforced where the container has no image: the folder is linked then.",
        )
        .or(FALSE),
    ],
};

pub(super) static ARTIFACT: Shape = Shape {
    name: "Artifact",
    about: "A file that is fetched into the sandbox before the start.",
    kind: Kind::Bounded,
    members: &[
        member("uri", PATH, "Where from.").required(),
        member("extract", Of::Flag, "Unpack it if it is an archive.").or(TRUE),
        member("executable", Of::Flag, "Make it executable.").or(FALSE),
        member("cache", Of::Flag, "Keep it in the agent's cache.").or(FALSE),
        member("destPath", PATH, "Its name in the sandbox; without `..`."),
    ],
};

pub(super) static LIFECYCLE: Shape = Shape {
    name: "Lifecycle",
    about: "How a container ends.",
    kind: Kind::Bounded,
    members: &[member("killGracePeriodSeconds", at_least(0.0), "Between SIGTERM and SIGKILL; by default Mesos' own.")],
};

pub(super) static LINUX_INFO: Shape = Shape {
    name: "LinuxInfo",
    about: "Linux settings.",
    kind: Kind::Plain,
    members: &[
        member("seccomp", Of::Object(&SECCOMP), "The filter of system calls; of containers only."),
        member("ipcInfo", Of::Object(&IPC_INFO), "The IPC namespace."),
    ],
};

pub(super) static SECCOMP: Shape = Shape {
    name: "Seccomp",
    about: "The filter of system calls: a profile, or none.",
    kind: Kind::Plain,
    members: &[
        member("profileName", FREE, "A profile of the agent."),
        member("unconfined", Of::Flag, "No filter; required without a profile, not allowed with one.").or(FALSE),
    ],
};

pub(super) static IPC_INFO: Shape = Shape {
    name: "IpcInfo",
    about: "The IPC namespace.",
    kind: Kind::Plain,
    members: &[
        member("mode", Of::Word(IpcMode::NAMES), "Its own, or the pod's.").required(),
        member("shmSize", COUNT, "The size of /dev/shm in MiB; not with `SHARE_PARENT`."),
    ],
};

pub(super) static SECRET: Shape = Shape {
    name: "Secret",
    about: "Where a secret comes from.",
    kind: Kind::Bounded,
    members: &[member("source", NON_EMPTY, "Its fully qualified path in the secret store.").required()],
};

pub(super) static SECRET_REFERENCE: Shape = Shape {
    name: "SecretReference",
    about: "A variable whose value is a secret.",
    kind: Kind::Plain,
    members: &[member("secret", FREE, "The name of one of the pod's secrets.").required()],
};

pub(super) static VOLUME: Shape = Shape {
    name: "Volume",
    about: "A volume: a directory of the instance, or one of `host`, `secret` and `persistent`.",
    kind: Kind::Bounded,
    members: &[
        member("name", NON_EMPTY, "Unique in the pod; of lower-case letters, digits and inner dashes, which it must have to be mounted.")
            .required(),
        member("host", FREE, "A path of the agent, or one relative to the executor's sandbox."),
        member("secret", NON_EMPTY, "The name of one of the pod's secrets."),
        member("persistent", Of::Object(&PERSISTENT), "Disk that outlives the instance."),
    ],
};

pub(super) static PERSISTENT: Shape = Shape {
    name: "PersistentVolume",
    about: "Disk that outlives the instance.",
    kind: Kind::Bounded,
    members: &[
        member("type", Of::Word(PersistentKind::NAMES), "The kind of disk; by default `mount` with a profile, else `root`."),
        member("size", Of::Integer { min: 0, max: i64::MAX }, "MiB.").required(),
        member("maxSize", Of::Integer { min: 0, max: i64::MAX }, "MiB: no larger `mount` is taken."),
        member("profileName", FREE, "The profile that the disk must have; without it, a disk with none is taken."),
        member(
            "constraints",
            list(&Of::List { of: &FREE, min: 3 }),
            "What the disk must be: `[\"path\", \"LIKE\", \"<regular expression>\"]`.",
        ),
    ],
};

pub(super) static NETWORK: Shape = Shape {
    name: "Network",
    about: "A network that the pod joins: one of the host's, one bridge, or any number of container networks.",
    kind: Kind::Bounded,
    members: &[
        member("name", Of::Text(Text::NetworkName), "Of a `container` network only; by default `--default-network-name`, if there is one."),
        member("mode", Of::Word(NetworkMode::NAMES), "How the pod joins it.").or(Absent::Word("container")),
        member("labels", LABELS, "For the network's driver; not on the host's."),
    ],
};

pub(super) static SCALING: Shape = Shape {
    name: "Scaling",
    about: "How many instances.",
    kind: Kind::Bounded,
    members: &[
        member("kind", Of::Word(&["fixed"]), "Always `fixed`, in lower case.").required(),
        member("instances", Of::Integer { min: 0, max: MOST_INSTANCES }, "As many as there should be.").or(Absent::Integer(1)),
        member("maxInstances", COUNT, "More than these are refused."),
    ],
};

pub(super) static SCHEDULING: Shape = Shape {
    name: "Scheduling",
    about: "When, where and how fast instances are launched.",
    kind: Kind::Bounded,
    members: &[
        member("backoff", Of::Object(&BACKOFF), "The pace of relaunches.").or(Absent::Filled),
        member("upgrade", Of::Object(&UPGRADE), "How a new version replaces the old.").or(Absent::Filled),
        member("placement", Of::Object(&PLACEMENT), "Where instances may run.").or(Absent::Filled),
        member("killSelection", Of::Word(KillSelection::NAMES), "Who goes first when there are too many.")
            .or(Absent::Word("YOUNGEST_FIRST")),
        member(
            "unreachableStrategy",
            Of::Either(&[Of::Object(&UNREACHABLE_STRATEGY), Of::Word(&["disabled"])]),
            "What becomes of instances on lost agents; `\"disabled\"`, the default with persistent volumes, waits for ever.",
        )
        .or(Absent::Filled),
    ],
};

pub(super) static BACKOFF: Shape = Shape {
    name: "Backoff",
    about: "The pace of relaunches.",
    kind: Kind::Bounded,
    members: &[
        member("backoff", at_least(0.0), "Seconds to wait after the first failure.").or(Absent::Number(1.0)),
        member("backoffFactor", at_least(0.0), "Each further failure multiplies the wait by this.").or(Absent::Number(1.15)),
        member("maxLaunchDelay", at_least(0.0), "Seconds to wait at most.").or(Absent::Number(3600.0)),
    ],
};

pub(super) static UPGRADE: Shape = Shape {
    name: "Upgrade",
    about: "How a new version replaces the old, in shares of the instance count.",
    kind: Kind::Bounded,
    members: &[
        member("minimumHealthCapacity", SHARE, "Healthy instances that must remain; 0.5 with persistent volumes.").or(Absent::Number(1.0)),
        member("maximumOverCapacity", SHARE, "Instances beyond the count; 0 with persistent volumes.").or(Absent::Number(1.0)),
    ],
};

pub(super) static PLACEMENT: Shape = Shape {
    name: "Placement",
    about: "Where instances may run.",
    kind: Kind::Bounded,
    members: &[
        member(
            "constraints",
            list(&Of::Either(&[Of::Object(&CONSTRAINT), Of::List { of: &FREE, min: 2 }])),
            "All must hold: objects, or the short form `[\"hostname\", \"UNIQUE\"]`. Equal ones are one.",
        ),
        member("acceptedResourceRoles", list(&FREE), "Roles whose resources may be used: `*` and the pod's own; none is both."),
    ],
};

pub(super) static CONSTRAINT: Shape = Shape {
    name: "Constraint",
    about: "One rule of placement.",
    kind: Kind::Plain,
    members: &[
        member("fieldName", FREE, "`hostname`, `@region`, `@zone` or an agent's attribute.").required(),
        member("operator", Of::Word(Operator::NAMES), "What is asked of it.").required(),
        member(
            "value",
            FREE,
            "A whole number for `MAX_PER` and, if given, `GROUP_BY`; a regular expression for `LIKE` and `UNLIKE`; none for `UNIQUE`.",
        ),
    ],
};

pub(super) static UNREACHABLE_STRATEGY: Shape = Shape {
    name: "UnreachableStrategy",
    about: "What becomes of instances on lost agents.",
    kind: Kind::Bounded,
    members: &[
        member("inactiveAfterSeconds", SECONDS, "Until a replacement is launched.").or(Absent::Integer(900)),
        member("expungeAfterSeconds", SECONDS, "Until the lost instance is given up.").or(Absent::Integer(604_800)),
    ],
};

pub(super) static EXECUTOR_RESOURCES: Shape = Shape {
    name: "ExecutorResources",
    about: "What the executor itself takes.",
    kind: Kind::Bounded,
    members: &[
        member("cpus", at_least(0.1), "CPU shares.").or(Absent::Number(0.1)),
        member("mem", at_least(32.0), "Memory in MiB.").or(Absent::Number(32.0)),
        member("disk", at_least(10.0), "Disk in MiB.").or(Absent::Number(10.0)),
    ],
};
