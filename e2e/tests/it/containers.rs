//! What a container is given: ports from the offer, health checks, secrets that nobody else sees.

use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::wait::eventually;
use podium_e2e::{binary, etcd};
use serde_json::{Value, json};

use crate::{in_both_forms, marker, pod, start, text};

in_both_forms!(a_checked_server_is_healthy_on_the_port_that_it_was_given);

fn a_checked_server_is_healthy_on_the_port_that_it_was_given(form: Form) {
    let cluster = start(form);
    let mut server = pod("/web", 1, &marker(), &["exec python3 -m http.server --bind 127.0.0.1 $ENDPOINT_HTTP"]);
    server["containers"][0]["endpoints"] = json!([{"name": "http", "hostPort": 0, "protocol": ["tcp"]}]);
    server["containers"][0]["healthCheck"] = json!({
        "http": {"endpoint": "http", "path": "/", "scheme": "HTTP"},
        "gracePeriodSeconds": 30, "intervalSeconds": 2, "timeoutSeconds": 1, "delaySeconds": 0, "maxConsecutiveFailures": 3
    });
    cluster.api().create(&server);
    let status = cluster.api().stable("/web", 1);
    let endpoint = &status["instances"][0]["containers"][0]["endpoints"][0];
    assert_eq!(endpoint["healthy"], true, "{status}");
    let port = endpoint["allocatedHostPort"].as_u64().unwrap();
    let answer = podium_e2e::api::Api { base: format!("http://127.0.0.1:{port}") }.get("/");
    assert_eq!(answer.status, 200, "the server listens on the port that the status names");
}

#[test]
fn a_secret_reaches_its_container_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let value = format!("hunter-{}", uuid::Uuid::new_v4());
    std::fs::create_dir(folder.path().join("db")).unwrap();
    std::fs::write(folder.path().join("db/password"), &value).unwrap();
    let secrets = folder.path().to_str().unwrap();
    let cluster = Cluster::start(Form::Dev, binary::podium(false), &["--secrets-dir", secrets, "--log", "debug"]);
    let out = cluster.folder().join("seen");
    let command = format!("printf %s \"$DB_PASSWORD\" > {0}.new; mv {0}.new {0}; exec sleep 1000", out.display());
    let mut definition = pod("/keeper", 1, &marker(), &[&command]);
    definition["secrets"] = json!({"pw": {"source": "/db/password"}});
    definition["containers"][0]["environment"] = json!({"DB_PASSWORD": {"secret": "pw"}});
    cluster.api().create(&definition);
    let seen = eventually("the container has written its secret", || std::fs::read_to_string(&out).map_err(|error| error.to_string()));
    assert_eq!(seen, value);
    cluster.api().stable("/keeper", 1);

    let stored = etcd::ctl(&cluster.endpoints.etcd, &["get", "--prefix", "/podium"]);
    assert!(!text(&stored.stdout).contains(&value), "not in the store");
    assert!(!cluster.dev.log().contains(&value), "not in the log, at debug level");
    for path in ["/v2/pods/keeper", "/v2/pods/keeper::status", "/v2/info", "/metrics"] {
        assert!(!cluster.api().get(path).body.contains(&value), "not in {path}");
    }
    let mesos = podium_e2e::api::Api { base: format!("http://{}", cluster.endpoints.mesos) };
    for path in ["/state", "/tasks", "/frameworks"] {
        let answer = mesos.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(!answer.body.contains(&value), "not in the engine's {path}");
    }
}

#[test]
fn a_page_of_another_site_can_start_nothing() {
    let cluster = start(Form::Dev);
    let api = &cluster.endpoints.api;
    let definition = pod("/evil", 1, &marker(), &["true"]).to_string();
    let curl = |arguments: &[&str]| -> u16 {
        let mut command = std::process::Command::new("curl");
        command.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--request",
            "POST",
            "--data-binary",
            &definition,
        ]);
        let output = command.args(arguments).arg(format!("{api}/v2/pods")).output().unwrap();
        text(&output.stdout).parse().unwrap()
    };
    // What a form can send without asking.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert_eq!(curl(&["--header", &format!("Content-Type: {kind}")]), 415, "{kind}");
    }
    // What a page sees when its own name suddenly leads here.
    let rebound = curl(&["--header", "Content-Type: application/json", "--header", "Host: evil.example"]);
    assert!((400..500).contains(&rebound), "{rebound}");
    let pods: Value = cluster.api().get("/v2/pods").json();
    assert_eq!(pods, json!([]), "nothing was created");
}
