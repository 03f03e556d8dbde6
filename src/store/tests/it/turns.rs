//! Followers of single revisions, and the same revisions from the past.

use std::sync::Arc;

use podium_proto::records::{Accepted, Instance};
use podium_store::index::{Replay, Told, Turn, Turns};
use podium_store::writer::{Group, Op};
use podium_store::{Index, Key, Store, StoreError};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::harness::{Flavour, Server, commit, create, indexed, pod, within};
use crate::index::{Random, write_at_random};

crate::against_every_server!(
    a_follower_is_told_every_revision_once_and_whole,
    the_past_is_told_as_it_was_when_it_happened,
    a_past_without_room_for_its_keys_is_refused_and_gives_its_room_back,
    a_past_that_is_compacted_is_said_to_be,
    a_follower_hears_that_the_index_was_read_anew,
);

async fn turn(turns: &mut Turns) -> Arc<Turn> {
    match within(turns.next()).await {
        Some(Told::Turn(turn)) => turn,
        other => panic!("{other:?}"),
    }
}

/// Follows up to a revision; those that touched nothing of interest are left out.
async fn followed(turns: &mut Turns, until: i64) -> Vec<Turn> {
    let mut all = Vec::new();
    loop {
        let turn = turn(turns).await;
        if !turn.pods.is_empty() {
            all.push((*turn).clone());
        }
        if turn.revision >= until {
            return all;
        }
    }
}

/// The next of the past that touched something of interest.
async fn touching(replay: &mut Replay) -> Turn {
    loop {
        let turn = within(replay.next()).await.unwrap();
        if !turn.pods.is_empty() {
            return turn;
        }
    }
}

/// Returns when the past has come to a revision without anything of interest.
async fn reaches(replay: &mut Replay, revision: i64) {
    loop {
        let turn = within(replay.next()).await.unwrap();
        assert_eq!(turn.pods.len(), 0, "{turn:?}");
        if turn.revision >= revision {
            return;
        }
    }
}

async fn start(flavour: Flavour) -> (Server, Store, Index) {
    let server = Server::start(flavour).await;
    let store = server.store().await;
    let index = indexed(&store).await;
    (server, store, index)
}

async fn a_follower_is_told_every_revision_once_and_whole(flavour: Flavour) {
    let (_server, store, index) = start(flavour).await;
    let first = commit(&store, create(&pod("/a"), 1)).await;
    within(index.wait_for(first, crate::harness::LONG)).await.unwrap();
    let mut turns = index.turns();
    assert_eq!(turns.from.revision, first);
    let id = Uuid::from_u128(1);
    let second = Instance { incarnation: 2, ..Instance::default() };
    let accepted = Accepted { version_ms: 7, ..Accepted::default() };
    let both = Group::global().then(Op::record(Key::Instance(pod("/a"), id), second)).then(Op::record(Key::Accepted(pod("/b")), accepted));
    let revision = commit(&store, both).await;
    let told = turn(&mut turns).await;
    assert_eq!((told.revision, told.pods.len()), (revision, 2));
    let (a, b) = (&told.pods[0], &told.pods[1]);
    let incarnation =
        |excerpt: &podium_store::index::Excerpt| excerpt.instances[&id].instance.as_ref().map(|instance| instance.incarnation);
    assert_eq!((a.id.as_str(), incarnation(&a.before), incarnation(&a.after)), ("/a", Some(1), Some(2)));
    assert_eq!((b.before.accepted.as_ref(), b.after.accepted.as_ref().map(|accepted| accepted.version_ms)), (None, Some(7)));
    // What is not told of is a revision without pods.
    let other = commit(&store, Group::global().then(Op::Put(Key::Status(pod("/a")), "{}".into()))).await;
    let told = turn(&mut turns).await;
    assert_eq!((told.revision, told.pods.len()), (other, 0));
}

async fn the_past_is_told_as_it_was_when_it_happened(flavour: Flavour) {
    let (server, store, index) = start(flavour).await;
    let mut random = Random(17);
    let before = write_at_random(&store, &mut random, 40).await;
    within(index.wait_for(before, crate::harness::LONG)).await.unwrap();
    let mut turns = index.turns();
    let last = write_at_random(&store, &mut random, 60).await;
    let live = followed(&mut turns, last).await;
    assert!(live.len() > 20, "{} revisions", live.len());
    for from in [before + 1, live[live.len() / 2].revision, live[live.len() - 1].revision] {
        let mut replay = within(Replay::start(&store, &index, from, &room(1_000))).await.unwrap();
        for expected in live.iter().filter(|turn| turn.revision >= from) {
            assert_eq!(&touching(&mut replay).await, expected, "from {from}");
        }
    }
    // A past that reaches the present goes on with it.
    let mut replay = within(Replay::start(&store, &index, last + 1, &room(1_000))).await.unwrap();
    let next = commit(&store, create(&pod("/new"), 1)).await;
    assert_eq!(within(replay.next()).await.unwrap().revision, next);
    // What touches nothing of interest is passed as well, be it no key of ours: who waits for a revision sees it come.
    let status = commit(&store, Group::global().then(Op::Put(Key::Status(pod("/a")), "{}".into()))).await;
    reaches(&mut replay, status).await;
    let mut etcd = server.etcd().await;
    let other = etcd.put("elsewhere", "x", None).await.unwrap().header().unwrap().revision();
    reaches(&mut replay, other).await;
}

/// Of so many keys.
fn room(keys: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(keys))
}

async fn a_past_without_room_for_its_keys_is_refused_and_gives_its_room_back(flavour: Flavour) {
    let (_server, store, index) = start(flavour).await;
    let first = commit(&store, create(&pod("/a"), 1)).await;
    commit(&store, create(&pod("/b"), 1)).await;
    let walk = async |room: &Arc<Semaphore>| {
        let mut replay = within(Replay::start(&store, &index, first, room)).await?;
        for _ in 0..2 {
            within(replay.next()).await?;
        }
        Ok(replay)
    };
    let plenty = room(100);
    let replay = walk(&plenty).await.unwrap();
    let keys = 100 - plenty.available_permits();
    assert!(keys > 2, "a pod is more than one key: {keys} of two");
    drop(replay);
    assert_eq!(plenty.available_permits(), 100);

    let scarce = room(keys - 1);
    let refused = walk(&scarce).await.map(drop).unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge(_)), "{refused}");
    assert_eq!(scarce.available_permits(), keys - 1);
}

async fn a_past_that_is_compacted_is_said_to_be(flavour: Flavour) {
    let (server, store, index) = start(flavour).await;
    let first = commit(&store, create(&pod("/a"), 1)).await;
    commit(&store, create(&pod("/a"), 2)).await;
    commit(&store, create(&pod("/a"), 3)).await;
    server.compact().await;
    let mut replay = within(Replay::start(&store, &index, first, &room(1_000))).await.unwrap();
    assert!(matches!(within(replay.next()).await, Err(StoreError::Compacted)));
}

async fn a_follower_hears_that_the_index_was_read_anew(flavour: Flavour) {
    let (mut server, store, index) = start(flavour).await;
    commit(&store, create(&pod("/a"), 1)).await;
    let mut turns = index.turns();
    server.replace().await;
    let missing = async { while !matches!(turns.next().await, Some(Told::Missing)) {} };
    within(missing).await;
}
