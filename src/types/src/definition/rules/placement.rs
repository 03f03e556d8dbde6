//! Constraints and roles (reference sections 1.9 and 1.10).

use super::*;

pub(super) fn judge(pod: &PodDefinition, present_role: Option<&str>, settings: &Settings, f: &mut Findings) {
    for (index, constraint) in pod.scheduling.placement.constraints.iter().enumerate() {
        let at = format!("/scheduling/placement/constraints({index})");
        if !f.broken(&at) {
            judge_constraint(constraint, at, f);
        }
    }
    roles(pod, present_role, settings, f);
}

fn judge_constraint(constraint: &Constraint, at: String, f: &mut Findings) {
    if constraint.field_name.is_empty() {
        f.rule(at.clone(), "missing field for constraint declaration");
    }
    let value = constraint.value.as_deref();
    let whole = |text: &str| text.parse::<i32>().is_ok();
    let message = match (constraint.operator, value) {
        (Operator::Unique, Some(_)) => "UNIQUE does not accept a value",
        (Operator::GroupBy, Some(text)) if !whole(text) => "GROUP BY must define an integer value or else no value at all",
        (Operator::MaxPer, value) if !value.is_some_and(whole) => "MAX_PER requires an integer value",
        (Operator::Like | Operator::Unlike, None | Some("")) => "LIKE and UNLIKE require a non-empty, regular expression value",
        (Operator::Like | Operator::Unlike, Some(text)) => return f.pattern(at, text),
        (Operator::Is, Some(text)) if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_/.-".contains(&b)) => {
            "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)"
        }
        _ => return,
    };
    f.rule(at, message);
}

fn roles(pod: &PodDefinition, present_role: Option<&str>, settings: &Settings, f: &mut Findings) {
    let role = pod.role.as_deref().unwrap_or(&settings.default_role);
    if !f.broken("/id") && !f.broken("/role") {
        let mut valid = vec![settings.default_role.as_str()];
        // A pod in a group may also have the role that is named as its top-level group.
        if let Some((group, _)) = pod.id.as_str().trim_start_matches('/').split_once('/')
            && !valid.contains(&group)
        {
            valid.push(group);
        }
        // What is answered can be sent back.
        valid.extend(present_role.filter(|present| !valid.contains(present)));
        if !valid.contains(&role) {
            f.rule("/role", format!("got {role}, expected one of: [{}]", valid.join(", ")));
        }
    }
    let at = "/scheduling/placement/acceptedResourceRoles";
    if f.broken(at) {
        return;
    }
    let accepted = &pod.scheduling.placement.accepted_resource_roles;
    for (index, name) in accepted.iter().enumerate() {
        if let Some(message) = role_syntax(name) {
            f.rule(format!("{at}({index})"), message);
        }
    }
    if accepted.iter().any(|name| name != "*" && name != role) {
        let allowed = if role == "*" { "*".to_owned() } else { format!("* and {role}") };
        f.rule(at, format!("acceptedResourceRoles can only contain {allowed}"));
    }
}

/// What Mesos forbids in the name of a role.
fn role_syntax(name: &str) -> Option<String> {
    if matches!(name, "" | "." | "..") {
        return Some(format!("A role name must not be \"{name}\"."));
    }
    if name.starts_with('-') {
        return Some("A role name must not start with a '-'.".to_owned());
    }
    let forbidden = name.chars().find_map(|c| match c {
        '\t' => Some("horizontal tab (\\x09)"),
        '\n' => Some("line feed (\\x0a)"),
        '\x0b' => Some("vertical tab (\\x0b)"),
        '\x0c' => Some("form feed (\\x0c)"),
        '\r' => Some("carriage return (\\x0d)"),
        ' ' => Some("space (\\x20)"),
        '/' => Some("slash (\\x2f)"),
        '\x7f' => Some("backspace (\\x7f)"),
        _ => None,
    })?;
    Some(format!("A role name must not include a {forbidden} character."))
}
