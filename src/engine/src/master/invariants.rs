//! Random histories of a master: whatever happens in whatever order, its books agree with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podium_proto::mesos::v1::allocator::inverse_offer_status::Status;
use podium_proto::mesos::v1::maintenance::{Schedule, Window};
use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::resource::{DiskInfo, ReservationInfo, disk_info::Persistence};
use podium_proto::mesos::v1::scheduler::{Event, call};
use podium_proto::mesos::v1::{
    AgentId, AgentInfo, CommandInfo, DrainConfig, DrainState, ExecutorId, ExecutorInfo, Filters, FrameworkId, FrameworkInfo, MachineId,
    OfferId, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskState, TaskStatus, Unavailability, Volume, executor_info, volume,
};
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::offers::Scalars;
use super::state::{Now, Settings, State};
use super::stock::Stock;
use crate::link::{FromAgent, KnownExecutor, ToAgent};

const AGENTS: u8 = 3;
const FRAMEWORKS: u8 = 3;
const ROLES: [&str; 2] = ["a", "b"];

/// Something that happens; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Happening {
    Register(u8),
    Lose(u8),
    Subscribe(u8),
    Disconnect(u8),
    Teardown(u8),
    Accept {
        offer: usize,
        tasks: usize,
        cpus: i64,
        refuse: bool,
    },
    Decline {
        offer: usize,
        refuse: bool,
    },
    /// RESERVE or CREATE of so many thousandths, or UNRESERVE or DESTROY of something that is there.
    Convert {
        offer: usize,
        kind: operation::Type,
        amount: i64,
    },
    Revive(u8),
    Suppress(u8),
    Update {
        task: usize,
        state: TaskState,
    },
    Acknowledge {
        task: usize,
    },
    Kill {
        task: usize,
    },
    Recovering(u8),
    ExecutorEnds {
        executor: usize,
    },
    MarkGone(u8),
    Drain {
        agent: u8,
        gone: bool,
    },
    Deactivate(u8),
    Reactivate(u8),
    /// The machines whose bits are set.
    Schedule(u8),
    TakeDown(u8),
    BringUp(u8),
    AnswerInverse {
        offer: usize,
        refuse: bool,
    },
    Later {
        milliseconds: u64,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let states = prop::sample::select(vec![
        TaskState::TaskRunning,
        TaskState::TaskFinished,
        TaskState::TaskFailed,
        TaskState::TaskKilled,
        TaskState::TaskKilling,
    ]);
    let kinds = prop::sample::select(vec![
        operation::Type::Reserve,
        operation::Type::Reserve,
        operation::Type::Create,
        operation::Type::Create,
        operation::Type::Unreserve,
        operation::Type::Destroy,
    ]);
    prop_oneof![
        4 => (0..AGENTS).prop_map(Happening::Register),
        2 => (0..AGENTS).prop_map(Happening::Lose),
        4 => (0..FRAMEWORKS).prop_map(Happening::Subscribe),
        2 => (0..FRAMEWORKS).prop_map(Happening::Disconnect),
        1 => (0..FRAMEWORKS).prop_map(Happening::Teardown),
        9 => (any::<usize>(), 0_usize..4, 1_i64..3000, any::<bool>())
            .prop_map(|(offer, tasks, cpus, refuse)| Happening::Accept { offer, tasks, cpus, refuse }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(offer, refuse)| Happening::Decline { offer, refuse }),
        6 => (any::<usize>(), kinds, 1_i64..3000).prop_map(|(offer, kind, amount)| Happening::Convert { offer, kind, amount }),
        2 => (0..FRAMEWORKS).prop_map(Happening::Revive),
        1 => (0..FRAMEWORKS).prop_map(Happening::Suppress),
        8 => (any::<usize>(), states).prop_map(|(task, state)| Happening::Update { task, state }),
        6 => any::<usize>().prop_map(|task| Happening::Acknowledge { task }),
        4 => any::<usize>().prop_map(|task| Happening::Kill { task }),
        1 => (0..AGENTS).prop_map(Happening::Recovering),
        3 => any::<usize>().prop_map(|executor| Happening::ExecutorEnds { executor }),
        1 => (0..AGENTS).prop_map(Happening::MarkGone),
        2 => (0..AGENTS, prop::bool::weighted(0.2)).prop_map(|(agent, gone)| Happening::Drain { agent, gone }),
        1 => (0..AGENTS).prop_map(Happening::Deactivate),
        3 => (0..AGENTS).prop_map(Happening::Reactivate),
        3 => (0_u8..1 << AGENTS).prop_map(Happening::Schedule),
        2 => (0..AGENTS).prop_map(Happening::TakeDown),
        3 => (0..AGENTS).prop_map(Happening::BringUp),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(offer, refuse)| Happening::AnswerInverse { offer, refuse }),
        6 => (0_u64..2000).prop_map(|milliseconds| Happening::Later { milliseconds }),
    ]
}

/// A master and what would be around it.
struct World {
    state: State,
    now: Now,
    links: Vec<mpsc::Receiver<ToAgent>>,
    streams: Vec<mpsc::Receiver<Box<Event>>>,
    /// What each agent would tell when it registers.
    running: BTreeMap<String, Vec<KnownExecutor>>,
    /// What is reserved on each agent, as it was told.
    checkpointed: BTreeMap<String, Vec<Resource>>,
    launched: usize,
}

/// Of the agent with this id.
fn machine(agent: &str) -> MachineId {
    MachineId { hostname: Some(agent.to_owned()), ip: Some("127.0.0.1".to_owned()) }
}

fn pick<T>(items: Vec<T>, index: usize) -> Option<T> {
    let index = index.checked_rem(items.len())?;
    items.into_iter().nth(index)
}

impl World {
    fn new() -> Self {
        let now = Now { instant: Instant::now(), wall: Duration::from_secs(1_700_000_000) };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 5050));
        let state = State::new(Settings::default(), "master".to_owned(), address, now);
        Self { state, now, links: Vec::new(), streams: Vec::new(), running: BTreeMap::new(), checkpointed: BTreeMap::new(), launched: 0 }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        let framework = |number: u8| format!("f{number}");
        let agent = |number: u8| format!("s{number}");
        match happening {
            Happening::Register(number) => self.register(&agent(number)),
            Happening::Lose(number) => self.state.agent_message(FromAgent::Lost { agent_id: AgentId { value: agent(number) } }, now),
            Happening::Subscribe(number) => self.subscribe(&framework(number), usize::from(number)),
            Happening::Disconnect(number) => self.state.disconnect(&framework(number), now),
            Happening::Teardown(number) => self.state.remove_framework(&framework(number), now),
            Happening::Accept { offer, tasks, cpus, refuse } => self.accept(offer, tasks, cpus, refuse),
            Happening::Decline { offer, refuse } => {
                if let Some((id, framework)) = self.offer(offer) {
                    self.state.decline(&framework, vec![OfferId { value: id }], filters(refuse), now);
                }
            }
            Happening::Convert { offer, kind, amount } => self.convert(offer, kind, amount),
            Happening::Revive(number) => self.state.revive(&framework(number), &[], now),
            Happening::Suppress(number) => self.state.suppress(&framework(number), &[]),
            Happening::Update { task, state } => self.update(task, state),
            Happening::Acknowledge { task } => self.acknowledge(task),
            Happening::Kill { task } => self.kill(task),
            Happening::Recovering(number) => {
                self.state.agent_message(FromAgent::Recovering { agent_id: AgentId { value: agent(number) } }, now);
            }
            Happening::ExecutorEnds { executor } => self.executor_ends(executor),
            Happening::MarkGone(number) => drop(self.state.mark_gone(&agent(number), now)),
            Happening::Drain { agent: number, gone } => {
                let config = DrainConfig { max_grace_period: None, mark_gone: Some(gone) };
                // What operators are refused is for other tests.
                let _ = self.state.drain(&agent(number), config, now);
            }
            Happening::Deactivate(number) => drop(self.state.deactivate(&agent(number), now)),
            Happening::Reactivate(number) => drop(self.state.reactivate(&agent(number), now)),
            Happening::Schedule(machines) => {
                let chosen = (0..AGENTS).filter(|number| machines & (1 << number) != 0);
                let machine_ids: Vec<MachineId> = chosen.map(|number| machine(&agent(number))).collect();
                let unavailability = Unavailability { start: now.time_info(), duration: None };
                let windows = if machine_ids.is_empty() { Vec::new() } else { vec![Window { machine_ids, unavailability }] };
                let _ = self.state.update_schedule(Schedule { windows }, now);
            }
            Happening::TakeDown(number) => {
                // What runs there ends when it does: see `ExecutorEnds`.
                let _ = self.state.start_maintenance(&[machine(&agent(number))], now);
            }
            Happening::BringUp(number) => drop(self.state.stop_maintenance(&[machine(&agent(number))], now)),
            Happening::AnswerInverse { offer, refuse } => {
                let asked = self.state.inverse_offers.iter().map(|(_, offer)| (offer.id.clone(), offer.framework_id.value.clone()));
                if let Some((id, framework)) = pick(asked.collect(), offer) {
                    let status = if refuse { Status::Decline } else { Status::Accept };
                    self.state.answer_inverse_offers(&framework, &[id], status, filters(refuse), now);
                }
            }
            Happening::Later { milliseconds } => {
                let step = Duration::from_millis(milliseconds);
                self.now = Now { instant: now.instant + step, wall: now.wall + step };
            }
        }
        self.state.advance(self.now);
    }

    fn register(&mut self, id: &str) {
        let (link, messages) = mpsc::channel(1000);
        self.links.push(messages);
        let ports = std::iter::once(1000..=1100).collect();
        let info = AgentInfo {
            id: Some(AgentId { value: id.to_owned() }),
            hostname: id.to_owned(),
            resources: vec![
                scalar_entry("cpus", 4000),
                scalar_entry("mem", 4_000_000),
                scalar_entry("disk", 9_000_000),
                ranges_entry("ports", &ports),
            ],
            ..AgentInfo::default()
        };
        let executors = self.running.get(id).cloned().unwrap_or_default();
        let address = self.state.address;
        let checkpointed = self.checkpointed.get(id).cloned().unwrap_or_default();
        self.state.agent_message(FromAgent::Register { info: Box::new(info), address, executors, checkpointed, link }, self.now);
    }

    fn subscribe(&mut self, id: &str, number: usize) {
        let framework_info = FrameworkInfo {
            user: "u".to_owned(),
            name: id.to_owned(),
            id: Some(FrameworkId { value: id.to_owned() }),
            #[allow(deprecated)]
            role: ROLES.get(number % 2).map(|role| (*role).to_owned()),
            failover_timeout: Some(1.0),
            ..FrameworkInfo::default()
        };
        let call = call::Subscribe { framework_info, ..call::Subscribe::default() };
        self.streams.push(self.state.subscribe(call, self.now).events);
    }

    fn offer(&self, index: usize) -> Option<(String, String)> {
        let mut offers: Vec<_> = self.state.offers.iter().map(|(id, offer)| (id.clone(), offer.framework.clone())).collect();
        offers.sort();
        pick(offers, index)
    }

    fn accept(&mut self, index: usize, count: usize, cpus: i64, refuse: bool) {
        let Some((id, framework)) = self.offer(index) else { return };
        let Some(agent) = self.state.offers.get(&id).map(|offer| offer.agent.clone()) else { return };
        self.launched += 1;
        let executor = ExecutorInfo {
            executor_id: ExecutorId { value: format!("e{}", self.launched) },
            framework_id: Some(FrameworkId { value: framework.clone() }),
            r#type: Some(executor_info::Type::Default.into()),
            resources: vec![scalar_entry("cpus", 10), scalar_entry("mem", 32_000), scalar_entry("disk", 1000)],
            ..ExecutorInfo::default()
        };
        let tasks: Vec<TaskInfo> = (0..count)
            .map(|task| TaskInfo {
                task_id: TaskId { value: format!("t{}-{task}", self.launched) },
                agent_id: AgentId { value: agent.clone() },
                resources: vec![scalar_entry("cpus", cpus)],
                ..TaskInfo::default()
            })
            .collect();
        let group = operation::LaunchGroup { executor, task_group: TaskGroupInfo { tasks } };
        let launch = Operation { r#type: Some(operation::Type::LaunchGroup.into()), launch_group: Some(group), ..Operation::default() };
        let accept = call::Accept { offer_ids: vec![OfferId { value: id }], operations: vec![launch], filters: filters(refuse) };
        self.state.accept(&framework, accept, self.now);
        self.collect(&agent);
    }

    fn convert(&mut self, index: usize, kind: operation::Type, amount: i64) {
        let Some((id, framework)) = self.offer(index) else { return };
        let Some((agent, role, held)) =
            self.state.offers.get(&id).map(|offer| (offer.agent.clone(), offer.role.clone(), offer.amounts.reserved().to_vec()))
        else {
            return;
        };
        self.launched += 1;
        let reservation = ReservationInfo { r#type: Some(2), role: Some(role), ..ReservationInfo::default() };
        let mut disk = Resource { reservations: vec![reservation], ..scalar_entry("disk", amount) };
        let is_volume = |entry: &Resource| entry.disk.is_some();
        let mut operation = Operation { r#type: Some(kind.into()), ..Operation::default() };
        match kind {
            operation::Type::Reserve => operation.reserve = Some(operation::Reserve { resources: vec![disk], source: Vec::new() }),
            operation::Type::Create => {
                let volume = Volume { container_path: "v".to_owned(), mode: volume::Mode::Rw.into(), ..Volume::default() };
                let persistence = Persistence { id: format!("v{}", self.launched % 4), principal: None };
                disk.disk = Some(DiskInfo { persistence: Some(persistence), volume: Some(volume), source: None });
                operation.create = Some(operation::Create { volumes: vec![disk] });
            }
            operation::Type::Unreserve => {
                let resources: Vec<Resource> = held.into_iter().filter(|entry| !is_volume(entry)).collect();
                operation.unreserve = Some(operation::Unreserve { resources });
            }
            _ => operation.destroy = Some(operation::Destroy { volumes: held.into_iter().filter(is_volume).collect() }),
        }
        let accept = call::Accept { offer_ids: vec![OfferId { value: id }], operations: vec![operation], filters: filters(false) };
        self.state.accept(&framework, accept, self.now);
        self.collect(&agent);
    }

    /// What arrives at an agent runs there, also while the master can't see it.
    fn collect(&mut self, agent: &str) {
        for link in &mut self.links {
            while let Ok(message) = link.try_recv() {
                if let ToAgent::CheckpointResources { resources } = &message {
                    self.checkpointed.insert(agent.to_owned(), resources.clone());
                }
                if let ToAgent::RunTaskGroup { framework, executor, group, .. } = message {
                    let staging = |task: &TaskInfo| TaskStatus {
                        task_id: task.task_id.clone(),
                        state: TaskState::TaskStaging.into(),
                        ..TaskStatus::default()
                    };
                    let tasks = group.tasks.into_iter().map(|task| (task.clone(), staging(&task))).collect();
                    self.running.entry(agent.to_owned()).or_default().push(KnownExecutor {
                        executor: *executor,
                        framework: *framework,
                        tasks,
                    });
                }
            }
        }
    }

    /// Agent, framework and task of something that runs.
    fn task(&self, index: usize) -> Option<(String, FrameworkId, TaskId)> {
        let tasks = self.running.iter().flat_map(|(agent, executors)| {
            executors.iter().flat_map(move |known| {
                let framework = known.framework.id.clone().unwrap_or_default();
                known.tasks.iter().map(move |(task, _)| (agent.clone(), framework.clone(), task.task_id.clone()))
            })
        });
        pick(tasks.collect(), index)
    }

    fn update(&mut self, index: usize, state: TaskState) {
        let Some((agent, framework_id, task_id)) = self.task(index) else { return };
        let known = self.running.values_mut().flatten().flat_map(|known| &mut known.tasks).find(|(task, _)| task.task_id == task_id);
        let Some((_, status)) = known else { return };
        if TaskState::try_from(status.state).is_ok_and(super::tasks::is_terminal) {
            return;
        }
        status.state = state.into();
        status.uuid = Some(bytes::Bytes::from(task_id.value.clone()));
        let status = Box::new(status.clone());
        if self.state.agents.contains_key(&agent) {
            let update = FromAgent::Update { agent_id: AgentId { value: agent }, framework_id, status, latest: state };
            self.state.agent_message(update, self.now);
        }
    }

    fn kill(&mut self, index: usize) {
        let Some((agent, framework, task_id)) = self.task(index) else { return };
        let agent_id = Some(AgentId { value: agent.clone() });
        self.state.kill(&framework.value, call::Kill { task_id, agent_id, kill_policy: None }, self.now);
        let waits = self.state.put_off_kills.iter().any(|(_, kill)| kill.agent_id.as_ref().is_some_and(|id| id.value == agent));
        assert!(!waits || self.state.recovering.contains(&agent), "a kill waits for an agent that is here");
    }

    fn acknowledge(&mut self, index: usize) {
        let Some((agent, framework, task_id)) = self.task(index) else { return };
        let uuid = bytes::Bytes::from(task_id.value.clone());
        let acknowledge = call::Acknowledge { agent_id: AgentId { value: agent.clone() }, task_id: task_id.clone(), uuid };
        self.state.acknowledge(&framework.value, acknowledge, self.now);
        for known in self.running.get_mut(&agent).into_iter().flatten() {
            known.tasks.retain(|(task, status)| {
                task.task_id != task_id || !TaskState::try_from(status.state).is_ok_and(super::tasks::is_terminal)
            });
        }
    }

    fn executor_ends(&mut self, index: usize) {
        let executors = self.running.iter().flat_map(|(agent, known)| {
            known
                .iter()
                .map(move |known| (agent.clone(), known.framework.id.clone().unwrap_or_default(), known.executor.executor_id.clone()))
        });
        let Some((agent, framework_id, executor_id)) = pick(executors.collect(), index) else { return };
        if let Some(known) = self.running.get_mut(&agent) {
            known.retain(|known| known.executor.executor_id != executor_id);
        }
        if self.state.agents.contains_key(&agent) || self.state.down.contains_key(&agent) {
            let exited = FromAgent::ExecutorExited { agent_id: AgentId { value: agent }, framework_id, executor_id, status: 0 };
            self.state.agent_message(exited, self.now);
        }
    }

    /// Executors by framework.
    fn runs_on(&self, agent: &str) -> BTreeSet<(String, String)> {
        let known = self.running.get(agent).into_iter().flatten();
        known.map(|known| (known.framework.id.clone().unwrap_or_default().value, known.executor.executor_id.value.clone())).collect()
    }

    fn check(&self) {
        self.check_agents();
        self.check_frameworks();
        self.check_filters();
        self.check_operators_words();
        for (id, offer) in &self.state.offers {
            assert!(self.state.agents.get(&offer.agent).is_some_and(|agent| agent.offers.contains(id)), "offer {id} of no agent");
            let framework = self.state.frameworks.get(&offer.framework);
            assert!(framework.is_some_and(|framework| framework.offers.contains(id) && framework.stream.is_some()), "offer {id} to nobody");
        }
    }

    /// Each agent with a filter is considered again when its earliest ends, by one timer.
    fn check_filters(&self) {
        assert!(self.state.count_filter_timers() <= self.state.agents.len(), "more timers than agents");
        for agent in self.state.agents.keys() {
            let filters =
                self.state.frameworks.iter().flat_map(|framework| framework.filters.values()).filter_map(|agents| agents.get(agent));
            let earliest = filters.flatten().map(|filter| filter.until).filter(|until| *until > self.now.instant).min();
            if let Some(earliest) = earliest {
                assert!(self.state.next_filter(agent).is_some_and(|timer| timer <= earliest), "{agent} is forgotten after its filter");
            }
        }
    }

    /// Nothing is offered that is not to be, nobody is asked who need not be, and what is empty counts as such.
    fn check_operators_words(&self) {
        let state = &self.state;
        for agent in state.agents.values() {
            assert!(agent.offers.is_empty() || !state.deactivated.contains(&agent.id), "{} is offered", agent.id);
            assert!(
                !state.down.contains_key(&agent.id) && !state.maintenance.is_down(&machine(&agent.id)),
                "{} is on a machine that is down",
                agent.id
            );
            let draining = state.draining.get(&agent.id).filter(|drain| drain.info.state == i32::from(DrainState::Draining));
            assert!(draining.is_none() || !agent.tasks.is_empty(), "{} is drained", agent.id);
        }
        assert!(state.draining.keys().all(|id| state.deactivated.contains(id)), "an agent is drained and offered");
        for agent in state.agents.values() {
            let mut runs = self.runs_on(&agent.id).into_iter().filter(|(framework, _)| state.frameworks.get(framework).is_some());
            let booked =
                |(framework, executor): &(String, String)| agent.executors.get(framework).is_some_and(|own| own.contains_key(executor));
            assert_eq!(runs.find(|one| !booked(one)), None, "{} is offered with what runs there", agent.id);
        }
        for out in state.down.values() {
            let (id, runs) = (&out.id, self.runs_on(&out.id));
            assert!(out.ending.is_subset(&runs), "{id} is waited for although that has ended");
            // What a framework ran that is no more is nobody's: its resources were free at once.
            let lost = runs.difference(&out.ending).find(|(framework, _)| state.frameworks.get(framework).is_some());
            assert_eq!(lost, None, "the master has lost sight of what ends on {id}");
            assert!(!out.ending.is_empty() || state.maintenance.is_down(&machine(id)), "{id} waits for a machine that is up");
        }
        assert!(state.inverse_offers.agree(), "a question cannot be answered");
        for ((agent, framework), offer) in state.inverse_offers.iter() {
            let agent = state.agents.get(agent).filter(|agent| !state.deactivated.contains(&agent.id));
            let unavailability = agent.and_then(|agent| state.maintenance.unavailability(agent));
            assert_eq!(unavailability.as_ref(), Some(&offer.unavailability), "{framework} is asked about an agent that stays");
            assert!(state.frameworks.get(framework).is_some_and(|framework| framework.stream.is_some()), "{framework} is not here");
        }
    }

    fn check_agents(&self) {
        for agent in self.state.agents.values() {
            let executors = agent.executors.values().flat_map(BTreeMap::values).map(|record| &record.amounts);
            let here = self.state.frameworks.iter().flat_map(|framework| framework.tasks.values());
            let here: Vec<_> = here.filter(|record| record.task.agent_id.value == agent.id).collect();
            let mut used = Stock::default();
            executors
                .chain(here.iter().filter(|record| !record.released).map(|record| &record.amounts))
                .for_each(|amounts| used.add(amounts));
            assert_eq!(agent.allocated, used, "allocated on {}", agent.id);
            let mut offered = Stock::default();
            agent.offers.iter().filter_map(|id| self.state.offers.get(id)).for_each(|offer| offered.add(&offer.amounts));
            assert_eq!(agent.offered, offered, "offered of {}", agent.id);
            used.add(&offered);
            assert!(agent.total.contains(&used), "{} promised more than it has", agent.id);
            let sum = agent.total.sum();
            assert_eq!((sum.cpus, sum.mem, sum.disk), (4000, 4_000_000, 9_000_000), "what is reserved is still there, and no more");
            let told = Stock::of(self.checkpointed.get(&agent.id).map_or(&[], Vec::as_slice));
            assert!(told == Stock::of(agent.total.reserved()), "the agent was told what is reserved on {}", agent.id);
            assert_eq!(agent.tasks.values().map(std::collections::BTreeSet::len).sum::<usize>(), here.len(), "tasks on {}", agent.id);
        }
    }

    fn check_frameworks(&self) {
        for framework in self.state.frameworks.iter() {
            let mut used: BTreeMap<String, Scalars> = BTreeMap::new();
            let tasks = framework.tasks.values().filter(|record| !record.released).map(|record| (&record.role, &record.amounts));
            let executors = self.state.agents.values().filter_map(|agent| agent.executors.get(&framework.id)).flat_map(BTreeMap::values);
            let offers = framework.offers.iter().filter_map(|id| self.state.offers.get(id)).map(|offer| (&offer.role, &offer.amounts));
            for (role, amounts) in tasks.chain(executors.map(|record| (&record.role, &record.amounts))).chain(offers) {
                used.entry(role.clone()).or_default().add(amounts);
            }
            for (role, allocated) in &framework.allocated {
                assert_eq!(*allocated, used.get(role).copied().unwrap_or_default(), "of {} in {role}", framework.id);
            }
            assert!(used.keys().all(|role| framework.allocated.contains_key(role)), "{} has a role that is not booked", framework.id);
        }
    }
}

fn filters(refuse: bool) -> Option<Filters> {
    Some(Filters { refuse_seconds: Some(if refuse { 1.0 } else { 0.0 }) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_books_agree_whatever_happens(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        world.happen(Happening::Register(0));
        world.happen(Happening::Subscribe(0));
        for happening in happenings {
            world.happen(happening);
            world.check();
        }
    }
}

#[test]
fn many_declines_leave_one_timer_an_agent_and_a_removed_agent_none() {
    let mut world = World::new();
    world.happen(Happening::Register(0));
    world.happen(Happening::Register(1));
    for number in 0..FRAMEWORKS {
        world.happen(Happening::Subscribe(number));
    }
    let mut declined = 0;
    for round in 0..300 {
        world.happen(Happening::Later { milliseconds: 3 });
        declined += usize::from(world.offer(round).is_some());
        world.happen(Happening::Decline { offer: round, refuse: true });
        for number in 0..FRAMEWORKS {
            world.happen(Happening::Revive(number));
        }
        world.check();
    }
    assert!(declined > 200, "{declined}");
    assert_eq!(world.state.count_filter_timers(), 2);
    world.happen(Happening::Lose(0));
    assert_eq!(world.state.count_filter_timers(), 1);
    // All that was refused is forgotten by now: so is the timer, once it has fired.
    world.happen(Happening::Later { milliseconds: 1001 });
    assert_eq!(world.state.count_filter_timers(), 0);
}

#[test]
fn a_kill_is_repeated_to_an_agent_that_comes_back_with_the_task() {
    let mut world = World::new();
    world.happen(Happening::Register(0));
    world.happen(Happening::Subscribe(0));
    world.happen(Happening::Later { milliseconds: 1000 });
    world.happen(Happening::Accept { offer: 0, tasks: 1, cpus: 10, refuse: false });
    world.happen(Happening::Kill { task: 0 });
    let kills = |link: &mut mpsc::Receiver<ToAgent>| {
        std::iter::from_fn(|| link.try_recv().ok()).filter(|message| matches!(message, ToAgent::KillTask { .. })).count()
    };
    assert_eq!(kills(&mut world.links[0]), 1);
    // The agent crashes before it has acted: its link is closed, and another registers.
    world.links[0].close();
    world.happen(Happening::Register(0));
    assert_eq!(kills(&mut world.links[1]), 1);
    world.happen(Happening::Kill { task: 0 });
    assert_eq!(kills(&mut world.links[1]), 1, "forwarded each time it is sent");
}

#[test]
fn an_agent_of_a_machine_that_is_up_again_is_offered_when_nothing_is_left_of_what_it_ran() {
    let mut world = World::new();
    let is_offered = |world: &World| world.state.agents.get("s0").is_some_and(|agent| !agent.offers.is_empty());
    world.happen(Happening::Register(0));
    world.happen(Happening::Subscribe(0));
    world.happen(Happening::Accept { offer: 0, tasks: 1, cpus: 1, refuse: false });
    assert_eq!(world.runs_on("s0").len(), 1);
    for happening in [Happening::Schedule(1), Happening::TakeDown(0), Happening::BringUp(0)] {
        world.happen(happening);
        world.check();
    }
    assert!(!is_offered(&world), "what it runs still ends");
    world.happen(Happening::ExecutorEnds { executor: 0 });
    world.check();
    assert!(is_offered(&world));
}

#[test]
fn an_agent_that_was_away_stays_so_while_its_machine_is_down() {
    let mut world = World::new();
    world.happen(Happening::Register(0));
    world.happen(Happening::Subscribe(0));
    world.happen(Happening::Accept { offer: 0, tasks: 1, cpus: 1, refuse: false });
    for happening in [Happening::Schedule(1), Happening::Lose(0), Happening::TakeDown(0), Happening::Register(0)] {
        world.happen(happening);
        world.check();
    }
    assert!(world.state.unreachable.contains_key("s0"), "its tasks are unreachable still");
    for happening in [Happening::BringUp(0), Happening::ExecutorEnds { executor: 0 }] {
        world.happen(happening);
        world.check();
    }
    assert!(world.state.agents.contains_key("s0") && world.state.unreachable.is_empty());
}

#[test]
fn who_takes_a_subscription_over_is_asked_what_the_other_has_refused() {
    let mut world = World::new();
    for happening in [Happening::Register(0), Happening::Subscribe(0), Happening::Schedule(1)] {
        world.happen(happening);
    }
    assert_eq!(world.state.inverse_offers.iter().count(), 1);
    world.happen(Happening::AnswerInverse { offer: 0, refuse: true });
    assert_eq!(world.state.inverse_offers.iter().count(), 0);
    world.happen(Happening::Subscribe(0));
    world.check();
    assert_eq!(world.state.inverse_offers.iter().count(), 1);
}

#[test]
fn an_agent_that_comes_back_to_a_machine_that_is_down_is_not_waited_for() {
    let mut world = World::new();
    for happening in [Happening::Register(0), Happening::Subscribe(0), Happening::Schedule(1), Happening::TakeDown(0)] {
        world.happen(happening);
    }
    // It was started again: nobody knows of it but by its own word.
    for happening in [Happening::Recovering(0), Happening::Register(0)] {
        world.happen(happening);
        world.check();
    }
    assert!(world.state.recovering.is_empty(), "reconciliation would be silent until the machine is up");
    world.happen(Happening::BringUp(0));
    for happening in [Happening::Schedule(1), Happening::Lose(0), Happening::TakeDown(0), Happening::Recovering(0), Happening::Register(0)]
    {
        world.happen(happening);
        world.check();
    }
    assert!(world.state.unreachable.contains_key("s0") && world.state.recovering.is_empty(), "its tasks are unreachable still");
}

#[test]
fn an_agent_that_is_taken_out_hears_what_it_is_to_end_although_its_link_was_full() {
    for end in [vec![Happening::MarkGone(0)], vec![Happening::Schedule(1), Happening::TakeDown(0)]] {
        let (mut world, _) = with_a_lone_task();
        let agent = world.state.agents.get_mut("s0").unwrap();
        while agent.send(ToAgent::CheckpointResources { resources: Vec::new() }) {}
        for happening in end {
            world.happen(happening);
        }
        let mut is_told_to_end = || {
            world.state.advance(world.now);
            let mut messages = std::iter::from_fn(|| world.links[0].try_recv().ok());
            messages.any(|message| matches!(message, ToAgent::ShutdownFramework { .. }))
        };
        assert!(!is_told_to_end(), "there was room");
        assert!(is_told_to_end(), "it was lost");
    }
}

#[test]
fn a_lone_task_ends_with_its_machine_or_agent_as_well() {
    let (mut world, framework) = with_a_lone_task();
    for happening in [Happening::Schedule(1), Happening::TakeDown(0), Happening::BringUp(0)] {
        world.happen(happening);
    }
    let is_told_to_end = |world: &mut World| {
        let mut messages = std::iter::from_fn(|| world.links[0].try_recv().ok());
        messages.any(|message| matches!(message, ToAgent::ShutdownFramework { .. }))
    };
    assert!(is_told_to_end(&mut world));
    assert!(!world.state.agents.contains_key("s0"), "it may still run");
    let exited = FromAgent::ExecutorExited {
        agent_id: AgentId { value: "s0".to_owned() },
        framework_id: FrameworkId { value: framework },
        executor_id: ExecutorId { value: "lone".to_owned() },
        status: 0,
    };
    world.state.agent_message(exited, world.now);
    assert!(world.state.agents.contains_key("s0"));

    let (mut world, _) = with_a_lone_task();
    world.happen(Happening::MarkGone(0));
    assert!(is_told_to_end(&mut world));
}

fn with_a_lone_task() -> (World, String) {
    let mut world = World::new();
    world.happen(Happening::Register(0));
    world.happen(Happening::Subscribe(0));
    let (id, framework) = world.offer(0).unwrap();
    let task = TaskInfo {
        task_id: TaskId { value: "lone".to_owned() },
        agent_id: AgentId { value: "s0".to_owned() },
        resources: vec![scalar_entry("cpus", 10), scalar_entry("mem", 32_000)],
        command: Some(CommandInfo { value: Some("true".to_owned()), ..CommandInfo::default() }),
        ..TaskInfo::default()
    };
    let launch = Some(operation::Launch { task_infos: vec![task] });
    let launch = Operation { r#type: Some(operation::Type::Launch.into()), launch, ..Operation::default() };
    let accept = call::Accept { offer_ids: vec![OfferId { value: id }], operations: vec![launch], filters: filters(false) };
    world.state.accept(&framework, accept, world.now);
    (world, framework)
}
