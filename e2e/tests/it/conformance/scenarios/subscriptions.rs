//! SUBSCRIBE and UPDATE_FRAMEWORK: who is taken, who is refused, in which words.

use serde_json::{Value, json};

use super::super::client::Format;
use super::super::stage::{Framework, Stage, info, info_with, with};

fn call(info: Value) -> Value {
    let mut call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info } });
    if let Some(id) = call["subscribe"]["framework_info"].get("id").cloned() {
        call["framework_id"] = id;
    }
    call
}

/// Subscribes and leaves again.
async fn try_once(stage: &mut Stage, step: &str, call: Value) {
    if let Some(mut framework) = stage.try_subscribe(step, call).await {
        framework.teardown().await;
    }
}

/// For scenarios that are not about offers.
fn idle() -> Value {
    with(info(), json!({ "roles": [] }))
}

fn with_id(id: &str) -> Value {
    with(idle(), json!({ "id": { "value": id } }))
}

pub async fn first_events(stage: &mut Stage) {
    try_once(stage, "JSON", call(idle())).await;
    stage.format = Format::Protobuf;
    try_once(stage, "protobuf", call(idle())).await;
}

pub async fn roles_and_capabilities(stage: &mut Stage) {
    let multi = ["MULTI_ROLE"];
    let roles = |roles: Value| with(info_with(&multi), json!({ "roles": roles }));
    let single = |change: Value| with(with(info_with(&[]), json!({ "roles": null })), change);
    let tries = [
        ("no capability, no role", single(json!({}))),
        ("no capability, a role", single(json!({ "role": "web" }))),
        ("no capability, role *", single(json!({ "role": "*" }))),
        ("no capability, a bad role", single(json!({ "role": "a b" }))),
        ("no capability, roles", single(json!({ "roles": ["web"] }))),
        ("no capability, empty roles", single(json!({ "roles": [] }))),
        ("MULTI_ROLE and role", with(roles(json!(["web"])), json!({ "role": "web" }))),
        ("MULTI_ROLE and role *", with(roles(json!(["web"])), json!({ "role": "*" }))),
        ("MULTI_ROLE and no roles", roles(json!([]))),
        ("a role twice", roles(json!(["web", "db", "web"]))),
        ("role *", roles(json!(["*"]))),
        ("a hierarchy", roles(json!(["a", "a/b"]))),
        ("an empty role", roles(json!([""]))),
        ("role .", roles(json!(["."]))),
        ("role ..", roles(json!([".."]))),
        ("a role with a blank", roles(json!(["a b"]))),
        ("a role with a tab", roles(json!(["a\tb"]))),
        ("a role with a backspace", roles(json!(["a\u{8}b"]))),
        ("a role that begins with -", roles(json!(["-a"]))),
        ("a role that begins with /", roles(json!(["/a"]))),
        ("a role that ends with /", roles(json!(["a/"]))),
        ("a role with //", roles(json!(["a//b"]))),
        ("a role with /./", roles(json!(["a/./b"]))),
        ("a role with /-", roles(json!(["a/-b"]))),
        ("a role with /*", roles(json!(["a/*"]))),
        ("a long role", roles(json!(["x".repeat(300)]))),
        ("an unknown capability", with(idle(), json!({ "capabilities": [{ "type": "MULTI_ROLE" }, { "type": "TELEPATHY" }] }))),
        ("a capability without a type", with(idle(), json!({ "capabilities": [{ "type": "MULTI_ROLE" }, {}] }))),
        (
            "all capabilities",
            info_with(&[
                "REVOCABLE_RESOURCES",
                "TASK_KILLING_STATE",
                "GPU_RESOURCES",
                "SHARED_RESOURCES",
                "PARTITION_AWARE",
                "MULTI_ROLE",
                "RESERVATION_REFINEMENT",
                "REGION_AWARE",
            ]),
        ),
    ];
    for (step, info) in tries {
        // Nobody shall be offered anything here.
        let roles = info.get("roles").cloned().unwrap_or_else(|| json!([]));
        try_once(stage, step, call(info.clone())).await;
        let mut suppressed = call(info);
        suppressed["subscribe"]["suppressed_roles"] = roles;
        try_once(stage, &format!("{step}, suppressed"), suppressed).await;
    }
    for (step, suppressed) in [
        ("another role suppressed", json!(["db"])),
        ("a bad role suppressed", json!(["a b"])),
        ("a role suppressed twice", json!(["web", "web"])),
        ("an empty role suppressed", json!([""])),
    ] {
        let mut call = call(roles(json!(["web"])));
        call["subscribe"]["suppressed_roles"] = suppressed;
        try_once(stage, step, call).await;
    }
}

pub async fn ids(stage: &mut Stage) {
    for (step, id) in [
        ("a chosen id", "chosen-by-the-framework"),
        (".", "."),
        ("..", ".."),
        ("a slash", "a/b"),
        ("a backslash", "a\\b"),
        ("a blank", "a b"),
        ("a control character", "a\u{7}b"),
        ("a letter of two bytes", "ä"),
    ] {
        try_once(stage, step, call(with_id(id))).await;
    }
    try_once(stage, "255 characters", call(with_id(&"x".repeat(255)))).await;
    try_once(stage, "256 characters", call(with_id(&"x".repeat(256)))).await;
    try_once(stage, "an empty id", call(with_id(""))).await;
    let mut other = call(with_id("one"));
    other["framework_id"]["value"] = json!("another");
    try_once(stage, "two different ids", other).await;
    let mut outside = call(idle());
    outside["framework_id"] = json!({ "value": "outside" });
    try_once(stage, "an id outside only", outside).await;
    let mut inside = call(with_id("inside"));
    inside["framework_id"] = Value::Null;
    try_once(stage, "an id inside only", inside).await;
    try_once(stage, "an empty user", call(with(idle(), json!({ "user": "" })))).await;
    try_once(stage, "an empty name", call(with(idle(), json!({ "name": "" })))).await;
    try_once(stage, "a principal", call(with(idle(), json!({ "principal": "somebody" })))).await;
}

pub async fn times_and_filters(stage: &mut Stage) {
    for seconds in [
        json!(0.0),
        json!(1),
        json!(604_800.0),
        json!(-1.0),
        json!(1e20),
        json!(9_223_372_036.0),
        json!(9_223_372_037.0),
        json!("Infinity"),
        json!("-Infinity"),
        json!("NaN"),
    ] {
        try_once(stage, &format!("failover_timeout {seconds}"), call(with(idle(), json!({ "failover_timeout": seconds })))).await;
    }
    let filter = |quantities: Value| json!({ "min_allocatable_resources": { "quantities": quantities } });
    let cpus = |value: Value| json!([{ "quantities": { "cpus": { "value": value } } }]);
    let filters = [
        ("of its role", json!({ "web": filter(cpus(json!(1.0))) })),
        ("of another role", json!({ "db": filter(cpus(json!(1.0))) })),
        ("of a bad role", json!({ "a b": filter(cpus(json!(1.0))) })),
        ("of no quantities", json!({ "web": filter(json!([])) })),
        ("of empty quantities", json!({ "web": filter(json!([{ "quantities": {} }])) })),
        ("of nothing", json!({ "web": {} })),
        ("of 0", json!({ "web": filter(cpus(json!(0.0))) })),
        ("of -1", json!({ "web": filter(cpus(json!(-1.0))) })),
        ("of NaN", json!({ "web": filter(cpus(json!("NaN"))) })),
        ("of something else", json!({ "web": filter(json!([{ "quantities": { "luck": { "value": 1.0 } } }])) })),
    ];
    for (step, filters) in filters {
        let mut call = call(with(info(), json!({ "roles": ["web"], "offer_filters": filters })));
        call["subscribe"]["suppressed_roles"] = json!(["web"]);
        try_once(stage, &format!("offer filters {step}"), call).await;
    }
}

pub async fn offer_constraints(stage: &mut Stage) {
    let groups = |groups: Value| json!({ "role_constraints": { "web": { "groups": groups } } });
    let one = |selector: Value, predicate: Value| {
        groups(json!([{ "attribute_constraints": [{ "selector": selector, "predicate": predicate }] }]))
    };
    let rack = json!({ "attribute_name": "rack" });
    let exists = json!({ "exists": {} });
    let constraints = [
        ("that exist", one(rack.clone(), exists.clone())),
        ("of no role", json!({})),
        (
            "of another role",
            json!({ "role_constraints": { "db": { "groups": [{ "attribute_constraints": [{ "selector": rack, "predicate": exists }] }] } } }),
        ),
        ("without groups", groups(json!([]))),
        ("with an empty group", groups(json!([{}]))),
        ("without a selector", one(json!({}), exists.clone())),
        ("without a predicate", one(rack.clone(), json!({}))),
        ("of an unknown pseudoattribute", one(json!({ "pseudoattribute_type": "UNKNOWN" }), exists.clone())),
        ("of the host name", one(json!({ "pseudoattribute_type": "HOSTNAME" }), exists.clone())),
        ("with a bad expression", one(rack.clone(), json!({ "text_matches": { "regex": "(" } }))),
        ("with a bad expression denied", one(rack.clone(), json!({ "text_not_matches": { "regex": "(" } }))),
        ("with an expression", one(rack.clone(), json!({ "text_matches": { "regex": "r[12]+" } }))),
        ("with a back reference", one(rack.clone(), json!({ "text_matches": { "regex": "(a)\\1" } }))),
        ("with a large expression", one(rack.clone(), json!({ "text_matches": { "regex": "(a{1000}){1000}" } }))),
    ];
    for (step, constraints) in constraints {
        let mut call = call(with(info(), json!({ "roles": ["web"] })));
        call["subscribe"]["suppressed_roles"] = json!(["web"]);
        call["subscribe"]["offer_constraints"] = constraints;
        try_once(stage, &format!("constraints {step}"), call).await;
    }
}

pub async fn the_latest_wins(stage: &mut Stage) {
    let mut first = stage.subscribe(with(idle(), json!({ "failover_timeout": 600.0 }))).await;
    let mut second = stage.try_subscribe("the second", call(with_id(&first.id))).await.expect("the second is taken");
    let rest = first.rest().await;
    stage.told("the first's last events", json!(rest));
    let reply = second.send_as(Some(&first.stream_id), "REVIVE", json!({})).await;
    stage.told_reply("a call with the first's stream id", &reply);
    let reply = second.send("REVIVE", json!({})).await;
    stage.told_reply("a call with the second's", &reply);
    let events = second.settle().await;
    stage.told("the second's events", json!(events));
    second.teardown().await;
}

pub async fn a_framework_that_comes_back(stage: &mut Stage) {
    let framework = stage.subscribe(with(idle(), json!({ "failover_timeout": 600.0 }))).await;
    let id = framework.id.clone();
    drop(framework);
    let mut back = stage
        .try_subscribe(
            "back",
            call(with(with_id(&id), json!({ "name": "renamed", "user": "other", "checkpoint": false, "failover_timeout": 7.0 }))),
        )
        .await
        .expect("it is taken");
    let found = seen(stage, &id).await;
    stage.told("as seen by operators", found);
    back.teardown().await;
}

/// What operators are told about a framework.
async fn seen(stage: &mut Stage, id: &str) -> Value {
    let answer = stage.operate(json!({ "type": "GET_FRAMEWORKS" })).await.json();
    let all = &answer["get_frameworks"];
    let listed =
        |kind: &str| all[kind].as_array().into_iter().flatten().find(|framework| framework["framework_info"]["id"]["value"] == id).cloned();
    json!({ "frameworks": listed("frameworks"), "completed": listed("completed_frameworks") })
}

pub async fn completed_frameworks(stage: &mut Stage) {
    let mut framework = stage.subscribe(idle()).await;
    let id = framework.id.clone();
    let end = framework.teardown().await;
    stage.told("torn down", json!(end));
    let found = seen(stage, &id).await;
    stage.told("as seen by operators", found);
    try_once(stage, "subscribes again", call(with_id(&id))).await;
    // Without a failover timeout a closed connection is the end.
    let framework = stage.subscribe(idle()).await;
    let id = framework.id.clone();
    drop(framework);
    while seen(stage, &id).await["completed"].is_null() {
        tokio::task::yield_now().await;
    }
    try_once(stage, "subscribes after its connection was closed", call(with_id(&id))).await;
}

async fn kept(stage: &mut Stage, change: Value) -> Framework {
    stage.subscribe(with(with(idle(), json!({ "failover_timeout": 600.0 })), change)).await
}

pub async fn changes_at_a_subscription(stage: &mut Stage) {
    let mut framework = kept(stage, json!({ "principal": "somebody" })).await;
    let id = framework.id.clone();
    for (step, change) in [
        ("another principal", json!({ "principal": "somebody-else" })),
        ("no principal", json!({ "principal": null })),
        ("another role", json!({ "principal": "somebody", "roles": ["web"] })),
        ("no MULTI_ROLE", json!({ "principal": "somebody", "roles": null, "capabilities": [] })),
        ("MULTI_ROLE again", json!({ "principal": "somebody" })),
        ("a bad role", json!({ "principal": "somebody", "roles": ["a b"] })),
    ] {
        let mut change = call(with(with_id(&id), change));
        if step == "another role" {
            change["subscribe"]["suppressed_roles"] = json!(["web"]);
        }
        if let Some(taken) = stage.try_subscribe(step, change).await {
            let rest = framework.rest().await;
            stage.told(format!("{step}: the former subscription"), json!(rest));
            framework = taken;
        }
    }
    let events = framework.settle().await;
    stage.told("still subscribed", json!(events));
    framework.teardown().await;
}

pub async fn update_framework(stage: &mut Stage) {
    let mut framework = kept(stage, json!({ "principal": "somebody" })).await;
    let same = with(with_id(&framework.id), json!({ "principal": "somebody", "failover_timeout": 600.0 }));
    let updates = [
        ("nothing changed", json!({})),
        (
            "another name",
            json!({ "name": "renamed", "webui_url": "http://example.com", "hostname": "elsewhere", "labels": { "labels": [{ "key": "k", "value": "v" }] } }),
        ),
        ("another user", json!({ "user": "somebody" })),
        ("another principal", json!({ "principal": "somebody-else" })),
        ("no principal", json!({ "principal": null })),
        ("no checkpoint", json!({ "checkpoint": false })),
        ("another id", json!({ "id": { "value": "another" } })),
        ("no id", json!({ "id": null })),
        ("a bad role", json!({ "roles": ["a b"] })),
        ("a bad failover timeout", json!({ "failover_timeout": -1.0 })),
        ("another failover timeout", json!({ "failover_timeout": 100.0 })),
        ("no MULTI_ROLE", json!({ "capabilities": [], "roles": null })),
    ];
    for (step, change) in updates {
        let reply =
            framework.send("UPDATE_FRAMEWORK", json!({ "update_framework": { "framework_info": with(same.clone(), change) } })).await;
        stage.told_reply(step, &reply);
    }
    for (step, part) in [
        ("a role that is not its own suppressed", json!({ "suppressed_roles": ["db"] })),
        ("an empty group of constraints", json!({ "offer_constraints": { "role_constraints": { "web": { "groups": [] } } } })),
    ] {
        let update = with(json!({ "framework_info": same }), part);
        let reply = framework.send("UPDATE_FRAMEWORK", json!({ "update_framework": update })).await;
        stage.told_reply(step, &reply);
    }
    let id = framework.id.clone();
    let mut found = seen(stage, &id).await;
    // Whether its role has been offered anything yet is chance.
    for offered in ["offers", "offered_resources"] {
        found["frameworks"].as_object_mut().unwrap().remove(offered);
    }
    stage.told("as seen by operators", found);
    let events = framework.settle().await;
    stage.told("what came of it", json!(events));
    framework.teardown().await;
}
