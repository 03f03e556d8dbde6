//! The OpenAPI document of everything that the server answers, at `/v2/openapi.json`.
//!
//! It is made of what the server itself runs on, so that it cannot tell of what is not there: the router names its routes
//! in [`endpoints`] and the compiler refuses one that is not in it ([`route`]); definitions come from the tables that
//! their reader follows ([`definition`]); statuses from their types ([`answers`]). What the types leave open is held by
//! `e2e/openapi/check`, which lets schemathesis try the document against a running server.

mod answers;
mod definition;
mod endpoints;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use endpoints::{Content, ENDPOINTS, Endpoint, Operation, Query, Takes, Values};

use crate::answer::Problem;
use crate::push::DRY_RUN;
use crate::request::Head;

pub use endpoints::documented;

/// The name of a route, which must be one of the document's.
macro_rules! route {
    ($path:literal) => {
        const { $crate::openapi::documented($path) }
    };
}
pub(crate) use route;

/// Refuses what a route would pass over in silence:
///
/// - a change by a query that cannot be read whole, and so may hide that it is a dry run;
/// - a dry run of something that knows none, or one that is asked for in other words, before it is done in earnest;
/// - an answer in a kind that there is not.
pub fn judge(route: &str, head: &Head) -> Result<(), Problem> {
    let Some(operation) = operation_of(route, &head.method) else { return Ok(()) };
    if operation.changes()
        && let Some(pair) = head.undecodable()
    {
        let pair: String = pair.chars().take(40).collect();
        let message = format!("nothing was changed: `{pair}` in the query cannot be decoded: it should be UTF-8 with % escapes");
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    if operation.has_no_trial() && head.flag(DRY_RUN) {
        let message = format!("nothing was changed: {} {route} knows no `{DRY_RUN}`", head.method);
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    if operation.changes()
        && let Some(unclear) = unclear_trial(head)
    {
        let message = format!("nothing was changed: {unclear} is neither `{DRY_RUN}=true` nor `{DRY_RUN}=false`");
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    if operation.is_json() && !head.accepts("application", "json") {
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "this is answered as JSON: accept application/json"));
    }
    Ok(())
}

/// A parameter that means a dry run, probably, and would not be taken for one.
fn unclear_trial(head: &Head) -> Option<String> {
    let boolean = |value: &str| ["true", "false"].iter().any(|known| value.eq_ignore_ascii_case(known));
    let unclear = |(key, value): &(String, String)| key.eq_ignore_ascii_case(DRY_RUN) && !(key == DRY_RUN && boolean(value));
    let (key, value) = head.parameters().find(unclear)?;
    let value: String = value.chars().take(40).collect();
    Some(format!("`{key}={value}`"))
}

fn operation_of(route: &str, method: &Method) -> Option<&'static Operation> {
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.path == route)?;
    let named = |name: &str| endpoint.operations.iter().find(|operation| operation.method == name);
    // What knows GET knows HEAD.
    named(method.as_str()).or_else(|| if *method == Method::HEAD { named("GET") } else { None })
}

impl Operation {
    /// Whether it changes something and cannot tell what that would be.
    fn has_no_trial(&self) -> bool {
        self.changes() && self.query.iter().all(|query| query.name != DRY_RUN)
    }

    fn changes(&self) -> bool {
        !matches!(self.method, "GET" | "HEAD")
    }

    /// Whether all that it answers is JSON.
    fn is_json(&self) -> bool {
        self.answers.iter().all(|(_, _, content)| content.is_json())
    }
}

const DESCRIPTION: &str = "Marathon's /v2/pods and its neighbours. A refused definition names every error at its path. Answers \
    carry the store's revision as `X-Podium-Revision`; a request with that number as `X-Podium-Min-Revision` waits until the replica \
    that is asked has seen it, and is answered 503 if it does not in time.";

/// The document, serialized.
pub fn document() -> Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| made().to_string().into());
    DOCUMENT.clone()
}

fn made() -> Value {
    let mut schemas = Map::new();
    definition::add(&mut schemas);
    answers::add(&mut schemas);
    let paths: Map<String, Value> = ENDPOINTS.iter().map(|endpoint| (endpoint.path.to_owned(), path(endpoint))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Podium",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn path(endpoint: &Endpoint) -> Value {
    let mut item = Map::new();
    let named: Vec<Value> = names_in(endpoint.path)
        .map(|name| {
            let about = match name {
                "id" => "The id, with or without its leading slash; slashes may be doubled or percent-encoded.",
                "version" => "A time stamp from `::versions`.",
                _ => "An id as answers tell it.",
            };
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" }, "description": about })
        })
        .collect();
    if !named.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(named));
    }
    for operation in endpoint.operations {
        item.insert(operation.method.to_lowercase(), self::operation(endpoint, operation));
    }
    Value::Object(item)
}

/// The names between braces.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

fn operation(endpoint: &Endpoint, operation: &Operation) -> Value {
    let name = |part: &str| part.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let mut body = json!({
        "operationId": format!("{}_{}", operation.method.to_lowercase(), endpoint.path.split(['/', ':']).map(name).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")),
        "summary": operation.summary,
        "responses": responses(operation),
    });
    let parameters: Vec<Value> = operation.query.iter().map(query).chain(headers(operation)).collect();
    if !parameters.is_empty() {
        body["parameters"] = Value::Array(parameters);
    }
    if let Some(schema) = taken(operation.takes) {
        body["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    body
}

fn query(query: &Query) -> Value {
    let schema = match query.values {
        // Only the word `true` is true; all other text is read as false, and refused by nobody.
        Values::Flag => json!({ "type": "string", "examples": ["true", "false"] }),
        Values::Text => json!({ "type": "string" }),
        Values::Words(words) => json!({ "type": "string", "enum": words }),
        Values::Integer { min } => json!({ "type": "integer", "minimum": min, "maximum": i64::MAX }),
    };
    json!({ "name": query.name, "in": "query", "required": false, "schema": schema, "description": query.about })
}

fn headers(operation: &Operation) -> impl Iterator<Item = Value> {
    let header = |name: &str, about: &str| json!({ "name": name, "in": "header", "required": false, "schema": { "type": "string" }, "description": about });
    let of_changes = [
        header("If-Match", "Only if this is the pod's `ETag`; `*`: only if the pod is there."),
        header("If-None-Match", "Only if this is not the pod's `ETag`; `*`: only if the pod is not there."),
    ];
    let of_reads = [header("If-None-Match", "If this is the pod's `ETag`, or `*`, the answer is 304 and has no body.")];
    let changes = operation.refusals.contains(&412);
    let reads = operation.answers.iter().any(|(status, ..)| *status == 304);
    of_changes.into_iter().filter(move |_| changes).chain(of_reads.into_iter().filter(move |_| reads))
}

fn taken(takes: Takes) -> Option<Value> {
    Some(match takes {
        Takes::Nothing => return None,
        Takes::Definition => reference("Pod"),
        Takes::Change => reference("PodChange"),
        Takes::Ids => json!({ "type": "array", "items": { "type": "string" } }),
        Takes::Order => reference("Order"),
        Takes::Anything => json!({}),
    })
}

fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, about, content) in operation.answers {
        responses.insert(status.to_string(), response(about, content));
    }
    // What `judge` refuses.
    let judged = operation.has_no_trial().then_some(400).into_iter().chain(operation.is_json().then_some(406));
    for status in operation.refusals.iter().copied().chain(judged) {
        responses.entry(status.to_string()).or_insert_with(|| response(refusal(status), &Content::One("Problem")));
    }
    Value::Object(responses)
}

fn response(about: &str, content: &Content) -> Value {
    let typed = |media: &str, schema: Value| json!({ "description": about, "content": { media: { "schema": schema } } });
    match content {
        Content::Nothing => json!({ "description": about }),
        Content::One(name) => typed("application/json", reference(name)),
        Content::Many(name) => typed("application/json", json!({ "type": "array", "items": reference(name) })),
        Content::Times => typed("application/json", json!({ "type": "array", "items": { "type": "string", "format": "date-time" } })),
        Content::Json => typed("application/json", json!({})),
        Content::Events => typed("text/event-stream", json!({ "type": "string" })),
        Content::Text => typed("text/plain", json!({ "type": "string" })),
        Content::JsonOrText => json!({
            "description": about,
            "content": { "application/json": { "schema": {} }, "text/plain": { "schema": { "type": "string" } } },
        }),
    }
}

/// What a refusal of a status means, wherever it comes from.
fn refusal(status: u16) -> &'static str {
    match status {
        400 => "Not JSON, not properly encoded, of another pod, or a dry run where there is none.",
        401 => "Who are you?",
        403 => "Not for you, or not from a page of another origin.",
        404 => "It is not there.",
        405 => "The path does not know that method.",
        406 => "No such representation.",
        408 => "The body did not arrive in time.",
        409 => "It is there already, or a deployment is running and `force` was not sent.",
        412 => "It is not what `If-Match` names, or what `If-None-Match` does.",
        413 => "The body is too large.",
        415 => "The body is not `application/json`, or packed.",
        421 => "The server is not called by that name.",
        422 => "Every error, at its path.",
        502 => "The agent does not answer.",
        503 => "The store has not been read yet, lags behind, or did not confirm the write.",
        _ => "Refused.",
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, all: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    all.insert(target.to_owned());
                }
                members.values().for_each(|member| references(member, all));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, all)),
            _ => {}
        }
    }

    #[test]
    fn what_is_referred_to_is_there_and_what_is_there_is_referred_to() {
        let document = made();
        let mut referred = BTreeSet::new();
        references(&document, &mut referred);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let there: BTreeSet<String> = schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
        assert_eq!(referred, there);
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_says_when_it_refuses() {
        let document = made();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
                assert!(names.insert(operation["operationId"].to_string()), "{method} {path}");
                assert!(operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()), "{method} {path}");
                assert!(operation["responses"]["421"].is_object(), "the guard refuses {method} {path} under a strange name");
            }
        }
    }
}
