//! Waiting for what no message of an agent or executor announces: the kernel tells of ends of processes, of changes of files, and that
//! a program begins by its opening of the C library.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::time::timeout;

/// Longer than anything takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until these processes have ended, whoever's children they are.
pub async fn ended(processes: impl IntoIterator<Item = i32>) {
    for pid in processes {
        match pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
            Ok(process) => assert!(readable(process).await, "process {pid} does not end"),
            Err(error) => assert_eq!(error, Errno::SRCH),
        }
    }
}

/// Waits until there is such a file or folder.
pub async fn appears(path: &Path) {
    eventually_at(path, "it is there", || path.exists().then_some(())).await;
}

/// Waits for something that is seen in a folder, or in a file: it is looked for whenever something changes there.
pub async fn eventually_at<T>(path: &Path, what: &str, look: impl FnMut() -> Option<T>) -> T {
    let what = format!("at {}: {what}", path.display());
    whenever(|| nearest_folder(path), inotify::WatchFlags::ALL_EVENTS - READ_ONLY, &what, look).await
}

/// Waits for something that shows when a program has begun: it is looked for whenever one opens the C library, which is after the
/// kernel has put it in its process' place.
pub async fn eventually_runs<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let library = c_library();
    whenever(|| &library, inotify::WatchFlags::OPEN, what, look).await
}

/// Looks for something at first, and whenever something happens at a place.
async fn whenever<'p, T>(place: impl Fn() -> &'p Path, happens: inotify::WatchFlags, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            let at = place();
            let events = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
            let watched = inotify::add_watch(&events, at, happens);
            // What was made before the watch began nobody announces.
            if watched.is_err() || place() != at {
                continue;
            }
            if let Some(found) = look() {
                return found;
            }
            readable(events).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never {what}"))
}

/// The one that this program runs with, as all others of the machine do.
fn c_library() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut mapped = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| Path::new("/").join(path));
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libc.so"));
    mapped.find(is_it).expect("this program is linked with a C library that others share")
}

/// Nothing that a look itself may cause.
const READ_ONLY: inotify::WatchFlags =
    inotify::WatchFlags::ACCESS.union(inotify::WatchFlags::OPEN).union(inotify::WatchFlags::CLOSE_NOWRITE);

fn nearest_folder(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"))
}

/// On a thread of its own: an agent may run on this one.
async fn readable(descriptor: OwnedFd) -> bool {
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let ready = tokio::task::spawn_blocking(move || poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&patience)));
    ready.await.unwrap() == Ok(1)
}
