//! How long a start takes: of `podium dev`, fresh and filled, and of the first process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::etcd;
use serde_json::json;

use crate::Options;
use crate::figure::{Figure, figure, median, millis};
use crate::pod::{marker, sleeping_pod};

/// From the start of the process to its ready line, on a fresh folder each time.
pub(crate) fn to_ready(podium: &Path, _: &Options) -> Vec<Figure> {
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
pub(crate) fn on_a_filled_folder(podium: &Path, _: &Options) -> Vec<Figure> {
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
pub(crate) fn first_process(podium: &Path, _: &Options) -> Vec<Figure> {
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
