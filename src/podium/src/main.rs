//! The binary `podium`: server, one-machine cluster and command line.

mod cli;
mod client;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().command {
        cli::Command::Client(command) => client::run(command),
    }
}
