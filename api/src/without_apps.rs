//! Marathon's endpoints for apps, answered as an installation that has none: a client that looks at apps beside pods
//! finds an empty list and no error. Pods are no apps, in Marathon neither.

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use serde_json::json;

use crate::answer::{Answer, Problem, json_value, with_type};
use crate::plain::TEXT;
use crate::request::{Body, Head};

/// `/v2/apps`, and `/v2/apps/<group>/*`: none.
pub fn apps() -> Answer {
    json_value(StatusCode::OK, &json!({ "apps": [] }))
}

/// Anything about one app: there is no such app. `/<group>/*` lists none.
pub fn app(id: &str) -> Result<Answer, Problem> {
    if id.ends_with("/*") {
        return Ok(json_value(StatusCode::OK, &json!({ "*": [] })));
    }
    let id = ["/versions", "/tasks", "/restart"].iter().fold(id, |id, verb| id.split(verb).next().unwrap_or(id));
    Err(Problem::new(StatusCode::NOT_FOUND, format!("App '/{}' does not exist", id.trim_matches('/'))))
}

/// A change that only an app could take.
pub fn no_apps(allow: &'static str) -> Problem {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Podium runs pods and no apps: send a pod's definition to /v2/pods");
    problem.with(ALLOW, HeaderValue::from_static(allow))
}

/// `/v2/tasks`: tasks of apps. Text for who asks for text, as Marathon.
pub fn tasks(head: &Head) -> Answer {
    match head.accepts("application", "json") {
        true => json_value(StatusCode::OK, &json!({ "tasks": [] })),
        false => with_type(StatusCode::OK, "\n".into(), TEXT),
    }
}

/// `POST /v2/tasks/delete`: ids of pods' tasks are passed over, as in Marathon, and there are no others.
pub async fn kill_tasks(head: &Head, body: Body) -> Result<Answer, Problem> {
    head.demand_json()?;
    head.collect(body).await?;
    Ok(json_value(StatusCode::OK, &json!({ "tasks": [] })))
}

/// `/v2/plugins`: there are none.
pub fn plugins() -> Answer {
    json_value(StatusCode::OK, &json!({ "plugins": [] }))
}
