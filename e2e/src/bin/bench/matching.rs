//! Matching alone, as a function.

use std::path::Path;
use std::time::Instant;

use podium_mesos::matching;
use podium_proto::mesos::v1;
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_types::definition;
use serde_json::{Value, json};

use crate::Options;
use crate::figure::{Figure, figure, millis};
use crate::pod::sleeping_pod;

/// Matching as a function, without anything around it: 10,000 waiting instances and 5,000 offers of 50 racks.
pub(crate) fn alone(_: &Path, _: &Options) -> Vec<Figure> {
    const INSTANCES: u128 = 10_000;
    const OFFERS: usize = 5_000;
    let offers: Vec<v1::Offer> = (0..OFFERS).map(offer).collect();
    let waiting: Vec<uuid::Uuid> = (1..=INSTANCES).map(uuid::Uuid::from_u128).collect();
    let placed = |constraints: Value| {
        let mut pod = sleeping_pod("/matched", 1, "A=b");
        pod["scheduling"] = json!({"placement": {"constraints": constraints}});
        let reading = definition::read(pod.to_string().as_bytes(), &definition::Settings::default()).expect("the pod is valid");
        let group = matching::Group { definition: &reading.definition, role: "*", waiting: &waiting, counted: &[] };
        let start = Instant::now();
        let mut slots = matching::slots(&offers);
        let placed = matching::place(&mut slots, &[group], &matching::Rules::default());
        (start.elapsed(), placed.len())
    };
    let (plain, all) = placed(json!([]));
    let (constrained, within) = placed(json!([{"fieldName": "rack", "operator": "MAX_PER", "value": "200"}]));
    assert_eq!((all, within), (10_000, 10_000), "all are placed: 50 racks of at most 200");
    let what = |how: &str| format!("matching alone: {INSTANCES} instances onto {OFFERS} MADE-UP offers, {how}");
    vec![
        figure(what("no constraint"), millis(plain), "", ""),
        figure(what("at most 200 a rack"), millis(constrained), "", format!("without it: {}", millis(plain))).ratio(constrained, plain),
    ]
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
