//! Containers and Podium itself, killed with -9.

use std::collections::BTreeSet;
use std::time::Duration;

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::{marked, marked_running, signal_process};
use podium_e2e::wait::eventually;
use rustix::process::Signal;
use serde_json::Value;

use crate::{in_both_forms, marker, pod, start};

in_both_forms!(a_killed_container_takes_its_siblings_with_it_and_is_launched_again, a_killed_podium_finds_its_instances_untouched);

fn only(marker: &str, command: &str) -> u32 {
    eventually(&format!("one process {command}"), || match marked_running(marker, command)[..] {
        [pid] => Ok(pid),
        ref other => Err(format!("{other:?}")),
    })
}

fn a_killed_container_takes_its_siblings_with_it_and_is_launched_again(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let marker = marker();
    api.create(&pod("/pair", 1, &marker, &["exec sleep 2001", "exec sleep 2002"]));
    let before = api.stable("/pair", 1);
    let (first, second) = (only(&marker, "sleep 2001"), only(&marker, "sleep 2002"));

    signal_process(first, Signal::KILL);
    eventually("both containers run again as new processes", || {
        let now = (marked_running(&marker, "sleep 2001"), marked_running(&marker, "sleep 2002"));
        match (&now.0[..], &now.1[..]) {
            ([a], [b]) if *a != first && *b != second => Ok(()),
            _ => Err(format!("{now:?}, before {first} and {second}")),
        }
    });
    let after = api.stable("/pair", 1);
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"], "the same instance id");
    let incarnation = |status: &Value| -> u32 {
        let task = status["instances"][0]["containers"][0]["containerId"].as_str().unwrap().to_owned();
        task.rsplit('.').next().unwrap().parse().unwrap()
    };
    assert_eq!(incarnation(&after), incarnation(&before) + 1, "the next incarnation");
}

/// Waits until the pod's status tells of an exit in these words.
fn reported(cluster: &Cluster, id: &str, words: &str) {
    eventually(&format!("{id} reports {words}"), || {
        let status = cluster.api().status(id)?;
        if status.to_string().contains(words) { Ok(()) } else { Err(status.to_string()) }
    });
}

fn a_killed_podium_finds_its_instances_untouched(form: Form) {
    let mut cluster = start(form);
    let marker = marker();
    cluster.api().create(&pod("/stays", 2, &marker, &["exec sleep 3001"]));
    // The shell waits for a process of its own: killing that makes the container end with a code of its choice.
    cluster.api().create(&pod("/dies-meanwhile", 1, &marker, &["sleep 3002; exit 42"]));
    cluster.api().create(&pod("/dies-later", 1, &marker, &["sleep 3003; exit 43"]));
    let before = cluster.api().stable("/stays", 2);
    cluster.api().stable("/dies-meanwhile", 1);
    cluster.api().stable("/dies-later", 1);
    let untouched = marked_running(&marker, "sleep 3001");
    let (meanwhile, later) = (only(&marker, "sleep 3002"), only(&marker, "sleep 3003"));

    cluster.kill();
    signal_process(meanwhile, Signal::KILL);
    cluster.restart_and_kill_during_recovery(Duration::from_millis(60));
    cluster.restart();

    reported(&cluster, "/dies-meanwhile", "status 42");
    signal_process(later, Signal::KILL);
    reported(&cluster, "/dies-later", "status 43");
    let after = cluster.api().stable("/stays", 2);
    let ids = |status: &Value| -> BTreeSet<String> {
        let instances = status["instances"].as_array().unwrap();
        instances.iter().map(|instance| instance["containers"][0]["containerId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&after), ids(&before), "known again with their ids");
    assert_eq!(marked_running(&marker, "sleep 3001"), untouched, "the same processes");
    // Launched again, each once.
    cluster.api().stable("/dies-meanwhile", 1);
    cluster.api().stable("/dies-later", 1);
    assert_eq!(marked_running(&marker, "sleep 3002").len(), 1, "{:?}", marked(&marker));
    assert_eq!(marked_running(&marker, "sleep 3003").len(), 1, "{:?}", marked(&marker));
}
