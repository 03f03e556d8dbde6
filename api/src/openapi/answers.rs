//! JSON Schema of what is answered beside definitions. Statuses come from their types; the rest, which is written member
//! by member in its handler, is described here and held by `e2e/openapi/check`.

use podium_controllers::health::status::PodStatus;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::reference;

/// Adds them all.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    // Once as a part, so that it stands among the parts.
    let _ = generator.subschema_for::<PodStatus>();
    schemas.extend(generator.take_definitions(true));
    for (name, schema) in [
        ("Problem", problem()),
        ("Deployment", deployment()),
        ("Deployments", json!({ "type": "array", "items": reference("Deployment") })),
        ("Group", group()),
        ("Info", info()),
        ("Leader", object(&[("leader", text())])),
        ("Apps", json!({ "type": "object" })),
        ("Tasks", object(&[("tasks", json!({ "type": "array", "maxItems": 0 }))])),
        ("Order", order()),
        ("Orders", object(&[("orders", list(ordered()))])),
        ("Unknown", unknown()),
        ("Refused", refused()),
        ("Abdication", object(&[("message", text()), ("details", list(json!({})))])),
        ("Instance", instance()),
        ("Queue", object(&[("queue", list(queued()))])),
        ("Rollback", object(&[("version", time()), ("deploymentId", text())])),
        ("Trial", trial()),
        ("PodOrTrial", json!({ "anyOf": [reference("AnsweredPod"), reference("Trial")] })),
        ("Plugins", object(&[("plugins", json!({ "type": "array", "maxItems": 0 }))])),
    ] {
        schemas.insert(name.to_owned(), schema);
    }
}

/// An object of these members, all of them always there.
fn object(members: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn maybe(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn instance() -> Value {
    let state = object(&[("condition", text()), ("since", time()), ("goal", text())]);
    let agent = object(&[("host", text()), ("attributes", list(json!({})))]);
    object(&[
        ("instanceId", text()),
        ("agentInfo", agent),
        ("runSpecVersion", time()),
        ("state", state),
        ("unreachableStrategy", json!({})),
    ])
}

fn queued() -> Value {
    let delay = object(&[("timeLeftSeconds", count()), ("overdue", json!({ "type": "boolean" }))]);
    let step = object(&[("reason", text()), ("declined", count()), ("processed", count())]);
    let summary = object(&[
        ("processedOffersCount", count()),
        ("unusedOffersCount", count()),
        ("rejectSummaryLastOffers", list(step.clone())),
        ("rejectSummaryLaunchAttempt", list(step)),
    ]);
    object(&[
        ("pod", reference("AnsweredPod")),
        ("role", text()),
        ("count", count()),
        ("since", time()),
        ("delay", delay),
        ("processedOffersSummary", summary),
    ])
}

fn trial() -> Value {
    object(&[
        ("dryRun", json!({ "const": true })),
        ("change", text()),
        ("definition", maybe(reference("AnsweredPod"))),
        ("difference", list(object(&[("path", text()), ("before", json!({})), ("after", json!({}))]))),
        ("instances", object(&[("start", count()), ("stop", count()), ("stay", count())])),
    ])
}

/// Every refusal.
fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["message"],
        "properties": {
            "message": { "type": "string" },
            "details": { "description": "What is wrong, each error at its path; or, of what is no JSON, what the parser says." },
            "deployments": { "description": "What holds the pod.", "type": "array", "items": object(&[("id", text())]) },
        },
    })
}

fn deployment() -> Value {
    let action = object(&[("action", text()), ("pod", text())]);
    object(&[
        ("id", text()),
        ("version", time()),
        ("affectedApps", list(text())),
        ("affectedPods", list(text())),
        ("steps", list(object(&[("actions", list(action.clone()))]))),
        ("currentActions", list(action)),
        ("currentStep", count()),
        ("totalSteps", count()),
    ])
}

fn group() -> Value {
    let mut group = object(&[("id", text()), ("dependencies", list(text())), ("version", time())]);
    group["properties"]["apps"] = list(json!({}));
    group["properties"]["pods"] = list(reference("PodStatus"));
    group["properties"]["groups"] = list(reference("Group"));
    group
}

fn info() -> Value {
    object(&[
        ("name", text()),
        ("version", text()),
        ("elected", json!({ "type": "boolean" })),
        ("leader", maybe(text())),
        ("frameworkId", maybe(text())),
        ("marathon_config", json!({ "type": "object" })),
        ("zookeeper_config", json!({ "type": "object" })),
        ("http_config", json!({ "type": "object" })),
    ])
}

fn order() -> Value {
    json!({
        "type": "object",
        "required": ["kind"],
        "additionalProperties": false,
        "properties": {
            "kind": { "enum": ["adopt", "kill"] },
            "ids": { "type": "array", "items": { "type": "string" }, "description": "Ids of pods, instances or tasks." },
            "all": { "type": "boolean", "description": "All that are unknown, instead of `ids`." },
        },
    })
}

fn ordered() -> Value {
    object(&[("id", text()), ("kind", text()), ("ids", list(text()))])
}

fn refused() -> Value {
    let error = object(&[("path", text()), ("message", text())]);
    object(&[("id", text()), ("version", maybe(time())), ("specRevision", count()), ("judgedAt", time()), ("errors", list(error))])
}

fn unknown() -> Value {
    let quarantine = object(&[("reason", text()), ("since", time())]);
    let instance = object(&[("id", text()), ("pod", text()), ("taskIds", list(text())), ("agentId", text()), ("why", text())]);
    object(&[("quarantine", maybe(quarantine)), ("instances", list(instance)), ("more", count()), ("orders", list(ordered()))])
}
