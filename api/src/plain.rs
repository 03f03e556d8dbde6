//! The routes beside the pods: what a load balancer, Prometheus or a person asks the server about itself.

use http::header::HeaderValue;
use http::{Method, StatusCode};
use podium_controllers::gateway::GatewayState;
use serde_json::json;

use crate::answer::{Answer, Problem, empty, header, json_value, with_type};
use crate::request::Head;
use crate::{Api, deployments};

/// The election whose leader talks to Mesos, and so is what Marathon calls the leader.
const GATEWAY: &str = "gateway";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

type Handler = fn(&Api, &Head) -> Result<Answer, Problem>;

/// Answers one request; names the route for the metrics.
pub async fn handle(api: &Api, path: &str, head: &Head) -> (&'static str, Result<Answer, Problem>) {
    let (route, answer): (&'static str, Handler) = match path.trim_end_matches('/') {
        "/ping" => ("/ping", ping),
        "/livez" => ("/livez", livez),
        "/readyz" => ("/readyz", readyz),
        "/metrics" => ("/metrics", metrics),
        "/v2/info" => ("/v2/info", info),
        "/v2/leader" => ("/v2/leader", leader),
        "/v2/deployments" => ("/v2/deployments", deployments::list),
        _ => return ("unknown", Err(Problem::no_route())),
    };
    (route, answer_read(api, head, answer).await)
}

async fn answer_read(api: &Api, head: &Head, answer: Handler) -> Result<Answer, Problem> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Problem::method("GET, HEAD"));
    }
    // Who asks for no revision gets an answer while the store is away, too: probes live on that.
    if let revision @ 1.. = head.min_revision()? {
        api.caught_up(revision).await?;
    }
    answer(api, head)
}

/// Marathon answers in the kind that the client asked for, JSON first.
fn ping(_: &Api, head: &Head) -> Result<Answer, Problem> {
    Ok(if head.accepts("application", "json") {
        json_value(StatusCode::OK, &"pong")
    } else if head.accepts("text", "plain") || head.accepts("text", "html") {
        with_type(StatusCode::OK, "pong".into(), TEXT)
    } else {
        empty(StatusCode::NO_CONTENT)
    })
}

fn livez(_: &Api, _: &Head) -> Result<Answer, Problem> {
    Ok(with_type(StatusCode::OK, "ok\n".into(), TEXT))
}

/// Unknown tasks that are told one by one.
const MOST_TASKS: usize = 100;

/// Ready: the store has been read. What is wrong between the gateway and Mesos takes no replica out of service, since
/// the API is where people look for the reason: it is told, by the replica that owns the gateway.
fn readyz(api: &Api, _: &Head) -> Result<Answer, Problem> {
    match api.index.position().revision {
        0 => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the store has not been read yet: is it reachable?")),
        _ => Ok(with_type(StatusCode::OK, readiness(&api.gateway.borrow()).into(), TEXT)),
    }
}

/// `ok`, or `degraded` and a line for each reason.
fn readiness(gateway: &GatewayState) -> String {
    let mut reasons: Vec<String> = Vec::new();
    reasons.extend(gateway.trouble.as_ref().map(|trouble| format!("Mesos: {trouble}")));
    reasons.extend(gateway.quarantine.as_ref().map(|quarantine| format!("quarantine: {quarantine}")));
    reasons.extend(gateway.unknown.iter().take(MOST_TASKS).map(|task| {
        let agent = task.agent_id.as_deref().unwrap_or("an unknown agent");
        format!("unknown task: {} on {agent} ({}); the store has no record of it, it is left alone", task.task_id, task.state)
    }));
    let more = gateway.unknown.len().saturating_sub(MOST_TASKS);
    reasons.extend((more > 0).then(|| format!("unknown task: {more} more")));
    if reasons.is_empty() { "ok\n".to_owned() } else { format!("degraded\n{}\n", reasons.join("\n")) }
}

fn metrics(api: &Api, head: &Head) -> Result<Answer, Problem> {
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written");
    if !head.accepts("text", "plain") && head.accepts("application", "json") {
        return Ok(json_value(StatusCode::OK, &api.metrics.json().map_err(failed)?));
    }
    let text = api.metrics.text().map_err(failed)?;
    let open = head.header(http::header::ACCEPT).is_some_and(|accept| accept.contains("application/openmetrics-text"));
    Ok(with_type(StatusCode::OK, text.into(), if open { OPEN_METRICS } else { PROMETHEUS }))
}

fn leader(api: &Api, _: &Head) -> Result<Answer, Problem> {
    match leading(api) {
        Some(leader) => Ok(json_value(StatusCode::OK, &json!({ "leader": leader }))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "There is no leader")),
    }
}

fn leading(api: &Api) -> Option<String> {
    api.index.read(|state| state.leader(GATEWAY).map(|leader| String::from_utf8_lossy(&leader.identity).into_owned()))
}

fn info(api: &Api, _: &Head) -> Result<Answer, Problem> {
    let leader = leading(api);
    let (framework, revision) = api.index.read(|state| (state.framework().map(|held| held.value.framework_id.clone()), state.revision()));
    let body = json!({
        "name": "podium",
        "version": env!("CARGO_PKG_VERSION"),
        "buildref": null,
        "elected": leader.as_deref().is_some_and(|leader| leader == api.info.identity),
        "leader": leader,
        "frameworkId": framework,
        "marathon_config": {
            "checkpoint": true,
            "default_network_name": api.settings.default_network_name,
            "failover_timeout": api.info.failover_timeout,
            "framework_name": api.info.framework_name,
            "ha": true,
            "hostname": api.info.identity,
            "master": api.info.mesos,
            "mesos_role": api.settings.default_role,
        },
        "http_config": { "http_port": api.port, "https_port": null },
    });
    let mut answer = json_value(StatusCode::OK, &body);
    header(&mut answer, crate::answer::REVISION, revision);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use podium_controllers::gateway::UnknownTask;

    use super::*;

    #[test]
    fn readiness_names_quarantine_trouble_and_every_unknown_task_up_to_a_bound() {
        assert_eq!(readiness(&GatewayState { leads: true, subscribed: true, ..GatewayState::default() }), "ok\n");
        let task = |n| UnknownTask { task_id: format!("t{n}"), agent_id: None, state: "TASK_RUNNING".to_owned(), ahead: n == 0 };
        let gateway = GatewayState {
            trouble: Some("no master answers".to_owned()),
            quarantine: Some("task t0 is ahead".to_owned()),
            unknown: (0..150).map(task).collect(),
            ..GatewayState::default()
        };
        let text = readiness(&gateway);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["degraded", "Mesos: no master answers", "quarantine: task t0 is ahead"]);
        assert!(lines[3].starts_with("unknown task: t0 on an unknown agent (TASK_RUNNING)"), "{}", lines[3]);
        assert_eq!((lines.len(), lines[103]), (104, "unknown task: 50 more"));
    }
}
