//! Inverse offers: a framework that uses, or is offered, something of an agent whose machine is to be taken down is asked
//! whether that may be. Its answer is advice, which operators read in the status of the maintenance.

use std::collections::{BTreeMap, HashMap};

use podium_proto::mesos::v1::allocator::{InverseOfferStatus, inverse_offer_status::Status};
use podium_proto::mesos::v1::scheduler::{Event, event};
use podium_proto::mesos::v1::{AgentId, Filters, InverseOffer, OfferId};

use super::agents::Agent;
use super::framework::{Framework, end_of, filter_duration};
use super::offers::url_of;
use super::state::{Now, State};

/// Agent and framework: there is one at a time.
pub(super) type Pair = (String, String);

/// What is asked and not answered, found by whom it concerns and by its id.
#[derive(Debug, Default)]
pub(super) struct InverseOffers {
    by_pair: BTreeMap<Pair, InverseOffer>,
    by_id: HashMap<String, Pair>,
}

impl InverseOffers {
    fn insert(&mut self, pair: Pair, offer: InverseOffer) {
        self.by_id.insert(offer.id.value.clone(), pair.clone());
        if let Some(before) = self.by_pair.insert(pair, offer) {
            self.by_id.remove(&before.id.value);
        }
    }

    fn remove(&mut self, pair: &Pair) -> Option<InverseOffer> {
        let offer = self.by_pair.remove(pair)?;
        self.by_id.remove(&offer.id.value);
        Some(offer)
    }

    /// Whom the question with this id concerns.
    fn find(&self, id: &OfferId) -> Option<&Pair> {
        self.by_id.get(&id.value)
    }

    fn of_agent(&self, agent: &str) -> Vec<Pair> {
        let from = self.by_pair.range((agent.to_owned(), String::new())..).map(|(pair, _)| pair);
        from.take_while(|(of, _)| of == agent).cloned().collect()
    }

    fn of_framework(&self, framework: &str) -> Vec<Pair> {
        self.by_pair.keys().filter(|(_, of)| of == framework).cloned().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Pair, &InverseOffer)> {
        self.by_pair.iter()
    }

    /// Whether either finds what the other does.
    #[cfg(test)]
    pub(super) fn agree(&self) -> bool {
        self.by_pair.len() == self.by_id.len() && self.by_pair.iter().all(|(pair, offer)| self.find(&offer.id) == Some(pair))
    }
}

impl State {
    /// Asks about these agents whomever it concerns and who has not been asked, or has answered long ago.
    pub(super) fn inverse_offer_round<'a>(&mut self, agents: impl Iterator<Item = &'a String>, now: Now) {
        let mut asked: BTreeMap<String, Vec<InverseOffer>> = BTreeMap::new();
        for agent in agents.filter_map(|id| self.agents.get(id)) {
            let Some(unavailability) = self.maintenance.unavailability(agent) else { continue };
            if self.deactivated.contains(&agent.id) {
                continue;
            }
            let concerned = self.frameworks.iter().filter(|framework| self.is_to_be_asked(framework, agent, now));
            let concerned: Vec<&Framework> = concerned.collect();
            for framework in concerned {
                let id = OfferId { value: format!("{}-O{}", self.master_id, self.next_offer) };
                self.next_offer += 1;
                let offer = InverseOffer {
                    id,
                    url: Some(url_of(agent)),
                    framework_id: framework.framework_id(),
                    agent_id: Some(AgentId { value: agent.id.clone() }),
                    unavailability,
                    resources: Vec::new(),
                };
                self.inverse_offers.insert((agent.id.clone(), framework.id.clone()), offer.clone());
                asked.entry(framework.id.clone()).or_default().push(offer);
            }
        }
        for (framework, inverse_offers) in asked {
            let inverse_offers = Some(event::InverseOffers { inverse_offers });
            self.frameworks.send(&framework, Event { r#type: Some(event::Type::InverseOffers.into()), inverse_offers, ..Event::default() });
        }
    }

    fn is_to_be_asked(&self, framework: &Framework, agent: &Agent, now: Now) -> bool {
        let uses = || {
            let running = |id: &String| framework.tasks.get(id).is_some_and(|record| !record.released);
            agent.executors.contains_key(&framework.id)
                || agent.tasks.get(&framework.id).is_some_and(|tasks| tasks.iter().any(running))
                || agent.offers.iter().any(|id| framework.offers.contains(id))
        };
        framework.stream.is_some()
            && !self.inverse_offers.by_pair.contains_key(&(agent.id.clone(), framework.id.clone()))
            && framework.inverse_filters.get(&agent.id).is_none_or(|until| *until <= now.instant)
            && uses()
    }

    /// ACCEPT_INVERSE_OFFERS and DECLINE_INVERSE_OFFERS: what is not outstanding, or not this framework's, is ignored.
    pub(super) fn answer_inverse_offers(
        &mut self,
        framework_id: &str,
        ids: &[OfferId],
        status: Status,
        filters: Option<Filters>,
        now: Now,
    ) {
        for id in ids {
            let Some(pair) = self.inverse_offers.find(id).filter(|(_, framework)| framework == framework_id).cloned() else { continue };
            let Some(offer) = self.inverse_offers.remove(&pair) else { continue };
            let status = InverseOfferStatus { status: status.into(), framework_id: offer.framework_id, timestamp: now.time_info() };
            self.maintenance.note_answer(&pair.0, status);
            self.ask_again_later(&pair, filters, now);
        }
    }

    fn ask_again_later(&mut self, (agent, framework): &Pair, filters: Option<Filters>, now: Now) {
        let until = filter_duration(filters).and_then(|duration| end_of(now, duration));
        match (until, self.frameworks.get_mut(framework)) {
            (Some(until), Some(framework)) => {
                framework.inverse_filters.insert(agent.clone(), until);
                self.await_filter(agent, until);
            }
            _ => self.reconsider_later(agent, now),
        }
    }

    /// Ends all that was asked about this agent, and tells whom it was asked.
    pub(super) fn rescind_inverse_offers_of(&mut self, agent_id: &str) {
        for pair in self.inverse_offers.of_agent(agent_id) {
            let Some(offer) = self.inverse_offers.remove(&pair) else { continue };
            let rescind_inverse_offer = Some(event::RescindInverseOffer { inverse_offer_id: offer.id });
            let event = Event { r#type: Some(event::Type::RescindInverseOffer.into()), rescind_inverse_offer, ..Event::default() };
            self.frameworks.send(&pair.1, event);
        }
    }

    /// Ends all that this framework was asked; it is not told: it has no stream, or a new one.
    pub(super) fn withdraw_inverse_offers(&mut self, framework_id: &str) {
        for pair in self.inverse_offers.of_framework(framework_id) {
            self.inverse_offers.remove(&pair);
        }
    }

    pub(super) fn forget_inverse_filters_of(&mut self, agent_id: &str) {
        self.frameworks.for_each_mut(|framework| {
            framework.inverse_filters.remove(agent_id);
        });
    }
}
