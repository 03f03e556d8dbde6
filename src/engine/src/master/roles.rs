//! What a FrameworkInfo may say: roles, ids, capabilities, times. Pure.

#![allow(deprecated)] // `role` is what frameworks without MULTI_ROLE still send.

use std::collections::BTreeSet;
use std::time::Duration;

use podium_proto::mesos::v1::framework_info::capability::Type as Capability;
use podium_proto::mesos::v1::{FrameworkInfo, OfferFilters};

/// Bytes that an id may have.
const MAX_ID: usize = 255;

/// True if the framework has this capability.
pub(super) fn has(info: &FrameworkInfo, capability: Capability) -> bool {
    info.capabilities.iter().any(|given| given.r#type.and_then(|number| Capability::try_from(number).ok()) == Some(capability))
}

/// The framework's roles: `roles` with MULTI_ROLE, else `role`, which is `*` where unset.
pub(super) fn of(info: &FrameworkInfo) -> BTreeSet<String> {
    if has(info, Capability::MultiRole) {
        info.roles.iter().cloned().collect()
    } else {
        BTreeSet::from([info.role.clone().unwrap_or_else(|| "*".to_owned())])
    }
}

/// What is wrong with an id: task, executor and framework ids share the rule.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("ID must not be empty".to_owned());
    }
    if id.len() > MAX_ID {
        return Err(format!("ID must not be greater than {MAX_ID} characters"));
    }
    if id == "." || id == ".." {
        return Err(format!("'{id}' is disallowed"));
    }
    if id.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
        return Err(format!("'{id}' contains invalid characters"));
    }
    Ok(())
}

/// What is wrong with a role name.
pub(super) fn check_role(role: &str) -> Result<(), String> {
    if role == "*" {
        return Ok(());
    }
    if role.is_empty() {
        return Err("Role names cannot be the empty string".to_owned());
    }
    if role.starts_with('/') {
        return Err(format!("Role '{role}' cannot start with a slash"));
    }
    if role.ends_with('/') {
        return Err(format!("Role '{role}' cannot end with a slash"));
    }
    role.split('/').try_for_each(|component| check_component(role, component))
}

fn check_component(role: &str, component: &str) -> Result<(), String> {
    // What Mesos calls a backspace is the code of the key, DEL.
    let forbidden = |c: char| c == '\u{7f}' || c == '\u{b}' || c.is_ascii_whitespace();
    match component {
        "" => Err(format!("Role '{role}' cannot contain two adjacent slashes")),
        "." | ".." | "*" => Err(format!("Role '{role}' cannot include '{component}' as a component")),
        _ if component.starts_with('-') => Err(format!("Role component '{component}' is invalid because it starts with a dash")),
        _ if component.contains(forbidden) => {
            Err(format!("Role component '{component}' is invalid because it contains backspace or whitespace"))
        }
        _ => Ok(()),
    }
}

/// How long the framework may be away; an error if that is no time at all.
pub(super) fn failover_timeout(info: &FrameworkInfo) -> Result<Duration, String> {
    let seconds = info.failover_timeout.unwrap_or_default();
    // A time in the past is at once; Mesos counts nanoseconds in 64 bits.
    let longest = i64::MAX as f64 / 1e9;
    if seconds.is_nan() || seconds.abs() > longest {
        return Err(format!("The framework failover_timeout ({}) is invalid", six_digits(seconds)));
    }
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// A number with six significant digits, as C++ streams write one by themselves.
fn six_digits(number: f64) -> String {
    if !number.is_finite() || number == 0.0 {
        return number.to_string().to_lowercase();
    }
    let scientific = format!("{number:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        return trimmed(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// Without zeros at the end of a fraction.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Whatever makes a subscription's FrameworkInfo one to refuse; the first fault.
pub(super) fn check_framework(info: &FrameworkInfo, suppressed: &[String]) -> Result<(), String> {
    if has(info, Capability::MultiRole) {
        if info.role.is_some() {
            return Err("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable".to_owned());
        }
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<&str> = info.roles.iter().filter(|role| !seen.insert(*role)).map(String::as_str).collect();
        if !twice.is_empty() {
            let twice: Vec<&str> = twice.into_iter().collect();
            return Err(format!("'FrameworkInfo.roles' contains duplicate items: {{ {} }}", twice.join(", ")));
        }
        info.roles
            .iter()
            .try_for_each(|role| check_role(role))
            .map_err(|why| format!("'FrameworkInfo.roles' contains invalid role: {why}"))?;
    } else if !info.roles.is_empty() {
        return Err("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable".to_owned());
    }
    let roles = of(info);
    if !has(info, Capability::MultiRole) {
        roles.iter().try_for_each(|role| check_role(role)).map_err(|why| format!("'FrameworkInfo.role' is not a valid role: {why}"))?;
    }
    if let Some(role) = suppressed.iter().find(|role| !roles.contains(*role)) {
        return Err(format!("Suppressed role '{role}' is not contained in the list of roles"));
    }
    info.offer_filters.values().try_for_each(check_filters)?;
    failover_timeout(info).map(|_| ())
}

fn check_filters(filters: &OfferFilters) -> Result<(), String> {
    let alternatives = filters.min_allocatable_resources.as_ref().map(|least| least.quantities.as_slice()).unwrap_or_default();
    alternatives.iter().try_for_each(|alternative| {
        if alternative.quantities.is_empty() {
            return Err("Resource quantities must contain at least one quantity".to_owned());
        }
        let problem = |value: f64| match value {
            _ if value.is_nan() => Some("NaN values not supported"),
            _ if value.is_infinite() => Some("Infinite values not supported"),
            _ if value < 0.0 => Some("Negative values not supported"),
            _ => None,
        };
        match alternative.quantities.iter().find_map(|(name, least)| Some((name, problem(least.value)?))) {
            Some((name, problem)) => Err(format!("Invalid resource quantity for '{name}': {problem}")),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framework(capabilities: &[Capability]) -> FrameworkInfo {
        FrameworkInfo {
            user: "someone".to_owned(),
            name: "test".to_owned(),
            capabilities: capabilities
                .iter()
                .map(|kind| podium_proto::mesos::v1::framework_info::Capability { r#type: Some((*kind).into()) })
                .collect(),
            ..FrameworkInfo::default()
        }
    }

    #[test]
    fn roles_come_from_the_field_that_the_capability_names() {
        let single = FrameworkInfo { role: Some("a".to_owned()), ..framework(&[]) };
        assert_eq!(of(&single), BTreeSet::from(["a".to_owned()]));
        assert_eq!(of(&framework(&[])), BTreeSet::from(["*".to_owned()]));
        let multi = FrameworkInfo { roles: vec!["b".to_owned(), "a".to_owned()], ..framework(&[Capability::MultiRole]) };
        assert_eq!(of(&multi).len(), 2);
        assert!(check_framework(&FrameworkInfo { role: Some("a".to_owned()), ..multi.clone() }, &[]).is_err());
        assert!(check_framework(&FrameworkInfo { roles: vec!["a".to_owned()], ..framework(&[]) }, &[]).is_err());
        assert!(check_framework(&multi, &["a".to_owned()]).is_ok());
        assert!(check_framework(&multi, &["c".to_owned()]).is_err());
    }

    #[test]
    fn names_that_mesos_refuses_are_refused() {
        for bad in ["", "a//b", "/a", "a/", ".", "a/..", "-a", "a b", "a/*"] {
            assert!(check_role(bad).is_err(), "{bad:?}");
        }
        for good in ["*", "a", "a/b-c", "prod.web"] {
            assert!(check_role(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_failover_timeout_must_be_a_time() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e12] {
            assert!(failover_timeout(&FrameworkInfo { failover_timeout: Some(bad), ..framework(&[]) }).is_err(), "{bad}");
        }
        assert_eq!(failover_timeout(&framework(&[])), Ok(Duration::ZERO));
        assert_eq!(failover_timeout(&FrameworkInfo { failover_timeout: Some(-1.0), ..framework(&[]) }), Ok(Duration::ZERO));
        assert_eq!(
            failover_timeout(&FrameworkInfo { failover_timeout: Some(604_800.0), ..framework(&[]) }),
            Ok(Duration::from_secs(604_800))
        );
    }

    #[test]
    fn numbers_in_messages_have_six_digits() {
        for (number, text) in
            [(1e20, "1e+20"), (9_223_372_037.0, "9.22337e+09"), (f64::NEG_INFINITY, "-inf"), (0.5, "0.5"), (123_456.0, "123456")]
        {
            assert_eq!(six_digits(number), text);
        }
    }
}
