//! Groups of containers: how they start, what they see, how they end.

use std::{fs, os::unix::fs::PermissionsExt as _};

use podium_proto::mesos::v1::{
    CommandInfo, ContainerInfo, Image, NetworkInfo, Secret, TaskInfo, TaskState, Volume,
    command_info::Uri,
    container_info,
    environment::{self, Variable},
    image, secret,
    task_status::Reason,
    volume,
    volume::source::{HostPath, SandboxPath, sandbox_path},
};

use super::rig::{Rig, executor, state, task, with_variable};

fn with_volume(mut task: TaskInfo, container_path: &str, source: volume::Source) -> TaskInfo {
    let plain = || ContainerInfo { r#type: container_info::Type::Mesos.into(), ..ContainerInfo::default() };
    let volume = Volume { container_path: container_path.into(), mode: volume::Mode::Rw.into(), source: Some(source), ..Volume::default() };
    task.container.get_or_insert_with(plain).volumes.push(volume);
    task
}

fn shared(path: &str) -> volume::Source {
    let path = SandboxPath { r#type: Some(sandbox_path::Type::Parent.into()), path: path.into() };
    volume::Source { r#type: Some(volume::source::Type::SandboxPath.into()), sandbox_path: Some(path), ..volume::Source::default() }
}

fn host(path: &str) -> volume::Source {
    let path = HostPath { path: path.into(), ..HostPath::default() };
    volume::Source { r#type: Some(volume::source::Type::HostPath.into()), host_path: Some(path), ..volume::Source::default() }
}

fn with_uri(mut task: TaskInfo, uri: Uri) -> TaskInfo {
    task.command.as_mut().unwrap().uris.push(uri);
    task
}

/// Launches one task that must be refused, with a sibling; answers the reason.
async fn refused(rig: &mut Rig, executor: &str, bad: TaskInfo) -> String {
    let name = bad.task_id.value.clone();
    let sibling = format!("{name}-sibling");
    rig.launch(executor, vec![task(&sibling, "touch started; exec sleep 1000"), bad]).await;
    let ends = rig.ends(&[&name, &sibling]).await;
    assert_eq!((state(&ends[0]), ends[0].reason), (TaskState::TaskFailed, Some(Reason::ContainerLaunchFailed.into())));
    assert_eq!(state(&ends[1]), TaskState::TaskKilled, "all or nothing");
    assert_eq!(rig.exited(executor).await, 0);
    assert!(rig.running(executor, "sleep 1000").is_empty());
    ends[0].message.clone().unwrap()
}

#[tokio::test]
async fn a_task_starts_runs_and_ends_and_its_executor_follows() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("good", "echo hello; echo oops >&2")]).await;
    let statuses = [rig.update().await, rig.update().await, rig.update().await];
    assert_eq!(statuses.each_ref().map(state), [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskFinished]);
    for status in &statuses {
        assert_eq!(status.agent_id.as_ref(), Some(&rig.agent_id));
        assert_eq!(status.executor_id.as_ref().unwrap().value, "e");
        let container = status.container_status.as_ref().unwrap().container_id.as_ref().unwrap();
        assert!(container.parent.is_some(), "the executor's container is above the task's");
    }
    let address = &statuses[1].container_status.as_ref().unwrap().network_infos[0].ip_addresses[0];
    assert_eq!(address.ip_address.as_deref(), Some("127.0.0.1"));
    assert_eq!(rig.exited("e").await, 0);
    let sandbox = rig.task_sandbox("e", "good");
    assert_eq!(fs::read_to_string(sandbox.join("stdout")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(sandbox.join("stderr")).unwrap(), "oops\n");
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn exits_and_signals_are_told_in_mesos_words() {
    let mut rig = Rig::new().await;
    for (id, script, state_, words) in [
        ("zero", "exit 0", TaskState::TaskFinished, "Command exited with status 0"),
        ("three", "exit 3", TaskState::TaskFailed, "Command exited with status 3"),
        ("killed", "kill -9 $$", TaskState::TaskFailed, "Command terminated with signal Killed"),
    ] {
        rig.launch(id, vec![task(id, script)]).await;
        let end = rig.ends(&[id]).await.remove(0);
        assert_eq!((state(&end), end.message.as_deref()), (state_, Some(words)));
    }
}

#[tokio::test]
async fn a_failing_container_takes_its_siblings_with_it_and_a_finished_one_does_not() {
    let mut rig = Rig::new().await;
    let gate = rig.folder.path().join("gate");
    let waits = format!("until [ -e {} ]; do sleep 0.01; done; exit 7", gate.display());
    rig.launch("e", vec![task("done", "exit 0"), task("fails", &waits), task("stays", "exec sleep 1000")]).await;
    assert_eq!(state(&rig.ends(&["done"]).await[0]), TaskState::TaskFinished);
    assert_eq!(rig.running("e", "sleep 1000").len(), 1, "exit 0 kills nobody");
    fs::write(&gate, "").unwrap();
    let ends = rig.ends(&["fails", "stays"]).await;
    assert_eq!((state(&ends[0]), state(&ends[1])), (TaskState::TaskFailed, TaskState::TaskKilled));
    assert_eq!(ends[1].message.as_deref(), Some("Command terminated with signal Terminated"));
    assert_eq!(rig.exited("e").await, 0);
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn a_container_sees_its_own_environment_and_nothing_of_its_makers() {
    let mut rig = Rig::new().await;
    let mut quiet = with_variable(task("t", "env"), "GREETING", "hello world");
    let data = secret::Value { data: "s3cret".into() };
    let secret = Secret { r#type: Some(secret::Type::Value.into()), value: Some(data), ..Secret::default() };
    let variable = Variable {
        name: "TOKEN".into(),
        r#type: Some(environment::variable::Type::Secret.into()),
        secret: Some(secret),
        ..Variable::default()
    };
    quiet.command.as_mut().unwrap().environment.as_mut().unwrap().variables.push(variable);
    rig.launch("e", vec![quiet]).await;
    rig.ends(&["t"]).await;
    let sandbox = rig.task_sandbox("e", "t");
    let printed = fs::read_to_string(sandbox.join("stdout")).unwrap();
    // What the shell sets by itself is not ours.
    let mut lines: Vec<&str> =
        printed.lines().filter(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own))).collect();
    lines.sort_unstable();
    let container = sandbox.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        lines,
        [
            "GREETING=hello world".to_owned(),
            "MESOS_CONTAINER_IP=127.0.0.1".to_owned(),
            format!("MESOS_SANDBOX={}", sandbox.display()),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            format!("PODIUM_INSTANCE={}/framework/e/{container}", rig.agent_id.value),
            "TOKEN=s3cret".to_owned(),
        ]
    );
}

#[tokio::test]
async fn the_sandbox_is_laid_out_as_mesos_does() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![task("t", "pwd")]).await;
    rig.ends(&["t"]).await;
    let run = rig.sandbox("e");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&run), 0o750);
    let link = fs::read_link(run.join("tasks/t")).unwrap();
    assert_eq!(link.parent().unwrap(), run.join("containers"));
    assert_eq!(mode(&link), 0o750);
    assert_eq!(fs::read_to_string(link.join("stdout")).unwrap().trim(), link.to_str().unwrap(), "the task's directory is its sandbox");
    assert!(run.join("stdout").exists() && run.join("stderr").exists(), "the executor's own output");
    assert_eq!(run.parent().unwrap().file_name().unwrap(), "runs");
}

#[tokio::test]
async fn two_containers_share_a_volume_and_a_host_path_is_seen() {
    let mut rig = Rig::new().await;
    let outside = rig.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("given"), "from the machine").unwrap();
    let writer = with_volume(task("writer", "echo shared > data/deep/file"), "data/deep", shared("volumes/v"));
    let reader =
        with_volume(task("reader", "until [ -s mine/file ]; do sleep 0.01; done; cat mine/file host/given"), "mine", shared("volumes/v"));
    let reader = with_volume(reader, "host", host(outside.to_str().unwrap()));
    rig.launch("e", vec![writer, reader]).await;
    let ends = rig.ends(&["writer", "reader"]).await;
    assert_eq!(ends.iter().map(state).collect::<Vec<_>>(), [TaskState::TaskFinished; 2], "{ends:?}");
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "reader").join("stdout")).unwrap(), "shared\nfrom the machine");
    assert!(rig.sandbox("e").join("volumes/v/file").exists());
}

#[tokio::test]
async fn volumes_that_lead_out_of_the_sandbox_are_refused_with_their_path() {
    let mut rig = Rig::new().await;
    for (executor, bad, words) in [
        ("a", with_volume(task("a", "true"), "../up", shared("v")), "'../up' leads out of the sandbox"),
        ("b", with_volume(task("b", "true"), "v", shared("../../v")), "'../../v' leads out of the sandbox"),
        (
            "c",
            with_volume(task("c", "true"), "/abs", shared("v")),
            "cannot mount a volume at the absolute path '/abs' in a container without an image",
        ),
        ("d", with_volume(task("d", "true"), "v", host("/does/not/exist")), "'/does/not/exist'"),
    ] {
        let reason = refused(&mut rig, executor, bad).await;
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn what_the_engine_cannot_do_fails_the_group_in_plain_words() {
    let mut rig = Rig::new().await;
    let mesos = || ContainerInfo { r#type: container_info::Type::Mesos.into(), ..ContainerInfo::default() };
    let docker = image::Docker { name: "nginx:1".into(), ..image::Docker::default() };
    let image = Image { r#type: image::Type::Docker.into(), docker: Some(docker), ..Image::default() };
    let image = ContainerInfo { mesos: Some(container_info::MesosInfo { image: Some(image) }), ..mesos() };
    let network = ContainerInfo { network_infos: vec![NetworkInfo { name: Some("dcos".into()), ..NetworkInfo::default() }], ..mesos() };
    let user = |mut task: TaskInfo| {
        task.command.as_mut().unwrap().user = Some("no-such-user".into());
        task
    };
    for (executor, bad, words) in [
        ("image", TaskInfo { container: Some(image), ..task("image", "true") }, "cannot run container images ('nginx:1') yet"),
        ("network", TaskInfo { container: Some(network), ..task("network", "true") }, "cannot attach container networks ('dcos')"),
        ("user", user(task("user", "true")), "there is no user 'no-such-user'"),
        ("empty", TaskInfo { command: Some(CommandInfo::default()), ..task("empty", "") }, "without a command"),
    ] {
        let reason = refused(&mut rig, executor, bad).await;
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn files_of_the_machine_are_fetched_made_executable_and_extracted() {
    let mut rig = Rig::new().await;
    let source = rig.folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("tool"), "#!/bin/sh\necho tool runs\n").unwrap();
    fs::write(source.join("inner"), "extracted\n").unwrap();
    let tar = std::process::Command::new("tar").args(["-czf", "pack.tar.gz", "inner"]).current_dir(&source).status().unwrap();
    assert!(tar.success());
    let path = |name: &str| source.join(name).to_str().unwrap().to_owned();
    let mut fetching = task("t", "./renamed && cat inner && ls plain.tar.gz");
    for uri in [
        Uri { value: format!("file://{}", path("tool")), executable: Some(true), output_file: Some("renamed".into()), ..Uri::default() },
        Uri { value: path("pack.tar.gz"), ..Uri::default() },
        Uri { value: path("pack.tar.gz"), extract: Some(false), output_file: Some("plain.tar.gz".into()), ..Uri::default() },
    ] {
        fetching = with_uri(fetching, uri);
    }
    rig.launch("e", vec![fetching]).await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "t").join("stdout")).unwrap(), "tool runs\nextracted\nplain.tar.gz\n");
    let gone = with_uri(task("gone", "true"), Uri { value: path("missing"), ..Uri::default() });
    assert!(refused(&mut rig, "gone", gone).await.contains("missing"));
}

#[tokio::test]
async fn a_command_with_arguments_is_run_without_a_shell() {
    let mut rig = Rig::new().await;
    let arguments = ["echo", "$HOME", "two words"].map(str::to_owned).to_vec();
    let command = CommandInfo { shell: Some(false), value: Some("/bin/echo".into()), arguments, ..CommandInfo::default() };
    rig.launch("e", vec![TaskInfo { command: Some(command), ..task("t", "") }]).await;
    rig.ends(&["t"]).await;
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "t").join("stdout")).unwrap(), "$HOME two words\n");
    let missing = CommandInfo { shell: Some(false), value: Some("/no/such/program".into()), ..CommandInfo::default() };
    let reason = refused(&mut rig, "x", TaskInfo { command: Some(missing), ..task("x", "") }).await;
    assert!(reason.contains("cannot start '/no/such/program'"), "{reason}");
}

#[tokio::test]
async fn a_named_user_is_switched_to_by_root_and_refused_to_others() {
    let mut rig = Rig::new().await;
    let mut asking = task("t", "id -u; echo mine > own && echo done");
    asking.command.as_mut().unwrap().user = Some("nobody".into());
    if !rustix::process::geteuid().is_root() {
        assert!(refused(&mut rig, "e", asking).await.contains("only root can switch users"));
        return;
    }
    // The folders above are the test's: others must get through, as they must in a real data folder.
    fs::set_permissions(rig.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    rig.launch("e", vec![asking]).await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "t").join("stdout")).unwrap(), "65534\ndone\n");
}

/// For the master it is a new executor, whose resources are used until it has exited.
#[tokio::test]
async fn a_group_whose_executor_id_is_still_in_use_is_refused_together_with_its_executor() {
    let mut rig = Rig::new().await;
    rig.acknowledge = false;
    rig.launch("e", vec![task("t", "true")]).await;
    assert_eq!(rig.exited("e").await, 0);
    rig.exits.clear();
    rig.launch("e", vec![task("again", "true")]).await;
    assert_eq!(rig.exited("e").await, -1);
    let end = rig.until("again", TaskState::TaskDropped).await;
    assert_eq!(end.executor_id.map(|id| id.value).as_deref(), Some("e"));
    rig.exits.clear();
    rig.launch_under(executor("unknown"), false, vec![task("lost", "true")]).await;
    let end = rig.until("lost", TaskState::TaskDropped).await;
    assert_eq!(end.message.as_deref(), Some("No executor is expected to launch and there is none running"));
    assert_eq!(rig.exits, [], "it was none of the master's new ones");
}

#[tokio::test]
async fn a_group_that_is_sent_twice_runs_once() {
    let mut rig = Rig::new().await;
    let tasks = vec![task("t", "echo ran")];
    rig.launch("e", tasks.clone()).await;
    rig.launch("e", tasks).await;
    rig.ends(&["t"]).await;
    assert_eq!(rig.exited("e").await, 0);
    assert_eq!(fs::read_to_string(rig.task_sandbox("e", "t").join("stdout")).unwrap(), "ran\n");
    let runs = rig.sandbox("e").parent().unwrap().read_dir().unwrap().count();
    assert_eq!(runs, 2, "one run and the link to it");
}

#[tokio::test]
async fn a_container_is_started_alike_however_its_executor_was() {
    // As a script's background job has them, and worse.
    let starter = "trap '' HUP INT QUIT PIPE TERM; umask 077; exec 9</dev/null; PODIUM_OPEN_FILES=123 exec \"$0\"";
    let mut rig = Rig::on(tempfile::tempdir().unwrap(), &["/bin/sh", "-c", starter, env!("CARGO_BIN_EXE_podium-executor")]).await;
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; umask; ulimit -S -n; readlink /proc/self/fd/0; ls /proc/self/fd; touch made";
    rig.launch("e", vec![task("t", script)]).await;
    assert_eq!(state(&rig.ends(&["t"]).await[0]), TaskState::TaskFinished);
    let sandbox = rig.task_sandbox("e", "t");
    let printed = fs::read_to_string(sandbox.join("stdout")).unwrap();
    let lines: Vec<&str> = printed.split_whitespace().collect();
    let [blocked, ignored] = [lines[1], lines[3]].map(|set| u64::from_str_radix(set, 16).unwrap());
    // 32 and 33 are the C library's own.
    assert_eq!((blocked, ignored & !(0b11 << 31)), (0, 0), "{printed}");
    // The last descriptor is the folder that `ls` reads.
    assert_eq!(lines[4..], ["0022", "123", "/dev/null", "0", "1", "2", "3"]);
    assert_eq!(fs::metadata(sandbox.join("made")).unwrap().permissions().mode() & 0o777, 0o644);
}
