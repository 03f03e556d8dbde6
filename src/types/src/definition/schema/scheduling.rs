//! How many instances, where, when and how fast (reference sections 1.8 and 1.9; defaults: the documents).

use super::*;
use crate::definition::walk::word;

pub(super) fn scaling(pod: &Object<'_>, f: &mut Findings) -> Scaling {
    let scaling = pod.filled("scaling", f);
    // The one enum that Marathon reads exactly, and reports at its parent.
    if scaling.is_whole() && scaling.get("kind").and_then(Value::as_str) != Some("fixed") {
        f.structure("/scaling", "error.expected.jsstring", "kind must be \"fixed\"");
    }
    let given = scaling.integer_from("instances", i64::MIN, f);
    if let Some(negative @ ..0) = given {
        f.rule("/scaling/instances", format!("got {negative}, expected 0 or more"));
    }
    let absent = scaling.default_integer("instances");
    Scaling {
        instances: given.or(absent).and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
        max_instances: scaling.maybe_integer("maxInstances", f),
    }
}

pub(super) fn scheduling(pod: &Object<'_>, resident: bool, f: &mut Findings) -> Scheduling {
    let scheduling = pod.filled("scheduling", f);
    let mut upgrade = self::upgrade(&scheduling, f);
    let mut unreachable_strategy = self::unreachable_strategy(&scheduling, f);
    // Instances with disks of their own stay where those are, unless the definition says otherwise.
    if resident && scheduling.get("upgrade").is_none() {
        upgrade = Upgrade { minimum_health_capacity: 0.5, maximum_over_capacity: 0.0 };
    }
    if resident && scheduling.get("unreachableStrategy").is_none() {
        unreachable_strategy = UnreachableStrategy::Disabled;
    }
    Scheduling {
        backoff: backoff(&scheduling, f),
        upgrade,
        placement: placement(&scheduling, f),
        kill_selection: scheduling.word("killSelection", KillSelection::YoungestFirst, f),
        unreachable_strategy,
    }
}

fn backoff(scheduling: &Object<'_>, f: &mut Findings) -> Backoff {
    let object = scheduling.filled("backoff", f);
    Backoff {
        backoff: object.number("backoff", f),
        backoff_factor: object.number("backoffFactor", f),
        max_launch_delay: object.number("maxLaunchDelay", f),
    }
}

fn upgrade(scheduling: &Object<'_>, f: &mut Findings) -> Upgrade {
    let object = scheduling.filled("upgrade", f);
    Upgrade {
        minimum_health_capacity: object.number("minimumHealthCapacity", f),
        maximum_over_capacity: object.number("maximumOverCapacity", f),
    }
}

fn placement(scheduling: &Object<'_>, f: &mut Findings) -> Placement {
    let object = scheduling.filled("placement", f);
    // Duplicates are kept here, since the rules speak of them by index.
    let constraints = object.items("constraints", f).map(|(path, item)| constraint(item, path, f)).collect();
    Placement { constraints, accepted_resource_roles: object.texts("acceptedResourceRoles", f) }
}

/// An object, or the array of two or three strings that Marathon's apps use.
fn constraint(value: &Value, path: String, f: &mut Findings) -> Constraint {
    if let Value::Array(words) = value {
        return short_constraint(words, path, f);
    }
    let constraint = Object::open(value, path, &tables::CONSTRAINT, f);
    Constraint {
        field_name: constraint.text("fieldName", f),
        operator: constraint.word("operator", Operator::Cluster, f),
        value: constraint.maybe_text("value", f),
    }
}

fn short_constraint(words: &[Value], path: String, f: &mut Findings) -> Constraint {
    let (field, operator, value) = match words {
        [field, operator] => (field, operator, None),
        [field, operator, value] => (field, operator, Some(value)),
        _ => {
            f.structure(path, "error.expected.jsobject", "must be {\"fieldName\": …, \"operator\": …, \"value\": …}");
            return Constraint { field_name: String::new(), operator: Operator::Cluster, value: None };
        }
    };
    let free = |value: &Value, name: &str, f: &mut Findings| text(value, || format!("{path}/{name}"), Text::Free, f);
    Constraint {
        field_name: free(field, "fieldName", f).unwrap_or_default(),
        operator: word(operator, || format!("{path}/operator"), f).unwrap_or(Operator::Cluster),
        value: value.and_then(|value| free(value, "value", f)),
    }
}

fn unreachable_strategy(scheduling: &Object<'_>, f: &mut Findings) -> UnreachableStrategy {
    if let Some(Value::String(word)) = scheduling.get("unreachableStrategy") {
        // Marathon takes any string for "disabled", also a misspelt one.
        if !word.eq_ignore_ascii_case("disabled") {
            f.structure(scheduling.at("unreachableStrategy"), "error.unknown.enum.literal", "must be \"disabled\" or an object");
        }
        return UnreachableStrategy::Disabled;
    }
    let object = scheduling.filled("unreachableStrategy", f);
    UnreachableStrategy::After {
        inactive_after_seconds: object.integer("inactiveAfterSeconds", f),
        expunge_after_seconds: object.integer("expungeAfterSeconds", f),
    }
}
