//! What other users of the machine see of `podium dev`: nothing of its data folder, though root's containers of other users work in it.

use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use podium_e2e::api::Api;
use podium_e2e::cluster::Form;
use podium_e2e::process::{marked, signal_process};
use podium_e2e::sandbox;
use podium_e2e::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{marker, pod, start};

/// Whom the container runs as: only root can choose.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("nobody")
}

/// Each launch adds a line to a file in the volume, and prints what is there.
fn keeper() -> Value {
    let command = "umask 0; echo $MESOS_TASK_ID >> data/runs && cat data/runs; echo own > own; exec sleep 3001";
    let mut definition = pod("/keeper/main", 1, &marker(), &[command]);
    definition["role"] = json!("keeper");
    definition["user"] = json!(user());
    definition["volumes"] = json!([{"name": "data", "persistent": {"size": 64}}, {"name": "shared"}]);
    definition["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "data"}, {"name": "shared", "mountPath": "shared"}]);
    definition["containers"][0]["healthCheck"] =
        json!({"exec": {"command": {"shell": "test -e own"}}, "intervalSeconds": 2, "timeoutSeconds": 1});
    definition
}

/// The task that runs, once it has printed so many lines.
fn printed(api: &Api, folder: &Path, lines: usize) -> String {
    eventually(&format!("{lines} lines of the volume"), || {
        let status = api.status("/keeper/main")?;
        let task = status["instances"][0]["containers"][0]["containerId"].as_str().ok_or_else(|| status.to_string())?.to_owned();
        let printed = sandbox::of_task(folder, &task).ok_or("no sandbox")?.join("stdout");
        let text = fs::read_to_string(printed).map_err(|error| error.to_string())?;
        if text.lines().count() == lines && text.ends_with(&format!("{task}\n")) { Ok(task) } else { Err(text) }
    })
}

/// What a user with no rights of its own may read or write below `folder`: it gets to where others may pass through.
fn open_to_others(folder: PathBuf) -> Vec<PathBuf> {
    let others = |data: &Metadata| data.permissions().mode() & 0o007;
    let (mut found, mut ways) = (Vec::new(), vec![folder]);
    while let Some(way) = ways.pop() {
        // What has gone meanwhile nobody reads.
        let Ok(data) = fs::symlink_metadata(&way) else { continue };
        if data.is_symlink() {
            continue;
        }
        if others(&data) & 0o006 != 0 {
            found.push(way.clone());
        }
        if data.is_dir() && others(&data) & 0o001 != 0 {
            ways.extend(fs::read_dir(&way).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

#[test]
fn other_users_read_nothing_of_the_data_folder_while_a_container_of_another_user_keeps_its_volume() {
    let mut cluster = start(Form::Dev);
    let data = cluster.folder().join("data");
    // Another user gets to it, as to one in /var/lib.
    fs::set_permissions(cluster.folder(), fs::Permissions::from_mode(0o711)).unwrap();
    cluster.api().create(&keeper());
    let first = printed(&cluster.api(), &data, 1);
    assert_eq!(open_to_others(data.clone()), [] as [PathBuf; 0]);
    let volume = data.join("mesos/agent/volumes/roles");
    assert!(volume.is_dir(), "there is a volume");

    // A folder that an earlier podium has left open is closed by the next start.
    cluster.kill();
    let role = fs::read_dir(&volume).unwrap().next().unwrap().unwrap().path();
    let own = fs::read_dir(&role).unwrap().next().unwrap().unwrap().path();
    for folder in [&data.join("mesos/agent/volumes"), &volume, &role, &own] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(open_to_others(data.clone()).is_empty(), user().is_none(), "seen by this test, were it so");
    cluster.restart();
    for seen in marked(&format!("MESOS_TASK_ID={first}")) {
        signal_process(seen.pid, Signal::KILL);
    }
    printed(&cluster.api(), &data, 2);
    assert_eq!(open_to_others(data), [] as [PathBuf; 0]);
}
