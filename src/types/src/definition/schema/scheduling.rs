//! How many instances, where, when and how fast (reference sections 1.8 and 1.9; defaults: the documents).

use super::*;

/// The longest time that is read, in seconds: in milliseconds, and added to any date, it still fits 64 bits.
const MAX_SECONDS: i64 = i64::MAX / 2000;

impl Default for Scaling {
    fn default() -> Self {
        Self { instances: 1, max_instances: None }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { backoff: 1.0, backoff_factor: 1.15, max_launch_delay: 3600.0 }
    }
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 }
    }
}

impl Default for UnreachableStrategy {
    fn default() -> Self {
        Self::After { inactive_after_seconds: 900, expunge_after_seconds: 604_800 }
    }
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            upgrade: Upgrade::default(),
            placement: Placement { constraints: Vec::new(), accepted_resource_roles: Vec::new() },
            kill_selection: KillSelection::YoungestFirst,
            unreachable_strategy: UnreachableStrategy::default(),
        }
    }
}

pub(super) fn scaling(pod: &Object<'_>, f: &mut Findings) -> Scaling {
    let Some(scaling) = pod.object("scaling", Kind::Bounded, &["kind", "instances", "maxInstances"], f) else {
        return Scaling::default();
    };
    // The one enum that Marathon reads exactly, and reports at its parent.
    if scaling.get("kind").and_then(Value::as_str) != Some("fixed") {
        f.structure("/scaling", "error.expected.jsstring", "kind must be \"fixed\"");
    }
    let instances = match scaling.integer("instances", i64::MIN, walk::INT, f) {
        Some(negative @ ..0) => {
            f.rule("/scaling/instances", format!("got {negative}, expected 0 or more"));
            None
        }
        other => other,
    };
    Scaling {
        instances: instances.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        max_instances: scaling.count("maxInstances", f),
    }
}

pub(super) fn scheduling(pod: &Object<'_>, resident: bool, f: &mut Findings) -> Scheduling {
    let mut scheduling = Scheduling::default();
    if resident {
        scheduling.upgrade = Upgrade { minimum_health_capacity: 0.5, maximum_over_capacity: 0.0 };
        scheduling.unreachable_strategy = UnreachableStrategy::Disabled;
    }
    let known = ["backoff", "upgrade", "placement", "killSelection", "unreachableStrategy"];
    let Some(object) = pod.object("scheduling", Kind::Bounded, &known, f) else {
        return scheduling;
    };
    if let Some(given) = backoff(&object, f) {
        scheduling.backoff = given;
    }
    if let Some(given) = upgrade(&object, f) {
        scheduling.upgrade = given;
    }
    if let Some(given) = placement(&object, f) {
        scheduling.placement = given;
    }
    if let Some(given) = object.word("killSelection", f) {
        scheduling.kill_selection = given;
    }
    if let Some(given) = unreachable_strategy(&object, f) {
        scheduling.unreachable_strategy = given;
    }
    scheduling
}

fn backoff(scheduling: &Object<'_>, f: &mut Findings) -> Option<Backoff> {
    let object = scheduling.object("backoff", Kind::Bounded, &["backoff", "backoffFactor", "maxLaunchDelay"], f)?;
    let default = Backoff::default();
    Some(Backoff {
        backoff: object.number("backoff", 0.0, f64::MAX, f).unwrap_or(default.backoff),
        backoff_factor: object.number("backoffFactor", 0.0, f64::MAX, f).unwrap_or(default.backoff_factor),
        max_launch_delay: object.number("maxLaunchDelay", 0.0, f64::MAX, f).unwrap_or(default.max_launch_delay),
    })
}

fn upgrade(scheduling: &Object<'_>, f: &mut Findings) -> Option<Upgrade> {
    let object = scheduling.object("upgrade", Kind::Bounded, &["minimumHealthCapacity", "maximumOverCapacity"], f)?;
    let default = Upgrade::default();
    Some(Upgrade {
        minimum_health_capacity: object.number("minimumHealthCapacity", 0.0, 1.0, f).unwrap_or(default.minimum_health_capacity),
        maximum_over_capacity: object.number("maximumOverCapacity", 0.0, 1.0, f).unwrap_or(default.maximum_over_capacity),
    })
}

fn placement(scheduling: &Object<'_>, f: &mut Findings) -> Option<Placement> {
    let object = scheduling.object("placement", Kind::Bounded, &["constraints", "acceptedResourceRoles"], f)?;
    // Duplicates are kept here, since the rules speak of them by index.
    let constraints = object.items("constraints", f).map(|(path, item)| constraint(item, path, f)).collect();
    Some(Placement { constraints, accepted_resource_roles: object.texts("acceptedResourceRoles", f) })
}

/// An object, or the array of two or three strings that Marathon's apps use.
fn constraint(value: &Value, path: String, f: &mut Findings) -> Constraint {
    if let Value::Array(words) = value {
        return short_constraint(words, path, f);
    }
    let known = ["fieldName", "operator", "value"];
    let Some(object) = Object::open(value, path, Kind::Plain, &known, f) else {
        return Constraint { field_name: String::new(), operator: Operator::Cluster, value: None };
    };
    Constraint {
        field_name: object.required_text("fieldName", Text::Free, f),
        operator: object.required_word("operator", f).unwrap_or(Operator::Cluster),
        value: object.text("value", Text::Free, f),
    }
}

fn short_constraint(words: &[Value], path: String, f: &mut Findings) -> Constraint {
    let texts: Vec<Option<&str>> = words.iter().map(Value::as_str).collect();
    let (field_name, operator, value) = match texts.as_slice() {
        [Some(field), Some(operator)] => (*field, *operator, None),
        [Some(field), Some(operator), Some(value)] => (*field, *operator, Some((*value).to_owned())),
        _ => {
            f.structure(path, "error.expected.jsobject", "must be {\"fieldName\": …, \"operator\": …, \"value\": …}");
            return Constraint { field_name: String::new(), operator: Operator::Cluster, value: None };
        }
    };
    let known = Operator::from_word(operator);
    if known.is_none() {
        f.structure(format!("{path}/operator"), "error.unknown.enum.literal", "");
    }
    Constraint { field_name: field_name.to_owned(), operator: known.unwrap_or(Operator::Cluster), value }
}

fn unreachable_strategy(scheduling: &Object<'_>, f: &mut Findings) -> Option<UnreachableStrategy> {
    let value = scheduling.get("unreachableStrategy")?;
    if let Value::String(word) = value {
        // Marathon takes any string for "disabled", also a misspelt one.
        if !word.eq_ignore_ascii_case("disabled") {
            f.structure(scheduling.at("unreachableStrategy"), "error.unknown.enum.literal", "must be \"disabled\" or an object");
        }
        return Some(UnreachableStrategy::Disabled);
    }
    let known = ["inactiveAfterSeconds", "expungeAfterSeconds"];
    let object = scheduling.object("unreachableStrategy", Kind::Bounded, &known, f)?;
    let seconds = |name, default, f: &mut Findings| {
        object.integer(name, 0, MAX_SECONDS, f).and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(default)
    };
    Some(UnreachableStrategy::After {
        inactive_after_seconds: seconds("inactiveAfterSeconds", 900, f),
        expunge_after_seconds: seconds("expungeAfterSeconds", 604_800, f),
    })
}
