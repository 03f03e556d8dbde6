//! The index against a server.

use std::collections::BTreeMap;
use std::time::Duration;

use podium_proto::records;
use podium_store::index::Kinds;
use podium_store::writer::{Group, Op};
use podium_store::{Index, Key, Kind, Store};
use podium_types::id::Version;
use uuid::Uuid;

use crate::harness::{Flavour, Proxy, Server, commit, connect, create, indexed, instance, pod, session, spec, until, within};

crate::against_every_server!(
    equals_a_fresh_list_after_random_writes,
    goes_on_where_it_was_after_lost_connections,
    learns_of_deletions_that_were_compacted_away,
    survives_a_restart_of_the_server,
    notices_that_the_store_was_replaced,
    notices_a_restored_backup_that_was_written_to_since,
    takes_a_restarted_store_with_a_deletion_at_its_end_for_the_same,
    notices_that_a_connection_has_fallen_silent,
    asks_for_less_where_a_page_would_be_too_large,
    reads_more_than_one_page_and_more_than_four_mebibytes,
    catches_up_with_a_large_backlog_in_whole_transactions,
    wakes_only_for_the_kinds_asked_for,
    waits_for_a_revision_but_not_for_ever,
    leaves_records_of_a_newer_schema_alone,
    passes_over_keys_that_are_not_ours,
);

/// Every key that the index holds, with its revision.
fn contents(index: &Index) -> BTreeMap<String, i64> {
    index.read(|state| {
        let pods = state.pods().flat_map(|pod| pod.keys());
        let framework = state.framework().map(|held| (Key::Framework, held.mod_revision));
        pods.chain(framework).map(|(key, revision)| (key.to_string(), revision)).collect()
    })
}

/// Every key of ours that the server holds, with its revision; elections aside.
async fn listed(server: &Server) -> BTreeMap<String, i64> {
    let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
    let answer = server.etcd().await.get("/podium/", Some(options)).await.unwrap();
    let name = |kv: &etcd_client::KeyValue| kv.key_str().unwrap().trim_start_matches("/podium/").to_owned();
    answer.kvs().iter().map(|kv| (name(kv), kv.mod_revision())).filter(|(key, _)| !key.starts_with("elections/")).collect()
}

/// A cheap generator, so that a failing run can be repeated by its seed.
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn random_key(random: &mut Random) -> Key {
    let pod = pod(["/a", "/a/b", "/a.b", "/c"][random.below(4) as usize]);
    let version = Version::from_millis(1_600_000_000_000 + i64::try_from(random.below(3)).unwrap());
    let uuid = Uuid::from_u128(u128::from(random.below(3)));
    match random.below(14) {
        0 => Key::Spec(pod),
        1 => Key::Accepted(pod),
        2 => Key::Version(pod, version),
        3 => Key::Verdict(pod),
        4 => Key::Deployment(pod),
        5 => Key::Set(pod, version),
        6 => Key::Instance(pod, uuid),
        7 => Key::Delay(pod),
        8 => Key::Observed(pod, uuid),
        9 => Key::Reach(pod, uuid),
        10 => Key::Tombstone(pod, uuid),
        11 => Key::Status(pod),
        12 => Key::Deleted(pod),
        _ => Key::Framework,
    }
}

pub async fn write_at_random(store: &Store, random: &mut Random, times: usize) -> i64 {
    let mut revision = 0;
    for _ in 0..times {
        let mut group = Group::global();
        for _ in 0..=random.below(5) {
            let key = random_key(random);
            if group.ops.iter().all(|op| *op.key() != key) {
                // No bytes are a record of every kind: all its fields have their defaults.
                group = group.then(if random.below(3) == 0 { Op::Delete(key) } else { Op::Put(key, Default::default()) });
            }
        }
        revision = revision.max(store.commit(group).await.committed().unwrap());
    }
    revision
}

async fn equals_a_fresh_list_after_random_writes(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let mut random = Random(20_261_122);
    write_at_random(&store, &mut random, 30).await;
    let index = indexed(&store).await;
    for _ in 0..5 {
        let revision = write_at_random(&store, &mut random, 30).await;
        index.wait_for(revision, crate::harness::LONG).await.unwrap();
        assert_eq!(contents(&index), listed(&server).await);
    }
    assert_eq!(index.position().generation, 1);
}

async fn goes_on_where_it_was_after_lost_connections(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let index = indexed(&connect(proxy.address()).await).await;
    let store = server.store().await;
    let mut random = Random(7);
    for _ in 0..3 {
        proxy.refuse();
        let revision = write_at_random(&store, &mut random, 20).await;
        assert!(index.position().revision < revision, "nothing comes through");
        proxy.heal();
        index.wait_for(revision, crate::harness::LONG).await.unwrap();
        assert_eq!(contents(&index), listed(&server).await);
    }
    assert_eq!(index.position().generation, 1);
}

async fn learns_of_deletions_that_were_compacted_away(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let (kept, gone) = (pod("/kept"), pod("/gone"));
    commit(&store, create(&kept, 1)).await;
    commit(&store, create(&gone, 1)).await;
    let proxy = Proxy::start(server.address()).await;
    let index = indexed(&connect(proxy.address()).await).await;
    let mut changes = index.changes(Kinds::of(&[Kind::Instance]));
    assert_eq!(within(changes.next()).await.pods.len(), 2);

    proxy.refuse();
    commit(&store, Group::new(gone.clone()).then(Op::Delete(instance(&gone, 1)))).await;
    let revision = commit(&store, create(&pod("/new"), 1)).await;
    server.compact().await;
    proxy.heal();

    let batch = within(changes.next()).await;
    assert_eq!(batch.pods, [gone.clone(), pod("/new")].into(), "only what differs is named");
    assert!(!batch.replaced);
    assert!(index.position().revision >= revision && index.position().generation == 1);
    assert!(index.read(|state| state.pod(&gone).is_none() && state.pod(&kept).is_some()));
}

async fn survives_a_restart_of_the_server(flavour: Flavour) {
    let mut server = Server::start(flavour).await;
    let store = server.store().await;
    commit(&store, create(&pod("/before"), 1)).await;
    let index = indexed(&store).await;
    server.restart().await;
    let again = server.store().await;
    let revision = commit(&again, create(&pod("/after"), 1)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert_eq!(contents(&index), listed(&server).await);
    assert_eq!(index.position().generation, 1, "it is the same store");
}

async fn notices_that_the_store_was_replaced(flavour: Flavour) {
    let mut server = Server::start(flavour).await;
    let store = server.store().await;
    let old = pod("/old");
    for n in 0..5 {
        commit(&store, create(&old, n)).await;
    }
    let index = indexed(&store).await;
    let mut changes = index.changes(Kinds::of(&[Kind::Instance]));
    within(changes.next()).await;
    let before = index.position();

    server.replace().await;
    let batch = within(changes.next()).await;
    assert!(batch.replaced);
    assert!(batch.pods.contains(&old), "what is gone is named");
    assert_eq!(index.position().generation, before.generation + 1);
    assert!(index.position().revision < before.revision);
    assert_eq!(index.read(|state| state.pods().len()), 0);

    let revision = commit(&server.store().await, create(&pod("/new"), 1)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert_eq!(contents(&index), listed(&server).await);
}

async fn notices_a_restored_backup_that_was_written_to_since(flavour: Flavour) {
    let mut server = Server::start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let a = pod("/a");
    commit(&server.store().await, create(&a, 1)).await;
    let backup = server.backup().await;
    let store = server.store().await;
    commit(&store, create(&a, 2)).await;
    let index = indexed(&connect(proxy.address()).await).await;
    let mut changes = index.changes(Kinds::ALL);
    within(changes.next()).await;
    let before = index.position();

    proxy.refuse();
    server.restore(backup).await;
    let store = server.store().await;
    let mut last = 0;
    while last <= before.revision {
        last = commit(&store, create(&a, 3)).await;
    }
    proxy.heal();
    assert!(within(changes.next()).await.replaced, "its revision is beyond ours, and still it is another history");
    assert_eq!(index.position().generation, before.generation + 1);
    assert_eq!(contents(&index), listed(&server).await);
}

async fn takes_a_restarted_store_with_a_deletion_at_its_end_for_the_same(flavour: Flavour) {
    let mut server = Server::start(flavour).await;
    let store = server.store().await;
    let a = pod("/a");
    commit(&store, create(&a, 1)).await;
    let index = indexed(&store).await;
    let revision = commit(&store, Group::new(a.clone()).then(Op::Delete(instance(&a, 1)))).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    server.restart().await;
    let revision = commit(&server.store().await, create(&a, 2)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert_eq!(index.position().generation, 1);
}

async fn notices_that_a_connection_has_fallen_silent(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let index = indexed(&connect(proxy.address()).await).await;
    proxy.hold();
    let revision = commit(&server.store().await, create(&pod("/a"), 1)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
}

async fn asks_for_less_where_a_page_would_be_too_large(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    // 72 MB, which is more than is read at a time.
    for n in 0..60 {
        commit(&store, spec(&pod(&format!("/large-{n}")), 1_200_000)).await;
    }
    let index = indexed(&store).await;
    assert_eq!(index.read(|state| state.pods().len()), 60);
}

async fn reads_more_than_one_page_and_more_than_four_mebibytes(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let many = pod("/many");
    for batch in 0..55 {
        let group = (0..100).fold(Group::new(many.clone()), |group, n| {
            group.then(Op::record(instance(&many, batch * 100 + n), records::Instance::default()))
        });
        commit(&store, group).await;
    }
    for n in 0..6 {
        commit(&store, spec(&pod(&format!("/large-{n}")), 1_000_000)).await;
    }
    let index = indexed(&store).await;
    assert_eq!(index.read(|state| state.pod(&many).map(|pod| pod.instances.len())), Some(5_500));
    assert_eq!(contents(&index), listed(&server).await);
}

async fn catches_up_with_a_large_backlog_in_whole_transactions(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let proxy = Proxy::start(server.address()).await;
    let index = indexed(&connect(proxy.address()).await).await;
    proxy.refuse();
    // Two specs are always written together; 20 MB in all.
    let (left, right) = (pod("/left"), pod("/right"));
    let mut last = 0;
    for _ in 0..20 {
        let mut both = spec(&left, 500_000);
        both.ops.extend(spec(&right, 500_000).ops);
        last = commit(&store, both).await;
    }
    proxy.heal();
    let revisions = |state: &podium_store::index::IndexState| {
        [&left, &right].map(|id| state.pod(id).and_then(|pod| pod.spec.as_ref()).map(|held| held.mod_revision))
    };
    until(&index, |state| {
        let [left, right] = revisions(state);
        assert_eq!(left, right, "a transaction is seen by halves");
        left == Some(last)
    })
    .await;
}

async fn wakes_only_for_the_kinds_asked_for(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let mut instances = index.changes(Kinds::of(&[Kind::Instance]));
    let mut specs = index.changes(Kinds::of(&[Kind::Spec, Kind::Framework]));
    commit(&store, create(&pod("/a"), 1)).await;
    commit(&store, create(&pod("/a"), 2)).await;
    let revision = commit(&store, spec(&pod("/b"), 10)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert_eq!(within(instances.next()).await.pods, [pod("/a")].into());
    let batch = within(specs.next()).await;
    assert_eq!(batch.pods, [pod("/b")].into());
    assert!(!batch.framework && batch.position.revision >= revision);
    // Both were taken: nothing is told twice.
    let framework = records::Framework::default();
    commit(&store, Group::global().then(Op::record(Key::Framework, framework))).await;
    let batch = within(specs.next()).await;
    assert!(batch.framework && batch.pods.is_empty());
}

async fn waits_for_a_revision_but_not_for_ever(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let next = index.position().revision + 1;
    let waiting = {
        let index = index.clone();
        tokio::spawn(async move { index.wait_for(next, crate::harness::LONG).await })
    };
    let behind = index.wait_for(next, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(behind.wanted, next);
    commit(&store, create(&pod("/a"), 1)).await;
    assert!(within(waiting).await.unwrap().unwrap().revision >= next);
    assert!(index.wait_for(1, Duration::ZERO).await.is_ok(), "what is past is reached");
}

async fn leaves_records_of_a_newer_schema_alone(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let (id, key) = (pod("/a"), instance(&pod("/a"), 1));
    commit(&store, create(&id, 1)).await;
    let index = indexed(&store).await;
    // Field 1, the schema, is 99.
    let revision = commit(&store, Group::new(id.clone()).then(Op::Put(key.clone(), vec![0x08, 99].into()))).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    index.read(|state| {
        let pod = state.pod(&id).unwrap();
        assert!(pod.instances.is_empty(), "its old form is forgotten");
        assert_eq!(pod.unreadable.get(&key), Some(&revision));
    });
    let revision = commit(&store, create(&id, 1)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert!(index.read(|state| state.pod(&id).unwrap().unreadable.is_empty()));
}

async fn passes_over_keys_that_are_not_ours(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let mut etcd = server.etcd().await;
    etcd.put("/podium/unheard/of", "x", None).await.unwrap();
    etcd.put(b"/podium/\xff\xfe".to_vec(), "x", None).await.unwrap();
    let index = indexed(&store).await;
    etcd.put("/podium/specs/Not-A-Pod", "x", None).await.unwrap();
    etcd.put("/podiumlike/framework", "x", None).await.unwrap();
    let revision = commit(&store, create(&pod("/a"), 1)).await;
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert_eq!(index.read(|state| state.pods().len()), 1);
    // A session under the prefix is no pod either.
    let session = session(&store, "me");
    within(session.lease()).await;
    within(session.close()).await;
    // But their authors are known.
    index.read(|state| assert_eq!(state.strays().keys().collect::<Vec<_>>(), ["/Not-A-Pod"]));
}
