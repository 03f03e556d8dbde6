//! Task statuses as the executor reports them: in Mesos' form and words.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use podium_proto::mesos::v1::{ContainerId, ContainerStatus, ExecutorId, TaskId, TaskState, TaskStatus, task_status};
use rustix::process::WaitStatus;

/// A fresh status: executor as source, a new uuid, the present time.
pub(crate) fn new(task_id: &TaskId, executor_id: &ExecutorId, state: TaskState) -> TaskStatus {
    TaskStatus {
        task_id: task_id.clone(),
        state: state.into(),
        executor_id: Some(executor_id.clone()),
        source: Some(task_status::Source::Executor.into()),
        uuid: Some(Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes())),
        timestamp: Some(now()),
        ..TaskStatus::default()
    }
}

/// Which container a status speaks of: the nested one, and the executor's own above it.
pub(crate) fn container(nested: &str, parent: Option<&ContainerId>) -> ContainerStatus {
    ContainerStatus {
        container_id: Some(ContainerId { value: nested.to_owned(), parent: parent.cloned().map(Box::new) }),
        ..ContainerStatus::default()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// How a command ended, in Mesos' words.
pub(crate) fn ending(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("Command exited with status {code}"),
        (None, Some(signal)) => {
            let core = if status.as_raw() & 0x80 == 0 { "" } else { " (core dumped)" };
            format!("Command terminated with signal {}{core}", signal_name(signal))
        }
        (None, None) => "Command ended, and the system does not say how".to_owned(),
    }
}

/// The C library's names of Linux' signals.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "Hangup",
        "Interrupt",
        "Quit",
        "Illegal instruction",
        "Trace/breakpoint trap",
        "Aborted",
        "Bus error",
        "Floating point exception",
        "Killed",
        "User defined signal 1",
        "Segmentation fault",
        "User defined signal 2",
        "Broken pipe",
        "Alarm clock",
        "Terminated",
        "Stack fault",
        "Child exited",
        "Continued",
        "Stopped (signal)",
        "Stopped",
        "Stopped (tty input)",
        "Stopped (tty output)",
        "Urgent I/O condition",
        "CPU time limit exceeded",
        "File size limit exceeded",
        "Virtual timer expired",
        "Profiling timer expired",
        "Window changed",
        "I/O possible",
        "Power failure",
        "Bad system call",
    ];
    let index = signal.checked_sub(1).and_then(|index| usize::try_from(index).ok());
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).to_owned(),
        None => format!("number {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_that_the_c_library_gives_them() {
        assert_eq!(signal_name(9), "Killed");
        assert_eq!(signal_name(15), "Terminated");
        assert_eq!(signal_name(11), "Segmentation fault");
        assert_eq!(signal_name(31), "Bad system call");
        assert_eq!(signal_name(40), "number 40");
        assert_eq!(signal_name(-1), "number -1");
    }
}
