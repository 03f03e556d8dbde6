//! Health checks of one container: when to probe, what a result means, and the probes themselves.
//!
//! The rules are Mesos': the first probe after the delay, the next one an interval after the previous one
//! ended; failures within the grace period count only after a first success; every counted failure is
//! reported, successes only when they are news.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1::handshake, header};
use hyper_util::rt::TokioIo;
use podium_proto::mesos::v1::{CommandInfo, HealthCheck, health_check, network_info};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

/// Three hundred years.
const LONGEST: Duration = Duration::from_secs(300 * 365 * 24 * 3600);

/// How to find out.
#[derive(Debug, Clone)]
enum Probe {
    Http { address: SocketAddr, path: String },
    Tcp(SocketAddr),
    Command(CommandInfo),
}

/// A health check that has been understood.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    probe: Probe,
    delay: Duration,
    interval: Duration,
    /// `None` waits for ever.
    timeout: Option<Duration>,
    grace: Duration,
    failures: u32,
}

/// What a checker asks of the executor.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Run this in the task's surroundings; the answer is its exit code, or what hindered it.
    Run { task: String, command: CommandInfo, reply: oneshot::Sender<Result<i32, String>> },
    /// The program's time is up.
    Abandon { task: String },
    /// Report this.
    Report { task: String, verdict: Verdict, message: String },
}

/// What a probe's result changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub healthy: bool,
    /// It has failed often enough.
    pub kill: bool,
}

impl Plan {
    /// Understands `check`, or says in plain words what is wrong with it.
    pub fn new(check: &HealthCheck) -> Result<Plan, String> {
        Ok(Plan {
            probe: probe(check)?,
            delay: seconds(check.delay_seconds, 15.0),
            interval: seconds(check.interval_seconds, 10.0),
            timeout: Some(seconds(check.timeout_seconds, 20.0)).filter(|timeout| !timeout.is_zero()),
            grace: seconds(check.grace_period_seconds, 10.0),
            failures: check.consecutive_failures.unwrap_or(3).max(1),
        })
    }
}

fn probe(check: &HealthCheck) -> Result<Probe, String> {
    use health_check::Type;
    match check.r#type.map(Type::try_from) {
        Some(Ok(Type::Http)) => {
            let http = check.http.as_ref().ok_or("the health check of type HTTP has no http part")?;
            let address = address(http.port, http.protocol)?;
            let path = http.path.clone().unwrap_or_default();
            let path = if path.starts_with('/') { path } else { format!("/{path}") };
            if http.scheme.as_deref() == Some("https") {
                return Ok(Probe::Command(curl(&format!("https://{address}{path}"))));
            }
            path.parse::<http::Uri>().map_err(|error| format!("the health check's path '{path}' is not valid: {error}"))?;
            Ok(Probe::Http { address, path })
        }
        Some(Ok(Type::Tcp)) => {
            let tcp = check.tcp.as_ref().ok_or("the health check of type TCP has no tcp part")?;
            Ok(Probe::Tcp(address(tcp.port, tcp.protocol)?))
        }
        Some(Ok(Type::Command)) => {
            let command = check.command.clone().ok_or("the health check of type COMMAND has no command")?;
            super::sandbox::command_line(&command)?;
            Ok(Probe::Command(command))
        }
        Some(Ok(Type::Unknown) | Err(_)) | None => Err("the health check has no type, or one that is unknown".to_owned()),
    }
}

/// There is no TLS in the executor; Mesos itself asks the machine's curl, certificates unchecked.
fn curl(url: &str) -> CommandInfo {
    let arguments = ["curl", "-s", "-S", "-f", "-L", "-k", "-g", "-o", "/dev/null", "--", url];
    CommandInfo {
        shell: Some(false),
        value: Some("curl".to_owned()),
        arguments: arguments.map(str::to_owned).to_vec(),
        ..CommandInfo::default()
    }
}

fn address(port: u32, protocol: Option<i32>) -> Result<SocketAddr, String> {
    let port = u16::try_from(port).map_err(|_| format!("{port} is not a port for a health check"))?;
    let ip = match protocol.map(network_info::Protocol::try_from) {
        Some(Ok(network_info::Protocol::IPv6)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    Ok(SocketAddr::new(ip, port))
}

/// Mesos' seconds; what is no duration counts as none, and what a clock can't hold as [`LONGEST`].
fn seconds(value: Option<f64>, default: f64) -> Duration {
    Duration::try_from_secs_f64(value.unwrap_or(default).min(LONGEST.as_secs_f64())).unwrap_or_default()
}

/// What the results so far mean. Pure.
#[derive(Debug)]
struct Judge {
    grace_until: Instant,
    threshold: u32,
    failures: u32,
    latest: Option<bool>,
}

impl Judge {
    fn judge(&mut self, success: bool, now: Instant) -> Option<Verdict> {
        if success {
            self.failures = 0;
            let news = self.latest != Some(true);
            self.latest = Some(true);
            return news.then_some(Verdict { healthy: true, kill: false });
        }
        if self.latest.is_none() && now < self.grace_until {
            return None;
        }
        self.latest = Some(false);
        self.failures = self.failures.saturating_add(1);
        Some(Verdict { healthy: false, kill: self.failures >= self.threshold })
    }
}

/// Checks one task until it is dropped; rests while the executor is `disconnected` from its agent.
pub(crate) async fn run(task: String, plan: Plan, asks: mpsc::Sender<Ask>, mut connected: watch::Receiver<bool>) {
    let mut judge = Judge { grace_until: Instant::now() + plan.grace, threshold: plan.failures, failures: 0, latest: None };
    sleep(plan.delay).await;
    loop {
        if connected.wait_for(|connected| *connected).await.is_err() {
            return;
        }
        let result = attempt(&task, &plan, &asks).await;
        let verdict = judge.judge(result.is_ok(), Instant::now());
        if let Some(verdict) = verdict {
            let message = result.err().map_or_else(String::new, |error| format!("health check failed: {error}"));
            if asks.send(Ask::Report { task: task.clone(), verdict, message }).await.is_err() || verdict.kill {
                return;
            }
        }
        // An interval of nothing would leave no time for anything else.
        sleep(plan.interval.max(Duration::from_millis(10))).await;
    }
}

async fn attempt(task: &str, plan: &Plan, asks: &mpsc::Sender<Ask>) -> Result<(), String> {
    let probe = async {
        match &plan.probe {
            Probe::Tcp(address) => {
                TcpStream::connect(address).await.map(drop).map_err(|error| format!("no TCP connection to {address}: {error}"))
            }
            Probe::Http { address, path } => http(*address, path).await,
            Probe::Command(command) => run_command(task, command, asks).await,
        }
    };
    let Some(limit) = plan.timeout else { return probe.await };
    match timeout(limit, probe).await {
        Ok(result) => result,
        Err(_) => {
            if matches!(plan.probe, Probe::Command(_)) {
                let _ = asks.send(Ask::Abandon { task: task.to_owned() }).await;
            }
            Err(format!("no answer within {limit:?}"))
        }
    }
}

async fn run_command(task: &str, command: &CommandInfo, asks: &mpsc::Sender<Ask>) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    let ended = || "the executor is ending".to_owned();
    asks.send(Ask::Run { task: task.to_owned(), command: command.clone(), reply }).await.map_err(|_| ended())?;
    match answer.await.map_err(|_| ended())?? {
        0 => Ok(()),
        code => Err(format!("the command exited with status {code}")),
    }
}

/// Healthy is 200 to 399; a redirection is not followed, being as good an answer.
async fn http(address: SocketAddr, path: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("GET http://{address}{path}: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "podium-executor")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    // The connection is driven here and not on its own, so that a time-out ends it too.
    let mut connection = std::pin::pin!(connection);
    let mut response = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut response => answer,
        // What arrived before the connection's end is still to be had.
        _ = &mut connection => response.await,
    };
    let status = answer.map_err(|error| failed(&error))?.status();
    if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("GET http://{address}{path} answered {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(threshold: u32) -> (Judge, Instant) {
        let now = Instant::now();
        (Judge { grace_until: now + Duration::from_secs(10), threshold, failures: 0, latest: None }, now)
    }

    #[test]
    fn failures_within_the_grace_period_are_not_counted_until_the_first_success() {
        let (mut judge, now) = judge(1);
        assert_eq!(judge.judge(false, now), None);
        assert_eq!(judge.judge(true, now), Some(Verdict { healthy: true, kill: false }));
        assert_eq!(judge.judge(false, now), Some(Verdict { healthy: false, kill: true }));
    }

    #[test]
    fn every_counted_failure_is_reported_and_only_the_first_of_successes_in_a_row() {
        let (mut judge, now) = judge(3);
        let late = now + Duration::from_secs(11);
        let said: Vec<_> = [false, false, true, true, false, false, false].map(|success| judge.judge(success, late)).into();
        let (bad, good) = (Verdict { healthy: false, kill: false }, Verdict { healthy: true, kill: false });
        assert_eq!(said, [Some(bad), Some(bad), Some(good), None, Some(bad), Some(bad), Some(Verdict { healthy: false, kill: true })]);
    }

    #[test]
    fn a_check_without_numbers_has_mesos_defaults_and_zero_means_no_timeout() {
        let tcp = health_check::TcpCheckInfo { port: 80, ..Default::default() };
        let check = HealthCheck { r#type: Some(health_check::Type::Tcp.into()), tcp: Some(tcp), ..HealthCheck::default() };
        let plan = Plan::new(&check).unwrap();
        assert_eq!(
            (plan.delay, plan.interval, plan.timeout),
            (Duration::from_secs(15), Duration::from_secs(10), Some(Duration::from_secs(20)))
        );
        assert_eq!((plan.grace, plan.failures), (Duration::from_secs(10), 3));
        let endless = HealthCheck { timeout_seconds: Some(0.0), consecutive_failures: Some(0), ..check.clone() };
        let plan = Plan::new(&endless).unwrap();
        assert_eq!((plan.timeout, plan.failures), (None, 1));
        for seconds in [1e19, f64::INFINITY] {
            let patient = HealthCheck { grace_period_seconds: Some(seconds), ..check.clone() };
            let grace = Plan::new(&patient).unwrap().grace;
            assert_eq!(Instant::now().checked_add(grace).map(|_| grace), Some(LONGEST), "{seconds}");
        }
        assert!(Plan::new(&HealthCheck { tcp: None, ..check.clone() }).is_err());
        assert!(Plan::new(&HealthCheck { r#type: Some(77), ..check }).is_err());
    }
}
