//! Where the store is kept: a locked folder with one redb file in it.

mod backend;
mod folder;
mod journal;

pub use backend::{Disk, Files};
pub(crate) use backend::{Guarded, Switch};
pub(crate) use folder::Folder;
pub(crate) use journal::{Image, Journal, LeaseRecord, Record, Recovered};
