//! Who is offered what: one offer is everything that is free on one agent, for one role of one framework;
//! the framework with the smallest dominant share comes first.

use std::collections::{BTreeMap, BTreeSet};

use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::scheduler::{Event, event};
use podium_proto::mesos::v1::{Address, AgentId, Filters, Offer, OfferId, Unavailability, Url, resource, value};
use podium_proto::wire::amounts;
use tokio::time::Instant;

use super::agents::Agent;
use super::framework::{Framework, end_of, filter_duration};
use super::state::{Now, State};
use super::stock::{Form, Stock};

/// What a bundle must have, one of the two, to be worth an offer: thousandths of a core, of a MiB.
const LEAST_CPUS: i64 = 10;
const LEAST_MEM: i64 = 32_000;

/// The scalar resources alone: what shares are computed from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scalars([i64; 4]);

impl Scalars {
    pub(super) fn of(stock: &Stock) -> Self {
        Self(stock.sum().scalars().map(|(_, amount)| amount))
    }

    pub(super) fn add(&mut self, stock: &Stock) {
        for (sum, more) in self.0.iter_mut().zip(Self::of(stock).0) {
            *sum = sum.saturating_add(more);
        }
    }

    pub(super) fn subtract(&mut self, stock: &Stock) {
        for (sum, less) in self.0.iter_mut().zip(Self::of(stock).0) {
            *sum = (*sum - less).max(0);
        }
    }

    /// The largest part of any resource of the cluster, in millionths.
    fn dominant_share(self, cluster: Self) -> i64 {
        let share = |(used, total): (i64, i64)| if total > 0 { i128::from(used) * 1_000_000 / i128::from(total) } else { 0 };
        self.0.into_iter().zip(cluster.0).map(share).max().map_or(0, |share| i64::try_from(share).unwrap_or(i64::MAX))
    }
}

/// An outstanding offer.
#[derive(Debug, Clone)]
pub(super) struct OfferRecord {
    pub(super) framework: String,
    pub(super) role: String,
    pub(super) agent: String,
    pub(super) amounts: Stock,
}

/// A refused bundle: offers contained in it are hidden until then.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    amounts: Stock,
    pub(super) until: Instant,
}

/// A framework's role that may be offered something, with what orders it.
struct Candidate {
    framework: String,
    role: String,
}

impl State {
    /// Offers what is free on the agents that are due.
    pub(super) fn offer_round(&mut self, now: Now) {
        let due = std::mem::take(&mut self.to_offer);
        self.offer_agents(&due, now);
        self.inverse_offer_round(due.iter(), now);
    }

    fn offer_agents(&mut self, due: &BTreeSet<String>, now: Now) {
        let mut candidates = self.candidates();
        if candidates.is_empty() {
            return;
        }
        let mut offers: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
        for agent_id in due {
            self.order(&mut candidates);
            // The first takes all that is unreserved; for others there may be what is reserved for them.
            for Candidate { framework: id, role } in &candidates {
                let (Some(agent), Some(framework)) = (self.agents.get(agent_id), self.frameworks.get(id)) else { continue };
                let free = agent.free();
                if free.is_empty() {
                    break;
                }
                let part = free.part_for(role);
                if self.wants(framework, role, agent, &part, now)
                    && let Some(offer) = self.make_offer(id, role, agent_id, part)
                {
                    offers.entry(id.clone()).or_default().push(offer);
                }
            }
        }
        for (framework, offers) in offers {
            let event = Event { r#type: Some(event::Type::Offers.into()), offers: Some(event::Offers { offers }), ..Event::default() };
            self.frameworks.send(&framework, event);
        }
    }

    /// Roles with a subscribed framework that has not suppressed them.
    fn candidates(&self) -> Vec<Candidate> {
        let subscribed = self.frameworks.iter().filter(|framework| framework.stream.is_some());
        let open = subscribed.flat_map(|framework| {
            let roles = framework.roles.difference(&framework.suppressed);
            roles.map(|role| Candidate { framework: framework.id.clone(), role: role.clone() })
        });
        open.collect()
    }

    /// Smallest dominant share first: of the role, then of the framework within it.
    fn order(&self, candidates: &mut [Candidate]) {
        if candidates.len() < 2 {
            return;
        }
        let mut roles: BTreeMap<&str, Scalars> = BTreeMap::new();
        for framework in self.frameworks.iter() {
            for (role, scalars) in &framework.allocated {
                let sum = roles.entry(role).or_default();
                for (sum, more) in sum.0.iter_mut().zip(scalars.0) {
                    *sum = sum.saturating_add(more);
                }
            }
        }
        candidates.sort_by_cached_key(|candidate| {
            let of_role = roles.get(candidate.role.as_str()).copied().unwrap_or_default();
            let own = self.frameworks.get(&candidate.framework).and_then(|framework| framework.allocated.get(&candidate.role)).copied();
            let share = own.unwrap_or_default().dominant_share(self.cluster);
            (of_role.dominant_share(self.cluster), candidate.role.clone(), share, candidate.framework.clone())
        });
    }

    fn wants(&self, framework: &Framework, role: &str, agent: &Agent, free: &Stock, now: Now) -> bool {
        !self.deactivated.contains(&agent.id)
            && worth_offering(framework, role, free)
            && (framework.has(Capability::RegionAware) || self.same_region(agent))
            && (framework.has(Capability::GpuResources) || agent.total.plain.gpus == 0)
            && framework.constraints.admit(role, &agent.info)
            && !hidden(framework, role, &agent.id, free, now)
    }

    /// An agent or master without a domain counts as local.
    fn same_region(&self, agent: &Agent) -> bool {
        let region = |domain: Option<&podium_proto::mesos::v1::DomainInfo>| {
            domain.and_then(|domain| domain.fault_domain.as_ref()).map(|domain| domain.region.name.clone())
        };
        match (region(self.settings.domain.as_ref()), region(agent.info.domain.as_ref())) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        }
    }

    fn make_offer(&mut self, framework_id: &str, role: &str, agent_id: &str, amounts: Stock) -> Option<Offer> {
        let id = format!("{}-O{}", self.master_id, self.next_offer);
        let agent = self.agents.get_mut(agent_id)?;
        let framework = self.frameworks.get_mut(framework_id)?;
        self.next_offer += 1;
        agent.offered.add(&amounts);
        agent.offers.insert(id.clone());
        framework.offers.insert(id.clone());
        framework.allocated.entry(role.to_owned()).or_default().add(&amounts);
        let offer = describe(&id, framework, role, agent, &amounts, self.maintenance.unavailability(agent));
        let record = OfferRecord { framework: framework_id.to_owned(), role: role.to_owned(), agent: agent_id.to_owned(), amounts };
        self.offers.insert(id, record);
        Some(offer)
    }

    /// Ends an offer: its resources are free again, and nobody is told.
    pub(super) fn take_offer(&mut self, id: &str) -> Option<OfferRecord> {
        let record = self.offers.remove(id)?;
        if let Some(framework) = self.frameworks.get_mut(&record.framework) {
            framework.offers.remove(id);
            framework.release(&record.role, &record.amounts);
        }
        if let Some(agent) = self.agents.get_mut(&record.agent) {
            agent.offers.remove(id);
            agent.offered = std::mem::take(&mut agent.offered).less(&record.amounts);
        }
        Some(record)
    }

    /// Ends offers and tells their frameworks.
    pub(super) fn rescind(&mut self, ids: impl IntoIterator<Item = String>, now: Now) {
        for id in ids {
            if let Some(record) = self.take_offer(&id) {
                let rescind = event::Rescind { offer_id: OfferId { value: id } };
                let event = Event { r#type: Some(event::Type::Rescind.into()), rescind: Some(rescind), ..Event::default() };
                self.frameworks.send(&record.framework, event);
                self.reconsider(&record.agent, now);
            }
        }
    }

    /// Ends all offers of a framework, which is not told: it has no stream, or a new one.
    pub(super) fn withdraw_offers(&mut self, framework_id: &str, now: Now) {
        let ids = self.frameworks.get_mut(framework_id).map(|framework| std::mem::take(&mut framework.offers)).unwrap_or_default();
        for id in ids {
            if let Some(record) = self.take_offer(&id) {
                self.reconsider(&record.agent, now);
            }
        }
    }

    pub(super) fn rescind_offers_of_removed_roles(&mut self, framework_id: &str, now: Now) {
        let Some(framework) = self.frameworks.get(framework_id) else { return };
        let removed = |id: &&String| self.offers.get(*id).is_some_and(|offer| !framework.roles.contains(&offer.role));
        let ids: Vec<String> = framework.offers.iter().filter(removed).cloned().collect();
        self.rescind(ids, now);
    }

    /// DECLINE: offers that are not this framework's, or not outstanding, are ignored.
    pub(super) fn decline(&mut self, framework_id: &str, offer_ids: Vec<OfferId>, filters: Option<Filters>, now: Now) {
        for OfferId { value: id } in offer_ids {
            if self.offers.get(&id).is_some_and(|offer| offer.framework == framework_id)
                && let Some(record) = self.take_offer(&id)
            {
                let agent = record.agent.clone();
                self.refuse(record, filters, now);
                self.reconsider_later(&agent, now);
            }
        }
    }

    /// Hides what the framework has just refused from it for a while; at least until the next tick.
    pub(super) fn refuse(&mut self, refused: OfferRecord, filters: Option<Filters>, now: Now) {
        let Some(duration) = filter_duration(filters).map(|duration| duration.max(self.settings.pace.tick)) else { return };
        let (Some(until), Some(framework)) = (end_of(now, duration), self.frameworks.get_mut(&refused.framework)) else { return };
        let known = framework.filters.entry(refused.role).or_default().entry(refused.agent.clone()).or_default();
        known.retain(|filter| filter.until > now.instant && !(filter.until <= until && refused.amounts.contains(&filter.amounts)));
        known.push(Filter { amounts: refused.amounts, until });
        self.await_filter(&refused.agent, until);
    }

    /// The agent's earliest filter has ended, or was forgotten before: it is considered, and the next one awaited.
    pub(super) fn filter_ended(&mut self, agent_id: &str, now: Now) {
        self.drop_filter_timer(agent_id);
        self.reconsider(agent_id, now);
        let mut next: Option<Instant> = None;
        self.frameworks.for_each_mut(|framework| {
            framework.inverse_filters.retain(|_, until| *until > now.instant);
            next = framework.inverse_filters.get(agent_id).copied().into_iter().chain(next).min();
            for filters in framework.filters.values_mut().filter_map(|agents| agents.get_mut(agent_id)) {
                filters.retain(|filter| filter.until > now.instant);
                next = filters.iter().map(|filter| filter.until).chain(next).min();
            }
        });
        if let Some(until) = next {
            self.await_filter(agent_id, until);
        }
    }

    /// REVIVE: un-suppresses the roles (none named: all), forgets their filters, offers at once. A role that is
    /// not the framework's voids the call.
    pub(super) fn revive(&mut self, framework_id: &str, roles: &[String], now: Now) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        let Some(roles) = named_roles(framework, roles) else { return };
        framework.inverse_filters.clear();
        for role in &roles {
            framework.suppressed.remove(role);
            framework.filters.remove(role);
        }
        self.reconsider_all(now);
    }

    /// SUPPRESS: no new offers for the roles (none named: all). A role that is not the framework's voids the call.
    pub(super) fn suppress(&mut self, framework_id: &str, roles: &[String]) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return };
        if let Some(roles) = named_roles(framework, roles) {
            framework.suppressed.extend(roles);
        }
    }
}

fn named_roles(framework: &Framework, roles: &[String]) -> Option<BTreeSet<String>> {
    if roles.is_empty() {
        return Some(framework.roles.clone());
    }
    roles.iter().all(|role| framework.roles.contains(role)).then(|| roles.iter().cloned().collect())
}

/// True if a bundle is not too small: by the framework's own filter for the role, else by the master's rule.
fn worth_offering(framework: &Framework, role: &str, free: &Stock) -> bool {
    if free.is_empty() {
        return false;
    }
    let own = framework.info.offer_filters.get(role).and_then(|filters| filters.min_allocatable_resources.as_ref());
    let free = free.sum();
    let Some(own) = own else { return free.cpus >= LEAST_CPUS || free.mem >= LEAST_MEM };
    let available = |name: &str| free.scalars().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, amount)| amount);
    let enough = |(name, least): (&String, &value::Scalar)| available(name) >= amounts::thousandths(least.value);
    own.quantities.is_empty() || own.quantities.iter().any(|alternative| alternative.quantities.iter().all(enough))
}

/// True if the framework has refused as much as this, or more, and still means it.
fn hidden(framework: &Framework, role: &str, agent: &str, free: &Stock, now: Now) -> bool {
    let filters = framework.filters.get(role).and_then(|agents| agents.get(agent));
    filters.is_some_and(|filters| filters.iter().any(|filter| filter.until > now.instant && filter.amounts.contains(free)))
}

/// Where the agent answers.
pub(super) fn url_of(agent: &Agent) -> Url {
    Url {
        scheme: "http".to_owned(),
        address: Address {
            hostname: Some(agent.info.hostname.clone()),
            ip: Some(agent.address.ip().to_string()),
            port: i32::from(agent.address.port()),
        },
        path: Some(format!("/{}", agent.process())),
        query: Vec::new(),
        fragment: None,
    }
}

/// This framework's share of what an offer says.
pub(super) fn describe(
    id: &str,
    framework: &Framework,
    role: &str,
    agent: &Agent,
    stock: &Stock,
    unavailability: Option<Unavailability>,
) -> Offer {
    let multi_role = framework.has(Capability::MultiRole);
    let form = if framework.has(Capability::ReservationRefinement) { Form::New } else { Form::Old };
    let told_role = multi_role.then_some(role);
    Offer {
        id: OfferId { value: id.to_owned() },
        framework_id: framework.framework_id(),
        agent_id: AgentId { value: agent.id.clone() },
        hostname: agent.info.hostname.clone(),
        resources: stock.to_resources(told_role, form),
        executor_ids: agent.executor_ids(&framework.id),
        attributes: agent.info.attributes.clone(),
        url: Some(url_of(agent)),
        unavailability,
        allocation_info: told_role.map(|role| resource::AllocationInfo { role: Some(role.to_owned()) }),
        domain: agent.info.domain.clone(),
    }
}
