//! What a master may do wrong, on a real connection: the client reconnects, and no update is lost.
//!
//! The server below keeps updates as agents do: it sends them again under each subscription until they are acknowledged.
//! Between them it does whatever the case says.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// What goes wrong in one subscription, before the update of this number.
#[derive(Debug, Clone)]
struct Fault {
    before: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A record whose length is right and whose content is no event.
    NoEvent(Vec<u8>),
    /// An event of a kind that does not exist yet. Skipped.
    Unheard(i32),
    /// An event that lacks what it must hold.
    Half(event::Type),
    /// An update whose state and reason do not exist yet. Delivered.
    UnknownState(i32),
    /// Bytes where a length should stand.
    NoLength(Vec<u8>),
    /// A length that no record can have.
    Huge,
    /// A record that is cut off.
    Truncated(usize),
    /// A chunk whose HTTP framing is broken.
    NoChunk,
    /// The stream ends.
    Closed,
    /// The stream ends before SUBSCRIBED.
    Early,
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let kind = prop_oneof![
        // A tag of wire type 7, which does not exist, makes it no event for certain.
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|mut bytes| {
            bytes.insert(0, 0x0f);
            Kind::NoEvent(bytes)
        }),
        (12..i32::MAX).prop_map(Kind::Unheard),
        prop_oneof![
            Just(event::Type::Update),
            Just(event::Type::Offers),
            Just(event::Type::Rescind),
            Just(event::Type::Failure),
            Just(event::Type::Subscribed)
        ]
        .prop_map(Kind::Half),
        (14..i32::MAX).prop_map(Kind::UnknownState),
        proptest::collection::vec(any::<u8>().prop_filter("no digit", |byte| !byte.is_ascii_digit()), 1..20).prop_map(Kind::NoLength),
        Just(Kind::Huge),
        (1usize..60).prop_map(Kind::Truncated),
        Just(Kind::NoChunk),
        Just(Kind::Closed),
        Just(Kind::Early),
    ];
    proptest::collection::vec((0usize..UPDATES, kind).prop_map(|(before, kind)| Fault { before, kind }), 0..4)
}

/// Updates of one case.
const UPDATES: usize = 6;

struct Agent {
    /// Numbers of updates that are not acknowledged.
    pending: BTreeSet<usize>,
    faults: Vec<Fault>,
}

async fn serve(faults: Vec<Fault>, split: usize) -> (String, Arc<Mutex<Agent>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let agent = Arc::new(Mutex::new(Agent { pending: (0..UPDATES).collect(), faults }));
    let shared = Arc::clone(&agent);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(connection(socket, Arc::clone(&shared), split));
        }
    });
    (address, agent)
}

async fn connection(mut socket: TcpStream, agent: Arc<Mutex<Agent>>, split: usize) -> Option<()> {
    loop {
        let call = request(&mut socket).await?;
        if call.subscribe.is_some() {
            return stream(socket, agent, split).await;
        }
        if let Some(acknowledge) = call.acknowledge {
            agent.lock().pending.remove(&usize::from(acknowledge.uuid[0]));
        }
        socket.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
}

async fn request(socket: &mut TcpStream) -> Option<Call> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some(Call::decode(body.as_slice()).expect("the client sends calls"))
}

async fn stream(mut socket: TcpStream, agent: Arc<Mutex<Agent>>, split: usize) -> Option<()> {
    let (pending, fault) = {
        let mut agent = agent.lock();
        (agent.pending.clone(), agent.faults.pop())
    };
    socket.write_all(b"HTTP/1.1 200 OK\r\nMesos-Stream-Id: s\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
    if matches!(fault, Some(Fault { kind: Kind::Early, .. })) {
        return None;
    }
    send(&mut socket, &recordio::encode(&subscribed().encode_to_vec()), split).await?;
    for number in pending {
        if let Some(fault) = fault.as_ref().filter(|fault| fault.before == number) {
            go_wrong(&mut socket, &fault.kind, split).await?;
        }
        send(&mut socket, &recordio::encode(&update(number, v1::TaskState::TaskRunning.into()).encode_to_vec()), split).await?;
    }
    // Held open until the client goes.
    let _ = socket.read_u8().await;
    None
}

/// Some of it goes on, some ends the stream: `None`.
async fn go_wrong(socket: &mut TcpStream, kind: &Kind, split: usize) -> Option<()> {
    let record = match kind {
        Kind::NoEvent(bytes) => recordio::encode(bytes),
        Kind::Unheard(kind) => recordio::encode(&scheduler::Event { r#type: Some(*kind), ..Default::default() }.encode_to_vec()),
        Kind::Half(kind) => recordio::encode(&scheduler::Event { r#type: Some((*kind).into()), ..Default::default() }.encode_to_vec()),
        Kind::UnknownState(state) => recordio::encode(&update(200, *state).encode_to_vec()),
        Kind::NoLength(bytes) => return send(socket, bytes, split).await,
        Kind::Huge => return send(socket, b"99999999999\n", split).await,
        Kind::Truncated(length) => {
            send(socket, format!("{}\n", length + 1).as_bytes(), split).await?;
            send(socket, &vec![b'x'; *length], split).await?;
            return None;
        }
        Kind::NoChunk => {
            socket.write_all(b"this is no length of a chunk\r\n").await.ok()?;
            return None;
        }
        Kind::Closed | Kind::Early => return None,
    };
    send(socket, &record, split).await
}

async fn send(socket: &mut TcpStream, bytes: &[u8], split: usize) -> Option<()> {
    for piece in bytes.chunks(split) {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        socket.write_all(&chunk).await.ok()?;
    }
    Some(())
}

fn subscribed() -> scheduler::Event {
    let framework_id = v1::FrameworkId { value: "F".into() };
    let subscribed = event::Subscribed { framework_id, heartbeat_interval_seconds: Some(15.0), master_info: None };
    scheduler::Event { r#type: Some(event::Type::Subscribed.into()), subscribed: Some(subscribed), ..Default::default() }
}

fn update(number: usize, state: i32) -> scheduler::Event {
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: format!("t{number}") },
        agent_id: Some(v1::AgentId { value: "S1".into() }),
        state,
        reason: (state > 13).then_some(999),
        uuid: Some(vec![u8::try_from(number).unwrap(); 16].into()),
        ..Default::default()
    };
    scheduler::Event { r#type: Some(event::Type::Update.into()), update: Some(event::Update { status }), ..Default::default() }
}

/// Acknowledges what comes until the server has nothing left to send.
async fn survive(faults: Vec<Fault>, split: usize) {
    let (address, agent) = serve(faults, split).await;
    let (_roles, roles) = watch::channel(vec!["*".to_owned()]);
    let cancel = CancellationToken::new();
    let config = MesosConfig {
        longest_backoff: Duration::from_millis(1),
        ..MesosConfig::new(Masters::List(vec![address]), framework_info("podium", "nobody", "F"), roles)
    };
    let mut events = connect(config, cancel.clone()).unwrap();
    let _cancel = cancel.drop_guard();
    let mut calls = None;
    let mut heard = BTreeSet::new();
    while !agent.lock().pending.is_empty() || !agent.lock().faults.is_empty() {
        let event = match timeout(Duration::from_millis(20), events.recv()).await {
            Ok(event) => event.expect("the client lives"),
            // The last acknowledgement may be under way; what was sent before a fault may wait for its turn.
            Err(_) if agent.lock().pending.is_empty() => break,
            Err(_) => continue,
        };
        match event {
            Event::Subscribed { calls: fresh, .. } => {
                assert!(calls.is_none(), "a subscription ends before the next begins");
                calls = Some(fresh);
            }
            Event::Disconnected { .. } => assert!(calls.take().is_some(), "what ends has begun"),
            Event::Update(status) => {
                let calls = calls.as_ref().expect("updates come under a subscription");
                heard.insert(status.task_id.value.clone());
                let _ = calls.acknowledge("S1", &status.task_id.value, status.uuid.unwrap()).await;
            }
            Event::Unavailable { .. } => {}
            other => panic!("nobody sent {other:?}"),
        }
    }
    heard.remove("t200");
    assert_eq!(heard.len(), UPDATES, "{heard:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_master_sends_no_update_is_lost_and_nothing_panics(faults in faults(), split in prop_oneof![1usize..9, Just(4096)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(60), survive(faults, split)).await.expect("all updates in time") });
    }
}

/// Sends a record in a fresh subscription, which ends it.
async fn ends(record: Vec<u8>) -> String {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("1").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
    // Of a kind that is yet to be invented.
    stream.send(scheduler::Event { r#type: Some(99), ..Default::default() });
    stream.send(update(0, v1::TaskState::TaskRunning.into()));
    assert!(matches!(owner.next().await, Event::Update(status) if status.task_id.value == "t0"));
    stream.0.send(recordio::encode(&record)).unwrap();
    stream.send(update(1, v1::TaskState::TaskRunning.into()));
    let reason = owner.disconnected().await;
    let (_, stream) = master.subscribe("2").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
    reason
}

#[tokio::test]
async fn an_unheard_kind_is_skipped_and_a_record_that_is_no_event_or_half_of_one_ends_the_subscription() {
    assert!(ends(vec![0xff; 4]).await.contains("not an event"));
    let half = |kind: event::Type| scheduler::Event { r#type: Some(kind.into()), ..Default::default() };
    for kind in [event::Type::Update, event::Type::Offers, event::Type::Rescind, event::Type::InverseOffers, event::Type::Failure] {
        assert!(ends(half(kind).encode_to_vec()).await.contains(kind.as_str_name()));
    }
    let offer = |id: &str, agent: &str| v1::Offer {
        id: v1::OfferId { value: id.into() },
        agent_id: v1::AgentId { value: agent.into() },
        ..Default::default()
    };
    // Nobody could answer one of these: they are void with the subscription.
    for offers in [vec![offer("O1", "S1"), offer("", "S1")], vec![offer("O1", "")]] {
        let offers = scheduler::Event { offers: Some(event::Offers { offers }), ..half(event::Type::Offers) };
        assert!(ends(offers.encode_to_vec()).await.contains("OFFERS"));
    }
}

#[tokio::test]
async fn a_master_that_answers_subscribe_with_no_events_is_no_master() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("1").await;
    stream.0.send(recordio::encode(br#"{"type":"SUBSCRIBED"}"#)).unwrap();
    assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.contains("not an event")));
}

#[tokio::test]
async fn a_stream_that_drips_and_never_ends_a_record_is_given_up() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("1").await;
    stream.subscribed(0.05);
    owner.subscribed().await;
    stream.0.send(Bytes::from_static(b"1000\n")).unwrap();
    let drip = tokio::spawn(async move {
        // Each byte is a sign of life, and all of them together are none of a record.
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                () = stream.0.closed() => return,
                _ = pace.tick() => stream.0.send(Bytes::from_static(b"x")).unwrap_or_default(),
            }
        }
    });
    assert!(owner.disconnected().await.contains("no whole record within 0.25 seconds"));
    drip.await.unwrap();
}

#[tokio::test]
async fn large_events_arrive_whole() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("1").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
    let mut event = update(1, v1::TaskState::TaskFailed.into());
    event.update.as_mut().unwrap().status.message = Some("x".repeat(8 << 20));
    stream.0.send(recordio::encode(&event.encode_to_vec())).unwrap();
    assert!(matches!(owner.next().await, Event::Update(status) if status.message.as_ref().is_some_and(|text| text.len() == 8 << 20)));
}
