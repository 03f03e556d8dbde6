//! Files in the sandboxes of agents, read by the agents' own operator API (READ_FILE; reference 3.8 and 3.18).
//!
//! Promises: an answer is bounded, whatever the agent sends; what went wrong names the agent and the path.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use podium_http::{Client, Method, Url};
use podium_proto::mesos::v1::agent::{Call, Response, call};
use prost::Message as _;

use crate::client::PROTOBUF;

/// The most that an agent puts into one answer: sixteen pages.
pub const MOST_A_READ: u64 = 64 << 10;

/// Data, and what little stands around it.
const MOST_AN_ANSWER: usize = 2 * MOST_A_READ as usize;

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// Bytes in the whole file, at the time of the answer.
    pub size: u64,
    /// Empty at the file's end, and beyond it.
    pub data: Bytes,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The agent does not know it: not written yet, or its sandbox was removed.
    #[error("the agent at {agent} has no file {path}")]
    Absent {
        /// Where was asked.
        agent: Url,
        /// For what.
        path: String,
    },
    /// The agent does not answer.
    #[error("the agent cannot be asked: {0}")]
    Unreachable(#[from] podium_http::Error),
    /// The agent shows its files to none but those it knows.
    #[error("the agent at {agent} answers {status}: it demands another login")]
    Login {
        /// Where was asked.
        agent: Url,
        /// 401 or 403.
        status: StatusCode,
    },
    /// The agent answers something else.
    #[error("the agent at {agent} refuses to show {path}: {reason}")]
    Refused {
        /// Where was asked.
        agent: Url,
        /// For what.
        path: String,
        /// What it said.
        reason: String,
    },
}

/// The file `name` in the sandbox of a task, as agents call it. An executor id names one launch, so that its latest run is
/// its only one.
#[must_use]
pub fn in_task_sandbox(framework_id: &str, executor_id: &str, task_id: &str, name: &str) -> String {
    format!("/frameworks/{framework_id}/executors/{executor_id}/runs/latest/tasks/{task_id}/{name}")
}

/// Up to `length` bytes of a file from `offset`, and never more than [`MOST_A_READ`]. `agent` is the agent's address with its
/// path, such as `http://10.0.0.7:5051/slave(1)`.
///
/// # Errors
/// [`FileError`].
pub async fn read(client: &Client, agent: &Url, path: &str, offset: u64, length: u64) -> Result<Portion, FileError> {
    let refused = |reason: String| FileError::Refused { agent: agent.clone(), path: path.to_owned(), reason };
    let url = podium_http::parse_url(&format!("{}/api/v1", agent.to_string().trim_end_matches('/')))?;
    let read_file = call::ReadFile { path: path.to_owned(), offset, length: Some(length.min(MOST_A_READ)) };
    let call = Call { r#type: Some(call::Type::ReadFile.into()), read_file: Some(read_file), ..Call::default() };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, PROTOBUF);
    headers.insert(header::ACCEPT, PROTOBUF);
    let answer = client.request(Method::POST, &url, headers, call.encode_to_vec()).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(FileError::Absent { agent: agent.clone(), path: path.to_owned() }),
        status => {
            let said = answer.excerpt(200).await;
            // An agent of Mesos that does not let us says nothing with a 403; the embedded one says what is wrong with the path.
            let is_login = status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && said.is_empty());
            return Err(if is_login { FileError::Login { agent: agent.clone(), status } } else { refused(format!("{status}: {said}")) });
        }
    }
    let body = answer.body.collect(MOST_AN_ANSWER).await?;
    let read = Response::decode(body).ok().and_then(|response| response.read_file);
    let read = read.ok_or_else(|| refused("its answer holds no file".to_owned()))?;
    Ok(Portion { size: read.size, data: read.data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_as_agents_name_it() {
        assert_eq!(in_task_sandbox("F", "E.1", "T.a.1", "stdout"), "/frameworks/F/executors/E.1/runs/latest/tasks/T.a.1/stdout");
    }
}
