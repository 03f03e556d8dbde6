//! The long-running commands, `podium dev` and `podium server`, and what they share: flags, the API and the
//! controllers on a store, log output, and the end by a signal.

pub mod access;
pub mod dev;
pub mod etcd;
pub mod folder;
pub mod mesos;
pub mod replica;
pub mod server;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Flags of both commands.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where the API listens; port 0 means any free port.
    #[arg(long, env = "PODIUM_LISTEN", default_value = "127.0.0.1:8080", value_name = "HOST:PORT", value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Which controllers this process campaigns for: all, none, or a list of admission, upgrade, scaling, unreachable, health, gateway.
    #[arg(long, env = "PODIUM_CONTROLLERS", default_value = "all", value_name = "LIST|all|none")]
    pub controllers: Which,

    /// After so many seconds without a sign of life another replica takes over.
    #[arg(long, env = "PODIUM_LEASE_TTL", default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub lease_ttl: u32,

    /// The root of Podium's keys.
    #[arg(long, env = "PODIUM_PREFIX", default_value = podium_store::key::DEFAULT_PREFIX, value_name = "KEY")]
    pub prefix: String,

    /// The Mesos role of pods that name none.
    #[arg(long, env = "PODIUM_ROLE", default_value = "*", value_name = "ROLE")]
    pub role: String,

    /// Where secrets are read from: a secret whose source is `/a/b` is the file `a/b` below this folder.
    #[arg(long, env = "PODIUM_SECRETS_DIR", value_name = "FOLDER")]
    pub secrets_dir: Option<PathBuf>,

    /// Host names by which the API may be called, beyond localhost and addresses; `*` for any. A page of another name can then not reach it.
    #[arg(long, env = "PODIUM_HOST_NAME", value_delimiter = ',', value_name = "NAME[,NAME…]")]
    pub host_name: Vec<String>,

    /// Who may call.
    #[command(flatten)]
    pub access: access::AccessArgs,

    /// What is logged: error, warn, info, debug, or a filter such as `podium_store=debug,info`.
    #[arg(long, env = "PODIUM_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How log lines are written, to standard error.
    #[arg(long, env = "PODIUM_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which controllers a process campaigns for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Which(pub BTreeSet<&'static str>);

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = podium_controllers::NAMES;
        match text {
            "all" => Ok(Self(known.iter().copied().collect())),
            "none" | "" => Ok(Self(BTreeSet::new())),
            list => list
                .split(',')
                .map(|name| {
                    let name = name.trim();
                    known
                        .iter()
                        .copied()
                        .find(|known| *known == name)
                        .ok_or_else(|| format!("no controller is called '{name}': {}", known.join(", ")))
                })
                .collect::<Result<_, _>>()
                .map(Self),
        }
    }
}

impl ServeArgs {
    /// The lease's time to live.
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_secs(self.lease_ttl.into())
    }

    /// Sends log lines to standard error.
    pub fn start_logging(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| anyhow::anyhow!("--log '{}': {error}", self.log))?;
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
        // Where nobody reads standard error any more, a line that cannot be written is no reason to panic over another.
        let builder = builder.log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
        Ok(())
    }
}

/// Runs a long-running command on a runtime of its own; an error is printed, and becomes exit code 1.
pub fn run(args: ServeArgs, command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let outcome = args.start_logging().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(command);
        // Whatever still runs is not worth waiting for.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        complain(&format!("podium: {error:#}"));
        ExitCode::FAILURE
    })
}

/// A line for whoever started us. Nobody may be reading any more, which is no reason to panic or to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Reads `HOST:PORT`; a name means its first address.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs;
    match text.to_socket_addrs() {
        Ok(mut found) => found.next().ok_or_else(|| "this name has no address".to_owned()),
        Err(error) => Err(format!("{error}: write an address and a port, as in 127.0.0.1:8080 or localhost:0")),
    }
}

/// Binds a listener, or says which flag to change.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{flag} {address}: the port is taken; choose another, or port 0 for any free one ({flag} {}:0)", address.ip())
        }
        _ => anyhow::anyhow!("{flag} {address}: {error}"),
    })
}

/// SIGINT, SIGTERM and SIGHUP (a closed terminal), caught from here on: made before anything is started, so that none is missed.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Begins to catch them. Needs a tokio runtime.
    pub fn catch() -> anyhow::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: signal(SignalKind::hangup())? })
    }

    /// Completes at the first of them, and names it. A second Ctrl-C ends the process at once, with exit code 130, also
    /// while something else than this is awaited: a start or a stop that hangs can always be left.
    pub fn first(mut self) -> impl Future<Output = &'static str> + Unpin {
        let (told, first) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
            };
            // Who no longer waits for it is stopping already.
            let _ = told.send(name);
            self.interrupt.recv().await;
            complain("stopped by a second Ctrl-C: what still runs is left as it is, and found again by the next start");
            std::process::exit(130);
        });
        first.map(|name| name.unwrap_or("the end of the runtime"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_name_and_needs_a_port() {
        assert_eq!(parse_address("127.0.0.1:0").unwrap().port(), 0);
        assert!(parse_address("localhost:8080").unwrap().ip().is_loopback());
        assert!(parse_address("8080").unwrap_err().contains("127.0.0.1:8080"));
    }

    #[test]
    fn a_list_of_controllers_names_only_known_ones() {
        assert_eq!("none".parse::<Which>().unwrap().0.len(), 0);
        assert_eq!("all".parse::<Which>().unwrap().0.len(), podium_controllers::NAMES.len());
        assert_eq!("scaling, gateway".parse::<Which>().unwrap().0, BTreeSet::from(["gateway", "scaling"]));
        assert!("scalin".parse::<Which>().unwrap_err().contains("scaling"));
    }
}
