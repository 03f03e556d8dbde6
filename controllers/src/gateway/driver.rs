//! The asynchronous part of the gateway: hands the core what happens, and does what it says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use podium_mesos::client::{self, Calls, Event, MesosConfig, RolesAnswer, Stop, SubscriptionOver};
use podium_mesos::operator::Operator;
use podium_store::Kind;
use podium_store::index::{Changes, Kinds, Position};
use podium_store::writer::{Group, Outcome};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::framework::{Removed, begin_anew, identity, mesos_config, operator, vouched};
use super::output::{Call, Output, Token};
use super::quarantine::Custody;
use super::{GatewayState, Settings, secrets, survey};
use crate::runtime::{Failure, Term};

/// Events that are taken in before anything is decided about them.
const BURST: usize = 1_024;

/// Writes that may be unanswered: more of them wait their turn, and offers with them. Fewer than the writer has room for, so that
/// it never keeps us waiting.
const UNANSWERED: usize = 512;

/// Offers wait for so long for secrets to be read.
const READING: Duration = Duration::from_secs(2);

/// Runs the gateway for one term: until its leadership is lost, or it fails. `state` tells the process what it knows.
pub async fn run(settings: Arc<Settings>, state: watch::Sender<GatewayState>, term: Term) -> Result<(), Failure> {
    let result = serve(&settings, &state, term).await;
    let trouble = result.as_ref().err().map(ToString::to_string);
    state.send_replace(GatewayState { trouble, ..GatewayState::default() });
    result
}

async fn serve(settings: &Settings, state: &watch::Sender<GatewayState>, term: Term) -> Result<(), Failure> {
    let lost = term.lost.clone();
    let started = tokio::select! {
        () = lost.cancelled() => return Ok(()),
        started = start(settings, state, term) => started?,
    };
    started.run().await
}

async fn start<'a>(settings: &Settings, state: &'a watch::Sender<GatewayState>, term: Term) -> Result<Driver<'a>, Failure> {
    // Nothing is decided on what is older than the election.
    while term.index.position().revision < term.create_revision {
        if term.index.wait_for(term.create_revision, Duration::from_secs(60)).await.is_err() {
            tracing::warn!("the index has not reached the gateway's election yet");
        }
    }
    // From here on it is ours to say what lies between us and Mesos.
    state.send_modify(|state| state.leads = true);
    let operator = operator(settings)?;
    let identity = identity(&term, settings, &operator, state).await?;
    state.send_replace(GatewayState {
        leads: true,
        framework_id: Some(identity.framework_id.clone()),
        cluster_id: Some(identity.cluster_id.clone()),
        ..GatewayState::default()
    });
    let mut core = Core::new(settings.clone(), identity.clone());
    core.custody = term.index.read(|index| {
        let unknown = index.pods().filter_map(|view| Some((view.id.clone(), view.unknown.as_ref()?.value.clone())));
        let vouched = index.framework().map_or(0, |held| held.value.vouched_revision);
        Custody::found(index.quarantine().map(|held| held.value.clone()), unknown.collect()).with_vouched(vouched)
    });
    let mut changes = term.index.changes(Kinds::of(&[Kind::Accepted, Kind::Version, Kind::Instance, Kind::Tombstone, Kind::Order]));
    // The first batch names every pod: subscribed only when all is known, so that no task of ours seems strange.
    if term.index.read(|index| index.pods().len() > 0) {
        let batch = changes.next().await;
        take_in(&mut core, &term, batch.pods.iter());
        take_orders(&mut core, &term);
    }
    let (roles, watched) = watch::channel(core.roles_to_subscribe());
    let (idle, watched_idle) = watch::channel(core.idle_roles());
    let config = MesosConfig { idle: watched_idle, ..mesos_config(settings, &identity.framework_id, watched) };
    let cancel = term.lost.child_token();
    let events = client::connect(config, cancel.clone()).map_err(|error| Failure(error.to_string()))?;
    let positions = term.index.positions();
    Ok(Driver {
        core,
        term,
        changes,
        positions,
        events,
        roles,
        idle,
        state,
        calls: None,
        roles_answer: None,
        secrets: secrets::Known::default(),
        reading: None,
        queued: VecDeque::new(),
        unwritten: VecDeque::new(),
        answers: FuturesUnordered::new(),
        operator,
        surveys: FuturesUnordered::new(),
        unanswered_since: None,
        removed: None,
        _cancel: cancel.drop_guard(),
    })
}

fn take_in<'a>(core: &mut Core, term: &Term, pods: impl Iterator<Item = &'a podium_types::id::PodId>) {
    let now = term.clock.now().0;
    for id in pods {
        term.index.read(|index| core.pod_changed(id, index.pod(id), index.revision(), now));
    }
}

fn take_orders(core: &mut Core, term: &Term) {
    let orders = term.index.read(|index| index.orders().iter().map(|(uuid, held)| (*uuid, held.value.clone())).collect());
    core.ordered(orders, term.clock.now().0);
}

/// Which of our tasks run, by the round in which it was asked.
type Surveyed = (u64, Result<survey::Shown, survey::Trouble>);

struct Driver<'a> {
    core: Core,
    term: Term,
    changes: Changes,
    positions: watch::Receiver<Position>,
    events: mpsc::Receiver<Event>,
    /// To subscribe for.
    roles: watch::Sender<Vec<String>>,
    /// Those in which nothing waits.
    idle: watch::Sender<Vec<String>>,
    state: &'a watch::Sender<GatewayState>,
    /// Of the present subscription.
    calls: Option<Calls>,
    /// To the last change of our roles, until it has come.
    roles_answer: Option<RolesAnswer>,
    /// For the next launches.
    secrets: secrets::Known,
    /// More of them, and since when it takes.
    reading: Option<(Instant, BoxFuture<'static, secrets::Known>)>,
    /// Calls in their order, yet to be handed over.
    queued: VecDeque<Call>,
    /// Writes in their order, yet to be handed over: one of each record that is known, at most.
    unwritten: VecDeque<(Token, Group)>,
    answers: FuturesUnordered<BoxFuture<'static, (Token, Outcome)>>,
    operator: Operator,
    surveys: FuturesUnordered<BoxFuture<'static, Surveyed>>,
    /// Since when writes are without any answer.
    unanswered_since: Option<Instant>,
    /// Mesos has removed our framework, in its words.
    removed: Option<String>,
    _cancel: tokio_util::sync::DropGuard,
}

/// Whether the term goes on.
enum Next {
    Continue,
    /// Another leads.
    Over,
}

impl Driver<'_> {
    async fn run(mut self) -> Result<(), Failure> {
        let lost: CancellationToken = self.term.lost.clone();
        loop {
            self.settle().await;
            let wake = self.next_wake();
            let next = tokio::select! {
                biased;
                () = lost.cancelled() => return Ok(()),
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.answered(answer),
                event = self.events.recv() => match event {
                    Some(event) => self.happened(event)?,
                    None => return Err(Failure("the Mesos client has ended".to_owned())),
                },
                batch = self.changes.next() => {
                    if batch.replaced {
                        return Ok(());
                    }
                    take_in(&mut self.core, &self.term, batch.pods.iter());
                    if batch.orders {
                        take_orders(&mut self.core, &self.term);
                    }
                    Next::Continue
                }
                Some((round, tasks)) = self.surveys.next(), if !self.surveys.is_empty() => {
                    let (now, revision) = (self.term.clock.now().0, self.term.index.position().revision);
                    self.core.surveyed(round, tasks, revision, now);
                    Next::Continue
                }
                more = read(&mut self.reading) => {
                    self.secrets.add(more);
                    Next::Continue
                }
                Some(answer) = roles_answer(&mut self.roles_answer) => {
                    self.core.roles_answered(answer, self.term.clock.now().0);
                    Next::Continue
                }
                Ok(()) = self.positions.changed(), if self.core.awaits_index() => Next::Continue,
                () = sleep_until(wake) => Next::Continue,
            };
            if matches!(next, Next::Over) {
                return Ok(());
            }
            if let Some(message) = self.removed.take() {
                return tokio::select! {
                    () = lost.cancelled() => Ok(()),
                    failure = self.begin_anew(&message) => Err(failure),
                };
            }
        }
    }

    /// Mesos has removed our framework. Where no other may begin until a person says so, that is written down of all that runs.
    async fn begin_anew(&mut self, message: &str) -> Failure {
        let removed = self.core.identity.clone();
        let failure = match begin_anew(&self.term, &self.core.settings, &self.operator, &removed, message, self.state).await {
            Removed::GoesOn(failure) => return failure,
            Removed::Waits(failure) => failure,
        };
        self.calls = None;
        self.core.lost_sight(self.term.clock.now().0);
        self.settle().await;
        while let Some(answer) = self.answers.next().await {
            if matches!(self.answered(answer), Next::Over) {
                break;
            }
            self.settle().await;
        }
        failure
    }

    /// Takes an answer, and those that are there already.
    fn answered(&mut self, first: (Token, Outcome)) -> Next {
        let now = self.term.clock.now().0;
        let mut next = Some(first);
        while let Some((token, outcome)) = next {
            if outcome == Outcome::NotLeader {
                return Next::Over;
            }
            self.core.written(token, outcome, now);
            next = self.answers.next().now_or_never().flatten();
        }
        self.unanswered_since = (!self.answers.is_empty()).then(Instant::now);
        Next::Continue
    }

    /// Takes an event, and those that are there already.
    fn happened(&mut self, first: Event) -> Result<Next, Failure> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(event) = next {
            self.take_event(event)?;
            taken += 1;
            next = if taken < BURST { self.events.try_recv().ok() } else { None };
        }
        Ok(Next::Continue)
    }

    fn take_event(&mut self, event: Event) -> Result<(), Failure> {
        let now = self.term.clock.now().0;
        match event {
            Event::Subscribed { calls, framework_id, master, roles, suppressed } => {
                if framework_id != self.core.identity.framework_id {
                    return Err(Failure(format!("Mesos knows us as {framework_id} and not as {}", self.core.identity.framework_id)));
                }
                self.calls = Some(calls);
                self.roles_answer = None;
                self.queued.clear();
                let region = master.as_ref().and_then(|master| Some(master.domain.as_ref()?.fault_domain.as_ref()?.region.name.clone()));
                let address = master.as_ref().and_then(|master| {
                    let address = master.address.as_ref()?;
                    let host = address.hostname.as_ref().or(address.ip.as_ref())?;
                    Some(format!("{host}:{}", address.port))
                });
                self.core.subscribed(region, &roles, &suppressed, now);
                self.state.send_modify(|state| {
                    state.master = address;
                    state.trouble = None;
                });
            }
            Event::Disconnected { reason } => {
                self.calls = None;
                self.roles_answer = None;
                self.queued.clear();
                self.core.disconnected();
                self.trouble(&reason);
            }
            Event::Unavailable { reason } => self.trouble(&reason),
            Event::Offers(offers) => self.core.offered(offers, now),
            Event::Rescind(offer) => self.core.rescinded(&offer),
            Event::Update(status) => self.core.update(&status, now),
            Event::InverseOffers(offers) => self.core.inverse_offered(offers, now),
            Event::Failure(failure) => match (failure.agent_id, failure.executor_id) {
                (Some(agent), None) => {
                    self.core.agent_left(&agent.value);
                    // After a master's failover this may be all that it says of the agent's tasks.
                    self.core.ask_about_agent(&agent.value, now);
                }
                (agent, executor) => tracing::debug!(?agent, ?executor, "an executor ended: updates tell what became of its tasks"),
            },
            Event::Stopped(Stop::Cancelled) => {}
            Event::Stopped(Stop::FailedOver) => {
                return Err(Failure("another process has subscribed to Mesos with our framework id".to_owned()));
            }
            Event::Stopped(Stop::Removed { message }) => self.removed = Some(message),
        }
        Ok(())
    }

    fn trouble(&self, reason: &str) {
        self.state.send_if_modified(|state| {
            let news = state.trouble.as_deref() != Some(reason);
            if news {
                state.trouble = Some(reason.to_owned());
            }
            news
        });
    }

    /// Decides on everything that was taken in, and does it.
    async fn settle(&mut self) {
        let now = self.term.clock.now().0;
        let position = self.term.index.position();
        let limit = Duration::from_millis(u64::try_from(self.core.settings.cut_off_ms).unwrap_or(0));
        self.core.cut_off = self.unanswered_since.is_some_and(|since| since.elapsed() >= limit);
        for (id, uuid) in self.core.reloads_due(position.revision) {
            self.term.index.read(|index| self.core.reload(&id, uuid, index.pod(&id), now));
        }
        // More launches wait until some are written down; cut off, offers are declined at once.
        if self.core.cut_off || self.answers.len() + self.unwritten.len() < UNANSWERED {
            self.place(position.revision, now);
        }
        let busy = self.term.pulse.busy();
        self.core.tick(now);
        drop(busy);
        self.tell_roles();
        self.carry_out().await;
        self.state.send_if_modified(|state| {
            let before = state.clone();
            self.core.tell(state);
            *state != before
        });
    }

    /// Launches on the offers at hand, once the secrets for it have been read.
    fn place(&mut self, revision: i64, now: i64) {
        if self.core.offers.is_empty() || self.waits_for_secrets() {
            return;
        }
        self.secrets.stuck = self.reading.is_some();
        let busy = self.term.pulse.busy();
        let needed = self.core.place(&self.secrets, revision, now);
        drop(busy);
        if needed.is_empty() {
            // What is launched later shall have what stands in the files then.
            self.secrets = secrets::Known::default();
        } else {
            let read = secrets::read_beside(self.core.settings.secrets_dir.clone(), needed);
            self.reading = Some((Instant::now(), Box::pin(read)));
        }
    }

    fn waits_for_secrets(&self) -> bool {
        !self.core.cut_off && self.reading.as_ref().is_some_and(|(since, _)| since.elapsed() < READING)
    }

    /// What the next subscription is for.
    fn tell_roles(&self) {
        for (sender, now) in [(&self.idle, self.core.idle_roles()), (&self.roles, self.core.roles_to_subscribe())] {
            sender.send_if_modified(|known| {
                let news = *known != now;
                *known = now;
                news
            });
        }
    }

    async fn carry_out(&mut self) {
        for output in self.core.take() {
            match output {
                Output::Call(call) => self.queued.push_back(call),
                Output::Survey(round) => {
                    let asked = survey::ask(self.operator.clone(), self.core.identity.framework_id.clone());
                    self.surveys.push(Box::pin(async move { (round, asked.await) }));
                }
                Output::Write(token, group) => self.unwritten.push_back((token, group)),
                Output::Vouch(revision) => match self.term.index.read(|index| index.framework().map(|held| vouched(held, revision))) {
                    Some(group) => self.unwritten.push_back((Token::Framework, group)),
                    // Somebody has deleted it: tried again.
                    None => self.answers.push(Box::pin(ready((Token::Framework, Outcome::Conflict { revision: 0 })))),
                },
            }
        }
        self.hand_over().await;
        let Some(calls) = self.calls.clone() else {
            // Made for a subscription that is over: the next one begins from the state.
            self.queued.clear();
            return;
        };
        while let Some(call) = self.queued.pop_front() {
            if make(&calls, call, &mut self.roles_answer).await.is_err() {
                self.queued.clear();
                return;
            }
        }
    }

    async fn hand_over(&mut self) {
        while self.answers.len() < UNANSWERED
            && let Some((token, group)) = self.unwritten.pop_front()
        {
            let ticket = self.term.writer.submit(group).await;
            self.unanswered_since.get_or_insert_with(Instant::now);
            self.answers.push(Box::pin(async move { (token, ticket.await) }));
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let due = self.core.next_wake().map(|at| Instant::now() + self.term.clock.until(at));
        let limit = Duration::from_millis(u64::try_from(self.core.settings.cut_off_ms).unwrap_or(0));
        let cut_off = self.unanswered_since.map(|since| since + limit).filter(|_| !self.core.cut_off);
        let read = self.reading.as_ref().map(|(since, _)| *since + READING).filter(|_| self.waits_for_secrets());
        [due, cut_off, read].into_iter().flatten().min()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What was read.
async fn read(reading: &mut Option<(Instant, BoxFuture<'static, secrets::Known>)>) -> secrets::Known {
    let Some((_, future)) = reading else { return std::future::pending().await };
    let known = future.await;
    *reading = None;
    known
}

/// The answer to the last change of our roles; none when its subscription ended first.
async fn roles_answer(awaited: &mut Option<RolesAnswer>) -> Option<Result<(), String>> {
    let Some(receiver) = awaited else { return std::future::pending().await };
    let answer = receiver.await.ok();
    *awaited = None;
    answer
}

async fn make(calls: &Calls, call: Call, roles_answer: &mut Option<RolesAnswer>) -> Result<(), SubscriptionOver> {
    match call {
        Call::UpdateRoles { roles, suppressed } => {
            *roles_answer = Some(calls.update_roles(roles, suppressed).await?);
            Ok(())
        }
        Call::Accept { offer_ids, operations, refuse_seconds } => calls.accept(offer_ids, operations, refuse_seconds).await,
        Call::Decline { offer_ids, refuse_seconds } => calls.decline(offer_ids, refuse_seconds).await,
        Call::AnswerInverse { offer_ids, accept, refuse_seconds } => calls.answer_inverse(offer_ids, accept, refuse_seconds).await,
        Call::Revive(roles) => calls.revive(roles).await,
        Call::Suppress(roles) => calls.suppress(roles).await,
        Call::Kill { task_id, agent_id } => calls.kill(&task_id, agent_id.as_deref()).await,
        Call::Shutdown { executor_id, agent_id } => calls.shutdown(&executor_id, &agent_id).await,
        Call::Acknowledge(ack) => calls.acknowledge(&ack.agent_id, &ack.task_id, ack.uuid).await,
        Call::Reconcile(tasks) => calls.reconcile(tasks).await,
    }
}
