//! The bounds of requests, and what is said at them: the same by us and by a real etcd.

use etcd_client::proto::{PbCompare, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};

use crate::fixture;
use crate::real::Etcd;
use crate::wire::{Call, Wire};

/// Sends a request to both servers, and returns what both say: "ok", or code and text.
async fn both<C: Call + Clone>(ours: &mut Wire, theirs: &mut Wire, request: C) -> String {
    let said = |answer: Result<C::Answer, tonic::Status>| match answer {
        Ok(_) => "ok".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    };
    let ours = said(ours.call(request.clone()).await);
    assert_eq!(ours, said(theirs.call(request).await));
    ours
}

fn put(key: &str, bytes: usize) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: vec![b'x'; bytes], ..PbPutRequest::default() }
}

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp { request: Some(request) }
}

fn puts(prefix: &str, count: usize) -> Vec<PbTxnRequestOp> {
    (0..count).map(|n| op(PbTxnOpRequest::RequestPut(put(&format!("{prefix}{n:03}"), 1)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_requests_and_what_is_said_at_them_are_those_of_a_real_etcd() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let server = fixture::start(folder.path()).await;
    let ours = &mut Wire::connect(&server.address().to_string()).await;
    let theirs = &mut Wire::connect(&etcd.address).await;
    let mib = 1024 * 1024;

    assert_eq!(both(ours, theirs, put("k", 3 * mib / 2 - 64)).await, "ok");
    assert_eq!(both(ours, theirs, put("k", 3 * mib / 2)).await, "InvalidArgument: etcdserver: request is too large");
    let message = both(ours, theirs, put("k", 2 * mib)).await;
    assert!(message.starts_with("ResourceExhausted: grpc: received message larger than max (20971"), "{message}");

    let full = PbTxnRequest { success: puts("a", 128), ..PbTxnRequest::default() };
    assert_eq!(both(ours, theirs, full).await, "ok");
    let over = PbTxnRequest { failure: puts("a", 129), ..PbTxnRequest::default() };
    assert_eq!(both(ours, theirs, over).await, "InvalidArgument: etcdserver: too many operations in txn request");
    let nest = |inner: usize| {
        let inner = PbTxnRequest { success: puts("n", inner), ..PbTxnRequest::default() };
        let mut success = puts("o", 99);
        success.push(op(PbTxnOpRequest::RequestTxn(inner)));
        PbTxnRequest { success, ..PbTxnRequest::default() }
    };
    assert_eq!(both(ours, theirs, nest(28)).await, "ok");
    assert_eq!(both(ours, theirs, nest(29)).await, "InvalidArgument: etcdserver: too many operations in txn request");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_in_the_words_of_a_real_etcd() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let server = fixture::start(folder.path()).await;
    let ours = &mut Wire::connect(&server.address().to_string()).await;
    let theirs = &mut Wire::connect(&etcd.address).await;

    let no_key = "InvalidArgument: etcdserver: key is not provided";
    assert_eq!(both(ours, theirs, put("", 1)).await, no_key);
    assert_eq!(both(ours, theirs, PbRangeRequest::default()).await, no_key);
    assert_eq!(both(ours, theirs, PbDeleteRequest::default()).await, no_key);
    assert_eq!(both(ours, theirs, PbTxnRequest { compare: vec![PbCompare::default()], ..PbTxnRequest::default() }).await, no_key);
    let ignoring = PbPutRequest { ignore_value: true, ..put("k", 1) };
    assert_eq!(both(ours, theirs, ignoring).await, "InvalidArgument: etcdserver: value is provided");
    let ignoring = PbPutRequest { ignore_lease: true, lease: 1, ..put("k", 1) };
    assert_eq!(both(ours, theirs, ignoring).await, "InvalidArgument: etcdserver: lease is provided");
    let empty = PbTxnRequest { success: vec![PbTxnRequestOp { request: None }], ..PbTxnRequest::default() };
    assert_eq!(both(ours, theirs, empty).await, "InvalidArgument: etcdserver: key not found");
    let twice = PbTxnRequest { success: [puts("k", 1), puts("k", 1)].concat(), ..PbTxnRequest::default() };
    assert_eq!(both(ours, theirs, twice).await, "InvalidArgument: etcdserver: duplicate key given in txn request");
    let leased = PbPutRequest { lease: 42, ..put("k", 1) };
    assert_eq!(both(ours, theirs, leased).await, "NotFound: etcdserver: requested lease not found");
    // From a key on: here etcd takes the end as it stands, and sees no collision.
    let open = PbDeleteRequest { key: b"k".to_vec(), range_end: b"\0".to_vec(), prev_kv: false };
    let open = [vec![op(PbTxnOpRequest::RequestDeleteRange(open))], puts("k", 1)].concat();
    assert_eq!(both(ours, theirs, PbTxnRequest { success: open, ..PbTxnRequest::default() }).await, "ok");
    drop(server);
}
