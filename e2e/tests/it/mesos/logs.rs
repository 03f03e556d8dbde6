//! What containers print, read from their agents through Podium, by `podium logs` and `::logs`.

use std::io::Write as _;
use std::path::Path;

use podium_e2e::binary;
use podium_e2e::mesos::{Agent, Helpers, Login, RealMesos};
use podium_e2e::mesos_server::{MesosServer, own_folder};
use podium_e2e::process::{Background, marked_running, signal_process};
use podium_e2e::wait::{PATIENCE, eventually};
use rustix::process::Signal;
use serde_json::json;

use super::ground::{Ground, QUICK};
use crate::{marker, pod, text};

/// More than agents put into one answer, and than Podium does.
const LINES: usize = 300_000;

pub fn are_read_by_instance_container_and_stream_also_of_what_has_ended(ground: &Ground) {
    let count = format!("seq 1 {LINES}; exec sleep 6001");
    let talks = "echo I am $MESOS_TASK_ID; echo oops >&2; exec sleep 6002";
    ground.api.create(&pod("/mesos/logs", 2, &marker(), &[talks, &count]));
    let status = ground.api.stable("/mesos/logs", 2);
    let instances: Vec<&str> = status["instances"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    let logs = |arguments: &[&str]| ground.podium(&[&["logs", "/mesos/logs"], arguments].concat());
    let until = |arguments: &[&str], printed: &str| {
        eventually(&format!("{arguments:?} print {printed}"), || match logs(arguments) {
            (0, out, err) if out == printed && err.is_empty() => Ok(()),
            (code, out, err) => Err(format!("{code} {} bytes: {} {err}", out.len(), out.chars().take(500).collect::<String>())),
        });
    };
    let said = |instance: &str, incarnation: u32| format!("I am {instance}.c1.{incarnation}\n");

    for instance in &instances {
        until(&["c1", "--instance", instance, "--stream", "stdout"], &said(instance, 1));
    }
    let (code, out, err) = logs(&["c1", "--stream", "stderr"]);
    let both: Vec<&str> = err.lines().filter(|line| line.ends_with("/c1] oops")).collect();
    assert!(code == 0 && out.is_empty() && both.len() == 2, "each line tells whose it is: {code} {out} {err}");
    // All of a long log, its last lines, and a part of it over the API.
    let all: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    until(&["c2", "--instance", instances[0]], &all);
    until(&["c2", "--instance", instances[1], "--tail", "2"], &format!("{}\n{LINES}\n", LINES - 1));
    let part = ground.api.get(&format!("/v2/pods/mesos/logs::logs?instance={}&container=c2&offset=-14&length=7", instances[0]));
    assert_eq!((part.status, part.body.as_str()), (200, "299999\n"), "{part:?}");
    assert_eq!(part.header("x-podium-log-size"), Some(all.len().to_string().as_str()));

    // Launched again, it has one more log; and when it is gone for good, the end that was told can still be read about.
    let killed = instances[0];
    assert_eq!(ground.api.call("DELETE", &format!("/v2/pods/mesos/logs::instances/{killed}"), None).status, 200);
    until(&["c1", "--instance", killed, "--stream", "stdout"], &said(killed, 2));
    until(&["c1", "--instance", killed, "--stream", "stdout", "--previous"], &said(killed, 1));
    assert_eq!(ground.api.call("DELETE", &format!("/v2/pods/mesos/logs::instances/{killed}?wipe=true"), None).status, 200);
    ground.until("/mesos/logs", "it is gone", |status| {
        status["instances"].as_array().is_some_and(|now| now.iter().all(|one| one["id"] != killed))
    });
    until(&["c1", "--instance", killed, "--stream", "stdout"], &said(killed, 1));
}

pub fn of_a_container_that_has_finished_are_still_read(ground: &Ground) {
    ground.api.create(&pod("/mesos/finished", 1, &marker(), &["echo well done", "exec sleep 6004"]));
    ground.until("/mesos/finished", "one has finished", |status| {
        status["instances"][0]["containers"].as_array().is_some_and(|all| all.iter().any(|one| one["status"] == "TASK_FINISHED"))
    });
    assert_eq!(ground.podium(&["logs", "/mesos/finished", "c1"]), (0, "well done\n".to_owned(), String::new()));
}

pub fn that_lead_out_of_the_sandbox_are_not_shown_and_the_agent_says_so(ground: &Ground) {
    ground.api.create(&pod("/mesos/linked", 1, &marker(), &["ln -sf /etc/passwd stdout; exec sleep 6005"]));
    ground.api.stable("/mesos/linked", 1);
    eventually("the link is in place of the log", || {
        let (code, out, err) = ground.podium(&["logs", "/mesos/linked", "--stream", "stdout"]);
        assert!(out.is_empty(), "{out}");
        if code == 1 && err.contains("refuses to show") { Ok(()) } else { Err(format!("{code}: {err}")) }
    });
}

pub fn a_follower_sees_the_end_of_one_launch_and_the_next(ground: &Ground) {
    let marker = marker();
    let feed = ground.folder.join("feed");
    let mut file = std::fs::File::create(&feed).unwrap();
    let tail = format!("tail -n +1 -f {}", feed.display());
    ground.api.create(&pod("/mesos/followed", 1, &marker, &[&format!("{tail}; echo bye")]));
    ground.api.stable("/mesos/followed", 1);
    let mut follow = ground.command(&["logs", "/mesos/followed", "c1", "--follow", "--stream", "stdout"]);
    let (mut follower, lines) = Background::start(&mut follow, &ground.folder.join("follower.log"));
    let next = || lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line came: {error}"));
    for line in ["one", "two"] {
        writeln!(file, "{line}").unwrap();
        assert_eq!(next(), line);
    }
    signal_process(marked_running(&marker, &tail)[0], Signal::KILL);
    assert_eq!([next(), next(), next()], ["bye", "one", "two"], "the last words, and the next launch from its beginning");
    assert_eq!(ground.api.call("DELETE", "/v2/pods/mesos/followed?force=true", None).status, 202);
    let ended = follower.wait(PATIENCE).unwrap_or_else(|| panic!("the follower goes on after the pod's end"));
    assert!(ended.success(), "{ended}");
}

#[test]
fn master_and_agents_that_demand_a_login_get_each_the_one_that_is_theirs() {
    let (folder, podium) = (own_folder(), binary::podium(false));
    let login = Login { principal: "someone".to_owned(), secret: "confidential".to_owned() };
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{}\n", login.secret)).unwrap();
    let mesos = RealMesos::start_guarded(folder.path(), &[Agent::new(1)], Helpers::Podium(podium), QUICK, Some(login.clone()));
    let anonymous = podium_e2e::api::Api { base: format!("http://{}", mesos.address) };
    assert_eq!(anonymous.get("/slaves").status, 401, "it is guarded");
    let file = secret.to_str().unwrap();
    let to_the_master = ["--mesos-principal", &login.principal, "--mesos-secret-file", file];
    let cluster = MesosServer::start_on(podium, folder, mesos, &to_the_master);
    let api = cluster.api();
    api.create(&pod("/guarded", 1, &marker(), &["echo hello; exec sleep 6003"]));
    api.stable("/guarded", 1);

    // The agents have been told nothing: what is the master's is not theirs.
    let refused = api.get("/v2/pods/guarded::logs");
    assert_eq!(refused.status, 502, "{refused:?}");
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("--mesos-agent-secret-file") && message.contains("401"), "{message}");
    let (_another, trusted) = cluster
        .another_server(&[&to_the_master[..], &["--mesos-agent-principal", &login.principal, "--mesos-agent-secret-file", file]].concat());
    eventually("a replica that has the agents' secret reads the log", || {
        let log = trusted.get("/v2/pods/guarded::logs");
        if (log.status, log.body.as_str()) == (200, "hello\n") { Ok(()) } else { Err(format!("{log:?}")) }
    });
    nothing_tells(&login.secret, cluster.folder());
    let framework = cluster.mesos.master().get("/frameworks").json();
    assert_eq!(framework["frameworks"].as_array().unwrap().iter().filter(|one| one["principal"] == json!(login.principal)).count(), 1);
}

/// Neither the servers' logs nor their command lines hold a secret.
fn nothing_tells(secret: &str, folder: &Path) {
    let log = text(&std::fs::read(folder.join("server.log")).unwrap());
    assert!(!log.contains(secret), "{log}");
}
