//! What the master refuses of tasks, executors and operations, in which words: one ACCEPT carries a whole table of bad ones.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::stage::{Framework, Stage, executor, info, launch, launch_group, ports, scalar, task, text, with};

/// Makes something bad of a good one.
type Spoil = fn(&mut Value);

/// A table: the name of the step, and what is bad in it.
type Table<'a> = &'a [(&'a str, Spoil)];

async fn start(stage: &mut Stage) -> (Framework, Value) {
    let mut framework = stage.subscribe(info()).await;
    let offer = stage.offers(&mut framework, 2).await.remove(0);
    (framework, offer)
}

/// Sends all as operations of one ACCEPT, and writes down the first update of each of their tasks.
async fn try_all(stage: &mut Stage, framework: &mut Framework, offer: &Value, all: Vec<(String, Value, Vec<String>)>) {
    let operations = all.iter().map(|(_, operation, _)| operation.clone()).collect();
    framework.accept(&[offer], operations).await;
    let mut first: BTreeMap<String, Value> = BTreeMap::new();
    let expected: usize = all.iter().map(|(_, _, ids)| ids.len()).sum();
    while first.len() < expected {
        let status = framework.updates(1).await.remove(0);
        let id = text(&status["task_id"]["value"]).to_owned();
        // What becomes of a task that the master has let pass is its agent's matter.
        let told = if status["source"] == "SOURCE_MASTER" { status } else { json!({ "message": "passed on to the agent" }) };
        first.entry(id).or_insert(told);
    }
    for (step, _, ids) in all {
        let statuses: Vec<Option<&Value>> = ids.iter().map(|id| first.get(id)).collect();
        // All tasks of a group are told the same; of others it is enough to hear when they are not.
        let same = statuses.windows(2).all(|pair| pair[0].map(|status| &status["message"]) == pair[1].map(|status| &status["message"]));
        stage.told(step, if same { json!(statuses[0]) } else { json!(statuses) });
    }
}

/// Groups of two tasks: `{executor, tasks}`, each spoiled in its way.
async fn try_groups(stage: &mut Stage, table: Table<'_>) {
    let (mut framework, offer) = start(stage).await;
    let mut all = Vec::new();
    for (number, (step, spoil)) in table.iter().enumerate() {
        let tasks = json!([task(&format!("a{number}"), &offer), task(&format!("b{number}"), &offer)]);
        let mut group = json!({ "executor": executor(&format!("e{number}"), &framework.id), "tasks": tasks });
        spoil(&mut group);
        let tasks: Vec<Value> = group["tasks"].as_array().unwrap().clone();
        let ids = tasks.iter().map(|task| text(&task["task_id"]["value"]).to_owned()).collect();
        all.push(((*step).to_owned(), launch_group(group["executor"].clone(), tasks), ids));
    }
    try_all(stage, &mut framework, &offer, all).await;
    framework.teardown().await;
}

/// As [`try_groups`], where only the first task is bad.
async fn try_tasks(stage: &mut Stage, table: Table<'_>) {
    let (mut framework, offer) = start(stage).await;
    let mut all = Vec::new();
    for (number, (step, spoil)) in table.iter().enumerate() {
        let mut bad = task(&format!("a{number}"), &offer);
        spoil(&mut bad);
        let id = text(&bad["task_id"]["value"]).to_owned();
        all.push(((*step).to_owned(), launch_group(executor(&format!("e{number}"), &framework.id), vec![bad]), vec![id]));
    }
    try_all(stage, &mut framework, &offer, all).await;
    framework.teardown().await;
}

pub async fn tasks(stage: &mut Stage) {
    try_tasks(
        stage,
        &[
            ("an id with a slash", |task| task["task_id"]["value"] = json!("a/b")),
            ("an id with a backslash", |task| task["task_id"]["value"] = json!("a\\b")),
            ("an id with a control character", |task| task["task_id"]["value"] = json!("a\u{1}b")),
            ("an empty id", |task| task["task_id"]["value"] = json!("")),
            ("id .", |task| task["task_id"]["value"] = json!(".")),
            ("id ..", |task| task["task_id"]["value"] = json!("..")),
            ("an id of 256 characters", |task| task["task_id"]["value"] = json!("x".repeat(256))),
            ("another agent", |task| task["agent_id"]["value"] = json!("elsewhere")),
            ("a negative grace period", |task| task["kill_policy"] = json!({ "grace_period": { "nanoseconds": -1 } })),
            ("a negative completion time", |task| task["max_completion_time"] = json!({ "nanoseconds": -1 })),
            ("no resources", |task| task["resources"] = json!([])),
            ("limits", |task| task["limits"] = json!({ "cpus": { "value": 1.0 } })),
            ("limits of an unknown kind", |task| {
                task["limits"] = json!({ "disk": { "value": 1.0 } });
                task["container"] = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } });
            }),
            ("limits below the request", |task| {
                task["limits"] = json!({ "mem": { "value": 1.0 } });
                task["container"] = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } });
            }),
            ("its own executor", |task| task["executor"] = executor("another", "another")),
            ("a Docker container", |task| task["container"] = json!({ "type": "DOCKER", "docker": { "image": "x" } })),
            ("a Docker container without an image", |task| task["container"] = json!({ "type": "DOCKER" })),
        ],
    )
    .await;
}

fn check(task: &mut Value, check: Value) {
    task["check"] = check;
}

fn health(task: &mut Value, check: Value) {
    task["health_check"] = check;
}

pub async fn checks(stage: &mut Stage) {
    try_tasks(stage, &[
        ("a health check without a type", |task| health(task, json!({}))),
        ("a health check of an unknown type", |task| health(task, json!({ "type": "UNKNOWN" }))),
        ("a COMMAND health check without a command", |task| health(task, json!({ "type": "COMMAND" }))),
        ("a COMMAND health check without a value", |task| health(task, json!({ "type": "COMMAND", "command": {} }))),
        ("a COMMAND health check with a secret variable", |task| {
            health(task, json!({ "type": "COMMAND", "command": { "value": "true", "environment": { "variables": [{ "name": "A", "type": "SECRET" }] } } }));
        }),
        ("a COMMAND health check with http", |task| health(task, json!({ "type": "COMMAND", "command": { "value": "true" }, "http": { "port": 80 } }))),
        ("an HTTP health check without http", |task| health(task, json!({ "type": "HTTP" }))),
        ("an HTTP health check of another scheme", |task| health(task, json!({ "type": "HTTP", "http": { "port": 80, "scheme": "ftp" } }))),
        ("an HTTP health check of a relative path", |task| health(task, json!({ "type": "HTTP", "http": { "port": 80, "path": "x" } }))),
        ("a TCP health check without tcp", |task| health(task, json!({ "type": "TCP" }))),
        ("a negative delay", |task| health(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "delay_seconds": -1.0 }))),
        ("a negative grace period", |task| health(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "grace_period_seconds": -1.0 }))),
        ("a negative interval", |task| health(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "interval_seconds": -1.0 }))),
        ("a negative timeout", |task| health(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "timeout_seconds": -1.0 }))),
        ("a TCP health check in a network of its own", |task| {
            health(task, json!({ "type": "TCP", "tcp": { "port": 80 } }));
            task["container"] = json!({ "type": "MESOS", "network_infos": [{ "name": "net" }] });
        }),
        ("an HTTP health check in a network of its own", |task| {
            health(task, json!({ "type": "HTTP", "http": { "port": 80 } }));
            task["container"] = json!({ "type": "MESOS", "network_infos": [{}] });
        }),
        ("a check without a type", |task| check(task, json!({}))),
        ("a check of an unknown type", |task| check(task, json!({ "type": "UNKNOWN" }))),
        ("a COMMAND check without a command", |task| check(task, json!({ "type": "COMMAND" }))),
        ("a COMMAND check without a value", |task| check(task, json!({ "type": "COMMAND", "command": { "command": {} } }))),
        ("an HTTP check without http", |task| check(task, json!({ "type": "HTTP" }))),
        ("an HTTP check of a relative path", |task| check(task, json!({ "type": "HTTP", "http": { "port": 80, "path": "x" } }))),
        ("a TCP check without tcp", |task| check(task, json!({ "type": "TCP" }))),
        ("a check with a negative delay", |task| check(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "delay_seconds": -1.0 }))),
        ("a check with a negative interval", |task| check(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "interval_seconds": -1.0 }))),
        ("a check with a negative timeout", |task| check(task, json!({ "type": "TCP", "tcp": { "port": 80 }, "timeout_seconds": -1.0 }))),
    ])
    .await;
}

fn variable(task: &mut Value, variable: Value) {
    task["command"]["environment"] = json!({ "variables": [variable] });
}

fn volume(task: &mut Value, volume: Value) {
    let volume = with(json!({ "container_path": "data", "mode": "RW" }), volume);
    task["container"] = json!({ "type": "MESOS", "volumes": [volume] });
}

fn source(task: &mut Value, source: Value) {
    volume(task, json!({ "source": source }));
}

pub async fn commands_and_containers(stage: &mut Stage) {
    try_tasks(stage, &[
        ("a variable without a value", |task| variable(task, json!({ "name": "A" }))),
        ("a variable with value and secret", |task| variable(task, json!({ "name": "A", "value": "1", "secret": { "type": "VALUE", "value": { "data": "eA==" } } }))),
        ("a variable of an unknown type", |task| variable(task, json!({ "name": "A", "value": "1", "type": "UNKNOWN" }))),
        ("a secret variable with a value", |task| variable(task, json!({ "name": "A", "value": "1", "type": "SECRET" }))),
        ("a secret variable without a secret", |task| variable(task, json!({ "name": "A", "type": "SECRET" }))),
        ("a secret variable with an empty value", |task| variable(task, json!({ "name": "A", "type": "SECRET", "secret": { "type": "VALUE" } }))),
        ("a secret variable with an empty reference", |task| variable(task, json!({ "name": "A", "type": "SECRET", "secret": { "type": "REFERENCE" } }))),
        ("a secret of an unknown type", |task| variable(task, json!({ "name": "A", "type": "SECRET", "secret": { "type": "UNKNOWN" } }))),
        ("a secret with both", |task| {
            variable(task, json!({ "name": "A", "type": "SECRET", "secret": { "type": "VALUE", "value": { "data": "eA==" }, "reference": { "name": "n" } } }));
        }),
        ("a secret with a zero byte", |task| variable(task, json!({ "name": "A", "type": "SECRET", "secret": { "type": "VALUE", "value": { "data": "AA==" } } }))),
        ("no kind of volume", |task| volume(task, json!({}))),
        ("two kinds of volume", |task| volume(task, json!({ "host_path": "/a", "source": { "type": "HOST_PATH", "host_path": { "path": "/a" } } }))),
        ("a source without a type", |task| source(task, json!({}))),
        ("a source of an unknown type", |task| source(task, json!({ "type": "UNKNOWN" }))),
        ("SANDBOX_PATH without its part", |task| source(task, json!({ "type": "SANDBOX_PATH" }))),
        ("SANDBOX_PATH without a type", |task| source(task, json!({ "type": "SANDBOX_PATH", "sandbox_path": { "path": "x" } }))),
        ("SANDBOX_PATH of an unknown type", |task| source(task, json!({ "type": "SANDBOX_PATH", "sandbox_path": { "type": "UNKNOWN", "path": "x" } }))),
        ("an absolute sandbox path", |task| source(task, json!({ "type": "SANDBOX_PATH", "sandbox_path": { "type": "PARENT", "path": "/x" } }))),
        ("a sandbox path with ..", |task| source(task, json!({ "type": "SANDBOX_PATH", "sandbox_path": { "type": "PARENT", "path": "a/../../x" } }))),
        ("a sandbox path of the task itself", |task| source(task, json!({ "type": "SANDBOX_PATH", "sandbox_path": { "type": "SELF", "path": "/x" } }))),
        ("HOST_PATH without its part", |task| source(task, json!({ "type": "HOST_PATH" }))),
        ("DOCKER_VOLUME without its part", |task| source(task, json!({ "type": "DOCKER_VOLUME" }))),
        ("SECRET without its part", |task| source(task, json!({ "type": "SECRET" }))),
        ("SECRET with an empty value", |task| source(task, json!({ "type": "SECRET", "secret": { "type": "VALUE" } }))),
        ("SECRET of an unknown type", |task| source(task, json!({ "type": "SECRET", "secret": { "type": "UNKNOWN" } }))),
        ("CSI_VOLUME without its part", |task| source(task, json!({ "type": "CSI_VOLUME" }))),
        ("an image of a type without its part", |task| volume(task, json!({ "image": { "type": "DOCKER" } }))),
        ("a MESOS container with docker", |task| task["container"] = json!({ "type": "MESOS", "docker": { "image": "x" } })),
        ("a seccomp profile and none", |task| {
            task["container"] = json!({ "type": "MESOS", "linux_info": { "seccomp": { "profile_name": "p", "unconfined": true } } });
        }),
        ("a seccomp setting without a profile", |task| task["container"] = json!({ "type": "MESOS", "linux_info": { "seccomp": {} } })),
        ("a shared memory size with the parent's", |task| {
            task["container"] = json!({ "type": "MESOS", "linux_info": { "ipc_mode": "SHARE_PARENT", "shm_size": 64 } });
        }),
        ("a shared memory size alone", |task| task["container"] = json!({ "type": "MESOS", "linux_info": { "shm_size": 64 } })),
        ("a resource limit with one end", |task| {
            task["container"] = json!({ "type": "MESOS", "rlimit_info": { "rlimits": [{ "type": "RLMT_CORE", "soft": 1 }] } });
        }),
        ("a resource limit whose ends are crossed", |task| {
            task["container"] = json!({ "type": "MESOS", "rlimit_info": { "rlimits": [{ "type": "RLMT_CORE", "soft": 2, "hard": 1 }] } });
        }),
        ("a resource limit of an unknown type", |task| {
            task["container"] = json!({ "type": "MESOS", "rlimit_info": { "rlimits": [{ "type": "UNKNOWN", "soft": 1, "hard": 1 }] } });
        }),
    ])
    .await;
}

fn add(task: &mut Value, resource: Value) {
    task["resources"].as_array_mut().unwrap().push(resource);
}

pub async fn resources(stage: &mut Stage) {
    // Not among them: a resource of type TEXT, which crashes a real master.
    try_tasks(stage, &[
        ("a negative amount", |task| task["resources"][0]["scalar"]["value"] = json!(-1.0)),
        ("an infinite amount", |task| task["resources"][0]["scalar"]["value"] = json!("Infinity")),
        ("nothing", |task| task["resources"][0]["scalar"]["value"] = json!(0.0)),
        ("no amount", |task| task["resources"][0] = json!({ "name": "cpus", "type": "SCALAR" })),
        ("no name", |task| task["resources"][0]["name"] = json!("")),
        ("ranges of a scalar", |task| task["resources"][0] = with(ports(1, 2), json!({ "name": "cpus", "type": "SCALAR" }))),
        ("a set", |task| add(task, json!({ "name": "luck", "type": "SET", "set": { "item": ["a"] } }))),
        ("a set with an item twice", |task| add(task, json!({ "name": "luck", "type": "SET", "set": { "item": ["a", "a"] } }))),
        ("an unknown scalar", |task| add(task, scalar("unobtainium", 1.0))),
        ("half a GPU", |task| add(task, scalar("gpus", 0.5))),
        ("a GPU", |task| add(task, scalar("gpus", 1.0))),
        ("ports that end before they begin", |task| add(task, ports(20_000, 10_000))),
        ("ports that overlap themselves", |task| add(task, json!({ "name": "ports", "type": "RANGES", "ranges": { "range": [{ "begin": 10_000, "end": 10_005 }, { "begin": 10_005, "end": 10_006 }] } }))),
        ("ports without ranges", |task| add(task, json!({ "name": "ports", "type": "RANGES" }))),
        ("ports that are not offered", |task| add(task, ports(80, 80))),
        ("more cpus than there are", |task| task["resources"][0] = scalar("cpus", 17.0)),
        ("a little more memory than there is", |task| task["resources"][1] = scalar("mem", 65_504.001)),
        ("allocated to another role", |task| task["resources"][0]["allocation_info"] = json!({ "role": "another" })),
        ("allocated to two roles", |task| {
            task["resources"][0]["allocation_info"] = json!({ "role": "pods" });
            task["resources"][1]["allocation_info"] = json!({ "role": "another" });
        }),
        ("allocated to no role", |task| task["resources"][0]["allocation_info"] = json!({})),
        ("of a role", |task| task["resources"][0]["role"] = json!("pods")),
        ("of a bad role", |task| task["resources"][0]["role"] = json!("a b")),
        ("reserved", |task| task["resources"][0]["reservations"] = json!([{ "type": "DYNAMIC", "role": "pods" }])),
        ("reserved without a type", |task| task["resources"][0]["reservations"] = json!([{ "role": "pods" }])),
        ("reserved for *", |task| task["resources"][0]["reservations"] = json!([{ "type": "STATIC", "role": "*" }])),
        ("reserved in both formats", |task| {
            task["resources"][0]["role"] = json!("web");
            task["resources"][0]["reservations"] = json!([{ "type": "STATIC", "role": "pods" }]);
        }),
        ("revocable", |task| task["resources"][0]["revocable"] = json!({})),
        ("revocable and not", |task| add(task, with(scalar("cpus", 0.1), json!({ "revocable": {} })))),
        ("a persistent volume", |task| {
            add(task, with(scalar("disk", 10.0), json!({ "disk": { "persistence": { "id": "p" }, "volume": { "container_path": "p", "mode": "RW" } } })));
        }),
        ("shared", |task| task["resources"][0]["shared"] = json!({})),
        ("disk information without disk", |task| task["resources"][0]["disk"] = json!({})),
        ("of a provider", |task| task["resources"][0]["provider_id"] = json!({ "value": "p" })),
    ])
    .await;
}

pub async fn executors(stage: &mut Stage) {
    try_groups(
        stage,
        &[
            ("no type", |group| group["executor"]["type"] = Value::Null),
            ("an unknown type", |group| group["executor"]["type"] = json!("UNKNOWN")),
            ("DEFAULT with a command", |group| group["executor"]["command"] = json!({ "value": "x" })),
            ("CUSTOM without a command", |group| group["executor"]["type"] = json!("CUSTOM")),
            ("a Docker container", |group| group["executor"]["container"] = json!({ "type": "DOCKER", "docker": { "image": "x" } })),
            ("an image", |group| {
                group["executor"]["container"] =
                    json!({ "type": "MESOS", "mesos": { "image": { "type": "DOCKER", "docker": { "name": "x" } } } })
            }),
            ("a bad volume", |group| {
                group["executor"]["container"] = json!({ "type": "MESOS", "volumes": [{ "container_path": "x", "mode": "RW" }] })
            }),
            ("id ..", |group| group["executor"]["executor_id"]["value"] = json!("..")),
            ("an empty id", |group| group["executor"]["executor_id"]["value"] = json!("")),
            ("an id with a slash", |group| group["executor"]["executor_id"]["value"] = json!("a/b")),
            ("no framework id", |group| group["executor"]["framework_id"] = Value::Null),
            ("another framework id", |group| group["executor"]["framework_id"]["value"] = json!("another")),
            ("a negative grace period", |group| group["executor"]["shutdown_grace_period"] = json!({ "nanoseconds": -1 })),
            ("no resources", |group| group["executor"]["resources"] = json!([])),
            ("too few cpus", |group| group["executor"]["resources"][0] = scalar("cpus", 0.009)),
            ("too little memory", |group| group["executor"]["resources"][1] = scalar("mem", 31.999)),
            ("no disk", |group| drop(group["executor"]["resources"].as_array_mut().unwrap().remove(2))),
            ("no cpus", |group| drop(group["executor"]["resources"].as_array_mut().unwrap().remove(0))),
            ("a bad amount", |group| group["executor"]["resources"][0] = scalar("cpus", -1.0)),
            ("resources of another role", |group| group["executor"]["resources"][0]["allocation_info"] = json!({ "role": "another" })),
            ("another executor in a task", |group| {
                group["tasks"][0]["executor"] = with(group["executor"].clone(), json!({ "name": "other" }))
            }),
            ("another executor id in a task", |group| {
                group["tasks"][1]["executor"] = with(group["executor"].clone(), json!({ "executor_id": { "value": "other" } }))
            }),
            ("shared control groups", |group| {
                group["executor"]["container"] = json!({ "type": "MESOS", "linux_info": { "share_cgroups": true } })
            }),
            ("control groups not shared", |group| {
                group["executor"]["container"] = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } });
                group["tasks"][0]["container"] = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } });
            }),
            ("a bad variable in its command", |group| {
                group["executor"]["type"] = json!("CUSTOM");
                group["executor"]["command"] = json!({ "value": "x", "environment": { "variables": [{ "name": "A" }] } });
            }),
        ],
    )
    .await;
}

pub async fn groups(stage: &mut Stage) {
    try_groups(
        stage,
        &[
            ("a port twice", |group| (0..2).for_each(|index| add(&mut group["tasks"][index], ports(10_000, 10_000)))),
            ("a port of the executor", |group| {
                group["executor"]["resources"].as_array_mut().unwrap().push(ports(10_000, 10_005));
                add(&mut group["tasks"][0], ports(10_005, 10_006));
            }),
            ("more cpus than there are", |group| group["tasks"][0]["resources"][0] = scalar("cpus", 15.9)),
            ("more memory than there is", |group| group["tasks"][1]["resources"][1] = scalar("mem", 65_504.0)),
            ("more disk than there is", |group| add(&mut group["tasks"][1], scalar("disk", 499_991.0))),
            ("ports that are not offered", |group| add(&mut group["tasks"][1], ports(80, 80))),
            ("control groups shared by some", |group| {
                group["tasks"][0]["container"] = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } })
            }),
            ("the second task bad", |group| group["tasks"][1]["kill_policy"] = json!({ "grace_period": { "nanoseconds": -1 } })),
            ("both tasks bad in different ways", |group| {
                group["tasks"][0]["resources"] = json!([]);
                group["tasks"][1]["kill_policy"] = json!({ "grace_period": { "nanoseconds": -1 } });
            }),
            ("task and executor bad", |group| {
                group["tasks"][0]["resources"] = json!([]);
                group["executor"]["type"] = Value::Null;
            }),
            ("a task without resources, and too much", |group| {
                group["tasks"][0]["resources"][0] = scalar("cpus", 100.0);
                group["executor"]["resources"] = json!([]);
            }),
        ],
    )
    .await;
    let (mut framework, offer) = start(stage).await;
    let named = with(launch_group(executor("e", &framework.id), vec![task("named", &offer)]), json!({ "id": { "value": "operation" } }));
    try_all(stage, &mut framework, &offer, vec![("an operation id".to_owned(), named, vec!["named".to_owned()])]).await;
    framework.teardown().await;
}

/// Single tasks, each spoiled in its way.
pub async fn launches(stage: &mut Stage) {
    let table: Table<'_> = &[
        ("neither command nor executor", |task| task["command"] = Value::Null),
        ("command and executor", |task| task["executor"] = json!({ "executor_id": { "value": "e" }, "command": { "value": "x" } })),
        ("a DEFAULT executor", |task| {
            task["command"] = Value::Null;
            task["executor"] = with(executor("e", "another"), json!({ "framework_id": Value::Null }));
        }),
        ("an executor of another framework", |task| {
            task["command"] = Value::Null;
            task["executor"] =
                json!({ "executor_id": { "value": "e" }, "command": { "value": "x" }, "framework_id": { "value": "another" } });
        }),
        ("an executor without a command", |task| {
            task["command"] = Value::Null;
            task["executor"] = json!({ "executor_id": { "value": "e" }, "type": "CUSTOM" });
        }),
        ("an id with a slash", |task| task["task_id"]["value"] = json!("a/b")),
        ("another agent", |task| task["agent_id"]["value"] = json!("elsewhere")),
        ("no resources", |task| task["resources"] = json!([])),
        ("more cpus than there are", |task| task["resources"][0] = scalar("cpus", 17.0)),
        ("ports that are not offered", |task| add(task, ports(80, 80))),
        ("a negative grace period", |task| task["kill_policy"] = json!({ "grace_period": { "nanoseconds": -1 } })),
        ("a health check of an unknown type", |task| health(task, json!({ "type": "UNKNOWN" }))),
        ("a COMMAND health check without a command", |task| health(task, json!({ "type": "COMMAND" }))),
        ("a variable without a value", |task| variable(task, json!({ "name": "A" }))),
        ("a bad amount", |task| task["resources"][0] = scalar("cpus", -1.0)),
        ("allocated to another role", |task| task["resources"][0]["allocation_info"] = json!({ "role": "another" })),
        ("limits below the request", |task| task["limits"] = json!({ "cpus": { "value": 0.01 } })),
        ("limits of an unknown kind", |task| task["limits"] = json!({ "disk": { "value": 1.0 } })),
    ];
    let (mut framework, offer) = start(stage).await;
    let mut all = Vec::new();
    for (number, (step, spoil)) in table.iter().enumerate() {
        let mut bad = task(&format!("a{number}"), &offer);
        spoil(&mut bad);
        let id = text(&bad["task_id"]["value"]).to_owned();
        all.push(((*step).to_owned(), launch(vec![bad]), vec![id]));
    }
    try_all(stage, &mut framework, &offer, all).await;
    framework.teardown().await;
}

/// Operations that launch nothing, with an id: their statuses.
pub async fn operations(stage: &mut Stage) {
    let (mut framework, offer) = start(stage).await;
    let disk = |change: Value| with(scalar("disk", 10.0), change);
    let reserved = json!([{ "type": "DYNAMIC", "role": "pods" }]);
    let all = [
        ("RESERVE of nothing", json!({ "type": "RESERVE", "reserve": { "resources": [] } })),
        ("RESERVE of what is unreserved", json!({ "type": "RESERVE", "reserve": { "resources": [disk(json!({}))] } })),
        (
            "RESERVE for another role",
            json!({ "type": "RESERVE", "reserve": { "resources": [disk(json!({ "reservations": [{ "type": "DYNAMIC", "role": "another" }] }))] } }),
        ),
        (
            "RESERVE of more than there is",
            json!({ "type": "RESERVE", "reserve": { "resources": [with(scalar("disk", 1e6), json!({ "reservations": reserved }))] } }),
        ),
        ("UNRESERVE of what is unreserved", json!({ "type": "UNRESERVE", "unreserve": { "resources": [disk(json!({}))] } })),
        (
            "UNRESERVE of what is not there",
            json!({ "type": "UNRESERVE", "unreserve": { "resources": [disk(json!({ "reservations": reserved }))] } }),
        ),
        ("CREATE of no volume", json!({ "type": "CREATE", "create": { "volumes": [disk(json!({}))] } })),
        (
            "CREATE of an unreserved volume",
            json!({ "type": "CREATE", "create": { "volumes": [disk(json!({ "disk": { "persistence": { "id": "p" }, "volume": { "container_path": "p", "mode": "RW" } } }))] } }),
        ),
        (
            "DESTROY of what is not there",
            json!({ "type": "DESTROY", "destroy": { "volumes": [disk(json!({ "reservations": reserved, "disk": { "persistence": { "id": "p" }, "volume": { "container_path": "p", "mode": "RW" } } }))] } }),
        ),
        ("an unknown operation", json!({ "type": "UNKNOWN" })),
    ];
    let named = all
        .iter()
        .enumerate()
        .map(|(number, (_, operation))| with(operation.clone(), json!({ "id": { "value": format!("o{number}") } })))
        .collect();
    framework.accept(&[&offer], named).await;
    let events = framework.settle().await;
    for (number, (step, _)) in all.into_iter().enumerate() {
        let id = format!("o{number}");
        let of_it: Vec<&Value> =
            events.iter().filter(|event| event["update_operation_status"]["status"]["operation_id"]["value"] == id.as_str()).collect();
        stage.told(step, json!(of_it));
    }
    framework.teardown().await;
}
