use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_types::definition::{
    Backoff, Constraint, Container, Endpoint, ExecutorResources, KillSelection, Operator, Placement, Resources, Scaling, Scheduling,
    UnreachableStrategy, Upgrade,
};
use podium_types::id::PodId;

use podium_proto::wire::amounts::Amounts;

use super::candidate::GPU_LABEL;
use super::*;

pub(crate) fn definition(cpus: f64, host_ports: &[u16], constraints: Vec<Constraint>) -> PodDefinition {
    let endpoint = |(index, port): (usize, &u16)| Endpoint {
        name: format!("e{index}"),
        container_port: None,
        host_port: Some(*port),
        protocol: vec!["tcp".into()],
        labels: BTreeMap::new(),
        network_names: Vec::new(),
    };
    let container = Container {
        name: "c".into(),
        exec: None,
        resources: Resources { cpus, mem: 32.0, disk: 0.0, gpus: 0 },
        resource_limits: None,
        endpoints: host_ports.iter().enumerate().map(endpoint).collect(),
        image: None,
        environment: BTreeMap::new(),
        user: None,
        health_check: None,
        volume_mounts: Vec::new(),
        artifacts: Vec::new(),
        labels: BTreeMap::new(),
        lifecycle: None,
        linux_info: None,
        tty: None,
    };
    PodDefinition {
        id: PodId::new("/a").unwrap(),
        version: None,
        user: None,
        labels: BTreeMap::new(),
        environment: BTreeMap::new(),
        containers: vec![container],
        secrets: BTreeMap::new(),
        volumes: Vec::new(),
        networks: Vec::new(),
        scaling: Scaling { instances: 1, max_instances: None },
        scheduling: Scheduling {
            backoff: Backoff { backoff: 1.0, backoff_factor: 1.15, max_launch_delay: 3600.0 },
            upgrade: Upgrade { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 },
            placement: Placement { constraints, accepted_resource_roles: Vec::new() },
            kill_selection: KillSelection::YoungestFirst,
            unreachable_strategy: UnreachableStrategy::Disabled,
        },
        executor_resources: ExecutorResources { cpus: 0.1, mem: 32.0, disk: 10.0 },
        role: None,
        linux_info: None,
        legacy_shared_cgroups: None,
    }
}

pub(super) fn constraint(field: &str, operator: Operator, value: Option<&str>) -> Constraint {
    Constraint { field_name: field.into(), operator, value: value.map(Into::into) }
}

fn offer(agent: usize, cpus: i64, ports: std::ops::RangeInclusive<u64>, rack: &str) -> v1::Offer {
    let text = |text: &str| Some(v1::value::Text { value: text.into() });
    v1::Offer {
        id: v1::OfferId { value: format!("O{agent}") },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: v1::AgentId { value: format!("S{agent:05}") },
        hostname: format!("host{agent}"),
        allocation_info: Some(v1::resource::AllocationInfo { role: Some("*".into()) }),
        attributes: vec![v1::Attribute {
            name: "rack".into(),
            r#type: v1::value::Type::Text.into(),
            text: text(rack),
            ..Default::default()
        }],
        resources: vec![
            scalar_entry("cpus", cpus),
            scalar_entry("mem", 1_000_000),
            scalar_entry("disk", 1_000_000),
            ranges_entry("ports", &std::iter::once(ports).collect()),
        ],
        ..Default::default()
    }
}

fn ids(count: u128) -> Vec<Waiting> {
    let id = |n: u128| Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    (1..=count).map(|n| Waiting { instance: id(n), incarnation: 1 }).collect()
}

fn group<'a>(definition: &'a PodDefinition, waiting: &'a [Waiting], counted: &'a [AgentFacts]) -> Group<'a> {
    Group { definition, role: "*", waiting, counted }
}

fn spread(offers: &[v1::Offer], definition: &PodDefinition, count: u128) -> Vec<String> {
    let mut slots = slots(offers);
    let waiting = ids(count);
    let placed = place(&mut slots, &[group(definition, &waiting, &[])], &Rules::default());
    let mut racks: Vec<String> = placed.iter().map(|placed| slots[placed.slot].facts.attributes["rack"].clone()).collect();
    racks.sort();
    racks
}

fn racks() -> Vec<v1::Offer> {
    ["a", "a", "b", "c"].iter().enumerate().map(|(index, rack)| offer(index, 10_000, 31_000..=31_100, rack)).collect()
}

#[test]
fn a_thousandth_more_than_offered_does_not_fit() {
    let exact = definition(0.2, &[], Vec::new());
    assert_eq!(spread(&[offer(0, 300, 31_000..=31_001, "a")], &exact, 1).len(), 1);
    assert_eq!(spread(&[offer(0, 299, 31_000..=31_001, "a")], &exact, 1).len(), 0);
}

#[test]
fn unique_places_one_a_value_and_counts_those_that_run() {
    let unique = definition(0.1, &[], vec![constraint("rack", Operator::Unique, None)]);
    assert_eq!(spread(&racks(), &unique, 9), ["a", "b", "c"]);
    let running = [AgentFacts { attributes: [("rack".into(), "b".into())].into(), ..AgentFacts::default() }];
    let waiting = ids(9);
    let mut slots = slots(&racks());
    assert_eq!(place(&mut slots, &[group(&unique, &waiting, &running)], &Rules::default()).len(), 2);
}

#[test]
fn cluster_keeps_all_at_one_value() {
    let given = definition(0.1, &[], vec![constraint("rack", Operator::Cluster, Some("b"))]);
    assert_eq!(spread(&racks(), &given, 3), ["b", "b", "b"]);
    let free = definition(0.1, &[], vec![constraint("rack", Operator::Cluster, None)]);
    let racks = spread(&racks(), &free, 5);
    assert!(racks.len() == 5 && racks.iter().all(|rack| *rack == racks[0]), "{racks:?}");
}

#[test]
fn like_unlike_is_and_max_per_hold() {
    let one = |operator, value| definition(0.1, &[], vec![constraint("rack", operator, Some(value))]);
    assert_eq!(spread(&racks(), &one(Operator::Like, "[bc]"), 2), ["b", "c"]);
    assert_eq!(spread(&racks(), &one(Operator::Unlike, "a|b"), 2), ["c", "c"]);
    assert_eq!(spread(&racks(), &one(Operator::Is, "c"), 1), ["c"]);
    assert_eq!(spread(&racks(), &one(Operator::MaxPer, "2"), 9), ["a", "a", "b", "b", "c", "c"]);
    assert!(spread(&racks(), &one(Operator::Like, "("), 1).is_empty());
    // The whole value must match.
    assert!(spread(&racks(), &one(Operator::Like, ""), 1).is_empty());
}

#[test]
fn an_agent_without_the_attribute_is_admitted_by_unlike_alone() {
    for (operator, value, admitted) in [
        (Operator::Unlike, Some("x"), 1),
        (Operator::Like, Some(".*"), 0),
        (Operator::Unique, None, 0),
        (Operator::Cluster, None, 0),
        (Operator::GroupBy, None, 0),
        (Operator::MaxPer, Some("5"), 0),
        (Operator::Is, Some(""), 0),
    ] {
        let definition = definition(0.1, &[], vec![constraint("floor", operator, value)]);
        assert_eq!(spread(&racks(), &definition, 1).len(), admitted, "{operator:?}");
    }
}

#[test]
fn group_by_spreads_evenly_with_and_without_a_number() {
    let mut even = definition(0.1, &[], vec![constraint("rack", Operator::GroupBy, None)]);
    even.scaling.instances = 7;
    let racks_used = spread(&racks(), &even, 7);
    let counts: BTreeSet<usize> = ["a", "b", "c"].iter().map(|rack| racks_used.iter().filter(|used| used == rack).count()).collect();
    assert_eq!(counts, [2, 3].into(), "{racks_used:?}");
    let zero = definition(0.1, &[], vec![constraint("rack", Operator::GroupBy, Some("0"))]);
    assert_eq!(spread(&racks(), &zero, 1).len(), 1);
}

#[test]
fn fixed_ports_are_taken_once_an_agent_and_any_ports_differ() {
    let fixed = definition(0.1, &[31_005], Vec::new());
    assert_eq!(spread(&racks(), &fixed, 9).len(), 4);
    let any = definition(0.1, &[0, 0, 31_000], Vec::new());
    let mut slots = slots(&racks());
    let waiting = ids(1);
    let placed = place(&mut slots, &[group(&any, &waiting, &[])], &Rules::default());
    let ports: BTreeSet<u16> = placed[0].host_ports[0].iter().map(|port| port.unwrap()).collect();
    assert!(ports.len() == 3 && ports.contains(&31_000), "{ports:?}");
    assert_eq!(Amounts::of(&placed[0].executor_resources).ports.len(), 3);
}

#[test]
fn an_incarnation_draws_none_of_the_ports_of_the_one_before_and_the_same_one_always_the_same() {
    let any = definition(0.1, &[0, 0, 31_001], Vec::new());
    let drawn = |waiting: Waiting| {
        let mut slots = slots(&[offer(0, 10_000, 31_000..=31_004, "a")]);
        let placed = place(&mut slots, &[group(&any, &[waiting], &[])], &Rules::default());
        let ports: BTreeSet<u16> = placed[0].host_ports[0][..2].iter().map(|port| port.unwrap()).collect();
        assert!(ports.len() == 2 && !ports.contains(&31_001), "{ports:?}");
        ports
    };
    for first in ids(20) {
        for incarnation in [1, 2, 3, u32::MAX - 1] {
            let waiting = Waiting { incarnation, ..first };
            let next = Waiting { incarnation: incarnation + 1, ..first };
            assert!(drawn(waiting).is_disjoint(&drawn(next)), "{waiting:?}");
            assert_eq!(drawn(waiting), drawn(waiting));
        }
    }
    let begins: BTreeSet<_> = ids(20).into_iter().map(drawn).collect();
    assert!(begins.len() > 1, "instances begin at different ports");
}

#[test]
fn reserved_entries_are_spent_first_and_keep_their_reservation() {
    let mut reserved = offer(0, 1_000, 31_000..=31_001, "a");
    let mut entry = scalar_entry("cpus", 150);
    entry.reservations.push(v1::resource::ReservationInfo { role: Some("web".into()), ..Default::default() });
    reserved.resources.push(entry);
    let mut slots = slots([&reserved]);
    let (waiting, definition) = (ids(1), definition(0.1, &[], Vec::new()));
    let placed = place(&mut slots, &[group(&definition, &waiting, &[])], &Rules::default());
    assert_eq!(placed[0].executor_resources[0].reservations.len(), 1);
    let cpus: Vec<_> = placed[0].task_resources[0].iter().filter(|entry| entry.name == "cpus").collect();
    assert_eq!((cpus.len(), cpus[0].reservations.len(), cpus[1].reservations.len()), (2, 1, 0));
}

#[test]
fn refusals_come_in_funnel_order() {
    let rules = Rules { maintenance_before_ms: 10, ..Rules::default() };
    let (waiting, wants) = (ids(1), definition(0.1, &[], Vec::new()));
    let reason = |offer: &v1::Offer, definition: &PodDefinition, rules: &Rules| {
        explain(&slots([offer]), &group(definition, &waiting, &[]), rules).remove(0)
    };
    let plain = offer(0, 10_000, 31_000..=31_001, "a");
    assert_eq!(reason(&plain, &wants, &rules), None);
    let mut other = plain.clone();
    other.allocation_info = Some(v1::resource::AllocationInfo { role: Some("other".into()) });
    assert_eq!(reason(&other, &wants, &rules), Some(Reason::UnfulfilledRole));
    let picky = definition(99.0, &[], vec![constraint("rack", Operator::Is, Some("z"))]);
    assert_eq!(reason(&plain, &picky, &rules), Some(Reason::UnfulfilledConstraint));
    assert_eq!(reason(&plain, &definition(99.0, &[], Vec::new()), &rules), Some(Reason::InsufficientCpus));
    assert_eq!(reason(&plain, &definition(0.1, &[80], Vec::new()), &rules), Some(Reason::InsufficientPorts));
    assert_eq!(reason(&plain, &definition(0.1, &[0, 0, 0], Vec::new()), &rules), Some(Reason::InsufficientPorts));
    let mut gpus = plain.clone();
    gpus.resources.push(scalar_entry("gpus", 1000));
    assert_eq!(reason(&gpus, &wants, &rules), Some(Reason::DeclinedScarceResources));
    let mut unrestricted = wants.clone();
    unrestricted.labels.insert(GPU_LABEL.into(), "unrestricted".into());
    assert_eq!(reason(&gpus, &unrestricted, &rules), None);
    let mut closing = plain.clone();
    closing.unavailability = Some(v1::Unavailability { start: v1::TimeInfo { nanoseconds: 5_000_000 }, duration: None });
    assert_eq!(reason(&closing, &wants, &rules), Some(Reason::AgentMaintenance));
    let mut away = plain;
    away.domain = Some(v1::DomainInfo {
        fault_domain: Some(v1::domain_info::FaultDomain {
            region: v1::domain_info::fault_domain::RegionInfo { name: "eu".into() },
            zone: v1::domain_info::fault_domain::ZoneInfo { name: "eu-1".into() },
        }),
    });
    let at_home = Rules { home_region: Some("us".into()), ..Rules::default() };
    assert_eq!(reason(&away, &wants, &at_home), Some(Reason::UnfulfilledConstraint));
    let abroad = definition(0.1, &[], vec![constraint("@region", Operator::Is, Some("eu"))]);
    assert_eq!(reason(&away, &abroad, &at_home), None);
}

#[test]
fn ten_thousand_pods_on_five_thousand_agents_look_at_few_pairs() {
    let offers: Vec<v1::Offer> = (0..5_000).map(|agent| offer(agent, 1_000, 31_000..=31_003, "a")).collect();
    let definition = definition(0.3, &[0], Vec::new());
    let waiting = ids(10_000);
    let groups: Vec<Group<'_>> = waiting.chunks(1).map(|one| group(&definition, one, &[])).collect();
    let mut slots = slots(&offers);
    let started = Instant::now();
    let placed = place(&mut slots, &groups, &Rules::default());
    assert_eq!(placed.len(), 10_000);
    println!("10,000 pods on 5,000 offers: {:?}", started.elapsed());
    // Two fit on each agent, so nothing is left for another.
    let more = ids(1);
    assert!(place(&mut slots, &[group(&definition, &more, &[])], &Rules::default()).is_empty());
}
