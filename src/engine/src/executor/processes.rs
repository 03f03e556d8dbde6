//! Finds and ends processes by what the kernel says of them in `/proc`: descent, session, and the marker
//! in their environment. Used by the executor and its guardian for their own descendants, by the agent for survivors.

use std::{fs, io};

use rustix::process::{Pid, Signal};

use super::settings::MARKER;

/// Makes this process the new parent of every orphan below it: nothing that a container starts can get
/// away by forking twice.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // The kernel's argument is a boolean; any process id says yes.
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// What `/proc/<pid>/stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub parent: i32,
    pub session: i32,
    /// Clock ticks from boot to start: with the process id it names a process for good.
    pub start: u64,
    /// Ended, and waiting for its parent to notice.
    pub zombie: bool,
}

/// `None` when there is no such process (any more).
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat", pid = pid.as_raw_nonzero())).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command's name stands in parentheses and may hold anything, spaces and parentheses too.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(15)?.parse().ok()?;
    Some(Stat { parent, session, start, zombie })
}

/// The value of [`MARKER`] in a process's environment, as it was when the process's program started.
pub(crate) fn marker(pid: Pid) -> Option<String> {
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(MARKER.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// Every process of this machine that we may look into and that carries a marker. Reads all of `/proc`.
pub(crate) fn marked() -> Vec<(Pid, String)> {
    everyone().filter_map(|pid| Some((pid, marker(pid)?))).collect()
}

fn everyone() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").ok().into_iter().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

/// All that descends from `root`, which is not in the list; the dead that nobody has waited for are.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for child in children(pid) {
            if !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found
}

/// The children of one process: read from the kernel's own list, or, where that is not built in, from all of `/proc`.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero())) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => {
                return everyone().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get())).collect();
            }
            Err(_) => {}
        }
    }
    found
}

/// `<agent>/<framework>/<executor>` covers itself and the containers below it, and no executor of a similar name.
pub(crate) fn covers(marker: &str, value: &str) -> bool {
    value.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// SIGKILL; a process that is gone is what was wanted.
pub(crate) fn kill(pid: Pid) {
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_confuse_the_reader() {
        let text = "42 (a) R 1 (b) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2 3";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, session: 41, start: 987_654, zombie: false }));
        assert_eq!(parse_stat("42 (x) Z"), None);
    }

    #[test]
    fn a_child_is_among_the_descendants_of_its_parent() {
        let mut child = std::process::Command::new("sleep").arg("60").env(MARKER, "agent/instance").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(descendants(rustix::process::getpid()).contains(&pid));
        // The environment appears with exec, which spawn has waited for.
        assert_eq!(marker(pid).as_deref(), Some("agent/instance"));
        assert!(marked().iter().any(|(found, value)| *found == pid && value == "agent/instance"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(stat(pid), None);
    }

    #[test]
    fn a_marker_covers_its_containers_and_no_similar_name() {
        assert!(covers("a/b", "a/b"));
        assert!(covers("a/b", "a/b/c"));
        assert!(covers("a", "a/b/c"));
        assert!(!covers("a/b", "a/bc"));
        assert!(!covers("a/b", "x/a/b"));
    }
}
