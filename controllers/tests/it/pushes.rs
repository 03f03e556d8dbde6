//! Admission and health against a real store: what `etcdctl put` and `del` lead to, as the status key tells it.

use podium_controllers::admission::{Push, PushSource, Source, plan_delete, plan_push};
use podium_store::index::IndexState;
use podium_store::writer::Outcome;
use podium_store::{Index, Key};
use podium_types::definition::{Settings, read_as};
use podium_types::id::PodId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::replica::{Replica, Server, delete, pod, put, until, until_runs};

fn status(state: &IndexState, pod: &PodId) -> Option<Value> {
    serde_json::from_slice(&state.pod(pod)?.status.as_ref()?.value).ok()
}

/// Waits until the status of a spec revision says this phase, and gives it.
async fn until_told(index: &Index, pod: &PodId, revision: i64, phase: &str) -> Value {
    let mut told = Value::Null;
    until(index, phase, |state| {
        told = status(state, pod).unwrap_or_default();
        told["specRevision"] == json!(revision) && told["phase"] == json!(phase)
    })
    .await;
    told
}

fn spec(command: &str) -> String {
    json!({"containers": [{"name": "c", "exec": {"command": {"shell": command}}, "resources": {}}]}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_learns_from_the_status_key_what_became_of_its_push() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    let a = pod("/group/a");
    let key = || Key::Spec(a.clone());

    let refused = put(&store, key(), r#"{"containers": [{"name": "UP", "resources": {"mem": 0}}], "user": ""}"#.to_owned()).await;
    let told = until_told(&index, &a, refused, "Refused").await;
    let paths: Vec<&str> = told["errors"].as_array().unwrap().iter().map(|error| error["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/containers(0)/name", "/containers(0)/resources/mem", "/user"]);
    assert_eq!((&told["version"], &told["status"]), (&Value::Null, &Value::Null));

    let good = put(&store, key(), spec("sleep 1")).await;
    let running = until_told(&index, &a, good, "Running").await;
    assert_eq!((&running["errors"], &running["counts"]["healthy"], &running["status"]), (&json!([]), &json!(1), &json!("STABLE")));

    let bad = put(&store, key(), "{".to_owned()).await;
    let told = until_told(&index, &a, bad, "Refused").await;
    assert_eq!(told["errors"], json!([{"path": "", "message": "Invalid JSON: EOF while parsing an object at line 1 column 1"}]));
    assert_eq!((&told["version"], &told["counts"], &told["status"]), (&running["version"], &running["counts"], &running["status"]));

    delete(&store, key()).await;
    until(&index, "the end of the pod and of its status", |state| {
        state.pod(&a).is_some_and(|view| view.accepted.is_none() && view.status.is_none() && view.instances.is_empty())
    })
    .await;
    // Its history stays, and goes on when it comes back.
    let again = put(&store, key(), spec("sleep 1")).await;
    until_told(&index, &a, again, "Running").await;
    assert_eq!(index.read(|state| state.pod(&a).unwrap().versions.len()), 2);
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_under_what_is_no_pod_id_is_answered_at_the_same_name_until_it_goes() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    let told = |state: &IndexState, name: &str| -> Option<Value> {
        serde_json::from_slice(&state.strays().get(name)?.status.as_ref()?.value).ok()
    };
    for name in ["/My_Pod", "/a//b"] {
        let key = || Key::StraySpec(name.to_owned());
        for _ in 0..2 {
            let revision = put(&store, key(), spec("sleep 1")).await;
            until(&index, name, |state| {
                told(state, name).is_some_and(|told| told["specRevision"] == json!(revision) && told["phase"] == json!("Refused"))
            })
            .await;
        }
        delete(&store, key()).await;
        until(&index, "the end of the answer", |state| state.strays().is_empty()).await;
    }
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_plans_is_not_judged_a_second_time_and_fails_on_what_it_did_not_see() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    let a = pod("/a");
    let push = |command: &str| {
        let text = spec(command);
        let definition = read_as(text.as_bytes(), &a, None, &Settings::default()).unwrap().definition;
        Push { definition, source: PushSource::Api { spec_json: text.into() } }
    };
    let unseen = plan_push(None, push("sleep 2"), 5_000, Uuid::from_u128(1), true).unwrap();
    let first = plan_push(None, push("sleep 1"), 5_000, Uuid::from_u128(2), false).unwrap();
    let revision = store.commit(first.group).await.committed().unwrap();
    assert!(matches!(store.commit(unseen.group).await, Outcome::Conflict { .. }), "a second author who saw nothing");
    until_runs(&index, &a, 1).await;
    let told = until_told(&index, &a, revision, "Running").await;
    assert_eq!(told["version"], json!(first.version));
    index.read(|state| {
        let view = state.pod(&a).unwrap();
        assert_eq!(view.accepted.as_ref().unwrap().mod_revision, revision, "admission wrote it again");
        assert_eq!(view.versions.len(), 1);
    });

    let plan = index.read(|state| plan_delete(state.pod(&a).unwrap(), Source::Api, 6_000, Uuid::from_u128(3), false)).unwrap();
    assert!(store.commit(plan.group).await.committed().is_some());
    until(&index, "the end of the pod", |state| state.pod(&a).is_some_and(|view| view.accepted.is_none() && view.status.is_none())).await;
    replica.shutdown().await;
}
