//! Files that are read again when they have changed: whoever asks for their content looks whether they did, not oftener than
//! [`Limits::look_again`](crate::Limits::look_again) says.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::AccessError;

/// No such file is larger.
const MAX_FILE: u64 = 1 << 20;

type Load<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// What some files say, together.
pub(crate) struct Fresh<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    /// Between two looks.
    look_again: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// By which a changed file is known, also one that was put in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Fresh<T> {
    /// Reads the files for the first time; they have to be good.
    pub(crate) fn open(
        paths: Vec<PathBuf>,
        look_again: Duration,
        load: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, AccessError> {
        // The stamps first: what is written while we read is then read once more.
        let stamps = paths.iter().map(stamp).collect();
        let value = Arc::new(read(&paths, &load)?);
        Ok(Self { paths, load: Box::new(load), look_again, state: Mutex::new(State { value, stamps, looked: Instant::now() }) })
    }

    /// What the files say; what they said before, while they cannot be used.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= self.look_again {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        state.value.clone()
    }

    fn look(&self, state: &mut State<T>) {
        let stamps: Vec<Stamp> = self.paths.iter().map(stamp).collect();
        if stamps == state.stamps {
            return;
        }
        state.stamps = stamps;
        match read(&self.paths, &self.load) {
            Ok(value) => {
                tracing::info!(files = ?self.paths, "read again, since it changed");
                state.value = Arc::new(value);
            }
            Err(error) => tracing::error!(%error, "what it said before stays in force"),
        }
    }
}

impl<T> fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let Ok(meta) = fs::metadata(path) else { return Stamp::default() };
    Stamp { inode: meta.ino(), length: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()), changed: (meta.ctime(), meta.ctime_nsec()) }
}

fn read<T>(paths: &[PathBuf], load: &impl Fn(&[Vec<u8>]) -> Result<T, String>) -> Result<T, AccessError> {
    let texts = paths.iter().map(bounded).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    load(&texts).map_err(|reason| AccessError { file: names.join(", "), reason })
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

    fn number(texts: &[Vec<u8>]) -> Result<u32, String> {
        String::from_utf8_lossy(&texts[0]).trim().parse().map_err(|_| "no number".to_owned())
    }

    fn look_now(fresh: &Fresh<u32>) -> u32 {
        let mut state = fresh.state.lock();
        fresh.look(&mut state);
        *state.value
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "7").unwrap();
        let fresh = Fresh::open(vec![path.clone()], Duration::ZERO, number).unwrap();
        assert_eq!(*fresh.get(), 7);
        fs::write(&path, "12").unwrap();
        assert_eq!(look_now(&fresh), 12);
        fs::write(&path, "twelve").unwrap();
        assert_eq!(look_now(&fresh), 12);
        fs::remove_file(&path).unwrap();
        assert_eq!(look_now(&fresh), 12);
        // Put in place as a whole, as careful writers do; of the same length.
        fs::write(folder.path().join("new"), "34").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(look_now(&fresh), 34);
    }

    #[test]
    fn a_missing_or_endless_file_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Fresh::open(vec![folder.path().join("absent")], Duration::ZERO, number).unwrap_err().to_string().contains("absent"));
        assert!(Fresh::open(vec![folder.path().to_owned()], Duration::ZERO, number).is_err());
        assert!(Fresh::open(vec!["/dev/zero".into()], Duration::ZERO, number).is_err());
    }
}
