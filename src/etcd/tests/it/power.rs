//! A disk that loses what was not synced, as real ones do when the power fails; and one that fails.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use etcd_client::GetOptions;
use parking_lot::Mutex;
use podium_etcd::{Config, Disk, Server, StorageBackend};
use proptest::prelude::*;
use tokio::net::TcpListener;

use crate::fixture::client;

/// One file in memory. Clones are the same file.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<State>);

#[derive(Debug, Default)]
struct State {
    file: Mutex<File>,
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    current: Vec<u8>,
    /// The writes since the last sync, in their order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Memory {
    /// What the power leaves behind: everything synced, and of the writes since then those that `kept` says.
    fn after_power_cut(&self, mut kept: impl FnMut(usize) -> bool) -> Memory {
        let file = self.0.file.lock();
        let mut left = file.synced.clone();
        for (number, (offset, data)) in file.unsynced.iter().enumerate() {
            if kept(number) {
                left.resize(left.len().max(offset + data.len()), 0);
                left[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
        Memory(Arc::new(State {
            file: Mutex::new(File { synced: left.clone(), current: left, unsynced: Vec::new() }),
            failing: AtomicBool::new(false),
        }))
    }

    fn check(&self) -> io::Result<()> {
        if self.0.failing.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Memory {
    fn open(&self, _: &Path) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.file.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        out.copy_from_slice(&self.0.file.lock().current[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let mut file = self.0.file.lock();
        file.current.resize(len as usize, 0);
        file.synced.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        let mut file = self.0.file.lock();
        file.synced = file.current.clone();
        file.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let mut file = self.0.file.lock();
        let offset = offset as usize;
        file.current[offset..offset + data.len()].copy_from_slice(data);
        file.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

async fn start(folder: &Path, disk: &Memory) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    Server::start(Config { disk: Arc::new(disk.clone()), ..Config::new(listener, folder) }).await.expect("the disk can be read")
}

/// Writes, cuts the power at some moment while more writes are under way, and looks at what is there afterwards.
async fn power_cut(writes: usize, pattern: u64) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Memory::default();
    let server = start(folder.path(), &disk).await;
    let mut kv = client(&server).await;
    for n in 0..writes {
        kv.put(format!("k{n}"), "x".repeat(n * 50), None).await.expect("it is written");
    }
    let mut more = client(&server).await;
    let unanswered = tokio::spawn(async move { while more.put("more", "y", None).await.is_ok() {} });
    tokio::task::yield_now().await;
    let left = disk.after_power_cut(|number| (pattern >> (number % 64)) & 1 == 1);
    server.kill().await;
    unanswered.await.expect("it ends");

    let server = start(folder.path(), &left).await;
    let mut kv = client(&server).await;
    let found = kv.get("k", Some(GetOptions::new().with_prefix())).await.expect("it answers");
    server.kill().await;
    prop_assert_eq!(found.kvs().len(), writes);
    let length = |key: &[u8]| String::from_utf8_lossy(key).trim_start_matches('k').parse::<usize>().map(|n| 50 * n);
    let whole = found.kvs().iter().all(|kv| length(kv.key()) == Ok(kv.value().len()));
    prop_assert!(whole, "a value is not what was written");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_answered_survives_a_power_cut_that_loses_any_of_the_unsynced_writes(writes in 1..30usize, pattern: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(power_cut(writes, pattern))?;
    }
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_server_and_what_it_could_not_write_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Memory::default();
    let server = start(folder.path(), &disk).await;
    let mut kv = client(&server).await;
    kv.put("a", "1", None).await.unwrap();
    disk.0.failing.store(true, Ordering::SeqCst);
    let refused = kv.put("a", "2", None).await.unwrap_err();
    assert!(refused.to_string().contains("etcdserver: server stopped"), "{refused}");
    server.failed().await;
    drop(server);
    let server = start(folder.path(), &disk.after_power_cut(|_| true)).await;
    let mut kv = client(&server).await;
    assert_eq!(kv.get("a", None).await.unwrap().kvs()[0].value(), b"1");
}
