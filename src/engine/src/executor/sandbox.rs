//! Lays out a container's sandbox as Mesos does, and says what to run in it. All paths that come from a
//! task stay inside the executor's sandbox, host paths aside.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    path::{Component, Path, PathBuf},
};

use podium_proto::mesos::v1::{CommandInfo, Environment, Secret, TaskInfo, Volume, environment, volume};

use super::{
    settings::MARKER,
    spawn::{Logs, Program},
    support::cannot,
    users::{self, Account},
};

/// Mesos' own default.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What all containers of an executor have in common.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    /// The executor's sandbox.
    pub sandbox: &'a Path,
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
    make_directory(&directory, account).map_err(|error| format!("cannot make the sandbox {}: {error}", directory.display()))?;
    if account.is_some() {
        // Another user than the executor's has to get through to its own sandbox, without seeing others'.
        for path in [ground.sandbox, &ground.sandbox.join("containers")] {
            fs::set_permissions(path, Permissions::from_mode(0o751))
                .map_err(|error| format!("cannot open {} to users: {error}", path.display()))?;
        }
    }
    for name in ["stdout", "stderr"] {
        log_file(&directory.join(name), account).map_err(|error| format!("cannot make the file {name} in the sandbox: {error}"))?;
    }
    for volume in task.container.iter().flat_map(|container| &container.volumes) {
        mount(ground.sandbox, &directory, volume, account)?;
    }
    let environment = environment(ground, nested, &directory, task, command)?;
    let (executable, argv) = command_line(command)?;
    let logs = Logs { directory: directory.clone(), append: true };
    Ok(Program { executable, argv, environment, directory, logs, account })
}

/// `tasks/<task id>`, the way from a task's name to its sandbox.
pub(crate) fn link_task(ground: &Ground<'_>, nested: &str, task: &TaskInfo) -> io::Result<()> {
    let tasks = ground.sandbox.join("tasks");
    DirBuilder::new().recursive(true).mode(0o750).create(&tasks)?;
    let name = inside(&task.task_id.value).filter(|name| name.components().count() == 1);
    let name = name.ok_or_else(|| io::Error::other("the task's id cannot name a file"))?;
    symlink(ground.directory(nested), tasks.join(name))
}

/// A program of the task's own kind for a health check: the task's environment and directory. What the
/// latest check printed stands in `containers/check`.
pub(crate) fn probe(task: &Program, command: &CommandInfo) -> Result<Program, String> {
    let (executable, argv) = command_line(command)?;
    let mut environment = task.environment.clone();
    environment.extend(variables(command.environment.as_ref())?);
    let logs = task.directory.join("containers").join("check");
    make_directory(&logs, task.account).map_err(|error| format!("cannot make the check's sandbox: {error}"))?;
    let logs = Logs { directory: logs, append: false };
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
    /// A folder of the executor's sandbox, made when missing.
    Shared(PathBuf),
    /// A path of the machine, which must exist.
    Host(&'a Path),
    /// A file with this in it.
    Secret(&'a [u8]),
}

fn mount(sandbox: &Path, directory: &Path, volume: &Volume, account: Option<Account>) -> Result<(), String> {
    let name = &volume.container_path;
    if Path::new(name).is_absolute() {
        // Nor would Mesos' own executor, unless the agent isolates file systems and the machine has that folder.
        let instead = name.trim_start_matches('/');
        return Err(format!(
            "cannot mount a volume at the absolute path '{name}' in a container without an image, which has the machine's own files; \
             mount it at a path relative to the sandbox, such as '{instead}'"
        ));
    }
    let target = directory.join(inside(name).ok_or_else(|| format!("the volume's path '{name}' leads out of the sandbox"))?);
    let content = content(sandbox, volume)?;
    let failed = |error: io::Error| format!("cannot mount the volume at '{name}': {error}");
    if let Some(parent) = target.parent() {
        make_directory(parent, account).map_err(failed)?;
    }
    match content {
        Content::Shared(path) => {
            make_directory(&path, account).map_err(failed)?;
            symlink(path, target).map_err(failed)
        }
        Content::Host(path) => {
            fs::metadata(path).map_err(|error| {
                format!(
                    "cannot mount the machine's path '{}': {error}; a host volume has to be there on every agent that may run this",
                    path.display()
                )
            })?;
            symlink(path, target).map_err(failed)
        }
        Content::Secret(data) => {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&target).map_err(failed)?;
            file.write_all(data).map_err(failed)?;
            own(&target, account).map_err(failed)
        }
    }
}

fn content<'a>(sandbox: &Path, volume: &'a Volume) -> Result<Content<'a>, String> {
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
            Ok(Content::Shared(sandbox.join(inner)))
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

/// Makes a folder for the account, and those above it that are missing: others may pass through these.
pub(crate) fn make_directory(path: &Path, account: Option<Account>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.is_dir()).collect();
    for above in missing.into_iter().rev() {
        DirBuilder::new().mode(0o751).create(above)?;
        own(above, account)?;
    }
    DirBuilder::new().mode(0o750).create(path)?;
    own(path, account)
}

fn log_file(path: &Path, account: Option<Account>) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o644).open(path)?;
    own(path, account)
}

/// Gives a path to the account that will use it.
pub(crate) fn own(path: &Path, account: Option<Account>) -> io::Result<()> {
    account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}
