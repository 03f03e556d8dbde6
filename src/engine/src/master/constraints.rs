//! Offer constraints: which agents' offers a role of a framework wants to see (Mesos 1.11). Pure.
//! Groups of a role are alternatives; the constraints within a group must all hold.

use std::collections::BTreeMap;

use podium_proto::mesos::v1::scheduler::attribute_constraint::predicate::Value as Predicate;
use podium_proto::mesos::v1::scheduler::attribute_constraint::selector::{PseudoattributeType, Selector};
use podium_proto::mesos::v1::scheduler::{AttributeConstraint, OfferConstraints};
use podium_proto::mesos::v1::{AgentInfo, value};
use regex::Regex;

const NO_SELECTOR: &str =
    "Exactly one of 'AttributeConstraint::Selector::name' or 'AttributeConstraint::Selector::pseudoattribute_type' must be set";

/// Bytes that one compiled expression may take.
const REGEX_SIZE: usize = 64 << 10;

/// What a framework's roles want to see; a role without an entry wants everything.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    /// As the framework sent them.
    pub(super) given: OfferConstraints,
    roles: BTreeMap<String, Vec<Vec<Constraint>>>,
}

#[derive(Debug)]
struct Constraint {
    selector: Selector,
    predicate: Test,
}

#[derive(Debug)]
enum Test {
    Exists,
    NotExists,
    Equals(String),
    NotEquals(String),
    Matches(Regex),
    NotMatches(Regex),
}

/// What an agent says about the attribute that a constraint selects.
enum Found<'a> {
    Nothing,
    Text(&'a str),
    /// An attribute that is no text; the text predicates always hold for it.
    Other,
}

/// What is wrong with a subscription's constraints.
pub(super) fn check(constraints: Option<&OfferConstraints>) -> Result<(), String> {
    let Some(constraints) = constraints else { return Ok(()) };
    constraints.role_constraints.iter().try_for_each(|(role, given)| {
        if given.groups.is_empty() {
            return Err(format!("'OfferConstraints::role_constraints' has an empty 'RoleConstraints::groups' for role {role}"));
        }
        if given.groups.iter().any(|group| group.attribute_constraints.is_empty()) {
            // The missing blank is Mesos' own.
            return Err(format!("'OfferConstraints::RoleConstraints::groups' for role {role}contains an empty RoleConstraints::Group"));
        }
        given
            .groups
            .iter()
            .flat_map(|group| &group.attribute_constraints)
            .try_for_each(|constraint| Constraint::new(constraint).map(|_| ()))
            .map_err(|problem| format!("A role {role} has an invalid 'AttributeConstraint': {problem}"))
    })
}

impl Constraints {
    /// Compiles constraints that [`check`] has passed.
    pub(super) fn new(constraints: Option<OfferConstraints>) -> Self {
        let compile = |constraint: &AttributeConstraint| Constraint::new(constraint).ok();
        let given = constraints.unwrap_or_default();
        let roles = given.role_constraints.iter().map(|(role, given)| {
            let groups = given.groups.iter().map(|group| group.attribute_constraints.iter().filter_map(compile).collect()).collect();
            (role.clone(), groups)
        });
        Self { roles: roles.collect(), given }
    }

    /// True if the role wants to see offers of this agent.
    pub(super) fn admit(&self, role: &str, agent: &AgentInfo) -> bool {
        self.roles.get(role).is_none_or(|groups| groups.iter().any(|group| group.iter().all(|constraint| constraint.holds(agent))))
    }
}

impl Constraint {
    fn new(constraint: &AttributeConstraint) -> Result<Self, String> {
        let selector = constraint.selector.selector.clone().ok_or(NO_SELECTOR)?;
        if let Selector::PseudoattributeType(number) = selector {
            match PseudoattributeType::try_from(number) {
                Ok(PseudoattributeType::Unknown) | Err(_) => {
                    return Err("Unknown pseudoattribute type".to_owned());
                }
                Ok(_) => {}
            }
        }
        let predicate = match constraint.predicate.value.clone().ok_or("Unknown predicate type")? {
            Predicate::Exists(_) => Test::Exists,
            Predicate::NotExists(_) => Test::NotExists,
            Predicate::TextEquals(text) => Test::Equals(text.value),
            Predicate::TextNotEquals(text) => Test::NotEquals(text.value),
            Predicate::TextMatches(text) => Test::Matches(compile(&text.regex)?),
            Predicate::TextNotMatches(text) => Test::NotMatches(compile(&text.regex)?),
        };
        Ok(Self { selector, predicate })
    }

    fn holds(&self, agent: &AgentInfo) -> bool {
        let found = select(&self.selector, agent);
        match (&self.predicate, found) {
            (Test::Exists, found) => !matches!(found, Found::Nothing),
            (Test::NotExists, found) => matches!(found, Found::Nothing),
            (Test::Equals(_) | Test::Matches(_), Found::Nothing) => false,
            (Test::NotEquals(_) | Test::NotMatches(_), Found::Nothing) | (_, Found::Other) => true,
            (Test::Equals(text), Found::Text(found)) => text == found,
            (Test::NotEquals(text), Found::Text(found)) => text != found,
            (Test::Matches(regex), Found::Text(found)) => regex.is_match(found),
            (Test::NotMatches(regex), Found::Text(found)) => !regex.is_match(found),
        }
    }
}

/// Mesos matches the whole text.
fn compile(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| format!("Failed to construct regex from pattern '{pattern}': {error}"))
}

fn select<'a>(selector: &Selector, agent: &'a AgentInfo) -> Found<'a> {
    let fault_domain = agent.domain.as_ref().and_then(|domain| domain.fault_domain.as_ref());
    let text = |text: Option<&'a String>| text.map_or(Found::Nothing, |text| Found::Text(text));
    match selector {
        Selector::AttributeName(name) => {
            agent.attributes.iter().find(|attribute| attribute.name == *name).map_or(Found::Nothing, |attribute| {
                match (value::Type::try_from(attribute.r#type), &attribute.text) {
                    (Ok(value::Type::Text), Some(text)) => Found::Text(&text.value),
                    _ => Found::Other,
                }
            })
        }
        Selector::PseudoattributeType(number) => match PseudoattributeType::try_from(*number) {
            Ok(PseudoattributeType::Hostname) => Found::Text(&agent.hostname),
            Ok(PseudoattributeType::Region) => text(fault_domain.map(|domain| &domain.region.name)),
            Ok(PseudoattributeType::Zone) => text(fault_domain.map(|domain| &domain.zone.name)),
            Ok(PseudoattributeType::Unknown) | Err(_) => Found::Nothing,
        },
    }
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::Attribute;
    use podium_proto::mesos::v1::scheduler::attribute_constraint::{self, predicate};
    use podium_proto::mesos::v1::scheduler::offer_constraints::{RoleConstraints, role_constraints::Group};

    use super::*;

    fn agent(rack: &str) -> AgentInfo {
        let attribute = Attribute {
            name: "rack".to_owned(),
            r#type: value::Type::Text.into(),
            text: Some(value::Text { value: rack.to_owned() }),
            ..Attribute::default()
        };
        AgentInfo { hostname: "host".to_owned(), attributes: vec![attribute], ..AgentInfo::default() }
    }

    fn constraints(tests: Vec<Predicate>) -> OfferConstraints {
        let group = Group {
            attribute_constraints: tests
                .into_iter()
                .map(|value| AttributeConstraint {
                    selector: attribute_constraint::Selector { selector: Some(Selector::AttributeName("rack".to_owned())) },
                    predicate: attribute_constraint::Predicate { value: Some(value) },
                })
                .collect(),
        };
        OfferConstraints { role_constraints: BTreeMap::from([("r".to_owned(), RoleConstraints { groups: vec![group] })]) }
    }

    #[test]
    fn constraints_of_a_group_must_all_hold_and_other_roles_see_everything() {
        let matches = Predicate::TextMatches(predicate::TextMatches { regex: "r[12]".to_owned() });
        let not = Predicate::TextNotEquals(predicate::TextNotEquals { value: "r2".to_owned() });
        let compiled = Constraints::new(Some(constraints(vec![matches, not])));
        assert!(compiled.admit("r", &agent("r1")));
        assert!(!compiled.admit("r", &agent("r2")));
        assert!(!compiled.admit("r", &agent("r11")), "the whole text must match");
        assert!(compiled.admit("other", &agent("r2")));
    }

    #[test]
    fn broken_expressions_and_empty_groups_are_refused() {
        assert!(check(Some(&constraints(vec![]))).is_err());
        assert!(check(Some(&constraints(vec![Predicate::TextMatches(predicate::TextMatches { regex: "(".to_owned() })]))).is_err());
        assert!(check(Some(&constraints(vec![Predicate::Exists(predicate::Exists {})]))).is_ok());
        assert!(check(None).is_ok());
    }
}
