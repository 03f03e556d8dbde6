//! What a FrameworkInfo may say: roles, ids, capabilities, times. Pure.

#![allow(deprecated)] // `role` is what frameworks without MULTI_ROLE still send.

use std::collections::BTreeSet;
use std::time::Duration;

use podium_proto::mesos::v1::FrameworkInfo;
use podium_proto::mesos::v1::framework_info::capability::Type as Capability;

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
        return Err(format!("'{}' contains invalid characters", id.escape_debug()));
    }
    Ok(())
}

/// What is wrong with a role name.
pub(super) fn check_role(role: &str) -> Result<(), String> {
    if role == "*" {
        return Ok(());
    }
    let bad = |component: &str| {
        component.is_empty()
            || matches!(component, "." | ".." | "*")
            || component.starts_with('-')
            || component.chars().any(|c| c.is_whitespace() || c == '\u{8}')
    };
    match role.split('/').find(|component| bad(component)) {
        Some(component) => Err(format!("Role '{}' is invalid: component '{}'", role.escape_debug(), component.escape_debug())),
        None => Ok(()),
    }
}

/// How long the framework may be away; an error if that is no time at all.
pub(super) fn failover_timeout(info: &FrameworkInfo) -> Result<Duration, String> {
    let seconds = info.failover_timeout.unwrap_or_default();
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| i64::try_from(duration.as_nanos()).is_ok())
        .ok_or_else(|| format!("The framework's failover_timeout {seconds} is invalid"))
}

/// Whatever makes a subscription's FrameworkInfo one to refuse; the first fault.
pub(super) fn check_framework(info: &FrameworkInfo, suppressed: &[String]) -> Result<(), String> {
    if has(info, Capability::MultiRole) {
        if info.role.is_some() {
            return Err("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable".to_owned());
        }
        let distinct: BTreeSet<&String> = info.roles.iter().collect();
        if distinct.len() != info.roles.len() {
            return Err("'FrameworkInfo.roles' contains a role more than once".to_owned());
        }
    } else if !info.roles.is_empty() {
        return Err("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable".to_owned());
    }
    let roles = of(info);
    roles.iter().try_for_each(|role| check_role(role))?;
    if let Some(role) = suppressed.iter().find(|role| !roles.contains(*role)) {
        return Err(format!("Suppressed role '{}' is not contained in the list of roles", role.escape_debug()));
    }
    if let Some(role) = info.offer_filters.keys().find(|role| !roles.contains(*role)) {
        return Err(format!("Offer filters name the role '{}', which is not one of the framework's", role.escape_debug()));
    }
    failover_timeout(info).map(|_| ())
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
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e12] {
            assert!(failover_timeout(&FrameworkInfo { failover_timeout: Some(bad), ..framework(&[]) }).is_err(), "{bad}");
        }
        assert_eq!(failover_timeout(&framework(&[])), Ok(Duration::ZERO));
        assert_eq!(
            failover_timeout(&FrameworkInfo { failover_timeout: Some(604_800.0), ..framework(&[]) }),
            Ok(Duration::from_secs(604_800))
        );
    }
}
