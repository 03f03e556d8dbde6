//! Who may talk to us at all: keeps a web page in someone's browser from reaching a server that listens on
//! that someone's machine, be it by a name that was rebound to our address or by a cross-site request. Pages of the
//! origins that the operator names may call, and are answered as browsers want it (CORS).

use std::net::IpAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, StatusCode};

use crate::answer::{Answer, Problem, empty};

/// Decides by which names the server may be called, and by pages of which origins. IP addresses always may: an attacker's
/// page can bind only names to our address.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    names: Vec<String>,
    any: bool,
    origins: Vec<String>,
    any_origin: bool,
}

impl Guard {
    /// `names`: host names beyond `localhost`; `*` allows every name, for servers behind a proxy that checks itself.
    /// `origins`: whose pages may call, `https://host[:port]`; `*`: all pages may read.
    pub fn new(names: &[String], origins: &[String]) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.trim_end_matches('/').to_ascii_lowercase()).collect::<Vec<_>>();
        Self {
            names: lower(names),
            any: names.iter().any(|name| name == "*"),
            origins: lower(origins),
            any_origin: origins.iter().any(|origin| origin == "*"),
        }
    }

    /// The answer to a browser's question whether a page may call.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Answer> {
        (*method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)).then(|| {
            let mut answer = empty(StatusCode::NO_CONTENT);
            if let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) {
                let methods = if self.is_named(origin) { "GET, HEAD, OPTIONS, POST, PUT, DELETE" } else { "GET, HEAD, OPTIONS" };
                if self.is_named(origin) || self.any_origin {
                    let head = answer.headers_mut();
                    head.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
                    head.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
                    head.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
                }
            }
            answer
        })
    }

    /// Lets the pages of an allowed origin read the answer.
    pub fn share<B>(&self, origin: Option<&HeaderValue>, answer: &mut http::Response<B>) {
        let Some(origin) = origin else { return };
        let named = origin.to_str().is_ok_and(|origin| self.is_named(origin));
        if !named && !self.any_origin {
            return;
        }
        let head = answer.headers_mut();
        head.insert(ACCESS_CONTROL_ALLOW_ORIGIN, if named { origin.clone() } else { HeaderValue::from_static("*") });
        head.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
        head.append(VARY, HeaderValue::from_static("Origin"));
    }

    fn is_named(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known != "*" && known.eq_ignore_ascii_case(origin))
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
        let ours = |origin: &str| same_origin(origin, host) || self.is_named(origin);
        if changes && headers.get_all(ORIGIN).iter().any(|origin| !ours(origin.to_str().unwrap_or_default())) {
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

/// What a page may send beyond what every page may.
const ALLOWED_HEADERS: &str = "Accept, Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, X-Podium-Min-Revision";

/// What a page may read of an answer's head.
const EXPOSED_HEADERS: &str = "ETag, Location, Marathon-Deployment-Id, Retry-After, Warning, X-Podium-Change, X-Podium-Log-Offset, \
    X-Podium-Log-Size, X-Podium-Revision, X-Podium-Task";

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
        Guard::new(&names, &[]).check(&method, &map).err().map(|problem| problem.status.as_u16())
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
