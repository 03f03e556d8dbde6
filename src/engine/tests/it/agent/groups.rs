//! Groups of containers: how they start, what they see, how they end.

use std::fs;

use podium_proto::mesos::v1::TaskState;

use super::rig::{Rig, state, task};

#[tokio::test]
async fn a_group_runs_and_ends_with_its_exit_codes_in_mesos_words() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("good", "echo hello; exit 0")]).await;
    let states: Vec<TaskState> = [rig.update().await, rig.update().await, rig.update().await].iter().map(state).collect();
    assert_eq!(states, [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskFinished]);
    assert_eq!(rig.exited("e").await, 0);
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "good").join("stdout")).unwrap(), "hello\n");
    assert_eq!(rig.processes(), []);
}
