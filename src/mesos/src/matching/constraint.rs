//! Constraints on where instances go (reference section 5). An agent without the attribute is admitted by
//! UNLIKE alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podium_types::definition::{Constraint, Operator};
use regex::Regex;

use super::facts::{AgentFacts, decimal};
use super::slot::Slot;

/// Bytes that a user's pattern may take when compiled.
const REGEX_LIMIT: usize = 1 << 20;

/// One pod's constraints, with what they have counted so far.
pub(super) struct Checker {
    /// Those that depend on the agent alone.
    fixed: Vec<(Constraint, Fixed)>,
    /// Those that depend on where the other instances are.
    counting: Vec<Counting>,
}

enum Fixed {
    Matches(Regex),
    DoesNotMatch(Regex),
    Is(String),
    /// Cannot be read, and so admits nothing.
    Never,
}

struct Counting {
    field: String,
    rule: Rule,
    /// Instances by value.
    counts: BTreeMap<String, u64>,
}

enum Rule {
    /// At most so many instances a value; UNIQUE is 1.
    AtMost(u64),
    /// All at one value: the first instance's, unless it is given.
    Together(Option<String>),
    /// Evenly over so many values.
    Evenly { instances: u64, groups: u64 },
}

/// Verdicts on slots that depend on the agent alone, kept for all pods that ask the same.
#[derive(Default)]
pub(super) struct Verdicts {
    known: HashMap<Vec<ConstraintKey>, Vec<Option<bool>>>,
    current: Vec<ConstraintKey>,
}

/// A constraint as a key.
type ConstraintKey = (String, u8, Option<String>);

impl Verdicts {
    /// The next questions come from this pod.
    pub fn begin(&mut self, checker: &Checker, slots: usize) {
        self.current = checker.fixed.iter().map(|(constraint, _)| key(constraint)).collect();
        if !self.current.is_empty() {
            self.known.entry(self.current.clone()).or_insert_with(|| vec![None; slots]);
        }
    }

    fn get(&mut self, slot: usize, judge: impl FnOnce() -> bool) -> bool {
        if self.current.is_empty() {
            return true;
        }
        match self.known.get_mut(&self.current).and_then(|verdicts| verdicts.get_mut(slot)) {
            Some(verdict) => *verdict.get_or_insert_with(judge),
            None => judge(),
        }
    }
}

fn key(constraint: &Constraint) -> ConstraintKey {
    let operator = match constraint.operator {
        Operator::Unique => 0,
        Operator::Cluster => 1,
        Operator::GroupBy => 2,
        Operator::Like => 3,
        Operator::Unlike => 4,
        Operator::MaxPer => 5,
        Operator::Is => 6,
    };
    (constraint.field_name.clone(), operator, constraint.value.clone())
}

impl Checker {
    /// `instances` is how many the pod should have in all; `counted` are those that already have a place.
    pub fn new(constraints: &[Constraint], instances: u32, counted: &[AgentFacts], slots: &[Slot]) -> Self {
        let mut checker = Checker { fixed: Vec::new(), counting: Vec::new() };
        for constraint in constraints {
            match rule(constraint, instances, counted, slots) {
                Ok(rule) => {
                    checker.counting.push(Counting { field: constraint.field_name.clone(), rule, counts: BTreeMap::new() });
                }
                Err(fixed) => checker.fixed.push((constraint.clone(), fixed)),
            }
        }
        for facts in counted {
            checker.count(facts);
        }
        checker
    }

    /// Whether one more instance may go to this agent.
    pub fn admits(&self, slot: usize, facts: &AgentFacts, verdicts: &mut Verdicts) -> bool {
        let fixed = || self.fixed.iter().all(|(constraint, fixed)| fixed.admits(facts.value(&constraint.field_name)));
        verdicts.get(slot, fixed) && self.counting.iter().all(|counting| counting.admits(facts))
    }

    /// One more instance has its place there.
    pub fn count(&mut self, facts: &AgentFacts) {
        for counting in &mut self.counting {
            let Some(value) = facts.value(&counting.field) else { continue };
            *counting.counts.entry(value.to_owned()).or_default() += 1;
            if let Rule::Together(place @ None) = &mut counting.rule {
                *place = Some(value.to_owned());
            }
        }
    }
}

/// A counting rule, or what stands for the constraint if it depends on the agent alone.
fn rule(constraint: &Constraint, instances: u32, counted: &[AgentFacts], slots: &[Slot]) -> Result<Rule, Fixed> {
    let value = constraint.value.as_deref();
    match constraint.operator {
        Operator::Unique => Ok(Rule::AtMost(1)),
        Operator::MaxPer => value.and_then(|most| most.trim().parse().ok()).map(Rule::AtMost).ok_or(Fixed::Never),
        Operator::Cluster => match value.filter(|value| !value.is_empty()) {
            Some(value) => Err(Fixed::Is(value.to_owned())),
            None => Ok(Rule::Together(None)),
        },
        Operator::GroupBy => {
            let given = value.and_then(|groups| groups.trim().parse::<u64>().ok()).filter(|groups| *groups > 0);
            let groups = given.unwrap_or_else(|| known_values(&constraint.field_name, counted, slots)).max(1);
            // During an upgrade there may be more instances than the definition says.
            let instances = u64::from(instances).max(counted.len() as u64 + 1);
            Ok(Rule::Evenly { instances, groups })
        }
        Operator::Like => Err(pattern(value).map_or(Fixed::Never, Fixed::Matches)),
        Operator::Unlike => Err(pattern(value).map_or(Fixed::Never, Fixed::DoesNotMatch)),
        Operator::Is => Err(Fixed::Is(value.unwrap_or_default().to_owned())),
    }
}

/// Without a number of groups, there are as many as there are values in sight.
fn known_values(field: &str, counted: &[AgentFacts], slots: &[Slot]) -> u64 {
    let facts = counted.iter().chain(slots.iter().map(|slot| &slot.facts));
    facts.filter_map(|facts| facts.value(field)).collect::<BTreeSet<_>>().len() as u64
}

fn pattern(value: Option<&str>) -> Option<Regex> {
    let value = value.filter(|value| !value.is_empty())?;
    regex::RegexBuilder::new(&format!("^(?:{value})$")).size_limit(REGEX_LIMIT).build().ok()
}

impl Fixed {
    fn admits(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Fixed::Matches(pattern), Some(value)) => pattern.is_match(value),
            (Fixed::DoesNotMatch(pattern), value) => value.is_none_or(|value| !pattern.is_match(value)),
            (Fixed::Is(wanted), Some(value)) => wanted == value || same_number(wanted, value),
            (Fixed::Matches(_) | Fixed::Is(_), None) | (Fixed::Never, _) => false,
        }
    }
}

fn same_number(a: &str, b: &str) -> bool {
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a.is_finite() && decimal(a) == decimal(b))
}

impl Counting {
    fn admits(&self, facts: &AgentFacts) -> bool {
        let Some(value) = facts.value(&self.field) else { return false };
        let here = self.counts.get(value).copied().unwrap_or(0);
        match &self.rule {
            Rule::AtMost(most) => here < *most,
            Rule::Together(place) => place.as_ref().is_none_or(|place| place == value),
            Rule::Evenly { instances, groups } => {
                let in_use = self.counts.len() as u64;
                if here == 0 {
                    return in_use < *groups;
                }
                let (share, remainder) = (instances / groups, instances % groups);
                let with_one_more = self.counts.values().filter(|count| **count > share).count() as u64;
                here < share || (here == share && with_one_more < remainder)
            }
        }
    }
}
