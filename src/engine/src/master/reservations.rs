//! RESERVE, UNRESERVE, CREATE and DESTROY: for whom an agent's resources are reserved, and which persistent volumes it has.
//!
//! Each changes what the offers of its ACCEPT hold, so that what follows there can use it, and what the agent has. The agent
//! writes that down, and tells it when it registers again. In Mesos' order and words.

use podium_proto::mesos::v1::offer::{Operation, operation};
use podium_proto::mesos::v1::resource::{DiskInfo, reservation_info};
use podium_proto::mesos::v1::{Resource, volume};
use podium_proto::wire::resources;

use super::accept::Bundle;
use super::agents::Agent;
use super::group_rules::fill_roles;
use super::resource_rules::{self, describe, describe_all};
use super::state::State;
use super::stock::{Form, Stock, bare};
use crate::link::ToAgent;

/// One resource, and what becomes of it.
type Conversion = (Resource, Resource);

/// What becomes of which resources, or what is wrong with the operation.
fn conversions(
    kind: operation::Type,
    operation: &Operation,
    bundle: &Bundle,
    agent: &Agent,
    principal: Option<&str>,
) -> Result<Vec<Conversion>, String> {
    let named = match kind {
        operation::Type::Reserve => operation.reserve.as_ref().map(|part| &part.resources),
        operation::Type::Unreserve => operation.unreserve.as_ref().map(|part| &part.resources),
        operation::Type::Create => operation.create.as_ref().map(|part| &part.volumes),
        operation::Type::Destroy => operation.destroy.as_ref().map(|part| &part.volumes),
        _ => None,
    };
    let mut named = named.cloned().unwrap_or_default();
    resource_rules::check_all(&named)?;
    fill_roles(&mut named, &bundle.role);
    let placed =
        |problem: String| format!("{problem}; on agent {} at {}@{} ({})", agent.id, agent.process(), agent.address, agent.info.hostname);
    check(kind, &named, bundle, agent, principal).map_err(placed)?;
    let convert = |resource: &Resource| {
        let entry = bare(resource).unwrap_or_else(|| Resource { allocation_info: None, ..resource.clone() });
        match kind {
            operation::Type::Reserve => (unreserved(&entry), entry),
            operation::Type::Unreserve => (entry.clone(), unreserved(&entry)),
            operation::Type::Create => (without_volume(&entry), entry),
            _ => (entry.clone(), without_volume(&entry)),
        }
    };
    Ok(named.iter().map(convert).collect())
}

/// Without its last reservation.
fn unreserved(entry: &Resource) -> Resource {
    let mut entry = entry.clone();
    entry.reservations.pop();
    entry
}

/// The disk that a volume is made of.
pub(super) fn without_volume(entry: &Resource) -> Resource {
    let source = entry.disk.as_ref().and_then(|disk| disk.source.clone());
    let disk = source.map(|source| DiskInfo { source: Some(source), ..DiskInfo::default() });
    Resource { disk, shared: None, ..entry.clone() }
}

fn persistence(resource: &Resource) -> Option<&str> {
    Some(resource.disk.as_ref()?.persistence.as_ref()?.id.as_str())
}

fn is_dynamic(resource: &Resource) -> bool {
    bare(resource)
        .is_some_and(|entry| entry.reservations.last().and_then(|last| last.r#type) == Some(reservation_info::Type::Dynamic.into()))
}

fn check(kind: operation::Type, named: &[Resource], bundle: &Bundle, agent: &Agent, principal: Option<&str>) -> Result<(), String> {
    if named.is_empty() {
        return Err("Invalid resources: The resources have multiple resource providers: ".to_owned());
    }
    resource_rules::check_kinds(named).map_err(|problem| format!("Invalid resources: {problem}"))?;
    match kind {
        operation::Type::Reserve => named.iter().try_for_each(|resource| check_reserve(resource, &bundle.role, principal)),
        operation::Type::Unreserve => named.iter().try_for_each(|resource| {
            if !is_dynamic(resource) {
                return Err(format!("Resource {} is not dynamically reserved", describe(resource)));
            }
            if persistence(resource).is_some() {
                return Err(format!("A dynamically reserved persistent volume {} cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", describe(resource)));
            }
            Ok(())
        }),
        operation::Type::Create => check_create(named, agent, principal),
        _ => {
            named.iter().try_for_each(|resource| check_is_volume(&Resource { allocation_info: None, ..resource.clone() }))?;
            let known = resources::contains(agent.total.reserved(), Stock::of(named).reserved());
            if known { Ok(()) } else { Err("Persistent volumes not found".to_owned()) }
        }
    }
}

fn check_reserve(resource: &Resource, role: &str, principal: Option<&str>) -> Result<(), String> {
    if !is_dynamic(resource) {
        return Err(format!("Resource {} is not dynamically reserved", describe(resource)));
    }
    let reserved = resources::role(resource);
    if reserved != role {
        return Err(format!(
            "A reserve operation was attempted for a resource with role '{reserved}', but the resource was allocated to role '{role}'"
        ));
    }
    if let Some(principal) = principal {
        let named = bare(resource).and_then(|entry| entry.reservations.last()?.principal.clone());
        match named.as_deref() {
            Some(named) if named == principal => {}
            Some(named) => {
                return Err(format!(
                    "A reserve operation was attempted by authenticated principal '{principal}', which does not match a reserved resource in the request with principal '{named}'"
                ));
            }
            None => {
                return Err(format!(
                    "A reserve operation was attempted by principal '{principal}', but there is a reserved resource in the request with no principal set"
                ));
            }
        }
    }
    Ok(())
}

fn check_is_volume(resource: &Resource) -> Result<(), String> {
    match &resource.disk {
        None => Err(format!("Not a persistent volume: Resource {} does not have DiskInfo", describe(resource))),
        Some(disk) if disk.persistence.is_none() => Err("Not a persistent volume: 'persistence' is not set in DiskInfo".to_owned()),
        Some(_) => Ok(()),
    }
}

fn check_create(named: &[Resource], agent: &Agent, principal: Option<&str>) -> Result<(), String> {
    named.iter().try_for_each(check_is_volume)?;
    let mut seen = Vec::new();
    for resource in named {
        let Some(disk) = &resource.disk else { continue };
        let (role, id) = (resources::role(resource), persistence(resource).unwrap_or_default());
        if disk.volume.as_ref().is_some_and(|volume| volume.mode == i32::from(volume::Mode::Ro)) {
            return Err("Not a persistent volume: Read-only persistent volume not supported".to_owned());
        }
        let known = agent.total.reserved().iter().any(|entry| persistence(entry) == Some(id) && resources::role(entry) == role);
        if known || seen.contains(&(role, id)) {
            return Err(format!("Persistence ID '{id}' is not unique"));
        }
        seen.push((role, id));
        let named = disk.persistence.as_ref().and_then(|persistence| persistence.principal.as_deref());
        if let Some(principal) = principal
            && named != Some(principal)
        {
            return Err(match named {
                Some(named) => format!(
                    "Create volume operation attempted by authenticated principal '{principal}', which does not match a volume in the operation with principal '{named}' set in 'disk.persistence'"
                ),
                None => format!(
                    "Create volume operation attempted by principal '{principal}', but there is a volume in the operation with no principal set in 'disk.persistence'"
                ),
            });
        }
    }
    Ok(())
}

impl State {
    /// Carries such an operation out, or says what is wrong with it. One with an id would have to be answered for by the agent,
    /// which these agents cannot.
    pub(super) fn convert(
        &mut self,
        framework_id: &str,
        kind: operation::Type,
        operation: &Operation,
        bundle: &mut Bundle,
    ) -> Result<(), String> {
        let (Some(framework), Some(agent)) = (self.frameworks.get(framework_id), self.agents.get_mut(&bundle.agent)) else { return Ok(()) };
        let conversions = conversions(kind, operation, bundle, agent, framework.info.principal.as_deref())?;
        let mut left = bundle.left.clone();
        let mut total = agent.total.clone();
        for (before, after) in &conversions {
            let (consumed, converted) = (Stock::of(std::slice::from_ref(before)), Stock::of(std::slice::from_ref(after)));
            let known = resources::is_reserved(before) || resource_rules::is_plain(before);
            if !known || !left.subtract(&consumed) || !total.subtract(&consumed) {
                let mut shown = vec![before.clone()];
                fill_roles(&mut shown, &bundle.role);
                return Err(format!(
                    "{} does not contain {}",
                    describe_all(&left.to_resources(Some(&bundle.role), Form::New)),
                    describe_all(&shown)
                ));
            }
            left.add(&converted);
            total.add(&converted);
        }
        if operation.id.is_some() {
            return Err("This engine's agents give no feedback on operations: leave out the `id`".to_owned());
        }
        bundle.left = left;
        bundle.used = true;
        let resources = [total.reserved(), &agent.unfit].concat();
        agent.total = total;
        self.must_send(&bundle.agent, ToAgent::CheckpointResources { resources });
        Ok(())
    }
}
