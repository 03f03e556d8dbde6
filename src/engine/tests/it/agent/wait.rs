//! Waiting for what no message of an agent or executor announces. The kernel announces ends of processes and changes of files; only
//! where it does not, something is looked for again and again.

use std::{os::fd::OwnedFd, path::Path, time::Duration};

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
pub async fn eventually_at<T>(path: &Path, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            let folder = nearest_folder(path);
            let changes = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
            let watched = inotify::add_watch(&changes, folder, inotify::WatchFlags::ALL_EVENTS - READ_ONLY);
            // What was made before the watch began nobody announces.
            if watched.is_err() || nearest_folder(path) != folder {
                continue;
            }
            if let Some(found) = look() {
                return found;
            }
            readable(changes).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never, at {}: {what}", path.display()))
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

/// Waits for what the kernel does not announce: Linux tells nobody but root that a process has begun, or what it runs now.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never: {what}"))
}
