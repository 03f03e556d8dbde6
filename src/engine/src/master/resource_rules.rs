//! What is wrong with resources, and how Mesos writes them in its messages. Pure.

use std::collections::BTreeSet;

use podium_proto::mesos::v1::resource::disk_info::{Source, source};
use podium_proto::mesos::v1::resource::{DiskInfo, ReservationInfo, reservation_info};
use podium_proto::mesos::v1::{Label, Resource, value};
use podium_proto::wire::ranges::RangeSet;

use super::roles::{check_id, check_role};
use super::stock::Stock;

/// What a task, executor or operation names, before anything else is looked at; the first fault.
pub(super) fn check_all<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Result<(), String> {
    resources
        .into_iter()
        .try_for_each(|resource| check(resource).map_err(|problem| format!("Resource '{}' is invalid: {problem}", describe(resource))))
}

fn check(resource: &Resource) -> Result<(), String> {
    if resource.name.is_empty() {
        return Err("Empty resource name".to_owned());
    }
    check_value(resource)?;
    if resource.disk.is_some() && resource.name != "disk" {
        return Err(format!("DiskInfo should not be set for {} resource", resource.name));
    }
    let shareable = resource.disk.as_ref().is_some_and(|disk| disk.persistence.is_some());
    if resource.shared.is_some() && !shareable {
        return Err(format!("Resource {} cannot be shared", resource.name));
    }
    check_reservations(resource)
}

fn check_value(resource: &Resource) -> Result<(), String> {
    match value::Type::try_from(resource.r#type) {
        Ok(value::Type::Scalar) => match resource.scalar {
            Some(scalar) if scalar.value.is_finite() && scalar.value >= 0.0 => Ok(()),
            Some(_) => Err("Invalid scalar resource: value <= 0".to_owned()),
            None => Err("Invalid scalar resource".to_owned()),
        },
        Ok(value::Type::Ranges) => check_ranges(resource.ranges.as_ref()),
        Ok(value::Type::Set) => {
            let items = resource.set.as_ref().map(|set| set.item.as_slice()).unwrap_or_default();
            let distinct: BTreeSet<&String> = items.iter().collect();
            match items.len() {
                0 => Err("Invalid set resource".to_owned()),
                count if count != distinct.len() => Err("Invalid set resource: duplicated elements".to_owned()),
                _ => Ok(()),
            }
        }
        Ok(value::Type::Text) | Err(_) => Err("Unsupported resource type".to_owned()),
    }
}

fn check_ranges(ranges: Option<&value::Ranges>) -> Result<(), String> {
    let ranges = ranges.map(|ranges| ranges.range.as_slice()).unwrap_or_default();
    if ranges.is_empty() {
        return Err("Invalid ranges resource".to_owned());
    }
    let mut seen = RangeSet::default();
    for range in ranges {
        if range.end < range.begin {
            return Err("Invalid ranges resource: begin > end".to_owned());
        }
        let one: RangeSet = std::iter::once(range.begin..=range.end).collect();
        if seen.intersects(&one) {
            return Err("Invalid ranges resource: overlapping ranges".to_owned());
        }
        seen.union(&one);
    }
    Ok(())
}

#[allow(deprecated)] // `role` is what older clients still set.
fn check_reservations(resource: &Resource) -> Result<(), String> {
    for reservation in &resource.reservations {
        let kind = reservation.r#type.and_then(|kind| reservation_info::Type::try_from(kind).ok());
        if matches!(kind, None | Some(reservation_info::Type::Unknown)) {
            return Err("Invalid reservation: 'Resource.ReservationInfo.type' field must be set.".to_owned());
        }
        let role = reservation.role.as_deref().unwrap_or_default();
        check_role(role)?;
        if role == "*" {
            return Err("Invalid reservation: role \"*\" cannot be reserved".to_owned());
        }
    }
    let Some(role) = resource.role.as_deref() else { return Ok(()) };
    check_role(role)?;
    match resource.reservations.last().and_then(|reservation| reservation.role.as_deref()) {
        Some(reserved) if reserved != role => Err(format!(
            "Invalid resource format: 'Resource.role' field with '{role}' does not match the role '{reserved}' in 'Resource.reservations'"
        )),
        _ => Ok(()),
    }
}

/// What a task or an executor must not mix, and what of it this Mesos does not know.
pub(super) fn check_kinds(resources: &[Resource]) -> Result<(), String> {
    for resource in resources {
        let Some(disk) = &resource.disk else { continue };
        check_disk(disk, podium_proto::wire::resources::is_reserved(resource)).map_err(|problem| format!("Invalid DiskInfo: {problem}"))?;
    }
    let whole = |resource: &Resource| resource.scalar.is_none_or(|scalar| scalar.value.fract() == 0.0);
    if resources.iter().any(|resource| resource.name == "gpus" && !whole(resource)) {
        return Err("Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer".to_owned());
    }
    Ok(())
}

fn check_disk(disk: &DiskInfo, is_reserved: bool) -> Result<(), String> {
    let Some(persistence) = &disk.persistence else {
        let volume = disk.volume.as_ref().map(|_| "Non-persistent volume not supported".to_owned());
        return volume.map_or(Ok(()), Err);
    };
    let problem = match &disk.volume {
        _ if !is_reserved => "Persistent volumes cannot be created from unreserved resources",
        None => "Expecting 'volume' to be set for persistent volume",
        Some(volume) if volume.host_path.is_some() => "Expecting 'host_path' to be unset for persistent volume",
        Some(_) => {
            return check_id(&persistence.id).map_err(|problem| format!("Invalid persistence ID for persistent volume: {problem}"));
        }
    };
    Err(problem.to_owned())
}

/// No resource both revocable and not.
pub(super) fn check_revocable<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Result<(), String> {
    let (revocable, firm): (Vec<&Resource>, Vec<&Resource>) = resources.into_iter().partition(|resource| resource.revocable.is_some());
    match revocable.iter().find(|one| firm.iter().any(|other| other.name == one.name)) {
        Some(both) => Err(format!("Cannot use both revocable and non-revocable '{}' at the same time", both.name)),
        None => Ok(()),
    }
}

/// All allocated, to one single role.
pub(super) fn check_allocation(resources: &[Resource]) -> Result<(), String> {
    let mut single: Option<&str> = None;
    for resource in resources {
        let role = resource.allocation_info.as_ref().and_then(|info| info.role.as_deref());
        let Some(role) = role else { return Err("The resources are not allocated to a role".to_owned()) };
        match single {
            Some(first) if first != role => {
                return Err(format!(
                    "The resources have multiple allocation roles ('{role}' and '{first}') but only one allocation role is allowed"
                ));
            }
            _ => single = Some(role),
        }
    }
    Ok(())
}

/// What is needed fits into what offers of a role hold: this Mesos' agents have cpus, mem, disks, gpus and ports only, and volumes
/// where they are reserved.
pub(super) fn fits(needed: &[Resource], available: &Stock, role: &str) -> bool {
    let known = |resource: &Resource| is_plain(resource) || podium_proto::wire::resources::is_reserved(resource);
    needed.iter().all(|resource| known(resource) && allocated_to(resource) == Some(role)) && available.contains(&Stock::of(needed))
}

fn allocated_to(resource: &Resource) -> Option<&str> {
    resource.allocation_info.as_ref().and_then(|info| info.role.as_deref())
}

/// Unreserved, and of a kind that there is.
pub(super) fn is_plain(resource: &Resource) -> bool {
    let known = match value::Type::try_from(resource.r#type) {
        Ok(value::Type::Scalar) => matches!(resource.name.as_str(), "cpus" | "mem" | "disk" | "gpus"),
        Ok(value::Type::Ranges) => resource.name == "ports",
        Ok(value::Type::Set | value::Type::Text) | Err(_) => false,
    };
    let is_disk = |disk: &DiskInfo| disk.source.is_some() && disk.persistence.is_none() && disk.volume.is_none();
    let odd = resource.disk.as_ref().is_some_and(|disk| resource.name != "disk" || !is_disk(disk));
    let special = odd || resource.revocable.is_some() || resource.shared.is_some() || resource.provider_id.is_some();
    known && !special && !podium_proto::wire::resources::is_reserved(resource)
}

/// Resources as Mesos writes them: `cpus(allocated: web):0.1; mem(allocated: web):32`.
pub(super) fn describe_all(resources: &[Resource]) -> String {
    resources.iter().map(describe).collect::<Vec<_>>().join("; ")
}

/// One resource as Mesos writes it.
#[allow(deprecated)] // As above.
pub(super) fn describe(resource: &Resource) -> String {
    let mut text = resource.name.clone();
    if let Some(role) = allocated_to(resource) {
        text += &format!("(allocated: {role})");
    }
    let reservation = |reservation: &ReservationInfo| {
        let kind = reservation.r#type.and_then(|kind| reservation_info::Type::try_from(kind).ok());
        let kind = kind.map_or("UNKNOWN", |kind| kind.as_str_name());
        let mut parts = vec![kind.to_owned(), reservation.role.clone().unwrap_or_default()];
        parts.extend(reservation.principal.clone());
        if let Some(labels) = &reservation.labels {
            let label = |label: &Label| label.value.as_ref().map_or(label.key.clone(), |value| format!("{}: {value}", label.key));
            parts.push(format!("{{{}}}", labels.labels.iter().map(label).collect::<Vec<_>>().join(", ")));
        }
        format!("({})", parts.join(","))
    };
    let mut reservations: Vec<String> = resource.reservations.iter().map(reservation).collect();
    // The older form of a static reservation.
    if reservations.is_empty()
        && let Some(role) = resource.role.as_deref().filter(|role| *role != "*" && resource.allocation_info.is_some())
    {
        reservations.push(format!("(STATIC,{role})"));
    }
    if !reservations.is_empty() {
        text += &format!("(reservations: [{}])", reservations.join(","));
    }
    if let Some(disk) = &resource.disk {
        let id = disk.persistence.as_ref().map(|persistence| persistence.id.as_str());
        let at = disk.volume.as_ref().filter(|_| id.is_some()).map(|volume| format!(":{}", volume.container_path));
        let source = disk.source.as_ref().map(describe_source);
        let between = if source.is_some() && id.is_some() { "," } else { "" };
        text += &format!("[{}{between}{}{}]", source.unwrap_or_default(), id.unwrap_or_default(), at.unwrap_or_default());
    }
    if resource.revocable.is_some() {
        text += "{REV}";
    }
    if resource.shared.is_some() {
        text += "<SHARED>";
    }
    text + ":" + &describe_value(resource)
}

fn describe_source(source: &Source) -> String {
    let kind = source::Type::try_from(source.r#type).map_or("UNKNOWN", |kind| kind.as_str_name());
    let named = [&source.vendor, &source.id, &source.profile];
    if named.iter().any(|name| name.is_some()) {
        return format!("{kind}({})", named.map(|name| name.as_deref().unwrap_or_default()).join(","));
    }
    let path = source.path.as_ref().and_then(|path| path.root.as_deref());
    let root = path.or(source.mount.as_ref().and_then(|mount| mount.root.as_deref()));
    root.map_or(kind.to_owned(), |root| format!("{kind}:{root}"))
}

fn describe_value(resource: &Resource) -> String {
    match value::Type::try_from(resource.r#type) {
        Ok(value::Type::Ranges) => {
            let ranges = resource.ranges.as_ref().map(|ranges| ranges.range.as_slice()).unwrap_or_default();
            format!("[{}]", ranges.iter().map(|range| format!("{}-{}", range.begin, range.end)).collect::<Vec<_>>().join(", "))
        }
        Ok(value::Type::Set) => {
            format!("{{{}}}", resource.set.as_ref().map(|set| set.item.join(", ")).unwrap_or_default())
        }
        Ok(value::Type::Scalar | value::Type::Text) | Err(_) => resource.scalar.map_or(0.0, |scalar| scalar.value).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::resource::AllocationInfo;
    use podium_proto::wire::resources::{ranges_entry, scalar_entry};

    use super::*;

    fn allocated(role: &str, mut resource: Resource) -> Resource {
        resource.allocation_info = Some(AllocationInfo { role: Some(role.to_owned()) });
        resource
    }

    #[test]
    fn resources_are_written_as_mesos_writes_them() {
        let ports = ranges_entry("ports", &[1..=2, 5..=5].into_iter().collect());
        assert_eq!(describe_all(&[scalar_entry("cpus", 100), allocated("web", ports)]), "cpus:0.1; ports(allocated: web):[1-2, 5-5]");
    }

    #[test]
    fn disks_with_a_source_are_accounts_of_their_own_and_mounts_are_whole() {
        let disk = |kind: source::Type, root: &str, profile: Option<&str>, size: i64| {
            let (root, profile) = (Some(root.to_owned()), profile.map(str::to_owned));
            let mut source = Source { r#type: kind.into(), profile, ..Source::default() };
            if kind == source::Type::Path {
                source.path = Some(source::Path { root });
            } else {
                source.mount = Some(source::Mount { root });
            }
            let disk = DiskInfo { source: Some(source), ..DiskInfo::default() };
            allocated("web", Resource { disk: Some(disk), ..scalar_entry("disk", size) })
        };
        let (path, mount) = (disk(source::Type::Path, "/a", None, 5_000), disk(source::Type::Mount, "/b", Some("fast"), 7_000));
        let all = [allocated("web", scalar_entry("disk", 1_000)), path.clone(), mount.clone()];
        let available = Stock::of(&all);
        assert_eq!((available.plain.disk, available.sum().disk, available.unreserved().disk), (1_000, 13_000, 13_000));
        assert_eq!(describe_all(&all[1..]), "disk(allocated: web)[PATH:/a]:5; disk(allocated: web)[MOUNT(,,fast)]:7");
        let fits = |needed: Resource| fits(&[needed], &available, "web");
        assert!(fits(path) && fits(mount) && fits(disk(source::Type::Path, "/a", None, 1_000)));
        assert!(!fits(disk(source::Type::Mount, "/b", Some("fast"), 6_000)), "a part of a mount");
        assert!(!fits(disk(source::Type::Path, "/b", None, 1_000)) && !fits(disk(source::Type::Mount, "/b", None, 7_000)));
        assert!(!fits(allocated("web", scalar_entry("disk", 2_000))), "more than there is of the agent's own");
        let mut rest = available.clone();
        assert!(rest.subtract(&Stock::of(&all[1..])) && rest.sum().disk == 1_000 && !rest.is_empty());
        rest.add(&Stock::of(&all[1..]));
        assert_eq!(rest, available);
        assert_eq!(rest.less(&available), Stock::default());
    }

    #[test]
    fn what_is_reserved_unknown_or_for_another_role_fits_nowhere() {
        let available = Stock::of(&[scalar_entry("cpus", 1000)]);
        let cpus = allocated("web", scalar_entry("cpus", 1000));
        assert!(fits(std::slice::from_ref(&cpus), &available, "web"));
        assert!(!fits(std::slice::from_ref(&cpus), &available, "db"));
        assert!(!fits(&[allocated("web", scalar_entry("luck", 1))], &available, "web"));
        let reservations = vec![ReservationInfo { r#type: Some(2), role: Some("web".to_owned()), ..ReservationInfo::default() }];
        assert!(!fits(&[Resource { reservations, ..cpus.clone() }], &available, "web"));
        assert!(!fits(&[cpus.clone(), cpus], &available, "web"));
    }
}
