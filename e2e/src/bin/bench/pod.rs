//! The pods that are measured.

use serde_json::{Value, json};

pub(crate) fn sleeping_pod(id: &str, instances: usize, marker: &str) -> Value {
    let (name, value) = marker.split_once('=').unwrap_or((marker, ""));
    json!({
        "id": id,
        "environment": {name: value},
        "scaling": {"kind": "fixed", "instances": instances},
        "containers": [{"name": "sleep", "exec": {"command": {"shell": "exec sleep 100000"}}, "resources": {"cpus": 0.1, "mem": 32}}],
        "networks": [{"mode": "host"}]
    })
}

pub(crate) fn marker() -> String {
    format!("PODIUM_BENCH={}", uuid::Uuid::new_v4())
}
