//! The same with the command line.

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::etcd;
use podium_e2e::process::{marked, marked_running};
use podium_e2e::wait::eventually;
use serde_json::Value;

use crate::{in_both_forms, marker, pod, start, text};

in_both_forms!(the_commands_apply_get_status_scale_and_delete, wait_ends_with_the_reason_when_a_pod_cannot_start);

fn run(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.podium(arguments);
    assert!(output.status.success(), "podium {arguments:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn the_commands_apply_get_status_scale_and_delete(form: Form) {
    let cluster = start(form);
    let marker = marker();
    let file = cluster.folder().join("pod.json");
    std::fs::write(&file, pod("/simplepod", 1, &marker, &["exec sleep 1000"]).to_string()).unwrap();
    let file = file.to_str().unwrap();

    run(&cluster, &["apply", "-f", file, "--wait"]);
    assert_eq!(marked_running(&marker, "sleep 1000").len(), 1, "{:?}", marked(&marker));
    let table = run(&cluster, &["get", "pods"]);
    assert!(table.contains("/simplepod"), "{table}");
    let status = run(&cluster, &["status", "/simplepod"]);
    assert!(status.contains("STABLE"), "{status}");
    assert!(!status.contains('\u{1b}'), "no colours when piped: {status:?}");
    let json: Value = serde_json::from_str(&run(&cluster, &["status", "/simplepod", "-o", "json"])).unwrap();
    assert_eq!(json["status"], "STABLE");

    run(&cluster, &["scale", "/simplepod", "3", "--wait"]);
    let pods: Value = serde_json::from_str(&run(&cluster, &["get", "pods", "-o", "json"])).unwrap();
    assert_eq!(pods[0]["scaling"]["instances"], 3, "{pods}");
    cluster.api().stable("/simplepod", 3);

    run(&cluster, &["delete", "/simplepod", "--wait"]);
    assert_eq!(etcd::get(&cluster.endpoints.etcd, "/podium/status/simplepod"), None, "the last keys go together");
    eventually("no process is left", || match marked(&marker) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(cluster.podium(&["status", "/simplepod"]).status.code(), Some(3), "not found has an exit code of its own");
}

fn wait_ends_with_the_reason_when_a_pod_cannot_start(form: Form) {
    let cluster = start(form);
    let file = cluster.folder().join("failing.json");
    std::fs::write(&file, pod("/failing", 1, &marker(), &["exit 7"]).to_string()).unwrap();
    let output = cluster.podium(&["apply", "-f", file.to_str().unwrap(), "--wait", "--timeout", "30s"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("status 7") && said.contains("c1"), "which container, and its exit code: {said}");
}

#[test]
fn validate_needs_no_server_and_names_every_error() {
    let binary = podium_e2e::binary::podium(false);
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.json");
    std::fs::write(&good, pod("/good", 1, &marker(), &["true"]).to_string()).unwrap();
    let bad = folder.path().join("bad.json");
    std::fs::write(&bad, r#"{"id":"/bad","containers":[{"name":"A","resources":{"cpus":-1}}],"scalin":{}}"#).unwrap();
    let run = |file: &std::path::Path| {
        let mut command = std::process::Command::new(binary);
        command.args(["validate", "-f"]).arg(file).env("PODIUM_SERVER", "http://127.0.0.1:1").output().unwrap()
    };
    assert!(run(&good).status.success(), "{}", text(&run(&good).stderr));
    let refused = run(&bad);
    let said = text(&refused.stdout) + &text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    for part in ["/containers(0)/name", "/containers(0)/resources/cpus", "scalin", "scaling"] {
        assert!(said.contains(part), "{part} is named: {said}");
    }
}
