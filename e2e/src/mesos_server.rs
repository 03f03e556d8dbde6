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
    folder: TempDir,
}

impl MesosServer {
    /// Starts all three and waits until they are ready. `flags` are the master's and the agents', `options` Podium's.
    pub fn start(binary: &Path, agents: &[Agent], helpers: Helpers<'_>, flags: &[(&str, &str)], options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("podium-e2e-").tempdir().expect("a temporary folder");
        let mesos = RealMesos::start(folder.path(), agents, helpers, flags);
        let etcd = etcd::start(folder.path());
        let mut endpoints = Endpoints { etcd: etcd.address.clone(), mesos: mesos.address.clone(), ..Endpoints::default() };
        // Nobody takes over here: a busy machine shall not cost the server its leadership.
        let options: Vec<String> = ["--lease-ttl", "10"].iter().chain(options).map(|option| (*option).to_owned()).collect();
        let (server, line) = start_server(binary, folder.path(), &endpoints, &options);
        endpoints.api = address_in(&line);
        Self { mesos, server, etcd, endpoints, binary: binary.to_owned(), folder }
    }

    /// The API.
    pub fn api(&self) -> Api {
        Api { base: self.endpoints.api.clone() }
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
