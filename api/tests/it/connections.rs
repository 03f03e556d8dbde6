//! Clients that are slow, many, or in the way of a shutdown.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{World, limits, pod};

const SOON: Duration = Duration::from_secs(20);

async fn connect(world: &World, sends: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.servers[0].address()).await.unwrap();
    stream.write_all(sends.as_bytes()).await.unwrap();
    stream
}

async fn to_the_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = timeout(SOON, stream.read_to_end(&mut text)).await.expect("the server ends the connection");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_half_a_head_or_nothing_is_cut_off() {
    let world = World::new().await;
    for sends in ["", "G", "GET /ping HTTP/1.1\r\nHost: localhost\r\nX: "] {
        to_the_end(connect(&world, sends).await).await;
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_the_request_gets_its_answer() {
    let world = World::new().await;
    let body = pod("/a", 1);
    let head = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
    let post = format!("POST /v2/pods HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (request, status) in [(post.as_str(), "HTTP/1.1 201"), ("GET /v2/pods/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200")] {
        let mut stream = connect(&world, request).await;
        stream.shutdown().await.unwrap();
        let answer = to_the_end(stream).await;
        assert!(answer.starts_with(status) && answer.ends_with('}'), "{answer}");
    }
}

#[tokio::test]
async fn the_host_of_a_target_in_absolute_form_counts() {
    let world = World::new().await;
    for (target, host, status) in [
        ("http://evil.example/v2/pods", "localhost", "HTTP/1.1 421"),
        ("http://me@evil.example:80/v2/pods", "localhost", "HTTP/1.1 421"),
        ("http://localhost/v2/pods", "evil.example", "HTTP/1.1 200"),
        ("http://127.0.0.1:1/v2/pods", "localhost", "HTTP/1.1 200"),
    ] {
        let stream = connect(&world, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        let answer = to_the_end(stream).await;
        assert!(answer.starts_with(status), "{target}: {answer}");
    }
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_too() {
    let world = World::new().await;
    let head = "POST /v2/pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = connect(&world, head).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..9 {
        // The server may have answered and closed already.
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut start = [0; 12];
    timeout(SOON, stream.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_large_body_before_it_listens_hears_that_it_is_too_large() {
    let world = World::new().await;
    let size = 5 << 20;
    let head = "POST /v2/pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close";
    for _ in 0..3 {
        let mut stream = connect(&world, &format!("{head}\r\nContent-Length: {size}\r\n\r\n")).await;
        timeout(SOON, stream.write_all(&vec![b' '; size])).await.unwrap().expect("all of it is taken");
        assert!(to_the_end(stream).await.starts_with("HTTP/1.1 413"));
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let world = World::with(1, podium_api::Limits { connections: 1, ..limits() }).await;
    let idle = connect(&world, "").await;
    let second = connect(&world, "GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    // The idle one is timed out, and only then is the second served.
    assert!(to_the_end(second).await.contains("pong"));
    drop(idle);
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections_at_once_and_stuck_ones_at_the_deadline() {
    let limits = podium_api::Limits { head_timeout: SOON, drain: Duration::from_millis(200), ..limits() };
    let mut world = World::with(1, limits).await;
    let idle = connect(&world, "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let stuck =
        connect(&world, "POST /v2/pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
            .await;
    assert_eq!(world.push(podium_http::Method::POST, "/v2/pods", &pod("/a", 1)).await.status, 201);
    let server = world.servers.remove(0);
    let address = server.address();
    timeout(SOON, server.shutdown()).await.unwrap();
    assert!(to_the_end(idle).await.contains("pong"));
    to_the_end(stuck).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let limits = podium_api::Limits { stall_timeout: Duration::from_millis(300), drain: 3 * SOON, ..limits() };
    let mut world = World::with(1, limits).await;
    // More than the kernel keeps for a connection.
    let label = format!("\"labels\":{{\"x\":\"{}\"}},\"networks\"", "x".repeat(400_000));
    for n in 0..40 {
        let large = pod(&format!("/a{n}"), 1).replacen("\"networks\"", &label, 1);
        assert_eq!(world.push(podium_http::Method::POST, "/v2/pods", &large).await.status, 201);
    }
    let mut stalled = connect(&world, "GET /v2/pods HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut start = [0; 12];
    timeout(SOON, stalled.read_exact(&mut start)).await.unwrap().unwrap();
    // With the connection still open this would take until the end of the drain.
    timeout(2 * SOON, world.servers.remove(0).shutdown()).await.expect("the connection is cut");
    drop(stalled);
}

#[tokio::test]
async fn requests_that_come_before_their_turn_are_answered_in_order() {
    let world = World::new().await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain, application/json;q=0.5\r\n\r\n");
    let last = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let pipelined = [one("/ping"), one("/nothing"), one("/v2/pods").repeat(20), last.to_owned()].concat();
    let text = to_the_end(connect(&world, &pipelined).await).await;
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!((statuses.len(), statuses[0], statuses[1], statuses[2]), (23, "200", "404", "200"), "{text}");
    assert!(text.ends_with("ok\n"), "{text}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::new().await;
    let start = "GET /ping HTTP/1.1\r\nHost: localhost\r\n";
    let long = format!("{start}X-Long: {}\r\n\r\n", "x".repeat(300_000));
    let many = format!("{start}{}\r\n", (0..300).map(|n| format!("X-{n}: y\r\n")).collect::<String>());
    let path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(300_000));
    for head in [long, many, path] {
        let mut stream = TcpStream::connect(world.servers[0].address()).await.unwrap();
        // It may be refused before it is complete.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = to_the_end(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 414"), "{answer}");
    }
    assert_eq!(world.get("/ping").await.status, 200);
}

/// Sends bytes, says that no more will come, and reads to the end.
async fn after(world: &World, sends: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.servers[0].address()).await.unwrap();
    let _ = stream.write_all(sends).await;
    let _ = stream.shutdown().await;
    to_the_end(stream).await
}

fn statuses(text: &str) -> Vec<&str> {
    text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect()
}

#[tokio::test]
async fn what_is_no_http_is_refused_or_cut_off_and_breaks_nothing() {
    let world = World::new().await;
    let post = "POST /v2/pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let cases: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /v2/pods\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET /ping HTTP/1.1\r\nHost: local\x00host\r\n\r\n".to_vec(),
        b"GET /ping HTTP/9.9\r\nHost: localhost\r\n\r\n".to_vec(),
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        format!("{post}Content-Length: -1\r\n\r\n{{}}").into_bytes(),
        format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}").into_bytes(),
        format!("{post}Content-Length: 99999999999999999999\r\n\r\n{{}}").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{{}}").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n").into_bytes(),
        format!("{post}Content-Length: 50\r\n\r\n{{\"id\":").into_bytes(),
        format!("{post}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\u{1f}\u{8}ab").into_bytes(),
        format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n").into_bytes(),
        format!("{post}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n[]").into_bytes(),
        format!("{post}Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n[]").into_bytes(),
    ];
    for case in cases {
        let text = after(&world, &case).await;
        let bad: Vec<&str> = statuses(&text).into_iter().filter(|status| !status.starts_with('4') && *status != "100").collect();
        assert!(bad.is_empty(), "{}: {text}", case.escape_ascii());
    }
    assert_eq!(world.get("/v2/pods").await.text(), "[]");
}

#[tokio::test]
async fn no_bytes_bring_an_error_of_the_server() {
    let world = World::new().await;
    let words: [&[u8]; 16] = [
        b"GET ",
        b"POST ",
        b"DELETE ",
        b"/v2/pods",
        b"/v2/events",
        b"::status",
        b"?force=true",
        b" HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Type: application/json\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\n",
        b"{\"id\"",
        b"%2e%zz\x00\xff",
    ];
    // Seeded: a failure can be repeated.
    let mut seed: u64 = 20_261_128;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % n
    };
    let cases: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let mut bytes: Vec<u8> = (0..below(14)).flat_map(|_| words[below(words.len())].to_vec()).collect();
            if !bytes.is_empty() && below(2) == 0 {
                let at = below(bytes.len());
                bytes[at] = u8::try_from(below(256)).unwrap();
            }
            bytes
        })
        .collect();
    for case in cases {
        let text = after(&world, &case).await;
        assert!(statuses(&text).iter().all(|status| !status.starts_with('5')), "{}: {text}", case.escape_ascii());
    }
    assert_eq!(world.get("/ping").await.status, 200);
}
