//! What containers print, by `podium logs`.

use std::io::Write as _;
use std::process::Command;

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::{Background, marked_running, signal_process};
use podium_e2e::wait::{PATIENCE, eventually};
use rustix::process::Signal;

use crate::{in_both_forms, marker, pod, start};

in_both_forms!(logs_are_printed_by_stream_container_and_line, a_follower_sees_what_grows_and_every_launch);

fn printed(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let output = cluster.podium(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn logs_are_printed_by_stream_container_and_line(form: Form) {
    let mut cluster = start(form);
    let talks = ["echo hello; echo oops >&2; exec sleep 4001", "seq 1 5; exec sleep 4002"];
    cluster.api().create(&pod("/talks", 1, &marker(), &talks));
    let status = cluster.api().stable("/talks", 1);
    let name = |at: usize| status["instances"][0]["containers"][at]["name"].as_str().unwrap().to_owned();
    let (first, second) = (name(0), name(1));

    // STABLE says that the shell runs, not that it has printed yet.
    eventually("everything was printed", || {
        let (code, out, err) = printed(&cluster, &["logs", "/talks"]);
        let all = code == 0 && out.contains(&format!("/{first}] hello\n")) && out.contains(&format!("/{second}] 5\n"));
        if all && err.ends_with(&format!("/{first}] oops\n")) { Ok(()) } else { Err(format!("{code} {out} {err}")) }
    });
    assert_eq!(printed(&cluster, &["logs", "/talks", &second, "--tail", "2"]), (0, "4\n5\n".into(), String::new()));
    assert_eq!(printed(&cluster, &["logs", "/talks", &first, "--stream", "stderr"]), (0, String::new(), "oops\n".into()));
    let (code, _, err) = printed(&cluster, &["logs", "/talks", "nobody"]);
    assert!(code == 2 && err.contains(&format!("it has {first}, {second}")), "{code} {err}");
    let (code, _, err) = printed(&cluster, &["logs", "/nothing"]);
    assert!(code == 3 && err.contains("'/nothing' does not exist"), "{code} {err}");
    let (code, _, err) = printed(&cluster, &["logs", "/talks", &first, "--previous"]);
    assert!(code == 3 && err.contains("no launch of"), "{code} {err}");

    cluster.kill();
    cluster.restart();
    eventually("the logs are found again after a crash", || match printed(&cluster, &["logs", "/talks", &second, "--tail", "1"]) {
        (0, out, _) if out == "5\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn a_follower_sees_what_grows_and_every_launch(form: Form) {
    let cluster = start(form);
    let marker = marker();
    let feed = cluster.folder().join("feed");
    let mut file = std::fs::File::create(&feed).unwrap();
    // Everyone may read what the container of whatever user is to print.
    cluster.api().create(&pod("/grows", 1, &marker, &[&format!("tail -n +1 -f {}; echo bye", feed.display())]));
    cluster.api().stable("/grows", 1);

    let mut follow = Command::new(podium_e2e::binary::podium(false));
    follow.args(["logs", "/grows", "--follow"]).env("PODIUM_SERVER", &cluster.endpoints.api);
    let (mut follower, lines) = Background::start(&mut follow, &cluster.folder().join("follower.log"));
    let next = || lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line came: {error}"));
    for line in ["one", "two"] {
        writeln!(file, "{line}").unwrap();
        assert_eq!(next(), line);
    }

    let running = marked_running(&marker, &format!("tail -n +1 -f {}", feed.display()));
    signal_process(running[0], Signal::KILL);
    assert_eq!([next(), next(), next()], ["bye", "one", "two"], "the last words, and then the next launch prints all of the file again");
    let previous = eventually("the launch before is known", || match printed(&cluster, &["logs", "/grows", "--previous"]) {
        (0, out, _) => Ok(out),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(previous, "one\ntwo\nbye\n");

    assert_eq!(cluster.api().call("DELETE", "/v2/pods/grows?force=true", None).status, 202);
    let ended = follower.wait(PATIENCE).unwrap_or_else(|| panic!("the follower goes on after the pod's end"));
    assert!(ended.success(), "{ended}");
}
