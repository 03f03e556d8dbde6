//! The one HTTP client: a small HTTP/1.1 client for Mesos masters, agents and the command line.
//!
//! It keeps connections alive, bounds every wait and every body, and never follows a redirect by
//! itself: who posts to a Mesos master must send body, headers and credentials again ([`resolve`]
//! helps). `https://` servers are believed by the authorities of [`ClientConfig::trust`], else by the machine's.

#![forbid(unsafe_code)]

mod body;
mod tls;

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
pub use http::{Method, StatusCode, Uri as Url, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use crate::body::Body;
pub use crate::tls::{Trust, TrustError};

/// Why a request brought no answer, or its answer no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was sent: nobody listens there, or the name is unknown. Another address may do.
    #[error("cannot connect to {authority}: {reason}")]
    Connect {
        /// Host and port.
        authority: String,
        /// The innermost cause.
        reason: String,
    },
    /// The peer took too long; the request may have had its effect.
    #[error("{authority} sent {what} within {} seconds", after.as_secs_f32())]
    Timeout {
        /// Host and port.
        authority: String,
        /// What did not come: `no answer`, `nothing more`.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke, or the peer does not speak HTTP; the request may have had its effect.
    #[error("talking to {authority}: {reason}")]
    Broken {
        /// Host and port.
        authority: String,
        /// The innermost cause.
        reason: String,
    },
    /// The body is larger than the caller allows.
    #[error("the answer of {authority} is larger than {limit} bytes")]
    TooLarge {
        /// Host and port.
        authority: String,
        /// The caller's or [`ClientConfig::max_body`].
        limit: usize,
    },
    /// The address cannot be used: not a URL, no host, or a scheme other than `http` and `https`.
    #[error("{url}: {reason}")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name or value that cannot stand in a header.
    #[error("not a valid HTTP header: {0}")]
    Header(&'static str),
    /// There is nobody to vouch for an `https://` server.
    #[error("{0}")]
    Trust(String),
}

impl Error {
    /// True if the request was certainly not sent, so that sending it elsewhere repeats nothing.
    #[must_use]
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, Error::Connect { .. } | Error::Address { .. } | Error::Header(_) | Error::Trust(_))
    }
}

/// HTTP Basic credentials; the secret is never printed.
#[derive(Clone)]
pub struct Credentials {
    /// User or Mesos principal.
    pub principal: String,
    /// Password.
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("principal", &self.principal).field("secret", &"…").finish()
    }
}

/// Limits and credentials of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// For a TCP connection.
    pub connect_timeout: Duration,
    /// From sending a request to the head of its answer.
    pub response_timeout: Duration,
    /// Between two pieces of a body; [`Body::set_idle_timeout`] changes it for one answer.
    pub idle_timeout: Duration,
    /// Sent with every request, unless the request has its own `Authorization`.
    pub credentials: Option<Credentials>,
    /// Who vouches for `https://` servers; without it, the machine's authorities.
    pub trust: Option<Trust>,
    /// Largest body that [`Response::bytes`] collects.
    pub max_body: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            credentials: None,
            trust: None,
            max_body: 64 << 20,
        }
    }
}

/// A client with its pool of connections. Clones share the pool.
///
/// Requests made one after the other to one server travel on one connection; a second client has its own.
#[derive(Clone, Debug)]
pub struct Client {
    plain: legacy::Client<HttpConnector, Full<Bytes>>,
    secure: Arc<OnceLock<Secure>>,
    connect_timeout: Duration,
    response_timeout: Duration,
    idle_timeout: Duration,
    max_body: usize,
    authorization: Option<HeaderValue>,
}

/// Made when the first `https://` server is asked, since the machine's authorities take long to read.
type Secure = Result<legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String>;

/// The head of an answer, and its body yet to be read.
#[derive(Debug)]
pub struct Response {
    /// Also of refusals: only transport failures are [`Error`]s.
    pub status: StatusCode,
    /// As received.
    pub headers: HeaderMap,
    /// Streaming; dropping it before its end closes the connection.
    pub body: Body,
    max_body: usize,
}

impl Response {
    /// The whole body, up to [`ClientConfig::max_body`].
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Timeout`], [`Error::Broken`].
    pub async fn bytes(self) -> Result<Bytes, Error> {
        self.body.collect(self.max_body).await
    }

    /// A header as text, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The start of the body as text, for an error message: at most `limit` bytes, whatever is wrong with the rest.
    pub async fn excerpt(self, limit: usize) -> String {
        self.body.excerpt(limit).await
    }
}

impl Client {
    /// A client with an empty pool.
    ///
    /// # Errors
    /// [`Error::Header`] if the credentials cannot stand in a header.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        let authorization = config.credentials.as_ref().map(basic).transpose()?;
        let ClientConfig { connect_timeout, response_timeout, idle_timeout, max_body, trust, .. } = config;
        let secure = Arc::new(trust.map_or_else(OnceLock::new, |trust| OnceLock::from(Ok(secure(connect_timeout, &trust)))));
        let plain = pooled(connector(connect_timeout));
        Ok(Client { plain, secure, connect_timeout, response_timeout, idle_timeout, max_body, authorization })
    }

    /// Sends one request and waits for the head of its answer. Any status is an answer.
    ///
    /// # Errors
    /// [`Error`]; [`Error::nothing_was_sent`] tells whether it may have had an effect.
    pub async fn request(&self, method: Method, url: &Url, headers: HeaderMap, body: impl Into<Bytes>) -> Result<Response, Error> {
        let authority = check(url)?;
        let mut request = http::Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers;
        if let Some(value) = &self.authorization {
            request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| value.clone());
        }
        let pending = match url.scheme() == Some(&http::uri::Scheme::HTTPS) {
            true => self.secure()?.request(request),
            false => self.plain.request(request),
        };
        let answer = tokio::time::timeout(self.response_timeout, pending).await;
        let answer =
            answer.map_err(|_| Error::Timeout { authority: authority.clone(), what: "no answer", after: self.response_timeout })?;
        let (head, body) = answer.map_err(|error| failure(&authority, &error))?.into_parts();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body: Body::new(body, authority, self.idle_timeout),
            max_body: self.max_body,
        })
    }

    fn secure(&self) -> Result<&legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>, Error> {
        let of_system = || Trust::of_system().map(|trust| secure(self.connect_timeout, &trust)).map_err(|error| error.to_string());
        self.secure.get_or_init(of_system).as_ref().map_err(|reason| Error::Trust(reason.clone()))
    }

    /// A GET without headers of its own.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn get(&self, url: &Url) -> Result<Response, Error> {
        self.request(Method::GET, url, HeaderMap::new(), Bytes::new()).await
    }
}

fn connector(connect_timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(30)));
    connector
}

fn secure(connect_timeout: Duration, trust: &Trust) -> legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut connector = connector(connect_timeout);
    connector.enforce_http(false);
    pooled(HttpsConnector::from((connector, trust.config())))
}

fn pooled<C: Connect + Clone>(connector: C) -> legacy::Client<C, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(8)
        .build(connector)
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, Error> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", credentials.principal, credentials.secret));
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| Error::Header("Authorization"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Host and port of a URL that this client can use.
fn check(url: &Url) -> Result<String, Error> {
    let refused = |reason| Error::Address { url: url.to_string(), reason };
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err(refused("only http:// and https:// are supported")),
        None => return Err(refused("a URL must begin with http:// or https://")),
    }
    url.authority().map(host_and_port).ok_or_else(|| refused("a URL must name a host"))
}

/// Without user and password, which must not reach a log.
fn host_and_port(authority: &http::uri::Authority) -> String {
    authority.port().map_or_else(|| authority.host().to_owned(), |port| format!("{}:{port}", authority.host()))
}

fn failure(authority: &str, error: &legacy::Error) -> Error {
    let authority = authority.to_owned();
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = inner.to_string();
        cause = inner.source();
    }
    if error.is_connect() { Error::Connect { authority, reason } } else { Error::Broken { authority, reason } }
}

/// Parses what people write for a server: `host:port`, or a URL whose path is kept.
///
/// # Errors
/// [`Error::Address`].
pub fn parse_url(text: &str) -> Result<Url, Error> {
    let refused = |reason| Error::Address { url: text.to_owned(), reason };
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: Url = full.parse().map_err(|_| refused("not a URL"))?;
    check(&url)?;
    Ok(url)
}

/// The URL that a `Location` header means, seen from the URL that was asked: absolute, without a scheme
/// (`//host:port/path`, as Mesos masters send), a bare `host:port`, or a path. From `https` nothing leads to `http`: who
/// follows sends credentials.
#[must_use]
pub fn resolve(asked: &Url, location: &str) -> Option<Url> {
    let scheme = asked.scheme_str()?;
    let path = asked.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if location.contains("://") {
        let url: Url = location.parse().ok()?;
        return Some(url).filter(|url| scheme != "https" || url.scheme_str() == Some("https"));
    }
    if let Some(rest) = location.strip_prefix("//") {
        let with_path = if rest.contains('/') { rest.to_owned() } else { format!("{rest}{path}") };
        return format!("{scheme}://{with_path}").parse().ok();
    }
    let authority = host_and_port(asked.authority()?);
    let full = if location.starts_with('/') { format!("{scheme}://{authority}{location}") } else { format!("{scheme}://{location}{path}") };
    full.parse().ok()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn client(config: ClientConfig) -> Client {
        Client::new(config).unwrap()
    }

    /// A server that hands each connection, its request head read, to `answer`.
    async fn server<F, R>(answer: F) -> Url
    where
        F: Fn(TcpStream, String) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        break;
                    }
                    head.extend_from_slice(&byte);
                }
                tokio::spawn(answer(stream, String::from_utf8_lossy(&head).into_owned()));
            }
        });
        url
    }

    async fn say(mut stream: TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
        // Held open until the client goes away.
        let _ = stream.read(&mut [0]).await;
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_redirects_are_not_followed() {
        let url = server(|stream, _| async move {
            say(stream, "HTTP/1.1 307 Temporary Redirect\r\nLocation: //leader:5050/api\r\nContent-Length: 4\r\n\r\nnope").await;
        })
        .await;
        let response = client(ClientConfig::default()).request(Method::POST, &url, HeaderMap::new(), "x").await.unwrap();
        assert_eq!(response.status, 307);
        assert_eq!(response.header("location"), Some("//leader:5050/api"));
        assert_eq!(response.bytes().await.unwrap(), "nope");
    }

    #[tokio::test]
    async fn credentials_travel_with_every_request_and_are_not_printed() {
        let url = server(|stream, head| async move {
            let status = if head.to_lowercase().contains("authorization: basic cdpz") { "200 OK" } else { "401 Unauthorized" };
            say(stream, &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        })
        .await;
        let credentials = Some(Credentials { principal: "p".into(), secret: "s".into() });
        let config = ClientConfig { credentials, ..ClientConfig::default() };
        assert!(!format!("{config:?}").contains("\"s\""));
        let client = client(config);
        assert_eq!(client.get(&url).await.unwrap().status, 200);
        assert!(!format!("{client:?}").contains("cDpz"));
    }

    #[tokio::test]
    async fn a_body_streams_until_it_is_silent_for_too_long() {
        let url = server(|stream, _| async move {
            say(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await;
        })
        .await;
        let config = ClientConfig { idle_timeout: Duration::from_millis(50), ..ClientConfig::default() };
        let mut body = client(config).get(&url).await.unwrap().body;
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        assert!(matches!(body.next().await, Some(Err(Error::Timeout { what: "nothing more", .. }))));
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_comes_late_does_not_blame_the_server() {
        let url = server(|mut stream, _| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await.unwrap();
            // The next piece is there only when it is waited for.
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                stream.write_all(b"2\r\ncd\r\n").await.unwrap();
            }
            let _ = stream.read(&mut [0]).await;
        })
        .await;
        let config = ClientConfig { idle_timeout: Duration::from_millis(600), ..ClientConfig::default() };
        let mut body = client(config).get(&url).await.unwrap().body;
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        tokio::time::sleep(Duration::from_millis(700)).await;
        for _ in 0..3 {
            assert_eq!(body.next().await.unwrap().unwrap(), "cd");
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_and_an_absent_one_told_apart() {
        let url = server(|stream, _| say(stream, "")).await;
        let config = ClientConfig { response_timeout: Duration::from_millis(50), ..ClientConfig::default() };
        let silent = client(config).get(&url).await.unwrap_err();
        assert!(matches!(silent, Error::Timeout { what: "no answer", .. }) && !silent.nothing_was_sent(), "{silent}");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        let absent = client(ClientConfig::default()).get(&format!("http://{free}/").parse().unwrap()).await.unwrap_err();
        assert!(matches!(absent, Error::Connect { .. }) && absent.nothing_was_sent(), "{absent}");
        assert!(absent.to_string().contains("refused"), "{absent}");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_an_error_and_a_cut_one_too() {
        let url = server(|stream, _| say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef")).await;
        let response = client(ClientConfig { max_body: 5, ..ClientConfig::default() }).get(&url).await.unwrap();
        assert!(matches!(response.bytes().await, Err(Error::TooLarge { limit: 5, .. })));

        let url = server(|mut stream, _| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc").await.unwrap();
        })
        .await;
        let response = client(ClientConfig::default()).get(&url).await.unwrap();
        assert!(matches!(response.bytes().await, Err(Error::Broken { .. })));
    }

    #[test]
    fn locations_resolve_against_what_was_asked() {
        let asked: Url = "http://a:5050/api/v1/scheduler".parse().unwrap();
        let resolved = |location| resolve(&asked, location).unwrap().to_string();
        assert_eq!(resolved("//b:5050/api/v1/scheduler"), "http://b:5050/api/v1/scheduler");
        assert_eq!(resolved("//b:5050"), "http://b:5050/api/v1/scheduler");
        assert_eq!(resolved("b:5051"), "http://b:5051/api/v1/scheduler");
        assert_eq!(resolved("/x?y=1"), "http://a:5050/x?y=1");
        assert_eq!(resolved("https://b/z"), "https://b/z");
        assert!(resolve(&asked, "http://bad host/").is_none());
        let protected: Url = "https://a:5050/api/v1/scheduler".parse().unwrap();
        assert_eq!(resolve(&protected, "//b:5050").unwrap().to_string(), "https://b:5050/api/v1/scheduler");
        assert!(resolve(&protected, "http://b:5050/").is_none());
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        assert_eq!(parse_url("localhost:8080").unwrap().to_string(), "http://localhost:8080/");
        assert_eq!(parse_url("http://h:1/p").unwrap().to_string(), "http://h:1/p");
        assert_eq!(parse_url("https://h").unwrap().to_string(), "https://h/");
        assert!(parse_url("ftp://h").is_err());
        assert!(parse_url("").is_err());
    }
}
