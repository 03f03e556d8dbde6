//! The data folder, held by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::StartError;

const LOCK: &str = "etcd.lock";
const STORE: &str = "etcd.redb";

/// A data folder that is ours until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder, for its owner alone, where it is missing, and locks it.
    pub(crate) fn claim(path: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::Folder { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let lock = open_lock(&path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StartError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(StartError::Folder { path, source }),
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}
