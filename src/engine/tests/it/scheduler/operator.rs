//! The operator API and the GET endpoints.

use http::StatusCode;
use podium_proto::mesos::v1::master;
use podium_proto::mesos::v1::scheduler::{Call, call};
use prost::Message as _;
use serde_json::Value;

use super::{World, agents};
use crate::client::{Client, get, info_with_id, post, send, text_of};

async fn ask(world: &World, body: &str) -> (StatusCode, Value) {
    let request = post(world.address(), "/api/v1", Some("application/json"), &[], body.to_owned().into());
    let (status, text) = text_of(send(world.address(), request).await).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn operators_see_agents_frameworks_and_tasks() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.launch_one("t", &[("color", "blue")]).await;
    let (status, health) = ask(&world, r#"{"type":"GET_HEALTH"}"#).await;
    assert_eq!((status, &health["get_health"]["healthy"]), (StatusCode::OK, &Value::Bool(true)));
    assert_eq!(ask(&world, r#"{"type":"GET_VERSION"}"#).await.1["get_version"]["version_info"]["version"], "1.11.0");
    let (_, state) = ask(&world, r#"{"type":"GET_STATE"}"#).await;
    let state = &state["get_state"];
    assert_eq!(state["get_agents"]["agents"][0]["agent_info"]["id"]["value"], "simulated-S0");
    assert_eq!(state["get_frameworks"]["frameworks"][0]["framework_info"]["id"]["value"], "f");
    assert_eq!(state["get_tasks"]["tasks"][0]["task_id"]["value"], "t");
    assert_eq!(state["get_executors"]["executors"][0]["executor_info"]["executor_id"]["value"], "executor-t");
    for (kind, field) in
        [("GET_AGENTS", "get_agents"), ("GET_FRAMEWORKS", "get_frameworks"), ("GET_TASKS", "get_tasks"), ("GET_MASTER", "get_master")]
    {
        assert!(ask(&world, &format!(r#"{{"type":"{kind}"}}"#)).await.1[field].is_object(), "{kind}");
    }
    let request = post(
        world.address(),
        "/api/v1/operator/",
        Some("application/x-protobuf"),
        &[("accept", "application/x-protobuf")],
        master::Call { r#type: Some(master::call::Type::GetRoles.into()), ..Default::default() }.encode_to_vec().into(),
    );
    let response = send(world.address(), request).await;
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    world.stop().await;
}

#[tokio::test]
async fn operators_tear_frameworks_down_and_are_told_what_is_not_served() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    for (body, status) in [
        ("{", 400),
        (r#"{"type":"TEARDOWN"}"#, 400),
        (r#"{"type":"TEARDOWN","teardown":{"framework_id":{"value":"nobody"}}}"#, 400),
        (r#"{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"nobody"}}}"#, 404),
        (r#"{"type":"UPDATE_WEIGHTS"}"#, 501),
        (r#"{"type":"NONSENSE"}"#, 400),
        (r#"{"type":"TEARDOWN","teardown":{"framework_id":{"value":"f"}}}"#, 200),
    ] {
        assert_eq!(ask(&world, body).await.0.as_u16(), status, "{body}");
    }
    while client.event().await.is_some() {}
    assert_eq!(client.call(call::Type::Revive, Call::default()).await.0, StatusCode::BAD_REQUEST);
    world.stop().await;
}

#[tokio::test]
async fn the_old_endpoints_tell_the_truth() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let offer = client.launch_one("t", &[("color", "blue")]).await;
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    assert_eq!(get(world.address(), "/health").await, (StatusCode::OK, String::new()));
    assert_eq!(get(world.address(), "/redirect").await.0, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(json(get(world.address(), "/version").await.1)["version"], "1.11.0");
    let state = json(get(world.address(), "/master/state").await.1);
    assert_eq!((&state["activated_slaves"], &state["frameworks"][0]["id"]), (&Value::from(2.0), &Value::from("f")));
    let slaves = json(get(world.address(), &format!("/slaves?slave_id={}", offer.agent_id.value)).await.1);
    assert_eq!(slaves["slaves"].as_array().unwrap().len(), 1);
    assert_eq!(slaves["slaves"][0]["used_resources"]["cpus"], 0.11);
    assert_eq!(slaves["slaves"][0]["resources"]["ports"], "[10000-29999]");
    let tasks = json(get(world.address(), "/tasks?task_id=t").await.1);
    let task = &tasks["tasks"][0];
    assert_eq!((&task["state"], &task["executor_id"]), (&Value::from("TASK_RUNNING"), &Value::from("executor-t")));
    assert_eq!(task["labels"][0]["value"], "blue");
    let states: Vec<&Value> = task["statuses"].as_array().unwrap().iter().map(|status| &status["state"]).collect();
    assert_eq!(states, ["TASK_STARTING", "TASK_RUNNING"]);
    assert!(task["statuses"][0]["container_status"]["container_id"]["value"].is_string());
    assert_eq!(json(get(world.address(), "/tasks?task_id=other").await.1)["tasks"], Value::Array(vec![]));
    assert_eq!(json(get(world.address(), "/frameworks").await.1)["frameworks"][0]["tasks"][0]["id"], "t");
    world.stop().await;
}
