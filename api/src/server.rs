//! The accept loop: bounds connections, encrypts them where told, times slow clients out, and ends within a deadline.
//!
//! warp's own server sets no timer (a half-sent head would hold a connection for ever) and waits for its last
//! client however long that takes, so its filters run under this loop instead.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;

use crate::tls::Tls;

/// What the routes end in.
pub(crate) type Routes = BoxedFilter<(warp::reply::Response,)>;

/// Who is at the other end of the connection, in a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

/// How the loop treats its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// A request's head must have arrived in this time; an idle connection is closed after it.
    pub head_timeout: Duration,
    /// A client that takes nothing of its answer for so long is cut off.
    pub stall_timeout: Duration,
    /// Requests under way may take this long after a shutdown began.
    pub drain: Duration,
    /// A listener that is so many events behind is cut off: some seconds of a cluster that starts thousands of instances.
    pub events_behind: usize,
    /// Between two signs of life on a stream of events.
    pub heartbeat: Duration,
    /// How long a read waits for the revision that it asks for, and a write's answer for its own.
    pub catch_up: Duration,
    /// Between two looks whether a file of tokens, a password or a certificate has changed.
    pub look_again: Duration,
    /// A write that meets others' is not tried again after so long: who asks shall hear of it before they give up.
    pub write_patience: Duration,
    /// A store that has not answered for so long makes the server unready.
    pub store_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(5),
            events_behind: 8_192,
            heartbeat: Duration::from_secs(15),
            catch_up: Duration::from_secs(10),
            look_again: Duration::from_secs(1),
            write_patience: Duration::from_secs(15),
            store_patience: Duration::from_secs(10),
        }
    }
}

/// A listener that serves until it is shut down. Dropping it stops accepting and cuts connections.
#[derive(Debug)]
pub(crate) struct Serving {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Serves `routes` on `listener`, encrypted if there is a certificate, until `stop`.
    pub(crate) fn start(
        listener: TcpListener,
        routes: Routes,
        tls: Option<Tls>,
        limits: Limits,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, routes, tls.map(Arc::new), limits, stop.clone()));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests under way end, and cuts off what has not ended by the deadline.
    pub(crate) async fn shutdown(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!("the API's accept loop panicked");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, routes: Routes, tls: Option<Arc<Tls>>, limits: Limits, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, peer, slot)) => {
                let (routes, tls, watcher, limits) = (routes.clone(), tls.clone(), graceful.watcher(), limits.clone());
                connections.spawn(async move {
                    connection(stream, peer, routes, tls.as_deref(), watcher, &limits).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                // Out of file descriptors: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were cut off by the shutdown");
    }
    connections.shutdown().await;
}

type Accepted = (TcpStream, Peer, tokio::sync::OwnedSemaphorePermit);

async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    Ok((stream, Peer(from.ip().to_canonical()), slot))
}

async fn connection(stream: TcpStream, peer: Peer, routes: Routes, tls: Option<&Tls>, watcher: Watcher, limits: &Limits) {
    // Small answers must not wait for more; failing to say so costs time only.
    let _ = stream.set_nodelay(true);
    let stall = u32::try_from(limits.stall_timeout.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
    let Some(tls) = tls else { return serve(stream, peer, routes, watcher, limits).await };
    match tokio::time::timeout(limits.head_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, peer, routes, watcher, limits).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %peer.0, "no encrypted connection came about"),
        Err(_) => tracing::debug!(peer = %peer.0, "an encrypted connection was not agreed on in time"),
    }
}

/// A request in absolute form (`GET http://host/path`) is for the host of its target, whatever `Host` says (RFC 9112, 3.2.2).
fn named_by_target(request: &mut hyper::Request<hyper::body::Incoming>) {
    let Some(authority) = request.uri().authority() else { return };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    // What is no header names no host of ours.
    let host = HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""));
    request.headers_mut().insert(HOST, host);
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    routes: Routes,
    watcher: Watcher,
    limits: &Limits,
) {
    let routes = TowerToHyperService::new(warp::service(routes));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        named_by_target(&mut request);
        if request.uri().path_and_query().is_none() {
            // `CONNECT host:80`, `GET x`: no route of ours, and warp's filters panic without a path.
            *request.uri_mut() = http::Uri::from_static("/");
        }
        routes.call(request)
    });
    // HTTP/1 alone: the builder that also detects HTTP/2 reads the first bytes without a timer.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        // Who says that it sends no more still wants its answer.
        .half_close(true)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
