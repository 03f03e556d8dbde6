//! The sentences of the README, end to end: real processes, a real store, real servers, in both forms.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod access;
mod cli;
mod conformance;
mod containers;
mod crash;
mod gitops;
mod logs;
mod marathon_clients;
mod mesos;
mod orders;
mod other_users;
mod pymesos;
mod quarantine;
mod quickstart;
mod replicas;
mod shutdown;

use podium_e2e::cluster::{Cluster, Form};
use serde_json::{Value, json};

/// Runs each scenario against `podium dev`, and against `podium server` with a real etcd and a separate engine.
macro_rules! in_both_forms {
    ($($scenario:ident),* $(,)?) => {
        mod dev {
            $(#[test] fn $scenario() { super::$scenario(podium_e2e::cluster::Form::Dev); })*
        }
        mod server {
            $(#[test] fn $scenario() { super::$scenario(podium_e2e::cluster::Form::Server); })*
        }
    };
}
pub(crate) use in_both_forms;

/// A cluster of the binary built from this checkout.
fn start(form: Form) -> Cluster {
    Cluster::start(form, podium_e2e::binary::podium(false), &[])
}

/// A marker no other test's processes carry.
fn marker() -> String {
    format!("PODIUM_E2E={}", uuid::Uuid::new_v4())
}

/// A pod of shell commands, one container each (`c1`, `c2`, …), whose processes carry the marker.
fn pod(id: &str, instances: u32, marker: &str, commands: &[&str]) -> Value {
    let (name, value) = marker.split_once('=').unwrap();
    let containers: Vec<Value> = commands
        .iter()
        .enumerate()
        .map(|(i, command)| {
            json!({
                "name": format!("c{}", i + 1),
                "exec": {"command": {"shell": command}},
                "resources": {"cpus": 0.1, "mem": 32}
            })
        })
        .collect();
    json!({
        "id": id,
        "environment": {name: value},
        "scaling": {"kind": "fixed", "instances": instances},
        "containers": containers,
        "networks": [{"mode": "host"}],
        "scheduling": {"backoff": {"backoff": 0.2, "backoffFactor": 1.15, "maxLaunchDelay": 3600}}
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
