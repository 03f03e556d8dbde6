//! Values of secrets from `--secrets-dir`: one file each, named by its source. Nothing outside the folder is read, and
//! no value is ever printed.
//!
//! They are read for a batch that is about to be launched, beside everything else: who mounts the folder over a network that
//! hangs keeps those pods waiting that need it, and no others.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use podium_mesos::secret::{SecretValue, SecretValues};
use podium_types::definition::PodDefinition;

/// Larger files are no secrets.
const LARGEST: u64 = 1 << 20;

/// Values, as far as they have been read.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub values: SecretValues,
    /// Sources that were looked for, also in vain.
    pub read: BTreeSet<String>,
    /// Reading more takes too long: who needs it waits.
    pub stuck: bool,
}

impl Known {
    /// Sources that a pod needs and that were not looked for yet.
    pub fn lacks<'a>(&'a self, definition: &'a PodDefinition) -> impl Iterator<Item = &'a String> {
        definition.secrets.values().map(|secret| &secret.source).filter(|source| !self.read.contains(*source))
    }

    /// What was read since.
    pub fn add(&mut self, more: Known) {
        self.values.extend(more.values);
        self.read.extend(more.read);
    }
}

/// Reads these on a thread that may block.
pub(super) async fn read_beside(dir: Option<PathBuf>, sources: BTreeSet<String>) -> Known {
    let wanted = sources.clone();
    let values = tokio::task::spawn_blocking(move || read(dir.as_deref(), wanted)).await;
    // Not read at all is like not there: the launch is refused for it, in words.
    Known { values: values.unwrap_or_default(), read: sources, stuck: false }
}

/// The values that there are. What is missing or can't be read is left out, and said in the log by its source.
fn read(dir: Option<&Path>, sources: BTreeSet<String>) -> SecretValues {
    let Some(dir) = dir else { return SecretValues::new() };
    let Ok(dir) = dir.canonicalize() else {
        tracing::warn!(dir = %dir.display(), "--secrets-dir can't be read");
        return SecretValues::new();
    };
    let value = |source: String| match read_one(&dir, &source) {
        Ok(value) => Some((source, value)),
        Err(reason) => {
            tracing::warn!(source, reason, "a secret has no value");
            None
        }
    };
    sources.into_iter().filter_map(value).collect()
}

fn read_one(dir: &Path, source: &str) -> Result<SecretValue, String> {
    let path = confined(dir, source).ok_or("its source leads out of --secrets-dir")?;
    // Before it is opened: a named pipe would keep the gateway waiting.
    if !path.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("not a file".to_owned());
    }
    let file = File::open(&path).map_err(|error| error.to_string())?;
    let mut value = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut value).map_err(|error| error.to_string())?;
    if value.len() as u64 > LARGEST {
        return Err(format!("larger than {LARGEST} bytes"));
    }
    Ok(SecretValue::new(value))
}

/// The file that a source names, unless it, or a link on the way, leads out of the folder.
fn confined(dir: &Path, source: &str) -> Option<PathBuf> {
    let relative = Path::new(source.trim_start_matches('/'));
    let plain = relative.components().all(|component| matches!(component, Component::Normal(_)));
    let path = dir.join(relative).canonicalize().ok().filter(|path| path.starts_with(dir));
    // A file that is not there is reported as such, by opening it.
    plain.then(|| path.or_else(|| (!dir.join(relative).exists()).then(|| dir.join(relative)))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_source_and_nothing_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("outside"));
        std::fs::create_dir_all(inside.join("db")).unwrap();
        std::fs::write(inside.join("db/password"), "hunter2").unwrap();
        std::fs::write(&outside, "not yours").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let sources = ["db/password", "/db/password", "../outside", "link", "missing", "db", ""].map(str::to_owned).into();
        let values = read(Some(&inside), sources);
        assert_eq!(values.keys().collect::<Vec<_>>(), ["/db/password", "db/password"]);
        assert!(read(None, ["db/password".to_owned()].into()).is_empty());
    }
}
