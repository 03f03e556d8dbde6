//! What ended lately, kept for people: a pod's last terminations with exit codes and messages.

use podium_proto::records::{Observed, Termination, observed, termination};
use podium_types::condition::{self, Condition};
use podium_types::id::{InstanceId, PodId};

use crate::runtime::Member;

/// Terminations that are kept of a pod.
const KEPT: usize = 16;

/// Containers that are told of one termination; those that failed come first.
const CONTAINERS: usize = 16;

/// Characters of a message. The store's values are bounded; whole messages stand in `observed` and in the sandbox.
const MESSAGE: usize = 500;

/// Adds these ended instances, newest last, and forgets the oldest.
pub fn append(history: &mut Vec<Termination>, pod: &PodId, ended: &[Member<'_>]) {
    let newest = ended.len().saturating_sub(KEPT);
    history.extend(ended.iter().skip(newest).filter_map(|member| termination(pod, member)));
    history.drain(..history.len().saturating_sub(KEPT));
}

fn termination(pod: &PodId, member: &Member<'_>) -> Option<Termination> {
    let observed = &member.observed?.value;
    let mut tasks: Vec<&observed::Task> = observed.tasks.iter().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse((condition::of_task(task), failed_its_check(task))));
    let first = tasks.first().map(|task| message(task)).filter(|message| !message.is_empty());
    Some(Termination {
        instance_id: InstanceId { pod: pod.clone(), uuid: member.uuid }.to_string(),
        incarnation: observed.incarnation,
        started_ms: started_ms(observed).unwrap_or(member.held.value.created_ms),
        terminated_ms: tasks.iter().map(|task| task.since_ms).max().unwrap_or(observed.provisioned_ms),
        message: first.unwrap_or_else(|| shorten(&observed.message)),
        agent_url: observed.agent_url.clone(),
        containers: tasks.into_iter().take(CONTAINERS).map(container).collect(),
    })
}

/// When this incarnation began to run; when it never did, its launch.
fn started_ms(observed: &Observed) -> Option<i64> {
    let known = |ms: &i64| *ms > 0;
    let running = observed.tasks.iter().map(|task| task.running_ms).filter(known).min();
    running.or(Some(observed.provisioned_ms).filter(known))
}

fn container(task: &observed::Task) -> termination::Container {
    termination::Container {
        container_id: task.task_id.clone(),
        last_known_state: state_name(condition::of_task(task)).to_owned(),
        message: message(task),
        exit_code: task.exit_code,
    }
}

/// Mesos kills what fails its health check, and does not say so in the last update.
fn failed_its_check(task: &observed::Task) -> bool {
    condition::of_task(task) == Condition::Killed && task.healthy == Some(false)
}

fn message(task: &observed::Task) -> String {
    if failed_its_check(task) {
        return shorten(&format!("killed since its health check failed too often: {}", task.message));
    }
    shorten(&task.message)
}

fn state_name(condition: Condition) -> &'static str {
    match condition {
        Condition::Killed => "TaskKilled",
        Condition::Finished => "TaskFinished",
        Condition::Dropped => "TaskDropped",
        Condition::Gone => "TaskGone",
        Condition::Failed => "TaskFailed",
        Condition::Error => "TaskError",
        _ => "TaskLost",
    }
}

fn shorten(message: &str) -> String {
    message.chars().take(MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::TaskState;

    use super::*;

    #[test]
    fn an_incarnation_started_when_it_ran_or_else_when_it_was_launched() {
        let ran = |running_ms| observed::Task { running_ms, ..Default::default() };
        let observed = |tasks| Observed { provisioned_ms: 5, tasks, ..Default::default() };
        assert_eq!(started_ms(&observed(vec![ran(9), ran(7), ran(0)])), Some(7));
        assert_eq!(started_ms(&observed(vec![ran(0)])), Some(5), "each end of a pod that never runs has a time of its own");
        assert_eq!(started_ms(&Observed::default()), None);
    }

    #[test]
    fn a_kill_for_a_failed_health_check_says_so() {
        let killed = |healthy| observed::Task {
            state: Some(TaskState::TaskKilled.into()),
            healthy,
            message: "Command terminated with signal Terminated".to_owned(),
            ..Default::default()
        };
        assert!(message(&killed(Some(false))).contains("health check"));
        assert_eq!(message(&killed(None)), "Command terminated with signal Terminated");
    }
}
