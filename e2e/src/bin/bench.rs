//! The benchmark: builds `podium` in the release profile, measures it whole, and prints a table.
//!
//! Each figure stands beside something plain measured in the same run (a bare `sleep`, a plain put to the same
//! store), since machines differ and have moods: compare the ratios first. What was simulated says so.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Table, presets};
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::{cpu_seconds, marked, memory};
use podium_e2e::{binary, etcd};
use serde_json::{Value, json};

/// Measures Podium on this machine and prints its figures as a table.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p podium-e2e --bin bench -- --only start,first")]
struct Options {
    /// Only these: start, first, thousand, simulated, idle.
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
}

fn figure(what: impl Into<String>, measured: impl Into<String>, aim: &str, beside: impl Into<String>) -> Figure {
    Figure { what: what.into(), measured: measured.into(), aim: aim.to_owned(), beside: beside.into() }
}

type Measurement = fn(&Path, &Options) -> Vec<Figure>;

const MEASUREMENTS: &[(&str, Measurement)] =
    &[("start", start_to_ready), ("first", first_process), ("thousand", thousand_instances), ("simulated", simulated), ("idle", idle)];

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) = options.only.iter().find(|name| !MEASUREMENTS.iter().any(|(known, _)| known == name)) {
        eprintln!("no measurement is called '{unknown}': start, first, thousand, simulated, idle");
        return ExitCode::from(2);
    }
    eprintln!("building podium in the release profile …");
    let podium = binary::podium(true);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["figure", "measured", "aim", "beside it, in the same run"]);
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| options.only.is_empty() || options.only.iter().any(|only| only == name)) {
        eprintln!("measuring: {name} …");
        for figure in measure(podium, &options) {
            table.add_row([figure.what, figure.measured, figure.aim, figure.beside]);
        }
    }
    println!("{table}");
    println!("One machine of {} cores; store, engine, controllers, API and containers all on it.", cores());
    ExitCode::SUCCESS
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
    vec![figure("podium dev: start to ready, median of 7", millis(ready), "< 300 ms", format!("podium --version: {}", millis(plain)))]
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
    vec![figure(
        "POST (by curl) to the container's first command, median of 7",
        millis(first),
        "< 250 ms",
        format!("a put by etcdctl: {}", millis(plain)),
    )]
}

/// One pod of many real instances: up, its memory, and down.
fn thousand_instances(podium: &Path, options: &Options) -> Vec<Figure> {
    let count = options.instances;
    let bare = bare_sleeps(count);
    let cluster = Cluster::start(Form::Dev, podium, &[]);
    let marker = marker();
    let before = memory(cluster.dev.id());
    let start = Instant::now();
    cluster.api().create(&sleeping_pod("/thousand", count, &marker));
    cluster.api().stable("/thousand", count);
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
    let beside = format!("{count} bare sleeps: {}", seconds(bare));
    vec![
        figure(format!("{count} real instances up (POST to STABLE)"), seconds(up), "5 s", &beside),
        figure(format!("{count} real instances down (DELETE to the last process)"), seconds(down), "2 s", &beside),
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
fn bare_sleeps(count: usize) -> Duration {
    let start = Instant::now();
    let mut sleeps: Vec<_> = (0..count).filter_map(|_| Command::new("sleep").arg("100000").stdin(Stdio::null()).spawn().ok()).collect();
    let up = start.elapsed();
    for sleep in &mut sleeps {
        let _ = sleep.kill();
        let _ = sleep.wait();
    }
    up
}

/// One pod of 500 simulated instances: agents that are timers, everything else real.
fn simulated(podium: &Path, _: &Options) -> Vec<Figure> {
    let cluster = Cluster::start(Form::Dev, podium, &["--simulate", "--agents", "10"]);
    let start = Instant::now();
    cluster.api().create(&sleeping_pod("/simulated", 500, &marker()));
    cluster.api().stable("/simulated", 500);
    let up = start.elapsed();
    let start = Instant::now();
    let puts = 20;
    for i in 0..puts {
        etcd::ctl(&cluster.endpoints.etcd, &["put", "/bench/plain", &i.to_string()]);
    }
    let plain = start.elapsed() / puts;
    vec![figure("500 SIMULATED instances of one pod running", seconds(up), "1.5 s", format!("a put by etcdctl: {}", millis(plain)))]
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
