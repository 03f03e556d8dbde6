use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use podium_proto::mesos::v1;
use podium_proto::mesos::v1::scheduler::{self, Call, call, event};
use podium_proto::wire::recordio;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;

mod garbage;
mod zookeeper;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// One request to the master, to be answered by the test.
struct Asked {
    call: Call,
    headers: HeaderMap,
    answer: oneshot::Sender<Answer>,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A master whose every answer the test gives.
struct Master {
    address: String,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Master {
    async fn start() -> Self {
        Self::start_behind(None).await
    }

    async fn start_behind(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let socket: Box<dyn Socket> = match &tls {
                    None => Box::new(socket),
                    Some(acceptor) => match acceptor.accept(socket).await {
                        Ok(socket) => Box::new(socket),
                        Err(_) => continue,
                    },
                };
                let sender = sender.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", PATH));
                        let call = Call::decode(body.collect().await.unwrap().to_bytes()).unwrap();
                        let (answer, answered) = oneshot::channel();
                        let _ = sender.send(Asked { call, headers: head.headers, answer });
                        Ok::<_, Infallible>(answered.await.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "")))
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(socket), service));
            }
        });
        Master { address, asked }
    }

    async fn next(&mut self) -> Asked {
        timeout(Duration::from_secs(10), self.asked.recv()).await.expect("a call in time").unwrap()
    }

    /// Answers a SUBSCRIBE with a stream under this id.
    async fn subscribe(&mut self, stream_id: &str) -> (Call, EventStream) {
        let asked = self.next().await;
        assert_eq!(asked.call.r#type(), call::Type::Subscribe);
        assert!(!asked.headers.contains_key("Mesos-Stream-Id"));
        let (sender, mut receiver) = mpsc::unbounded_channel::<Bytes>();
        let body = StreamBody::new(futures_util::stream::poll_fn(move |context| {
            receiver.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))))
        }));
        let answer = Response::builder().header("Mesos-Stream-Id", stream_id).body(body.boxed()).unwrap();
        let _ = asked.answer.send(answer);
        (asked.call, EventStream(sender))
    }

    /// Accepts a call other than SUBSCRIBE.
    async fn accept(&mut self) -> (Call, HeaderMap) {
        let asked = self.next().await;
        let _ = asked.answer.send(plain(StatusCode::ACCEPTED, ""));
        (asked.call, asked.headers)
    }
}

struct EventStream(mpsc::UnboundedSender<Bytes>);

impl EventStream {
    fn send(&self, event: scheduler::Event) {
        // In small pieces: records know nothing of chunks.
        for piece in recordio::encode(&event.encode_to_vec()).chunks(7) {
            self.0.send(Bytes::copy_from_slice(piece)).unwrap();
        }
    }

    fn subscribed(&self, heartbeat: f64) {
        let framework_id = v1::FrameworkId { value: "F".into() };
        let subscribed = event::Subscribed { framework_id, heartbeat_interval_seconds: Some(heartbeat), master_info: None };
        self.send(scheduler::Event { r#type: Some(event::Type::Subscribed.into()), subscribed: Some(subscribed), ..Default::default() });
    }

    fn error(&self, message: &str) {
        let error = Some(event::Error { message: message.into() });
        self.send(scheduler::Event { r#type: Some(event::Type::Error.into()), error, ..Default::default() });
    }

    fn rescind(&self, offer: &str) {
        let rescind = Some(event::Rescind { offer_id: v1::OfferId { value: offer.into() } });
        self.send(scheduler::Event { r#type: Some(event::Type::Rescind.into()), rescind, ..Default::default() });
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    Response::builder().status(status).body(Full::new(Bytes::from_static(text.as_bytes())).boxed()).unwrap()
}

struct Owner {
    events: mpsc::Receiver<Event>,
    roles: watch::Sender<Vec<String>>,
    idle: watch::Sender<Vec<String>>,
    _cancel: tokio_util::sync::DropGuard,
}

fn owner(masters: Vec<String>) -> Owner {
    owner_with(Masters::List(masters))
}

fn owner_with(masters: Masters) -> Owner {
    owner_who_trusts(None, masters)
}

fn owner_who_trusts(trust: Option<Trust>, masters: Masters) -> Owner {
    let (roles, watched) = watch::channel(vec!["*".to_owned()]);
    let (idle, watched_idle) = watch::channel(Vec::new());
    let cancel = CancellationToken::new();
    let config = MesosConfig {
        idle: watched_idle,
        longest_backoff: Duration::from_millis(20),
        trust,
        credentials: Some(Credentials { principal: "podium".into(), secret: "s3cret".into() }),
        ..MesosConfig::new(masters, framework_info("podium", "nobody", "F"), watched)
    };
    Owner { events: connect(config, cancel.clone()).unwrap(), roles, idle, _cancel: cancel.drop_guard() }
}

impl Owner {
    async fn next(&mut self) -> Event {
        timeout(Duration::from_secs(10), self.events.recv()).await.expect("an event in time").expect("the client lives")
    }

    async fn subscribed(&mut self) -> Calls {
        loop {
            match self.next().await {
                Event::Subscribed { calls, framework_id, .. } => {
                    assert_eq!(framework_id, "F");
                    return calls;
                }
                Event::Unavailable { .. } | Event::Disconnected { .. } => {}
                other => panic!("{other:?} instead of Subscribed"),
            }
        }
    }

    async fn disconnected(&mut self) -> String {
        match self.next().await {
            Event::Disconnected { reason } => reason,
            other => panic!("{other:?} instead of Disconnected"),
        }
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_calls_carry_the_stream_id() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (subscribe, stream) = master.subscribe("stream-1").await;
    assert_eq!(subscribe.framework_id, subscribe.subscribe.as_ref().unwrap().framework_info.id);
    assert_eq!(subscribe.subscribe.unwrap().framework_info.roles, ["*"]);
    stream.subscribed(15.0);
    stream.send(scheduler::Event { r#type: Some(event::Type::Heartbeat.into()), ..Default::default() });
    stream.send(scheduler::Event { r#type: Some(99), ..Default::default() });
    stream.rescind("O1");
    stream.rescind("O2");
    let calls = owner.subscribed().await;
    assert!(matches!(owner.next().await, Event::Rescind(offer) if offer.value == "O1"));
    assert!(matches!(owner.next().await, Event::Rescind(offer) if offer.value == "O2"));

    calls.kill("t1", Some("S1")).await.unwrap();
    calls.kill("t2", None).await.unwrap();
    for task in ["t1", "t2"] {
        let (call, headers) = master.accept().await;
        assert_eq!(call.kill.unwrap().task_id.value, task);
        assert_eq!(call.framework_id.unwrap().value, "F");
        assert_eq!(headers["Mesos-Stream-Id"], "stream-1");
        assert_eq!(headers["Content-Type"], "application/x-protobuf");
        assert!(headers.contains_key("Authorization"));
    }
}

#[tokio::test]
async fn each_subscription_suppresses_the_roles_that_are_idle_then_and_no_others() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (first, stream) = master.subscribe("1").await;
    assert_eq!(first.subscribe.unwrap().suppressed_roles, Vec::<String>::new());
    stream.subscribed(15.0);
    assert!(matches!(owner.next().await, Event::Subscribed { suppressed, .. } if suppressed.is_empty()));
    // News of what is idle alone is no reason to subscribe anew; a role that is not ours would be refused.
    owner.idle.send_replace(vec!["*".to_owned(), "gone".to_owned()]);
    stream.rescind("O1");
    assert!(matches!(owner.next().await, Event::Rescind(_)));
    drop(stream);
    owner.disconnected().await;
    let (again, stream) = master.subscribe("2").await;
    assert_eq!(again.subscribe.unwrap().suppressed_roles, ["*"]);
    stream.subscribed(15.0);
    assert!(matches!(owner.next().await, Event::Subscribed { suppressed, .. } if suppressed == ["*"]));
}

#[tokio::test]
async fn a_redirect_without_a_scheme_is_followed_with_body_and_credentials() {
    let (mut follower, mut leader) = (Master::start().await, Master::start().await);
    let mut owner = owner(vec![follower.address.clone()]);
    let location = format!("//{}{PATH}", leader.address);
    let redirect = Response::builder().status(307).header("Location", location).body(Full::new(Bytes::new()).boxed()).unwrap();
    let _ = follower.next().await.answer.send(redirect);
    let (call, stream) = leader.subscribe("s").await;
    assert!(call.subscribe.is_some());
    stream.subscribed(15.0);
    let calls = owner.subscribed().await;
    calls.suppress(Vec::new()).await.unwrap();
    assert_eq!(leader.accept().await.0.r#type(), call::Type::Suppress);
}

#[tokio::test]
async fn a_master_without_a_leader_or_out_of_reach_leads_to_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (mut electing, mut leader) = (Master::start().await, Master::start().await);
    let mut owner = owner(vec![absent, electing.address.clone(), leader.address.clone()]);
    let _ = electing.next().await.answer.send(plain(StatusCode::SERVICE_UNAVAILABLE, "No leader elected"));
    let (_, stream) = leader.subscribe("s").await;
    stream.subscribed(15.0);
    assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.contains("cannot connect")));
    assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.contains("No leader elected")));
    owner.subscribed().await;
}

#[tokio::test]
async fn a_refused_call_ends_the_subscription_and_the_next_uses_the_new_stream_id() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN] {
        let mut master = Master::start().await;
        let mut owner = owner(vec![master.address.clone()]);
        let (_, stream) = master.subscribe("old").await;
        stream.subscribed(15.0);
        let calls = owner.subscribed().await;
        calls.revive(Vec::new()).await.unwrap();
        let _ = master.next().await.answer.send(plain(status, "Framework is not subscribed"));
        assert!(owner.disconnected().await.contains("not subscribed"));

        let (again, stream) = master.subscribe("new").await;
        assert_eq!(again.framework_id.unwrap().value, "F");
        stream.subscribed(15.0);
        let fresh = owner.subscribed().await;
        assert_eq!(calls.revive(Vec::new()).await, Err(SubscriptionOver));
        fresh.revive(Vec::new()).await.unwrap();
        assert_eq!(master.accept().await.1["Mesos-Stream-Id"], "new");
    }
}

#[tokio::test]
async fn a_silent_master_is_given_up_after_five_heartbeats() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, silent) = master.subscribe("s").await;
    silent.subscribed(0.02);
    owner.subscribed().await;
    assert!(owner.disconnected().await.contains("nothing more within 0.1 seconds"));
    let (_, stream) = master.subscribe("s2").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
}

#[tokio::test]
async fn a_stream_that_ends_or_is_not_recordio_is_replaced() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("1").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
    drop(stream);
    assert!(owner.disconnected().await.contains("closed"));
    let (_, stream) = master.subscribe("2").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
    stream.0.send(Bytes::from_static(b"<html>")).unwrap();
    assert!(owner.disconnected().await.contains("RecordIO"));
    let (_, stream) = master.subscribe("3").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
}

/// A master that shows a certificate for 127.0.0.1, and who trusts just that one.
async fn protected() -> (Master, Trust) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), cert.pem()).unwrap();
    let trust = Trust::of_file(authority.path()).unwrap();
    (Master::start_behind(Some(TlsAcceptor::from(std::sync::Arc::new(config)))).await, trust)
}

#[tokio::test]
async fn masters_behind_tls_are_spoken_to_with_credentials_and_only_if_they_are_vouched_for() {
    let ((mut master, trust), (stranger, _)) = (protected().await, protected().await);
    // Neither address has a scheme: who names authorities wants https.
    let masters = Masters::List(vec![stranger.address.clone(), master.address.clone()]);
    let mut owner = owner_who_trusts(Some(trust), masters);
    let asked = master.next().await;
    assert!(asked.headers.contains_key("Authorization"));
    // Found again on the next round.
    drop(asked);
    let (_, stream) = master.subscribe("s").await;
    stream.subscribed(15.0);
    assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.contains("invalid peer certificate")));
    owner.subscribed().await.revive(Vec::new()).await.unwrap();
    assert!(master.accept().await.1.contains_key("Authorization"));
}

#[tokio::test]
async fn attempts_come_ever_more_slowly() {
    let mut master = Master::start().await;
    let (_roles, roles) = watch::channel(vec!["*".to_owned()]);
    let cancel = CancellationToken::new();
    let masters = Masters::List(vec![master.address.clone()]);
    let _events = connect(MesosConfig::new(masters, framework_info("podium", "nobody", "F"), roles), cancel.clone()).unwrap();
    let _cancel = cancel.drop_guard();
    let mut last = None;
    for pause in [0, 100, 200, 400] {
        let asked = master.next().await;
        let now = tokio::time::Instant::now();
        if let Some(last) = last.replace(now) {
            // Chance shortens a pause by a third at most; a busy machine only makes it longer.
            assert!(now - last >= Duration::from_millis(pause * 2 / 3), "{:?} after a pause of {pause}", now - last);
        }
        let _ = asked.answer.send(plain(StatusCode::SERVICE_UNAVAILABLE, "No leader elected"));
    }
}

#[tokio::test]
async fn a_framework_that_failed_over_or_was_removed_stops_for_good() {
    for (message, expected) in [
        ("Framework failed over", Stop::FailedOver),
        ("Framework has been removed", Stop::Removed { message: "Framework has been removed".into() }),
    ] {
        let mut master = Master::start().await;
        let mut owner = owner(vec![master.address.clone()]);
        let (_, stream) = master.subscribe("s").await;
        stream.subscribed(15.0);
        owner.subscribed().await;
        stream.error(message);
        owner.disconnected().await;
        assert!(matches!(owner.next().await, Event::Stopped(stop) if stop == expected));
        assert!(owner.events.recv().await.is_none());
    }
}

#[tokio::test]
async fn of_a_long_refusal_the_beginning_is_told() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("s").await;
    stream.error(&"é".repeat(100_000));
    assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.chars().count() < 2_100 && reason.ends_with('é')));
}

#[tokio::test]
async fn another_refusal_is_told_and_tried_again() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("s").await;
    stream.error("Changing framework's principal is not allowed.");
    assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.contains("principal")));
    let (_, stream) = master.subscribe("s").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
}

#[tokio::test]
async fn roles_change_within_the_subscription_and_a_refused_change_leaves_it_as_it_was() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (subscribed_as, stream) = master.subscribe("s").await;
    stream.subscribed(15.0);
    let calls = owner.subscribed().await;
    for (status, text) in [(StatusCode::BAD_REQUEST, "Role 'team' is not whitelisted"), (StatusCode::FORBIDDEN, "not authorized")] {
        let answer = calls.update_roles(vec!["*".into(), "team".into()], Vec::new()).await.unwrap();
        calls.revive(Vec::new()).await.unwrap();
        let _ = master.next().await.answer.send(plain(status, text));
        assert_eq!(answer.await.unwrap(), Err(text.to_owned()));
        assert_eq!(master.accept().await.0.r#type(), call::Type::Revive, "the subscription goes on");
    }
    let answer = calls.update_roles(vec!["*".into(), "web".into()], vec!["*".into()]).await.unwrap();
    let asked = master.next().await;
    let update = asked.call.update_framework.unwrap();
    let expected = v1::FrameworkInfo { roles: vec!["*".into(), "web".into()], ..subscribed_as.subscribe.unwrap().framework_info };
    assert_eq!((update.framework_info, update.suppressed_roles), (expected, vec!["*".to_owned()]));
    let _ = asked.answer.send(plain(StatusCode::OK, ""));
    assert_eq!(answer.await.unwrap(), Ok(()));
    // News of the roles alone is no reason to subscribe anew: the next subscription has them.
    owner.roles.send(vec!["*".into(), "web".into()]).unwrap();
    stream.rescind("O1");
    assert!(matches!(owner.next().await, Event::Rescind(_)));
    drop(stream);
    owner.disconnected().await;
    let (again, _stream) = master.subscribe("s2").await;
    assert_eq!(again.subscribe.unwrap().framework_info.roles, ["*", "web"]);
}

#[tokio::test]
async fn whom_the_master_refuses_with_roles_it_is_asked_to_take_without_and_then_with_them_again() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    for roles in [&["*"][..], &[], &["*"]] {
        let (call, stream) = master.subscribe("s").await;
        assert_eq!(call.subscribe.unwrap().framework_info.roles, roles);
        stream.error("Role '*' is not whitelisted");
        assert!(matches!(owner.next().await, Event::Unavailable { reason } if reason.contains("whitelisted")));
    }
    let (_, stream) = master.subscribe("s").await;
    stream.subscribed(15.0);
    assert!(matches!(owner.next().await, Event::Subscribed { roles, .. } if roles.is_empty()));
    drop(stream);
    owner.disconnected().await;
    assert_eq!(master.subscribe("s").await.0.subscribe.unwrap().framework_info.roles, ["*"]);
}

#[tokio::test]
async fn a_cancelled_client_says_so_and_closes_its_stream() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("s").await;
    stream.subscribed(15.0);
    owner.subscribed().await;
    drop(owner._cancel);
    let last = timeout(Duration::from_secs(10), owner.events.recv()).await.unwrap();
    assert!(matches!(last, Some(Event::Stopped(Stop::Cancelled))));
    timeout(Duration::from_secs(10), stream.0.closed()).await.expect("the stream is closed");
}

#[tokio::test]
async fn acknowledgements_wait_for_nobody_and_all_else_keeps_its_order() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("one").await;
    stream.subscribed(15.0);
    let calls = owner.subscribed().await;
    calls.revive(Vec::new()).await.unwrap();
    calls.suppress(Vec::new()).await.unwrap();
    for task in ["a", "b", "c"] {
        calls.acknowledge("S1", task, Bytes::from_static(&[7; 16])).await.unwrap();
    }
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(master.next().await);
    }
    // None of the four is answered yet.
    asked.sort_by_key(|asked| asked.call.r#type() as i32);
    let kinds: Vec<call::Type> = asked.iter().map(|asked| asked.call.r#type()).collect();
    assert_eq!(kinds, [call::Type::Revive, call::Type::Acknowledge, call::Type::Acknowledge, call::Type::Acknowledge]);
    assert!(master.asked.try_recv().is_err(), "SUPPRESS waits for the answer to REVIVE");
    for asked in asked {
        let _ = asked.answer.send(plain(StatusCode::ACCEPTED, ""));
    }
    assert_eq!(master.accept().await.0.r#type(), call::Type::Suppress);
}

#[tokio::test]
async fn inverse_offers_are_told_and_answered() {
    let mut master = Master::start().await;
    let mut owner = owner(vec![master.address.clone()]);
    let (_, stream) = master.subscribe("one").await;
    stream.subscribed(15.0);
    let calls = owner.subscribed().await;
    let offer = v1::InverseOffer {
        id: v1::OfferId { value: "I1".into() },
        framework_id: v1::FrameworkId { value: "F".into() },
        unavailability: v1::Unavailability { start: v1::TimeInfo { nanoseconds: 5 }, duration: None },
        ..Default::default()
    };
    let inverse_offers = Some(event::InverseOffers { inverse_offers: vec![offer.clone()] });
    stream.send(scheduler::Event { r#type: Some(event::Type::InverseOffers.into()), inverse_offers, ..Default::default() });
    let Event::InverseOffers(told) = owner.next().await else { panic!("another event") };
    assert_eq!(told.as_slice(), std::slice::from_ref(&offer));
    calls.answer_inverse(vec![offer.id.clone()], true, 60.0).await.unwrap();
    calls.answer_inverse(vec![offer.id.clone()], false, 60.0).await.unwrap();
    let accept = master.accept().await.0;
    assert_eq!(accept.accept_inverse_offers.unwrap().inverse_offer_ids.as_slice(), std::slice::from_ref(&offer.id));
    let decline = master.accept().await.0;
    assert_eq!(decline.decline_inverse_offers.unwrap().filters.unwrap().refuse_seconds, Some(60.0));
}
