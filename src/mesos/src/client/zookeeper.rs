//! Who leads, as ZooKeeper knows it: each master registers a node `json.info_<sequence>` that lives as long as the
//! master; the lowest sequence is the leader's.
//!
//! Promises: a change of the leader is seen by a watch; a lost session is replaced; no step is waited for without bound;
//! and while ZooKeeper is away, who led last is taken to lead still, since a subscription needs no ZooKeeper.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use podium_http::Url;
use podium_retry::Backoff;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use zookeeper_client as zk;

use super::masters::{Ensemble, api};

/// What the session with ZooKeeper asks for, as Mesos' own clients do.
const SESSION: Duration = Duration::from_secs(10);

/// For one answer. Mesos' own detection can wait for ever (MESOS-9426).
const PATIENCE: Duration = Duration::from_secs(10);

/// Looked again after so long without any sign, in case a watch was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is known of the leading master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leader {
    /// Why none is known.
    Unknown(String),
    /// Its scheduler API.
    Known(Url),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    ZooKeeper(#[from] zk::Error),
    #[error("no answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("the session has ended")]
    SessionOver,
}

/// Keeps `leader` up to date for as long as it is polled.
pub(super) async fn detect(ensemble: &Ensemble, secure: bool, leader: watch::Sender<Leader>) -> Infallible {
    let mut backoff = Backoff::reconnect();
    loop {
        let Err(trouble) = session(ensemble, secure, &leader, &mut backoff).await;
        let reason = format!("ZooKeeper at {}: {trouble}", ensemble.hosts);
        warn!(reason, "who leads Mesos is not watched at present");
        leader.send_if_modified(|known| match known {
            Leader::Known(_) => false,
            Leader::Unknown(before) if *before == reason => false,
            unknown => {
                *unknown = Leader::Unknown(reason);
                true
            }
        });
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn session(ensemble: &Ensemble, secure: bool, leader: &watch::Sender<Leader>, backoff: &mut Backoff) -> Result<Infallible, Trouble> {
    let mut connector = zk::Client::connector().with_session_timeout(SESSION).with_connection_timeout(PATIENCE).with_fail_eagerly();
    if let Some(login) = &ensemble.login {
        connector = connector.with_auth("digest", login.as_bytes());
    }
    let client = timeout(PATIENCE, connector.connect(&ensemble.hosts)).await??;
    loop {
        let (found, watcher) = timeout(PATIENCE, look(&client, &ensemble.path, secure)).await??;
        backoff.reset();
        leader.send_if_modified(|known| {
            let news = *known != found;
            if news {
                info!(leader = ?found, "ZooKeeper says who leads Mesos");
                *known = found;
            }
            news
        });
        match timeout(LOOK_AGAIN, watcher.changed()).await {
            Ok(event) if event.event_type == zk::EventType::Session => return Err(Trouble::SessionOver),
            Ok(_) | Err(_) => {}
        }
    }
}

/// The leader now, and what tells of the next change.
async fn look(client: &zk::Client, path: &str, secure: bool) -> Result<(Leader, zk::OneshotWatcher), Trouble> {
    loop {
        let (children, watcher) = match client.list_and_watch_children(path).await {
            Ok(listed) => listed,
            Err(zk::Error::NoNode) => match client.check_and_watch_stat(path).await? {
                (None, watcher) => {
                    return Ok((Leader::Unknown(format!("ZooKeeper has no {path}: has a master ever been there?")), watcher));
                }
                // It came into being between the two.
                (Some(_), _) => continue,
            },
            Err(error) => return Err(error.into()),
        };
        for name in candidates(&children) {
            match client.get_data(&format!("{}/{name}", path.trim_end_matches('/'))).await {
                Ok((data, _)) => return Ok((leader_of(name, &data, secure), watcher)),
                // This master has gone between the two; the next one leads.
                Err(zk::Error::NoNode) => debug!(name, "a master has gone"),
                Err(error) => return Err(error.into()),
            }
        }
        return Ok((Leader::Unknown(format!("no master is registered in ZooKeeper's {path}")), watcher));
    }
}

/// Names of masters' nodes, the leader's first.
fn candidates(children: &[String]) -> Vec<&str> {
    let sequence = |name: &str| name.strip_prefix("json.info_")?.parse::<i64>().ok();
    let mut found: Vec<(i64, &str)> = children.iter().filter_map(|name| Some((sequence(name)?, name.as_str()))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

/// The part of v0's `MasterInfo` that says where a master is.
#[derive(Debug, Deserialize)]
struct MasterInfo {
    address: Option<Address>,
    hostname: Option<String>,
    /// In network byte order, read as if it were the machine's.
    ip: Option<u32>,
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Address {
    hostname: Option<String>,
    ip: Option<String>,
    port: u16,
}

fn leader_of(name: &str, data: &[u8], secure: bool) -> Leader {
    let unknown = |reason: &str| Leader::Unknown(format!("ZooKeeper's {name} does not say where the leading master is: {reason}"));
    let info: MasterInfo = match serde_json::from_slice(data) {
        Ok(info) => info,
        Err(error) => return unknown(&error.to_string()),
    };
    let Some(place) = place(info, secure) else { return unknown("no address") };
    api(&place, secure).map_or_else(|error| unknown(&error.to_string()), Leader::Known)
}

/// `host:port`: by address, which needs no name service; by name where a certificate must match.
fn place(info: MasterInfo, secure: bool) -> Option<String> {
    let old_ip = info.ip.map(|ip| Ipv4Addr::from(ip.to_le_bytes()).to_string());
    let (hostname, ip, port) = match info.address {
        Some(address) => (address.hostname.or(info.hostname), address.ip.or(old_ip), address.port),
        None => (info.hostname, old_ip, info.port?),
    };
    let host = if secure { hostname.or(ip) } else { ip.or(hostname) }.filter(|host| !host.is_empty())?;
    let host = if matches!(host.parse(), Ok(IpAddr::V6(_))) { format!("[{host}]") } else { host };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_sequence_leads_and_other_nodes_are_no_masters() {
        let children = ["json.info_0000000012", "log_replicas", "json.info_0000000003", "info_0000000001", "json.info_x"];
        assert_eq!(candidates(&children.map(str::to_owned)), ["json.info_0000000003", "json.info_0000000012"]);
        assert!(candidates(&[]).is_empty());
    }

    #[test]
    fn a_master_is_found_by_its_address_or_where_a_certificate_must_match_by_its_name() {
        let info = br#"{"address":{"hostname":"h","ip":"10.0.0.1","port":5050},"hostname":"h","id":"x","ip":16777226,"port":5050}"#;
        let known = |data: &[u8], secure| match leader_of("json.info_1", data, secure) {
            Leader::Known(url) => url.to_string(),
            Leader::Unknown(reason) => reason,
        };
        assert_eq!(known(info, false), "http://10.0.0.1:5050/api/v1/scheduler");
        assert_eq!(known(info, true), "https://h:5050/api/v1/scheduler");
        assert_eq!(known(br#"{"ip":16777226,"port":5051}"#, false), "http://10.0.0.1:5051/api/v1/scheduler");
        assert_eq!(known(br#"{"address":{"ip":"::1","port":1}}"#, false), "http://[::1]:1/api/v1/scheduler");
        for bad in [
            &b""[..],
            b"[]",
            b"{}",
            br#"{"port":5050}"#,
            b"\xff",
            br#"{"address":{"ip":"10.0.0.1","port":99999}}"#,
            br#"{"hostname":"a b","port":1}"#,
        ] {
            assert!(known(bad, false).contains("does not say where"), "{bad:?}");
        }
    }
}
