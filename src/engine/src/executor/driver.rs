//! The executor's one loop: the agent's events, ended children, results of health checks, and deadlines.

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, pending},
    io,
    pin::Pin,
    time::Duration,
};

use podium_proto::mesos::v1::{
    ContainerId, ExecutorInfo, FrameworkInfo, TaskGroupInfo, TaskState, TaskStatus,
    executor::{Call, Event, call, event},
    framework_info,
};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    connection::{self, Incident, Session},
    health::Ask,
    launch::Fetching,
    settings::{Edition, Settings},
    status,
    task::{Cause, Ending, Phase, Task},
    uris::Word,
};

/// How long acknowledgements are waited for when nothing runs any more.
const FAREWELL: Duration = Duration::from_secs(60);

/// An update, numbered in the order of their making.
struct Pending {
    number: u64,
    status: TaskStatus,
}

/// The way to the agent.
enum Link {
    /// Until it is worth trying (again).
    Waiting(Pin<Box<dyn Future<Output = ()>>>),
    /// All updates up to the number travel with the subscription.
    Trying(Pin<Box<dyn Future<Output = Result<Session, connection::Error>>>>, u64),
    Up(Session),
}

enum Step {
    Try,
    Tried(Result<Session, connection::Error>),
    Incident(Option<Incident>),
}

impl Link {
    async fn step(&mut self) -> Step {
        match self {
            Link::Waiting(wait) => {
                wait.await;
                Step::Try
            }
            Link::Trying(attempt, _) => Step::Tried(attempt.await),
            Link::Up(session) => Step::Incident(session.incidents.recv().await),
        }
    }
}

pub(super) struct Driver {
    pub(super) settings: Settings,
    pub(super) executor: Option<ExecutorInfo>,
    pub(super) framework: Option<FrameworkInfo>,
    container_id: Option<ContainerId>,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) groups: u64,
    updates: VecDeque<Pending>,
    numbered: u64,
    link: Link,
    attempts: u32,
    /// Which edition of the agent's address file the latest attempt used.
    tried: Option<Edition>,
    /// When the agent was lost; `None` while subscribed.
    lost: Option<Instant>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) asks: mpsc::Sender<Ask>,
    /// Groups whose artifacts are being fetched, by their numbers.
    pub(super) fetching: BTreeMap<u64, Fetching>,
    pub(super) words: mpsc::Sender<Word>,
    /// Told to end, or given up: once nothing runs, nothing is waited for but acknowledgements.
    ending: bool,
    /// The agent is gone for good: not even for these.
    abandoned: bool,
    farewell: Option<Instant>,
}

/// Runs until there is nothing left to do.
pub(super) async fn run(settings: Settings) -> io::Result<()> {
    let mut children = signal(SignalKind::child())?;
    let (asks, mut asked) = mpsc::channel(64);
    let (words, mut told) = mpsc::channel(4);
    let mut driver = Driver::new(settings, asks, words);
    while !driver.finished() {
        let deadline = driver.deadline();
        tokio::select! {
            step = driver.link.step() => driver.linked(step),
            _ = children.recv() => driver.reap(),
            Some(ask) = asked.recv() => driver.asked(ask),
            Some(word) = told.recv() => driver.told(word),
            () = at(deadline) => driver.tick(),
        }
    }
    Ok(())
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

impl Driver {
    fn new(settings: Settings, asks: mpsc::Sender<Ask>, words: mpsc::Sender<Word>) -> Driver {
        Driver {
            settings,
            executor: None,
            framework: None,
            container_id: None,
            tasks: BTreeMap::new(),
            groups: 0,
            updates: VecDeque::new(),
            numbered: 0,
            link: Link::Waiting(Box::pin(std::future::ready(()))),
            attempts: 0,
            tried: None,
            lost: Some(Instant::now()),
            connected: watch::Sender::new(false),
            asks,
            fetching: BTreeMap::new(),
            words,
            ending: false,
            abandoned: false,
            farewell: None,
        }
    }

    fn finished(&self) -> bool {
        let idle = self.tasks.values().all(Task::ended) && (self.groups > 0 || self.ending || self.abandoned);
        let patient = !self.abandoned && self.farewell.is_none_or(|until| Instant::now() < until);
        idle && (self.updates.is_empty() || !patient)
    }

    fn deadline(&self) -> Option<Instant> {
        let tasks = self.tasks.values().filter_map(Task::deadline);
        let recovery = self.lost.filter(|_| !self.abandoned).map(|lost| lost + self.settings.recovery_timeout);
        tasks.chain(recovery).chain(self.farewell).min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.lost.is_some_and(|lost| now >= lost + self.settings.recovery_timeout) && !self.abandoned {
            super::say(&format!("the agent has not come back within {:?}; ending everything", self.settings.recovery_timeout));
            self.abandon();
        }
        self.enforce(now);
        self.sweep(now);
        self.note_farewell();
    }

    /// Ends everything without anyone to tell.
    fn abandon(&mut self) {
        self.abandoned = true;
        self.end_all();
    }

    fn end_all(&mut self) {
        self.ending = true;
        let running: Vec<String> = self.tasks.iter().filter(|(_, task)| !task.ended()).map(|(id, _)| id.clone()).collect();
        for id in running {
            self.kill(&id, Cause::Wanted, super::task::DEFAULT_GRACE);
        }
    }

    /// Starts the wait for the last acknowledgements once nothing runs, as long as there is an agent to send them.
    fn note_farewell(&mut self) {
        let idle = self.groups > 0 && self.tasks.values().all(Task::ended);
        self.farewell = match (idle && self.lost.is_none(), self.farewell) {
            (true, None) => Some(Instant::now() + FAREWELL),
            (true, known) => known,
            (false, _) => None,
        };
    }

    fn linked(&mut self, step: Step) {
        match step {
            Step::Try => {
                let call = self.subscription();
                // Before the address itself, so that a newer one can't be missed.
                self.tried = self.settings.edition();
                let agent = self.settings.agent();
                let attempt = async move { connection::subscribe(agent, &call).await };
                self.link = Link::Trying(Box::pin(attempt), self.numbered);
            }
            Step::Tried(Ok(session)) => self.subscribed(session),
            Step::Tried(Err(error)) => {
                if self.attempts == 0 {
                    super::say(&format!("cannot subscribe at {}: {error}; trying again", self.settings.agent().address));
                }
                self.wait();
            }
            Step::Incident(Some(Incident::Event(event))) => self.event(*event),
            Step::Incident(Some(Incident::Lost(why))) => self.lose(&why),
            Step::Incident(None) => self.lose("the subscription ended"),
        }
        self.note_farewell();
    }

    fn subscribed(&mut self, session: Session) {
        let Link::Trying(_, sent) = self.link else { return };
        self.attempts = 0;
        self.lost = None;
        self.connected.send_replace(true);
        for pending in self.updates.iter().filter(|pending| pending.number > sent) {
            session.send(&self.update_call(pending.status.clone()));
        }
        self.link = Link::Up(session);
    }

    fn lose(&mut self, why: &str) {
        super::say(&format!("lost the agent: {why}"));
        self.lost = Some(Instant::now());
        self.connected.send_replace(false);
        self.wait();
        if !self.settings.checkpoint {
            self.abandon();
        }
    }

    fn wait(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        self.link = Link::Waiting(Box::pin(reconnect(self.settings.clone(), self.attempts, self.tried)));
    }

    fn call(&self, kind: call::Type) -> Call {
        Call {
            executor_id: self.settings.executor_id.clone(),
            framework_id: self.settings.framework_id.clone(),
            r#type: Some(kind.into()),
            ..Call::default()
        }
    }

    fn subscription(&self) -> Call {
        let unconfirmed = self.tasks.values().filter(|task| !task.confirmed).map(|task| task.info.clone());
        let updates = self.updates.iter().map(|pending| call::Update { status: pending.status.clone() });
        let subscribe = call::Subscribe { unacknowledged_tasks: unconfirmed.collect(), unacknowledged_updates: updates.collect() };
        Call { subscribe: Some(subscribe), ..self.call(call::Type::Subscribe) }
    }

    fn update_call(&self, status: TaskStatus) -> Call {
        Call { update: Some(call::Update { status }), ..self.call(call::Type::Update) }
    }

    fn event(&mut self, event: Event) {
        match event.r#type.map(event::Type::try_from) {
            Some(Ok(event::Type::Subscribed)) => {
                if let Some(subscribed) = event.subscribed {
                    self.executor = Some(subscribed.executor_info);
                    self.framework = Some(subscribed.framework_info);
                    self.container_id = subscribed.container_id;
                }
            }
            Some(Ok(event::Type::LaunchGroup)) => {
                if let Some(launch) = event.launch_group {
                    self.launch(launch.task_group);
                }
            }
            Some(Ok(event::Type::Launch)) => {
                if let Some(launch) = event.launch {
                    self.launch(TaskGroupInfo { tasks: vec![launch.task] });
                }
            }
            Some(Ok(event::Type::Kill)) => {
                if let Some(kill) = event.kill
                    && let Some(task) = self.tasks.get(&kill.task_id.value)
                {
                    let grace = task.grace(kill.kill_policy.as_ref());
                    self.kill(&kill.task_id.value, Cause::Wanted, grace);
                }
            }
            Some(Ok(event::Type::Acknowledged)) => {
                if let Some(acknowledged) = event.acknowledged {
                    self.acknowledged(&acknowledged);
                }
            }
            Some(Ok(event::Type::Shutdown)) => self.end_all(),
            Some(Ok(event::Type::Error)) => {
                let why = event.error.map(|error| error.message).unwrap_or_default();
                self.lose(&format!("it reports an error: {why}"));
            }
            // Nothing is asked of us; what newer agents may send is not ours to understand.
            Some(Ok(event::Type::Message | event::Type::Heartbeat | event::Type::Unknown) | Err(_)) | None => {}
        }
    }

    fn acknowledged(&mut self, acknowledged: &event::Acknowledged) {
        self.updates.retain(|pending| pending.status.uuid.as_ref() != Some(&acknowledged.uuid));
        if let Some(task) = self.tasks.get_mut(&acknowledged.task_id.value) {
            task.confirmed = true;
        }
    }

    /// Makes an update for a task, to be kept until the agent has stored it.
    pub(super) fn report(&mut self, id: &str, change: impl FnOnce(&mut TaskStatus), state: TaskState) {
        let Some(task) = self.tasks.get(id) else { return };
        let mut status = status::new(&task.info.task_id, &self.settings.executor_id, state);
        status.agent_id = Some(task.info.agent_id.clone());
        status.container_status = Some(status::container(&task.container, self.container_id.as_ref()));
        change(&mut status);
        self.numbered += 1;
        if let Link::Up(session) = &self.link {
            session.send(&self.update_call(status.clone()));
        }
        self.updates.push_back(Pending { number: self.numbered, status });
    }

    /// Asks a container to end: SIGTERM now, SIGKILL after `grace`. Once asked, it is not asked again.
    pub(super) fn kill(&mut self, id: &str, cause: Cause, grace: Duration) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if let (Phase::Starting, group) = (&task.phase, task.group) {
            return self.stop_fetching(group);
        }
        let Phase::Running { pid } = task.phase else { return };
        task.phase = Phase::Killing { pid, cause, kill_at: Instant::now() + grace };
        super::launch::stop_checks(task);
        if cause == Cause::Wanted && self.announces_kills() {
            self.report(id, |_| {}, TaskState::TaskKilling);
        }
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }

    fn announces_kills(&self) -> bool {
        let wanted = framework_info::capability::Type::TaskKillingState;
        let capabilities = self.framework.as_ref().map(|framework| framework.capabilities.as_slice()).unwrap_or_default();
        capabilities.iter().any(|capability| capability.r#type == Some(wanted.into()))
    }

    /// Acts on what is overdue: SIGKILL after the grace, and the end of those that run too long.
    fn enforce(&mut self, now: Instant) {
        let late: Vec<String> =
            self.tasks.iter().filter(|(_, task)| task.deadline().is_some_and(|at| at <= now)).map(|(id, _)| id.clone()).collect();
        for id in late {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            match &mut task.phase {
                Phase::Killing { pid, kill_at, .. } => {
                    *kill_at = now + Duration::from_secs(1);
                    // Its first process leads a session and a group of its own.
                    let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
                    let _ = rustix::process::kill_process(*pid, Signal::KILL);
                }
                Phase::Running { .. } => self.kill(&id, Cause::TooLong, Duration::ZERO),
                Phase::Starting | Phase::Sweeping { .. } | Phase::Ended => {}
            }
        }
    }

    /// Waits for every child that has ended: containers, checks, fetchers' helpers, and orphans that have become ours.
    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.ended(pid, exit);
        }
        self.sweep(Instant::now());
        self.note_farewell();
    }

    fn ended(&mut self, pid: Pid, exit: WaitStatus) {
        let code = exit.exit_status().unwrap_or_else(|| 128 + exit.terminating_signal().unwrap_or(0));
        for task in self.tasks.values_mut() {
            if let Some(probe) = task.probe.take_if(|probe| probe.pid == pid) {
                let _ = probe.reply.send(Ok(code));
                return;
            }
        }
        let helper = self.fetching.values_mut().find_map(|fetching| fetching.helper.take_if(|helper| helper.pid == pid));
        if let Some(helper) = helper {
            let _ = helper.reply.send(Ok(code));
            return;
        }
        let Some((id, task)) = self.tasks.iter_mut().find(|(_, task)| task.pid() == Some(pid)) else { return };
        let (id, ending) = (id.clone(), task.ending(exit));
        super::launch::stop_checks(task);
        task.phase = Phase::Sweeping { pid, ending: ending.clone(), give_up: Instant::now() + super::launch::SWEEP };
        self.pull_down(&id, &ending);
    }

    /// A task that failed or was killed takes its siblings with it, those not already on their way.
    pub(super) fn pull_down(&mut self, id: &str, ending: &Ending) {
        if ending.state == TaskState::TaskFinished {
            return;
        }
        let Some(group) = self.tasks.get(id).map(|task| task.group) else { return };
        let siblings: Vec<String> = self.tasks.iter().filter(|(_, task)| task.group == group).map(|(id, _)| id.clone()).collect();
        for sibling in siblings {
            self.kill(&sibling, Cause::Wanted, super::task::DEFAULT_GRACE);
        }
    }
}

/// Waits until another attempt is worth it: at once when the agent has written a new address, else with
/// a growing pause. The agent always writes one when it starts, so that file is looked at often, and a
/// port without a listener seldom.
async fn reconnect(settings: Settings, attempts: u32, tried: Option<Edition>) {
    // An agent that has come back waits for its executors as long as it said that they shall pause at most: no executor
    // must sleep through that.
    let longest = if settings.address_file.is_some() { Duration::from_secs(15) } else { settings.backoff_max / 4 };
    let pause = Duration::from_millis(50).saturating_mul(1 << attempts.min(10)).min(longest);
    let until = Instant::now() + pause;
    let look = if attempts < 8 { Duration::from_millis(50) } else { Duration::from_millis(250) };
    while settings.edition() == tried && Instant::now() < until {
        sleep_until(until.min(Instant::now() + look)).await;
    }
}
