//! What ended lately, kept for people: a pod's last terminations with exit codes and messages.

use podium_proto::records::{Termination, observed, termination};
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
    tasks.sort_by_key(|task| std::cmp::Reverse(condition::of_task(task)));
    let first = tasks.first().map(|task| task.message.as_str()).filter(|message| !message.is_empty());
    Some(Termination {
        instance_id: InstanceId { pod: pod.clone(), uuid: member.uuid }.to_string(),
        incarnation: observed.incarnation,
        started_ms: member.since_ms(),
        terminated_ms: tasks.iter().map(|task| task.since_ms).max().unwrap_or(observed.provisioned_ms),
        message: shorten(first.unwrap_or(&observed.message)),
        containers: tasks.into_iter().take(CONTAINERS).map(container).collect(),
    })
}

fn container(task: &observed::Task) -> termination::Container {
    termination::Container {
        container_id: task.task_id.clone(),
        last_known_state: state_name(condition::of_task(task)).to_owned(),
        message: shorten(&task.message),
        exit_code: task.exit_code,
    }
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
