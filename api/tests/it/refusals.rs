//! What is refused, how, and that nothing happens.

use podium_http::Method;
use serde_json::json;

use crate::world::{World, pod};

#[tokio::test]
async fn a_definition_must_be_json_by_name_and_by_nature() {
    let world = World::new().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let answer = world.send(Method::POST, "/v2/pods", &[("content-type", content_type)], &pod("/a", 1)).await;
        assert_eq!(answer.status, 415, "{content_type}");
    }
    let broken = world.push(Method::POST, "/v2/pods", "{\"id\": }").await;
    assert_eq!((broken.status, broken.message().as_str()), (400, "Invalid JSON"));
    assert!(broken.json()["details"].as_str().unwrap().contains("line 1 column"), "{broken:?}");
    let empty = world.push(Method::POST, "/v2/pods", "").await;
    assert_eq!((empty.status, empty.message().as_str()), (400, "Please specify data in JSON format"));
    assert_eq!(world.get("/v2/pods").await.json(), json!([]));
}

#[tokio::test]
async fn every_violation_is_named_with_its_path() {
    let world = World::new().await;
    let bad = r#"{"id":"/a","containers":[{"name":"C","resources":{"cpus":0}},{"name":"d"}]}"#;
    let answer = world.push(Method::POST, "/v2/pods", bad).await;
    assert_eq!((answer.status, answer.message().as_str()), (422, "Invalid JSON"));
    let details = answer.json()["details"].clone();
    let paths: Vec<&str> = details.as_array().unwrap().iter().filter_map(|entry| entry["path"].as_str()).collect();
    for path in ["/containers(0)/name", "/containers(0)/resources/cpus"] {
        assert!(paths.contains(&path), "{paths:?}");
    }
    let rule = world.push(Method::POST, "/v2/pods", &pod("a", 1)).await;
    assert_eq!((rule.status, rule.message().as_str()), (422, "Object is not valid"));
    assert_eq!(rule.json()["details"], json!([{"path": "/id", "errors": ["Path needs to be absolute"]}]));
}

#[tokio::test]
async fn an_unknown_field_is_warned_of_and_strictly_refused() {
    let world = World::new().await;
    let typo = pod("/a", 1).replacen("\"networks\"", "\"netwroks\":[],\"networks\"", 1);
    let strict = world.push(Method::POST, "/v2/pods?strict=true", &typo).await;
    assert_eq!(strict.status, 422);
    assert_eq!(strict.json()["details"][0]["path"], "/netwroks");
    assert!(strict.json()["details"][0]["errors"][0].as_str().unwrap().contains("networks"));
    let lenient = world.push(Method::POST, "/v2/pods", &typo).await;
    assert_eq!(lenient.status, 201);
    assert!(lenient.header("warning").contains("/netwroks"), "{lenient:?}");
}

#[tokio::test]
async fn an_unknown_field_is_told_beside_what_is_wrong() {
    let world = World::new().await;
    let wrong = pod("a", 1).replacen("\"networks\"", "\"netwroks\":[],\"networks\"", 1);
    let lenient = world.push(Method::POST, "/v2/pods", &wrong).await;
    assert_eq!(lenient.status, 422);
    assert_eq!(lenient.json()["details"], json!([{"path": "/id", "errors": ["Path needs to be absolute"]}]));
    let warning = lenient.header("warning");
    assert!(warning.contains("/netwroks") && warning.contains("networks"), "{lenient:?}");
    let strict = world.push(Method::POST, "/v2/pods?strict=true", &wrong).await;
    assert_eq!(strict.status, 422);
    let paths: Vec<String> =
        serde_json::from_value(strict.json()["details"].as_array().unwrap().iter().map(|d| d["path"].clone()).collect()).unwrap();
    assert_eq!(paths, ["/id", "/netwroks"]);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let world = World::new().await;
    let large = format!("{{\"id\":\"/a\",\"x\":\"{}\"}}", "x".repeat(podium_api::MAX_BODY));
    assert_eq!(world.push(Method::POST, "/v2/pods", &large).await.status, 413);
    // The server is as well as before.
    assert_eq!(world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await.status, 201);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_json() {
    let world = World::new().await;
    for path in ["/", "/v2", "/v2/appsx", "/v2/podsx", "/v1/pods", "/v2/pods/a::tasks", "/v2/info/x"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.message().starts_with("URI not found"), "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    for (method, path, allow) in [
        (Method::PATCH, "/v2/pods", "GET, HEAD, POST"),
        (Method::PUT, "/v2/pods", "GET, HEAD, POST"),
        (Method::POST, "/v2/pods/a", "GET, HEAD, PUT, DELETE"),
        (Method::POST, "/v2/pods/::status", "GET, HEAD"),
        (Method::DELETE, "/v2/pods/a::status", "GET, HEAD"),
        (Method::POST, "/v2/info", "GET, HEAD"),
        (Method::DELETE, "/ping", "GET, HEAD"),
    ] {
        let answer = world.send(method.clone(), path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
        assert_eq!(answer.message(), "Method Not Allowed");
    }
    let bad = world.get("/v2/pods/A_B").await;
    assert_eq!((bad.status, bad.json()["details"][0]["path"].as_str()), (422, Some("/")));
    assert_eq!(world.get("/v2/pods/a%zz").await.status, 400);
    assert_eq!(world.get("/v2/pods/a::versions/yesterday").await.status, 422);
}

#[tokio::test]
async fn a_packed_body_is_refused_by_its_coding() {
    let world = World::new().await;
    let json = ("content-type", "application/json");
    let packed = world.send(Method::POST, "/v2/pods", &[json, ("content-encoding", "gzip")], &pod("/a", 1)).await;
    assert_eq!(packed.status, 415);
    assert!(packed.message().contains("`Content-Encoding: gzip` isn't unpacked"), "{packed:?}");
    assert_eq!(world.send(Method::POST, "/v2/pods", &[json, ("content-encoding", "identity")], &pod("/a", 1)).await.status, 201);
}

#[tokio::test]
async fn a_web_page_cannot_reach_a_server_on_its_readers_machine() {
    let world = World::new().await;
    let rebound = world.send(Method::GET, "/v2/pods", &[("host", "evil.example:8080")], "").await;
    assert_eq!(rebound.status, 421);
    assert_eq!(world.send(Method::GET, "/v2/pods", &[("host", "podium.example")], "").await.status, 200);
    let headers = [("content-type", "application/json"), ("origin", "http://evil.example")];
    assert_eq!(world.send(Method::POST, "/v2/pods", &headers, &pod("/a", 1)).await.status, 403);
    assert_eq!(world.send(Method::DELETE, "/v2/pods/a", &headers[1..], "").await.status, 403);
    assert_eq!(world.get("/v2/pods").await.json(), json!([]));
}
