//! What the server tells about itself.

use podium_http::Method;
use podium_proto::records::Reach;
use podium_store::Key;
use podium_store::writer::{Group, Op};
use podium_types::id::PodId;
use serde_json::json;
use uuid::Uuid;

use crate::given;
use crate::world::{World, limits, pod};

#[tokio::test]
async fn metrics_come_as_text_and_as_json_and_count_what_there_is() {
    let world = World::new().await;
    world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await;
    world.get("/v2/pods/nope").await;
    let text = world.get("/metrics").await;
    assert!(text.header("content-type").starts_with("text/plain; version=0.0.4"), "{text:?}");
    let text = String::from_utf8(text.body).unwrap();
    for line in [
        "podium_http_requests_total{method=\"POST\",route=\"/v2/pods\",status=\"201\"} 1",
        "podium_http_requests_total{method=\"GET\",route=\"/v2/pods/{id}\",status=\"404\"} 1",
        "podium_pods 1",
        "podium_deployments 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    let json = world.send(Method::GET, "/metrics", &[("accept", "application/json")], "").await.json();
    assert_eq!(json["gauges"]["podium_pods"], json!({"value": 1.0}));
}

#[tokio::test]
async fn info_and_probes_answer_and_no_secret_is_among_them() {
    let world = World::new().await;
    let info = world.get("/v2/info").await.json();
    assert_eq!((&info["name"], &info["elected"], &info["leader"]), (&json!("podium"), &json!(false), &json!(null)));
    assert_eq!(world.get("/v2/leader").await.message(), "There is no leader");
    assert_eq!((world.get("/livez").await.status, world.get("/readyz").await.status), (200, 200));
    world.gateway.send_modify(|gateway| gateway.unchecked = Some("no master answers".to_owned()));
    let told = world.get("/readyz").await.text();
    assert_eq!(told, "degraded\nnothing is killed until Mesos tells which tasks run: no master answers\n");
}

#[tokio::test]
async fn a_definition_that_the_reader_has_is_not_sent_again() {
    let world = World::new().await;
    let tag = world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await.header("etag").to_owned();
    for (known, status) in [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("*".to_owned(), 304), ("\"x\"".to_owned(), 200)] {
        let got = world.send(Method::GET, "/v2/pods/a", &[("if-none-match", &known)], "").await;
        assert_eq!((got.status, got.header("etag"), got.text().is_empty()), (status, tag.as_str(), status == 304), "{known}");
    }
    world.push(Method::PUT, "/v2/pods/a?force=true", &pod("/a", 2)).await;
    assert_eq!(world.send(Method::GET, "/v2/pods/a", &[("if-none-match", &tag)], "").await.status, 200);
    assert_eq!(world.send(Method::GET, "/v2/pods/b", &[("if-none-match", "*")], "").await.status, 404);
}

#[tokio::test]
async fn a_pod_whose_record_cannot_be_read_is_not_said_to_be_missing() {
    let world = World::new().await;
    world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await;
    assert_eq!(world.get("/readyz").await.text(), "ok\n");
    let garbage = Group::global().then(Op::Put(Key::Accepted(PodId::new("/a").unwrap()), "\u{7f}garbage".into()));
    let revision = world.store().await.commit(garbage).await.committed().unwrap().to_string();
    for path in ["/v2/pods/a", "/v2/pods/a::status", "/v2/pods/a::logs"] {
        let got = world.send(Method::GET, path, &[("x-podium-min-revision", &revision)], "").await;
        assert!(got.status == 503 && got.message().starts_with("accepted/a can't be read by this version of Podium"), "{path}: {got:?}");
    }
    assert_eq!(world.push(Method::PUT, "/v2/pods/a", &pod("/a", 2)).await.status, 503);
    assert_eq!(world.get("/v2/pods/b").await.status, 404);
    let told = world.get("/readyz").await.text();
    assert!(told.starts_with("degraded\naccepted/a can't be read by this version of Podium: the pods are left alone"), "{told}");
    let garbage = Group::global().then(Op::Put(Key::Framework, "\u{7f}garbage".into()));
    let revision = world.store().await.commit(garbage).await.committed().unwrap().to_string();
    world.send(Method::GET, "/v2/pods/b", &[("x-podium-min-revision", &revision)], "").await;
    let told = world.get("/readyz").await.text();
    assert!(told.lines().count() == 3 && told.contains("\nthe record of the framework (the key `framework`) can't be read"), "{told}");
}

#[tokio::test]
async fn a_read_of_a_future_revision_waits_and_then_says_so() {
    let world = World::new().await;
    for path in ["/v2/pods", "/v2/deployments"] {
        let answer = world.send(Method::GET, path, &[("x-podium-min-revision", "999999")], "").await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.message().contains("999999"), "{answer:?}");
    }
    assert_eq!(world.send(Method::GET, "/v2/pods", &[("x-podium-min-revision", "soon")], "").await.status, 400);
}

#[tokio::test]
async fn a_status_is_kept_and_yet_never_older_than_the_store() {
    let world = World::new().await;
    world.push(Method::POST, "/v2/pods", &pod("/a", 2)).await;
    world.push(Method::POST, "/v2/pods", &pod("/b", 1)).await;
    let listed = || async {
        let mut all = world.get("/v2/pods/::status").await.json();
        let mut times = Vec::new();
        for status in all.as_array_mut().unwrap() {
            times.push(status.as_object_mut().unwrap().remove("lastUpdated").unwrap().as_str().unwrap().to_owned());
        }
        (all, times)
    };
    let (first, times) = listed().await;
    assert!(times.iter().all(|time| time.ends_with('Z') && time.len() == 24), "{times:?}");
    let (again, later) = listed().await;
    assert_eq!(again, first, "nothing has changed");
    assert!(later[0] >= times[0], "the time is the answer's");

    world.push(Method::PUT, "/v2/pods/a?force=true", &pod("/a", 5)).await;
    let (changed, _) = listed().await;
    assert_eq!((&changed[0]["spec"]["scaling"]["instances"], &changed[1]), (&json!(5), &first[1]));
    let one = world.get("/v2/pods/a::status").await.json();
    assert_eq!(one["spec"], changed[0]["spec"]);
    world.send(Method::DELETE, "/v2/pods/a?force=true", &[], "").await;
    assert_eq!(listed().await.0, json!([first[1]]));
}

/// What a server that was asked all along says of a pod is what one says that makes all of it anew.
#[tokio::test]
async fn a_status_that_is_put_together_of_what_was_kept_says_what_a_new_one_does() {
    let mut world = World::new().await;
    let id = PodId::new("/a").unwrap();
    world.push(Method::POST, "/v2/pods", &pod("/a", 4)).await;
    let nth = |n: u128| Uuid::from_u128(n);
    let reach = Reach { unreachable_ms: 5, ..Reach::default() };
    let without = |keys: &[Key]| keys.iter().cloned().fold(Group::new(id.clone()), |group, key| group.then(Op::Delete(key)));
    let steps: [(&str, Group); 6] = [
        ("RUN", Group::new(id.clone())),
        ("4 was never launched", without(&[Key::Observed(id.clone(), nth(4))])),
        ("RUN", Group::new(id.clone()).then(Op::record(Key::Reach(id.clone(), nth(1)), reach))),
        ("3 is gone", without(&[Key::Instance(id.clone(), nth(3)), Key::Observed(id.clone(), nth(3))])),
        ("its deployment is done", without(&[Key::Deployment(id.clone())])),
        ("RUN", without(&[Key::Reach(id.clone(), nth(1))])),
    ];
    let mut states = Vec::new();
    for (what, group) in steps {
        let mut revision = 0;
        if what == "RUN" {
            revision = given::happen(&mut world, "/a runs 4", revision).await;
        }
        if !group.ops.is_empty() {
            revision = world.store().await.commit(group).await.committed().unwrap();
        }
        world.add(limits(), |_| {}).await;
        let mut told = Vec::new();
        for server in [0, world.servers.len() - 1] {
            let seen = [("x-podium-min-revision", &*revision.to_string())];
            let mut status = world.send_to(server, Method::GET, "/v2/pods/a::status", &seen, "").await.json();
            status.as_object_mut().unwrap().remove("lastUpdated").unwrap();
            told.push(status);
        }
        assert_eq!(told[0], told[1], "{what}");
        let instances = told[0]["instances"].as_array().unwrap();
        states.push(instances.iter().map(|instance| instance["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" "));
    }
    let all = "STABLE STABLE STABLE STABLE";
    assert_eq!(states, [all, "STABLE STABLE STABLE PENDING", all, "STABLE STABLE STABLE", "STABLE STABLE STABLE", all]);
}
