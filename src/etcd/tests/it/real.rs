//! A real etcd, as a process of our own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// What to do when a program of etcd's is not on this machine.
pub const INSTALL: &str = "install etcd's server and client (Debian: apt-get install --no-install-recommends etcd-server etcd-client)";

/// A running etcd in a folder of its own; ends with this value.
pub struct Etcd {
    process: Child,
    pub address: String,
    _folder: TempDir,
}

impl Etcd {
    /// Starts etcd on free ports, and waits until it accepts connections. Between being found free and being used a port
    /// can be taken by somebody else; then other ones are tried.
    pub fn start() -> Self {
        (0..5).find_map(|_| Self::try_start(None)).expect("etcd starts on one of five pairs of free ports")
    }

    /// As [`Etcd::start`], on what a snapshot holds.
    pub fn restored(snapshot: &str) -> Self {
        (0..5).find_map(|_| Self::try_start(Some(snapshot))).expect("etcd starts on one of five pairs of free ports")
    }

    fn try_start(snapshot: Option<&str>) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let (client, peer) = free_ports();
        let peer_url = format!("http://127.0.0.1:{peer}");
        let client_url = format!("http://127.0.0.1:{client}");
        let cluster = format!("default={peer_url}");
        if let Some(snapshot) = snapshot {
            restore(snapshot, &data, &peer_url, &cluster);
        }
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(&data)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &cluster, "--logger", "zap", "--log-level", "info"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("etcd can't be started ({error}): {INSTALL}"));
        let mut etcd = Etcd { process, address: format!("127.0.0.1:{client}"), _folder: folder };
        let log = etcd.process.stderr.take().expect("its log is a pipe");
        serves(log).then_some(etcd)
    }
}

/// Waits for etcd's word that it serves clients, or for the end of its log, which is its own; what follows is read on.
fn serves(log: ChildStderr) -> bool {
    let (ready, word) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if line.contains("serving client traffic insecurely") {
                // Nobody waits for a second one.
                let _ = ready.send(());
            }
        }
    });
    word.recv_timeout(Duration::from_secs(30)).is_ok()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes a data folder of a snapshot.
fn restore(snapshot: &str, data: &Path, peer_url: &str, cluster: &str) {
    let restored = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore", snapshot, "--initial-cluster", cluster, "--initial-advertise-peer-urls", peer_url, "--data-dir"])
        .arg(data)
        .output()
        .unwrap_or_else(|error| panic!("etcdctl can't be started ({error}): {INSTALL}"));
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
}

fn free_ports() -> (u16, u16) {
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    (port(&one), port(&other))
}
