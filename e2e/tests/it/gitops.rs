//! The same by GitOps: specs put and deleted with the real etcdctl.

use podium_e2e::cluster::Form;
use podium_e2e::etcd;
use podium_e2e::process::marked;
use podium_e2e::wait::eventually;
use serde_json::Value;

use crate::{in_both_forms, marker, pod, start, text};

in_both_forms!(a_pushed_spec_runs_and_a_malformed_push_disturbs_nothing);

fn a_pushed_spec_runs_and_a_malformed_push_disturbs_nothing(form: Form) {
    let cluster = start(form);
    let store = cluster.endpoints.etcd.clone();
    let marker = marker();
    let put = |value: &str| {
        let output = etcd::ctl(&store, &["put", "/podium/specs/simplepod", value]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let status = || -> Result<Value, String> {
        let value = etcd::get(&store, "/podium/status/simplepod").ok_or("no status yet")?;
        serde_json::from_str(&value).map_err(|error| format!("{error}: {value}"))
    };

    put(&pod("/simplepod", 1, &marker, &["exec sleep 1000"]).to_string());
    eventually("the pushed pod runs", || {
        let now = status()?;
        if now["counts"]["healthy"] == 1 { Ok(()) } else { Err(now.to_string()) }
    });
    let before = cluster.api().stable("/simplepod", 1);
    let processes = marked(&marker);
    assert!(!processes.is_empty());

    put(r#"{"id":"/simplepod","containers":[{"name":"UPPER","resources":{"cpus":-1}}],"scaling":{"kind":"fixed","instances":-3}}"#);
    let refused = eventually("the status lists every error of the bad push", || {
        let now = status()?;
        let said = now["errors"].to_string();
        let all = ["/containers(0)/name", "/containers(0)/resources/cpus", "/scaling/instances"].iter().all(|path| said.contains(path));
        if all { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(refused["version"].as_str(), before["spec"]["version"].as_str(), "the version in force stays: {refused}");
    let listed = text(&cluster.podium(&["get", "pods"]).stdout);
    assert!(listed.contains("the last push was refused: /") && listed.contains(" more errors)"), "{listed}");
    put("this is no JSON");
    eventually("the status says that it is no JSON", || {
        let now = status()?;
        if now["errors"].to_string().contains("JSON") { Ok(()) } else { Err(now.to_string()) }
    });
    let after = cluster.api().stable("/simplepod", 1);
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"]);
    assert_eq!(marked(&marker), processes, "what runs was left alone");

    assert!(etcd::ctl(&store, &["put", "/podium/specs/never", "{}"]).status.success());
    eventually("a push that became no pod is listed", || match text(&cluster.podium(&["get", "pods"]).stdout) {
        listed if listed.lines().any(|line| line.starts_with("/never ") && line.contains("REFUSED") && line.contains("/containers")) => {
            Ok(())
        }
        listed => Err(listed),
    });
    let output = etcd::ctl(&store, &["del", "/podium/specs/simplepod"]);
    assert!(output.status.success());
    eventually("it stops", || match marked(&marker) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    eventually("its status is gone", || etcd::get(&store, "/podium/status/simplepod").map_or(Ok(()), Err));
}
