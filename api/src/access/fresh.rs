//! Files that are read again when they have changed: a task looks as often as
//! [`Limits::look_again`](crate::Limits::look_again) says. Who asks for their content gets what is known, and never waits for a disk.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::AccessError;

/// No such file is larger.
const MAX_FILE: u64 = 1 << 20;

type Load<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// What some files say, together.
pub(crate) struct Fresh<T> {
    files: Arc<Files<T>>,
}

struct Files<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    value: watch::Sender<Arc<T>>,
    /// Only ever locked by who looks.
    seen: Mutex<Seen>,
}

/// What was seen of the files when they were read last.
struct Seen {
    stamps: Vec<Stamp>,
    /// What was wrong since, so that it is told once.
    trouble: Option<String>,
}

/// Why files were not read.
enum Unread {
    /// The disk, or a limit of the process: the files may be good.
    Failed(AccessError),
    /// They were read, and are of no use.
    Useless(AccessError),
}

/// By which a changed file is known, also one that was put in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Send + Sync + 'static> Fresh<T> {
    /// Reads the files for the first time; they have to be good. Needs a tokio runtime.
    pub(crate) fn open(
        paths: Vec<PathBuf>,
        look_again: Duration,
        load: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, AccessError> {
        let files = Arc::new(Files::read(paths, Box::new(load))?);
        let known = Arc::downgrade(&files);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(look_again).await;
                let Some(files) = known.upgrade() else { return };
                // A disk may take its time: meanwhile what is known stays in force. A panic there is told by its thread.
                let _ = tokio::task::spawn_blocking(move || files.look()).await;
            }
        });
        Ok(Self { files })
    }

    /// What the files say; what they said before, while they cannot be used.
    pub(crate) fn get(&self) -> Arc<T> {
        self.files.value.borrow().clone()
    }

    /// Tells of each time that the files were read again after this.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.files.value.subscribe()
    }
}

impl<T> Files<T> {
    fn read(paths: Vec<PathBuf>, load: Load<T>) -> Result<Self, AccessError> {
        // The stamps first: what is written while we read is then read once more.
        let stamps = paths.iter().map(stamp).collect();
        let value = read(&paths, &load).map_err(|(Unread::Failed(error) | Unread::Useless(error))| error)?;
        Ok(Self { paths, load, value: watch::Sender::new(Arc::new(value)), seen: Mutex::new(Seen { stamps, trouble: None }) })
    }

    fn look(&self) {
        let stamps: Vec<Stamp> = self.paths.iter().map(stamp).collect();
        if stamps != self.seen.lock().stamps {
            self.take(stamps, read(&self.paths, &self.load));
        }
    }

    /// Takes over what was read, and that it was read: files that could not be are tried again.
    fn take(&self, stamps: Vec<Stamp>, read: Result<T, Unread>) {
        let mut seen = self.seen.lock();
        let trouble = match read {
            Ok(value) => {
                tracing::info!(files = ?self.paths, "read again, since it changed");
                self.value.send_replace(Arc::new(value));
                *seen = Seen { stamps, trouble: None };
                return;
            }
            Err(Unread::Useless(error)) => {
                seen.stamps = stamps;
                error.to_string()
            }
            Err(Unread::Failed(error)) => error.to_string(),
        };
        if seen.trouble.as_ref() != Some(&trouble) {
            tracing::error!(error = trouble, "what it said before stays in force");
            seen.trouble = Some(trouble);
        }
    }
}

impl<T> fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("paths", &self.files.paths).finish_non_exhaustive()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let Ok(meta) = fs::metadata(path) else { return Stamp::default() };
    Stamp { inode: meta.ino(), length: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()), changed: (meta.ctime(), meta.ctime_nsec()) }
}

fn read<T>(paths: &[PathBuf], load: &Load<T>) -> Result<T, Unread> {
    let texts = paths.iter().map(bounded).collect::<Result<Vec<_>, _>>().map_err(Unread::Failed)?;
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    load(&texts).map_err(|reason| Unread::Useless(AccessError { file: names.join(", "), reason }))
}

fn bounded(path: &PathBuf) -> Result<Vec<u8>, AccessError> {
    let failed = |reason: String| AccessError { file: path.display().to_string(), reason };
    // A pipe would be waited for, for ever.
    let meta = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(failed(format!("it should be a file of at most {MAX_FILE} bytes")));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)).map_err(|error| failed(error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn number(texts: &[Vec<u8>]) -> Result<u32, String> {
        String::from_utf8_lossy(&texts[0]).trim().parse().map_err(|_| "no number".to_owned())
    }

    fn files(path: &std::path::Path) -> Result<Files<u32>, AccessError> {
        Files::read(vec![path.to_owned()], Box::new(number))
    }

    fn look_now(files: &Files<u32>) -> u32 {
        files.look();
        **files.value.borrow()
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "7").unwrap();
        let files = files(&path).unwrap();
        assert_eq!(look_now(&files), 7);
        fs::write(&path, "12").unwrap();
        assert_eq!(look_now(&files), 12);
        fs::write(&path, "twelve").unwrap();
        assert_eq!(look_now(&files), 12);
        fs::remove_file(&path).unwrap();
        assert_eq!(look_now(&files), 12);
        // Put in place as a whole, as careful writers do; of the same length.
        fs::write(folder.path().join("new"), "34").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(look_now(&files), 34);
    }

    #[test]
    fn a_changed_file_that_could_not_be_read_is_read_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "7").unwrap();
        let files = files(&path).unwrap();
        fs::write(&path, "12").unwrap();
        let out_of_files = AccessError { file: path.display().to_string(), reason: "Too many open files".to_owned() };
        files.take(vec![stamp(&path)], Err(Unread::Failed(out_of_files)));
        assert_eq!(**files.value.borrow(), 7);
        assert_eq!(look_now(&files), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_to_ask_for_a_file_to_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "7").unwrap();
        let fresh = Fresh::open(vec![path.clone()], SECOND, number).unwrap();
        let mut changes = fresh.changes();
        fs::write(&path, "12").unwrap();
        assert_eq!(**changes.wait_for(|number| **number == 12).await.unwrap(), 12);
        assert_eq!(*fresh.get(), 12);
    }

    #[test]
    fn a_missing_or_endless_file_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        assert!(files(&folder.path().join("absent")).err().unwrap().to_string().contains("absent"));
        assert!(files(folder.path()).is_err());
        assert!(files("/dev/zero".as_ref()).is_err());
    }
}
