//! What the server counts, and what it reads off the index when somebody asks: Prometheus' text, or JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};
use podium_controllers::admission::is_active;
use podium_store::index::Index;
use podium_types::condition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// The counters and what they are registered with.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    index: Index,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

impl Metrics {
    /// Counters at zero, and gauges that read the index.
    pub(crate) fn new(index: Index) -> Self {
        let mut registry = Registry::with_prefix("podium");
        let requests = Family::<RequestLabels, Counter>::default();
        // From 0.5 ms to 8 s.
        let buckets = || Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0005, 4.0, 8));
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(buckets);
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register("http_request_duration_seconds", "Time to the answer's head", durations.clone());
        registry.register_collector(Box::new(Gauges { index: index.clone() }));
        Self { registry, requests, durations, index }
    }

    /// Counts one request. Routes are our own words, so that clients cannot make series.
    pub(crate) fn request(&self, route: &'static str, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        self.requests.get_or_create(&RequestLabels { method, route, status: status.as_u16() }).inc();
        self.durations.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    /// Everything in the text form that Prometheus reads.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Everything as JSON in the form of Marathon's, with those of Marathon's names that mean the same here.
    pub(crate) fn json(&self) -> Result<Value, fmt::Error> {
        let mut json = as_json(&self.text()?);
        let census = census(&self.index);
        let conditions = |names: &[&str]| names.iter().filter_map(|name| census.instances.get(name)).sum::<i64>();
        for (name, value) in [
            ("marathon.deployments.active.gauge", census.deployments),
            ("marathon.instances.running.gauge", conditions(&["Running"])),
            ("marathon.instances.staged.gauge", conditions(&["Staging", "Starting"])),
            ("marathon.pods.active.gauge", census.pods),
        ] {
            json["gauges"][name] = json!({ "value": value });
        }
        Ok(json)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Prometheus' text in the form of Dropwizard's JSON: by kind, then by name with labels. Of a histogram count and sum.
fn as_json(text: &str) -> Value {
    let mut kinds: BTreeMap<&str, BTreeMap<String, serde_json::Map<String, Value>>> =
        ["counters", "gauges", "histograms", "meters", "timers"].map(|kind| (kind, BTreeMap::new())).into();
    let mut kind = "gauges";
    for line in text.lines() {
        if let Some(description) = line.strip_prefix("# TYPE ") {
            kind = match description.rsplit(' ').next() {
                Some("counter") => "counters",
                Some("histogram") => "histograms",
                _ => "gauges",
            };
        } else if let Some((name, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))
            && let Ok(value) = value.parse::<f64>()
            && let Some((name, member)) = member(kind, name)
        {
            kinds.entry(kind).or_default().entry(name).or_default().insert(member.to_owned(), json!(value));
        }
    }
    let mut json = json!(kinds);
    json["version"] = json!("4.0.0");
    json
}

/// What a line of Prometheus' text is called, and what of it the line tells; `None`: a bucket, which has no place there.
fn member(kind: &str, name: &str) -> Option<(String, &'static str)> {
    match kind {
        "counters" => Some((name.to_owned(), "count")),
        "gauges" => Some((name.to_owned(), "value")),
        _ => {
            let (plain, labels) = name.find('{').map_or((name, ""), |at| name.split_at(at));
            let told = [("_count", "count"), ("_sum", "sum")];
            told.into_iter().find_map(|(suffix, member)| Some((format!("{}{labels}", plain.strip_suffix(suffix)?), member)))
        }
    }
}

/// What is counted only when asked for: the index holds it all.
struct Gauges {
    index: Index,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

#[derive(Default)]
struct Census {
    pods: i64,
    deployments: i64,
    instances: BTreeMap<&'static str, i64>,
    /// By controller: 1 where it has a leader.
    leaders: [(&'static str, i64); podium_controllers::NAMES.len()],
    revision: i64,
}

fn census(index: &Index) -> Census {
    index.read(|state| {
        let mut census = Census { revision: state.revision(), ..Census::default() };
        for pod in state.pods() {
            census.pods += i64::from(is_active(pod));
            census.deployments += i64::from(pod.deployment.is_some());
            for (uuid, instance) in &pod.instances {
                let observed = pod.observed.get(uuid).map(|held| &held.value);
                let reach = pod.reach.get(uuid).map(|held| &held.value);
                *census.instances.entry(condition::of_instance(&instance.value, observed, reach).as_str()).or_default() += 1;
            }
        }
        census.leaders = podium_controllers::NAMES.map(|name| (name, i64::from(state.leader(name).is_some())));
        census
    })
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let census = census(&self.index);
        let mut plain = |name: &str, help: &str, value: i64| {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)
        };
        plain("pods", "Pods whose definition is in force", census.pods)?;
        plain("deployments", "Deployments under way", census.deployments)?;
        plain("index_revision", "The store's revision that this process has seen", census.revision)?;
        let labelled = |encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, label: &str, values: &[(&str, i64)]| {
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (value, count) in values {
                ConstGauge::new(*count).encode(metric.encode_family(&[(label, *value)])?)?;
            }
            Ok::<(), fmt::Error>(())
        };
        let instances: Vec<(&str, i64)> = census.instances.into_iter().collect();
        labelled(&mut encoder, "instances", "Instances by condition", "condition", &instances)?;
        labelled(&mut encoder, "leaders", "1 where a controller has a leader, else 0: then it stands still", "election", &census.leaders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_json_by_kind() {
        let text = "# HELP a_b A.\n# TYPE a_b counter\na_b_total{route=\"x y\"} 3\n# TYPE g gauge\ng 1.5\n# TYPE h histogram\n\
                    h_sum{r=\"x\"} 2\nh_count{r=\"x\"} 4\nh_bucket{le=\"1\",r=\"x\"} 4\n# EOF\n";
        let expected = json!({
            "version": "4.0.0",
            "counters": {"a_b_total{route=\"x y\"}": {"count": 3.0}},
            "gauges": {"g": {"value": 1.5}},
            "histograms": {"h{r=\"x\"}": {"count": 4.0, "sum": 2.0}},
            "meters": {},
            "timers": {},
        });
        assert_eq!(as_json(text), expected);
    }
}
