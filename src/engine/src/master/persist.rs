//! What outlives the master's process: ids of completed frameworks, and of agents, about whose tasks
//! reconciliation must stay silent until they are back; what operators have said of agents and machines. One small JSON
//! file, replaced as a whole.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_proto::mesos::v1::maintenance::Schedule;
use podium_proto::mesos::v1::{DrainInfo, MachineId};
use podium_proto::wire::json;
use prost::{Message, Name};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::MasterError;

const FILE: &str = "master.json";
/// Between two tries to write what the disk did not take.
const RETRY: Duration = Duration::from_millis(500);
/// Tries between two words about it in the log.
const SILENCE: u32 = 120;
/// Of the file's layout. Version 1 had nothing of what operators say of agents and machines, and who reads no more than that would
/// write it away.
const VERSION: u32 = 2;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    /// Frameworks that may not subscribe again, oldest first.
    pub(super) completed_frameworks: Vec<String>,
    /// Agents that were registered.
    pub(super) agents: Vec<String>,
    /// Agents that were unreachable, with the time since when in nanoseconds.
    pub(super) unreachable_agents: BTreeMap<String, i64>,
    /// Agents that an operator marked as gone.
    pub(super) gone_agents: Vec<String>,
    /// Agents that are being emptied, or are empty.
    #[serde(default)]
    pub(super) draining_agents: BTreeMap<String, AsJson<DrainInfo>>,
    /// Agents that are not to be offered.
    #[serde(default)]
    pub(super) deactivated_agents: Vec<String>,
    /// Which machines are to be taken down, and when.
    #[serde(default)]
    pub(super) schedule: AsJson<Schedule>,
    /// Which of them are down.
    #[serde(default)]
    pub(super) machines_down: Vec<AsJson<MachineId>>,
}

/// A message in protobuf's JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct AsJson<M>(pub(super) M);

impl<M: Message + Name> Serialize for AsJson<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json::to_value(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de, M: Message + Name + Default> Deserialize<'de> for AsJson<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        json::from_value(&value).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Kept {
    pub(super) fn new(
        completed_frameworks: Vec<String>,
        agents: Vec<String>,
        unreachable_agents: BTreeMap<String, i64>,
        gone_agents: Vec<String>,
    ) -> Self {
        Self { version: VERSION, completed_frameworks, agents, unreachable_agents, gone_agents, ..Self::default() }
    }
}

/// Reads the file; a missing one is an empty one.
pub(super) async fn load(data_dir: &Path) -> Result<Kept, MasterError> {
    let path = data_dir.join(FILE);
    let failed = |reason: String| MasterError::State { path: path.clone(), reason };
    let text = match tokio::fs::read(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let kept: Kept = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    if kept.version > VERSION {
        return Err(failed(format!("it was written by a newer version (layout {}, known {VERSION})", kept.version)));
    }
    Ok(kept)
}

/// Writes the newest state in the background, one write at a time, until it is written.
#[derive(Debug)]
pub(super) struct Saver {
    newest: watch::Sender<(u64, Kept)>,
    written: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

/// One state on its way to the disk.
#[derive(Debug)]
pub(super) struct Saving {
    number: u64,
    written: watch::Receiver<u64>,
}

impl Saving {
    /// Waits until it, or a newer one, is written; `false` if the master stops before.
    pub(super) async fn done(mut self) -> bool {
        self.written.wait_for(|written| *written >= self.number).await.is_ok()
    }
}

impl Saver {
    pub(super) fn start(data_dir: PathBuf) -> Self {
        let (newest, changes) = watch::channel((0, Kept::default()));
        let (tell, written) = watch::channel(0);
        Self { newest, written, task: tokio::spawn(save(data_dir, changes, tell)) }
    }

    pub(super) fn save(&self, kept: Kept) -> Saving {
        let mut number = 0;
        self.newest.send_modify(|newest| {
            number = newest.0 + 1;
            *newest = (number, kept);
        });
        Saving { number, written: self.written.clone() }
    }

    /// Returns when the last state is written, or the disk has refused it once more.
    pub(super) async fn finish(self) {
        drop(self.newest);
        // A task that panicked has nothing more to write.
        let _ = self.task.await;
    }
}

async fn save(data_dir: PathBuf, mut changes: watch::Receiver<(u64, Kept)>, tell: watch::Sender<u64>) {
    let mut failures: u32 = 0;
    while failures > 0 || changes.changed().await.is_ok() {
        let (number, kept) = changes.borrow_and_update().clone();
        let data_dir = data_dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&data_dir, &kept)).await;
        match written.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => {
                failures = 0;
                tell.send_replace(number);
            }
            Err(error) => {
                if failures.is_multiple_of(SILENCE) {
                    tracing::error!(%error, "the state of the Mesos master can't be saved, and is tried again; make room on the disk");
                }
                failures = failures.saturating_add(1);
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() {
                        return;
                    },
                    () = sleep(RETRY) => {}
                }
            }
        }
    }
}

/// Replaces the file as a whole, so that a crash leaves the old one or the new one.
fn write(data_dir: &Path, kept: &Kept) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let temporary = data_dir.join(format!("{FILE}.new"));
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, data_dir.join(FILE))?;
    std::fs::File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::maintenance::Window;
    use podium_proto::mesos::v1::{DrainConfig, DrainState};

    use super::*;

    #[tokio::test]
    async fn what_is_saved_is_read_again_and_what_is_broken_or_newer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).await.unwrap(), Kept::default());
        let machine = MachineId { hostname: Some("m".to_owned()), ip: None };
        let config = DrainConfig { max_grace_period: None, mark_gone: Some(true) };
        let drain = DrainInfo { state: DrainState::Draining.into(), config };
        let window = Window { machine_ids: vec![machine.clone()], ..Window::default() };
        let before = Kept::new(vec!["f".to_owned()], vec!["a".to_owned()], BTreeMap::from([("b".to_owned(), 7)]), vec![]);
        let kept = Kept {
            draining_agents: BTreeMap::from([("a".to_owned(), AsJson(drain))]),
            deactivated_agents: vec!["a".to_owned()],
            schedule: AsJson(Schedule { windows: vec![window] }),
            machines_down: vec![AsJson(machine)],
            ..before.clone()
        };
        let saver = Saver::start(folder.path().to_owned());
        saver.save(kept.clone());
        saver.finish().await;
        assert_eq!(load(folder.path()).await.unwrap(), kept);
        assert!(kept.version > 1, "who knows no more than version 1 has to refuse it");
        let of_version = |version: u32| {
            let rest = r#""completed_frameworks":["f"],"agents":["a"],"unreachable_agents":{"b":7},"gone_agents":[]"#;
            format!(r#"{{"version":{version},{rest}}}"#)
        };
        std::fs::write(folder.path().join(FILE), of_version(1)).unwrap();
        assert_eq!(load(folder.path()).await.unwrap(), Kept { version: 1, ..before });
        for text in ["{".to_owned(), of_version(3)] {
            std::fs::write(folder.path().join(FILE), &text).unwrap();
            assert!(load(folder.path()).await.is_err(), "{text}");
        }
    }
}
