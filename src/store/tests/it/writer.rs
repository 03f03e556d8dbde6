//! The fenced writer against a server.

use futures_util::future::join_all;
use podium_proto::records;
use podium_store::index::Kinds;
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_store::{Election, Key, Kind, Leadership, Session, Store, Writer};

use crate::harness::{Flavour, Proxy, Server, commit, connect, create, indexed, instance, pod, session, spec, within};

crate::against_every_server!(
    packs_many_groups_into_few_transactions,
    cuts_transactions_by_size,
    refuses_a_group_that_is_too_large_and_writes_the_others,
    keeps_a_conflict_within_its_group,
    writes_what_touches_one_key_in_order,
    a_former_leader_writes_nothing,
    a_write_whose_answer_is_lost_is_unknown_and_visible_at_the_barrier,
    a_write_that_never_arrived_is_unknown_and_never_happens,
    a_write_that_arrives_after_the_barrier_is_fenced_out,
    a_moved_fence_is_no_lost_leadership,
    answers_what_waits_when_the_leadership_ends,
    isolates_a_group_that_the_store_refuses,
    a_direct_commit_conflicts_on_what_it_compares,
);

/// Stands for the election "test", and leads.
async fn lead(store: &Store, session: &Session) -> Leadership {
    within(Election::new(session, &indexed(store).await, "test").campaign()).await
}

async fn start(flavour: Flavour) -> (Server, Store, Session, Leadership) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let session = session(&store, "one");
    let leadership = lead(&store, &session).await;
    (server, store, session, leadership)
}

async fn all(writer: &Writer, groups: Vec<Group>) -> Vec<Outcome> {
    let mut tickets = Vec::new();
    for group in groups {
        tickets.push(within(writer.submit(group)).await);
    }
    within(join_all(tickets)).await
}

async fn packs_many_groups_into_few_transactions(flavour: Flavour) {
    let (_server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let web = pod("/web");
    let two_conditions =
        |n: u128| create(&web, n).when(Compare::Absent(instance(&web, n))).when(Compare::Absent(Key::Accepted(web.clone())));
    let outcomes = all(&writer, (0..600).map(two_conditions).collect()).await;
    let revisions: std::collections::BTreeSet<i64> = outcomes.iter().map(|outcome| outcome.committed().expect("committed")).collect();
    assert!(revisions.len() < 100, "600 groups took {} transactions", revisions.len());
    let index = indexed(&store).await;
    assert_eq!(index.read(|state| state.pod(&web).map(|pod| pod.instances.len())), Some(600));
}

async fn cuts_transactions_by_size(flavour: Flavour) {
    let (_server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let outcomes = all(&writer, (0..12).map(|n| spec(&pod(&format!("/large-{n}")), 700_000)).collect()).await;
    assert!(outcomes.iter().all(|outcome| outcome.committed().is_some()), "{outcomes:?}");
}

async fn refuses_a_group_that_is_too_large_and_writes_the_others(flavour: Flavour) {
    let (_server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let a = pod("/a");
    let wide = |n: u128| (0..n).fold(Group::new(a.clone()), |group, n| group.then(Op::Delete(instance(&a, n))));
    let twice = create(&a, 1).then(Op::Delete(instance(&a, 1)));
    let outcomes = all(&writer, vec![spec(&a, 2_000_000), wide(127), twice, create(&a, 500), wide(126), spec(&a, 1_400_000)]).await;
    let words: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Committed { revision: 0 } => "nothing",
            Outcome::Committed { .. } => "committed",
            Outcome::Refused(_) => "refused",
            _ => "other",
        })
        .collect();
    // What travels with others' writes has the transaction's revision though it changed nothing itself.
    assert_eq!(words[..4], ["refused", "refused", "refused", "committed"]);
    assert!(["nothing", "committed"].contains(&words[4]));
    assert_eq!(words[5], "committed");
}

async fn keeps_a_conflict_within_its_group(flavour: Flavour) {
    let (_server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let a = pod("/a");
    let seen = commit(&store, create(&a, 1)).await;
    let stale = create(&a, 3).when(Compare::Unchanged(instance(&a, 1), seen - 1));
    let gone = create(&a, 4).when(Compare::Present(instance(&a, 99)));
    let fresh = create(&a, 5).when(Compare::Unchanged(instance(&a, 1), seen));
    let outcomes = all(&writer, vec![create(&a, 2), stale, gone, fresh]).await;
    assert!(outcomes[0].committed().is_some() && outcomes[3].committed().is_some(), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Conflict { revision: seen });
    assert_eq!(outcomes[2], Outcome::Conflict { revision: 0 });
    for (n, exists) in [(2, true), (3, false), (4, false), (5, true)] {
        assert_eq!(store.get(&instance(&a, n)).await.unwrap().is_some(), exists, "instance {n}");
    }
}

async fn writes_what_touches_one_key_in_order(flavour: Flavour) {
    let (_server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let a = pod("/a");
    let set = |n: u8| Group::new(a.clone()).then(Op::Put(Key::Spec(a.clone()), vec![n].into()));
    let after = create(&a, 1).when(Compare::Absent(Key::Spec(a.clone())));
    let mut groups: Vec<Group> = (0..20).map(set).collect();
    groups.push(after);
    let outcomes = all(&writer, groups).await;
    let revisions: Vec<i64> = outcomes[..20].iter().map(|outcome| outcome.committed().unwrap()).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "each in a transaction of its own, one after the other: {revisions:?}");
    assert_eq!(outcomes[20], Outcome::Conflict { revision: revisions[19] }, "it sees the last write before it");
    assert_eq!(store.get(&Key::Spec(a)).await.unwrap().unwrap().value.as_ref(), [19]);
}

async fn a_former_leader_writes_nothing(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    // The former leader hears nothing of what happens to its election; its writes still arrive.
    let proxy = Proxy::start(server.address()).await;
    let deaf = connect(proxy.address()).await;
    let (former, next) = (session(&store, "former"), session(&store, "next"));
    let index = indexed(&deaf).await;
    let leadership = within(Election::new(&former, &index, "test").campaign()).await;
    let writer = Writer::start(&store, &leadership);
    let a = pod("/a");
    assert!(within(writer.write(create(&a, 1))).await.committed().is_some());

    proxy.swallow();
    let key = format!("/podium/elections/test/{:x}", leadership.lease());
    server.etcd().await.delete(key, None).await.unwrap();
    let successor = lead(&store, &next).await;
    assert!(successor.create_revision() > leadership.create_revision());
    assert!(!leadership.lost().is_cancelled(), "it does not know yet");

    let ticket = writer.submit(create(&a, 2)).await;
    assert_eq!(within(ticket).await, Outcome::NotLeader);
    within(leadership.lost().cancelled()).await;
    assert_eq!(within(writer.write(create(&a, 3))).await, Outcome::NotLeader);
    for n in [2, 3] {
        assert!(store.get(&instance(&a, n)).await.unwrap().is_none());
    }
    assert!(within(Writer::start(&store, &successor).write(create(&a, 4))).await.committed().is_some());
}

async fn a_write_whose_answer_is_lost_is_unknown_and_visible_at_the_barrier(flavour: Flavour) {
    let (server, store, _session, leadership) = start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let writer = Writer::start(&connect(proxy.address()).await, &leadership);
    let index = indexed(&store).await;
    let a = pod("/a");
    assert!(within(writer.write(create(&a, 1))).await.committed().is_some());

    proxy.swallow();
    let ticket = writer.submit(create(&a, 2)).await;
    crate::harness::until(&index, |state| state.pod(&a).is_some_and(|pod| pod.instances.len() == 2)).await;
    proxy.heal();
    let revision = match within(ticket).await {
        Outcome::Unknown { revision } => revision,
        other => panic!("{other:?}, and nobody can know"),
    };
    index.wait_for(revision, crate::harness::LONG).await.unwrap();
    assert_eq!(index.read(|state| state.pod(&a).unwrap().instances.len()), 2);
    assert!(within(writer.write(create(&a, 3))).await.committed().is_some(), "and it goes on");
    assert!(!leadership.lost().is_cancelled());
}

async fn a_write_that_never_arrived_is_unknown_and_never_happens(flavour: Flavour) {
    let (server, store, _session, leadership) = start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let writer = Writer::start(&connect(proxy.address()).await, &leadership);
    let a = pod("/a");
    proxy.refuse();
    let tickets = [writer.submit(create(&a, 1)).await, writer.submit(create(&a, 2)).await];
    proxy.heal();
    let outcomes = within(join_all(tickets)).await;
    let index = indexed(&store).await;
    for (n, outcome) in [1, 2].into_iter().zip(outcomes) {
        let there = index.read(|state| state.pod(&a).is_some_and(|pod| pod.instances.contains_key(&uuid::Uuid::from_u128(n))));
        match outcome {
            // The second may have waited for the barrier and travelled after it.
            Outcome::Committed { .. } => assert!(there),
            Outcome::Unknown { revision } => assert!(!there && revision > 0, "it never left"),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_write_that_arrives_after_the_barrier_is_fenced_out(flavour: Flavour) {
    let (server, store, _session, leadership) = start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let writer = Writer::start(&connect(proxy.address()).await, &leadership);
    let a = pod("/a");
    assert!(within(writer.write(create(&a, 1))).await.committed().is_some());

    // A creation under a new id passes every condition of its own: only the fence can stop it.
    proxy.hold();
    let ticket = writer.submit(create(&a, 2)).await;
    let revision = match within(ticket).await {
        Outcome::Unknown { revision } => revision,
        other => panic!("{other:?}, and nobody can know"),
    };
    assert!(store.get(&instance(&a, 2)).await.unwrap().is_none());

    // The transaction arrives at last, and behind it the first attempts at the barrier, which tell that it has.
    let index = indexed(&store).await;
    let mut changes = index.changes(Kinds::of(&[Kind::Election]));
    within(changes.next()).await;
    proxy.release();
    while within(changes.next()).await.position.revision <= revision {}
    assert!(within(writer.write(create(&a, 3))).await.committed().is_some(), "the leader goes on");
    assert!(store.get(&instance(&a, 2)).await.unwrap().is_none(), "it came too late");
}

async fn a_moved_fence_is_no_lost_leadership(flavour: Flavour) {
    let (server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let key = format!("/podium/elections/test/{:x}", leadership.lease());
    let lease = etcd_client::PutOptions::new().with_lease(leadership.lease());
    server.etcd().await.put(key, "touched", Some(lease)).await.unwrap();
    let outcomes = all(&writer, (0..10).map(|n| create(&pod("/a"), n)).collect()).await;
    assert!(outcomes.iter().all(|outcome| outcome.committed().is_some()), "{outcomes:?}");
    assert!(!leadership.lost().is_cancelled());
}

async fn answers_what_waits_when_the_leadership_ends(flavour: Flavour) {
    let (server, _store, _session, leadership) = start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let writer = Writer::start(&connect(proxy.address()).await, &leadership);
    proxy.swallow();
    let mut tickets = Vec::new();
    for n in 0..20 {
        tickets.push(writer.submit(create(&pod("/a"), n)).await);
    }
    within(leadership.resign()).await;
    let outcomes = within(join_all(tickets)).await;
    assert_eq!(outcomes, vec![Outcome::NotLeader; 20]);
}

async fn isolates_a_group_that_the_store_refuses(flavour: Flavour) {
    let (_server, store, _session, leadership) = start(flavour).await;
    let writer = Writer::start(&store, &leadership);
    let a = pod("/a");
    // etcd refuses a whole transaction for one lease that it does not know.
    let no_lease = Group::new(a.clone()).then(Op::leased_record(Key::Queue(a.clone()), records::Queue::default(), 4711));
    let mut groups: Vec<Group> = (0..30).map(|n| create(&a, n)).collect();
    groups.insert(20, no_lease);
    let outcomes = all(&writer, groups).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(matches!(outcome, Outcome::Refused(_)), n == 20, "group {n}: {outcome:?}");
        assert_eq!(outcome.committed().is_some(), n != 20, "group {n}: {outcome:?}");
    }
}

async fn a_direct_commit_conflicts_on_what_it_compares(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let a = pod("/a");
    let lock = || create(&a, 1).when(Compare::Absent(Key::Deployment(a.clone())));
    let revision = commit(&store, lock()).await;
    assert!(revision > 0);
    let deployment = Group::new(a.clone()).then(Op::record(Key::Deployment(a.clone()), records::Deployment::default()));
    let locked = commit(&store, deployment).await;
    assert_eq!(store.commit(lock()).await, Outcome::Conflict { revision: locked });
    let nothing = Group::new(a.clone()).then(Op::Delete(instance(&a, 77)));
    assert_eq!(store.commit(nothing).await, Outcome::Committed { revision: 0 });
}
