//! What ACCEPT refuses, and how.

use podium_proto::mesos::v1::environment::{self, Variable};
use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::task_status::{Reason, Source};
use podium_proto::mesos::v1::{
    CommandInfo, ContainerInfo, DurationInfo, Environment, ExecutorInfo, HealthCheck, KillPolicy, NetworkInfo, Offer, OfferId, OperationId,
    OperationState, Resource, TaskInfo, TaskState, Volume, container_info, executor_info, health_check, value,
};
use podium_proto::wire::ranges::RangeSet;
use podium_proto::wire::resources::{ranges_entry, scalar_entry};

use super::{World, agents};
use crate::client::{Client, a_task, info, launch_group};

/// A change that makes a good group a bad one.
type Spoil = fn(&mut ExecutorInfo, &mut Vec<TaskInfo>);

fn ports(range: std::ops::RangeInclusive<u64>) -> Resource {
    ranges_entry("ports", &std::iter::once(range).collect::<RangeSet>())
}

fn volume(change: impl FnOnce(&mut Volume)) -> Option<ContainerInfo> {
    let mut volume = Volume { container_path: "data".to_owned(), mode: 1, ..Volume::default() };
    change(&mut volume);
    Some(ContainerInfo { r#type: container_info::Type::Mesos.into(), volumes: vec![volume], ..ContainerInfo::default() })
}

fn command(variable: Variable) -> Option<CommandInfo> {
    Some(CommandInfo { environment: Some(Environment { variables: vec![variable] }), ..CommandInfo::default() })
}

const BAD_GROUPS: &[(&str, Spoil)] = &[
    ("contains no tasks", |_, tasks| tasks.clear()),
    ("invalid characters", |_, tasks| tasks[0].task_id.value = "a/b".to_owned()),
    ("empty", |_, tasks| tasks[0].task_id.value.clear()),
    ("duplicate ID", |_, tasks| tasks[1].task_id = tasks[0].task_id.clone()),
    ("duplicate ID: taken", |_, tasks| tasks[1].task_id.value = "taken".to_owned()),
    ("invalid agent", |_, tasks| tasks[0].agent_id.value = "another".to_owned()),
    ("kill_policy", |_, tasks| tasks[0].kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: -1 }) })),
    ("max_completion_time", |_, tasks| tasks[0].max_completion_time = Some(DurationInfo { nanoseconds: -1 })),
    ("'type'", |_, tasks| tasks[0].health_check = Some(HealthCheck::default())),
    ("'http'", |_, tasks| {
        tasks[0].health_check = Some(HealthCheck { r#type: Some(health_check::Type::Http.into()), ..HealthCheck::default() });
    }),
    ("non-negative", |_, tasks| {
        let tcp = Some(health_check::TcpCheckInfo { port: 1, ..Default::default() });
        let kind = Some(health_check::Type::Tcp.into());
        tasks[0].health_check = Some(HealthCheck { r#type: kind, tcp, interval_seconds: Some(-1.0), ..HealthCheck::default() });
    }),
    ("not joining parent's network", |_, tasks| {
        let tcp = Some(health_check::TcpCheckInfo { port: 1, ..Default::default() });
        tasks[0].health_check = Some(HealthCheck { r#type: Some(health_check::Type::Tcp.into()), tcp, ..HealthCheck::default() });
        let network_infos = vec![NetworkInfo { name: Some("net".to_owned()), ..NetworkInfo::default() }];
        tasks[0].container = Some(ContainerInfo { r#type: container_info::Type::Mesos.into(), network_infos, ..ContainerInfo::default() });
    }),
    ("no resources", |_, tasks| tasks[0].resources.clear()),
    ("value <= 0", |_, tasks| tasks[0].resources[0].scalar = Some(value::Scalar { value: -1.0 })),
    ("Unsupported resource type", |_, tasks| tasks[0].resources[0].r#type = value::Type::Text.into()),
    ("unobtainium(allocated: pods):1; disk(allocated: pods):10 required", |_, tasks| {
        tasks[0].resources.push(scalar_entry("unobtainium", 1000))
    }),
    ("unsigned integer", |_, tasks| tasks[0].resources.push(scalar_entry("gpus", 500))),
    ("multiple allocation roles", |_, tasks| {
        let info = podium_proto::mesos::v1::resource::AllocationInfo { role: Some("another".to_owned()) };
        tasks[0].resources[0].allocation_info = Some(info);
    }),
    ("must have a value", |_, tasks| tasks[0].command = command(Variable { name: "A".to_owned(), ..Variable::default() })),
    ("'UNKNOWN'", |_, tasks| {
        let unknown = Some(environment::variable::Type::Unknown.into());
        tasks[0].command = command(Variable { name: "A".to_owned(), value: Some("1".to_owned()), r#type: unknown, ..Variable::default() });
    }),
    ("Only one of them", |_, tasks| tasks[0].container = volume(|_| {})),
    ("'source.type' is unknown", |_, tasks| tasks[0].container = volume(|volume| volume.source = Some(Default::default()))),
    ("'share_cgroups' field is set to 'false'", |_, tasks| {
        tasks[0].limits.insert("cpus".to_owned(), value::Scalar { value: 1.0 });
    }),
    ("TASK_RESOURCE_LIMITS", |_, tasks| {
        tasks[0].limits.insert("cpus".to_owned(), value::Scalar { value: 1.0 });
        let linux_info = Some(podium_proto::mesos::v1::LinuxInfo { share_cgroups: Some(false), ..Default::default() });
        tasks[0].container = Some(ContainerInfo { r#type: container_info::Type::Mesos.into(), linux_info, ..ContainerInfo::default() });
    }),
    ("Docker", |_, tasks| {
        let docker = Some(container_info::DockerInfo { image: "x".to_owned(), ..Default::default() });
        tasks[0].container = Some(ContainerInfo { r#type: container_info::Type::Docker.into(), docker, ..ContainerInfo::default() });
    }),
    ("'ExecutorInfo.type' must be set", |executor, _| executor.r#type = None),
    ("Unknown executor type", |executor, _| executor.r#type = Some(executor_info::Type::Unknown.into())),
    ("'ExecutorInfo.command' must not be set", |executor, _| executor.command = Some(CommandInfo::default())),
    ("'ExecutorInfo.command' must be set", |executor, _| executor.r#type = Some(executor_info::Type::Custom.into())),
    ("must be 'MESOS'", |executor, _| {
        executor.container = Some(ContainerInfo { r#type: container_info::Type::Docker.into(), ..ContainerInfo::default() });
    }),
    ("'..' is disallowed", |executor, _| executor.executor_id.value = "..".to_owned()),
    ("must be set", |executor, _| executor.framework_id = None),
    ("invalid FrameworkID", |executor, _| executor.framework_id.as_mut().unwrap().value = "another".to_owned()),
    ("uses less CPUs (0.009)", |executor, _| executor.resources[0] = scalar_entry("cpus", 9)),
    ("uses less memory (31MB)", |executor, _| executor.resources[1] = scalar_entry("mem", 31_999)),
    ("uses no disk", |executor, _| drop(executor.resources.remove(2))),
    ("is different from executor", |executor, tasks| {
        let other = ExecutorInfo { name: Some("other".to_owned()), ..executor.clone() };
        tasks[0].executor = Some(other);
    }),
    ("overlapping resources", |_, tasks| tasks.iter_mut().for_each(|task| task.resources.push(ports(10_000..=10_000)))),
    ("overlapping resources", |executor, tasks| {
        executor.resources.push(ports(10_000..=10_005));
        tasks[0].resources.push(ports(10_005..=10_006));
    }),
    ("cpus(allocated: pods):16.11; mem(allocated: pods):96; disk(allocated: pods):10 required", |_, tasks| {
        tasks[0].resources[0] = scalar_entry("cpus", 16_000)
    }),
    ("ports(allocated: pods):[80-80]", |_, tasks| tasks[0].resources.push(ports(80..=80))),
    ("share_cgroups", |_, tasks| {
        let linux_info = Some(podium_proto::mesos::v1::LinuxInfo { share_cgroups: Some(false), ..Default::default() });
        tasks[0].container = Some(ContainerInfo { r#type: container_info::Type::Mesos.into(), linux_info, ..ContainerInfo::default() });
    }),
];

fn good_group(client: &Client, offer: &Offer, number: usize) -> (ExecutorInfo, Vec<TaskInfo>) {
    let tasks = vec![a_task(&format!("a{number}"), offer, &[]), a_task(&format!("b{number}"), offer, &[])];
    (client.executor(&format!("e{number}")), tasks)
}

#[tokio::test]
async fn every_rule_refuses_the_whole_group_with_its_reason() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("first", vec![a_task("taken", &offer, &[])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    client.reach("taken", TaskState::TaskRunning).await;
    for (number, (word, spoil)) in BAD_GROUPS.iter().enumerate() {
        let offer = client.offer().await;
        let (mut executor, mut tasks) = good_group(&client, &offer, number);
        spoil(&mut executor, &mut tasks);
        let ids: Vec<String> = tasks.iter().map(|task| task.task_id.value.clone()).collect();
        client.accept(&[&offer], vec![launch_group(executor, tasks)], 0.0).await;
        for id in ids {
            let status = client.update().await;
            assert_eq!((status.task_id.value.as_str(), status.state), (id.as_str(), TaskState::TaskError.into()), "{word}: {status:?}");
            assert_eq!((status.source, status.reason), (Some(Source::Master.into()), Some(Reason::TaskGroupInvalid.into())), "{word}");
            assert!(status.message.as_ref().unwrap().contains(word) && status.uuid.is_none(), "{word}: {status:?}");
        }
    }
    // After all that nothing is taken, and nothing runs but the first.
    client.reconcile(&[]).await;
    assert_eq!(client.update().await.task_id.value, "taken");
    let offer = client.offer().await;
    assert_eq!(offer.resources.iter().find(|resource| resource.name == "cpus").unwrap().scalar.unwrap().value, 15.89);
    world.stop().await;
}

#[tokio::test]
async fn one_bad_operation_does_not_stop_the_others_and_resources_are_counted_across_them() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let mut big = a_task("big", &offer, &[]);
    big.resources[0] = scalar_entry("cpus", 9_000);
    let mut too_much = a_task("too-much", &offer, &[]);
    too_much.resources[0] = scalar_entry("cpus", 9_000);
    let reserve = |id: Option<&str>| Operation {
        id: id.map(|value| OperationId { value: value.to_owned() }),
        r#type: Some(operation::Type::Reserve.into()),
        reserve: Some(operation::Reserve::default()),
        ..Operation::default()
    };
    let launch = Operation {
        r#type: Some(operation::Type::Launch.into()),
        launch: Some(operation::Launch { task_infos: vec![a_task("single", &offer, &[])] }),
        ..Operation::default()
    };
    let mut identified = client.group("e9", vec![a_task("identified", &offer, &[])]);
    identified.id = Some(OperationId { value: "op".to_owned() });
    let operations = vec![
        client.group("e1", vec![big]),
        client.group("e2", vec![too_much]),
        reserve(None),
        reserve(Some("op-1")),
        launch,
        identified,
        client.group("e3", vec![a_task("small", &offer, &[])]),
    ];
    client.accept(&[&offer], operations, 3600.0).await;
    let mut operation = None;
    let mut refused = Vec::new();
    let mut running = std::collections::BTreeSet::new();
    while running.len() < 3 {
        let event = client.event().await.unwrap();
        operation = event.update_operation_status.map(|update| update.status).or(operation);
        let Some(status) = event.update.map(|update| update.status) else { continue };
        client.acknowledge(&status).await;
        if status.state == i32::from(TaskState::TaskError) {
            refused.push((status.task_id.value.clone(), Reason::try_from(status.reason.unwrap()).unwrap()));
        } else if status.state == i32::from(TaskState::TaskRunning) {
            running.insert(status.task_id.value.clone());
        }
    }
    let operation = operation.expect("the operation with an id is answered");
    assert_eq!((operation.operation_id.unwrap().value.as_str(), operation.state), ("op-1", OperationState::OperationError.into()));
    let expected = [("too-much", Reason::TaskGroupInvalid), ("identified", Reason::TaskGroupInvalid)];
    assert_eq!(refused, expected.map(|(task, reason)| (task.to_owned(), reason)));
    assert_eq!(running.into_iter().collect::<Vec<_>>(), ["big", "single", "small"]);
    world.stop().await;
}

#[tokio::test]
async fn an_accept_with_a_bad_offer_is_void_and_returns_the_good_ones() {
    let world = World::start(agents(2)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let first = client.offer().await;
    let second = client.offer().await;
    let unknown = OfferId { value: "nobody's".to_owned() };
    let cases = [vec![], vec![unknown.clone()], vec![first.id.clone(), first.id.clone()], vec![second.id.clone(), unknown]];
    for (number, ids) in cases.into_iter().enumerate() {
        let task = format!("t{number}");
        let group = client.group("e", vec![a_task(&task, &first, &[])]);
        client.accept_ids(ids, vec![group], 3600.0).await;
        let status = client.update().await;
        assert_eq!((status.task_id.value.as_str(), status.state), (task.as_str(), TaskState::TaskDropped.into()));
        assert_eq!((status.reason, status.uuid), (Some(Reason::InvalidOffers.into()), None));
    }
    // Returned without filter, and so offered again.
    let (third, fourth) = (client.offer().await, client.offer().await);
    assert!(third.id != first.id && fourth.id != second.id);
    let group = client.group("e", vec![a_task("both", &third, &[])]);
    client.accept(&[&third, &fourth], vec![group], 0.0).await;
    assert_eq!(client.update().await.reason, Some(Reason::InvalidOffers.into()), "two agents in one call");
    world.stop().await;
}

#[tokio::test]
async fn a_running_executor_takes_another_group_only_if_it_is_the_same() {
    let world = World::start(agents(1)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t1", &offer, &[])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    client.reach("t1", TaskState::TaskRunning).await;
    let offer = client.offer().await;
    assert_eq!(offer.executor_ids.iter().map(|id| id.value.as_str()).collect::<Vec<_>>(), ["e"]);
    let renamed = ExecutorInfo { name: Some("renamed".to_owned()), ..client.executor("e") };
    client.accept(&[&offer], vec![launch_group(renamed, vec![a_task("t2", &offer, &[])])], 0.0).await;
    let status = client.update().await;
    assert!(status.message.as_ref().unwrap().contains("not compatible"), "{status:?}");
    let offer = client.offer().await;
    let group = client.group("e", vec![a_task("t3", &offer, &[])]);
    client.accept(&[&offer], vec![group], 0.0).await;
    client.reach("t3", TaskState::TaskRunning).await;
    // The executor is counted once.
    let offer = client.offer().await;
    assert_eq!(offer.resources.iter().find(|resource| resource.name == "cpus").unwrap().scalar.unwrap().value, 15.79);
    world.stop().await;
}
