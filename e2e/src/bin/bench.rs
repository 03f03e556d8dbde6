//! The benchmark: builds `podium` in the release profile, measures it whole, and prints a table.
//!
//! Each figure stands beside something plain measured in the same run (a bare `sleep`, a plain put to the same
//! store), since machines differ and have moods: compare the ratios first. What was simulated says so in its first column.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Table, presets};
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::{cpu_seconds, marked, memory};
use podium_e2e::{binary, etcd};
use podium_mesos::matching;
use podium_proto::mesos::v1;
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_types::definition;
use serde_json::{Value, json};

/// Measures Podium on this machine and prints its figures as a table.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p podium-e2e --bin bench -- --only start,first")]
struct Options {
    /// Only these: start, filled, first, thousand, simulated, matching, idle.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Real instances in the large pod.
    #[arg(long, default_value_t = 1000)]
    instances: usize,
    /// Seconds during which an idle cluster is watched.
    #[arg(long, default_value_t = 20)]
    idle_seconds: u64,
}

/// One line of the table.
struct Figure {
    what: String,
    measured: String,
    aim: String,
    beside: String,
    /// The measured over what stands beside it.
    ratio: String,
}

fn figure(what: impl Into<String>, measured: impl Into<String>, aim: &str, beside: impl Into<String>) -> Figure {
    Figure { what: what.into(), measured: measured.into(), aim: aim.to_owned(), beside: beside.into(), ratio: String::new() }
}

impl Figure {
    fn ratio(self, measured: Duration, plain: Duration) -> Self {
        let ratio = measured.as_secs_f64() / plain.as_secs_f64().max(f64::EPSILON);
        Self { ratio: if ratio < 10.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }, ..self }
    }
}

type Measurement = fn(&Path, &Options) -> Vec<Figure>;

const MEASUREMENTS: &[(&str, Measurement)] = &[
    ("start", start_to_ready),
    ("filled", start_on_a_filled_folder),
    ("first", first_process),
    ("thousand", thousand_instances),
    ("simulated", simulated),
    ("matching", matching_alone),
    ("idle", idle),
];

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) = options.only.iter().find(|name| !MEASUREMENTS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        eprintln!("no measurement is called '{unknown}': {}", known.join(", "));
        return ExitCode::from(2);
    }
    eprintln!("building podium in the release profile …");
    let podium = binary::podium(true);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["figure", "measured", "aim", "beside it, in the same run", "ratio"]);
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| options.only.is_empty() || options.only.iter().any(|only| only == name)) {
        eprintln!("measuring: {name} …");
        for figure in measure(podium, &options) {
            table.add_row([figure.what, figure.measured, figure.aim, figure.beside, figure.ratio]);
        }
    }
    println!("{table}");
    println!("One machine of {} cores, load {} at the end; store, engine, controllers, API and containers all on it.", cores(), load());
    ExitCode::SUCCESS
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How busy the machine was in the last minute: what else ran beside the measurements shows in it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn sleeping_pod(id: &str, instances: usize, marker: &str) -> Value {
    let (name, value) = marker.split_once('=').unwrap_or((marker, ""));
    json!({
        "id": id,
        "environment": {name: value},
        "scaling": {"kind": "fixed", "instances": instances},
        "containers": [{"name": "sleep", "exec": {"command": {"shell": "exec sleep 100000"}}, "resources": {"cpus": 0.1, "mem": 32}}],
        "networks": [{"mode": "host"}]
    })
}

fn marker() -> String {
    format!("PODIUM_BENCH={}", uuid::Uuid::new_v4())
}

/// From the start of the process to its ready line, on a fresh folder each time.
fn start_to_ready(podium: &Path, _: &Options) -> Vec<Figure> {
    let version = |_| {
        let start = Instant::now();
        let _ = Command::new(podium).arg("--version").stdout(Stdio::null()).status();
        start.elapsed()
    };
    let started = |_| {
        let start = Instant::now();
        let mut cluster = Cluster::start(Form::Dev, podium, &[]);
        let ready = start.elapsed();
        cluster.interrupt();
        ready
    };
    let plain = median((0..7).map(version).collect());
    let ready = median((0..7).map(started).collect());
    let beside = format!("podium --version: {}", millis(plain));
    vec![figure("podium dev: start to ready, median of 7", millis(ready), "< 300 ms", beside).ratio(ready, plain)]
}

/// From the start of the process to its ready line after a `kill -9`, with a history of 20,000 versions of 1 KB to read.
fn start_on_a_filled_folder(podium: &Path, _: &Options) -> Vec<Figure> {
    const VERSIONS: usize = 20_000;
    let mut cluster = Cluster::start(Form::Dev, podium, &[]);
    let mut again = || {
        cluster.kill();
        let start = Instant::now();
        cluster.restart();
        start.elapsed()
    };
    let empty = median((0..5).map(|_| again()).collect());
    etcd::fill(&cluster.endpoints.etcd, VERSIONS, 1024);
    let mut again = || {
        cluster.kill();
        let start = Instant::now();
        cluster.restart();
        start.elapsed()
    };
    let filled = median((0..5).map(|_| again()).collect());
    let what = format!("podium dev: kill -9 to ready again, {VERSIONS} versions of 1 KB kept, median of 5");
    vec![figure(what, millis(filled), "< 300 ms", format!("the same, nearly empty: {}", millis(empty))).ratio(filled, empty)]
}

/// From sending the POST to the first instruction of the container's shell.
fn first_process(podium: &Path, _: &Options) -> Vec<Figure> {
    let cluster = Cluster::start(Form::Dev, podium, &[]);
    let put = |i: usize| {
        let start = Instant::now();
        etcd::ctl(&cluster.endpoints.etcd, &["put", "/bench/plain", &i.to_string()]);
        start.elapsed()
    };
    let plain = median((0..7).map(put).collect());
    let first = |i: usize| {
        let file = cluster.folder().join(format!("started-{i}"));
        let mut pod = sleeping_pod(&format!("/first-{i}"), 1, &marker());
        pod["containers"][0]["exec"]["command"]["shell"] =
            json!(format!("date +%s%N > {}.tmp; mv {0}.tmp {0}; exec sleep 100000", file.display()));
        let start = std::time::SystemTime::now();
        cluster.api().create(&pod);
        let written = podium_e2e::wait::eventually("the container wrote when it began", || {
            std::fs::read_to_string(&file).map_err(|error| error.to_string())
        });
        let began = Duration::from_nanos(written.trim().parse().unwrap_or(0));
        began.saturating_sub(start.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
    };
    let first = median((0..7).map(first).collect());
    vec![
        figure(
            "POST (by curl) to the container's first command, median of 7",
            millis(first),
            "< 250 ms",
            format!("a put by etcdctl: {}", millis(plain)),
        )
        .ratio(first, plain),
    ]
}

/// One pod of many real instances: up, its memory, and down.
fn thousand_instances(podium: &Path, options: &Options) -> Vec<Figure> {
    let count = options.instances;
    let (bare_up, bare_down) = bare_sleeps(count);
    let cluster = Cluster::start(Form::Dev, podium, &[]);
    let marker = marker();
    let before = memory(cluster.dev.id());
    let start = Instant::now();
    cluster.api().create(&sleeping_pod("/thousand", count, &marker));
    cluster.api().settled("/thousand", count);
    let up = start.elapsed();
    let running = marked(&marker);
    assert_eq!(running.len(), count, "each instance is one real process");
    let executors = podium_e2e::process::children(cluster.dev.id());
    let executor_memory: u64 = executors.iter().map(|pid| memory(*pid)).sum::<u64>() / executors.len().max(1) as u64;
    let dev_memory = memory(cluster.dev.id());
    let start = Instant::now();
    let deleted = cluster.api().call("DELETE", "/v2/pods/thousand", None);
    assert_eq!(deleted.status, 202, "{}", deleted.body);
    podium_e2e::wait::eventually("every process is gone", || {
        // A look at all of /proc takes a while: the processes known are asked first.
        match running.iter().find(|seen| Path::new(&format!("/proc/{}", seen.pid)).exists()) {
            None => Ok(()),
            Some(seen) => Err(format!("{seen:?}")),
        }
    });
    let down = start.elapsed();
    let plain = |how: &str, bare| format!("{count} bare sleeps {how}: {}", seconds(bare));
    vec![
        figure(format!("{count} real instances up (POST to STABLE)"), seconds(up), "5 s", plain("up", bare_up)).ratio(up, bare_up),
        figure(format!("{count} real instances down (DELETE to the last process)"), seconds(down), "2 s", plain("down", bare_down))
            .ratio(down, bare_down),
        figure(
            "memory of one executor (its share of shared pages included)",
            mebibytes(executor_memory),
            "",
            format!("{} executors", executors.len()),
        ),
        figure("memory of podium dev, before and with them", format!("{} and {}", mebibytes(before), mebibytes(dev_memory)), "", ""),
    ]
}

/// The same number of `sleep` started and killed by hand, one after the other.
fn bare_sleeps(count: usize) -> (Duration, Duration) {
    let start = Instant::now();
    let mut sleeps: Vec<_> = (0..count).filter_map(|_| Command::new("sleep").arg("100000").stdin(Stdio::null()).spawn().ok()).collect();
    let up = start.elapsed();
    let start = Instant::now();
    for sleep in &mut sleeps {
        let _ = sleep.kill();
        let _ = sleep.wait();
    }
    (up, start.elapsed())
}

/// One pod of 500 simulated instances: agents that are timers, everything else real.
fn simulated(podium: &Path, _: &Options) -> Vec<Figure> {
    let cluster = Cluster::start(Form::Dev, podium, &["--simulate", "--agents", "10"]);
    let start = Instant::now();
    cluster.api().create(&sleeping_pod("/simulated", 500, &marker()));
    cluster.api().settled("/simulated", 500);
    let up = start.elapsed();
    let start = Instant::now();
    let puts = 20;
    for i in 0..puts {
        etcd::ctl(&cluster.endpoints.etcd, &["put", "/bench/plain", &i.to_string()]);
    }
    let plain = start.elapsed() / puts;
    let beside = format!("a put by etcdctl: {}", millis(plain));
    vec![figure("500 SIMULATED instances of one pod running", seconds(up), "1.5 s", beside).ratio(up, plain)]
}

/// Matching as a function, without anything around it: 10,000 waiting instances and 5,000 offers of 50 racks.
fn matching_alone(_: &Path, _: &Options) -> Vec<Figure> {
    const INSTANCES: u128 = 10_000;
    const OFFERS: usize = 5_000;
    let offers: Vec<v1::Offer> = (0..OFFERS).map(offer).collect();
    let waiting: Vec<uuid::Uuid> = (1..=INSTANCES).map(uuid::Uuid::from_u128).collect();
    let placed = |constraints: Value| {
        let mut pod = sleeping_pod("/matched", 1, "A=b");
        pod["scheduling"] = json!({"placement": {"constraints": constraints}});
        let reading = definition::read(pod.to_string().as_bytes(), &definition::Settings::default()).expect("the pod is valid");
        let group = matching::Group { definition: &reading.definition, role: "*", waiting: &waiting, counted: &[] };
        let start = Instant::now();
        let mut slots = matching::slots(&offers);
        let placed = matching::place(&mut slots, &[group], &matching::Rules::default());
        (start.elapsed(), placed.len())
    };
    let (plain, all) = placed(json!([]));
    let (constrained, within) = placed(json!([{"fieldName": "rack", "operator": "MAX_PER", "value": "200"}]));
    assert_eq!((all, within), (10_000, 10_000), "all are placed: 50 racks of at most 200");
    let what = |how: &str| format!("matching alone: {INSTANCES} instances onto {OFFERS} MADE-UP offers, {how}");
    vec![
        figure(what("no constraint"), millis(plain), "", ""),
        figure(what("at most 200 a rack"), millis(constrained), "", format!("without it: {}", millis(plain))).ratio(constrained, plain),
    ]
}

/// An offer of an agent of its own, which has room for four instances.
fn offer(agent: usize) -> v1::Offer {
    let text = |text: String| Some(v1::value::Text { value: text });
    v1::Offer {
        id: v1::OfferId { value: format!("offer-{agent}") },
        framework_id: v1::FrameworkId { value: "bench".into() },
        agent_id: v1::AgentId { value: format!("agent-{agent:05}") },
        hostname: format!("host-{agent}"),
        allocation_info: Some(v1::resource::AllocationInfo { role: Some("*".into()) }),
        attributes: vec![v1::Attribute {
            name: "rack".into(),
            r#type: v1::value::Type::Text.into(),
            text: text(format!("rack-{}", agent % 50)),
            ..Default::default()
        }],
        resources: vec![
            scalar_entry("cpus", 800),
            scalar_entry("mem", 1_000_000),
            scalar_entry("disk", 1_000_000),
            ranges_entry("ports", &std::iter::once(31_000..=31_100).collect()),
        ],
        ..Default::default()
    }
}

/// 100 pods at rest: what is written, and what the process takes.
fn idle(podium: &Path, options: &Options) -> Vec<Figure> {
    let cluster = Cluster::start(Form::Dev, podium, &[]);
    for i in 0..100 {
        cluster.api().create(&sleeping_pod(&format!("/idle-{i}"), 1, &marker()));
    }
    for i in 0..100 {
        cluster.api().stable(&format!("/idle-{i}"), 1);
    }
    // Statuses are written at most twice a second: the last of them is out before the watch begins.
    std::thread::park_timeout(Duration::from_secs(3));
    let revision = || {
        let output = etcd::ctl(&cluster.endpoints.etcd, &["get", "--write-out=json", "/podium/none"]);
        serde_json::from_slice::<Value>(&output.stdout).ok().and_then(|answer| answer["header"]["revision"].as_i64()).unwrap_or(-1)
    };
    let (writes, cpu) = (revision(), cpu_seconds(cluster.dev.id()));
    let start = Instant::now();
    std::thread::park_timeout(Duration::from_secs(options.idle_seconds));
    let (writes, cpu) = (revision() - writes, cpu_seconds(cluster.dev.id()) - cpu);
    let share = 100.0 * cpu / start.elapsed().as_secs_f64();
    let during = format!("during {} s", options.idle_seconds);
    vec![
        figure("idle, 100 pods: writes but keep-alives", writes.to_string(), "0", &during),
        figure("idle, 100 pods: podium dev, share of a core", format!("{share:.2} %"), "< 1 %", &during),
        figure("idle, 100 pods: podium dev, memory", mebibytes(memory(cluster.dev.id())), "60 MB", ""),
    ]
}
