//! The real `etcdctl` on our server.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse, KeyValue, LeaseTimeToLiveOptions, PutOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::fixture::{client, start};
use crate::real::{Etcd, INSTALL};

const PATIENCE: Duration = Duration::from_secs(20);

struct Etcdctl(SocketAddr);

impl Etcdctl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.0.to_string()).args(arguments);
        command.args(["--dial-timeout=15s", "--command-timeout=15s"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn output(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).spawn().unwrap_or_else(|error| panic!("etcdctl can't be started ({error}): {INSTALL}"));
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("etcdctl reads");
        drop(stdin);
        timeout(PATIENCE, child.wait_with_output()).await.expect("etcdctl ends").expect("etcdctl ran")
    }

    /// What it prints; it must succeed.
    async fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, "").await
    }

    async fn run_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it complains of; it must fail.
    async fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments, "").await;
        assert!(!output.status.success(), "etcdctl {arguments:?} succeeded");
        String::from_utf8(output.stderr).expect("text")
    }
}

#[tokio::test]
async fn etcdctl_puts_gets_and_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    for (key, value) in [("/a/1", "one"), ("/a/2", "two"), ("/b", "other")] {
        assert_eq!(ctl.run(&["put", key, value]).await, "OK\n");
    }
    assert_eq!(ctl.run(&["get", "/a/", "--prefix"]).await, "/a/1\none\n/a/2\ntwo\n");
    assert_eq!(ctl.run(&["get", "/a/", "--prefix", "--keys-only", "--order=DESCEND", "--sort-by=KEY"]).await, "/a/2\n\n/a/1\n\n");
    assert_eq!(ctl.run(&["put", "/a/1", "uno", "--prev-kv"]).await, "OK\n/a/1\none\n");
    assert_eq!(ctl.run(&["get", "/a/1", "--rev=2", "--print-value-only"]).await, "one\n");
    assert_eq!(ctl.run(&["del", "/a/", "--prefix", "--prev-kv"]).await, "2\n/a/1\nuno\n/a/2\ntwo\n");
    assert_eq!(ctl.run(&["get", "", "--from-key"]).await, "/b\nother\n");
    server.shutdown().await;
}

#[tokio::test]
async fn etcdctl_runs_transactions_on_either_branch() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    let script = "create(\"k\") = \"0\"\n\nput k made\nget k\n\nget k\n\n";
    assert_eq!(ctl.run_with(&["txn"], script).await, "SUCCESS\n\nOK\n\nk\nmade\n");
    assert_eq!(ctl.run_with(&["txn"], script).await, "FAILURE\n\nk\nmade\n");
    server.shutdown().await;
}

#[tokio::test]
async fn etcdctl_compacts_and_is_told_of_compacted_and_future_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    for value in ["1", "2", "3"] {
        ctl.run(&["put", "k", value]).await;
    }
    assert_eq!(ctl.run(&["compaction", "3"]).await, "compacted revision 3\n");
    let compacted = ctl.fail(&["get", "k", "--rev=2"]).await;
    assert!(compacted.contains("etcdserver: mvcc: required revision has been compacted"), "{compacted}");
    let future = ctl.fail(&["get", "k", "--rev=9"]).await;
    assert!(future.contains("etcdserver: mvcc: required revision is a future revision"), "{future}");
    assert_eq!(ctl.run(&["get", "k", "--rev=3", "--print-value-only"]).await, "2\n");
    server.shutdown().await;
}

#[tokio::test]
async fn etcdctl_grants_keeps_and_revokes_leases() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    let granted = ctl.run(&["lease", "grant", "100"]).await;
    let id = granted.split_whitespace().nth(1).expect("lease <id> granted ...");
    assert_eq!(granted, format!("lease {id} granted with TTL(100s)\n"));
    ctl.run(&["put", "k", "v", &format!("--lease={id}")]).await;
    let left = ctl.run(&["lease", "timetolive", id, "--keys"]).await;
    assert!(
        left.starts_with(&format!("lease {id} granted with TTL(100s), remaining(")) && left.ends_with("attached keys([k])\n"),
        "{left}"
    );
    assert_eq!(ctl.run(&["lease", "list"]).await, format!("found 1 leases\n{id}\n"));
    assert_eq!(ctl.run(&["lease", "keep-alive", "--once", id]).await, format!("lease {id} keepalived with TTL(100)\n"));
    assert_eq!(ctl.run(&["lease", "revoke", id]).await, format!("lease {id} revoked\n"));
    assert_eq!(ctl.run(&["get", "k"]).await, "");
    let gone = ctl.fail(&["lease", "revoke", id]).await;
    assert!(gone.contains("etcdserver: requested lease not found"), "{gone}");
    server.shutdown().await;
}

#[tokio::test]
async fn etcdctl_watches_the_past_and_then_the_present() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    ctl.run(&["put", "k1", "a"]).await;
    let mut watch = ctl.command(&["watch", "k", "--prefix", "--rev=1", "--prev-kv"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!([next().await, next().await, next().await], ["PUT", "k1", "a"]);
    ctl.run(&["put", "k2", "b"]).await;
    assert_eq!([next().await, next().await, next().await], ["PUT", "k2", "b"]);
    ctl.run(&["del", "k1"]).await;
    assert_eq!([next().await, next().await, next().await, next().await], ["DELETE", "k1", "a", "k1"]);
    watch.kill().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn etcdctl_tells_the_state_of_the_endpoint_and_its_member() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    ctl.run(&["put", "k", "v"]).await;
    let status = ctl.run(&["endpoint", "status", "-w", "fields"]).await;
    for line in ["\"Revision\" : 2", "\"Version\" : \"3.4.23\"", "\"IsLearner\" : false"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let members = ctl.run(&["member", "list"]).await;
    assert!(members.contains(&format!("started, default, , http://{}, false", server.address())), "{members}");
    assert!(ctl.run(&["endpoint", "hashkv"]).await.contains(&server.address().to_string()));
    assert_eq!(ctl.run(&["alarm", "list"]).await, "");
    assert!(ctl.run(&["defrag"]).await.starts_with("Finished defragmenting"));
    let health = ctl.output(&["endpoint", "health"], "").await;
    assert!(String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).contains("is healthy"));
    server.shutdown().await;
}

#[tokio::test]
async fn etcdctl_locks_and_elects() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ctl = Etcdctl(server.address());
    assert!(ctl.run(&["lock", "mutex", "echo", "inside"]).await.contains("inside"));
    let mut candidate = ctl.command(&["elect", "chair", "me"]).spawn().unwrap();
    let mut lines = BufReader::new(candidate.stdout.take().unwrap()).lines();
    let key = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(key.starts_with("chair/"), "{key}");
    assert_eq!(ctl.run(&["get", "chair/", "--prefix", "--print-value-only"]).await, "me\n");
    candidate.kill().await.unwrap();
    server.shutdown().await;
}

/// All that is known of each key.
fn contents(answer: &GetResponse) -> Vec<(&[u8], &[u8], [i64; 4])> {
    let numbers = |kv: &KeyValue| [kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()];
    answer.kvs().iter().map(|kv| (kv.key(), kv.value(), numbers(kv))).collect()
}

#[tokio::test]
async fn a_snapshot_restores_into_a_real_etcd_with_its_history_and_leases() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("ours")).await;
    let ctl = Etcdctl(server.address());
    let mut store = client(&server).await;
    let lease = store.lease_grant(3_600, None).await.unwrap().id();
    store.put("leased", "v", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    // Records of all sizes, from many a page to pages for one.
    for number in 0..400 {
        store.put(format!("/keys/{number:03}"), vec![b'a' + number as u8 % 26; number * number % 9_000], None).await.unwrap();
    }
    store.put("large", vec![b'x'; 1_000_000], None).await.unwrap();
    store.delete("/keys/007", None).await.unwrap();
    let before = store.put("/keys/008", "again", None).await.unwrap().header().unwrap().revision();
    store.delete("/keys/009", None).await.unwrap();
    store.compact(200, None).await.unwrap();
    let file = folder.path().join("backup.db");
    let file = file.to_str().unwrap();
    ctl.run(&["snapshot", "save", file]).await;
    // What is written afterwards is not in it.
    store.put("late", "v", None).await.unwrap();
    let revision = before + 1;
    let status = ctl.run(&["snapshot", "status", file, "--write-out=json"]).await;
    assert!(status.contains(&format!("\"revision\":{revision},")), "{status}");

    let etcd = Etcd::restored(file);
    let mut restored = Client::connect([etcd.address.clone()], None).await.unwrap();
    let all = || Some(GetOptions::new().with_prefix());
    let (now, then) = (store.get("", all().map(|all| all.with_revision(revision))).await.unwrap(), restored.get("", all()).await.unwrap());
    assert_eq!(then.header().unwrap().revision(), revision);
    assert_eq!(contents(&now), contents(&then));
    let at = || all().map(|all| all.with_revision(250));
    let (ours, theirs) = (store.get("/keys/", at()).await.unwrap(), restored.get("/keys/", at()).await.unwrap());
    assert_eq!(contents(&ours), contents(&theirs));
    let compacted = restored.get("", all().map(|all| all.with_revision(199))).await.unwrap_err().to_string();
    assert!(compacted.contains("has been compacted"), "{compacted}");
    let leased = restored.lease_time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys())).await.unwrap();
    assert_eq!((leased.granted_ttl(), leased.keys().to_vec()), (3_600, vec![b"leased".to_vec()]));
    restored.put("goes", "on", None).await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_of_an_empty_store_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("ours")).await;
    let file = folder.path().join("backup.db");
    let ctl = Etcdctl(server.address());
    ctl.run(&["snapshot", "save", file.to_str().unwrap()]).await;
    let status = ctl.run(&["snapshot", "status", file.to_str().unwrap(), "--write-out=json"]).await;
    assert!(status.contains("\"revision\":0,"), "{status}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_stops_although_somebody_reads_a_snapshot_slowly() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut store = client(&server).await;
    for number in 0..20 {
        store.put(format!("{number}"), vec![b'x'; 1_000_000], None).await.unwrap();
    }
    let mut snapshot = store.snapshot().await.unwrap();
    assert!(snapshot.message().await.unwrap().is_some());
    timeout(PATIENCE, server.shutdown()).await.expect("it stops");
    start(folder.path()).await.shutdown().await;
}

#[tokio::test]
async fn few_snapshots_are_sent_at_a_time_and_others_are_refused_until_one_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut store = client(&server).await;
    for number in 0..5 {
        store.put(format!("{number}"), vec![b'x'; 1_000_000], None).await.unwrap();
    }
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut reader = store.snapshot().await.unwrap();
        assert!(reader.message().await.unwrap().is_some());
        readers.push(reader);
    }
    let refused = store.snapshot().await.expect_err("two are being read").to_string();
    assert!(refused.contains("2 snapshots are being sent already"), "{refused}");
    store.put("meanwhile", "it is written", None).await.unwrap();
    let mut last = readers.pop().unwrap();
    while last.message().await.unwrap().is_some() {}
    // Its end came by the stream; its place is free a moment later.
    let served = async { while store.snapshot().await.is_err() {} };
    timeout(PATIENCE, served).await.expect("a place is free again");
    drop(readers);
    server.shutdown().await;
}
