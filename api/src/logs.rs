//! `/v2/pods/{id}::logs`: what one container of one instance has printed, read where it stands: in the sandbox on its agent.
//!
//! Promises: an answer is a bounded part of the file, and says which; nothing is kept here, so that a reader who follows a
//! log asks again from where the last part ended. Any replica answers.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use podium_controllers::admission::is_active;
use podium_http::Url;
use podium_mesos::files::{self, FileError, MOST_A_READ};
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_types::id::{InstanceId, PodId};
use serde_json::json;

use crate::Api;
use crate::answer::{Answer, Problem, header, with_type};
use crate::pods::nothing_of;
use crate::request::Head;

/// The first byte of the answer, counted from the file's beginning.
pub const OFFSET: HeaderName = HeaderName::from_static("x-podium-log-offset");

/// Bytes in the whole file.
pub const SIZE: HeaderName = HeaderName::from_static("x-podium-log-size");

/// Whose log it is: the id of the container's task, which names the launch as well.
pub const TASK: HeaderName = HeaderName::from_static("x-podium-task");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Bytes in one answer at most, and when nothing is said.
const MOST: u64 = 1 << 20;

/// A log, and where it is.
struct Log {
    agent: String,
    path: String,
    task: String,
}

/// What is asked for.
struct Wanted {
    instance: Option<InstanceId>,
    container: Option<String>,
    stream: &'static str,
    previous: bool,
    /// Below zero: from the file's end.
    offset: Option<i64>,
    length: u64,
}

/// Answers GET of the logs of a pod.
pub async fn read(api: &Api, id: &PodId, head: &Head) -> Result<Answer, Problem> {
    let wanted = Wanted::of(head)?;
    let log = api.index.read(|state| find(state, id, &wanted))?;
    let agent = podium_http::parse_url(&log.agent).map_err(|error| unreachable(&error.to_string()))?;
    let (offset, size, data) = portion(api, &agent, &log.path, &wanted).await?;
    let mut answer = with_type(StatusCode::OK, data, TEXT);
    header(&mut answer, OFFSET, offset);
    header(&mut answer, SIZE, size);
    header(&mut answer, TASK, log.task);
    Ok(answer)
}

impl Wanted {
    fn of(head: &Head) -> Result<Self, Problem> {
        let value = |name: &str| head.values(name).into_iter().next();
        let number = |name: &str| value(name).map(|text| text.parse::<i64>().map_err(|_| bad(name, "must be a whole number"))).transpose();
        let instance = value("instance").map(|text| text.parse().map_err(|_| bad("instance", "is no instance's id"))).transpose()?;
        let stream = match value("stream").as_deref() {
            None | Some("stdout") => "stdout",
            Some("stderr") => "stderr",
            Some(_) => return Err(bad("stream", "must be stdout or stderr")),
        };
        let length = match number("length")? {
            None => MOST,
            Some(length) => u64::try_from(length).map_err(|_| bad("length", "must not be negative"))?.min(MOST),
        };
        let (container, previous) = (value("container"), head.flag("previous"));
        Ok(Wanted { instance, container, stream, previous, offset: number("offset")?, length })
    }
}

/// Which file on which agent is meant.
fn find(state: &IndexState, id: &PodId, wanted: &Wanted) -> Result<Log, Problem> {
    let view = state.pod(id).filter(|view| is_active(view)).ok_or_else(|| nothing_of(state, id))?;
    let framework = state.framework().ok_or_else(|| absent("nothing has been launched yet: Podium is no framework of Mesos so far"))?;
    let launch = if wanted.previous { previous(view, wanted)? } else { latest(view, wanted)? };
    let container = match &wanted.container {
        Some(name) if launch.containers.contains(name) => name.clone(),
        Some(name) => return Err(choose(&format!("there is no container '{name}'"), "container", &launch.containers)),
        None => match &launch.containers[..] {
            [only] => only.clone(),
            many => return Err(choose("the pod has several containers: choose one", "container", many)),
        },
    };
    if launch.agent.is_empty() {
        return Err(absent("it is not known where this instance runs: it was found without a record"));
    }
    let task = launch.instance.task_id(&container, launch.incarnation).to_string();
    let executor = launch.instance.executor_id(launch.incarnation);
    let path = files::in_task_sandbox(&framework.value.framework_id, &executor, &task, wanted.stream);
    Ok(Log { agent: launch.agent, path, task })
}

/// One launch of an instance.
struct Launch {
    instance: InstanceId,
    incarnation: u32,
    agent: String,
    containers: Vec<String>,
}

/// The last launch of the instance that is asked for, or of the only one; of an ended one as far as the history tells.
fn latest(view: &PodView, wanted: &Wanted) -> Result<Launch, Problem> {
    let uuid = match &wanted.instance {
        Some(instance) if instance.pod != view.id => return Err(bad("instance", "belongs to another pod")),
        Some(instance) => instance.uuid,
        None => {
            let known: Vec<_> = view.observed.keys().copied().collect();
            match known[..] {
                [] => return Err(absent("no instance of this pod has been launched yet")),
                [only] => only,
                _ => {
                    let ids: Vec<String> = known.into_iter().map(|uuid| InstanceId { pod: view.id.clone(), uuid }.to_string()).collect();
                    return Err(choose("the pod has several instances: choose one", "instance", &ids));
                }
            }
        }
    };
    let instance = InstanceId { pod: view.id.clone(), uuid };
    if let Some(observed) = view.observed.get(&uuid).map(|held| &held.value) {
        let containers = observed.tasks.iter().map(|task| task.container.clone()).collect();
        return Ok(Launch { instance, incarnation: observed.incarnation, agent: observed.agent_url.clone(), containers });
    }
    ended(view, &instance, u32::MAX).ok_or_else(|| match view.instances.contains_key(&uuid) {
        true => absent("this instance has not been launched yet; its status says why it waits"),
        false => absent("there is no such instance"),
    })
}

/// The launch before the last one.
fn previous(view: &PodView, wanted: &Wanted) -> Result<Launch, Problem> {
    let latest = latest(view, wanted)?;
    ended(view, &latest.instance, latest.incarnation)
        .ok_or_else(|| absent(&format!("no launch of {} before its present one is known", latest.instance)))
}

/// The newest launch of an instance below an incarnation that the pod's history tells of.
fn ended(view: &PodView, instance: &InstanceId, below: u32) -> Option<Launch> {
    let name = instance.to_string();
    let history = &view.delay.as_ref()?.value.history;
    let termination = history.iter().rev().find(|ended| ended.instance_id == name && ended.incarnation < below)?;
    let container = |id: &str| Some(id.strip_prefix(&name)?.strip_prefix('.')?.rsplit_once('.')?.0.to_owned());
    Some(Launch {
        instance: instance.clone(),
        incarnation: termination.incarnation,
        agent: termination.agent_url.clone(),
        containers: termination.containers.iter().filter_map(|ended| container(&ended.container_id)).collect(),
    })
}

/// The part of the file that is asked for: its offset, the file's size, and the bytes.
async fn portion(api: &Api, agent: &Url, path: &str, wanted: &Wanted) -> Result<(u64, u64, Bytes), Problem> {
    let read = async |offset, length| files::read(&api.agents, agent, path, offset, length).await.map_err(|error| unread(&error));
    let offset = match wanted.offset.map(u64::try_from) {
        Some(Ok(offset)) => offset,
        from_end => {
            let back = match from_end {
                None => wanted.length,
                Some(_) => wanted.offset.unwrap_or_default().unsigned_abs(),
            };
            read(0, 0).await?.size.saturating_sub(back)
        }
    };
    let mut data = BytesMut::new();
    loop {
        let missing = wanted.length.saturating_sub(data.len() as u64);
        let part = read(offset.saturating_add(data.len() as u64), missing).await?;
        data.extend_from_slice(part.data.get(..part.data.len().min(usize::try_from(missing).unwrap_or(usize::MAX))).unwrap_or_default());
        if part.data.is_empty() || missing <= MOST_A_READ || data.len() as u64 + offset >= part.size {
            return Ok((offset, part.size, data.freeze()));
        }
    }
}

fn unread(error: &FileError) -> Problem {
    match error {
        FileError::Absent { .. } => absent(&format!("{error}: it is not written yet, or its sandbox has been removed")),
        FileError::Login { .. } => {
            let flags = "podium server is given it by --mesos-agent-principal and --mesos-agent-secret-file";
            unreachable(&format!("{error}; {flags}"))
        }
        FileError::Unreachable(_) | FileError::Refused { .. } => unreachable(&error.to_string()),
    }
}

fn absent(why: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, why)
}

fn unreachable(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, format!("the log cannot be read: {why}"))
}

fn bad(parameter: &str, why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the query's '{parameter}' {why}"))
}

/// Names what can be chosen, so that the next try is right.
fn choose(why: &str, parameter: &str, names: &[String]) -> Problem {
    Problem::detailed(StatusCode::BAD_REQUEST, format!("{why} by '{parameter}'"), json!({ parameter: names }))
}

#[cfg(test)]
mod tests {
    use podium_proto::records::{Delay, Observed, Termination, observed, termination};
    use podium_store::view::Held;
    use uuid::Uuid;

    use super::*;

    fn held<T>(value: T) -> Held<T> {
        Held { value, mod_revision: 1, create_revision: 1 }
    }

    fn wanted(query: &str) -> Result<Wanted, Problem> {
        Wanted::of(&Head::new(http::Method::GET, query.to_owned(), http::HeaderMap::new()))
    }

    fn instance(n: u128) -> InstanceId {
        InstanceId { pod: PodId::new("/a").unwrap(), uuid: Uuid::from_u128(n) }
    }

    fn launched(incarnation: u32) -> Held<Observed> {
        let tasks = vec![observed::Task { container: "web".to_owned(), ..observed::Task::default() }];
        held(Observed { incarnation, tasks, agent_url: "http://now:5051".to_owned(), ..Observed::default() })
    }

    fn ended_view(incarnations: &[u32]) -> PodView {
        let end = |n: &u32| Termination {
            instance_id: instance(1).to_string(),
            incarnation: *n,
            agent_url: format!("http://then-{n}:5051"),
            containers: vec![termination::Container {
                container_id: instance(1).task_id("web", *n).to_string(),
                ..termination::Container::default()
            }],
            ..Termination::default()
        };
        let mut view = PodView::new(PodId::new("/a").unwrap());
        view.delay = Some(held(Delay { history: incarnations.iter().map(end).collect(), ..Delay::default() }));
        view
    }

    #[test]
    fn of_several_instances_one_has_to_be_named_and_they_are_listed() {
        let mut view = ended_view(&[]);
        assert_eq!(latest(&view, &wanted("").unwrap()).err().unwrap().status, StatusCode::NOT_FOUND);
        view.observed.insert(Uuid::from_u128(1), launched(3));
        assert_eq!(latest(&view, &wanted("").unwrap()).unwrap().incarnation, 3);
        view.observed.insert(Uuid::from_u128(2), launched(1));
        let problem = latest(&view, &wanted("").unwrap()).err().unwrap();
        assert_eq!((problem.status, problem.body["details"]["instance"].as_array().unwrap().len()), (StatusCode::BAD_REQUEST, 2));
        assert_eq!(latest(&view, &wanted(&format!("instance={}", instance(2))).unwrap()).unwrap().incarnation, 1);
    }

    #[test]
    fn the_launch_before_is_the_newest_older_one_where_it_ran() {
        let mut view = ended_view(&[1, 2, 3]);
        view.observed.insert(Uuid::from_u128(1), launched(3));
        let launch = previous(&view, &wanted("previous=true").unwrap()).unwrap();
        assert_eq!((launch.incarnation, launch.agent.as_str(), &launch.containers[..]), (2, "http://then-2:5051", &["web".to_owned()][..]));
        // One that is gone, and was not replaced under its id, is read from the history alone.
        view.observed.clear();
        let gone = wanted(&format!("instance={}", instance(1))).unwrap();
        assert_eq!(latest(&view, &gone).unwrap().incarnation, 3);
    }

    #[test]
    fn a_query_that_means_nothing_is_refused() {
        for query in ["stream=stdin", "offset=x", "length=-1", "length=a", "instance=a", "instance=a.instance-1"] {
            assert_eq!(wanted(query).err().map(|problem| problem.status), Some(StatusCode::BAD_REQUEST), "{query}");
        }
        let all = wanted("stream=stderr&offset=-5&length=99999999&container=web").unwrap();
        assert_eq!((all.stream, all.offset, all.length, all.container.as_deref()), ("stderr", Some(-5), MOST, Some("web")));
    }
}
