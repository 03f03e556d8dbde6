//! Constraints on where instances go (reference section 5). An agent without the attribute is admitted by
//! UNLIKE alone.

use std::collections::{BTreeMap, BTreeSet};

use podium_types::definition::{Constraint, Operator};
use regex::Regex;

use super::facts::{AgentFacts, decimal};

/// Bytes that a user's pattern may take when compiled.
const REGEX_LIMIT: usize = 1 << 20;

/// Those of a pod's constraints that depend on the agent alone.
pub(super) struct Fixed<'a>(Vec<(&'a str, Test)>);

enum Test {
    Matches(Regex),
    DoesNotMatch(Regex),
    Is(String),
    /// Cannot be read, and so admits nothing.
    Never,
}

/// True for a constraint that depends on the agent alone, and not on where other instances are.
pub(super) fn is_fixed(constraint: &Constraint) -> bool {
    match constraint.operator {
        Operator::Like | Operator::Unlike | Operator::Is => true,
        Operator::Cluster => value(constraint).is_some(),
        Operator::MaxPer => limit(constraint).is_none(),
        Operator::Unique | Operator::GroupBy => false,
    }
}

fn value(constraint: &Constraint) -> Option<&str> {
    constraint.value.as_deref().filter(|value| !value.is_empty())
}

fn limit(constraint: &Constraint) -> Option<u64> {
    constraint.value.as_deref()?.trim().parse().ok()
}

impl<'a> Fixed<'a> {
    pub fn of(constraints: impl Iterator<Item = &'a Constraint>) -> Self {
        let fixed = constraints.filter(|constraint| is_fixed(constraint));
        Fixed(fixed.map(|constraint| (constraint.field_name.as_str(), Test::of(constraint))).collect())
    }

    pub fn admits(&self, facts: &AgentFacts) -> bool {
        self.0.iter().all(|(field, test)| test.admits(facts.value(field)))
    }
}

impl Test {
    fn of(constraint: &Constraint) -> Self {
        match constraint.operator {
            Operator::Like => pattern(value(constraint)).map_or(Test::Never, Test::Matches),
            Operator::Unlike => pattern(value(constraint)).map_or(Test::Never, Test::DoesNotMatch),
            Operator::Is | Operator::Cluster => Test::Is(constraint.value.clone().unwrap_or_default()),
            Operator::Unique | Operator::GroupBy | Operator::MaxPer => Test::Never,
        }
    }

    fn admits(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::Matches(pattern), Some(value)) => pattern.is_match(value),
            (Test::DoesNotMatch(pattern), value) => value.is_none_or(|value| !pattern.is_match(value)),
            (Test::Is(wanted), Some(value)) => wanted == value || same_number(wanted, value),
            (Test::Matches(_) | Test::Is(_), None) | (Test::Never, _) => false,
        }
    }
}

/// A regular expression that the whole of a text must match; none if it cannot be read.
pub(super) fn pattern(value: Option<&str>) -> Option<Regex> {
    regex::RegexBuilder::new(&format!("^(?:{})$", value?)).size_limit(REGEX_LIMIT).build().ok()
}

fn same_number(a: &str, b: &str) -> bool {
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a.is_finite() && decimal(a) == decimal(b))
}

/// Those of a pod's constraints that depend on where its other instances are, with what they have counted so far.
pub(super) struct Counting<'a>(Vec<Count<'a>>);

struct Count<'a> {
    field: &'a str,
    rule: Rule,
    /// Instances by value.
    counts: BTreeMap<String, u64>,
}

enum Rule {
    /// At most so many instances a value; UNIQUE is 1.
    AtMost(u64),
    /// All at one value: the first instance's.
    Together(Option<String>),
    /// Over so many values, each with its share, and as many with one more as the remainder says.
    Evenly { groups: u64, share: u64, remainder: u64, with_one_more: u64 },
}

impl<'a> Counting<'a> {
    /// `instances` is how many the pod should have in all; `counted` are those that already have a place;
    /// `eligible` are the agents that could take more.
    pub fn new<'b>(
        constraints: &'a [Constraint],
        instances: u32,
        counted: &'b [AgentFacts],
        eligible: impl Iterator<Item = &'b AgentFacts> + Clone,
    ) -> Self {
        let counting = constraints.iter().filter(|constraint| !is_fixed(constraint));
        let count = |constraint: &'a Constraint| Count {
            field: &constraint.field_name,
            rule: Rule::of(constraint, instances, counted, eligible.clone()),
            counts: BTreeMap::new(),
        };
        let mut checker = Counting(counting.map(count).collect());
        for facts in counted {
            checker.count(facts);
        }
        checker
    }

    /// Nothing is counted: where others are is all the same.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one more instance may go to this agent.
    pub fn admits(&self, facts: &AgentFacts) -> bool {
        self.0.iter().all(|count| count.admits(facts))
    }

    /// One more instance has its place there.
    pub fn count(&mut self, facts: &AgentFacts) {
        for count in &mut self.0 {
            if let Some(value) = facts.value(count.field) {
                count.add(value);
            }
        }
    }
}

impl Rule {
    fn of<'b>(constraint: &Constraint, instances: u32, counted: &'b [AgentFacts], eligible: impl Iterator<Item = &'b AgentFacts>) -> Self {
        match constraint.operator {
            Operator::Cluster => Rule::Together(None),
            Operator::GroupBy => {
                // Without a number of groups, there are as many as there are values in sight.
                let in_sight = || {
                    let facts = counted.iter().chain(eligible);
                    facts.filter_map(|facts| facts.value(&constraint.field_name)).collect::<BTreeSet<_>>().len() as u64
                };
                let groups = limit(constraint).filter(|groups| *groups > 0).unwrap_or_else(in_sight).max(1);
                // During an upgrade there may be more instances than the definition says.
                let instances = u64::from(instances).max(counted.len() as u64 + 1);
                Rule::Evenly { groups, share: instances / groups, remainder: instances % groups, with_one_more: 0 }
            }
            Operator::MaxPer => Rule::AtMost(limit(constraint).unwrap_or(0)),
            Operator::Unique | Operator::Like | Operator::Unlike | Operator::Is => Rule::AtMost(1),
        }
    }
}

impl Count<'_> {
    fn add(&mut self, value: &str) {
        let here = match self.counts.get_mut(value) {
            Some(here) => {
                *here += 1;
                *here
            }
            None => {
                self.counts.insert(value.to_owned(), 1);
                1
            }
        };
        match &mut self.rule {
            Rule::Together(place @ None) => *place = Some(value.to_owned()),
            Rule::Evenly { share, with_one_more, .. } if here == *share + 1 => *with_one_more += 1,
            _ => {}
        }
    }

    fn admits(&self, facts: &AgentFacts) -> bool {
        let Some(value) = facts.value(self.field) else { return false };
        let here = || self.counts.get(value).copied().unwrap_or(0);
        match &self.rule {
            Rule::AtMost(most) => here() < *most,
            Rule::Together(place) => place.as_ref().is_none_or(|place| place == value),
            Rule::Evenly { groups, share, remainder, with_one_more } => match here() {
                0 => (self.counts.len() as u64) < *groups,
                here => here < *share || (here == *share && with_one_more < remainder),
            },
        }
    }
}
