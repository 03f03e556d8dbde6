//! The leader as a real ZooKeeper tells it. Debian's package is started from its jar, on a free port and a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use zookeeper_client as zk;

use super::*;

const JAR: &str = "/usr/share/java/zookeeper.jar";

/// Who is allowed to read where masters are registered.
const LOGIN: &str = "podium:s3cret";

struct ZooKeeper {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl ZooKeeper {
    async fn start() -> Self {
        assert!(Path::new(JAR).exists(), "{JAR} is missing: apt-get install zookeeper");
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = run(&folder, free);
        let server = ZooKeeper { folder, port: free, process };
        server.client().await;
        server
    }

    /// Killed, and started again on what it has written.
    async fn restart(&mut self) {
        self.stop();
        self.process = run(&self.folder, self.port);
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A session as a master has it.
    async fn client(&self) -> zk::Client {
        // It tries, at its own pace, until a server answers or the time of a session is over.
        let connector = zk::Client::connector().with_auth("digest", LOGIN.as_bytes()).with_session_timeout(Duration::from_secs(60));
        connector.connect(&self.host()).await.expect("ZooKeeper answers")
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(folder: &TempDir, port: u16) -> Child {
    let config: PathBuf = folder.path().join("zoo.cfg");
    let text = format!(
        "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
        folder.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    Command::new("java")
        .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", JAR])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("java runs")
}

/// Registers a master as Mesos does. It is gone with the session, or when its node is deleted.
async fn register(client: &zk::Client, master: &Master) -> String {
    let (ip, port) = master.address.rsplit_once(':').unwrap();
    let info = format!(r#"{{"address":{{"hostname":"localhost","ip":"{ip}","port":{port}}},"id":"x","ip":16777343,"port":{port}}}"#);
    let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::creator_all());
    let (_, sequence) = client.create("/mesos/json.info_", info.as_bytes(), &options).await.unwrap();
    format!("/mesos/json.info_{sequence}")
}

fn owner_of(address: &str) -> Owner {
    owner_with(address.parse().unwrap())
}

impl Owner {
    /// The next subscription, by the master that answers it.
    async fn subscribed_at(&mut self, master: &mut Master) -> EventStream {
        let (_, stream) = master.subscribe("s").await;
        stream.subscribed(15.0);
        self.subscribed().await;
        stream
    }

    async fn unavailable(&mut self, reason: &str) {
        loop {
            match self.next().await {
                Event::Unavailable { reason: told } if told.contains(reason) => return,
                Event::Unavailable { .. } => {}
                other => panic!("{other:?} instead of Unavailable for {reason}"),
            }
        }
    }
}

#[tokio::test]
async fn the_leader_is_found_in_zookeeper_and_followed_through_elections_and_lost_sessions() {
    let mut zookeeper = ZooKeeper::start().await;
    let mut owner = owner_of(&format!("zk://{LOGIN}@{}/mesos", zookeeper.host()));
    // Nobody has been there yet.
    owner.unavailable("has no /mesos").await;
    let first = zookeeper.client().await;
    let folder = zk::CreateMode::Persistent.with_acls(zk::Acls::creator_all());
    first.create("/mesos", b"", &folder).await.unwrap();
    owner.unavailable("no master is registered").await;

    // The first to register leads; who comes later does not disturb it.
    let (mut one, mut two) = (Master::start().await, Master::start().await);
    let node = register(&first, &one).await;
    let stream = owner.subscribed_at(&mut one).await;
    first.create("/mesos/log_replicas", b"", &folder).await.unwrap();
    let second = zookeeper.client().await;
    register(&second, &two).await;

    // The leader resigns while its stream still stands: the next one leads.
    first.delete(&node, None).await.unwrap();
    assert!(owner.disconnected().await.contains("another master leads"));
    let stream_of_two = owner.subscribed_at(&mut two).await;
    drop(stream);

    // Without ZooKeeper the subscription stands, and a lost one is tried again at the last known leader.
    zookeeper.stop();
    stream_of_two.rescind("O1");
    assert!(matches!(owner.next().await, Event::Rescind(_)));
    drop(stream_of_two);
    assert!(owner.disconnected().await.contains("closed"));
    let stream_of_two = owner.subscribed_at(&mut two).await;

    // Back again, it has forgotten no session yet; once the second master's has ended, a third one leads.
    zookeeper.restart().await;
    let third = zookeeper.client().await;
    let mut three = Master::start().await;
    register(&third, &three).await;
    drop(second);
    assert!(owner.disconnected().await.contains("another master leads"));
    owner.subscribed_at(&mut three).await;
    drop(stream_of_two);
}

#[tokio::test]
async fn without_the_right_login_nothing_is_found_and_the_reason_holds_no_password() {
    let zookeeper = ZooKeeper::start().await;
    let client = zookeeper.client().await;
    client.create("/mesos", b"", &zk::CreateMode::Persistent.with_acls(zk::Acls::creator_all())).await.unwrap();
    for address in [format!("zk://{}/mesos", zookeeper.host()), format!("zk://podium:wrong@{}/mesos", zookeeper.host())] {
        let mut owner = owner_of(&address);
        owner.unavailable("not authorized").await;
    }
}

#[tokio::test]
async fn a_zookeeper_that_is_not_there_is_told_and_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = listener.local_addr().unwrap();
    drop(listener);
    let mut owner = owner_of(&format!("zk://{absent}/mesos"));
    owner.unavailable(&absent.to_string()).await;
}
