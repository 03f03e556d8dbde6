//! What survives a stop, an abrupt one above all.

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use podium_etcd::{Config, Server, StartError};
use tokio::net::TcpListener;

use crate::fixture::{client, start};

#[tokio::test]
async fn everything_that_was_answered_survives_an_abrupt_stop() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    for n in 0..50 {
        kv.put(format!("/k/{n:02}"), format!("{n}"), None).await.unwrap();
    }
    let txn = Txn::new()
        .when([Compare::version("/k/00", CompareOp::Equal, 1)])
        .and_then([TxnOp::put("/t", "yes", None), TxnOp::delete("/k/01", None)]);
    let revision = kv.txn(txn).await.unwrap().header().unwrap().revision();
    server.kill().await;

    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    let all = kv.get("/k/", Some(GetOptions::new().with_prefix())).await.unwrap();
    assert_eq!(all.header().unwrap().revision(), revision);
    assert_eq!(all.count(), 49);
    let before = kv.get("/k/01", Some(GetOptions::new().with_revision(revision - 1))).await.unwrap();
    assert_eq!(before.kvs()[0].value(), b"1");
    server.shutdown().await;
}

#[tokio::test]
async fn a_watch_from_an_old_revision_sees_history_from_before_the_restart_and_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    kv.put("/a", "1", None).await.unwrap();
    kv.put("/a", "2", None).await.unwrap();
    server.kill().await;

    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    let options = WatchOptions::new().with_start_revision(2).with_prev_key();
    let mut stream = kv.watch("/a", Some(options)).await.unwrap();
    kv.delete("/a", None).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let message = stream.message().await.unwrap().unwrap();
        for event in message.events() {
            let previous = event.prev_kv().map(|kv| kv.value_str().unwrap().to_owned());
            seen.push((event.kv().unwrap().mod_revision(), event.kv().unwrap().value_str().unwrap().to_owned(), previous));
        }
    }
    let expected = [(2, "1", None), (3, "2", Some("1")), (4, "", Some("2"))];
    assert_eq!(seen, expected.map(|(revision, value, previous)| (revision, value.to_owned(), previous.map(str::to_owned))));
    server.shutdown().await;
}

#[tokio::test]
async fn a_lease_keeps_its_keys_over_a_restart_and_begins_its_full_time_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    let lease = kv.lease_grant(100, None).await.unwrap().id();
    kv.put("/leased", "x", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    server.kill().await;

    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    let options = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
    let left = kv.lease_time_to_live(lease, Some(options)).await.unwrap();
    assert_eq!((left.granted_ttl(), left.keys()), (100, &[b"/leased".to_vec()][..]));
    assert!(left.ttl() >= 95, "{}", left.ttl());
    kv.lease_revoke(lease).await.unwrap();
    assert_eq!(kv.get("/leased", None).await.unwrap().count(), 0);
    server.shutdown().await;
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_words_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = Server::start(Config::new(listener, folder.path())).await.unwrap_err();
    assert!(matches!(refused, StartError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("in use by another process"));
    server.shutdown().await;
}

/// Writers run into the stop at full speed: each knows the last of its writes that was answered.
#[tokio::test(flavor = "multi_thread")]
async fn no_answered_write_is_lost_and_no_unanswered_one_was_shown_when_the_stop_comes_amid_writes() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut watching = client(&server).await;
    let mut stream = watching.watch("/w/", Some(WatchOptions::new().with_prefix())).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let mut kv = client(&server).await;
        writers.spawn(async move {
            let mut answered = 0;
            while kv.put(format!("/w/{writer}"), format!("{}", answered + 1), None).await.is_ok() {
                answered += 1;
            }
            (writer, answered)
        });
    }
    let mut shown = 0;
    while shown < 400 {
        shown = stream.message().await.unwrap().unwrap().header().unwrap().revision();
    }
    server.kill().await;
    while let Ok(Some(message)) = stream.message().await {
        shown = message.header().unwrap().revision();
    }

    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    while let Some(ended) = writers.join_next().await {
        let (writer, answered) = ended.unwrap();
        let found = kv.get(format!("/w/{writer}"), None).await.unwrap();
        let value: i64 = found.kvs()[0].value_str().unwrap().parse().unwrap();
        assert!(value == answered || value == answered + 1, "writer {writer}: {answered} answered, {value} found");
    }
    let revision = kv.get("/", None).await.unwrap().header().unwrap().revision();
    assert!(revision >= shown, "revision {shown} was shown, and {revision} is there");
    server.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_ends_watch_streams_with_etcds_words_and_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    let mut stream = kv.watch("/a", None).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    server.shutdown().await;
    let ended = stream.message().await.unwrap_err();
    assert!(ended.to_string().contains("etcdserver: server stopped"), "{ended}");
    start(folder.path()).await.shutdown().await;
}

#[tokio::test]
async fn compacted_history_stays_compacted_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    for value in ["1", "2", "3"] {
        kv.put("/a", value, None).await.unwrap();
    }
    kv.put("/b", "1", None).await.unwrap();
    kv.delete("/b", None).await.unwrap();
    kv.compact(4, None).await.unwrap();
    server.kill().await;

    let server = start(folder.path()).await;
    let mut kv = client(&server).await;
    let refused = kv.get("/a", Some(GetOptions::new().with_revision(3))).await.unwrap_err();
    assert!(refused.to_string().contains("required revision has been compacted"), "{refused}");
    let kept = kv.get("/a", Some(GetOptions::new().with_revision(4))).await.unwrap();
    assert_eq!((kept.kvs()[0].value(), kept.kvs()[0].version(), kept.header().unwrap().revision()), (&b"3"[..], 3, 6));
    server.shutdown().await;
}
