//! The executor process: one for each instance, started by an agent as `podium executor`.
//!
//! A Mesos v1 executor in the sense of the protocol: it subscribes at its agent's `/api/v1/executor`,
//! runs the task group it is given as process groups in one shared sandbox, and reports. It promises
//! - all or nothing: a container that fails or is killed takes its siblings with it, exit 0 does not;
//! - nothing is left behind: it is the child subreaper of all that its containers ever start, so that
//!   neither a double fork nor a deaf ear for SIGTERM escapes the end of a container; and should it be killed itself,
//!   its agent, or where that is Mesos' own its [`guardian`], ends what is left;
//! - it outlives its agent: without one it goes on, and comes back with everything unacknowledged, for
//!   up to `MESOS_RECOVERY_TIMEOUT`; after that it kills its containers and ends.
//!
//! Single-threaded and small: a machine runs a thousand of them.

mod connection;
mod driver;
mod guardian;
mod health;
mod launch;
pub(crate) mod processes;
mod sandbox;
mod settings;
mod spawn;
mod status;
mod support;
mod task;
mod uris;
mod users;

use std::{io::Write as _, process::ExitCode};

pub(crate) use sandbox::inside;
pub use settings::MARKER;
pub(crate) use settings::{ADDRESS_FILE, OPEN_FILES};
pub(crate) use spawn::share_no_descriptors;
pub(crate) use status::now;
pub(crate) use users::Account;

/// Runs the executor that the environment describes (`MESOS_*`) until its last container has ended and
/// every update is acknowledged. What it has to say goes to standard error: the sandbox's `stderr` file.
#[must_use]
pub fn run() -> ExitCode {
    // Its own session, so that nothing sent to its agent's terminal reaches it. Already a leader: fine.
    let _ = rustix::process::setsid();
    // Containers are started alike, however the agent was.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    spawn::share_no_descriptors();
    spawn::unblock_signals();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// To standard error. When nothing can be written there, as on a full disk, that is no reason to end with all that runs.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "podium executor: {words}");
}

fn start() -> Result<(), Box<dyn std::error::Error>> {
    let settings = settings::Settings::from_env()?;
    settings.restore_open_files();
    // Before there is anything that two processes can't share.
    let guardian = if settings.guarded { guard() } else { None };
    processes::become_subreaper()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let outlived = async {
            match guardian {
                Some(guardian) => guardian.outlive().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = driver::run(settings) => ended,
            error = outlived => Err(error),
        }
    });
    // Nothing is waited for: a blocked file copy must not keep a finished executor.
    runtime.shutdown_background();
    Ok(ended?)
}

/// Without one the containers run all the same.
fn guard() -> Option<guardian::Guardian> {
    let started = guardian::Guardian::start();
    started.map_err(|error| say(&format!("no guardian, containers may outlive a killed executor: {error}"))).ok()
}
