//! Promise 6, with a real store and the embedded engine: a store that is not the one that launched what runs kills
//! nothing, says so, and goes on when an operator has said what is to become of every unknown instance.

use podium_controllers::runtime::{Controller, Now, RandomIds};
use podium_controllers::scaling::{self, Scaling};
use podium_controllers::upgrade::{self, Intent, Upgrade};
use podium_proto::mesos::v1::TaskState;
use podium_proto::records::observed::Reservation;
use podium_proto::records::order::Kind;
use podium_proto::records::unknown_instance::Why;
use podium_proto::records::{Framework, Order};
use podium_store::codec;
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use podium_store::{Key, Store};
use podium_types::id::{InstanceId, PodId};
use uuid::Uuid;

use super::gateway::Cluster;
use super::replica::{delete, push, put, until, until_runs};
use crate::world::{Push, World};

async fn write(store: &Store, ops: impl IntoIterator<Item = Op>) {
    let group = ops.into_iter().fold(Group::global(), Group::then);
    assert!(store.commit(group).await.committed().is_some());
}

/// The pod's instances, as if the store had never heard of them.
async fn forget(cluster: &Cluster, pod: &PodId) -> Vec<Uuid> {
    let uuids: Vec<Uuid> = cluster.index.read(|state| state.pod(pod).unwrap().instances.keys().copied().collect());
    let keys = uuids.iter().flat_map(|uuid| [Key::Instance(pod.clone(), *uuid), Key::Observed(pod.clone(), *uuid)]);
    write(&cluster.store, keys.map(Op::Delete)).await;
    uuids
}

async fn order(cluster: &Cluster, kind: Kind, pod: &PodId, uuids: &[Uuid]) {
    let ids = uuids.iter().map(|uuid| InstanceId { pod: pod.clone(), uuid: *uuid }.to_string()).collect();
    let order = Order { kind: kind.into(), ids, ..Order::default() };
    write(&cluster.store, [Op::record(Key::Order(Uuid::new_v4()), order)]).await;
    until(&cluster.index, "the order is carried out", |state| state.orders().is_empty()).await;
}

fn unknown(view: &PodView) -> Vec<Why> {
    view.unknown.iter().flat_map(|held| &held.value.instances).map(|one| one.why()).collect()
}

fn status_tells_quarantine(state: &IndexState, pod: &PodId) -> bool {
    let status = state.pod(pod).and_then(|view| view.status.as_ref());
    status.is_some_and(|held| String::from_utf8_lossy(&held.value).contains("quarantine since"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_forgotten_what_runs_doubles_nothing_kills_nothing_and_adopts_on_an_operators_word() {
    let (mut cluster, web) = Cluster::with_pod(3).await;
    let before = cluster.running().await;
    cluster.stop_controllers().await;
    let uuids = forget(&cluster, &web).await;
    cluster.start_controllers();
    until(&cluster.index, "quarantine", |state| state.quarantine().is_some() && status_tells_quarantine(state, &web)).await;
    assert_eq!(cluster.index.read(|state| unknown(state.pod(&web).unwrap())), vec![Why::Forgotten; 3]);

    // Fewer are wanted: none is stopped, and one that is not asked for by anybody is not started either.
    push(&cluster.store, &web, 2, "sleep 1000").await;
    until(&cluster.index, "the new number", |state| {
        state.pod(&web).unwrap().accepted.as_ref().is_some_and(|accepted| accepted.value.version_ms > accepted.value.config_ms)
    })
    .await;
    assert_eq!(cluster.running().await, before);

    order(&cluster, Kind::Adopt, &web, &uuids).await;
    until(&cluster.index, "the end of the quarantine", |state| state.quarantine().is_none()).await;
    until_runs(&cluster.index, &web, 2).await;
    let after = cluster.tasks(&web);
    assert!(after.iter().all(|task| before.contains(task)), "{before:?} became {after:?}");
    delete(&cluster.store, Key::Spec(web.clone())).await;
    super::gateway::until_gone(&cluster.index, &web).await;
    assert_eq!(cluster.running().await, Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_cluster_id_kills_nothing_not_even_of_a_deleted_pod_until_an_operator_confirms() {
    let (mut cluster, web) = Cluster::with_pod(2).await;
    let before = cluster.running().await;
    cluster.stop_controllers().await;
    let known = cluster.index.read(|state| state.framework().unwrap().value.clone());
    write(&cluster.store, [Op::Put(Key::Framework, codec::encode(Framework { cluster_id: "another".to_owned(), ..known }))]).await;
    delete(&cluster.store, Key::Spec(web.clone())).await;
    cluster.start_controllers();
    until(&cluster.index, "quarantine", |state| state.quarantine().is_some() && status_tells_quarantine(state, &web)).await;
    let reason = cluster.index.read(|state| state.quarantine().unwrap().value.reason.clone());
    assert!(reason.contains("by another store"), "{reason}");
    assert_eq!(cluster.running().await, before);

    let uuids: Vec<Uuid> = cluster.index.read(|state| state.pod(&web).unwrap().instances.keys().copied().collect());
    order(&cluster, Kind::Adopt, &web, &uuids).await;
    super::gateway::until_gone(&cluster.index, &web).await;
    assert_eq!(cluster.running().await, Vec::<String>::new(), "now the deletion takes place");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_instances_of_a_pod_that_is_not_there_are_listed_until_an_operator_has_them_killed() {
    let (mut cluster, web) = Cluster::with_pod(1).await;
    cluster.stop_controllers().await;
    let uuids = forget(&cluster, &web).await;
    let rest = cluster.index.read(|state| state.pod(&web).unwrap().keys());
    write(
        &cluster.store,
        rest.into_iter().filter(|(key, _)| !matches!(key, Key::Instance(..) | Key::Observed(..))).map(|(key, _)| Op::Delete(key)),
    )
    .await;
    cluster.start_controllers();
    until(&cluster.index, "quarantine", |state| {
        state.quarantine().is_some() && state.pod(&web).is_some_and(|view| !unknown(view).is_empty())
    })
    .await;
    assert_eq!(cluster.running().await.len(), 1);
    // A process that takes over finds what the last one wrote, although the store has moved on.
    cluster.replace_controllers().await;
    order(&cluster, Kind::Kill, &web, &uuids).await;
    until(&cluster.index, "the end of it all", |state| state.quarantine().is_none() && state.pod(&web).is_none()).await;
    assert_eq!(cluster.running().await, Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_about_what_an_older_store_finds_reserved_is_added_to_the_framework_record() {
    let mut cluster = Cluster::start().await;
    let db = PodId::new("/db").unwrap();
    let json = r#"{"id":"/db","volumes":[{"name":"v","persistent":{"size":8}}],"containers":[{"name":"c",
        "exec":{"command":{"shell":"sleep 1000"}},"resources":{"cpus":0.1,"mem":32},"volumeMounts":[{"name":"v","mountPath":"v"}]}]}"#;
    until(&cluster.index, "the framework record", |state| state.framework().is_some()).await;
    let record = cluster.index.read(|state| state.framework().unwrap().value.clone());
    // So that it has come further than the other will.
    for _ in 0..200 {
        write(&cluster.store, [Op::record(Key::Framework, record.clone())]).await;
    }
    put(&cluster.store, Key::Spec(db.clone()), json.to_owned()).await;
    until_runs(&cluster.index, &db, 1).await;

    cluster.restore_its_beginning().await;
    put(&cluster.store, Key::Spec(db.clone()), json.to_owned()).await;
    until(&cluster.index, "quarantine", |state| state.quarantine().is_some_and(|held| held.value.reason.starts_with("disk is reserved")))
        .await;
    write(&cluster.store, [Op::record(Key::Order(Uuid::new_v4()), Order { kind: Kind::Adopt.into(), ..Order::default() })]).await;
    until(&cluster.index, "the end of the quarantine", |state| state.quarantine().is_none()).await;
    until(&cluster.index, "the word", |state| state.framework().unwrap().value.vouched_revision > 200).await;
    let kept = cluster.index.read(|state| state.framework().unwrap().value.clone());
    assert_eq!(Framework { vouched_revision: 0, ..kept }, record, "all else stays");
    cluster.stop().await;
}

#[test]
fn a_deletion_does_not_end_over_an_instance_that_was_taken_on_and_only_one_of_the_two_can_be_written() {
    let mut world = World::new(1);
    world.push(&Push::default());
    world.settle();
    world.delete();
    let mut view = world.view();
    let (uuid, _) = view.instances.pop_first().unwrap();
    view.sets.clear();
    view.observed.get_mut(&uuid).unwrap().value.adopted = true;
    let now = Now(world.now);
    let accepted = Key::Accepted(view.id.clone());
    let is_counted_first = |view: &PodView| {
        assert!(!upgrade::decide(view, now).intents.contains(&Intent::FinishDeletion));
        let adoption = Scaling.apply(view, scaling::decide(view, now).intents, now, &mut RandomIds);
        let ops: Vec<&Op> = adoption.iter().flat_map(|group| &group.ops).collect();
        assert!(ops.iter().any(|op| matches!(op, Op::Put(Key::Instance(_, taken), _) if *taken == uuid)), "{ops:?}");
        assert!(ops.iter().any(|op| matches!(op, Op::Put(key, _) if *key == accepted)), "{ops:?}");
    };
    is_counted_first(&view);
    // Nor where it has ended before it was counted, and is its data.
    let observed = &mut view.observed.get_mut(&uuid).unwrap().value;
    observed.reservation = Some(Reservation::default());
    observed.tasks.iter_mut().for_each(|task| task.state = Some(TaskState::TaskFailed.into()));
    is_counted_first(&view);

    view.observed.clear();
    let end = upgrade::decide(&view, now).intents;
    assert_eq!(end, [Intent::FinishDeletion]);
    let revision = view.accepted.as_ref().unwrap().mod_revision;
    assert!(Upgrade.apply(&view, end, now, &mut RandomIds)[0].compares.contains(&Compare::Unchanged(accepted, revision)));
}

#[test]
fn a_number_is_lowered_only_where_there_is_no_quarantine_at_that_moment() {
    let mut world = World::new(3);
    world.push(&Push { instances: 3, ..Push::default() });
    let rests = |world: &World| {
        let (view, now) = (world.view(), Now(world.now));
        let groups = Upgrade.apply(&view, upgrade::decide(&view, now).intents, now, &mut RandomIds);
        assert!(!groups.is_empty());
        groups.iter().any(|group| group.compares.contains(&Compare::Absent(Key::Quarantine)))
    };
    assert!(!rests(&world), "more may run at any time");
    world.settle();
    world.push(&Push { instances: 1, restart: false, ..Push::default() });
    assert!(rests(&world));
}
