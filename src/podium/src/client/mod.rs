//! The client commands. Each asks a server over its REST API, or needs none at all.
//! Promises: data goes to stdout and everything else to stderr; the exit code tells the kind of failure.

mod commands;
mod connection;
mod documents;
mod events;
mod failure;
mod identity;
mod logs;
mod render;
mod status;
mod terminal;
mod unknown;
mod wait;

use std::process::ExitCode;

use crate::cli::ClientCommand;
use failure::Failure;
use terminal::{Paint, Tone};

/// Carries out one client command, to its end. Builds its own small runtime: call it outside of any.
pub fn run(command: ClientCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::Failed(format!("cannot start: {error}"))),
    };
    match runtime.block_on(commands::execute(command)) {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    let prefix = Paint::for_stderr().tone("error:", Some(Tone::Bad));
    for line in failure.to_string().lines() {
        eprintln!("{prefix} {}", terminal::printable(line));
    }
    ExitCode::from(failure)
}
