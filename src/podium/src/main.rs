//! The binary `podium`: server, one-machine cluster and command line.

mod cli;
mod client;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Client(command) => client::run(command),
        Command::Executor => podium_engine::executor::run(),
        Command::Dev(args) => serve::run(args.serve.clone(), serve::dev::run(*args)),
        Command::Server(args) => serve::run(args.serve.clone(), serve::server::run(*args)),
    }
}
