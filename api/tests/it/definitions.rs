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
    let warned = async |id: &str, names: &[String]| {
        let unknown: String = names.iter().map(|name| format!("\"{name}\":1,")).collect();
        let body = crate::world::pod(id, 1).replacen("\"networks\"", &format!("{unknown}\"networks\""), 1);
        let answer = world.push(Method::POST, "/v2/pods", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = warned("/a", &(0..40).map(|n| format!("zz{n}")).collect::<Vec<_>>()).await;
    assert_eq!(all.len(), 40, "{all:?}");
    assert!(all[0].starts_with("299 podium \"/zz0: unknown field 'zz0'"), "{all:?}");
    let many = warned("/b", &(0..100).map(|n| format!("z{n}")).collect::<Vec<_>>()).await;
    let more = format!("299 podium \"{} further fields were read over\"", 101 - many.len());
    assert!(many.len() <= 65 && many.last() == Some(&more), "{many:?}");
    let long = warned("/c", &(0..40).map(|n| format!("{}{n}", "z".repeat(200))).collect::<Vec<_>>()).await;
    assert!(long.len() == 40 && long.iter().map(String::len).sum::<usize>() < 4_200, "{long:?}");
}

#[tokio::test]
async fn of_two_members_of_one_name_the_last_counts_and_that_is_told() {
    let world = World::new().await;
    let body = crate::world::pod("/a", 1).replacen("\"networks\"", "\"user\":\"one\",\"user\":\"two\",\"networks\"", 1);
    let strict = world.push(Method::POST, "/v2/pods?strict=true", &body).await;
    assert_eq!((strict.status, strict.json()["details"][0]["path"].as_str()), (422, Some("/user")), "{strict:?}");
    let answer = world.push(Method::POST, "/v2/pods", &body).await;
    assert_eq!((answer.status, answer.json()["user"].as_str()), (201, Some("two")), "{answer:?}");
    assert_eq!(answer.header("warning"), "299 podium \"/user: is given more than once; the last one counts\"");
}
