//! Where Mesos is, and as whom `podium server` speaks to it.

use std::path::{Path, PathBuf};

use clap::Args;
use podium_controllers::gateway::{self, Credentials, FirstFramework, Masters, Trust};

/// The word of `--mesos` for a file that holds the address.
const FILE: &str = "file://";

/// A secret's file is small; what is larger is a mistake in the flag.
const MAX_SECRET: usize = 4096;

/// Flags about Mesos.
#[derive(Debug, Clone, Args)]
pub struct MesosArgs {
    /// The Mesos masters, of which any leads to the leading one; or the ZooKeeper that knows it: `zk://host:2181,host:2181/mesos`.
    /// `file:///path` reads either from a file; there and in the environment, zk:// may hold a login: `zk://name:password@…`.
    #[arg(long, env = "PODIUM_MESOS", required = true, hide_env_values = true, value_name = "URL[,URL…]|zk://…|file://…")]
    pub mesos: String,

    /// The principal of the framework, for masters that authenticate frameworks and for reservations.
    #[arg(long, env = "PODIUM_MESOS_PRINCIPAL", value_name = "NAME")]
    pub mesos_principal: Option<String>,

    /// The file with the principal's secret, which is sent to the master with each call.
    #[arg(long, env = "PODIUM_MESOS_SECRET_FILE", value_name = "FILE", requires = "mesos_principal")]
    pub mesos_secret_file: Option<PathBuf>,

    /// The principal that may read files at agents, where they authenticate readers (`--authenticate_http_readonly`): for logs.
    #[arg(long, env = "PODIUM_MESOS_AGENT_PRINCIPAL", value_name = "NAME", requires = "mesos_agent_secret_file")]
    pub mesos_agent_principal: Option<String>,

    /// The file with that principal's secret, which is sent to each agent whose logs are read.
    #[arg(long, env = "PODIUM_MESOS_AGENT_SECRET_FILE", value_name = "FILE", requires = "mesos_agent_principal")]
    pub mesos_agent_secret_file: Option<PathBuf>,

    /// The file with the certificate authorities (PEM) that vouch for the masters: they are then spoken to by https, unless their URL says http.
    /// Without it, https:// masters must be vouched for by the authorities of this machine.
    #[arg(long, env = "PODIUM_MESOS_CA_FILE", value_name = "FILE")]
    pub mesos_ca_file: Option<PathBuf>,

    /// The account that tasks run as unless their definition names one [default: root, or without its rights $USER].
    #[arg(long, env = "PODIUM_MESOS_USER", value_name = "NAME")]
    pub mesos_user: Option<String>,

    /// For so long Mesos keeps the tasks while no Podium is subscribed; then it kills them.
    #[arg(long, env = "PODIUM_FAILOVER_TIMEOUT", default_value_t = 604_800, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(60..=31_536_000))]
    pub failover_timeout: u32,

    /// Agents with GPUs: `restricted` keeps them for pods that ask for GPUs, `unrestricted` does not, with `off` they are not offered at all.
    #[arg(long, env = "PODIUM_GPU_SCHEDULING", default_value = "restricted", value_name = "HOW")]
    pub gpu_scheduling: GpuScheduling,

    /// The framework's id to begin with, when the store knows none: one that a lost store has forgotten, or `new` for a new one in any case.
    #[arg(long, env = "PODIUM_FRAMEWORK_ID", value_name = "ID|new", value_parser = first_framework)]
    pub framework_id: Option<FirstFramework>,
}

/// What to do with agents that own GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GpuScheduling {
    /// Only pods that ask for GPUs go there.
    Restricted,
    /// All pods may go there.
    Unrestricted,
    /// They are not offered to us.
    Off,
}

pub fn first_framework(text: &str) -> Result<FirstFramework, String> {
    let usable = |c: char| !c.is_control() && !c.is_whitespace() && c != '/' && c != '\\';
    match text {
        "new" => Ok(FirstFramework::New),
        "" | "." | ".." => Err("not an id of a framework".to_owned()),
        id if id.len() <= 255 && id.chars().all(usable) => Ok(FirstFramework::Take(id.to_owned())),
        _ => Err("not an id of a framework: at most 255 characters, without blanks and slashes".to_owned()),
    }
}

impl MesosArgs {
    /// The settings of the gateway that these flags make. `command_line` is what everybody on this machine can read.
    pub fn settings(&self, command_line: impl Iterator<Item = String>) -> anyhow::Result<gateway::Settings> {
        let defaults = gateway::Settings::default();
        Ok(gateway::Settings {
            masters: self.masters(command_line)?,
            principal: self.mesos_principal.clone(),
            credentials: credentials(&MASTER, self.mesos_principal.as_deref(), self.mesos_secret_file.as_deref())?,
            trust: self.trust()?,
            first_framework: self.framework_id.clone().unwrap_or_default(),
            user: self.mesos_user.clone().unwrap_or_else(default_user),
            failover_timeout_seconds: f64::from(self.failover_timeout),
            gpus: self.gpu_scheduling != GpuScheduling::Off,
            share_gpu_agents: self.gpu_scheduling == GpuScheduling::Unrestricted,
            ..defaults
        })
    }

    fn masters(&self, mut command_line: impl Iterator<Item = String>) -> anyhow::Result<Masters> {
        let text = match self.mesos.strip_prefix(FILE) {
            Some(path) => read_small(Path::new(path)).map_err(|error| anyhow::anyhow!("--mesos {}: {error}", self.mesos))?,
            None => self.mesos.clone(),
        };
        let masters: Masters = text.parse().map_err(|error| anyhow::anyhow!("--mesos: {error}"))?;
        if masters.holds_password() && command_line.any(|argument| argument.contains(text.trim())) {
            anyhow::bail!(
                "--mesos: everybody on this machine can read a password on a command line; use PODIUM_MESOS, or --mesos file:///path of a file with the address"
            );
        }
        Ok(masters)
    }

    /// As whom agents are asked for files. Nobody, unless told: agents are many, and need not know what is for the master.
    pub fn agent_credentials(&self) -> anyhow::Result<Option<Credentials>> {
        credentials(&AGENT, self.mesos_agent_principal.as_deref(), self.mesos_agent_secret_file.as_deref())
    }

    fn trust(&self) -> anyhow::Result<Option<Trust>> {
        let trust = self.mesos_ca_file.as_deref().map(Trust::of_file).transpose();
        trust.map_err(|error| anyhow::anyhow!("--mesos-ca-file: {error}"))
    }
}

/// The names of two flags, of a principal and of its secret.
struct LoginFlags {
    principal: &'static str,
    secret: &'static str,
}

const MASTER: LoginFlags = LoginFlags { principal: "--mesos-principal", secret: "--mesos-secret-file" };

const AGENT: LoginFlags = LoginFlags { principal: "--mesos-agent-principal", secret: "--mesos-agent-secret-file" };

fn credentials(flags: &LoginFlags, principal: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<Credentials>> {
    let (Some(principal), Some(file)) = (principal, file) else { return Ok(None) };
    if principal.contains(':') || principal.chars().any(char::is_control) {
        anyhow::bail!("{}: a principal with a secret can hold no colon and no control characters", flags.principal);
    }
    let flag = flags.secret;
    let secret = read_small(file).map_err(|error| anyhow::anyhow!("{flag} {}: {error}", file.display()))?;
    let secret = secret.strip_suffix('\n').map_or(secret.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)).to_owned();
    if secret.is_empty() || secret.chars().any(char::is_control) {
        anyhow::bail!("{flag} {}: it should hold the secret on one line", file.display());
    }
    Ok(Some(Credentials { principal: principal.to_owned(), secret }))
}

/// A small file of text.
fn read_small(path: &Path) -> anyhow::Result<String> {
    let file = rustix::fs::open(
        path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    )?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(std::fs::File::from(file), MAX_SECRET as u64 + 1), &mut text)?;
    anyhow::ensure!(text.len() <= MAX_SECRET, "larger than {MAX_SECRET} bytes");
    Ok(text)
}

/// Where the agent is root, tasks run as this account; elsewhere it is a wish.
pub fn default_user() -> String {
    let named = std::env::var("USER").ok().filter(|_| !rustix::process::geteuid().is_root());
    named.unwrap_or_else(|| gateway::Settings::default().user)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        mesos: MesosArgs,
    }

    fn settings(arguments: &[&str]) -> anyhow::Result<gateway::Settings> {
        let line = Line::try_parse_from(std::iter::once("x").chain(arguments.iter().copied()))?;
        line.mesos.settings(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_never_shown() {
        let secret = file("s3cret\n");
        let path = secret.path().to_str().unwrap();
        let made = settings(&["--mesos", "m:5050", "--mesos-principal", "p", "--mesos-secret-file", path]).unwrap();
        assert_eq!(made.credentials.as_ref().map(|one| (one.principal.as_str(), one.secret.as_str())), Some(("p", "s3cret")));
        assert!(!format!("{made:?}").contains("s3cret"));
        assert!(settings(&["--mesos", "m:5050", "--mesos-secret-file", path]).is_err(), "a secret needs its principal");
        for bad in ["", "\n", "two\nlines\n", &"x".repeat(5000)] {
            let bad = file(bad);
            let refused = settings(&["--mesos", "m", "--mesos-principal", "p", "--mesos-secret-file", bad.path().to_str().unwrap()]);
            assert!(refused.unwrap_err().to_string().contains("--mesos-secret-file"));
        }
    }

    #[test]
    fn agents_have_a_login_of_their_own_and_the_masters_is_not_theirs() {
        let (ours, theirs) = (file("for the master"), file("for agents"));
        let [ours, theirs] = [&ours, &theirs].map(|file| file.path().to_str().unwrap());
        let agents = |more: &[&str]| {
            let plain = ["x", "--mesos", "m:5050", "--mesos-principal", "p", "--mesos-secret-file", ours];
            anyhow::Ok(Line::try_parse_from(plain.iter().chain(more))?.mesos.agent_credentials()?.map(|one| (one.principal, one.secret)))
        };
        assert_eq!(agents(&[]).unwrap(), None);
        let both = ["--mesos-agent-principal", "reader", "--mesos-agent-secret-file", theirs];
        assert_eq!(agents(&both).unwrap(), Some(("reader".to_owned(), "for agents".to_owned())));
        assert!(agents(&both[..2]).is_err() && agents(&both[2..]).is_err(), "one needs the other");
        let empty = agents(&["--mesos-agent-principal", "reader", "--mesos-agent-secret-file", "/dev/null"]).unwrap_err().to_string();
        assert!(empty.contains("--mesos-agent-secret-file"), "{empty}");
    }

    #[test]
    fn a_password_of_zookeeper_stands_in_a_file_or_the_environment_and_not_on_the_command_line() {
        let refused = settings(&["--mesos", "zk://me:hunter2@z:2181/mesos"]).unwrap_err().to_string();
        assert!(refused.contains("PODIUM_MESOS") && !refused.contains("hunter2"), "{refused}");
        let address = file("zk://me:hunter2@z:2181/mesos\n");
        let made = settings(&["--mesos", &format!("file://{}", address.path().display())]).unwrap();
        assert_eq!(made.masters.to_string(), "zk://z:2181/mesos");
        assert!(made.masters.holds_password() && !format!("{made:?}").contains("hunter2"));
        // As from the environment: it is not on the command line.
        let line = Line::try_parse_from(["x", "--mesos", "zk://me:hunter2@z:2181/mesos"]).unwrap();
        assert!(line.mesos.settings(std::iter::empty()).unwrap().masters.holds_password());
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_the_name_of_its_flag() {
        for (arguments, flag) in [
            (&["--mesos", "me:hunter2@host"][..], "--mesos"),
            (&["--mesos", "file:///nonexistent/address"], "--mesos"),
            (&["--mesos", "m", "--mesos-ca-file", "/nonexistent/ca.pem"], "--mesos-ca-file"),
            (&["--mesos", "m", "--mesos-principal", "a:b", "--mesos-secret-file", "/dev/null"], "--mesos-principal"),
            (&["--mesos", "m", "--failover-timeout", "0"], "--failover-timeout"),
            (&["--mesos", "m", "--gpu-scheduling", "some"], "--gpu-scheduling"),
            (&["--mesos", "m", "--framework-id", "a/b"], "--framework-id"),
        ] {
            let refused = settings(arguments).unwrap_err().to_string();
            assert!(refused.contains(flag) && !refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn gpus_failover_and_the_first_framework_are_choices() {
        let plain = settings(&["--mesos", "m1,m2:5050"]).unwrap();
        assert_eq!((plain.gpus, plain.share_gpu_agents, plain.failover_timeout_seconds), (true, false, 604_800.0));
        assert_eq!(plain.first_framework, FirstFramework::Ask);
        let shared = settings(&["--mesos", "m", "--gpu-scheduling", "unrestricted", "--failover-timeout", "3600"]).unwrap();
        assert_eq!((shared.gpus, shared.share_gpu_agents, shared.failover_timeout_seconds), (true, true, 3600.0));
        assert!(!settings(&["--mesos", "m", "--gpu-scheduling", "off"]).unwrap().gpus);
        let first = |id| settings(&["--mesos", "m", "--framework-id", id]).unwrap().first_framework;
        assert_eq!((first("new"), first("podium-1")), (FirstFramework::New, FirstFramework::Take("podium-1".to_owned())));
    }
}
