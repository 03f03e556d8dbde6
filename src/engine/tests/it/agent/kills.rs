//! Kills and their escalation; nothing is left behind, whatever a container has started.

use std::{fs, time::Duration};

use podium_engine::link::{FromAgent, ToAgent};
use podium_proto::mesos::v1::{
    DurationInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, TaskGroupInfo, TaskInfo, TaskState, task_status::Reason,
};
use rustix::process::Signal;

use super::{
    rig::{Rig, executor, framework, kill, policy, state, task, with_grace},
    wait::{appears, ended, eventually_runs},
};

/// Ignores SIGTERM, and says when it does.
const DEAF: &str = "trap '' TERM; touch ready; while :; do sleep 0.05; done";

async fn ready(rig: &mut Rig, executor: &str, name: &str) {
    rig.until(name, TaskState::TaskRunning).await;
    appears(&rig.task_sandbox(executor, name).join("ready")).await;
}

#[tokio::test]
async fn a_container_that_obeys_is_killed_by_sigterm_alone() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "trap 'echo bye; exit 0' TERM; touch ready; while :; do sleep 0.01; done")]).await;
    ready(&mut rig, "e", "t").await;
    rig.kill("t", None).await;
    assert_eq!(state(&rig.update().await), TaskState::TaskKilling);
    let end = rig.update().await;
    assert_eq!((state(&end), end.message.as_deref()), (TaskState::TaskKilled, Some("Command exited with status 0")));
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "t").join("stdout")).unwrap(), "bye\n");
}

#[tokio::test]
async fn a_container_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![with_grace(task("t", DEAF), Duration::from_millis(200))]).await;
    ready(&mut rig, "e", "t").await;
    let start = std::time::Instant::now();
    rig.kill("t", None).await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!((state(&end), end.message.as_deref()), (TaskState::TaskKilled, Some("Command terminated with signal Killed")));
    assert!(start.elapsed() >= Duration::from_millis(200), "the grace was granted");
    assert_eq!(rig.exited("e").await, 0);
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn the_kills_own_grace_wins_over_the_tasks() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![with_grace(task("t", DEAF), Duration::from_secs(3600))]).await;
    ready(&mut rig, "e", "t").await;
    rig.kill("t", Some(policy(Duration::from_millis(50)))).await;
    assert_eq!(state(&rig.ends(&["t"]).await[0]), TaskState::TaskKilled);
}

#[tokio::test]
async fn daemons_that_forked_twice_and_ignore_sigterm_end_with_their_container() {
    let mut rig = Rig::new().await;
    // In a session of its own, its parents gone, deaf; the second has thrown its environment away as well.
    let script = "(setsid sh -c \"trap '' TERM; sleep 1111\" &) ; (env -i setsid sh -c \"trap '' TERM; sleep 2222\" &) ; exec sleep 3333";
    rig.launch("e", vec![task("t", script)]).await;
    rig.until("t", TaskState::TaskRunning).await;
    let executor = rig.executor_pid("e");
    let below = move |command: &'static str| move || descendants(executor).into_iter().find(|(_, line)| line == command);
    for command in ["sleep 1111", "sleep 2222", "sleep 3333"] {
        eventually_runs(command, below(command)).await;
    }
    let all = descendants(executor);
    rig.kill("t", None).await;
    rig.ends(&["t"]).await;
    for (pid, line) in all {
        assert!(!alive(pid), "{line} is left");
    }
}

#[tokio::test]
async fn what_a_finished_container_leaves_is_ended_and_its_sibling_goes_on() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("leaves", "(setsid sleep 1111 &); exit 0"), task("stays", "exec sleep 3333")]).await;
    assert_eq!(state(&rig.ends(&["leaves"]).await[0]), TaskState::TaskFinished);
    assert!(rig.running("e", "sleep 1111").is_empty());
    assert_eq!(rig.running("e", "sleep 3333").len(), 1);
    rig.kill("stays", None).await;
    rig.ends(&["stays"]).await;
}

#[tokio::test]
async fn a_killed_container_takes_its_siblings_with_it() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("one", "exec sleep 1000"), task("two", "exec sleep 1000")]).await;
    rig.until("two", TaskState::TaskRunning).await;
    let pid = rig.running("e", "sleep 1000")[0];
    kill(pid, Signal::KILL);
    let ends = rig.ends(&["one", "two"]).await;
    let mut states: Vec<TaskState> = ends.iter().map(state).collect();
    states.sort();
    assert_eq!(states, [TaskState::TaskFailed, TaskState::TaskKilled]);
    assert_eq!(rig.exited("e").await, 0);
}

#[tokio::test]
async fn an_executor_killed_by_force_leaves_no_container_and_its_tasks_fail() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "(setsid sh -c \"trap '' TERM; sleep 1111\" &); sleep 3333; true")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    eventually_runs("the daemon", || rig.running("e", "sleep 1111").pop()).await;
    kill(rig.executor_pid("e"), Signal::KILL);
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, Some(Reason::ExecutorTerminated.into())));
    assert_eq!(rig.processes(), [], "everything is gone before the task is said to have ended");
    assert_eq!(rig.exited("e").await, 9, "the raw wait word of SIGKILL");
}

#[tokio::test]
async fn a_kill_of_an_unknown_task_is_answered_with_its_end() {
    let mut rig = Rig::new().await;
    rig.send(ToAgent::FrameworkSubscribed { framework: Box::new(framework()) }).await;
    rig.kill("stranger", None).await;
    let end = rig.update().await;
    assert_eq!((end.task_id.value.as_str(), state(&end)), ("stranger", TaskState::TaskDropped));
    assert!(end.uuid.is_some());
}

#[tokio::test]
async fn an_id_that_leads_out_of_the_sandboxes_is_refused() {
    let mut rig = Rig::new().await;
    rig.launch("../../escape", vec![task("t", "true")]).await;
    let end = rig.update().await;
    assert_eq!((state(&end), end.reason), (TaskState::TaskError, Some(Reason::TaskGroupInvalid.into())));
    assert!(rig.processes().is_empty());
}

#[tokio::test]
async fn a_group_killed_before_its_executor_subscribed_never_runs() {
    let mut rig = Rig::on(tempfile::tempdir().unwrap(), &["/bin/sleep", "1000"]).await;
    rig.launch("e", vec![task("one", "true"), task("two", "true")]).await;
    eventually_runs("the executor", || rig.processes().pop()).await;
    rig.kill("one", None).await;
    for end in rig.ends(&["one", "two"]).await {
        assert_eq!((state(&end), end.reason), (TaskState::TaskKilled, Some(Reason::TaskKilledDuringLaunch.into())));
    }
    rig.exited("e").await;
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn an_executor_that_cannot_be_started_fails_its_tasks() {
    let mut rig = Rig::on(tempfile::tempdir().unwrap(), &["/no/such/executor"]).await;
    rig.launch("e", vec![task("t", "true")]).await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, Some(Reason::ContainerLaunchFailed.into())));
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_never_subscribes_is_given_up_after_a_minute() {
    let mut rig = Rig::on(tempfile::tempdir().unwrap(), &["/bin/sleep", "1000"]).await;
    let start = tokio::time::Instant::now();
    rig.launch("e", vec![task("t", "true")]).await;
    // Not the rig's way of waiting: its patience would pass at once while time is paused.
    let end = loop {
        match rig.from_agent.recv().await.unwrap() {
            FromAgent::Update { status, .. } => break status,
            _ => continue,
        }
    };
    assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, Some(Reason::ExecutorRegistrationTimeout.into())));
    assert!(start.elapsed() >= Duration::from_secs(60));
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn a_shutdown_of_the_executor_ends_all_its_tasks_within_its_grace() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "exec sleep 1000"), with_grace(task("deaf", DEAF), Duration::from_secs(3600))]).await;
    ready(&mut rig, "e", "deaf").await;
    let (framework_id, executor_id) = (framework().id.unwrap(), ExecutorId { value: "e".into() });
    rig.send(ToAgent::ShutdownExecutor { framework_id, executor_id }).await;
    for end in rig.ends(&["t", "deaf"]).await {
        assert_eq!(state(&end), TaskState::TaskKilled, "three seconds, whatever the task's own grace");
    }
    rig.exited("e").await;
    assert_eq!(rig.processes(), []);
}

/// There is no time for the executor to do it.
#[tokio::test]
async fn the_agent_ends_what_has_cleared_its_environment_together_with_its_executor() {
    let mut rig = Rig::new().await;
    let daemon = "(env -i setsid sh -c \"trap '' TERM; echo \\$\\$ > pid; mv pid ready; sleep 1111; true\" &)";
    let hasty = ExecutorInfo { shutdown_grace_period: Some(DurationInfo { nanoseconds: 0 }), ..executor("e") };
    rig.launch_under(hasty, true, vec![task("t", &format!("trap '' TERM; {daemon}; sleep 3333; true"))]).await;
    ready(&mut rig, "e", "t").await;
    let daemon = fs::read_to_string(rig.task_sandbox("e", "t").join("ready")).unwrap().trim().parse().unwrap();
    assert_eq!(descendants(rig.executor_pid("e")).iter().filter(|(pid, _)| *pid == daemon).count(), 1);
    rig.send(ToAgent::ShutdownExecutor { framework_id: framework().id.unwrap(), executor_id: executor("e").executor_id }).await;
    rig.exited("e").await;
    ended([daemon]).await;
}

#[tokio::test]
async fn a_framework_that_is_gone_is_told_nothing_and_leaves_nothing() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "exec sleep 1000")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    rig.send(ToAgent::ShutdownFramework { framework_id: framework().id.unwrap() }).await;
    rig.exited("e").await;
    assert!(rig.updates.is_empty(), "{:?}", rig.updates);
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn a_task_that_runs_too_long_fails_with_that_reason() {
    let mut rig = Rig::new().await;
    let limited = TaskInfo { max_completion_time: Some(DurationInfo { nanoseconds: 100_000_000 }), ..task("t", "exec sleep 1000") };
    rig.launch("e", vec![limited]).await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, Some(Reason::MaxCompletionTimeReached.into())));
}

/// All below a process, with their command lines.
fn descendants(root: i32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                found.push((child, String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ")));
                next.push(child);
            }
        }
    }
    found
}

fn alive(pid: i32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

#[tokio::test]
async fn orphans_that_end_are_waited_for_while_their_container_runs() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "for i in 1 2 3; do (setsid sleep 0.05 &); done; touch ready; while sleep 0.02; do :; done")]).await;
    ready(&mut rig, "e", "t").await;
    let executor = rig.executor_pid("e");
    // The container's shell, and what that runs just now. Zombies would be among them, without a command line.
    let alone = || {
        let left = descendants(executor);
        (!left.is_empty() && left.iter().all(|(_, line)| line.contains("sleep 0.02"))).then_some(())
    };
    eventually_runs("nothing but the container is left", alone).await;
}

#[tokio::test]
async fn the_end_of_an_executor_touches_no_executor_of_another_framework_that_bears_its_name() {
    let mut rig = Rig::new().await;
    let other = FrameworkInfo { id: Some(FrameworkId { value: "other".into() }), ..framework() };
    let theirs = ExecutorInfo { framework_id: other.id.clone(), ..executor("e") };
    rig.launch("e", vec![task("ours", "exec sleep 1000")]).await;
    let group = TaskGroupInfo { tasks: vec![task("theirs", "exec sleep 2000")] };
    rig.send(ToAgent::RunTaskGroup { framework: Box::new(other.clone()), executor: Box::new(theirs), launch_executor: true, group }).await;
    // Its updates are another framework's to acknowledge: the container itself tells that it runs.
    let marked = || rig.processes().into_iter().find_map(|(pid, line)| (line == "sleep 2000").then_some(pid));
    let running = eventually_runs("the other framework's container", marked).await;
    rig.until("ours", TaskState::TaskRunning).await;
    kill(rig.executor_pid("e"), Signal::KILL);
    assert_eq!(state(&rig.ends(&["ours"]).await[0]), TaskState::TaskFailed);
    assert_eq!(rig.processes().into_iter().find(|(_, line)| line == "sleep 2000").map(|(pid, _)| pid), Some(running));
}
