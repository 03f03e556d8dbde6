//! Many agents, many tasks: nothing is lost, nothing is offered twice. No times are asserted.

use std::collections::{BTreeMap, BTreeSet};

use podium_proto::mesos::v1::TaskState;

use super::{World, agents};
use crate::client::{Client, a_task, info};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_agent_is_offered_once_and_runs_what_it_was_given() {
    const AGENTS: usize = 300;
    let world = World::start(agents(AGENTS)).await;
    let mut client = Client::subscribe(world.address(), info("test", &[])).await;
    let mut by_agent = BTreeMap::new();
    while by_agent.len() < AGENTS {
        let offer = client.offer().await;
        assert!(by_agent.insert(offer.agent_id.value.clone(), offer).is_none(), "offered twice");
    }
    for (number, offer) in by_agent.values().enumerate() {
        let operations =
            (0..3).map(|group| client.group(&format!("e{number}-{group}"), vec![a_task(&format!("t{number}-{group}"), offer, &[])]));
        client.accept(&[offer], operations.collect(), 3600.0).await;
    }
    let mut running = BTreeMap::new();
    while running.len() < AGENTS * 3 {
        let status = client.update().await;
        client.acknowledge(&status).await;
        if status.state == i32::from(TaskState::TaskRunning) {
            // What waits too long for its acknowledgement is sent again, with the same uuid.
            let before = running.insert(status.task_id.value.clone(), status.uuid.clone());
            assert!(before.is_none() || before == Some(status.uuid), "{} ran twice", status.task_id.value);
        }
    }
    client.reconcile(&[]).await;
    let mut known = BTreeSet::new();
    while known.len() < running.len() {
        known.insert(client.update().await.task_id.value);
    }
    assert!(known.iter().eq(running.keys()), "reconciliation knows others than those that run");
    world.stop().await;
}
