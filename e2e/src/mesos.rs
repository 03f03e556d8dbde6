//! A real Apache Mesos 1.11.0: one master with agents, in one process, which `e2e/mesos/install` puts together.
//!
//! What an agent starts is not part of it: containers are started by `e2e/mesos/containerizer`, and pods by
//! `podium executor` under the name of Mesos' default executor.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::api::Api;
use crate::process::{Background, kill_all_below};
use crate::wait::eventually;

/// An agent's own settings, each in Mesos' form of the flag of that name.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The name that offers give it.
    pub hostname: String,
    /// `rack:a;ssd:1`; may be empty.
    pub attributes: String,
    /// `cpus:8;mem:16000;disk:10000;ports:[31000-32000]`; `cpus(role):2` is reserved for a role. Or JSON.
    pub resources: String,
    /// Folders that are to be mount points, as Mesos demands of disks of the type MOUNT; for the cluster alone.
    pub mounts: Vec<PathBuf>,
}

impl Agent {
    /// The `number`th agent of a cluster: named `agent-<number>`, with room for many small pods and ports of its own.
    pub fn new(number: usize) -> Self {
        let first = 20_000 + 200 * number;
        Self {
            hostname: format!("agent-{number}"),
            attributes: String::new(),
            resources: format!("cpus:16;mem:16384;disk:20480;ports:[{first}-{}]", first + 199),
            mounts: Vec::new(),
        }
    }
}

/// What the agents find in their `--launcher_dir`.
#[derive(Debug, Clone, Copy)]
pub enum Helpers<'a> {
    /// The containerizer's helper, and this `podium` as the default executor.
    Podium(&'a Path),
    /// Nothing: no container can start.
    None,
}

/// Who alone may use the HTTP APIs of master and agents.
#[derive(Debug, Clone)]
pub struct Login {
    /// The principal; of letters.
    pub principal: String,
    /// Its secret; of letters.
    pub secret: String,
}

/// A running cluster in a folder of its own; dropped, it and everything that its agents started is killed.
#[derive(Debug)]
pub struct RealMesos {
    /// `127.0.0.1:port` of the master and of all agents; the same after every restart.
    pub address: String,
    /// The process, unless it was killed.
    pub process: Option<Background>,
    folder: PathBuf,
    agents: usize,
    mounts: Vec<PathBuf>,
    login: Option<Login>,
    flags: Vec<(String, String)>,
}

impl RealMesos {
    /// Starts a master and `agents` and waits until all have registered. `flags` are those of a master or an agent, without
    /// dashes (`("allocation_interval", "100ms")`); all agents have them.
    ///
    /// # Panics
    /// When it cannot be installed or does not come up.
    pub fn start(folder: &Path, agents: &[Agent], helpers: Helpers<'_>, flags: &[(&str, &str)]) -> Self {
        Self::start_guarded(folder, agents, helpers, flags, None)
    }

    /// The same, where nobody gets an answer by HTTP who has not this login; but executors do.
    ///
    /// # Panics
    /// As above.
    pub fn start_guarded(folder: &Path, agents: &[Agent], helpers: Helpers<'_>, flags: &[(&str, &str)], login: Option<Login>) -> Self {
        let folder = folder.join("mesos");
        write_flags(&folder.join("flags"), agents);
        fill_launcher_dir(&folder.join("launcher"), helpers);
        let mut cluster = Self {
            address: String::new(),
            process: None,
            folder,
            agents: agents.len(),
            mounts: agents.iter().flat_map(|agent| agent.mounts.clone()).collect(),
            login,
            flags: flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        cluster.guard();
        // It cannot be told to take any free port: one that was free a moment ago is tried, a few times.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            cluster.address = listener.local_addr().expect("a bound socket has an address").to_string();
            drop(listener);
            if cluster.run(agents.len(), 0) {
                return cluster;
            }
        }
        panic!("Mesos ended at once, five times; see {}", cluster.log_file().display());
    }

    /// The master's HTTP API.
    pub fn master(&self) -> Api {
        let login = self.login.as_ref().map(|login| format!("{}:{}@", login.principal, login.secret)).unwrap_or_default();
        Api { base: format!("http://{login}{}", self.address) }
    }

    /// The folder of everything that belongs to it: agents' work, logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `kill -9` of master and agents at once; executors and containers go on.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts again, on the same folder and port, what [`RealMesos::kill`] ended, and waits until the first `agents` of
    /// the agents have registered again, under their old ids.
    ///
    /// # Panics
    /// When it does not come up, or more agents are wanted than there were.
    pub fn restart(&mut self, agents: usize) {
        self.restart_but(agents, 0);
    }

    /// The same, where the master refuses so many of the agents.
    ///
    /// # Panics
    /// As above.
    pub fn restart_but(&mut self, agents: usize, refused: usize) {
        assert!(agents <= self.agents, "there were {} agents", self.agents);
        self.kill();
        assert!(self.run(agents, refused), "Mesos ended at once; see {}", self.log_file().display());
    }

    /// Ends the last agent that runs, as if its machine had been cut off: its executors and containers go on. The master
    /// takes note after `agent_ping_timeout` times `max_agent_ping_timeouts`; the agent comes back with the next
    /// [`RealMesos::restart`].
    pub fn lose_last_agent(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::USR1);
        }
    }

    /// The agents as the master's `/slaves` shows them.
    pub fn agents(&self) -> Vec<Value> {
        self.master().get("/slaves").json()["slaves"].as_array().cloned().unwrap_or_default()
    }

    /// Has both demand the login, for frameworks, readers and writers alike.
    fn guard(&mut self) {
        let Some(login) = &self.login else { return };
        let file = self.folder.join("credentials.json");
        let known = serde_json::json!({ "credentials": [{ "principal": login.principal, "secret": login.secret }] });
        fs::write(&file, known.to_string()).expect("the cluster's folder can be written");
        let file = file.to_string_lossy().into_owned();
        let demands = ["authenticate_http_readonly", "authenticate_http_readwrite", "authenticate_http_frameworks"];
        self.flags.extend(demands.map(|flag| (flag.to_owned(), "true".to_owned())));
        self.flags.push(("http_framework_authenticators".to_owned(), "basic".to_owned()));
        self.flags.extend(["http_credentials", "credentials"].map(|flag| (flag.to_owned(), file.clone())));
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("mesos.log")
    }

    /// Whether it came up with all agents but so many; `false` when it ended.
    fn run(&mut self, agents: usize, refused: usize) -> bool {
        let (mut process, _) = Background::start(&mut self.command(agents), &self.log_file());
        let expected = agents.saturating_sub(refused);
        let up = eventually(&format!("{expected} agents have registered"), || {
            if process.wait(Duration::ZERO).is_some() {
                return Ok(false);
            }
            // One that is deactivated is not active, and here all the same.
            let here = self.agents().iter().filter(|agent| agent["active"] == true || agent["deactivated"] == true).count();
            if here == expected { Ok(true) } else { Err(format!("{here} have")) }
        });
        self.process = Some(process);
        up
    }

    fn command(&self, agents: usize) -> Command {
        let (ip, port) = self.address.split_once(':').expect("the address has a port");
        let mut command = mounted(&self.mounts, &installed().join("mesos-cluster"));
        command.env("LIBPROCESS_IP", ip).env("LIBPROCESS_PORT", port);
        command.env("CLUSTER_FLAGS", self.folder.join("flags")).current_dir(&self.folder);
        let mut flag = |name: &str, value: &str| {
            command.env(format!("MESOS_{}", name.to_uppercase()), value);
        };
        flag("num_slaves", &agents.to_string());
        for folder in ["work", "runtime", "launcher"] {
            flag(&format!("{folder}_dir"), &self.folder.join(folder).to_string_lossy());
        }
        for own in OWN_FLAGS {
            flag(own, &format!("file:///each-agent/{own}"));
        }
        // Nothing here needs root, or a machine of one's own.
        flag("launcher", "posix");
        flag("isolation", "posix/cpu,posix/mem,filesystem/posix");
        flag("systemd_enable_support", "false");
        flag("switch_user", if rustix::process::geteuid().is_root() { "true" } else { "false" });
        for (name, value) in &self.flags {
            flag(name, value);
        }
        command
    }
}

impl Drop for RealMesos {
    fn drop(&mut self) {
        self.kill();
        kill_all_below(&self.folder);
    }
}

/// Flags that each agent has its own value of.
const OWN_FLAGS: [&str; 3] = ["hostname", "attributes", "resources"];

/// A command that sees these folders as mount points, and nobody else does: each is mounted on itself in a namespace of the
/// command's own, which ends with it. So nothing is left behind, and what is written there is seen from outside.
fn mounted(folders: &[PathBuf], program: &Path) -> Command {
    if folders.is_empty() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = "program=$1; shift; for folder; do mount --bind \"$folder\" \"$folder\" || exit 1; done; exec \"$program\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(program).args(folders);
    command
}

/// One file a flag and agent, numbered in the order in which they are read (see `cluster.cc`).
fn write_flags(folder: &Path, agents: &[Agent]) {
    // The master has a flag of this name too, and reads it first.
    let hostnames = std::iter::once("master").chain(agents.iter().map(|agent| agent.hostname.as_str()));
    let write = |number: usize, name: &str, value: &str| {
        let folder = folder.join(number.to_string());
        fs::create_dir_all(&folder).expect("the cluster's folder can be written");
        fs::write(folder.join(name), value).expect("the cluster's folder can be written");
    };
    hostnames.enumerate().for_each(|(index, hostname)| write(index + 1, "hostname", hostname));
    for (index, agent) in agents.iter().enumerate() {
        write(index + 1, "attributes", &agent.attributes);
        write(index + 1, "resources", &agent.resources);
    }
}

fn fill_launcher_dir(folder: &Path, helpers: Helpers<'_>) {
    fs::create_dir_all(folder).expect("the cluster's folder can be written");
    let Helpers::Podium(podium) = helpers else { return };
    // What an agent starts has no PATH to find an interpreter by.
    let containerizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesos/containerizer");
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().expect("python3 is installed");
    let python = String::from_utf8_lossy(&python.stdout).trim().to_owned();
    write_script(&folder.join("mesos-containerizer"), &format!("exec '{python}' '{}' \"$@\"", containerizer.display()));
    std::os::unix::fs::symlink(podium, folder.join("mesos-default-executor")).expect("the cluster's folder can be written");
}

fn write_script(path: &Path, line: &str) {
    fs::write(path, format!("#!/bin/sh\n{line}\n")).expect("the cluster's folder can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
}

/// The folder of the real Mesos: made once, in cargo's target folder.
///
/// # Panics
/// When it cannot be made; the reason is printed.
fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let target = crate::binary::podium(false).ancestors().nth(2).expect("the binary lies in target/debug");
        let folder = target.join("mesos-1.11.0");
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesos/install");
        let status = Command::new(&install).arg(&folder).status().unwrap_or_else(|error| panic!("{}: {error}", install.display()));
        assert!(status.success(), "{} failed with {status}", install.display());
        folder
    })
}
