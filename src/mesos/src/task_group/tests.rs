use std::collections::BTreeMap;

use podium_proto::wire::resources::scalar_entry;
use podium_types::definition::{
    Artifact, Command, Endpoint, EnvironmentValue, Exec, HealthCheck, HttpScheme, Image, ImageKind, Lifecycle, Limit, Network, NetworkMode,
    PersistentKind, PersistentVolume, Probe, ResourceLimits, SecretSource, Volume, VolumeMount, VolumeSource,
};
use podium_types::id::PodId;
use uuid::Uuid;

use super::*;
use crate::matching::tests::definition as plain_definition;
use crate::secret::SecretValue;

struct Fixture {
    definition: PodDefinition,
    instance: InstanceId,
    placement: Placement,
    settings: Settings,
    secrets: SecretValues,
}

impl Fixture {
    fn new(host_ports: &[u16]) -> Self {
        let mut definition = plain_definition(0.5, host_ports, Vec::new());
        definition.id = PodId::new("/web/front").unwrap();
        let placement = Placement {
            agent_id: "S1".into(),
            hostname: "host1".into(),
            host_ports: vec![host_ports.iter().map(|port| Some(*port)).collect()],
            executor_resources: vec![scalar_entry("cpus", 100)],
            task_resources: vec![vec![scalar_entry("cpus", 500)]],
        };
        let instance = InstanceId { pod: definition.id.clone(), uuid: Uuid::from_u128(7) };
        Fixture { definition, instance, placement, settings: Settings::default(), secrets: SecretValues::new() }
    }

    fn container(&mut self) -> &mut Container {
        &mut self.definition.containers[0]
    }

    fn build(&self) -> Result<(v1::ExecutorInfo, v1::TaskInfo), BuildError> {
        let identity = Identity { framework_id: "F", cluster_id: "C", revision: 42, config: Version::from_millis(0) };
        let launch = Launch {
            definition: &self.definition,
            instance: &self.instance,
            incarnation: 3,
            placement: &self.placement,
            identity,
            settings: &self.settings,
            secrets: &self.secrets,
        };
        let (executor, mut group) = build(&launch)?;
        assert_eq!(group.tasks.len(), 1);
        Ok((executor, group.tasks.remove(0)))
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let variables = self.build().unwrap().1.command.unwrap().environment.unwrap().variables;
        variables.into_iter().map(|variable| (variable.name, variable.value.unwrap_or_default())).collect()
    }
}

fn labels_of(labels: Option<v1::Labels>) -> BTreeMap<String, String> {
    labels.unwrap().labels.into_iter().map(|label| (label.key, label.value.unwrap())).collect()
}

#[test]
fn executor_and_task_carry_ids_labels_and_what_validation_demands() {
    let mut fixture = Fixture::new(&[]);
    fixture.definition.labels.insert("team".into(), "a".into());
    fixture.container().labels.insert(label::CLUSTER.into(), "forged".into());
    fixture.container().lifecycle = Some(Lifecycle { kill_grace_period_seconds: Some(12.5) });
    let (executor, task) = fixture.build().unwrap();
    let uuid = fixture.instance.uuid;
    assert_eq!(executor.executor_id.value, format!("instance-web_front.{uuid}.3"));
    assert_eq!(task.task_id.value, format!("web_front.instance-{uuid}.c.3"));
    assert_eq!((executor.r#type(), executor.command.is_none()), (v1::executor_info::Type::Default, true));
    assert_eq!(executor.framework_id.unwrap().value, "F");
    assert_eq!(executor.container.as_ref().unwrap().r#type, v1::container_info::Type::Mesos as i32);
    assert_eq!(executor.container.unwrap().linux_info.unwrap().share_cgroups, Some(false));
    assert_eq!(task.container.unwrap().linux_info.unwrap().share_cgroups, Some(false));
    assert_eq!(task.agent_id.value, "S1");
    assert_eq!(task.kill_policy.unwrap().grace_period.unwrap().nanoseconds, 12_500_000_000);
    assert_eq!(executor.shutdown_grace_period.unwrap().nanoseconds, 17_500_000_000);
    let (of_executor, of_task) = (labels_of(executor.labels), labels_of(task.labels));
    assert_eq!(of_executor["team"], "a");
    assert!(!of_task.contains_key("team"));
    for labels in [of_executor, of_task] {
        let ours = [label::POD, label::CONFIG, label::INCARNATION, label::CLUSTER, label::REVISION].map(|key| labels[key].as_str());
        assert_eq!(ours, ["/web/front", "1970-01-01T00:00:00.000Z", "3", "C", "42"]);
    }
}

#[test]
fn commands_follow_the_entry_point_rules() {
    let image =
        Some(Image { kind: ImageKind::Docker, id: "nginx".into(), pull_config: None, force_pull: Some(true), labels: BTreeMap::new() });
    let argv = || Command::Argv(vec!["/bin/a".into(), "b".into()]);
    let exec = |command, override_entrypoint| Some(Exec { command, override_entrypoint });
    for (exec, image, shell, value, arguments) in [
        (None, image.clone(), false, None, 0),
        (exec(Command::Shell("sleep 1".into()), None), None, true, Some("sleep 1"), 0),
        (exec(Command::Shell(String::new()), None), image.clone(), false, None, 0),
        (exec(argv(), None), None, false, Some("/bin/a"), 2),
        (exec(argv(), None), image.clone(), false, Some("/bin/a"), 2),
        (exec(argv(), Some(false)), image.clone(), false, None, 2),
    ] {
        let mut fixture = Fixture::new(&[]);
        fixture.container().exec = exec.clone();
        fixture.container().image = image;
        let (_, task) = fixture.build().unwrap();
        let command = task.command.unwrap();
        assert_eq!((command.shell, command.value.as_deref(), command.arguments.len()), (Some(shell), value, arguments), "{exec:?}");
        if let Some(mesos) = task.container.unwrap().mesos {
            let image = mesos.image.unwrap();
            assert_eq!((image.docker.unwrap().name.as_str(), image.cached), ("nginx", Some(false)));
        }
    }
}

#[test]
fn the_environment_tells_a_task_who_it_is_and_where_its_siblings_listen() {
    let mut fixture = Fixture::new(&[8080]);
    fixture.definition.environment.insert("A".into(), EnvironmentValue::Text("pod".into()));
    fixture.definition.environment.insert("HOST".into(), EnvironmentValue::Text("mine".into()));
    fixture.container().environment.insert("A".into(), EnvironmentValue::Text("container".into()));
    fixture.container().labels.insert("a.b--c".into(), "x".into());
    fixture.container().endpoints[0].name = "http-api".into();
    let variables = fixture.variables();
    let instance = &fixture.instance;
    for (name, value) in [
        ("A", "container".to_owned()),
        ("HOST", "host1".to_owned()),
        ("MESOS_TASK_ID", format!("{instance}.c.3")),
        ("MESOS_EXECUTOR_ID", instance.executor_id(3)),
        ("MARATHON_APP_ID", "/web/front".to_owned()),
        ("MARATHON_APP_VERSION", "1970-01-01T00:00:00.000Z".to_owned()),
        ("MARATHON_CONTAINER_ID", "c".to_owned()),
        ("MARATHON_CONTAINER_RESOURCE_CPUS", "0.5".to_owned()),
        ("MARATHON_CONTAINER_RESOURCE_MEM", "32.0".to_owned()),
        ("MARATHON_CONTAINER_RESOURCE_GPUS", "0".to_owned()),
        ("MARATHON_APP_LABELS", "A_B_C".to_owned()),
        ("MARATHON_APP_LABEL_A_B_C", "x".to_owned()),
        ("ENDPOINT_HTTP_API", "8080".to_owned()),
        ("EP_HOST_HTTP_API", "8080".to_owned()),
    ] {
        assert_eq!(variables.get(name), Some(&value), "{name}");
    }
    assert!(!variables.contains_key("EP_CONTAINER_HTTP_API"));
}

#[test]
fn secrets_travel_as_values_and_a_missing_one_is_named() {
    let mut fixture = Fixture::new(&[]);
    fixture.definition.secrets.insert("db".into(), SecretSource { source: "prod/db".into() });
    fixture.container().environment.insert("PASSWORD".into(), EnvironmentValue::Secret("db".into()));
    let missing = fixture.build().unwrap_err().to_string();
    assert_eq!(missing, "secret `db` has no value: there is no file `prod/db` below --secrets-dir");
    fixture.secrets.insert("prod/db".into(), SecretValue::new("hunter2"));
    assert!(!format!("{:?}", fixture.secrets).contains("hunter2"));
    fixture.definition.volumes = vec![Volume { name: "v".into(), source: VolumeSource::Secret("db".into()) }];
    fixture.container().volume_mounts = vec![VolumeMount { name: "v".into(), mount_path: "key".into(), read_only: true }];
    let (_, task) = fixture.build().unwrap();
    let variables = task.command.unwrap().environment.unwrap().variables;
    let password = variables.iter().find(|variable| variable.name == "PASSWORD").unwrap();
    assert_eq!((password.r#type(), password.value.as_ref()), (v1::environment::variable::Type::Secret, None));
    assert_eq!(password.secret.as_ref().unwrap().value.as_ref().unwrap().data, "hunter2");
    let source = task.container.unwrap().volumes.remove(0).source.unwrap();
    assert_eq!((source.r#type(), source.secret.is_some()), (v1::volume::source::Type::Secret, true));
}

#[test]
fn volumes_are_shared_through_the_executors_sandbox_or_lie_on_the_host() {
    let mut fixture = Fixture::new(&[]);
    fixture.definition.volumes = vec![
        Volume { name: "data".into(), source: VolumeSource::Ephemeral },
        Volume { name: "etc".into(), source: VolumeSource::Host("/etc".into()) },
    ];
    let mount = |name: &str, read_only| VolumeMount { name: name.into(), mount_path: format!("m/{name}"), read_only };
    fixture.container().volume_mounts = vec![mount("data", false), mount("etc", true)];
    let volumes = fixture.build().unwrap().1.container.unwrap().volumes;
    let sandbox = volumes[0].source.as_ref().unwrap().sandbox_path.as_ref().unwrap();
    assert_eq!((sandbox.r#type(), sandbox.path.as_str()), (v1::volume::source::sandbox_path::Type::Parent, "volumes/data"));
    assert_eq!((volumes[0].container_path.as_str(), volumes[0].mode), ("m/data", v1::volume::Mode::Rw as i32));
    assert_eq!((volumes[1].host_path.as_deref(), volumes[1].mode), (Some("/etc"), v1::volume::Mode::Ro as i32));
}

#[test]
fn a_persistent_volume_is_refused_where_no_disk_could_be_one_for_it() {
    let mut fixture = Fixture::new(&[]);
    let mut build = |name: &str, kind, profile: Option<&str>, like: &[&str]| {
        let path_like = like.iter().map(|like| (*like).to_owned()).collect();
        let volume = PersistentVolume { kind, size: 1, max_size: None, profile_name: profile.map(str::to_owned), path_like };
        fixture.definition.volumes = vec![Volume { name: name.into(), source: VolumeSource::Persistent(volume) }];
        fixture.build().map(|_| ()).map_err(|error| error.to_string())
    };
    for (kind, profile, like) in
        [(PersistentKind::Root, None, &[".*"][..]), (PersistentKind::Path, Some("fast"), &["/mnt/.*"]), (PersistentKind::Mount, None, &[])]
    {
        assert_eq!(build("v", kind, profile, like), Ok(()), "{kind:?}");
        assert!(build("a/b", kind, profile, like).unwrap_err().contains("its name becomes that of a folder"));
    }
    assert!(
        build("v", PersistentKind::Root, Some("fast"), &[]).unwrap_err().contains("has no profile: ask for the type `path` or `mount`")
    );
    assert!(build("v", PersistentKind::Root, None, &["/mnt/.*"]).unwrap_err().contains("has no path that could match"));
}

fn check(probe: Probe) -> Option<HealthCheck> {
    Some(HealthCheck {
        probe,
        grace_period_seconds: 1,
        interval_seconds: 2,
        max_consecutive_failures: 3,
        timeout_seconds: 1,
        delay_seconds: 4,
    })
}

#[test]
fn health_checks_ask_the_port_at_which_the_container_listens() {
    let mut fixture = Fixture::new(&[8080]);
    fixture.container().health_check = check(Probe::Http { endpoint: "e0".into(), path: Some("/ping".into()), scheme: HttpScheme::Https });
    let sent = fixture.build().unwrap().1.health_check.unwrap();
    assert_eq!(sent.r#type(), v1::health_check::Type::Http);
    let http = sent.http.unwrap();
    assert_eq!((http.port, http.path.as_deref(), http.scheme.as_deref()), (8080, Some("/ping"), Some("https")));
    assert_eq!((sent.delay_seconds, sent.consecutive_failures, sent.grace_period_seconds), (Some(4.0), Some(3), Some(1.0)));

    fixture.definition.networks = vec![Network { name: Some("net".into()), mode: NetworkMode::Container, labels: BTreeMap::new() }];
    fixture.container().endpoints[0].container_port = Some(80);
    fixture.container().health_check = check(Probe::Tcp { endpoint: "e0".into() });
    assert_eq!(fixture.build().unwrap().1.health_check.unwrap().tcp.unwrap().port, 80);

    fixture.container().health_check = check(Probe::Exec { command: Command::Shell("true".into()) });
    assert_eq!(fixture.build().unwrap().1.health_check.unwrap().command.unwrap().value.as_deref(), Some("true"));

    let mut portless = Fixture::new(&[8080]);
    portless.placement.host_ports = vec![vec![None]];
    portless.container().health_check = check(Probe::Tcp { endpoint: "e0".into() });
    assert_eq!(portless.build().unwrap_err().to_string(), "endpoint `e0` of container `c` has no hostPort to check");
}

#[test]
fn container_networks_map_ports_and_are_told_to_discovery() {
    let mut fixture = Fixture::new(&[31_000]);
    let endpoint = |name: &str, container_port, host_port| Endpoint {
        name: name.into(),
        container_port,
        host_port,
        protocol: vec!["tcp".into(), "udp".into()],
        labels: BTreeMap::new(),
        network_names: Vec::new(),
    };
    fixture.container().endpoints = vec![endpoint("a", Some(80), Some(31_000)), endpoint("b", Some(81), None)];
    fixture.placement.host_ports = vec![vec![Some(31_000), None]];
    fixture.definition.networks = vec![Network { name: None, mode: NetworkMode::Container, labels: BTreeMap::new() }];
    assert_eq!(fixture.build().unwrap_err(), BuildError::NetworkName { index: 0 });
    fixture.settings.default_network_name = Some("dcos".into());
    let (executor, task) = fixture.build().unwrap();
    let network = executor.container.unwrap().network_infos.remove(0);
    assert_eq!(network.name.as_deref(), Some("dcos"));
    let mappings: Vec<_> =
        network.port_mappings.iter().map(|one| (one.host_port, one.container_port, one.protocol.clone().unwrap())).collect();
    assert_eq!(mappings, [(31_000, 80, "tcp".to_owned()), (31_000, 80, "udp".to_owned())]);
    let discovery = task.discovery.unwrap();
    assert_eq!(discovery.name.as_deref(), Some("front.web"));
    let ports = discovery.ports.unwrap().ports;
    assert_eq!(ports.iter().map(|port| port.number).collect::<Vec<_>>(), [31_000, 31_000, 81, 81]);
    assert_eq!(labels_of(ports[0].labels.clone())["network-scope"], "host");
    assert_eq!(labels_of(ports[2].labels.clone())["network-name"], "dcos");
    assert_eq!(fixture.variables()["ENDPOINT_B"], "81");

    fixture.definition.networks = vec![Network { name: None, mode: NetworkMode::Bridge, labels: BTreeMap::new() }];
    assert_eq!(fixture.build().unwrap().0.container.unwrap().network_infos[0].name.as_deref(), Some("mesos-bridge"));
}

#[test]
fn artifacts_limits_users_and_terminals_are_copied() {
    let mut fixture = Fixture::new(&[]);
    fixture.definition.user = Some("pod".into());
    let container = fixture.container();
    container.artifacts =
        vec![Artifact { uri: "http://h/a.tgz".into(), extract: false, executable: true, cache: true, dest_path: Some("x/a".into()) }];
    container.resource_limits = Some(ResourceLimits { cpus: Some(Limit::Unlimited), mem: Some(Limit::Amount(64.0)) });
    container.tty = Some(true);
    let (_, task) = fixture.build().unwrap();
    let command = task.command.unwrap();
    assert_eq!(command.user.as_deref(), Some("pod"));
    let uri = &command.uris[0];
    assert_eq!((uri.extract, uri.executable, uri.cache, uri.output_file.as_deref()), (Some(false), Some(true), Some(true), Some("x/a")));
    assert_eq!((task.limits["cpus"].value, task.limits["mem"].value), (f64::INFINITY, 64.0));
    assert!(task.container.unwrap().tty_info.is_some());
    fixture.container().user = Some("own".into());
    assert_eq!(fixture.build().unwrap().1.command.unwrap().user.as_deref(), Some("own"));
}
