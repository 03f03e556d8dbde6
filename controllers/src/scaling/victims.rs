//! Who goes first when there are too many.

use std::cmp::Reverse;

use podium_types::condition::Condition;
use podium_types::definition::KillSelection;

use crate::runtime::{Member, is_away};

/// Takes `surplus` victims out of `members`: those that never ran, then unreachable, then unhealthy ones, then by
/// `killSelection`. Healthy ones only while `spare`, what the pod has above its floor, lasts.
pub fn take<'m, 'a>(members: &mut Vec<&'m Member<'a>>, surplus: usize, selection: KillSelection, spare: &mut usize) -> Vec<&'m Member<'a>> {
    if surplus == 0 {
        return Vec::new();
    }
    members.sort_by_cached_key(|member| (rank(member), age(member, selection), member.uuid));
    let harmless = members.iter().take_while(|member| !member.is_healthy()).count();
    let healthy = surplus.saturating_sub(harmless).min(*spare);
    *spare -= healthy;
    let rest = members.split_off(surplus.min(harmless + healthy));
    std::mem::replace(members, rest)
}

fn rank(member: &Member<'_>) -> u8 {
    match member.condition {
        _ if member.is_healthy() => 4,
        _ if member.is_idle() => 0,
        condition if is_away(condition) => 2,
        Condition::Running => 3,
        _ => 1,
    }
}

fn age(member: &Member<'_>, selection: KillSelection) -> (i64, Reverse<i64>) {
    let since = member.since_ms();
    match selection {
        KillSelection::OldestFirst => (since, Reverse(0)),
        KillSelection::YoungestFirst => (0, Reverse(since)),
    }
}
