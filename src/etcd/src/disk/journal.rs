//! The durable form of the store: a redb file with every version of every key, the leases, and a few numbers.
//!
//! One redb transaction and one durable commit stand for a whole group of client writes; the writer fills it while the
//! group before it is on its way to the disk.
//!
//! **Quick repair is on.** redb can leave the allocation of its pages to be found again after a crash, which makes a commit
//! about half as dear (measured: 0.27 against 0.5 ms), but then a start after `kill -9` walks the whole file (0.3 s for
//! 160 MB, and growing with it): all of the time that `podium dev` has to be ready in. With it a start costs about a
//! millisecond whatever the size, and the sequential rate still is that of real etcd on the same disk. Groups make up
//! for the rest: the price is paid once a group.

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Folder, Guarded, Switch};
use tonic::Status;

use crate::StartError;
use crate::disk::Disk;
use crate::mvcc::{FIRST_REVISION, Keyspace, NEVER_COMPACTED, Version};

/// Raised when an older build could not read what this one writes.
const FORMAT: i64 = 1;

/// Revision and place in its transaction, to etcd's own record.
const VERSIONS: TableDefinition<'_, (i64, i64), &[u8]> = TableDefinition::new("versions");
/// Lease to granted seconds.
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const NUMBERS: TableDefinition<'_, &str, i64> = TableDefinition::new("numbers");

const NUMBER_FORMAT: &str = "format";
const NUMBER_CLUSTER: &str = "cluster";
const NUMBER_MEMBER: &str = "member";
const NUMBER_TERM: &str = "term";
const NUMBER_HEAD: &str = "head";
const NUMBER_INDEX: &str = "index";
const NUMBER_COMPACTED: &str = "compacted";

/// The cache is small because the memory has everything already: redb's is for the pages that a commit touches.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// What one group of writes leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The last revision after the group.
    pub(crate) head: i64,
    /// How many write requests were ever applied.
    pub(crate) index: i64,
    pub(crate) versions: Vec<std::sync::Arc<Version>>,
    pub(crate) leases: Vec<LeaseRecord>,
    /// The compacted revision, and the versions that go with it.
    pub(crate) compaction: Option<(i64, Vec<std::sync::Arc<Version>>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseRecord {
    Granted { id: i64, ttl: i64 },
    Revoked { id: i64 },
}

/// What a start finds on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    /// Raised at each start, as an etcd that elects itself anew.
    pub(crate) term: u64,
    pub(crate) index: i64,
    pub(crate) keyspace: Keyspace,
    /// Lease and granted seconds.
    pub(crate) leases: Vec<(i64, i64)>,
}

/// All that was durable at one moment; what is written later does not change it. The file can't reuse what it shows.
pub(crate) struct Image {
    /// How many write requests were ever applied.
    pub(crate) index: i64,
    /// The compacted revision.
    pub(crate) compacted: i64,
    versions: redb::ReadOnlyTable<(i64, i64), &'static [u8]>,
    leases: redb::ReadOnlyTable<i64, i64>,
}

impl Image {
    /// etcd's key and record of each version, in the order in which they were written.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Status>> + use<'_> {
        entries(&self.versions).map(|entry| {
            let (key, bytes) = entry?;
            let ((modified, sub), bytes) = (key.value(), bytes.value().to_vec());
            let version = Version::decode(modified, sub, &bytes).map_err(|error| unreadable(&error))?;
            Ok((version.history_key(), bytes))
        })
    }

    /// Leases and the seconds that they were granted for.
    pub(crate) fn leases(&self) -> impl Iterator<Item = Result<(i64, i64), Status>> + use<'_> {
        entries(&self.leases).map(|entry| entry.map(|(id, ttl)| (id.value(), ttl.value())))
    }
}

type Entry<K, V> = (redb::AccessGuard<'static, K>, redb::AccessGuard<'static, V>);

/// The entries of a table; when they can't be read at all, that alone.
fn entries<K: redb::Key + 'static, V: redb::Value + 'static>(
    table: &redb::ReadOnlyTable<K, V>,
) -> impl Iterator<Item = Result<Entry<K, V>, Status>> + use<'_, K, V> {
    let (entries, failed) = match table.range::<K::SelfType<'_>>(..) {
        Ok(entries) => (Some(entries), None),
        Err(error) => (None, Some(Err(unreadable(&error)))),
    };
    failed.into_iter().chain(entries.into_iter().flatten().map(|entry| entry.map_err(|error| unreadable(&error))))
}

fn unreadable(error: &dyn std::fmt::Display) -> Status {
    Status::data_loss(format!("the store can't be read: {error}"))
}

/// The open file. The folder stays locked as long as it lives.
#[derive(Debug)]
pub(crate) struct Journal {
    database: Database,
    _folder: Folder,
}

impl Journal {
    /// Opens the folder's store, or begins a new one under the given ids, and reads everything.
    pub(crate) fn open(folder: Folder, disk: &dyn Disk, switch: Switch, ids: (u64, u64)) -> Result<(Self, Recovered), StartError> {
        let path = folder.store();
        let failed = |source| StartError::Folder { path: path.clone(), source };
        let backend = Guarded::new(disk.open(&path).map_err(failed)?, switch).map_err(failed)?;
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|error| StartError::store(&path, error))?;
        let journal = Journal { database, _folder: folder };
        let recovered = journal.recover(ids).map_err(|error| match error {
            Unreadable::Newer(found) => StartError::NewerFormat { path: path.clone(), found, known: FORMAT },
            Unreadable::Version { revision, source } => StartError::Damaged { path: path.clone(), revision, source },
            Unreadable::Store(source) => StartError::Store { path: path.clone(), source: Box::new(source) },
        })?;
        Ok((journal, recovered))
    }

    /// Makes a group durable. When this returns, it is on disk.
    pub(crate) fn commit(&self, record: &Record) -> Result<(), redb::Error> {
        let transaction = self.begin()?;
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            numbers.insert(NUMBER_HEAD, record.head)?;
            numbers.insert(NUMBER_INDEX, record.index)?;
            let mut versions = transaction.open_table(VERSIONS)?;
            for version in &record.versions {
                versions.insert((version.modified, version.sub), version.encode().as_slice())?;
            }
            if let Some((revision, forgotten)) = &record.compaction {
                numbers.insert(NUMBER_COMPACTED, revision)?;
                for version in forgotten {
                    versions.remove((version.modified, version.sub))?;
                }
            }
            let mut leases = transaction.open_table(LEASES)?;
            for lease in &record.leases {
                match lease {
                    LeaseRecord::Granted { id, ttl } => leases.insert(id, ttl)?,
                    LeaseRecord::Revoked { id } => leases.remove(id)?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// All that is durable now.
    pub(crate) fn image(&self) -> Result<Image, redb::Error> {
        let read = self.database.begin_read()?;
        let numbers = read.open_table(NUMBERS)?;
        let number = |name: &str| Ok::<i64, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
        let (index, compacted) = (number(NUMBER_INDEX)?, number(NUMBER_COMPACTED)?);
        Ok(Image { index, compacted, versions: read.open_table(VERSIONS)?, leases: read.open_table(LEASES)? })
    }

    fn begin(&self) -> Result<redb::WriteTransaction, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    fn recover(&self, ids: (u64, u64)) -> Result<Recovered, Unreadable> {
        let numbers = self.claim_term(ids)?;
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let mut keyspace = Keyspace::recovered(numbers.head, numbers.compacted);
        for entry in read.open_table(VERSIONS).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
            let (key, bytes) = entry.map_err(redb::Error::from)?;
            let (modified, sub) = key.value();
            let version =
                Version::decode(modified, sub, bytes.value()).map_err(|source| Unreadable::Version { revision: modified, source })?;
            keyspace.restore(version);
        }
        let mut leases = Vec::new();
        for entry in read.open_table(LEASES).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
            let (id, ttl) = entry.map_err(redb::Error::from)?;
            leases.push((id.value(), ttl.value()));
        }
        let Numbers { cluster, member, term, index, .. } = numbers;
        Ok(Recovered {
            cluster: cluster.cast_unsigned(),
            member: member.cast_unsigned(),
            term: term.cast_unsigned(),
            index,
            keyspace,
            leases,
        })
    }

    /// Checks the format, and writes the numbers of a new store, or the term of this start.
    fn claim_term(&self, (cluster, member): (u64, u64)) -> Result<Numbers, Unreadable> {
        let transaction = self.begin()?;
        let numbers = {
            let mut table = transaction.open_table(NUMBERS).map_err(redb::Error::from)?;
            let mut number = |name: &str, first: i64| -> Result<i64, redb::Error> {
                let found = table.get(name)?.map(|found| found.value());
                if found.is_none() {
                    table.insert(name, first)?;
                }
                Ok(found.unwrap_or(first))
            };
            let format = number(NUMBER_FORMAT, FORMAT)?;
            if format > FORMAT {
                return Err(Unreadable::Newer(format));
            }
            let numbers = Numbers {
                cluster: number(NUMBER_CLUSTER, cluster.cast_signed())?,
                member: number(NUMBER_MEMBER, member.cast_signed())?,
                head: number(NUMBER_HEAD, FIRST_REVISION)?,
                index: number(NUMBER_INDEX, 0)?,
                compacted: number(NUMBER_COMPACTED, NEVER_COMPACTED)?,
                term: number(NUMBER_TERM, 1)? + 1,
            };
            table.insert(NUMBER_TERM, numbers.term).map_err(redb::Error::from)?;
            numbers
        };
        transaction.open_table(VERSIONS).map_err(redb::Error::from)?;
        transaction.open_table(LEASES).map_err(redb::Error::from)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(numbers)
    }
}

struct Numbers {
    cluster: i64,
    member: i64,
    term: i64,
    head: i64,
    index: i64,
    compacted: i64,
}

/// Why a file that could be opened could not be read.
#[derive(Debug)]
enum Unreadable {
    Newer(i64),
    Version { revision: i64, source: prost::DecodeError },
    Store(redb::Error),
}

impl From<redb::Error> for Unreadable {
    fn from(error: redb::Error) -> Self {
        Unreadable::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Files;

    fn open(path: &Path) -> Result<(Journal, Recovered), StartError> {
        Journal::open(Folder::claim(path)?, &Files, Switch::default(), (5, 6))
    }

    #[test]
    fn a_store_keeps_its_ids_and_begins_a_new_term_at_each_start() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, first) = open(folder.path()).unwrap();
        drop(journal);
        let again = Journal::open(Folder::claim(folder.path()).unwrap(), &Files, Switch::default(), (7, 8)).unwrap().1;
        assert_eq!((first.cluster, first.member), (5, 6));
        assert_eq!((again.cluster, again.member, again.term), (5, 6, first.term + 1));
    }

    #[test]
    fn a_store_of_a_newer_format_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path()).unwrap();
        let transaction = journal.begin().unwrap();
        transaction.open_table(NUMBERS).unwrap().insert(NUMBER_FORMAT, FORMAT + 1).unwrap();
        transaction.commit().unwrap();
        drop(journal);
        let refused = open(folder.path()).unwrap_err();
        assert!(matches!(refused, StartError::NewerFormat { found: 2, known: 1, .. }), "{refused}");
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("etcd.redb");
        let text = "not a store ".repeat(1000);
        std::fs::write(&file, &text).unwrap();
        let refused = open(folder.path()).unwrap_err();
        assert!(matches!(refused, StartError::Store { .. }), "{refused}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}
