//! Clients of Marathon that others wrote, as they are on PyPI, against `podium dev`: marathon-python, and the DC/OS command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::wait::eventually;
use serde_json::json;

use super::{marker, pod, start, text};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("marathon")
}

/// `python3` with the clients installed; what it writes for itself goes into the cluster's folder.
fn python(cluster: &Cluster) -> Command {
    let library = podium_e2e::binary::podium(false).ancestors().nth(2).unwrap().join("marathon-clients");
    let installed = Command::new(sources().join("install")).arg(&library).output().unwrap();
    assert!(installed.status.success(), "the clients can't be installed: {}{}", text(&installed.stdout), text(&installed.stderr));
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", &library).env("HOME", cluster.folder()).current_dir(cluster.folder());
    python
}

#[test]
fn marathon_python_reads_everything_that_it_knows_and_every_event() {
    let cluster = start(Form::Dev);
    eventually("the gateway leads", || match cluster.api().get("/v2/leader") {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.body),
    });
    let output = python(&cluster).arg(sources().join("client.py")).arg(&cluster.endpoints.api).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let expected = r#"ping "pong"
info podium True * True
metrics ['counters', 'gauges', 'histograms']
apps and tasks [] [] []
groups ['/g'] /g
queue [] []
deployment ['/g/web'] RestartPod /g/web 1
groups []
refused MarathonHttpError: HTTP 404 returned with message, "App '/nothing' does not exist"
refused MarathonHttpError: HTTP 404 returned with message, "Group '/nothing' does not exist"
refused MarathonHttpError: HTTP 404 returned with message, "Application /nothing not found in tasks queue."
refused MarathonHttpError: HTTP 404 returned with message, "DeploymentPlan nothing does not exist"
leader Leadership abdicated
saw MarathonAppTerminatedEvent
saw MarathonDeploymentFailed
saw MarathonDeploymentInfo
saw MarathonDeploymentStepFailure
saw MarathonDeploymentStepSuccess
saw MarathonDeploymentSuccess
saw MarathonEventStreamAttached
saw MarathonGroupChangeSuccess
saw MarathonInstanceChangedEvent
saw MarathonPodCreatedEvent
saw MarathonPodDeletedEvent
saw MarathonPodUpdatedEvent
saw MarathonStatusUpdateEvent
"#;
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

/// `dcos marathon …`, which finds us behind the proxy's path, `/service/marathon`.
fn dcos(cluster: &Cluster, arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = python(cluster);
    command.args(["-W", "ignore", "-m", "dcoscli.main", "marathon"]).args(arguments).env("DCOS_URL", &cluster.endpoints.api);
    let input = input.map(|text| {
        let path = cluster.folder().join("input.json");
        std::fs::write(&path, text).unwrap();
        std::fs::File::open(path).unwrap()
    });
    command.stdin(input.map_or(Stdio::null(), Stdio::from)).output().unwrap()
}

fn done(cluster: &Cluster, arguments: &[&str], input: Option<&str>) -> String {
    let output = dcos(cluster, arguments, input);
    assert!(output.status.success(), "dcos marathon {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn refused(cluster: &Cluster, arguments: &[&str], input: Option<&str>) -> String {
    let output = dcos(cluster, arguments, input);
    assert_eq!(output.status.code(), Some(1), "dcos marathon {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn the_dcos_command_line_adds_lists_shows_updates_kills_and_removes_pods() {
    let cluster = start(Form::Dev);
    let marker = marker();
    let web = |instances| pod("/g/web", instances, &marker, &["exec sleep 1000"]);
    assert!(done(&cluster, &["pod", "add"], Some(&web(1).to_string())).starts_with("Created deployment "));
    cluster.api().stable("/g/web", 1);
    let listed = done(&cluster, &["pod", "list"], None);
    assert!(
        listed.starts_with("ID+TASKS") && listed.contains("/g/web") && listed.contains("STABLE") && listed.contains(" |-c1"),
        "{listed}"
    );
    assert_eq!(done(&cluster, &["pod", "list", "--quiet"], None), "/g/web\n");

    assert!(done(&cluster, &["pod", "update", "/g/web"], Some(&web(2).to_string())).starts_with("Created deployment "));
    cluster.api().stable("/g/web", 2);
    let shown: serde_json::Value = serde_json::from_str(&done(&cluster, &["pod", "show", "g/web"], None)).unwrap();
    assert_eq!((&shown["spec"]["scaling"]["instances"], shown["instances"].as_array().map(Vec::len)), (&json!(2), Some(2)));
    let ids: Vec<&str> = shown["instances"].as_array().unwrap().iter().filter_map(|instance| instance["id"].as_str()).collect();
    done(&cluster, &["pod", "kill", "/g/web", ids[0], ids[1]], None);
    eventually("both were launched again", || {
        let status = cluster.api().status("/g/web")?;
        let containers: Vec<String> =
            status["instances"].as_array().into_iter().flatten().map(|one| one["containers"][0]["containerId"].to_string()).collect();
        let again = containers.len() == 2 && containers.iter().all(|id| id.ends_with(".2\""));
        if again && status["status"] == "STABLE" { Ok(()) } else { Err(status.to_string()) }
    });

    // More than there is: it waits, which is told as that of an app is, and can be taken back.
    let mut large = web(2);
    large["containers"][0]["resources"]["mem"] = json!(99_000_000);
    assert!(refused(&cluster, &["pod", "add"], Some(&large.to_string())).contains("Changes blocked"));
    done(&cluster, &["pod", "update", "/g/web", "--force"], Some(&large.to_string()));
    eventually("it is seen to wait", || match done(&cluster, &["debug", "summary", "/g/web"], None) {
        summary if summary.contains("MEM") && summary.contains("0.00%") => Ok(()),
        summary => Err(summary),
    });
    assert!(refused(&cluster, &["pod", "remove", "/g/web"], None).contains("deployment already in progress"));
    let deployments = done(&cluster, &["deployment", "list"], None);
    assert!(deployments.contains("/g/web") && deployments.contains("restart"), "{deployments}");
    let id = deployments.split_whitespace().last().unwrap().to_owned();
    assert!(done(&cluster, &["deployment", "rollback", &id], None).contains("deploymentId"));
    cluster.api().stable("/g/web", 2);

    assert!(done(&cluster, &["group", "list"], None).contains("/g"));
    done(&cluster, &["pod", "remove", "/g/web", "--force"], None);
    assert!(refused(&cluster, &["pod", "show", "/g/web"], None).contains("does not exist"));
    assert_eq!(done(&cluster, &["pod", "list", "--quiet"], None), "");
    let bad = r#"{"id": "/g/bad", "containers": [{"name": "c", "resources": {"cpus": 0, "mem": 32}}]}"#;
    assert!(refused(&cluster, &["pod", "add"], Some(bad)).contains("/containers(0)/resources/cpus"));
}
