//! Whatever the bytes are, reading ends with a definition or with errors; what it accepts, it writes and reads back.

#![allow(clippy::unwrap_used)]

use podium_types::definition::{self, PodDefinition, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings { default_network_name: Some("default".to_owned()), ..Settings::default() }
}

fn fixture(index: usize) -> Vec<u8> {
    let all: [&[u8]; 5] = [
        include_bytes!("../../../e2e/fixtures/documents/test-pod.json"),
        include_bytes!("../../../e2e/fixtures/documents/complete-pod.json"),
        include_bytes!("../../../e2e/fixtures/documents/simple-pod-with-pull-secret.json"),
        include_bytes!("../../../e2e/fixtures/documents/with-ephemeral-vol.json"),
        include_bytes!("../../../e2e/fixtures/documents/simplepod2-sample-answer.json"),
    ];
    all[index % all.len()].to_vec()
}

fn comes_back(definition: &PodDefinition) {
    let written = serde_json::to_vec(definition).unwrap();
    let again = definition::read(&written, &settings()).unwrap();
    assert_eq!(&again.definition, definition);
    assert_eq!(again.warnings, []);
    assert_eq!(&definition::read_stored(&written).unwrap(), definition);
}

fn survives(json: &[u8]) {
    match definition::read(json, &settings()) {
        Ok(reading) => comes_back(&reading.definition),
        Err(error) => assert!(!error.violations().is_empty()),
    }
}

/// A value of any kind, small.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2i64..70_000).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no such number", |n| n.is_finite()).prop_map(Value::from),
        "[a-zA-Z/.*é\u{0}-]{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["a", "UNIQUE"])),
        Just(json!({"name": "x", "persistent": {"size": 5}})),
        Just(json!("disabled")),
    ]
}

/// Every place of a document, as JSON pointers.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, format!("{at}/{}", key.replace('/', "~1")), all)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| places(value, format!("{at}/{index}"), all)),
        _ => {}
    }
    all.push(at);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes);
    }

    #[test]
    fn documents_with_damaged_bytes_are_read_or_refused(
        index in 0usize..5,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = fixture(index);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        survives(&bytes);
    }

    #[test]
    fn documents_with_other_values_are_read_or_refused_and_come_back(
        index in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
    ) {
        let mut document: Value = serde_json::from_slice(&fixture(index)).unwrap();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&document, String::new(), &mut all);
            let place = &all[place.index(all.len())];
            *document.pointer_mut(place).unwrap() = value;
        }
        survives(document.to_string().as_bytes());
    }

    #[test]
    fn amounts_come_back_exactly(cpus in 0.001f64..1e12, mem in 0.001f64..1e308, delay in 0.0f64..1e9) {
        let pod = json!({
            "id": "/a",
            "containers": [{"name": "c", "resources": {"cpus": cpus, "mem": mem}}],
            "scheduling": {"backoff": {"maxLaunchDelay": delay}},
        });
        let reading = definition::read(pod.to_string().as_bytes(), &settings()).unwrap();
        prop_assert_eq!(reading.definition.containers[0].resources.mem, mem);
        comes_back(&reading.definition);
    }
}
