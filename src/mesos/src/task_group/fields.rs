//! Every field of a definition, and where it stands in what Mesos launches (reference section 4). A field that is in no
//! case and in no list of those that Mesos is not told fails a test, and so does a case whose field changes nothing.

use std::collections::BTreeSet;

use podium_proto::mesos::v1;
use podium_proto::mesos::v1::offer::operation::LaunchGroup;
use podium_proto::wire::json::to_value;
use podium_proto::wire::resources::{ranges_entry, scalar_entry};
use podium_types::definition::{PodDefinition, Settings as Reading, read};
use podium_types::id::{InstanceId, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{BuildError, Identity, Launch, Placement, Settings, build};
use crate::matching::{Group, Rules, Waiting, place, slots};
use crate::secret::{SecretValue, SecretValues};

const INSTANCE: Uuid = Uuid::from_u128(7);

/// A pod that says something in every field, as far as one pod can.
fn full() -> Value {
    json!({
        "id": "/web/front",
        "role": "web",
        "user": "alice",
        "labels": {"team": "blue"},
        "environment": {"COLOR": "green", "TOKEN": {"secret": "token"}},
        "secrets": {"token": {"source": "prod/token"}, "registry": {"source": "prod/registry"}},
        "volumes": [{"name": "shared"}, {"name": "etc", "host": "/etc/web"}, {"name": "keys", "secret": "token"}],
        "networks": [{"name": "blue-net", "mode": "container", "labels": {"vlan": "7"}}],
        "linuxInfo": {"ipcInfo": {"mode": "PRIVATE", "shmSize": 64}},
        "executorResources": {"cpus": 0.2, "mem": 48, "disk": 20},
        "scaling": {"kind": "fixed", "instances": 3, "maxInstances": 5},
        "scheduling": {
            "backoff": {"backoff": 2, "backoffFactor": 1.5, "maxLaunchDelay": 60},
            "upgrade": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.5},
            "placement": {
                "constraints": [{"fieldName": "hostname", "operator": "LIKE", "value": "host.*"}],
                "acceptedResourceRoles": ["web", "*"],
            },
            "killSelection": "OLDEST_FIRST",
            "unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2},
        },
        "containers": [
            {
                "name": "front",
                "exec": {"command": {"shell": "exec front"}},
                "resources": {"cpus": 0.5, "mem": 64, "disk": 5, "gpus": 1},
                "resourceLimits": {"cpus": 1, "mem": "unlimited"},
                "endpoints": [{
                    "name": "http", "containerPort": 80, "hostPort": 31005, "protocol": ["tcp"],
                    "labels": {"path": "/"}, "networkNames": ["blue-net"],
                }],
                "image": {"kind": "DOCKER", "id": "nginx", "pullConfig": {"secret": "registry"}, "forcePull": true},
                "environment": {"COLOR": "blue", "KEY": {"secret": "token"}},
                "user": "bob",
                "healthCheck": {
                    "http": {"endpoint": "http", "path": "/ping", "scheme": "HTTPS"},
                    "gracePeriodSeconds": 11, "intervalSeconds": 12, "maxConsecutiveFailures": 4,
                    "timeoutSeconds": 5, "delaySeconds": 6,
                },
                "volumeMounts": [
                    {"name": "shared", "mountPath": "data", "readOnly": true},
                    {"name": "etc", "mountPath": "/etc/web"},
                    {"name": "keys", "mountPath": "keys"},
                ],
                "artifacts": [{"uri": "http://h/a.tgz", "extract": false, "executable": true, "cache": true, "destPath": "x/a"}],
                "labels": {"tier": "one"},
                "lifecycle": {"killGracePeriodSeconds": 12.5},
                "linuxInfo": {"seccomp": {"profileName": "strict"}, "ipcInfo": {"mode": "PRIVATE", "shmSize": 32}},
                "tty": true,
            },
            {
                "name": "side",
                "exec": {"command": {"argv": ["/bin/side", "-v"]}, "overrideEntrypoint": false},
                "resources": {"cpus": 0.1, "mem": 32},
                "endpoints": [{"name": "side", "containerPort": 81}],
                "image": {"kind": "APPC", "id": "side", "labels": {"arch": "amd64"}},
                "healthCheck": {"tcp": {"endpoint": "side"}, "intervalSeconds": 30},
                "linuxInfo": {"seccomp": {"unconfined": true}},
            },
            {
                "name": "cron",
                "exec": {"command": {"shell": "exec cron"}},
                "resources": {"cpus": 0.1, "mem": 32},
                "healthCheck": {"exec": {"command": {"argv": ["/bin/true"]}}, "intervalSeconds": 30},
            },
        ],
    })
}

/// What the pod becomes on an offer that has room for it and is made to its role.
fn launched(pod: &Value) -> Result<Value, BuildError> {
    launched_with(pod, &Settings::default())
}

fn launched_with(pod: &Value, settings: &Settings) -> Result<Value, BuildError> {
    let reading = Reading { default_network_name: None, ..Reading::default() };
    let definition = read(pod.to_string().as_bytes(), &reading).unwrap_or_else(|error| panic!("{error}: {pod}")).definition;
    let role = definition.role.clone().unwrap();
    let slots_of = |definition: &PodDefinition| {
        let mut slots = slots([&offer(&role)]);
        let group = Group { definition, role: &role, waiting: &[Waiting { instance: INSTANCE, incarnation: 1 }], counted: &[] };
        let placed = place(&mut slots, &[group], &Rules::default());
        (slots, placed)
    };
    let (slots, mut placed) = slots_of(&definition);
    let placed = placed.pop().expect("the offer has room for it");
    let instance = InstanceId { pod: definition.id.clone(), uuid: INSTANCE };
    let secrets: SecretValues =
        ["prod/token", "prod/registry", "other"].map(|source| (source.to_owned(), SecretValue::new(source.to_owned()))).into();
    let placement = Placement {
        agent_id: slots[0].agent_id.clone(),
        hostname: slots[0].facts.hostname.clone(),
        host_ports: placed.host_ports,
        executor_resources: placed.executor_resources,
        task_resources: placed.task_resources,
    };
    let identity = Identity { framework_id: "F", cluster_id: "C", revision: 42, config: Version::from_millis(0) };
    let launch = Launch {
        definition: &definition,
        instance: &instance,
        incarnation: 3,
        placement: &placement,
        identity,
        settings,
        secrets: &secrets,
    };
    let (executor, task_group) = build(&launch)?;
    Ok(to_value(&LaunchGroup { executor, task_group }).unwrap())
}

fn offer(role: &str) -> v1::Offer {
    let ports = std::iter::once(31_000..=31_099).collect();
    let amounts = [("cpus", 8_000), ("mem", 8_000_000), ("disk", 8_000_000), ("gpus", 4_000)];
    let mut resources: Vec<v1::Resource> = amounts.into_iter().map(|(name, amount)| scalar_entry(name, amount)).collect();
    resources.push(ranges_entry("ports", &ports));
    for resource in &mut resources {
        resource.allocation_info = Some(v1::resource::AllocationInfo { role: Some(role.to_owned()) });
    }
    v1::Offer {
        id: v1::OfferId { value: "O1".into() },
        framework_id: v1::FrameworkId { value: "F".into() },
        agent_id: v1::AgentId { value: "S1".into() },
        hostname: "host1".into(),
        allocation_info: Some(v1::resource::AllocationInfo { role: Some(role.to_owned()) }),
        resources,
        ..v1::Offer::default()
    }
}

/// A definition with one thing changed, and where that shows: `@NAME` below a list stands for its element of that name.
struct Case {
    change: Vec<(&'static str, Value)>,
    shows: &'static str,
    as_: Value,
}

fn case(field: &'static str, value: impl Into<Value>, shows: &'static str, as_: impl Into<Value>) -> Case {
    Case { change: vec![(field, value.into())], shows, as_: as_.into() }
}

impl Case {
    /// What must change with it for the definition to stay valid.
    fn and(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.change.push((field, value.into()));
        self
    }
}

/// Base64, as JSON shows bytes.
const OTHER: &str = "b3RoZXI=";

fn cases() -> Vec<Case> {
    let mut all = pod_cases();
    all.extend(container_cases());
    all.extend(part_cases());
    all
}

fn pod_cases() -> Vec<Case> {
    let front = |rest: &'static str| rest;
    vec![
        case("/id", "/web/back", "/executor/executor_id/value", format!("instance-web_back.{INSTANCE}.3")),
        case("/id", "/web/back", "/task_group/tasks/0/discovery/name", "back.web"),
        case("/id", "/web/back", "/executor/labels/labels/@podium.pod/value", "/web/back"),
        case("/role", "*", "/executor/resources/0/allocation_info/role", "*")
            .and("/scheduling/placement/acceptedResourceRoles", json!(["*"])),
        case("/user", "carol", "/task_group/tasks/1/command/user", "carol"),
        case("/labels/team", "red", "/executor/labels/labels/@team/value", "red"),
        case("/labels/team", "red", front("/task_group/tasks/2/command/environment/variables/@MARATHON_APP_LABEL_TEAM/value"), "red"),
        case("/environment/COLOR", "red", "/task_group/tasks/1/command/environment/variables/@COLOR/value", "red"),
        case(
            "/environment/TOKEN/secret",
            "registry",
            "/task_group/tasks/1/command/environment/variables/@TOKEN/secret/value/data",
            "cHJvZC9yZWdpc3RyeQ==",
        ),
        case("/secrets/token/source", "other", "/task_group/tasks/0/command/environment/variables/@KEY/secret/value/data", OTHER),
        case("/volumes/0/name", "common", "/task_group/tasks/0/container/volumes/0/source/sandbox_path/path", "volumes/common")
            .and("/containers/0/volumeMounts/0/name", "common"),
        case("/volumes/1/host", "/srv", "/task_group/tasks/0/container/volumes/1/host_path", "/srv"),
        case("/volumes/2/secret", "registry", "/task_group/tasks/0/container/volumes/2/source/secret/value/data", "cHJvZC9yZWdpc3RyeQ=="),
        case("/networks/0/name", "red-net", "/executor/container/network_infos/0/name", "red-net")
            .and("/containers/0/endpoints/0/networkNames", json!(["red-net"])),
        case("/networks/0/mode", "container/bridge", "/executor/container/network_infos/0/name", "mesos-bridge")
            .and("/networks/0/name", Value::Null)
            .and("/containers/0/endpoints/0/networkNames", json!([])),
        case("/networks/0/labels/vlan", "8", "/executor/container/network_infos/0/labels/labels/@vlan/value", "8"),
        case("/linuxInfo/ipcInfo/mode", "SHARE_PARENT", "/executor/container/linux_info/ipc_mode", "SHARE_PARENT")
            .and("/linuxInfo/ipcInfo/shmSize", Value::Null),
        case("/linuxInfo/ipcInfo/shmSize", 65, "/executor/container/linux_info/shm_size", 65),
        case("/legacySharedCgroups", true, "/task_group/tasks/2/container/linux_info/share_cgroups", true)
            .and("/containers/0/resourceLimits", Value::Null),
        case("/executorResources/cpus", 0.3, "/executor/resources/@cpus/scalar/value", 0.3),
        case("/executorResources/mem", 49, "/executor/resources/@mem/scalar/value", 49.0),
        case("/executorResources/disk", 21, "/executor/resources/@disk/scalar/value", 21.0),
    ]
}

fn container_cases() -> Vec<Case> {
    vec![
        case("/containers/0/name", "head", "/task_group/tasks/0/name", "head"),
        case("/containers/0/name", "head", "/task_group/tasks/0/task_id/value", format!("web_front.instance-{INSTANCE}.head.3")),
        case("/containers/0/name", "head", "/task_group/tasks/0/command/environment/variables/@MARATHON_CONTAINER_ID/value", "head"),
        case("/containers/0/exec/command/shell", "exec other", "/task_group/tasks/0/command/value", "exec other"),
        case("/containers/1/exec/command/argv", json!(["/bin/other"]), "/task_group/tasks/1/command/arguments", json!(["/bin/other"])),
        case("/containers/1/exec/overrideEntrypoint", true, "/task_group/tasks/1/command/value", "/bin/side"),
        case("/containers/0/resources/cpus", 0.6, "/task_group/tasks/0/resources/@cpus/scalar/value", 0.6),
        case("/containers/0/resources/mem", 65, "/task_group/tasks/0/resources/@mem/scalar/value", 65.0),
        case("/containers/0/resources/disk", 6, "/task_group/tasks/0/resources/@disk/scalar/value", 6.0),
        case("/containers/0/resources/gpus", 2, "/task_group/tasks/0/resources/@gpus/scalar/value", 2.0),
        case(
            "/containers/0/resources/gpus",
            2,
            "/task_group/tasks/0/command/environment/variables/@MARATHON_CONTAINER_RESOURCE_GPUS/value",
            "2",
        ),
        case("/containers/0/resourceLimits/cpus", "unlimited", "/task_group/tasks/0/limits/cpus/value", "Infinity"),
        case("/containers/0/resourceLimits/mem", 80, "/task_group/tasks/0/limits/mem/value", 80.0),
        case("/containers/0/environment/COLOR", "red", "/task_group/tasks/0/command/environment/variables/@COLOR/value", "red"),
        case(
            "/containers/0/environment/KEY/secret",
            "registry",
            "/task_group/tasks/0/command/environment/variables/@KEY/secret/value/data",
            "cHJvZC9yZWdpc3RyeQ==",
        ),
        case("/containers/0/user", "carol", "/task_group/tasks/0/command/user", "carol"),
        case("/containers/0/labels/tier", "two", "/task_group/tasks/0/labels/labels/@tier/value", "two"),
        case(
            "/containers/0/lifecycle/killGracePeriodSeconds",
            20,
            "/task_group/tasks/0/kill_policy/grace_period/nanoseconds",
            20_000_000_000i64,
        ),
        case("/containers/0/lifecycle/killGracePeriodSeconds", 20, "/executor/shutdown_grace_period/nanoseconds", 25_000_000_000i64),
        case("/containers/0/linuxInfo/seccomp/profileName", "lax", "/task_group/tasks/0/container/linux_info/seccomp/profile_name", "lax"),
        case("/containers/0/linuxInfo/seccomp/unconfined", true, "/task_group/tasks/0/container/linux_info/seccomp/unconfined", true)
            .and("/containers/0/linuxInfo/seccomp/profileName", Value::Null),
        case("/containers/0/linuxInfo/ipcInfo/mode", "SHARE_PARENT", "/task_group/tasks/0/container/linux_info/ipc_mode", "SHARE_PARENT")
            .and("/containers/0/linuxInfo/ipcInfo/shmSize", Value::Null),
        case("/containers/0/linuxInfo/ipcInfo/shmSize", 33, "/task_group/tasks/0/container/linux_info/shm_size", 33),
        case("/containers/0/tty", false, "/task_group/tasks/0/container/tty_info", Value::Null),
    ]
}

fn part_cases() -> Vec<Case> {
    vec![
        case("/containers/0/endpoints/0/name", "web", "/task_group/tasks/2/command/environment/variables/@ENDPOINT_WEB/value", "80")
            .and("/containers/0/healthCheck/http/endpoint", "web"),
        case("/containers/0/endpoints/0/name", "web", "/task_group/tasks/0/discovery/ports/ports/0/name", "web")
            .and("/containers/0/healthCheck/http/endpoint", "web"),
        case("/containers/0/endpoints/0/containerPort", 8080, "/executor/container/network_infos/0/port_mappings/0/container_port", 8080),
        case("/containers/0/endpoints/0/containerPort", 8080, "/task_group/tasks/0/health_check/http/port", 8080),
        case("/containers/0/endpoints/0/hostPort", 31006, "/executor/container/network_infos/0/port_mappings/0/host_port", 31006),
        case(
            "/containers/0/endpoints/0/hostPort",
            31006,
            "/executor/resources/@ports/ranges/range",
            json!([{"begin": 31006, "end": 31006}]),
        ),
        case("/containers/0/endpoints/0/hostPort", 31006, "/task_group/tasks/1/command/environment/variables/@EP_HOST_HTTP/value", "31006"),
        case("/containers/0/endpoints/0/protocol", json!(["udp"]), "/executor/container/network_infos/0/port_mappings/0/protocol", "udp"),
        case("/containers/0/endpoints/0/protocol", json!(["udp"]), "/task_group/tasks/0/discovery/ports/ports/0/protocol", "udp"),
        case("/containers/0/endpoints/0/labels/path", "/x", "/task_group/tasks/0/discovery/ports/ports/0/labels/labels/@path/value", "/x"),
        case(
            "/containers/0/endpoints/0/networkNames",
            json!(["red-net"]),
            "/executor/container/network_infos/0/port_mappings",
            Value::Null,
        )
        .and("/networks", json!([{"name": "blue-net", "mode": "container"}, {"name": "red-net", "mode": "container"}])),
        case("/containers/0/image/kind", "APPC", "/task_group/tasks/0/container/mesos/image/type", "APPC"),
        case("/containers/0/image/id", "httpd", "/task_group/tasks/0/container/mesos/image/docker/name", "httpd"),
        case(
            "/containers/0/image/pullConfig/secret",
            "token",
            "/task_group/tasks/0/container/mesos/image/docker/config/value/data",
            "cHJvZC90b2tlbg==",
        ),
        case("/containers/0/image/forcePull", false, "/task_group/tasks/0/container/mesos/image/cached", true),
        case(
            "/containers/1/image/labels/arch",
            "arm64",
            "/task_group/tasks/1/container/mesos/image/appc/labels/labels/@arch/value",
            "arm64",
        ),
        case("/containers/0/healthCheck/http/path", "/up", "/task_group/tasks/0/health_check/http/path", "/up"),
        case("/containers/0/healthCheck/http/scheme", "HTTP", "/task_group/tasks/0/health_check/http/scheme", "http"),
        case("/containers/0/healthCheck/http/endpoint", "plain", "/task_group/tasks/0/health_check/http/port", 82)
            .and("/containers/0/endpoints/0/name", "plain")
            .and("/containers/0/endpoints/0/containerPort", 82),
        case("/containers/1/healthCheck/tcp/endpoint", "plain", "/task_group/tasks/1/health_check/tcp/port", 82)
            .and("/containers/1/endpoints/0/name", "plain")
            .and("/containers/1/endpoints/0/containerPort", 82),
        case("/containers/2/healthCheck/exec/command/argv", json!(["/bin/x"]), "/task_group/tasks/2/health_check/command/value", "/bin/x"),
        case("/containers/2/healthCheck/exec/command", json!({"shell": "x"}), "/task_group/tasks/2/health_check/command/shell", true),
        case("/containers/0/healthCheck/gracePeriodSeconds", 1, "/task_group/tasks/0/health_check/grace_period_seconds", 1.0),
        case("/containers/0/healthCheck/intervalSeconds", 13, "/task_group/tasks/0/health_check/interval_seconds", 13.0),
        case("/containers/0/healthCheck/maxConsecutiveFailures", 9, "/task_group/tasks/0/health_check/consecutive_failures", 9),
        case("/containers/0/healthCheck/timeoutSeconds", 7, "/task_group/tasks/0/health_check/timeout_seconds", 7.0),
        case("/containers/0/healthCheck/delaySeconds", 8, "/task_group/tasks/0/health_check/delay_seconds", 8.0),
        case("/containers/0/volumeMounts/0/name", "etc", "/task_group/tasks/0/container/volumes/0/host_path", "/etc/web")
            .and("/containers/1/volumeMounts", json!([{"name": "shared", "mountPath": "data"}])),
        case("/containers/0/volumeMounts/0/mountPath", "store", "/task_group/tasks/0/container/volumes/0/container_path", "store"),
        case("/containers/0/volumeMounts/0/readOnly", false, "/task_group/tasks/0/container/volumes/0/mode", "RW"),
        case("/containers/0/artifacts/0/uri", "http://h/b", "/task_group/tasks/0/command/uris/0/value", "http://h/b"),
        case("/containers/0/artifacts/0/extract", true, "/task_group/tasks/0/command/uris/0/extract", true),
        case("/containers/0/artifacts/0/executable", false, "/task_group/tasks/0/command/uris/0/executable", false),
        case("/containers/0/artifacts/0/cache", false, "/task_group/tasks/0/command/uris/0/cache", false),
        case("/containers/0/artifacts/0/destPath", "y", "/task_group/tasks/0/command/uris/0/output_file", "y"),
    ]
}

/// What is not told to Mesos, and who reads it instead.
const NOT_TOLD: &[(&str, &str)] = &[
    ("/version", "the store: tasks carry the version in force as label and variable"),
    ("/scaling/kind", "the upgrade controller"),
    ("/scaling/instances", "the upgrade controller"),
    ("/scaling/maxInstances", "admission"),
    ("/scheduling/backoff/backoff", "the scaling controller"),
    ("/scheduling/backoff/backoffFactor", "the scaling controller"),
    ("/scheduling/backoff/maxLaunchDelay", "the scaling controller"),
    ("/scheduling/upgrade/minimumHealthCapacity", "the upgrade controller"),
    ("/scheduling/upgrade/maximumOverCapacity", "the upgrade controller"),
    ("/scheduling/placement/constraints/*/fieldName", "matching"),
    ("/scheduling/placement/constraints/*/operator", "matching"),
    ("/scheduling/placement/constraints/*/value", "matching"),
    ("/scheduling/placement/acceptedResourceRoles/*", "matching"),
    ("/scheduling/killSelection", "the scaling controller"),
    ("/scheduling/unreachableStrategy/inactiveAfterSeconds", "the unreachable controller"),
    ("/scheduling/unreachableStrategy/expungeAfterSeconds", "the unreachable controller"),
    ("/linuxInfo/seccomp", "nobody: a pod that sets it is refused"),
    ("/volumes/*/persistent", "matching and reservations"),
];

/// The field without its indices and keys: `/containers/*/labels/*`.
fn pattern(field: &str) -> String {
    let mut below_map = false;
    let segment = |segment: &str| {
        let any = below_map || segment.parse::<usize>().is_ok();
        below_map = matches!(segment, "labels" | "environment" | "secrets");
        if any { "*".to_owned() } else { segment.to_owned() }
    };
    field.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn leaves(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found)),
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| leaves(value, &format!("{at}/{index}"), found));
        }
        // What is empty or absent in one container is given in another.
        Value::Object(_) | Value::Array(_) | Value::Null => drop(found.insert(format!("{at}?"))),
        _ => drop(found.insert(at.to_owned())),
    }
}

fn set(pod: &mut Value, field: &str, value: &Value) {
    let (parent, name) = field.rsplit_once('/').unwrap();
    match pod.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}")) {
        Value::Object(object) => drop(object.insert(name.to_owned(), value.clone())),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
        other => panic!("{parent} is {other}"),
    }
}

/// What stands there; `null` for nothing.
fn shown(launch: &Value, at: &str) -> Value {
    let mut here = launch;
    for segment in at.split('/').skip(1) {
        let next = match (segment.strip_prefix('@'), here) {
            (Some(name), Value::Array(items)) => items.iter().find(|item| item["name"] == name || item["key"] == name),
            (None, Value::Array(items)) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
            (_, other) => other.get(segment),
        };
        let Some(next) = next else { return Value::Null };
        here = next;
    }
    here.clone()
}

#[test]
fn every_field_shows_in_what_mesos_launches() {
    let before = launched(&full()).unwrap();
    for Case { change, shows, as_ } in cases() {
        let mut pod = full();
        change.iter().for_each(|(field, value)| set(&mut pod, field, value));
        let after = launched(&pod).unwrap();
        assert_eq!(shown(&after, shows), as_, "{change:?} at {shows}");
        assert_ne!(shown(&before, shows), as_, "{change:?} changes nothing at {shows}");
    }
}

#[test]
fn no_field_of_the_definition_is_forgotten() {
    let definition = read(full().to_string().as_bytes(), &Reading::default()).unwrap().definition;
    let mut found = BTreeSet::new();
    leaves(&serde_json::to_value(&definition).unwrap(), "", &mut found);
    let fields: BTreeSet<String> = found.iter().map(|field| pattern(field.trim_end_matches('?'))).collect();
    let covered: BTreeSet<String> = cases().iter().flat_map(|case| &case.change).map(|(field, _)| pattern(field)).collect();
    let told_elsewhere: BTreeSet<String> = NOT_TOLD.iter().map(|(field, _)| (*field).to_owned()).collect();
    let is_in = |set: &BTreeSet<String>, field: &String| {
        // A list is covered by a case that replaces it, what is absent by one for its parts.
        set.contains(field)
            || field.strip_suffix("/*").is_some_and(|list| set.contains(list))
            || set.iter().any(|covered| covered.starts_with(&format!("{field}/")))
    };
    let forgotten: Vec<&String> = fields.iter().filter(|field| !is_in(&covered, field) && !is_in(&told_elsewhere, field)).collect();
    assert!(forgotten.is_empty(), "no case tells what becomes of {forgotten:?}");
    let both: Vec<&String> = told_elsewhere.iter().filter(|field| !is_in(&fields, field)).collect();
    assert!(both.is_empty(), "there is no such field: {both:?}");
}

#[test]
fn what_is_for_the_controllers_changes_nothing_in_a_launch() {
    let before = launched(&full()).unwrap();
    for (field, value) in [
        ("/scaling", json!({"kind": "fixed", "instances": 9})),
        ("/scheduling/backoff", Value::Null),
        ("/scheduling/upgrade", Value::Null),
        ("/scheduling/killSelection", json!("YOUNGEST_FIRST")),
        ("/scheduling/unreachableStrategy", json!("disabled")),
        ("/scheduling/placement/constraints", json!([])),
        ("/version", json!("2021-07-27T10:00:00.000Z")),
    ] {
        let mut pod = full();
        set(&mut pod, field, &value);
        assert_eq!(launched(&pod).unwrap(), before, "{field}");
    }
}

#[test]
fn on_the_hosts_network_ports_are_the_hosts_and_no_network_is_joined() {
    let mut pod = full();
    set(&mut pod, "/networks", &json!([{"mode": "host"}]));
    set(&mut pod, "/containers/0/endpoints/0", &json!({"name": "http", "hostPort": 0, "protocol": ["tcp"]}));
    set(&mut pod, "/containers/1/endpoints/0", &json!({"name": "side", "hostPort": 31007}));
    let launch = launched(&pod).unwrap();
    assert_eq!(shown(&launch, "/executor/container/network_infos"), Value::Null);
    let port = shown(&launch, "/task_group/tasks/0/discovery/ports/ports/0/number");
    assert!((31_000..=31_099).contains(&port.as_u64().unwrap()), "{port}");
    assert_eq!(shown(&launch, "/task_group/tasks/0/health_check/http/port"), port);
    assert_eq!(shown(&launch, "/task_group/tasks/1/health_check/tcp/port"), 31_007);
    assert_eq!(shown(&launch, "/task_group/tasks/1/discovery/ports/ports"), Value::Null, "without a protocol it is not told");
    for task in 0..3 {
        let variable = |name| shown(&launch, &format!("/task_group/tasks/{task}/command/environment/variables/@{name}/value"));
        assert_eq!((variable("ENDPOINT_HTTP"), variable("EP_CONTAINER_HTTP")), (json!(port.to_string()), Value::Null));
    }
}

#[test]
fn amounts_are_packed_exactly_and_zeros_left_out() {
    let launch = launched(&full()).unwrap();
    let amounts = |at: &str| -> Vec<(String, Value)> {
        let entries = shown(&launch, at).as_array().unwrap().clone();
        entries.iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry["scalar"]["value"].clone())).collect()
    };
    let named = |list: &[(&str, f64)]| list.iter().map(|(name, amount)| ((*name).to_owned(), json!(amount))).collect::<Vec<_>>();
    assert_eq!(amounts("/executor/resources")[..3], named(&[("cpus", 0.2), ("mem", 48.0), ("disk", 20.0)]));
    assert_eq!(amounts("/task_group/tasks/0/resources"), named(&[("cpus", 0.5), ("mem", 64.0), ("disk", 5.0), ("gpus", 1.0)]));
    assert_eq!(amounts("/task_group/tasks/1/resources"), named(&[("cpus", 0.1), ("mem", 32.0)]));
}

#[test]
fn the_servers_settings_show_too() {
    let settings = Settings { bridge_name: "br0".into(), env_vars_prefix: Some("my_".into()), ..Settings::default() };
    let mut pod = full();
    set(&mut pod, "/networks", &json!([{"mode": "container/bridge"}]));
    set(&mut pod, "/containers/0/endpoints/0/networkNames", &json!([]));
    let launch = launched_with(&pod, &settings).unwrap();
    assert_eq!(shown(&launch, "/executor/container/network_infos/0/name"), "br0");
    assert_eq!(shown(&launch, "/task_group/tasks/1/command/environment/variables/@MY_EP_CONTAINER_HTTP/value"), "80");
    assert_eq!(
        shown(&launch, "/task_group/tasks/1/command/environment/variables/@MESOS_TASK_ID/value"),
        format!("web_front.instance-{INSTANCE}.side.3")
    );
}

#[test]
fn a_persistent_volume_is_the_executors_folder_of_its_name_and_what_cannot_be_is_refused_in_words() {
    let mut pod = full();
    set(&mut pod, "/scheduling", &json!({"upgrade": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}}));
    set(&mut pod, "/volumes/0", &json!({"name": "shared", "persistent": {"size": 10}}));
    let launch = launched(&pod).unwrap();
    let source = "/task_group/tasks/0/container/volumes/0/source/sandbox_path";
    assert_eq!((shown(&launch, &format!("{source}/type")), shown(&launch, &format!("{source}/path"))), ("PARENT".into(), "shared".into()));
    set(&mut pod, "/volumes/0", &json!({"name": "shared", "persistent": {"size": 10, "type": "root", "profileName": "fast"}}));
    let error = launched(&pod).unwrap_err().to_string();
    assert!(error.contains("persistent volume `shared`") && error.contains("has no profile"), "{error}");
}
