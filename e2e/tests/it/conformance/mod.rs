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
use std::time::Duration;

use futures_util::FutureExt as _;
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::mesos::{Agent, Helpers, RealMesos};
use podium_engine::simulated::SimulatedAgents;
use podium_engine::{Agents, Engine, Pace, Settings};

use client::Format;
use compare::{Difference, Known, Transcript, differences};
use scenarios::Scenario;
use stage::{Saw, Stage};

/// Plays one scenario: what was said. Should it break off, the place keeps why.
async fn play(scenario: Scenario, place: &mut Place) -> Transcript {
    let mut stage = Stage::new(place.address, Format::Json).await.with_saw(place.saw.take());
    let played = AssertUnwindSafe((scenario.1)(&mut stage)).catch_unwind().await;
    if let Err(panic) = played {
        let why = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        place.broken.push(format!("{} at {}: {}", scenario.0, place.address, why.unwrap_or_default()));
    }
    place.saw = stage.saw.take();
    stage.into_transcript()
}

/// A master, and what can be done to its agents.
struct Place {
    address: SocketAddr,
    saw: Option<Saw>,
    /// The scenarios that were not played to their end here.
    broken: Vec<String>,
}

impl From<&str> for Place {
    fn from(address: &str) -> Self {
        Self { address: address.parse().unwrap(), saw: None, broken: Vec::new() }
    }
}

/// Plays all scenarios, one after the other, on both at a time. One that breaks off has shown nothing, even where both sides do.
async fn compare_all(scenarios: &[Scenario], mut real: Place, mut embedded: Place) -> BTreeSet<Difference> {
    let mut found = BTreeSet::new();
    for scenario in scenarios {
        let started = std::time::Instant::now();
        let (of_real, of_embedded) = tokio::join!(play(*scenario, &mut real), play(*scenario, &mut embedded));
        found.extend(differences(scenario.0, &of_real, &of_embedded));
        println!("{:6.2} s  {} ({} steps)", started.elapsed().as_secs_f64(), scenario.0, of_real.len());
        keep(scenario.0, "real", &of_real);
        keep(scenario.0, "embedded", &of_embedded);
    }
    let broken = [real.broken, embedded.broken].concat();
    assert!(broken.is_empty(), "scenarios broke off:\n{}", broken.join("\n"));
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
    Agent { hostname: hostname.to_owned(), resources: RESOURCES.to_owned(), ..Agent::new(1) }
}

/// Fails unless what differs is what the list holds for these scenarios.
fn judge(scenarios: &[Scenario], real: &RealMesos, embedded: &Cluster) {
    let (real, embedded) = (Place::from(real.address.as_str()), Place::from(embedded.endpoints.mesos.as_str()));
    let found = runtime().block_on(compare_all(scenarios, real, embedded));
    let names: Vec<&str> = scenarios.iter().map(|(name, _)| *name).collect();
    judge_found(&names, &found);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn judge_found(names: &[&str], found: &BTreeSet<Difference>) {
    if let Err(why) = Known::read().of(names).compare(found) {
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

/// Lost soon, but not for a slow machine's sake.
const SOON_LOST: &[(&str, &str)] = &[("agent_ping_timeout", "1secs"), ("max_agent_ping_timeouts", "3")];

#[test]
fn lost_agents_are_told_of_by_both_masters_alike_but_for_what_is_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let agents = [0, 1, 2, 3, 4].map(|number| agent(&format!("simulated-{number}")));
    let real = RealMesos::start(folder.path(), &agents, Helpers::Podium(podium_e2e::binary::podium(false)), SOON_LOST);
    let runtime = runtime();
    let embedded = runtime.block_on(engine(&folder.path().join("embedded"), agents.len()));
    let saws = [Saw::Real(real.process.as_ref().unwrap().id()), Saw::Embedded(embedded.simulation().unwrap(), agents.len())];
    let [saw, other_saw] = saws.map(Some);
    let places = (
        Place { saw, ..Place::from(real.address.as_str()) },
        Place { saw: other_saw, ..Place::from(embedded.address().to_string().as_str()) },
    );
    let found = runtime.block_on(compare_all(scenarios::LOSS, places.0, places.1));
    runtime.block_on(embedded.shutdown());
    let names: Vec<&str> = scenarios::LOSS.iter().map(|(name, _)| *name).collect();
    judge_found(&names, &found);
}

/// The embedded engine in this process, at a real master's pace.
async fn engine(folder: &std::path::Path, count: usize) -> Engine {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings { pace: Pace::every(Duration::from_secs(1)), ..Settings::default() };
    let agents = Agents::Simulated(SimulatedAgents { count, ..SimulatedAgents::default() });
    Engine::start(podium_engine::Config { listener, data_dir: folder.to_owned(), agents, settings }).await.unwrap()
}

#[test]
fn a_master_that_was_killed_says_the_same_of_what_ran_on_but_for_what_is_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let binary = podium_e2e::binary::podium(false);
    let patient = [("executor_reregistration_timeout", "15secs")];
    let mut real = RealMesos::start(folder.path(), &[agent("localhost")], Helpers::Podium(binary), &patient);
    let mut embedded = Cluster::start(Form::Dev, binary, &[&LIKE_A_REAL_MASTER[..], &["--agent-resources", RESOURCES]].concat());
    let runtime = runtime();
    let addresses = |real: &RealMesos, embedded: &Cluster| [real.address.parse().unwrap(), embedded.endpoints.mesos.parse().unwrap()];
    let [of_real, of_embedded]: [SocketAddr; 2] = addresses(&real, &embedded);
    let (of_real, of_embedded) = runtime.block_on(async {
        let stages = tokio::join!(Stage::new(of_real, Format::Json), Stage::new(of_embedded, Format::Json));
        tokio::join!(scenarios::before(stages.0), scenarios::before(stages.1))
    });
    std::thread::scope(|scope| {
        scope.spawn(|| real.restart(1));
        embedded.kill();
        embedded.restart();
    });
    let [real_now, embedded_now] = addresses(&real, &embedded);
    let (of_real, of_embedded) = runtime.block_on(async {
        let stages = tokio::join!(scenarios::after(of_real, real_now), scenarios::after(of_embedded, embedded_now));
        (stages.0.into_transcript(), stages.1.into_transcript())
    });
    keep(scenarios::FAILOVER, "real", &of_real);
    keep(scenarios::FAILOVER, "embedded", &of_embedded);
    judge_found(&[scenarios::FAILOVER], &differences(scenarios::FAILOVER, &of_real, &of_embedded).into_iter().collect());
}

#[test]
fn a_master_that_was_killed_knows_as_the_real_one_what_operators_have_said_but_for_what_is_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let agents = [0, 1, 2, 3, 4].map(|number| agent(&format!("simulated-{number}")));
    let mut real = RealMesos::start(folder.path(), &agents, Helpers::None, SOON_LOST);
    let runtime = runtime();
    let of_embedded = folder.path().join("embedded");
    let embedded = runtime.block_on(engine(&of_embedded, agents.len()));
    let stages = runtime.block_on(async {
        let saws = [Saw::Real(real.process.as_ref().unwrap().id()), Saw::Embedded(embedded.simulation().unwrap(), agents.len())];
        let [saw, other_saw] = saws.map(Some);
        let stages = tokio::join!(Stage::new(real.address.parse().unwrap(), Format::Json), Stage::new(embedded.address(), Format::Json));
        let stages = (stages.0.with_saw(saw), stages.1.with_saw(other_saw));
        tokio::join!(scenarios::operators_before(stages.0), scenarios::operators_before(stages.1))
    });
    real.restart_but(agents.len(), 1);
    let (of_real, of_embedded) = runtime.block_on(async {
        embedded.shutdown().await;
        let embedded = engine(&of_embedded, agents.len()).await;
        let real_now = real.address.parse().unwrap();
        let stages = tokio::join!(scenarios::operators_after(stages.0, real_now), scenarios::operators_after(stages.1, embedded.address()));
        embedded.shutdown().await;
        (stages.0.into_transcript(), stages.1.into_transcript())
    });
    keep(scenarios::OPERATORS, "real", &of_real);
    keep(scenarios::OPERATORS, "embedded", &of_embedded);
    judge_found(&[scenarios::OPERATORS], &differences(scenarios::OPERATORS, &of_real, &of_embedded).into_iter().collect());
}

/// So many entries the list has. Who mends one takes it off, and lowers this number. It is never raised: what is new has to be
/// mended in the embedded master, or left out of it with the words that a real one would find.
const ENTRIES: usize = 44;

#[test]
fn the_list_of_differences_only_shrinks() {
    let entries = Known::read().len();
    assert!(entries <= ENTRIES, "the list of differences has grown from {ENTRIES} to {entries} entries: mend the embedded master instead");
    assert!(entries == ENTRIES, "the list has shrunk: lower ENTRIES in {} from {ENTRIES} to {entries}, so that it stays so", file!());
}

#[test]
fn every_difference_on_the_list_is_one_of_a_scenario() {
    let played = [scenarios::MASTER, scenarios::AGENT, scenarios::LOSS].concat();
    let names: Vec<&str> = played.iter().map(|(name, _)| *name).chain([scenarios::FAILOVER, scenarios::OPERATORS]).collect();
    let known = Known::read();
    assert_eq!(known.of(&names).len(), known.len(), "the list names a scenario that there is not");
}
