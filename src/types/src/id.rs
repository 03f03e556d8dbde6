//! Identifiers. Each is a newtype with one constructor that validates, so that a key, a task id or a
//! path can be built without checking again.
//!
//! ```text
//! pod            /a/b                                   path of lower-case segments
//! safe id        a_b                                    `_` for `/`; ambiguous never, since ids hold no `_`
//! instance       a_b.instance-<uuid>
//! task           a_b.instance-<uuid>.<container>.<n>    n: the incarnation
//! executor       instance-a_b.<uuid>.<n>
//! ```

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The longest id that Mesos accepts for a task, in bytes.
pub const MAX_MESOS_ID: usize = 255;

/// The longest pod id that is read at all, in bytes; the tighter rule is that task ids fit [`MAX_MESOS_ID`].
pub const MAX_POD_ID: usize = 255;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// `foo`: the leading slash is missing.
    #[error("Path needs to be absolute")]
    NotAbsolute,
    /// `/`.
    #[error("Path must contain at least one path element")]
    Empty,
    /// The last segment is a reserved word.
    #[error("must not end with any of the following reserved keywords: restart, tasks, versions, ., ..")]
    Reserved,
    /// `/a/../b`: which pod it means would depend on who reads it.
    #[error("must not contain the segments . and ..")]
    Dots,
    /// A segment has characters that are not allowed.
    #[error(
        "must fully match regular expression '^(([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])\\.)*([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])|(\\.|\\.\\.)$'"
    )]
    Segment,
    /// Longer than [`MAX_POD_ID`].
    #[error("must not be longer than {MAX_POD_ID} bytes")]
    TooLong,
    /// Not of the form of an instance, task or executor id.
    #[error("must fully match regular expression '^(.+)\\.(instance-|marathon-)([^\\.]+)$'")]
    Instance,
    /// The uuid part cannot be read.
    #[error("Invalid UUID string: {0}")]
    Uuid(String),
    /// Not a time stamp.
    #[error("Invalid timestamp provided '{0}'. Expecting ISO-8601 datetime string.")]
    Timestamp(String),
}

/// The id of a pod: `/web/frontend`. Absolute, at least one segment, no `_`, no `.` or `..` segments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId(String);

impl PodId {
    /// Reads an absolute id as it stands in a definition. The rules are Marathon's (section 1.4).
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_POD_ID {
            return Err(IdError::TooLong);
        }
        let Some(path) = text.strip_prefix('/') else {
            return Err(IdError::NotAbsolute);
        };
        if path.is_empty() {
            return Err(IdError::Empty);
        }
        match path.rsplit('/').next() {
            Some("restart" | "tasks" | "versions" | "." | "..") => Err(IdError::Reserved),
            _ if path.split('/').any(|segment| matches!(segment, "." | "..")) => Err(IdError::Dots),
            _ if path.split('/').all(is_segment) => Ok(Self(text.to_owned())),
            _ => Err(IdError::Segment),
        }
    }

    /// Reads an id as people write it in URLs and on the command line: with or without the leading slash,
    /// with doubled or trailing slashes.
    pub fn lenient(text: &str) -> Result<Self, IdError> {
        if text.len() > 2 * MAX_POD_ID {
            return Err(IdError::TooLong);
        }
        let mut path = String::with_capacity(text.len() + 1);
        for segment in text.split('/').filter(|segment| !segment.is_empty()) {
            path.push('/');
            path.push_str(segment);
        }
        if path.is_empty() {
            return Err(IdError::Empty);
        }
        Self::new(&path)
    }

    /// Stands in for an id that could not be read, in a definition that is refused because of it.
    pub(crate) fn stand_in() -> Self {
        Self("/x".to_owned())
    }

    /// The id with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as one closed segment of an etcd key or a Mesos id: `_` for `/`, no leading slash.
    pub fn safe_id(&self) -> String {
        self.0[1..].replace('/', "_")
    }

    /// The pod that a safe id stands for.
    pub fn from_safe_id(safe: &str) -> Result<Self, IdError> {
        Self::new(&format!("/{}", safe.replace('_', "/")))
    }
}

fn is_segment(segment: &str) -> bool {
    segment.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    alphanumeric(first) && alphanumeric(last) && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PodId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl serde::Serialize for PodId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The version of a pod: the time stamp, in milliseconds, at which a definition was accepted.
/// Written as `2021-07-27T10:00:00.000Z`; in keys too, since that text sorts as the number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(i64);

impl Version {
    /// The version of that many milliseconds since the epoch; out of the calendar's range means its ends.
    pub fn from_millis(millis: i64) -> Self {
        // The years 0 to 9999, which four digits can write.
        Self(millis.clamp(-62_167_219_200_000, 253_402_207_200_000))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// The version that follows `last` at the time `now`: `max(now, last + 1 ms)`.
    pub fn next(now_millis: i64, last: Option<Version>) -> Self {
        Self::from_millis(last.map_or(now_millis, |last| now_millis.max(last.0 + 1)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Version {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Self::from_millis(time.as_millisecond()))
            .map_err(|_| IdError::Timestamp(text.chars().take(64).collect()))
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// One running copy of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The pod it is a copy of.
    pub pod: PodId,
    /// What tells it from the pod's other instances.
    pub uuid: Uuid,
}

impl InstanceId {
    /// The executor of this instance's n-th incarnation: `instance-a_b.<uuid>.<n>`.
    pub fn executor_id(&self, incarnation: u32) -> String {
        format!("instance-{}.{}.{incarnation}", self.pod.safe_id(), self.uuid)
    }

    /// The task of one container: `a_b.instance-<uuid>.<container>.<n>`.
    pub fn task_id(&self, container: &str, incarnation: u32) -> TaskId {
        TaskId { instance: self.clone(), container: container.to_owned(), incarnation }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.instance-{}", self.pod.safe_id(), self.uuid)
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (safe, uuid) = text.rsplit_once(".instance-").ok_or(IdError::Instance)?;
        let uuid = Uuid::try_parse(uuid).map_err(|_| IdError::Uuid(uuid.chars().take(64).collect()))?;
        Ok(Self { pod: PodId::from_safe_id(safe)?, uuid })
    }
}

/// One container's task in one incarnation of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The instance it belongs to.
    pub instance: InstanceId,
    /// The container's name.
    pub container: String,
    /// Which launch of the instance.
    pub incarnation: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.instance, self.container, self.incarnation)
    }
}

impl FromStr for TaskId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (rest, incarnation) = text.rsplit_once('.').ok_or(IdError::Instance)?;
        let (instance, container) = rest.rsplit_once('.').ok_or(IdError::Instance)?;
        Ok(Self {
            instance: instance.parse()?,
            container: container.to_owned(),
            incarnation: incarnation.parse().map_err(|_| IdError::Instance)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_id_follows_marathons_rules() {
        for good in ["/a", "/a/b", "/a-b/c.d", "/restart/x", "/0"] {
            assert_eq!(PodId::new(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("a", IdError::NotAbsolute),
            ("/", IdError::Empty),
            ("/a/restart", IdError::Reserved),
            ("/a_b", IdError::Segment),
            ("/A", IdError::Segment),
            ("/a//b", IdError::Segment),
            ("/a/../b", IdError::Dots),
            ("/a/.", IdError::Reserved),
            ("/a-", IdError::Segment),
        ] {
            assert_eq!(PodId::new(bad), Err(why), "{bad}");
        }
        assert_eq!(PodId::lenient("a//b/").unwrap().as_str(), "/a/b");
    }

    #[test]
    fn ids_read_what_they_write() {
        let instance = InstanceId { pod: PodId::new("/a.x/b").unwrap(), uuid: Uuid::from_u128(7) };
        assert_eq!(instance.to_string().parse::<InstanceId>().unwrap(), instance);
        let task = instance.task_id("c1", 3);
        assert_eq!(task.to_string().parse::<TaskId>().unwrap(), task);
        assert_eq!(task.to_string(), format!("a.x_b.instance-{}.c1.3", instance.uuid));
    }

    #[test]
    fn a_version_prints_three_digits_and_sorts_as_text() {
        let version: Version = "2017-01-03T18:21:19.31Z".parse().unwrap();
        assert_eq!(version.to_string(), "2017-01-03T18:21:19.310Z");
        assert_eq!(Version::next(5, Some(Version::from_millis(9))).as_millis(), 10);
    }
}
