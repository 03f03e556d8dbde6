//! The binary `podium`: server, one-machine cluster and command line.

mod cli;
mod client;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    // A machine starts a thousand of these at a time, and none of them needs the whole tree of commands built.
    if std::env::args_os().skip(1).eq(["executor"]) {
        return podium_engine::executor::run();
    }
    match Cli::parse().command {
        Command::Client(command) => client::run(command),
        Command::Executor => podium_engine::executor::run(),
        Command::Dev(args) => serve::run(args.serve.clone(), serve::dev::run(*args)),
        Command::Server(args) => serve::run(args.serve.clone(), serve::server::run(*args)),
    }
}
