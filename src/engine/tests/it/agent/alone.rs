//! The executor without its agent: a listener that speaks just enough of the protocol stands in, as a real
//! Mesos agent would, in protobuf.

use std::{os::unix::process::ExitStatusExt as _, path::Path, process::Child, time::Duration};

use podium_proto::{
    mesos::v1::{
        AgentInfo, ContainerId, ExecutorInfo, FrameworkInfo, TaskGroupInfo, TaskInfo, TaskState,
        executor::{Call, Event, call, event},
    },
    wire::recordio,
};
use prost::Message as _;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    rig::{all, environment, executor, framework, kill, state, task},
    wait::{PATIENCE, appears, ended, eventually_runs},
};

/// One connection of the executor's, with the call that it brought.
async fn accept(listener: &TcpListener) -> (TcpStream, Call) {
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("the executor does not come").unwrap();
    let call = read(&mut stream).await.unwrap();
    (stream, call)
}

async fn read(stream: &mut TcpStream) -> Option<Call> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            assert!(head.starts_with("post /api/v1/executor") && head.contains("content-type: application/x-protobuf"), "{head}");
            let length: usize = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            if bytes.len() >= at + 4 + length {
                return Some(Call::decode(&bytes[at + 4..at + 4 + length]).unwrap());
            }
        }
        let mut part = [0; 4096];
        match timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap_or(0) {
            0 => return None,
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
}

async fn send(stream: &mut TcpStream, event: &Event) {
    let record = recordio::encode(&event.encode_to_vec());
    stream.write_all(format!("{:x}\r\n", record.len()).as_bytes()).await.unwrap();
    stream.write_all(&record).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
}

fn of(kind: event::Type) -> Event {
    Event { r#type: Some(kind.into()), ..Event::default() }
}

async fn welcome(stream: &mut TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let subscribed = event::Subscribed {
        executor_info: executor("e") as ExecutorInfo,
        framework_info: framework() as FrameworkInfo,
        agent_info: AgentInfo::default(),
        container_id: Some(ContainerId { value: "parent".into(), parent: None }),
    };
    send(stream, &Event { subscribed: Some(subscribed), ..of(event::Type::Subscribed) }).await;
}

async fn launch(stream: &mut TcpStream, tasks: Vec<TaskInfo>) {
    let launch = event::LaunchGroup { task_group: TaskGroupInfo { tasks } };
    send(stream, &Event { launch_group: Some(launch), ..of(event::Type::LaunchGroup) }).await;
}

/// Takes updates on a call connection until one is of `wanted`; answers 202 and acknowledges nothing.
async fn until(listener: &TcpListener, wanted: TaskState) {
    loop {
        let (mut stream, mut call) = accept(listener).await;
        loop {
            let reached = call.update.is_some_and(|update| state(&update.status) == wanted);
            stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            if reached {
                return;
            }
            match read(&mut stream).await {
                Some(next) => call = next,
                None => break,
            }
        }
    }
}

/// The executor as an agent would start it; ended with the test.
struct Executor(Child);

impl Executor {
    fn start(folder: &Path, port: u16, more: &[(&str, &str)]) -> Executor {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podium-executor"));
        command.env_clear().env("MESOS_AGENT_ENDPOINT", format!("127.0.0.1:{port}"));
        // Processes are told apart by these ids, and are ended by them: no other test's may carry the same.
        let agent = format!("A-{}", uuid::Uuid::new_v4());
        command.env("MESOS_FRAMEWORK_ID", "framework").env("MESOS_EXECUTOR_ID", "e").env("MESOS_SLAVE_ID", agent);
        command.env("MESOS_DIRECTORY", folder).envs(more.iter().copied());
        Executor(command.spawn().unwrap())
    }

    /// Its exit code.
    async fn end(&mut self) -> i32 {
        ended([self.0.id().cast_signed()]).await;
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn running(more: &[(&str, &str)]) -> (TempDir, TcpListener, TcpStream, Executor) {
    running_script("trap '' TERM; touch ready; while :; do sleep 0.05; done", more).await
}

/// As [`running`]; the script makes the file `ready` when it is.
async fn running_script(script: &str, more: &[(&str, &str)]) -> (TempDir, TcpListener, TcpStream, Executor) {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let executor = Executor::start(folder.path(), listener.local_addr().unwrap().port(), more);
    let (mut stream, call) = accept(&listener).await;
    assert_eq!(call.r#type, Some(call::Type::Subscribe.into()));
    assert_eq!(call.subscribe.as_ref().map(|subscribe| subscribe.unacknowledged_tasks.len()), Some(0));
    welcome(&mut stream).await;
    launch(&mut stream, vec![task("t", script)]).await;
    until(&listener, TaskState::TaskRunning).await;
    appears(&folder.path().join("tasks/t/ready")).await;
    (folder, listener, stream, executor)
}

fn container(folder: &TempDir) -> Vec<i32> {
    let sandbox = std::fs::canonicalize(folder.path()).unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    entries
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(sandbox.join("containers"))))
        .collect()
}

#[tokio::test]
async fn a_checkpointed_executor_comes_back_with_all_that_was_not_acknowledged() {
    let (folder, listener, stream, _executor) = running(&[("MESOS_CHECKPOINT", "1"), ("MESOS_RECOVERY_TIMEOUT", "1hrs")]).await;
    drop(stream);
    let (_stream, call) = accept(&listener).await;
    let subscribe = call.subscribe.unwrap();
    assert_eq!(subscribe.unacknowledged_tasks.iter().map(|task| task.task_id.value.as_str()).collect::<Vec<_>>(), ["t"]);
    let states: Vec<TaskState> = subscribe.unacknowledged_updates.iter().map(|update| state(&update.status)).collect();
    assert_eq!(states, [TaskState::TaskStarting, TaskState::TaskRunning]);
    assert!(!container(&folder).is_empty(), "the container goes on");
}

#[tokio::test]
async fn an_agent_gone_for_longer_than_the_recovery_time_out_ends_everything() {
    let (folder, listener, stream, mut executor) = running(&[("MESOS_CHECKPOINT", "1"), ("MESOS_RECOVERY_TIMEOUT", "300ms")]).await;
    let start = std::time::Instant::now();
    drop((listener, stream));
    executor.end().await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(container(&folder).is_empty());
}

#[tokio::test]
async fn without_checkpointing_the_end_of_the_agent_is_the_end() {
    let (folder, listener, stream, mut executor) = running(&[]).await;
    drop((listener, stream));
    executor.end().await;
    assert!(container(&folder).is_empty());
}

/// The connection for calls is closed as soon as an update has come that was awaited: the agent itself is still there.
#[tokio::test]
async fn an_executor_that_is_told_to_end_says_so_of_its_tasks_with_updates_unacknowledged_and_calls_cut_off() {
    let (folder, listener, mut stream, _executor) = running_script("touch ready; exec sleep 1000", &[]).await;
    send(&mut stream, &of(event::Type::Shutdown)).await;
    until(&listener, TaskState::TaskKilling).await;
    until(&listener, TaskState::TaskKilled).await;
    assert!(container(&folder).is_empty());
}

/// The processes that an executor in this folder consists of.
fn own(folder: &TempDir) -> Vec<i32> {
    let wanted = format!("MESOS_DIRECTORY={}", folder.path().display());
    all().filter(|pid| environment(*pid).contains(&wanted)).collect()
}

/// Of a killed executor's containers the kernel ends the first processes, and an agent that is not ours nothing.
#[tokio::test]
async fn what_a_killed_executor_or_guardian_leaves_is_ended_without_their_agent() {
    let daemon = "(env -i setsid sh -c \"trap '' TERM; sleep 1111; true\" &)";
    let script = format!("{daemon}; (sh -c 'sleep 2222; true' &); touch ready; sleep 3333; true");
    for killed in ["executor", "guardian"] {
        let (folder, _listener, _stream, mut guardian) = running_script(&script, &[("MESOS_CHECKPOINT", "1")]).await;
        eventually_runs("a shell, and two with a sleep each and one more", || (container(&folder).len() == 6).then_some(())).await;
        let (left, both) = (container(&folder), own(&folder));
        assert_eq!(both.len(), 2, "the executor and its guardian");
        let executor = both.iter().copied().find(|pid| pid.cast_unsigned() != guardian.0.id()).unwrap();
        if killed == "executor" {
            kill(executor, Signal::KILL)
        } else {
            guardian.0.kill().unwrap()
        }
        ended(left).await;
        ended(both).await;
        assert!(container(&folder).is_empty(), "nor have they started others");
        assert_eq!(guardian.0.wait().unwrap().signal(), Some(9), "an agent hears how the {killed} ended");
    }
}

/// A Mesos agent that runs in a container of ours hands on that container's variable, and frameworks use executors' ids again.
#[tokio::test]
async fn the_guardian_of_one_run_touches_no_other_of_the_same_executor() {
    let agent = format!("A-{}", uuid::Uuid::new_v4());
    let more = [("MESOS_CHECKPOINT", "1"), ("MESOS_SLAVE_ID", agent.as_str()), ("PODIUM_INSTANCE", "outer/framework/e/container")];
    let script = "(setsid sleep 1111 &); touch ready; sleep 3333; true";
    let (old_folder, _old_listener, _old_stream, mut old) = running_script(script, &more).await;
    let (folder, _listener, _stream, _executor) = running_script(script, &more).await;
    let running = container(&folder);
    let both = own(&old_folder);
    assert_eq!(both.len(), 2, "the executor and its guardian");
    old.0.kill().unwrap();
    ended(both).await;
    assert!(container(&old_folder).is_empty());
    assert_eq!(container(&folder), running, "those of the new run");
}

#[tokio::test]
async fn a_guarded_executor_that_ends_by_itself_leaves_neither_orphans_nor_its_guardian() {
    let script = "(setsid sh -c \"trap '' TERM; sleep 1111; true\" &); touch ready; exec sleep 3333";
    let (folder, listener, stream, mut executor) = running_script(script, &[]).await;
    let both = own(&folder);
    assert_eq!(both.len(), 2, "the executor and its guardian");
    drop((listener, stream));
    assert_eq!(executor.end().await, 0);
    assert!(container(&folder).is_empty());
    ended(both).await;
}

#[tokio::test]
async fn an_executor_without_its_environment_says_what_is_missing() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_podium-executor")).env_clear().output().unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("MESOS_") && words.contains("is not set"), "{words}");
}
