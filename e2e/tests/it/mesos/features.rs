//! Every definition of `fixtures/mesos` is about one feature, and does it on a real agent as on the embedded one; and so
//! do those of the documents that need neither an image nor a container network. All run side by side on one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use podium_e2e::api::Api;
use podium_e2e::process::marked;
use podium_e2e::wait::eventually;
use serde_json::Value;

use super::ground::{Ground, container, task};

#[test]
fn every_feature_works_on_a_real_agent() {
    try_all(&Ground::real());
}

#[test]
fn every_feature_works_on_the_embedded_agent() {
    try_all(&Ground::embedded());
}

/// What is to be seen of a definition; the pod has been created.
type Scenario = fn(&Ground, &Value);

/// By the names of their files.
const FEATURES: &[(&str, Scenario)] = &[
    ("allocated-ports", ports_are_each_allocated_once_and_told),
    ("artifacts", artifacts_are_fetched_extracted_and_made_executable),
    ("command-check", a_command_decides_on_health),
    ("ending-well", what_ends_well_leaves_its_siblings_alone),
    ("environment", the_environment_is_complete),
    ("executor-resources", the_executor_has_resources_of_its_own),
    ("failing-sibling", what_fails_takes_its_siblings_along),
    ("http-check", a_web_server_is_asked_for_its_health),
    ("kill-grace", containers_are_killed_after_their_own_grace),
    ("shared-volumes", volumes_are_shared),
    ("tcp-check", a_socket_is_tried_for_health),
    ("users", containers_run_as_the_user_they_name),
];

/// What makes its pods itself.
type Own = fn(&Ground);

/// What is to be seen of several definitions, made for it.
const BESIDE: &[(&str, Own)] = &[
    ("logs", super::logs::are_read_by_instance_container_and_stream_also_of_what_has_ended),
    ("finished", super::logs::of_a_container_that_has_finished_are_still_read),
    ("linked", super::logs::that_lead_out_of_the_sandbox_are_not_shown_and_the_agent_says_so),
    ("following", super::logs::a_follower_sees_the_end_of_one_launch_and_the_next),
];

/// Examples of the documents, and what they become.
const DOCUMENTS: &[(&str, Outcome)] = &[
    ("fragment-executor-resources", Outcome::Stable(1)),
    ("fragment-host-volume", Outcome::Words(NO_SUCH_FOLDER)),
    ("fragment-secrets", Outcome::Stable(1)),
    ("fragment-volume-mounts", Outcome::Words(NO_IMAGE)),
    ("fragment-volumes", Outcome::Words(NO_IMAGE)),
    ("pod-with-multiple-containers", Outcome::Stable(10)),
    ("simplepod-quick-start", Outcome::Stable(1)),
    ("simplepod2-sample-answer", Outcome::Stable(2)),
    ("with-ephemeral-vol", Outcome::Stable(1)),
];

/// The documents speak of a file or folder that is there already.
const NO_SUCH_FOLDER: &str = "cannot mount the machine's path '/user/local': No such file or directory (os error 2); a host volume has to be \
     there on every agent that may run this";

/// The documents' whole examples of such a mount have an image.
const NO_IMAGE: &str = "cannot mount a volume at the absolute path '/mnt/etc' in a container without an image, which has the machine's \
     own files; mount it at a path relative to the sandbox, such as 'mnt/etc'";

#[derive(Clone, Copy)]
enum Outcome {
    /// This many instances run.
    Stable(usize),
    /// What no agent without an image can do is said in words.
    Words(&'static str),
}

fn try_all(ground: &Ground) {
    let fixtures = definitions("mesos");
    let names: BTreeSet<&str> = fixtures.keys().map(String::as_str).collect();
    assert_eq!(names, FEATURES.iter().map(|(name, _)| *name).collect(), "each has its scenario");
    let documents: BTreeMap<_, _> = definitions("documents").into_iter().filter(|(_, definition)| needs_nothing(definition)).collect();
    let names: BTreeSet<&str> = documents.keys().map(String::as_str).collect();
    assert_eq!(names, DOCUMENTS.iter().map(|(name, _)| *name).collect(), "each has its outcome");
    let server = serve_artifacts(&ground.folder);

    let failed = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (name, scenario) in FEATURES {
            let text = fixtures[*name].to_string().replace("http://SERVER", &server);
            let definition: Value = serde_json::from_str(&text).unwrap();
            running.push((*name, scope.spawn(move || tried(|| scenario(ground, create(&ground.api, &definition))))));
        }
        for (name, outcome) in DOCUMENTS {
            let definition = &documents[*name];
            running.push((*name, scope.spawn(move || tried(|| becomes(ground, create(&ground.api, definition), *outcome)))));
        }
        for (name, scenario) in BESIDE {
            running.push((*name, scope.spawn(move || tried(|| scenario(ground)))));
        }
        running.into_iter().filter_map(|(name, thread)| (!thread.join().unwrap()).then_some(name)).collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "these failed, each for the reason above: {failed:?}");
}

/// Whether it went well; what went wrong has been printed by then.
fn tried(scenario: impl FnOnce()) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(scenario)).is_ok()
}

fn definitions(folder: &str) -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: &Path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

fn needs_nothing(definition: &Value) -> bool {
    let containers = definition["containers"].as_array().unwrap();
    let networks = definition["networks"].as_array().map(Vec::as_slice).unwrap_or_default();
    containers.iter().all(|container| container["image"].is_null()) && networks.iter().all(|network| network["mode"] == "host")
}

fn create<'a>(api: &Api, definition: &'a Value) -> &'a Value {
    api.create(definition);
    definition
}

fn id(definition: &Value) -> &str {
    definition["id"].as_str().unwrap()
}

fn becomes(ground: &Ground, definition: &Value, outcome: Outcome) {
    match outcome {
        Outcome::Stable(instances) => {
            ground.api.stable(id(definition), instances);
        }
        Outcome::Words(words) => {
            ground.until(id(definition), words, |status| status["terminationHistory"].to_string().contains(words));
            // It would be tried again and again.
            let answer = ground.api.call("DELETE", &format!("/v2/pods{}?force=true", id(definition)), None);
            assert_eq!(answer.status, 202, "{}", answer.body);
        }
    }
}

/// A web server with what the fixture asks for, for as long as the test runs.
fn serve_artifacts(folder: &Path) -> String {
    let source = folder.join("artifacts");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("inner"), "from the archive\n").unwrap();
    let tar = std::process::Command::new("tar").args(["-czf", "pack.tgz", "inner"]).current_dir(&source).status().unwrap();
    assert!(tar.success());
    let pack = std::fs::read(source.join("pack.tgz")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is of no interest.
            let _ = answer(stream, &pack);
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, pack: &[u8]) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let (status, body) = match head.first().and_then(|line| line.split(' ').nth(1)) {
        Some("/hello.sh") => ("200 OK", &b"#!/bin/sh\necho hello from $MARATHON_CONTAINER_ID\n"[..]),
        Some("/pack.tgz") => ("200 OK", pack),
        _ => ("404 Not Found", &[][..]),
    };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}

fn ports_are_each_allocated_once_and_told(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 3);
    let mut all = BTreeSet::new();
    for instance in status["instances"].as_array().unwrap() {
        let containers = instance["containers"].as_array().unwrap();
        let port = |name: &str| {
            let container = containers.iter().find(|container| container["name"] == name).unwrap();
            container["endpoints"][0]["allocatedHostPort"].as_u64().unwrap_or_else(|| panic!("no port: {status}"))
        };
        let (api, admin) = (port("first"), port("second"));
        for container in containers {
            let told = ground.printed(container["containerId"].as_str().unwrap(), |text| text.ends_with('\n'));
            assert_eq!(told, format!("{api} {admin}\n"), "every container is told all ports");
        }
        all.extend([(instance["agentHostname"].to_string(), api), (instance["agentHostname"].to_string(), admin)]);
    }
    assert_eq!(all.len(), 6, "no port twice on an agent: {all:?}");
}

fn artifacts_are_fetched_extracted_and_made_executable(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let printed = ground.printed(&task(&status, "runs-them"), |text| text.ends_with(".tgz\n"));
    assert_eq!(printed, "hello from runs-them\nfrom the archive\nkept.tgz\npack.tgz\n");
    let printed = ground.printed(&task(&status, "has-none"), |text| text.ends_with("stdout\n"));
    assert_eq!(printed, "stderr\nstdout\n", "each container has its own");
}

fn a_command_decides_on_health(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let first = task(&status, "sick");
    assert_eq!(container(&status, "sick")["conditions"][0]["value"], "true", "{status}");
    let checked = ground.sandbox(&first).join("containers/check/stdout");
    eventually("the command runs in the container's surroundings", || {
        // Each probe begins the file anew.
        let text = std::fs::read_to_string(&checked).map_err(|error| error.to_string())?;
        if text == "checked the-container\n" { Ok(()) } else { Err(text) }
    });
    std::fs::remove_file(ground.sandbox(&first).join("well")).unwrap();
    // Unhealthy twice, it is killed; its successor is well again.
    ground.until(id(definition), "it was replaced", |status| {
        status["status"] == "STABLE" && container(status, "sick")["containerId"] != first.as_str()
    });
}

fn what_ends_well_leaves_its_siblings_alone(ground: &Ground, definition: &Value) {
    let status = ground.until(id(definition), "one has ended well", |status| {
        let containers = status["instances"][0]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().any(|container| container["name"] == "ends-well" && container["status"] == "TASK_FINISHED")
    });
    let other = task(&status, "goes-on");
    assert!(other.ends_with(".goes-on.1"), "launched once: {status}");
    assert_eq!(container(&status, "goes-on")["status"], "TASK_RUNNING", "{status}");
    assert_eq!(marked(&format!("MESOS_TASK_ID={other}")).len(), 1, "its process is there");
}

fn the_environment_is_complete(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let printer = task(&status, "printer");
    let printed = ground.printed(&printer, |text| text.contains("WHOSE=") && text.contains("OWN="));
    let has = |line: &str| assert!(printed.contains(&format!("{line}\n")), "{line} is missing in {printed}");
    let host = status["instances"][0]["agentHostname"].as_str().unwrap();
    let agent = if host.starts_with("agent-") { "127.0.0.1" } else { "" };
    for line in [
        "WHOSE=the pod's",
        "BOTH=the container's",
        "OWN=a\nline",
        "MARATHON_APP_ID=/mesos/environment",
        "MARATHON_CONTAINER_ID=printer",
        "MARATHON_CONTAINER_RESOURCE_MEM=32.0",
        "MARATHON_APP_LABEL_TEAM=red",
        "MARATHON_APP_LABEL_TIER=front",
        "MESOS_ALLOCATION_ROLE=*",
        &format!("MESOS_TASK_ID={printer}"),
        &format!("MESOS_SANDBOX={}", ground.sandbox(&printer).display()),
        &format!("HOST={host}"),
    ] {
        has(line);
    }
    assert!(printed.contains(&format!("MESOS_CONTAINER_IP={agent}")), "{printed}");
    for foreign in ["MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD=", "MESOS_WORK_DIR=", "LIBPROCESS_PORT=", "CARGO="] {
        assert!(!printed.contains(foreign), "{foreign} is none of the container's business: {printed}");
    }
}

fn the_executor_has_resources_of_its_own(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    assert_eq!(status["instances"][0]["resources"]["mem"], 80, "{status}");
    let one = task(&status, "one");
    let state = ground.master.get("/state").json();
    let find = |kind: &str, name: &str, wanted: &dyn Fn(&str) -> bool| {
        let frameworks = state["frameworks"].as_array().unwrap();
        let all: Vec<&Value> = frameworks.iter().flat_map(|framework| framework[kind].as_array().unwrap()).collect();
        let found = all.iter().find(|object| object[name].as_str().is_some_and(wanted));
        found.unwrap_or_else(|| panic!("no such {kind}: {all:?}"))["resources"].clone()
    };
    let executor = find("executors", "executor_id", &|id| id.starts_with("instance-mesos_executor-resources."));
    assert_eq!((executor["cpus"].as_f64(), executor["mem"].as_f64(), executor["disk"].as_f64()), (Some(0.25), Some(48.0), Some(12.0)));
    let task = find("tasks", "id", &|id| id == one);
    assert_eq!((task["cpus"].as_f64(), task["mem"].as_f64(), task["disk"].as_f64()), (Some(0.1), Some(32.0), Some(3.0)));
}

fn what_fails_takes_its_siblings_along(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let (fails, sibling) = (task(&status, "fails"), task(&status, "sibling"));
    let executor = ground.sandbox(&fails).ancestors().nth(2).unwrap().to_owned();
    let start = Instant::now();
    std::fs::write(executor.join("go"), "").unwrap();
    let status = ground.until(id(definition), "the failure is told", |status| status["terminationHistory"][0]["containers"].is_array());
    let history = &status["terminationHistory"][0];
    assert!(history["message"].as_str().unwrap().contains("Command exited with status 42"), "{history}");
    eventually("the deaf sibling is gone", || match marked(&format!("MESOS_TASK_ID={sibling}")) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert!(start.elapsed() < Duration::from_secs(60), "its own grace of ten minutes does not count");
    ground.until(id(definition), "both ends are told", |status| {
        let ended = status["terminationHistory"][0]["containers"].to_string();
        ended.contains("TaskFailed") && ended.contains("TaskKilled")
    });
}

fn a_web_server_is_asked_for_its_health(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let endpoint = &container(&status, "web")["endpoints"][0];
    assert_eq!(endpoint["healthy"], true, "{status}");
    let answer = Api { base: format!("http://127.0.0.1:{}", endpoint["allocatedHostPort"]) }.get("/index.html");
    assert_eq!((answer.status, answer.body.as_str()), (200, "served\n"));
    // The page gone, the server answers 404: the endpoint turns unhealthy, and a new instance takes over.
    let first = task(&status, "web");
    std::fs::remove_file(ground.sandbox(&first).join("index.html")).unwrap();
    ground.until(id(definition), "a healthy successor", |status| {
        status["status"] == "STABLE" && container(status, "web")["containerId"] != first.as_str()
    });
}

fn containers_are_killed_after_their_own_grace(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let (tidy, deaf) = (task(&status, "tidy"), task(&status, "deaf"));
    for one in [&tidy, &deaf] {
        ground.printed(one, |text| text.starts_with("ready"));
    }
    let (tidied, heard) = (ground.sandbox(&tidy).join("stdout"), ground.sandbox(&deaf).join("stdout"));
    let answer = ground.api.call("DELETE", &format!("/v2/pods{}?force=true", id(definition)), None);
    assert_eq!(answer.status, 202, "{}", answer.body);
    eventually("both are gone", || {
        let left: Vec<_> = [&tidy, &deaf].into_iter().flat_map(|task| marked(&format!("MESOS_TASK_ID={task}"))).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(std::fs::read_to_string(tidied).unwrap(), "ready\ntidied up\n", "it had more than Mesos' three seconds");
    assert_eq!(std::fs::read_to_string(heard).unwrap(), "ready\nheard it\n", "it was asked before it was killed");
}

fn volumes_are_shared(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    let printed = ground.printed(&task(&status, "reader"), |text| text.lines().count() == 2);
    assert_eq!(printed, "written by one\nand a folder of the machine\n");
}

fn a_socket_is_tried_for_health(ground: &Ground, definition: &Value) {
    let status = ground.api.stable(id(definition), 1);
    assert_eq!(container(&status, "socket")["endpoints"][0]["healthy"], true, "{status}");
}

fn containers_run_as_the_user_they_name(ground: &Ground, definition: &Value) {
    if rustix::process::geteuid().is_root() {
        let status = ground.api.stable(id(definition), 1);
        let printed = ground.printed(&task(&status, "modest"), |text| text.lines().count() == 2);
        assert_eq!(printed, "nobody\n1\n");
    } else {
        becomes(ground, definition, Outcome::Words("only root can switch users"));
    }
}
