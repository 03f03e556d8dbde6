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
use podium_proto::wire::text;
use prost::Message as _;

use crate::client::{Candidates, ConfigError, MAX_REDIRECTS, Masters, PROTOBUF};

/// The scheduler API's path below that of the operator API.
const SCHEDULER: &str = "/scheduler";

/// For ZooKeeper to say who leads.
const PATIENCE: Duration = Duration::from_secs(20);

/// For one answer. GET_TASKS has every task of every framework, some kilobytes each, and what waits for it kills nothing
/// until it is there: enough for a cluster of a hundred thousand, and no more than a replica has memory for.
const LARGEST_ANSWER: usize = 512 << 20;

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

    /// Every task of a framework that has not ended, also of agents that are away; with its labels.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn tasks(&self, framework_id: &str) -> Result<Vec<v1::Task>, OperatorError> {
        let (url, body) = self.ask(call::Type::GetTasks).await?;
        let framework_id = framework_id.to_owned();
        // A large cluster's answer takes seconds to read.
        let tasks = tokio::task::spawn_blocking(move || tasks_of(body, &framework_id)).await;
        tasks.ok().flatten().ok_or(OperatorError::Malformed(url))
    }

    /// How many agents this master knows of and waits for: since it leads they have not come back, and until they do, or
    /// their time is over, it knows nothing of their tasks.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn agents_away(&self) -> Result<usize, OperatorError> {
        let agents = self.pick(call::Type::GetAgents, |response| response.get_agents).await?;
        Ok(agents.recovered_agents.len())
    }

    /// Every framework that is not removed.
    ///
    /// # Errors
    /// [`OperatorError`], of the last master that was asked.
    pub async fn frameworks(&self) -> Result<Vec<KnownFramework>, OperatorError> {
        let frameworks = self.pick(call::Type::GetFrameworks, |response| response.get_frameworks).await?.frameworks;
        let known = |one: v1::master::response::get_frameworks::Framework| {
            let id = one.framework_info.id?.value;
            let holds_resources = one.recovered || !one.allocated_resources.is_empty();
            Some(KnownFramework { id, name: one.framework_info.name, connected: one.connected, holds_resources })
        };
        Ok(frameworks.into_iter().filter_map(known).collect())
    }

    async fn pick<T>(&self, kind: call::Type, pick: impl Fn(Response) -> Option<T>) -> Result<T, OperatorError> {
        let (url, body) = self.ask(kind).await?;
        text::decode(&body).ok().and_then(pick).ok_or(OperatorError::Malformed(url))
    }

    /// An answer, and whose it is.
    async fn ask(&self, kind: call::Type) -> Result<(Url, Bytes), OperatorError> {
        let call = Bytes::from(Call { r#type: Some(kind.into()), ..Call::default() }.encode_to_vec());
        let (candidates, detector) = Candidates::new(&self.masters, self.secure)?;
        tokio::select! {
            answer = self.ask_any(candidates, &call) => answer,
            never = detector.run() => match never {},
        }
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

/// The answer to GET_TASKS, its tasks unread: parts of the answer's bytes, which takes no memory.
#[derive(Clone, PartialEq, prost::Message)]
struct TasksAnswer {
    #[prost(message, optional, tag = "13")]
    get_tasks: Option<UnreadTasks>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnreadTasks {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    tasks: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    unreachable_tasks: Vec<Bytes>,
}

/// Whose a task is.
#[derive(Clone, PartialEq, prost::Message)]
struct Whose {
    #[prost(message, optional, tag = "3")]
    framework_id: Option<v1::FrameworkId>,
}

/// Reads the tasks of one framework, and of the others no more than whose they are. `None`: it is no such answer.
fn tasks_of(answer: Bytes, framework_id: &str) -> Option<Vec<v1::Task>> {
    let unread = TasksAnswer::decode(answer).ok()?.get_tasks?;
    let mut tasks = Vec::new();
    for task in unread.tasks.into_iter().chain(unread.unreachable_tasks) {
        if Whose::decode(task.clone()).ok()?.framework_id.is_some_and(|whose| whose.value == framework_id) {
            tasks.push(text::decode(&task).ok()?);
        }
    }
    Some(tasks)
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::master::response;

    use super::*;

    #[test]
    fn the_tasks_of_one_framework_are_read_from_an_answer_about_all() {
        let task = |framework: &str, id: &str| v1::Task {
            name: id.to_owned(),
            task_id: v1::TaskId { value: id.to_owned() },
            framework_id: v1::FrameworkId { value: framework.to_owned() },
            labels: Some(v1::Labels { labels: vec![v1::Label { key: "k".to_owned(), value: Some("v".to_owned()) }] }),
            ..v1::Task::default()
        };
        let get_tasks = response::GetTasks {
            tasks: vec![task("F", "t1"), task("G", "t2")],
            completed_tasks: vec![task("F", "t3")],
            unreachable_tasks: vec![task("G", "t4"), task("F", "t5")],
            ..response::GetTasks::default()
        };
        let answer = Response { r#type: Some(response::Type::GetTasks.into()), get_tasks: Some(get_tasks), ..Response::default() };
        let answer = Bytes::from(answer.encode_to_vec());
        assert_eq!(tasks_of(answer.clone(), "F").unwrap(), [task("F", "t1"), task("F", "t5")]);
        assert_eq!(tasks_of(answer.clone(), "H").unwrap(), []);
        assert_eq!(tasks_of(answer.slice(..answer.len() - 1), "F"), None);
        assert_eq!(tasks_of(Bytes::new(), "F"), None, "that nothing runs must be said");
    }
}
