//! Ctrl-C: everything stops, nothing is left, and the next start launches it again. And all of it as an ordinary user.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use podium_e2e::api::Api;
use podium_e2e::cluster::Form;
use podium_e2e::process::{Background, kill_all_below, marked, marked_running, signal_process};
use podium_e2e::wait::{PATIENCE, eventually};
use rustix::process::Signal;
use serde_json::Value;

use crate::{in_both_forms, marker, pod, start};

in_both_forms!(ctrl_c_leaves_no_process_behind_and_the_next_start_launches_again);

/// Ignores SIGTERM, and leaves a grandchild in a session of its own behind, which ignores it too.
const STUBBORN: &str = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 4001; done' &) ; while :; do sleep 4002; done";

fn ctrl_c_leaves_no_process_behind_and_the_next_start_launches_again(form: Form) {
    let mut cluster = start(form);
    let marker = marker();
    cluster.api().create(&pod("/plain", 1, &marker, &["exec sleep 4000"]));
    cluster.api().create(&pod("/stubborn", 1, &marker, &[STUBBORN]));
    let before = cluster.api().stable("/plain", 1);
    cluster.api().stable("/stubborn", 1);
    eventually("the daemon runs", || match marked_running(&marker, "sleep 4001")[..] {
        [_] => Ok(()),
        ref other => Err(format!("{other:?}")),
    });

    cluster.interrupt();
    assert_eq!(marked(&marker), [], "nothing is left");

    cluster.restart();
    for command in ["sleep 4000", "sleep 4001"] {
        eventually("it is launched again", || match marked_running(&marker, command)[..] {
            [_] => Ok(()),
            ref other => Err(format!("{command}: {other:?}")),
        });
    }
    let after = cluster.api().stable("/plain", 1);
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"], "the same instance");
    cluster.interrupt();
    assert_eq!(marked(&marker), [], "nothing is left");
}

#[test]
fn a_closed_terminal_stops_everything_though_nobody_reads_the_log() {
    let folder = tempfile::Builder::new().prefix("podium-e2e-").tempdir().unwrap();
    let _cleaner = Cleaner(folder.path());
    let mut command = Command::new(podium_e2e::binary::podium(false));
    command.args(["dev", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0", "--mesos-listen", "127.0.0.1:0", "--log", "debug"]);
    command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dev = command.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(dev.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    // From here on every line of the log fails to be written.
    drop(dev.stderr.take());
    let base = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_else(|| panic!("{ready}")).to_owned();
    let (api, marker) = (Api { base }, marker());
    api.create(&pod("/unread", 1, &marker, &["exec sleep 4004"]));
    api.stable("/unread", 1);
    signal_process(dev.id(), Signal::HUP);
    let status = eventually("it stops", || dev.try_wait().ok().flatten().ok_or_else(|| "still running".to_owned()));
    assert!(status.success(), "{status}");
    assert_eq!(marked(&marker), [], "nothing is left");
}

/// Ends what is left in a folder, also when the test fails.
struct Cleaner<'a>(&'a Path);

impl Drop for Cleaner<'_> {
    fn drop(&mut self) {
        kill_all_below(self.0);
    }
}

#[test]
fn an_ordinary_user_runs_pods() {
    let folder = tempfile::Builder::new().prefix("podium-e2e-").tempdir().unwrap();
    let _cleaner = Cleaner(folder.path());
    // The build's folder may be closed to others: the binary is run from a folder that is not.
    let binary = folder.path().join("podium");
    std::fs::copy(podium_e2e::binary::podium(false), &binary).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(&binary);
    command.args(["dev", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0", "--mesos-listen", "127.0.0.1:0"]);
    command.current_dir(folder.path());
    if rustix::process::getuid().is_root() {
        // Debian's nobody and nogroup: an account without any right.
        command.uid(65534).gid(65534);
    }
    let (mut dev, lines) = Background::start(&mut command, &folder.path().join("dev.log"));
    let Ok(_) = lines.recv_timeout(PATIENCE) else { panic!("podium dev did not become ready:\n{}", dev.log()) };
    let written = std::fs::read_to_string(folder.path().join("podium-data/endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_str(&written).unwrap();
    let api = Api { base: endpoints["api"].as_str().unwrap().to_owned() };
    let marker = marker();
    api.create(&pod("/ordinary", 1, &marker, &["exec sleep 4003"]));
    api.stable("/ordinary", 1);
    dev.signal(Signal::INT);
    assert!(dev.wait(PATIENCE).is_some_and(|status| status.success()), "{}", dev.log());
    assert_eq!(marked(&marker), []);
}
