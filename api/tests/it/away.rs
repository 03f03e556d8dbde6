//! A store that is away, frozen, late or silent: what is answered is still true.

use std::time::Duration;

use podium_api::{ApiConfig, Limits};
use podium_http::Method;
use podium_store::index::Index;
use podium_store::writer::{Group, Op};
use podium_store::{Key, Store};
use podium_types::id::{InstanceId, PodId};
use serde_json::json;
use uuid::Uuid;

use crate::given;
use crate::link::Link;
use crate::world::{Got, World, limits, pod, store_config};

const SOON: Duration = Duration::from_secs(30);

/// A server whose index alone goes through a link.
async fn lagging(limits: Limits) -> (World, Link) {
    let mut world = World::with(1, limits.clone()).await;
    let link = world.link().await;
    let endpoint = link.endpoint();
    world.add(limits, |config| config.index = Index::start(&Store::open(store_config(&endpoint)))).await;
    ready(&world, 1).await;
    (world, link)
}

/// A server that reaches the store through a link alone.
async fn behind(limits: Limits) -> (World, Link) {
    let mut world = World::with(1, limits.clone()).await;
    let link = world.link().await;
    world.add(limits, through(&link)).await;
    ready(&world, 1).await;
    (world, link)
}

fn through(link: &Link) -> impl Fn(&mut ApiConfig) + use<> {
    let endpoint = link.endpoint();
    move |config| {
        config.store = Store::open(store_config(&endpoint));
        config.index = Index::start(&config.store);
    }
}

async fn ready(world: &World, server: usize) {
    answers(world, server, "/readyz", 200).await;
}

/// Asks until the answer has that status: nothing but the next answer tells of it.
async fn answers(world: &World, server: usize, path: &str, status: u16) -> Got {
    let asking = async {
        loop {
            let got = world.send_to(server, Method::GET, path, &[], "").await;
            if got.status == status {
                return got;
            }
        }
    };
    tokio::time::timeout(SOON, asking).await.unwrap_or_else(|_| panic!("{path} is never answered {status}"))
}

async fn put(world: &World, server: usize, path: &str, body: &str) -> Got {
    world.send_to(server, Method::PUT, path, &[("content-type", "application/json")], body).await
}

/// Writes a spec as `etcdctl put` does, and waits until a server has seen it.
async fn author(world: &World, server: usize, id: &PodId, text: &str) -> i64 {
    let group = Group::new(id.clone()).then(Op::Put(Key::Spec(id.clone()), text.to_owned().into()));
    let revision = world.store().await.commit(group).await.committed().unwrap();
    let seen = [("x-podium-min-revision", revision.to_string())];
    let seen: Vec<(&str, &str)> = seen.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(world.send_to(server, Method::GET, "/v2/pods", &seen, "").await.status, 200);
    revision
}

/// Returns when the spec stands in the store as `text`.
async fn stands(world: &World, id: &PodId, text: &str) {
    let index = Index::start(&world.store().await);
    let mut turns = index.turns();
    let stood = || index.read(|state| state.pod(id).and_then(|pod| pod.spec.as_ref()).is_some_and(|spec| spec.value == text.as_bytes()));
    let standing = async {
        while !stood() {
            turns.next().await.expect("the index goes on");
        }
    };
    tokio::time::timeout(SOON, standing).await.expect("the write reaches the store");
}

#[tokio::test]
async fn a_server_that_was_started_without_a_store_says_so_and_serves_when_there_is_one() {
    let mut world = World::with(0, limits()).await;
    let link = world.link().await;
    link.close();
    world.add(Limits { catch_up: Duration::from_millis(50), ..limits() }, through(&link)).await;
    for path in ["/ping", "/livez", "/metrics", "/metrics/prometheus", "/v2/openapi.json", "/v2/info"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    for path in [
        "/readyz",
        "/v2/pods",
        "/v2/pods/::status",
        "/v2/pods/a",
        "/v2/pods/a::versions",
        "/v2/deployments",
        "/v2/queue",
        "/v2/groups",
        "/v2/leader",
        "/v2/podium/unknown",
    ] {
        let got = world.get(path).await;
        assert_eq!((got.status, got.message().as_str()), (503, "the store has not been read yet: is it reachable?"), "{path}");
    }
    let events = world.send(Method::GET, "/v2/events", &[("accept", "text/event-stream")], "").await;
    assert_eq!(events.status, 503);
    assert_eq!(put(&world, 0, "/v2/pods/a", &pod("/a", 1)).await.status, 503);
    assert_eq!(world.send(Method::DELETE, "/v2/leader", &[], "").await.status, 503);
    link.mend();
    ready(&world, 0).await;
    assert_eq!(world.get("/v2/pods").await.json(), json!([]));
}

#[tokio::test]
async fn a_frozen_store_makes_the_server_unready_until_it_answers_again() {
    let patient = Limits { store_patience: Duration::from_millis(400), ..limits() };
    let (world, link) = behind(patient).await;
    link.hold();
    let told = answers(&world, 1, "/readyz", 503).await;
    assert!(told.message().contains("the store has not answered for"), "{told:?}");
    assert!(told.message().ends_with(')'), "the reason, for who may see everything: {told:?}");
    assert_eq!(world.send_to(1, Method::GET, "/livez", &[], "").await.status, 200);
    assert_eq!(world.send_to(1, Method::GET, "/v2/pods", &[], "").await.status, 200, "what was read can be read");
    link.mend();
    ready(&world, 1).await;
}

#[tokio::test]
async fn no_read_is_older_than_a_write_that_was_answered() {
    let (world, link) = lagging(limits()).await;
    assert_eq!(put(&world, 1, "/v2/pods/a", &pod("/a", 1)).await.status, 200);
    link.hold();
    let late = put(&world, 1, "/v2/pods/a?force=true", &pod("/a", 2)).await;
    assert_eq!(late.status, 200, "it is in the store: {late:?}");
    for path in ["/v2/pods/a", "/v2/pods", "/v2/pods/a::status", "/v2/deployments", "/v2/groups"] {
        assert_eq!(world.send_to(1, Method::GET, path, &[], "").await.status, 503, "{path}");
    }
    link.mend();
    let read = answers(&world, 1, "/v2/pods/a", 200).await;
    assert_eq!(read.json()["version"], late.json()["version"]);
}

#[tokio::test]
async fn a_write_that_met_anothers_is_given_up_in_time() {
    let (world, link) = lagging(Limits { write_patience: Duration::ZERO, ..limits() }).await;
    assert_eq!(put(&world, 1, "/v2/pods/a", &pod("/a", 1)).await.status, 200);
    link.hold();
    assert_eq!(put(&world, 0, "/v2/pods/a?force=true", &pod("/a", 2)).await.status, 200);
    let given_up = put(&world, 1, "/v2/pods/a?force=true", &pod("/a", 3)).await;
    assert_eq!(given_up.status, 503);
    let message = given_up.message();
    assert!(message.starts_with("nothing was changed: others changed /a") && message.contains("too late"), "{message}");
    assert_eq!(world.get("/v2/pods/a").await.json()["scaling"]["instances"], 2);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_again() {
    let (world, link) = behind(Limits { catch_up: SOON, ..limits() }).await;
    let id = PodId::new("/a").unwrap();
    let first = put(&world, 1, "/v2/pods/a", &pod("/a", 1)).await;
    // A change, and then what changes nothing but that somebody else's words are overruled.
    for (instances, stands_already) in [(2, false), (2, true)] {
        if stands_already {
            author(&world, 1, &id, "no definition").await;
        }
        let text = pod("/a", instances);
        link.hold();
        let (answer, ()) = tokio::join!(put(&world, 1, "/v2/pods/a?force=true", &text), async {
            stands(&world, &id, &text).await;
            link.mend();
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        let held = world.store().await.get(&Key::Spec(id.clone())).await.unwrap().unwrap();
        assert_eq!(answer.header("x-podium-revision"), held.mod_revision.to_string());
        assert_ne!(answer.json()["version"], first.json()["version"]);
    }
}

#[tokio::test]
async fn a_commit_that_was_lost_is_not_taken_for_done_because_nothing_would_have_changed() {
    let (world, link) = behind(Limits { store_patience: 100 * SOON, ..limits() }).await;
    let id = PodId::new("/a").unwrap();
    let text = pod("/a", 1);
    assert_eq!(put(&world, 1, "/v2/pods/a", &text).await.status, 200);
    let other = author(&world, 1, &id, "no definition").await;
    link.swallow();
    let (answer, ()) = tokio::join!(put(&world, 1, "/v2/pods/a?force=true", &text), async {
        link.swallowed("sleep 1000").await;
        link.mend();
    });
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.message().contains("it may still take effect"), "{answer:?}");
    let held = world.store().await.get(&Key::Spec(id)).await.unwrap().unwrap();
    assert_eq!(held.mod_revision, other);
}

#[tokio::test]
async fn orders_that_were_given_before_a_failure_are_named() {
    let (mut world, link) = lagging(limits()).await;
    let id = PodId::new("/a").unwrap();
    assert_eq!(put(&world, 1, "/v2/pods/a", &pod("/a", 60)).await.status, 200);
    let revision = given::happen(&mut world, "/a runs 60", 0).await.to_string();
    let seen = world.send_to(1, Method::GET, "/v2/pods", &[("x-podium-min-revision", &revision)], "").await;
    assert_eq!(seen.status, 200);
    let ids: Vec<String> = (1..=60).map(|n| InstanceId { pod: id.clone(), uuid: Uuid::from_u128(n) }.to_string()).collect();
    link.hold();
    let body = json!(ids).to_string();
    let answer = world.send_to(1, Method::DELETE, "/v2/pods/a::instances", &[("content-type", "application/json")], &body).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.message().contains("nothing was changed"), "{answer:?}");
    assert_eq!((answer.json()["details"]["ordered"].clone(), answer.header("retry-after")), (json!(ids[..50]), ""));
    assert!(given::is_stored(&world, &format!("kills/a/{}", Uuid::from_u128(50))).await);
    assert!(!given::is_stored(&world, &format!("kills/a/{}", Uuid::from_u128(51))).await);
}

#[tokio::test]
async fn nothing_is_kept_of_a_status_when_another_store_has_taken_the_place() {
    let mut world = World::new().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        assert_eq!(put(&world, 0, "/v2/pods/a", &pod("/a", 1)).await.status, 200);
        let revision = given::happen(&mut world, "/a runs 1", 0).await;
        let wanted = [("x-podium-min-revision", &*revision.to_string())];
        let status = world.send_to(0, Method::GET, "/v2/pods/a::status", &wanted, "").await.json();
        let path = format!("/v2/pods/a::versions/{}", status["spec"]["version"].as_str().unwrap());
        assert_eq!((status["instances"][0]["status"].as_str(), &status["instances"][0]["specReference"]), (Some("STABLE"), &json!(path)));
        seen.push((revision, path));
        world.replace_store().await;
        answers(&world, 0, "/v2/pods/a::status", 404).await;
    }
    // The other store's records have the same revisions, and say something else.
    assert!(seen[0].0 == seen[1].0 && seen[0].1 != seen[1].1, "{seen:?}");
}
