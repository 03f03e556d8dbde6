//! Starts executor processes, on a thread of its own: a fork of a large process takes its time.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Pid;
use tokio::sync::{mpsc, watch};

use super::{
    journal::Closed,
    owner::{Key, Message},
    volumes,
};
use crate::executor::processes;

/// An executor to start.
#[derive(Debug)]
pub(super) struct Order {
    pub key: Key,
    /// The new run's sandbox: `…/runs/<container id>`.
    pub sandbox: PathBuf,
    /// What is linked into the sandbox: by the name there, a persistent volume's folder.
    pub volumes: Vec<(PathBuf, PathBuf)>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
}

/// A started process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub pid: Pid,
    /// See [`processes::Stat::start`].
    pub start: u64,
}

/// Starts what is ordered until the orders end; the answers go to the agent's owner task.
pub(super) fn start(command: Vec<OsString>, answers: mpsc::Sender<Message>) -> io::Result<(mpsc::UnboundedSender<Order>, Closed)> {
    // Bounded by the executors that the agent knows: each is ordered once.
    let (orders, mut queue) = mpsc::unbounded_channel::<Order>();
    let (open, closed) = watch::channel(());
    std::thread::Builder::new().name("agent-launcher".to_owned()).spawn(move || {
        let _open = open;
        while let Some(order) = queue.blocking_recv() {
            let result = run(&command, &order).map_err(|error| error.to_string());
            if answers.blocking_send(Message::Started { key: order.key, result }).is_err() {
                return;
            }
        }
    })?;
    Ok((orders, closed))
}

fn run(command: &[OsString], order: &Order) -> io::Result<Started> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("the agent has no command for executors"))?;
    // Empty folders around an old sandbox may just be being removed: once more, then.
    lay_out(&order.sandbox).or_else(|_| lay_out(&order.sandbox))?;
    for (name, volume) in &order.volumes {
        volumes::link(&order.sandbox, name, volume)?;
    }
    let mut process = Command::new(program);
    process.args(arguments).env_clear().envs(order.environment.iter().map(|(name, value)| (name, value)));
    process.current_dir(&order.sandbox).stdin(Stdio::null());
    process.stdout(log(&order.sandbox.join("stdout"))?).stderr(log(&order.sandbox.join("stderr"))?);
    let child = process.spawn()?;
    let pid = Pid::from_child(&child);
    // It is our child and nobody has waited for it: it is there, if only as a zombie.
    let start = processes::stat(pid).map_or(0, |stat| stat.start);
    Ok(Started { pid, start })
}

fn log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Makes the run's sandbox and points `runs/latest` at it.
fn lay_out(sandbox: &Path) -> io::Result<()> {
    let runs = sandbox.parent().ok_or_else(|| io::Error::other("a sandbox without a folder around it"))?;
    // A container of another user passes through to its own sandbox, and lists nobody's.
    DirBuilder::new().recursive(true).mode(0o711).create(runs)?;
    match DirBuilder::new().mode(0o750).create(sandbox) {
        // Ordered once before, by an agent that crashed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let name = sandbox.file_name().ok_or_else(|| io::Error::other("a sandbox without a name"))?;
    let fresh = runs.join(format!(".latest-{}", name.to_string_lossy()));
    let _ = fs::remove_file(&fresh);
    symlink(sandbox, &fresh)?;
    fs::rename(fresh, runs.join("latest"))
}
