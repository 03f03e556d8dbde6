//! The real cluster killed and started again, whole or without an agent; agents that are lost and come back; and agents
//! that can start nothing.

use std::collections::BTreeSet;

use podium_e2e::binary;
use podium_e2e::mesos::{Agent, Helpers};
use podium_e2e::mesos_server::MesosServer;
use podium_e2e::process::{marked, marked_running, signal_process};
use podium_e2e::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::ground::QUICK;
use crate::{marker, pod};

/// Agents are lost soon, but not for a slow machine's sake; executors have time to come back to theirs; and after its
/// start the allocator waits for a tenth of the agents that it remembers.
const RECOVERY: &[(&str, &str)] = &[
    ("agent_ping_timeout", "1secs"),
    ("max_agent_ping_timeouts", "6"),
    ("executor_reregistration_timeout", "5secs"),
    ("allocator_agent_recovery_factor", "0.1"),
];

fn start(agents: &[Agent]) -> MesosServer {
    let flags = [QUICK, RECOVERY].concat();
    let podium = binary::podium(false);
    MesosServer::start(podium, agents, Helpers::Podium(podium), &flags, &[])
}

/// Ids of agents as the master knows them.
fn agents(cluster: &MesosServer) -> BTreeSet<String> {
    cluster.mesos.agents().iter().map(|agent| agent["id"].as_str().unwrap().to_owned()).collect()
}

/// Ids of all tasks of a pod's status.
fn tasks(status: &Value) -> BTreeSet<String> {
    let instances = status["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
    let containers = instances.iter().flat_map(|instance| instance["containers"].as_array().map(Vec::as_slice).unwrap_or_default());
    containers.filter_map(|container| container["containerId"].as_str()).map(str::to_owned).collect()
}

/// Keeps a pod on the agent of that name.
fn pinned(mut pod: Value, agent: &str) -> Value {
    pod["scheduling"]["placement"] = json!({"constraints": [{"fieldName": "hostname", "operator": "LIKE", "value": agent}]});
    pod
}

fn with_strategy(mut pod: Value, strategy: Value) -> Value {
    pod["scheduling"]["unreachableStrategy"] = strategy;
    pod
}

#[test]
fn a_killed_cluster_keeps_its_agents_and_their_instances_and_tells_what_ended_meanwhile() {
    let mut cluster = start(&[Agent::new(1), Agent::new(2)]);
    let api = cluster.api();
    let marker = marker();
    let mut stays = pod("/stays", 2, &marker, &["exec sleep 3001"]);
    stays["scheduling"]["placement"] = json!({"constraints": [{"fieldName": "hostname", "operator": "UNIQUE"}]});
    api.create(&stays);
    api.create(&pinned(pod("/dies", 1, &marker, &["sleep 3002; exit 42"]), "agent-1"));
    let before = api.stable("/stays", 2);
    api.stable("/dies", 1);
    let known = agents(&cluster);
    let untouched = marked_running(&marker, "sleep 3001");
    let dying = marked_running(&marker, "sleep 3002");
    assert_eq!((known.len(), untouched.len(), dying.len()), (2, 2, 1));

    cluster.mesos.kill();
    signal_process(dying[0], Signal::KILL);
    // One agent stays away: the master knows of it and nothing of its tasks.
    cluster.mesos.restart(1);
    eventually("what ended meanwhile is told and launched again", || {
        let status = api.status("/dies")?;
        let again = status["status"] == "STABLE" && marked_running(&marker, "sleep 3002").len() == 1;
        if again && tasks(&status).iter().all(|task| task.ends_with(".2")) { Ok(()) } else { Err(status.to_string()) }
    });
    let without = api.status("/stays").unwrap();
    assert_eq!(tasks(&without), tasks(&before), "nobody has said that the tasks of the other agent are gone: {without}");
    let state = cluster.mesos.master().get("/slaves").json();
    assert_eq!(state["recovered_slaves"].as_array().map(Vec::len), Some(1), "{state}");

    cluster.mesos.kill();
    cluster.mesos.restart(2);
    assert_eq!(agents(&cluster), known, "the agents keep their ids");
    let after = api.stable("/stays", 2);
    assert_eq!(tasks(&after), tasks(&before), "known again with their ids");
    assert_eq!(marked_running(&marker, "sleep 3001"), untouched, "the same processes");
    let frameworks = cluster.mesos.master().get("/frameworks").json();
    let ours = |list: &Value| list.as_array().unwrap().iter().filter(|framework| framework["name"] == "podium").count();
    assert_eq!((ours(&frameworks["frameworks"]), ours(&frameworks["completed_frameworks"])), (1, 0), "{frameworks}");
    // Both agents take launches again.
    let scaled = api.call("PUT", "/v2/pods/dies?force=true", Some(&pod("/dies", 4, &marker, &["exec sleep 3004"]).to_string()));
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    api.stable("/dies", 4);
}

#[test]
fn instances_of_a_lost_agent_are_replaced_and_given_up_as_their_strategy_says() {
    // Room for the filler alone, or for all others.
    let small = Agent { resources: "cpus:4;mem:4096;disk:4096;ports:[21000-21099]".into(), ..Agent::new(1) };
    let mut cluster = start(&[small, Agent::new(2)]);
    let api = cluster.api();
    let marker = marker();
    let mut filler = pinned(pod("/filler", 1, &marker, &["exec sleep 4000"]), "agent-1");
    filler["containers"][0]["resources"]["cpus"] = json!(3.9);
    api.create(&filler);
    api.stable("/filler", 1);
    let soon = |expunge: u32| json!({"inactiveAfterSeconds": 1, "expungeAfterSeconds": expunge});
    for (id, command, strategy) in [
        ("/expunged", "exec sleep 4001", soon(1)),
        ("/inactive", "exec sleep 4002", soon(3600)),
        ("/patient", "exec sleep 4003", json!("disabled")),
    ] {
        api.create(&with_strategy(pod(id, 1, &marker, &[command]), strategy));
    }
    let before = ["/expunged", "/inactive", "/patient"].map(|id| api.stable(id, 1));
    for status in &before {
        assert_eq!(status["instances"][0]["agentHostname"], "agent-2", "{status}");
    }
    let old = marked_running(&marker, "sleep 4001")[0];
    let answer = api.call("DELETE", "/v2/pods/filler?force=true", None);
    assert_eq!(answer.status, 202, "{}", answer.body);

    cluster.mesos.lose_last_agent();
    for (id, command) in [("/expunged", "sleep 4001"), ("/inactive", "sleep 4002")] {
        eventually(&format!("{id} is replaced on the other agent"), || {
            let status = api.status(id)?;
            let instances = status["instances"].as_array().unwrap();
            let new = instances.iter().find(|instance| instance["agentHostname"] == "agent-1" && instance["status"] == "STABLE");
            if new.is_some() && marked_running(&marker, command).len() == 2 { Ok(()) } else { Err(status.to_string()) }
        });
    }
    eventually("the patient one is known to be away", || {
        let status = api.status("/patient")?;
        if status.to_string().contains("unreachable") && tasks(&status) == tasks(&before[2]) { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(marked_running(&marker, "sleep 4003").len(), 1, "nobody replaces it");

    // The agent comes back with all that it ran.
    cluster.mesos.kill();
    cluster.mesos.restart(2);
    for (id, command) in [("/expunged", "sleep 4001"), ("/inactive", "sleep 4002"), ("/patient", "sleep 4003")] {
        api.stable(id, 1);
        eventually(&format!("one instance of {id} is left"), || match marked_running(&marker, command).len() {
            1 => Ok(()),
            n => Err(format!("{n} processes")),
        });
    }
    assert!(!marked(&marker).iter().any(|seen| seen.pid == old), "what was given up was killed on its return");
    assert_eq!(tasks(&api.stable("/patient", 1)), tasks(&before[2]), "and what was waited for is itself again");
}

/// Mesos' agent looks for what is left in the session of the executor, where no container is.
#[test]
fn a_killed_executor_leaves_nothing_that_its_containers_have_started() {
    let cluster = start(&[Agent::new(1)]);
    let (api, marker) = (cluster.api(), marker());
    let script = "(setsid sh -c \"trap '' TERM; sleep 6001; true\" &); sh -c 'sleep 6002; true'; true";
    let mut pod = pod("/orphans", 1, &marker, &[script]);
    // What is launched next would carry the marker too.
    pod["scheduling"]["backoff"] = json!({"backoff": 3600, "backoffFactor": 1.15, "maxLaunchDelay": 3600});
    api.create(&pod);
    api.stable("/orphans", 1);
    for command in ["sleep 6001", "sleep 6002"] {
        eventually(command, || match marked_running(&marker, command)[..] {
            [_] => Ok(()),
            ref other => Err(format!("{other:?}")),
        });
    }
    let first = marked_running(&marker, &format!("sh -c {script}"))[0];
    signal_process(parent(first), Signal::KILL);
    eventually("nothing is left", || match marked(&marker) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[test]
fn an_agent_that_can_start_nothing_is_told_of_in_words() {
    let cluster = MesosServer::start(binary::podium(false), &[Agent::new(1)], Helpers::None, QUICK, &[]);
    let api = cluster.api();
    let mut hopeless = pod("/hopeless", 1, &marker(), &["exec sleep 5001"]);
    hopeless["scheduling"]["backoff"] = json!({"backoff": 3600, "backoffFactor": 1.15, "maxLaunchDelay": 3600});
    api.create(&hopeless);
    let status = eventually("the failure is told", || {
        let status = api.status("/hopeless")?;
        if status["terminationHistory"][0].is_object() { Ok(status) } else { Err(status.to_string()) }
    });
    let history = &status["terminationHistory"][0];
    assert_eq!(history["containers"][0]["lastKnownState"], "TaskFailed", "{history}");
    let words = history["message"].as_str().unwrap();
    assert!(words.to_lowercase().contains("executor terminated"), "{words}");
    let tasks = cluster.mesos.master().get("/tasks").json();
    assert_eq!(tasks["tasks"][0]["state"], "TASK_FAILED", "{tasks}");
}
