//! The OpenAPI document tells of what the running server does. What it answers is held by `e2e/openapi/check`.

use std::collections::BTreeSet;

use podium_http::Method;
use serde_json::Value;

use crate::world::World;

/// A path of the document with its names filled in.
fn filled(path: &str) -> String {
    path.replace("{id}", "web")
        .replace("{version}", "2021-07-27T10:00:00.000Z")
        .replace("{instance}", "web.instance-5a3f6a60-eeb1-11eb-9a03-0242ac130003")
}

#[tokio::test]
async fn the_document_is_json_and_names_its_version() {
    let world = World::new().await;
    let answer = world.get("/v2/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!((answer.json()["openapi"].as_str(), answer.json()["info"]["title"].as_str()), (Some("3.1.0"), Some("Podium")));
}

#[tokio::test]
async fn each_path_knows_the_methods_that_the_document_gives_it_and_no_other() {
    let world = World::new().await;
    let document = world.get("/v2/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{} paths", paths.len());
    for (path, item) in paths {
        let mut documented: BTreeSet<String> =
            item.as_object().unwrap().keys().filter(|name| *name != "parameters").map(|name| name.to_uppercase()).collect();
        // What knows GET knows HEAD, which need not be said each time.
        if documented.contains("GET") {
            documented.insert("HEAD".to_owned());
        }
        let answer = world.send(Method::PATCH, &filled(path), &[], "").await;
        assert_eq!(answer.status, 405, "PATCH {path}");
        let allowed: BTreeSet<String> = answer.header("allow").split(", ").map(str::to_owned).collect();
        assert_eq!(allowed, documented, "{path}");
    }
}

#[tokio::test]
async fn a_definition_that_is_answered_has_every_member_of_its_schema() {
    let world = World::new().await;
    let document = world.get("/v2/openapi.json").await.json();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let answer = world.push(Method::POST, "/v2/pods", &crate::world::pod("/a", 1)).await.json();
    assert_eq!(names(&answer), names(&schema("AnsweredPod")["properties"]));
    let status = world.get("/v2/pods/a::status").await.json();
    let known = names(&schema("PodStatus")["properties"]);
    assert!(names(&status).is_subset(&known), "{status}");
    assert_eq!(schema("PodStatus")["properties"]["spec"]["$ref"], "#/components/schemas/AnsweredPod");
    // What may be sent is told from what is answered: its id alone may be left out, and by a change alone.
    assert_eq!(schema("Pod")["required"], serde_json::json!(["id", "containers"]));
    assert_eq!(schema("PodChange")["required"], serde_json::json!(["containers"]));
}
