//! Removes the sandboxes of ended executors: those that ended long ago, and the oldest where there are too many, so
//! that a pod that crashes again and again does not fill the disk.
//!
//! What is kept is known from the folders themselves, and a folder's modification time is the end of its executor:
//! nothing about it has to be recorded, and what a crash has interrupted is found by the next start.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File, FileTimes, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

/// Which sandboxes of ended executors are kept. Those of living ones always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Mesos' `gc_delay`: how long after its executor's end.
    pub gc_delay: Duration,
    /// How many of one pod: of executors whose ids differ only in the uuids and numbers at their ends.
    pub per_pod: usize,
    /// How many in all.
    pub total: usize,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { gc_delay: Duration::from_secs(7 * 24 * 3600), per_pod: 20, total: 1000 }
    }
}

/// The longest time without a look at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// When its executor ended, and the sandbox: `…/executors/<executor id>/runs/<container id>`.
type Run = (SystemTime, PathBuf);

/// The way to the one task that removes.
#[derive(Debug, Clone)]
pub(super) struct Collector(mpsc::UnboundedSender<PathBuf>);

impl Collector {
    /// Begins with what [`scan`] found; removes one sandbox at a time, until the collector is dropped.
    pub fn start(retention: Retention, found: Vec<Run>) -> Collector {
        // Each executor ends once: bounded by what the agent has launched.
        let (collector, ended) = mpsc::unbounded_channel();
        let mut kept = Kept { retention, runs: BTreeSet::new(), pods: HashMap::new(), crowded: BTreeSet::new() };
        found.into_iter().for_each(|run| kept.add(run));
        tokio::spawn(collect(kept, ended));
        Collector(collector)
    }

    /// The executor of this sandbox has ended, and nothing of it is left running.
    pub fn ended(&self, sandbox: PathBuf) {
        let _ = self.0.send(sandbox);
    }
}

async fn collect(mut kept: Kept, mut ended: mpsc::UnboundedReceiver<PathBuf>) {
    loop {
        while let Some(run) = kept.due(SystemTime::now()) {
            if tokio::task::spawn_blocking(move || remove(&run)).await.is_err() {
                return;
            }
        }
        let pause = kept.pause(SystemTime::now());
        tokio::select! {
            sandbox = ended.recv() => match sandbox {
                Some(sandbox) => kept.add_ended(sandbox),
                None => return,
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What is kept, and what no longer. Pure.
struct Kept {
    retention: Retention,
    runs: BTreeSet<Run>,
    pods: HashMap<String, BTreeSet<Run>>,
    /// Pods with more than they may have.
    crowded: BTreeSet<String>,
}

impl Kept {
    /// Notes the end in the folder; one that was never made, or that can't be written to, has nothing to remove.
    fn add_ended(&mut self, sandbox: PathBuf) {
        let now = SystemTime::now();
        match File::open(&sandbox).and_then(|folder| folder.set_times(FileTimes::new().set_modified(now))) {
            Ok(()) => self.add((now, sandbox)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(sandbox = %sandbox.display(), %error, "a sandbox will not be removed before the next start"),
        }
    }

    fn add(&mut self, run: Run) {
        let pod = pod_of(&run.1);
        let runs = self.pods.entry(pod.clone()).or_default();
        runs.insert(run.clone());
        if runs.len() > self.retention.per_pod {
            self.crowded.insert(pod);
        }
        self.runs.insert(run);
    }

    /// Takes out a sandbox that is to be removed.
    fn due(&mut self, now: SystemTime) -> Option<PathBuf> {
        let crowding = self.crowded.first().and_then(|pod| self.pods.get(pod)?.first());
        let oldest = || self.runs.first().filter(|(ended, _)| self.runs.len() > self.retention.total || self.overdue(*ended, now));
        let run = crowding.or_else(oldest)?.clone();
        self.runs.remove(&run);
        let pod = pod_of(&run.1);
        let left = self.pods.get_mut(&pod).map_or(0, |runs| {
            runs.remove(&run);
            runs.len()
        });
        if left <= self.retention.per_pod {
            self.crowded.remove(&pod);
        }
        if left == 0 {
            self.pods.remove(&pod);
        }
        Some(run.1)
    }

    fn overdue(&self, ended: SystemTime, now: SystemTime) -> bool {
        now.duration_since(ended).is_ok_and(|age| age >= self.retention.gc_delay)
    }

    /// How long nothing is due, unless something ends.
    fn pause(&self, now: SystemTime) -> Duration {
        let oldest = self.runs.first().and_then(|(ended, _)| ended.checked_add(self.retention.gc_delay));
        oldest.map_or(LOOK, |at| at.duration_since(now).unwrap_or_default()).clamp(Duration::from_millis(1), LOOK)
    }
}

/// The executor's id without the uuids and numbers at its end.
fn pod_of(sandbox: &Path) -> String {
    let executor = sandbox.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let counts = |part: &str| part.parse::<u64>().is_ok() || uuid::Uuid::try_parse(part).is_ok();
    let mut pod: &str = &executor;
    while let Some((rest, last)) = pod.rsplit_once('.') {
        if !counts(last) {
            break;
        }
        pod = rest;
    }
    pod.to_owned()
}

/// All sandboxes below `frameworks`, those of living executors aside.
pub(super) fn scan(frameworks: &Path, living: &HashSet<PathBuf>) -> Vec<Run> {
    let executors = folders(frameworks).flat_map(|framework| folders(&framework.join("executors")));
    let runs = executors.flat_map(|executor| folders(&executor.join("runs")));
    runs.filter(|run| !living.contains(run)).filter_map(|run| Some((fs::metadata(&run).ok()?.modified().ok()?, run))).collect()
}

/// The folders in a folder; links are none.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(path).ok().into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Removes a sandbox, and the folders around it that are empty then.
fn remove(sandbox: &Path) {
    let removed = fs::remove_dir_all(sandbox).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            unlock(sandbox)?;
            fs::remove_dir_all(sandbox)
        }
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    if let Err(error) = removed {
        tracing::warn!(sandbox = %sandbox.display(), %error, "a sandbox can't be removed; the next start tries again");
        return;
    }
    let Some(runs) = sandbox.parent() else { return };
    let latest = runs.join("latest");
    if fs::read_link(&latest).is_ok_and(|target| target == sandbox) {
        let _ = fs::remove_file(latest);
    }
    // Up to the framework's own folder; the first that is not empty ends it.
    let mut around = runs.ancestors().take(4);
    let _ = around.try_for_each(fs::remove_dir);
}

/// Makes folders writable that a task has left read-only.
pub(super) fn unlock(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    folders(folder).try_for_each(|folder| unlock(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(retention: Retention) -> Kept {
        Kept { retention, runs: BTreeSet::new(), pods: HashMap::new(), crowded: BTreeSet::new() }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn run(executor: &str, seconds: u64) -> Run {
        (at(seconds), PathBuf::from(format!("/executors/{executor}/runs/{seconds}")))
    }

    fn all_due(kept: &mut Kept, now: SystemTime) -> Vec<String> {
        std::iter::from_fn(|| kept.due(now)).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_ended_a_delay_ago_is_due_and_what_ended_since_is_not() {
        let mut kept = kept(Retention { gc_delay: Duration::from_secs(100), per_pod: 9, total: 9 });
        assert_eq!(kept.pause(at(0)), LOOK);
        for seconds in [50, 10, 30] {
            kept.add(run("e", seconds));
        }
        assert_eq!(kept.pause(at(100)), Duration::from_secs(10));
        assert_eq!(all_due(&mut kept, at(130)), ["10", "30"]);
        assert_eq!(all_due(&mut kept, at(0)), [""; 0], "a clock that was set back");
        assert_eq!(kept.pause(at(0)), Duration::from_secs(150));
    }

    #[test]
    fn a_crash_looping_pod_loses_its_oldest_and_no_other_pod_does() {
        let mut kept = kept(Retention { gc_delay: Duration::from_secs(1000), per_pod: 2, total: 9 });
        kept.add(run("instance-quiet.0a0e24cc-55b8-4b4e-a3a6-3c1b36a0d0f0.1", 1));
        for number in 2..=5 {
            kept.add(run(&format!("instance-loop.9f0e24cc-55b8-4b4e-a3a6-3c1b36a0d0f0.{number}"), number));
        }
        assert_eq!(all_due(&mut kept, at(10)), ["2", "3"]);
        assert!(kept.crowded.is_empty());
    }

    #[test]
    fn the_oldest_of_all_pods_goes_when_there_are_too_many() {
        let mut kept = kept(Retention { gc_delay: Duration::from_secs(1000), per_pod: 2, total: 3 });
        for number in 1..=5 {
            kept.add(run(&format!("pod-{number}x"), number));
        }
        assert_eq!(all_due(&mut kept, at(10)), ["1", "2"]);
        assert_eq!(kept.pods.len(), 3, "of what is gone nothing is remembered");
    }

    #[test]
    fn a_pod_is_told_by_its_name_and_not_by_what_counts_its_instances() {
        let pod = |executor: &str| pod_of(&run(executor, 0).1);
        assert_eq!(pod("instance-a_b.c.9f0e24cc-55b8-4b4e-a3a6-3c1b36a0d0f0.12"), "instance-a_b.c");
        assert_eq!(pod("plain"), "plain");
        assert_eq!(pod("12"), "12");
    }

    #[test]
    fn a_sandbox_is_removed_with_its_empty_surroundings_and_nothing_that_its_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let frameworks = folder.path().join("frameworks");
        let runs = frameworks.join("F/executors/E/runs");
        let (one, two) = (runs.join("1"), runs.join("2"));
        fs::create_dir_all(one.join("deep")).unwrap();
        fs::create_dir_all(&two).unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "").unwrap();
        std::os::unix::fs::symlink(&outside, one.join("volume")).unwrap();
        std::os::unix::fs::symlink(&two, runs.join("latest")).unwrap();
        fs::set_permissions(one.join("deep"), Permissions::from_mode(0o500)).unwrap();
        let found = |living: &[&PathBuf]| scan(&frameworks, &living.iter().map(|path| (*path).clone()).collect()).len();
        assert_eq!((found(&[]), found(&[&two])), (2, 1), "the link is not a run");
        remove(&one);
        assert!(!one.exists() && two.exists() && runs.join("latest").exists() && outside.join("precious").exists());
        remove(&two);
        assert!(!frameworks.join("F").exists() && frameworks.exists());
        remove(&two);
    }

    #[test]
    fn folders_that_were_left_read_only_are_unlocked() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::set_permissions(&deep, Permissions::from_mode(0o500)).unwrap();
        unlock(folder.path()).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
