//! The agent's durable memory: one redb file, one writer thread, one disk synchronisation for all that is
//! waiting. What must follow a write is given along with it and handed back when it is on disk.
//!
//! A disk that takes nothing for a while (it is full, most likely) delays what would follow, and no more: the writer tries
//! again until it succeeds or the agent ends.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use prost::Message;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, watch};

/// Changes with the meaning of what is stored.
const VERSION: u64 = 1;
/// Batches waiting for the writer.
const QUEUE: usize = 1024;
/// Batches of one disk synchronisation.
const GROUP: usize = 512;
/// Between two tries to write what the disk did not take.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries between two words about it in the log.
const SILENCE: u32 = 60;

const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Executors,
    Processes,
    Tasks,
    Updates,
    /// One record: [`super::record::CheckpointRecord`].
    Checkpoint,
}

impl Table {
    const ALL: [Table; 5] = [Table::Executors, Table::Processes, Table::Tasks, Table::Updates, Table::Checkpoint];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Table::Executors => "executors",
            Table::Processes => "processes",
            Table::Tasks => "tasks",
            Table::Updates => "updates",
            Table::Checkpoint => "checkpoint",
        })
    }
}

/// Why the agent's file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It can't be opened, read or written.
    #[error("the agent's data file {path}: {source}")]
    Storage {
        /// Which.
        path: String,
        /// Why.
        source: Box<redb::Error>,
    },
    /// It is another version's.
    #[error("the agent's data file {path} is of version {found}, this program reads version {VERSION}; use the program that wrote it")]
    Version {
        /// Which.
        path: String,
        /// As found.
        found: u64,
    },
    /// A record is not what it should be.
    #[error("the agent's data file {path} holds a damaged record in '{table}'")]
    Damaged {
        /// Which.
        path: String,
        /// Where.
        table: &'static str,
    },
}

/// Changes that belong together, and what to do when they are durable.
#[derive(Debug)]
pub(super) struct Batch<E> {
    pub changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    pub then: Vec<E>,
}

impl<E> Default for Batch<E> {
    fn default() -> Self {
        Batch { changes: Vec::new(), then: Vec::new() }
    }
}

impl<E> Batch<E> {
    pub fn put(&mut self, table: Table, key: Vec<u8>, record: &impl Message) {
        self.changes.push((table, key, Some(record.encode_to_vec())));
    }

    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.changes.push((table, key, None));
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.then.is_empty()
    }
}

/// All records of one table, in the order of their keys.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The open file.
pub(super) struct Journal<E> {
    batches: mpsc::Sender<Batch<E>>,
    /// Ends when the file is closed.
    closed: Closed,
}

/// Ends when a thread has let go of what it held; for any number of listeners.
pub(super) type Closed = watch::Receiver<()>;

/// Waits for the end of a thread.
pub(super) async fn ended(mut closed: Closed) {
    while closed.changed().await.is_ok() {}
}

/// What was on disk.
pub(super) struct Stored {
    /// The agent's id; `None` in a new file.
    pub agent_id: Option<String>,
    pub tables: BTreeMap<Table, Records>,
}

impl<E: Send + 'static> Journal<E> {
    /// Opens `path`, or makes it with `new_id` as the agent's. `done` receives what follows durable batches. It is
    /// unbounded, yet never holds more than [`QUEUE`] batches' worth: the sender of batches is its reader.
    pub fn open(path: &Path, new_id: &str, done: mpsc::UnboundedSender<Vec<E>>) -> Result<(Journal<E>, Stored), JournalError> {
        let file = path.to_owned();
        Journal::with(path, move || create(&file), new_id, done)
    }

    /// `open` opens the file, also after a failure: a file that an error has come from must be closed.
    fn with(
        path: &Path,
        mut open: impl FnMut() -> Result<Database, redb::Error> + Send + 'static,
        new_id: &str,
        done: mpsc::UnboundedSender<Vec<E>>,
    ) -> Result<(Journal<E>, Stored), JournalError> {
        let name = path.display().to_string();
        let failed = |source: redb::Error| JournalError::Storage { path: name.clone(), source: Box::new(source) };
        let database = open().map_err(failed)?;
        let agent_id = identify(&database, new_id).map_err(failed)?;
        let stored = match agent_id {
            Ok(agent_id) => Stored { agent_id, tables: load(&database).map_err(failed)? },
            Err(found) => return Err(JournalError::Version { path: name, found }),
        };
        let (batches, queue) = mpsc::channel(QUEUE);
        let (held, closed) = watch::channel(());
        let writer = std::thread::Builder::new().name("agent-journal".to_owned()).spawn(move || {
            Writer { path: name, open, database: Some(database) }.run(queue, &done);
            drop(held);
        });
        writer.map_err(|error| JournalError::Storage { path: path.display().to_string(), source: Box::new(redb::Error::Io(error)) })?;
        Ok((Journal { batches, closed }, stored))
    }

    /// Queues a batch; waits while too many are queued.
    pub async fn write(&self, batch: Batch<E>) {
        let _ = self.batches.send(batch).await;
    }

    /// Tells when the file is closed, also after the journal was dropped.
    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }

    /// Writes what is queued, if the disk takes it, and closes the file.
    pub async fn close(self) {
        let Journal { batches, closed } = self;
        drop(batches);
        ended(closed).await;
    }
}

/// The agent's id in the file, `None` when it was given just now; `Err` is a version that is not ours.
fn identify(database: &Database, new_id: &str) -> Result<Result<Option<String>, u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let answer = {
        let mut meta = transaction.open_table(META)?;
        let version = meta.get("version")?.map(|value| value.value().try_into().map_or(0, u64::from_be_bytes));
        match version {
            None => {
                meta.insert("version", VERSION.to_be_bytes().as_slice())?;
                meta.insert("agent_id", new_id.as_bytes())?;
                Ok(None)
            }
            Some(VERSION) => Ok(meta.get("agent_id")?.map(|value| String::from_utf8_lossy(value.value()).into_owned())),
            Some(other) => Err(other),
        }
    };
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    transaction.commit()?;
    Ok(answer)
}

fn load(database: &Database) -> Result<BTreeMap<Table, Records>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut tables = BTreeMap::new();
    for table in Table::ALL {
        let mut records = Records::new();
        for entry in transaction.open_table(table.definition())?.iter()? {
            let (key, value) = entry?;
            records.insert(key.value().to_vec(), value.value().to_vec());
        }
        tables.insert(table, records);
    }
    Ok(tables)
}

/// Opens the file, or makes it: it tells of all users' tasks, and is for none of them to read.
fn create(path: &Path) -> Result<Database, redb::Error> {
    let file = File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(Database::create(path)?)
}

/// The thread that writes.
struct Writer<O> {
    path: String,
    open: O,
    /// `None` after a failure, until it is opened again.
    database: Option<Database>,
}

impl<O: FnMut() -> Result<Database, redb::Error>> Writer<O> {
    fn run<E>(mut self, mut queue: mpsc::Receiver<Batch<E>>, done: &mpsc::UnboundedSender<Vec<E>>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            if !self.insist(&group, || queue.is_closed()) {
                return;
            }
            let then: Vec<E> = group.drain(..).flat_map(|batch| batch.then).collect();
            if !then.is_empty() && done.send(then).is_err() {
                // An agent that has stopped abruptly: what it queued before is still written, as its crash might have let it.
            }
        }
    }

    /// Writes a group, however often it takes; `false` if it has failed and nobody waits any more. A group that was
    /// written although an error came back may be written again: it says what is, not what changes.
    fn insist<E>(&mut self, group: &[Batch<E>], over: impl Fn() -> bool) -> bool {
        let mut failures: u32 = 0;
        loop {
            match self.attempt(group) {
                Ok(()) if failures == 0 => return true,
                Ok(()) => {
                    tracing::info!(path = self.path, "the agent's records are written again");
                    return true;
                }
                Err(error) if over() => {
                    tracing::error!(path = self.path, %error, "the agent's last records can't be written");
                    return false;
                }
                Err(error) if failures.is_multiple_of(SILENCE) => {
                    tracing::error!(
                        path = self.path, %error,
                        "the agent's records can't be written: until they can be, no pod is launched and no end told; make room on the disk"
                    );
                }
                Err(_) => {}
            }
            failures = failures.wrapping_add(1);
            std::thread::sleep(PAUSE);
        }
    }

    fn attempt<E>(&mut self, group: &[Batch<E>]) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        commit(&database, group)?;
        self.database = Some(database);
        Ok(())
    }
}

fn commit<E>(database: &Database, group: &[Batch<E>]) -> Result<(), redb::Error> {
    if group.iter().all(|batch| batch.changes.is_empty()) {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        let mut changes = group.iter().flat_map(|batch| &batch.changes).filter(|(kind, ..)| *kind == table).peekable();
        if changes.peek().is_none() {
            continue;
        }
        let mut open = transaction.open_table(table.definition())?;
        for (_, key, value) in changes {
            match value {
                Some(value) => open.insert(key.as_slice(), value.as_slice())?,
                None => open.remove(key.as_slice())?,
            };
        }
    }
    Ok(transaction.commit()?)
}

/// Reads the records of a table.
pub(super) fn decode<M: Message + Default>(path: &Path, table: &'static str, records: Records) -> Result<Vec<(Vec<u8>, M)>, JournalError> {
    let damaged = |_| JournalError::Damaged { path: path.display().to_string(), table };
    records.into_iter().map(|(key, value)| Ok((key, M::decode(value.as_slice()).map_err(damaged)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, Ordering},
        },
    };

    use redb::StorageBackend;
    use tokio::sync::Notify;

    use super::*;
    use crate::agent::record::ProcessRecord;

    /// A disk that can be full.
    #[derive(Debug, Clone, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        full: Arc<AtomicBool>,
        /// Told of each write that was refused.
        refused: Arc<Notify>,
    }

    impl Disk {
        fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
            if self.full.load(Ordering::SeqCst) {
                self.refused.notify_one();
                return Err(io::ErrorKind::StorageFull.into());
            }
            change(&mut self.bytes.lock().unwrap());
            Ok(())
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().unwrap().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            out.copy_from_slice(&self.bytes.lock().unwrap()[start..start + out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.changed(|bytes| bytes.resize(usize::try_from(len).unwrap(), 0))
        }

        fn sync_data(&self) -> io::Result<()> {
            self.changed(|_| {})
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            self.changed(|bytes| bytes[start..start + data.len()].copy_from_slice(data))
        }
    }

    #[tokio::test]
    async fn what_a_full_disk_did_not_take_is_written_when_there_is_room_and_only_then_followed() {
        let disk = Disk::default();
        let open = {
            let disk = disk.clone();
            move || Ok(Database::builder().create_with_backend(disk.clone())?)
        };
        let (done, mut durable) = mpsc::unbounded_channel();
        let (journal, _) = Journal::with(Path::new("disk"), open.clone(), "first", done).unwrap();
        let record = ProcessRecord { pid: 7, start: 8, boot: "b".into(), ended: false };
        let write = async |name: &'static str| {
            let mut batch = Batch::default();
            batch.put(Table::Processes, name.into(), &record);
            batch.then.push(name);
            journal.write(batch).await;
        };
        disk.full.store(true, Ordering::SeqCst);
        write("a").await;
        disk.refused.notified().await;
        write("b").await;
        assert!(durable.try_recv().is_err(), "nothing follows what is not on disk");
        disk.full.store(false, Ordering::SeqCst);
        let mut told = durable.recv().await.unwrap();
        while told.len() < 2 {
            told.extend(durable.recv().await.unwrap());
        }
        assert_eq!(told, ["a", "b"]);
        // One that ends while nothing can be written is held up by nobody.
        disk.full.store(true, Ordering::SeqCst);
        write("c").await;
        disk.refused.notified().await;
        journal.close().await;
        disk.full.store(false, Ordering::SeqCst);
        let (done, _) = mpsc::unbounded_channel::<Vec<()>>();
        let (_, stored) = Journal::with(Path::new("disk"), open, "second", done).unwrap();
        assert_eq!(stored.tables[&Table::Processes].keys().collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[tokio::test]
    async fn what_was_reported_durable_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        let (done, mut durable) = mpsc::unbounded_channel();
        let (journal, stored) = Journal::open(&path, "first", done).unwrap();
        assert_eq!(stored.agent_id, None);
        let record = ProcessRecord { pid: 7, start: 8, boot: "b".into(), ended: false };
        let mut batch = Batch::default();
        batch.put(Table::Processes, b"a".to_vec(), &record);
        batch.put(Table::Processes, b"b".to_vec(), &record);
        batch.then.push("stored");
        journal.write(batch).await;
        assert_eq!(durable.recv().await.unwrap(), ["stored"]);
        let mut batch = Batch::default();
        batch.delete(Table::Processes, b"b".to_vec());
        journal.write(batch).await;
        journal.close().await;

        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (done, _) = mpsc::unbounded_channel::<Vec<()>>();
        let (_, mut stored) = Journal::open(&path, "second", done).unwrap();
        assert_eq!(stored.agent_id.as_deref(), Some("first"));
        let processes: Vec<(Vec<u8>, ProcessRecord)> =
            decode(&path, "processes", stored.tables.remove(&Table::Processes).unwrap()).unwrap();
        assert_eq!(processes, [(b"a".to_vec(), record)]);
    }

    #[test]
    fn a_file_of_another_version_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        {
            let database = Database::create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("version", 99u64.to_be_bytes().as_slice()).unwrap();
            transaction.commit().unwrap();
        }
        let (done, _) = mpsc::unbounded_channel::<Vec<()>>();
        let error = Journal::open(&path, "id", done).err().unwrap();
        assert!(matches!(error, JournalError::Version { found: 99, .. }), "{error}");
    }
}
