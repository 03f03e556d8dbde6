//! Two servers on one real etcd: any of them takes writes and answers reads, and either may go.

use podium_e2e::api::Api;
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::{Background, marked};
use podium_e2e::wait::eventually;
use rustix::process::Signal;

use crate::{marker, pod, start};

/// A write of one replica, and the revision that it was answered with.
fn put(api: &Api, instances: u32, marker: &str) -> (String, String) {
    let body = pod("/a", instances, marker, &["exec sleep 4001"]).to_string();
    let answer = api.call("PUT", "/v2/pods/a?force=true", Some(&body));
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer.header("x-podium-revision").unwrap().to_owned(), answer.json()["version"].as_str().unwrap().to_owned())
}

fn version_on(api: &Api, revision: &str) -> Option<String> {
    let answer = api.call_with("GET", "/v2/pods/a", &[&format!("X-Podium-Min-Revision: {revision}")], None);
    Some(answer.json()["version"].as_str()?.to_owned())
}

#[test]
fn a_write_on_any_replica_is_read_on_any_other_that_is_told_its_revision() {
    let cluster = start(Form::Server);
    let (_second, other) = cluster.another_server();
    let (api, marker) = (cluster.api(), marker());
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&api, &other) } else { (&other, &api) };
        let (revision, version) = put(writer, n % 3, &marker);
        assert_eq!(version_on(reader, &revision), Some(version.clone()), "write {n}");
        assert_eq!(version_on(writer, "0"), Some(version), "the same replica needs no revision");
    }
}

#[test]
fn what_was_answered_2xx_outlives_the_replica_that_answered() {
    let mut cluster = start(Form::Server);
    let (_second, other) = cluster.another_server();
    let (revision, version) = put(&cluster.api(), 0, &marker());
    cluster.server.as_mut().unwrap().kill();
    assert_eq!(version_on(&other, &revision), Some(version));
    let (revision, version) = put(&other, 0, &marker());
    assert_eq!(version_on(&other, &revision), Some(version), "and the rest needs no leader to write");
}

#[test]
fn while_etcd_stands_still_writes_are_answered_503_and_reads_go_on_and_afterwards_all_agree() {
    let cluster = start(Form::Server);
    let (_second, other) = cluster.another_server();
    let (api, marker) = (cluster.api(), marker());
    let (revision, before) = put(&api, 0, &marker);
    assert_eq!(version_on(&other, &revision), Some(before.clone()));
    let etcd = &cluster.etcd().unwrap().process;
    etcd.signal(Signal::STOP);
    let answer = api.call("PUT", "/v2/pods/a?force=true", Some(&pod("/a", 1, &marker, &["exec sleep 4001"]).to_string()));
    let read = other.get("/v2/pods/a");
    etcd.signal(Signal::CONT);
    assert_eq!((read.status, read.json()["version"].as_str()), (200, Some(before.as_str())), "{read:?}");
    assert_eq!(answer.status, 503, "{answer:?}");
    let tried = answer.json()["details"]["version"].as_str().unwrap_or_else(|| panic!("what is known: {answer:?}")).to_owned();
    // It took effect or not: whichever it is, both say the same, and a later write comes after it.
    let (revision, after) = put(&other, 2, &marker);
    assert!(after > before);
    let versions = |api: &Api| api.call_with("GET", "/v2/pods/a::versions", &[&format!("X-Podium-Min-Revision: {revision}")], None).body;
    assert_eq!(versions(&api), versions(&other));
    assert!(versions(&api).contains(&before) && versions(&api).contains(&after), "{tried}: {}", versions(&api));
}

#[test]
fn a_server_that_finds_no_etcd_answers_probes_and_serves_as_soon_as_there_is_one() {
    let cluster = start(Form::Server);
    let etcd = &cluster.etcd().unwrap().process;
    etcd.signal(Signal::STOP);
    let listen = free_address();
    let (store, mesos) = (format!("http://{}", cluster.endpoints.etcd), format!("http://{}", cluster.endpoints.mesos));
    let mut command = std::process::Command::new(podium_e2e::binary::podium(false));
    command.args(["server", "--listen", &listen, "--etcd", &store, "--mesos", &mesos, "--controllers", "none"]);
    let (_process, _lines) = Background::start(&mut command, &cluster.folder().join("early.log"));
    let early = Api { base: format!("http://{listen}") };
    eventually("it answers", || match early.get("/livez").status {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    let told: Vec<u16> = ["/readyz", "/v2/pods", "/v2/info", "/metrics"].map(|path| early.get(path).status).to_vec();
    let standing = eventually("the other notices that etcd is silent", || match cluster.api().get("/readyz") {
        answer if answer.status == 503 => Ok(answer.body),
        answer => Err(answer.body),
    });
    etcd.signal(Signal::CONT);
    assert_eq!(told, [503, 503, 200, 200]);
    assert!(standing.contains("the store has not answered for"), "{standing}");
    for api in [&early, &cluster.api()] {
        eventually("both are ready", || match api.get("/readyz") {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.body),
        });
    }
    let (revision, version) = put(&early, 0, &marker());
    assert_eq!(version_on(&cluster.api(), &revision), Some(version));
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn the_leader_can_be_made_to_step_down_by_any_replica_and_nothing_that_runs_is_touched() {
    let cluster = start(Form::Server);
    let (_second, other) = cluster.another_server();
    let (api, marker) = (cluster.api(), marker());
    put(&api, 1, &marker);
    api.stable("/a", 1);
    let processes = marked(&marker);
    let leader = |api: &Api| api.get("/v2/leader").json()["leader"].as_str().unwrap_or_default().to_owned();
    let first = leader(&other);
    assert!(!first.is_empty());
    eventually("the second stands behind the first", || match candidates(&cluster) {
        2 => Ok(()),
        count => Err(format!("{count} candidates")),
    });
    assert_eq!(other.call("DELETE", "/v2/leader", None).status, 200);
    let second = eventually("another leads", || match leader(&api) {
        now if !now.is_empty() && now != first => Ok(now),
        now => Err(now),
    });
    eventually("it says so itself", || match other.get("/v2/info").json() {
        info if info["elected"] == true && info["leader"] == second => Ok(()),
        info => Err(info.to_string()),
    });
    put(&other, 2, &marker);
    api.stable("/a", 2);
    let now = marked(&marker);
    assert!(processes.iter().all(|process| now.contains(process)), "{processes:?} {now:?}");
}

fn candidates(cluster: &Cluster) -> usize {
    podium_e2e::etcd::keys(&cluster.endpoints.etcd, "/podium/elections/gateway/").len()
}
