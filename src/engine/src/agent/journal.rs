//! The agent's durable memory: one redb file, one writer thread, one disk synchronisation for all that is
//! waiting. What must follow a write is given along with it and handed back when it is on disk.

use std::{collections::BTreeMap, path::Path};

use prost::Message;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, watch};

/// Changes with the meaning of what is stored.
const VERSION: u64 = 1;
/// Batches waiting for the writer.
const QUEUE: usize = 1024;
/// Batches of one disk synchronisation.
const GROUP: usize = 512;

const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Executors,
    Processes,
    Tasks,
    Updates,
}

impl Table {
    const ALL: [Table; 4] = [Table::Executors, Table::Processes, Table::Tasks, Table::Updates];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Table::Executors => "executors",
            Table::Processes => "processes",
            Table::Tasks => "tasks",
            Table::Updates => "updates",
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
    /// Opens `path`, or makes it with `new_id` as the agent's. `done` receives what follows durable batches, and the
    /// error that ends all writing. It is unbounded, yet never holds more than [`QUEUE`] batches' worth: the sender of
    /// batches is its reader.
    pub fn open(
        path: &Path,
        new_id: &str,
        done: mpsc::UnboundedSender<Result<Vec<E>, JournalError>>,
    ) -> Result<(Journal<E>, Stored), JournalError> {
        let name = path.display().to_string();
        let failed = |source: redb::Error| JournalError::Storage { path: name.clone(), source: Box::new(source) };
        let database = Database::create(path).map_err(|error| failed(error.into()))?;
        let agent_id = identify(&database, new_id).map_err(failed)?;
        let stored = match agent_id {
            Ok(agent_id) => Stored { agent_id, tables: load(&database).map_err(failed)? },
            Err(found) => return Err(JournalError::Version { path: name, found }),
        };
        let (batches, queue) = mpsc::channel(QUEUE);
        let (open, closed) = watch::channel(());
        let writer = std::thread::Builder::new().name("agent-journal".to_owned()).spawn(move || {
            write(&database, &name, queue, &done);
            drop(database);
            drop(open);
        });
        writer.map_err(|error| JournalError::Storage { path: path.display().to_string(), source: Box::new(redb::Error::Io(error)) })?;
        Ok((Journal { batches, closed }, stored))
    }

    /// Queues a batch; waits while too many are queued. A writer that has failed says so through `done`.
    pub async fn write(&self, batch: Batch<E>) {
        let _ = self.batches.send(batch).await;
    }

    /// Tells when the file is closed, also after the journal was dropped.
    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }

    /// Writes what is queued and closes the file.
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

fn write<E>(
    database: &Database,
    path: &str,
    mut queue: mpsc::Receiver<Batch<E>>,
    done: &mpsc::UnboundedSender<Result<Vec<E>, JournalError>>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        if let Err(source) = commit(database, &group) {
            let _ = done.send(Err(JournalError::Storage { path: path.to_owned(), source: Box::new(source) }));
            return;
        }
        let then: Vec<E> = group.drain(..).flat_map(|batch| batch.then).collect();
        if !then.is_empty() && done.send(Ok(then)).is_err() {
            // An agent that has stopped abruptly: what it queued before is still written, as its crash might have let it.
        }
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
    use super::*;
    use crate::agent::record::ProcessRecord;

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
        assert_eq!(durable.recv().await.unwrap().unwrap(), ["stored"]);
        let mut batch = Batch::default();
        batch.delete(Table::Processes, b"b".to_vec());
        journal.write(batch).await;
        journal.close().await;

        let (done, _) = mpsc::unbounded_channel::<Result<Vec<()>, _>>();
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
        let (done, _) = mpsc::unbounded_channel::<Result<Vec<()>, _>>();
        let error = Journal::open(&path, "id", done).err().unwrap();
        assert!(matches!(error, JournalError::Version { found: 99, .. }), "{error}");
    }
}
