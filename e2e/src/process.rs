//! Processes: started in the background with their output in files, ended by id, and found by a marker in
//! their environment, which also finds those that forked twice or changed their parent.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process in the background. Dropped, it is killed and reaped; its log is printed when the test is failing.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; standard error goes to the end of the file `log`, standard output is returned line by line.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> (Self, mpsc::Receiver<String>) {
        let stderr = fs::File::options().create(true).append(true).open(log).expect("the log can be written");
        let mut tee = stderr.try_clone().expect("the log can be written");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (lines, received) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(tee, "[stdout] {line}");
                let _ = lines.send(line);
            }
        });
        (Self { child, log: log.to_owned() }, received)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that has ended already is left alone.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.child.id(), signal);
    }

    /// `kill -9`, and reaps it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < end => std::thread::park_timeout(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(80).collect();
            eprintln!("-- the end of {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("   {line}"));
        }
        self.kill();
    }
}

/// Sends a signal to a process by its id; one that is gone is left alone.
pub fn signal_process(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// One process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its id.
    pub pid: u32,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// All living processes (zombies left out) whose environment holds `marker`, as `NAME=value`.
pub fn marked(marker: &str) -> Vec<Seen> {
    let mut found: Vec<Seen> =
        processes().filter(|pid| environment_holds(*pid, marker)).map(|pid| Seen { pid, arguments: arguments(pid) }).collect();
    found.sort();
    found
}

/// Those of [`marked`] whose arguments, joined by blanks, are `command`.
pub fn marked_running(marker: &str, command: &str) -> Vec<u32> {
    marked(marker).into_iter().filter(|seen| seen.arguments.join(" ") == command).map(|seen| seen.pid).collect()
}

/// Kills every process whose environment names something below `folder`, as those of executors and containers do with
/// their sandbox, until none is left.
pub fn kill_all_below(folder: &Path) {
    let mut needle = folder.as_os_str().as_encoded_bytes().to_vec();
    needle.push(b'/');
    // A process may fork between two looks: a few rounds, each over what the last one missed.
    for _ in 0..100 {
        let left: Vec<u32> = processes().filter(|pid| environment_contains(*pid, &needle)).collect();
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(|pid| signal_process(pid, Signal::KILL));
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Ids of all processes but this one.
fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != std::process::id())
}

fn environment_contains(pid: u32, needle: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| environment.windows(needle.len()).any(|window| window == needle))
}

fn environment_holds(pid: u32, marker: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes()))
}

fn arguments(pid: u32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Resident memory of a process in bytes: `Pss` when the kernel tells it (shared pages divided among their users), else `VmRSS`.
pub fn memory(pid: u32) -> u64 {
    let kib = |path: String, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    1024 * kib(format!("/proc/{pid}/smaps_rollup"), "Pss:").or_else(|| kib(format!("/proc/{pid}/status"), "VmRSS:")).unwrap_or(0)
}

/// Processor time that a process has used so far, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of proc(5), counted here from the one after the name; a tick is a hundredth of a second on Linux.
    (ticks(11) + ticks(12)) as f64 / 100.0
}

/// The direct children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_dir(format!("/proc/{parent}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .collect::<Vec<_>>()
        .join(" ");
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
