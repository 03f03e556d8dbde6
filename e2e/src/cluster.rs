//! A whole Podium in one of its two forms: `podium dev`, or `podium server` on a real etcd and on the engine of a
//! separate `podium dev`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::etcd::{self, Etcd};
use crate::process::{Background, kill_all_below};
use crate::wait::PATIENCE;

/// How Podium runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Everything in one `podium dev`.
    Dev,
    /// `podium server` with Debian's etcd and the engine of `podium dev --controllers none`.
    Server,
}

/// What a `podium dev` or `podium server` that is ready wrote to `endpoints.json` in its data folder, or to its first line.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// `http://127.0.0.1:port` of the API.
    pub api: String,
    /// `127.0.0.1:port` of the store.
    pub etcd: String,
    /// `127.0.0.1:port` of the Mesos master, or what else `--mesos` takes.
    pub mesos: String,
}

/// A running Podium with folders of its own; everything ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Its form.
    pub form: Form,
    /// `podium dev`: the whole of it, or the engine of the other form.
    pub dev: Background,
    /// `podium server`, in that form.
    pub server: Option<Background>,
    /// Where things listen; renewed by every restart.
    pub endpoints: Endpoints,
    /// The ready line.
    pub ready: String,
    etcd: Option<Etcd>,
    binary: PathBuf,
    options: Vec<String>,
    /// What the engine's process is told besides, in the form that has one.
    engine: Vec<String>,
    folder: TempDir,
}

impl Cluster {
    /// Starts one and waits until it is ready. `options` go to the process that holds the API and the controllers.
    pub fn start(form: Form, binary: &Path, options: &[&str]) -> Self {
        Self::start_with(form, binary, options, &[])
    }

    /// As [`Cluster::start`], on so many simulated agents.
    pub fn start_simulated(form: Form, binary: &Path, agents: usize) -> Self {
        let agents = agents.to_string();
        Self::start_with(form, binary, &[], &["--simulate", "--agents", &agents])
    }

    /// `engine` goes to the process that holds the engine, which in one form is the same.
    fn start_with(form: Form, binary: &Path, options: &[&str], engine: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("podium-e2e-").tempdir().expect("a temporary folder");
        let [options, engine] = [options, engine].map(|list| list.iter().map(|option| (*option).to_owned()).collect::<Vec<String>>());
        let dev_options = dev_options(form, &options, &engine);
        let (dev, mut ready, mut endpoints) = start_dev(binary, folder.path(), &dev_options);
        let (mut etcd, mut server) = (None, None);
        if form == Form::Server {
            let store = etcd::start(folder.path());
            endpoints.etcd.clone_from(&store.address);
            let (process, line) = start_server(binary, folder.path(), &endpoints, &options);
            endpoints.api = address_in(&line);
            ready = line;
            (etcd, server) = (Some(store), Some(process));
        }
        Self { form, dev, server, endpoints, ready, etcd, binary: binary.to_owned(), options, engine, folder }
    }

    /// The API.
    pub fn api(&self) -> Api {
        Api { base: self.endpoints.api.clone() }
    }

    /// One more `podium server` on the same store and engine, and its API. It ends when it is dropped.
    pub fn another_server(&self) -> (Background, Api) {
        let (process, line) = start_server(&self.binary, self.folder.path(), &self.endpoints, &self.options);
        (process, Api { base: address_in(&line) })
    }

    /// The real etcd, in that form.
    pub fn etcd(&self) -> Option<&Etcd> {
        self.etcd.as_ref()
    }

    /// The folder of everything that belongs to it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the command line against it.
    pub fn podium(&self, arguments: &[&str]) -> Output {
        Command::new(&self.binary)
            .args(arguments)
            .env("PODIUM_SERVER", &self.endpoints.api)
            .env_remove("NO_COLOR")
            .current_dir(self.folder())
            .output()
            .expect("podium starts")
    }

    /// `kill -9` of everything of Podium that is not an executor or a container: dev, and the server in that form. etcd stays.
    pub fn kill(&mut self) {
        self.dev.kill();
        if let Some(server) = &mut self.server {
            server.kill();
        }
    }

    /// Starts again on the same folders what [`Cluster::kill`] or [`Cluster::interrupt`] ended, and waits until it is ready.
    pub fn restart(&mut self) {
        self.start_again();
        if let (Form::Server, Some(store)) = (self.form, &self.etcd) {
            self.endpoints.etcd.clone_from(&store.address);
            let (process, line) = start_server(&self.binary, self.folder.path(), &self.endpoints, &self.options);
            self.endpoints.api = address_in(&line);
            self.server = Some(process);
        }
    }

    /// Saves what the real etcd holds to a file.
    ///
    /// # Panics
    /// In the form that has none.
    pub fn back_up(&self) -> PathBuf {
        let file = self.folder.path().join("backup");
        self.etcd.as_ref().expect("the form with a real etcd").save(&file);
        file
    }

    /// Puts a backup in the place of what the real etcd holds; between [`Cluster::kill`] and [`Cluster::restart`].
    ///
    /// # Panics
    /// In the form that has none.
    pub fn restore(&mut self, file: &Path) {
        let etcd = self.etcd.take().expect("the form with a real etcd");
        self.etcd = Some(etcd.restored(self.folder.path(), file));
    }

    fn start_again(&mut self) {
        let options = dev_options(self.form, &self.options, &self.engine);
        let (dev, ready, endpoints) = start_dev(&self.binary, self.folder.path(), &options);
        (self.dev, self.ready, self.endpoints) = (dev, ready, endpoints);
    }

    /// Starts `podium dev` again and kills it as soon as the operating system has it: a crash during the recovery.
    pub fn restart_and_kill_during_recovery(&mut self, after: Duration) {
        let options = dev_options(self.form, &self.options, &self.engine);
        let (mut process, lines) =
            Background::start(&mut dev_command(&self.binary, self.folder.path(), &options), &self.folder.path().join("dev.log"));
        // Ends early when the process is ready before the time is over.
        let _ = lines.recv_timeout(after);
        process.kill();
    }

    /// Ctrl-C: SIGINT to the server first, where there is one, then to dev; waits for both to end with exit code 0.
    pub fn interrupt(&mut self) {
        for process in self.server.iter_mut().chain([&mut self.dev]) {
            process.signal(rustix::process::Signal::INT);
            let status = process.wait(PATIENCE).unwrap_or_else(|| panic!("still running {PATIENCE:?} after SIGINT:\n{}", process.log()));
            assert!(status.success(), "ended by SIGINT with {status}:\n{}", process.log());
        }
    }
}

impl Drop for Cluster {
    /// Instances outlive a `podium dev` that is killed, as they should: those of this folder are ended here.
    fn drop(&mut self) {
        self.kill();
        kill_all_below(self.folder.path());
    }
}

/// What `podium dev` is told besides its addresses and its folder.
fn dev_options(form: Form, options: &[String], engine: &[String]) -> Vec<String> {
    let own = match form {
        Form::Dev => options.to_vec(),
        Form::Server => vec!["--controllers".to_owned(), "none".to_owned()],
    };
    own.into_iter().chain(engine.iter().cloned()).collect()
}

fn dev_command(binary: &Path, folder: &Path, options: &[String]) -> Command {
    let mut command = Command::new(binary);
    command.args(["dev", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0", "--mesos-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(folder.join("data")).args(options).current_dir(folder);
    command
}

fn start_dev(binary: &Path, folder: &Path, options: &[String]) -> (Background, String, Endpoints) {
    let (process, lines) = Background::start(&mut dev_command(binary, folder, options), &folder.join("dev.log"));
    let Ok(ready) = lines.recv_timeout(PATIENCE) else { panic!("podium dev did not become ready:\n{}", process.log()) };
    let written = std::fs::read_to_string(folder.join("data/endpoints.json")).expect("podium dev writes endpoints.json");
    let written: Value = serde_json::from_str(&written).expect("endpoints.json is JSON");
    let text = |name: &str| written[name].as_str().unwrap_or_else(|| panic!("endpoints.json names {name}: {written}")).to_owned();
    (process, ready, Endpoints { api: text("api"), etcd: text("etcd"), mesos: text("mesos") })
}

pub(crate) fn start_server(binary: &Path, folder: &Path, endpoints: &Endpoints, options: &[String]) -> (Background, String) {
    let mesos = if endpoints.mesos.contains("://") { endpoints.mesos.clone() } else { format!("http://{}", endpoints.mesos) };
    let mut command = Command::new(binary);
    command.args(["server", "--listen", "127.0.0.1:0", "--etcd", &format!("http://{}", endpoints.etcd), "--mesos", &mesos]);
    if !options.iter().any(|option| option == "--lease-ttl") {
        // A short lease, so that a server killed a moment ago does not hold its elections for long.
        command.args(["--lease-ttl", "2"]);
    }
    command.args(["--default-network-name", "default"]).args(options).current_dir(folder);
    let (process, lines) = Background::start(&mut command, &folder.join("server.log"));
    let Ok(ready) = lines.recv_timeout(PATIENCE) else { panic!("podium server did not become ready:\n{}", process.log()) };
    (process, ready)
}

pub(crate) fn address_in(line: &str) -> String {
    let start = line.find("http").unwrap_or_else(|| panic!("the ready line names the API's address: {line}"));
    line[start..].split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default().trim_end_matches('/').to_owned()
}
