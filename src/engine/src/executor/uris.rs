//! Brings a task's URIs into its sandbox: files of this machine by copying, archives by the machine's `tar`.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use podium_proto::mesos::v1::command_info::Uri;

use super::{
    sandbox::{inside, own},
    support::cannot,
    users::Account,
};

const TAR: [&str; 9] = [".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".gz.tar", ".tar.zst"];

/// Copies, and extracts or makes executable as the URI says.
pub(crate) fn fetch(uri: &Uri, directory: &Path, account: Option<Account>) -> Result<(), String> {
    let value = &uri.value;
    let source = source(value)?;
    let name = match &uri.output_file {
        Some(name) => inside(name).ok_or_else(|| format!("the output file '{name}' of the uri '{value}' leads out of the sandbox"))?,
        None => source.file_name().map(PathBuf::from).ok_or_else(|| format!("the uri '{value}' names no file"))?,
    };
    let target = directory.join(name);
    let failed = |error: std::io::Error| format!("cannot fetch the uri '{value}': {error}");
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::copy(&source, &target).map_err(failed)?;
    own(&target, account).map_err(failed)?;
    if uri.executable.unwrap_or(false) {
        return fs::set_permissions(&target, Permissions::from_mode(0o755)).map_err(failed);
    }
    fs::set_permissions(&target, Permissions::from_mode(0o644)).map_err(failed)?;
    if uri.extract.unwrap_or(true) { extract(value, &target, directory, account) } else { Ok(()) }
}

fn source(value: &str) -> Result<PathBuf, String> {
    if let Some(path) = value.strip_prefix("file://") {
        let path = path.strip_prefix("localhost").unwrap_or(path);
        return Ok(PathBuf::from(path));
    }
    if value.contains("://") {
        return Err(cannot(&format!("fetch the uri '{value}', only file:// and paths of this machine")));
    }
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(path) } else { Err(format!("the uri '{value}' is a relative path; give an absolute one")) }
}

fn extract(value: &str, archive: &Path, directory: &Path, account: Option<Account>) -> Result<(), String> {
    let name = archive.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if name.ends_with(".zip") {
        return Err(cannot(&format!("extract the zip archive of the uri '{value}'; set extract to false, or use a tar archive")));
    }
    if !TAR.iter().any(|suffix| name.ends_with(suffix)) {
        return Ok(());
    }
    let mut command = Command::new("tar");
    command.arg("-xf").arg(archive).arg("-C").arg(directory).arg("--no-same-owner");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(account) = account {
        use std::os::unix::process::CommandExt as _;
        command.uid(account.uid).gid(account.gid);
    }
    let output = command.output().map_err(|error| format!("cannot extract the uri '{value}' with tar: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("cannot extract the uri '{value}': {}", words.lines().next().unwrap_or("tar failed without a word")))
}
