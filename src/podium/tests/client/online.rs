//! Commands against a server. Where a controller would act, the test writes that controller's records itself.

use podium_proto::records::{Delay, Instance, Quarantine, Termination, Verdict, termination, verdict};
use podium_store::Key;
use podium_store::index::Kinds;
use podium_store::writer::{Group, Op, Outcome};
use podium_types::id::{InstanceId, PodId};
use serde_json::Value;

use crate::world::{World, pod, run};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn id(text: &str) -> PodId {
    PodId::new(text).unwrap()
}

async fn commit(world: &World, group: Group) {
    assert!(matches!(world.store.commit(group).await, Outcome::Committed { .. }));
}

/// Ends the pod's deployment as soon as there is one, as upgrade would.
async fn end_deployment(world: &World, pod: &PodId) {
    let mut changes = world.index.changes(Kinds::ALL);
    while world.index.read(|state| state.pod(pod).is_none_or(|view| view.deployment.is_none())) {
        changes.next().await;
    }
    commit(world, Group::new(pod.clone()).then(Op::Delete(Key::Deployment(pod.clone())))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_applied_shown_scaled_and_deleted() {
    let world = World::new().await;
    let file = world.file(&format!("[{},{}]", pod("/a", 1), pod("/b", 2)));
    let applied = world.podium(&["apply", "-f", &file]).await;
    assert_eq!((applied.code, applied.err.as_str()), (0, ""), "{applied:?}");
    assert!(applied.out.starts_with("/a created, version ") && applied.out.contains("\n/b created, version "), "{applied:?}");
    assert!(world.podium(&["apply", "-f", &file]).await.out.contains("/a unchanged, version "));

    let pods = world.podium(&["get", "pods", "-o", "json"]).await;
    assert_eq!(json(&pods.out).as_array().unwrap().len(), 2);
    let table = world.podium(&["get", "pods"]).await.out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("POD") && lines[1].starts_with("/a ") && lines[2].starts_with("/b "), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");

    let scaled = world.podium(&["scale", "/b", "5"]).await;
    assert!(scaled.code == 0 && scaled.out.starts_with("/b scaled to 5, version "), "{scaled:?}");
    assert_eq!(json(&world.podium(&["get", "pod", "b", "-o", "json"]).await.out)["scaling"]["instances"], 5);
    let status = world.podium(&["status", "/b"]).await;
    assert!(status.out.starts_with("/b is DEGRADED") && status.out.contains("0 of 5 instances stable"), "{status:?}");

    let deployments = json(&world.podium(&["get", "deployments", "-o", "json"]).await.out);
    assert_eq!(deployments.as_array().unwrap().len(), 2);
    assert_eq!(world.podium(&["get", "deployments"]).await.out.lines().count(), 3);

    assert_eq!(world.podium(&["delete", "/a"]).await.code, 0);
    for gone in [&["get", "pod", "/a"][..], &["status", "/a"], &["delete", "/a"], &["scale", "/a", "1"], &["status", "/a", "--wait"]] {
        let ran = world.podium(gone).await;
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{gone:?} {ran:?}");
        assert!(ran.err.contains("Pod '/a' does not exist"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_force_a_running_deployment_is_respected() {
    let world = World::new().await;
    let (one, two) = (world.file(&pod("/a", 1)), world.file(&pod("/a", 2)));
    assert_eq!(world.podium(&["apply", "-f", &one]).await.code, 0);
    let refused = world.podium(&["apply", "-f", &two, "--force=false"]).await;
    assert!(refused.code == 1 && refused.err.contains("App is locked"), "{refused:?}");
    assert_eq!(world.podium(&["apply", "-f", &two]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_definition_keeps_all_of_them_from_being_applied() {
    let world = World::new().await;
    let file = world.file(&format!("{}{}", pod("/good", 1), pod("/bad", 1).replace("\"cpus\":0.1", "\"cpus\":0")));
    let ran = world.podium(&["apply", "-f", &file]).await;
    assert!(ran.code == 4 && ran.err.contains("(2): /containers(0)/resources/cpus: "), "{ran:?}");
    assert_eq!(json(&world.podium(&["get", "pods", "-o", "json"]).await.out), json("[]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_judged_by_the_servers_settings_and_the_file_is_named() {
    let world = World::new().await;
    // Its containers' network has no name, and this server has no default for it.
    let file = world.file(&pod("/a", 1).replace("\"host\"", "\"container\""));
    assert_eq!(world.podium(&["validate", "-f", &file]).await.code, 0);
    let ran = world.podium(&["apply", "-f", &file]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains(&file) && ran.err.contains("/networks: "), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_shown_and_ends_with_1() {
    let world = World::new().await;
    let (one, two) = (world.file(&pod("/a", 1)), world.file(&pod("/a", 2)));
    assert_eq!(world.podium(&["diff", "-f", &one]).await.code, 1, "the pod is not there yet");
    world.podium(&["apply", "-f", &one]).await;
    let same = world.podium(&["diff", "-f", &one]).await;
    assert_eq!((same.code, same.out.as_str(), same.err.as_str()), (0, "", ""));
    let other = world.podium(&["diff", "-f", &two]).await;
    assert_eq!(other.code, 1);
    assert!(other.out.contains("\n-    \"instances\": 1,\n+    \"instances\": 2,\n"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_0_when_the_pod_is_stable_and_shows_how_it_came_there() {
    let world = World::new().await;
    let file = world.file(&pod("/a", 0));
    let pod = id("/a");
    let apply = ["apply", "-f", &file, "--wait"];
    let (ran, ()) = tokio::join!(world.podium(&apply), end_deployment(&world, &pod));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.ends_with("/a is STABLE: 0 of 0 instances stable\n"), "{ran:?}");
    let delete = ["delete", "/a", "--wait"];
    let (ran, ()) = tokio::join!(world.podium(&delete), end_deployment(&world, &pod));
    assert!(ran.code == 0 && ran.err.ends_with("/a is gone\n"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_too_long_ends_with_5_and_the_last_reason() {
    let world = World::new().await;
    let file = world.file(&pod("/a", 1));
    let ran = world.podium(&["apply", "-f", &file, "--wait", "--timeout", "500ms"]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("error: timed out after 500ms: /a is DEGRADED: 0 of 1 instances stable"), "{ran:?}");
    assert!(ran.out.starts_with("/a created"), "what was done stands on stdout all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_start_ends_the_wait_with_1_and_the_reason() {
    let world = World::new().await;
    let pod_id = id("/a");
    let file = world.file(&pod("/a", 1));
    let fail = async {
        let mut changes = world.index.changes(Kinds::ALL);
        while world.index.read(|state| state.pod(&pod_id).is_none_or(|view| view.deployment.is_none())) {
            changes.next().await;
        }
        let instance = InstanceId { pod: pod_id.clone(), uuid: uuid::Uuid::from_u128(1) };
        let end = |n: u32| Termination {
            instance_id: instance.to_string(),
            incarnation: n,
            started_ms: i64::from(n) * 1_000,
            terminated_ms: i64::from(n) * 1_000 + 500,
            message: "Command exited with status 7".to_owned(),
            agent_url: String::new(),
            containers: vec![termination::Container {
                container_id: instance.task_id("sleep1", n).to_string(),
                last_known_state: "TaskFailed".to_owned(),
                message: "Command exited with status 7".to_owned(),
                exit_code: Some(7),
            }],
        };
        // With each end scaling writes the next incarnation.
        let next = Instance { incarnation: 4, ..Instance::default() };
        let delay = Delay { history: (1..=3).map(end).collect(), ..Delay::default() };
        commit(
            &world,
            Group::new(pod_id.clone())
                .then(Op::record(Key::Delay(pod_id.clone()), delay))
                .then(Op::record(Key::Instance(pod_id.clone(), instance.uuid), next)),
        )
        .await;
    };
    let apply = ["apply", "-f", &file, "--wait"];
    let (ran, ()) = tokio::join!(world.podium(&apply), fail);
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in ["/a cannot start", "ended 3 times", "container sleep1: TaskFailed, exit code 7"] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_can_be_named_by_flag_and_without_a_scheme() {
    let world = World::new().await;
    let address = world.address().to_string();
    // The flag wins over the variable.
    let ran = run(&["get", "pods", "--server", &address], &[("PODIUM_SERVER", "http://127.0.0.1:1")], "").await;
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_and_changes_nothing_and_a_rollback_returns_to_a_version() {
    let world = World::new().await;
    let (one, two) = (world.file(&pod("/a", 1)), world.file(&pod("/a", 2)));
    let tried = world.podium(&["apply", "-f", &one, "--dry-run"]).await;
    assert_eq!((tried.code, tried.out.as_str()), (0, "/a would be created: 1 instances start, 0 stop, 0 stay\n"), "{tried:?}");
    assert_eq!(world.podium(&["get", "pod", "/a", "-o", "json"]).await.code, 3);

    assert_eq!(world.podium(&["apply", "-f", &one]).await.code, 0);
    let tried = world.podium(&["apply", "-f", &two, "--dry-run"]).await;
    assert_eq!(tried.out, "/a would be changed: 2 instances start, 0 stop, 0 stay\n  /scaling/instances: 1 -> 2\n", "{tried:?}");
    let none = world.podium(&["rollback", "/a"]).await;
    assert!(none.code == 1 && none.err.contains("/a has no earlier version"), "{none:?}");

    assert_eq!(world.podium(&["apply", "-f", &two]).await.code, 0);
    let versions = world.podium(&["get", "versions", "/a"]).await.out;
    let versions: Vec<&str> = versions.lines().collect();
    assert!(versions.len() == 3 && versions[0] == "VERSION", "{versions:?}");
    let back = world.podium(&["rollback", "/a"]).await;
    assert!(back.code == 0 && back.out.starts_with(&format!("/a is as in version {} again, version ", versions[1])), "{back:?}");
    assert_eq!(json(&world.podium(&["get", "pod", "/a", "-o", "json"]).await.out)["scaling"]["instances"], 1);
    assert_eq!(world.podium(&["rollback", "/a", "--to", versions[2]]).await.code, 0);
    assert_eq!(json(&world.podium(&["get", "pod", "/a", "-o", "json"]).await.out)["scaling"]["instances"], 2);
    assert_eq!(world.podium(&["rollback", "/a", "--to", "yesterday"]).await.code, 2);
    assert_eq!(world.podium(&["rollback", "/a", "--to", "2001-01-01T00:00:00.000Z"]).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_asks_when_something_has_happened_and_at_its_end() {
    let world = World::new().await;
    let file = world.file(&pod("/a", 1));
    let ran = world.podium(&["apply", "-f", &file, "--wait", "--timeout", "3s"]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    let client = podium_http::Client::new(podium_http::ClientConfig::default()).unwrap();
    let metrics =
        client.get(&format!("http://{}/metrics/prometheus", world.address()).parse().unwrap()).await.unwrap().bytes().await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let line =
        |route: &str| metrics.lines().find(|line| line.contains(&format!("route=\"{route}\"")) && line.contains("requests_total")).unwrap();
    assert!(line("/v2/events").ends_with(" 1"), "{metrics}");
    let asked: u32 = line("/v2/deployments").rsplit(' ').next().unwrap().parse().unwrap();
    assert!((2..=4).contains(&asked), "{asked} times in 3 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_refused_is_listed_with_its_first_error() {
    let world = World::new().await;
    world.podium(&["apply", "-f", &world.file(&pod("/a", 1))]).await;
    for name in ["/a", "/new"] {
        let violation = |path: &str| verdict::Violation { path: path.to_owned(), message: "error.min".to_owned() };
        let violations = vec![violation("/containers(0)/resources/cpus"), violation("/scaling/instances")];
        let verdict = Verdict { spec_revision: 5, violations, ..Verdict::default() };
        commit(&world, Group::new(id(name)).then(Op::record(Key::Verdict(id(name)), verdict))).await;
    }
    commit(&world, Group::global().then(Op::Put(Key::StraySpec("/My_Pod".to_owned()), "{}".into()))).await;
    let status = r#"{"errors":[{"path":"/id","message":"is no pod id"}],"updatedAt":"2026-01-01T00:00:00.000Z"}"#;
    commit(&world, Group::global().then(Op::Put(Key::StrayStatus("/My_Pod".to_owned()), status.into()))).await;
    for list in [&["get", "pods"][..], &["status"]] {
        let table = world.podium(list).await.out;
        let lines: Vec<&str> = table.lines().skip(1).collect();
        assert!(lines[0].starts_with("/a ") && lines[0].contains("DEGRADED"), "{table}");
        assert!(lines[0].contains("the last push was refused: /containers(0)/resources/cpus: error.min (and 1 more error)"), "{table}");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[1]), "/new REFUSED - - /containers(0)/resources/cpus: error.min (and 1 more)");
        assert_eq!(words(lines[2]), "/My_Pod REFUSED - - /id: is no pod id");
        assert_eq!(lines.len(), 3, "{table}");
    }
    assert_eq!(json(&world.podium(&["get", "pods", "-o", "json"]).await.out).as_array().unwrap().len(), 1);
    // Of a pod that never came to be every error is told.
    for one in [
        &["status", "/new"][..],
        &["status", "/new", "-o", "json"],
        &["status", "/new", "--wait"],
        &["get", "pod", "/new"],
        &["get", "pod", "/new", "-o", "json"],
    ] {
        let ran = world.podium(one).await;
        let told = "/new: the last push was refused: /containers(0)/resources/cpus: error.min";
        assert!(ran.code == 4 && ran.err.contains(told) && ran.err.contains("/scaling/instances"), "{ran:?}");
    }
    assert_eq!(world.podium(&["status", "/nowhere"]).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_a_quarantine_says_that_it_waits() {
    let world = World::new().await;
    world.podium(&["apply", "-f", &world.file(&pod("/a", 1))]).await;
    commit(&world, Group::global().then(Op::record(Key::Quarantine, Quarantine { reason: "x".to_owned(), ..Quarantine::default() }))).await;
    let ran = world.podium(&["delete", "/a", "--wait", "--timeout", "100ms"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (5, "/a deleted, its instances are stopped when the quarantine is over\n"));
    assert!(ran.err.contains("warning: quarantine: nothing is stopped until every unknown instance is settled"), "{ran:?}");
    assert!(ran.err.contains("timed out after 100ms: /a is stopping as soon as the quarantine is over"), "{ran:?}");
}
