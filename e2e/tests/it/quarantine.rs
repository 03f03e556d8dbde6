//! A store that was restored from a backup kills nothing: it says that it is behind what runs, and waits for a word.

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::marked_running;
use podium_e2e::wait::eventually;
use serde_json::Value;

use crate::{marker, pod, start, text};

/// What `podium get unknown -o json` says.
fn unknown(cluster: &Cluster) -> Value {
    let output = cluster.podium(&["get", "unknown", "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// Waits until every replica's readiness tells of the quarantine.
fn quarantined(cluster: &Cluster) {
    eventually("readyz tells of the quarantine", || {
        let ready = cluster.api().get("/readyz").body;
        if ready.contains("quarantine") { Ok(()) } else { Err(ready) }
    });
}

fn done(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.podium(arguments);
    assert!(output.status.success(), "podium {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_restored_backup_kills_nothing_until_what_runs_is_adopted_or_killed() {
    let mut cluster = start(Form::Server);
    let marker = marker();
    cluster.api().create(&pod("/web", 1, &marker, &["exec sleep 5001"]));
    cluster.api().stable("/web", 1);
    let backup = cluster.back_up();
    done(&cluster, &["scale", "/web", "3", "--wait"]);
    cluster.api().create(&pod("/later", 1, &marker, &["exec sleep 5002"]));
    cluster.api().stable("/later", 1);
    let lost = pod("/lost", 1, &marker, &["exec sleep 5003"]);
    cluster.api().create(&lost);
    cluster.api().stable("/lost", 1);
    let (web, later) = (marked_running(&marker, "sleep 5001"), marked_running(&marker, "sleep 5002"));
    assert_eq!((web.len(), later.len()), (3, 1));

    cluster.kill();
    cluster.restore(&backup);
    cluster.restart();
    quarantined(&cluster);
    let listed = unknown(&cluster);
    assert_eq!(listed["instances"].as_array().map(Vec::len), Some(4), "two of /web, one of /later and one of /lost: {listed}");
    eventually("the status tells of the quarantine", || {
        let status = cluster.api().status("/web")?["message"].as_str().unwrap_or_default().to_owned();
        if status.contains("quarantine") { Ok(()) } else { Err(status) }
    });
    // The store wants one of /web and nothing of /later: another would stop three. What is asked for meanwhile waits as well.
    assert_eq!(cluster.api().call("DELETE", "/v2/pods/web?force=true", None).status, 202);
    eventually("the deletion is known, and held back", || {
        let status = podium_e2e::etcd::get(&cluster.endpoints.etcd, "/podium/status/web").unwrap_or_default();
        if status.contains("Deleting") && status.contains("quarantine") { Ok(()) } else { Err(status) }
    });
    assert_eq!((marked_running(&marker, "sleep 5001"), marked_running(&marker, "sleep 5002")), (web.clone(), later.clone()));

    // A pod that the store does not have can't be adopted before it is pushed.
    let refused = cluster.podium(&["adopt", "/later"]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("/later"), "{}", text(&refused.stderr));
    let still_there = marked_running(&marker, "sleep 5003");
    let file = cluster.folder().join("lost.json");
    std::fs::write(&file, lost.to_string()).unwrap();
    done(&cluster, &["apply", "-f", "lost.json"]);
    done(&cluster, &["adopt", "/lost"]);
    assert!(!unknown(&cluster).to_string().contains("lost"), "{}", unknown(&cluster));
    let [lost_process] = still_there[..] else { panic!("{still_there:?}") };
    assert!(marked_running(&marker, "sleep 5003").contains(&lost_process), "taken on as it is");
    done(&cluster, &["kill", "/later"]);
    eventually("it is killed", || match &marked_running(&marker, "sleep 5002")[..] {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(marked_running(&marker, "sleep 5001"), web, "and nothing else");

    done(&cluster, &["adopt", "/web"]);
    // With the last of them the quarantine is over, and the deletion goes on.
    eventually("the deletion is carried out", || match &marked_running(&marker, "sleep 5001")[..] {
        [] => Ok(()),
        left => Err(format!("{left:?}; {}", cluster.api().get("/readyz").body)),
    });
    eventually("all is well again", || match cluster.api().get("/readyz").body.as_str() {
        "ok\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(unknown(&cluster)["instances"], Value::Array(Vec::new()));
    // What was pushed again is a new version: now that something may be stopped, it takes the place of the old one.
    cluster.api().stable("/lost", 1);
    assert!(!marked_running(&marker, "sleep 5003").contains(&lost_process));
}
