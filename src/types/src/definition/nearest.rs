//! What to say of a field that is not known: which one was probably meant.

use super::schema::shape::{Answered, Shape};

/// Fields that are often written one level too high or under another product's name, and where they belong.
const MISPLACED: &[(&str, &str)] = &[
    ("upgrade", "scheduling.upgrade"),
    ("upgradestrategy", "scheduling.upgrade"),
    ("placement", "scheduling.placement"),
    ("killselection", "scheduling.killSelection"),
    ("unreachablestrategy", "scheduling.unreachableStrategy"),
    ("inactiveafterseconds", "scheduling.unreachableStrategy.inactiveAfterSeconds"),
    ("expungeafterseconds", "scheduling.unreachableStrategy.expungeAfterSeconds"),
    ("backoff", "scheduling.backoff"),
    ("backofffactor", "scheduling.backoff.backoffFactor"),
    ("maxlaunchdelay", "scheduling.backoff.maxLaunchDelay"),
    ("constraints", "scheduling.placement.constraints"),
    ("acceptedresourceroles", "scheduling.placement.acceptedResourceRoles"),
    ("instances", "scaling.instances"),
    ("maxinstances", "scaling.maxInstances"),
    ("cpus", "containers[].resources.cpus"),
    ("mem", "containers[].resources.mem"),
    ("disk", "containers[].resources.disk"),
    ("gpus", "containers[].resources.gpus"),
    ("cmd", "containers[].exec.command.shell"),
    ("command", "containers[].exec.command"),
    ("env", "environment"),
    ("uris", "artifacts"),
    ("healthchecks", "healthCheck"),
    ("taskkillgraceperiodseconds", "lifecycle.killGracePeriodSeconds"),
];

/// What to say of an unknown field: the nearest known one of this object, or where the field belongs.
pub(super) fn unknown(name: &str, shape: &Shape) -> String {
    let known: Vec<&str> = shape.members.iter().filter(|member| member.answered != Answered::Never).map(|member| member.name).collect();
    let lower: String = name.chars().take(64).collect::<String>().to_lowercase();
    let shown: String = name.chars().take(64).collect();
    let nearest = known
        .iter()
        .map(|field| (distance(&lower, &field.to_lowercase()), *field))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, field)| *distance <= 2.max(field.len().min(lower.len()) / 3) && *distance < lower.len());
    let misplaced = MISPLACED.iter().find(|(word, _)| *word == lower).map(|(_, place)| *place);
    match (nearest, misplaced) {
        (Some((0 | 1, field)), _) | (Some((_, field)), None) => format!("unknown field '{shown}': did you mean '{field}'?"),
        (_, Some(place)) => format!("unknown field '{shown}': did you mean '{place}'?"),
        (None, None) => format!("unknown field '{shown}'; known here: {}", known.join(", ")),
    }
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (cells, y) in row.windows(2).zip(&b) {
            let [diagonal, above] = cells else { continue };
            let left = next.last().copied().unwrap_or(i + 1);
            next.push((diagonal + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::schema::shape::Of;
    use crate::definition::schema::tables::POD;

    #[test]
    fn a_field_is_sent_to_where_there_is_one() {
        for (_, place) in MISPLACED {
            let mut shapes = vec![&POD, inside(POD.member("containers").map(|member| &member.of)).unwrap()];
            for name in place.split('.').map(|name| name.trim_end_matches("[]")) {
                let member = shapes.iter().find_map(|shape| shape.member(name)).unwrap_or_else(|| panic!("{place}: no {name}"));
                shapes = inside(Some(&member.of)).into_iter().collect();
            }
        }
    }

    fn inside(of: Option<&Of>) -> Option<&'static crate::definition::schema::shape::Shape> {
        match of? {
            Of::Object(shape) => Some(shape),
            Of::List { of, .. } | Of::Map { of, .. } => inside(Some(of)),
            Of::Either(forms) => forms.iter().find_map(|form| inside(Some(form))),
            _ => None,
        }
    }
}
