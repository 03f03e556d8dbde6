//! The checks of a request in their order, each with its status.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use podium_engine::Settings;
use podium_proto::mesos::v1::FrameworkId;
use podium_proto::mesos::v1::scheduler::{Call, call};

use super::{World, agents};
use crate::client::{Client, Kind, get, info, post, send, text_of};

const PATH: &str = "/api/v1/scheduler";
const JSON: Option<&str> = Some("application/json");

/// Content type, headers, body, and the status that must come.
type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], &'a str, u16);

async fn status(world: &World, content_type: Option<&str>, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let request = post(world.address(), PATH, content_type, headers, Bytes::copy_from_slice(body.as_bytes()));
    let (status, text) = text_of(send(world.address(), request).await).await;
    (status.as_u16(), text)
}

#[tokio::test]
async fn each_fault_of_a_request_has_its_status() {
    let world = World::start(agents(0)).await;
    let subscribe = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}"#;
    let cases: &[Case<'_>] = &[
        (None, &[], subscribe, 400),
        (Some("application/json; charset=utf-8"), &[], subscribe, 415),
        (Some("text/plain"), &[], "", 415),
        (JSON, &[], "{", 400),
        (JSON, &[], "{}", 400),
        (JSON, &[], r#"{"type":"NEVER_HEARD_OF"}"#, 400),
        (JSON, &[], r#"{"type":"SUBSCRIBE"}"#, 400),
        (JSON, &[], r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"name":"n"}}}"#, 400),
        (JSON, &[], r#"{"type":"SUBSCRIBE","framework_id":{"value":"a"},"subscribe":{"framework_info":{"user":"u","name":"n"}}}"#, 400),
        (JSON, &[], r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","id":{"value":"a"}}}}"#, 400),
        (JSON, &[("accept", "text/html")], subscribe, 406),
        (JSON, &[("mesos-stream-id", "x")], subscribe, 400),
        (JSON, &[], r#"{"type":"ACCEPT","framework_id":{"value":"a"}}"#, 400),
        (JSON, &[], r#"{"type":"REVIVE"}"#, 400),
        (JSON, &[], r#"{"type":"REVIVE","framework_id":{"value":"a"}}"#, 400),
        (
            JSON,
            &[],
            r#"{"type":"ACKNOWLEDGE","framework_id":{"value":"a"},"acknowledge":{"agent_id":{"value":"s"},"task_id":{"value":"t"},"uuid":"YWI="}}"#,
            400,
        ),
        (JSON, &[], r#"{"type":"UNKNOWN"}"#, 400),
    ];
    for (content_type, headers, body, expected) in cases {
        let (status, text) = status(&world, *content_type, headers, body).await;
        assert_eq!(status, *expected, "{content_type:?} {headers:?} {body}: {text}");
        assert!(!text.is_empty(), "{body}");
    }
    let request = Request::builder().method(Method::GET).uri(PATH).header(header::HOST, "localhost").body(Full::new(Bytes::new())).unwrap();
    let response = send(world.address(), request).await;
    assert_eq!((response.status(), response.headers()[header::ALLOW].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    world.stop().await;
}

#[tokio::test]
async fn a_call_needs_a_known_framework_its_open_stream_and_that_streams_id() {
    let world = World::start(agents(0)).await;
    let client = Client::subscribe(world.address(), info("test", &[])).await;
    assert_eq!(client.call(call::Type::Revive, Call::default()).await.0, StatusCode::ACCEPTED);
    assert_eq!(client.call_as("another", call::Type::Revive, Call::default()).await.0, StatusCode::BAD_REQUEST);
    let body = format!(r#"{{"type":"REVIVE","framework_id":{{"value":"{}"}}}}"#, client.id);
    assert_eq!(status(&world, JSON, &[], &body).await.0, 400, "no stream id");
    let headers = [("mesos-stream-id", client.stream_id.as_str())];
    for path in ["/master/api/v1/scheduler", "/api/v1/scheduler/"] {
        let request = post(world.address(), path, JSON, &headers, Bytes::from(body.clone()));
        assert_eq!(send(world.address(), request).await.status(), StatusCode::ACCEPTED, "{path}");
    }
    let (id, stream_id) = (client.id.clone(), client.stream_id.clone());
    drop(client);
    // The master notices the end of the stream by itself, soon.
    let body = format!(r#"{{"type":"REVIVE","framework_id":{{"value":"{id}"}}}}"#);
    let forbidden = async {
        while status(&world, JSON, &[("mesos-stream-id", &stream_id)], &body).await.0 != 403 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::client::PATIENCE, forbidden).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn an_update_of_a_framework_is_answered_at_once() {
    let world = World::start(agents(0)).await;
    let client = Client::subscribe(world.address(), info("test", &[])).await;
    let update = |change: &dyn Fn(&mut podium_proto::mesos::v1::FrameworkInfo)| {
        let mut framework_info = info("renamed", &[]);
        framework_info.id = Some(FrameworkId { value: client.id.clone() });
        change(&mut framework_info);
        Call { update_framework: Some(call::UpdateFramework { framework_info, ..Default::default() }), ..Call::default() }
    };
    assert_eq!(client.call(call::Type::UpdateFramework, update(&|_| {})).await.0, StatusCode::OK);
    for change in [
        &|info: &mut podium_proto::mesos::v1::FrameworkInfo| info.user = "another".to_owned(),
        &|info| info.principal = Some("another".to_owned()),
        &|info| info.checkpoint = Some(false),
        &|info| info.roles.push("a b".to_owned()),
        &|info| info.id = None,
    ] as [&dyn Fn(&mut podium_proto::mesos::v1::FrameworkInfo); 5]
    {
        assert_eq!(client.call(call::Type::UpdateFramework, update(change)).await.0, StatusCode::BAD_REQUEST);
    }
    let (_, frameworks) = get(world.address(), "/frameworks").await;
    assert!(frameworks.contains(r#""name":"renamed""#), "{frameworks}");
    world.stop().await;
}

#[tokio::test]
async fn large_bodies_foreign_hosts_and_unknown_paths_are_refused() {
    let world = World::start_with(agents(0), Settings { max_body: 100, ..Settings::default() }).await;
    assert_eq!(status(&world, JSON, &[], &" ".repeat(101)).await.0, 413);
    let mut request = post(world.address(), PATH, JSON, &[], Kind::Json.write(&Call::default()));
    request.headers_mut().insert(header::HOST, "evil.example".parse().unwrap());
    assert_eq!(send(world.address(), request).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(get(world.address(), "/nowhere").await.0, StatusCode::NOT_FOUND);
    world.stop().await;
}
