//! Which events a revision means: a pure function of what it did to the records. The same on every replica, so that the
//! place of an event (its revision, and its number there) names it everywhere.

use podium_proto::mesos::v1::TaskState;
use podium_proto::records::accepted::Phase;
use podium_proto::records::{Accepted, Deployment, Goal, Observed, Verdict, observed};
use podium_store::index::{InstanceRecords, PodTurn, Turn};
use podium_types::condition::{self, Condition};
use podium_types::id::{InstanceId, PodId, Version};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::deployments;

/// Errors of one refusal that an event names.
const MAX_VIOLATIONS: usize = 16;

/// What happened, as Marathon tells it (reference section 2.6).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// `eventType`.
    pub kind: &'static str,
    /// What it is about; `None`: no pod.
    pub pod: Option<PodId>,
    /// When it happened, in milliseconds, as far as the records tell; else when it is told.
    at: i64,
    fields: Map<String, Value>,
}

impl Event {
    /// An event of these fields; `fields` is an object.
    pub(super) fn new(kind: &'static str, pod: Option<&PodId>, at: i64, fields: Value) -> Self {
        let fields = match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        Self { kind, pod: pod.cloned(), at, fields }
    }

    /// The body, with the fields that every event has.
    pub(super) fn json(&self) -> Value {
        let mut body = self.fields.clone();
        body.insert("eventType".to_owned(), json!(self.kind));
        body.insert("timestamp".to_owned(), json!(Version::from_millis(self.at)));
        Value::Object(body)
    }
}

/// The events of one revision, in their order; `now` is for what the records give no time to.
pub(super) fn of_turn(turn: &Turn, now: i64) -> Vec<Event> {
    let mut events = Vec::new();
    for pod in &turn.pods {
        definition(pod, now, &mut events);
        refusal(pod, &mut events);
        deployment(pod, now, &mut events);
        for (uuid, after) in &pod.after.instances {
            let nothing = InstanceRecords::default();
            let before = pod.before.instances.get(uuid).unwrap_or(&nothing);
            instance(&pod.id, *uuid, before, after, now, &mut events);
        }
    }
    events
}

fn definition(pod: &PodTurn, now: i64, events: &mut Vec<Event>) {
    let active = |accepted: &Option<Accepted>| accepted.as_ref().filter(|accepted| accepted.phase() == Phase::Active).map(|a| a.version_ms);
    let (before, after) = (active(&pod.before.accepted), active(&pod.after.accepted));
    let (kind, at) = match (before, after) {
        (None, Some(version)) => ("pod_created_event", version),
        (Some(old), Some(version)) if old != version => ("pod_updated_event", version),
        (Some(_), None) => ("pod_deleted_event", pod.after.deployment.as_ref().map_or(now, |deletion| deletion.started_ms)),
        _ => ("", now),
    };
    if !kind.is_empty() {
        // Who sent it is not kept: the change may have come from the store itself.
        let fields = json!({ "clientIp": null, "uri": format!("/v2/pods{}", pod.id) });
        events.push(Event::new(kind, Some(&pod.id), at, fields));
        let fields = json!({ "groupId": group(&pod.id), "version": Version::from_millis(at) });
        events.push(Event::new("group_change_success", Some(&pod.id), at, fields));
    }
    if pod.before.accepted.is_some() && pod.after.accepted.is_none() {
        events.push(Event::new("app_terminated_event", Some(&pod.id), now, json!({ "appId": pod.id })));
    }
}

/// The group that a pod is in.
fn group(pod: &PodId) -> &str {
    pod.as_str().rsplit_once('/').map(|(group, _)| group).filter(|group| !group.is_empty()).unwrap_or("/")
}

/// A push straight to the store that was refused. What the API refuses is told to who sent it, and stands nowhere.
fn refusal(pod: &PodTurn, events: &mut Vec<Event>) {
    let of = |verdict: &Option<Verdict>| verdict.as_ref().filter(|verdict| !verdict.violations.is_empty()).cloned();
    let (before, after) = (of(&pod.before.verdict), of(&pod.after.verdict));
    let Some(verdict) = after.filter(|after| before.as_ref() != Some(after)) else { return };
    let told = verdict.violations.iter().take(MAX_VIOLATIONS).map(|violation| format!("{}: {}", violation.path, violation.message));
    let more = verdict.violations.len().saturating_sub(MAX_VIOLATIONS);
    let reasons: Vec<String> = told.chain((more > 0).then(|| format!("and {more} more"))).collect();
    let fields = json!({
        "groupId": group(&pod.id),
        "version": Version::from_millis(verdict.judged_ms),
        "reason": format!("{} is refused: {}", pod.id, reasons.join("; ")),
    });
    events.push(Event::new("group_change_failed", Some(&pod.id), verdict.judged_ms, fields));
}

fn deployment(pod: &PodTurn, now: i64, events: &mut Vec<Event>) {
    let mut tell = |kind, at, fields| events.push(Event::new(kind, Some(&pod.id), at, fields));
    let plan = |deployment: &Deployment| deployments::plan(&pod.id, deployment);
    let step = |deployment: &Deployment| json!({ "plan": plan(deployment), "currentStep": deployments::step(&pod.id, deployment) });
    let (before, after) = (pod.before.deployment.as_ref(), pod.after.deployment.as_ref());
    match (before, after) {
        (Some(old), Some(new)) if old.id == new.id => {
            // The first step began with the deployment.
            if old.current_step > 0 && new.current_step > old.current_step {
                tell("deployment_step_success", now, step(old));
                tell("deployment_info", now, step(new));
            }
            return;
        }
        (Some(old), after) if after.is_some() || old.dropped => {
            tell("deployment_step_failure", now, step(old));
            let fields = json!({ "id": old.id, "plan": plan(old), "reason": "The upgrade has been cancelled" });
            tell("deployment_failed", now, fields);
        }
        (Some(old), _) => {
            tell("deployment_step_success", now, step(old));
            tell("deployment_success", now, json!({ "id": old.id, "plan": plan(old) }));
        }
        (None, _) => {}
    }
    if let Some(new) = after {
        tell("deployment_info", new.started_ms, step(new));
    }
}

fn instance(pod: &PodId, uuid: Uuid, before: &InstanceRecords, after: &InstanceRecords, now: i64, events: &mut Vec<Event>) {
    let id = InstanceId { pod: pod.clone(), uuid }.to_string();
    if let Some(observed) = &after.observed {
        events.extend(updates(pod, before.observed.as_ref(), observed));
    }
    let Some(should) = &after.instance else {
        let ended = |records: &InstanceRecords| {
            records.observed.as_ref().map(|observed| condition::of_observed(observed, None)).filter(|c| c.is_terminal())
        };
        if let (Some(condition), None, None) = (ended(after), ended(before), &before.instance) {
            let fields = json!({ "instanceId": id, "runSpecId": pod, "condition": condition.as_str() });
            events.push(Event::new("unknown_instance_terminated_event", Some(pod), now, fields));
        }
        return;
    };
    let at = latest(after).unwrap_or(now);
    let version = Version::from_millis(should.config_ms);
    if summary(before) != summary(after) {
        let (condition, _) = summary(after).unwrap_or((Condition::Scheduled, Goal::Running));
        let placed = present(after);
        let fields = json!({
            "instanceId": id,
            "condition": condition.as_str(),
            "runSpecId": pod,
            "agentId": placed.map(|observed| &observed.agent_id),
            "host": placed.map(|observed| &observed.hostname),
            "runSpecVersion": version,
        });
        events.push(Event::new("instance_changed_event", Some(pod), at, fields));
    }
    if healthy(before) != healthy(after) {
        let fields = json!({ "instanceId": id, "runSpecId": pod, "healthy": healthy(after), "runSpecVersion": version });
        events.push(Event::new("instance_health_changed_event", Some(pod), at, fields));
    }
}

/// What an instance is and should be.
fn summary(records: &InstanceRecords) -> Option<(Condition, Goal)> {
    let instance = records.instance.as_ref()?;
    Some((condition::of_instance(instance, records.observed.as_ref(), records.reach.as_ref()), instance.goal()))
}

/// What was observed of the present incarnation.
fn present(records: &InstanceRecords) -> Option<&Observed> {
    let incarnation = records.instance.as_ref()?.incarnation;
    records.observed.as_ref().filter(|observed| observed.incarnation == incarnation)
}

/// Whether all of its containers that report health report that they are well; `None`: none reports.
fn healthy(records: &InstanceRecords) -> Option<bool> {
    let reports: Vec<bool> = present(records)?.tasks.iter().filter_map(|task| task.healthy).collect();
    (!reports.is_empty()).then(|| reports.iter().all(|healthy| *healthy))
}

/// When something was last heard of the present incarnation; else when it was asked for.
fn latest(records: &InstanceRecords) -> Option<i64> {
    let heard = |observed: &Observed| {
        let tasks = observed.tasks.iter().flat_map(|task| [task.since_ms, task.healthy_since_ms]);
        tasks.chain([observed.provisioned_ms]).max()
    };
    let instance = records.instance.as_ref()?;
    let asked = instance.created_ms.max(instance.stopped_ms);
    match present(records).and_then(heard) {
        Some(heard) => Some(heard.max(asked)),
        // A relaunch: nothing says when it was decided.
        None => (instance.incarnation == 1).then_some(asked),
    }
    .filter(|at| *at > 0)
}

/// One for each task of which something new was heard.
fn updates(pod: &PodId, before: Option<&Observed>, after: &Observed) -> Vec<Event> {
    let known = |id: &str| before.and_then(|before| before.tasks.iter().find(|task| task.task_id == id));
    let news = |task: &&observed::Task| match known(&task.task_id) {
        Some(known) => (known.state, known.healthy, &known.last_uuid) != (task.state, task.healthy, &task.last_uuid),
        None => true,
    };
    let told = after.tasks.iter().filter(|task| task.state.is_some()).filter(news);
    told.map(|task| Event::new("status_update_event", Some(pod), task.since_ms.max(task.healthy_since_ms), update(pod, after, task)))
        .collect()
}

fn update(pod: &PodId, observed: &Observed, task: &observed::Task) -> Value {
    let state = task.state.and_then(|state| TaskState::try_from(state).ok()).unwrap_or(TaskState::TaskUnknown);
    let addresses = task.networks.iter().flat_map(|network| &network.addresses);
    let protocol = |address: &str| if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "slaveId": observed.agent_id,
        "taskId": task.task_id,
        "taskStatus": state.as_str_name(),
        "message": task.message,
        "appId": pod,
        "host": observed.hostname,
        "ipAddresses": addresses.map(|address| json!({ "ipAddress": address, "protocol": protocol(address) })).collect::<Vec<_>>(),
        "ports": task.host_ports.iter().filter(|port| **port > 0).collect::<Vec<_>>(),
        "version": Version::from_millis(observed.config_ms),
    })
}

#[cfg(test)]
mod tests {
    use podium_proto::records::{Instance, Reach, verdict};
    use podium_store::index::Excerpt;

    use super::*;

    const AGENT: &str = "S1";

    fn pod() -> PodId {
        PodId::new("/g/web").unwrap()
    }

    fn turn(before: Excerpt, after: Excerpt) -> Vec<Event> {
        of_turn(&Turn { revision: 7, pods: vec![PodTurn { id: pod(), before, after }] }, 1_000)
    }

    fn kinds(events: &[Event]) -> Vec<&'static str> {
        events.iter().map(|event| event.kind).collect()
    }

    fn accepted(version_ms: i64, phase: Phase) -> Excerpt {
        Excerpt { accepted: Some(Accepted { version_ms, phase: phase as i32, ..Default::default() }), ..Excerpt::default() }
    }

    fn deploying(id: &str, current_step: u32) -> Excerpt {
        Excerpt { deployment: Some(Deployment { id: id.to_owned(), current_step, ..Default::default() }), ..Excerpt::default() }
    }

    fn with(instance: Option<Instance>, observed: Option<Observed>, reach: Option<Reach>) -> Excerpt {
        Excerpt { instances: [(Uuid::from_u128(1), InstanceRecords { instance, observed, reach })].into(), ..Excerpt::default() }
    }

    fn first() -> Option<Instance> {
        Some(Instance { incarnation: 1, created_ms: 5, ..Default::default() })
    }

    fn seen(state: Option<TaskState>, healthy: Option<bool>) -> Option<Observed> {
        let task = observed::Task {
            task_id: "t".to_owned(),
            state: state.map(|state| state as i32),
            healthy,
            since_ms: 9,
            host_ports: vec![0, 31005],
            networks: vec![observed::Network { name: String::new(), addresses: vec!["10.0.0.7".to_owned()] }],
            ..Default::default()
        };
        Some(Observed { incarnation: 1, agent_id: AGENT.to_owned(), hostname: "h".to_owned(), tasks: vec![task], ..Default::default() })
    }

    #[test]
    fn a_pod_is_created_changed_deleted_and_gone() {
        let (none, gone) = (Excerpt::default(), accepted(2, Phase::Deleting));
        let created = turn(none.clone(), accepted(1, Phase::Active));
        assert_eq!(kinds(&created), ["pod_created_event", "group_change_success"]);
        assert_eq!(
            created[0].json(),
            json!({"clientIp": null, "uri": "/v2/pods/g/web", "eventType": "pod_created_event", "timestamp": "1970-01-01T00:00:00.001Z"})
        );
        assert_eq!(created[1].json()["groupId"], "/g");
        assert_eq!(kinds(&turn(accepted(1, Phase::Active), accepted(2, Phase::Active))), ["pod_updated_event", "group_change_success"]);
        assert_eq!(kinds(&turn(accepted(2, Phase::Active), accepted(2, Phase::Active))), [""; 0]);
        assert_eq!(kinds(&turn(accepted(2, Phase::Active), gone.clone())), ["pod_deleted_event", "group_change_success"]);
        let deletion = Deployment { started_ms: 4, ..Default::default() };
        let deleted = turn(accepted(2, Phase::Active), Excerpt { deployment: Some(deletion), ..gone.clone() });
        assert_eq!(deleted[0].json()["timestamp"], "1970-01-01T00:00:00.004Z");
        assert_eq!(kinds(&turn(gone.clone(), accepted(3, Phase::Active))), ["pod_created_event", "group_change_success"]);
        assert_eq!(kinds(&turn(gone, none)), ["app_terminated_event"]);
    }

    #[test]
    fn a_deployment_tells_of_its_steps_and_of_its_end() {
        let none = Excerpt::default();
        let begun = turn(none.clone(), deploying("d", 0));
        assert_eq!(kinds(&begun), ["deployment_info"]);
        assert_eq!(begun[0].json()["plan"]["id"], "d");
        assert_eq!(begun[0].json()["currentStep"], json!({"actions": [{"action": "StartPod", "pod": "/g/web"}]}));
        assert_eq!(kinds(&turn(deploying("d", 0), deploying("d", 1))), [""; 0]);
        let next = turn(deploying("d", 1), deploying("d", 2));
        assert_eq!(kinds(&next), ["deployment_step_success", "deployment_info"]);
        assert_eq!(next[1].json()["currentStep"], json!({"actions": [{"action": "ScalePod", "pod": "/g/web"}]}));
        assert_eq!(kinds(&turn(deploying("d", 2), none)), ["deployment_step_success", "deployment_success"]);
        let superseded = turn(deploying("d", 1), deploying("e", 0));
        assert_eq!(kinds(&superseded), ["deployment_step_failure", "deployment_failed", "deployment_info"]);
        assert_eq!((&superseded[1].json()["id"], &superseded[2].json()["plan"]["id"]), (&json!("d"), &json!("e")));
        let mut dropped = deploying("d", 2);
        dropped.deployment.as_mut().unwrap().dropped = true;
        assert_eq!(kinds(&turn(deploying("d", 2), dropped.clone())), [""; 0]);
        let failed = turn(dropped, Excerpt::default());
        assert_eq!(kinds(&failed), ["deployment_step_failure", "deployment_failed"]);
        assert_eq!(failed[1].json()["reason"], "The upgrade has been cancelled");
    }

    #[test]
    fn a_refused_push_is_told_once_with_its_errors() {
        let refused = |spec_revision: i64| {
            let violation = |n: usize| verdict::Violation { path: format!("/containers({n})"), message: "no".to_owned() };
            let violations = (0..MAX_VIOLATIONS + 2).map(violation).collect();
            Excerpt { verdict: Some(Verdict { spec_revision, violations, judged_ms: 3, ..Default::default() }), ..Excerpt::default() }
        };
        let told = turn(Excerpt::default(), refused(5));
        assert_eq!(kinds(&told), ["group_change_failed"]);
        let json = told[0].json();
        assert_eq!((&json["groupId"], &json["version"]), (&json!("/g"), &json!("1970-01-01T00:00:00.003Z")));
        let reason = json["reason"].as_str().unwrap();
        assert!(reason.starts_with("/g/web is refused: /containers(0): no; ") && reason.ends_with("; and 2 more"), "{reason}");
        assert_eq!(kinds(&turn(refused(5), refused(5))), [""; 0]);
        assert_eq!(kinds(&turn(refused(5), refused(6))), ["group_change_failed"]);
        assert_eq!(kinds(&turn(refused(5), Excerpt::default())), [""; 0]);
    }

    #[test]
    fn an_instance_tells_of_its_condition_its_tasks_and_its_health() {
        let scheduled = turn(with(None, None, None), with(first(), None, None));
        assert_eq!(kinds(&scheduled), ["instance_changed_event"]);
        assert_eq!((&scheduled[0].json()["condition"], &scheduled[0].json()["agentId"]), (&json!("Scheduled"), &Value::Null));
        let provisioned = turn(with(first(), None, None), with(first(), seen(None, None), None));
        assert_eq!(kinds(&provisioned), ["instance_changed_event"]);
        let running = turn(with(first(), seen(None, None), None), with(first(), seen(Some(TaskState::TaskRunning), None), None));
        assert_eq!(kinds(&running), ["status_update_event", "instance_changed_event"]);
        let update = running[0].json();
        assert_eq!((&update["taskStatus"], &update["slaveId"], &update["ports"]), (&json!("TASK_RUNNING"), &json!(AGENT), &json!([31005])));
        assert_eq!(update["ipAddresses"], json!([{"ipAddress": "10.0.0.7", "protocol": "IPv4"}]));
        assert_eq!((&running[1].json()["condition"], &running[1].json()["host"]), (&json!("Running"), &json!("h")));
        assert_eq!(running[1].json()["timestamp"], "1970-01-01T00:00:00.009Z");
        let well = |healthy| with(first(), seen(Some(TaskState::TaskRunning), healthy), None);
        let healthy = turn(well(None), well(Some(true)));
        assert_eq!(kinds(&healthy), ["status_update_event", "instance_health_changed_event"]);
        assert_eq!(healthy[1].json()["healthy"], true);
        assert_eq!(kinds(&turn(well(Some(true)), well(Some(true)))), [""; 0]);
    }

    #[test]
    fn a_goal_an_absence_and_a_relaunch_are_changes_too() {
        let running = || seen(Some(TaskState::TaskRunning), None);
        let goal = |goal: Goal| Some(Instance { goal: goal as i32, ..first().unwrap() });
        assert_eq!(
            kinds(&turn(with(first(), running(), None), with(goal(Goal::Decommissioned), running(), None))),
            ["instance_changed_event"]
        );
        let away = || seen(Some(TaskState::TaskUnreachable), None);
        let inactive = turn(with(first(), away(), None), with(first(), away(), Some(Reach { inactive: true, ..Default::default() })));
        assert_eq!(inactive[0].json()["condition"], "UnreachableInactive");
        let second = Some(Instance { incarnation: 2, ..first().unwrap() });
        let again =
            turn(with(first(), seen(Some(TaskState::TaskFailed), None), None), with(second, seen(Some(TaskState::TaskFailed), None), None));
        assert_eq!((kinds(&again), &again[0].json()["condition"]), (vec!["instance_changed_event"], &json!("Scheduled")));
    }

    #[test]
    fn the_end_of_a_task_whose_instance_is_not_on_record_is_told() {
        let ended =
            turn(with(None, seen(Some(TaskState::TaskRunning), None), None), with(None, seen(Some(TaskState::TaskKilled), None), None));
        assert_eq!(kinds(&ended), ["status_update_event", "unknown_instance_terminated_event"]);
        assert_eq!(ended[1].json()["condition"], "Killed");
        // Its record goes after its end: that is not news.
        let gone =
            turn(with(first(), seen(Some(TaskState::TaskKilled), None), None), with(None, seen(Some(TaskState::TaskKilled), None), None));
        assert_eq!(kinds(&gone), [""; 0]);
    }
}
