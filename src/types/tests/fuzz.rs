//! Whatever the bytes are, reading ends with a definition or with errors; what it accepts, it writes and reads back.
//! `PROPTEST_CASES=100000 cargo test -p podium-types --test fuzz` tries for longer.

#![allow(clippy::unwrap_used)]

use podium_types::definition::schema::shape::{Absent, Of, Shape, Text};
use podium_types::definition::schema::tables::POD;
use podium_types::definition::{self, PodDefinition, Settings};
use podium_types::id::{InstanceId, PodId, TaskId, Version};
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

/// A value of what a table says, now and then of something else.
fn value_of(of: &'static Of) -> BoxedStrategy<Value> {
    let sound = match of {
        Of::Text(Text::PodId) => "/[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,2}".prop_map(Value::from).boxed(),
        Of::Text(Text::Time) => Just(json!("2017-01-03T18:21:19.31Z")).boxed(),
        Of::Text(_) => "[a-c]{1,2}".prop_map(Value::from).boxed(),
        Of::Flag => any::<bool>().prop_map(Value::from).boxed(),
        Of::Number { min, max } => {
            let (min, max) = (min.max(-1e6), max.min(1e6));
            prop_oneof![(min..=max).prop_map(Value::from), Just(json!(min)), Just(json!(max))].boxed()
        }
        Of::Integer { min, max } => prop_oneof![(*min..=*max).prop_map(Value::from), Just(json!(min)), Just(json!(max))].boxed(),
        Of::Word(words) => prop::sample::select(*words).prop_map(|word: &str| json!(word.to_lowercase())).boxed(),
        Of::Object(shape) => object_of(shape),
        Of::List { of, min } => prop::collection::vec(value_of(of), *min..min + 3).prop_map(Value::from).boxed(),
        Of::Map { of, .. } => prop::collection::btree_map("[A-Ca-c]{1,2}", value_of(of), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed(),
        Of::Either(forms) => prop::sample::select((0..forms.len().max(1)).collect::<Vec<_>>())
            .prop_flat_map(|form| forms.get(form).map_or_else(|| any_value().boxed(), value_of))
            .boxed(),
    };
    prop_oneof![60 => sound, 1 => any_value()].boxed()
}

/// An object that has its required members nearly always, and some of the others.
fn object_of(shape: &'static Shape) -> BoxedStrategy<Value> {
    let members: Vec<_> = shape
        .members
        .iter()
        .map(|member| {
            let odds = if member.absent == Absent::Refused { 0.99 } else { 0.3 };
            prop::option::weighted(odds, value_of(&member.of)).prop_map(move |value| value.map(|value| (member.name.to_owned(), value)))
        })
        .collect();
    members.prop_map(|members| Value::Object(members.into_iter().flatten().collect())).boxed()
}

/// What ids are made of, and what they are not.
fn any_id() -> impl Strategy<Value = String> {
    let pieces = vec![
        "/",
        "//",
        ".",
        "..",
        "-",
        "_",
        "a",
        "web",
        "0",
        "restart",
        "versions",
        ".instance-",
        "instance-",
        "%2F",
        "é",
        "\u{0}",
        " ",
        "A",
        "5a3f6a60-eeb1-11eb-9a03-0242ac130003",
        "2021-07-27T10:00:00.000Z",
        "1",
        "+1",
        "99999999999",
        "T",
        "Z",
        ":",
    ];
    prop_oneof![
        prop::collection::vec(prop::sample::select(pieces), 0..8).prop_map(|pieces| pieces.concat()),
        "/[a-z0-9]{1,6}(/[a-z0-9.-]{1,6}){0,3}",
        ".{0,600}",
    ]
}

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 512 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn what_is_made_of_the_tables_is_often_accepted() {
    // Else the test below would try refusals only.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = object_of(&POD);
    let accepted = (0..200).filter(|_| {
        let document = strategy.new_tree(&mut runner).unwrap().current();
        let mut document = document.as_object().unwrap().clone();
        // Rules that random members rarely meet.
        for name in ["volumes", "networks", "role", "secrets", "environment", "linuxInfo"] {
            document.shift_remove(name);
        }
        if let Some(containers) = document.get_mut("containers").and_then(Value::as_array_mut) {
            containers.truncate(1);
            let keep = ["name", "resources", "artifacts", "labels", "lifecycle", "tty", "user"];
            containers
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|container| container.retain(|name, _| keep.contains(&name.as_str())));
        }
        definition::read(Value::Object(document).to_string().as_bytes(), &settings()).is_ok()
    });
    assert!(accepted.count() > 40);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn documents_made_of_the_tables_are_read_or_refused_and_come_back(document in object_of(&POD)) {
        survives(document.to_string().as_bytes());
    }

    #[test]
    fn ids_are_read_or_refused_and_mean_the_same_when_written(text in any_id()) {
        if let Ok(id) = PodId::new(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(&PodId::lenient(&text).unwrap(), &id);
            prop_assert_eq!(PodId::from_safe_id(&id.safe_id()).unwrap(), id);
        }
        if let Ok(id) = PodId::lenient(&text) {
            prop_assert_eq!(PodId::new(id.as_str()).unwrap(), id);
        }
        if let Ok(id) = text.parse::<InstanceId>() {
            prop_assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
        }
        if let Ok(id) = text.parse::<TaskId>() {
            prop_assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        }
        if let Ok(version) = text.parse::<Version>() {
            prop_assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
        }
    }

    #[test]
    fn any_depth_and_width_is_read_or_refused(
        open in prop::sample::select(vec!["[", "{\"a\":", "{\"containers\":[", "{\"labels\":{\"a\":"]),
        depth in 1usize..20_000,
        closed in any::<bool>(),
    ) {
        let mut text = open.repeat(depth);
        if closed {
            text.push('0');
            let ends: String = open.chars().rev().filter_map(|c| match c { '[' => Some(']'), '{' => Some('}'), _ => None }).collect();
            text.push_str(&ends.repeat(depth));
        }
        prop_assert!(definition::read(text.as_bytes(), &settings()).is_err());
    }

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
