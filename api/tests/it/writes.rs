//! What changes something, and what is seen of it.

use podium_http::Method;
use podium_store::Key;
use podium_store::view::Deletion;
use podium_store::writer::{Group, Op};
use podium_types::id::{PodId, Version};
use serde_json::json;

use crate::world::{World, limits, pod};

#[tokio::test]
async fn the_quick_start_of_the_documents_works_word_for_word() {
    let world = World::new().await;
    let created = world.push(Method::POST, "/v2/pods", &pod("/simplepod", 1)).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(created.header("location").ends_with("/v2/pods/simplepod"), "{created:?}");
    assert!(uuid::Uuid::parse_str(created.header("marathon-deployment-id")).is_ok());
    assert_eq!(created.header("x-podium-change"), "created");
    assert!(created.header("x-podium-revision").parse::<i64>().unwrap() > 0);
    let definition = created.json();
    assert_eq!((&definition["id"], &definition["scaling"]["instances"]), (&json!("/simplepod"), &json!(1)));
    assert_eq!(definition["containers"][0]["image"], json!(null), "the explicit form names what is absent");

    let got = world.get("/v2/pods/simplepod").await;
    assert_eq!((got.status, got.json()), (200, definition.clone()));
    assert_eq!(got.header("etag"), format!("\"{}\"", definition["version"].as_str().unwrap()));
    assert_eq!(world.get("/v2/pods").await.json(), json!([definition]));
    assert_eq!(world.get("/v2/pods/simplepod::versions").await.json(), json!([definition["version"]]));
    let version = format!("/v2/pods/simplepod::versions/{}", definition["version"].as_str().unwrap());
    assert_eq!(world.get(&version).await.json(), definition);
    let deployments = world.get("/v2/deployments").await.json();
    assert_eq!(deployments[0]["id"], created.header("marathon-deployment-id"));
    assert_eq!(deployments[0]["affectedPods"], json!(["/simplepod"]));

    let deleted = world.send(Method::DELETE, "/v2/pods/simplepod?force=true", &[], "").await;
    assert_eq!((deleted.status, deleted.body.len()), (202, 0), "{deleted:?}");
    assert!(!deleted.header("marathon-deployment-id").is_empty());
    let gone = world.get("/v2/pods/simplepod").await;
    assert_eq!((gone.status, gone.json()), (404, json!({"message": "Pod '/simplepod' does not exist", "details": []})));
    assert_eq!(world.get("/v2/pods").await.json(), json!([]));
    assert_eq!(world.get("/v2/pods/simplepod::versions").await.json().as_array().map(Vec::len), Some(1));
    assert_eq!(world.get(&version).await.status, 200, "history survives deletion");
}

#[tokio::test]
async fn the_note_of_a_deletion_is_no_version_and_goes_when_the_pod_comes_back() {
    let world = World::new().await;
    let (store, id) = (world.store().await, PodId::new("/a").unwrap());
    let note = Key::Deleted(id.clone());
    let noted = || Group::new(id.clone()).then(Op::Put(note.clone(), Deletion::to_json(Version::from_millis(1_627_380_000_000))));
    store.commit(noted()).await.committed().unwrap();
    let created = world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(store.get(&note).await.unwrap().is_none());

    let revision = store.commit(noted()).await.committed().unwrap().to_string();
    let versions = world.send(Method::GET, "/v2/pods/a::versions", &[("x-podium-min-revision", &revision)], "").await;
    assert_eq!(versions.json(), json!([created.json()["version"]]));
    assert_eq!(world.get("/v2/pods/a::versions/deleted").await.status, 422);
}

#[tokio::test]
async fn what_was_answered_2xx_stands_in_the_store_as_its_author_wrote_it() {
    let world = World::new().await;
    let text = pod("/a", 1);
    assert_eq!(world.push(Method::PUT, "/v2/pods/a", &text).await.status, 200);
    let held = world.store().await.get(&Key::Spec(PodId::new("/a").unwrap())).await.unwrap().unwrap();
    assert_eq!(held.value, text.as_bytes());
}

#[tokio::test]
async fn what_is_answered_can_be_sent_back() {
    let world = World::new().await;
    let first = world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await;
    let body = String::from_utf8(first.body.clone()).unwrap();
    let again = world.push(Method::PUT, "/v2/pods/a?strict=true", &body).await;
    assert_eq!((again.status, again.header("x-podium-change")), (200, "nothing"), "{again:?}");
}

#[tokio::test]
async fn authors_at_the_same_time_are_all_answered_and_the_versions_differ() {
    let world = std::sync::Arc::new(World::with(2, limits()).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=8_u32 {
        let world = world.clone();
        tasks.spawn(async move {
            let json = [("content-type", "application/json")];
            world.send_to(n as usize % 2, Method::PUT, "/v2/pods/a?force=true", &json, &pod("/a", n)).await
        });
    }
    let answers = tasks.join_all().await;
    let mut versions: Vec<String> = Vec::new();
    for answer in &answers {
        // Under heavy contention giving up is allowed, but only with nothing changed and a word about it.
        match answer.status {
            200 => versions.push(answer.json()["version"].as_str().unwrap().to_owned()),
            503 => assert!(answer.message().contains("nothing was changed"), "{answer:?}"),
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert!(!versions.is_empty());
    versions.sort();
    let count = versions.len();
    versions.dedup();
    assert_eq!(versions.len(), count, "no version is given twice");
    let newest = answers
        .iter()
        .map(|answer| answer.header("x-podium-revision").to_owned())
        .max_by_key(|text| text.parse::<i64>().unwrap_or(0))
        .unwrap();
    let history = world.send(Method::GET, "/v2/pods/a::versions", &[("x-podium-min-revision", &newest)], "").await.json();
    assert_eq!(history.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>(), versions);
}

#[tokio::test]
async fn a_write_on_one_replica_is_seen_on_another_that_is_told_its_revision() {
    let world = World::with(2, limits()).await;
    for n in 1..=20 {
        let put = world.push(Method::PUT, "/v2/pods/a?force=true", &pod("/a", n)).await;
        let header = [("x-podium-min-revision", put.header("x-podium-revision"))];
        let seen = world.send_to(1, Method::GET, "/v2/pods/a", &header, "").await;
        assert_eq!(seen.json()["version"], put.json()["version"]);
    }
}
