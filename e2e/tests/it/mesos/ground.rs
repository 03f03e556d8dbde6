//! What a scenario of either engine needs to know: where the API and the master are, and where sandboxes lie.

use std::any::Any;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use podium_e2e::api::Api;
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::mesos::{Agent, Helpers};
use podium_e2e::mesos_server::MesosServer;
use podium_e2e::wait::eventually;
use podium_e2e::{binary, sandbox};
use serde_json::Value;

use crate::text;

/// A pace that does not keep tests waiting: the allocator's own is a second.
pub const QUICK: &[(&str, &str)] = &[("allocation_interval", "100ms")];

/// A running Podium, seen alike on both engines.
pub struct Ground {
    pub api: Api,
    /// The Mesos master.
    pub master: Api,
    /// All sandboxes are below it.
    pub folder: PathBuf,
    /// What runs until this is dropped.
    _running: Box<dyn Any + Sync>,
}

impl Ground {
    /// `podium dev`.
    pub fn embedded() -> Self {
        let cluster = Cluster::start(Form::Dev, binary::podium(false), &[]);
        let folder = cluster.folder().join("data");
        // Temporary folders are closed to other users; here the containers of one of them shall run.
        open(cluster.folder());
        let master = Api { base: format!("http://{}", cluster.endpoints.mesos) };
        Self { api: cluster.api(), master, folder, _running: Box::new(cluster) }
    }

    /// `podium dev` on simulated agents.
    pub fn simulated(agents: usize) -> Self {
        let cluster = Cluster::start_simulated(Form::Dev, binary::podium(false), agents);
        let master = Api { base: format!("http://{}", cluster.endpoints.mesos) };
        Self { api: cluster.api(), master, folder: cluster.folder().to_owned(), _running: Box::new(cluster) }
    }

    /// `podium server`, etcd and two agents of a real Mesos.
    pub fn real() -> Self {
        let podium = binary::podium(false);
        let cluster = MesosServer::start(podium, &[Agent::new(1), Agent::new(2)], Helpers::Podium(podium), QUICK, &[]);
        open(cluster.folder());
        let (master, folder) = (cluster.mesos.master(), cluster.mesos.folder().to_owned());
        Self { api: cluster.api(), master, folder, _running: Box::new(cluster) }
    }

    /// Runs the command line: its exit code, and what it printed to standard output and to standard error.
    pub fn podium(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// The command line, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::podium(false));
        command.args(arguments).env("PODIUM_SERVER", &self.api.base).env_remove("NO_COLOR");
        command
    }

    /// The sandbox of a task.
    pub fn sandbox(&self, task: &str) -> PathBuf {
        eventually(&format!("{task} has a sandbox"), || sandbox::of_task(&self.folder, task).ok_or_else(|| "none".to_owned()))
    }

    /// What a task has written to `stdout` once `enough` holds of it.
    pub fn printed(&self, task: &str, enough: impl Fn(&str) -> bool) -> String {
        let file = self.sandbox(task).join("stdout");
        eventually(&format!("{task} has printed what it should"), || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if enough(&text) { Ok(text) } else { Err(text) }
        })
    }

    /// Waits for a state of a pod's status, which is then returned.
    pub fn until(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{id}: {what}"), || {
            let status = self.api.status(id)?;
            if holds(&status) { Ok(status) } else { Err(status.to_string()) }
        })
    }
}

/// The container `name` of the first instance.
pub fn container<'a>(status: &'a Value, name: &str) -> &'a Value {
    let containers = status["instances"][0]["containers"].as_array().unwrap_or_else(|| panic!("no containers: {status}"));
    containers.iter().find(|container| container["name"] == name).unwrap_or_else(|| panic!("no container {name}: {status}"))
}

/// The task of that container.
pub fn task(status: &Value, name: &str) -> String {
    container(status, name)["containerId"].as_str().unwrap_or_else(|| panic!("{name} has no task: {status}")).to_owned()
}

fn open(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).unwrap();
}
