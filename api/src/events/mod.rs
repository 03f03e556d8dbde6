//! `/v2/events`: what happens, as it happens, as Server-Sent Events.
//!
//! Promises: an event's id is its place in the store's history, `<revision>-<number>-<store>`, the same on every replica; a stream that
//! is taken up with `Last-Event-ID` misses nothing and repeats nothing, or says that it can't; a reader that is too slow is cut off; nothing is
//! computed while nobody listens.
//!
//! ```text
//! index ─► turns ─► derive ─► hub, one a process ─► listener, one a stream ─► the client
//!                                 a past revision ─► replay ─► derive ──┘
//! ```

mod derive;
mod listener;
mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use podium_controllers::gateway::GatewayState;
use podium_store::Store;
use podium_store::index::{Index, Told, Turns};
use podium_types::id::PodId;
use serde_json::json;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Caller};
use crate::answer::{Answer, Problem, with_type};
use crate::content::Content;
use crate::request::Head;
use derive::Event;
use listener::Listener;
use place::{Id, Named, Place};

const STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx and others that know it pass each event on at once.
const NO_BUFFERING: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Streams at a time. Each costs little, but holds one of the server's connections for as long as its client likes.
const STREAMS: usize = 256;

/// Keys whose past all streams together look up for what their clients missed: some hundred megabytes at the worst. Who finds no
/// room is told of a gap.
const REPLAYED_KEYS: usize = 100_000;

/// Pieces on their way to the client's connection.
const PIECES: usize = 16;

/// An event as all listeners get it.
#[derive(Debug)]
struct Happening {
    /// Where it stands in the history; `None`: this process tells it, and it can't be had again.
    place: Option<Place>,
    kind: &'static str,
    audience: Audience,
    /// As it goes over the wire.
    text: Bytes,
}

/// Who may hear of something.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Audience {
    Everyone,
    /// Who may read everything.
    Whole,
    Readers(PodId),
}

impl Audience {
    fn includes(&self, caller: &Caller) -> bool {
        match self {
            Self::Everyone => true,
            Self::Whole => caller.may_read_all(),
            Self::Readers(pod) => caller.may_read(pod),
        }
    }
}

/// What goes from the hub to the listeners.
#[derive(Debug, Clone)]
enum News {
    Happened(Arc<Happening>),
    /// Some events can't be told: who wants them has to ask for them by the last id.
    Missing,
}

impl Happening {
    fn new(event: &Event, id: Option<Id>, audience: Audience) -> Self {
        let place = id.map(|id| id.place);
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        // JSON has no line breaks but in strings, where they are escaped.
        let text = format!("event: {}\n{id}data: {}\n\n", event.kind, event.json());
        Self { place, kind: event.kind, audience, text: text.into() }
    }

    /// The events of a revision, with their ids.
    fn of_turn(turn: &podium_store::index::Turn, named: &Named, now: i64) -> impl Iterator<Item = Self> {
        let revision = turn.revision;
        derive::of_turn(turn, now).into_iter().zip(1_u32..).map(move |(event, number)| {
            let audience = event.pod.clone().map_or(Audience::Everyone, Audience::Readers);
            Self::new(&event, Some(named.id(Place { revision, number })), audience)
        })
    }
}

/// The events of a process.
#[derive(Clone)]
pub(crate) struct Events {
    shared: Arc<Shared>,
}

struct Shared {
    index: Index,
    store: Store,
    access: Arc<Access>,
    gateway: watch::Receiver<GatewayState>,
    news: broadcast::Sender<News>,
    /// Whether the hub runs.
    running: Mutex<bool>,
    /// Nothing of a later revision has been sent.
    telling: AtomicI64,
    /// Everything up to this revision has been sent.
    sent: AtomicI64,
    slots: Arc<Semaphore>,
    /// What the streams that are caught up may keep together, in keys.
    room: Arc<Semaphore>,
    stop: CancellationToken,
    /// How long a stream waits for the revision that it is taken up at.
    catch_up: Duration,
    heartbeat: Duration,
    /// A framework younger than this is new to Mesos.
    since: i64,
}

impl Events {
    /// Nothing happens until somebody listens. Streams end with `stop`.
    pub(crate) fn new(
        index: Index,
        store: Store,
        access: Arc<Access>,
        gateway: watch::Receiver<GatewayState>,
        limits: &crate::Limits,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared {
            index,
            store,
            access,
            gateway,
            news: broadcast::Sender::new(limits.events_behind.max(1)),
            running: Mutex::new(false),
            telling: AtomicI64::new(0),
            sent: AtomicI64::new(0),
            slots: Arc::new(Semaphore::new(STREAMS)),
            room: Arc::new(Semaphore::new(REPLAYED_KEYS)),
            stop,
            catch_up: limits.catch_up,
            heartbeat: limits.heartbeat,
            since: now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// GET: a stream that ends with the server or its reader.
    pub(crate) fn open(&self, head: &Head) -> Result<Answer, Problem> {
        if !head.accepts("text", "event-stream") {
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "events are told as a stream: accept text/event-stream"));
        }
        let after = match head.headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
            None => None,
            Some(id) => Some(id.to_str().ok().and_then(|id| id.trim().parse::<Id>().ok()).ok_or_else(|| {
                Problem::new(StatusCode::BAD_REQUEST, "Last-Event-ID must be the id of an event: `<revision>-<number>-<store>`")
            })?),
        };
        let mut answer = with_type(StatusCode::OK, Bytes::new(), STREAM);
        answer.headers_mut().insert(NO_BUFFERING.0, NO_BUFFERING.1);
        if head.method == Method::HEAD {
            return Ok(answer);
        }
        let slot = Arc::clone(&self.shared.slots).try_acquire_owned().map_err(|_| {
            let message = format!("{STREAMS} streams of events are open already; ask another replica, or again later");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let credentials: HeaderMap =
            head.headers.get(http::header::AUTHORIZATION).map(|value| (http::header::AUTHORIZATION, value.clone())).into_iter().collect();
        let listener = Listener {
            events: self.clone(),
            caller: head.caller.clone(),
            credentials,
            kinds: head.values("event_type").into_iter().collect(),
            peer: head.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            out: sender,
        };
        tokio::spawn(async move {
            listener.run(after).await;
            drop(slot);
        });
        *answer.body_mut() = Content::Pieces(pieces);
        Ok(answer)
    }

    /// Hears of all that happens from now on; starts the hub if it does not run.
    fn listen(&self) -> broadcast::Receiver<News> {
        let receiver = self.shared.news.subscribe();
        let mut running = self.shared.running.lock();
        if !*running {
            *running = true;
            let turns = self.shared.index.turns();
            self.shared.telling.store(turns.from.revision, Ordering::Release);
            self.shared.sent.store(turns.from.revision, Ordering::Release);
            tokio::spawn(hub(self.clone(), turns));
        }
        receiver
    }

    /// The names of the store, as it is now.
    fn named(&self) -> Named {
        self.shared.index.read(Named::of)
    }

    /// Everything up to this revision has been sent to whoever listens.
    fn sent(&self) -> i64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// The last revision of which something may have been sent before now: who listens already hears all of later ones.
    fn telling(&self) -> i64 {
        self.shared.telling.load(Ordering::Acquire)
    }

    fn tell(&self, happening: Happening) {
        // Nobody may listen any more.
        let _ = self.shared.news.send(News::Happened(Arc::new(happening)));
    }

    /// What only this process knows of: no other replica can repeat it.
    fn tell_local(&self, kind: &'static str, audience: Audience, fields: serde_json::Value) {
        self.tell(Happening::new(&Event::new(kind, None, now(), fields), None, audience));
    }

    /// Whether the hub may end: nobody listens, and who comes starts another.
    fn nobody_listens(&self) -> bool {
        let mut running = self.shared.running.lock();
        *running = self.shared.news.receiver_count() > 0;
        !*running
    }
}

/// Tells everybody, until nobody listens.
async fn hub(events: Events, mut turns: Turns) {
    let shared = &events.shared;
    let mut gateway = shared.gateway.clone();
    let mut subscribed = gateway.borrow_and_update().subscribed;
    let mut told = false;
    loop {
        if events.nobody_listens() {
            return;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            turn = turns.next() => match turn {
                Some(Told::Turn(turn)) => {
                    shared.telling.store(turn.revision, Ordering::Release);
                    for happening in Happening::of_turn(&turn, &events.named(), now()) {
                        events.tell(happening);
                    }
                    shared.sent.store(turn.revision, Ordering::Release);
                    // Readers get their turn before the next revision, however fast these come.
                    tokio::task::yield_now().await;
                }
                Some(Told::Missing) => {
                    // What waits behind it is passed over as well: nothing up to where it goes on counts as told before that is so.
                    turns = shared.index.turns();
                    shared.telling.store(turns.from.revision, Ordering::Release);
                    shared.sent.store(turns.from.revision, Ordering::Release);
                    let _ = shared.news.send(News::Missing);
                }
                None => return,
            },
            Ok(()) = gateway.changed() => {
                let state = gateway.borrow_and_update().clone();
                if state.subscribed != subscribed {
                    subscribed = state.subscribed;
                    let first = !told && shared.index.read(|index| index.framework().is_some_and(|held| held.value.created_ms >= shared.since));
                    told |= subscribed;
                    registration(&events, &state, first);
                }
            }
        }
    }
}

fn registration(events: &Events, state: &GatewayState, first: bool) {
    let master = &state.master;
    match (state.subscribed, first) {
        (false, _) => events.tell_local("scheduler_disconnected_event", Audience::Everyone, json!({})),
        (true, true) => {
            let fields = json!({ "frameworkId": state.framework_id, "master": master });
            events.tell_local("scheduler_registered_event", Audience::Whole, fields);
        }
        (true, false) => events.tell_local("scheduler_reregistered_event", Audience::Whole, json!({ "master": master })),
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
