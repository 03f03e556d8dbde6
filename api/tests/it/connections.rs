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
