//! Conformance: scenarios at the level of a scheduler, played against a real Mesos master and against the embedded one.
//! What the two say must be the same, ids, times and addresses aside, but for what the list of differences holds.

mod client;
mod compare;
mod plain;
mod scenarios;
mod stage;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::mesos::{Agent, Helpers, RealMesos};
use serde_json::json;

use client::Format;
use compare::{Difference, Known, Transcript, differences};
use scenarios::Scenario;
use stage::Stage;

/// Plays one scenario: what was said, and, should it break off, why.
async fn play(scenario: Scenario, address: SocketAddr) -> Transcript {
    let mut stage = Stage::new(address, Format::Json).await;
    let played = AssertUnwindSafe((scenario.1)(&mut stage)).catch_unwind().await;
    if let Err(panic) = played {
        let why = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        stage.told("broken off", json!(why));
    }
    stage.into_transcript()
}

/// Plays all scenarios, one after the other, on both at a time.
async fn compare_all(scenarios: &[Scenario], real: SocketAddr, embedded: SocketAddr) -> BTreeSet<Difference> {
    let mut found = BTreeSet::new();
    for scenario in scenarios {
        let started = std::time::Instant::now();
        let (of_real, of_embedded) = tokio::join!(play(*scenario, real), play(*scenario, embedded));
        found.extend(differences(scenario.0, &of_real, &of_embedded));
        println!("{:6.2} s  {} ({} steps)", started.elapsed().as_secs_f64(), scenario.0, of_real.len());
        keep(scenario.0, "real", &of_real);
        keep(scenario.0, "embedded", &of_embedded);
    }
    found
}

/// For reading: what was said, in the folder that PODIUM_TRANSCRIPTS names.
fn keep(scenario: &str, whose: &str, transcript: &Transcript) {
    let Some(folder) = std::env::var_os("PODIUM_TRANSCRIPTS") else { return };
    let text: String =
        transcript.iter().map(|(step, said)| format!("== {step}\n{}\n", serde_json::to_string_pretty(said).unwrap())).collect();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(std::path::Path::new(&folder).join(format!("{}.{whose}", scenario.replace("::", "."))), text).unwrap();
}

/// What simulated agents offer, and here all others too.
const RESOURCES: &str = "cpus:16;mem:65536;disk:500000;ports:[10000-29999]";

fn agent(hostname: &str) -> Agent {
    Agent { hostname: hostname.to_owned(), attributes: String::new(), resources: RESOURCES.to_owned() }
}

/// Fails unless what differs is what the list holds for these scenarios.
fn judge(scenarios: &[Scenario], real: &RealMesos, embedded: &Cluster) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (real, embedded) = (real.address.parse().unwrap(), embedded.endpoints.mesos.parse().unwrap());
    let found = runtime.block_on(compare_all(scenarios, real, embedded));
    let names: Vec<&str> = scenarios.iter().map(|(name, _)| *name).collect();
    if let Err(why) = Known::read().of(&names).compare(&found) {
        panic!("{why}");
    }
}

/// The settings of `podium dev` for both: no controllers, and a real master's pace.
const LIKE_A_REAL_MASTER: [&str; 4] = ["--controllers", "none", "--mesos-allocation-interval", "1s"];

#[test]
fn the_embedded_master_answers_as_the_real_one_but_for_what_is_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let real = RealMesos::start(folder.path(), &[agent("simulated-0"), agent("simulated-1")], Helpers::None, &[]);
    let options = [&LIKE_A_REAL_MASTER[..], &["--simulate", "--agents", "2"]].concat();
    let embedded = Cluster::start(Form::Dev, podium_e2e::binary::podium(false), &options);
    judge(scenarios::MASTER, &real, &embedded);
}

#[test]
fn tasks_live_on_the_embedded_agent_as_on_the_real_one_but_for_what_is_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let binary = podium_e2e::binary::podium(false);
    let real = RealMesos::start(folder.path(), &[agent("localhost")], Helpers::Podium(binary), &[]);
    let embedded = Cluster::start(Form::Dev, binary, &[&LIKE_A_REAL_MASTER[..], &["--agent-resources", RESOURCES]].concat());
    judge(scenarios::AGENT, &real, &embedded);
}

#[test]
fn every_difference_on_the_list_is_one_of_a_scenario() {
    let names: Vec<&str> = scenarios::MASTER.iter().chain(scenarios::AGENT).map(|(name, _)| *name).collect();
    let known = Known::read();
    assert_eq!(known.of(&names).len(), known.len(), "the list names a scenario that there is not");
}
