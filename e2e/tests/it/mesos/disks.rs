//! Volumes on an agent's other disks: a part of one of the type PATH, and the whole of those of the type MOUNT. What an instance has
//! written stays on the same disks from launch to launch, and a deleted pod gives them back whole and empty.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use podium_e2e::api::Api;
use podium_e2e::binary;
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::mesos::{Agent, Helpers};
use podium_e2e::mesos_server::{MesosServer, own_folder};
use podium_e2e::wait::eventually;
use serde_json::{Value, json};

use super::ground::QUICK;
use super::residents::{POD, Place, next_launch, printed, volumes};

/// Of MiB, beside the agent's own disk: one to share and three to be had whole, of which one has a profile.
const DISKS: [(&str, &str, u32, Option<&str>); 4] =
    [("shared", "PATH", 500, None), ("large", "MOUNT", 300, None), ("small", "MOUNT", 200, None), ("fast", "MOUNT", 100, Some("fast"))];

#[test]
fn volumes_live_on_the_disks_that_they_ask_for_on_a_real_agent() {
    let podium = binary::podium(false);
    let disks = own_folder();
    let roots = make_roots(disks.path());
    let mounts = DISKS.iter().filter(|(_, kind, ..)| *kind == "MOUNT").map(|(name, ..)| disks.path().join(name)).collect();
    let agent = Agent { resources: resources(disks.path()), mounts, ..Agent::new(1) };
    let mut server = MesosServer::start(podium, &[agent], Helpers::Podium(podium), QUICK, &["--mesos-principal", "podium"]);
    let place = |server: &MesosServer| Place { api: server.api(), master: server.mesos.master(), folder: server.mesos.folder().to_owned() };
    let lines = first_launch(&place(&server), &roots);
    server.restart_server();
    rest_of_its_life(&place(&server), &roots, lines);
}

#[test]
fn volumes_live_on_the_disks_that_they_ask_for_on_the_embedded_agent() {
    let disks = own_folder();
    let roots = make_roots(disks.path());
    let mut cluster = Cluster::start(Form::Dev, binary::podium(false), &["--agent-resources", &resources(disks.path())]);
    let place = |cluster: &Cluster| Place {
        api: cluster.api(),
        master: Api { base: format!("http://{}", cluster.endpoints.mesos) },
        folder: cluster.folder().join("data"),
    };
    let lines = first_launch(&place(&cluster), &roots);
    // With it the master and the agent.
    cluster.kill();
    cluster.restart();
    rest_of_its_life(&place(&cluster), &roots, lines);
}

fn make_roots(folder: &Path) -> BTreeMap<&'static str, PathBuf> {
    let made = DISKS.iter().map(|(name, ..)| {
        let root = folder.join(name);
        fs::create_dir(&root).unwrap();
        (*name, root)
    });
    made.collect()
}

/// What an agent has that has these disks, in Mesos' JSON.
fn resources(folder: &Path) -> String {
    let scalar = |name: &str, value: u32| json!({ "name": name, "type": "SCALAR", "scalar": { "value": value } });
    let mut all = vec![scalar("cpus", 4), scalar("mem", 4096), scalar("disk", 4096)];
    all.extend(DISKS.map(|(name, kind, size, profile)| {
        let mut disk = scalar("disk", size);
        let mut source = json!({ "type": kind, kind.to_lowercase(): { "root": folder.join(name) } });
        if let Some(profile) = profile {
            source["profile"] = json!(profile);
        }
        disk["disk"] = json!({ "source": source });
        disk
    }));
    json!(all).to_string()
}

/// Each launch adds its task's id to a file in each volume, prints the one on the shared disk, and goes on if all say the same.
fn definition(instances: u32) -> Value {
    let mounts = ["part", "whole", "quick"].map(|name| json!({ "name": name, "mountPath": name }));
    let script = "for volume in part whole quick; do echo $MESOS_TASK_ID >> $volume/runs; done; \
                  cmp part/runs whole/runs && cmp part/runs quick/runs && cat part/runs && exec sleep 3002";
    json!({
        "id": POD,
        "role": "db",
        "scaling": { "kind": "fixed", "instances": instances },
        "volumes": [
            { "name": "part", "persistent": { "type": "path", "size": 64, "constraints": [["path", "LIKE", ".*/shared"]] } },
            { "name": "whole", "persistent": { "type": "mount", "size": 150, "maxSize": 250 } },
            { "name": "quick", "persistent": { "size": 10, "profileName": "fast" } },
        ],
        "containers": [{
            "name": "store",
            "exec": { "command": { "shell": script } },
            "volumeMounts": mounts,
            "resources": { "cpus": 0.1, "mem": 32 },
        }],
        "scheduling": { "upgrade": { "minimumHealthCapacity": 0.5, "maximumOverCapacity": 0 } },
    })
}

/// The task that it prints, from the disks that there are.
fn first_launch(place: &Place, roots: &BTreeMap<&'static str, PathBuf>) -> Vec<String> {
    assert_eq!(unreserved(&place.master), whole_disks());
    place.api.create(&definition(1));
    let first = printed(place, 1, 1);
    let (task, lines) = first.values().next().unwrap();
    assert_eq!(lines, std::slice::from_ref(task));
    on_their_disks(place);
    for file in written(roots) {
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{task}\n"), "{}", file.display());
    }
    assert_eq!(fs::read_dir(&roots["large"]).unwrap().count(), 0, "larger than the volume allows");
    lines.clone()
}

fn on_their_disks(place: &Place) {
    let disks = volumes(place).iter().map(on_disk).collect::<BTreeMap<_, _>>();
    let expected = [("part", ("shared", 64.0)), ("whole", ("small", 200.0)), ("quick", ("fast", 100.0))];
    let expected = expected.map(|(volume, (disk, size))| (volume.to_owned(), (disk.to_owned(), size.to_string())));
    assert_eq!(disks, expected.into());
}

fn rest_of_its_life(place: &Place, roots: &BTreeMap<&'static str, PathBuf>, lines: Vec<String>) {
    let files = written(roots);
    let lines = next_launch(place, lines);
    on_their_disks(place);
    assert_eq!(written(roots), files, "the same disks");
    for file in &files {
        assert_eq!(fs::read_to_string(file).unwrap().lines().collect::<Vec<_>>(), lines, "{}", file.display());
    }

    // There is no second disk with that profile, and the queue says what is missing.
    place.api.call("PUT", &format!("/v2/pods{POD}"), Some(&definition(2).to_string()));
    eventually("the second is refused for want of a disk", || {
        let queue = place.api.get("/v2/queue").json();
        let reasons = queue["queue"][0]["processedOffersSummary"]["rejectSummaryLastOffers"].as_array().cloned().unwrap_or_default();
        let short = reasons.iter().filter(|one| one["declined"].as_u64().is_some_and(|count| count > 0));
        let short: Vec<&str> = short.filter_map(|one| one["reason"].as_str()).collect();
        if short == ["InsufficientDisk"] { Ok(()) } else { Err(queue.to_string()) }
    });
    assert_eq!(volumes(place).len(), 3, "nothing is reserved for it");

    let answer = place.api.call("DELETE", &format!("/v2/pods{POD}?force=true"), None);
    assert_eq!(answer.status, 202, "{}", answer.body);
    eventually("the disks are given back whole", || match unreserved(&place.master) {
        left if left == whole_disks() && volumes(place).is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    eventually("they are empty, and still there", || match roots.values().flat_map(|root| files_below(root)).collect::<Vec<_>>() {
        left if left.is_empty() && roots.values().all(|root| root.is_dir()) => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Its name, the disk that it is on, and its size in MiB.
fn on_disk(volume: &Value) -> (String, (String, String)) {
    let name = volume["disk"]["volume"]["container_path"].as_str().unwrap().to_owned();
    (name, (disk_of(volume).unwrap(), volume["scalar"]["value"].as_f64().unwrap().to_string()))
}

/// The last part of a disk's root; none: the agent's own.
fn disk_of(resource: &Value) -> Option<String> {
    let source = &resource["disk"]["source"];
    let root = source["path"]["root"].as_str().or(source["mount"]["root"].as_str())?;
    root.rsplit('/').next().map(str::to_owned)
}

/// By disk, how much of it nobody has reserved, in MiB.
fn unreserved(master: &Api) -> BTreeMap<String, String> {
    let slaves = master.get("/slaves").json();
    let disks = slaves["slaves"][0]["unreserved_resources_full"].as_array().cloned().unwrap_or_default();
    disks.iter().filter_map(|disk| Some((disk_of(disk)?, disk["scalar"]["value"].as_f64()?.to_string()))).collect()
}

fn whole_disks() -> BTreeMap<String, String> {
    DISKS.iter().map(|(name, _, size, _)| ((*name).to_owned(), size.to_string())).collect()
}

/// What was written to the three disks: of a PATH in a folder of the volume, as others may be there; of a MOUNT in its root.
fn written(roots: &BTreeMap<&'static str, PathBuf>) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = ["shared", "small", "fast"].iter().flat_map(|disk| files_below(&roots[disk])).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files[0].starts_with(roots["shared"].join("volumes/roles/db")), "{files:?}");
    assert!(files[1] == roots["small"].join("runs") && files[2] == roots["fast"].join("runs"), "{files:?}");
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { &mut open } else { &mut files }.push(entry.path());
        }
    }
    files
}
