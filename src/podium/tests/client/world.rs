//! A server on a store of its own, and the binary pointed at it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use podium_api::{ApiConfig, Info, Limits, Server};
use podium_store::index::Index;
use podium_store::{Store, StoreConfig};
use podium_types::definition::Settings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

/// A command must have ended by then.
const SOON: Duration = Duration::from_secs(60);

pub struct World {
    server: Server,
    pub store: Store,
    pub index: Index,
    _etcd: podium_etcd::Server,
    folder: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let etcd = podium_etcd::Server::start(podium_etcd::Config::new(listener, folder.path().join("store"))).await.unwrap();
        let store = Store::connect(StoreConfig::new([format!("http://{}", etcd.address())])).await.unwrap();
        let index = Index::start(&store);
        index.ready().await;
        let config = ApiConfig {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            store: store.clone(),
            index: index.clone(),
            settings: Settings::default(),
            info: Info::default(),
            agents: podium_http::Client::new(podium_http::ClientConfig::default()).unwrap(),
            gateway: podium_controllers::gateway::state_channel().1,
            host_names: Vec::new(),
            cors_origins: Vec::new(),
            access: podium_api::AccessConfig::default(),
            tls: None,
            limits: Limits::default(),
        };
        Self { server: Server::start(config).unwrap(), store, index, _etcd: etcd, folder }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Runs a command against the server.
    pub async fn podium(&self, args: &[&str]) -> Ran {
        let server = format!("http://{}", self.server.address());
        run(args, &[("PODIUM_SERVER", &server)], "").await
    }

    /// A file with this text.
    pub fn file(&self, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(format!("{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Runs the binary with nothing but these variables that concern it.
pub async fn run(args: &[&str], variables: &[(&str, &str)], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podium"));
    command.args(args).env_remove("PODIUM_SERVER").env_remove("NO_COLOR").envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    // A command that reads no input may have ended before it got any.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let Output { status, stdout, stderr } = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().expect("it ends by itself"), out: text(stdout), err: text(stderr) }
}

pub fn pod(id: &str, instances: u32) -> String {
    format!(
        r#"{{"id":"{id}","scaling":{{"kind":"fixed","instances":{instances}}},
            "containers":[{{"name":"sleep1","exec":{{"command":{{"shell":"sleep 1000"}}}},"resources":{{"cpus":0.1,"mem":32}}}}],
            "networks":[{{"mode":"host"}}]}}"#
    )
}
