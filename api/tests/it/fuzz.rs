//! Whatever a client sends over a connection, the server answers or hangs up, never with a fault of its own, and keeps on
//! serving in bounded memory. `PROPTEST_CASES=20000 cargo test -p podium-api --test it fuzz` tries for longer.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use podium_http::Method;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::world::{World, pod};

/// A whole request is mostly answered in this time; after it the client hangs up.
const WHOLE: Duration = Duration::from_millis(500);

/// An answer's head has arrived in this time, or the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn methods() -> impl Strategy<Value = String> {
    let known = vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"];
    prop_oneof![20 => prop::sample::select(known).prop_map(str::to_owned), 1 => "[A-Za-z ]{0,12}"]
}

/// Paths of pieces that routes are made of, and of some that none is.
fn paths() -> impl Strategy<Value = Vec<u8>> {
    let root = prop::sample::select(vec![
        "/",
        "/v2/pods",
        "/v2/pods/",
        "/v2/pods//",
        "/v2/groups/",
        "/v2/apps/",
        "/v2/queue/",
        "/v2/deployments/",
        "/v2/tasks",
        "/ping",
        "/metrics",
        "/v2/info",
        "/service/marathon/v2/pods/",
        "",
    ]);
    let piece = prop::sample::select(vec![
        "a",
        "web",
        "/",
        "//",
        "::",
        "status",
        "versions",
        "instances",
        "logs",
        "delay",
        ".",
        "..",
        "%2F",
        "%",
        "%zz",
        "%00",
        "%ff",
        "%C3",
        "%3A%3A",
        "A_b",
        "2021-07-27T10:00:00.000Z",
        "a.instance-5a3f6a60-eeb1-11eb-9a03-0242ac130003",
        "x.instance-y",
        "?",
        "&",
        "=",
        "force=true",
        "strict=true",
        "dryRun=true",
        "wipe=true",
        "embed=lastUnusedOffers",
        "tail=99999999999",
        "*",
    ]);
    let pieces = prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat().into_bytes());
    let bytes = prop::collection::vec(any::<u8>().prop_filter("ends the line", |b| !b" \r\n".contains(b)), 0..40);
    let long = (1usize..70_000).prop_map(|length| vec![b'a'; length]);
    (root, prop_oneof![20 => pieces, 4 => bytes, 1 => long]).prop_map(|(root, tail)| [root.as_bytes(), &tail].concat())
}

fn headers() -> impl Strategy<Value = Vec<String>> {
    let line = prop::sample::select(vec![
        "Content-Type: application/json",
        "Content-Type: application/json; charset=utf-16",
        "Content-Type: text/plain",
        "Content-Type: application/json, text/plain",
        "Content-Type: \u{e9}",
        "Content-Encoding: gzip",
        "Accept: text/plain",
        "Accept: application/xml;q=0",
        "Accept: text/event-stream",
        "Accept-Encoding: gzip, br",
        "If-Match: *",
        "If-Match: \"2021\", ,",
        "X-Podium-Min-Revision: -1",
        "X-Podium-Min-Revision: 99999999999999999999",
        "X-Podium-Min-Revision: one",
        "Origin: http://elsewhere",
        "Authorization: Basic %%%",
        "Authorization: Bearer x",
        "Last-Event-ID: 7",
        "Expect: 100-continue",
        "Transfer-Encoding: chunked",
        "Content-Length: 3",
        "Content-Length: -3",
        "Content-Length: 99999999999",
        "Range: bytes=0-1",
    ]);
    prop::collection::vec(line.prop_map(str::to_owned), 0..5)
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let sound = pod("/a", 1).into_bytes();
    let damaged = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5).prop_map({
        let sound = sound.clone();
        move |damage| {
            let mut bytes = sound.clone();
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes
        }
    });
    let utf16: Vec<u8> = pod("/a", 1).encode_utf16().flat_map(u16::to_le_bytes).collect();
    prop_oneof![
        3 => Just(Vec::new()),
        4 => Just(sound.clone()),
        8 => damaged,
        4 => prop::collection::vec(any::<u8>(), 0..300),
        1 => Just([b"\xef\xbb\xbf".as_slice(), &sound].concat()),
        1 => Just(utf16),
        2 => (1usize..3_000).prop_map(|depth| "[".repeat(depth).into_bytes()),
        1 => (500_000usize..600_000).prop_map(|length| vec![b' '; length]),
        1 => Just(br#"["a.instance-5a3f6a60-eeb1-11eb-9a03-0242ac130003", 7]"#.to_vec()),
    ]
}

/// One request as it goes over the wire. Mostly well-formed, so that it gets somewhere.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let host = prop_oneof![20 => Just("127.0.0.1"), 1 => Just("elsewhere"), 1 => Just("")];
    (methods(), paths(), headers(), bodies(), host, prop::bool::weighted(0.9)).prop_map(|(method, path, headers, body, host, length)| {
        let mut request = [method.as_bytes(), b" ", &path, b" HTTP/1.1\r\n"].concat();
        request.extend(format!("Host: {host}\r\nConnection: close\r\n").bytes());
        headers.iter().for_each(|line| request.extend(format!("{line}\r\n").bytes()));
        let framed = headers.iter().any(|line| line.starts_with("Content-Length") || line.starts_with("Transfer"));
        if length && !framed {
            request.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        [request, b"\r\n".to_vec(), body].concat()
    })
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered(u16),
    /// The server hung up without an answer.
    HungUp,
    /// The request was no whole one, so that the client hung up.
    Abandoned,
}

async fn end_of(address: SocketAddr, request: &[u8]) -> End {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and hang up before it has read all.
    let _ = stream.write_all(request).await;
    let mut head = Vec::new();
    let mut abandoned = false;
    let mut buffer = [0; 4096];
    while !head.windows(2).any(|two| two == b"\r\n") {
        let read = match tokio::time::timeout(WHOLE, stream.read(&mut buffer)).await {
            Ok(read) => read,
            Err(_) => {
                abandoned = true;
                let _ = stream.shutdown().await;
                stream.read(&mut buffer).await
            }
        };
        match read {
            Ok(0) | Err(_) => return if abandoned { End::Abandoned } else { End::HungUp },
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    End::Answered(line.split(' ').nth(1).unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_target_without_a_path_is_no_route() {
    let world = World::new().await;
    for line in ["GET web", "CONNECT elsewhere:80", "BREW *", "OPTIONS *"] {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let end = end_of(world.servers[0].address(), request.as_bytes()).await;
        assert!(matches!(end, End::Answered(400..500)), "{line}: {end:?}");
    }
}

#[test]
fn no_request_is_answered_with_a_fault_of_the_server() {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let address = world.servers[0].address();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 400 };
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    let answered = std::cell::RefCell::new(std::collections::BTreeMap::<String, u32>::new());
    let result = TestRunner::new(config).run(&requests(), |request| {
        let end = runtime.block_on(async { tokio::time::timeout(PATIENCE, end_of(address, &request)).await });
        let Ok(end) = end else { return Err(TestCaseError::fail("the server hangs")) };
        *answered.borrow_mut().entry(format!("{end:?}")).or_default() += 1;
        // A revision that the store has not reached is waited for in vain: not a fault.
        let waits = request.windows(22).any(|part| part == b"X-Podium-Min-Revision:");
        match end {
            End::Answered(503) if waits => Ok(()),
            End::Answered(500..) | End::HungUp => Err(TestCaseError::fail(format!("{end:?}"))),
            End::Answered(_) | End::Abandoned => Ok(()),
        }
    });
    assert!(result.is_ok(), "{result:?}");
    let alive = runtime.block_on(world.get("/v2/pods"));
    assert_eq!(alive.status, 200);
    // Else the requests were too odd to get anywhere.
    let answered = answered.into_inner();
    for status in [200, 400, 404, 405, 422] {
        assert!(answered.contains_key(&format!("Answered({status})")), "no request was answered with {status}: {answered:?}");
    }
}

/// The most memory that this process has held, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_unfold_are_judged_in_bounded_memory() {
    let world = World::with(1, podium_api::Limits::default()).await;
    let size = podium_api::MAX_BODY - 200;
    let repeated = |piece: &str| piece.repeat(size / piece.len());
    // What takes the most memory for its length: small objects, arrays, numbers, unknown fields, labels, containers.
    let members: String = (0..size / 12).map(|n| format!("\"{n:x}\":0,")).collect();
    let bodies = [
        format!(r#"{{"id":"/a","containers":[{}7]}}"#, repeated("{},")),
        format!(r#"{{"id":"/a","containers":[{}7]}}"#, repeated("[],")),
        format!(r#"{{"id":"/a","containers":[{}7]}}"#, repeated("0,")),
        format!(r#"{{"id":"/a",{members}"containers":[]}}"#),
        format!(r#"{{"id":"/a","labels":{{{members}"x":1}},"containers":[]}}"#),
        format!(r#"{{"id":"/a","containers":[{}7]}}"#, repeated(r#"{"name":"c","resources":{}},"#)),
    ];
    let before = peak();
    let sent = (0..2).flat_map(|_| &bodies).map(|body| world.push(Method::POST, "/v2/pods", body));
    for answer in futures_util::stream::iter(sent).buffer_unordered(4).collect::<Vec<_>>().await {
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.body.len() < 512 * 1024, "an answer of {} bytes", answer.body.len());
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < 256 << 20, "12 bodies of half a megabyte took {} MB", grown >> 20);
}
