//! Inverse offers: a framework that uses, or is offered, something of an agent whose machine is to be taken down is asked
//! whether that may be. Its answer is advice, which operators read in the status of the maintenance.

use std::collections::BTreeMap;

use podium_proto::mesos::v1::allocator::{InverseOfferStatus, inverse_offer_status::Status};
use podium_proto::mesos::v1::scheduler::{Event, event};
use podium_proto::mesos::v1::{AgentId, Filters, InverseOffer, OfferId};

use super::agents::Agent;
use super::framework::{Framework, end_of, filter_duration};
use super::offers::url_of;
use super::state::{Now, State};

/// Agent and framework: there is one at a time.
pub(super) type Pair = (String, String);

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
            && !self.inverse_offers.contains_key(&(agent.id.clone(), framework.id.clone()))
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
        let theirs = |(pair, offer): (&Pair, &InverseOffer)| (pair.1 == framework_id && ids.contains(&offer.id)).then(|| pair.clone());
        let answered: Vec<Pair> = self.inverse_offers.iter().filter_map(theirs).collect();
        for pair in answered {
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
        let from = self.inverse_offers.range((agent_id.to_owned(), String::new())..).map(|(pair, _)| pair);
        let of_agent: Vec<Pair> = from.take_while(|(agent, _)| agent == agent_id).cloned().collect();
        for pair in of_agent {
            let Some(offer) = self.inverse_offers.remove(&pair) else { continue };
            let rescind_inverse_offer = Some(event::RescindInverseOffer { inverse_offer_id: offer.id });
            let event = Event { r#type: Some(event::Type::RescindInverseOffer.into()), rescind_inverse_offer, ..Event::default() };
            self.frameworks.send(&pair.1, event);
        }
    }

    /// Ends all that this framework was asked; it is not told: it has no stream, or a new one.
    pub(super) fn withdraw_inverse_offers(&mut self, framework_id: &str) {
        self.inverse_offers.retain(|(_, framework), _| framework != framework_id);
    }

    pub(super) fn forget_inverse_filters_of(&mut self, agent_id: &str) {
        self.frameworks.for_each_mut(|framework| {
            framework.inverse_filters.remove(agent_id);
        });
    }
}
