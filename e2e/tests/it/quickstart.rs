//! The three quick-start calls of the documents, verbatim; and what else a pod does in its first minute.

use std::path::Path;
use std::process::Command;

use podium_e2e::cluster::Form;
use podium_e2e::etcd;
use podium_e2e::process::marked;
use podium_e2e::sandbox;
use podium_e2e::wait::eventually;
use serde_json::Value;

use crate::{in_both_forms, marker, pod, start, text};

in_both_forms!(
    the_three_calls_create_show_and_delete_a_pod,
    an_upgrade_replaces_every_instance_and_keeps_the_history,
    a_shared_volume_is_seen_by_all_containers_of_an_instance,
    what_the_engine_cannot_do_is_said_in_words,
);

const CREATE: &str = r#"curl -X POST -H "Content-type: application/json" -d@- http://<ip>:<port>/v2/pods <<EOF
{
   "id": "/simplepod",
   "scaling": { "kind": "fixed", "instances": 1 },
   "containers": [
     {
       "name": "sleep1",
       "exec": { "command": { "shell": "sleep 1000" } },
       "resources": { "cpus": 0.1, "mem": 32 }
     }
   ],
   "networks": [ {"mode": "host"} ]
}
EOF
"#;
const STATUS: &str = "curl -X GET http://<ip>:<port>/v2/pods/simplepod::status";
const DELETE: &str = "curl -X DELETE http://<ip>:<port>/v2/pods/simplepod";

fn shell(command: &str, api: &str) -> String {
    let address = api.trim_start_matches("http://");
    let output = Command::new("sh").args(["-c", &command.replace("<ip>:<port>", address)]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn the_three_calls_create_show_and_delete_a_pod(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let created: Value = serde_json::from_str(&shell(CREATE, &api.base)).unwrap();
    assert_eq!(created["id"], "/simplepod");
    assert_eq!(created["containers"][0]["healthCheck"], Value::Null, "the explicit form: {created}");

    let stable = api.stable("/simplepod", 1);
    let shown: Value = serde_json::from_str(&shell(STATUS, &api.base)).unwrap();
    assert_eq!(shown["status"], "STABLE");
    let task = stable["instances"][0]["containers"][0]["containerId"].as_str().unwrap().to_owned();
    // The container's own environment names its task, which finds the process among all of this machine.
    let marker = format!("MESOS_TASK_ID={task}");
    let processes = marked(&marker);
    assert!(processes.iter().any(|seen| seen.arguments == ["sleep", "1000"]), "{processes:?}");

    shell(DELETE, &api.base);
    assert_eq!(api.get("/v2/pods/simplepod").status, 404);
    eventually("the process is gone", || match marked(&marker) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    eventually("its records are gone, history aside", || {
        let keys = etcd::keys(&cluster.endpoints.etcd, "/podium/");
        let left: Vec<String> = keys.into_iter().filter(|key| key.contains("simplepod") && !key.starts_with("/podium/versions/")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_ne!(etcd::keys(&cluster.endpoints.etcd, "/podium/versions/simplepod/"), Vec::<String>::new(), "the history stays");
}

fn an_upgrade_replaces_every_instance_and_keeps_the_history(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let marker = marker();
    api.create(&pod("/up/grade", 2, &marker, &["exec sleep 1001"]));
    let before = api.stable("/up/grade", 2);
    let update = pod("/up/grade", 2, &marker, &["exec sleep 1002"]);
    let answer = api.call("PUT", "/v2/pods/up/grade?force=true", Some(&update.to_string()));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ids = |status: &Value| -> Vec<String> {
        status["instances"].as_array().unwrap().iter().map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
    };
    let old = ids(&before);
    eventually("two new instances and no old one", || {
        let status = api.status("/up/grade")?;
        let now = ids(&status);
        let running = marked(&marker).iter().filter(|seen| seen.arguments == ["sleep", "1002"]).count();
        let leftover = marked(&marker).iter().filter(|seen| seen.arguments == ["sleep", "1001"]).count();
        let done =
            status["status"] == "STABLE" && now.len() == 2 && now.iter().all(|id| !old.contains(id)) && running == 2 && leftover == 0;
        if done { Ok(()) } else { Err(format!("{running} new and {leftover} old processes, {status}")) }
    });
    assert_eq!(api.get("/v2/pods/up/grade::versions").json().as_array().unwrap().len(), 2);
}

fn a_shared_volume_is_seen_by_all_containers_of_an_instance(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let document = include_str!("../../fixtures/documents/with-ephemeral-vol.json");
    api.create(&serde_json::from_str(document).unwrap());
    let status = api.stable("/with-ephemeral-vol", 1);
    let containers = status["instances"][0]["containers"].as_array().unwrap();
    let reader = containers.iter().find(|container| container["name"] == "ct2").unwrap();
    let task = reader["containerId"].as_str().unwrap().to_owned();
    eventually("the second container prints what the first one wrote", || {
        let folder = sandbox::of_task(&cluster.folder().join("data"), &task).ok_or("no sandbox yet")?;
        let printed = std::fs::read_to_string(folder.join("stdout")).map_err(|error| error.to_string())?;
        if printed.contains("the current time is") { Ok(()) } else { Err(printed) }
    });
}

fn what_the_engine_cannot_do_is_said_in_words(form: Form) {
    let cluster = start(form);
    let api = cluster.api();
    let document = include_str!("../../fixtures/documents/simple-pod.json");
    api.create(&serde_json::from_str(document).unwrap());
    let reason = eventually("the status says why the image does not run", || {
        let status = api.status("/simple-pod")?;
        let text = status.to_string();
        if text.contains("terminationHistory") { Ok(status["terminationHistory"].to_string()) } else { Err(text) }
    });
    assert!(reason.contains("image"), "the reason names the image: {reason}");
    let output = cluster.podium(&["status", "/simple-pod"]);
    assert!(text(&output.stdout).contains("image"), "the command line says it too: {}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn every_example_of_the_documents_is_accepted_and_answered_in_a_form_that_is_accepted_again() {
    let cluster = podium_e2e::cluster::Cluster::start(Form::Dev, podium_e2e::binary::podium(false), &["--simulate", "--agents", "2"]);
    let api = cluster.api();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/documents");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().extension().is_some_and(|kind| kind == "json")) {
        let document = std::fs::read_to_string(entry.path()).unwrap();
        // PUT creates too; two examples share an id.
        let id = serde_json::from_str::<Value>(&document).unwrap()["id"].as_str().unwrap().to_owned();
        let created = api.call("PUT", &format!("/v2/pods{id}?force=true"), Some(&document));
        assert_eq!(created.status, 200, "{:?}: {}", entry.file_name(), created.body);
        let again = api.call("PUT", &format!("/v2/pods{id}?force=true"), Some(&created.body));
        assert_eq!(again.status, 200, "{:?} sent back: {}", entry.file_name(), again.body);
        tried += 1;
    }
    assert!(tried >= 12, "only {tried} examples were found");
}
