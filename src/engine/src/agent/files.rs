//! Files of the sandboxes, and of nothing else: what leads out of them, by `..` or by a link, is refused.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use podium_proto::mesos::v1::{FileInfo, TimeInfo};

use crate::beneath::Folder;

/// The most that one answer holds: sixteen pages.
pub(super) const MAX_READ: usize = 64 << 10;
/// Entries of a folder in one answer.
const MAX_ENTRIES: usize = 10_000;

/// Why a file is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no such thing in any sandbox.
    Unknown,
    /// It is there, and leads out of the sandboxes or can't be read.
    Forbidden,
    /// A folder where a file is wanted.
    NotAFile,
}

/// The sandboxes of one agent.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// `<folder>/slaves`.
    root: PathBuf,
    /// This agent's part of it.
    agent: PathBuf,
}

impl Files {
    pub fn new(folder: &Path, agent_id: &str) -> Files {
        let root = folder.join("slaves");
        Files { agent: root.join(agent_id), root }
    }

    /// The true path behind a path of the machine, or behind Mesos' `/frameworks/<F>/executors/<E>/runs/…`.
    fn resolve(&self, path: &str) -> Result<PathBuf, Denied> {
        let plain = Path::new(path);
        let candidate = if plain.starts_with("/frameworks") { self.agent.join(path.trim_start_matches('/')) } else { plain.to_owned() };
        let root = fs::canonicalize(&self.root).map_err(|_| Denied::Unknown)?;
        let real = fs::canonicalize(&candidate).map_err(denied)?;
        if real.starts_with(&root) {
            return Ok(real);
        }
        // What is outside is not even said to exist, unless a path inside leads there.
        let inside = candidate.starts_with(&self.root) || candidate.starts_with(&root);
        let climbs = candidate.components().any(|part| part == std::path::Component::ParentDir);
        Err(if inside && !climbs { Denied::Forbidden } else { Denied::Unknown })
    }

    /// Opens what [`Files::resolve`] found, without following any link that may have been put there since.
    fn open(&self, real: &Path) -> Result<File, Denied> {
        let root = fs::canonicalize(&self.root).map_err(denied)?;
        let within = real.strip_prefix(&root).map_err(|_| Denied::Forbidden)?;
        let within = if within.as_os_str().is_empty() { Path::new(".") } else { within };
        Folder::open(&root).and_then(|folder| folder.read(within)).map_err(denied)
    }

    /// The size of a file, and up to `length` of its bytes from `offset`.
    pub fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<(u64, Vec<u8>), Denied> {
        let mut file = self.open(&self.resolve(path)?)?;
        let data = file.metadata().map_err(denied)?;
        if !data.is_file() {
            return Err(Denied::NotAFile);
        }
        let most = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(MAX_READ).min(MAX_READ);
        let mut bytes = Vec::new();
        if offset < data.len() {
            file.seek(SeekFrom::Start(offset)).map_err(denied)?;
            file.take(most as u64).read_to_end(&mut bytes).map_err(denied)?;
        }
        Ok((data.len(), bytes))
    }

    /// What is in a folder, by name; a file is a folder of itself.
    pub fn list(&self, path: &str) -> Result<Vec<FileInfo>, Denied> {
        let real = self.resolve(path)?;
        let shown = path.trim_end_matches('/');
        let opened = self.open(&real)?;
        let data = opened.metadata().map_err(denied)?;
        if !data.is_dir() {
            return Ok(vec![info(shown.to_owned(), &data)]);
        }
        let mut infos = Vec::new();
        // The folder that was opened, whatever stands at its path by now.
        let folder = format!("/proc/self/fd/{}", opened.as_raw_fd());
        for entry in fs::read_dir(folder).map_err(denied)?.take(MAX_ENTRIES) {
            let Ok(entry) = entry else { continue };
            let name = format!("{shown}/{}", entry.file_name().to_string_lossy());
            // One that vanished meanwhile is not there.
            infos.extend(entry.metadata().map(|data| info(name, &data)));
        }
        infos.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(infos)
    }
}

fn info(name: String, data: &Metadata) -> FileInfo {
    let nanoseconds = data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec());
    FileInfo {
        path: name,
        nlink: i32::try_from(data.nlink()).ok(),
        size: Some(data.len()),
        mtime: Some(TimeInfo { nanoseconds }),
        mode: Some(data.mode()),
        uid: Some(data.uid().to_string()),
        gid: Some(data.gid().to_string()),
    }
}

#[allow(clippy::needless_pass_by_value)]
fn denied(error: io::Error) -> Denied {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => Denied::Unknown,
        _ => Denied::Forbidden,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sandbox() -> (tempfile::TempDir, Files, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("slaves/A/frameworks/F/executors/E/runs/1");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("stdout"), "hello world").unwrap();
        fs::write(folder.path().join("agent.redb"), "secret").unwrap();
        symlink(&run, run.parent().unwrap().join("latest")).unwrap();
        let files = Files::new(folder.path(), "A");
        (folder, files, run)
    }

    #[test]
    fn a_file_is_read_by_its_place_on_the_machine_and_by_mesos_own_path() {
        let (_folder, files, run) = sandbox();
        let plain = run.join("stdout");
        assert_eq!(files.read(plain.to_str().unwrap(), 6, None), Ok((11, b"world".to_vec())));
        assert_eq!(files.read("/frameworks/F/executors/E/runs/latest/stdout", 0, Some(5)), Ok((11, b"hello".to_vec())));
        assert_eq!(files.read("/frameworks/F/executors/E/runs/latest/stdout", 99, None), Ok((11, vec![])));
        let names: Vec<String> = files.list("/frameworks/F/executors/E/runs/1").unwrap().into_iter().map(|info| info.path).collect();
        assert_eq!(names, ["/frameworks/F/executors/E/runs/1/stdout"]);
    }

    #[test]
    fn nothing_outside_of_the_sandboxes_is_shown_by_any_path() {
        let (folder, files, run) = sandbox();
        symlink("/etc/passwd", run.join("escape")).unwrap();
        symlink("/etc", run.join("etc")).unwrap();
        let escape = run.join("escape");
        assert_eq!(files.read(escape.to_str().unwrap(), 0, None), Err(Denied::Forbidden));
        assert_eq!(files.read(run.join("etc/passwd").to_str().unwrap(), 0, None), Err(Denied::Forbidden));
        assert_eq!(files.list(run.join("etc").to_str().unwrap()), Err(Denied::Forbidden));
        assert_eq!(files.read("/etc/passwd", 0, None), Err(Denied::Unknown));
        assert_eq!(files.read("/frameworks/../../../agent.redb", 0, None), Err(Denied::Unknown));
        assert_eq!(files.read(folder.path().join("agent.redb").to_str().unwrap(), 0, None), Err(Denied::Unknown));
        assert_eq!(files.read("stdout", 0, None), Err(Denied::Unknown));
        assert_eq!(files.read("", 0, None), Err(Denied::Unknown));
    }

    #[test]
    fn a_folder_is_not_read_and_a_pipe_does_not_block() {
        let (_folder, files, run) = sandbox();
        assert_eq!(files.read(run.to_str().unwrap(), 0, None), Err(Denied::NotAFile));
        let pipe = run.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(files.read(pipe.to_str().unwrap(), 0, None), Err(Denied::NotAFile));
    }
}
