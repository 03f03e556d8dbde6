//! Pods with persistent volumes: what an instance has written, its next launch reads, whatever happens in between; and when it is
//! gone, so are its volume and what was reserved for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podium_e2e::api::Api;
use podium_e2e::binary;
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::mesos::{Agent, Helpers};
use podium_e2e::mesos_server::MesosServer;
use podium_e2e::process::{marked, signal_process};
use podium_e2e::sandbox;
use podium_e2e::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::ground::{QUICK, task};

pub(super) const POD: &str = "/db/main";

/// What is seen alike on both engines.
pub(super) struct Place {
    pub(super) api: Api,
    pub(super) master: Api,
    pub(super) folder: PathBuf,
}

#[test]
fn a_volume_outlives_its_containers_and_not_its_instance_on_a_real_agent() {
    let podium = binary::podium(false);
    let options = ["--mesos-principal", "podium"];
    let mut server = MesosServer::start(podium, &[Agent::new(1), Agent::new(2)], Helpers::Podium(podium), QUICK, &options);
    let place = |server: &MesosServer| Place { api: server.api(), master: server.mesos.master(), folder: server.mesos.folder().to_owned() };
    let runs = first_launches(&place(&server));
    server.restart_server();
    let runs = next_launch(&place(&server), runs);
    rest_of_its_life(&place(&server), runs);
}

#[test]
fn a_volume_outlives_its_containers_and_not_its_instance_on_the_embedded_agent() {
    let mut cluster = Cluster::start(Form::Dev, binary::podium(false), &[]);
    let place = |cluster: &Cluster| Place {
        api: cluster.api(),
        master: Api { base: format!("http://{}", cluster.endpoints.mesos) },
        folder: cluster.folder().join("data"),
    };
    let runs = first_launches(&place(&cluster));
    // With it the master and the agent.
    cluster.kill();
    cluster.restart();
    let runs = next_launch(&place(&cluster), runs);
    rest_of_its_life(&place(&cluster), runs);
}

/// Each launch adds its task's id to a file in the volume, and prints what is there.
fn definition(instances: u32, value: &str) -> Value {
    // Volumes are made by agents that are root, and have to be given away.
    let user = rustix::process::geteuid().is_root().then_some("nobody");
    json!({
        "id": POD,
        "user": user,
        "role": "db",
        "scaling": { "kind": "fixed", "instances": instances },
        "volumes": [{ "name": "data", "persistent": { "size": 64 } }],
        "containers": [{
            "name": "store",
            "exec": { "command": { "shell": "echo $MESOS_TASK_ID >> data/runs && cat data/runs; exec sleep 3001" } },
            "environment": { "VALUE": value },
            "endpoints": [{ "name": "port", "hostPort": 0 }],
            "volumeMounts": [{ "name": "data", "mountPath": "data" }],
            "resources": { "cpus": 0.1, "mem": 32 },
        }],
        "scheduling": { "upgrade": { "minimumHealthCapacity": 0.5, "maximumOverCapacity": 0 } },
    })
}

fn put(place: &Place, instances: u32, value: &str) {
    // A pod is stable a moment before its deployment ends.
    place.api.deployed();
    let answer = place.api.call("PUT", &format!("/v2/pods{POD}"), Some(&definition(instances, value).to_string()));
    assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
}

/// By instance: the task that runs, once it has printed so many lines, and those lines.
pub(super) fn printed(place: &Place, instances: usize, lines: usize) -> BTreeMap<String, (String, Vec<String>)> {
    let status = place.api.stable(POD, instances);
    let all = status["instances"].as_array().unwrap().iter().map(|instance| {
        let task = instance["containers"][0]["containerId"].as_str().unwrap_or_else(|| panic!("no task: {status}")).to_owned();
        let text = eventually(&format!("{task} has printed"), || {
            let folder = sandbox::of_task(&place.folder, &task).ok_or("no sandbox")?;
            let text = std::fs::read_to_string(folder.join("stdout")).map_err(|error| error.to_string())?;
            if text.lines().count() >= lines && text.ends_with('\n') { Ok(text) } else { Err(text) }
        });
        (instance["id"].as_str().unwrap().to_owned(), (task, text.lines().map(str::to_owned).collect()))
    });
    all.collect()
}

/// The volumes that agents have reserved for the role, as the master shows them.
pub(super) fn volumes(place: &Place) -> Vec<Value> {
    let slaves = place.master.get("/slaves").json();
    let slaves = slaves["slaves"].as_array().cloned().unwrap_or_default();
    let reserved = slaves.iter().flat_map(|slave| slave["reserved_resources_full"]["db"].as_array().cloned().unwrap_or_default());
    reserved.filter(|resource| !resource["disk"]["persistence"].is_null()).collect()
}

/// The folders of volumes below `folder`.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let list = if next.ends_with("volumes/roles/db") { &mut found } else { &mut open };
                list.push(entry.path());
            }
        }
    }
    found
}

fn kill(task: &str) {
    for seen in marked(&format!("MESOS_TASK_ID={task}")) {
        signal_process(seen.pid, Signal::KILL);
    }
}

/// One line a launch so far.
fn first_launches(place: &Place) -> Vec<String> {
    place.api.create(&definition(1, "first"));
    let first = printed(place, 1, 1);
    let (instance, (task, lines)) = first.first_key_value().unwrap();
    assert_eq!(lines, &vec![task.clone()]);
    let volumes = volumes(place);
    let disk = &volumes[0]["disk"];
    let id = instance.rsplit_once("instance-").unwrap().1;
    assert_eq!(disk["persistence"]["id"], format!("db_main#data#{id}"), "{volumes:?}");
    let labels = volumes[0]["reservations"][0]["labels"]["labels"].to_string();
    assert!(volumes.len() == 1 && labels.contains(instance.as_str()) && labels.contains("marathon_framework_id"), "{volumes:?}");
    assert_eq!(folders(&place.folder).len(), 1);
    kill(task);
    next_launch(place, lines.clone())
}

/// What the one instance prints after its next launch.
pub(super) fn next_launch(place: &Place, before: Vec<String>) -> Vec<String> {
    let status = place.api.stable(POD, 1);
    let running = task(&status, "store");
    if before.contains(&running) {
        kill(&running);
        eventually("the next launch", || {
            let status = place.api.status(POD)?;
            let next = status["instances"][0]["containers"][0]["containerId"].as_str().unwrap_or_default();
            if !next.is_empty() && next != running && status["status"] == "STABLE" { Ok(()) } else { Err(status.to_string()) }
        });
    }
    let next = printed(place, 1, before.len() + 1);
    let (_, (task, lines)) = next.first_key_value().unwrap();
    assert_eq!(lines[..before.len()], before, "nothing was lost");
    assert_eq!(lines.last(), Some(task));
    lines.clone()
}

fn rest_of_its_life(place: &Place, runs: Vec<String>) {
    put(place, 2, "first");
    let two = printed(place, 2, 1);
    let other = two.values().find(|(task, _)| !runs.contains(task)).unwrap_or_else(|| panic!("one of its own: {two:?}"));
    assert_eq!(other.1, std::slice::from_ref(&other.0), "a new instance begins with an empty volume");
    assert_eq!(volumes(place).len(), 2);

    // Another config is run by the instances that there are.
    put(place, 2, "second");
    let before: BTreeMap<String, usize> = two.iter().map(|(id, (_, lines))| (id.clone(), lines.len())).collect();
    eventually("both run the new config", || {
        let status = place.api.status(POD)?;
        let tasks: Vec<&str> =
            status["instances"].as_array().into_iter().flatten().filter_map(|one| one["containers"][0]["containerId"].as_str()).collect();
        let moved = tasks.len() == 2 && two.values().all(|(task, _)| !tasks.contains(&task.as_str()));
        if moved && status["status"] == "STABLE" { Ok(()) } else { Err(status.to_string()) }
    });
    let after = printed(place, 2, 2);
    for (id, lines) in &before {
        let (_, printed) = after.get(id).unwrap_or_else(|| panic!("{id} is still there: {after:?}"));
        assert_eq!(printed.len(), lines + 1, "each has its data: {after:?}");
    }

    put(place, 1, "second");
    place.api.stable(POD, 1);
    eventually("what the other had is given back", || match volumes(place) {
        left if left.len() == 1 => Ok(()),
        left => Err(json!(left).to_string()),
    });
    put(place, 2, "second");
    let again = printed(place, 2, 1);
    assert!(again.values().any(|(_, lines)| lines.len() == 1), "an empty volume again: {again:?}");

    let answer = place.api.call("DELETE", &format!("/v2/pods{POD}?force=true"), None);
    assert_eq!(answer.status, 202, "{}", answer.body);
    eventually("nothing is reserved any more", || {
        let slaves = place.master.get("/slaves").json();
        let slaves = slaves["slaves"].as_array().cloned().unwrap_or_default();
        let reserved: Vec<&Value> = slaves.iter().map(|slave| &slave["reserved_resources"]).collect();
        if !slaves.is_empty() && reserved.iter().all(|one| one.as_object().is_some_and(serde_json::Map::is_empty)) {
            Ok(())
        } else {
            Err(json!(reserved).to_string())
        }
    });
    eventually("no data is left on the disk", || match folders(&place.folder) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}
