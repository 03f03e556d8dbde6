//! Sessions and elections against a server.

use std::time::Duration;

use podium_proto::records;
use podium_store::writer::{Group, Op};
use podium_store::{Election, Key, Session};

use crate::harness::{Flavour, Proxy, Server, commit, connect, indexed, pod, session, short_session, until, within};

crate::against_every_server!(
    one_candidate_leads_and_the_next_in_line_follows_it,
    elections_of_different_names_are_won_apart,
    a_cut_off_leader_knows_before_another_leads,
    closing_a_session_hands_over_without_waiting_for_the_lease,
    a_dropped_leadership_is_given_up,
    a_leader_that_gives_no_sign_of_life_is_deposed,
    a_leader_whose_key_is_deleted_leads_no_longer,
    a_revoked_lease_is_lost_and_another_is_granted,
    a_withdrawn_candidate_never_leads,
    leased_keys_go_with_the_session,
    leaderships_survive_lost_connections_shorter_than_the_lease,
);

async fn one_candidate_leads_and_the_next_in_line_follows_it(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let sessions: Vec<Session> = ["a", "b", "c"].iter().map(|name| session(&store, name)).collect();
    let first = within(Election::new(&sessions[0], &index, "test").campaign()).await;
    let mut waiting = Vec::new();
    for (n, session) in sessions[1..].iter().enumerate() {
        let election = Election::new(session, &index, "test");
        waiting.push(tokio::spawn(async move { election.campaign().await }));
        until(&index, |state| state.candidates("test").count() == n + 2).await;
    }
    let leader = index.read(|state| state.leader("test").cloned()).unwrap();
    assert_eq!((leader.identity.as_ref(), leader.create_revision), ("a".as_bytes(), first.create_revision()));
    assert!(waiting.iter().all(|campaign| !campaign.is_finished()));

    let mut last = first.create_revision();
    within(first.resign()).await;
    for campaign in waiting {
        let leadership = within(campaign).await.unwrap();
        assert!(leadership.create_revision() > last, "in the order in which they stood");
        assert!(!leadership.lost().is_cancelled());
        last = leadership.create_revision();
        within(leadership.resign()).await;
    }
    until(&index, |state| state.leader("test").is_none()).await;
}

async fn elections_of_different_names_are_won_apart(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let (one, two) = (session(&store, "one"), session(&store, "two"));
    let scaling = within(Election::new(&one, &index, "scaling").campaign()).await;
    let health = within(Election::new(&two, &index, "health").campaign()).await;
    let upgrade = within(Election::new(&one, &index, "upgrade").campaign()).await;
    assert_eq!(scaling.lease(), upgrade.lease(), "one lease a process");
    within(scaling.resign()).await;
    assert!(!upgrade.lost().is_cancelled() && !health.lost().is_cancelled());
}

async fn a_cut_off_leader_knows_before_another_leads(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let far = connect(proxy.address()).await;
    let store = server.store().await;
    let ttl = Duration::from_secs(3);
    let (cut_off, next) = (short_session(&far, "cut off", ttl), session(&store, "next"));
    let leadership = within(Election::new(&cut_off, &indexed(&far).await, "test").campaign()).await;
    let election = Election::new(&next, &indexed(&store).await, "test");
    let successor = tokio::spawn(async move { election.campaign().await });

    proxy.swallow();
    tokio::select! {
        biased;
        () = within(leadership.lost().cancelled()) => {}
        _ = successor => panic!("another leads, and the former leader does not know"),
    }
}

async fn closing_a_session_hands_over_without_waiting_for_the_lease(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let (leaving, staying) = (session(&store, "leaving"), session(&store, "staying"));
    let leadership = within(Election::new(&leaving, &index, "test").campaign()).await;
    within(leaving.close()).await;
    assert!(leadership.lost().is_cancelled());
    within(Election::new(&staying, &index, "test").campaign()).await;
}

async fn a_dropped_leadership_is_given_up(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let (one, two) = (session(&store, "one"), session(&store, "two"));
    let election = Election::new(&one, &index, "test");
    let controller = tokio::spawn(async move {
        let _leadership = election.campaign().await;
        panic!("the controller's fault");
    });
    assert!(within(controller).await.unwrap_err().is_panic());
    within(Election::new(&two, &index, "test").campaign()).await;
    assert!(one.held().is_some(), "only that one election is lost");
}

async fn a_leader_that_gives_no_sign_of_life_is_deposed(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let (hangs, lives) = (session(&store, "hangs"), session(&store, "lives"));
    let leadership = within(Election::new(&hangs, &index, "test").campaign()).await;
    let watchdog = leadership.watchdog(Duration::from_millis(200));
    watchdog.feed();
    within(leadership.lost().cancelled()).await;
    within(Election::new(&lives, &index, "test").campaign()).await;
}

async fn a_leader_whose_key_is_deleted_leads_no_longer(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let session = session(&store, "me");
    let election = Election::new(&session, &index, "test");
    let leadership = within(election.campaign()).await;
    let key = Key::Election("test".to_owned(), leadership.lease());
    commit(&store, Group::global().then(Op::Delete(key))).await;
    within(leadership.lost().cancelled()).await;
    let again = within(election.campaign()).await;
    assert!(again.create_revision() > leadership.create_revision());
    drop(leadership);
    within(session.lease()).await;
    assert!(!again.lost().is_cancelled(), "the old leadership's end does not touch the new one");
}

async fn a_revoked_lease_is_lost_and_another_is_granted(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let session = session(&store, "me");
    let election = Election::new(&session, &index, "test");
    let leadership = within(election.campaign()).await;
    let lease = within(session.lease()).await;
    server.etcd().await.lease_revoke(lease.id).await.unwrap();
    within(leadership.lost().cancelled()).await;
    within(lease.lost.cancelled()).await;
    let again = within(election.campaign()).await;
    assert_ne!(again.lease(), lease.id);
}

async fn a_withdrawn_candidate_never_leads(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let (one, two) = (session(&store, "one"), session(&store, "two"));
    let leadership = within(Election::new(&one, &index, "test").campaign()).await;
    let election = Election::new(&two, &index, "test");
    let campaign = tokio::spawn(async move { election.campaign().await });
    until(&index, |state| state.candidates("test").count() == 2).await;
    campaign.abort();
    until(&index, |state| state.candidates("test").count() == 1).await;
    within(leadership.resign()).await;
    until(&index, |state| state.candidates("test").count() == 0).await;
}

async fn leased_keys_go_with_the_session(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    let session = session(&store, "me");
    let lease = within(session.lease()).await;
    let a = pod("/a");
    commit(&store, Group::new(a.clone()).then(Op::leased_record(Key::Queue(a.clone()), records::Queue::default(), lease.id))).await;
    until(&index, |state| state.pod(&a).is_some_and(|pod| pod.queue.is_some())).await;
    drop(session);
    until(&index, |state| state.pod(&a).is_none()).await;
}

async fn leaderships_survive_lost_connections_shorter_than_the_lease(flavour: Flavour) {
    let server = Server::start(flavour).await;
    let proxy = Proxy::start(server.address()).await;
    let store = connect(proxy.address()).await;
    let index = indexed(&store).await;
    let session = short_session(&store, "me", Duration::from_secs(6));
    let leadership = within(Election::new(&session, &index, "test").campaign()).await;
    let direct = server.store().await;
    for n in 0..3 {
        proxy.cut();
        let revision = commit(&direct, crate::harness::create(&pod("/a"), n)).await;
        index.wait_for(revision, crate::harness::LONG).await.unwrap();
    }
    // Longer than the lease, and it was renewed over new connections.
    let outlived = tokio::time::timeout(Duration::from_secs(8), leadership.lost().cancelled()).await;
    assert!(outlived.is_err(), "the lease was lost with its connection");
}
