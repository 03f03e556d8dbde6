//! How soon the status tells of a container's end: of one that died while Podium was dead, and of one that dies after.

use std::path::Path;
use std::time::{Duration, Instant};

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::process::{marked_running, signal_process};
use podium_e2e::wait::eventually;
use rustix::process::Signal;

use crate::Options;
use crate::figure::{Figure, figure, median, millis};
use crate::pod::{marker, sleeping_pod};

const ROUNDS: usize = 5;

/// `podium dev` is killed with -9 and started again, `ROUNDS` times; each time one container dies in between and one after.
pub(crate) fn reported(podium: &Path, _: &Options) -> Vec<Figure> {
    let mut cluster = Cluster::start(Form::Dev, podium, &[]);
    let (mut meanwhile, mut later, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (gone, alive) = (ending_pod(&cluster, round, "meanwhile", 42), ending_pod(&cluster, round, "later", 43));
        cluster.kill();
        signal_process(gone.1, Signal::KILL);
        let start = Instant::now();
        cluster.restart();
        meanwhile.push(told(&cluster, &gone.0, "status 42", start));
        let start = Instant::now();
        signal_process(alive.1, Signal::KILL);
        later.push(told(&cluster, &alive.0, "status 43", start));
        let start = Instant::now();
        let _ = cluster.api().status(&alive.0);
        plain.push(start.elapsed());
    }
    let plain = median(plain);
    let line = |what: &str, measured: Vec<Duration>| {
        let (worst, measured) = (measured.iter().max().copied().unwrap_or_default(), median(measured));
        let what = format!("{what}, until the status tells its exit code, median of {ROUNDS} (worst {})", millis(worst));
        figure(what, millis(measured), "< 1 s", format!("one GET of a status by curl: {}", millis(plain))).ratio(measured, plain)
    };
    vec![
        line("a container died while podium dev was dead: from the start of the next", meanwhile),
        line("a container killed after that restart", later),
    ]
}

/// A pod whose shell ends with `code` when its `sleep` is killed, and the id of that process.
fn ending_pod(cluster: &Cluster, round: usize, name: &str, code: u32) -> (String, u32) {
    let (id, marker) = (format!("/{name}-{round}"), marker());
    let mut pod = sleeping_pod(&id, 1, &marker);
    pod["containers"][0]["exec"]["command"]["shell"] = format!("sleep 100000; exit {code}").into();
    cluster.api().create(&pod);
    cluster.api().stable(&id, 1);
    let pid = eventually("its process", || match marked_running(&marker, "sleep 100000")[..] {
        [pid] => Ok(pid),
        ref other => Err(format!("{other:?}")),
    });
    (id, pid)
}

fn told(cluster: &Cluster, id: &str, words: &str, since: Instant) -> Duration {
    eventually(words, || {
        let status = cluster.api().status(id)?.to_string();
        if status.contains(words) { Ok(since.elapsed()) } else { Err(status) }
    })
}
