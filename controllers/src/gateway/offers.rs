//! What happens to offers before they are placed on: they come, are taken back, or their agent leaves.
//!
//! An offer is used or declined as soon as all that is known of it has been taken in, so few are ever at hand. Launches
//! that are being recorded for an offer that is void meanwhile are sent all the same: that they never ran is for Mesos to
//! say.

use std::collections::BTreeSet;

use podium_proto::mesos::v1::{InverseOffer, Offer, OfferId};
use podium_types::condition;
use podium_types::definition::PodDefinition;
use podium_types::id::PodId;

use super::core::Core;
use super::output::Call;
use super::pod::Pod;

/// How long the answer to an inverse offer holds, in seconds; then the master asks again.
const INVERSE_ANSWER_SECONDS: f64 = 60.0;
const INVERSE_ANSWER_MS: i64 = 60_000;

impl Core {
    /// Resources to launch on.
    pub fn offered(&mut self, offers: Vec<Offer>, now: i64) {
        if self.subscribed {
            for offer in &offers {
                let agent_id = &offer.agent_id.value;
                let is_back = self.left.remove(agent_id) | self.missed.remove(agent_id);
                if is_back {
                    // What was lost with it has come back too, or is known to be gone.
                    self.ask_about_agent(agent_id, now);
                }
            }
            self.offers.extend(offers.into_iter().map(|offer| (offer.id.value.clone(), offer)));
        }
    }

    /// An offer is void.
    pub fn rescinded(&mut self, offer: &OfferId) {
        self.offers.remove(&offer.value);
    }

    /// An agent was lost, or is being drained: nothing more is launched on what it has offered. The offers are given back,
    /// since that nobody else takes them back is not certain.
    pub fn agent_left(&mut self, agent_id: &str) {
        // Each task of a drained agent tells of it.
        if !self.left.insert(agent_id.to_owned()) {
            return;
        }
        let left: Vec<String> =
            self.offers.iter().filter(|(_, offer)| offer.agent_id.value == agent_id).map(|(id, _)| id.clone()).collect();
        let offer_ids: Vec<OfferId> = left.iter().filter_map(|id| self.offers.remove(id)).map(|offer| offer.id).collect();
        if !offer_ids.is_empty() {
            self.call(Call::Decline { offer_ids, refuse_seconds: self.settings.decline_waiting_seconds });
        }
        for id in &self.ready {
            if let Some(pod) = self.pods.get_mut(id) {
                pod.waiting.agent_left(agent_id);
            }
        }
    }

    /// The master asks whether agents may be taken down for maintenance.
    pub fn inverse_offered(&mut self, offers: Vec<InverseOffer>, now: i64) {
        if !self.subscribed {
            return;
        }
        self.spared.retain(|_, until| *until > now);
        let (mut spared, mut needed) = (Vec::new(), Vec::new());
        for offer in offers {
            let agent = offer.agent_id.as_ref().map(|agent| agent.value.clone());
            let can_spare = agent.as_ref().is_none_or(|agent| self.can_spare(agent));
            if let Some(agent) = agent.filter(|_| can_spare) {
                self.spared.insert(agent, now.saturating_add(INVERSE_ANSWER_MS));
            }
            if can_spare { &mut spared } else { &mut needed }.push(offer);
        }
        for (offers, accept) in [(spared, true), (needed, false)] {
            if !offers.is_empty() {
                let offer_ids = offers.into_iter().map(|offer| offer.id).collect();
                self.call(Call::AnswerInverse { offer_ids, accept, refuse_seconds: INVERSE_ANSWER_SECONDS });
            }
        }
    }

    /// Whether every pod keeps the running instances that its `minimumHealthCapacity` asks for when this agent is gone, and
    /// those that we have spared before.
    fn can_spare(&self, agent_id: &str) -> bool {
        let there = self.agents.get(agent_id).into_iter().flatten();
        let pods: BTreeSet<&PodId> = there.map(|(id, _)| id).collect();
        pods.into_iter().filter_map(|id| self.pods.get(id)).all(|pod| {
            let here = on_agent(pod, |agent| agent == agent_id).count();
            let elsewhere = on_agent(pod, |agent| agent != agent_id && !self.spared.contains_key(agent)).count();
            let definition = pod.definitions.values().next_back();
            here == 0 || definition.is_none_or(|definition| elsewhere >= floor(definition))
        })
    }
}

/// Wanted instances that run on such agents.
fn on_agent(pod: &Pod, which: impl Fn(&str) -> bool) -> impl Iterator<Item = ()> {
    let running = pod.entries.values().filter(|entry| entry.is_wanted()).filter_map(|entry| entry.observed.as_ref());
    let running = running.filter(|observed| condition::of_observed(observed, None) == condition::Condition::Running);
    running.filter(move |observed| which(&observed.agent_id)).map(|_| ())
}

/// Instances that must be left, as during an upgrade.
fn floor(definition: &PodDefinition) -> usize {
    let floor = f64::from(definition.scaling.instances) * definition.scheduling.upgrade.minimum_health_capacity;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the instances")]
    let floor = floor.ceil() as usize;
    floor
}
