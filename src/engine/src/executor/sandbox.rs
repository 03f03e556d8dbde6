//! Lays out a container's sandbox as Mesos does, and says what to run in it. All paths that come from a
//! task stay inside the executor's sandbox, host paths aside, and lead through no links that containers may have made.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

use podium_proto::mesos::v1::{CommandInfo, Environment, ExecutorInfo, Secret, TaskInfo, Volume, environment, volume};

use super::{
    settings::MARKER,
    spawn::{Logs, Program},
    support::cannot,
    users::{self, Account},
};
use crate::beneath::Folder;

/// Mesos' own default.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What all containers of an executor have in common.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    /// The executor's sandbox.
    pub sandbox: &'a Path,
    /// What it is, once the agent has said so: its resources name persistent volumes.
    pub executor: Option<&'a ExecutorInfo>,
    /// The agent is Podium's own, and marks volumes that nobody was given yet.
    pub marks_volumes: bool,
    /// The value of [`MARKER`] for the instance.
    pub marker: &'a str,
    /// Whom tasks run as when they do not say.
    pub framework_user: &'a str,
    /// The address of this machine that the agent uses.
    pub ip: Option<IpAddr>,
}

impl Ground<'_> {
    /// Where the container `nested` runs.
    pub fn directory(&self, nested: &str) -> PathBuf {
        self.sandbox.join("containers").join(nested)
    }

    /// The value of [`MARKER`] for the container `nested`.
    pub fn marker(&self, nested: &str) -> String {
        format!("{}/{nested}", self.marker)
    }
}

/// Makes the sandbox of `task` in container `nested`, without its artifacts; the answer says what to start there, or in plain
/// words why that can't be.
pub(crate) fn prepare(ground: &Ground<'_>, nested: &str, task: &TaskInfo) -> Result<Program, String> {
    let command = task.command.as_ref().ok_or("the task has no command")?;
    let account = users::account(task, ground.framework_user)?;
    let directory = ground.directory(nested);
    let failed = |error: io::Error| format!("cannot make the sandbox {}: {error}", directory.display());
    let sandbox = Folder::open(ground.sandbox).map_err(failed)?;
    // Not the account's: it would move its siblings' sandboxes about.
    let containers = sandbox.make(Path::new("containers"), None).map_err(failed)?;
    let folder = containers.make(Path::new(nested), account).map_err(failed)?;
    if account.is_some() {
        // Another user than the executor's has to get through to its own sandbox, without seeing others'.
        sandbox.let_through().and_then(|()| containers.let_through()).map_err(failed)?;
    }
    for name in ["stdout", "stderr"] {
        let made = folder.append(Path::new(name), 0o644, account);
        made.map_err(|error| format!("cannot make the file {name} in the sandbox: {error}"))?;
    }
    for volume in task.container.iter().flat_map(|container| &container.volumes) {
        mount(ground, &sandbox, &folder, volume, account)?;
    }
    let environment = environment(ground, nested, &directory, task, command)?;
    let (executable, argv) = command_line(command)?;
    let logs = Logs { folder, append: true };
    Ok(Program { executable, argv, environment, directory, logs, account })
}

/// `tasks/<task id>`, the way from a task's name to its sandbox.
pub(crate) fn link_task(ground: &Ground<'_>, nested: &str, task: &TaskInfo) -> io::Result<()> {
    let tasks = Folder::open(ground.sandbox)?.make(Path::new("tasks"), None)?;
    let name = inside(&task.task_id.value).filter(|name| name.components().count() == 1);
    let name = name.ok_or_else(|| io::Error::other("the task's id cannot name a file"))?;
    tasks.link(&ground.directory(nested), &name)
}

/// A program of the task's own kind for a health check: the task's environment and directory. What the
/// latest check printed stands in `containers/check`.
pub(crate) fn probe(task: &Program, command: &CommandInfo) -> Result<Program, String> {
    let (executable, argv) = command_line(command)?;
    let mut environment = task.environment.clone();
    environment.extend(variables(command.environment.as_ref())?);
    let folder = task.logs.folder.make(Path::new("containers/check"), task.account);
    let logs = Logs { folder: folder.map_err(|error| format!("cannot make the check's sandbox: {error}"))?, append: false };
    Ok(Program { executable, argv, environment, directory: task.directory.clone(), logs, account: task.account })
}

/// `shell: true` (the default) runs the value by the shell; otherwise the arguments are the whole argv.
pub(crate) fn command_line(command: &CommandInfo) -> Result<(OsString, Vec<OsString>), String> {
    let value = command.value.as_deref().filter(|value| !value.is_empty());
    if command.shell.unwrap_or(true) {
        let value = value.ok_or_else(|| cannot("run a container without a command (an image's own entry point)"))?;
        return Ok(("/bin/sh".into(), vec!["sh".into(), "-c".into(), value.into()]));
    }
    let value = value.or(command.arguments.first().map(String::as_str));
    let value = value.ok_or_else(|| cannot("run a container without a command (an image's own entry point)"))?;
    if command.arguments.is_empty() {
        return Ok((value.into(), vec![value.into()]));
    }
    Ok((value.into(), command.arguments.iter().map(OsString::from).collect()))
}

/// A container's whole environment; what comes later wins, and nothing is inherited.
fn environment(
    ground: &Ground<'_>,
    nested: &str,
    directory: &Path,
    task: &TaskInfo,
    command: &CommandInfo,
) -> Result<BTreeMap<String, String>, String> {
    let mut all =
        BTreeMap::from([("PATH".to_owned(), PATH.to_owned()), ("MESOS_SANDBOX".to_owned(), directory.to_string_lossy().into_owned())]);
    all.extend(variables(command.environment.as_ref())?);
    if let Some(ip) = ground.ip {
        all.insert("MESOS_CONTAINER_IP".to_owned(), ip.to_string());
    }
    let role = task.resources.iter().find_map(|resource| resource.allocation_info.as_ref()?.role.clone());
    if let Some(role) = role {
        all.insert("MESOS_ALLOCATION_ROLE".to_owned(), role);
    }
    all.insert(MARKER.to_owned(), ground.marker(nested));
    Ok(all)
}

fn variables(environment: Option<&Environment>) -> Result<Vec<(String, String)>, String> {
    let variables = environment.map(|environment| environment.variables.as_slice()).unwrap_or_default();
    variables.iter().map(|variable| Ok((name_of(variable)?, value_of(variable)?))).collect()
}

fn name_of(variable: &environment::Variable) -> Result<String, String> {
    if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
        return Err(format!("'{}' cannot be the name of an environment variable", variable.name.escape_debug()));
    }
    Ok(variable.name.clone())
}

fn value_of(variable: &environment::Variable) -> Result<String, String> {
    let value = match &variable.secret {
        Some(secret) => {
            let data = secret_data(secret).ok_or_else(|| {
                cannot(&format!("look up the secret of the environment variable '{}'; its value must come with it", variable.name))
            })?;
            String::from_utf8(data.to_vec())
                .map_err(|_| format!("the secret in the environment variable '{}' is not text", variable.name))?
        }
        None => variable.value.clone().unwrap_or_default(),
    };
    if value.contains('\0') {
        return Err(format!("the value of the environment variable '{}' holds a zero byte", variable.name));
    }
    Ok(value)
}

fn secret_data(secret: &Secret) -> Option<&[u8]> {
    secret.value.as_ref().map(|value| value.data.as_ref())
}

/// What a volume shows in the sandbox.
#[derive(Debug, PartialEq, Eq)]
enum Content<'a> {
    /// A folder of the executor's sandbox, relative to that, made when missing.
    Shared(PathBuf),
    /// A path of the machine, which must exist.
    Host(&'a Path),
    /// A file with this in it.
    Secret(&'a [u8]),
}

/// `sandbox` is the executor's, `folder` the container's.
fn mount(ground: &Ground<'_>, sandbox: &Folder, folder: &Folder, volume: &Volume, account: Option<Account>) -> Result<(), String> {
    let name = &volume.container_path;
    if Path::new(name).is_absolute() {
        // Nor would Mesos' own executor, unless the agent isolates file systems and the machine has that folder.
        let instead = name.trim_start_matches('/');
        return Err(format!(
            "cannot mount a volume at the absolute path '{name}' in a container without an image, which has the machine's own files; \
             mount it at a path relative to the sandbox, such as '{instead}'"
        ));
    }
    let target = inside(name).ok_or_else(|| format!("the volume's path '{name}' leads out of the sandbox"))?;
    let content = content(volume)?;
    let failed = |error: io::Error| format!("cannot mount the volume at '{name}': {error}");
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        folder.make(parent, account).map_err(failed)?;
    }
    match content {
        Content::Shared(path) => {
            let at = ground.sandbox.join(&path);
            if is_persistent(ground.executor, &path) {
                // The agent has linked it into the executor's sandbox, where no container may write.
                let volume = Folder::open(&at).map_err(failed)?;
                volume.give(account, ground.marks_volumes).map_err(failed)?;
                tell_if_closed(&volume, name, folder, account).map_err(failed)?;
            } else {
                sandbox.make(&path, account).map_err(failed)?;
            }
            folder.link(&at, &target).map_err(failed)
        }
        Content::Host(path) => {
            fs::metadata(path).map_err(|error| {
                format!(
                    "cannot mount the machine's path '{}': {error}; a host volume has to be there on every agent that may run this",
                    path.display()
                )
            })?;
            folder.link(path, &target).map_err(failed)
        }
        Content::Secret(data) => {
            let mut file = folder.create(&target, 0o400, account).map_err(failed)?;
            file.write_all(data).map_err(failed)
        }
    }
}

/// Says in the container's `stderr` why it will not get into a volume: another user, of a container beside it or of an
/// earlier version of the pod, had it first. No reason to refuse it: that one may open the volume to others at any time.
fn tell_if_closed(volume: &Folder, name: &str, folder: &Folder, account: Option<Account>) -> io::Result<()> {
    let Some((owner, mode)) = volume.is_closed_to(account)? else { return Ok(()) };
    let user = account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid);
    let words = format!(
        "podium executor: the persistent volume at '{name}' belongs to the user {owner} (mode {mode:o}), and this container runs as the user \
         {user}, who may not look into it; give both the same `user`, or let the owner open it (chmod)\n"
    );
    folder.append(Path::new("stderr"), 0o644, account)?.write_all(words.as_bytes())
}

/// Whether a persistent volume stands at this path of the executor's sandbox.
fn is_persistent(executor: Option<&ExecutorInfo>, path: &Path) -> bool {
    let resources = executor.map(|executor| executor.resources.as_slice()).unwrap_or_default();
    let disks = resources.iter().filter_map(|resource| resource.disk.as_ref()).filter(|disk| disk.persistence.is_some());
    disks.filter_map(|disk| inside(&disk.volume.as_ref()?.container_path)).any(|at| at == path)
}

fn content(volume: &Volume) -> Result<Content<'_>, String> {
    use volume::source::{Type, sandbox_path};
    let at = &volume.container_path;
    if volume.image.is_some() {
        return Err(cannot(&format!("mount an image as a volume (at '{at}')")));
    }
    if let Some(path) = &volume.host_path {
        return host(path);
    }
    let source = volume.source.as_ref().ok_or_else(|| format!("the volume at '{at}' has no source"))?;
    match source.r#type.map(Type::try_from) {
        Some(Ok(Type::SandboxPath)) => {
            let path = source.sandbox_path.as_ref().ok_or_else(|| format!("the volume at '{at}' has no sandbox path"))?;
            if path.r#type.map(sandbox_path::Type::try_from) != Some(Ok(sandbox_path::Type::Parent)) {
                return Err(cannot(&format!("mount the container's own sandbox as a volume (at '{at}')")));
            }
            let inner = inside(&path.path).ok_or_else(|| format!("the shared volume's path '{}' leads out of the sandbox", path.path))?;
            Ok(Content::Shared(inner))
        }
        Some(Ok(Type::HostPath)) => host(source.host_path.as_ref().map_or("", |host| host.path.as_str())),
        Some(Ok(Type::Secret)) => {
            let secret = source.secret.as_ref().and_then(secret_data);
            secret.map(Content::Secret).ok_or_else(|| cannot(&format!("look up the secret for the volume at '{at}'")))
        }
        Some(Ok(Type::DockerVolume)) => Err(cannot(&format!("mount Docker volumes (at '{at}')"))),
        Some(Ok(Type::CsiVolume)) => Err(cannot(&format!("mount CSI volumes (at '{at}')"))),
        Some(Ok(Type::Unknown) | Err(_)) | None => Err(format!("the volume at '{at}' has a source of an unknown type")),
    }
}

fn host(path: &str) -> Result<Content<'_>, String> {
    if !Path::new(path).is_absolute() {
        return Err(cannot(&format!("mount '{path}': a path of the machine has to be absolute")));
    }
    Ok(Content::Host(Path::new(path)))
}

/// `path` when it is relative, not empty and never goes up.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    let parts: Option<PathBuf> = Path::new(path)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    parts.filter(|parts| !parts.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_container_that_will_not_get_into_a_volume_is_told_whose_it_is() {
        let (volume, container) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(container.path().join("stderr"), "").unwrap();
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let told = |mode: u32, gid: u32| {
            fs::set_permissions(volume.path(), fs::Permissions::from_mode(mode)).unwrap();
            let [opened, folder] = [&volume, &container].map(|folder| Folder::open(folder.path()).unwrap());
            tell_if_closed(&opened, "data", &folder, Some(Account { uid: user + 7, gid })).unwrap();
            let words = fs::read_to_string(container.path().join("stderr")).unwrap();
            fs::write(container.path().join("stderr"), "").unwrap();
            words
        };
        let words = told(0o700, group + 7);
        assert!(words.contains(&format!("'data' belongs to the user {user} (mode 700)")), "{words}");
        assert!(words.contains(&format!("as the user {}, who", user + 7)) && words.ends_with('\n'), "{words}");
        assert_eq!([told(0o755, group + 7), told(0o750, group)], ["", ""], "opened to it");
        assert!(!told(0o705, group).is_empty(), "its group is shut out");
    }
}
