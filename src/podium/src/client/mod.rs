//! The client commands. Each asks a server over its REST API, or needs none at all.
//! Promises: data goes to stdout and everything else to stderr; the exit code tells the kind of failure.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, ClientCommand};

/// Carries out one client command, to its end. Builds its own small runtime where it needs one: call it outside of any.
pub fn run(command: ClientCommand) -> ExitCode {
    match command {
        ClientCommand::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "podium", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
