//! Calls to the master, on connections of their own, each belonging to one subscription: in order, but for
//! acknowledgements. These are many, one to a task at a time, and say nothing about each other: some travel at once.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use podium_http::{Client, Method, Url};
use podium_proto::mesos::v1;
use podium_proto::mesos::v1::scheduler::{Call, call};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

/// Calls waiting to be sent; a full queue makes the caller wait.
const CAPACITY: usize = 1024;

/// Acknowledgements without an answer, at most; each has a connection of its own.
const ACKNOWLEDGEMENTS: usize = 6;

/// Both directions speak protobuf; masters compare these words exactly.
pub(crate) const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// The subscription ended: rebuild from state what still matters after the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subscription to Mesos is over")]
pub struct SubscriptionOver;

/// The master's answer to [`Calls::update_roles`]: `Err` with its words if it will not. None comes when the subscription ends first.
pub type RolesAnswer = oneshot::Receiver<Result<(), String>>;

/// A call in its place, and who waits for its answer.
type Placed = (Call, Option<oneshot::Sender<Result<(), String>>>);

/// Sends calls under one subscription. Clones share its order.
#[derive(Debug, Clone)]
pub struct Calls {
    queue: mpsc::Sender<Placed>,
    acknowledgements: mpsc::Sender<Call>,
}

/// What waits to be sent under one subscription.
pub(super) struct Queue {
    in_order: mpsc::Receiver<Placed>,
    acknowledgements: mpsc::Receiver<Call>,
}

impl Calls {
    /// A handle, and the queue to be worked off by [`deliver`].
    pub(super) fn new() -> (Self, Queue) {
        let (queue, in_order) = mpsc::channel(CAPACITY);
        let (acknowledgements, waiting) = mpsc::channel(CAPACITY);
        (Calls { queue, acknowledgements }, Queue { in_order, acknowledgements: waiting })
    }

    async fn send(&self, r#type: call::Type, call: Call) -> Result<(), SubscriptionOver> {
        let call = Call { r#type: Some(r#type.into()), ..call };
        let sent = match r#type {
            call::Type::Acknowledge => self.acknowledgements.send(call).await.is_ok(),
            _ => self.queue.send((call, None)).await.is_ok(),
        };
        sent.then_some(()).ok_or(SubscriptionOver)
    }

    /// Replaces the roles of the subscription, and those of them for which nothing shall be offered: all of it, or nothing. A
    /// refusal leaves the subscription as it was.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn update_roles(&self, roles: Vec<String>, suppressed: Vec<String>) -> Result<RolesAnswer, SubscriptionOver> {
        // The rest of it is what we subscribed as: `Post` knows.
        let framework_info = v1::FrameworkInfo { roles, ..v1::FrameworkInfo::default() };
        let update = call::UpdateFramework { framework_info, suppressed_roles: suppressed, ..call::UpdateFramework::default() };
        let call = Call { r#type: Some(call::Type::UpdateFramework.into()), update_framework: Some(update), ..Call::default() };
        let (answer, answered) = oneshot::channel();
        self.queue.send((call, Some(answer))).await.map_err(|_| SubscriptionOver)?;
        Ok(answered)
    }

    /// Launches on these offers, all of one agent and role; what is left of them is declined for `refuse_seconds`.
    ///
    /// # Errors
    /// [`SubscriptionOver`], as of all calls; the call was not sent then.
    pub async fn accept(
        &self,
        offer_ids: Vec<v1::OfferId>,
        operations: Vec<v1::offer::Operation>,
        refuse_seconds: f64,
    ) -> Result<(), SubscriptionOver> {
        let filters = Some(v1::Filters { refuse_seconds: Some(refuse_seconds) });
        let accept = Some(call::Accept { offer_ids, operations, filters });
        self.send(call::Type::Accept, Call { accept, ..Call::default() }).await
    }

    /// Gives offers back; the agents are not offered again for `refuse_seconds`, unless they gain something.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn decline(&self, offer_ids: Vec<v1::OfferId>, refuse_seconds: f64) -> Result<(), SubscriptionOver> {
        let filters = Some(v1::Filters { refuse_seconds: Some(refuse_seconds) });
        self.send(call::Type::Decline, Call { decline: Some(call::Decline { offer_ids, filters }), ..Call::default() }).await
    }

    /// Answers whether agents may be taken down for maintenance; the master asks again after `refuse_seconds`.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn answer_inverse(&self, ids: Vec<v1::OfferId>, accept: bool, refuse_seconds: f64) -> Result<(), SubscriptionOver> {
        let (inverse_offer_ids, filters) = (ids, Some(v1::Filters { refuse_seconds: Some(refuse_seconds) }));
        if accept {
            let accept = Some(call::AcceptInverseOffers { inverse_offer_ids, filters });
            self.send(call::Type::AcceptInverseOffers, Call { accept_inverse_offers: accept, ..Call::default() }).await
        } else {
            let decline = Some(call::DeclineInverseOffers { inverse_offer_ids, filters });
            self.send(call::Type::DeclineInverseOffers, Call { decline_inverse_offers: decline, ..Call::default() }).await
        }
    }

    /// Asks for offers again and forgets all filters, for these roles; none means all.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn revive(&self, roles: Vec<String>) -> Result<(), SubscriptionOver> {
        self.send(call::Type::Revive, Call { revive: Some(call::Revive { roles }), ..Call::default() }).await
    }

    /// Asks for no more offers for these roles; none means all.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn suppress(&self, roles: Vec<String>) -> Result<(), SubscriptionOver> {
        self.send(call::Type::Suppress, Call { suppress: Some(call::Suppress { roles }), ..Call::default() }).await
    }

    /// Asks for a task's end. Lost if the master does not know the task: repeat it until a terminal update.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn kill(&self, task_id: &str, agent_id: Option<&str>) -> Result<(), SubscriptionOver> {
        let kill = call::Kill {
            task_id: v1::TaskId { value: task_id.to_owned() },
            agent_id: agent_id.map(|value| v1::AgentId { value: value.to_owned() }),
            kill_policy: None,
        };
        self.send(call::Type::Kill, Call { kill: Some(kill), ..Call::default() }).await
    }

    /// Ends an executor with all its tasks, when kills did not help.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn shutdown(&self, executor_id: &str, agent_id: &str) -> Result<(), SubscriptionOver> {
        let shutdown = call::Shutdown {
            executor_id: v1::ExecutorId { value: executor_id.to_owned() },
            agent_id: v1::AgentId { value: agent_id.to_owned() },
        };
        self.send(call::Type::Shutdown, Call { shutdown: Some(shutdown), ..Call::default() }).await
    }

    /// Confirms that an update's effect is durable; the agent then sends the task's next one.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn acknowledge(&self, agent_id: &str, task_id: &str, uuid: Bytes) -> Result<(), SubscriptionOver> {
        let acknowledge = call::Acknowledge {
            agent_id: v1::AgentId { value: agent_id.to_owned() },
            task_id: v1::TaskId { value: task_id.to_owned() },
            uuid,
        };
        self.send(call::Type::Acknowledge, Call { acknowledge: Some(acknowledge), ..Call::default() }).await
    }

    /// Asks for the present state of these tasks, each with its agent; of none: of all that the master knows.
    ///
    /// # Errors
    /// [`SubscriptionOver`].
    pub async fn reconcile(&self, tasks: impl IntoIterator<Item = (String, Option<String>)>) -> Result<(), SubscriptionOver> {
        let tasks = tasks.into_iter().map(|(task, agent)| call::reconcile::Task {
            task_id: v1::TaskId { value: task },
            agent_id: agent.map(|value| v1::AgentId { value }),
        });
        let reconcile = Some(call::Reconcile { tasks: tasks.collect() });
        self.send(call::Type::Reconcile, Call { reconcile, ..Call::default() }).await
    }
}

/// Where and as whom calls are made.
pub(super) struct Target {
    pub client: Client,
    pub url: Url,
    /// As we subscribed.
    pub framework: v1::FrameworkInfo,
    /// As the master knows us.
    pub framework_id: String,
    pub stream_id: HeaderValue,
}

/// Sends what is queued. Ends only with the reason why the subscription must end.
pub(super) async fn deliver(target: Target, queue: Queue) -> String {
    let post = Post::new(target);
    tokio::select! {
        reason = post.in_order(queue.in_order) => reason,
        reason = post.at_once(queue.acknowledgements) => reason,
    }
}

struct Post {
    client: Client,
    url: Url,
    framework: v1::FrameworkInfo,
    framework_id: v1::FrameworkId,
    headers: HeaderMap,
}

/// Why a call came to nothing.
enum Failed {
    /// The master has looked at it and will not, in its words.
    Refused(StatusCode, String),
    /// There is no answer, or none that is one.
    Unanswered(String),
}

impl Failed {
    /// Why the subscription must end.
    fn reason(self, kind: &str) -> String {
        match self {
            Failed::Refused(status, text) => format!("the master answered {status} to {kind}: {text}"),
            Failed::Unanswered(error) => format!("call {kind}: {error}"),
        }
    }
}

fn kind(call: &Call) -> &'static str {
    call.r#type.and_then(|kind| call::Type::try_from(kind).ok()).map_or("UNKNOWN", |kind| kind.as_str_name())
}

impl Post {
    fn new(target: Target) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        headers.insert(header::ACCEPT, PROTOBUF);
        headers.insert("Mesos-Stream-Id", target.stream_id);
        let framework_id = v1::FrameworkId { value: target.framework_id };
        Post { client: target.client, url: target.url, framework: target.framework, framework_id, headers }
    }

    /// One after the other.
    async fn in_order(&self, mut calls: mpsc::Receiver<Placed>) -> String {
        while let Some((call, waits)) = calls.recv().await {
            let kind = kind(&call);
            let answer = match (self.post(call).await, &waits) {
                (Ok(()), _) => Ok(()),
                (Err(Failed::Refused(StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, text)), Some(_)) => Err(text),
                (Err(failed), _) => return failed.reason(kind),
            };
            if let Some(waits) = waits {
                // Who no longer waits does not want to know.
                let _ = waits.send(answer);
            }
        }
        // Every handle is gone: nobody wants to call, which is no reason to end the subscription.
        std::future::pending().await
    }

    /// Some at a time.
    async fn at_once(&self, mut calls: mpsc::Receiver<Call>) -> String {
        let mut unanswered = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(answer) = unanswered.next(), if !unanswered.is_empty() => {
                    if let Err(failed) = answer {
                        return Failed::reason(failed, call::Type::Acknowledge.as_str_name());
                    }
                }
                Some(call) = calls.recv(), if unanswered.len() < ACKNOWLEDGEMENTS => unanswered.push(self.post(call)),
                else => return std::future::pending().await,
            }
        }
    }

    /// One call.
    async fn post(&self, mut call: Call) -> Result<(), Failed> {
        if let Some(update) = &mut call.update_framework {
            let roles = std::mem::take(&mut update.framework_info.roles);
            update.framework_info = v1::FrameworkInfo { roles, ..self.framework.clone() };
        }
        let body = Call { framework_id: Some(self.framework_id.clone()), ..call }.encode_to_vec();
        match self.client.request(Method::POST, &self.url, self.headers.clone(), body).await {
            // Read to its end, so that the connection can be used again.
            Ok(response) if response.status.is_success() => match response.bytes().await {
                Ok(_) => Ok(()),
                Err(error) => Err(Failed::Unanswered(error.to_string())),
            },
            Ok(response) => Err(Failed::Refused(response.status, response.excerpt(500).await)),
            Err(error) => Err(Failed::Unanswered(error.to_string())),
        }
    }
}
