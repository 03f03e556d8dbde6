//! `/v2/events` over real sockets.

use std::time::Duration;

use futures_util::StreamExt as _;
use podium_api::{AccessConfig, Limits, NewToken, Right};
use podium_controllers::gateway::GatewayState;
use podium_http::{Body, Client, ClientConfig, Method};
use podium_proto::records::{Accepted, Verdict, verdict};
use podium_store::writer::{Group, Op};
use podium_store::{Index, Key, Store};
use podium_types::id::PodId;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::world::{World, limits, pod, store_config};

const SOON: Duration = Duration::from_secs(30);

/// One event as it came.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    kind: String,
    id: Option<String>,
    data: Value,
}

/// A stream that is being read.
struct Stream {
    body: Body,
    text: String,
    last_id: Option<String>,
}

impl Stream {
    async fn open(world: &World, server: usize, query: &str, headers: &[(&str, &str)]) -> Self {
        let url = format!("http://{}/v2/events{query}", world.servers[server].address()).parse().unwrap();
        let mut all: http::HeaderMap = [(http::header::ACCEPT, http::HeaderValue::from_static("text/event-stream"))].into_iter().collect();
        for (name, value) in headers {
            all.insert(http::HeaderName::try_from(*name).unwrap(), http::HeaderValue::try_from(*value).unwrap());
        }
        let response = Client::new(ClientConfig::default()).unwrap().request(Method::GET, &url, all, "").await.unwrap();
        assert_eq!((response.status.as_u16(), response.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(response.header("content-encoding"), None);
        let mut stream = Self { body: response.body, text: String::new(), last_id: None };
        // The greeting: from here on nothing is missed.
        stream.block().await.expect("a greeting");
        stream
    }

    /// What stands before the next empty line; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            match timeout(SOON, self.body.next()).await.expect("something comes") {
                Some(Ok(piece)) => self.text.push_str(std::str::from_utf8(&piece).unwrap()),
                _ => return None,
            }
        }
    }

    /// The next event; comments and ids alone are passed over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
            self.last_id = field("id").or(self.last_id.take());
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                let data: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(data["eventType"], kind.as_str());
                assert!(data["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{data}");
                return Some(Event { kind, id: field("id"), data });
            }
        }
    }

    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("the stream goes on"));
        }
        events
    }
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

const CREATED: [&str; 3] = ["pod_created_event", "group_change_success", "deployment_info"];

#[tokio::test]
async fn what_happens_to_a_pod_is_told_in_order_with_ids_made_of_the_revision() {
    // Who has left is noticed when nothing can be sent any more.
    let world = World::with(1, Limits { heartbeat: Duration::from_millis(100), ..limits() }).await;
    let mut stream = Stream::open(&world, 0, "", &[]).await;
    let attached = stream.next().await.unwrap();
    assert_eq!(
        (attached.kind.as_str(), attached.data["remoteAddress"].as_str(), &attached.id),
        ("event_stream_attached", Some("127.0.0.1"), &None)
    );
    let created = world.push(Method::POST, "/v2/pods", &pod("/g/a", 1)).await;
    let events = stream.take(3).await;
    assert_eq!(kinds(&events), CREATED);
    let revision = created.header("x-podium-revision");
    let ids: Vec<String> = events.iter().map(|event| event.id.clone().unwrap()).collect();
    let store = ids[0].rsplit('-').next().unwrap();
    assert_eq!(ids, [1, 2, 3].map(|number| format!("{revision}-{number}-{store}")));
    assert_eq!((events[0].data["uri"].as_str(), events[1].data["groupId"].as_str()), (Some("/v2/pods/g/a"), Some("/g")));
    assert_eq!(events[2].data["plan"]["id"].as_str(), Some(created.header("marathon-deployment-id")));
    world.push(Method::PUT, "/v2/pods/g/a?force=true", &pod("/g/a", 2)).await;
    let events = stream.take(5).await;
    assert_eq!(kinds(&events)[..4], ["pod_updated_event", "group_change_success", "deployment_step_failure", "deployment_failed"]);
    // The plan says from which version it leads to which.
    let plan = &events[4].data["plan"];
    assert_eq!((&plan["original"]["version"], &plan["target"]["version"]), (&created.json()["version"], &plan["version"]));
    world.send(Method::DELETE, "/v2/pods/g/a?force=true", &[], "").await;
    assert_eq!(kinds(&stream.take(5).await)[2..], ["deployment_step_failure", "deployment_failed", "deployment_info"]);
    let mut second = Stream::open(&world, 0, "?event_type=event_stream_detached", &[]).await;
    drop(stream);
    assert_eq!(second.next().await.unwrap().kind, "event_stream_detached");
}

#[tokio::test]
async fn a_deployment_that_is_dropped_has_failed_and_a_refused_push_is_told_of() {
    let world = World::with(2, limits()).await;
    let mut stream = Stream::open(&world, 1, "", &[]).await;
    assert_eq!(stream.next().await.unwrap().kind, "event_stream_attached");
    let created = world.push(Method::POST, "/v2/pods", &pod("/g/a", 1)).await;
    assert_eq!(kinds(&stream.take(3).await), CREATED);
    let id = created.header("marathon-deployment-id");
    let dropped = world.send(Method::DELETE, &format!("/v2/deployments/{id}?force=true"), &[], "").await;
    assert_eq!(dropped.status, 202);
    let failed = stream.take(2).await;
    assert_eq!(kinds(&failed), ["deployment_step_failure", "deployment_failed"]);
    assert_eq!((failed[1].data["id"].as_str(), &failed[1].data["reason"]), (Some(id), &"The upgrade has been cancelled".into()));
    assert_eq!(world.get("/v2/deployments").await.json(), serde_json::json!([]));

    let violation = verdict::Violation { path: "/containers".to_owned(), message: "must not be empty".to_owned() };
    let verdict = Verdict { spec_revision: 9, violations: vec![violation], ..Verdict::default() };
    let refusal = Group::global().then(Op::record(Key::Verdict(PodId::new("/g/a").unwrap()), verdict));
    world.store().await.commit(refusal).await.committed().unwrap();
    let refused = stream.next().await.unwrap();
    assert_eq!((refused.kind.as_str(), refused.data["groupId"].as_str()), ("group_change_failed", Some("/g")));
    assert_eq!(refused.data["reason"], "/g/a is refused: /containers: must not be empty");
    // The past tells the same.
    let last = failed[1].id.clone().unwrap();
    let mut resumed = Stream::open(&world, 0, "?event_type=group_change_failed", &[("last-event-id", &last)]).await;
    assert_eq!(resumed.next().await.unwrap(), Event { data: refused.data.clone(), ..refused });
}

#[tokio::test]
async fn a_stream_is_taken_up_on_another_replica_where_it_ended() {
    let world = World::with(2, limits()).await;
    let mut whole = Stream::open(&world, 0, "?event_type=pod_created_event&event_type=deployment_info", &[]).await;
    for n in 0..10 {
        assert_eq!(world.push(Method::POST, "/v2/pods", &pod(&format!("/a{n}"), 1)).await.status, 201);
    }
    let mut told = whole.take(20).await;
    let same = |event: &Event| (event.kind.clone(), event.id.clone(), event.data["uri"].clone(), event.data["plan"].clone());
    // From the middle of a revision, from its end, and from all but the last.
    for from in [0, 5, 10, 18] {
        let last = told[from].id.clone().unwrap();
        let headers = [("last-event-id", last.as_str())];
        let mut resumed = Stream::open(&world, 1, "?event_type=pod_created_event&event_type=deployment_info", &headers).await;
        let rest = resumed.take(told.len() - from - 1).await;
        assert_eq!(rest.iter().map(same).collect::<Vec<_>>(), told[from + 1..].iter().map(same).collect::<Vec<_>>(), "after {last}");
        // And it goes on into the present, twice: where the past ends, and beyond.
        for name in ["late", "later"] {
            world.push(Method::POST, "/v2/pods", &pod(&format!("/{name}{from}"), 1)).await;
            let (here, there) = (resumed.take(2).await, whole.take(2).await);
            assert_eq!(here.iter().map(same).collect::<Vec<_>>(), there.iter().map(same).collect::<Vec<_>>());
            told.extend(there);
        }
    }
}

#[tokio::test]
async fn a_sign_of_life_moves_the_place_from_which_a_stream_is_taken_up() {
    let limits = Limits { heartbeat: Duration::from_millis(50), ..limits() };
    let mut world = World::with(1, limits.clone()).await;
    let mut stream = Stream::open(&world, 0, "?event_type=deployment_success", &[]).await;
    let revision: i64 = world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await.header("x-podium-revision").parse().unwrap();
    let sign = format!(":\nid: {}-0-", revision + 1);
    let place = loop {
        if let Some(store) = stream.block().await.expect("the stream lives").strip_prefix(&sign) {
            break format!("{}-0-{store}", revision + 1);
        }
    };
    world.push(Method::POST, "/v2/pods", &pod("/b", 1)).await;
    // What was missed has come to its end although nothing of it stands at the last revision.
    let foreign = world.etcd_client().await.put("elsewhere", "x", None).await.unwrap().header().unwrap().revision();
    world.add(limits, |_| {}).await;
    let mut resumed = Stream::open(&world, 1, "?event_type=pod_created_event", &[("last-event-id", &place)]).await;
    assert_eq!(resumed.next().await.unwrap().data["uri"], "/v2/pods/b");
    let sign = format!(":\nid: {}-0-", foreign + 1);
    while !resumed.block().await.expect("the stream lives").starts_with(&sign) {}
}

#[tokio::test]
async fn what_cannot_be_repeated_is_said_to_be_missing() {
    // That the store has not come so far is not waited for: until then it might.
    let world = World::with(1, Limits { catch_up: Duration::from_secs(3_600), ..limits() }).await;
    let revision: i64 = world.push(Method::POST, "/v2/pods", &pod("/a", 1)).await.header("x-podium-revision").parse().unwrap();
    world.push(Method::POST, "/v2/pods", &pod("/b", 1)).await;
    let last: i64 = world.push(Method::POST, "/v2/pods", &pod("/c", 1)).await.header("x-podium-revision").parse().unwrap();
    let mut etcd = world.etcd_client().await;
    etcd.compact(last, None).await.unwrap();
    let mut now = Stream::open(&world, 0, "?event_type=pod_created_event", &[]).await;
    let newest: i64 = world.push(Method::POST, "/v2/pods", &pod("/now", 1)).await.header("x-podium-revision").parse().unwrap();
    let id = now.next().await.unwrap().id.unwrap();
    let store = id.rsplit('-').next().unwrap();
    let other = format!("{:08x}", !u32::from_str_radix(store, 16).unwrap());
    for id in [
        format!("{}-1-{store}", newest + 1),
        format!("{revision}-1-{store}"),
        format!("{}-1-{store}", last + 1_000),
        format!("{last}-1-{other}"),
    ] {
        // A gap is told whatever kinds are asked for.
        let asked = format!("?event_type={}", CREATED.join("&event_type="));
        let mut stream = Stream::open(&world, 0, &asked, &[("last-event-id", &id)]).await;
        let gap = stream.next().await.unwrap();
        assert_eq!((gap.kind.as_str(), gap.data["lastEventId"].as_str()), ("event_stream_gap", Some(id.as_str())), "{gap:?}");
        // It goes on from now, and can be taken up from there.
        world.push(Method::POST, "/v2/pods", &pod(&format!("/d{id}"), 1)).await;
        assert_eq!(kinds(&stream.take(3).await), CREATED);
        let mut resumed = Stream::open(&world, 0, "?event_type=pod_created_event", &[("last-event-id", &gap.id.unwrap())]).await;
        assert_eq!(resumed.next().await.unwrap().data["uri"], format!("/v2/pods/d{id}"));
    }
    for bad in ["7", "x", "-1-1", "1-1", "1-1-1"] {
        let got = world.send(Method::GET, "/v2/events", &[("last-event-id", bad)], "").await;
        assert_eq!(got.status, 400, "{bad}");
    }
    assert_eq!(world.send(Method::GET, "/v2/events", &[("accept", "application/json")], "").await.status, 406);
    assert_eq!(world.send(Method::POST, "/v2/events", &[], "").await.status, 405);
    assert_eq!(world.send(Method::HEAD, "/v2/events", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_listener_hears_of_the_pods_that_it_may_read_and_no_longer_than_its_token_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let (all, team) = (NewToken::draw("all", Right::Write, "/").unwrap(), NewToken::draw("team", Right::Read, "/team").unwrap());
    std::fs::write(&path, format!("{}\n{}\n", all.line, team.line)).unwrap();
    let file = path.clone();
    let world = World::changed(1, limits(), move |config| {
        config.access = AccessConfig { tokens_file: Some(file.clone()), ..AccessConfig::default() };
    })
    .await;
    let (bearer, theirs) = (format!("Bearer {}", all.secret), format!("Bearer {}", team.secret));
    let mut stream = Stream::open(&world, 0, "", &[("authorization", &theirs)]).await;
    for id in ["/other", "/team/a"] {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        assert_eq!(world.send(Method::POST, "/v2/pods", &headers, &pod(id, 1)).await.status, 201);
    }
    let events = stream.take(3).await;
    assert_eq!(kinds(&events), CREATED);
    assert_eq!(events[0].data["uri"], "/v2/pods/team/a");
    std::fs::write(&path, &all.line).unwrap();
    assert_eq!(stream.next().await, None, "the stream ends with the token");
}

#[tokio::test]
async fn what_the_gateway_hears_of_mesos_is_told_where_it_is_known() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, 0, "?event_type=scheduler_reregistered_event&event_type=scheduler_disconnected_event", &[]).await;
    let state = |subscribed| GatewayState { leads: true, subscribed, master: Some("m:5050".to_owned()), ..GatewayState::default() };
    world.gateway.send_replace(state(true));
    let event = stream.next().await.unwrap();
    assert_eq!((event.kind.as_str(), event.data["master"].as_str(), event.id), ("scheduler_reregistered_event", Some("m:5050"), None));
    world.gateway.send_replace(state(false));
    assert_eq!(stream.next().await.unwrap().kind, "scheduler_disconnected_event");
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_cut_off_and_can_go_on_from_where_it_was() {
    let world = World::with(1, Limits { events_behind: 200, ..limits() }).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(world.servers[0].address()).await.unwrap();
    slow.write_all(b"GET /v2/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut start = [0; 400];
    let read = timeout(SOON, slow.read(&mut start)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&start[..read]).starts_with("HTTP/1.1 200"));
    // Far more than the kernel keeps for a connection and the server for a reader: two events for each pod.
    let store = world.store().await;
    const TRANSACTIONS: i64 = 150;
    for n in 1..=TRANSACTIONS {
        let mut group = Group::global();
        for pod in 0..60 {
            let id = PodId::new(&format!("/load/{}/{n}-{pod}", "x".repeat(60))).unwrap();
            group = group.then(Op::record(Key::Accepted(id), Accepted { version_ms: n, ..Accepted::default() }));
        }
        store.commit(group).await.committed().unwrap();
    }
    let mut text = Vec::new();
    // A connection that is reset is at its end, too.
    let _ = timeout(SOON, slow.read_to_end(&mut text)).await.expect("the server ends the stream");
    let text = String::from_utf8_lossy(&text);
    let told = text.matches("event: pod_created_event").count();
    assert!(told < usize::try_from(TRANSACTIONS).unwrap() * 60, "all {told} came through");
    let last = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("some were told");
    let mut resumed = Stream::open(&world, 0, "?event_type=pod_created_event", &[("last-event-id", last)]).await;
    let next = resumed.next().await.unwrap();
    let revision = |id: &str| id.split_once('-').unwrap().0.parse::<i64>().unwrap();
    assert!(revision(next.id.as_deref().unwrap()) - revision(last) <= 1, "{last} {next:?}");
}

#[tokio::test]
async fn a_shutdown_ends_streams_at_once() {
    let limits = Limits { drain: 3 * SOON, ..limits() };
    let mut world = World::with(1, limits).await;
    let mut stream = Stream::open(&world, 0, "", &[]).await;
    timeout(SOON, world.servers.remove(0).shutdown()).await.expect("nobody waits for the stream");
    while stream.next().await.is_some() {}
}

/// More revisions at once than wait for whoever tells of them: the server itself has missed some then.
#[tokio::test]
async fn nothing_is_lost_when_the_server_falls_behind_its_own_news() {
    const REVISIONS: usize = 1_500;
    let mut world = World::with(0, limits()).await;
    let link = world.link().await;
    let endpoint = link.endpoint();
    let limits = Limits { heartbeat: Duration::from_millis(1), ..limits() };
    world.add(limits, |config| config.index = Index::start(&Store::open(store_config(&endpoint)))).await;
    let mut stream = Stream::open(&world, 0, "?event_type=pod_created_event", &[]).await;
    // The place from which it goes on.
    while stream.last_id.is_none() {
        let block = stream.block().await.expect("the stream lives");
        stream.last_id = block.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
    }
    link.hold();
    let store = world.store().await;
    let create = |n: usize| {
        let id = PodId::new(&format!("/pod-{n}")).unwrap();
        Group::global().then(Op::record(Key::Accepted(id), Accepted { version_ms: 1, ..Accepted::default() }))
    };
    for n in 0..REVISIONS {
        store.commit(create(n)).await.committed().unwrap();
    }
    link.mend();
    let (mut told, mut cut_off) = (Vec::new(), 0);
    while told.len() < REVISIONS {
        match stream.next().await {
            Some(event) => told.push(event.data["uri"].as_str().unwrap().to_owned()),
            None => {
                cut_off += 1;
                let last = stream.last_id.take().expect("it knew where it was");
                stream = Stream::open(&world, 0, "?event_type=pod_created_event", &[("last-event-id", &last)]).await;
                stream.last_id = Some(last);
            }
        }
    }
    let expected: Vec<String> = (0..REVISIONS).map(|n| format!("/v2/pods/pod-{n}")).collect();
    assert_eq!(told, expected);
    assert!(cut_off > 0, "it was too quick to miss any");
}
