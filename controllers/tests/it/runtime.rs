//! The runtime against a real store: elections, fences, conflicts, panics, rest.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use podium_controllers::runtime::{Controller, Decision, Ids, Now};
use podium_proto::records::Queue;
use podium_proto::records::accepted::Phase;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use podium_store::{Key, Kind};
use podium_types::id::PodId;

use crate::replica::{LONG, Replica, Server, Work, connect, delete, fail_one, pod, push, put, until, until_runs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_pod_runs_scales_changes_heals_and_goes() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    let a = pod("/a");
    push(&store, &a, 3, "sleep 1").await;
    until_runs(&index, &a, 3).await;
    push(&store, &a, 5, "sleep 1").await;
    until_runs(&index, &a, 5).await;
    push(&store, &a, 2, "sleep 2").await;
    until_runs(&index, &a, 2).await;
    let (uuid, incarnation) = fail_one(&store, &index, &a).await;
    until(&index, "the next incarnation", |state| state.pod(&a).unwrap().observed[&uuid].value.incarnation == incarnation + 1).await;
    delete(&store, Key::Spec(a.clone())).await;
    until(&index, "the end of /a", |state| {
        state
            .pod(&a)
            .is_none_or(|view| view.accepted.is_none() && view.instances.is_empty() && view.observed.is_empty() && view.sets.is_empty())
    })
    .await;
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_when_nothing_changes() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    for n in 0..20 {
        push(&store, &pod(&format!("/pod-{n}")), 2, "sleep 1").await;
    }
    for n in 0..20 {
        until_runs(&index, &pod(&format!("/pod-{n}")), 2).await;
        until(&index, "the status", |state| state.pod(&pod(&format!("/pod-{n}"))).is_some_and(says_running)).await;
    }
    let mut positions = index.positions();
    positions.borrow_and_update();
    let written = tokio::time::timeout(Duration::from_millis(1500), positions.changed()).await;
    assert!(written.is_err(), "written at rest: {:?}", index.position());
    replica.shutdown().await;
}

/// Whether the status for people says so: it is the last key to be written.
fn says_running(view: &PodView) -> bool {
    let status = view.status.as_ref().map(|status| serde_json::from_slice::<serde_json::Value>(&status.value).unwrap());
    status.is_some_and(|status| status["phase"] == "Running")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_pod_comes_and_goes() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    let a = pod("/large");
    push(&store, &a, 1000, "sleep 1").await;
    until_runs(&index, &a, 1000).await;
    push(&store, &a, 0, "sleep 1").await;
    until_runs(&index, &a, 0).await;
    replica.shutdown().await;
}

#[test]
fn when_a_leader_dies_another_replica_goes_on() {
    let main = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let victim = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let a = pod("/a");
    main.block_on(async {
        let server = Server::start().await;
        let address = server.address();
        let (store, index) = server.connect().await;
        let first = victim.spawn(async move {
            let (store, index) = connect(address).await;
            let replica = Replica::start(&store, &index, "first");
            push(&store, &pod("/a"), 2, "sleep 1").await;
            until_runs(&index, &pod("/a"), 2).await;
            replica
        });
        let first = first.await.unwrap();
        let second = Replica::start(&store, &index, "second");
        until(&index, "a second candidate", |state| state.candidates("scaling").count() == 2 && state.candidates("gateway").count() == 2)
            .await;
        // As a crash: nobody resigns, the lease has to run out.
        victim.shutdown_background();
        let (uuid, incarnation) = fail_one(&store, &index, &a).await;
        until(&index, "the next incarnation", |state| state.pod(&a).unwrap().observed[&uuid].value.incarnation == incarnation + 1).await;
        let leader = index.read(|state| state.leader("scaling").unwrap().identity.clone());
        assert_eq!(leader, "second");
        second.shutdown().await;
        std::mem::forget(first);
    });
}

/// Copies each spec into the status key, after it was let go.
struct Copier {
    /// One decision of `/slow` for each.
    gate: Mutex<mpsc::Receiver<()>>,
    reached: tokio::sync::mpsc::UnboundedSender<()>,
}

impl Copier {
    fn new() -> (Self, mpsc::Sender<()>, tokio::sync::mpsc::UnboundedReceiver<()>) {
        let (open, gate) = mpsc::channel();
        let (reached, arrivals) = tokio::sync::mpsc::unbounded_channel();
        (Self { gate: Mutex::new(gate), reached }, open, arrivals)
    }
}

impl Controller for Copier {
    type Intent = Group;

    fn name(&self) -> &'static str {
        "copier"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Spec]
    }

    fn decide(&self, view: &PodView, _now: Now) -> Decision<Group> {
        let Some(spec) = view.spec.as_ref().filter(|spec| view.status.as_ref().is_none_or(|status| status.value != spec.value)) else {
            return Decision::nothing();
        };
        let _ = self.reached.send(());
        let _ = self.gate.lock().recv_timeout(LONG);
        let compare = Compare::Unchanged(Key::Spec(view.id.clone()), spec.mod_revision);
        Decision::now(vec![Group::new(view.id.clone()).when(compare).then(Op::Put(Key::Status(view.id.clone()), spec.value.clone()))])
    }

    fn apply(&self, _view: &PodView, intents: Vec<Group>, _now: Now, _ids: &mut dyn Ids) -> Vec<Group> {
        intents
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_conflict_is_decided_on_again_with_what_was_met() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let (_, own) = server.connect().await;
    let (copier, open, mut arrivals) = Copier::new();
    let work = Work::start(&store, &index, "one", copier);
    put(&store, Key::Spec(pod("/a")), "first".to_owned()).await;
    arrivals.recv().await.unwrap();
    // It has seen the first, and rests on it.
    put(&store, Key::Spec(pod("/a")), "second".to_owned()).await;
    open.send(()).unwrap();
    open.send(()).unwrap();
    until(&own, "the second", |state| {
        let status = state.pod(&pod("/a")).and_then(|view| view.status.as_ref());
        assert!(status.is_none_or(|status| status.value != "first"), "written although its ground had gone");
        status.is_some_and(|status| status.value == "second")
    })
    .await;
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_former_leader_writes_nothing() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let (_, own) = server.connect().await;
    let (copier, open, mut arrivals) = Copier::new();
    let work = Work::start(&store, &index, "former", copier);
    put(&store, Key::Spec(pod("/a")), "spec".to_owned()).await;
    arrivals.recv().await.unwrap();
    // It leads by its own view, which stands still while it decides. The store knows better.
    until(&own, "its candidacy", |state| state.leader("copier").is_some()).await;
    let former = own.read(|state| state.leader("copier").unwrap().clone());
    delete(&store, Key::Election("copier".to_owned(), former.lease)).await;
    let marker = put(&store, Key::Spec(pod("/b")), "later".to_owned()).await;
    drop(open);
    for id in ["/a", "/b"] {
        until(&own, "the copy", |state| state.pod(&pod(id)).is_some_and(|view| view.status.is_some())).await;
    }
    let next = own.read(|state| state.leader("copier").unwrap().create_revision);
    assert!(next > marker, "the election was not held again");
    for id in ["/a", "/b"] {
        let written = own.read(|state| state.pod(&pod(id)).unwrap().status.as_ref().unwrap().mod_revision);
        assert!(written > next, "{id} was written at {written}, by a leader who was none any more since {marker}");
    }
    work.stop().await;
}

/// Copies each spec, and panics at its first decision of a pod that is called `/bad`.
struct Clumsy(AtomicUsize);

impl Controller for Clumsy {
    type Intent = PodId;

    fn name(&self) -> &'static str {
        "clumsy"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Spec]
    }

    fn decide(&self, view: &PodView, _now: Now) -> Decision<PodId> {
        assert!(view.id.as_str() != "/bad" || self.0.fetch_add(1, Ordering::Relaxed) > 0, "out of the blue");
        if view.spec.is_some() && view.queue.is_none() { Decision::now(vec![view.id.clone()]) } else { Decision::nothing() }
    }

    fn apply(&self, _view: &PodView, intents: Vec<PodId>, _now: Now, _ids: &mut dyn Ids) -> Vec<Group> {
        intents.into_iter().map(|id| Group::new(id.clone()).then(Op::record(Key::Queue(id), Queue::default()))).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_one_election_and_nothing_else() {
    let server = Server::start().await;
    let (store, index) = server.connect().await;
    let replica = Replica::start(&store, &index, "one");
    let work = Work::start(&store, &index, "one", Clumsy(AtomicUsize::new(0)));
    until(&index, "elections", |state| ["clumsy", "scaling", "upgrade"].iter().all(|name| state.leader(name).is_some())).await;
    let before = |name: &str| index.read(|state| state.leader(name).unwrap().create_revision);
    let (clumsy, scaling) = (before("clumsy"), before("scaling"));
    put(&store, Key::Spec(pod("/bad")), "{}".to_owned()).await;
    until(&index, "the end of that leadership", |state| state.leader("clumsy").is_none_or(|leader| leader.create_revision != clumsy)).await;
    push(&store, &pod("/a"), 1, "sleep 1").await;
    until_runs(&index, &pod("/a"), 1).await;
    until(&index, "another try", |state| state.pod(&pod("/bad")).is_some_and(|view| view.queue.is_some())).await;
    assert_eq!(before("scaling"), scaling, "another controller lost its election");
    assert!(index.read(|state| state.pod(&pod("/a")).unwrap().accepted.as_ref().unwrap().value.phase == i32::from(Phase::Active)));
    work.stop().await;
    replica.shutdown().await;
}
