//! The documents' own definitions: `e2e/fixtures/documents` must be accepted as they stand, and
//! `e2e/fixtures/refused` refused with exactly the errors of the file beside them.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use podium_types::definition::{self, PodDefinition, Settings};
use serde_json::Value;

fn fixtures(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../e2e/fixtures").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {}", folder.display());
    files
}

fn dev() -> Settings {
    Settings { default_network_name: Some("default".to_owned()), ..Settings::default() }
}

fn accepted(name: &str, json: &[u8]) -> PodDefinition {
    let reading = definition::read(json, &dev()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(reading.warnings, [], "{name}");
    reading.definition
}

#[test]
fn every_example_of_the_documents_is_accepted_without_a_warning() {
    for (name, json) in fixtures("documents") {
        accepted(&name, &json);
    }
}

#[test]
fn what_is_answered_can_be_sent_back_and_means_the_same() {
    for (name, json) in fixtures("documents") {
        let definition = accepted(&name, &json);
        let answer = serde_json::to_vec(&definition).unwrap();
        assert_eq!(accepted(&name, &answer), definition, "{name}");
        assert_eq!(definition::read_stored(&answer).unwrap(), definition, "{name}");
    }
}

/// Whether `whole` says everything that `part` says.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|whole| contains(whole, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn the_sample_answer_is_answered_member_for_member_and_digit_for_digit() {
    let (_, json) = fixtures("documents").into_iter().find(|(name, _)| name == "simplepod2-sample-answer").unwrap();
    let sample: Value = serde_json::from_slice(&json).unwrap();
    let definition = accepted("sample", &json);
    let answer = serde_json::to_value(&definition).unwrap();
    // A number 32 and a number 32.0 differ as JSON values here, so this holds the digits too.
    assert!(contains(&answer, &sample), "{answer:#}");
    assert_eq!(answer["containers"][0]["exec"], sample["containers"][0]["exec"]);
}

#[test]
fn every_wrong_variant_is_refused_with_exactly_the_errors_beside_it() {
    for (name, json) in fixtures("refused") {
        let expected = std::fs::read_to_string(format!("{}/../../e2e/fixtures/refused/{name}.errors", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let mut expected: Vec<(String, String)> =
            expected.lines().filter_map(|line| line.split_once('\t')).map(|(path, message)| (path.into(), message.into())).collect();
        let error = definition::read(&json, &dev()).expect_err(&name);
        let mut found: Vec<_> = error.violations().into_iter().map(|violation| (violation.path, violation.message)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_container_network_without_a_name_needs_the_servers_default() {
    let (_, json) = fixtures("documents").into_iter().find(|(name, _)| name == "pod-with-endpoint").unwrap();
    let error = definition::read(&json, &Settings::default()).unwrap_err();
    assert_eq!(error.to_string(), "/networks: Network name must be specified when container network is selected.");
}
