//! Masters that change, and a framework that its master has removed.

use std::collections::BTreeSet;

use podium_e2e::api::Api;
use podium_e2e::binary;
use podium_e2e::mesos::{Agent, Helpers, RealMesos};
use podium_e2e::mesos_server::{MesosServer, own_folder};
use podium_e2e::process::{marked, marked_running};
use podium_e2e::wait::{PATIENCE, eventually};
use podium_e2e::zookeeper::ZooKeeper;
use rustix::process::Signal;
use serde_json::Value;

use super::ground::QUICK;
use crate::{marker, pod};

/// Our framework as this master shows it, once it is subscribed there.
fn subscribed_at(master: &Api) -> String {
    eventually("Podium is subscribed at this master", || {
        let frameworks = master.get("/frameworks").json();
        let ours = |one: &&Value| one["name"] == "podium" && one["connected"] == true;
        let ours = frameworks["frameworks"].as_array().and_then(|all| all.iter().find(ours)).and_then(|one| one["id"].as_str());
        ours.map(str::to_owned).ok_or_else(|| frameworks.to_string())
    })
}

fn tasks(status: &Value) -> BTreeSet<String> {
    let containers =
        status["instances"].as_array().into_iter().flatten().flat_map(|one| one["containers"].as_array().into_iter().flatten());
    containers.filter_map(|container| Some(container["containerId"].as_str()?.to_owned())).collect()
}

#[test]
fn the_leader_in_zookeeper_is_followed_to_another_master_and_back() {
    let (folder, podium) = (own_folder(), binary::podium(false));
    let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
    for folder in [&here, &there] {
        std::fs::create_dir(folder).unwrap();
    }
    let (zookeeper, mesos, other) = std::thread::scope(|scope| {
        let zookeeper = scope.spawn(|| ZooKeeper::start(folder.path()));
        let other = scope.spawn(|| RealMesos::start(&there, &[Agent::new(2)], Helpers::Podium(podium), QUICK));
        let mesos = RealMesos::start(&here, &[Agent::new(1)], Helpers::Podium(podium), QUICK);
        (zookeeper.join().unwrap(), mesos, other.join().unwrap())
    });
    let leads = zookeeper.register(&mesos.address);
    let cluster = MesosServer::start_at(podium, folder, mesos, &zookeeper.url, &[]);
    let (api, marker) = (cluster.api(), marker());
    api.create(&pod("/first", 1, &marker, &["exec sleep 7001"]));
    let before = api.stable("/first", 1);
    let framework = subscribed_at(&cluster.mesos.master());

    // Another master is registered, and leads as soon as the first one's entry is gone, though the first one still answers.
    let follows = zookeeper.register(&other.address);
    zookeeper.remove(&leads);
    assert_eq!(subscribed_at(&other.master()), framework, "under the id that it always had");
    api.create(&pod("/second", 1, &marker, &["exec sleep 7002"]));
    let second = api.stable("/second", 1);
    assert_eq!(second["instances"][0]["agentHostname"], "agent-2", "{second}");
    assert_eq!(marked_running(&marker, "sleep 7001").len(), 1, "that a master does not know a task is no reason to launch it again");

    zookeeper.register(&cluster.mesos.address);
    zookeeper.remove(&follows);
    assert_eq!(subscribed_at(&cluster.mesos.master()), framework);
    let after = api.stable("/first", 1);
    assert_eq!(tasks(&after), tasks(&before), "it was never touched");
    let scaled = api.call("PUT", "/v2/pods/first?force=true", Some(&pod("/first", 2, &marker, &["exec sleep 7001"]).to_string()));
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    assert!(tasks(&api.stable("/first", 2)).is_superset(&tasks(&before)));
}

#[test]
fn a_framework_that_was_torn_down_goes_on_under_a_new_id_with_everything_that_is_wanted() {
    let podium = binary::podium(false);
    let mut cluster = MesosServer::start(podium, &[Agent::new(1)], Helpers::Podium(podium), QUICK, &[]);
    let (api, marker) = (cluster.api(), marker());
    api.create(&pod("/stays", 2, &marker, &["exec sleep 7003"]));
    let before = tasks(&api.stable("/stays", 2));
    let first = subscribed_at(&cluster.mesos.master());
    let processes: BTreeSet<u32> = marked(&marker).into_iter().map(|seen| seen.pid).collect();

    tear_down(&cluster, &first);
    let second = eventually("Podium is back under another id", || match subscribed_at(&cluster.mesos.master()) {
        id if id == first => Err(id),
        id => Ok(id),
    });
    let again = tasks(&launched_again(&api, &before));
    let alive = |pid: &u32| marked(&marker).iter().any(|seen| seen.pid == *pid);
    assert!(!processes.iter().any(alive), "what was torn down is gone");
    two_processes(&marker);
    assert!(cluster.server.log().contains("removed"), "an operator can read why: {}", cluster.server.log());

    // The same while no Podium is there: the next one is refused its id by the master.
    cluster.server.signal(Signal::TERM);
    assert!(cluster.server.wait(PATIENCE).is_some_and(|status| status.success()));
    tear_down(&cluster, &second);
    let (_next, api) = cluster.another_server(&[]);
    let third = subscribed_at(&cluster.mesos.master());
    assert!(third != second && third != first, "{third}");
    launched_again(&api, &again);
    two_processes(&marker);
    let completed = cluster.mesos.master().get("/frameworks").json();
    let completed: BTreeSet<&str> =
        completed["completed_frameworks"].as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(completed, [first.as_str(), second.as_str()].into());
}

/// Nothing is missing, and nothing runs twice. STABLE says that the shell runs, not what it has become.
fn two_processes(marker: &str) {
    eventually("each instance is one process", || match marked(marker) {
        two if two.len() == 2 && marked_running(marker, "sleep 7003").len() == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn tear_down(cluster: &MesosServer, framework: &str) {
    let call = serde_json::json!({ "type": "TEARDOWN", "teardown": { "framework_id": { "value": framework } } });
    let answer = cluster.mesos.master().call("POST", "/api/v1", Some(&call.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The pod's status once it is STABLE without any of these tasks.
fn launched_again(api: &Api, ended: &BTreeSet<String>) -> Value {
    eventually("everything that is wanted runs again", || {
        let status = api.stable("/stays", 2);
        if tasks(&status).is_disjoint(ended) { Ok(status) } else { Err(status.to_string()) }
    })
}
