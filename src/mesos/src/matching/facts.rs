//! What constraints can ask about an agent.

use std::collections::BTreeMap;

use podium_proto::mesos::v1;
use podium_proto::wire::ranges::RangeSet;

/// Name, place and attributes of an agent, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentFacts {
    /// Its host name.
    pub hostname: String,
    /// Region of its fault domain.
    pub region: Option<String>,
    /// Zone of its fault domain.
    pub zone: Option<String>,
    /// Its attributes ([`attribute_text`]).
    pub attributes: BTreeMap<String, String>,
}

impl AgentFacts {
    /// The facts that an offer tells.
    #[must_use]
    pub fn of(offer: &v1::Offer) -> Self {
        let domain = offer.domain.as_ref().and_then(|domain| domain.fault_domain.as_ref());
        let mut attributes = BTreeMap::new();
        for attribute in &offer.attributes {
            if let Some(text) = attribute_text(attribute) {
                attributes.entry(attribute.name.clone()).or_insert(text);
            }
        }
        AgentFacts {
            hostname: offer.hostname.clone(),
            region: domain.map(|domain| domain.region.name.clone()),
            zone: domain.map(|domain| domain.zone.name.clone()),
            attributes,
        }
    }

    /// The value of a constraint's field; none if the agent has no such thing.
    #[must_use]
    pub fn value(&self, field: &str) -> Option<&str> {
        match field {
            "hostname" | "@hostname" => Some(&self.hostname),
            "@region" => self.region.as_deref(),
            "@zone" => self.zone.as_deref(),
            name => self.attributes.get(name).map(String::as_str),
        }
    }
}

/// An attribute as constraints compare it: text as it is, `0.5`, `[1-3,7-9]`, `{a,b}` sorted.
fn attribute_text(attribute: &v1::Attribute) -> Option<String> {
    match v1::value::Type::try_from(attribute.r#type).ok()? {
        v1::value::Type::Text => attribute.text.as_ref().map(|text| text.value.clone()),
        v1::value::Type::Scalar => attribute.scalar.as_ref().map(|scalar| decimal(scalar.value)),
        v1::value::Type::Ranges => attribute.ranges.as_ref().map(|ranges| {
            let ranges = RangeSet::from_wire(ranges);
            let texts: Vec<String> = ranges.ranges().map(|range| format!("{}-{}", range.start(), range.end())).collect();
            format!("[{}]", texts.join(","))
        }),
        v1::value::Type::Set => attribute.set.as_ref().map(|set| {
            let mut items: Vec<&str> = set.item.iter().map(String::as_str).collect();
            items.sort_unstable();
            format!("{{{}}}", items.join(","))
        }),
    }
}

/// A number with at most three decimals, and none that are not needed.
pub(super) fn decimal(number: f64) -> String {
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_compared_as_marathon_prints_them() {
        let scalar = |value| v1::Attribute {
            name: "a".into(),
            r#type: v1::value::Type::Scalar.into(),
            scalar: Some(v1::value::Scalar { value }),
            ..Default::default()
        };
        assert_eq!(attribute_text(&scalar(4.0)).unwrap(), "4");
        assert_eq!(attribute_text(&scalar(0.5)).unwrap(), "0.5");
        assert_eq!(attribute_text(&scalar(100.0)).unwrap(), "100");
        let set = v1::Attribute {
            r#type: v1::value::Type::Set.into(),
            set: Some(v1::value::Set { item: vec!["b".into(), "a".into()] }),
            ..Default::default()
        };
        assert_eq!(attribute_text(&set).unwrap(), "{a,b}");
        let ranges = v1::value::Ranges { range: vec![v1::value::Range { begin: 7, end: 9 }, v1::value::Range { begin: 1, end: 3 }] };
        let ranges = v1::Attribute { r#type: v1::value::Type::Ranges.into(), ranges: Some(ranges), ..Default::default() };
        assert_eq!(attribute_text(&ranges).unwrap(), "[1-3,7-9]");
    }
}
