//! The operator API of a Mesos master, as far as Podium asks it: which tasks run, and which frameworks there are.
//!
//! The scheduler API never shows a task's labels; this one does. Asked of each master in turn until one, or the leader
//! to whom it redirects, answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use podium_http::{Client, ClientConfig, Credentials, Method, Trust, Url};
use podium_proto::mesos::v1;
use podium_proto::mesos::v1::master::{Call, Response, call};
use prost::Message as _;

use crate::client::{Candidates, ConfigError, MAX_REDIRECTS, Masters, PROTOBUF};

/// The scheduler API's path below that of the operator API.
const SCHEDULER: &str = "/scheduler";

/// For ZooKeeper to say who leads.
const PATIENCE: Duration = Duration::from_secs(20);

/// For one answer. GET_TASKS has every task of every framework, some kilobytes each, and what waits for it kills nothing
/// until it is there: the limit is for a peer that never ends, not for a cluster of some hundred thousand tasks.
const LARGEST_ANSWER: usize = 1 << 30;

/// Why there is no answer. The words are for people.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The master answers, and will not tell.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// Who was asked.
        url: Url,
        /// Its answer.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// No answer at all.
    #[error(transparent)]
    Http(#[from] podium_http::Error),
    /// A redirect that leads nowhere, or round in circles.
    #[error("{0} redirects to nowhere")]
    Redirect(Url),
    /// Nobody is known to lead.
    #[error("{0}")]
    NoLeader(String),
    /// The masters can't be asked at all.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An answer that is none.
    #[error("{0} answered something else than was asked for; is it a Mesos master?")]
    Malformed(Url),
}

/// Asks masters.
#[derive(Debug, Clone)]
pub struct Operator {
    client: Client,
    masters: Masters,
    secure: bool,
}

/// A framework that is not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFramework {
    /// Its id.
    pub id: String,
    /// Its name; empty when the master has been restarted since and the framework has not come back.
    pub name: String,
    /// Whether it is subscribed.
    pub connected: bool,
    /// Whether tasks of it hold resources, or may: the master has been restarted since.
    pub holds_resources: bool,
}

impl OperatorError {
    /// Whether the master is there and will not tell us: another try is of no use.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, OperatorError::Status { status, .. } if status.is_client_error())
    }

    /// Whether the answer is larger than any that is read: it is the same soon after.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, OperatorError::Http(podium_http::Error::TooLarge { .. }))
    }
}

impl Operator {
    /// `masters`, `credentials` and `trust` as in [`crate::client::MesosConfig`].
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(masters: &Masters, credentials: Option<Credentials>, trust: Option<Trust>) -> Result<Self, ConfigError> {
        let secure = trust.is_some();
        Candidates::new(masters, secure)?;
        let client = Client::new(ClientConfig { credentials, trust, max_body: LARGEST_ANSWER, ..ClientConfig::default() })?;
        Ok(Self { client, masters: masters.clone(), secure })
    }

    /// Every task that has not ended, of every framework, also of agents that are away; with its labels.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn tasks(&self) -> Result<Vec<v1::Task>, OperatorError> {
        let tasks = self.ask(call::Type::GetTasks, |response| response.get_tasks).await?;
        Ok(tasks.tasks.into_iter().chain(tasks.unreachable_tasks).collect())
    }

    /// How many agents this master knows of and waits for: since it leads they have not come back, and until they do, or
    /// their time is over, it knows nothing of their tasks.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn agents_away(&self) -> Result<usize, OperatorError> {
        Ok(self.ask(call::Type::GetAgents, |response| response.get_agents).await?.recovered_agents.len())
    }

    /// Every framework that is not removed.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn frameworks(&self) -> Result<Vec<KnownFramework>, OperatorError> {
        let frameworks = self.ask(call::Type::GetFrameworks, |response| response.get_frameworks).await?.frameworks;
        let known = |one: v1::master::response::get_frameworks::Framework| {
            let id = one.framework_info.id?.value;
            let holds_resources = one.recovered || !one.allocated_resources.is_empty();
            Some(KnownFramework { id, name: one.framework_info.name, connected: one.connected, holds_resources })
        };
        Ok(frameworks.into_iter().filter_map(known).collect())
    }

    async fn ask<T>(&self, kind: call::Type, pick: impl Fn(Response) -> Option<T>) -> Result<T, OperatorError> {
        let call = Bytes::from(Call { r#type: Some(kind.into()), ..Call::default() }.encode_to_vec());
        let (candidates, detector) = Candidates::new(&self.masters, self.secure)?;
        let (url, body) = tokio::select! {
            answer = self.ask_any(candidates, &call) => answer?,
            never = detector.run() => match never {},
        };
        let answer = Response::decode(body).ok().and_then(pick);
        answer.ok_or(OperatorError::Malformed(url))
    }

    /// The answer of the first that gives one.
    async fn ask_any(&self, mut candidates: Candidates, call: &Bytes) -> Result<(Url, Bytes), OperatorError> {
        let mut left = if let Masters::List(list) = &self.masters { list.len() } else { 1 };
        loop {
            let scheduler = match candidates.next() {
                Ok(url) => url,
                Err(unknown) => match tokio::time::timeout(PATIENCE, candidates.news()).await {
                    Ok(()) => continue,
                    Err(_) => return Err(OperatorError::NoLeader(unknown)),
                },
            };
            let text = scheduler.to_string();
            let url: Url = text.strip_suffix(SCHEDULER).unwrap_or(&text).parse().map_err(|_| OperatorError::Redirect(scheduler))?;
            left = left.saturating_sub(1);
            match self.post(&url, call).await {
                Err(_) if left > 0 => {}
                answer => return answer,
            }
        }
    }

    async fn post(&self, url: &Url, call: &Bytes) -> Result<(Url, Bytes), OperatorError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        headers.insert(header::ACCEPT, PROTOBUF);
        let mut url = url.clone();
        for _ in 0..MAX_REDIRECTS {
            let response = self.client.request(Method::POST, &url, headers.clone(), call.clone()).await?;
            match response.status {
                StatusCode::OK => return Ok((url, response.bytes().await?)),
                StatusCode::TEMPORARY_REDIRECT => {
                    let next = response.header(header::LOCATION).and_then(|location| podium_http::resolve(&url, location));
                    url = next.ok_or(OperatorError::Redirect(url))?;
                }
                status => return Err(OperatorError::Status { url, status, text: response.excerpt(500).await }),
            }
        }
        Err(OperatorError::Redirect(url))
    }
}
