//! The command line as clap reads it: every command, flag, environment variable and help text of the client commands.
//! What the commands do stands in [`crate::client`]; `dev` and `server` keep their flags beside their wiring.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use podium_types::id::{PodId, Version};

/// Where a client command looks for the server when nothing else is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

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
    /// Runs a whole cluster on this machine: store, engine, controllers and API in one process.
    #[command(
        after_help = "Examples:\n  podium dev\n  podium dev --data-dir /tmp/try --listen 127.0.0.1:0 --etcd-listen 127.0.0.1:0 --mesos-listen 127.0.0.1:0\n  podium dev --simulate --agents 100\n  podium dev --controllers none    a store and an engine for others"
    )]
    Dev(Box<crate::serve::dev::DevArgs>),
    /// Runs one replica of the API and the controllers on a real etcd and a real Mesos.
    #[command(
        after_help = "Examples:\n  podium server --etcd http://10.0.0.1:2379 --mesos http://10.0.0.11:5050\n  podium server --etcd http://10.0.0.1:2379 --mesos http://10.0.0.11:5050 --controllers gateway"
    )]
    Server(Box<crate::serve::server::ServerArgs>),
    /// Runs one instance of a pod; started by an agent, with the environment of a Mesos executor.
    #[command(hide = true)]
    Executor,
    /// A command that talks to a server, or needs none at all.
    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands of people and pipelines; [`crate::client::run`] carries them out.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Creates or changes pods from definitions in a file.
    #[command(after_help = "Examples:\n  podium apply -f pod.json\n  podium apply -f pod.json --wait --timeout 2m\n  \
                            podium apply -f pod.json --dry-run\n  \
                            jq '.[0]' pods.json | podium apply -f -")]
    Apply(ApplyArgs),
    /// Shows pods, one pod's definition or its versions, the running deployments, or instances that the store does not know.
    #[command(after_help = "Examples:\n  podium get pods\n  podium get pod /web/frontend -o json\n  podium get versions /web/frontend\n  \
                            podium get deployments\n  podium get unknown")]
    Get(GetArgs),
    /// Shows how a pod is doing, or all of them.
    #[command(after_help = "Examples:\n  podium status\n  podium status /web/frontend\n  podium status /web/frontend --wait --timeout 2m")]
    Status(StatusArgs),
    /// Prints what a pod's containers have printed, and with -f what they print from now on.
    ///
    /// What a container wrote to its standard output goes to standard output, what it wrote to its standard error to standard
    /// error. With several instances or containers every line begins with `[instance/container]`.
    #[command(after_help = "Examples:\n  podium logs /web/frontend\n  podium logs /web/frontend nginx -f --tail 20\n  \
                            podium logs /web/frontend --instance 3f2c90 --previous    what it said before it was launched again")]
    Logs(LogsArgs),
    /// Changes how many instances of a pod run.
    #[command(after_help = "Examples:\n  podium scale /web/frontend 3\n  podium scale /web/frontend 0 --wait")]
    Scale(ScaleArgs),
    /// Returns a pod to an earlier version, as a change of its own.
    #[command(after_help = "Examples:\n  podium rollback /web/frontend --wait\n  \
                            podium rollback /web/frontend --to 2026-01-31T12:00:00.000Z")]
    Rollback(RollbackArgs),
    /// Stops all instances of a pod and forgets the pod; its history of versions stays.
    #[command(after_help = "Examples:\n  podium delete /web/frontend\n  podium delete /web/frontend --wait")]
    Delete(DeleteArgs),
    /// Takes on instances that run and of which the store has no record; with the last of them a quarantine ends.
    #[command(after_help = "Examples:\n  podium get unknown\n  podium adopt /web/frontend\n  \
                            podium adopt web.instance-4e4f2e1c-8a63-4b0e-9a53-9d7c2f0d6c11\n  \
                            podium adopt --all            also when none is left: all is as it should be")]
    Adopt(AdoptArgs),
    /// Ends instances that run and of which the store has no record; others are ended by `podium scale` and `podium delete`.
    #[command(after_help = "Examples:\n  podium get unknown\n  podium kill /web/frontend\n  podium kill --all-unknown -o json")]
    Kill(KillArgs),
    /// Checks definitions without a server, strictly: a field that Podium does not know is an error.
    #[command(after_help = "Examples:\n  podium validate -f pod.json\n  cat pods/*.json | podium validate -f -")]
    Validate(ValidateArgs),
    /// Shows what applying a file would change; ends with 1 when something would.
    #[command(after_help = "Examples:\n  podium diff -f pod.json")]
    Diff(DiffArgs),
    /// Draws a bearer token for the API, and the line by which the server's --tokens-file knows it.
    #[command(after_help = "Examples:\n  podium token ci --right write --below /team\n  podium token dashboard    may read everything")]
    Token(TokenArgs),
    /// Prints a completion script for a shell.
    #[command(
        after_help = "Examples:\n  podium completions bash > /etc/bash_completion.d/podium\n  podium completions zsh > ~/.zfunc/_podium"
    )]
    Completions(CompletionsArgs),
    /// Prints the version of this command and, if it answers, of the server.
    Version(VersionArgs),
}

/// How a command finds the server.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server's address.
    #[arg(long, env = "PODIUM_SERVER", value_name = "URL", default_value = DEFAULT_SERVER, value_parser = crate::address::Address)]
    pub server: String,
    /// A file with the bearer token that the server knows us by. Instead of a file: the variable PODIUM_TOKEN.
    #[arg(long, env = "PODIUM_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with one line `user:password`, for a server that asks for those.
    #[arg(long, env = "PODIUM_CREDENTIALS_FILE", value_name = "FILE", conflicts_with = "token_file")]
    pub credentials_file: Option<PathBuf>,
    /// The authority that signed the certificate of an https server, PEM; without it those of this machine are believed.
    #[arg(long, env = "PODIUM_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns for people.
    Table,
    /// JSON as the server answers it.
    Json,
}

/// The choice of the printed form.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

/// Whether to wait for the end of what was asked for.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Wait until it is done (a pod: has been STABLE for a second), showing progress; ends non-zero, with the reason, if it cannot be done.
    #[arg(short, long)]
    pub wait: bool,
    /// How long to wait at most: 90, 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration, requires = "wait")]
    pub timeout: Duration,
}

/// Where definitions come from.
#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// A file, or - for standard input. It holds one definition, an array of them, or several JSON documents. May be repeated.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// What becomes of a deployment that is still running.
#[derive(Debug, Clone, Args)]
pub struct ForceArgs {
    /// Supersede a running deployment of the same pod; --force=false refuses instead.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub force: bool,
}

/// `podium apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Definitions.
    #[command(flatten)]
    pub file: FileArgs,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Superseding.
    #[command(flatten)]
    pub force: ForceArgs,
    /// Tell what would happen, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to show.
    #[command(subcommand)]
    pub what: GetWhat,
}

/// What `podium get` shows.
#[derive(Debug, Subcommand)]
pub enum GetWhat {
    /// All pods.
    Pods(ListArgs),
    /// One pod's definition.
    Pod(GetPodArgs),
    /// The versions of one pod that are kept, oldest first.
    Versions(GetPodArgs),
    /// The deployments that are running.
    Deployments(ListArgs),
    /// Instances that run and of which the store has no record, and whether there is a quarantine.
    Unknown(ListArgs),
}

/// A listing.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium get pod`.
#[derive(Debug, Args)]
pub struct GetPodArgs {
    /// The pod's id, with or without the leading slash.
    #[arg(value_name = "ID", value_parser = parse_pod_id)]
    pub id: PodId,
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The pod's id; without it: all pods.
    #[arg(value_name = "ID", value_parser = parse_pod_id)]
    pub id: Option<PodId>,
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Which of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogStream {
    /// Standard output and standard error.
    Both,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// `podium logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The pod's id.
    #[arg(value_name = "ID", value_parser = parse_pod_id)]
    pub id: PodId,
    /// Only this container.
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Only this instance: its id, or the beginning of its uuid. One that ended lately can be named, too.
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Option<String>,
    /// Go on until the pod is deleted or this command is stopped.
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with the last N lines of each log (at most its last MiB); without it, with its first.
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// The launch before the present one: why did it end?
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Only what was written to one of the two.
    #[arg(long, value_name = "STREAM", default_value = "both")]
    pub stream: LogStream,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// The pod's id.
    #[arg(value_name = "ID", value_parser = parse_pod_id)]
    pub id: PodId,
    /// How many instances should run.
    #[arg(value_name = "N")]
    pub instances: u32,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Superseding.
    #[command(flatten)]
    pub force: ForceArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The pod's id.
    #[arg(value_name = "ID", value_parser = parse_pod_id)]
    pub id: PodId,
    /// The version to return to, as `podium get versions ID` lists it; without it: the one before that in force.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub to: Option<Version>,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Superseding.
    #[command(flatten)]
    pub force: ForceArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The pod's id.
    #[arg(value_name = "ID", value_parser = parse_pod_id)]
    pub id: PodId,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Superseding.
    #[command(flatten)]
    pub force: ForceArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium adopt`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false).args(["ids", "all"]))]
pub struct AdoptArgs {
    /// Pods (/web), instances or tasks, as `podium get unknown` lists them.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All that are unknown; where none is left, this ends the quarantine.
    #[arg(long)]
    pub all: bool,
    /// How long to wait for it at most: 90, 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium kill`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false).args(["ids", "all_unknown"]))]
pub struct KillArgs {
    /// Pods (/web), instances or tasks, as `podium get unknown` lists them, or a foreign task that /readyz tells of.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All that are unknown.
    #[arg(long)]
    pub all_unknown: bool,
    /// How long to wait for it at most: 90, 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Definitions.
    #[command(flatten)]
    pub file: FileArgs,
    /// The role that the server gives to pods that name none.
    #[arg(long, env = "PODIUM_DEFAULT_ROLE", value_name = "ROLE", default_value = "*")]
    pub default_role: String,
    /// The network that the server gives to container networks that name none.
    #[arg(long, env = "PODIUM_DEFAULT_NETWORK_NAME", value_name = "NAME", default_value = "default")]
    pub default_network_name: String,
}

/// `podium diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Definitions.
    #[command(flatten)]
    pub file: FileArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `podium token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whose token it is, for people.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What its owner may do: read or write.
    #[arg(long, value_name = "RIGHT", default_value = "read")]
    pub right: podium_api::Right,
    /// The pods of which: `/` for all, `/team` for those below it.
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub below: String,
}

/// `podium completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `podium version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Form.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Reads `90`, `90s`, `5m`, `1h` or `250ms`; at most a year, so that sums with the clock cannot overflow.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let millis_each: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{unit}` is no unit of time: use ms, s, m or h")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("`{text}` is no time: write 90s, 5m or 1h"))?;
    match count.checked_mul(millis_each) {
        Some(millis) if millis <= 366 * 24 * 3_600_000 => Ok(Duration::from_millis(millis)),
        _ => Err("longer than a year".to_owned()),
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|_| format!("`{text}` is no version: they look like 2026-01-31T12:00:00.000Z"))
}

fn parse_pod_id(text: &str) -> Result<PodId, String> {
    PodId::lenient(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn client(line: &[&str]) -> ClientCommand {
        match Cli::try_parse_from(std::iter::once(&"podium").chain(line)).unwrap().command {
            Command::Client(command) => command,
            #[allow(unreachable_patterns)]
            other => panic!("not a client command: {other:?}"),
        }
    }

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn force_is_sent_unless_it_is_switched_off() {
        for (line, force) in [
            (&["apply", "-f", "-"][..], true),
            (&["apply", "-f", "-", "--force"], true),
            (&["apply", "--force", "-f", "-"], true),
            (&["apply", "-f", "-", "--force=false"], false),
        ] {
            let ClientCommand::Apply(args) = client(line) else { panic!("{line:?}") };
            assert_eq!(args.force.force, force, "{line:?}");
        }
    }

    #[test]
    fn a_pod_id_may_be_written_without_its_slash() {
        let ClientCommand::Scale(args) = client(&["scale", "web", "3"]) else { panic!() };
        assert_eq!((args.id.as_str(), args.instances), ("/web", 3));
        assert!(Cli::try_parse_from(["podium", "scale", "WEB", "3"]).is_err());
        assert!(Cli::try_parse_from(["podium", "scale", "web", "-3"]).is_err());
    }

    #[test]
    fn who_is_adopted_or_killed_must_be_said_and_in_one_way() {
        for line in [&["adopt", "/a", "b"][..], &["adopt", "--all"], &["kill", "/a"], &["kill", "--all-unknown"]] {
            client(line);
        }
        for line in [&["adopt"][..], &["kill"], &["adopt", "/a", "--all"], &["kill", "/a", "--all-unknown"]] {
            assert!(Cli::try_parse_from(std::iter::once(&"podium").chain(line)).is_err(), "{line:?}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_units() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "m", "5x", "-1s", "99999999999999999999h", "9999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
