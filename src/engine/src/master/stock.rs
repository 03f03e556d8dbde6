//! What an agent has, an offer holds or a task uses: the unreserved as plain amounts, since that is nearly all and must be quick
//! to count with, and what is reserved entry by entry, each with its reservation and its volume, as are the disks
//! beside the agent's own. Pure.

use podium_proto::mesos::v1::resource::{ReservationInfo, reservation_info};
use podium_proto::mesos::v1::{Resource, resource, value};
use podium_proto::wire::amounts::Amounts;
use podium_proto::wire::resources;

use super::role_view::is_within;

/// In which form reservations are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As a list of reservations.
    New,
    /// By role and one reservation: to frameworks without RESERVATION_REFINEMENT.
    Old,
    /// In both: to operators.
    Both,
}

/// Unreserved and reserved resources.
#[derive(Debug, Clone, Default)]
pub(super) struct Stock {
    /// What is reserved for nobody.
    pub(super) plain: Amounts,
    /// In the new format, allocated to nobody.
    reserved: Vec<Resource>,
    /// Unreserved disks with a source, likewise.
    disks: Vec<Resource>,
}

impl PartialEq for Stock {
    fn eq(&self, other: &Self) -> bool {
        self.plain == other.plain
            && resources::contains(&self.reserved, &other.reserved)
            && resources::contains(&other.reserved, &self.reserved)
            && resources::contains(&self.disks, &other.disks)
            && resources::contains(&other.disks, &self.disks)
    }
}

impl From<Amounts> for Stock {
    fn from(plain: Amounts) -> Self {
        Self { plain, ..Self::default() }
    }
}

impl Stock {
    /// The sum of these resources, whomever they are allocated to.
    pub(super) fn of(all: &[Resource]) -> Self {
        let (mut reserved, mut disks) = (Vec::new(), Vec::new());
        let unreserved = all.iter().filter(|resource| {
            let entry = bare(resource);
            let list = if entry.is_some() { &mut reserved } else { &mut disks };
            let Some(entry) = entry.or_else(|| bare_disk(resource)) else { return true };
            resources::add(list, std::slice::from_ref(&entry));
            false
        });
        let plain = Amounts::of(unreserved);
        Self { plain, reserved, disks }
    }

    /// What is reserved, entry by entry.
    pub(super) fn reserved(&self) -> &[Resource] {
        &self.reserved
    }

    /// What is reserved for nobody, all disks together.
    pub(super) fn unreserved(&self) -> Amounts {
        let mut sum = self.plain.clone();
        if !self.disks.is_empty() {
            sum.add(&Amounts::of(&self.disks));
        }
        sum
    }

    /// All of it, whoever it is reserved for.
    pub(super) fn sum(&self) -> Amounts {
        let mut sum = self.unreserved();
        if !self.reserved.is_empty() {
            sum.add(&Amounts::of(&self.reserved));
        }
        sum
    }

    /// True if there is nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.reserved.is_empty() && self.disks.is_empty()
    }

    /// True if `other` fits in.
    pub(super) fn contains(&self, other: &Stock) -> bool {
        self.plain.contains(&other.plain)
            && (other.reserved.is_empty() || resources::contains(&self.reserved, &other.reserved))
            && (other.disks.is_empty() || resources::contains(&self.disks, &other.disks))
    }

    /// Adds `other`.
    pub(super) fn add(&mut self, other: &Stock) {
        self.plain.add(&other.plain);
        resources::add(&mut self.reserved, &other.reserved);
        resources::add(&mut self.disks, &other.disks);
    }

    /// Takes `other` out if all of it fits in; otherwise answers false and changes nothing.
    #[must_use]
    pub(super) fn subtract(&mut self, other: &Stock) -> bool {
        let fits = self.contains(other);
        if fits {
            *self = std::mem::take(self).less(other);
        }
        fits
    }

    /// Without `other`, by as much as there is: what is over-committed counts as nothing.
    pub(super) fn less(mut self, other: &Stock) -> Self {
        let plain = &mut self.plain;
        plain.cpus = (plain.cpus - other.plain.cpus).max(0);
        plain.mem = (plain.mem - other.plain.mem).max(0);
        plain.disk = (plain.disk - other.plain.disk).max(0);
        plain.gpus = (plain.gpus - other.plain.gpus).max(0);
        plain.ports.subtract(&other.plain.ports);
        for entry in &other.reserved {
            // What is not there cannot be taken: the agent has forgotten it.
            let _ = resources::subtract(&mut self.reserved, std::slice::from_ref(entry));
        }
        for entry in &other.disks {
            let _ = resources::subtract(&mut self.disks, std::slice::from_ref(entry));
        }
        self
    }

    /// What may be offered to this role: the unreserved, and what is reserved for the role or one above it.
    pub(super) fn part_for(&self, role: &str) -> Self {
        let reserved = self.reserved.iter().filter(|entry| is_within(role, resources::role(entry))).cloned().collect();
        Self { plain: self.plain.clone(), reserved, disks: self.disks.clone() }
    }

    /// As entries for the wire; roles are told where the framework is MULTI_ROLE. In the old form there are no refined
    /// reservations.
    pub(super) fn to_resources(&self, role: Option<&str>, form: Form) -> Vec<Resource> {
        let plain = plain_resources(&self.plain, role, form);
        let shown = self.reserved.iter().filter(|entry| form != Form::Old || entry.reservations.len() == 1);
        let shown = shown.chain(&self.disks);
        plain.into_iter().chain(shown.map(|entry| told(entry, role, form))).collect()
    }
}

/// A reserved resource without allocation and in the new format; none if nobody has reserved it.
#[allow(deprecated)] // Older frameworks send the old format.
pub(super) fn bare(resource: &Resource) -> Option<Resource> {
    let mut entry = Resource { allocation_info: None, role: None, reservation: None, ..resource.clone() };
    if entry.reservations.is_empty() {
        let role = resource.role.clone().filter(|role| role != "*")?;
        let kind = if resource.reservation.is_some() { reservation_info::Type::Dynamic } else { reservation_info::Type::Static };
        let given = resource.reservation.clone().unwrap_or_default();
        entry.reservations = vec![ReservationInfo { r#type: Some(kind.into()), role: Some(role), ..given }];
    }
    Some(entry)
}

/// An unreserved disk beside the agent's own, without allocation; none if it is something else.
#[allow(deprecated)] // As above.
fn bare_disk(resource: &Resource) -> Option<Resource> {
    resource.disk.as_ref()?.source.as_ref()?;
    Some(Resource { allocation_info: None, role: None, reservation: None, ..resource.clone() })
}

#[allow(deprecated)] // As above.
fn told(entry: &Resource, role: Option<&str>, form: Form) -> Resource {
    let mut resource = entry.clone();
    resource.allocation_info = role.map(|role| resource::AllocationInfo { role: Some(role.to_owned()) });
    match entry.reservations.as_slice() {
        [] if form != Form::New => resource.role = Some("*".to_owned()),
        [reservation] if form != Form::New => {
            resource.role.clone_from(&reservation.role);
            if reservation.r#type == Some(reservation_info::Type::Dynamic.into()) {
                resource.reservation = Some(ReservationInfo { role: None, r#type: None, ..reservation.clone() });
            }
        }
        _ => {}
    }
    if form == Form::Old {
        resource.reservations.clear();
    }
    resource
}

fn plain_resources(amounts: &Amounts, role: Option<&str>, form: Form) -> Vec<Resource> {
    let base = |name: &str| Resource {
        name: name.to_owned(),
        allocation_info: role.map(|role| resource::AllocationInfo { role: Some(role.to_owned()) }),
        #[allow(deprecated)]
        role: (form != Form::New).then(|| "*".to_owned()),
        ..Resource::default()
    };
    let scalars = amounts.scalars().into_iter().filter(|(_, amount)| *amount > 0).map(|(name, amount)| Resource {
        r#type: value::Type::Scalar.into(),
        scalar: Some(podium_proto::wire::amounts::scalar(amount)),
        ..base(name)
    });
    let ports = (!amounts.ports.is_empty()).then(|| Resource {
        r#type: value::Type::Ranges.into(),
        ranges: Some(amounts.ports.to_wire()),
        ..base("ports")
    });
    ports.into_iter().chain(scalars).collect()
}
