//! The operator's calls at an agent (`/api/v1`, `/files/…`): health, what runs, and the files of sandboxes.

use bytes::Bytes;
use http::{Method, StatusCode};
use podium_proto::mesos::v1::{
    self, AgentInfo, FileInfo, FrameworkId, Task, TaskState, VersionInfo,
    agent::{
        Call, Response, call,
        response::{self, Type},
    },
};
use serde_json::json as value;
use tokio::sync::oneshot;

use super::{
    files::{Denied, Files},
    http::{Answer, Context},
    owner::{Life, Message, Owner, TaskKey},
};
use crate::{
    encoding::Encoding,
    http::{text, whole},
};

/// The version of Mesos whose ways are followed.
const VERSION: &str = "1.11.0";

/// What runs on the agent, for those who look on.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub info: AgentInfo,
    pub frameworks: Vec<v1::FrameworkInfo>,
    pub executors: Vec<v1::ExecutorInfo>,
    pub completed_executors: Vec<v1::ExecutorInfo>,
    pub tasks: Vec<Task>,
}

impl Owner {
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { info: self.info.clone(), ..Summary::default() };
        for (key, executor) in &self.executors {
            let ended = executor.life == Life::Dead;
            let list = if ended { &mut summary.completed_executors } else { &mut summary.executors };
            list.push(executor.record.executor.clone());
            if !summary.frameworks.iter().any(|framework| framework.id == executor.record.framework.id) {
                summary.frameworks.push(executor.record.framework.clone());
            }
            for info in &executor.record.tasks {
                let stream = self
                    .tasks
                    .get(&TaskKey { framework: key.framework.clone(), task: info.task_id.value.clone() })
                    .map(|task| &task.stream);
                summary.tasks.push(Task {
                    name: info.name.clone(),
                    task_id: info.task_id.clone(),
                    framework_id: FrameworkId { value: key.framework.clone() },
                    executor_id: Some(executor.record.executor.executor_id.clone()),
                    agent_id: self.agent_id.clone(),
                    state: stream.and_then(|stream| stream.latest()).unwrap_or(TaskState::TaskStaging).into(),
                    resources: info.resources.clone(),
                    statuses: stream.and_then(|stream| stream.forwarded()).cloned().into_iter().collect(),
                    labels: info.labels.clone(),
                    discovery: info.discovery.clone(),
                    container: info.container.clone(),
                    ..Task::default()
                });
            }
        }
        summary
    }
}

/// Carries out one call.
pub(super) async fn handle(call: Call, accept: Option<Encoding>, context: &Context) -> Answer {
    let Some(encoding) = accept else {
        return text(StatusCode::NOT_ACCEPTABLE, "this is answered in application/json or application/x-protobuf");
    };
    let response = match call.r#type.map(call::Type::try_from) {
        Some(Ok(call::Type::GetHealth)) => {
            Ok(of(Type::GetHealth, |response| response.get_health = Some(response::GetHealth { healthy: true })))
        }
        Some(Ok(call::Type::GetVersion)) => Ok(of(Type::GetVersion, |response| {
            response.get_version =
                Some(response::GetVersion { version_info: VersionInfo { version: VERSION.to_owned(), ..VersionInfo::default() } });
        })),
        Some(Ok(call::Type::GetState)) => state(context).await,
        Some(Ok(call::Type::GetAgent)) => agent(context).await,
        Some(Ok(call::Type::ListFiles)) => match call.list_files {
            Some(list) => list_files(&context.files, list.path)
                .await
                .map(|file_infos| of(Type::ListFiles, |response| response.list_files = Some(response::ListFiles { file_infos }))),
            None => Err((StatusCode::BAD_REQUEST, "Expecting 'list_files' to be present")),
        },
        Some(Ok(call::Type::ReadFile)) => match call.read_file {
            Some(read) => read_file(&context.files, read.path, read.offset, read.length).await.map(|(size, data)| {
                of(Type::ReadFile, |response| response.read_file = Some(response::ReadFile { size, data: data.into() }))
            }),
            None => Err((StatusCode::BAD_REQUEST, "Expecting 'read_file' to be present")),
        },
        None | Some(Err(_)) => Err((StatusCode::BAD_REQUEST, "Expecting 'type' to be present and known")),
        Some(Ok(_)) => Err((StatusCode::NOT_IMPLEMENTED, "the embedded agent does not serve this call")),
    };
    match response {
        Ok(response) => whole(StatusCode::OK, encoding.content_type(), encoding.encode(&response)),
        Err((status, why)) => text(status, why),
    }
}

fn of(kind: Type, fill: impl FnOnce(&mut Response)) -> Response {
    let mut response = Response { r#type: Some(kind.into()), ..Response::default() };
    fill(&mut response);
    response
}

type Failure = (StatusCode, &'static str);

async fn summary(context: &Context) -> Result<Summary, Failure> {
    let (reply, answer) = oneshot::channel();
    let stopping = (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
    context.owner.send(Message::Summary { reply }).await.map_err(|_| stopping)?;
    answer.await.map_err(|_| stopping)
}

async fn state(context: &Context) -> Result<Response, Failure> {
    let summary = summary(context).await?;
    let executors =
        |list: Vec<v1::ExecutorInfo>| list.into_iter().map(|executor_info| response::get_executors::Executor { executor_info }).collect();
    let frameworks = summary.frameworks.into_iter().map(|framework_info| response::get_frameworks::Framework { framework_info }).collect();
    Ok(of(Type::GetState, |response| {
        response.get_state = Some(response::GetState {
            get_tasks: Some(response::GetTasks { launched_tasks: summary.tasks, ..response::GetTasks::default() }),
            get_executors: Some(response::GetExecutors {
                executors: executors(summary.executors),
                completed_executors: executors(summary.completed_executors),
            }),
            get_frameworks: Some(response::GetFrameworks { frameworks, ..response::GetFrameworks::default() }),
        });
    }))
}

async fn agent(context: &Context) -> Result<Response, Failure> {
    let info = summary(context).await?.info;
    Ok(of(Type::GetAgent, |response| {
        response.get_agent = Some(response::GetAgent { agent_info: Some(info), ..response::GetAgent::default() })
    }))
}

fn failure(denied: Denied) -> Failure {
    match denied {
        Denied::Unknown => (StatusCode::NOT_FOUND, "there is no such file in a sandbox"),
        Denied::Forbidden => (StatusCode::FORBIDDEN, "this path leads out of the sandboxes or cannot be read"),
        Denied::NotAFile => (StatusCode::BAD_REQUEST, "this is not a file"),
    }
}

async fn list_files(files: &Files, path: String) -> Result<Vec<FileInfo>, Failure> {
    let files = files.clone();
    blocking(move || files.list(&path)).await
}

async fn read_file(files: &Files, path: String, offset: u64, length: Option<u64>) -> Result<(u64, Vec<u8>), Failure> {
    let files = files.clone();
    blocking(move || files.read(&path, offset, length)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Denied> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(failure),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping")),
    }
}

/// `/files/read` and `/files/browse`, as old scripts call them.
pub(super) async fn files(route: &str, query: &str, method: &Method, files: &Files) -> Answer {
    if method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "this is called with GET");
    }
    let parameter =
        |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| decode(value));
    let Some(path) = parameter("path").filter(|path| !path.is_empty()) else {
        return text(StatusCode::BAD_REQUEST, "Expecting 'path=value' in query.");
    };
    let answer = if route == "/files/browse" {
        list_files(files, path).await.map(|infos| infos.into_iter().map(browsed).collect())
    } else {
        let numbers = (parameter("offset").map(|text| text.parse::<i64>()), parameter("length").map(|text| text.parse::<i64>()));
        let (Ok(offset), Ok(length)) = (numbers.0.transpose(), numbers.1.transpose()) else {
            return text(StatusCode::BAD_REQUEST, "offset and length are whole numbers");
        };
        read_at(files, path, offset, length).await
    };
    match answer {
        Ok(json) => whole(StatusCode::OK, Encoding::Json.content_type(), Bytes::from(json.to_string())),
        Err((status, why)) => text(status, why),
    }
}

/// Without an offset, or with -1, only the size is wanted.
async fn read_at(files: &Files, path: String, offset: Option<i64>, length: Option<i64>) -> Result<serde_json::Value, Failure> {
    match offset.and_then(|offset| u64::try_from(offset).ok()) {
        None => read_file(files, path, u64::MAX, None).await.map(|(size, _)| value!({ "offset": size, "data": "" })),
        Some(offset) => {
            let length = length.and_then(|length| u64::try_from(length).ok());
            read_file(files, path, offset, length)
                .await
                .map(|(_, data)| value!({ "offset": offset, "data": String::from_utf8_lossy(&data) }))
        }
    }
}

fn browsed(info: FileInfo) -> serde_json::Value {
    value!({
        "path": info.path,
        "nlink": info.nlink,
        "size": info.size,
        "mtime": info.mtime.map(|time| time.nanoseconds as f64 / 1e9),
        "mode": info.mode.map(mode),
        "uid": info.uid,
        "gid": info.gid,
    })
}

/// As `ls -l` writes it.
fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let bits = (0..9).rev().zip("rwxrwxrwx".chars()).map(|(bit, letter)| if mode >> bit & 1 == 1 { letter } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        let mut ahead = rest.clone();
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_broken_escapes_are_left_alone() {
        assert_eq!(decode("%2Ftmp%2fa+b"), "/tmp/a b");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }

    #[test]
    fn modes_are_written_as_ls_does() {
        assert_eq!(mode(0o100_640), "-rw-r-----");
        assert_eq!(mode(0o040_750), "drwxr-x---");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
    }
}
