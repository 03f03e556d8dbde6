//! Each state that a pod, an instance and a container can be in (reference sections 3.2 to 3.5), and what is said of it.

use podium_proto::mesos::v1::TaskState::{self, *};
use podium_proto::mesos::v1::task_status::Reason;

use super::*;

/// What is known of one instance.
struct Known {
    tasks: Option<Vec<observed::Task>>,
    inactive: bool,
}

fn of(tasks: Option<Vec<observed::Task>>) -> Known {
    Known { tasks, inactive: false }
}

fn unheard() -> observed::Task {
    observed::Task { container: "web".to_owned(), ..Default::default() }
}

fn lost(reason: Option<Reason>, message: &str) -> Known {
    let task =
        |container| observed::Task { reason: reason.map(|reason| reason as i32), message: message.to_owned(), ..task(container, TaskLost) };
    of(Some(vec![task("web"), task("log")]))
}

fn away(state: TaskState) -> Vec<observed::Task> {
    let task = |container| observed::Task { unreachable_ms: NOW - 20_000, ..task(container, state) };
    vec![task("web"), task("log")]
}

fn healthy(container: &str) -> observed::Task {
    observed::Task { healthy: Some(true), ..task(container, TaskRunning) }
}

fn view_of(known: &Known, goal: Goal) -> PodView {
    let mut view = pod(1);
    instance(&mut view, 1, known.tasks.clone());
    view.instances.get_mut(&uuid(1)).unwrap().value.goal = goal.into();
    if known.inactive {
        let reach = Reach { inactive: true, unreachable_ms: NOW - 20_000, ..Default::default() };
        view.reach.insert(uuid(1), held(reach));
    }
    view
}

#[test]
fn each_condition_is_the_state_that_section_3_3_gives_it() {
    // What is known; the state with the goal Running, and with another.
    let states: [(&str, Known, &str, &str); 31] = [
        ("not launched", of(None), "PENDING", "TERMINAL"),
        ("launched, nothing heard", of(Some(vec![unheard()])), "PENDING", "TERMINAL"),
        ("staging", of(both(TaskStaging)), "STAGING", "STAGING"),
        ("starting", of(both(TaskStarting)), "STAGING", "STAGING"),
        ("one runs, one starts", of(Some(vec![healthy("web"), task("log", TaskStarting)])), "STAGING", "STAGING"),
        ("one runs, of one nothing is heard", of(Some(vec![healthy("web"), unheard()])), "PENDING", "TERMINAL"),
        ("running, healthy", of(running(Some(true))), "STABLE", "STABLE"),
        ("running, unhealthy", of(running(Some(false))), "DEGRADED", "DEGRADED"),
        ("running, health unknown", of(running(None)), "DEGRADED", "DEGRADED"),
        ("one runs, one finished", of(Some(vec![healthy("web"), task("log", TaskFinished)])), "STABLE", "STABLE"),
        ("the checked one finished", of(Some(vec![task("web", TaskFinished), task("log", TaskRunning)])), "STABLE", "STABLE"),
        ("one runs, one was killed", of(Some(vec![healthy("web"), task("log", TaskKilled)])), "STABLE", "STABLE"),
        ("killing", of(both(TaskKilling)), "TERMINAL", "TERMINAL"),
        ("one failed, one still runs", of(Some(vec![task("web", TaskFailed), task("log", TaskRunning)])), "TERMINAL", "TERMINAL"),
        ("killed", of(both(TaskKilled)), "PENDING", "TERMINAL"),
        ("finished", of(both(TaskFinished)), "PENDING", "TERMINAL"),
        ("failed", of(failed()), "PENDING", "TERMINAL"),
        ("refused by Mesos", of(both(TaskError)), "PENDING", "TERMINAL"),
        ("dropped", of(both(TaskDropped)), "PENDING", "TERMINAL"),
        ("gone", of(both(TaskGone)), "PENDING", "TERMINAL"),
        ("gone by operator", of(both(TaskGoneByOperator)), "PENDING", "TERMINAL"),
        ("unreachable", of(Some(away(TaskUnreachable))), "DEGRADED", "DEGRADED"),
        ("unreachable for long", Known { tasks: Some(away(TaskUnreachable)), inactive: true }, "DEGRADED", "DEGRADED"),
        ("one unreachable", of(Some(vec![healthy("web"), task("log", TaskUnreachable)])), "DEGRADED", "DEGRADED"),
        ("unknown to Mesos", of(both(TaskUnknown)), "DEGRADED", "TERMINAL"),
        ("lost while reconciling", lost(Some(Reason::Reconciliation), ""), "DEGRADED", "DEGRADED"),
        ("lost with its agent", lost(Some(Reason::AgentRemoved), ""), "DEGRADED", "DEGRADED"),
        ("lost, as its agent is disconnected", lost(Some(Reason::AgentDisconnected), ""), "DEGRADED", "DEGRADED"),
        ("lost, as Mesos does not know it", lost(Some(Reason::TaskUnknown), ""), "DEGRADED", "TERMINAL"),
        (
            "lost, and Mesos says that it does not know it",
            lost(Some(Reason::Reconciliation), "Reconciliation: Task is unknown to the agent"),
            "DEGRADED",
            "TERMINAL",
        ),
        ("lost otherwise", lost(None, "boom"), "PENDING", "TERMINAL"),
    ];
    for (name, known, wanted, unwanted) in states {
        for (goal, expected) in [(Goal::Running, wanted), (Goal::Decommissioned, unwanted), (Goal::Stopped, unwanted)] {
            let status = pod_status(&view_of(&known, goal), NOW).unwrap();
            let instance = serde_json::to_value(&status.instances[0]).unwrap();
            assert_eq!(instance["status"], expected, "{name}, {goal:?}");
            let stable = expected == "STABLE";
            assert_eq!(instance.get("message").is_none(), stable, "{name}, {goal:?}: {instance}");
            assert_eq!(instance.get("conditions").is_none(), stable, "{name}, {goal:?}: {instance}");
            assert_eq!(status.status == PodState::Stable, stable, "{name}, {goal:?}");
            assert_eq!(status.message.is_none(), stable, "{name}, {goal:?}");
        }
    }
}

/// What an instance lacks, and why.
fn lacks(view: &PodView) -> Vec<(String, String)> {
    let status = serde_json::to_value(pod_status(view, NOW).unwrap()).unwrap();
    let conditions = status["instances"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    conditions
        .iter()
        .map(|condition| {
            assert_eq!(condition["value"], "false");
            assert_eq!(condition["lastChanged"], status["instances"][0]["statusSince"]);
            (text(&condition["name"]), text(&condition["reason"]))
        })
        .collect()
}

#[test]
fn what_an_instance_lacks_is_told_with_its_reason() {
    let at = |ms: i64| Version::from_millis(ms);
    let unhealthy = {
        let mut tasks = running(Some(false)).unwrap();
        tasks[1].message = "Connection refused".to_owned();
        of(Some(tasks))
    };
    let since = NOW - 20_000;
    let (replaced, given_up) = (at(since + 900_000), at(since + 604_800_000));
    let reasons: [(Known, &str, String); 12] = [
        (of(None), "launched", "waits for an offer".to_owned()),
        (of(Some(vec![unheard()])), "running", "its launch was sent, nothing was heard of it yet".to_owned()),
        (of(both(TaskStarting)), "running", "is being started".to_owned()),
        (of(Some(vec![healthy("web"), task("log", TaskStarting)])), "running", "is being started; not up yet: log".to_owned()),
        (of(running(None)), "healthy", "at least one container is not healthy: of web no health check has come to a result yet".to_owned()),
        (unhealthy, "healthy", "at least one container is not healthy: the health check of web fails: Connection refused".to_owned()),
        (
            of(Some(away(TaskUnreachable))),
            "reachable",
            format!(
                "pod instance has become unreachable: its agent host1 is away since {}, it is replaced at {replaced} and given up at {given_up}",
                at(since)
            ),
        ),
        (
            Known { tasks: Some(away(TaskUnreachable)), inactive: true },
            "reachable",
            format!(
                "pod instance has become unreachable: its agent host1 is away since {}, it is being replaced, and given up at {given_up}",
                at(since)
            ),
        ),
        (of(both(TaskUnknown)), "reachable", "Mesos has no record of it; it may come back".to_owned()),
        (of(both(TaskKilling)), "running", "is being stopped".to_owned()),
        (of(failed()), "running", "ended, is about to be launched again: container web failed with exit code 3: no such table".to_owned()),
        (of(both(TaskKilled)), "running", "ended, is about to be launched again".to_owned()),
    ];
    for (known, name, reason) in reasons {
        assert_eq!(lacks(&view_of(&known, Goal::Running)), [(name.to_owned(), reason)]);
    }
    assert_eq!(lacks(&view_of(&of(running(Some(true))), Goal::Running)), []);
}

#[test]
fn every_reason_to_refuse_an_offer_is_told_in_words_with_marathons_beside_it() {
    let words = [
        ("InsufficientCpus", "too few CPUs left"),
        ("InsufficientMemory", "too little memory left"),
        ("InsufficientDisk", "too little disk left"),
        ("InsufficientGpus", "too few GPUs left"),
        ("InsufficientPorts", "the wanted ports taken"),
        ("UnfulfilledRole", "resources of another role"),
        ("UnfulfilledConstraint", "a placement constraint not met"),
        ("AgentMaintenance", "maintenance coming up"),
        ("NoCorrespondingReservationFound", "no reservation of this instance"),
        ("DeclinedScarceResources", "scarce resources kept for others"),
    ];
    let mut view = pod(1);
    instance(&mut view, 1, None);
    let refused = words.iter().enumerate().map(|(n, (reason, _))| ((*reason).to_owned(), n as u32 + 1)).collect();
    view.queue = Some(held(Queue { offers_seen: 99, refused, updated_ms: NOW, ..Default::default() }));
    let (_, message) = seen(&view);
    let message = message.unwrap();
    assert!(message.contains("99 seen until"), "{message}");
    view.queue.as_mut().unwrap().value.role_refused = "Role 'team' is not in the whitelist".to_owned();
    assert!(seen(&view).1.unwrap().ends_with("Mesos refuses its role (UnfulfilledRole): Role 'team' is not in the whitelist"));
    for (n, (reason, text)) in words.iter().enumerate() {
        let agents = if n == 0 { "1 agent".to_owned() } else { format!("{} agents", n + 1) };
        assert!(message.contains(&format!("{agents} with {text} ({reason})")), "{reason}: {message}");
    }
}

#[test]
fn instances_that_are_not_there_yet_are_told_of() {
    let mut view = pod(3);
    instance(&mut view, 1, running(Some(true)));
    let status = pod_status(&view, NOW).unwrap();
    assert_eq!((status.status, status.message.unwrap().as_str()), (PodState::Degraded, "2 instances: about to be created"));
}

#[test]
fn a_strategy_that_never_gives_up_is_told() {
    let mut view = view_of(&of(Some(away(TaskUnreachable))), Goal::Running);
    let stored = view.versions.values().next().unwrap().value.definition().unwrap();
    let mut definition = (*stored).clone();
    definition.scheduling.unreachable_strategy = definition::UnreachableStrategy::Disabled;
    let stored = StoredDefinition::new(serde_json::to_vec(&definition).unwrap().into());
    view.versions.insert(Version::from_millis(CONFIG), held(stored));
    let reason = lacks(&view).remove(0).1;
    assert!(reason.ends_with("is away since 2021-07-27T09:59:40.000Z, it is waited for"), "{reason}");
}

/// The containers of the one instance, `web` first.
fn containers(tasks: Vec<observed::Task>) -> Value {
    let view = view_of(&of(Some(tasks)), Goal::Running);
    serde_json::to_value(&pod_status(&view, NOW).unwrap().instances[0].containers).unwrap()
}

#[test]
fn each_state_of_a_container_is_answered_as_section_3_4_tells() {
    // The state; whether its id, endpoints and resources are told, and its health.
    let rows = [
        (None, "TASK_STAGING", true, false, false),
        (Some(TaskStaging), "TASK_STAGING", true, true, false),
        (Some(TaskStarting), "TASK_STARTING", true, true, false),
        (Some(TaskRunning), "TASK_RUNNING", true, true, true),
        (Some(TaskKilling), "TASK_KILLING", true, true, true),
        (Some(TaskUnreachable), "TASK_UNREACHABLE", true, true, true),
        (Some(TaskUnknown), "TASK_UNKNOWN", false, false, false),
        (Some(TaskFinished), "TASK_FINISHED", false, false, false),
        (Some(TaskFailed), "TASK_FAILED", false, false, false),
        (Some(TaskKilled), "TASK_KILLED", false, false, false),
        (Some(TaskError), "TASK_ERROR", false, false, false),
        (Some(TaskDropped), "TASK_DROPPED", false, false, false),
        (Some(TaskGone), "TASK_GONE", false, false, false),
        (Some(TaskGoneByOperator), "TASK_GONE_BY_OPERATOR", false, false, false),
    ];
    for (state, word, there, takes, has_health) in rows {
        let web = observed::Task { state: state.map(|state| state as i32), ..task("web", TaskRunning) };
        let answer = &containers(vec![task("log", TaskRunning), web])[0];
        assert_eq!((&answer["name"], &answer["status"]), (&json!("web"), &json!(word)));
        for (member, expected) in [("containerId", there), ("endpoints", there), ("resources", takes), ("conditions", has_health)] {
            assert_eq!(answer.get(member).is_some(), expected, "{word}: {member} in {answer}");
        }
    }
}

#[test]
fn a_containers_health_is_what_mesos_reported_last() {
    for (healthy, value, reason, changed) in [
        (Some(true), "true", "health-reported-by-mesos", NOW - 30_000),
        (Some(false), "false", "health-reported-by-mesos", NOW - 30_000),
        (None, "false", "health-unreported-by-mesos", NOW - 40_000),
    ] {
        let answer = containers(running(healthy).unwrap());
        let changed = Version::from_millis(changed);
        let condition = json!({"name": "healthy", "value": value, "reason": reason, "lastChanged": changed, "lastUpdated": changed});
        assert_eq!(answer[0]["conditions"], json!([condition]));
        assert_eq!(answer[0]["endpoints"][0].get("healthy"), healthy.map(|healthy| json!(healthy)).as_ref());
        // The other container is not checked.
        assert_eq!(answer[1].get("conditions"), None);
    }
}

#[test]
fn how_a_container_ended_is_told_with_exit_code_and_message() {
    let web = observed::Task { exit_code: Some(137), message: "killed by the kernel".to_owned(), ..task("web", TaskFailed) };
    let answer = &containers(vec![web, task("log", TaskKilled)])[0];
    assert_eq!(answer["termination"], json!({"exitCode": 137, "message": "killed by the kernel"}));
    assert_eq!(answer["message"], "killed by the kernel");
}

#[test]
fn amounts_beyond_counting_stay_numbers() {
    let mut view = pod(1);
    instance(&mut view, 1, running(Some(true)));
    let stored = view.versions.values().next().unwrap().value.definition().unwrap();
    let mut definition = (*stored).clone();
    definition.containers.iter_mut().for_each(|container| container.resources.mem = f64::MAX);
    view.versions.insert(Version::from_millis(CONFIG), held(StoredDefinition::new(serde_json::to_vec(&definition).unwrap().into())));
    let status = serde_json::to_value(pod_status(&view, NOW).unwrap()).unwrap();
    assert!(status["instances"][0]["resources"]["mem"].is_number(), "{status}");
}
