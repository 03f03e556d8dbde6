//! What ends the containers of an executor that was killed, where its agent does not.
//!
//! A container's first process dies with the executor, by the kernel's hand; what that had started has no such bond. Our own agent
//! looks for it by its marker. Mesos' agent with the posix launcher looks in the executor's session, where no container is. So an
//! executor of Mesos' is two processes: the one that the agent has started is the guardian, and its child the executor. Both adopt
//! orphans, so that nothing leaves the tree below them, whatever it makes of its session and its environment. If one is killed, the
//! other kills all that is left below it, and ends.

use std::{
    io::{PipeReader, PipeWriter, pipe},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, getpid, wait},
};
use tokio::net::unix::pipe::Receiver;

use super::{processes, say, spawn};

/// How long the killing is tried. Only a process that the kernel itself holds can take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(10);

/// The executor's end of a pipe whose other end only the guardian has.
pub(super) struct Guardian(PipeReader);

impl Guardian {
    /// Makes this process the guardian, which ends when the executor has, and as it did. Returns in the executor.
    pub fn start() -> std::io::Result<Guardian> {
        processes::become_subreaper()?;
        let (watch, life) = pipe()?;
        match spawn::fork()? {
            // In a process group of its own: what is sent to one of them does not reach the other, which has work to do then.
            None => rustix::process::setpgid(None, None).map(|()| Guardian(watch)).map_err(Into::into),
            Some(executor) => {
                drop(watch);
                guard(executor, life)
            }
        }
    }

    /// Waits until the guardian is no more, and kills what is below this process then.
    pub async fn outlive(self) -> std::io::Error {
        if let Err(error) = ended(self.0).await {
            // The containers run all the same.
            say(&format!("the process that an agent knows this executor by can't be watched: {error}"));
            std::future::pending::<()>().await;
        }
        end_descendants();
        std::io::Error::other("the process that an agent knew this executor by has ended")
    }
}

/// Waits until nobody holds the other end any more.
async fn ended(pipe: PipeReader) -> std::io::Result<()> {
    let pipe = Receiver::from_owned_fd(OwnedFd::from(pipe))?;
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut [0]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            // Woken without cause.
            _ => {}
        }
    }
}

fn guard(executor: Pid, _life: PipeWriter) -> ! {
    // No folder shall be held.
    let _ = rustix::process::chdir("/");
    let status = loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == executor => break Some(status),
            // Orphans end as well.
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break None,
        }
    };
    end_descendants();
    end_as(status)
}

/// As the executor, whom an agent takes this process for.
fn end_as(status: Option<WaitStatus>) -> ! {
    if let Some(signal) = status.and_then(WaitStatus::terminating_signal).and_then(Signal::from_named_raw) {
        let _ = rustix::process::kill_process(getpid(), signal);
    }
    std::process::exit(status.and_then(WaitStatus::exit_status).unwrap_or(1))
}

fn end_descendants() {
    let give_up = Instant::now() + PATIENCE;
    let mut killed = 0_usize;
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let left = processes::descendants(getpid());
        if left.is_empty() {
            break;
        }
        if Instant::now() > give_up {
            return say(&format!("the executor has ended before its containers, and {} of their processes cannot be killed", left.len()));
        }
        killed = killed.max(left.len());
        left.into_iter().for_each(processes::kill);
        std::thread::sleep(PAUSE);
    }
    if killed > 0 {
        say(&format!("the executor has ended before its containers: {killed} processes that were left of them have been killed"));
    }
}
