//! The agent crashes, or is stopped, and starts again on the same folder.

use std::{fs, path::Path, time::Duration};

use podium_engine::{agent::Retention, link::FromAgent};
use podium_proto::mesos::v1::{TaskState, TaskStatus, task_status::Reason};
use rustix::process::Signal;

use super::{
    rig::{Rig, kill, state, task},
    wait::{appears, ended, eventually_at, eventually_runs},
};

const EXECUTOR: &[&str] = &[env!("CARGO_BIN_EXE_podium-executor")];

fn pids(rig: &Rig) -> Vec<i32> {
    let mut pids: Vec<i32> = rig.processes().into_iter().map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    pids
}

fn known_tasks(rig: &Rig) -> Vec<String> {
    let mut known: Vec<String> = rig.known.iter().flat_map(|known| &known.tasks).map(|(info, _)| info.task_id.value.clone()).collect();
    known.sort();
    known
}

#[tokio::test]
async fn a_crash_touches_no_process_and_the_next_agent_knows_them_all() {
    let mut rig = Rig::new().await;
    let id = rig.agent_id.clone();
    assert!(!rig.recovering, "a new agent has nothing to recover");
    for name in ["one", "two"] {
        rig.launch(name, vec![task(name, "exec sleep 1000")]).await;
        rig.until(name, TaskState::TaskRunning).await;
    }
    rig.settled().await;
    let before = pids(&rig);
    rig.crash().await;
    assert_eq!(pids(&rig), before);
    rig.restart().await;
    assert!(rig.recovering);
    assert_eq!(rig.agent_id, id);
    assert_eq!(known_tasks(&rig), ["one", "two"]);
    for known in &rig.known {
        assert_eq!(known.tasks.iter().map(|(_, status)| state(status)).collect::<Vec<_>>(), [TaskState::TaskRunning]);
    }
    assert_eq!(pids(&rig), before, "not touched, and nothing launched twice");
    rig.kill("one", None).await;
    let end = rig.ends(&["one"]).await.remove(0);
    assert_eq!(end.message.as_deref(), Some("Command terminated with signal Terminated"));
    assert_eq!(rig.running("two", "sleep 1000").len(), 1);
}

#[tokio::test]
async fn an_executor_that_cannot_write_its_log_outlives_its_agent_all_the_same() {
    let script = format!("exec {} 2>/dev/full", EXECUTOR[0]);
    let mute = ["/bin/sh", "-c", &script];
    let mut rig = Rig::on(tempfile::tempdir().unwrap(), &mute).await;
    rig.launch("one", vec![task("one", "exec sleep 1000")]).await;
    rig.until("one", TaskState::TaskRunning).await;
    rig.settled().await;
    let before = pids(&rig);
    rig.crash().await;
    // It comes back only after it has tried to say that it lost its agent.
    rig.begin(&mute).await;
    rig.registered().await;
    assert_eq!((known_tasks(&rig), pids(&rig)), (vec!["one".to_owned()], before));
}

#[tokio::test]
async fn what_ended_meanwhile_and_what_ends_later_are_reported_with_their_exit_codes() {
    let mut rig = Rig::new().await;
    let gate = rig.folder.path().join("gate");
    rig.launch("early", vec![task("early", &format!("until [ -e {} ]; do sleep 0.01; done; exit 5", gate.display()))]).await;
    rig.launch("late", vec![task("late", "exec sleep 1000")]).await;
    rig.until("early", TaskState::TaskRunning).await;
    rig.until("late", TaskState::TaskRunning).await;
    rig.crash().await;
    let early = rig.processes().into_iter().filter(|(_, line)| line.contains("exit 5")).map(|(pid, _)| pid);
    fs::write(&gate, "").unwrap();
    ended(early).await;
    rig.restart().await;
    let end = rig.ends(&["early"]).await.remove(0);
    assert_eq!((state(&end), end.message.as_deref()), (TaskState::TaskFailed, Some("Command exited with status 5")));
    kill(rig.running("late", "sleep 1000")[0], Signal::KILL);
    let end = rig.ends(&["late"]).await.remove(0);
    assert_eq!((state(&end), end.message.as_deref()), (TaskState::TaskFailed, Some("Command terminated with signal Killed")));
}

#[tokio::test]
async fn a_second_crash_during_recovery_does_no_harm() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "exec sleep 1000")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    let before = pids(&rig);
    rig.crash().await;
    for _ in 0..3 {
        rig.begin(EXECUTOR).await;
        rig.crash().await;
    }
    rig.restart().await;
    assert_eq!(pids(&rig), before);
    assert_eq!(known_tasks(&rig), ["t"]);
    kill(rig.running("e", "sleep 1000")[0], Signal::KILL);
    assert_eq!(state(&rig.ends(&["t"]).await[0]), TaskState::TaskFailed);
}

#[tokio::test]
async fn an_executor_that_died_meanwhile_is_found_out_and_leaves_nothing() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "(setsid sh -c \"trap '' TERM; sleep 1111\" &); exec sleep 1000")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    eventually_runs("the daemon", || rig.running("e", "sleep 1111").pop()).await;
    rig.crash().await;
    kill(rig.executor_pid("e"), Signal::KILL);
    rig.restart().await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!((state(&end), end.reason), (TaskState::TaskFailed, Some(Reason::ExecutorTerminated.into())));
    rig.exited("e").await;
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn an_update_that_was_not_acknowledged_comes_again_with_its_uuid_and_others_do_not() {
    let mut rig = Rig::new().await;
    rig.acknowledge = false;
    rig.launch("e", vec![task("t", "exec sleep 1000")]).await;
    let starting = rig.update().await;
    rig.acknowledge(&starting).await;
    let running = rig.update().await;
    assert_eq!(state(&running), TaskState::TaskRunning);
    rig.crash().await;
    rig.restart().await;
    let again = rig.update().await;
    assert_eq!(again.uuid, running.uuid);
    rig.acknowledge(&again).await;
    rig.acknowledge = true;
    rig.kill("t", None).await;
    assert_eq!(state(&rig.update().await), TaskState::TaskKilling, "nothing old in between");
}

/// When the agent crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// The agent's tasks have had so many turns since the group was sent: from unread to its writing to the journal, and on.
    Turns(usize),
    /// The group is recorded, and its executor being started.
    Sandbox,
    /// The executor's process has begun.
    Process,
    /// It has subscribed and been given its group: the first update is on disk.
    Starting,
    /// The container has been started, and its update may not be read yet.
    Written,
    /// The framework has been told of it, and has acknowledged all but that.
    Running,
}

impl Moment {
    const ALL: [Moment; 12] = [
        Moment::Turns(0),
        Moment::Turns(1),
        Moment::Turns(2),
        Moment::Turns(4),
        Moment::Turns(8),
        Moment::Turns(16),
        Moment::Turns(64),
        Moment::Sandbox,
        Moment::Process,
        Moment::Starting,
        Moment::Written,
        Moment::Running,
    ];

    async fn come(self, rig: &mut Rig, witness: &Path) {
        match self {
            Moment::Turns(count) => {
                for _ in 0..count {
                    tokio::task::yield_now().await;
                }
            }
            Moment::Sandbox => appears(&rig.runs("e")).await,
            Moment::Process => eventually_runs("an executor", || (!rig.processes().is_empty()).then_some(())).await,
            Moment::Starting => {
                rig.until("t", TaskState::TaskStarting).await;
            }
            Moment::Written => appears(witness).await,
            Moment::Running => {
                let starting = rig.until("t", TaskState::TaskStarting).await;
                rig.acknowledge(&starting).await;
                rig.until("t", TaskState::TaskRunning).await;
            }
        }
    }
}

#[tokio::test]
async fn whenever_the_agent_crashes_a_group_is_launched_exactly_once() {
    for moment in Moment::ALL {
        let mut rig = Rig::new().await;
        let witness = rig.folder.path().join("witness");
        rig.acknowledge = false;
        rig.launch("e", vec![task("t", &format!("echo ran >> {}; exec sleep 1000", witness.display()))]).await;
        moment.come(&mut rig, &witness).await;
        rig.crash().await;
        rig.acknowledge = true;
        rig.updates.clear();
        rig.restart().await;
        if known_tasks(&rig).is_empty() {
            // The master's word was not even on disk: nothing may ever run of it.
            assert!(moment < Moment::Sandbox, "what is made on disk is recorded before");
            assert_eq!(rig.processes(), [], "crash at {moment:?}");
            assert!(!witness.exists());
            continue;
        }
        rig.until("t", TaskState::TaskRunning).await;
        eventually_runs("the container runs", || rig.running("e", "sleep 1000").pop()).await;
        assert_eq!(fs::read_to_string(&witness).unwrap(), "ran\n", "crash at {moment:?}");
        assert_eq!(rig.processes().len(), 2, "an executor and a container");
    }
}

#[tokio::test]
async fn a_stopped_agent_leaves_nothing_and_its_next_start_tells_what_it_killed() {
    let mut rig = Rig::new().await;
    let script = "trap '' TERM; (setsid sh -c \"trap '' TERM; sleep 1111\" &); while :; do sleep 0.05; done";
    rig.launch("deaf", vec![task("deaf", script)]).await;
    rig.launch("plain", vec![task("plain", "exec sleep 1000")]).await;
    rig.until("deaf", TaskState::TaskRunning).await;
    rig.until("plain", TaskState::TaskRunning).await;
    eventually_runs("the daemon", || rig.running("deaf", "sleep 1111").pop()).await;
    rig.agent.take().unwrap().shutdown().await;
    assert_eq!(rig.processes(), []);
    rig.restart().await;
    for end in rig.ends(&["deaf", "plain"]).await {
        assert_eq!(state(&end), TaskState::TaskKilled, "{end:?}");
    }
    // Acknowledged, they are forgotten: the start after that has nothing to tell.
    rig.settled().await;
    rig.agent.take().unwrap().shutdown().await;
    rig.restart().await;
    assert!(rig.known.is_empty(), "{:?}", rig.known);
}

#[tokio::test]
async fn processes_of_unknown_instances_are_ended_at_the_start() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "exec sleep 1000")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    let marker = format!("{}/framework/forgotten/x", rig.agent_id.value);
    rig.crash().await;
    let mut stray = std::process::Command::new("sleep").arg("1000").env(podium_engine::executor::MARKER, marker).spawn().unwrap();
    rig.restart().await;
    let exit = tokio::task::spawn_blocking(move || stray.wait().unwrap()).await.unwrap();
    assert!(!exit.success());
    assert_eq!(rig.running("e", "sleep 1000").len(), 1);
}

#[tokio::test]
async fn an_executor_that_does_not_answer_does_not_hold_up_the_agent_for_ever() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "exec sleep 1000")]).await;
    rig.until("t", TaskState::TaskRunning).await;
    let executor = rig.executor_pid("e");
    kill(executor, Signal::STOP);
    rig.crash().await;
    rig.restart().await;
    assert_eq!(known_tasks(&rig), ["t"], "registered with it all the same");
    kill(executor, Signal::CONT);
    rig.kill("t", None).await;
    assert_eq!(state(&rig.ends(&["t"]).await[0]), TaskState::TaskKilled);
}

#[tokio::test]
async fn only_the_head_is_sent_until_it_is_acknowledged_and_again_when_the_framework_returns() {
    let mut rig = Rig::new().await;
    rig.acknowledge = false;
    rig.launch("e", vec![task("t", "exit 0")]).await;
    let head = rig.update().await;
    assert_eq!(state(&head), TaskState::TaskStarting);
    rig.exited("e").await;
    assert!(rig.updates.is_empty(), "RUNNING and FINISHED wait");
    rig.send(podium_engine::link::ToAgent::FrameworkSubscribed { framework: Box::new(super::rig::framework()) }).await;
    let (again, latest) = loop {
        if let FromAgent::Update { status, latest, .. } = rig.word().await {
            break (status, latest);
        }
    };
    assert_eq!((again.uuid.clone(), latest), (head.uuid.clone(), TaskState::TaskFinished));
    rig.acknowledge(&again).await;
    let next: TaskStatus = rig.update().await;
    assert_eq!(state(&next), TaskState::TaskRunning);
    rig.acknowledge(&head).await;
    rig.acknowledge(&next).await;
    assert_eq!(state(&rig.update().await), TaskState::TaskFinished);
}

#[tokio::test]
async fn sandboxes_of_a_crash_looping_pod_are_removed_and_those_of_what_runs_are_not() {
    let mut rig = Rig::new().await;
    rig.retention = Retention { per_pod: 2, ..Retention::default() };
    rig.crash().await;
    rig.restart().await;
    let id = |number| format!("instance-loop.9f0e24cc-55b8-4b4e-a3a6-3c1b36a0d0f0.{number}");
    rig.launch(&id(1), vec![task("runs", "exec sleep 1000")]).await;
    rig.until("runs", TaskState::TaskRunning).await;
    let running = rig.sandbox(&id(1));
    for number in 2..=5 {
        rig.launch(&id(number), vec![task(&format!("t{number}"), "exit 1")]).await;
        rig.exited(&id(number)).await;
    }
    let executors = running.parent().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let left = || {
        let mut names: Vec<String> =
            fs::read_dir(&executors).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let two_newest = || (left() == [id(1), id(4), id(5)]).then_some(());
    eventually_at(&executors, "all but the two newest of those that ended are removed", two_newest).await;
    // The next start finds by the folders what has ended, and what it has to keep.
    rig.retention = Retention { gc_delay: Duration::ZERO, ..Retention::default() };
    rig.crash().await;
    rig.restart().await;
    eventually_at(&executors, "all that have ended are removed", || (left() == [id(1)]).then_some(())).await;
    assert!(running.join("tasks/runs/stdout").exists());
}
