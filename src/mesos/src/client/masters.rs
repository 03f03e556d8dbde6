//! Where the masters are, as people write it: a list, of which any leads to the leading one, or a ZooKeeper that
//! knows it.

use std::fmt;
use std::str::FromStr;

use podium_http::Url;

use super::{ConfigError, PATH};

/// Addresses of masters, or of the ZooKeeper that knows the leading one.
#[derive(Clone, PartialEq, Eq)]
pub enum Masters {
    /// `host:port` or URLs, asked in turn until one is, or knows, the leader.
    List(Vec<String>),
    /// `zk://[user:password@]host:port,…/path`, where masters register themselves.
    ZooKeeper(Ensemble),
}

/// A ZooKeeper, and where in it the masters are.
#[derive(Clone, PartialEq, Eq)]
pub struct Ensemble {
    /// `host:port,host:port`.
    pub(super) hosts: String,
    /// Absolute, without a slash at its end.
    pub(super) path: String,
    /// `user:password`, for the scheme `digest`.
    pub(super) login: Option<String>,
}

impl Masters {
    /// Whether a password stands in it.
    #[must_use]
    pub fn holds_password(&self) -> bool {
        matches!(self, Masters::ZooKeeper(Ensemble { login: Some(_), .. }))
    }

    /// The scheduler API of each master of a list. Without a scheme of its own, an address is `https` if authorities are
    /// named that vouch for it.
    pub(super) fn urls(list: &[String], secure: bool) -> Result<Vec<Url>, ConfigError> {
        if list.is_empty() {
            return Err(ConfigError::NoMaster);
        }
        list.iter().map(|master| api(master, secure)).collect()
    }
}

/// The scheduler API of one master.
pub(super) fn api(master: &str, secure: bool) -> Result<Url, ConfigError> {
    let text = master.trim_end_matches('/');
    let scheme = match text.contains("://") {
        true => "",
        false if secure => "https://",
        false => "http://",
    };
    Ok(podium_http::parse_url(&format!("{scheme}{text}{PATH}"))?)
}

/// Never with the password.
impl fmt::Display for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Masters::List(list) => f.write_str(&list.join(",")),
            Masters::ZooKeeper(Ensemble { hosts, path, .. }) => write!(f, "zk://{hosts}{path}"),
        }
    }
}

impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masters({self})")
    }
}

impl fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ensemble(zk://{}{})", self.hosts, self.path)
    }
}

/// What is wrong with an address; the text itself is not repeated, since a password may stand in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoMasters(&'static str);

impl FromStr for Masters {
    type Err = NoMasters;

    fn from_str(text: &str) -> Result<Self, NoMasters> {
        let text = text.trim();
        match text.strip_prefix("zk://") {
            Some(rest) => ensemble(rest).map(Masters::ZooKeeper),
            None if text.contains("zk://") => Err(NoMasters("zk:// is written once: zk://host:2181,host:2181/mesos")),
            None => list(text).map(Masters::List),
        }
    }
}

fn ensemble(rest: &str) -> Result<Ensemble, NoMasters> {
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    if login.is_some_and(|login| !login.contains(':')) {
        return Err(NoMasters("a name needs its password: zk://name:password@host:2181/mesos"));
    }
    for host in hosts.split(',') {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "2181"));
        if name.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(NoMasters("a ZooKeeper is written as host:port: zk://host:2181,host:2181/mesos"));
        }
    }
    let path = path.trim_end_matches('/');
    if path.contains("//") {
        return Err(NoMasters("the path after zk://host:2181 is not one of ZooKeeper"));
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Ensemble { hosts: hosts.to_owned(), path: path.to_owned(), login: login.map(str::to_owned) })
}

fn list(text: &str) -> Result<Vec<String>, NoMasters> {
    let master = |address: &str| {
        let address = address.trim();
        let authority = address.split_once("://").map_or(address, |(_, rest)| rest).split('/').next().unwrap_or_default();
        match authority {
            "" => Err(NoMasters("an address is missing")),
            named if named.contains('@') => Err(NoMasters("name and password can't stand in the address of a master")),
            _ if podium_http::parse_url(address).is_err() => Err(NoMasters("a master is written as host:5050 or http://host:5050")),
            _ => Ok(address.to_owned()),
        }
    };
    text.split(',').map(master).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Masters {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_read_as_people_write_it_and_its_scheme_follows_the_trust() {
        let masters = parse("10.0.0.1:5050, https://m2:5050/,m3");
        assert_eq!(masters.to_string(), "10.0.0.1:5050,https://m2:5050/,m3");
        let Masters::List(list) = masters else { panic!() };
        let urls = |secure| Masters::urls(&list, secure).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        let below = |addresses: [&str; 3]| addresses.map(|address| format!("{address}/api/v1/scheduler"));
        assert_eq!(urls(false), below(["http://10.0.0.1:5050", "https://m2:5050", "http://m3"]));
        assert_eq!(urls(true), below(["https://10.0.0.1:5050", "https://m2:5050", "https://m3"]));
        assert!(matches!(Masters::urls(&[], false), Err(ConfigError::NoMaster)));
    }

    #[test]
    fn a_zookeeper_is_read_with_its_login_and_shown_without() {
        let plain = parse("zk://z1:2181,z2:2181/mesos");
        assert_eq!(plain.to_string(), "zk://z1:2181,z2:2181/mesos");
        assert!(!plain.holds_password());
        let secret = parse("zk://me:p@ss:word@z1,[::1]:2182/a/b/");
        let Masters::ZooKeeper(ensemble) = &secret else { panic!() };
        assert_eq!((ensemble.hosts.as_str(), ensemble.path.as_str()), ("z1,[::1]:2182", "/a/b"));
        assert_eq!(ensemble.login.as_deref(), Some("me:p@ss:word"));
        assert!(secret.holds_password() && !format!("{secret} {secret:?} {ensemble:?}").contains("word"));
        assert_eq!(parse("zk://z1:2181").to_string(), "zk://z1:2181/");
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for bad in
            ["", ",", "a,,b", "http://", "me:hunter2@m1:5050", "http://me:hunter2@m1", "zk://", "zk://hunter2@z1/mesos", "zk://z1:0/m"]
        {
            assert!(!bad.parse::<Masters>().unwrap_err().to_string().contains("hunter2"), "{bad}");
        }
        for bad in ["zk://z1:2181/a//b", "m1,zk://z1/mesos", "ftp://m1", "zk://z1,/mesos"] {
            assert!(bad.parse::<Masters>().is_err(), "{bad}");
        }
    }
}
