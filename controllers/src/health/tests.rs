//! Statuses of hand-made pods.

use bytes::Bytes;
use podium_proto::mesos::v1::TaskState;
use podium_proto::records::accepted::Phase as AcceptedPhase;
use podium_proto::records::{
    Accepted, Delay, Deployment, Goal, Instance, Observed, Queue, Reach, Termination, Verdict, observed, termination, verdict,
};
use podium_store::view::{Deletion, Held, StoredDefinition};
use podium_types::definition::{self, Settings};
use podium_types::id::{PodId, Version};
use serde_json::json;
use uuid::Uuid;

use super::status::{PodState, pod_status};
use super::*;

mod states;

const NOW: i64 = 1_627_380_000_000;
const CONFIG: i64 = NOW - 100_000;

fn held<T>(value: T) -> Held<T> {
    Held { value, mod_revision: 20, create_revision: 20 }
}

/// A pod of two containers, of which `web` is checked.
fn pod(instances: u32) -> PodView {
    let json = json!({
        "id": "/a/web", "version": Version::from_millis(CONFIG),
        "scaling": {"kind": "fixed", "instances": instances},
        "executorResources": {"cpus": 0.2, "mem": 64},
        "containers": [
            {"name": "web", "resources": {"cpus": 0.1, "mem": 32},
             "endpoints": [{"name": "http", "hostPort": 0}, {"name": "admin"}],
             "healthCheck": {"http": {"endpoint": "http"}}},
            {"name": "log", "resources": {"cpus": 0.1, "mem": 32}},
        ],
    });
    let definition = definition::read(json.to_string().as_bytes(), &Settings::default()).unwrap().definition;
    let mut view = PodView::new(PodId::new("/a/web").unwrap());
    let stored = StoredDefinition::new(serde_json::to_vec(&definition).unwrap().into());
    view.versions.insert(Version::from_millis(CONFIG), held(stored));
    view.spec = Some(held(Bytes::from_static(b"{}")));
    view.accepted = Some(held(Accepted { version_ms: CONFIG, config_ms: CONFIG, spec_revision: 20, ..Default::default() }));
    view
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn task(container: &str, state: TaskState) -> observed::Task {
    observed::Task {
        container: container.to_owned(),
        task_id: format!("a_web.instance-{}.{container}.1", uuid(1)),
        state: Some(state as i32),
        since_ms: NOW - 40_000,
        running_ms: if state == TaskState::TaskRunning { NOW - 40_000 } else { 0 },
        ..Default::default()
    }
}

fn instance(view: &mut PodView, n: u128, tasks: Option<Vec<observed::Task>>) {
    let record = Instance { config_ms: CONFIG, incarnation: 1, created_ms: NOW - 60_000, ..Default::default() };
    view.instances.insert(uuid(n), held(record));
    if let Some(tasks) = tasks {
        let observed = Observed {
            incarnation: 1,
            config_ms: CONFIG,
            agent_id: "S1".to_owned(),
            hostname: "host1".to_owned(),
            role: "*".to_owned(),
            provisioned_ms: NOW - 50_000,
            tasks,
            ..Default::default()
        };
        view.observed.insert(uuid(n), held(observed));
    }
}

/// Both containers run, and `web` has said this of its health.
fn running(healthy: Option<bool>) -> Option<Vec<observed::Task>> {
    let mut web = task("web", TaskState::TaskRunning);
    web.healthy = healthy;
    web.healthy_since_ms = healthy.map_or(0, |_| NOW - 30_000);
    web.host_ports = vec![31_005, 0];
    web.networks = vec![observed::Network { name: String::new(), addresses: vec!["10.0.0.7".to_owned()] }];
    let mut log = task("log", TaskState::TaskRunning);
    log.networks = web.networks.clone();
    Some(vec![log, web])
}

fn both(state: TaskState) -> Option<Vec<observed::Task>> {
    Some(vec![task("web", state), task("log", state)])
}

fn failed() -> Option<Vec<observed::Task>> {
    let web = observed::Task { exit_code: Some(3), message: "no such table".to_owned(), ..task("web", TaskState::TaskFailed) };
    Some(vec![task("log", TaskState::TaskKilled), web])
}

/// The states of one instance, as a table has them.
fn seen(view: &PodView) -> (Value, Option<String>) {
    let status = serde_json::to_value(pod_status(view, NOW).unwrap()).unwrap();
    let instance = &status["instances"][0];
    (instance["status"].clone(), instance["message"].as_str().map(ToOwned::to_owned))
}

#[test]
fn a_stable_instance_is_answered_as_marathon_does() {
    let mut view = pod(1);
    instance(&mut view, 1, running(Some(true)));
    let status = serde_json::to_value(pod_status(&view, NOW).unwrap()).unwrap();
    let at = |before: i64| json!(Version::from_millis(NOW - before));
    let id = format!("a_web.instance-{}", uuid(1));
    let task = |container: &str| format!("{id}.{container}.1");
    assert_eq!(status["id"], "/a/web");
    assert_eq!(status["spec"]["containers"][0]["name"], "web");
    assert_eq!((&status["status"], &status["statusSince"], &status["lastUpdated"]), (&json!("STABLE"), &at(30_000), &at(0)));
    assert_eq!(status.get("message"), None);
    assert_eq!(
        status["instances"],
        json!([{
            "id": id, "status": "STABLE",
            "statusSince": at(30_000), "lastUpdated": at(30_000), "lastChanged": at(30_000),
            "agentHostname": "host1", "agentId": "S1",
            "resources": {"cpus": 0.4, "mem": 128, "disk": 10, "gpus": 0},
            "networks": [{"addresses": ["10.0.0.7"]}],
            "containers": [
                {"name": "web", "status": "TASK_RUNNING", "statusSince": at(40_000), "lastUpdated": at(30_000), "lastChanged": at(30_000),
                 "containerId": task("web"),
                 "endpoints": [{"name": "http", "allocatedHostPort": 31005, "healthy": true}, {"name": "admin"}],
                 "conditions": [{"name": "healthy", "value": "true", "reason": "health-reported-by-mesos",
                                 "lastChanged": at(30_000), "lastUpdated": at(30_000)}],
                 "resources": {"cpus": 0.1, "mem": 32, "disk": 0, "gpus": 0}},
                {"name": "log", "status": "TASK_RUNNING", "statusSince": at(40_000), "lastUpdated": at(40_000), "lastChanged": at(40_000),
                 "containerId": task("log"), "resources": {"cpus": 0.1, "mem": 32, "disk": 0, "gpus": 0}},
            ],
            "specReference": format!("/v2/pods/a/web::versions/{}", Version::from_millis(CONFIG)),
            "role": "*",
        }])
    );
}

#[test]
fn an_instance_that_was_taken_on_without_a_record_says_what_is_not_known() {
    let mut view = pod(1);
    instance(&mut view, 1, running(Some(true)));
    if let Some(held) = view.observed.get_mut(&uuid(1)) {
        held.value.hostname.clear();
    }
    let (state, message) = seen(&view);
    assert_eq!(state, "STABLE");
    assert!(message.unwrap().contains("host and ports it has is not known"));
}

#[test]
fn a_finished_checked_container_leaves_its_instance_stable() {
    let mut view = pod(1);
    instance(&mut view, 1, Some(vec![task("web", TaskState::TaskFinished), task("log", TaskState::TaskRunning)]));
    assert_eq!(seen(&view).0, "STABLE");
}

#[test]
fn the_pod_is_stable_when_as_many_instances_are_as_wanted() {
    let mut view = pod(2);
    instance(&mut view, 1, running(Some(true)));
    instance(&mut view, 2, running(None));
    assert_eq!(pod_status(&view, NOW).unwrap().status, PodState::Degraded);
    instance(&mut view, 3, running(Some(true)));
    assert_eq!(pod_status(&view, NOW).unwrap().status, PodState::Stable);
    assert_eq!(pod_status(&pod(0), NOW).unwrap().status, PodState::Stable);
    view.accepted.as_mut().unwrap().value.phase = AcceptedPhase::Deleting.into();
    assert_eq!(pod_status(&view, NOW).unwrap().status, PodState::Terminal);
    assert!(pod_status(&PodView::new(PodId::new("/x").unwrap()), NOW).is_none());
}

#[test]
fn an_instance_that_waits_tells_what_for() {
    let mut view = pod(1);
    instance(&mut view, 1, None);
    assert_eq!(seen(&view), (json!("PENDING"), Some("waits for an offer".to_owned())));
    view.queue = Some(held(Queue::default()));
    assert_eq!(seen(&view).1.unwrap(), "waits for an offer: none has come yet");
    let refused = [("InsufficientCpus".to_owned(), 2), ("UnfulfilledConstraint".to_owned(), 1)];
    let refused = refused.into_iter().collect();
    view.queue = Some(held(Queue { offers_seen: 9, refused, updated_ms: NOW - 1_000, ..Default::default() }));
    assert_eq!(
        seen(&view).1.unwrap(),
        "waits for an offer: 9 seen until 2021-07-27T09:59:59.000Z, of no use: 2 agents with too few CPUs left (InsufficientCpus), 1 agent with a placement constraint not met (UnfulfilledConstraint)"
    );
    let status = pod_status(&view, NOW).unwrap();
    assert!(status.message.unwrap().starts_with("1 instance: waits for an offer"));
    assert_eq!(status.instances[0].agent_hostname, None);
}

#[test]
fn a_relaunch_tells_its_time_and_how_the_last_incarnation_ended() {
    let mut view = pod(1);
    instance(&mut view, 1, failed());
    let record = &mut view.instances.get_mut(&uuid(1)).unwrap().value;
    (record.incarnation, record.not_before_ms) = (2, NOW + 5_000);
    let (state, message) = seen(&view);
    assert_eq!(state, "PENDING");
    assert_eq!(
        message.unwrap(),
        format!(
            "waits until {} for its next launch (back-off); the last time it ended: container web failed with exit code 3: no such table",
            Version::from_millis(NOW + 5_000)
        )
    );
    let status = serde_json::to_value(pod_status(&view, NOW).unwrap()).unwrap();
    let web = &status["instances"][0]["containers"][0];
    assert_eq!(web["termination"], json!({"exitCode": 3, "message": "no such table"}));
    assert_eq!((web.get("containerId"), status["instances"][0].get("agentId")), (None, None));
}

#[test]
fn what_ended_lately_is_listed_with_exit_codes_newest_last() {
    let mut view = pod(1);
    let end = |n: u32, code| Termination {
        instance_id: format!("a_web.instance-{}", uuid(1)),
        incarnation: n,
        started_ms: NOW - 9_000,
        terminated_ms: NOW - 8_000 + i64::from(n),
        containers: vec![termination::Container {
            container_id: format!("a_web.instance-{}.web.{n}", uuid(1)),
            last_known_state: "TaskFailed".to_owned(),
            message: "boom".to_owned(),
            exit_code: Some(code),
        }],
        ..Default::default()
    };
    view.delay = Some(held(Delay { history: vec![end(1, 7), end(2, 8)], ..Default::default() }));
    let status = serde_json::to_value(pod_status(&view, NOW).unwrap()).unwrap();
    assert_eq!(
        status["terminationHistory"][1],
        json!({
            "instanceID": format!("a_web.instance-{}", uuid(1)),
            "startedAt": Version::from_millis(NOW - 9_000), "terminatedAt": Version::from_millis(NOW - 7_998),
            "message": "container web failed with exit code 8: boom",
            "containers": [{"containerId": format!("a_web.instance-{}.web.2", uuid(1)), "lastKnownState": "TaskFailed",
                            "termination": {"exitCode": 8, "message": "boom"}}],
        })
    );
}

/// What the controller would write now.
fn write(view: &PodView, now: i64) -> Option<Value> {
    match decide(view, Now(now)).intents.as_slice() {
        [Intent::Write(json)] => Some(serde_json::from_slice(json).unwrap()),
        [] => None,
        other => panic!("{other:?}"),
    }
}

/// Writes it.
fn commit(view: &mut PodView, now: i64) -> Value {
    let written = write(view, now).expect("something to write");
    view.status = Some(held(Bytes::from(written.to_string())));
    written
}

#[test]
fn the_status_key_tells_version_phase_and_counts() {
    let mut view = pod(2);
    instance(&mut view, 1, running(Some(true)));
    instance(&mut view, 2, running(Some(true)));
    assert_eq!(
        write(&view, NOW).unwrap(),
        json!({
            "id": "/a/web", "specRevision": 20, "phase": "Running", "status": "STABLE",
            "version": Version::from_millis(CONFIG), "errors": [],
            "counts": {"wanted": 2, "running": 2, "healthy": 2, "upToDate": 2, "waiting": 0, "starting": 0, "unreachable": 0, "stopping": 0},
            "deployment": null, "reasons": [], "updatedAt": Version::from_millis(NOW),
        })
    );
}

#[test]
fn the_phase_follows_what_happens() {
    let mut view = pod(1);
    let phase = |view: &PodView| write(view, NOW).unwrap()["phase"].clone();
    assert_eq!(phase(&view), "Degraded");
    view.deployment = Some(held(Deployment { id: "d".to_owned(), version_ms: CONFIG, ..Default::default() }));
    assert_eq!(phase(&view), "Deploying");
    assert_eq!(write(&view, NOW).unwrap()["deployment"], json!({"id": "d", "kind": "START", "version": Version::from_millis(CONFIG)}));
    view.deployment = None;
    instance(&mut view, 1, running(Some(true)));
    assert_eq!(phase(&view), "Running");
    view.accepted.as_mut().unwrap().value.phase = AcceptedPhase::Deleting.into();
    assert_eq!(phase(&view), "Deleting");
    assert_eq!(write(&view, NOW).unwrap()["counts"]["wanted"], 0);
}

#[test]
fn a_refused_push_is_told_with_every_error_beside_what_runs_on() {
    let mut view = pod(1);
    instance(&mut view, 1, running(Some(true)));
    let violation = |path: &str, message: &str| verdict::Violation { path: path.to_owned(), message: message.to_owned() };
    let violations = vec![violation("/id", "error.pattern"), violation("/user", "must not be empty")];
    view.verdict = Some(held(Verdict { spec_revision: 33, violations, ..Default::default() }));
    let status = write(&view, NOW).unwrap();
    assert_eq!((&status["phase"], &status["specRevision"]), (&json!("Refused"), &json!(33)));
    assert_eq!(status["errors"], json!([{"path": "/id", "message": "error.pattern"}, {"path": "/user", "message": "must not be empty"}]));
    assert_eq!((&status["version"], &status["counts"]["healthy"]), (&json!(Version::from_millis(CONFIG)), &json!(1)));
    let told = pod_status(&view, NOW).unwrap();
    assert_eq!(
        (told.status, told.message.as_deref()),
        (PodState::Stable, Some("the last push was refused: /id: error.pattern (and 1 more error)"))
    );
    // The same for a pod that never was.
    view.accepted = None;
    view.instances.clear();
    let status = write(&view, NOW).unwrap();
    assert_eq!((&status["phase"], &status["status"], &status["version"]), (&json!("Refused"), &Value::Null, &Value::Null));
}

#[test]
fn reasons_name_each_kind_of_trouble_once_with_its_count() {
    let mut view = pod(5);
    instance(&mut view, 1, None);
    instance(&mut view, 2, None);
    instance(&mut view, 3, both(TaskState::TaskUnreachable));
    view.reach.insert(uuid(3), held(Reach { inactive: true, ..Default::default() }));
    instance(&mut view, 4, running(Some(false)));
    instance(&mut view, 5, failed());
    let status = write(&view, NOW).unwrap();
    assert_eq!(
        status["reasons"],
        json!([
            "2 instances: waits for an offer",
            "1 instance: at least one container is not healthy: the health check of web fails",
            "1 instance: ended, is about to be launched again: container web failed with exit code 3: no such table",
            "1 instance: pod instance has become unreachable: its agent host1 is away since 2021-07-27T09:59:20.000Z, it is replaced at \
             2021-07-27T10:14:20.000Z and given up at 2021-08-03T09:59:20.000Z",
        ])
    );
    assert_eq!(
        status["counts"],
        json!({"wanted": 5, "running": 1, "healthy": 0, "upToDate": 1, "waiting": 3, "starting": 0, "unreachable": 1, "stopping": 0})
    );
}

#[test]
fn nothing_is_written_while_nothing_changes_however_much_time_passes() {
    let mut view = pod(1);
    instance(&mut view, 1, running(Some(true)));
    commit(&mut view, NOW);
    for later in [PACE_MS, 60_000, 86_400_000] {
        assert_eq!(decide(&view, Now(NOW + later)), Decision::nothing());
    }
}

#[test]
fn the_first_change_is_written_at_once_and_the_next_half_a_second_later() {
    let mut view = pod(1);
    commit(&mut view, NOW);
    instance(&mut view, 1, None);
    assert_eq!(decide(&view, Now(NOW + 100)), Decision { intents: Vec::new(), wake: Some(NOW + PACE_MS) });
    let second = commit(&mut view, NOW + PACE_MS);
    assert_eq!(second["updatedAt"], json!(Version::from_millis(NOW + PACE_MS)));
    instance(&mut view, 1, running(Some(true)));
    commit(&mut view, NOW + 10_000);
    // A clock that was set back holds nothing up.
    instance(&mut view, 1, both(TaskState::TaskKilling));
    commit(&mut view, NOW - 3_600_000);
}

#[test]
fn the_end_of_a_back_off_is_a_reason_to_look_again() {
    let mut view = pod(1);
    instance(&mut view, 1, None);
    view.instances.get_mut(&uuid(1)).unwrap().value.not_before_ms = NOW + 5_000;
    let written = commit(&mut view, NOW);
    assert_eq!(
        written["reasons"],
        json!([format!("1 instance: waits until {} for its next launch (back-off)", Version::from_millis(NOW + 5_000))])
    );
    assert_eq!(decide(&view, Now(NOW + PACE_MS)).wake, Some(NOW + 5_000));
    assert_eq!(commit(&mut view, NOW + 5_000)["reasons"], json!(["1 instance: waits for an offer"]));
}

#[test]
fn the_status_goes_with_the_last_of_the_pod() {
    let mut view = pod(1);
    commit(&mut view, NOW);
    view.accepted = None;
    // The note that its history ages is none of what a status tells of.
    view.deleted = Some(held(Deletion { at: Some(Version::from_millis(NOW)) }));
    let decision = decide(&view, Now(NOW + 10_000));
    assert_eq!(decision, Decision::now(vec![Intent::Remove]));
    let groups = Health.apply(&view, decision.intents, Now(NOW), &mut crate::runtime::RandomIds);
    assert_eq!(groups[0].ops, [Op::Delete(Key::Status(view.id.clone()))]);
    view.status = None;
    assert_eq!(decide(&view, Now(NOW + 20_000)), Decision::nothing());
}

#[test]
fn a_status_that_somebody_overwrote_is_written_again() {
    let mut view = pod(1);
    view.status = Some(held(Bytes::from_static(b"mine now")));
    commit(&mut view, NOW);
}

#[test]
fn what_mesos_does_not_take_back_of_gone_instances_is_said_with_its_agent() {
    let mut view = pod(1);
    instance(&mut view, 1, Some(vec![task("web", TaskState::TaskRunning)]));
    for n in [2, 3, 4] {
        instance(&mut view, n, Some(vec![task("web", TaskState::TaskKilled)]));
        view.instances.remove(&uuid(n));
        let asked_in_vain = if n == 4 { 0 } else { 3 };
        let reservation = observed::Reservation { hostname: "host1".to_owned(), asked_in_vain, ..Default::default() };
        view.observed.get_mut(&uuid(n)).unwrap().value.reservation = Some(reservation);
    }
    let told = format!(
        "Mesos does not take back what was reserved for a_web.instance-{}, which is gone, on agent host1 (and of 1 more): may Podium's \
         principal destroy volumes and unreserve?",
        uuid(2)
    );
    assert_eq!(words::of_store(&view), [told]);
}
