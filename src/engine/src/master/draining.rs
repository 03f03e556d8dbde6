//! Agents that an operator empties or keeps from being offered: DRAIN_AGENT, DEACTIVATE_AGENT, REACTIVATE_AGENT.
//!
//! Both are remembered by the agent's id, whether it is here or not, and over restarts. In Mesos the agent itself says of what
//! it kills that it is being drained; here the master says so of what the agent tells it meanwhile.

use std::time::Duration;

use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::task_status::Reason;
use podium_proto::mesos::v1::{DrainConfig, DrainInfo, DrainState, FrameworkId, KillPolicy, TaskState, TaskStatus};

use super::state::{Now, State};
use super::tasks::is_terminal;
use crate::link::ToAgent;

/// An agent that is being emptied, or is empty.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    pub(super) info: DrainInfo,
    /// When it was asked for; as in Mesos not known if the agent was away, nor after a restart.
    pub(super) started: Option<Duration>,
}

impl Drain {
    pub(super) fn mark_gone(&self) -> bool {
        self.info.config.mark_gone()
    }

    fn is_over(&self) -> bool {
        self.info.state == i32::from(DrainState::Drained)
    }
}

impl State {
    /// Whether such an agent is here, or may come back.
    fn knows_agent(&self, agent_id: &str) -> Result<(), String> {
        let known = self.agents.contains_key(agent_id) || self.unreachable.contains_key(agent_id) || self.recovering.contains(agent_id);
        if known { Ok(()) } else { Err("Unknown agent".to_owned()) }
    }

    /// DRAIN_AGENT: no more offers, and all its tasks are killed; asked again, with what is said now.
    pub(super) fn drain(&mut self, agent_id: &str, config: DrainConfig, now: Now) -> Result<(), String> {
        if let Some(machine) = self.agents.get(agent_id).and_then(|agent| self.maintenance.scheduled_machine(agent)) {
            return Err(format!("Agent {agent_id} is part of a maintenance schedule under Machine {machine}"));
        }
        self.knows_agent(agent_id)?;
        tracing::info!(agent = agent_id, "an operator drains the agent");
        let started = self.agents.contains_key(agent_id).then_some(now.wall);
        let info = DrainInfo { state: DrainState::Draining.into(), config };
        self.draining.insert(agent_id.to_owned(), Drain { info, started });
        self.take_from_offers(agent_id, now);
        self.kill_for_drain(agent_id);
        self.check_drained(agent_id, now);
        Ok(())
    }

    /// DEACTIVATE_AGENT: no more offers; what runs there runs on.
    pub(super) fn deactivate(&mut self, agent_id: &str, now: Now) -> Result<(), String> {
        self.knows_agent(agent_id)?;
        self.take_from_offers(agent_id, now);
        Ok(())
    }

    fn take_from_offers(&mut self, agent_id: &str, now: Now) {
        self.deactivated.insert(agent_id.to_owned());
        self.unsaved = true;
        self.rescind_all_of(agent_id, now);
    }

    /// REACTIVATE_AGENT: the end of both.
    pub(super) fn reactivate(&mut self, agent_id: &str, now: Now) -> Result<(), String> {
        if !self.deactivated.contains(agent_id) {
            return Err("Agent is not deactivated".to_owned());
        }
        if self.draining.get(agent_id).is_some_and(|drain| !drain.is_over()) {
            return Err("Agent is still in the DRAINING state".to_owned());
        }
        self.draining.remove(agent_id);
        self.deactivated.remove(agent_id);
        self.unsaved = true;
        self.reconsider(agent_id, now);
        Ok(())
    }

    /// Kills what runs on an agent that is being drained; none of it has more time than the operator grants.
    pub(super) fn kill_for_drain(&mut self, agent_id: &str) {
        let Some(drain) = self.draining.get(agent_id).filter(|drain| !drain.is_over()) else { return };
        let most = drain.info.config.max_grace_period;
        let Some(agent) = self.agents.get(agent_id) else { return };
        let mut kills = Vec::new();
        for (framework_id, ids) in &agent.tasks {
            let Some(framework) = self.frameworks.get(framework_id) else { continue };
            let live = ids.iter().filter_map(|id| framework.tasks.get(id)).filter(|record| !is_terminal(record.latest));
            kills.extend(live.map(|record| {
                let own = record.task.kill_policy.and_then(|policy| policy.grace_period);
                let shorter = most.filter(|most| own.is_none_or(|own| most.nanoseconds < own.nanoseconds));
                let kill_policy = shorter.map(|grace_period| KillPolicy { grace_period: Some(grace_period) });
                (FrameworkId { value: framework_id.clone() }, record.task.task_id.clone(), kill_policy)
            }));
        }
        for (framework_id, task_id, kill_policy) in kills {
            self.must_send(agent_id, ToAgent::KillTask { framework_id, task_id, kill_policy });
        }
    }

    /// An agent of which nothing is left is drained; by the operator's wish it is gone then.
    pub(super) fn check_drained(&mut self, agent_id: &str, now: Now) {
        let empty = self.agents.get(agent_id).is_some_and(|agent| agent.tasks.is_empty());
        let Some(drain) = self.draining.get_mut(agent_id).filter(|drain| empty && !drain.is_over()) else { return };
        if drain.mark_gone() {
            self.mark_gone(agent_id, now);
            return;
        }
        tracing::info!(agent = agent_id, "the agent is drained");
        drain.info.state = DrainState::Drained.into();
        self.unsaved = true;
    }

    /// What an agent tells of a task, as an agent that knows of its draining tells it, with the task's newest state. An update
    /// that was told before stays as it was.
    pub(super) fn as_drained(&self, agent_id: &str, framework_id: &str, status: &mut TaskStatus, latest: TaskState) -> TaskState {
        let Some(drain) = self.draining.get(agent_id).filter(|drain| !drain.is_over()) else { return latest };
        let Some(framework) = self.frameworks.get(framework_id) else { return latest };
        let gone = drain.mark_gone() && framework.has(Capability::PartitionAware);
        let known = framework.tasks.get(&status.task_id.value).and_then(|record| record.task.statuses.last());
        if let Some(told) = known.filter(|told| told.uuid == status.uuid && told.uuid.is_some()) {
            (status.state, status.reason) = (told.state, told.reason);
        } else if is_kill(TaskState::try_from(status.state).ok()) {
            status.reason = Some(Reason::AgentDraining.into());
            if gone {
                status.state = TaskState::TaskGoneByOperator.into();
            }
        }
        if gone && is_kill(Some(latest)) { TaskState::TaskGoneByOperator } else { latest }
    }

    /// Agents that are kept from being offered, for those who count them.
    pub(super) fn count_deactivated(&self) -> usize {
        self.agents.keys().filter(|id| self.deactivated.contains(*id)).count()
    }
}

fn is_kill(state: Option<TaskState>) -> bool {
    matches!(state, Some(TaskState::TaskKilling | TaskState::TaskKilled))
}
