//! Many instances of one pod: real ones, and simulated ones.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::etcd;
use podium_e2e::process::{marked, memory};

use crate::Options;
use crate::figure::{Figure, figure, mebibytes, millis, seconds};
use crate::pod::{marker, sleeping_pod};

/// One pod of many real instances: up, its memory, and down.
pub(crate) fn thousand(podium: &Path, options: &Options) -> Vec<Figure> {
    let count = options.instances;
    let (bare_up, bare_down) = bare_processes(count);
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
    let plain = |how: &str, bare| format!("{count} bare sleeps in sandboxes {how}: {}", seconds(bare));
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

/// The same number of `sleep` started and killed by hand, one after the other, each in a sandbox of its own: folders and
/// files as an agent of Mesos lays them. Some file systems take several times as long for these when many files were deleted in the
/// minutes before (ext4 without a journal passes over every number of a file that was freed lately), and then so does Podium.
fn bare_processes(count: usize) -> (Duration, Duration) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = Instant::now();
    let mut processes: Vec<_> = (0..count).filter_map(|number| bare_process(&folder.path().join(number.to_string())).ok()).collect();
    let up = start.elapsed();
    assert_eq!(processes.len(), count, "each starts");
    let start = Instant::now();
    for process in &mut processes {
        let _ = process.kill();
        let _ = process.wait();
    }
    (up, start.elapsed())
}

fn bare_process(executor: &Path) -> io::Result<Child> {
    let run = executor.join("runs/1");
    let container = run.join("containers/1");
    fs::create_dir_all(&container)?;
    fs::create_dir(run.join("tasks"))?;
    symlink(&run, executor.join("runs/latest"))?;
    symlink(&container, run.join("tasks/1"))?;
    for log in ["stdout", "stderr"] {
        File::create(run.join(log))?;
    }
    let [out, err] = ["stdout", "stderr"].map(|log| File::create(container.join(log)));
    Command::new("sleep").arg("100000").current_dir(&container).stdin(Stdio::null()).stdout(out?).stderr(err?).spawn()
}

/// One pod of 500 simulated instances: agents that are timers, everything else real.
pub(crate) fn simulated(podium: &Path, _: &Options) -> Vec<Figure> {
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
