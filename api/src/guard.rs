//! Who may talk to us at all: keeps a web page in someone's browser from reaching a server that listens on
//! that someone's machine, be it by a name that was rebound to our address or by a cross-site request.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use crate::answer::Problem;

/// Decides by which names the server may be called. IP addresses always may: an attacker's page can bind only
/// names to our address.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    names: Vec<String>,
    any: bool,
}

impl Guard {
    /// `names`: host names beyond `localhost`; `*` allows every name, for servers behind a proxy that checks itself.
    pub fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| name.to_ascii_lowercase()).collect(), any: names.iter().any(|name| name == "*") }
    }

    /// Lets a request pass, or tells why it may not.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        // HTTP/1.0 without a Host: no browser sends it.
        let Some(host) = headers.get(HOST) else { return Ok(()) };
        let host = host.to_str().map_err(|_| refused_host("?"))?;
        if !self.knows(without_port(host)) {
            return Err(refused_host(host));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && headers.get_all(ORIGIN).iter().any(|origin| !same_origin(origin.to_str().unwrap_or_default(), host)) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "requests that change something are not accepted from other origins"));
        }
        Ok(())
    }

    fn knows(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        self.any || literal.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost") || self.names.contains(&name)
    }
}

fn refused_host(host: &str) -> Problem {
    let host: String = host.chars().take(255).collect();
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!("this server is not called `{host}`: name it with --host-name, or use an IP address"),
    )
}

fn same_origin(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
}

/// The name in `name`, `name:port`, `[::1]` or `[::1]:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], method: Method, headers: &[(&str, &str)]) -> Option<u16> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        Guard::new(&names).check(&method, &map).err().map(|problem| problem.status.as_u16())
    }

    #[test]
    fn a_rebound_name_does_not_reach_us() {
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3", "podium.localhost", "localhost."] {
            assert_eq!(check(&[], Method::GET, &[("host", good)]), None, "{good}");
        }
        for bad in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert_eq!(check(&[], Method::GET, &[("host", bad)]), Some(421), "{bad}");
        }
        assert_eq!(check(&["Podium.internal"], Method::GET, &[("host", "podium.internal:80")]), None);
        assert_eq!(check(&["*"], Method::GET, &[("host", "any.example")]), None);
        assert_eq!(check(&[], Method::GET, &[]), None);
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let host = ("host", "localhost:8080");
        assert_eq!(check(&[], Method::POST, &[host, ("origin", "http://localhost:8080")]), None);
        assert_eq!(check(&[], Method::POST, &[host]), None);
        for origin in ["http://evil.example", "null", "http://localhost:3000", ""] {
            assert_eq!(check(&[], Method::POST, &[host, ("origin", origin)]), Some(403), "{origin}");
            assert_eq!(check(&[], Method::DELETE, &[host, ("origin", origin)]), Some(403), "{origin}");
            assert_eq!(check(&[], Method::GET, &[host, ("origin", origin)]), None, "{origin}");
        }
    }
}
