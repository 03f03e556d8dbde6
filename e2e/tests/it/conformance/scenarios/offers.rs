//! Offers: their form, who gets them when, what ends them, and what becomes of ACCEPTs whose offers are not good.

use serde_json::{Value, json};

use super::super::stage::{Framework, Stage, executor, info, info_with, launch, launch_group, task, text, with};

/// Agents and roles of offers.
fn briefly(offers: &[Value]) -> Value {
    offers.iter().map(|offer| json!([offer["agent_id"]["value"], offer["allocation_info"]["role"]])).collect()
}

pub async fn their_form(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("offers", json!(offers));
    framework.teardown().await;
}

pub async fn their_form_without_capabilities(stage: &mut Stage) {
    for (step, info) in [
        ("none", with(info_with(&[]), json!({ "roles": null }))),
        ("none, a role", with(info_with(&[]), json!({ "roles": null, "role": "web" }))),
        ("MULTI_ROLE", info_with(&["MULTI_ROLE"])),
        ("RESERVATION_REFINEMENT", with(info_with(&["RESERVATION_REFINEMENT"]), json!({ "roles": null }))),
    ] {
        let mut framework = stage.subscribe(info).await;
        let offer = stage.offers(&mut framework, 2).await.remove(0);
        stage.told(step, offer);
        framework.teardown().await;
    }
}

pub async fn declined_and_filtered(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 2).await;
    framework.decline(&offers[..1], 3600.0).await;
    framework.decline(&offers[1..], 0.0).await;
    let again = stage.offers(&mut framework, 1).await;
    stage.told("the first refused for long, the second not", briefly(&again));
    framework.decline(&again, 0.0).await;
    let again = stage.offers(&mut framework, 1).await;
    stage.told("and again", briefly(&again));
    // Twice, and once one that is no longer there: nobody minds.
    framework.decline(&again, 3600.0).await;
    framework.decline(&again, 3600.0).await;
    framework.decline(&[json!({ "id": { "value": "nothing" } })], 3600.0).await;
    let events = framework.settle().await;
    stage.told("declined twice", json!(events));
    framework.call("REVIVE", json!({})).await;
    let revived = stage.offers(&mut framework, 2).await;
    stage.told("revived", briefly(&revived));
    for refuse_seconds in [json!(-1.0), json!("NaN")] {
        let ids: Vec<&Value> = revived.iter().map(|offer| &offer["id"]).collect();
        let reply =
            framework.send("DECLINE", json!({ "decline": { "offer_ids": ids, "filters": { "refuse_seconds": refuse_seconds } } })).await;
        stage.told_reply(format!("refused for {refuse_seconds}"), &reply);
    }
    framework.teardown().await;
}

/// Waits for a round of offers in which this framework had no part.
async fn somebody_else_is_offered(stage: &mut Stage, all: usize) {
    let mut other = stage.subscribe(with(info(), json!({ "roles": ["other"] }))).await;
    stage.offers(&mut other, all).await;
    other.teardown().await;
}

pub async fn suppressed_and_revived(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 2).await;
    framework.call("SUPPRESS", json!({})).await;
    framework.decline(&offers, 0.0).await;
    somebody_else_is_offered(stage, 2).await;
    let events = framework.settle().await;
    stage.told("while suppressed", json!([events, framework.offers.len()]));
    framework.call("REVIVE", json!({})).await;
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("revived", briefly(&offers));
    framework.teardown().await;

    let mut call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info(), "suppressed_roles": ["pods"] } });
    let mut framework = stage.subscribe_by(call.clone()).await;
    somebody_else_is_offered(stage, 2).await;
    framework.settle().await;
    stage.told("suppressed from the first", json!(framework.offers.len()));
    // A subscription that does not name the role again takes it back.
    call["framework_id"] = json!({ "value": framework.id });
    call["subscribe"] = json!({ "framework_info": with(info(), json!({ "id": { "value": framework.id } })) });
    let mut framework = stage.subscribe_by(call).await;
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("subscribed again", briefly(&offers));
    framework.teardown().await;
}

pub async fn roles_of_revive_and_suppress(stage: &mut Stage) {
    let roles = json!(["pods", "web"]);
    let call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": with(info(), json!({ "roles": roles })), "suppressed_roles": roles } });
    let mut framework = stage.subscribe_by(call).await;
    for roles in [json!(["pods", "db"]), json!(["pods", "a b"]), json!([""])] {
        framework.call("REVIVE", json!({ "revive": { "roles": roles } })).await;
    }
    somebody_else_is_offered(stage, 2).await;
    let events = framework.settle().await;
    stage.told("revived with a role that is not its own", json!([events, framework.offers.len()]));
    framework.call("REVIVE", json!({ "revive": { "roles": ["pods"] } })).await;
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("one role revived", briefly(&offers));
    framework.call("SUPPRESS", json!({ "suppress": { "roles": ["pods", "db"] } })).await;
    framework.decline(&offers, 0.0).await;
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("suppressed with a role that is not its own", briefly(&offers));
    framework.teardown().await;
}

pub async fn removed_roles(stage: &mut Stage) {
    let mut framework = stage.subscribe(with(info(), json!({ "failover_timeout": 600.0 }))).await;
    stage.offers(&mut framework, 2).await;
    let own = json!({ "id": { "value": framework.id }, "roles": ["web"], "failover_timeout": 600.0 });
    let reply = framework.send("UPDATE_FRAMEWORK", json!({ "update_framework": { "framework_info": with(info(), own) } })).await;
    stage.told_reply("another role", &reply);
    let events = framework.events(2).await;
    stage.told("offers of the former role", json!(events));
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("offers of the new role", briefly(&offers));
    let back = with(info(), json!({ "id": { "value": framework.id } }));
    let mut framework = stage.subscribe(back).await;
    let offers = stage.offers(&mut framework, 2).await;
    let events = framework.settle().await;
    stage.told("another role at a subscription", json!([briefly(&offers), events]));
    framework.teardown().await;
}

pub async fn accepted_for_nothing(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 2).await;
    framework.accept(&[&offers[0]], vec![]).await;
    let again = stage.offers(&mut framework, 1).await;
    stage.told("an ACCEPT without operations", briefly(&again));
    framework.accept(&[], vec![]).await;
    let events = framework.settle().await;
    stage.told("an ACCEPT without anything", json!(events));
    framework.teardown().await;
}

/// One ACCEPT with something of each kind, whose offers are not good: everything that comes of it.
async fn try_offers(stage: &mut Stage, framework: &mut Framework, step: &str, offers: &[&Value], agent: &Value) {
    let place = json!({ "agent_id": agent });
    let reserve = |id: Value| with(json!({ "type": "RESERVE", "reserve": { "resources": [] } }), json!({ "id": id }));
    let operations = vec![
        launch_group(executor("e", &framework.id), vec![task("group-a", &place), task("group-b", &place)]),
        launch(vec![task("single-a", &place), task("single-b", &place)]),
        reserve(Value::Null),
        reserve(json!({ "value": "reserve" })),
    ];
    framework.accept(offers, operations).await;
    let mut events = framework.events(5).await;
    // Operations and tasks are told about in any order.
    events
        .sort_by_key(|event| (text(&event["type"]).to_owned(), event["update"]["status"]["task_id"]["value"].as_str().map(str::to_owned)));
    stage.told(step, json!(events));
}

pub async fn invalid_offers(stage: &mut Stage) {
    let without = with(info_with(&["MULTI_ROLE"]), json!({}));
    for (words, info) in [("PARTITION_AWARE", info()), ("without PARTITION_AWARE", without)] {
        let mut framework = stage.subscribe(info).await;
        let offers = stage.offers(&mut framework, 2).await;
        let agent = offers[0]["agent_id"].clone();
        let unknown = json!({ "id": { "value": "nothing" } });
        try_offers(stage, &mut framework, &format!("{words}: an unknown offer"), &[&unknown], &agent).await;
        try_offers(stage, &mut framework, &format!("{words}: no offer"), &[], &agent).await;
        let elsewhere = json!({ "value": "elsewhere" });
        try_offers(stage, &mut framework, &format!("{words}: an unknown offer and agent"), &[&unknown], &elsewhere).await;
        try_offers(stage, &mut framework, &format!("{words}: one known, one unknown"), &[&offers[0], &unknown], &agent).await;
        // The good one is offered again at once, without a filter.
        let again = stage.offers(&mut framework, 1).await;
        stage.told(format!("{words}: offered again"), briefly(&again));
        try_offers(stage, &mut framework, &format!("{words}: the same twice"), &[&again[0], &again[0]], &agent).await;
        framework.decline(&offers, 3600.0).await;
        try_offers(stage, &mut framework, &format!("{words}: a declined one"), &[&offers[1]], &agent).await;
        framework.teardown().await;
    }
}

pub async fn one_call_for_two_agents(stage: &mut Stage) {
    let mut framework = stage.subscribe(info()).await;
    let offers = stage.offers(&mut framework, 2).await;
    let agent = offers[0]["agent_id"].clone();
    try_offers(stage, &mut framework, "offers of two agents", &[&offers[0], &offers[1]], &agent).await;
    let offers = stage.offers(&mut framework, 2).await;
    stage.told("offered again", briefly(&offers));
    framework.teardown().await;
}

pub async fn not_our_offers(stage: &mut Stage) {
    let mut owner = stage.subscribe(info()).await;
    let offers = stage.offers(&mut owner, 2).await;
    let mut thief = stage.subscribe(with(info(), json!({ "roles": ["other"] }))).await;
    thief.decline(&offers[..1], 3600.0).await;
    let agent = offers[0]["agent_id"].clone();
    try_offers(stage, &mut thief, "another framework's offer", &[&offers[0]], &agent).await;
    let events = owner.settle().await;
    stage.told("what its owner hears", json!(events));
    thief.teardown().await;
    owner.teardown().await;
}
