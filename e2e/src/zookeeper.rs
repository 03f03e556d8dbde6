//! A real ZooKeeper (Debian's package) on a free port, in which masters are registered as Mesos does it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use zookeeper_client as zk;

use crate::process::Background;

const JAR: &str = "/usr/share/java/zookeeper.jar";

/// Where masters are registered.
const FOLDER: &str = "/mesos";

/// A running ZooKeeper, ended when it is dropped.
pub struct ZooKeeper {
    /// What `--mesos` is told.
    pub url: String,
    client: zk::Client,
    /// Keeps the client's session.
    runtime: Runtime,
    _process: Background,
}

/// A master's entry: it leads when all older ones are gone.
#[derive(Debug)]
pub struct Entry(String);

impl ZooKeeper {
    /// Starts one with its data under `folder` and waits until it answers.
    ///
    /// # Panics
    /// When it is not installed or does not come up.
    pub fn start(folder: &Path) -> Self {
        assert!(Path::new(JAR).exists(), "{JAR} is missing: apt-get install zookeeper");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let config = folder.join("zoo.cfg");
        let data = folder.join("zookeeper");
        let text =
            format!("tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n", data.display());
        std::fs::write(&config, text).expect("the folder can be written");
        let mut command = Command::new("java");
        command.args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", JAR]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
        let (process, _) = Background::start(&mut command, &folder.join("zookeeper.log"));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let host = format!("127.0.0.1:{port}");
        let client = runtime.block_on(async {
            // It tries until a server answers or the time of a session is over.
            let client = zk::Client::connector().with_session_timeout(Duration::from_secs(60)).connect(&host).await;
            let client = client.expect("ZooKeeper answers");
            client.create(FOLDER, b"", &zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())).await.expect("a new node");
            client
        });
        Self { url: format!("zk://{host}{FOLDER}"), client, runtime, _process: process }
    }

    /// Registers the master at `127.0.0.1:port`, behind those that are registered.
    ///
    /// # Panics
    /// When ZooKeeper does not take it.
    pub fn register(&self, master: &str) -> Entry {
        let (ip, port) = master.rsplit_once(':').expect("an address with a port");
        let port: u16 = port.parse().expect("a port");
        let info = serde_json::json!({
            "address": {"hostname": "localhost", "ip": ip, "port": port},
            "hostname": "localhost",
            "id": uuid::Uuid::new_v4().to_string(),
            "ip": 16_777_343,
            "pid": format!("master@{master}"),
            "port": port,
            "version": "1.11.0"
        });
        let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
        let prefix = format!("{FOLDER}/json.info_");
        let created = self.runtime.block_on(self.client.create(&prefix, info.to_string().as_bytes(), &options));
        let (_, sequence) = created.expect("ZooKeeper takes an entry");
        Entry(format!("{prefix}{sequence}"))
    }

    /// Takes a master's entry out.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&self, entry: &Entry) {
        self.runtime.block_on(self.client.delete(&entry.0, None)).expect("ZooKeeper deletes an entry");
    }
}
