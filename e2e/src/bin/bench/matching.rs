//! Matching alone, as a function.

use std::path::Path;
use std::time::{Duration, Instant};

use podium_mesos::matching;
use podium_proto::mesos::v1;
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_types::definition;
use serde_json::{Value, json};

use crate::Options;
use crate::figure::{Figure, figure, median, millis, rate};
use crate::pod::sleeping_pod;

const INSTANCES: u128 = 10_000;
const OFFERS: usize = 5_000;

/// Matching as a function, without anything around it, on one core: 10,000 waiting instances and 5,000 offers of 50 racks.
/// The offers are sorted and read within what is measured.
pub(crate) fn alone(_: &Path, _: &Options) -> Vec<Figure> {
    let offers: Vec<v1::Offer> = (0..OFFERS).map(offer).collect();
    let plain = placed(&offers, 1, &json!([]));
    let all = usize::try_from(INSTANCES).unwrap_or(usize::MAX);
    let of_rack = |name: &str, operator: &str, value: &str| json!([{"fieldName": name, "operator": operator, "value": value}]);
    let what = |how: &str| format!("matching alone: {INSTANCES} instances onto {OFFERS} MADE-UP offers, {how}");
    let line = |how: &str, took: Duration| {
        figure(what(how), format!("{}, {}", millis(took), rate(all, took)), ">= 100000/s", format!("no constraint: {}", millis(plain)))
            .ratio(took, plain)
    };
    vec![
        figure(what("one pod, no constraint"), format!("{}, {}", millis(plain), rate(all, plain)), ">= 100000/s", ""),
        line("one pod, at most 200 a rack", placed(&offers, 1, &of_rack("rack", "MAX_PER", "200"))),
        line("one pod, evenly over the racks", placed(&offers, 1, &of_rack("rack", "GROUP_BY", "50"))),
        line("5,000 pods, each of its instances on another host", placed(&offers, 5_000, &json!([["hostname", "UNIQUE"]]))),
        line("10,000 pods, half of the racks", placed(&offers, 10_000, &of_rack("rack", "LIKE", "rack-[0-9]*[02468]"))),
    ]
}

/// Places all instances as so many pods, and answers how long that took; the median of five.
fn placed(offers: &[v1::Offer], pods: usize, constraints: &Value) -> Duration {
    let each = usize::try_from(INSTANCES).unwrap_or(usize::MAX) / pods;
    let mut pod = sleeping_pod("/matched", usize::try_from(INSTANCES).unwrap_or(usize::MAX) / pods, "A=b");
    pod["scheduling"] = json!({"placement": {"constraints": constraints}});
    let reading = definition::read(pod.to_string().as_bytes(), &definition::Settings::default()).expect("the pod is valid");
    // Random, as instances' ids are, and the same in every run.
    let id = |n: u128| uuid::Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let waiting: Vec<matching::Waiting> = (1..=INSTANCES).map(|n| matching::Waiting { instance: id(n), incarnation: 1 }).collect();
    let once = |_| {
        let group = |waiting| matching::Group { definition: &reading.definition, role: "*", waiting, counted: &[] };
        let groups: Vec<matching::Group<'_>> = waiting.chunks(each).map(group).collect();
        let start = Instant::now();
        let mut slots = matching::slots(offers);
        let placed = matching::place(&mut slots, &groups, &matching::Rules::default());
        let took = start.elapsed();
        assert_eq!(placed.len(), waiting.len(), "there is room for all of them: {constraints}");
        took
    };
    median((0..5).map(once).collect())
}

/// An offer of an agent of its own, which has room for four instances.
fn offer(agent: usize) -> v1::Offer {
    let text = |text: String| Some(v1::value::Text { value: text });
    v1::Offer {
        id: v1::OfferId { value: format!("offer-{agent}") },
        framework_id: v1::FrameworkId { value: "bench".into() },
        agent_id: v1::AgentId { value: format!("agent-{agent:05}") },
        hostname: format!("host-{agent}"),
        allocation_info: Some(v1::resource::AllocationInfo { role: Some("*".into()) }),
        attributes: vec![v1::Attribute {
            name: "rack".into(),
            r#type: v1::value::Type::Text.into(),
            text: text(format!("rack-{}", agent % 50)),
            ..Default::default()
        }],
        resources: vec![
            scalar_entry("cpus", 800),
            scalar_entry("mem", 1_000_000),
            scalar_entry("disk", 1_000_000),
            ranges_entry("ports", &std::iter::once(31_000..=31_100).collect()),
        ],
        ..Default::default()
    }
}
