//! Which resources a pod may spend, by the role that they are reserved for.

/// What resources a pod accepts that does not say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AcceptedRoles {
    /// Reserved for its role, and unreserved.
    #[default]
    Any,
    /// Unreserved only.
    Unreserved,
    /// Reserved for its role only.
    Reserved,
}

/// The roles that one pod accepts: its own list, or the server's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Accepted<'a> {
    own: &'a [String],
    rule: AcceptedRoles,
}

impl<'a> Accepted<'a> {
    pub fn new(own: &'a [String], rule: AcceptedRoles) -> Self {
        Accepted { own, rule }
    }

    /// Whether an entry that belongs to `role` may be spent.
    pub fn admits(&self, role: &str) -> bool {
        if !self.own.is_empty() {
            return self.own.iter().any(|accepted| accepted == role);
        }
        match self.rule {
            AcceptedRoles::Any => true,
            AcceptedRoles::Unreserved => role == "*",
            AcceptedRoles::Reserved => role != "*",
        }
    }

    pub fn is_everything(&self) -> bool {
        self.own.is_empty() && self.rule == AcceptedRoles::Any
    }
}
