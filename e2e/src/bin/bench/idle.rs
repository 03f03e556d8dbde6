//! A cluster at rest.

use std::path::Path;
use std::time::{Duration, Instant};

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::etcd;
use podium_e2e::process::{cpu_seconds, memory};
use serde_json::Value;

use crate::Options;
use crate::figure::{Figure, figure, mebibytes};
use crate::pod::{marker, sleeping_pod};

/// 100 pods at rest: what is written, and what the process takes.
pub(crate) fn idle(podium: &Path, options: &Options) -> Vec<Figure> {
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
