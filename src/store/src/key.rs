//! The keyspace: every key that Podium knows, as a type, and its bytes under the prefix.
//!
//! Keys of people (`specs`, `status`) hold the pod id with its slashes; keys of machines hold the safe id as
//! one closed segment, so that listing `/web` never meets `/web.x` or `/web/x`. A key has exactly one spelling:
//! what parses prints as it was, and anything else under the prefix is not ours.

use std::fmt;

use podium_types::id::{PodId, Version};
use uuid::Uuid;

/// Where Podium's keys stand unless told otherwise.
pub const DEFAULT_PREFIX: &str = "/podium";

/// The longest name of a stray spec that is answered, in bytes: etcd takes keys of megabytes.
const MAX_STRAY: usize = 1024;

/// One key. DESIGN section 3 says what stands there and who writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `specs/<pod id>`: the definition as its author wrote it.
    Spec(PodId),
    /// `accepted/<pod>`: the version in force.
    Accepted(PodId),
    /// `versions/<pod>/<version>`: an accepted definition.
    Version(PodId, Version),
    /// `versions/<pod>/deleted`: since when the pod is gone and its history ages.
    Deleted(PodId),
    /// `verdicts/<pod>`: why a push was refused.
    Verdict(PodId),
    /// `deployments/<pod>`: the running deployment.
    Deployment(PodId),
    /// `sets/<pod>/<config>`: how many instances of one config.
    Set(PodId, Version),
    /// `instances/<pod>/<uuid>`: an instance that should exist.
    Instance(PodId, Uuid),
    /// `delays/<pod>`: the back-off.
    Delay(PodId),
    /// `observed/<pod>/<uuid>`: what is known of an instance's tasks.
    Observed(PodId, Uuid),
    /// `reach/<pod>/<uuid>`: an instance that is long away.
    Reach(PodId, Uuid),
    /// `tombstones/<pod>/<uuid>`: what must be killed should it return.
    Tombstone(PodId, Uuid),
    /// `queue/<pod>`: why instances wait.
    Queue(PodId),
    /// `kills/<pod>/<uuid>`: an instance that somebody wants killed.
    Kill(PodId, Uuid),
    /// `resets/<pod>`: the back-off is to be forgotten.
    Reset(PodId),
    /// `status/<pod id>`: the status for people.
    Status(PodId),
    /// `specs/<what is no pod id>`: a spec that can't be any pod's, as `/My_Pod`.
    StraySpec(String),
    /// `status/<the same>`: what its author is told.
    StrayStatus(String),
    /// `unknown/<pod>`: instances that run and of which the store has no record.
    Unknown(PodId),
    /// `framework`: who we are to Mesos.
    Framework,
    /// `quarantine`: why nothing may be killed.
    Quarantine,
    /// `orders/<uuid>`: what an operator wants done about unknown tasks.
    Order(Uuid),
    /// `elections/<name>/<lease>`: one candidate of one election.
    Election(String, i64),
}

/// What a key is about; the filter of [`Changes`]. [`Key::Deleted`] is of the history, and so of kind Version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each but Stray is the variant of Key of the same name")]
#[repr(u8)]
pub enum Kind {
    Spec,
    Accepted,
    Version,
    Verdict,
    Deployment,
    Set,
    Instance,
    Delay,
    Observed,
    Reach,
    Tombstone,
    Queue,
    Kill,
    Reset,
    Status,
    /// [`Key::StraySpec`] and [`Key::StrayStatus`].
    Stray,
    Unknown,
    Framework,
    /// Of interest to every pod: named with all of them.
    Quarantine,
    Order,
    Election,
}

impl Key {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Spec(_) => Kind::Spec,
            Self::Accepted(_) => Kind::Accepted,
            Self::Version(..) | Self::Deleted(_) => Kind::Version,
            Self::Verdict(_) => Kind::Verdict,
            Self::Deployment(_) => Kind::Deployment,
            Self::Set(..) => Kind::Set,
            Self::Instance(..) => Kind::Instance,
            Self::Delay(_) => Kind::Delay,
            Self::Observed(..) => Kind::Observed,
            Self::Reach(..) => Kind::Reach,
            Self::Tombstone(..) => Kind::Tombstone,
            Self::Queue(_) => Kind::Queue,
            Self::Kill(..) => Kind::Kill,
            Self::Reset(_) => Kind::Reset,
            Self::Status(_) => Kind::Status,
            Self::StraySpec(_) | Self::StrayStatus(_) => Kind::Stray,
            Self::Unknown(_) => Kind::Unknown,
            Self::Framework => Kind::Framework,
            Self::Quarantine => Kind::Quarantine,
            Self::Order(_) => Kind::Order,
            Self::Election(..) => Kind::Election,
        }
    }

    /// The pod that it belongs to; `None` for strays, and for what is of the whole store.
    pub fn pod(&self) -> Option<&PodId> {
        match self {
            Self::Spec(pod)
            | Self::Accepted(pod)
            | Self::Version(pod, _)
            | Self::Deleted(pod)
            | Self::Verdict(pod)
            | Self::Deployment(pod)
            | Self::Set(pod, _)
            | Self::Instance(pod, _)
            | Self::Delay(pod)
            | Self::Observed(pod, _)
            | Self::Reach(pod, _)
            | Self::Tombstone(pod, _)
            | Self::Queue(pod)
            | Self::Unknown(pod)
            | Self::Kill(pod, _)
            | Self::Reset(pod)
            | Self::Status(pod) => Some(pod),
            Self::StraySpec(_) | Self::StrayStatus(_) | Self::Framework | Self::Quarantine | Self::Order(_) | Self::Election(..) => None,
        }
    }

    /// Reads what stands behind the prefix and its slash.
    fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
        let pod = || PodId::from_safe_id(rest).ok().filter(|pod| pod.safe_id() == rest);
        Some(match kind {
            "specs" => named(path.get(kind.len()..)?, Self::Spec, Self::StraySpec)?,
            "status" => named(path.get(kind.len()..)?, Self::Status, Self::StrayStatus)?,
            "accepted" => Self::Accepted(pod()?),
            "verdicts" => Self::Verdict(pod()?),
            "deployments" => Self::Deployment(pod()?),
            "delays" => Self::Delay(pod()?),
            "queue" => Self::Queue(pod()?),
            "versions" => match rest.strip_suffix("/deleted") {
                Some(safe) => Self::Deleted(PodId::from_safe_id(safe).ok()?),
                None => versioned(rest, Self::Version)?,
            },
            "sets" => versioned(rest, Self::Set)?,
            "instances" => numbered(rest, Self::Instance)?,
            "observed" => numbered(rest, Self::Observed)?,
            "reach" => numbered(rest, Self::Reach)?,
            "tombstones" => numbered(rest, Self::Tombstone)?,
            "kills" => numbered(rest, Self::Kill)?,
            "resets" => Self::Reset(pod()?),
            "elections" => {
                let (name, lease) = rest.split_once('/')?;
                Self::Election(name.to_owned(), i64::from_str_radix(lease, 16).ok()?)
            }
            "unknown" => Self::Unknown(pod()?),
            "framework" => Self::Framework,
            "quarantine" => Self::Quarantine,
            "orders" => Self::Order(Uuid::try_parse(rest).ok()?),
            _ => return None,
        })
    }
}

/// A key of people, by what stands behind `specs` or `status`.
fn named(name: &str, key: impl Fn(PodId) -> Key, stray: impl Fn(String) -> Key) -> Option<Key> {
    match PodId::new(name) {
        Ok(pod) => Some(key(pod)),
        Err(_) if name.starts_with('/') && name.len() <= MAX_STRAY => Some(stray(name.to_owned())),
        Err(_) => None,
    }
}

fn versioned(rest: &str, key: impl Fn(PodId, Version) -> Key) -> Option<Key> {
    let (safe, version) = rest.split_once('/')?;
    Some(key(PodId::from_safe_id(safe).ok()?, version.parse().ok()?))
}

fn numbered(rest: &str, key: impl Fn(PodId, Uuid) -> Key) -> Option<Key> {
    let (safe, uuid) = rest.split_once('/')?;
    Some(key(PodId::from_safe_id(safe).ok()?, Uuid::try_parse(uuid).ok()?))
}

/// What stands behind the prefix and its slash.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(pod) => write!(f, "specs{pod}"),
            Self::Accepted(pod) => write!(f, "accepted/{}", pod.safe_id()),
            Self::Version(pod, version) => write!(f, "versions/{}/{version}", pod.safe_id()),
            Self::Deleted(pod) => write!(f, "versions/{}/deleted", pod.safe_id()),
            Self::Verdict(pod) => write!(f, "verdicts/{}", pod.safe_id()),
            Self::Deployment(pod) => write!(f, "deployments/{}", pod.safe_id()),
            Self::Set(pod, config) => write!(f, "sets/{}/{config}", pod.safe_id()),
            Self::Instance(pod, uuid) => write!(f, "instances/{}/{uuid}", pod.safe_id()),
            Self::Delay(pod) => write!(f, "delays/{}", pod.safe_id()),
            Self::Observed(pod, uuid) => write!(f, "observed/{}/{uuid}", pod.safe_id()),
            Self::Reach(pod, uuid) => write!(f, "reach/{}/{uuid}", pod.safe_id()),
            Self::Tombstone(pod, uuid) => write!(f, "tombstones/{}/{uuid}", pod.safe_id()),
            Self::Queue(pod) => write!(f, "queue/{}", pod.safe_id()),
            Self::Kill(pod, uuid) => write!(f, "kills/{}/{uuid}", pod.safe_id()),
            Self::Reset(pod) => write!(f, "resets/{}", pod.safe_id()),
            Self::Status(pod) => write!(f, "status{pod}"),
            Self::StraySpec(name) => write!(f, "specs{name}"),
            Self::StrayStatus(name) => write!(f, "status{name}"),
            Self::Unknown(pod) => write!(f, "unknown/{}", pod.safe_id()),
            Self::Framework => f.write_str("framework"),
            Self::Quarantine => f.write_str("quarantine"),
            Self::Order(uuid) => write!(f, "orders/{uuid}"),
            Self::Election(name, lease) => write!(f, "elections/{name}/{lease:x}"),
        }
    }
}

/// The prefix, and with it the way between keys and bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyspace {
    /// Ends in a slash.
    root: String,
}

impl Keyspace {
    /// Keys under `prefix`, with or without its trailing slash. An empty prefix means the whole store.
    pub fn new(prefix: &str) -> Self {
        Self { root: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// What all keys begin with, trailing slash included.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The bytes of a key.
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        format!("{}{key}", self.root).into_bytes()
    }

    /// The key of these bytes; `None`: not ours, or not in its one spelling.
    pub fn parse(&self, bytes: &[u8]) -> Option<Key> {
        let path = std::str::from_utf8(bytes).ok()?.strip_prefix(self.root.as_str())?;
        Key::parse(path).filter(|key| key.to_string() == path)
    }
}

impl Default for Keyspace {
    fn default() -> Self {
        Self::new(DEFAULT_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_kind(pod: PodId, version: Version, uuid: Uuid) -> Vec<Key> {
        vec![
            Key::Spec(pod.clone()),
            Key::Accepted(pod.clone()),
            Key::Version(pod.clone(), version),
            Key::Deleted(pod.clone()),
            Key::Verdict(pod.clone()),
            Key::Deployment(pod.clone()),
            Key::Set(pod.clone(), version),
            Key::Instance(pod.clone(), uuid),
            Key::Delay(pod.clone()),
            Key::Observed(pod.clone(), uuid),
            Key::Reach(pod.clone(), uuid),
            Key::Tombstone(pod.clone(), uuid),
            Key::Queue(pod.clone()),
            Key::Unknown(pod.clone()),
            Key::Kill(pod.clone(), uuid),
            Key::Reset(pod.clone()),
            Key::Status(pod),
            Key::Framework,
            Key::Quarantine,
            Key::Order(uuid),
            Key::Election("gateway".to_owned(), 0x7587_8f2b_0000_0001),
        ]
    }

    #[test]
    fn keys_are_spelled_as_the_design_says() {
        let keys = Keyspace::default();
        let pod = PodId::new("/web/front.end").unwrap();
        let version = Version::from_millis(1_627_380_000_000);
        let spell = |key: Key| String::from_utf8(keys.encode(&key)).unwrap();
        assert_eq!(spell(Key::Spec(pod.clone())), "/podium/specs/web/front.end");
        assert_eq!(spell(Key::Status(pod.clone())), "/podium/status/web/front.end");
        assert_eq!(spell(Key::Deleted(pod.clone())), "/podium/versions/web_front.end/deleted");
        assert_eq!(spell(Key::Set(pod.clone(), version)), "/podium/sets/web_front.end/2021-07-27T10:00:00.000Z");
        assert_eq!(spell(Key::Instance(pod, Uuid::from_u128(7))), "/podium/instances/web_front.end/00000000-0000-0000-0000-000000000007");
        assert_eq!(spell(Key::Election("scaling".to_owned(), 255)), "/podium/elections/scaling/ff");
    }

    #[test]
    fn a_second_spelling_of_a_key_is_not_ours() {
        let keys = Keyspace::default();
        for bytes in [
            "/podium/accepted/a/b",
            "/podium/accepted/",
            "/podium/accepted",
            "/podium/specs",
            "/podium/sets/a/2021-07-27T10:00:00Z",
            "/podium/sets/a/deleted",
            "/podium/versions/deleted",
            "/podium/versions//deleted",
            "/podium/versions/a/deleted/deleted",
            "/podium/instances/a/00000000000000000000000000000007",
            "/podium/kills/a",
            "/podium/resets/a/b",
            "/podium/elections/gateway/00ff",
            "/podium/elections/gateway",
            "/podium/framework/",
            "/podium/quarantine/",
            "/podium/orders/7",
            "/podium/unheard/of",
            "/podiumx/framework",
            "/podium",
        ] {
            assert_eq!(keys.parse(bytes.as_bytes()), None, "{bytes}");
        }
        assert_eq!(keys.parse(&[0xff, 0xfe]), None);
    }

    #[test]
    fn a_spec_under_what_is_no_pod_id_is_a_stray_and_its_status_too() {
        let keys = Keyspace::default();
        for name in ["/My_Pod", "/a//b", "/a/", "/", "/a/versions", "/\u{0}"] {
            let (spec, status) = (Key::StraySpec(name.to_owned()), Key::StrayStatus(name.to_owned()));
            assert_eq!(keys.encode(&spec), format!("/podium/specs{name}").into_bytes());
            for key in [spec, status] {
                assert_eq!(keys.parse(&keys.encode(&key)), Some(key));
            }
        }
        assert_eq!(keys.parse(format!("/podium/specs/{}", "A".repeat(MAX_STRAY)).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn every_key_reads_back_as_itself(id in "(/[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?){1,4}", millis in 0i64..4_000_000_000_000, bits in any::<u128>()) {
            prop_assume!(PodId::new(&id).is_ok());
            let keys = Keyspace::new("/p/q/");
            for key in every_kind(PodId::new(&id).unwrap(), Version::from_millis(millis), Uuid::from_u128(bits)) {
                prop_assert_eq!(keys.parse(&keys.encode(&key)), Some(key));
            }
        }

        #[test]
        fn parsing_never_panics(kind in "[a-z]{0,12}", rest in any::<String>()) {
            let keys = Keyspace::default();
            let bytes = format!("/podium/{kind}/{rest}");
            if let Some(key) = keys.parse(bytes.as_bytes()) {
                prop_assert_eq!(keys.encode(&key), bytes.into_bytes());
            }
        }
    }
}
