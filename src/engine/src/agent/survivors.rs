//! Ends an instance: every process that carries its marker, its executor among them if that still runs, and all that descends from
//! one. All of `/proc` has to be read for that, so whatever is asked for meanwhile shares the next reading.
//!
//! What has cleared its environment is found as long as its executor runs, which adopts orphans; or another process that started it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use crate::executor::processes;

/// How long the killing is tried. Only a process that the kernel itself holds can take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two readings.
const PAUSE: Duration = Duration::from_millis(10);

struct Wanted {
    marker: String,
    until: Instant,
    done: oneshot::Sender<()>,
}

/// The way to the one task that reads `/proc`.
#[derive(Debug, Clone)]
pub(super) struct Survivors(mpsc::Sender<(String, oneshot::Sender<()>)>);

impl Survivors {
    pub fn start() -> Survivors {
        let (requests, queue) = mpsc::channel(1024);
        tokio::spawn(serve(queue));
        Survivors(requests)
    }

    /// Kills every process whose marker is `marker` or lies below it; returns when there is none left.
    pub async fn end(&self, marker: String) {
        let (done, ended) = oneshot::channel();
        if self.0.send((marker, done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

async fn serve(mut queue: mpsc::Receiver<(String, oneshot::Sender<()>)>) {
    let mut wanted: Vec<Wanted> = Vec::new();
    loop {
        if wanted.is_empty() {
            let Some((marker, done)) = queue.recv().await else { return };
            wanted.push(Wanted { marker, until: Instant::now() + PATIENCE, done });
        }
        while let Ok((marker, done)) = queue.try_recv() {
            wanted.push(Wanted { marker, until: Instant::now() + PATIENCE, done });
        }
        let markers = wanted.iter().map(|wanted| wanted.marker.clone()).collect();
        let Ok(found) = tokio::task::spawn_blocking(move || round(markers)).await else { return };
        let now = Instant::now();
        let mut left = Vec::new();
        for wanted in wanted {
            let count = found.get(&wanted.marker).copied().unwrap_or(0);
            if count > 0 && now < wanted.until {
                left.push(wanted);
                continue;
            }
            if count > 0 {
                tracing::error!(marker = wanted.marker, count, "processes of an instance cannot be killed");
            }
            let _ = wanted.done.send(());
        }
        wanted = left;
        if !wanted.is_empty() {
            sleep(PAUSE).await;
        }
    }
}

/// One reading: kills what is found, and says how many of each there were.
fn round(markers: Vec<String>) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    let mut doomed = HashSet::new();
    for (pid, value) in processes::marked() {
        for marker in markers.iter().filter(|marker| processes::covers(marker, &value)) {
            doomed.insert(pid);
            doomed.extend(processes::descendants(pid));
            *found.entry(marker.clone()).or_insert(0) += 1;
        }
    }
    // Not before all are known: what has lost its parent is found no more.
    doomed.into_iter().for_each(processes::kill);
    found
}
