//! Instances killed over the API, and deployments taken back.

use std::collections::BTreeSet;

use podium_e2e::cluster::Form;
use podium_e2e::process::{marked, marked_running};
use podium_e2e::wait::eventually;
use serde_json::{Value, json};

use crate::{in_both_forms, marker, pod, start};

in_both_forms!(a_killed_instance_keeps_its_id_and_a_wiped_one_is_replaced, a_change_that_fits_nowhere_is_rolled_back);

fn ids(status: &Value) -> BTreeSet<String> {
    status["instances"].as_array().into_iter().flatten().filter_map(|instance| Some(instance["id"].as_str()?.to_owned())).collect()
}

fn a_killed_instance_keeps_its_id_and_a_wiped_one_is_replaced(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let marker = marker();
    api.create(&pod("/pair", 2, &marker, &["exec sleep 3001"]));
    let before = ids(&api.stable("/pair", 2));
    let processes: BTreeSet<u32> = marked_running(&marker, "sleep 3001").into_iter().collect();
    let [first, second] = [0, 1].map(|at| before.iter().nth(at).unwrap().clone());

    let killed = api.call("DELETE", &format!("/v2/pods/pair::instances/{first}"), None);
    assert_eq!((killed.status, &killed.json()["instanceId"]), (200, &json!(first)), "{killed:?}");
    let rest = eventually("one of the two was replaced by another process", || {
        let now: BTreeSet<u32> = marked_running(&marker, "sleep 3001").into_iter().collect();
        if now.len() == 2 && now.intersection(&processes).count() == 1 { Ok(now) } else { Err(format!("{now:?}, before {processes:?}")) }
    });
    assert_eq!(ids(&api.stable("/pair", 2)), before, "no id is new");

    let wiped = api.call("DELETE", "/v2/pods/pair::instances?wipe=true", Some(&json!([second]).to_string()));
    assert_eq!((wiped.status, &wiped.json()[0]["instanceId"]), (200, &json!(second)), "{wiped:?}");
    eventually("it is gone, and another has taken its place", || {
        let now = ids(&api.status("/pair")?);
        if !now.contains(&second) && now.contains(&first) && now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) }
    });
    api.stable("/pair", 2);
    eventually("the other one runs on", || {
        let now: BTreeSet<u32> = marked_running(&marker, "sleep 3001").into_iter().collect();
        if now.len() == 2 && now.intersection(&rest).count() == 1 { Ok(()) } else { Err(format!("{now:?}, before {rest:?}")) }
    });
}

fn a_change_that_fits_nowhere_is_rolled_back(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let marker = marker();
    api.create(&pod("/web", 1, &marker, &["exec sleep 3002"]));
    let before = ids(&api.stable("/web", 1));
    eventually("its deployment ends", || match api.get("/v2/deployments").body {
        none if none == "[]" => Ok(()),
        some => Err(some),
    });
    let mut large = pod("/web", 1, &marker, &["exec sleep 3002"]);
    large["containers"][0]["resources"]["cpus"] = json!(1_000_000);
    let large = api.call("PUT", "/v2/pods/web", Some(&large.to_string()));
    assert_eq!(large.status, 200, "{large:?}");
    let deployment = large.header("marathon-deployment-id").unwrap().to_owned();
    eventually("the new version waits", || {
        let queue = api.get("/v2/queue").json();
        if queue["queue"][0]["pod"]["id"] == "/web" { Ok(()) } else { Err(queue.to_string()) }
    });
    let back = api.call("DELETE", &format!("/v2/deployments/{deployment}"), None);
    assert_eq!(back.status, 200, "{back:?}");
    assert_eq!(back.header("marathon-deployment-id"), back.json()["deploymentId"].as_str());
    let after = api.settled("/web", 1);
    assert_eq!(after["spec"]["containers"][0]["resources"]["cpus"], 0.1);
    assert_eq!(marked_running(&marker, "sleep 3002").len(), 1, "{:?}", marked(&marker));
    assert_eq!(ids(&after), before, "what still ran of the old version was not touched");
}
