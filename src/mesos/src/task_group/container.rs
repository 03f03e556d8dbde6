//! Command, container, volumes and limits of one task (reference section 4.2).

use std::collections::BTreeMap;

use podium_proto::mesos::v1;
use podium_proto::wire::amounts::{scalar, thousandths};
use podium_types::definition::{
    Command, Container, Image, ImageKind, IpcMode, Limit, LinuxInfo, NetworkMode, PodDefinition, VolumeMount, VolumeSource,
};

use super::{BuildError, Launch, environment};

/// True if containers see the agent's own network.
pub(super) fn is_on_host_network(definition: &PodDefinition) -> bool {
    definition.networks.is_empty() || definition.networks.iter().any(|network| network.mode == NetworkMode::Host)
}

/// The value of one of the pod's secrets.
pub(super) fn secret(launch: &Launch<'_>, name: &str) -> Result<v1::Secret, BuildError> {
    let Some(declared) = launch.definition.secrets.get(name) else {
        return Err(BuildError::Inconsistent(format!("secret `{name}` is not declared in `secrets`")));
    };
    let value = launch.secrets.get(&declared.source);
    let missing = || BuildError::Secret { name: name.to_owned(), source_path: declared.source.clone() };
    Ok(value.ok_or_else(missing)?.to_mesos())
}

/// What to run, as whom, with which files and variables.
pub(super) fn command(launch: &Launch<'_>, container: &Container) -> Result<v1::CommandInfo, BuildError> {
    let uris = container.artifacts.iter().map(|artifact| v1::command_info::Uri {
        value: artifact.uri.clone(),
        cache: Some(artifact.cache),
        extract: Some(artifact.extract),
        executable: Some(artifact.executable),
        output_file: artifact.dest_path.clone(),
    });
    Ok(v1::CommandInfo {
        user: container.user.clone().or_else(|| launch.definition.user.clone()),
        environment: Some(environment::environment(launch, container)?),
        uris: uris.collect(),
        ..invocation(container)
    })
}

/// The command alone. The image's entry point stands in for what is not given; an argument list replaces
/// the entry point unless `overrideEntrypoint` is false, and always where there is no image.
fn invocation(container: &Container) -> v1::CommandInfo {
    let Some(exec) = &container.exec else { return entry_point(Vec::new()) };
    match &exec.command {
        Command::Shell(_) => of_command(&exec.command),
        Command::Argv(_) if container.image.is_none() || exec.override_entrypoint != Some(false) => of_command(&exec.command),
        Command::Argv(argv) => entry_point(argv.clone()),
    }
}

fn entry_point(arguments: Vec<String>) -> v1::CommandInfo {
    v1::CommandInfo { shell: Some(false), arguments, ..v1::CommandInfo::default() }
}

/// A command that stands for itself, as in a health check.
pub(super) fn of_command(command: &Command) -> v1::CommandInfo {
    match command {
        Command::Shell(text) if text.is_empty() => entry_point(Vec::new()),
        Command::Shell(text) => v1::CommandInfo { shell: Some(true), value: Some(text.clone()), ..v1::CommandInfo::default() },
        Command::Argv(argv) => v1::CommandInfo { value: argv.first().cloned(), ..entry_point(argv.clone()) },
    }
}

/// Image, volumes, terminal and Linux settings. Networks belong to the executor.
pub(super) fn container_info(launch: &Launch<'_>, container: &Container) -> Result<v1::ContainerInfo, BuildError> {
    let image = container.image.as_ref().map(|image| mesos_image(launch, image)).transpose()?;
    Ok(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        mesos: image.map(|image| v1::container_info::MesosInfo { image: Some(image) }),
        volumes: container.volume_mounts.iter().map(|mount| volume(launch, mount)).collect::<Result<_, _>>()?,
        linux_info: Some(linux_info(launch.definition, container.linux_info.as_ref())),
        tty_info: container.tty.unwrap_or(false).then(v1::TtyInfo::default),
        ..v1::ContainerInfo::default()
    })
}

fn mesos_image(launch: &Launch<'_>, image: &Image) -> Result<v1::Image, BuildError> {
    let cached = image.force_pull.map(|pull| !pull);
    Ok(match image.kind {
        ImageKind::Docker => {
            let config = image.pull_config.as_ref().map(|name| secret(launch, name)).transpose()?;
            #[allow(deprecated)]
            let docker = v1::image::Docker { name: image.id.clone(), config, credential: None };
            v1::Image { r#type: v1::image::Type::Docker.into(), docker: Some(docker), cached, ..v1::Image::default() }
        }
        ImageKind::Appc => {
            let labels = image.labels.iter().map(|(key, value)| v1::Label { key: key.clone(), value: Some(value.clone()) }).collect();
            let appc = v1::image::Appc { name: image.id.clone(), id: None, labels: Some(v1::Labels { labels }) };
            v1::Image { r#type: v1::image::Type::Appc.into(), appc: Some(appc), cached, ..v1::Image::default() }
        }
    })
}

fn volume(launch: &Launch<'_>, mount: &VolumeMount) -> Result<v1::Volume, BuildError> {
    use v1::volume::source::{self, SandboxPath, sandbox_path};

    let declared = launch.definition.volumes.iter().find(|volume| volume.name == mount.name);
    let Some(declared) = declared else {
        return Err(BuildError::Inconsistent(format!("volume `{}` is mounted but not declared", mount.name)));
    };
    let in_executor = |path: String| v1::volume::Source {
        r#type: Some(source::Type::SandboxPath.into()),
        sandbox_path: Some(SandboxPath { r#type: Some(sandbox_path::Type::Parent.into()), path }),
        ..v1::volume::Source::default()
    };
    let (host_path, source) = match &declared.source {
        VolumeSource::Host(path) => (Some(path.clone()), None),
        VolumeSource::Ephemeral => (None, Some(in_executor(format!("volumes/{}", declared.name)))),
        VolumeSource::Persistent(_) => (None, Some(in_executor(declared.name.clone()))),
        VolumeSource::Secret(name) => {
            let secret = Some(secret(launch, name)?);
            (None, Some(v1::volume::Source { r#type: Some(source::Type::Secret.into()), secret, ..v1::volume::Source::default() }))
        }
    };
    let mode = if mount.read_only { v1::volume::Mode::Ro } else { v1::volume::Mode::Rw };
    Ok(v1::Volume { container_path: mount.mount_path.clone(), mode: mode.into(), host_path, source, ..v1::Volume::default() })
}

/// Seccomp, IPC, and whether cgroups are shared, which must be the same in the whole group.
pub(super) fn linux_info(definition: &PodDefinition, linux: Option<&LinuxInfo>) -> v1::LinuxInfo {
    let seccomp = linux.and_then(|linux| linux.seccomp.as_ref()).map(|seccomp| v1::SeccompInfo {
        profile_name: seccomp.profile_name.clone(),
        unconfined: (seccomp.unconfined || seccomp.profile_name.is_none()).then_some(seccomp.unconfined),
    });
    let ipc = linux.and_then(|linux| linux.ipc_info.as_ref());
    let mode = ipc.map(|ipc| match ipc.mode {
        IpcMode::Private => v1::linux_info::IpcMode::Private,
        IpcMode::ShareParent => v1::linux_info::IpcMode::ShareParent,
    });
    v1::LinuxInfo {
        seccomp,
        ipc_mode: mode.map(Into::into),
        shm_size: ipc.and_then(|ipc| ipc.shm_size),
        share_cgroups: Some(definition.legacy_shared_cgroups.unwrap_or(false)),
        ..v1::LinuxInfo::default()
    }
}

/// Upper bounds; `unlimited` is infinity.
pub(super) fn limits(container: &Container) -> BTreeMap<String, v1::value::Scalar> {
    let Some(limits) = &container.resource_limits else { return BTreeMap::new() };
    let value = |limit| match limit {
        Limit::Amount(amount) => scalar(thousandths(amount)),
        Limit::Unlimited => v1::value::Scalar { value: f64::INFINITY },
    };
    let named = [("cpus", limits.cpus), ("mem", limits.mem)];
    named.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), value(limit?)))).collect()
}
