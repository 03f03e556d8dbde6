//! Waiting for a pod: a pure judgement of what the server says, and the loop that asks again when something has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podium_types::id::PodId;
use tokio::time::Instant;

use super::connection::Connection;
use super::events::Events;
use super::failure::Failure;
use super::status::{Deployment, PodStatus, Termination};
use super::terminal::{Progress, printable};

/// After as many ends of one instance it is said that the pod cannot start.
const MAX_ENDS: usize = 3;
/// A container that ends at once runs for a moment, too: a pod must have been stable for so long, and for each end that was seen of
/// one instance, twice as long again.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two questions at least, however much happens.
const PACE: Duration = Duration::from_millis(100);
/// A server that does not answer is waited for this long: it may be restarting.
const PATIENCE: Duration = Duration::from_secs(15);

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What was waited for has come.
    Done(String),
    /// Not yet, and why.
    Waiting(String),
    /// It has come, and has to last for so long yet.
    Settling(String, Duration),
    /// It will not come.
    Hopeless(String),
}

/// Ends of instances, as seen from one question to the next; those known before the wait began do not count.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    before: BTreeSet<(String, String)>,
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Ends {
    /// What a status tells before the wait begins.
    pub fn before(status: Option<&PodStatus>) -> Self {
        let before = status.map(|status| status.termination_history.iter().map(key).collect()).unwrap_or_default();
        Self { before, seen: BTreeMap::new() }
    }

    fn note(&mut self, status: &PodStatus) {
        for end in status.termination_history.iter().filter(|end| !self.before.contains(&key(end))) {
            let (instance, at) = key(end);
            self.seen.entry(instance).or_default().insert(at);
        }
    }

    /// For how long a pod must be stable after all that.
    fn settled(&self) -> Duration {
        let most = self.seen.values().map(BTreeSet::len).max().unwrap_or(0).min(MAX_ENDS);
        (0..most).fold(SETTLED, |time, _| time + 2 * SETTLED)
    }

    /// An instance that ended too often and is not well now.
    fn keeps_ending(&self, status: &PodStatus) -> Option<(&str, usize)> {
        let well = |id: &str| status.instances.iter().any(|instance| instance.id == id && instance.status == "STABLE");
        let worst = self.seen.iter().filter(|(id, ends)| ends.len() >= MAX_ENDS && !well(id)).max_by_key(|(_, ends)| ends.len());
        worst.map(|(id, ends)| (id.as_str(), ends.len()))
    }
}

fn key(end: &Termination) -> (String, String) {
    (end.instance_id.clone(), end.terminated_at.clone().unwrap_or_default())
}

/// Judges whether a pod has become stable: as many stable instances as wanted, and no deployment that still works on it.
pub fn judge(status: &PodStatus, deploying: bool, ends: &mut Ends) -> Verdict {
    ends.note(status);
    let count = status.count();
    if status.status == "STABLE" && !deploying {
        let left = status.stable_for().map_or(Duration::ZERO, |time| ends.settled().saturating_sub(time));
        return match status.instances.is_empty() || left.is_zero() {
            true => Verdict::Done(format!("{} is STABLE: {count}", status.id)),
            false => Verdict::Settling(format!("{} is STABLE: {count}; seeing whether it stays so", status.id), left),
        };
    }
    let reason = status.reason();
    if let Some((instance, times)) = ends.keeps_ending(status) {
        let last = status.termination_history.iter().rfind(|end| end.instance_id == instance).map(Termination::reason);
        let last = last.or(reason).unwrap_or_else(|| "no reason was given".to_owned());
        return Verdict::Hopeless(format!("{} cannot start: instance {instance} ended {times} times; the last time: {last}", status.id));
    }
    let state = if status.status == "STABLE" { "deploying" } else { status.status.as_str() };
    Verdict::Waiting(match reason {
        Some(reason) => format!("{} is {state}: {count}; {reason}", status.id),
        None => format!("{} is {state}: {count}", status.id),
    })
}

/// What is waited for.
#[derive(Debug)]
pub enum Goal {
    /// The pod runs as it should.
    Stable {
        /// Which.
        id: PodId,
        /// What happened before.
        ends: Ends,
    },
    /// Nothing of the pod is left.
    Gone {
        /// Which.
        id: PodId,
        /// What it waits for before it begins to stop; empty: nothing.
        behind: &'static str,
    },
}

impl Goal {
    fn pod(&self) -> PodId {
        match self {
            Self::Stable { id, .. } | Self::Gone { id, .. } => id.clone(),
        }
    }
}

/// Waits for one goal after the other until all are reached, one will not be, or the time is over.
pub async fn until(server: &mut Connection, goals: Vec<Goal>, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    // Before the first question: what happens after its answer is not missed.
    let mut events = Events::open(server).await;
    for mut goal in goals {
        let mut progress = Progress::new();
        let last = one(server, &mut events, &mut goal, (deadline, timeout), &mut progress).await?;
        progress.clear();
        eprintln!("{}", printable(&last));
    }
    Ok(())
}

async fn one(
    server: &mut Connection,
    events: &mut Events,
    goal: &mut Goal,
    (deadline, timeout): (Instant, Duration),
    progress: &mut Progress,
) -> Result<String, Failure> {
    let mut silent_since = None;
    let mut last = "no answer yet".to_owned();
    loop {
        let asked = Instant::now();
        let mut look_again = deadline;
        let (words, settles) = match ask(server, goal).await {
            Ok(Verdict::Done(words)) => return Ok(words),
            Ok(Verdict::Hopeless(words)) => return Err(Failure::Failed(words)),
            Ok(Verdict::Waiting(words)) => (Some(words), None),
            Ok(Verdict::Settling(words, left)) => (Some(words), Some(left)),
            Err(Failure::Unreachable(words)) if silent_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {
                progress.show(&words);
                events.give_up();
                (None, None)
            }
            Err(failure) => return Err(failure),
        };
        if let Some(words) = words {
            silent_since = None;
            progress.show(&words);
            last = words;
        }
        if let Some(left) = settles {
            look_again = look_again.min(Instant::now() + left);
        }
        if Instant::now() >= deadline {
            return Err(Failure::TimedOut(format!("timed out after {timeout:?}: {last}")));
        }
        // Something has happened, or the time is over: either is a reason to look. At the deadline too, so that the last words are new.
        let _ = tokio::time::timeout_at(look_again, events.next(server, &goal.pod())).await;
        tokio::time::sleep_until((asked + PACE).min(deadline)).await;
    }
}

async fn ask(server: &mut Connection, goal: &mut Goal) -> Result<Verdict, Failure> {
    match goal {
        Goal::Stable { id, ends } => {
            // The deployment first: what it ended with is then certainly part of the status.
            let deploying = is_deploying(server, id).await?;
            let status: PodStatus = server.get_as(&format!("/v2/pods{id}::status")).await?;
            Ok(judge(&status, deploying, ends))
        }
        Goal::Gone { id, behind } => match is_deploying(server, id).await? {
            true => Ok(Verdict::Waiting(format!("{id} is stopping{behind}"))),
            false => Ok(Verdict::Done(format!("{id} is gone"))),
        },
    }
}

async fn is_deploying(server: &mut Connection, id: &PodId) -> Result<bool, Failure> {
    let deployments: Vec<Deployment> = server.get_as("/v2/deployments").await?;
    Ok(deployments.iter().any(|deployment| deployment.affected_pods.iter().any(|pod| pod == id.as_str())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(word: &str, instances: &[(&str, &str)], ends: &[(&str, &str)]) -> PodStatus {
        serde_json::from_value(json!({
            "id": "/a", "status": word, "spec": {"scaling": {"kind": "fixed", "instances": 2}},
            "instances": instances.iter().map(|(id, status)| json!({"id": id, "status": status})).collect::<Vec<_>>(),
            "terminationHistory": ends.iter().map(|(id, at)| json!({"instanceID": id, "terminatedAt": at, "containers": [
                {"containerId": "a.instance-1.c1.3", "lastKnownState": "TaskFailed", "termination": {"exitCode": 7, "message": "Command exited with status 7"}}]}))
                .collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_done_when_it_is_stable_and_nothing_is_deployed_any_more() {
        let stable = status("STABLE", &[("a.1", "STABLE"), ("a.2", "STABLE")], &[]);
        assert_eq!(judge(&stable, false, &mut Ends::default()), Verdict::Done("/a is STABLE: 2 of 2 instances stable".to_owned()));
        assert_eq!(judge(&stable, true, &mut Ends::default()), Verdict::Waiting("/a is deploying: 2 of 2 instances stable".to_owned()));
        let more = status("STABLE", &[("i1", "STABLE"), ("i2", "STABLE"), ("i3", "STABLE")], &[]);
        let words = "/a is deploying: 3 instances stable, 2 wanted".to_owned();
        assert_eq!(judge(&more, true, &mut Ends::default()), Verdict::Waiting(words));
    }

    #[test]
    fn an_instance_that_keeps_ending_makes_the_wait_hopeless_and_names_the_container() {
        let mut ends = Ends::default();
        for at in ["1", "2"] {
            assert!(matches!(judge(&status("DEGRADED", &[("a.1", "PENDING")], &[("a.1", at)]), true, &mut ends), Verdict::Waiting(_)));
        }
        let verdict = judge(&status("DEGRADED", &[("a.1", "PENDING")], &[("a.1", "3")]), true, &mut ends);
        assert_eq!(
            verdict,
            Verdict::Hopeless(
                "/a cannot start: instance a.1 ended 3 times; the last time: container c1: TaskFailed, exit code 7: Command exited with status 7"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_pod_that_has_only_just_become_stable_may_yet_fall() {
        let mut stable = status("STABLE", &[("a.1", "STABLE"), ("a.2", "STABLE")], &[]);
        stable.status_since = Some("2026-01-01T00:00:00.500Z".to_owned());
        for (now, done) in [("2026-01-01T00:00:01.499Z", false), ("2026-01-01T00:00:01.500Z", true), ("2025-01-01T00:00:00.000Z", false)] {
            stable.last_updated = Some(now.to_owned());
            assert_eq!(matches!(judge(&stable, false, &mut Ends::default()), Verdict::Done(_)), done, "{now}");
        }
    }

    #[test]
    fn a_pod_that_has_fallen_is_watched_for_longer() {
        let mut ends = Ends::default();
        let mut again = status("STABLE", &[("a.1", "STABLE"), ("a.2", "STABLE")], &[("a.1", "1"), ("a.1", "2"), ("a.2", "1")]);
        (again.status_since, again.last_updated) = (Some("2026-01-01T00:00:00Z".to_owned()), Some("2026-01-01T00:00:02Z".to_owned()));
        assert!(matches!(judge(&again, false, &mut ends), Verdict::Settling(_, left) if left == Duration::from_secs(3)));
        again.last_updated = Some("2026-01-01T00:00:05Z".to_owned());
        assert!(matches!(judge(&again, false, &mut ends), Verdict::Done(_)));
    }

    #[test]
    fn ends_from_before_the_wait_do_not_count() {
        let history = [("a.1", "1"), ("a.1", "2"), ("a.1", "3")];
        let old = status("DEGRADED", &[("a.1", "PENDING")], &history);
        let mut ends = Ends::before(Some(&old));
        assert!(matches!(judge(&old, true, &mut ends), Verdict::Waiting(_)));
    }

    #[test]
    fn ends_of_several_instances_are_not_added_up() {
        let many = status("DEGRADED", &[("a.1", "PENDING")], &[("a.1", "1"), ("a.2", "2"), ("a.3", "3")]);
        assert!(matches!(judge(&many, true, &mut Ends::default()), Verdict::Waiting(_)));
    }

    #[test]
    fn a_waiting_pod_says_why() {
        let mut waiting = status("DEGRADED", &[], &[]);
        waiting.message = Some("no offer fits: InsufficientCpus".to_owned());
        let words = "/a is DEGRADED: 0 of 2 instances stable; no offer fits: InsufficientCpus";
        assert_eq!(judge(&waiting, true, &mut Ends::default()), Verdict::Waiting(words.to_owned()));
    }
}
