//! Launching, updates and their acknowledgement, kills.

use podium_proto::mesos::v1::TaskState;
use podium_proto::mesos::v1::task_status::Source;

use super::{World, agents};
use crate::client::{Client, Kind, ROLE, a_task, info};

#[tokio::test]
async fn a_group_is_launched_runs_is_killed_and_its_id_is_free_again_in_both_encodings() {
    let world = World::start(agents(1)).await;
    for kind in [Kind::Json, Kind::Protobuf] {
        let mut client = Client::try_subscribe(world.address(), kind, info("test", &[]), vec![]).await.unwrap();
        let offer = client.offer().await;
        assert_eq!(offer.allocation_info.as_ref().unwrap().role.as_deref(), Some(ROLE));
        assert_eq!(offer.agent_id.value, "simulated-S0");
        let group = client.group("e", vec![a_task("t1", &offer, &[]), a_task("t2", &offer, &[])]);
        client.accept(&[&offer], vec![group], 0.0).await;
        let first = client.update().await;
        assert_eq!((first.state, first.source), (TaskState::TaskStarting.into(), Some(Source::Executor.into())));
        assert_eq!(first.executor_id.as_ref().unwrap().value, "e");
        client.acknowledge(&first).await;
        client.reach("t1", TaskState::TaskRunning).await;
        client.kill("t1").await;
        // All or nothing: the death of one takes the other along.
        client.reach("t2", TaskState::TaskKilled).await;
        client.expect(podium_proto::mesos::v1::scheduler::call::Type::Teardown, Default::default()).await;
        while client.event().await.is_some() {}
    }
    world.stop().await;
}
