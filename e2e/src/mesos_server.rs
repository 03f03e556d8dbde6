//! `podium server` on a real etcd and a real Mesos: nothing of it is Podium's own engine or store but what is tested.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::api::Api;
use crate::cluster::{Endpoints, address_in, start_server};
use crate::etcd::{self, Etcd};
use crate::mesos::{Agent, Helpers, RealMesos};
use crate::process::Background;

/// A running one with a folder of its own; everything ends when it is dropped.
#[derive(Debug)]
pub struct MesosServer {
    /// Master and agents.
    pub mesos: RealMesos,
    /// `podium server`.
    pub server: Background,
    /// The store.
    pub etcd: Etcd,
    /// Where things listen.
    pub endpoints: Endpoints,
    binary: PathBuf,
    options: Vec<String>,
    folder: TempDir,
}

impl MesosServer {
    /// Starts all three and waits until they are ready. `flags` are the master's and the agents', `options` Podium's.
    pub fn start(binary: &Path, agents: &[Agent], helpers: Helpers<'_>, flags: &[(&str, &str)], options: &[&str]) -> Self {
        let folder = own_folder();
        let mesos = RealMesos::start(folder.path(), agents, helpers, flags);
        Self::start_on(binary, folder, mesos, options)
    }

    /// Starts etcd and `podium server` beside a Mesos that runs below `folder`.
    pub fn start_on(binary: &Path, folder: TempDir, mesos: RealMesos, options: &[&str]) -> Self {
        let address = mesos.address.clone();
        Self::start_at(binary, folder, mesos, &address, options)
    }

    /// The same, where `--mesos` is told this `address`.
    pub fn start_at(binary: &Path, folder: TempDir, mesos: RealMesos, address: &str, options: &[&str]) -> Self {
        let etcd = etcd::start(folder.path());
        let mut endpoints = Endpoints { etcd: etcd.address.clone(), mesos: address.to_owned(), ..Endpoints::default() };
        let options = with_a_long_lease(options);
        let (server, line) = start_server(binary, folder.path(), &endpoints, &options);
        endpoints.api = address_in(&line);
        Self { mesos, server, etcd, endpoints, binary: binary.to_owned(), options, folder }
    }

    /// `kill -9` of the server, and another in its place.
    pub fn restart_server(&mut self) {
        self.server.kill();
        let (server, line) = start_server(&self.binary, self.folder.path(), &self.endpoints, &self.options);
        self.server = server;
        self.endpoints.api = address_in(&line);
    }

    /// The API.
    pub fn api(&self) -> Api {
        Api { base: self.endpoints.api.clone() }
    }

    /// One more `podium server` beside it, and its API. It ends when it is dropped.
    pub fn another_server(&self, options: &[&str]) -> (Background, Api) {
        let (process, line) = start_server(&self.binary, self.folder(), &self.endpoints, &with_a_long_lease(options));
        (process, Api { base: address_in(&line) })
    }

    /// The folder of everything that belongs to it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the command line against it.
    pub fn podium(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("PODIUM_SERVER", &self.endpoints.api).env_remove("NO_COLOR");
        command.current_dir(self.folder()).output().expect("podium starts")
    }
}

/// A folder for a cluster; it is removed when it is dropped.
///
/// # Panics
/// When it cannot be made.
pub fn own_folder() -> TempDir {
    tempfile::Builder::new().prefix("podium-e2e-").tempdir().expect("a temporary folder")
}

/// Nobody takes over here: a busy machine shall not cost the server its leadership.
fn with_a_long_lease(options: &[&str]) -> Vec<String> {
    ["--lease-ttl", "10"].iter().chain(options).map(|option| (*option).to_owned()).collect()
}
