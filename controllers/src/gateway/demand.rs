//! When to ask Mesos for offers, by role: REVIVE when something new waits, SUPPRESS when nothing does.

use std::collections::{BTreeMap, BTreeSet};

use super::output::Call;

/// One role's offers.
#[derive(Debug, Clone, Copy, Default)]
struct Role {
    suppressed: bool,
    /// Something began to wait since offers were last asked for.
    asked: bool,
    last_revive_ms: Option<i64>,
}

/// All roles that we are subscribed for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    roles: BTreeMap<String, Role>,
}

impl Demand {
    /// Something new waits in this role. In one that is not ours yet it waits for [`Demand::granted`].
    pub fn ask(&mut self, role: &str) {
        if let Some(known) = self.roles.get_mut(role) {
            known.asked = true;
        }
    }

    /// We are subscribed for a role more. What waits in it gets offers at once, instead of at the allocator's next turn.
    pub fn granted(&mut self, role: &str) {
        self.roles.entry(role.to_owned()).or_insert(Role { asked: true, ..Role::default() });
    }

    /// The roles for which Mesos is to offer nothing.
    pub fn suppressed(&self) -> Vec<String> {
        self.roles.iter().filter(|(_, role)| role.suppressed).map(|(name, _)| name.clone()).collect()
    }

    /// A new subscription: no filters, and no offers for the roles that were `suppressed` with it.
    pub fn reset(&mut self, roles: &BTreeSet<String>, suppressed: &[String]) {
        let role = |name: &String| Role { suppressed: suppressed.contains(name), ..Role::default() };
        self.roles = roles.iter().map(|name| (name.clone(), role(name))).collect();
    }

    /// What to call now, given the roles in which something waits.
    pub fn due(&mut self, wanted: &BTreeSet<String>, now: i64, min_revive_ms: i64) -> Vec<Call> {
        let (mut revive, mut suppress) = (Vec::new(), Vec::new());
        for (name, role) in &mut self.roles {
            if wanted.contains(name) {
                let rested = role.last_revive_ms.is_none_or(|last| now >= last.saturating_add(min_revive_ms));
                if (role.asked || role.suppressed) && rested {
                    *role = Role { last_revive_ms: Some(now), ..Role::default() };
                    revive.push(name.clone());
                }
            } else if !role.suppressed {
                role.suppressed = true;
                role.asked = false;
                suppress.push(name.clone());
            }
        }
        let calls = [(!revive.is_empty()).then_some(Call::Revive(revive)), (!suppress.is_empty()).then_some(Call::Suppress(suppress))];
        calls.into_iter().flatten().collect()
    }

    /// When a REVIVE that had to wait is due.
    pub fn next_wake(&self, wanted: &BTreeSet<String>, min_revive_ms: i64) -> Option<i64> {
        let waiting = self.roles.iter().filter(|(name, role)| wanted.contains(*name) && (role.asked || role.suppressed));
        waiting.map(|(_, role)| role.last_revive_ms.map_or(0, |last| last.saturating_add(min_revive_ms))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn offers_are_asked_for_once_and_suppressed_once() {
        let mut demand = Demand::default();
        demand.reset(&roles(&["*"]), &[]);
        assert_eq!(demand.due(&roles(&[]), 0, 200), [Call::Suppress(vec!["*".into()])]);
        assert_eq!(demand.due(&roles(&[]), 1, 200), []);
        demand.ask("*");
        assert_eq!(demand.due(&roles(&["*"]), 2, 200), [Call::Revive(vec!["*".into()])]);
        assert_eq!(demand.due(&roles(&["*"]), 3, 200), []);
        demand.ask("*");
        assert_eq!(demand.due(&roles(&["*"]), 4, 200), [], "too soon after the last");
        assert_eq!(demand.next_wake(&roles(&["*"]), 200), Some(202));
        assert_eq!(demand.due(&roles(&["*"]), 202, 200), [Call::Revive(vec!["*".into()])]);
        assert_eq!(demand.next_wake(&roles(&["*"]), 200), None);
    }

    #[test]
    fn a_new_subscription_gets_offers_unasked() {
        let mut demand = Demand::default();
        demand.reset(&roles(&["*"]), &[]);
        assert_eq!(demand.due(&roles(&["*"]), 0, 200), []);
    }

    #[test]
    fn what_was_suppressed_with_the_subscription_is_not_suppressed_again_and_is_revived_when_something_waits() {
        let mut demand = Demand::default();
        demand.reset(&roles(&["a", "b"]), &["a".to_owned()]);
        assert_eq!(demand.due(&roles(&["b"]), 0, 200), []);
        // It began to wait between SUBSCRIBE and the answer: nobody asked since.
        assert_eq!(demand.next_wake(&roles(&["a", "b"]), 200), Some(0));
        assert_eq!(demand.due(&roles(&["a", "b"]), 1, 200), [Call::Revive(vec!["a".into()])]);
    }
}
