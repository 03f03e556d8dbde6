//! Subscribing, failing over, staying away.

use std::time::Duration;

use http::StatusCode;
use podium_engine::Settings;
use podium_proto::mesos::v1::scheduler::{Call, call, event};
use podium_proto::mesos::v1::{FrameworkId, FrameworkInfo, TaskState};
use serde_json::Value;

use super::{World, agents};
use crate::client::{Client, Kind, PATIENCE, Refused, get, info, info_with_id};

async fn refusal(world: &World, info: FrameworkInfo, suppressed: &[&str]) -> String {
    let suppressed = suppressed.iter().map(|role| (*role).to_owned()).collect();
    match Client::try_subscribe(world.address(), Kind::Json, info, suppressed).await {
        Err(Refused::Event(message)) => message,
        Err(Refused::Status(status, text)) => panic!("{status} {text}"),
        Ok(_) => panic!("the subscription was taken"),
    }
}

#[tokio::test]
async fn a_bad_framework_gets_an_error_event_and_no_more() {
    let world = World::start(agents(0)).await;
    let base = || info("test", &[]);
    for (bad, suppressed, word) in [
        (FrameworkInfo { roles: vec!["a".into(), "a".into()], ..base() }, &[][..], "duplicate items: { a }"),
        (FrameworkInfo { roles: vec!["a b".into()], ..base() }, &[], "invalid"),
        (FrameworkInfo { capabilities: vec![], ..base() }, &[], "MULTI_ROLE"),
        (base(), &["other"], "Suppressed role"),
        (FrameworkInfo { failover_timeout: Some(f64::NAN), ..base() }, &[], "failover_timeout"),
        (info_with_id("a/b"), &[], "invalid characters"),
    ] {
        // NaN can't be said in JSON.
        let kind = if bad.failover_timeout.is_some_and(f64::is_nan) { Kind::Protobuf } else { Kind::Json };
        let suppressed: Vec<String> = suppressed.iter().map(|role| (*role).to_owned()).collect();
        match Client::try_subscribe(world.address(), kind, bad, suppressed).await {
            Err(Refused::Event(message)) => assert!(message.contains(word), "{message}"),
            Err(Refused::Status(status, text)) => panic!("{status} {text}"),
            Ok(_) => panic!("{word}: the subscription was taken"),
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn an_id_that_the_framework_chose_itself_is_adopted_and_new_ones_are_given_out() {
    let world = World::start(agents(0)).await;
    let own = Client::subscribe(world.address(), info_with_id("my-own-id")).await;
    assert_eq!(own.id, "my-own-id");
    let (first, second) =
        (Client::subscribe(world.address(), info("a", &[])).await, Client::subscribe(world.address(), info("b", &[])).await);
    assert!(first.id.ends_with("-0000") && second.id.ends_with("-0001"), "{} {}", first.id, second.id);
    world.stop().await;
}

#[tokio::test]
async fn the_latest_subscription_wins_and_the_old_one_is_told_and_shut_out() {
    let world = World::start(agents(1)).await;
    let mut old = Client::subscribe(world.address(), info_with_id("f")).await;
    let offer = old.offer().await;
    let mut new = Client::subscribe(world.address(), info_with_id("f")).await;
    let error = old.until(|event| {
        assert!(event.rescind.is_none(), "a failover rescinds nothing");
        event.error.clone()
    });
    assert_eq!(error.await.message, "Framework failed over");
    assert!(old.event().await.is_none(), "the old stream ends");
    assert_eq!(old.call(call::Type::Revive, Call::default()).await.0, StatusCode::BAD_REQUEST);
    let again = new.offer().await;
    assert_ne!(again.id, offer.id, "old offers are void");
    new.expect(call::Type::Revive, Call::default()).await;
    world.stop().await;
}

#[tokio::test]
async fn updates_not_acknowledged_are_sent_again_at_once_to_whoever_subscribes() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![crate::client::a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    let first = client.update().await;
    drop(client);
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    let again = client.update().await;
    assert_eq!((again.uuid, again.state), (first.uuid.clone(), first.state), "the same update, with the same uuid");
    client.acknowledge(&first).await;
    client.reach("t", TaskState::TaskRunning).await;
    // Also when all that is left is the last word of an executor that has ended.
    world.simulation().end_task("t", TaskState::TaskFailed).await.unwrap();
    let last = client.update().await;
    client.until(|event| event.failure.clone()).await;
    drop(client);
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    assert_eq!(client.update().await.uuid, last.uuid);
    world.stop().await;
}

#[tokio::test]
async fn a_framework_that_stays_away_too_long_is_removed_with_its_tasks_and_its_id() {
    let world = World::start(agents(1)).await;
    let away = FrameworkInfo { failover_timeout: Some(0.2), ..info_with_id("f") };
    let mut client = Client::subscribe(world.address(), away.clone()).await;
    client.launch_one("t", &[]).await;
    drop(client);
    let removed = async {
        loop {
            let (_, text) = get(world.address(), "/frameworks").await;
            let all: Value = serde_json::from_str(&text).unwrap();
            if all["completed_frameworks"].as_array().is_some_and(|completed| !completed.is_empty()) {
                break all;
            }
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, removed).await.unwrap();
    assert_eq!(all["completed_frameworks"][0]["completed_tasks"][0]["state"], "TASK_KILLED");
    assert_eq!(refusal(&world, away, &[]).await, "Framework has been removed");
    // Everything is free again.
    let mut other = Client::subscribe(world.address(), info("other", &[])).await;
    other.offer_of(16.0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_framework_back_in_time_finds_its_tasks() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.launch_one("t", &[]).await;
    drop(client);
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.reconcile(&[]).await;
    let status = client.update().await;
    assert_eq!((status.task_id.value.as_str(), status.state), ("t", TaskState::TaskRunning.into()));
    world.stop().await;
}

#[tokio::test]
async fn a_teardown_ends_the_stream_without_error_and_uses_up_the_id() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.launch_one("t", &[]).await;
    client.expect(call::Type::Teardown, Call::default()).await;
    while let Some(event) = client.event().await {
        assert!(event.error.is_none() && event.update.is_none(), "{event:?}");
    }
    assert_eq!(client.call(call::Type::Revive, Call::default()).await, (StatusCode::BAD_REQUEST, "Framework cannot be found".to_owned()));
    assert_eq!(refusal(&world, info_with_id("f"), &[]).await, "Framework has been removed");
    world.stop().await;
}

#[tokio::test]
async fn a_changed_principal_is_refused_and_a_changed_user_ignored() {
    let world = World::start(agents(0)).await;
    let _client = Client::subscribe(world.address(), info_with_id("f")).await;
    let stranger = FrameworkInfo { principal: Some("stranger".to_owned()), ..info_with_id("f") };
    assert_eq!(refusal(&world, stranger, &[]).await, "Changing framework's principal is not allowed.");
    let _client = Client::subscribe(world.address(), FrameworkInfo { user: "another".to_owned(), ..info_with_id("f") }).await;
    let (_, frameworks) = get(world.address(), "/frameworks").await;
    assert!(frameworks.contains(r#""user":"somebody""#), "{frameworks}");
    world.stop().await;
}

#[tokio::test]
async fn heartbeats_come_at_the_announced_interval() {
    let settings = Settings { heartbeat: Duration::from_millis(50), ..Settings::default() };
    let world = World::start_with(agents(0), settings).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    assert_eq!(client.heartbeat_seconds, 0.05);
    for _ in 0..3 {
        assert_eq!(client.next().await.unwrap().r#type, Some(event::Type::Heartbeat.into()));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_framework_that_does_not_read_its_events_loses_its_stream() {
    let settings = Settings { event_buffer: 8, ..Settings::default() };
    let world = World::start_with(agents(1), settings).await;
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    // More answers than the buffer and the sockets on the way hold, and nobody reads.
    let reconcile = call::Reconcile {
        tasks: (0..20_000)
            .map(|number| call::reconcile::Task {
                task_id: podium_proto::mesos::v1::TaskId { value: format!("{number}-{}", "x".repeat(200)) },
                agent_id: None,
            })
            .collect(),
    };
    let call = Call {
        framework_id: Some(FrameworkId { value: client.id.clone() }),
        r#type: Some(call::Type::Reconcile.into()),
        reconcile: Some(reconcile),
        ..Call::default()
    };
    client.expect(call::Type::Reconcile, call).await;
    let mut events = 0;
    while client.event().await.is_some() {
        events += 1;
    }
    assert!(events < 20_000, "the stream was cut after {events} events");
    assert_eq!(client.call(call::Type::Revive, Call::default()).await.0, StatusCode::FORBIDDEN);
    // It can come back.
    let mut client = Client::subscribe(world.address(), info_with_id("f")).await;
    client.offer().await;
    world.stop().await;
}
