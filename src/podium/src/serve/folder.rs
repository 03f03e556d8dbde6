//! The data folder of `podium dev`: held by one process at a time, of a known format, closed to other users. Where podium is
//! root they may pass through it, and see nothing: containers run as users of their own, in sandboxes below it.
//!
//! ```text
//! podium-data/
//!   format           "podium 1": what wrote it
//!   lock             held (flock) for as long as the process lives
//!   endpoints.json   where the running process listens, for scripts
//!   identity         who its processes are in elections: the next one gives back the leases of the last
//!   etcd/            the embedded store
//!   mesos/           the embedded engine: ids, executors, sandboxes; `mesos-simulated` with `--simulate`
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const FORMAT: &str = "podium 1";

/// A data folder that this process holds.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if need be, and holds it until dropped.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("--data-dir {shown}: cannot be created"))?;
        let path = fs::canonicalize(path).with_context(|| format!("--data-dir {shown}"))?;
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
        let lock = lock.with_context(|| format!("--data-dir {shown}: cannot be written to"))?;
        match hold(&lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => bail!("--data-dir {shown}: another podium uses this folder; stop that one, or choose another folder"),
            Err(error) => bail!("--data-dir {shown}: cannot be locked: {error}; choose a folder on a local disk"),
        }
        let folder = Self { path, _lock: lock };
        folder.check_format()?;
        folder.let_users_through().with_context(|| format!("--data-dir {shown}: cannot be opened to the users of containers"))?;
        Ok(folder)
    }

    fn check_format(&self) -> anyhow::Result<()> {
        let file = self.path.join("format");
        match fs::read_to_string(&file) {
            Ok(text) if text.trim() == FORMAT => Ok(()),
            Ok(text) => {
                let found: String = text.trim().chars().take(40).collect();
                bail!("--data-dir {}: written as '{found}', but this podium reads '{FORMAT}'", self.path.display())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.refuse_foreign_content()?;
                self.write("format", FORMAT.as_bytes())
            }
            Err(error) => Err(error).with_context(|| format!("{}: cannot be read; it should hold the line '{FORMAT}'", file.display())),
        }
    }

    /// Only root's containers have other users.
    fn let_users_through(&self) -> std::io::Result<()> {
        const PASS: u32 = 0o011;
        let mode = fs::metadata(&self.path)?.permissions().mode();
        if !rustix::process::geteuid().is_root() || mode & PASS == PASS {
            return Ok(());
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode | PASS))
    }

    /// A folder with somebody's files and no format is a mistake in the flag.
    fn refuse_foreign_content(&self) -> anyhow::Result<()> {
        // A first start that was cut short leaves two files.
        let ours = |entry: &fs::DirEntry| entry.file_name() == "lock" || entry.file_name() == "format.new";
        let foreign = fs::read_dir(&self.path)?.flatten().find(|entry| !ours(entry));
        match foreign {
            Some(entry) => bail!(
                "--data-dir {}: holds {:?}, which is not podium's; choose an empty or a new folder",
                self.path.display(),
                entry.file_name()
            ),
            None => Ok(()),
        }
    }

    /// A folder within it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a small file as a whole: readers see the old one or the new one.
    pub fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (file, fresh) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let mut out = File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        out.write_all(content)?;
        out.sync_all()?;
        fs::rename(&fresh, &file).with_context(|| format!("{}", file.display()))
    }

    /// Reads a small file; `None` when there is none.
    pub fn read(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        File::open(self.path.join(name)).ok()?.take(4096).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Removes a small file.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.path.join(name));
    }
}

/// How long a process that was just killed may take to let go of its lock: the kernel takes its memory back first.
const LETTING_GO: Duration = Duration::from_secs(1);

fn hold(lock: &File) -> Result<(), Errno> {
    let end = Instant::now() + LETTING_GO;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_at_a_time_and_can_be_opened_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataFolder::open(&path).unwrap();
        assert!(DataFolder::open(&path).unwrap_err().to_string().contains("another podium"));
        first.write("identity", b"7").unwrap();
        drop(first);
        assert_eq!(DataFolder::open(&path).unwrap().read("identity").as_deref(), Some("7"));
    }

    #[test]
    fn other_users_read_nothing_in_it_and_pass_through_it_where_root_has_containers_of_theirs() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let expected = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        // One that an earlier podium has made is no different.
        for _ in 0..2 {
            let folder = DataFolder::open(&path).unwrap();
            folder.write("identity", b"7").unwrap();
            assert_eq!(mode(&path), expected);
            for name in ["format", "lock", "identity"] {
                assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
            }
            drop(folder);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn a_first_start_that_was_cut_short_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
        fs::write(folder.path().join("format.new"), "pod").unwrap();
        DataFolder::open(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("format")).unwrap(), FORMAT);
    }

    #[test]
    fn a_folder_of_a_newer_format_or_of_somebody_else_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.txt"), "x").unwrap();
        assert!(DataFolder::open(parent.path()).unwrap_err().to_string().contains("thesis.txt"));
        let newer = tempfile::tempdir().unwrap();
        fs::write(newer.path().join("format"), "podium 2\n").unwrap();
        assert!(DataFolder::open(newer.path()).unwrap_err().to_string().contains("podium 2"));
    }
}
