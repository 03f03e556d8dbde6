//! Who is offered what, and when again.

use std::time::Duration;

use podium_engine::simulated::SimulatedAgents;
use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::scheduler::attribute_constraint::{self, predicate, selector};
use podium_proto::mesos::v1::scheduler::offer_constraints::{RoleConstraints, role_constraints::Group};
use podium_proto::mesos::v1::scheduler::{AttributeConstraint, Call, OfferConstraints, call};
use podium_proto::mesos::v1::{FrameworkInfo, TaskState};

use super::{QUIET, World, agents};
use crate::client::{Client, Kind, ROLE, a_task, info};

/// No offer comes for a while.
async fn no_offer(client: &mut Client) {
    let offer = tokio::time::timeout(QUIET, client.offer()).await;
    assert!(offer.is_err(), "{offer:?}");
}

fn cpus(offer: &podium_proto::mesos::v1::Offer) -> f64 {
    offer
        .resources
        .iter()
        .filter(|resource| resource.name == "cpus")
        .filter_map(|resource| resource.scalar)
        .map(|scalar| scalar.value)
        .sum()
}

#[tokio::test]
async fn a_declined_offer_stays_away_until_its_filter_ends() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    client.decline(&offer, 0.6).await;
    let declined = tokio::time::Instant::now();
    no_offer(&mut client).await;
    let again = client.offer().await;
    assert!(declined.elapsed() >= Duration::from_millis(500), "{:?}", declined.elapsed());
    assert_eq!(again.resources, offer.resources);
    world.stop().await;
}

#[tokio::test]
async fn an_offer_declined_without_filter_comes_back_at_the_next_tick_and_a_revive_clears_filters() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    client.decline(&offer, 0.0).await;
    let offer = client.offer().await;
    client.decline(&offer, 3600.0).await;
    no_offer(&mut client).await;
    client.revive().await;
    client.offer().await;
    world.stop().await;
}

#[tokio::test]
async fn a_filter_hides_what_was_refused_but_not_a_bigger_bundle() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    client.reach("t", TaskState::TaskRunning).await;
    no_offer(&mut client).await;
    // The end of the task makes the bundle bigger than the one refused.
    client.kill("t").await;
    let bigger = client.offer().await;
    assert!(cpus(&bigger) > 15.8, "{bigger:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_suppressed_role_gets_no_offers_until_it_is_revived() {
    let world = World::start(agents(1)).await;
    let mut client = Client::try_subscribe(world.address(), Kind::Json, info("test", &[]), vec![ROLE.to_owned()]).await.unwrap();
    no_offer(&mut client).await;
    client.revive().await;
    let offer = client.offer().await;
    client.expect(call::Type::Suppress, Call::default()).await;
    client.decline(&offer, 0.0).await;
    no_offer(&mut client).await;
    // A role that is not the framework's voids the call.
    let revive = call::Revive { roles: vec![ROLE.to_owned(), "other".to_owned()] };
    client.expect(call::Type::Revive, Call { revive: Some(revive), ..Call::default() }).await;
    no_offer(&mut client).await;
    client.revive().await;
    client.offer().await;
    world.stop().await;
}

#[tokio::test]
async fn offers_of_a_lost_agent_are_rescinded() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    while client.offers.len() < 2 {
        client.until(|event| event.offers.as_ref().map(|_| ())).await;
    }
    world.simulation().lose(1).await.unwrap();
    client.until(|event| event.rescind.clone()).await;
    let failure = client.until(|event| event.failure.clone()).await;
    assert_eq!(failure.agent_id.unwrap().value, "simulated-S1");
    assert_eq!(client.offer().await.agent_id.value, "simulated-S0");
    world.simulation().bring_back(1).await.unwrap();
    assert_eq!(client.offer().await.agent_id.value, "simulated-S1");
    world.stop().await;
}

#[tokio::test]
async fn two_frameworks_get_agents_in_turn_by_their_dominant_share() {
    let world = World::start(agents(0)).await;
    world.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = super::engine(folder.path(), agents(4), podium_engine::Settings::default()).await;
    let mut first = Client::subscribe(engine.address(), info("first", &[])).await;
    while first.offers.len() < 4 {
        first.until(|event| event.offers.as_ref().map(|_| ())).await;
    }
    let mut second = Client::subscribe(engine.address(), info("second", &[])).await;
    // The first holds everything; what it gives back goes to the one that has less.
    for _ in 0..2 {
        let offer = first.offer().await;
        first.decline(&offer, 0.0).await;
        assert_eq!(second.offer().await.agent_id, offer.agent_id);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_framework_without_roles_of_its_own_sees_the_old_form() {
    let world = World::start(agents(1)).await;
    let old = FrameworkInfo { capabilities: vec![], roles: vec![], ..info("old", &[]) };
    let mut client = Client::subscribe(world.address(), old).await;
    let offer = client.offer().await;
    assert!(offer.allocation_info.is_none());
    #[allow(deprecated)]
    let as_before = offer.resources.iter().all(|resource| resource.allocation_info.is_none() && resource.role.as_deref() == Some("*"));
    assert!(as_before, "{offer:?}");
    let group = client.group("e", vec![a_task("t", &offer, &[])]);
    client.accept(&[&offer], vec![group], 3600.0).await;
    client.reach("t", TaskState::TaskRunning).await;
    world.stop().await;
}

#[tokio::test]
async fn a_removed_role_has_its_offers_rescinded() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let mut framework_info = FrameworkInfo { roles: vec!["another".to_owned()], ..info("test", &[]) };
    framework_info.id = Some(offer.framework_id.clone());
    let update = call::UpdateFramework { framework_info, ..Default::default() };
    client.call(call::Type::UpdateFramework, Call { update_framework: Some(update), ..Call::default() }).await;
    let rescind = client.until(|event| event.rescind.clone()).await;
    assert_eq!(rescind.offer_id, offer.id);
    let again = client.offer().await;
    assert_eq!(again.allocation_info.unwrap().role.as_deref(), Some("another"));
    world.stop().await;
}

#[tokio::test]
async fn agents_of_another_region_are_for_frameworks_that_know_regions() {
    let zones = vec![("here".to_owned(), "a".to_owned()), ("there".to_owned(), "b".to_owned())];
    let domain = podium_proto::mesos::v1::DomainInfo {
        fault_domain: Some(podium_proto::mesos::v1::domain_info::FaultDomain {
            region: podium_proto::mesos::v1::domain_info::fault_domain::RegionInfo { name: "here".to_owned() },
            zone: podium_proto::mesos::v1::domain_info::fault_domain::ZoneInfo { name: "a".to_owned() },
        }),
    };
    let settings = podium_engine::Settings { domain: Some(domain), ..Default::default() };
    let world = World::start_with(SimulatedAgents { zones, ..agents(2) }, settings).await;
    let mut local = Client::subscribe(world.address(), info("local", &[])).await;
    assert_eq!(local.offer().await.agent_id.value, "simulated-S0");
    no_offer(&mut local).await;
    let mut aware = Client::subscribe(world.address(), info("aware", &[Capability::RegionAware])).await;
    let offer = aware.offer().await;
    assert_eq!(offer.domain.unwrap().fault_domain.unwrap().region.name, "there");
    world.stop().await;
}

#[tokio::test]
async fn offer_constraints_choose_agents_by_their_attributes() {
    let world = World::start(SimulatedAgents { racks: 3, ..agents(3) }).await;
    let constraint = AttributeConstraint {
        selector: attribute_constraint::Selector { selector: Some(selector::Selector::AttributeName("rack".to_owned())) },
        predicate: attribute_constraint::Predicate {
            value: Some(predicate::Value::TextEquals(predicate::TextEquals { value: "rack-1".to_owned() })),
        },
    };
    let groups = vec![Group { attribute_constraints: vec![constraint] }];
    let offer_constraints = OfferConstraints { role_constraints: [(ROLE.to_owned(), RoleConstraints { groups })].into() };
    let subscribe = call::Subscribe { framework_info: info("test", &[]), offer_constraints: Some(offer_constraints), ..Default::default() };
    let call = Call { r#type: Some(call::Type::Subscribe.into()), subscribe: Some(subscribe), ..Call::default() };
    let mut client = Client::open(world.address(), Kind::Json, call).await.unwrap();
    assert_eq!(client.offer().await.agent_id.value, "simulated-S1");
    no_offer(&mut client).await;
    world.stop().await;
}
