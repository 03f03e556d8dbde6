//! The roles that we are subscribed for. They follow those of the pods, within the subscription, and one that Mesos
//! refuses costs nobody else theirs. Pure.
//!
//! What is not granted yet is asked for at once, all of it or nothing, as UPDATE_FRAMEWORK is answered; of what is refused,
//! each half by itself, until a refusal speaks of one role. Such a role is asked for again from time to time, and with
//! every subscription: the master's rules may have changed. What no pod has any more goes with the next subscription.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A refused role is asked for again after so long.
const AGAIN_MS: i64 = 60_000;

/// A role that Mesos refuses.
#[derive(Debug)]
struct Refusal {
    /// Why, in its words.
    words: String,
    again_ms: i64,
}

/// Where each role stands.
#[derive(Debug, Default)]
pub(super) struct Roles {
    /// How many pods have it.
    wanted: BTreeMap<String, usize>,
    /// This subscription has it.
    granted: BTreeSet<String>,
    refused: BTreeMap<String, Refusal>,
    /// Each to be asked for by itself: together they were refused.
    halves: VecDeque<Vec<String>>,
    /// Asked for and not answered.
    asked: Vec<String>,
    subscribed: bool,
}

impl Roles {
    /// A pod's roles are no longer those of `before`.
    pub fn changed(&mut self, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        for role in after.difference(before) {
            *self.wanted.entry(role.clone()).or_default() += 1;
        }
        for role in before.difference(after) {
            if let Some(count) = self.wanted.get_mut(role) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.wanted.remove(role);
                    self.refused.remove(role);
                }
            }
        }
    }

    /// What to subscribe for: all that pods have, but for what was refused. Where there is no pod yet, `default`.
    pub fn to_subscribe(&self, default: &str) -> Vec<String> {
        if self.wanted.is_empty() {
            return vec![default.to_owned()];
        }
        self.wanted.keys().filter(|role| !self.refused.contains_key(*role)).cloned().collect()
    }

    /// A new subscription, for these roles.
    pub fn subscribed(&mut self, granted: &[String]) {
        self.ended();
        self.granted = granted.iter().cloned().collect();
        self.subscribed = true;
        let granted = &self.granted;
        self.refused.retain(|role, _| !granted.contains(role));
        self.refused.values_mut().for_each(|refusal| refusal.again_ms = 0);
    }

    /// The subscription is over.
    pub fn ended(&mut self) {
        self.subscribed = false;
        self.granted.clear();
        self.halves.clear();
        self.asked.clear();
    }

    /// What this subscription has.
    pub fn granted(&self) -> &BTreeSet<String> {
        &self.granted
    }

    /// Why Mesos refuses a role.
    pub fn refusal(&self, role: &str) -> Option<&str> {
        self.refused.get(role).map(|refusal| refusal.words.as_str())
    }

    /// What to ask for now, in addition to what is granted.
    pub fn due(&mut self, now: i64) -> Option<&[String]> {
        if !self.subscribed || !self.asked.is_empty() {
            return None;
        }
        self.asked = match self.halves.pop_front() {
            Some(half) => half,
            None => {
                let fresh: Vec<String> = self.fresh().cloned().collect();
                let again = self.refused.iter().find(|(_, refusal)| refusal.again_ms <= now).map(|(role, _)| role.clone());
                if fresh.is_empty() { again.into_iter().collect() } else { fresh }
            }
        };
        (!self.asked.is_empty()).then_some(&self.asked)
    }

    fn fresh(&self) -> impl Iterator<Item = &String> {
        self.wanted.keys().filter(|role| !self.granted.contains(*role) && !self.refused.contains_key(*role))
    }

    /// When something is to be asked for.
    pub fn next_wake(&self) -> Option<i64> {
        if !self.subscribed || !self.asked.is_empty() {
            return None;
        }
        let at_once = (!self.halves.is_empty() || self.fresh().next().is_some()).then_some(0);
        at_once.or_else(|| self.refused.values().map(|refusal| refusal.again_ms).min())
    }

    /// Mesos has answered what was due: the roles that it grants by that.
    pub fn answered(&mut self, answer: Result<(), String>, now: i64) -> Vec<String> {
        let mut asked = std::mem::take(&mut self.asked);
        match answer {
            Ok(()) => {
                for role in &asked {
                    self.refused.remove(role);
                    self.granted.insert(role.clone());
                }
                asked
            }
            Err(_) if asked.len() > 1 => {
                let half = asked.split_off(asked.len() / 2);
                self.halves.extend([asked, half]);
                Vec::new()
            }
            Err(words) => {
                // Its last pod may have gone meanwhile.
                for role in asked.into_iter().filter(|role| self.wanted.contains_key(role)) {
                    if self.refusal(&role) != Some(&words) {
                        tracing::warn!(role, words, "Mesos refuses a role; its pods wait");
                    }
                    self.refused.insert(role, Refusal { words: words.clone(), again_ms: now.saturating_add(AGAIN_MS) });
                }
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn wanted(names: &[&str]) -> Roles {
        let mut roles = Roles::default();
        roles.changed(&set(&[]), &set(names));
        roles
    }

    /// Asks until nothing is due; how often it did.
    fn settle(roles: &mut Roles, refused: &[&str], now: i64) -> usize {
        let mut calls = 0;
        while let Some(asked) = roles.due(now) {
            let bad = asked.iter().find(|role| refused.contains(&role.as_str())).cloned();
            roles.answered(bad.map_or(Ok(()), |role| Err(format!("{role} is not for you"))), now);
            calls += 1;
            assert!(calls < 100, "it never ends: {roles:?}");
        }
        calls
    }

    #[test]
    fn a_refused_role_is_found_among_the_others_and_asked_for_again_later() {
        let mut roles = wanted(&["a", "b", "c", "d", "e"]);
        assert_eq!(roles.to_subscribe("*"), ["a", "b", "c", "d", "e"]);
        assert_eq!(roles.due(0), None, "without a subscription nothing is asked for");
        roles.subscribed(&[]);
        settle(&mut roles, &["c"], 10);
        assert_eq!(roles.granted(), &set(&["a", "b", "d", "e"]));
        assert_eq!(roles.refusal("c"), Some("c is not for you"));
        assert_eq!(roles.to_subscribe("*"), ["a", "b", "d", "e"]);
        assert_eq!(roles.next_wake(), Some(60_010));
        assert_eq!(settle(&mut roles, &["c"], 60_009), 0);
        assert_eq!(settle(&mut roles, &["c"], 60_010), 1);
        roles.ended();
        roles.subscribed(&["a".to_owned(), "b".to_owned(), "d".to_owned(), "e".to_owned()]);
        assert_eq!(settle(&mut roles, &[], 60_011), 1, "a new subscription asks at once");
        assert_eq!((roles.refusal("c"), roles.next_wake()), (None, None));
    }

    #[test]
    fn roles_come_with_the_first_pod_and_go_with_the_last_at_the_next_subscription() {
        let mut roles = wanted(&[]);
        assert_eq!(roles.to_subscribe("*"), ["*"]);
        roles.subscribed(&["*".to_owned()]);
        assert_eq!(roles.next_wake(), None);
        for _ in 0..2 {
            roles.changed(&set(&[]), &set(&["web"]));
        }
        assert_eq!(roles.next_wake(), Some(0));
        assert_eq!(roles.due(0), Some(&["web".to_owned()][..]));
        assert_eq!(roles.due(0), None, "one question at a time");
        roles.answered(Ok(()), 0);
        roles.changed(&set(&["web"]), &set(&["db"]));
        assert_eq!(settle(&mut roles, &["db"], 0), 1);
        assert_eq!(roles.to_subscribe("*"), ["web"]);
        roles.changed(&set(&["db"]), &set(&[]));
        assert_eq!((roles.refusal("db"), roles.next_wake()), (None, None));
        roles.changed(&set(&["web"]), &set(&[]));
        assert_eq!(roles.to_subscribe("*"), ["*"]);
    }
}
