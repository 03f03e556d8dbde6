//! The tables, the reader and the writer know the same members, with the same defaults.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use podium_types::definition::schema::shape::{Absent, Answered, Key, Of, Shape, VARIABLE};
use podium_types::definition::schema::tables::POD;
use podium_types::definition::{self, Settings};
use serde_json::{Value, json};

/// Every object that there can be, each with its required members only.
fn bare() -> Value {
    json!({
        "id": "/g/web",
        "scheduling": {"placement": {"constraints": [{"fieldName": "hostname", "operator": "UNIQUE"}]}},
        "linuxInfo": {"ipcInfo": {"mode": "PRIVATE"}},
        "environment": {"A": {"secret": "s"}},
        "secrets": {"s": {"source": "/s"}},
        "networks": [{"mode": "host"}],
        "volumes": [{"name": "v"}, {"name": "p", "persistent": {"size": 1}}],
        "role": "g",
        "containers": [
            {
                "name": "a", "resources": {}, "exec": {"command": {"argv": ["sleep"]}, "overrideEntrypoint": true},
                "resourceLimits": {}, "endpoints": [{"name": "e"}], "image": {"kind": "DOCKER", "id": "i", "pullConfig": {"secret": "s"}},
                "healthCheck": {"http": {"endpoint": "e"}}, "artifacts": [{"uri": "u"}], "lifecycle": {},
                "volumeMounts": [{"name": "v", "mountPath": "v"}, {"name": "p", "mountPath": "p"}],
                "linuxInfo": {"seccomp": {"unconfined": true}},
            },
            {
                "name": "b", "resources": {}, "exec": {"command": {"shell": "sleep"}}, "endpoints": [{"name": "f"}],
                "healthCheck": {"tcp": {"endpoint": "f"}},
            },
            {"name": "c", "resources": {}, "healthCheck": {"exec": {"command": {"shell": "true"}}}},
        ],
    })
}

fn answer(definition: &Value) -> Value {
    let reading = definition::read(definition.to_string().as_bytes(), &Settings::default()).unwrap();
    assert_eq!(reading.warnings, []);
    serde_json::to_value(&reading.definition).unwrap()
}

/// Holds an object of an answer against its table, and what is in it.
fn object(value: &Value, shape: &'static Shape, path: &str, seen: &mut BTreeSet<&'static str>) {
    seen.insert(shape.name);
    let object = value.as_object().unwrap_or_else(|| panic!("{path} is no object: {value}"));
    for name in object.keys() {
        let member = shape.member(name).unwrap_or_else(|| panic!("the table of {} does not know {path}/{name}", shape.name));
        assert_ne!(member.answered, Answered::Never, "{path}/{name}");
    }
    for member in shape.members {
        let at = format!("{path}/{}", member.name);
        match object.get(member.name) {
            None => assert_ne!(member.answered, Answered::Always, "{at} is not answered"),
            Some(Value::Null) => assert_eq!(member.absent, Absent::Nothing, "{at} has a default, and is answered as null"),
            Some(value) => held(value, &member.of, &at, seen),
        }
    }
}

fn held(value: &Value, of: &Of, path: &str, seen: &mut BTreeSet<&'static str>) {
    match of {
        Of::Text(_) => assert!(value.is_string(), "{path}"),
        Of::Flag => assert!(value.is_boolean(), "{path}"),
        Of::Number { min, max } => assert!((*min..=*max).contains(&value.as_f64().unwrap()), "{path}"),
        Of::Integer { min, max } => assert!((*min..=*max).contains(&value.as_i64().unwrap()), "{path}"),
        Of::Word(words) => assert!(words.contains(&value.as_str().unwrap()), "{path}"),
        Of::Object(shape) => object(value, shape, path, seen),
        Of::List { of, .. } => value.as_array().unwrap().iter().for_each(|item| held(item, of, path, seen)),
        Of::Map { of, .. } => value.as_object().unwrap().values().for_each(|member| held(member, of, path, seen)),
        Of::Either(forms) => {
            let fits = |form: &&Of| match form {
                Of::Object(_) => value.is_object(),
                Of::List { .. } => value.is_array(),
                Of::Number { .. } => value.is_number(),
                _ => value.is_string(),
            };
            held(value, forms.iter().find(fits).unwrap_or_else(|| panic!("{path} has none of its forms: {value}")), path, seen);
        }
    }
}

/// Every table that can be reached from another.
fn shapes(shape: &'static Shape, all: &mut Vec<&'static Shape>) {
    fn inside(of: &Of, all: &mut Vec<&'static Shape>) {
        match of {
            Of::Object(shape) => shapes(shape, all),
            Of::List { of, .. } | Of::Map { of, .. } => inside(of, all),
            Of::Either(forms) => forms.iter().for_each(|form| inside(form, all)),
            _ => {}
        }
    }
    if all.iter().all(|known| known.name != shape.name) {
        all.push(shape);
        shape.members.iter().for_each(|member| inside(&member.of, all));
    }
}

#[test]
fn what_is_answered_is_what_the_tables_say_member_for_member() {
    let mut seen = BTreeSet::new();
    object(&answer(&bare()), &POD, "", &mut seen);
    // Persistent volumes turn the strategy into a word.
    object(&answer(&json!({"id": "/a", "containers": [{"name": "c", "resources": {}}]})), &POD, "", &mut seen);
    let mut all = Vec::new();
    shapes(&POD, &mut all);
    assert_eq!(all.iter().map(|shape| shape.name).collect::<BTreeSet<_>>(), seen);
}

#[test]
fn defaults_are_those_of_the_tables() {
    fn walk(value: &Value, shape: &'static Shape, given: &Value) -> usize {
        let mut checked = 0;
        for member in shape.members {
            let (value, given) = (&value[member.name], &given[member.name]);
            let expected = match member.absent {
                Absent::Number(number) => json!(number),
                Absent::Integer(whole) => json!(whole),
                Absent::Flag(flag) => json!(flag),
                Absent::Word(word) => json!(word),
                _ => Value::Null,
            };
            if given.is_null() && !expected.is_null() {
                let same = if expected.is_number() { value.as_f64() == expected.as_f64() } else { *value == expected };
                assert!(same, "{}.{} is {value} and not {expected}", shape.name, member.name);
                checked += 1;
            }
            let (nested, items) = match member.of {
                Of::Object(nested) => (Some(nested), [value].to_vec()),
                Of::List { of: Of::Object(nested), .. } => (Some(*nested), value.as_array().unwrap().iter().collect()),
                Of::Either(forms) => match forms.first() {
                    Some(Of::Object(nested)) if value.is_object() => (Some(*nested), [value].to_vec()),
                    _ => (None, Vec::new()),
                },
                _ => (None, Vec::new()),
            };
            for (index, item) in items.into_iter().enumerate().filter(|(_, item)| item.is_object()) {
                let given = if given.is_array() { &given[index] } else { given };
                checked += nested.map_or(0, |nested| walk(item, nested, given));
            }
        }
        checked
    }
    let mut bare = bare();
    // Their defaults are others.
    bare["volumes"][1]["persistent"] = json!(null);
    assert!(walk(&answer(&bare), &POD, &bare) > 40);
}

#[test]
fn a_default_is_within_its_bounds() {
    let mut all = Vec::new();
    shapes(&POD, &mut all);
    for member in all.iter().flat_map(|shape| shape.members) {
        match (member.of, member.absent) {
            (Of::Number { min, max }, Absent::Number(number)) => assert!((min..=max).contains(&number), "{}", member.name),
            (Of::Integer { min, max }, Absent::Integer(whole)) => assert!((min..=max).contains(&whole), "{}", member.name),
            (Of::Word(words), Absent::Word(word)) => assert!(words.contains(&word), "{}", member.name),
            (Of::Flag, Absent::Flag(_)) | (Of::Object(_), Absent::Filled) | (_, Absent::Refused | Absent::Nothing) => {}
            (Of::Either(forms), Absent::Filled) => assert!(matches!(forms[0], Of::Object(_)), "{}", member.name),
            (of, absent) => panic!("{}: {of:?} with {absent:?}", member.name),
        }
        assert!(member.about.ends_with('.') && !member.about.contains('|'), "{}: {}", member.name, member.about);
    }
}

#[test]
fn the_patterns_that_are_published_are_those_that_are_read() {
    let reads = |definition: Value| definition::read(definition.to_string().as_bytes(), &Settings::default()).is_ok();
    let pod = |id: &str, name: &str, network: &str, variable: &str| {
        reads(json!({
            "id": id, "containers": [{"name": name, "resources": {}}], "networks": [{"name": network}],
            "environment": {variable: "x"},
        }))
    };
    let published = |pattern: &str, text: &str| regex::Regex::new(pattern).unwrap().is_match(text);
    let member = |shape: &Shape, name: &str| match shape.member(name).unwrap().of {
        Of::Text(text) => text.pattern().unwrap(),
        other => panic!("{other:?}"),
    };
    let mut all = Vec::new();
    shapes(&POD, &mut all);
    let of = |name: &str| *all.iter().find(|shape| shape.name == name).unwrap();
    for text in ["a", "a-b", "-a", "a-", "a_b", "_a", "A", "", "a.b", "0", "é", "a b", "a\n"] {
        assert_eq!(pod("/a", text, "n", "V"), published(member(of("Container"), "name"), text) && !text.contains('\n'), "{text:?}");
        assert_eq!(pod("/a", "c", text, "V"), published(member(of("Network"), "name"), text) && !text.contains('\n'), "{text:?}");
        assert_eq!(pod("/a", "c", "n", text), published(VARIABLE, text) && !text.contains('\n'), "{text:?}");
        for id in [format!("/{text}"), format!("/x/{text}"), format!("{text}/x"), format!("/{text}/x")] {
            assert_eq!(pod(&id, "c", "n", "V"), published(member(&POD, "id"), &id) && !text.contains('\n'), "{id:?}");
        }
    }
    assert!(matches!(POD.member("environment").unwrap().of, Of::Map { key: Key::Variable, .. }));
}
