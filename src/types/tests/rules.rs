//! One line a rule of Marathon's definition of pods (reference sections 1.2 to 1.10) and of the documents.

#![allow(clippy::unwrap_used)]

use podium_types::definition::{self, Change, ReadError, Settings, Stage, UnreachableStrategy};
use podium_types::id::PodId;
use serde_json::{Map, Value, json};

#[path = "../../../e2e/fixtures/rules.rs"]
mod table;

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

#[test]
fn every_line_of_the_table_of_rules_is_judged_as_it_says() {
    let mut wrong = Vec::new();
    for rule in table::all() {
        let mut found: Vec<String> = errors(&rule.definition).into_iter().map(|(path, message)| format!("{path}: {message}")).collect();
        found.sort();
        if found != rule.errors {
            wrong.push(format!("{}\n  expected {:?}\n  found    {found:?}", rule.origin, rule.errors));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_table_has_no_room_for_is_judged_too() {
    check(&[
        (json!([]), &[("", "[] is not an object")]),
        (json!({"containers": [sound()]}), &[("/id", &format!("'id' is undefined on object: {}", json!({"containers": [sound()]})))]),
        (json!({"id": "/a"}), &[("/containers", "'containers' is undefined on object: {\"id\":\"/a\"}")]),
        (pod(json!({"containers": [sound(), sound()]})), &[("/containers", "container names must be unique")]),
        (
            pod(json!({"containers": [sound(), 7, sound()], "volumes": [{"name": "v"}]})),
            &[("/containers(1)", "7 is not an object"), ("/containers", "container names must be unique")],
        ),
        (container(json!({"image": {"kind": "DOCKER", "id": "i".repeat(1025)}})), &[("/containers(0)/image/id", "error.maxLength")]),
        (pod(json!({"environment": {"A".repeat(255): "x"}})), &[(&format!("/environment/{}", "A".repeat(255)), "error.pattern")]),
        (pod(json!({"environment": {"A".repeat(254): "x"}})), &[]),
        // Structure that is broken is not judged by rules: a stand-in would be complained of.
        (
            both(
                json!({"user": "", "volumes": 7, "networks": [{"mode": "moon"}], "secrets": []}),
                json!({"volumeMounts": [{"name": "v", "mountPath": "m"}], "endpoints": [{"name": "e", "containerPort": 80}]}),
            ),
            &[
                ("/user", "must not be empty"),
                ("/volumes", "error.expected.jsarray"),
                ("/networks(0)/mode", "error.unknown.enum.literal"),
                ("/secrets", "error.expected.jsobject"),
            ],
        ),
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
fn half_a_megabyte_of_mistakes_gives_a_bounded_answer() {
    let mistakes = errors(&pod(json!({"containers": vec![json!({"x": "y".repeat(60)}); 5000]})));
    assert_eq!(mistakes.len(), 257);
    assert!(mistakes.contains(&("/".to_owned(), "1745 further errors are not listed".to_owned())), "{:?}", mistakes.last());
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
    let read_as = |value: &Value| definition::read_as(value.to_string().as_bytes(), &key, None, &Settings::default());
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
    let messages = |old, new| definition::update_violations(&old, &new, false).into_iter().map(|v| v.message).collect::<Vec<_>>();
    assert_eq!(messages(disk(1, 64), disk(1, 64)), Vec::<String>::new());
    assert_eq!(
        messages(disk(1, 64), disk(2, 65)),
        ["persistent volumes cannot be updated", "mem cannot be updated if a pod has persistent volumes"]
    );
    assert_eq!(messages(read(&pod(json!({}))), read(&container(json!({"resources": {"mem": 9}})))), Vec::<String>::new());
}

#[test]
fn a_reservations_role_changes_by_force_only() {
    let of = |role: &str| {
        read(&both(
            json!({"id": "/g/h/web", "role": role, "volumes": [{"name": "v", "persistent": {"size": 1}}]}),
            json!({"volumeMounts": [{"name": "v", "mountPath": "m"}]}),
        ))
    };
    let mut other = of("g");
    other.role = Some("h".to_owned());
    let refused = definition::update_violations(&of("g"), &other, false);
    assert_eq!(refused[0].path, "/role");
    assert!(refused[0].message.starts_with("It is not possible to change the role for existing reservations."), "{refused:?}");
    assert!(refused[0].message.contains("previous role, g.") && refused[0].message.contains("new role, h."), "{refused:?}");
    assert_eq!(definition::update_violations(&of("g"), &other, true), []);
}

#[test]
fn the_role_in_force_stays_valid_when_the_servers_default_is_another_by_now() {
    let present = read(&pod(json!({})));
    let settings = Settings { default_role: "prod".to_owned(), ..Settings::default() };
    let answered = serde_json::to_vec(&present).unwrap();
    let read_as = |present| definition::read_as(&answered, &PodId::new("/g/web").unwrap(), present, &settings);
    assert_eq!(read_as(Some(&present)).unwrap().definition.role.as_deref(), Some("*"));
    assert_eq!(read_as(None).unwrap_err().to_string(), "/role: got *, expected one of: [prod, g]");
}

#[test]
fn lists_of_objects_are_bounded_and_one_too_long_is_not_read_to_its_end() {
    let many = |count: usize| vec![json!({"name": "a"}); count];
    let long = pod(json!({"networks": many(19_000), "containers": [merged(sound(), json!({"endpoints": many(19_000)}))]}));
    let found = errors(&long);
    for path in ["/networks", "/containers(0)/endpoints"] {
        assert!(found.contains(&(path.to_owned(), "error.maxLength".to_owned())), "{path}: {found:?}");
    }
    let containers = pod(json!({"containers": vec![json!({}); 170_000]}));
    let found = errors(&containers);
    assert!(found.contains(&("/containers".to_owned(), "error.maxLength".to_owned())), "{found:?}");
    assert!(!found.iter().any(|(path, _)| path.starts_with("/containers(1000)")), "{found:?}");
    let networks: Vec<Value> = (0..definition::MAX_OBJECTS).map(|n| json!({"name": format!("n{n}"), "mode": "container"})).collect();
    assert_eq!(errors(&pod(json!({"networks": networks}))), []);
}
