//! The owner task: the only one that touches [`State`]. It takes what is ready in batches, so that a burst of
//! calls costs one round of offers.

use std::net::SocketAddr;
use std::time::Duration;

use podium_proto::mesos::v1::allocator::inverse_offer_status::Status;
use podium_proto::mesos::v1::scheduler::{Call, call};
use podium_proto::mesos::v1::{MachineId, TimeInfo};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::agents::Departed;
use super::draining::Drain;
use super::framework::{Completed, Subscription};
use super::maintenance::Maintenance;
use super::persist::{AsJson, Kept, Saver, Saving};
use super::state::{Now, Settings, State, Timer};
use crate::link::FromAgent;

/// Messages handled between two looks at timers and offers.
const BATCH: usize = 512;

/// Sends an answer, when its time has come.
type Answer = Box<dyn FnOnce() + Send>;

/// A question about the whole state, answered by a function that runs in the owner task.
type Question = Box<dyn FnOnce(&mut State, Now) -> Answer + Send>;

/// What HTTP asks of the owner task.
pub(super) enum Command {
    Subscribe { call: Box<call::Subscribe>, reply: oneshot::Sender<Subscription> },
    Call { call: Box<Call>, stream: Option<String>, reply: oneshot::Sender<Result<(), Refusal>> },
    StreamClosed { framework: String, stream: String },
    Ask(Question),
    FailOver { done: oneshot::Sender<()> },
}

/// Why a call was not taken; the text is the answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400.
    Bad(String),
    /// 403.
    Forbidden(String),
    /// 501.
    Unknown,
}

/// The owner task has ended: the engine is stopping.
#[derive(Debug)]
pub(super) struct Stopping;

/// How HTTP reaches the owner task.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    async fn request<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    pub(super) async fn subscribe(&self, call: call::Subscribe) -> Result<Subscription, Stopping> {
        self.request(|reply| Command::Subscribe { call: Box::new(call), reply }).await
    }

    pub(super) async fn call(&self, call: Call, stream: Option<String>) -> Result<Result<(), Refusal>, Stopping> {
        self.request(|reply| Command::Call { call: Box::new(call), stream, reply }).await
    }

    /// Computes something from the state, or changes it by an operator's word; what must survive a restart is on disk
    /// when this returns.
    pub(super) async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut State, Now) -> T + Send + 'static) -> Result<T, Stopping> {
        self.request(|reply| {
            Command::Ask(Box::new(move |state, now| {
                let answer = question(state, now);
                // Whoever asked may have gone.
                Box::new(move || drop(reply.send(answer)))
            }))
        })
        .await
    }

    pub(super) async fn stream_closed(&self, framework: String, stream: String) {
        // When the owner task has ended there is nobody to tell.
        let _ = self.commands.send(Command::StreamClosed { framework, stream }).await;
    }

    pub(super) async fn expect_agents(&self, ids: Vec<String>) {
        // When the owner task has ended nothing is expected any more.
        let _ = self.ask(move |state, now| state.expect_agents(&ids, now)).await;
    }

    pub(super) async fn fail_over(&self) {
        // As above.
        let _ = self.request(|done| Command::FailOver { done }).await;
    }
}

/// The state of a master that starts: it knows which agents are to come back, and which frameworks may not.
pub(super) fn first_state(settings: Settings, address: SocketAddr, kept: &Kept) -> State {
    let now = Now::read();
    let timeout = settings.agent_reregister_timeout;
    let mut state = State::new(settings, uuid::Uuid::new_v4().to_string(), address, now);
    state.recovering = kept.agents.iter().cloned().collect();
    let since = |nanoseconds: i64| Departed { since: TimeInfo { nanoseconds } };
    state.unreachable = kept.unreachable_agents.iter().map(|(id, time)| (id.clone(), since(*time))).collect();
    state.gone = kept.gone_agents.iter().cloned().collect();
    state.draining = kept.draining_agents.iter().map(|(id, info)| (id.clone(), Drain { info: info.0, started: None })).collect();
    state.deactivated = kept.deactivated_agents.iter().cloned().collect();
    let down: Vec<MachineId> = kept.machines_down.iter().map(|machine| machine.0.clone()).collect();
    state.maintenance = Maintenance::new(kept.schedule.0.clone(), &down);
    state.completed = kept
        .completed_frameworks
        .iter()
        .map(|id| Completed {
            id: id.clone(),
            info: None,
            registered: Duration::ZERO,
            reregistered: None,
            unregistered: Duration::ZERO,
            tasks: Vec::new(),
        })
        .collect();
    for agent in &kept.agents {
        state.set_timer(now, timeout, Timer::AgentGivenUp { agent: agent.clone() });
    }
    state
}

fn keep(state: &State) -> Kept {
    let agents = state.agents.keys().chain(&state.recovering).cloned().collect();
    let unreachable = state.unreachable.iter().map(|(id, departed)| (id.clone(), departed.since.nanoseconds)).collect();
    let completed = state.completed.iter().map(|completed| completed.id.clone()).collect();
    let mut kept = Kept::new(completed, agents, unreachable, state.gone.iter().cloned().collect());
    kept.draining_agents = state.draining.iter().map(|(id, drain)| (id.clone(), AsJson(drain.info))).collect();
    kept.deactivated_agents = state.deactivated.iter().cloned().collect();
    kept.schedule = AsJson(state.maintenance.schedule().clone());
    kept.machines_down = state.maintenance.down().into_iter().map(AsJson).collect();
    kept
}

/// Runs until told to stop; dropping the state ends every framework's stream.
pub(super) async fn run(
    mut state: State,
    mut commands: mpsc::Receiver<Command>,
    mut agents: mpsc::Receiver<FromAgent>,
    saver: Saver,
    stop: CancellationToken,
) {
    let mut held = Vec::new();
    loop {
        let wake = state.next_wake();
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            command = commands.recv() => match command {
                Some(command) => handle(&mut state, command, Now::read(), &mut held),
                None => break,
            },
            Some(message) = agents.recv() => state.agent_message(message, Now::read()),
            () = sleep => {}
        }
        let now = Now::read();
        for _ in 0..BATCH {
            let command = commands.try_recv().ok();
            let message = agents.try_recv().ok();
            if command.is_none() && message.is_none() {
                break;
            }
            if let Some(command) = command {
                handle(&mut state, command, now, &mut held);
            }
            if let Some(message) = message {
                state.agent_message(message, now);
            }
        }
        state.advance(Now::read());
        if std::mem::take(&mut state.unsaved) {
            answer_when(saver.save(keep(&state)), std::mem::take(&mut held));
        }
    }
    drop(state);
    saver.finish().await;
}

/// Answers what has changed nothing that must survive a restart; the other answers are held until it is on disk.
fn handle(state: &mut State, command: Command, now: Now, held: &mut Vec<Answer>) {
    let unsaved = std::mem::take(&mut state.unsaved);
    match carry_out(state, command, now) {
        Some(answer) if state.unsaved => held.push(answer),
        Some(answer) => answer(),
        None => {}
    }
    state.unsaved |= unsaved;
}

fn answer_when(saving: Saving, answers: Vec<Answer>) {
    if answers.is_empty() {
        return;
    }
    tokio::spawn(async move {
        // Unanswered, they are told that the master stops.
        if saving.done().await {
            answers.into_iter().for_each(|answer| answer());
        }
    });
}

fn carry_out(state: &mut State, command: Command, now: Now) -> Option<Answer> {
    match command {
        Command::Subscribe { call, reply } => {
            let subscription = state.subscribe(*call, now);
            let id = subscription.framework_id.clone().map(|framework| (framework, subscription.stream_id.clone()));
            // A client that has gone meanwhile is a stream that was closed.
            if let (Err(_), Some((framework, stream))) = (reply.send(subscription), id) {
                state.stream_closed(&framework, &stream, now);
            }
        }
        Command::Call { call, stream, reply } => {
            let answer = call_of(state, *call, stream.as_deref(), now);
            // A client that has gone meanwhile does not hear the answer.
            return Some(Box::new(move || drop(reply.send(answer))));
        }
        Command::StreamClosed { framework, stream } => state.stream_closed(&framework, &stream, now),
        Command::Ask(question) => return Some(question(state, now)),
        Command::FailOver { done } => {
            let kept = keep(state);
            *state = first_state(state.settings.clone(), state.address, &kept);
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
    None
}

/// Rows 15 to 22 of the request pipeline, for every call but SUBSCRIBE; its form is already right.
fn call_of(state: &mut State, call: Call, stream: Option<&str>, now: Now) -> Result<(), Refusal> {
    let id = call.framework_id.map(|id| id.value).unwrap_or_default();
    let framework = state.frameworks.get(&id).filter(|framework| !framework.recovered);
    let Some(framework) = framework else { return Err(Refusal::Bad("Framework cannot be found".to_owned())) };
    let Some(open) = &framework.stream else { return Err(Refusal::Forbidden("Framework is not subscribed".to_owned())) };
    match stream {
        None => return Err(Refusal::Bad("All non-subscribe calls should include the 'Mesos-Stream-Id' header".to_owned())),
        Some(stream) if stream != open.id => {
            return Err(Refusal::Bad(format!(
                "The stream ID '{stream}' included in this request didn't match the stream ID currently associated with framework ID {id}"
            )));
        }
        Some(_) => {}
    }
    match call.r#type.and_then(|kind| call::Type::try_from(kind).ok()) {
        Some(call::Type::Teardown) => state.remove_framework(&id, now),
        Some(call::Type::Accept) => state.accept(&id, call.accept.unwrap_or_default(), now),
        Some(call::Type::Decline) => {
            let decline = call.decline.unwrap_or_default();
            state.decline(&id, decline.offer_ids, decline.filters, now);
        }
        Some(call::Type::Revive) => state.revive(&id, &call.revive.unwrap_or_default().roles, now),
        Some(call::Type::Suppress) => state.suppress(&id, &call.suppress.unwrap_or_default().roles),
        Some(call::Type::Kill) => state.kill(&id, call.kill.unwrap_or_default(), now),
        Some(call::Type::Shutdown) => state.shutdown_executor(&id, call.shutdown.unwrap_or_default()),
        Some(call::Type::Acknowledge) => state.acknowledge(&id, call.acknowledge.unwrap_or_default(), now),
        Some(call::Type::Reconcile) => state.reconcile(&id, &call.reconcile.unwrap_or_default().tasks, now),
        Some(call::Type::ReconcileOperations) => state.reconcile_operations(&id, &call.reconcile_operations.unwrap_or_default().operations),
        Some(call::Type::UpdateFramework) => {
            return state.update_framework(&id, call.update_framework.unwrap_or_default(), now).map_err(Refusal::Bad);
        }
        Some(call::Type::AcceptInverseOffers) => {
            let accept = call.accept_inverse_offers.unwrap_or_default();
            state.answer_inverse_offers(&id, &accept.inverse_offer_ids, Status::Accept, accept.filters, now);
        }
        Some(call::Type::DeclineInverseOffers) => {
            let decline = call.decline_inverse_offers.unwrap_or_default();
            state.answer_inverse_offers(&id, &decline.inverse_offer_ids, Status::Decline, decline.filters, now);
        }
        // Nothing provokes operation updates here, and executors take no messages.
        Some(call::Type::Message | call::Type::Request | call::Type::AcknowledgeOperationStatus) => {}
        Some(call::Type::Subscribe | call::Type::Unknown) | None => return Err(Refusal::Unknown),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::persist::load;

    #[tokio::test]
    async fn what_must_survive_a_restart_is_answered_when_it_is_on_disk_and_tried_again_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("master");
        // Nothing can be written to a folder that is a file.
        std::fs::write(&data_dir, "").unwrap();
        let kept = Kept::new(vec![], vec!["agent".to_owned()], std::collections::BTreeMap::new(), vec![]);
        let (commands, queue) = mpsc::channel(8);
        let (_agents, from_agents) = mpsc::channel(8);
        let (owner, stop) = (Handle::new(commands), CancellationToken::new());
        let state = first_state(Settings::default(), SocketAddr::from(([127, 0, 0, 1], 5050)), &kept);
        let running = tokio::spawn(run(state, queue, from_agents, Saver::start(data_dir.clone()), stop.clone()));

        let marking = owner.ask(|state, now| state.mark_gone("agent", now));
        tokio::pin!(marking);
        assert!(tokio::time::timeout(Duration::from_millis(700), &mut marking).await.is_err(), "answered before it was written");
        assert!(owner.ask(|state, _| state.gone.contains("agent")).await.unwrap(), "what only asks is answered at once");
        std::fs::remove_file(&data_dir).unwrap();
        assert!(marking.await.unwrap());
        assert_eq!(load(&data_dir).await.unwrap().gone_agents, ["agent"]);

        // What can't be written when the master stops is not said to be done.
        std::fs::remove_dir_all(&data_dir).unwrap();
        std::fs::write(&data_dir, "").unwrap();
        let again = owner.ask(|state, _| state.unsaved = true);
        let (again, ()) = tokio::join!(again, async { stop.cancel() });
        assert!(again.is_err());
        running.await.unwrap();
    }
}
