//! What ends the containers of an executor that was killed, where its agent does not.
//!
//! A container's first process dies with the executor, by the kernel's hand; what that had started has no such bond. Our own agent
//! looks for it by its marker. Mesos' agent with the posix launcher looks in the executor's session, where no container is. So an
//! executor of Mesos' has a guardian: a process split off before anything else, which sleeps until the executor's end of a pipe is
//! closed and then kills all that carries the marker. What has made itself an environment without the marker is not found.

use std::{
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    time::{Duration, Instant},
};

use super::{
    processes, say,
    spawn::{self, Side},
};

/// How long the killing is tried. Only a process that the kernel itself holds can take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two readings of `/proc`.
const PAUSE: Duration = Duration::from_millis(10);

/// The executor's end of the pipe.
pub(super) struct Guardian(PipeWriter);

impl Guardian {
    /// Splits it off. It is no child of this process: an agent that kills executor and children together finishes the work itself.
    pub fn start(marker: &str) -> std::io::Result<Guardian> {
        let (watch, life) = pipe()?;
        match spawn::split_off()? {
            Side::Old => Ok(Guardian(life)),
            Side::New => {
                // Else it would wait for itself.
                drop(life);
                guard(watch, marker);
                std::process::exit(0)
            }
        }
    }

    /// Nothing is left behind.
    pub fn dismiss(mut self) {
        // If it has been killed, it can't be told.
        let _ = self.0.write_all(b".");
    }
}

fn guard(mut watch: PipeReader, marker: &str) {
    // Nothing that is meant for the executor's session shall reach it, and no folder be held.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    if watch.read_exact(&mut [0]).is_err() {
        end_all(marker);
    }
}

fn end_all(marker: &str) {
    let give_up = Instant::now() + PATIENCE;
    let mut killed = 0_usize;
    loop {
        let left: Vec<_> = processes::marked().into_iter().filter(|(_, value)| processes::covers(marker, value)).collect();
        if left.is_empty() {
            break;
        }
        if Instant::now() > give_up {
            return say(&format!("the executor has ended before its containers, and {} of their processes cannot be killed", left.len()));
        }
        killed = killed.max(left.len());
        left.into_iter().for_each(|(pid, _)| processes::kill(pid));
        std::thread::sleep(PAUSE);
    }
    if killed > 0 {
        say(&format!("the executor has ended before its containers: {killed} processes that were left of them have been killed"));
    }
}
