//! Machines that are to be taken down: the operators' schedule, which of its machines are down, and what that means for the
//! agents on them. In Mesos' order and words.
//!
//! A machine is known by host name and address together, as an agent has them. While it is down its agents are no agents of
//! this master: in Mesos their processes end, and who starts them again makes new agents of them; here they stay, and register again
//! under their ids when the machine is brought up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use podium_proto::mesos::v1::allocator::InverseOfferStatus;
use podium_proto::mesos::v1::machine_info::Mode;
use podium_proto::mesos::v1::maintenance::{ClusterStatus, Schedule, cluster_status::DrainingMachine};
use podium_proto::mesos::v1::{AgentInfo, FrameworkId, MachineId, Resource, Unavailability};
use serde_json::{Map, Value};

use super::agent_link::AgentLink;
use super::agents::{Agent, Departure};
use super::state::{Now, State};
use super::tasks::is_terminal;

/// Machines that are remembered after their maintenance.
const REMEMBERED_MACHINES: usize = 10_000;

/// Host name and address, as they are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    hostname: Option<String>,
    ip: Option<String>,
}

impl From<&MachineId> for Key {
    fn from(id: &MachineId) -> Self {
        Self { hostname: id.hostname.as_deref().map(str::to_lowercase), ip: id.ip.clone() }
    }
}

/// The machine that an agent runs on.
pub(super) fn machine_of(info: &AgentInfo, address: SocketAddr) -> MachineId {
    MachineId { hostname: Some(info.hostname.clone()), ip: Some(address.ip().to_string()) }
}

fn key_of(agent: &Agent) -> Key {
    Key::from(&machine_of(&agent.info, agent.address))
}

/// An agent whose machine is down, or is up again while the agent still ends what it ran.
#[derive(Debug)]
pub(super) struct DownAgent {
    pub(super) id: String,
    pub(super) info: AgentInfo,
    pub(super) address: SocketAddr,
    /// What of its resources is reserved, with the volumes.
    pub(super) checkpointed: Vec<Resource>,
    pub(super) link: AgentLink,
    /// Executors that were told to end and have not yet, by framework.
    pub(super) ending: BTreeSet<(String, String)>,
}

#[derive(Debug, Clone)]
struct Machine {
    id: MachineId,
    mode: Mode,
    unavailability: Option<Unavailability>,
}

/// What operators have planned.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    schedule: Schedule,
    machines: BTreeMap<Key, Machine>,
    /// What frameworks have answered to inverse offers, by agent and framework.
    answers: BTreeMap<String, BTreeMap<String, InverseOfferStatus>>,
}

impl Maintenance {
    /// As it was kept.
    pub(super) fn new(schedule: Schedule, down: &[MachineId]) -> Self {
        let down: BTreeSet<Key> = down.iter().map(Key::from).collect();
        let mut machines = BTreeMap::new();
        for (id, unavailability) in scheduled(&schedule) {
            let mode = if down.contains(&Key::from(id)) { Mode::Down } else { Mode::Draining };
            machines.insert(Key::from(id), Machine { id: id.clone(), mode, unavailability: Some(*unavailability) });
        }
        Self { schedule, machines, answers: BTreeMap::new() }
    }

    pub(super) const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The machines that are down.
    pub(super) fn down(&self) -> Vec<MachineId> {
        self.machines.values().filter(|machine| machine.mode == Mode::Down).map(|machine| machine.id.clone()).collect()
    }

    /// When the agent's machine is to be taken down.
    pub(super) fn unavailability(&self, agent: &Agent) -> Option<Unavailability> {
        if self.machines.is_empty() {
            return None;
        }
        self.machines.get(&key_of(agent))?.unavailability
    }

    /// Whether the machine is down: its agents may not register.
    pub(super) fn is_down(&self, machine: &MachineId) -> bool {
        self.machines.get(&Key::from(machine)).is_some_and(|machine| machine.mode == Mode::Down)
    }

    /// The name of the agent's machine, if it is in the schedule.
    pub(super) fn scheduled_machine(&self, agent: &Agent) -> Option<String> {
        let key = key_of(agent);
        let (id, _) = scheduled(&self.schedule).find(|(id, _)| Key::from(*id) == key)?;
        Some(match (&id.hostname, &id.ip) {
            (Some(hostname), Some(ip)) => format!("{hostname} ({ip})"),
            (Some(hostname), None) => hostname.clone(),
            (None, ip) => format!("({})", ip.clone().unwrap_or_default()),
        })
    }

    /// Notes what a framework has answered to an inverse offer.
    pub(super) fn note_answer(&mut self, agent: &str, status: InverseOfferStatus) {
        let framework = status.framework_id.value.clone();
        self.answers.entry(agent.to_owned()).or_default().insert(framework, status);
    }

    pub(super) fn forget_answers_of(&mut self, agent: &str) {
        self.answers.remove(agent);
    }

    pub(super) fn forget_framework(&mut self, framework: &FrameworkId) {
        for answers in self.answers.values_mut() {
            answers.remove(&framework.value);
        }
    }

    /// Takes machines that are up again out of the schedule, and windows that are empty then.
    fn unschedule(&mut self, keys: &BTreeSet<Key>) {
        for window in &mut self.schedule.windows {
            window.machine_ids.retain(|id| !keys.contains(&Key::from(id)));
        }
        self.schedule.windows.retain(|window| !window.machine_ids.is_empty());
    }

    fn check_schedule(&self, schedule: &Schedule) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for window in &schedule.windows {
            if window.machine_ids.is_empty() {
                return Err("List of machines in the maintenance window is empty".to_owned());
            }
            if window.unavailability.duration.as_ref().is_some_and(|duration| duration.nanoseconds < 0) {
                return Err("Unavailability 'duration' is negative".to_owned());
            }
            check_machines(&window.machine_ids, &mut seen)?;
        }
        let removed = self.machines.iter().find(|(key, machine)| machine.mode == Mode::Down && !seen.contains(*key));
        removed.map_or(Ok(()), |(_, machine)| {
            Err(format!("Machine '{}' is deactivated and cannot be removed from the schedule", described(&machine.id)))
        })
    }
}

fn scheduled(schedule: &Schedule) -> impl Iterator<Item = (&MachineId, &Unavailability)> {
    schedule.windows.iter().flat_map(|window| window.machine_ids.iter().map(move |id| (id, &window.unavailability)))
}

/// As JSON, which is how Mesos names machines in its answers.
fn described(id: &MachineId) -> String {
    let fields = [("hostname", &id.hostname), ("ip", &id.ip)];
    let told: Map<String, Value> = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into()))).collect();
    Value::Object(told).to_string()
}

/// Each must be a machine, and another one than those seen before.
fn check_machines(ids: &[MachineId], seen: &mut BTreeSet<Key>) -> Result<(), String> {
    for id in ids {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let (hostname, ip) = (given(&id.hostname), given(&id.ip));
        if hostname.is_none() && ip.is_none() {
            return Err("Both 'hostname' and 'ip' for a machine are empty".to_owned());
        }
        if let Some(ip) = ip.filter(|ip| ip.parse::<Ipv4Addr>().is_err()) {
            return Err(format!("Failed to parse IPv4: {ip}"));
        }
        if !seen.insert(Key::from(id)) {
            return Err(format!("Machine '{}' appears more than once in the schedule", described(id)));
        }
    }
    Ok(())
}

fn check_list(ids: &[MachineId]) -> Result<BTreeSet<Key>, String> {
    if ids.is_empty() {
        return Err("List of machines is empty".to_owned());
    }
    let mut seen = BTreeSet::new();
    check_machines(ids, &mut seen)?;
    Ok(seen)
}

impl State {
    /// UPDATE_MAINTENANCE_SCHEDULE: the new one replaces the old. Every agent's offers are made anew, so that they say what is
    /// true now; as in Mesos also those of machines that are not concerned.
    pub(super) fn update_schedule(&mut self, schedule: Schedule, now: Now) -> Result<(), String> {
        self.maintenance.check_schedule(&schedule)?;
        let mut planned: BTreeMap<Key, (MachineId, Unavailability)> =
            scheduled(&schedule).map(|(id, window)| (Key::from(id), (id.clone(), *window))).collect();
        for (key, machine) in &mut self.maintenance.machines {
            let window = planned.remove(key).map(|(_, window)| window);
            machine.mode = match (&window, machine.mode) {
                (None, _) => Mode::Up,
                (Some(_), Mode::Up) => Mode::Draining,
                (Some(_), mode) => mode,
            };
            machine.unavailability = window;
        }
        let fresh = planned.into_iter();
        let fresh = fresh.map(|(key, (id, window))| (key, Machine { id, mode: Mode::Draining, unavailability: Some(window) }));
        self.maintenance.machines.extend(fresh);
        self.maintenance.schedule = schedule;
        self.forget_machines();
        self.unsaved = true;
        let agents: Vec<String> = self.agents.keys().cloned().collect();
        for agent in agents {
            self.availability_changed(&agent, now);
        }
        Ok(())
    }

    fn forget_machines(&mut self) {
        if self.maintenance.machines.len() > REMEMBERED_MACHINES {
            self.maintenance.machines.retain(|_, machine| machine.mode != Mode::Up);
        }
    }

    /// What was offered of the agent, and asked about it, is void: both are done anew.
    fn availability_changed(&mut self, agent_id: &str, now: Now) {
        self.rescind_all_of(agent_id, now);
        self.maintenance.forget_answers_of(agent_id);
        self.forget_inverse_filters_of(agent_id);
        self.reconsider(agent_id, now);
    }

    /// The mode of a machine, if it is known: scheduled now or before, or an agent's.
    fn mode(&self, id: &MachineId) -> Result<Mode, String> {
        let key = Key::from(id);
        if let Some(machine) = self.maintenance.machines.get(&key) {
            return Ok(machine.mode);
        }
        let known = self.agents.values().any(|agent| key_of(agent) == key);
        if known { Ok(Mode::Up) } else { Err(format!("Machine '{}' is not part of a maintenance schedule", described(id))) }
    }

    /// START_MAINTENANCE: the machines are down from now on, their agents gone and what ran there lost.
    pub(super) fn start_maintenance(&mut self, ids: &[MachineId], now: Now) -> Result<(), String> {
        let keys = check_list(ids)?;
        for id in ids {
            if self.mode(id)? != Mode::Draining {
                return Err(format!("Machine '{}' is not in DRAINING mode and cannot be brought down", described(id)));
            }
        }
        let here = |agent: &&Agent| keys.contains(&key_of(agent));
        let agents: Vec<String> = self.agents.values().filter(here).map(|agent| agent.id.clone()).collect();
        for agent in agents {
            self.take_down(&agent, now);
        }
        self.set_mode(&keys, Mode::Down);
        Ok(())
    }

    fn set_mode(&mut self, keys: &BTreeSet<Key>, mode: Mode) {
        for key in keys {
            if let Some(machine) = self.maintenance.machines.get_mut(key) {
                machine.mode = mode;
                if mode == Mode::Up {
                    machine.unavailability = None;
                }
            }
        }
        self.unsaved = true;
    }

    /// STOP_MAINTENANCE: the machines are up and out of the schedule, and their agents may register.
    pub(super) fn stop_maintenance(&mut self, ids: &[MachineId], now: Now) -> Result<(), String> {
        let keys = check_list(ids)?;
        for id in ids {
            if self.mode(id)? != Mode::Down {
                return Err(format!("Machine '{}' is not in DOWN mode and cannot be brought up", described(id)));
            }
        }
        self.set_mode(&keys, Mode::Up);
        self.maintenance.unschedule(&keys);
        let back = |agent: &&DownAgent| keys.contains(&Key::from(&machine_of(&agent.info, agent.address)));
        let agents: Vec<String> = self.down.values().filter(back).map(|agent| agent.id.clone()).collect();
        for agent in agents {
            self.bring_up_if_over(&agent, now);
        }
        Ok(())
    }

    /// Brings an agent up whose machine is, as soon as nothing is left of what it was told to end: until then what that holds is not
    /// free, be it a port or a volume.
    pub(super) fn bring_up_if_over(&mut self, agent_id: &str, now: Now) {
        let is_over = |agent: &DownAgent| agent.ending.is_empty() && !self.maintenance.is_down(&machine_of(&agent.info, agent.address));
        if self.down.get(agent_id).is_some_and(is_over)
            && let Some(agent) = self.down.remove(agent_id)
        {
            self.bring_up(agent, now);
        }
    }

    /// What runs on an agent, by framework; what runs a lone task is named like it, and in no other book.
    pub(super) fn executors_on(&self, agent: &Agent) -> BTreeSet<(String, String)> {
        let booked = agent.executors.iter().flat_map(|(framework, own)| own.keys().map(|executor| (framework.clone(), executor.clone())));
        let tasks = agent.tasks.iter().flat_map(|(framework, own)| own.iter().map(|task| (framework.clone(), task.clone())));
        let lone = tasks.filter(|(framework, task)| {
            let record = self.frameworks.get(framework).and_then(|framework| framework.tasks.get(task));
            record.is_some_and(|record| record.task.executor_id.is_none() && !is_terminal(record.latest))
        });
        booked.chain(lone).collect()
    }

    /// Ends what runs on an agent, takes it out, and waits with it for its machine.
    pub(super) fn take_down(&mut self, agent_id: &str, now: Now) {
        let ending = self.agents.get(agent_id).map(|agent| self.executors_on(agent)).unwrap_or_default();
        let Some(agent) = self.remove_agent(agent_id, Departure::MachineDown, now) else { return };
        self.draining.remove(agent_id);
        self.deactivated.remove(agent_id);
        self.unsaved = true;
        self.keep_down(agent.down(ending));
        self.catch_up_on_kills(now);
    }

    /// Keeps an agent whose machine is down, and ends what it runs, which has no place any more.
    pub(super) fn keep_down(&mut self, mut agent: DownAgent) {
        tracing::info!(agent = agent.id, "the agent's machine is down for maintenance: it is not offered until the machine is up");
        let frameworks: BTreeSet<String> = agent.ending.iter().map(|(framework, _)| framework.clone()).collect();
        if agent.link.shut_down_frameworks(frameworks) {
            self.backlogged.insert(agent.id.clone());
        }
        self.down.insert(agent.id.clone(), agent);
    }

    /// GET_MAINTENANCE_STATUS.
    pub(super) fn maintenance_status(&self) -> ClusterStatus {
        let mut answered: BTreeMap<Key, Vec<InverseOfferStatus>> = BTreeMap::new();
        for (agent, answers) in &self.maintenance.answers {
            let Some(agent) = self.agents.get(agent) else { continue };
            answered.entry(key_of(agent)).or_default().extend(answers.values().cloned());
        }
        let mut answers = |key: &Key| answered.remove(key).unwrap_or_default();
        let draining = self.maintenance.machines.iter().filter(|(_, machine)| machine.mode == Mode::Draining);
        ClusterStatus {
            draining_machines: draining.map(|(key, machine)| DrainingMachine { id: machine.id.clone(), statuses: answers(key) }).collect(),
            down_machines: self.maintenance.down(),
        }
    }
}
