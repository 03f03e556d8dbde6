//! The routes beside the pods: what a load balancer, Prometheus or a person asks the server about itself.

use http::header::HeaderValue;
use http::{Method, StatusCode};
use podium_controllers::gateway::GatewayState;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Problem, empty, header, json_bytes, json_value, with_type};
use crate::openapi::{self, route};
use crate::request::{Body, Head};
use crate::{Api, deployments, groups, leader, queue, unknown, without_apps};

pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    Ping,
    Livez,
    Readyz,
    Metrics,
    PrometheusMetrics,
    OpenApi,
    Info,
    Leader,
    Deployments,
    Deployment(&'a str),
    Queue,
    Delay(&'a str),
    Events,
    Group(&'a str),
    Apps,
    App(&'a str),
    Tasks,
    KillTasks,
    Plugins,
}

impl<'a> Target<'a> {
    /// What a path names, and the route's name for the metrics.
    fn of(path: &'a str) -> Option<(Self, &'static str)> {
        let path = path.trim_end_matches('/');
        let below = |root: &str| path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        Some(match path {
            "/ping" => (Self::Ping, route!("/ping")),
            "/livez" => (Self::Livez, route!("/livez")),
            "/readyz" => (Self::Readyz, route!("/readyz")),
            "/metrics" => (Self::Metrics, route!("/metrics")),
            "/metrics/prometheus" => (Self::PrometheusMetrics, route!("/metrics/prometheus")),
            "/v2/openapi.json" => (Self::OpenApi, route!("/v2/openapi.json")),
            "/v2/info" => (Self::Info, route!("/v2/info")),
            "/v2/leader" => (Self::Leader, route!("/v2/leader")),
            "/v2/deployments" => (Self::Deployments, route!("/v2/deployments")),
            "/v2/queue" => (Self::Queue, route!("/v2/queue")),
            "/v2/events" => (Self::Events, route!("/v2/events")),
            "/v2/apps" => (Self::Apps, route!("/v2/apps")),
            "/v2/tasks" => (Self::Tasks, route!("/v2/tasks")),
            "/v2/tasks/delete" => (Self::KillTasks, route!("/v2/tasks/delete")),
            "/v2/plugins" => (Self::Plugins, route!("/v2/plugins")),
            _ if let Some(id) = path.strip_prefix("/v2/deployments/") => (Self::Deployment(id), route!("/v2/deployments/{id}")),
            _ if let Some(id) = below("/v2/queue").and_then(|rest| rest.strip_suffix("/delay")) => {
                (Self::Delay(id), route!("/v2/queue/{id}/delay"))
            }
            _ if let Some(id) = below("/v2/groups") => (Self::Group(id), route!("/v2/groups/{id}")),
            _ if let Some(id) = below("/v2/apps") => (Self::App(id), route!("/v2/apps/{id}")),
            _ => return None,
        })
    }

    /// The methods that it knows.
    fn allow(self) -> &'static str {
        match self {
            Self::KillTasks => "POST",
            Self::Leader | Self::App(_) => "GET, HEAD, DELETE",
            Self::Deployment(_) | Self::Delay(_) => "DELETE",
            _ => "GET, HEAD",
        }
    }

    /// Whether it has something to tell before the store was read: probes live on that, and who looks for the reason.
    fn needs_no_store(self) -> bool {
        use Target::{Info, Livez, Metrics, OpenApi, Ping, PrometheusMetrics, Readyz};
        matches!(self, Ping | Livez | Readyz | Metrics | PrometheusMetrics | OpenApi | Info)
    }

    fn read(self, api: &Api, head: &Head) -> Result<Answer, Problem> {
        match self {
            Self::Ping => ping(head),
            Self::Livez => Ok(with_type(StatusCode::OK, "ok\n".into(), TEXT)),
            Self::Readyz => readyz(api, head),
            Self::Metrics => metrics(api, head),
            Self::PrometheusMetrics => prometheus_metrics(api, head),
            Self::OpenApi => Ok(json_bytes(StatusCode::OK, openapi::document())),
            Self::Info => info(api, head),
            Self::Leader => leader::get(api),
            Self::Deployments => deployments::list(api, head),
            Self::Queue => queue::list(api, head),
            Self::Events => api.events.open(head),
            Self::Group(id) => groups::get(api, id, head),
            Self::Apps => Ok(without_apps::apps()),
            Self::App(id) => without_apps::app(id),
            Self::Tasks => Ok(without_apps::tasks(head)),
            Self::Plugins => Ok(without_apps::plugins()),
            Self::KillTasks | Self::Deployment(_) | Self::Delay(_) => Err(Problem::method(self.allow())),
        }
    }
}

/// Answers one request; names the route for the metrics.
pub async fn handle(api: &Api, path: &str, head: &Head, body: Body) -> (&'static str, Result<Answer, Problem>) {
    match Target::of(path) {
        Some((target, route)) => (
            route,
            match openapi::judge(route, head) {
                Ok(()) => answer(api, target, head, body).await,
                Err(problem) => Err(problem),
            },
        ),
        None => ("unknown", Err(Problem::no_route())),
    }
}

async fn answer(api: &Api, target: Target<'_>, head: &Head, body: Body) -> Result<Answer, Problem> {
    if matches!(head.method, Method::GET | Method::HEAD) {
        let revision = head.min_revision()?;
        if revision > 0 || !target.needs_no_store() {
            api.caught_up(revision).await?;
        }
        return target.read(api, head);
    }
    match (target, &head.method) {
        (Target::Leader, &Method::DELETE) => leader::abdicate(api, head).await,
        (Target::Deployment(id), &Method::DELETE) => deployments::cancel(api, id, head).await,
        (Target::Delay(id), &Method::DELETE) => queue::reset_delay(api, id, head).await,
        (Target::KillTasks, &Method::POST) => without_apps::kill_tasks(head, body).await,
        (Target::App(_), &Method::DELETE) => target.read(api, head),
        (Target::Apps | Target::App(_), _) => Err(without_apps::no_apps(target.allow())),
        _ => Err(Problem::method(target.allow())),
    }
}

/// Marathon answers in the kind that the client asked for, JSON first.
fn ping(head: &Head) -> Result<Answer, Problem> {
    Ok(if head.accepts("application", "json") {
        json_value(StatusCode::OK, &"pong")
    } else if head.accepts("text", "plain") || head.accepts("text", "html") {
        with_type(StatusCode::OK, "pong".into(), TEXT)
    } else {
        empty(StatusCode::NO_CONTENT)
    })
}

/// Unknown tasks that are told one by one.
const MOST_TASKS: usize = 100;

/// Ready: the store has been read, and answers. What is wrong between the gateway and Mesos takes no replica out of service, since
/// the API is where people look for the reason. Every replica tells of a quarantine and of unknown tasks of pods; what
/// ails the subscription itself, only the one that owns the gateway.
/// Details are for who may see everything, since anyone may ask.
fn readyz(api: &Api, head: &Head) -> Result<Answer, Problem> {
    match api.index.position().revision {
        _ if let Some(silence) = api.pulse.silence() => {
            let since = silence.lasts.as_secs();
            let mut message = format!("the store has not answered for {since} s: writes are refused, and what is read may be old");
            if head.caller.may_read_all() {
                message.push_str(&format!(" ({})", silence.reason));
            }
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        0 => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the store has not been read yet: is it reachable?")),
        _ => {
            let known = api.index.read(unknown::Readiness::of);
            let refusal = api.store.refusal();
            let mut text = readiness(&api.gateway.borrow(), refusal, known);
            if !head.caller.may_read_all() {
                text.truncate(text.find('\n').map_or(text.len(), |end| end + 1));
            }
            Ok(with_type(StatusCode::OK, text.into(), TEXT))
        }
    }
}

/// `ok`, or `degraded` and a line for each reason.
fn readiness(gateway: &GatewayState, refusal: Option<String>, known: unknown::Readiness) -> String {
    let mut reasons: Vec<String> = Vec::new();
    reasons.extend(refusal.map(|reason| format!("the store refused the last write: {reason}")));
    let silent = (gateway.leads && !gateway.subscribed).then(|| "no master has answered yet".to_owned());
    reasons.extend(gateway.trouble.clone().or(silent).map(|trouble| format!("Mesos: {trouble}")));
    reasons.extend(gateway.unchecked.as_ref().map(|reason| format!("nothing is killed until Mesos tells which tasks run: {reason}")));
    reasons.extend(known.quarantine);
    reasons.extend(known.unreadable);
    let foreign = gateway.foreign.iter().map(|task| {
        let agent = task.agent_id.as_deref().unwrap_or("an unknown agent");
        format!("unknown task: {} on {agent} ({}); the store has no record of it, it is left alone", task.task_id, task.state)
    });
    let more = (known.tasks.len() + known.more + foreign.len()).saturating_sub(MOST_TASKS);
    reasons.extend(known.tasks.into_iter().chain(foreign).take(MOST_TASKS));
    reasons.extend((more > 0).then(|| format!("unknown task: {more} more")));
    if reasons.is_empty() { "ok\n".to_owned() } else { format!("degraded\n{}\n", reasons.join("\n")) }
}

fn metrics(api: &Api, head: &Head) -> Result<Answer, Problem> {
    if !head.accepts("text", "plain") && head.accepts("application", "json") {
        return Ok(json_value(StatusCode::OK, &api.metrics.json().map_err(no_metrics)?));
    }
    prometheus_metrics(api, head)
}

fn prometheus_metrics(api: &Api, head: &Head) -> Result<Answer, Problem> {
    let text = api.metrics.text().map_err(no_metrics)?;
    let open = head.header(http::header::ACCEPT).is_some_and(|accept| accept.contains("application/openmetrics-text"));
    Ok(with_type(StatusCode::OK, text.into(), if open { OPEN_METRICS } else { PROMETHEUS }))
}

fn no_metrics(_: std::fmt::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
}

/// Where things are is for who may see everything; the rest is what definitions depend on.
fn info(api: &Api, head: &Head) -> Result<Answer, Problem> {
    let leader = leader::leading(api);
    let (framework, revision) = api.index.read(|state| (state.framework().map(|held| held.value.framework_id.clone()), state.revision()));
    let mut body = json!({
        "name": "podium",
        "version": env!("CARGO_PKG_VERSION"),
        "buildref": null,
        "elected": leader.as_deref().is_some_and(|leader| leader == api.info.identity),
        "leader": leader.as_deref().map(leader::address),
        "frameworkId": framework,
        "marathon_config": marathon_config(api),
        "zookeeper_config": of_nothing(&ZOOKEEPER),
        "http_config": {
            "http_port": (!api.encrypted).then_some(api.port),
            "https_port": api.encrypted.then_some(api.port),
        },
    });
    if !head.caller.may_read_all() {
        for place in ["/leader", "/frameworkId", "/marathon_config/hostname", "/marathon_config/master", "/http_config"] {
            if let Some(value) = body.pointer_mut(place) {
                *value = serde_json::Value::Null;
            }
        }
    }
    let mut answer = json_value(StatusCode::OK, &body);
    header(&mut answer, crate::answer::REVISION, revision);
    Ok(answer)
}

/// Marathon's settings by Marathon's names: those that mean something here, the others as unset.
fn marathon_config(api: &Api) -> Value {
    let mut config = of_nothing(&SETTINGS);
    for (name, value) in [
        ("checkpoint", json!(true)),
        ("default_network_name", json!(api.settings.default_network_name)),
        ("failover_timeout", json!(api.info.failover_timeout)),
        ("features", json!(["secrets", "task_killing", "gpu_resources"])),
        ("framework_name", json!(api.info.framework_name)),
        ("ha", json!(true)),
        ("hostname", json!(leader::host(&api.info.identity))),
        ("maintenance_mode", json!(true)),
        ("master", json!(api.info.mesos)),
        ("mesos_role", json!(api.settings.default_role)),
        ("new_group_enforce_role", json!("off")),
    ] {
        config.insert(name.to_owned(), value);
    }
    Value::Object(config)
}

fn of_nothing(names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect()
}

/// Marathon's names of settings that are told (reference section 2.5).
const SETTINGS: [&str; 41] = [
    "access_control_allow_origin",
    "checkpoint",
    "decline_offer_duration",
    "default_network_name",
    "env_vars_prefix",
    "executor",
    "failover_timeout",
    "features",
    "framework_name",
    "ha",
    "hostname",
    "launch_token",
    "launch_token_refresh_interval",
    "leader_proxy_connection_timeout_ms",
    "leader_proxy_read_timeout_ms",
    "local_port_max",
    "local_port_min",
    "maintenance_mode",
    "master",
    "max_instances_per_offer",
    "mesos_bridge_name",
    "mesos_heartbeat_failure_threshold",
    "mesos_heartbeat_interval",
    "mesos_leader_ui_url",
    "mesos_role",
    "mesos_user",
    "min_revive_offers_interval",
    "new_group_enforce_role",
    "offer_matching_timeout",
    "on_elected_prepare_timeout",
    "reconciliation_initial_delay",
    "reconciliation_interval",
    "scale_apps_initial_delay",
    "scale_apps_interval",
    "store_cache",
    "task_launch_confirm_timeout",
    "task_launch_timeout",
    "task_lost_expunge_initial_delay",
    "task_lost_expunge_interval",
    "task_reservation_timeout",
    "webui_url",
];

/// Marathon's names of its store's settings; the store is etcd here, and none of them is set.
const ZOOKEEPER: [&str; 8] = [
    "zk",
    "zk_compression",
    "zk_compression_threshold",
    "zk_connection_timeout",
    "zk_max_node_size",
    "zk_max_versions",
    "zk_session_timeout",
    "zk_timeout",
];

#[cfg(test)]
mod tests {
    use podium_controllers::gateway::UnknownTask;

    use super::*;

    #[test]
    fn readiness_names_quarantine_trouble_and_every_unknown_task_up_to_a_bound() {
        let fine = GatewayState { leads: true, subscribed: true, ..GatewayState::default() };
        assert_eq!(readiness(&fine, None, unknown::Readiness::default()), "ok\n");
        let silent = GatewayState { leads: true, ..GatewayState::default() };
        let told = "degraded\nMesos: no master has answered yet\n";
        assert_eq!(readiness(&silent, None, unknown::Readiness::default()), told);
        let full = readiness(&fine, Some("mvcc: database space exceeded".to_owned()), unknown::Readiness::default());
        assert_eq!(full, "degraded\nthe store refused the last write: mvcc: database space exceeded\n");
        let task = |n| UnknownTask { task_id: format!("t{n}"), agent_id: None, state: "TASK_RUNNING".to_owned() };
        let gateway = GatewayState {
            trouble: Some("no master answers".to_owned()),
            foreign: (0..100).map(task).collect(),
            ..GatewayState::default()
        };
        let known = unknown::Readiness {
            quarantine: Some("quarantine since then".to_owned()),
            tasks: vec!["unknown task: of a pod".to_owned()],
            more: 49,
            ..unknown::Readiness::default()
        };
        let text = readiness(&gateway, None, known);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["degraded", "Mesos: no master answers", "quarantine since then", "unknown task: of a pod"]);
        assert!(lines[4].starts_with("unknown task: t0 on an unknown agent (TASK_RUNNING)"), "{}", lines[4]);
        assert_eq!((lines.len(), lines[103]), (104, "unknown task: 50 more"));
    }
}
