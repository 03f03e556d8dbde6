//! Roles that a real master grants, and one that it does not.

use podium_e2e::binary;
use podium_e2e::mesos::{Agent, Helpers};
use podium_e2e::mesos_server::MesosServer;
use podium_e2e::process::marked_running;
use podium_e2e::wait::eventually;
use serde_json::{Value, json};

use super::ground::QUICK;
use crate::{marker, pod};

fn in_role(mut pod: Value, role: &str) -> Value {
    pod["role"] = json!(role);
    pod
}

/// Our framework as the master shows it, beside the one that keeps the cluster's process alive.
fn framework(cluster: &MesosServer) -> Value {
    let state = cluster.mesos.master().get("/frameworks").json();
    let ours = state["frameworks"].as_array().and_then(|all| all.iter().find(|framework| framework["name"] == "podium"));
    ours.unwrap_or_else(|| panic!("{state}")).clone()
}

/// Waits until the queue tells that Mesos refuses this pod's role.
fn is_refused(cluster: &MesosServer, id: &str) {
    eventually(&format!("{id} waits, in Mesos' words"), || {
        let queue = cluster.api().get("/v2/queue").json();
        let items = queue["queue"].as_array().map(Vec::as_slice).unwrap_or_default();
        let item = items.iter().find(|item| item["pod"]["id"] == id).ok_or_else(|| queue.to_string())?;
        let refused = &item["refusedRole"];
        let told = refused["reason"] == "UnfulfilledRole" && refused["message"].as_str().is_some_and(|text| text.contains("team"));
        if told { Ok(()) } else { Err(item.to_string()) }
    });
}

#[test]
fn a_role_that_the_master_refuses_keeps_its_own_pods_waiting_and_a_granted_one_is_no_reason_to_subscribe_anew() {
    let podium = binary::podium(false);
    let flags = [QUICK, &[("roles", "*,web")]].concat();
    let mut cluster = MesosServer::start(podium, &[Agent::new(1)], Helpers::Podium(podium), &flags, &[]);
    let api = cluster.api();
    let marker = marker();
    api.create(&pod("/plain", 1, &marker, &["exec sleep 3001"]));
    api.stable("/plain", 1);
    let before = framework(&cluster);

    api.create(&in_role(pod("/team/x", 1, &marker, &["exec sleep 3002"]), "team"));
    is_refused(&cluster, "/team/x");
    api.create(&in_role(pod("/web/x", 1, &marker, &["exec sleep 3003"]), "web"));
    api.stable("/web/x", 1);
    api.create(&pod("/later", 1, &marker, &["exec sleep 3004"]));
    api.stable("/later", 1);
    let after = framework(&cluster);
    assert_eq!(after["roles"], json!(["*", "web"]));
    assert!(before["registered_time"].is_number() && after["active"] == true, "{after}");
    for time in ["registered_time", "reregistered_time"] {
        assert_eq!(before[time], after[time], "no second subscription");
    }
    assert_eq!(marked_running(&marker, "sleep 3002"), Vec::<u32>::new());

    // A server that knows nothing of what was refused, and a master that refuses its first SUBSCRIBE for it.
    cluster.restart_server();
    is_refused(&cluster, "/team/x");
    cluster.api().create(&in_role(pod("/web/y", 1, &marker, &["exec sleep 3005"]), "web"));
    cluster.api().stable("/web/y", 1);
    assert_eq!(framework(&cluster)["roles"], json!(["*", "web"]));
}
