//! Who may call, and over what: tokens, a certificate, and a stream of events, from the command line on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use podium_e2e::cluster::{Cluster, Form};

use crate::{in_both_forms, marker, pod, text};

in_both_forms!(a_server_with_tokens_and_a_certificate_serves_who_it_knows);

struct Files {
    folder: tempfile::TempDir,
    token: String,
}

impl Files {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A certificate of its own, and the hash of a token that `podium token` drew.
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(podium_e2e::binary::podium(false)).args(["token", "ci", "--right", "write"]).output().unwrap();
        let lines = text(&output.stdout);
        let (token, line) = lines.trim().split_once('\n').expect("the token, and its line");
        let files = Self { folder, token: token.to_owned() };
        std::fs::write(files.path("tokens"), line).unwrap();
        std::fs::write(files.path("token"), token).unwrap();
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(files.path("cert.pem"), certified.cert.pem()).unwrap();
        std::fs::write(files.path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        files
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn a_server_with_tokens_and_a_certificate_serves_who_it_knows(form: Form) {
    let files = Files::make();
    let (tokens, cert, key) = (files.path("tokens"), files.path("cert.pem"), files.path("key.pem"));
    let options = ["--tokens-file", &tokens, "--tls-cert", &cert, "--tls-key", &key];
    let cluster = Cluster::start(form, podium_e2e::binary::podium(false), &options);
    assert!(cluster.endpoints.api.starts_with("https://"), "{}", cluster.ready);

    let unknown = cluster.podium(&["get", "pods", "--ca-file", &cert]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("token"), "{}", said(&unknown));
    let unbelieved = cluster.podium(&["get", "pods"]);
    assert!(!unbelieved.status.success(), "a certificate that nobody vouches for: {}", said(&unbelieved));

    let mut curl = Command::new("curl")
        .args(["-sN", "--cacert", &cert, "-H", &format!("Authorization: Bearer {}", files.token), "-H", "Accept: text/event-stream"])
        .arg(format!("{}/v2/events?event_type=instance_changed_event&event_type=deployment_success", cluster.endpoints.api))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().is_some_and(|line| line.starts_with(':')), "a greeting");

    let file = files.path("pod.json");
    std::fs::write(&file, pod("/known", 1, &marker(), &["exec sleep 1000"]).to_string()).unwrap();
    let known = ["--ca-file", &cert, "--token-file", &files.path("token")].map(str::to_owned);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let applied = cluster.podium(&[&["apply", "-f", &file, "--wait"], known.as_slice()].concat());
    assert!(applied.status.success(), "{}", said(&applied));
    let told: Vec<String> = lines.by_ref().take_while(|line| line != "event: deployment_success").collect();
    let _ = curl.kill();
    let _ = curl.wait();
    let conditions: Vec<&str> = ["Scheduled", "Provisioned", "Running"]
        .into_iter()
        .filter(|c| told.iter().any(|line| line.contains(&format!("\"{c}\""))))
        .collect();
    assert_eq!(conditions, ["Scheduled", "Provisioned", "Running"], "{told:?}");

    // No secret stands where others can read it.
    for process in [Some(&cluster.dev), cluster.server.as_ref()].into_iter().flatten() {
        assert!(!process.log().contains(&files.token), "the log");
    }
    let info = Command::new("curl")
        .args([
            "-s",
            "--cacert",
            &cert,
            "-H",
            &format!("Authorization: Bearer {}", files.token),
            &format!("{}/v2/info", cluster.endpoints.api),
        ])
        .output()
        .unwrap();
    let info = text(&info.stdout);
    assert!(info.contains("\"https_port\":") && !info.contains(&files.token) && !info.contains("sha256"), "{info}");
}

#[test]
fn beyond_loopback_nobody_is_served_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(podium_e2e::binary::podium(false))
        .args(["dev", "--listen", "0.0.0.0:0", "--etcd-listen", "127.0.0.1:0", "--mesos-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    assert!(!output.status.success() && text(&output.stderr).contains("--tokens-file"), "{}", said(&output));
    let output = Command::new(podium_e2e::binary::podium(false)).args(["dev", "--http-credentials", "me:hunter2"]).output().unwrap();
    assert!(!output.status.success() && !said(&output).contains("hunter2"), "{}", said(&output));
}
