//! Answers as text for people: plain columns, colours only where they carry meaning. Pure.

use serde_json::Value;

use super::status::{Deployment, InstanceStatus, PodStatus, Refused, tone};
use super::terminal::{Paint, Tone, printable};

/// One cell: its text, and what the text means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: printable(text.as_ref()), tone: None }
    }
}

fn state(word: &str) -> Cell {
    Cell { text: printable(word), tone: tone(word) }
}

/// Columns under a head, two spaces apart, without trailing blanks.
pub fn table(head: &[&str], rows: &[Vec<Cell>], paint: Paint) -> String {
    let head: Vec<Cell> = head.iter().map(|text| Cell { text: (*text).to_owned(), tone: Some(Tone::Faint) }).collect();
    let lines = || std::iter::once(&head).chain(rows);
    let width = |column: usize| lines().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in lines() {
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate().take(last + 1) {
            out.push_str(&paint.tone(&cell.text, cell.tone));
            if at < last {
                // Padding stands outside of the colour, whose bytes have no width.
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.text.chars().count()) + 2));
            }
        }
        out.push('\n');
    }
    out
}

/// `podium get pods` and `podium status`; last what was pushed and refused, and so is no pod.
pub fn pods(pods: &[PodStatus], refused: &[Refused], paint: Paint) -> String {
    let mut rows: Vec<Vec<Cell>> = pods
        .iter()
        .map(|pod| {
            vec![
                Cell::from(&pod.id),
                state(&pod.status),
                Cell::from(format!("{}/{}", pod.stable(), pod.spec.scaling.instances)),
                Cell::from(pod.spec.version.as_deref().unwrap_or("-")),
                Cell::from(pod.reason().unwrap_or_default()),
            ]
        })
        .collect();
    rows.extend(
        refused.iter().map(|one| vec![Cell::from(&one.id), state("REFUSED"), Cell::from("-"), Cell::from("-"), Cell::from(one.reason())]),
    );
    table(&["POD", "STATUS", "STABLE", "VERSION", "REASON"], &rows, paint)
}

/// `podium status ID`.
pub fn pod(pod: &PodStatus, paint: Paint) -> String {
    let since = pod.status_since.as_deref().map(|since| format!(" since {}", printable(since))).unwrap_or_default();
    let mut out = format!(
        "{} is {}{since}, {}, version {}\n",
        printable(&pod.id),
        paint.tone(&printable(&pod.status), tone(&pod.status)),
        pod.count(),
        printable(pod.spec.version.as_deref().unwrap_or("-")),
    );
    if let Some(reason) = pod.reason() {
        out.push_str(&format!("reason: {}\n", printable(&reason)));
    }
    if !pod.instances.is_empty() {
        let rows: Vec<Vec<Cell>> = pod.instances.iter().flat_map(instance).collect();
        out.push('\n');
        out.push_str(&table(&["INSTANCE", "STATUS", "AGENT", "CONTAINER", "TASK", "PORTS", "REASON"], &rows, paint));
    }
    if !pod.termination_history.is_empty() {
        let row = |end: &super::status::Termination| {
            vec![Cell::from(end.terminated_at.as_deref().unwrap_or("-")), Cell::from(&end.instance_id), Cell::from(end.reason())]
        };
        let rows: Vec<Vec<Cell>> = pod.termination_history.iter().map(row).collect();
        out.push('\n');
        out.push_str(&table(&["ENDED", "INSTANCE", "REASON"], &rows, paint));
    }
    out
}

/// One line for every container; what is said of the whole instance stands in the first.
fn instance(instance: &InstanceStatus) -> Vec<Vec<Cell>> {
    let whole = || vec![Cell::from(&instance.id), state(&instance.status), Cell::from(instance.agent_hostname.as_deref().unwrap_or("-"))];
    let mut rows: Vec<Vec<Cell>> = instance
        .containers
        .iter()
        .enumerate()
        .map(|(at, container)| {
            let mut row = if at == 0 { whole() } else { vec![Cell::default(); 3] };
            let port = |endpoint: &super::status::EndpointStatus| Some(format!("{}:{}", endpoint.name, endpoint.allocated_host_port?));
            let ports: Vec<String> = container.endpoints.iter().filter_map(port).collect();
            let reason = container.message.as_deref().or(if at == 0 { instance.message.as_deref() } else { None });
            row.extend([
                Cell::from(&container.name),
                state(&container.status),
                Cell::from(ports.join(",")),
                Cell::from(reason.unwrap_or_default()),
            ]);
            row
        })
        .collect();
    if rows.is_empty() {
        let mut row = whole();
        row.extend([Cell::default(), Cell::default(), Cell::default(), Cell::from(instance.message.as_deref().unwrap_or_default())]);
        rows.push(row);
    }
    rows
}

/// `podium get versions`.
pub fn versions(versions: &[String], paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = versions.iter().map(|version| vec![Cell::from(version)]).collect();
    table(&["VERSION"], &rows, paint)
}

/// `podium apply --dry-run`: what a change would do, by the server's word.
pub fn trial(id: &str, trial: &Value) -> String {
    let count = |name: &str| trial.get("instances").and_then(|instances| instances.get(name)).and_then(Value::as_u64).unwrap_or(0);
    let counts = format!("{} instances start, {} stop, {} stay", count("start"), count("stop"), count("stay"));
    let change = trial.get("change").and_then(Value::as_str).unwrap_or_default();
    let would = match change {
        "created" => "would be created",
        "nothing" => "would stay as it is",
        _ => "would be changed",
    };
    let mut out = format!("{id} {would}: {counts}\n");
    let differences = trial.get("difference").and_then(Value::as_array).filter(|_| change != "created");
    for one in differences.into_iter().flatten() {
        let part = |name: &str| one.get(name).map(ToString::to_string).unwrap_or_default();
        let path = one.get("path").and_then(Value::as_str).unwrap_or_default();
        out.push_str(&printable(&format!("  {path}: {} -> {}", part("before"), part("after"))));
        out.push('\n');
    }
    out
}

/// `podium get deployments`.
pub fn deployments(deployments: &[Deployment], paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = deployments
        .iter()
        .map(|deployment| {
            let actions = deployment.current_actions.iter().filter_map(|action| action.get("action")?.as_str()).collect::<Vec<_>>();
            vec![
                Cell::from(&deployment.id),
                Cell::from(deployment.affected_pods.join(",")),
                Cell::from(&deployment.version),
                Cell::from(format!("{}/{}", deployment.current_step, deployment.total_steps)),
                Cell::from(actions.join(",")),
            ]
        })
        .collect();
    table(&["DEPLOYMENT", "POD", "VERSION", "STEP", "ACTION"], &rows, paint)
}

/// What changes from one text to another, line by line; empty when nothing does.
pub fn difference(old: &str, new: &str, id: &str, paint: Paint) -> String {
    let diff = similar::TextDiff::from_lines(old, new);
    let mut out = String::new();
    for line in diff.unified_diff().context_radius(3).header(&format!("{id} (server)"), &format!("{id} (file)")).to_string().lines() {
        let tone = match line.as_bytes().first() {
            Some(b'+') => Some(Tone::Good),
            Some(b'-') => Some(Tone::Bad),
            Some(b'@') => Some(Tone::Faint),
            _ => None,
        };
        out.push_str(&paint.tone(line, tone));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn web() -> PodStatus {
        serde_json::from_value(json!({
            "id": "/web", "status": "DEGRADED", "statusSince": "2026-01-01T00:00:00.000Z",
            "spec": {"version": "2026-01-01T00:00:00.000Z", "scaling": {"instances": 2}},
            "instances": [
                {"id": "web.instance-1", "status": "STABLE", "agentHostname": "h", "containers": [
                    {"name": "c1", "status": "TASK_RUNNING", "endpoints": [{"name": "http", "allocatedHostPort": 31000}, {"name": "x"}]},
                    {"name": "c2", "status": "TASK_RUNNING"}]},
                {"id": "web.instance-2", "status": "PENDING", "message": "waits 2 s"}],
            "terminationHistory": [{"instanceID": "web.instance-2", "terminatedAt": "T", "message": "m"}],
        }))
        .unwrap()
    }

    #[test]
    fn pods_are_listed_with_their_reason() {
        let error = json!({"path": "/containers(0)/name", "message": "error.pattern"});
        let refused: Refused = serde_json::from_value(json!({"id": "/new", "version": null, "errors": [error, error]})).unwrap();
        let text = pods(&[web()], &[refused], Paint::PLAIN);
        assert_eq!(
            text,
            "POD   STATUS    STABLE  VERSION                   REASON\n\
             /web  DEGRADED  1/2     2026-01-01T00:00:00.000Z  waits 2 s\n\
             /new  REFUSED   -       -                         /containers(0)/name: error.pattern (and 1 more)\n"
        );
        assert_eq!(pods(&[], &[], Paint::PLAIN), "POD  STATUS  STABLE  VERSION  REASON\n");
    }

    #[test]
    fn a_pod_is_shown_with_instances_containers_and_ends() {
        let text = pod(&web(), Paint::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "/web is DEGRADED since 2026-01-01T00:00:00.000Z, 1 of 2 instances stable, version 2026-01-01T00:00:00.000Z");
        assert_eq!(lines[1], "reason: waits 2 s");
        assert_eq!(lines[4].split_whitespace().collect::<Vec<_>>(), ["web.instance-1", "STABLE", "h", "c1", "TASK_RUNNING", "http:31000"]);
        assert_eq!(lines[5].split_whitespace().collect::<Vec<_>>(), ["c2", "TASK_RUNNING"]);
        assert_eq!(lines[6].split_whitespace().collect::<Vec<_>>(), ["web.instance-2", "PENDING", "-", "waits", "2", "s"]);
        assert_eq!(lines[9], "T      web.instance-2  m");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        let mut evil = web();
        evil.message = Some("\x1b]0;owned\x07".to_owned());
        assert!(!pods(&[evil], &[], Paint::PLAIN).contains('\x1b'));
    }

    #[test]
    fn a_trial_tells_counts_and_what_differs() {
        let trial_of = |change: &str| {
            let difference = json!([{"path": "/containers(0)/resources/mem", "before": 32, "after": null}]);
            trial("/web", &json!({"change": change, "difference": difference, "instances": {"start": 3, "stop": 2, "stay": 0}}))
        };
        assert_eq!(
            trial_of("config"),
            "/web would be changed: 3 instances start, 2 stop, 0 stay\n  /containers(0)/resources/mem: 32 -> null\n"
        );
        assert_eq!(trial_of("created"), "/web would be created: 3 instances start, 2 stop, 0 stay\n");
    }

    #[test]
    fn a_difference_shows_only_what_changes() {
        assert_eq!(difference("a\nb\n", "a\nb\n", "/x", Paint::PLAIN), "");
        assert_eq!(difference("a\nb\n", "a\nc\n", "/x", Paint::PLAIN), "--- /x (server)\n+++ /x (file)\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
    }
}
