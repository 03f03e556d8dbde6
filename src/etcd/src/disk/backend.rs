//! The disk as a parameter, and the switch that cuts the store off from it.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::StorageBackend;

/// Opens the store's file. Simulations put their own disk here.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens the file for reading and writing, and creates it where there is none.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, file: &Path) -> io::Result<Box<dyn StorageBackend>>;
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Disk for Files {
    fn open(&self, file: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
        let backend = redb::backends::FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }
}

/// Turns off a [`Guarded`] disk from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    off: AtomicBool,
    bytes: AtomicU64,
}

impl Switch {
    /// From now on nothing reaches the disk: what a process that is killed at this moment would leave is what stays.
    pub(crate) fn cut(&self) {
        self.0.off.store(true, Ordering::SeqCst);
    }

    /// The size of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn check(&self) -> io::Result<()> {
        if self.0.off.load(Ordering::SeqCst) {
            return Err(io::Error::other("the store was stopped abruptly"));
        }
        Ok(())
    }
}

/// A disk behind a [`Switch`].
#[derive(Debug)]
pub(crate) struct Guarded {
    disk: Box<dyn StorageBackend>,
    switch: Switch,
}

impl Guarded {
    pub(crate) fn new(disk: Box<dyn StorageBackend>, switch: Switch) -> io::Result<Self> {
        switch.0.bytes.store(disk.len()?, Ordering::Relaxed);
        Ok(Guarded { disk, switch })
    }
}

impl StorageBackend for Guarded {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.switch.check()?;
        self.disk.set_len(len)?;
        self.switch.0.bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.switch.check()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.switch.check()?;
        self.disk.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.disk.close()
    }
}
