//! What the agent tells an executor by environment variables.

use std::{env, net::IpAddr, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use podium_proto::mesos::v1::{ExecutorId, FrameworkId};

use super::{connection::Endpoint, processes};

/// The variable by which every process of an instance is found in `/proc/*/environ`: its value is
/// `<agent id>/<framework id>/<executor id>`, with `/<container id>` behind it in a container's processes.
pub const MARKER: &str = "PODIUM_INSTANCE";
/// Names the file that holds the agent's current `ip:port`; it changes when the agent starts again.
pub(crate) const ADDRESS_FILE: &str = "PODIUM_AGENT_ADDRESS_FILE";
/// The soft limit of open files that containers shall have, since the agent raises its own.
pub(crate) const OPEN_FILES: &str = "PODIUM_OPEN_FILES";

/// Mesos' default of `MESOS_RECOVERY_TIMEOUT`.
const RECOVERY: Duration = Duration::from_secs(15 * 60);
/// Mesos' default of `MESOS_SUBSCRIPTION_BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_secs(2);

/// A variable that is missing or unreadable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} is not set; this command is started by a Mesos agent, or by the agent in `podium dev`")]
    Missing(&'static str),
    #[error("{name}: '{value}' is not a duration such as 15mins")]
    Duration { name: &'static str, value: String },
}

/// One writing of the address file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edition {
    inode: u64,
    modified: (i64, i64),
}

/// The environment of an executor, read once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub framework_id: FrameworkId,
    pub executor_id: ExecutorId,
    /// Where the agent was at the start.
    endpoint: Endpoint,
    /// Where a newer `ip:port` may stand.
    pub address_file: Option<PathBuf>,
    /// The executor's sandbox.
    pub sandbox: PathBuf,
    /// Whether to wait for an agent that has gone.
    pub checkpoint: bool,
    pub recovery_timeout: Duration,
    pub backoff_max: Duration,
    /// Value of [`MARKER`] without a container.
    pub marker: String,
    /// The agent is none of ours, which would look for what a killed executor has left.
    pub guarded: bool,
    open_files: Option<u64>,
}

impl Settings {
    pub fn from_env() -> Result<Settings, Error> {
        let required = |name| text(name).ok_or(Error::Missing(name));
        let executor = required("MESOS_EXECUTOR_ID")?;
        let sandbox = text("MESOS_DIRECTORY").or_else(|| text("MESOS_SANDBOX")).ok_or(Error::Missing("MESOS_DIRECTORY"))?;
        let framework = required("MESOS_FRAMEWORK_ID")?;
        let sandbox = PathBuf::from(sandbox);
        let agent = text("MESOS_SLAVE_ID").unwrap_or_default();
        let given = text(MARKER).filter(|marker| text(ADDRESS_FILE).is_some() && is_of(marker, &agent));
        let guarded = given.is_none();
        let marker = given.unwrap_or_else(|| format!("{agent}/{framework}/{executor}"));
        Ok(Settings {
            framework_id: FrameworkId { value: framework },
            executor_id: ExecutorId { value: executor },
            endpoint: Endpoint {
                address: required("MESOS_AGENT_ENDPOINT")?,
                path: api_path(text("MESOS_SLAVE_PID").as_deref()),
                token: text("MESOS_EXECUTOR_AUTHENTICATION_TOKEN"),
            },
            address_file: text(ADDRESS_FILE).map(PathBuf::from),
            sandbox,
            checkpoint: text("MESOS_CHECKPOINT").is_some_and(|value| value == "1"),
            recovery_timeout: duration("MESOS_RECOVERY_TIMEOUT", RECOVERY)?,
            backoff_max: duration("MESOS_SUBSCRIPTION_BACKOFF_MAX", BACKOFF)?,
            marker,
            guarded,
            open_files: text(OPEN_FILES).and_then(|value| value.parse().ok()),
        })
    }

    /// Where the agent listens now: what its address file says, else what it said at the start.
    pub fn agent(&self) -> Endpoint {
        let current = self.address_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let current = current.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Endpoint { address: current.unwrap_or_else(|| self.endpoint.address.clone()), ..self.endpoint.clone() }
    }

    /// Tells one writing of the address file from another.
    pub fn edition(&self) -> Option<Edition> {
        let data = std::fs::metadata(self.address_file.as_ref()?).ok()?;
        Some(Edition { inode: data.ino(), modified: (data.mtime(), data.mtime_nsec()) })
    }

    /// The agent's address, which containers on the host's network share.
    pub fn host_ip(&self) -> Option<IpAddr> {
        let agent = self.agent().address;
        let (host, _) = agent.rsplit_once(':')?;
        host.trim_matches(['[', ']']).parse().ok()
    }

    /// Gives this process, and so its containers, the limit of open files that the agent was started with.
    pub fn restore_open_files(&self) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        if let Some(current) = self.open_files {
            let maximum = getrlimit(Resource::Nofile).maximum;
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
        }
    }
}

/// Whether an agent of ours, of this id, gave the marker. One of Mesos' that was itself started in a container of ours hands on that
/// container's.
fn is_of(marker: &str, agent: &str) -> bool {
    !agent.is_empty() && marker != agent && processes::covers(agent, marker)
}

/// Of the agent whose libprocess id this is, `slave(1)@10.0.0.1:5051`: the id's name leads to it where agents share an address.
fn api_path(pid: Option<&str>) -> String {
    match pid.and_then(|pid| pid.split_once('@')) {
        Some((name, _)) => format!("/{name}/api/v1/executor"),
        None => "/api/v1/executor".to_owned(),
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn duration(name: &'static str, default: Duration) -> Result<Duration, Error> {
    match text(name) {
        None => Ok(default),
        Some(value) => parse_duration(&value).ok_or(Error::Duration { name, value }),
    }
}

/// Mesos' form of a duration: a number and one of its units, `1.5hrs`.
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("secs", 1.0),
        ("mins", 60.0),
        ("hrs", 3600.0),
        ("days", 86_400.0),
        ("weeks", 604_800.0),
    ];
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    // What a clock can't be moved by is none.
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok().filter(|time| time.as_secs() < u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_called_by_its_name_where_it_has_one() {
        assert_eq!(api_path(Some("slave(2)@127.0.0.1:5051")), "/slave(2)/api/v1/executor");
        assert_eq!(api_path(Some("127.0.0.1:5051")), "/api/v1/executor");
        assert_eq!(api_path(None), "/api/v1/executor");
    }

    #[test]
    fn a_marker_counts_as_given_only_if_it_is_of_the_agent_that_started_the_executor() {
        assert!(is_of("agent/f/e", "agent") && is_of("agent/e", "agent"));
        assert!(!is_of("other/f/e/container", "agent") && !is_of("agent-2/f/e", "agent"));
        assert!(!is_of("agent", "agent") && !is_of("/f/e", ""));
    }

    #[test]
    fn durations_are_read_in_mesos_own_units() {
        assert_eq!(parse_duration("15mins"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("1.5hrs"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7days"), Some(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("mins"), None);
        assert_eq!(parse_duration("5 mins"), None);
        assert_eq!(parse_duration("100000000000000weeks"), None);
        assert_eq!(parse_duration("99999999999999999999999999999999weeks"), None);
    }
}
