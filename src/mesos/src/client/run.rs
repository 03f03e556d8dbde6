//! Keeps the framework subscribed: which master next, how long to wait, when to stop.

use std::time::Duration;

use podium_http::{Client, ClientConfig, Url};
use podium_proto::mesos::v1::scheduler::{self, event};
use podium_retry::Backoff;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::calls::{Calls, Target, deliver};
use super::candidates::{Candidates, Detector};
use super::session::{SessionError, Stream, subscribe};
use super::{ConfigError, Event, MesosConfig, Stop};

/// A subscription that lasted so long was a good one: the next attempt is made at once.
const STABLE: Duration = Duration::from_secs(10);

/// How a subscription ended.
enum End {
    /// Try again.
    Lost(String),
    /// The master refuses us as we want to subscribe.
    Refused(String),
    /// Never again.
    Stop(Stop),
    /// The owner has gone.
    Unwatched,
}

pub(super) fn client(config: &MesosConfig) -> Result<Client, ConfigError> {
    Ok(Client::new(ClientConfig {
        response_timeout: config.response_timeout,
        // Until SUBSCRIBED sets the master's own measure.
        idle_timeout: config.response_timeout,
        credentials: config.credentials.clone(),
        trust: config.trust.clone(),
        ..ClientConfig::default()
    })?)
}

/// Subscribes again and again.
pub(super) async fn run(
    config: MesosConfig,
    (candidates, detector): (Candidates, Detector),
    client: Client,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let work = async {
        tokio::select! {
            stop = keep_subscribed(config, candidates, client, &events) => stop,
            never = detector.run() => match never {},
        }
    };
    let stop = cancel.run_until_cancelled(work).await.unwrap_or(Some(Stop::Cancelled));
    if let Some(stop) = stop {
        info!(?stop, "no longer subscribed to Mesos");
        // A queue that is full of events nobody reads must not keep this task alive.
        let _ = events.send_timeout(Event::Stopped(stop), Duration::from_secs(5)).await;
    }
}

/// Characters of a reason that a master gives.
const LONGEST_REASON: usize = 2_000;

async fn keep_subscribed(
    mut config: MesosConfig,
    mut candidates: Candidates,
    client: Client,
    events: &mpsc::Sender<Event>,
) -> Option<Stop> {
    let mut backoff = Backoff::new(Duration::from_millis(100).min(config.longest_backoff), 2.0, config.longest_backoff);
    // The last attempt was refused: perhaps for one of the roles, which then is no reason against the others.
    let mut without_roles = false;
    loop {
        let url = match candidates.next() {
            Ok(url) => url,
            Err(reason) => {
                warn!(reason, "nobody is known to lead Mesos");
                events.send(Event::Unavailable { reason }).await.ok()?;
                candidates.news().await;
                continue;
            }
        };
        let started = Instant::now();
        config.framework.roles = if without_roles { Vec::new() } else { config.roles.borrow().clone() };
        without_roles = false;
        // One that is not among the roles would have the whole subscription refused.
        let suppressed = config.idle.borrow().iter().filter(|role| config.framework.roles.contains(role)).cloned().collect();
        match subscription(&config, suppressed, &client, &url, events, candidates.moved(&url)).await {
            End::Stop(stop) => return Some(stop),
            End::Unwatched => return None,
            End::Lost(reason) => warn!(master = %url, reason, "not subscribed to Mesos"),
            End::Refused(reason) => {
                warn!(master = %url, reason, roles = ?config.framework.roles, "not subscribed to Mesos");
                without_roles = !config.framework.roles.is_empty();
            }
        }
        if started.elapsed() >= STABLE {
            backoff.reset();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            // A new leader is no reason to wait.
            () = candidates.moved(&url) => backoff.reset(),
        }
    }
}

/// One attempt, and what comes of it; at the latest it ends when the leader has `moved`.
async fn subscription(
    config: &MesosConfig,
    suppressed: Vec<String>,
    client: &Client,
    url: &Url,
    events: &mpsc::Sender<Event>,
    moved: impl Future<Output = ()>,
) -> End {
    tokio::pin!(moved);
    let attempt = timeout(config.response_timeout, attempt(config, &suppressed, client, url));
    let attempt = tokio::select! {
        attempt = attempt => attempt,
        () = &mut moved => return unavailable(events, format!("another master leads than {url}")).await,
    };
    match attempt {
        Ok(Ok((stream, first))) => session(config, suppressed, stream, first, events, moved).await,
        Ok(Err(Attempt::Error(message))) => match refusal(message) {
            End::Lost(reason) => match unavailable(events, reason).await {
                End::Lost(reason) => End::Refused(reason),
                end => end,
            },
            end => end,
        },
        Ok(Err(Attempt::Failed(error))) => unavailable(events, error.to_string()).await,
        Err(_) => unavailable(events, format!("{url} did not answer SUBSCRIBE in time")).await,
    }
}

async fn unavailable(events: &mpsc::Sender<Event>, reason: String) -> End {
    match events.send(Event::Unavailable { reason: reason.clone() }).await {
        Ok(()) => End::Lost(reason),
        Err(_) => End::Unwatched,
    }
}

/// Why an attempt brought no subscription.
enum Attempt {
    /// The master refused by an ERROR event.
    Error(String),
    Failed(SessionError),
}

impl From<SessionError> for Attempt {
    fn from(error: SessionError) -> Self {
        Attempt::Failed(error)
    }
}

/// A subscription is one only when SUBSCRIBED has arrived: refusals come as 200 with an ERROR event.
async fn attempt(config: &MesosConfig, suppressed: &[String], client: &Client, url: &Url) -> Result<(Stream, event::Subscribed), Attempt> {
    let mut stream = subscribe(client, url, &config.framework, suppressed, config.response_timeout).await?;
    loop {
        let event = stream.next().await?;
        if let Some(error) = event.error {
            return Err(Attempt::Error(error.message));
        }
        if let Some(subscribed) = event.subscribed {
            return Ok((stream, subscribed));
        }
        debug!(kind = ?event.r#type, "event before SUBSCRIBED");
    }
}

/// What an ERROR event means for the future.
fn refusal(message: String) -> End {
    // It goes to the log and to `/readyz`, with every attempt.
    let message: String = message.chars().take(LONGEST_REASON).collect();
    let lower = message.to_lowercase();
    if lower.contains("failed over") {
        End::Stop(Stop::FailedOver)
    } else if lower.contains("has been removed") {
        End::Stop(Stop::Removed { message })
    } else {
        End::Lost(format!("the master refuses: {message}"))
    }
}

/// Reads events until the stream, a call or another leader end the subscription.
async fn session(
    config: &MesosConfig,
    suppressed: Vec<String>,
    mut stream: Stream,
    first: event::Subscribed,
    events: &mpsc::Sender<Event>,
    moved: impl Future<Output = ()>,
) -> End {
    let heartbeat = first.heartbeat_interval_seconds.filter(|seconds| (0.001..1e6).contains(seconds));
    let heartbeat = heartbeat.map_or(config.heartbeat, Duration::from_secs_f64);
    stream.set_patience(heartbeat * config.missed_heartbeats.max(1));

    let framework_id = first.framework_id.value;
    // A pool of its own: no call ever waits for, or shares, the connection of the stream.
    let client = match client(config) {
        Ok(client) => client,
        Err(error) => return End::Lost(error.to_string()),
    };
    let (calls, queue) = Calls::new();
    let target = Target {
        client,
        url: stream.url.clone(),
        framework: config.framework.clone(),
        framework_id: framework_id.clone(),
        stream_id: stream.stream_id.clone(),
    };
    info!(master = %stream.url, framework_id, "subscribed to Mesos");
    let (master, roles) = (first.master_info.map(Box::new), config.framework.roles.clone());
    let subscribed = Event::Subscribed { calls, framework_id, master, roles, suppressed };
    if events.send(subscribed).await.is_err() {
        return End::Unwatched;
    }
    let delivery = deliver(target, queue);
    tokio::pin!(delivery);
    let reading = read(&mut stream, events);
    tokio::pin!(reading);
    let end = tokio::select! {
        end = &mut reading => end,
        reason = &mut delivery => End::Lost(reason),
        () = moved => End::Lost("another master leads".to_owned()),
    };
    let reason = match &end {
        End::Lost(reason) | End::Refused(reason) => reason.clone(),
        End::Stop(stop) => format!("{stop:?}"),
        End::Unwatched => return end,
    };
    match events.send(Event::Disconnected { reason }).await {
        Ok(()) => end,
        Err(_) => End::Unwatched,
    }
}

async fn read(stream: &mut Stream, events: &mpsc::Sender<Event>) -> End {
    let mut unknown = 0_u64;
    loop {
        let event = match stream.next().await {
            Ok(event) => event,
            Err(error) => return End::Lost(error.to_string()),
        };
        if event.r#type.is_none_or(|kind| event::Type::try_from(kind).is_err()) {
            unknown += 1;
            // However many come, the log has a few lines of them.
            if unknown.is_power_of_two() {
                info!(kind = ?event.r#type, so_far = unknown, "an event of a kind that this build does not know was skipped");
            }
            continue;
        }
        let event = match translate(event) {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(end) => return end,
        };
        if events.send(event).await.is_err() {
            return End::Unwatched;
        }
    }
}

/// What an event means for its owner. Of a kind that is not known, nothing; of a known kind without what it must hold,
/// the end.
fn translate(event: scheduler::Event) -> Result<Option<Event>, End> {
    use event::Type;
    let Some(Ok(kind)) = event.r#type.map(Type::try_from) else { return Ok(None) };
    let translated = match kind {
        Type::Offers => event.offers.map(|offers| offers.offers).filter(|offers| offers.iter().all(is_whole)).map(Event::Offers),
        Type::Rescind => event.rescind.map(|rescind| Event::Rescind(rescind.offer_id)),
        Type::InverseOffers => event.inverse_offers.map(|offers| Event::InverseOffers(offers.inverse_offers)),
        Type::Update => {
            let status = event.update.map(|update| update.status).filter(|status| !status.task_id.value.is_empty());
            status.map(|status| Event::Update(Box::new(status)))
        }
        Type::Failure => event.failure.map(Event::Failure),
        Type::Error => {
            return Err(refusal(event.error.map_or_else(|| "an error without a message".to_owned(), |error| error.message)));
        }
        Type::Heartbeat => return Ok(None),
        _ => {
            debug!(kind = kind.as_str_name(), "an event of no use was skipped");
            return Ok(None);
        }
    };
    translated.map(Some).ok_or_else(|| End::Lost(format!("the master sent {} without what it must hold", kind.as_str_name())))
}

/// An offer without its id or agent can't be answered.
fn is_whole(offer: &podium_proto::mesos::v1::Offer) -> bool {
    !offer.id.value.is_empty() && !offer.agent_id.value.is_empty()
}
