//! The operator API of a Mesos master, as far as Podium asks it: which tasks run.
//!
//! The scheduler API never shows a task's labels; this one does. Asked of each master in turn until one, or the leader
//! to whom it redirects, answers.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use podium_http::{Client, ClientConfig, Credentials, Method, Url};
use podium_proto::mesos::v1;
use podium_proto::mesos::v1::master::{Call, Response, call};
use prost::Message as _;

use crate::client::ConfigError;
use crate::client::PROTOBUF;

/// Path of the operator API below a master's address.
const PATH: &str = "/api/v1";

/// Masters that send us round in circles are given up after so many hops.
const MAX_REDIRECTS: usize = 5;

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
    /// An answer that is none.
    #[error("{0} answered something else than was asked for; is it a Mesos master?")]
    Malformed(Url),
}

/// Asks masters.
#[derive(Debug, Clone)]
pub struct Operator {
    client: Client,
    urls: Vec<Url>,
}

impl Operator {
    /// `masters` as in [`crate::client::MesosConfig`].
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(masters: &[String], credentials: Option<Credentials>) -> Result<Self, ConfigError> {
        if masters.is_empty() {
            return Err(ConfigError::NoMaster);
        }
        let client = Client::new(ClientConfig { credentials, ..ClientConfig::default() })?;
        let parse = |master: &String| podium_http::parse_url(&format!("{}{PATH}", master.trim_end_matches('/')));
        let urls = masters.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { client, urls })
    }

    /// Every task that has not ended, of every framework, also of agents that are away; with its labels.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn tasks(&self) -> Result<Vec<v1::Task>, OperatorError> {
        let tasks = self.ask(call::Type::GetTasks, |response| response.get_tasks).await?;
        Ok(tasks.tasks.into_iter().chain(tasks.unreachable_tasks).collect())
    }

    async fn ask<T>(&self, kind: call::Type, pick: impl Fn(Response) -> Option<T>) -> Result<T, OperatorError> {
        let call = Bytes::from(Call { r#type: Some(kind.into()), ..Call::default() }.encode_to_vec());
        let mut last = None;
        for url in &self.urls {
            match self.post(url, &call).await {
                Ok((url, body)) => {
                    let answer = Response::decode(body).ok().and_then(&pick);
                    return answer.ok_or(OperatorError::Malformed(url));
                }
                Err(error) => last = Some(error),
            }
        }
        // There is at least one master.
        Err(last.unwrap_or_else(|| OperatorError::Redirect(Url::default())))
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
