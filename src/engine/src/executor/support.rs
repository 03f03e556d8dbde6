//! What the embedded engine can't do yet, found before anything starts and said in plain words.

use podium_proto::mesos::v1::{ContainerInfo, ExecutorInfo, TaskInfo, container_info, linux_info};

/// The first thing that `task` asks for and that we can't give.
pub(crate) fn check(task: &TaskInfo, executor: Option<&ExecutorInfo>) -> Result<(), String> {
    if let Some(container) = executor.and_then(|executor| executor.container.as_ref()) {
        container_features(container)?;
    }
    if let Some(container) = &task.container {
        container_features(container)?;
    }
    if task.check.is_some() {
        return Err(cannot("run generic checks (only health checks)"));
    }
    if task.command.is_none() {
        return Err("the task has no command".to_owned());
    }
    Ok(())
}

fn container_features(container: &ContainerInfo) -> Result<(), String> {
    if container.docker.is_some() || container_info::Type::try_from(container.r#type) == Ok(container_info::Type::Docker) {
        return Err(cannot("run Docker containers"));
    }
    if let Some(image) = container.mesos.as_ref().and_then(|mesos| mesos.image.as_ref()) {
        let name = image.docker.as_ref().map(|docker| &docker.name).or(image.appc.as_ref().map(|appc| &appc.name));
        return Err(cannot(&format!("run container images ('{}')", name.map_or("unnamed", String::as_str))));
    }
    if let Some(network) = container.network_infos.iter().find_map(|network| network.name.as_ref()) {
        return Err(cannot(&format!("attach container networks ('{network}'), only the host's network")));
    }
    if container.rlimit_info.as_ref().is_some_and(|limits| !limits.rlimits.is_empty()) {
        return Err(cannot("set resource limits (rlimits)"));
    }
    if container.tty_info.is_some() {
        return Err(cannot("give a container a terminal"));
    }
    let Some(linux) = &container.linux_info else { return Ok(()) };
    if linux.bounding_capabilities.is_some() || linux.effective_capabilities.is_some() {
        return Err(cannot("set Linux capabilities"));
    }
    if linux.seccomp.as_ref().is_some_and(|seccomp| seccomp.profile_name.is_some()) {
        return Err(cannot("apply seccomp profiles"));
    }
    if linux.shm_size.is_some() || linux.ipc_mode == Some(linux_info::IpcMode::Private.into()) {
        return Err(cannot("give a container its own IPC namespace or shared memory"));
    }
    Ok(())
}

/// One sentence for everything that this executor does not do, under the embedded agent or a real one.
pub(crate) fn cannot(what: &str) -> String {
    format!("Podium's own executor cannot {what} yet; use a Mesos cluster with its stock executor for this")
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::{CommandInfo, Image, NetworkInfo, image};

    use super::*;

    fn task(container: ContainerInfo) -> TaskInfo {
        TaskInfo { command: Some(CommandInfo::default()), container: Some(container), ..TaskInfo::default() }
    }

    #[test]
    fn an_image_is_refused_by_its_name() {
        let docker = image::Docker { name: "nginx".into(), ..image::Docker::default() };
        let image = Image { r#type: image::Type::Docker.into(), docker: Some(docker), ..Image::default() };
        let container = ContainerInfo {
            r#type: container_info::Type::Mesos.into(),
            mesos: Some(container_info::MesosInfo { image: Some(image) }),
            ..ContainerInfo::default()
        };
        let error = check(&task(container), None).unwrap_err();
        assert!(error.contains("cannot run container images ('nginx') yet"), "{error}");
    }

    #[test]
    fn a_named_network_of_the_executor_is_refused_and_the_host_network_is_not() {
        let on = |name: Option<&str>| ExecutorInfo {
            container: Some(ContainerInfo {
                r#type: container_info::Type::Mesos.into(),
                network_infos: vec![NetworkInfo { name: name.map(str::to_owned), ..NetworkInfo::default() }],
                ..ContainerInfo::default()
            }),
            ..ExecutorInfo::default()
        };
        let plain = task(ContainerInfo { r#type: container_info::Type::Mesos.into(), ..ContainerInfo::default() });
        assert!(check(&plain, Some(&on(Some("dcos")))).unwrap_err().contains("'dcos'"));
        assert_eq!(check(&plain, Some(&on(None))), Ok(()));
    }
}
