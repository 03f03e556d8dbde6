//! A real etcd (Debian's etcd-server) on free ports, and etcdctl.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::process::Background;
use crate::wait::eventually;

/// A running etcd, ended when dropped.
#[derive(Debug)]
pub struct Etcd {
    /// Where clients connect: `127.0.0.1:port`.
    pub address: String,
    /// The process.
    pub process: Background,
}

/// Starts etcd with its data under `folder` and waits until it is healthy.
///
/// # Panics
/// When it is not installed or does not come up.
pub fn start(folder: &Path) -> Etcd {
    // etcd cannot be told to take any free port: two that were free a moment ago are tried, a few times.
    for _ in 0..5 {
        let [client, peer] = free_ports();
        let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--name", "e2e", "--logger", "zap", "--log-level", "warn", "--data-dir"]).arg(folder.join("etcd"));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
            "--initial-cluster",
            &format!("e2e={peer_url}"),
        ]);
        let (mut process, _) = Background::start(&mut command, &folder.join("etcd.log"));
        let address = format!("127.0.0.1:{client}");
        let up = eventually("etcd is healthy", || {
            if process.wait(std::time::Duration::ZERO).is_some() {
                return Ok(false);
            }
            let health = ctl(&address, &["endpoint", "health"]);
            if health.status.success() { Ok(true) } else { Err(String::from_utf8_lossy(&health.stderr).into_owned()) }
        });
        if up {
            return Etcd { address, process };
        }
    }
    panic!("etcd ended at once, five times; see {}", folder.join("etcd.log").display());
}

impl Etcd {
    /// Saves a snapshot of everything to a file.
    ///
    /// # Panics
    /// When etcdctl fails.
    pub fn save(&self, file: &Path) {
        let output = ctl(&self.address, &["snapshot", "save", &file.to_string_lossy()]);
        assert!(output.status.success(), "etcdctl snapshot save: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends this etcd, and starts another on what was saved, with its data under the same `folder`.
    ///
    /// # Panics
    /// When the snapshot cannot be restored, or etcd does not come up.
    pub fn restored(mut self, folder: &Path, file: &Path) -> Self {
        self.process.kill();
        let data = folder.join("etcd");
        std::fs::remove_dir_all(&data).expect("the data of an etcd that has ended can be removed");
        let peer = "http://127.0.0.1:2380";
        let (cluster, data) = (format!("e2e={peer}"), data.to_string_lossy().into_owned());
        let output = ctl(
            &self.address,
            &["snapshot", "restore", &file.to_string_lossy(), "--name", "e2e", "--data-dir", &data, "--initial-cluster", &cluster]
                .iter()
                .chain(&["--initial-advertise-peer-urls", peer])
                .copied()
                .collect::<Vec<_>>(),
        );
        assert!(output.status.success(), "etcdctl snapshot restore: {}", String::from_utf8_lossy(&output.stderr));
        start(folder)
    }
}

fn free_ports() -> [u16; 2] {
    // Held together, so that the two differ.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

/// Runs etcdctl (API 3) against an address.
///
/// # Panics
/// When it is not installed.
pub fn ctl(address: &str, arguments: &[&str]) -> Output {
    Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", address, "--command-timeout", "10s"])
        .args(arguments)
        .output()
        .expect("etcdctl is installed (Debian: etcd-client)")
}

/// The value of a key by etcdctl; `None` when there is no such key.
///
/// # Panics
/// When etcdctl fails.
pub fn get(address: &str, key: &str) -> Option<String> {
    let output = ctl(address, &["get", "--print-value-only", key]);
    assert!(output.status.success(), "etcdctl get {key}: {}", String::from_utf8_lossy(&output.stderr));
    let value = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
    (!value.is_empty()).then_some(value)
}

/// All keys below a prefix.
///
/// # Panics
/// When etcdctl fails.
pub fn keys(address: &str, prefix: &str) -> Vec<String> {
    let output = ctl(address, &["get", "--prefix", "--keys-only", prefix]);
    assert!(output.status.success(), "etcdctl get --prefix {prefix}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Puts `count` values of `bytes` each, to a quarter as many keys: four versions of every key.
///
/// # Panics
/// When the store does not take them.
pub fn fill(address: &str, count: usize, bytes: usize) {
    use etcd_client::{Client, Txn, TxnOp};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut store = Client::connect([format!("http://{address}")], None).await.expect("the store answers");
        let names: Vec<usize> = (0..count).map(|n| n % (count / 4).max(1)).collect();
        for names in names.chunks(100) {
            let puts: Vec<TxnOp> = names.iter().map(|name| TxnOp::put(format!("/bench/filled/{name}"), vec![b'x'; bytes], None)).collect();
            store.txn(Txn::new().and_then(puts)).await.expect("the store takes a transaction of puts");
        }
    });
}

/// A client that puts, over one connection.
pub struct Putter {
    store: etcd_client::Client,
    number: u64,
}

impl Putter {
    /// # Panics
    /// When the store does not answer.
    pub async fn connect(address: &str) -> Self {
        let store = etcd_client::Client::connect([format!("http://{address}")], None).await.expect("the store answers");
        Self { store, number: 0 }
    }

    /// How long a put of so many bytes to a key of its own takes.
    ///
    /// # Panics
    /// When the store does not take it.
    pub async fn put(&mut self, bytes: usize) -> Duration {
        self.number += 1;
        let (key, value) = (format!("/bench/put/{}", self.number), vec![b'x'; bytes]);
        let start = Instant::now();
        self.store.put(key, value, None).await.expect("the store takes a put");
        start.elapsed()
    }
}
