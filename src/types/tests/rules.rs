//! One line a rule of Marathon's definition of pods (reference sections 1.2 to 1.10) and of the documents.

#![allow(clippy::unwrap_used)]

use podium_types::definition::{self, Change, ReadError, Settings, Stage, UnreachableStrategy};
use podium_types::id::PodId;
use serde_json::{Map, Value, json};

fn merged(base: Value, over: Value) -> Value {
    let (Value::Object(mut base), Value::Object(over)) = (base, over) else { panic!("two objects") };
    for (name, value) in over {
        base.insert(name, value);
    }
    Value::Object(base)
}

/// A sound pod, with these members of its own.
fn pod(over: Value) -> Value {
    merged(json!({"id": "/g/web", "containers": [sound()]}), over)
}

fn sound() -> Value {
    json!({"name": "c", "exec": {"command": {"shell": "sleep 9"}}, "resources": {}})
}

/// A sound pod whose container has these members.
fn container(over: Value) -> Value {
    pod(json!({"containers": [merged(sound(), over)]}))
}

/// A sound pod with these members, whose container has those.
fn both(over: Value, of_container: Value) -> Value {
    merged(container(of_container), over)
}

fn without(value: Value, name: &str) -> Value {
    let Value::Object(object) = value else { panic!("an object") };
    Value::Object(object.into_iter().filter(|(key, _)| key != name).collect::<Map<_, _>>())
}

fn errors(definition: &Value) -> Vec<(String, String)> {
    match definition::read(definition.to_string().as_bytes(), &Settings::default()) {
        Ok(_) => Vec::new(),
        Err(ReadError::Invalid { violations, .. }) => violations.into_iter().map(|v| (v.path, v.message)).collect(),
        Err(other) => panic!("{other}"),
    }
}

/// Each row: a definition, and every error of it as path and message.
fn check(rows: &[(Value, &[(&str, &str)])]) {
    for (definition, expected) in rows {
        let mut found = errors(definition);
        let mut expected: Vec<_> = expected.iter().map(|(path, message)| ((*path).to_owned(), (*message).to_owned())).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{definition}");
    }
}

fn read(definition: &Value) -> definition::PodDefinition {
    definition::read(definition.to_string().as_bytes(), &Settings::default()).unwrap().definition
}

const NOT_UNIQUE_PORTS: &str = "container ports must be unique across all containers";

#[test]
fn identifiers_follow_section_1_4() {
    let id = |text: &str| pod(json!({"id": text}));
    let segment = r"must fully match regular expression '^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)$'";
    let reserved = "must not end with any of the following reserved keywords: restart, tasks, versions, ., ..";
    check(&[
        (id("/restart/x"), &[]),
        (id("/a-b.c/0"), &[]),
        (id("foo"), &[("/id", "Path needs to be absolute")]),
        (id("/"), &[("/id", "Path must contain at least one path element")]),
        (id("/a/versions"), &[("/id", reserved)]),
        (id("/a-"), &[("/id", segment)]),
        (id("/a_b"), &[("/id", "error.pattern")]),
        (id("/A"), &[("/id", "error.pattern")]),
        (id(""), &[("/id", "error.minLength")]),
        (pod(json!({"id": 7})), &[("/id", "error.expected.jsstring")]),
        (json!({"containers": [sound()]}), &[("/id", &format!("'id' is undefined on object: {}", json!({"containers": [sound()]})))]),
    ]);
}

#[test]
fn task_ids_stay_within_mesos_255_bytes() {
    // safe id + ".instance-" + uuid + "." + container + "." + ten digits
    let room = 255 - 10 - 36 - 1 - 1 - 10;
    let fits = format!("/{}", "a".repeat(room - 1));
    let long = format!("/{}", "a".repeat(room));
    check(&[
        (pod(json!({"id": fits})), &[]),
        (pod(json!({"id": long})), &[("/id", "task ids of this pod would have 256 bytes, Mesos allows 255")]),
        (
            merged(container(json!({"name": "cc"})), json!({"id": fits})),
            &[("/containers(0)/name", "task ids of this pod would have 256 bytes, Mesos allows 255")],
        ),
    ]);
}

#[test]
fn the_structure_is_judged_in_marathons_words() {
    let constraint = |value: Value| pod(json!({"scheduling": {"placement": {"constraints": [value]}}}));
    check(&[
        (json!([]), &[("", "[] is not an object")]),
        (pod(json!({"containers": []})), &[("/containers", "error.minLength")]),
        (pod(json!({"containers": 1})), &[("/containers", "error.expected.jsarray")]),
        (pod(json!({"containers": [7]})), &[("/containers(0)", "7 is not an object")]),
        (pod(json!({"labels": {"a": 1}})), &[("/labels/a", "error.expected.jsstring")]),
        (pod(json!({"labels": []})), &[("/labels", "error.expected.jsobject")]),
        (pod(json!({"version": "yesterday"})), &[("/version", "error.expected.date.isoformat")]),
        (pod(json!({"legacySharedCgroups": "no"})), &[("/legacySharedCgroups", "error.expected.jsboolean")]),
        (
            pod(json!({"containers": [without(sound(), "resources")]})),
            &[("/containers(0)/resources", &format!("'resources' is undefined on object: {}", without(sound(), "resources")))],
        ),
        (container(json!({"name": "A"})), &[("/containers(0)/name", "error.pattern")]),
        (container(json!({"name": "a".repeat(64)})), &[("/containers(0)/name", "error.maxLength")]),
        (container(json!({"resources": {"cpus": 0}})), &[("/containers(0)/resources/cpus", "error.min")]),
        (container(json!({"resources": {"gpus": 0.5}})), &[("/containers(0)/resources/gpus", "error.expected.int")]),
        (container(json!({"resources": {"mem": "1"}})), &[("/containers(0)/resources/mem", "error.expected.jsnumber")]),
        (container(json!({"exec": {}})), &[("/containers(0)/exec/command", "error.path.missing")]),
        (container(json!({"exec": []})), &[("/containers(0)/exec", "error.expected.jsobject")]),
        (container(json!({"exec": {"command": {}}})), &[("/containers(0)/exec/command/argv", "'argv' is undefined on object: {}")]),
        (container(json!({"exec": {"command": {"argv": []}}})), &[("/containers(0)/exec/command/argv", "error.minLength")]),
        (container(json!({"image": {"kind": "OCI", "id": "a"}})), &[("/containers(0)/image/kind", "error.unknown.enum.literal")]),
        (
            container(json!({"image": {"kind": "DOCKER"}})),
            &[("/containers(0)/image/id", r#"'id' is undefined on object: {"kind":"DOCKER"}"#)],
        ),
        (
            container(json!({"image": {"kind": "DOCKER", "id": "a", "pullConfig": {}}})),
            &[("/containers(0)/image/pullConfig/secret", "error.path.missing")],
        ),
        (
            container(json!({"lifecycle": {"killGracePeriodSeconds": -1}})),
            &[("/containers(0)/lifecycle/killGracePeriodSeconds", "error.min")],
        ),
        (container(json!({"artifacts": [{"uri": ""}]})), &[("/containers(0)/artifacts(0)/uri", "error.minLength")]),
        (container(json!({"linuxInfo": {"ipcInfo": {}}})), &[("/containers(0)/linuxInfo/ipcInfo/mode", "error.path.missing")]),
        (
            container(json!({"linuxInfo": {"seccomp": {"unconfined": 1}}})),
            &[("/containers(0)/linuxInfo/seccomp/unconfined", "error.expected.jsboolean")],
        ),
        (pod(json!({"executorResources": {"mem": 31}})), &[("/executorResources/mem", "error.min")]),
        (pod(json!({"scaling": {"instances": 2}})), &[("/scaling", "error.expected.jsstring")]),
        (pod(json!({"scaling": {"kind": "Fixed"}})), &[("/scaling", "error.expected.jsstring")]),
        (pod(json!({"scaling": {"kind": "fixed", "instances": "2"}})), &[("/scaling/instances", "error.expected.jsnumber")]),
        (
            pod(json!({"scheduling": {"upgrade": {"minimumHealthCapacity": 1.1}}})),
            &[("/scheduling/upgrade/minimumHealthCapacity", "error.max")],
        ),
        (pod(json!({"scheduling": {"backoff": {"backoff": -1}}})), &[("/scheduling/backoff/backoff", "error.min")]),
        (pod(json!({"scheduling": {"killSelection": "ANY"}})), &[("/scheduling/killSelection", "error.unknown.enum.literal")]),
        (
            pod(json!({"scheduling": {"unreachableStrategy": "never"}})),
            &[("/scheduling/unreachableStrategy", "error.unknown.enum.literal")],
        ),
        (
            pod(json!({"scheduling": {"unreachableStrategy": {"inactiveAfterSeconds": 0.5}}})),
            &[("/scheduling/unreachableStrategy/inactiveAfterSeconds", "error.expected.long")],
        ),
        (constraint(json!({"operator": "UNIQUE"})), &[("/scheduling/placement/constraints(0)/fieldName", "error.path.missing")]),
        (
            constraint(json!({"fieldName": "a", "operator": "NEAR"})),
            &[("/scheduling/placement/constraints(0)/operator", "error.unknown.enum.literal")],
        ),
        (
            constraint(json!({"fieldName": "a", "operator": "IS", "value": 1})),
            &[("/scheduling/placement/constraints(0)/value", "error.expected.jsstring")],
        ),
        (pod(json!({"role": ""})), &[("/role", "error.minLength")]),
        (container(json!({"user": "a\u{0}b"})), &[("/containers(0)/user", "error.pattern")]),
        (pod(json!({"networks": [{"mode": "bridge"}]})), &[("/networks(0)/mode", "error.unknown.enum.literal")]),
        (pod(json!({"networks": [{"name": "A"}]})), &[("/networks(0)/name", "error.pattern")]),
    ]);
}

#[test]
fn environment_and_secrets_follow_section_1_5() {
    let volume = json!([{"name": "v", "secret": "s"}]);
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "m"}]});
    let image = json!({"image": {"kind": "docker", "id": "a", "pullConfig": {"secret": "s"}}});
    let secrets = json!({"s": {"source": "/s"}});
    check(&[
        (pod(json!({"environment": {"a_B1": "x"}})), &[]),
        (pod(json!({"environment": {"1A": "x"}})), &[("/environment/1A", "error.pattern")]),
        (pod(json!({"environment": {"A": 1}})), &[("/environment/A/secret", "error.path.missing")]),
        (pod(json!({"environment": {"A": {}}})), &[("/environment/A/secret", "error.path.missing")]),
        (pod(json!({"environment": {"A": {"secret": "s"}}})), &[("/environment/A/secret", "references an undefined secret")]),
        (pod(json!({"environment": {"A": {"secret": "s"}}, "secrets": secrets})), &[]),
        (
            container(json!({"environment": {"A": {"secret": "s"}}})),
            &[("/containers(0)/environment/A/secret", "references an undefined secret")],
        ),
        (pod(json!({"secrets": {"s": {"source": ""}}})), &[("/secrets/s/source", "error.minLength")]),
        (pod(json!({"secrets": {"s": {}}})), &[("/secrets/s/source", "'source' is undefined on object: {}")]),
        (both(json!({"volumes": volume}), mount.clone()), &[("/volumes(0)/secret", "volume.secret must refer to an existing secret")]),
        (both(json!({"volumes": volume, "secrets": secrets}), mount), &[]),
        (container(image.clone()), &[("/containers(0)/image/pullConfig", "pullConfig.secret must refer to an existing secret")]),
        (both(json!({"secrets": secrets}), image), &[]),
    ]);
}

#[test]
fn networks_and_endpoints_follow_section_1_6() {
    let nets = |value: Value| pod(json!({"networks": value}));
    let ends = |networks: Value, endpoints: Value| both(json!({"networks": networks}), json!({"endpoints": endpoints}));
    let one = json!([{"name": "n"}]);
    let two = json!([{"name": "n"}, {"name": "m"}]);
    let single = "May specify a single host network, single bridge network, or else 1-to-n container networks";
    let named = "Host networks may not have names or labels";
    let listed = "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined";
    check(&[
        (nets(json!([{"mode": "Host"}])), &[]),
        (nets(json!([{"mode": "host", "name": null, "labels": {}}])), &[]),
        (nets(json!([{"mode": "host", "name": "n"}])), &[("/networks", named)]),
        (nets(json!([{"mode": "host", "labels": {"a": "b"}}])), &[("/networks", named)]),
        (nets(json!([{"mode": "container/bridge", "name": "n"}])), &[("/networks", "Bridge networks may not have names")]),
        (nets(json!([{"name": "n"}, {"name": "n"}])), &[("/networks", "Duplicate networks are not allowed")]),
        (nets(json!([{"mode": "host"}, {"name": "n"}])), &[("/networks", single)]),
        (nets(json!([{"mode": "host"}, {"mode": "host"}])), &[("/networks", single)]),
        (nets(json!([{}])), &[("/networks", "Network name must be specified when container network is selected.")]),
        (nets(two.clone()), &[]),
        (ends(json!([{"mode": "host"}]), json!([{"name": "e"}])), &[]),
        (
            ends(json!([{"mode": "host"}]), json!([{"name": "e", "containerPort": 80}])),
            &[("/containers(0)/endpoints(0)/containerPort", "is not allowed when using host-mode networking")],
        ),
        (
            ends(one.clone(), json!([{"name": "e"}])),
            &[("/containers(0)/endpoints(0)/containerPort", "is required when using container-mode networking")],
        ),
        (ends(json!([{"mode": "container/bridge"}]), json!([{"name": "e"}])), &[]),
        (ends(one.clone(), json!([{"name": "e", "containerPort": 0}])), &[("/containers(0)/endpoints(0)/containerPort", "error.min")]),
        (ends(one.clone(), json!([{"name": "e", "containerPort": 65536}])), &[("/containers(0)/endpoints(0)/containerPort", "error.max")]),
        (
            ends(one.clone(), json!([{"name": "e", "containerPort": 1, "protocol": ["tcp", "tcp"]}])),
            &[("/containers(0)/endpoints(0)/protocol", "Duplicate protocols within the same endpoint are not allowed")],
        ),
        (ends(one.clone(), json!([{"name": "e", "containerPort": 1, "protocol": [], "networkNames": []}])), &[]),
        (
            ends(one.clone(), json!([{"name": "e", "containerPort": 1, "networkNames": ["n", "x"]}])),
            &[("/containers(0)/endpoints(0)/networkNames(1)", "is not one of (n)")],
        ),
        (ends(two.clone(), json!([{"name": "e", "containerPort": 1, "hostPort": 0}])), &[("/containers(0)/endpoints(0)", listed)]),
        (ends(two, json!([{"name": "e", "containerPort": 1, "hostPort": 0, "networkNames": ["m"]}])), &[]),
        (
            ends(one.clone(), json!([{"name": "e", "containerPort": 1}, {"name": "e", "containerPort": 1}])),
            &[("/", "endpoint names nust be unique across all containers"), ("/", NOT_UNIQUE_PORTS)],
        ),
        (
            ends(json!([]), json!([{"name": "e", "hostPort": 80}, {"name": "f", "hostPort": 80}])),
            &[("/", "host ports must be unique across all containers")],
        ),
        (ends(json!([]), json!([{"name": "e", "hostPort": 0}, {"name": "f", "hostPort": 0}])), &[]),
    ]);
}

#[test]
fn volumes_follow_section_1_7() {
    let mount = |name: &str| json!({"volumeMounts": [{"name": name, "mountPath": "m"}]});
    let volumes = |value: Value| both(json!({"volumes": value}), mount("v"));
    let disk = json!({"name": "v", "persistent": {"size": 1}});
    let resident = |over: Value| merged(both(json!({"volumes": [disk], "role": "g"}), mount("v")), over);
    let over = "/scheduling/upgrade/maximumOverCapacity";
    check(&[
        (volumes(json!([{"name": "v"}])), &[]),
        (volumes(json!([{"name": "v", "host": null, "secret": null, "persistent": null}])), &[]),
        (volumes(json!([{"name": "v"}, {"name": "v", "host": "/x"}])), &[("/volumes", "volume names must be unique")]),
        (volumes(json!([{"name": "v"}, {"name": "w"}])), &[("/volumes(1)", "volume must be referenced by at least one container")]),
        (container(mount("v")), &[("/containers(0)/volumeMounts(0)/name", "Referenced Volume in VolumeMount should exist")]),
        (
            volumes(json!([{"name": "v", "host": "/x", "secret": "s"}])),
            &[
                ("/volumes(0)", "Only one of host, secret or persistent may be specified"),
                ("/volumes(0)/secret", "volume.secret must refer to an existing secret"),
            ],
        ),
        (
            merged(volumes(json!([{"name": "v", "persistent": {}}])), json!({"role": "g"})),
            &[("/volumes(0)/persistent/size", "'size' is undefined on object: {}")],
        ),
        (
            container(json!({"volumeMounts": [{"name": "v"}]})),
            &[
                ("/containers(0)/volumeMounts(0)/mountPath", r#"'mountPath' is undefined on object: {"name":"v"}"#),
                ("/containers(0)/volumeMounts(0)/name", "Referenced Volume in VolumeMount should exist"),
            ],
        ),
        (
            both(json!({"volumes": [{"name": "v"}]}), json!({"volumeMounts": [{"name": "v", "mountPath": "../../etc"}]})),
            &[("/containers(0)/volumeMounts(0)/mountPath", "must not contain '..'")],
        ),
        (resident(json!({})), &[]),
        (resident(json!({"scheduling": {"upgrade": {}}})), &[(over, "got 1.0, expected 0.0")]),
        (resident(json!({"scheduling": {"upgrade": {"maximumOverCapacity": 0.1}}})), &[(over, "got 0.1, expected 0.0")]),
        (
            resident(json!({"scheduling": {"unreachableStrategy": {}}})),
            &[("/scheduling/unreachableStrategy", "unreachableStrategy must be disabled for pods with persistent volumes")],
        ),
        (
            resident(json!({"scheduling": {"placement": {"acceptedResourceRoles": ["g"]}}})),
            &[("/scheduling/placement/acceptedResourceRoles", "A resident pod must have `acceptedResourceRoles = [\"*\"]`.")],
        ),
        (resident(json!({"role": "*"})), &[("/role", "Resident pods cannot have the role *")]),
        (
            both(
                json!({"role": "g", "volumes": [{"name": "v", "persistent": {"size": 1, "constraints": [["path", "LIKE", "a("], ["a"]]}}]}),
                mount("v"),
            ),
            &[
                ("/volumes(0)/persistent/constraints(0)", "is not a valid regular expression"),
                ("/volumes(0)/persistent/constraints(1)", "illegal volume constraint"),
            ],
        ),
    ]);
}

#[test]
fn scaling_containers_limits_linux_and_health_follow_section_1_8() {
    let health = |check: Value| both(json!({"networks": [{"mode": "host"}]}), json!({"endpoints": [{"name": "e"}], "healthCheck": check}));
    let limits = |value: Value| container(json!({"resourceLimits": value}));
    let linux = |value: Value| container(json!({"linuxInfo": value}));
    let kinds = "Only one of http, tcp, or command may be specified";
    check(&[
        (pod(json!({"scaling": {"kind": "fixed", "instances": -1}})), &[("/scaling/instances", "got -1, expected 0 or more")]),
        (pod(json!({"scaling": {"kind": "fixed", "instances": 0}})), &[]),
        (
            pod(json!({"scaling": {"kind": "fixed", "instances": 3, "maxInstances": 2}})),
            &[("/scaling/instances", "got 3, expected 2 or less (maxInstances)")],
        ),
        (pod(json!({"containers": [sound(), sound()]})), &[("/containers", "container names must be unique")]),
        (pod(json!({"user": ""})), &[("/user", "must not be empty")]),
        (container(json!({"user": ""})), &[]),
        (
            health(json!({"tcp": {"endpoint": "e"}, "timeoutSeconds": 20, "intervalSeconds": 10})),
            &[("/containers(0)/healthCheck/timeoutSeconds", "got 20, expected less than 10")],
        ),
        (health(json!({})), &[("/containers(0)/healthCheck", kinds)]),
        (health(json!({"tcp": {"endpoint": "e"}, "http": {"endpoint": "e"}})), &[("/containers(0)/healthCheck", kinds)]),
        (health(json!({"tcp": null, "exec": null, "http": {"endpoint": "e", "scheme": "https"}})), &[]),
        (
            health(json!({"http": {"endpoint": "x"}})),
            &[("/containers(0)/healthCheck/http/endpoint", "contained in the container endpoints")],
        ),
        (health(json!({"tcp": {"endpoint": "x"}})), &[("/containers(0)/healthCheck/tcp/endpoint", "contained in the container endpoints")]),
        (health(json!({"exec": {"command": {"argv": ["true"]}}})), &[]),
        (
            health(json!({"exec": {"command": {"shell": ""}}})),
            &[("/containers(0)/healthCheck/exec/command/argv", r#"'argv' is undefined on object: {"shell":""}"#)],
        ),
        (limits(json!({"mem": 128, "cpus": "Unlimited"})), &[]),
        (
            limits(json!({"mem": 127})),
            &[("/containers(0)/resourceLimits/mem", "resource limit must be greater than or equal to requested resource (128.0)")],
        ),
        (
            limits(json!({"mem": "x"})),
            &[("/containers(0)/resourceLimits/mem", "'x' is an invalid resource limit. It must be 'unlimited' or a number")],
        ),
        (
            both(json!({"legacySharedCgroups": true}), json!({"resourceLimits": {}})),
            &[("/containers(0)/resourceLimits", "resourceLimits cannot be defined if legacySharedCgroups is enabled")],
        ),
        (
            linux(json!({"seccomp": {"profileName": "p", "unconfined": true}})),
            &[("/containers(0)/linuxInfo/seccomp", "Seccomp unconfined can NOT be true when Profile is defined")],
        ),
        (
            linux(json!({"seccomp": {}})),
            &[("/containers(0)/linuxInfo/seccomp", "Seccomp unconfined must be true when Profile is NOT defined")],
        ),
        (
            linux(json!({"ipcInfo": {"mode": "share_parent", "shmSize": 1}})),
            &[("/containers(0)/linuxInfo/ipcInfo", "ipcInfo shmSize can NOT be set when mode is SHARE_PARENT")],
        ),
        (
            pod(json!({"linuxInfo": {"seccomp": {"unconfined": true}}})),
            &[("/linuxInfo/seccomp", "Seccomp configuration on executor level is not supported")],
        ),
        (pod(json!({"linuxInfo": {"seccomp": null, "ipcInfo": {"mode": "private"}}})), &[]),
    ]);
}

#[test]
fn constraints_follow_section_1_9() {
    let rule = |operator: &str, value: Value| {
        pod(json!({"scheduling": {"placement": {"constraints": [{"fieldName": "f", "operator": operator, "value": value}]}}}))
    };
    let at = "/scheduling/placement/constraints(0)";
    let likes = "LIKE and UNLIKE require a non-empty, regular expression value";
    let is = "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)";
    check(&[
        (rule("unique", json!(null)), &[]),
        (rule("UNIQUE", json!("x")), &[(at, "UNIQUE does not accept a value")]),
        (rule("CLUSTER", json!("x")), &[]),
        (rule("GROUP_BY", json!(null)), &[]),
        (rule("GROUP_BY", json!("x")), &[(at, "GROUP BY must define an integer value or else no value at all")]),
        (rule("MAX_PER", json!("2")), &[]),
        (rule("MAX_PER", json!(null)), &[(at, "MAX_PER requires an integer value")]),
        (rule("LIKE", json!("a.*")), &[]),
        (rule("LIKE", json!(null)), &[(at, likes)]),
        (rule("UNLIKE", json!("")), &[(at, likes)]),
        (rule("UNLIKE", json!("a(")), &[(at, "is not a valid regular expression")]),
        (rule("IS", json!("a_b/c.d-1")), &[]),
        (rule("IS", json!("a b")), &[(at, is)]),
        (
            pod(json!({"scheduling": {"placement": {"constraints": [{"fieldName": "", "operator": "UNIQUE"}]}}})),
            &[(at, "missing field for constraint declaration")],
        ),
        (pod(json!({"scheduling": {"placement": {"constraints": [["hostname", "UNIQUE"], ["a", "LIKE", "b"]]}}})), &[]),
    ]);
}

#[test]
fn roles_follow_section_1_10() {
    let accepted = |roles: Value| pod(json!({"role": "g", "scheduling": {"placement": {"acceptedResourceRoles": roles}}}));
    let at = "/scheduling/placement/acceptedResourceRoles";
    check(&[
        (pod(json!({"role": "*"})), &[]),
        (pod(json!({"role": "g"})), &[]),
        (pod(json!({"role": "x"})), &[("/role", "got x, expected one of: [*, g]")]),
        (pod(json!({"id": "/g", "role": "g"})), &[("/role", "got g, expected one of: [*]")]),
        (accepted(json!(["*", "g"])), &[]),
        (accepted(json!(["x"])), &[(at, "acceptedResourceRoles can only contain * and g")]),
        (
            accepted(json!([""])),
            &[
                (at, "acceptedResourceRoles can only contain * and g"),
                ("/scheduling/placement/acceptedResourceRoles(0)", "A role name must not be \"\"."),
            ],
        ),
        (
            accepted(json!(["a b"])),
            &[
                (at, "acceptedResourceRoles can only contain * and g"),
                ("/scheduling/placement/acceptedResourceRoles(0)", "A role name must not include a space (\\x20) character."),
            ],
        ),
    ]);
}

#[test]
fn rules_are_judged_beside_broken_structure_but_never_on_it() {
    check(&[
        (
            both(
                json!({"user": "", "volumes": 7, "networks": [{"mode": "moon"}], "secrets": []}),
                json!({
                    "volumeMounts": [{"name": "v", "mountPath": "m"}],
                    "endpoints": [{"name": "e", "containerPort": 80}],
                    "environment": {"A": {"secret": "s"}},
                    "resources": {"mem": "much"}, "resourceLimits": {"mem": 1},
                }),
            ),
            &[
                ("/user", "must not be empty"),
                ("/volumes", "error.expected.jsarray"),
                ("/networks(0)/mode", "error.unknown.enum.literal"),
                ("/secrets", "error.expected.jsobject"),
                ("/containers(0)/resources/mem", "error.expected.jsnumber"),
            ],
        ),
        (
            pod(json!({"containers": [sound(), 7, sound()], "volumes": [{"name": "v"}]})),
            &[("/containers(1)", "7 is not an object"), ("/containers", "container names must be unique")],
        ),
    ]);
}

#[test]
fn half_a_megabyte_of_mistakes_gives_a_bounded_answer() {
    let mistakes = errors(&pod(json!({"containers": vec![json!({"x": "y".repeat(60)}); 5000]})));
    assert_eq!(mistakes.len(), 257);
    assert!(mistakes.contains(&("/".to_owned(), "9744 further errors are not listed".to_owned())), "{:?}", mistakes.last());
    let long = errors(&pod(json!({"containers": [{"labels": {"é".repeat(9_000): "b"}}]})));
    assert!(long.iter().all(|(_, message)| message.len() < 1200), "{long:?}");
}

#[test]
fn patterns_are_bounded_in_size_and_number() {
    let like = |pattern: &str| json!({"fieldName": "f", "operator": "LIKE", "value": pattern});
    let of = |constraints: Vec<Value>| errors(&pod(json!({"scheduling": {"placement": {"constraints": constraints}}})));
    assert_eq!(of(vec![like("a{1000}{1000}")])[0].1, "is not a valid regular expression");
    assert_eq!(of(vec![like("a"); 200]), []);
    assert_eq!(of(vec![like("a"); 201])[0].1, "is one of more than 200 regular expressions");
}

#[test]
fn a_stored_definition_without_a_sound_id_is_no_pods() {
    assert!(definition::read_stored(pod(json!({"id": "relative"})).to_string().as_bytes()).is_err());
    // What a rule forbids today may have been stored yesterday.
    assert!(definition::read_stored(pod(json!({"user": ""})).to_string().as_bytes()).is_ok());
}

#[test]
fn the_headline_tells_the_stage() {
    let of = |value: Value| definition::read(value.to_string().as_bytes(), &Settings::default()).unwrap_err();
    assert_eq!(of(pod(json!({"id": "foo"}))).headline(), "Object is not valid");
    assert_eq!(of(pod(json!({"id": "foo", "labels": 1}))).headline(), "Invalid JSON");
    let ReadError::Invalid { violations, .. } = of(pod(json!({"id": "foo", "labels": 1}))) else { panic!() };
    assert_eq!(violations.iter().map(|v| v.stage).collect::<Vec<_>>(), [Stage::Structure, Stage::Rule]);
}

#[test]
fn what_was_read_over_is_told_of_a_refused_definition_too() {
    let error = definition::read(pod(json!({"id": "foo", "labls": {}})).to_string().as_bytes(), &Settings::default()).unwrap_err();
    let ReadError::Invalid { violations, warnings } = error else { panic!() };
    assert_eq!(violations.iter().map(|violation| violation.path.as_str()).collect::<Vec<_>>(), ["/id"]);
    assert_eq!(warnings.iter().map(|warning| warning.path.as_str()).collect::<Vec<_>>(), ["/labls"]);
    assert!(warnings[0].message.contains("labels"), "{warnings:?}");
}

#[test]
fn what_is_no_json_is_told_with_line_and_column() {
    let error = definition::read(b"{\n  \"id\": 10mb\n}", &Settings::default()).unwrap_err();
    let ReadError::NotJson { line, column, .. } = &error else { panic!("{error}") };
    assert_eq!((*line, *column), (2, 11));
    assert_eq!(error.violations()[0].path, "");
    assert!(error.to_string().ends_with(" at line 2 column 11"), "{error}");
    assert!(matches!(definition::read(b"", &Settings::default()), Err(ReadError::NotJson { .. })));
    let large = vec![b' '; definition::MAX_BYTES + 1];
    assert!(matches!(definition::read(&large, &Settings::default()), Err(ReadError::TooLarge { .. })));
    let deep = "[".repeat(100_000);
    assert!(matches!(definition::read(deep.as_bytes(), &Settings::default()), Err(ReadError::NotJson { .. })));
}

#[test]
fn defaults_are_the_documents() {
    let pod = read(&container(
        json!({"endpoints": [{"name": "e"}], "healthCheck": {"tcp": {"endpoint": "e"}}, "image": {"kind": "appc", "id": "i"}}),
    ));
    let answer = serde_json::to_value(&pod).unwrap();
    assert_eq!(
        answer["scheduling"],
        json!({
            "backoff": {"backoff": 1, "backoffFactor": 1.15, "maxLaunchDelay": 3600},
            "upgrade": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
            "placement": {"constraints": [], "acceptedResourceRoles": []},
            "killSelection": "YOUNGEST_FIRST",
            "unreachableStrategy": {"inactiveAfterSeconds": 900, "expungeAfterSeconds": 604_800},
        })
    );
    assert_eq!(answer["scaling"], json!({"kind": "fixed", "instances": 1, "maxInstances": null}));
    assert_eq!(answer["executorResources"], json!({"cpus": 0.1, "mem": 32, "disk": 10}));
    let container = &answer["containers"][0];
    assert_eq!(container["resources"], json!({"cpus": 1, "mem": 128, "disk": 0, "gpus": 0}));
    assert_eq!(container["endpoints"][0]["hostPort"], json!(0));
    assert_eq!(container["image"], json!({"kind": "APPC", "id": "i", "pullConfig": null, "forcePull": false, "labels": {}}));
    assert_eq!(
        container["healthCheck"],
        json!({
            "http": null, "tcp": {"endpoint": "e"}, "exec": null, "gracePeriodSeconds": 300, "intervalSeconds": 60,
            "maxConsecutiveFailures": 3, "timeoutSeconds": 20, "delaySeconds": 2,
        })
    );
    assert_eq!(answer["role"], json!("*"));
}

#[test]
fn a_member_missing_from_a_given_object_takes_the_documents_default() {
    let strategy = |value: Value| read(&pod(json!({"scheduling": {"unreachableStrategy": value}}))).scheduling.unreachable_strategy;
    let after =
        |inactive_after_seconds, expunge_after_seconds| UnreachableStrategy::After { inactive_after_seconds, expunge_after_seconds };
    assert_eq!(strategy(json!({"inactiveAfterSeconds": 5})), after(5, 604_800));
    assert_eq!(strategy(json!({"expungeAfterSeconds": 5})), after(900, 5));
    assert_eq!(strategy(json!("Disabled")), UnreachableStrategy::Disabled);
}

#[test]
fn host_ports_and_network_names_are_filled_as_section_1_11_tells() {
    let settings = Settings { default_network_name: Some("dcos".to_owned()), ..Settings::default() };
    let of = |networks: Value, endpoint: Value| {
        let value = both(json!({"networks": networks}), json!({"endpoints": [endpoint]}));
        let pod = definition::read(value.to_string().as_bytes(), &settings).unwrap().definition;
        (pod.networks.first().and_then(|network| network.name.clone()), pod.containers[0].endpoints[0].host_port)
    };
    assert_eq!(of(json!([{}]), json!({"name": "e", "containerPort": 1})), (Some("dcos".to_owned()), None));
    assert_eq!(of(json!([{"mode": "container/bridge"}]), json!({"name": "e"})), (None, Some(0)));
    assert_eq!(of(json!([]), json!({"name": "e"})), (None, Some(0)));
}

#[test]
fn an_empty_shell_line_is_the_images_own_entry_point() {
    let exec = |command: Value| read(&container(json!({"exec": {"command": command}}))).containers[0].exec.clone().unwrap().command;
    assert_eq!(exec(json!({"shell": ""})), definition::Command::Shell(String::new()));
    assert_eq!(exec(json!({"shell": "a", "argv": ["b"]})), definition::Command::Shell("a".to_owned()));
    assert_eq!(exec(json!({"shell": null, "argv": ["b"]})), definition::Command::Argv(vec!["b".to_owned()]));
}

#[test]
fn equal_constraints_collapse() {
    let rule = json!({"fieldName": "hostname", "operator": "UNIQUE"});
    let pod = read(&pod(json!({"scheduling": {"placement": {"constraints": [rule, rule]}}})));
    assert_eq!(pod.scheduling.placement.constraints.len(), 1);
}

#[test]
fn an_unknown_field_is_warned_of_with_the_nearest_known_one() {
    let warning = |value: Value| {
        let reading = definition::read(value.to_string().as_bytes(), &Settings::default()).unwrap();
        reading.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warning(container(json!({"volumeMount": []}))),
        ["/containers(0)/volumeMount: unknown field 'volumeMount': did you mean 'volumeMounts'?"]
    );
    assert_eq!(warning(pod(json!({"instances": 3}))), ["/instances: unknown field 'instances': did you mean 'scaling.instances'?"]);
    assert_eq!(warning(pod(json!({"Labels": {}}))), ["/Labels: unknown field 'Labels': did you mean 'labels'?"]);
    assert_eq!(
        warning(pod(json!({"scaling": {"kind": "fixed", "zzz": 1}}))),
        ["/scaling/zzz: unknown field 'zzz'; known here: kind, instances, maxInstances"]
    );
}

#[test]
fn an_id_is_taken_from_the_key_and_must_agree_with_it() {
    let key = PodId::new("/g/web").unwrap();
    let read_as = |value: &Value| definition::read_as(value.to_string().as_bytes(), &key, &Settings::default());
    assert_eq!(read_as(&without(pod(json!({})), "id")).unwrap().definition.id, key);
    assert_eq!(read_as(&pod(json!({}))).unwrap().definition.id, key);
    let error = read_as(&pod(json!({"id": "/other"}))).unwrap_err();
    assert_eq!(error.to_string(), "/id: '/g/web' does not match definition's id ('/other')");
}

#[test]
fn only_what_runs_changes_the_config() {
    let base = pod(json!({}));
    let change = |over: Value| definition::config_changed(&read(&base), &read(&merged(base.clone(), over)));
    assert_eq!(change(json!({"version": "2017-01-03T18:21:19.31Z"})), Change::Nothing);
    assert_eq!(change(json!({"scaling": {"kind": "fixed", "instances": 1, "maxInstances": 9}})), Change::SettingsOnly);
    assert_eq!(change(json!({"scheduling": {"killSelection": "OLDEST_FIRST"}})), Change::SettingsOnly);
    assert_eq!(change(json!({"scheduling": {"unreachableStrategy": "disabled"}})), Change::SettingsOnly);
    assert_eq!(change(json!({"scheduling": {"upgrade": {"maximumOverCapacity": 0}}})), Change::SettingsOnly);
    assert_eq!(change(json!({"scheduling": {"backoff": {"backoff": 9}}})), Change::SettingsOnly);
    assert_eq!(change(json!({"scaling": {"kind": "fixed", "instances": 2}, "scheduling": {"backoff": {"backoff": 9}}})), Change::ScaleOnly);
    assert_eq!(change(json!({"labels": {"a": "b"}})), Change::Config);
    assert_eq!(change(json!({"executorResources": {"mem": 64}})), Change::Config);
    assert_eq!(change(json!({"scheduling": {"placement": {"constraints": [["a", "UNIQUE"]]}}})), Change::Config);
}

#[test]
fn an_update_may_not_change_what_persistent_volumes_stand_on() {
    let disk = |size: u32, mem: u32| {
        read(&both(
            json!({"role": "g", "volumes": [{"name": "v", "persistent": {"size": size}}]}),
            json!({"volumeMounts": [{"name": "v", "mountPath": "m"}], "resources": {"mem": mem}}),
        ))
    };
    let messages = |old, new| definition::update_violations(&old, &new).into_iter().map(|v| v.message).collect::<Vec<_>>();
    assert_eq!(messages(disk(1, 64), disk(1, 64)), Vec::<String>::new());
    assert_eq!(
        messages(disk(1, 64), disk(2, 65)),
        ["persistent volumes cannot be updated", "mem cannot be updated if a pod has persistent volumes"]
    );
    assert_eq!(messages(read(&pod(json!({}))), read(&container(json!({"resources": {"mem": 9}})))), Vec::<String>::new());
}
