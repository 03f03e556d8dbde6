//! The command line as clap reads it: every command, flag, environment variable and help text of the client commands.
//! What the commands do stands in [`crate::client`]; `dev` and `server` keep their flags beside their wiring.

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, or `diff` found a difference; 2 wrong usage; 3 no such pod; \
4 the definition was refused; 5 timed out; 6 the server cannot be reached.";

/// Runs pods (groups of containers that start, run and end together) on Apache Mesos.
#[derive(Debug, Parser)]
#[command(name = "podium", version, propagate_version = true, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command of the binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A command that talks to a server, or needs none at all.
    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands of people and pipelines; [`crate::client::run`] carries them out.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Prints a completion script for a shell.
    #[command(
        after_help = "Examples:\n  podium completions bash > /etc/bash_completion.d/podium\n  podium completions zsh > ~/.zfunc/_podium"
    )]
    Completions(CompletionsArgs),
}

/// `podium completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
