//! The connection: one etcd client a process, with the limits, time-outs and keep-alives that etcd-client does
//! not set by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, KvClient, LeaseClient, TlsOptions, Txn, WatchClient};
use tokio::sync::{OnceCell, watch};
use tonic::Code;

use crate::key::{DEFAULT_PREFIX, Key, Keyspace};
use crate::view::Held;
use crate::writer::batch::{self, Answer};
use crate::writer::{Group, Outcome};

/// The largest answer that is read, in bytes. tonic's own limit of 4 MiB is less than a page of definitions.
const MAX_ANSWER: usize = 64 << 20;

/// What etcd says when it is busy for the moment; by the same code as when its disk quota is used up.
const BUSY: &str = "too many requests";

/// A refusal that lasts so long is none that passes by itself, as while etcd's users are being changed.
pub(crate) const LASTING: Duration = Duration::from_secs(3);

/// So often that is looked at before it is believed without another sign.
const MOST_LOOKS: u32 = 4;

/// Why whatever this process writes is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    reason: String,
    /// The store does not let us in; it may let others.
    is_of_us: bool,
}

/// How to reach the store.
#[derive(Clone)]
pub struct StoreConfig {
    /// `http://host:port` or `https://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// Where the keys stand; see [`DEFAULT_PREFIX`].
    pub prefix: String,
    /// Needed for `https`.
    pub tls: Option<StoreTls>,
    /// Name and password, where etcd has authentication switched on.
    pub user: Option<(String, String)>,
    /// For one connection to one endpoint.
    pub connect_timeout: Duration,
    /// For one request.
    pub request_timeout: Duration,
    /// How often a silent connection is asked for a sign of life. etcd ends connections that ask more often than its
    /// `--grpc-keepalive-min-time`, 5 s by default.
    pub keep_alive_interval: Duration,
    /// How long that sign may take before the connection counts as dead.
    pub keep_alive_timeout: Duration,
}

/// PEM texts for TLS.
#[derive(Clone, Default)]
pub struct StoreTls {
    /// The authority that signed the servers' certificates.
    pub ca: Option<Vec<u8>>,
    /// Our own certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the servers' certificates, when it is not the endpoint's.
    pub domain: Option<String>,
}

impl StoreConfig {
    /// These endpoints, and the usual settings.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: DEFAULT_PREFIX.to_owned(),
            tls: None,
            user: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(7),
            keep_alive_timeout: Duration::from_secs(3),
        }
    }
}

/// Where a store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// etcd's own id of its cluster.
    pub cluster_id: u64,
    /// The newest revision.
    pub revision: i64,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configuration cannot work.
    #[error("the store's configuration cannot work: {0}")]
    Config(String),
    /// Not reached, or no answer: worth trying again. A write may have happened.
    #[error("no answer from the store at {endpoints}: {reason}")]
    Unavailable {
        /// Who was asked.
        endpoints: String,
        /// In etcd's or the transport's words.
        reason: String,
    },
    /// The store answered, and refuses.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The answer is larger than what is read: ask for less at a time.
    #[error("the store's answer is too large: {0}")]
    TooLarge(String),
    /// The history that was asked for is gone.
    #[error("that part of the store's history is compacted")]
    Compacted,
}

/// The store. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: StoreConfig,
    client: OnceCell<Client>,
    /// See [`Store::refusal`].
    refusal: watch::Sender<Option<Refusal>>,
    keys: Keyspace,
    endpoints: String,
}

impl Store {
    /// A store that is connected to when it is first asked something, and as long as that fails, the next time.
    pub fn open(config: StoreConfig) -> Self {
        let (keys, endpoints) = (Keyspace::new(&config.prefix), config.endpoints.join(","));
        Self { inner: Arc::new(Inner { config, client: OnceCell::new(), refusal: watch::Sender::default(), keys, endpoints }) }
    }

    /// Connects, and proves it by one read that a majority of the members stands behind.
    pub async fn connect(config: StoreConfig) -> Result<Self, StoreError> {
        let store = Self::open(config);
        store.get(&Key::Framework).await?;
        Ok(store)
    }

    /// The way between keys and bytes.
    pub fn keyspace(&self) -> &Keyspace {
        &self.inner.keys
    }

    /// Reads one key's bytes, as a majority of the members knows it now.
    pub async fn get(&self, key: &Key) -> Result<Option<Held<Bytes>>, StoreError> {
        let mut kv = self.kv().await?;
        let response = self.answer(kv.get(self.inner.keys.encode(key), None)).await?;
        Ok(response.0.kvs.into_iter().next().map(|kv| Held {
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            value: kv.value.into(),
        }))
    }

    /// Where the store itself stands, as a majority of the members knows it now: an index may be behind, or of what was there before
    /// a backup was restored.
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        let mut kv = self.kv().await?;
        let options = GetOptions::new().with_count_only();
        let response = self.answer(kv.get(self.inner.keys.encode(&Key::Framework), Some(options))).await?;
        let header = response.0.header.unwrap_or_default();
        Ok(Standing { cluster_id: header.cluster_id, revision: header.revision })
    }

    /// Commits one group at once and by itself, fenced by nothing but its own conditions: for the API's writes.
    pub async fn commit(&self, group: Group) -> Outcome {
        if let Err(reason) = batch::check(&group, self.keyspace()) {
            return Outcome::Refused(reason);
        }
        match self.transact(batch::transaction(&group, self.keyspace())).await {
            Ok(Answer { succeeded: true, revision, wrote, .. }) => Outcome::Committed { revision: if wrote { revision } else { 0 } },
            Ok(Answer { newest, .. }) => Outcome::Conflict { revision: newest },
            Err(StoreError::Refused(reason)) => Outcome::Refused(reason),
            Err(error) => {
                tracing::warn!(%error, "a write was not answered");
                Outcome::Unknown { revision: 0 }
            }
        }
    }

    pub(crate) async fn transact(&self, txn: Txn) -> Result<Answer, StoreError> {
        let mut kv = self.kv().await?;
        let call = async {
            kv.txn(txn).await.inspect_err(|error| {
                if let Some(refusal) = Refusal::of_every_write(error) {
                    self.note_refusal(Some(refusal));
                }
            })
        };
        let answer = Answer::read(self.answer(call).await?);
        if answer.put {
            self.note_refusal(None);
        }
        Ok(answer)
    }

    /// Why the store refused the last write of this process that it answered, if it would refuse any: its disk quota is used up, or
    /// it does not let us in any more. `None`: it took that write.
    pub fn refusal(&self) -> Option<String> {
        self.inner.refusal.borrow().as_ref().map(|refusal| refusal.reason.clone())
    }

    /// Waits until the store does not let us write any more, though it may let others, and that has lasted for a time in which
    /// refusals that pass by themselves have passed; why. Where we may still read, it is only after a longer time without a write
    /// that was taken that nobody can tell the difference: who leads then stands again, which is a write.
    pub(crate) async fn locked_out(&self) -> String {
        let mut refusals = self.inner.refusal.subscribe();
        // What stood before is known to whoever waits.
        refusals.mark_unchanged();
        loop {
            if refusals.changed().await.is_err() {
                // The sender lives as long as `self`.
                std::future::pending::<()>().await;
            }
            let mut looks = 0;
            while let Some(reason) = self.refusal_of_us() {
                if looks > 0 && matches!(self.get(&Key::Framework).await, Err(StoreError::Refused(_))) || looks >= MOST_LOOKS {
                    return reason;
                }
                looks += 1;
                tokio::time::sleep(LASTING).await;
            }
        }
    }

    fn refusal_of_us(&self) -> Option<String> {
        self.inner.refusal.borrow().as_ref().filter(|refusal| refusal.is_of_us).map(|refusal| refusal.reason.clone())
    }

    fn note_refusal(&self, refusal: Option<Refusal>) {
        self.inner.refusal.send_if_modified(|last| {
            match (&*last, &refusal) {
                (None, Some(refusal)) => tracing::error!(reason = refusal.reason, "the store refuses to be written to"),
                (Some(_), None) => tracing::info!("the store takes writes again"),
                _ => {}
            }
            let changed = *last != refusal;
            *last = refusal;
            changed
        });
    }

    pub(crate) async fn kv(&self) -> Result<KvClient, StoreError> {
        Ok(self.client().await?.kv_client().max_decoding_message_size(MAX_ANSWER))
    }

    pub(crate) async fn watches(&self) -> Result<WatchClient, StoreError> {
        Ok(self.client().await?.watch_client().max_decoding_message_size(MAX_ANSWER))
    }

    pub(crate) async fn leases(&self) -> Result<LeaseClient, StoreError> {
        Ok(self.client().await?.lease_client())
    }

    /// The one client. Where etcd asks for a name and a password it is there only once etcd has taken them.
    async fn client(&self) -> Result<&Client, StoreError> {
        // Who comes while others try waits for their turns: no longer than one try takes.
        let patience = self.inner.config.connect_timeout + self.inner.config.request_timeout;
        let client = self.inner.client.get_or_try_init(|| self.inner.connect());
        tokio::time::timeout(patience, client).await.map_err(|_| timed_out(&self.inner.endpoints, patience))?
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn answer<T>(&self, call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, StoreError> {
        let patience = self.inner.config.request_timeout;
        match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer.map_err(|error| explain(&self.inner.endpoints, &error)),
            Err(_) => Err(timed_out(&self.inner.endpoints, patience)),
        }
    }
}

impl Inner {
    async fn connect(&self) -> Result<Client, StoreError> {
        let config = &self.config;
        let mut options = ConnectOptions::new()
            .with_keep_alive(config.keep_alive_interval, config.keep_alive_timeout)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(config.connect_timeout)
            .with_auto_token_refresh(config.user.is_some())
            .with_require_leader(true);
        if let Some((name, password)) = &config.user {
            options = options.with_user(name, password);
        }
        if let Some(tls) = config.tls.clone() {
            options = options.with_tls(tls.into_options());
        }
        let patience = config.connect_timeout + config.request_timeout;
        match tokio::time::timeout(patience, Client::connect(&config.endpoints, Some(options))).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(explain(&self.endpoints, &error)),
            Err(_) => Err(timed_out(&self.endpoints, patience)),
        }
    }
}

impl StoreTls {
    fn into_options(self) -> TlsOptions {
        let mut options = TlsOptions::new();
        if let Some(ca) = self.ca {
            options = options.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = self.identity {
            options = options.identity(Identity::from_pem(certificate, key));
        }
        if let Some(domain) = self.domain {
            options = options.domain_name(domain);
        }
        options
    }
}

fn timed_out(endpoints: &str, after: Duration) -> StoreError {
    StoreError::Unavailable { endpoints: endpoints.to_owned(), reason: format!("none within {after:?}; does it run there?") }
}

impl Refusal {
    /// That of an error, if it is not about one write alone.
    fn of_every_write(error: &etcd_client::Error) -> Option<Self> {
        let etcd_client::Error::GRpcStatus(status) = error else { return None };
        let message = status.message();
        let is_of_us = match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => true,
            // etcd's code for a wrong name or password, and for a token of before they were changed.
            Code::InvalidArgument => message.contains("authentication failed") || message.contains("auth store is old"),
            _ => false,
        };
        let is_full = status.code() == Code::ResourceExhausted && !message.contains(BUSY);
        (is_of_us || is_full).then(|| Self { reason: message.to_owned(), is_of_us })
    }
}

/// Sorts an error by what the caller can do: try again, ask otherwise, or give up.
fn explain(endpoints: &str, error: &etcd_client::Error) -> StoreError {
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => return StoreError::Config(error.to_string()),
        other => return StoreError::Unavailable { endpoints: endpoints.to_owned(), reason: other.to_string() },
    };
    let message = status.message().to_owned();
    match status.code() {
        Code::OutOfRange if message.contains("compacted") => StoreError::Compacted,
        Code::OutOfRange if message.contains("too large") => StoreError::TooLarge(message),
        Code::ResourceExhausted if !message.contains(BUSY) => StoreError::Refused(message),
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::Unimplemented
        | Code::OutOfRange => StoreError::Refused(message),
        _ => StoreError::Unavailable { endpoints: endpoints.to_owned(), reason: message },
    }
}
