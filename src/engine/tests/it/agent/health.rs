//! Health checks against real containers and a real listener.

use std::fs;

use podium_proto::mesos::v1::{CommandInfo, HealthCheck, TaskInfo, TaskState, TaskStatus, health_check, task_status::Reason};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    rig::{Rig, state, task},
    wait::eventually_at,
};

fn check(kind: health_check::Type) -> HealthCheck {
    HealthCheck {
        r#type: Some(kind.into()),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.02),
        timeout_seconds: Some(1.0),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        ..HealthCheck::default()
    }
}

fn command(script: &str) -> HealthCheck {
    let command = CommandInfo { value: Some(script.into()), ..CommandInfo::default() };
    HealthCheck { command: Some(command), ..check(health_check::Type::Command) }
}

fn checked(id: &str, check: HealthCheck) -> TaskInfo {
    TaskInfo { health_check: Some(check), ..task(id, "exec sleep 1000") }
}

/// The next update that a health check has made.
async fn verdict(rig: &mut Rig) -> TaskStatus {
    loop {
        let status = rig.update().await;
        if status.reason == Some(Reason::TaskHealthCheckStatusUpdated.into()) {
            return status;
        }
        assert!(status.healthy.is_none() || state(&status) == TaskState::TaskKilled, "{status:?}");
    }
}

#[tokio::test]
async fn a_command_in_the_tasks_own_surroundings_decides_and_too_many_failures_kill() {
    let mut rig = Rig::new().await;
    let check = command("echo probing; test -e stdout && test -n \"$MESOS_SANDBOX\" && ! test -e sick");
    rig.launch("e", vec![checked("t", check)]).await;
    let good = verdict(&mut rig).await;
    assert_eq!((good.healthy, state(&good)), (Some(true), TaskState::TaskRunning));
    let sandbox = rig.task_sandbox("e", "t");
    let log = sandbox.join("containers/check/stdout");
    eventually_at(&log, "the latest check's output", || (fs::read_to_string(&log).unwrap() == "probing\n").then_some(())).await;
    fs::write(sandbox.join("sick"), "").unwrap();
    assert_eq!(verdict(&mut rig).await.healthy, Some(false));
    let second = verdict(&mut rig).await;
    assert_eq!(second.healthy, Some(false));
    assert!(second.message.unwrap().contains("exited with status 1"));
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!((state(&end), end.healthy), (TaskState::TaskKilled, Some(false)));
}

#[tokio::test]
async fn a_command_that_does_not_end_in_time_counts_as_failed_and_is_ended() {
    let mut rig = Rig::new().await;
    let slow = HealthCheck { timeout_seconds: Some(0.05), consecutive_failures: Some(1), ..command("sleep 1111") };
    rig.launch("e", vec![checked("t", slow)]).await;
    let bad = verdict(&mut rig).await;
    assert!(bad.message.unwrap().contains("no answer within"));
    rig.ends(&["t"]).await;
    rig.exited("e").await;
    assert_eq!(rig.processes(), []);
}

#[tokio::test]
async fn a_port_that_accepts_is_healthy_and_one_that_is_closed_is_not() {
    let mut rig = Rig::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = u32::from(listener.local_addr().unwrap().port());
    let tcp = health_check::TcpCheckInfo { port, ..Default::default() };
    rig.launch("e", vec![checked("t", HealthCheck { tcp: Some(tcp), ..check(health_check::Type::Tcp) })]).await;
    assert_eq!(verdict(&mut rig).await.healthy, Some(true));
    drop(listener);
    assert_eq!(verdict(&mut rig).await.healthy, Some(false));
    assert_eq!(state(&rig.ends(&["t"]).await[0]), TaskState::TaskKilled);
}

#[tokio::test]
async fn an_answer_below_400_is_healthy_and_any_other_is_not() {
    let mut rig = Rig::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = u32::from(listener.local_addr().unwrap().port());
    // The asked path decides the answer.
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let status = request.strip_prefix("GET /").and_then(|rest| rest.get(..3)).unwrap_or("400").to_owned();
            let _ = stream.write_all(format!("HTTP/1.1 {status} As asked\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        }
    });
    let http = |path: &str| {
        let http = health_check::HttpCheckInfo { port, path: Some(path.into()), ..Default::default() };
        HealthCheck { http: Some(http), ..check(health_check::Type::Http) }
    };
    for (id, path, healthy) in [("ok", "/204", true), ("moved", "/302", true), ("error", "/500", false), ("missing", "/404", false)] {
        rig.launch(id, vec![checked(id, http(path))]).await;
        let verdict = verdict(&mut rig).await;
        assert_eq!((verdict.task_id.value.as_str(), verdict.healthy), (id, Some(healthy)));
        rig.kill(id, None).await;
        rig.ends(&[id]).await;
    }
    server.abort();
}

#[tokio::test]
async fn failures_within_the_grace_period_are_not_reported() {
    let mut rig = Rig::new().await;
    let patient =
        HealthCheck { grace_period_seconds: Some(3600.0), consecutive_failures: Some(1), ..command("echo . >> tries; test -e well") };
    rig.launch("e", vec![checked("t", patient)]).await;
    rig.until("t", TaskState::TaskRunning).await;
    let sandbox = rig.task_sandbox("e", "t");
    let tries = sandbox.join("tries");
    let often = || (fs::read_to_string(&tries).unwrap_or_default().lines().count() > 2).then_some(());
    eventually_at(&tries, "it has failed more than once", often).await;
    fs::write(sandbox.join("well"), "").unwrap();
    assert_eq!(verdict(&mut rig).await.healthy, Some(true), "the first word about its health");
}

#[tokio::test]
async fn a_check_that_cannot_be_understood_fails_the_launch() {
    let mut rig = Rig::new().await;
    rig.launch("e", vec![checked("t", HealthCheck::default())]).await;
    let end = rig.ends(&["t"]).await.remove(0);
    assert_eq!(state(&end), TaskState::TaskFailed);
    assert!(end.message.unwrap().contains("no type"));
}
