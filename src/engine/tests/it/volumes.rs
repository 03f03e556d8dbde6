//! Whatever a master or an agent has forgotten, or has no room for any more: no persistent volume is removed that nobody has destroyed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use podium_engine::{
    Agents, Config, Engine, RealAgent, Settings,
    agent::{Retention, parse_resources},
};
use podium_proto::{
    mesos::v1::{
        Offer, Resource, Volume,
        offer::{Operation, operation},
        resource::{AllocationInfo, DiskInfo, ReservationInfo, disk_info::Persistence},
        volume,
    },
    wire::resources::scalar_entry,
};
use tokio::net::TcpListener;

use crate::{
    agent::wait::appears,
    client::{Client, ROLE, info_with_id},
};

/// An engine on this machine that has so much.
async fn engine(folder: &Path, resources: &str) -> Engine {
    let agent = RealAgent {
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        resources: parse_resources(resources).unwrap(),
        attributes: Vec::new(),
        hostname: "localhost".to_owned(),
        executor_command: vec![env!("CARGO_BIN_EXE_podium-executor").into()],
        retention: Retention::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config { listener, data_dir: folder.to_owned(), agents: Agents::Real(agent), settings: Settings::default() };
    Engine::start(config).await.unwrap()
}

/// So many megabytes of the role's disk, reserved, and a volume if it has an id.
fn reserved(megabytes: i64, id: Option<&str>) -> Resource {
    let disk = id.map(|id| DiskInfo {
        persistence: Some(Persistence { id: id.to_owned(), principal: None }),
        volume: Some(Volume { container_path: "data".to_owned(), mode: volume::Mode::Rw.into(), ..Volume::default() }),
        source: None,
    });
    let reservation = ReservationInfo {
        r#type: Some(podium_proto::mesos::v1::resource::reservation_info::Type::Dynamic.into()),
        role: Some(ROLE.to_owned()),
        ..ReservationInfo::default()
    };
    Resource {
        allocation_info: Some(AllocationInfo { role: Some(ROLE.to_owned()) }),
        reservations: vec![reservation],
        disk,
        ..scalar_entry("disk", megabytes * 1000)
    }
}

/// Has a volume made in what is offered; its folder, once that is there.
async fn create(folder: &Path, client: &mut Client, offer: &Offer, id: &str, megabytes: i64) -> PathBuf {
    let reserve = Operation {
        r#type: Some(operation::Type::Reserve.into()),
        reserve: Some(operation::Reserve { resources: vec![reserved(megabytes, None)], ..operation::Reserve::default() }),
        ..Operation::default()
    };
    let create = Operation {
        r#type: Some(operation::Type::Create.into()),
        create: Some(operation::Create { volumes: vec![reserved(megabytes, Some(id))] }),
        ..Operation::default()
    };
    client.accept(&[offer], vec![reserve, create], 0.0).await;
    let path = folder.join("agent/volumes/roles").join(ROLE).join(id);
    appears(&path).await;
    path
}

/// Two volumes more: with the second, all that was to be done for the first is done.
async fn create_two(folder: &Path, client: &mut Client) {
    for id in ["second", "third"] {
        let offer = client.offer().await;
        create(folder, client, &offer, id, 10).await;
    }
}

/// An engine that has made a volume, with something in it, and has crashed.
async fn with_a_volume(folder: &Path) -> PathBuf {
    let first = engine(folder, "cpus:4;mem:1024;disk:1000").await;
    let mut client = Client::subscribe(first.address(), info_with_id("f")).await;
    let offer = client.offer().await;
    let kept = create(folder, &mut client, &offer, "kept", 500).await.join("file");
    fs::write(&kept, "data").unwrap();
    first.abort().await;
    kept
}

#[tokio::test]
async fn an_agent_started_with_less_keeps_the_volumes_that_find_no_room_when_others_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let kept = with_a_volume(folder.path()).await;
    let less = engine(folder.path(), "cpus:4;mem:1024;disk:100").await;
    let mut client = Client::subscribe(less.address(), info_with_id("f")).await;
    create_two(folder.path(), &mut client).await;
    less.abort().await;
    assert_eq!(fs::read_to_string(&kept).unwrap(), "data");

    // With room for it again, it is offered again.
    let again = engine(folder.path(), "cpus:4;mem:1024;disk:1000").await;
    let mut client = Client::subscribe(again.address(), info_with_id("f")).await;
    let offer = client.offer().await;
    let mut volumes: Vec<&str> =
        offer.resources.iter().filter_map(|one| Some(one.disk.as_ref()?.persistence.as_ref()?.id.as_str())).collect();
    volumes.sort_unstable();
    assert_eq!(volumes, ["kept", "second", "third"]);
    again.abort().await;
    assert_eq!(fs::read_to_string(&kept).unwrap(), "data");
}

#[tokio::test]
async fn an_agent_that_has_lost_its_records_keeps_the_volumes_that_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let kept = with_a_volume(folder.path()).await;
    fs::remove_file(folder.path().join("agent/agent.redb")).unwrap();
    let forgetful = engine(folder.path(), "cpus:4;mem:1024;disk:1000").await;
    let mut client = Client::subscribe(forgetful.address(), info_with_id("f")).await;
    create_two(folder.path(), &mut client).await;
    forgetful.abort().await;
    assert_eq!(fs::read_to_string(&kept).unwrap(), "data");
}
