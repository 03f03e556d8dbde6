//! The binary `podium`: server, one-machine cluster and command line.

mod address;
mod cli;
mod client;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    // A machine starts a thousand of these at a time, and none of them needs the whole tree of commands built.
    if std::env::args_os().skip(1).eq(["executor"]) || called_as_default_executor() {
        return podium_engine::executor::run();
    }
    match Cli::parse().command {
        Command::Client(command) => client::run(command),
        Command::Executor => podium_engine::executor::run(),
        Command::Dev(args) => serve::run(args.serve.clone(), serve::dev::run(*args)),
        Command::Server(args) => serve::run(args.serve.clone(), serve::server::run(*args)),
    }
}

/// Whether a Mesos agent has started this as its default executor: a link of that name in the agent's `--launcher_dir`
/// is enough, whatever arguments the agent gives.
fn called_as_default_executor() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| std::path::Path::new(&name).file_name() == Some("mesos-default-executor".as_ref()))
}
