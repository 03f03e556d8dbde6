//! Every rule of definitions over HTTP: the same table that the reader is held against, `e2e/fixtures/rules.txt`.

use podium_http::Method;
use serde_json::Value;

use crate::world::{Got, World};

#[path = "../../../e2e/fixtures/rules.rs"]
mod table;

/// Every error of an answer as `path: message`, sorted.
fn errors(answer: &Got) -> Vec<String> {
    let mut errors = Vec::new();
    for entry in answer.json()["details"].as_array().into_iter().flatten() {
        let path = entry["path"].as_str().unwrap();
        errors.extend(entry["errors"].as_array().unwrap().iter().map(|error| format!("{path}: {}", error.as_str().unwrap())));
    }
    errors.sort();
    errors
}

#[tokio::test]
async fn every_line_of_the_table_of_rules_is_answered_as_it_says() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for rule in table::all() {
        let answer = world.push(Method::POST, "/v2/pods?force=true", &rule.definition.to_string()).await;
        let as_said = match rule.errors.is_empty() {
            true => answer.status == 201,
            false => answer.status == 422 && errors(&answer) == rule.errors,
        };
        if !as_said {
            wrong.push(format!("{}\n  expected {:?}\n  answered {} {}", rule.origin, rule.errors, answer.status, answer.text()));
        }
        if answer.status == 201 {
            let pod = format!("/v2/pods{}?force=true", answer.json()["id"].as_str().unwrap());
            // What is answered can be sent back, and changes nothing.
            let back = world.push(Method::PUT, &pod, &answer.text()).await;
            assert_eq!((back.status, back.header("x-podium-change")), (200, "nothing"), "{} {back:?}", rule.origin);
            assert_eq!(world.send(Method::DELETE, &pod, &[], "").await.status, 202, "{}", rule.origin);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_headline_tells_structure_from_rules() {
    let world = World::new().await;
    let headline = async |body: Value| world.push(Method::POST, "/v2/pods", &body.to_string()).await.message();
    let rules = table::all();
    let of = |errors: &[&str]| rules.iter().find(|rule| rule.errors == errors).unwrap().definition.clone();
    assert_eq!(headline(of(&["/labels: error.expected.jsobject"])).await, "Invalid JSON");
    assert_eq!(headline(of(&["/user: must not be empty"])).await, "Object is not valid");
}

#[tokio::test]
async fn of_many_unknown_fields_the_first_are_told_one_by_one_and_the_rest_by_number() {
    let world = World::new().await;
    let unknown: String = (0..20).map(|n| format!("\"zz{n}\":1,")).collect();
    let body = crate::world::pod("/a", 1).replacen("\"networks\"", &format!("{unknown}\"networks\""), 1);
    let answer = world.push(Method::POST, "/v2/pods", &body).await;
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((answer.status, warnings.len()), (201, 17), "{warnings:?}");
    assert!(warnings[0].starts_with("299 podium \"/zz0: unknown field 'zz0'"), "{warnings:?}");
    assert_eq!(warnings[16], "299 podium \"4 further fields were read over\"");
}
