//! A large cluster: everything is real but the agents, which are timers.

use std::path::Path;
use std::time::{Duration, Instant};

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::etcd;

use crate::Options;
use crate::figure::{Figure, figure, millis, rate, seconds};
use crate::pod::{marker, sleeping_pod};

/// What an etcdctl takes, measured so often.
const PUTS: u32 = 20;

/// One pod from its POST until all of its instances run, with the embedded store and with a real etcd.
pub(crate) fn scale(podium: &Path, options: &Options) -> Vec<Figure> {
    [(Form::Dev, "the embedded store"), (Form::Server, "etcd")].map(|(form, store)| pod(podium, options, form, store)).into()
}

fn pod(podium: &Path, options: &Options, form: Form, store: &str) -> Figure {
    let cluster = Cluster::start_simulated(form, podium, options.agents);
    let plain = plain_put(&cluster.endpoints.etcd);
    let count = options.simulated_instances;
    let start = Instant::now();
    cluster.api().create(&sleeping_pod("/scale", count, &marker()));
    cluster.api().deployed();
    let up = start.elapsed();
    cluster.api().stable("/scale", count);
    let what = format!("{count} instances on {} SIMULATED agents, {store}: POST to running", options.agents);
    let beside = format!("a put by etcdctl: {}", millis(plain));
    figure(what, format!("{}, {}", seconds(up), rate(count, up)), ">= 1000/s", beside).ratio(up, plain)
}

fn plain_put(address: &str) -> Duration {
    let start = Instant::now();
    for i in 0..PUTS {
        etcd::ctl(address, &["put", "/bench/plain", &i.to_string()]);
    }
    start.elapsed() / PUTS
}
