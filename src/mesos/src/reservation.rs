//! What is reserved for an instance with persistent volumes, and how that is said to Mesos. Pure.
//!
//! All that such an instance uses is reserved for its role when it is launched for the first time, by labels that name the
//! instance, and its volumes are created of that, all in the ACCEPT that launches it. From then on it is launched on what
//! carries its labels, and on nothing else; and nothing else is launched there (reference section 4.6).

use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::resource::disk_info::Persistence;
use podium_proto::mesos::v1::resource::{DiskInfo, ReservationInfo, reservation_info};
use podium_proto::mesos::v1::{self, Resource};
use podium_proto::wire::resources;
use podium_types::id::InstanceId;

use crate::task_group::label as of_task;

/// Labels of a reservation, beside some of those that tasks carry: Marathon's own.
pub mod label {
    /// The framework that has reserved.
    pub const FRAMEWORK: &str = "marathon_framework_id";
    /// The instance that it is reserved for.
    pub const INSTANCE: &str = "marathon_task_id";
}

/// Whose a reservation is, as its labels tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The instance's id.
    pub instance: String,
    /// The framework that has reserved.
    pub framework_id: String,
    /// The store that the instance belongs to; empty: it is not Podium's.
    pub cluster_id: String,
    /// The launch with which it was reserved: an instance may have to reserve anew.
    pub incarnation: u32,
    /// The store's revision then.
    pub revision: i64,
}

impl Owner {
    /// Whose a resource is; none if it is reserved for no instance.
    #[must_use]
    pub fn of(resource: &Resource) -> Option<Self> {
        let labels = resource.reservations.last()?.labels.as_ref()?;
        let text = |key: &str| labels.labels.iter().find(|label| label.key == key).and_then(|label| label.value.clone());
        let number = |key: &str| text(key).and_then(|text| text.parse().ok());
        Some(Self {
            instance: text(label::INSTANCE)?,
            framework_id: text(label::FRAMEWORK).unwrap_or_default(),
            cluster_id: text(of_task::CLUSTER).unwrap_or_default(),
            incarnation: number(of_task::INCARNATION).and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            revision: number(of_task::REVISION).unwrap_or(0),
        })
    }

    fn labels(&self) -> v1::Labels {
        let all = [
            (label::FRAMEWORK, self.framework_id.clone()),
            (label::INSTANCE, self.instance.clone()),
            (of_task::CLUSTER, self.cluster_id.clone()),
            (of_task::INCARNATION, self.incarnation.to_string()),
            (of_task::REVISION, self.revision.to_string()),
        ];
        v1::Labels { labels: all.into_iter().map(|(key, value)| v1::Label { key: key.to_owned(), value: Some(value) }).collect() }
    }
}

/// The id of a volume: never the same again, also where an instance has to begin anew on the same agent.
#[must_use]
pub fn persistence_id(instance: &InstanceId, volume: &str, incarnation: u32) -> String {
    let id = format!("{}#{volume}#{}", instance.pod.safe_id(), instance.uuid);
    if incarnation > 1 { format!("{id}.{incarnation}") } else { id }
}

/// A reservation to be made.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// For whom.
    pub owner: &'a Owner,
    /// The role that it is made for.
    pub role: &'a str,
    /// As whom the framework acts.
    pub principal: Option<&'a str>,
}

impl Maker<'_> {
    /// An offered resource as it is once it is reserved.
    #[must_use]
    pub fn reserved(&self, offered: &Resource) -> Resource {
        let mut reserved = offered.clone();
        reserved.reservations.push(ReservationInfo {
            r#type: Some(reservation_info::Type::Dynamic.into()),
            role: Some(self.role.to_owned()),
            principal: self.principal.map(str::to_owned),
            labels: Some(self.owner.labels()),
        });
        reserved
    }

    /// A volume made of reserved disk, as its executor will find it in its sandbox.
    #[must_use]
    pub fn volume(&self, reserved: &Resource, name: &str, persistence_id: &str) -> Resource {
        let persistence = Persistence { id: persistence_id.to_owned(), principal: self.principal.map(str::to_owned) };
        let volume = v1::Volume { container_path: name.to_owned(), mode: v1::volume::Mode::Rw.into(), ..v1::Volume::default() };
        let source = reserved.disk.as_ref().and_then(|disk| disk.source.clone());
        let disk = DiskInfo { persistence: Some(persistence), volume: Some(volume), source };
        Resource { disk: Some(disk), ..reserved.clone() }
    }
}

/// RESERVE of all this and CREATE of the volumes among it, to stand before the launch that uses it.
#[must_use]
pub fn make<'a>(used: impl IntoIterator<Item = &'a Resource>) -> Vec<Operation> {
    let (volumes, plain) = parted(used);
    let reserve = operation::Reserve { resources: plain, source: Vec::new() };
    let reserve = Operation { r#type: Some(operation::Type::Reserve.into()), reserve: Some(reserve), ..Operation::default() };
    let create = operation::Create { volumes };
    let create = Operation { r#type: Some(operation::Type::Create.into()), create: Some(create), ..Operation::default() };
    vec![reserve, create]
}

/// DESTROY of the volumes among this and UNRESERVE of all: their data is gone then.
#[must_use]
pub fn undo<'a>(held: impl IntoIterator<Item = &'a Resource>) -> Vec<Operation> {
    let (volumes, plain) = parted(held);
    let destroy = operation::Destroy { volumes };
    let destroy = Operation { r#type: Some(operation::Type::Destroy.into()), destroy: Some(destroy), ..Operation::default() };
    let unreserve = operation::Unreserve { resources: plain };
    let unreserve = Operation { r#type: Some(operation::Type::Unreserve.into()), unreserve: Some(unreserve), ..Operation::default() };
    let needed = destroy.destroy.as_ref().is_some_and(|destroy| !destroy.volumes.is_empty());
    needed.then_some(destroy).into_iter().chain([unreserve]).collect()
}

/// The volumes, and everything with the disk that they are made of.
fn parted<'a>(all: impl IntoIterator<Item = &'a Resource>) -> (Vec<Resource>, Vec<Resource>) {
    let (mut volumes, mut plain) = (Vec::new(), Vec::new());
    for resource in all {
        let mut under = resource.clone();
        if let Some(disk) = under.disk.take_if(|disk| disk.persistence.is_some()) {
            under.disk = disk.source.map(|source| DiskInfo { source: Some(source), ..DiskInfo::default() });
            volumes.push(resource.clone());
        }
        resources::add(&mut plain, &[under]);
    }
    (volumes, plain)
}

#[cfg(test)]
mod tests {
    use podium_proto::wire::resources::scalar_entry;
    use podium_types::definition::PersistentKind;
    use podium_types::id::PodId;
    use uuid::Uuid;

    use super::*;
    use crate::matching::offered_disk as offered;

    #[test]
    fn what_is_reserved_tells_whose_it_is_and_can_be_undone() {
        let instance = InstanceId { pod: PodId::new("/a/b").unwrap(), uuid: Uuid::from_u128(7) };
        let owner = Owner {
            instance: instance.to_string(),
            framework_id: "F".to_owned(),
            cluster_id: "C".to_owned(),
            incarnation: 2,
            revision: 40,
        };
        let maker = Maker { owner: &owner, role: "db", principal: Some("podium") };
        let cpus = maker.reserved(&scalar_entry("cpus", 100));
        let disk = maker.reserved(&scalar_entry("disk", 5_000));
        let id = persistence_id(&instance, "data", 1);
        assert_eq!(id, format!("a_b#data#{}", instance.uuid));
        assert_eq!(persistence_id(&instance, "data", 3), format!("{id}.3"));
        let volume = maker.volume(&disk, "data", &id);
        assert_eq!(Owner::of(&volume).as_ref(), Some(&owner));
        assert_eq!(Owner::of(&scalar_entry("cpus", 100)), None);
        let used = [cpus.clone(), volume.clone(), disk.clone()];
        let made = make(&used);
        let reserved = &made[0].reserve.as_ref().unwrap().resources;
        assert!(resources::contains(reserved, &[maker.reserved(&scalar_entry("disk", 10_000)), cpus]) && reserved.len() == 2);
        assert_eq!(made[1].create.as_ref().unwrap().volumes, std::slice::from_ref(&volume));
        let undone = undo(&used);
        assert_eq!(undone[0].destroy.as_ref().unwrap().volumes, [volume]);
        assert_eq!(&undone[1].unreserve.as_ref().unwrap().resources, reserved);
        assert_eq!(undo([&disk]).len(), 1, "there is no volume to destroy");
    }

    #[test]
    fn a_volume_on_a_disk_of_its_own_names_that_disk_from_its_reservation_to_its_end() {
        let owner =
            Owner { instance: "i".to_owned(), framework_id: "F".to_owned(), cluster_id: "C".to_owned(), incarnation: 1, revision: 1 };
        let maker = Maker { owner: &owner, role: "db", principal: None };
        let mount = |root: &str| offered(PersistentKind::Mount, root, 100, Some("fast"));
        let disks = ["/a", "/b"].map(|root| maker.reserved(&mount(root)));
        let volumes = [maker.volume(&disks[0], "one", "1"), maker.volume(&disks[1], "two", "2")];
        for (volume, disk) in volumes.iter().zip(&disks) {
            let (volume, disk) = (volume.disk.as_ref().unwrap(), disk.disk.as_ref().unwrap());
            assert!(volume.persistence.is_some() && volume.source == disk.source && disk.source.is_some());
        }
        let (made, undone) = (make(&volumes), undo(&volumes));
        assert_eq!(made[0].reserve.as_ref().unwrap().resources, disks, "whole, each by itself");
        assert_eq!(made[1].create.as_ref().unwrap().volumes, volumes);
        assert_eq!(undone[0].destroy.as_ref().unwrap().volumes, volumes);
        assert_eq!(undone[1].unreserve.as_ref().unwrap().resources, disks);
    }
}
