//! What a container's user leaves in its sandbox leads the executor nowhere, which may be root.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use podium_proto::mesos::v1::{CommandInfo, HealthCheck, TaskInfo, TaskState, command_info::Uri, health_check};

use super::{
    rig::{Rig, state, task},
    wait::eventually_at,
};

/// An agent whose folder may be passed, and a folder of files of the executor's user.
async fn ground() -> (Rig, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    (Rig::on(folder, &[env!("CARGO_BIN_EXE_podium-executor")]).await, outside)
}

fn untouched(outside: &Path) {
    let names: Vec<_> = fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["precious"]);
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "precious");
    assert_eq!(fs::metadata(outside.join("precious")).unwrap().uid(), rustix::process::geteuid().as_raw());
}

/// Of the user nobody, where we may become it.
fn of_nobody(id: &str, script: &str) -> TaskInfo {
    let mut task = task(id, script);
    task.command.as_mut().unwrap().user = rustix::process::geteuid().is_root().then(|| "nobody".to_owned());
    task
}

fn fetching(id: &str, script: &str, uris: Vec<Uri>) -> TaskInfo {
    let mut task = of_nobody(id, script);
    task.command.as_mut().unwrap().uris = uris;
    task
}

fn file(path: &Path) -> Uri {
    Uri { value: path.display().to_string(), ..Uri::default() }
}

/// A tar of what is in a folder.
fn archive(of: &Path) -> PathBuf {
    let to = of.with_extension("tar");
    assert!(std::process::Command::new("tar").arg("-cf").arg(&to).arg("-C").arg(of).arg(".").status().unwrap().success());
    to
}

fn folder(rig: &Rig, name: &str) -> PathBuf {
    let folder = rig.folder.path().join(name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn probed(task: TaskInfo, script: &str) -> TaskInfo {
    let command = CommandInfo { value: Some(script.into()), ..CommandInfo::default() };
    let check = HealthCheck {
        r#type: Some(health_check::Type::Command.into()),
        command: Some(command),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.02),
        grace_period_seconds: Some(3600.0),
        ..HealthCheck::default()
    };
    TaskInfo { health_check: Some(check), ..task }
}

#[tokio::test]
async fn a_link_in_the_place_of_a_probes_log_is_replaced() {
    let (mut rig, outside) = ground().await;
    let precious = outside.join("precious").display().to_string();
    let linking = format!("mkdir -p containers/check; ln -sf {precious} containers/check/stdout; touch linked; exec sleep 1000");
    rig.launch("file", vec![probed(of_nobody("file", &linking), "test -e linked && echo probing && echo . >> tries")]).await;
    rig.until("file", TaskState::TaskRunning).await;
    let log = rig.task_sandbox("file", "file").join("containers/check/stdout");
    let printed = || (fs::read_to_string(&log).ok()? == "probing\n" && fs::symlink_metadata(&log).ok()?.is_file()).then_some(());
    eventually_at(&log, "the probe's output in a file of its own", printed).await;
    untouched(&outside);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_probes_folder_is_refused_and_the_reason_told_also_while_failures_do_not_count() {
    const WHY: &str = "cannot make the check's sandbox: there is a link at 'containers/check', or on the way there";
    let (mut rig, outside) = ground().await;
    let source = folder(&rig, "source");
    symlink(&outside, source.join("containers")).unwrap();
    // It stands before the first probe.
    let link = archive(&source);
    let linked = |name: &str| probed(fetching(name, "exec sleep 1000", vec![file(&link)]), "true");
    let told = |log: &Path, task: &str| {
        let line = format!("podium executor: task {task}: its health check can't be run: {WHY}");
        fs::read_to_string(log).unwrap().lines().filter(|found| *found == line).count()
    };

    let mut counted = linked("counted");
    let check = counted.health_check.as_mut().unwrap();
    (check.grace_period_seconds, check.consecutive_failures) = (Some(0.0), Some(3));
    rig.launch("counted", vec![counted]).await;
    for _ in 0..3 {
        let status = rig.until_told("counted", |status| status.healthy == Some(false)).await;
        assert_eq!((state(&status), status.message), (TaskState::TaskRunning, Some(format!("health check failed: {WHY}"))));
    }
    assert_eq!(state(&rig.ends(&["counted"]).await[0]), TaskState::TaskKilled);
    assert_eq!(told(&rig.sandbox("counted").join("stderr"), "counted"), 1, "once for all three");

    rig.launch("early", vec![linked("early")]).await;
    rig.until("early", TaskState::TaskRunning).await;
    let log = rig.sandbox("early").join("stderr");
    eventually_at(&log, "the reason", || (told(&log, "early") == 1).then_some(())).await;
    untouched(&outside);
}

#[tokio::test]
async fn a_link_of_an_archive_leads_no_later_artifact_and_no_log_out_of_the_sandbox() {
    let (mut rig, outside) = ground().await;
    let source = folder(&rig, "source");
    symlink(&outside, source.join("d")).unwrap();
    let through = Uri { output_file: Some("d/x".into()), ..file(&outside.join("precious")) };
    rig.launch("through", vec![fetching("through", "true", vec![file(&archive(&source)), through])]).await;
    let end = rig.ends(&["through"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFailed);
    assert!(end.message.as_deref().unwrap().contains("there is a link at 'd', or on the way there"), "{end:?}");
    untouched(&outside);

    let logs = folder(&rig, "logs");
    symlink(outside.join("precious"), logs.join("stdout")).unwrap();
    rig.launch("logs", vec![fetching("logs", "echo written", vec![file(&archive(&logs))])]).await;
    let end = rig.ends(&["logs"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFailed);
    assert!(end.message.as_deref().unwrap().contains("there is a link at 'stdout'"), "{end:?}");
    untouched(&outside);
}

#[tokio::test]
async fn a_link_to_an_endless_device_in_the_place_of_a_log_is_not_read() {
    let (mut rig, _) = ground().await;
    let endless = folder(&rig, "endless");
    symlink("/dev/zero", endless.join("stderr")).unwrap();
    let broken = rig.folder.path().join("broken.tar");
    fs::write(&broken, "no archive").unwrap();
    let end = {
        rig.launch("e", vec![fetching("t", "true", vec![file(&archive(&endless)), file(&broken)])]).await;
        rig.ends(&["t"]).await.remove(0)
    };
    assert_eq!(state(&end), TaskState::TaskFailed);
    assert!(end.message.as_deref().unwrap().contains("there is a link at 'stderr'"), "{end:?}");
}

#[tokio::test]
async fn a_file_that_the_tasks_user_may_not_read_is_not_fetched_for_it_and_what_it_may_read_is_its_own() {
    let (mut rig, outside) = ground().await;
    let shadow = outside.join("precious");
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o000)).unwrap();
    let uri = Uri { value: format!("file://{}", shadow.display()), cache: Some(true), ..Uri::default() };
    rig.launch("shadow", vec![fetching("shadow", "true", vec![uri])]).await;
    let end = rig.ends(&["shadow"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFailed);
    assert!(end.message.as_deref().unwrap().contains("cannot read") && end.message.unwrap().contains("Permission denied"));

    // Links of an archive that stay in the sandbox go on working.
    let good = folder(&rig, "good");
    fs::create_dir(good.join("v1")).unwrap();
    fs::write(good.join("v1/tool"), "#!/bin/sh\necho tool runs\n").unwrap();
    fs::set_permissions(good.join("v1/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("v1", good.join("current")).unwrap();
    let plain = good.join("plain");
    fs::write(&plain, "text\n").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let deep = Uri { output_file: Some("a/b/plain".into()), ..file(&plain) };
    let script = "current/tool && cat a/b/plain && test -O a && test -O a/b && test -O a/b/plain && test -O . && test -O stdout";
    rig.launch("good", vec![fetching("good", script, vec![file(&archive(&good)), deep])]).await;
    let end = rig.ends(&["good"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
    assert_eq!(fs::read_to_string(rig.task_sandbox("good", "good").join("stdout")).unwrap(), "tool runs\ntext\n");
}
