//! Matching against a plain judge of its own, on any clusters and pods: nothing is sold twice, no rule is broken, nobody
//! who fits is left out, and the order in which offers come is all the same.

use std::collections::{BTreeMap, BTreeSet};

use podium_proto::mesos::v1::resource::{AllocationInfo, ReservationInfo};
use podium_proto::wire::amounts::Amounts;
use podium_proto::wire::resources::{self, ranges_entry, scalar_entry};
use podium_types::definition::{Constraint, Operator, PersistentKind, PersistentVolume, Volume, VolumeSource};
use proptest::prelude::*;

use super::candidate::GPU_LABEL;
use super::tests::{constraint, definition};
use super::*;
use crate::reservation::{Maker, Owner};

const NOW: i64 = 1_000;
const HOME: &str = "r1";

/// One agent, as it offers itself to one role.
#[derive(Debug, Clone)]
struct Agent {
    index: usize,
    role: &'static str,
    cpus: i64,
    reserved_cpus: i64,
    gpus: i64,
    ports: u64,
    rack: Option<&'static str>,
    level: Option<f64>,
    zone: Option<(&'static str, &'static str)>,
    closes_at: Option<i64>,
    /// Everything in two offers.
    split: bool,
}

fn any_agent() -> impl Strategy<Value = Agent> {
    let place = prop_oneof![Just(None), Just(Some((HOME, "z1"))), Just(Some((HOME, "z2"))), Just(Some(("r2", "z3")))];
    let rack = prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("c"))];
    let level = prop_oneof![Just(None), Just(Some(1.0)), Just(Some(2.5))];
    let closes = prop_oneof![4 => Just(None), 1 => Just(Some(NOW)), 1 => Just(Some(NOW + 1))];
    let gpus = prop_oneof![3 => Just(0i64), 1 => 1i64..3];
    let role = prop_oneof![2 => Just("*"), 2 => Just("web"), 1 => Just("db")];
    (role, 0i64..12, 0i64..6, gpus, 0u64..7, rack, level, place, closes, any::<bool>()).prop_map(
        |(role, cpus, reserved_cpus, gpus, ports, rack, level, zone, closes_at, split)| Agent {
            index: 0,
            role,
            cpus: cpus * 100,
            reserved_cpus: if role == "*" { 0 } else { reserved_cpus * 100 },
            gpus: gpus * 1000,
            ports,
            rack,
            level,
            zone,
            closes_at,
            split,
        },
    )
}

impl Agent {
    fn offers(&self) -> Vec<v1::Offer> {
        let parts = if self.split { 2 } else { 1 };
        let mut offers: Vec<v1::Offer> = (0..parts).map(|part| self.offer(part)).collect();
        let mut entries = vec![
            scalar_entry("cpus", self.cpus),
            scalar_entry("mem", 1_000_000),
            scalar_entry("disk", 1_000_000),
            scalar_entry("gpus", self.gpus),
        ];
        if self.ports > 0 {
            entries.push(ranges_entry("ports", &std::iter::once(31_000..=30_999 + self.ports).collect()));
        }
        let mut reserved = scalar_entry("cpus", self.reserved_cpus);
        reserved.reservations.push(ReservationInfo { role: Some(self.role.into()), ..ReservationInfo::default() });
        entries.push(reserved);
        for (index, mut entry) in entries.into_iter().filter(|entry| !resources::is_empty(entry)).enumerate() {
            entry.allocation_info = Some(AllocationInfo { role: Some(self.role.into()) });
            offers[index % parts].resources.push(entry);
        }
        offers
    }

    fn offer(&self, part: usize) -> v1::Offer {
        let text = |name: &str, text: &str| v1::Attribute {
            name: name.into(),
            r#type: v1::value::Type::Text.into(),
            text: Some(v1::value::Text { value: text.into() }),
            ..v1::Attribute::default()
        };
        let mut attributes: Vec<v1::Attribute> = self.rack.iter().map(|rack| text("rack", rack)).collect();
        attributes.extend(self.level.map(|value| v1::Attribute {
            name: "level".into(),
            r#type: v1::value::Type::Scalar.into(),
            scalar: Some(v1::value::Scalar { value }),
            ..v1::Attribute::default()
        }));
        let domain = self.zone.map(|(region, zone)| v1::DomainInfo {
            fault_domain: Some(v1::domain_info::FaultDomain {
                region: v1::domain_info::fault_domain::RegionInfo { name: region.into() },
                zone: v1::domain_info::fault_domain::ZoneInfo { name: zone.into() },
            }),
        });
        v1::Offer {
            id: v1::OfferId { value: format!("O{}-{part}", self.index) },
            agent_id: v1::AgentId { value: format!("S{}", self.index) },
            hostname: format!("host{}", self.index % 4),
            allocation_info: Some(AllocationInfo { role: Some(self.role.into()) }),
            unavailability: self
                .closes_at
                .map(|at| v1::Unavailability { start: v1::TimeInfo { nanoseconds: at * 1_000_000 }, duration: None }),
            attributes,
            domain,
            ..v1::Offer::default()
        }
    }

    fn value(&self, field: &str) -> Option<String> {
        match field {
            "hostname" | "@hostname" => Some(format!("host{}", self.index % 4)),
            "@region" => self.zone.map(|(region, _)| region.to_owned()),
            "@zone" => self.zone.map(|(_, zone)| zone.to_owned()),
            "rack" => self.rack.map(str::to_owned),
            "level" => self.level.map(|level| level.to_string()),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
struct Pod {
    definition: PodDefinition,
    role: &'static str,
    waiting: Vec<Waiting>,
    /// Agents on which it runs already, by index.
    counted: Vec<usize>,
}

fn any_constraint() -> impl Strategy<Value = Constraint> {
    let field =
        prop_oneof![Just("hostname"), Just("@hostname"), Just("@region"), Just("@zone"), Just("rack"), Just("level"), Just("floor")];
    let rule = prop_oneof![
        Just((Operator::Unique, None)),
        Just((Operator::Cluster, None)),
        Just((Operator::Cluster, Some("a"))),
        Just((Operator::Cluster, Some("host1"))),
        Just((Operator::GroupBy, None)),
        Just((Operator::GroupBy, Some("2"))),
        Just((Operator::Like, Some("[ab]|host[12]|r.|z[13]|1"))),
        Just((Operator::Unlike, Some("a|host.*|r2"))),
        Just((Operator::MaxPer, Some("2"))),
        Just((Operator::Is, Some("2.50"))),
        Just((Operator::Is, Some("b"))),
        Just((Operator::Is, Some("r2"))),
    ];
    (field, rule).prop_map(|(field, (operator, value))| constraint(field, operator, value))
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let ports = proptest::collection::btree_set(31_000u16..31_006, 0..2);
    let role = prop_oneof![Just("*"), Just("web")];
    let accepted = prop_oneof![3 => Just(0usize), 1 => Just(1), 1 => Just(2)];
    let gpus = prop_oneof![4 => Just(0u32), 1 => Just(1)];
    let label = prop_oneof![3 => Just(None), 1 => Just(Some("unrestricted")), 1 => Just(Some("restricted"))];
    let constraints = proptest::collection::vec(any_constraint(), 0..3);
    let counted = proptest::collection::vec(0usize..8, 0..3);
    (1u32..5, ports, 0usize..2, role, accepted, (gpus, label), constraints, counted, 1usize..6).prop_map(
        |(cpus, fixed, any, role, accepted, (gpus, label), constraints, counted, count)| {
            let ports: Vec<u16> = fixed.into_iter().chain(std::iter::repeat_n(0, any)).collect();
            let mut definition = definition(f64::from(cpus) / 10.0, &ports, constraints);
            definition.containers[0].resources.gpus = gpus;
            definition.labels.extend(label.map(|label| (GPU_LABEL.to_owned(), label.to_owned())));
            definition.scaling.instances = 5;
            definition.scheduling.placement.accepted_resource_roles =
                [Vec::new(), vec!["*".to_owned()], vec![role.to_owned()]][accepted].clone();
            Pod { definition, role, waiting: (0..count).map(|_| Waiting { instance: Uuid::nil(), incarnation: 1 }).collect(), counted }
        },
    )
}

/// The judge: what it knows of the agents, each with all that is left of it.
struct Judge<'a> {
    agents: &'a [Agent],
    left: Vec<Vec<v1::Resource>>,
}

impl<'a> Judge<'a> {
    fn new(agents: &'a [Agent]) -> Self {
        let left = agents.iter().map(|agent| {
            let mut all = Vec::new();
            agent.offers().iter().for_each(|offer| resources::add(&mut all, &offer.resources));
            all
        });
        Judge { agents, left: left.collect() }
    }

    /// Whether the agent is one for the pod, wherever its other instances are and whatever is left.
    fn suits(&self, pod: &Pod, agent: &Agent) -> bool {
        let constraints = &pod.definition.scheduling.placement.constraints;
        let travels = constraints.iter().any(|constraint| matches!(constraint.field_name.as_str(), "@region" | "@zone"));
        let wants_gpus = pod.definition.containers[0].resources.gpus > 0;
        let shares = pod.definition.labels.get(GPU_LABEL).is_some_and(|label| label == "unrestricted");
        agent.role == pod.role
            && (travels || agent.zone.is_none_or(|(region, _)| region == HOME))
            && agent.closes_at.is_none_or(|at| at > NOW)
            && (agent.gpus == 0 || wants_gpus || shares)
            && constraints.iter().all(|constraint| is_fine(constraint, agent.value(&constraint.field_name).as_deref()))
    }

    /// Whether one more instance may go there, of which `at` are the places so far.
    fn allows(&self, pod: &Pod, at: &[usize], agent: &Agent) -> bool {
        pod.definition.scheduling.placement.constraints.iter().all(|constraint| {
            let field = constraint.field_name.as_str();
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            let values: Vec<String> = at.iter().filter_map(|index| self.agents[*index].value(field)).collect();
            values.iter().for_each(|value| *counts.entry(value.clone()).or_default() += 1);
            let number = constraint.value.as_deref().and_then(|value| value.parse::<u64>().ok());
            let Some(value) = agent.value(field) else { return constraint.operator == Operator::Unlike };
            let here = counts.get(&value).copied().unwrap_or(0);
            match constraint.operator {
                Operator::Unique => here == 0,
                Operator::MaxPer => here < number.unwrap(),
                Operator::Cluster if constraint.value.is_none() => values.first().is_none_or(|first| *first == value),
                Operator::GroupBy => {
                    let suited = self.agents.iter().filter(|agent| self.suits(pod, agent));
                    let counted = pod.counted.iter().map(|index| &self.agents[*index]);
                    let seen: BTreeSet<String> = suited.chain(counted).filter_map(|agent| agent.value(field)).collect();
                    let groups = number.unwrap_or(seen.len() as u64).max(1);
                    let all = 5.max(pod.counted.len() as u64 + 1);
                    let full = counts.values().filter(|count| **count > all / groups).count() as u64;
                    if here == 0 {
                        (counts.len() as u64) < groups
                    } else {
                        here < all / groups || (here == all / groups && full < all % groups)
                    }
                }
                _ => true,
            }
        })
    }

    fn has_room(&self, pod: &Pod, agent: &Agent) -> bool {
        let accepted = &pod.definition.scheduling.placement.accepted_resource_roles;
        let usable =
            self.left[agent.index].iter().filter(|entry| accepted.is_empty() || accepted.iter().any(|role| role == resources::role(entry)));
        let free = Amounts::of(usable);
        let container = &pod.definition.containers[0];
        let ports: Vec<u16> = container.endpoints.iter().filter_map(|endpoint| endpoint.host_port).collect();
        free.cpus >= 100 + (container.resources.cpus * 1000.0).round() as i64
            && free.mem >= 64_000
            && free.disk >= 10_000
            && free.gpus >= i64::from(container.resources.gpus) * 1000
            && free.ports.len() >= ports.len() as u64
            && ports.iter().all(|port| *port == 0 || free.ports.contains(u64::from(*port)))
    }
}

/// What a constraint says of the agent alone.
fn is_fine(constraint: &Constraint, value: Option<&str>) -> bool {
    match (constraint.operator, constraint.value.as_deref(), value) {
        (Operator::Unlike, _, None) => true,
        (_, _, None) => false,
        (Operator::Like, _, Some(value)) => ["a", "b", "host1", "host2", "r1", "r2", "z1", "z3", "1"].contains(&value),
        (Operator::Unlike, _, Some(value)) => value != "a" && !value.starts_with("host") && value != "r2",
        (Operator::Is, Some("2.50"), Some(value)) => value == "2.5",
        (Operator::Is | Operator::Cluster, Some(wanted), Some(value)) => value == wanted,
        _ => true,
    }
}

/// What is reserved on an agent for an instance: enough for one of `definition(0.1, …)` with a volume of 1, or a little less.
fn held_for(instance: &str, agent: &Agent, incarnation: u32, complete: bool) -> Vec<v1::Resource> {
    let owner = Owner { instance: instance.to_owned(), framework_id: "F".to_owned(), cluster_id: "C".to_owned(), incarnation, revision: 1 };
    let maker = Maker { owner: &owner, role: agent.role, principal: None };
    let port = 40_000 + u64::from(incarnation);
    let mut entries = vec![scalar_entry("cpus", 200), scalar_entry("mem", 64_000), scalar_entry("disk", 10_000)];
    entries.push(ranges_entry("ports", &std::iter::once(port..=port).collect()));
    let mut held: Vec<v1::Resource> = entries.iter().map(|entry| maker.reserved(entry)).collect();
    if complete {
        // A mount is larger than what was asked for, as whoever has reserved it takes all of it.
        let disk = if incarnation == 1 { scalar_entry("disk", 1_000) } else { offered_disk(PersistentKind::Mount, "/m", 7, Some("p")) };
        held.push(maker.volume(&maker.reserved(&disk), "v", instance));
    }
    held.iter_mut().for_each(|entry| entry.allocation_info = Some(AllocationInfo { role: Some(agent.role.into()) }));
    held
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn what_is_reserved_for_an_instance_goes_to_it_alone_and_whole(
        agents in proptest::collection::vec(any_agent(), 4),
        // By instance: the agent, the launch that reserved, whether the volume is there, and where and how it is claimed.
        held in proptest::collection::vec((0usize..4, 1u32..3, any::<bool>(), 0usize..4, 0u32..3), 1..6),
        pods in proptest::collection::vec(any_pod(), 1..3),
    ) {
        let agents: Vec<Agent> = agents.into_iter().enumerate().map(|(index, agent)| Agent { index, ..agent }).collect();
        let names: Vec<String> = (0..held.len()).map(|number| format!("a.instance-{}", Uuid::from_u128(number as u128 + 1))).collect();
        let mut offers: Vec<v1::Offer> = agents.iter().flat_map(Agent::offers).collect();
        for (name, (at, incarnation, complete, ..)) in names.iter().zip(&held) {
            let own = held_for(name, &agents[*at], *incarnation, *complete);
            let offer = offers.iter_mut().find(|offer| offer.agent_id.value == format!("S{at}")).unwrap();
            offer.resources.extend(own);
        }
        let mut definition = definition(0.1, &[0], Vec::new());
        let persistent = PersistentVolume { kind: PersistentKind::Root, size: 1, max_size: None, profile_name: None, path_like: Vec::new() };
        definition.volumes = vec![Volume { name: "v".into(), source: VolumeSource::Persistent(persistent) }];
        let ids: Vec<String> = (0..4).map(|index| format!("S{index}")).collect();
        let claims: Vec<Claim<'_>> = names.iter().zip(&held).enumerate().map(|(number, (name, (.., asked, incarnation)))| Claim {
            definition: &definition,
            role: agents[*asked].role,
            instance: name,
            next: Waiting { instance: Uuid::from_u128(number as u128 + 1), incarnation: 3 },
            agent_id: &ids[*asked],
            incarnation: *incarnation,
        }).collect();
        let rules = Rules { maintenance_before_ms: NOW, ..Rules::default() };
        let mut rest = slots(&offers);
        let offered = rest.clone();
        let placed = reclaim(&mut rest, &claims, &rules);
        for (number, (name, (at, reserved, complete, asked, incarnation))) in names.iter().zip(&held).enumerate() {
            let open = agents[*at].closes_at.is_none_or(|closes| closes > NOW);
            let there = at == asked && *complete && open && (*incarnation == 0 || incarnation == reserved);
            let found = placed.iter().find(|one| one.group == number);
            prop_assert_eq!(found.is_some(), there, "{} {:?}", name, held[number]);
            let Some(one) = found else { continue };
            prop_assert!(one.is_reserved && offered[one.slot].agent_id == ids[*at]);
            let used: Vec<v1::Resource> =
                one.executor_resources.iter().chain(one.task_resources.iter().flatten()).chain(&one.volumes).cloned().collect();
            prop_assert!(used.iter().all(|resource| Owner::of(resource).is_some_and(|owner| owner.instance == *name)));
            let own = held_for(name, &agents[*at], *reserved, *complete);
            prop_assert!(resources::contains(&own, &used), "more than is its own: {:?}", used);
        }
        // Whoever comes after them finds nothing of it, claimed or not.
        let waiting: Vec<Waiting> = (100..105).map(|number| Waiting { instance: Uuid::from_u128(number), incarnation: 1 }).collect();
        let groups: Vec<Group<'_>> =
            pods.iter().map(|pod| Group { definition: &pod.definition, role: pod.role, waiting: &waiting, counted: &[] }).collect();
        for one in place(&mut rest, &groups, &rules) {
            let used = one.executor_resources.iter().chain(one.task_resources.iter().flatten());
            prop_assert!(used.into_iter().all(|resource| Owner::of(resource).is_none()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_plain_judge_finds_nothing_to_complain_of(
        agents in proptest::collection::vec(any_agent(), 8),
        pods in proptest::collection::vec(any_pod(), 1..4),
        rotate in 0usize..16,
    ) {
        let agents: Vec<Agent> = agents.into_iter().enumerate().map(|(index, agent)| Agent { index, ..agent }).collect();
        let mut offers: Vec<v1::Offer> = agents.iter().flat_map(Agent::offers).collect();
        let offered = slots(&offers);
        let number = |one: usize, n: usize| {
            Waiting { instance: Uuid::from_u128((one as u128 * 977 + n as u128 * 31 + 1) << 7), incarnation: 1 }
        };
        let pods: Vec<Pod> = pods.into_iter().enumerate()
            .map(|(one, pod)| Pod { waiting: (0..pod.waiting.len()).map(|n| number(one, n)).collect(), ..pod })
            .collect();
        let counted: Vec<Vec<AgentFacts>> = pods.iter()
            .map(|pod| pod.counted.iter().map(|index| AgentFacts::of(&agents[*index].offer(0))).collect())
            .collect();
        let groups: Vec<Group<'_>> = pods.iter().zip(&counted)
            .map(|(pod, counted)| Group { definition: &pod.definition, role: pod.role, waiting: &pod.waiting, counted })
            .collect();
        let rules = Rules { home_region: Some(HOME.into()), maintenance_before_ms: NOW, ..Rules::default() };
        let mut rest = offered.clone();
        let placed = place(&mut rest, &groups, &rules);

        let mut judge = Judge::new(&agents);
        let mut at: Vec<Vec<usize>> = pods.iter().map(|pod| pod.counted.clone()).collect();
        let mut used_ports: BTreeSet<(usize, u64)> = BTreeSet::new();
        for one in &placed {
            let slot = &offered[one.slot];
            let index: usize = slot.agent_id[1..].parse().unwrap();
            let (pod, agent) = (&pods[one.group], &agents[index]);
            prop_assert!(judge.suits(pod, agent), "{:?} does not suit {:?}", agent, pod);
            prop_assert!(judge.allows(pod, &at[one.group], agent), "a constraint is broken: {:?} on {:?}", pod, agent);
            at[one.group].push(index);
            let all: Vec<v1::Resource> = one.executor_resources.iter().chain(one.task_resources.iter().flatten()).cloned().collect();
            let accepted = &pod.definition.scheduling.placement.accepted_resource_roles;
            prop_assert!(all.iter().all(|entry| accepted.is_empty() || accepted.iter().any(|role| role == resources::role(entry))));
            prop_assert!(resources::subtract(&mut judge.left[index], &all).is_ok(), "more than was offered: {:?}", all);
            let sum = Amounts::of(&all);
            for port in sum.ports.iter() {
                prop_assert!(used_ports.insert((index, port)), "port {} twice", port);
            }
            let endpoints = &pod.definition.containers[0].endpoints;
            prop_assert_eq!(sum.ports.len(), endpoints.len() as u64);
            for (endpoint, port) in endpoints.iter().zip(&one.host_ports[0]) {
                prop_assert!(sum.ports.contains(u64::from(port.unwrap())));
                prop_assert!(endpoint.host_port == Some(0) || endpoint.host_port == *port);
            }
            let cpus = (pod.definition.containers[0].resources.cpus * 1000.0).round() as i64;
            prop_assert_eq!((sum.cpus, sum.mem, sum.disk), (cpus + 100, 64_000, 10_000), "not packed exactly");
        }
        for (one, pod) in pods.iter().enumerate() {
            let placed_here = placed.iter().filter(|placed| placed.group == one).count();
            if placed_here == pod.waiting.len() {
                continue;
            }
            for agent in &agents {
                let fits = judge.suits(pod, agent) && judge.allows(pod, &at[one], agent) && judge.has_room(pod, agent);
                prop_assert!(!fits, "{:?} was left out, and {:?} has room", pod, agent);
            }
            let facts: Vec<AgentFacts> = at[one].iter().map(|index| AgentFacts::of(&agents[*index].offer(0))).collect();
            // With what runs now counted, GROUP_BY without a number may see other groups; all else is refused for a reason.
            let group = Group { waiting: &pod.waiting[placed_here..], counted: &facts, ..groups[one].clone() };
            if !pod.definition.scheduling.placement.constraints.iter().any(|constraint| constraint.operator == Operator::GroupBy) {
                prop_assert!(explain(&rest, &group, &rules).iter().all(Option::is_some), "a refusal without a reason");
            }
        }

        let length = offers.len().max(1);
        offers.rotate_left(rotate % length);
        let mut again = slots(&offers);
        prop_assert_eq!(place(&mut again, &groups, &rules), placed, "the order of offers matters");
    }
}

/// An agent's disk: its kind, its size, its profile.
type DiskKind = (PersistentKind, i64, Option<&'static str>);

fn any_kind() -> impl Strategy<Value = PersistentKind> {
    prop_oneof![Just(PersistentKind::Path), Just(PersistentKind::Mount)]
}

fn any_profile() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![4 => Just(None), 1 => Just(Some("fast"))]
}

fn any_volume() -> impl Strategy<Value = PersistentVolume> {
    let like = prop_oneof![4 => Just(None), 1 => Just(Some("/d[01]")), 1 => Just(Some("/d.")), 1 => Just(Some("d1"))];
    (any_kind(), 0u64..5, proptest::option::weighted(0.3, 1u64..6), any_profile(), like).prop_map(
        |(kind, size, max_size, profile, like)| PersistentVolume {
            kind,
            size,
            max_size,
            profile_name: profile.map(str::to_owned),
            path_like: like.map(str::to_owned).into_iter().collect(),
        },
    )
}

/// An agent with nothing scarce but disks, in one offer or two.
fn with_disks(index: usize, disks: &[DiskKind], split: bool) -> Vec<v1::Offer> {
    let agent = Agent {
        index,
        role: "db",
        cpus: 1_000_000,
        reserved_cpus: 0,
        gpus: 0,
        ports: 0,
        rack: None,
        level: None,
        zone: None,
        closes_at: None,
        split,
    };
    let mut offers = agent.offers();
    for (number, (kind, size, profile)) in disks.iter().enumerate() {
        let mut parts = vec![offered_disk(*kind, &format!("/d{number}"), *size, *profile)];
        if *kind == PersistentKind::Path && *size > 1 && split {
            // Two offers may each have a part of it.
            parts = vec![
                offered_disk(*kind, &format!("/d{number}"), 1, *profile),
                offered_disk(*kind, &format!("/d{number}"), *size - 1, *profile),
            ];
        }
        for (part, mut entry) in parts.into_iter().enumerate() {
            entry.allocation_info = Some(AllocationInfo { role: Some("db".into()) });
            let at = (number + part) % offers.len();
            offers[at].resources.push(entry);
        }
    }
    offers
}

/// The number, the kind, the size in MiB and the profile of a disk or of a part of one.
fn told(resource: &v1::Resource) -> Option<(usize, PersistentKind, i64, Option<String>)> {
    let source = resource.disk.as_ref()?.source.as_ref()?;
    let (kind, root) = match (&source.path, &source.mount) {
        (Some(path), None) => (PersistentKind::Path, path.root.as_deref()?),
        (None, Some(mount)) => (PersistentKind::Mount, mount.root.as_deref()?),
        _ => return None,
    };
    Some((root.strip_prefix("/d")?.parse().ok()?, kind, Amounts::of([resource]).disk / 1000, source.profile.clone()))
}

fn suits(volume: &PersistentVolume, number: usize, kind: PersistentKind, profile: Option<&str>) -> bool {
    let path = volume.path_like.iter().all(|like| match like.as_str() {
        "/d[01]" => number < 2,
        like => like == "/d.",
    });
    volume.kind == kind && volume.profile_name.as_deref() == profile && path
}

/// Whether all volumes fit on what is left of the disks: every way is tried.
fn all_fit(volumes: &[PersistentVolume], disks: &[DiskKind], left: &[i64]) -> bool {
    let Some((volume, others)) = volumes.split_first() else { return true };
    let size = i64::try_from(volume.size.max(1)).unwrap();
    disks.iter().enumerate().any(|(number, (kind, whole, profile))| {
        let is_mount = *kind == PersistentKind::Mount;
        let most = volume.max_size.filter(|_| is_mount).map_or(i64::MAX, |most| i64::try_from(most).unwrap());
        let mut after = left.to_vec();
        after[number] = if is_mount { 0 } else { left[number] - size };
        let open = left[number] >= size && *whole <= most;
        open && suits(volume, number, *kind, *profile) && all_fit(others, disks, &after)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn disks_are_sold_once_to_volumes_that_asked_for_such_and_no_instance_that_fits_is_left_out(
        agents in proptest::collection::vec((proptest::collection::vec((any_kind(), 1i64..6, any_profile()), 0..5), any::<bool>()), 1..4),
        pods in proptest::collection::vec((proptest::collection::vec(any_volume(), 1..4), 1usize..4), 1..4),
        rotate in 0usize..8,
    ) {
        let mut offers: Vec<v1::Offer> =
            agents.iter().enumerate().flat_map(|(index, (disks, split))| with_disks(index, disks, *split)).collect();
        let pods: Vec<(PodDefinition, Vec<PersistentVolume>, Vec<Waiting>)> = pods.into_iter().enumerate().map(|(one, (volumes, count))| {
            let mut definition = definition(0.1, &[], Vec::new());
            let named = |(index, volume): (usize, &PersistentVolume)| Volume { name: format!("v{index}"), source: VolumeSource::Persistent(volume.clone()) };
            definition.volumes = volumes.iter().enumerate().map(named).collect();
            let waiting = (0..count).map(|n| Waiting { instance: Uuid::from_u128((one as u128 * 977 + n as u128 * 31 + 1) << 7), incarnation: 1 });
            (definition, volumes, waiting.collect())
        }).collect();
        let groups: Vec<Group<'_>> =
            pods.iter().map(|(definition, _, waiting)| Group { definition, role: "db", waiting, counted: &[] }).collect();
        let mut rest = slots(&offers);
        let placed = place(&mut rest, &groups, &Rules::default());

        let mut left: Vec<Vec<i64>> = agents.iter().map(|(disks, _)| disks.iter().map(|(_, size, _)| *size).collect()).collect();
        for one in &placed {
            let index: usize = rest[one.slot].agent_id[1..].parse().unwrap();
            let volumes = &pods[one.group].1;
            prop_assert_eq!(one.volumes.len(), volumes.len());
            for (piece, volume) in one.volumes.iter().zip(volumes) {
                let (number, kind, size, profile) = told(piece).unwrap();
                prop_assert!(suits(volume, number, kind, profile.as_deref()), "{:?} for {:?}", piece, volume);
                let offered = agents[index].0[number];
                prop_assert_eq!((kind, profile.as_deref()), (offered.0, offered.2));
                if kind == PersistentKind::Mount {
                    prop_assert_eq!(size, offered.1, "a part of a mount");
                    prop_assert!(size >= volume.size as i64 && volume.max_size.is_none_or(|most| size <= most as i64));
                } else {
                    prop_assert_eq!(size, volume.size.max(1) as i64);
                }
                left[index][number] -= size;
                prop_assert!(left[index][number] >= 0, "more than there is of {:?}", piece);
            }
            let others = one.executor_resources.iter().chain(one.task_resources.iter().flatten());
            prop_assert!(others.into_iter().all(|resource| resource.disk.is_none()), "a disk for something else than a volume");
        }
        for (one, (_, volumes, waiting)) in pods.iter().enumerate() {
            let count = placed.iter().filter(|placed| placed.group == one).count();
            if count < waiting.len() {
                for ((disks, _), left) in agents.iter().zip(&left) {
                    prop_assert!(!all_fit(volumes, disks, left), "{:?} fit on {:?} with {:?}", volumes, disks, left);
                }
                let group = Group { waiting: &waiting[count..], ..groups[one].clone() };
                let reasons = explain(&rest, &group, &Rules::default());
                prop_assert!(reasons.iter().all(|reason| *reason == Some(Reason::InsufficientDisk)), "{:?}", reasons);
            }
        }

        let length = offers.len();
        offers.rotate_left(rotate % length);
        let mut again = slots(&offers);
        prop_assert_eq!(place(&mut again, &groups, &Rules::default()), placed, "the order of offers matters");
    }
}
