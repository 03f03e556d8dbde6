//! Why a pod or an instance is as it is, in words. Times are absolute, so that a text changes only when its subject does.

use std::collections::BTreeMap;

use podium_proto::records::{Observed, Quarantine, Queue, Termination, observed, termination};
use podium_store::view::PodView;
use podium_types::condition::{self, Condition};
use podium_types::definition::UnreachableStrategy;
use podium_types::id::Version;
use podium_types::{reason, residence};

use crate::admission::is_active;
use crate::runtime::{Member, definition_in_force, definition_of, has_check};

/// Reasons that are told of one pod.
const MAX_REASONS: usize = 12;

/// Characters of a text that comes from outside, at most.
const MAX_TEXT: usize = 500;

/// A time as answers write it.
pub(super) fn time(millis: i64) -> String {
    Version::from_millis(millis).to_string()
}

/// When the next instance that waits out its back-off may be launched, in wall milliseconds.
pub(super) fn next_launch(view: &PodView, now: i64) -> Option<i64> {
    view.instances.values().map(|held| held.value.not_before_ms).filter(|at| *at > now).min()
}

/// One thing that keeps an instance from being stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// What it lacks, in a word: `launched`, `running`, `reachable`, `healthy` or `recorded`.
    pub lacks: &'static str,
    /// Why, in words.
    pub text: String,
}

impl Reason {
    fn new(lacks: &'static str, text: impl Into<String>) -> Self {
        Self { lacks, text: text.into() }
    }
}

/// Why an instance is not stable; empty: it is, or there is nothing to say. What Marathon says in a state comes first, word
/// for word.
pub(super) fn of_instance(view: &PodView, member: &Member<'_>, now: i64) -> Vec<Reason> {
    let observed = member.observed.map(|observed| &observed.value);
    let reason = match member.condition {
        Condition::Scheduled | Condition::Provisioned if !member.is_wanted() => Reason::new("running", "is not to be launched any more"),
        Condition::Scheduled => Reason::new("launched", waiting(view, member, now)),
        Condition::Provisioned => Reason::new("running", "its launch was sent, nothing was heard of it yet"),
        Condition::Staging | Condition::Starting => Reason::new("running", starting(observed)),
        Condition::Unreachable | Condition::UnreachableInactive => Reason::new("reachable", unreachable(view, member)),
        Condition::Unknown => Reason::new("reachable", "Mesos has no record of it; it may come back"),
        Condition::Killing => {
            let failed = observed.and_then(|observed| culprit(&observed.tasks));
            let text = failed.map_or_else(|| "is being stopped".to_owned(), |task| format!("is being ended: {}", end_of_task(task)));
            Reason::new("running", text)
        }
        Condition::Running => return shortcomings(view, member),
        _ => {
            let ended = observed.and_then(|observed| culprit(&observed.tasks)).map(end_of_task);
            let ended = ended.or_else(|| observed.map(|observed| short(&observed.message)).filter(|text| !text.is_empty()));
            let next = if member.is_wanted() { ", is about to be launched again" } else { "" };
            Reason::new("running", ended.map_or_else(|| format!("ended{next}"), |ended| format!("ended{next}: {ended}")))
        }
    };
    vec![reason]
}

/// The reasons in one text; `None`: there are none.
pub(super) fn together(reasons: &[Reason]) -> Option<String> {
    let texts: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What a running instance lacks.
fn shortcomings(view: &PodView, member: &Member<'_>) -> Vec<Reason> {
    let observed = member.observed.map(|observed| &observed.value);
    let unhealthy = match condition::is_to_be_killed(&member.held.value) {
        true => Some(Reason::new("running", "is to be killed, since somebody asked for it")),
        false => (!member.healthy).then(|| Reason::new("healthy", unhealthy(view, member))),
    };
    unhealthy.into_iter().chain(observed.and_then(unrecorded)).collect()
}

/// Which containers are not healthy, and what their checks said.
fn unhealthy(view: &PodView, member: &Member<'_>) -> String {
    let definition = definition_of(view, member.config);
    let checked = |name: &str| has_check(definition.as_deref(), name);
    let tasks = member.observed.iter().flat_map(|observed| &observed.value.tasks);
    let bad = tasks.filter(|task| condition::of_task(task) == Condition::Running && task.healthy != Some(true) && checked(&task.container));
    let told: Vec<String> = bad
        .take(MAX_REASONS)
        .map(|task| match task.healthy {
            None => format!("of {} no health check has come to a result yet", task.container),
            Some(_) if task.message.is_empty() => format!("the health check of {} fails", task.container),
            Some(_) => format!("the health check of {} fails: {}", task.container, short(&task.message)),
        })
        .collect();
    let words = "at least one container is not healthy";
    if told.is_empty() { words.to_owned() } else { format!("{words}: {}", told.join(", ")) }
}

/// Which containers have not come up yet.
fn starting(observed: Option<&Observed>) -> String {
    let late =
        |task: &&observed::Task| matches!(condition::of_task(task), Condition::Provisioned | Condition::Staging | Condition::Starting);
    let tasks = observed.map(|observed| observed.tasks.as_slice()).unwrap_or_default();
    let names: Vec<&str> = tasks.iter().filter(late).take(MAX_REASONS).map(|task| task.container.as_str()).collect();
    if names.len() == tasks.len() { "is being started".to_owned() } else { format!("is being started; not up yet: {}", names.join(", ")) }
}

/// Since when its agent is away, and what becomes of it.
fn unreachable(view: &PodView, member: &Member<'_>) -> String {
    let mut text = "pod instance has become unreachable".to_owned();
    let (Some(observed), Some(since)) = (member.observed.map(|observed| &observed.value), member.away_since_ms) else { return text };
    let host = if observed.hostname.is_empty() { &observed.agent_id } else { &observed.hostname };
    text.push_str(&format!(": its agent {host} is away since {}", time(since)));
    let after = |seconds: u64| time(since.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)));
    match definition_in_force(view).filter(|_| member.is_wanted()).map(|definition| definition.scheduling.unreachable_strategy) {
        Some(UnreachableStrategy::Disabled) => text.push_str(", it is waited for"),
        Some(UnreachableStrategy::After { expunge_after_seconds, .. }) if member.inactive => {
            text.push_str(&format!(", it is being replaced, and given up at {}", after(expunge_after_seconds)));
        }
        Some(UnreachableStrategy::After { inactive_after_seconds, expunge_after_seconds }) => {
            let (replaced, given_up) = (after(inactive_after_seconds), after(expunge_after_seconds));
            text.push_str(&format!(", it is replaced at {replaced} and given up at {given_up}"));
        }
        None => {}
    }
    text
}

/// What is missing of an instance that the gateway took on while it ran. Every agent has a host name: without one, the
/// record is not of a launch.
fn unrecorded(observed: &Observed) -> Option<Reason> {
    let text = "the store had no record of its launch: which host and ports it has is not known until it is launched again";
    observed.hostname.is_empty().then(|| Reason::new("recorded", text))
}

/// What a scheduled instance waits for.
fn waiting(view: &PodView, member: &Member<'_>, now: i64) -> String {
    let instance = &member.held.value;
    let mut text = if instance.not_before_ms > now {
        format!("waits until {} for its next launch (back-off)", time(instance.not_before_ms))
    } else {
        match (residence(view, member), view.queue.as_ref()) {
            (Some(host), _) => format!("waits for its reserved resources on agent {host}, which has its persistent volumes"),
            (None, Some(queue)) => format!("waits for an offer: {}", offers(&queue.value)),
            (None, None) => "waits for an offer".to_owned(),
        }
    };
    if let Some(end) = last_end(view, member) {
        text.push_str(&format!("; the last time it ended: {end}"));
    }
    text
}

/// The agent that has an instance's persistent volumes, by name.
fn residence<'a>(view: &PodView, member: &'a Member<'_>) -> Option<&'a str> {
    definition_of(view, member.config).filter(|definition| definition.is_resident())?;
    let residence = residence::of(&member.observed?.value).filter(|residence| residence.is_made)?;
    Some(if residence.hostname.is_empty() { residence.agent_id } else { residence.hostname })
}

/// How an instance's previous incarnation ended.
fn last_end(view: &PodView, member: &Member<'_>) -> Option<String> {
    let observed = member.observed.map(|observed| &observed.value).filter(|observed| observed.incarnation < member.held.value.incarnation);
    let seen = observed.and_then(|observed| {
        let task = culprit(&observed.tasks).map(end_of_task);
        task.or_else(|| Some(short(&observed.message)).filter(|text| !text.is_empty()))
    });
    seen.or_else(|| {
        let uuid = member.uuid.to_string();
        let mut history = view.delay.iter().flat_map(|delay| &delay.value.history);
        history.rfind(|end| end.instance_id.ends_with(&uuid)).map(of_termination)
    })
}

/// Why the offers that came did not do.
fn offers(queue: &Queue) -> String {
    if !queue.role_refused.is_empty() {
        return format!("Mesos refuses its role (UnfulfilledRole): {}", short(&queue.role_refused));
    }
    if queue.refused.is_empty() {
        return if queue.offers_seen == 0 { "none has come yet".to_owned() } else { "none that came was free".to_owned() };
    }
    let seen = format!("{} seen until {}, of no use:", queue.offers_seen, time(queue.updated_ms));
    let mut refused: Vec<_> = queue.refused.iter().filter(|(_, count)| **count > 0).collect();
    refused.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let parts: Vec<String> = refused
        .into_iter()
        .map(|(reason, count)| format!("{count} agent{} with {} ({reason})", if *count == 1 { "" } else { "s" }, refusal(reason)))
        .collect();
    format!("{seen} {}", parts.join(", "))
}

/// Marathon's word for a refused offer, in plain ones.
fn refusal(reason: &str) -> &'static str {
    match reason {
        "UnfulfilledRole" => "resources of another role",
        "UnfulfilledConstraint" => "a placement constraint not met",
        "NoCorrespondingReservationFound" => "no reservation of this instance",
        "AgentMaintenance" => "maintenance coming up",
        "InsufficientCpus" => "too few CPUs left",
        "InsufficientMemory" => "too little memory left",
        "InsufficientDisk" => "too little disk left",
        "InsufficientGpus" => "too few GPUs left",
        "InsufficientPorts" => "the wanted ports taken",
        "DeclinedScarceResources" => "scarce resources kept for others",
        _ => "another reason",
    }
}

/// The container whose end ended the others: the one that failed, and of several the first.
pub(super) fn culprit(tasks: &[observed::Task]) -> Option<&observed::Task> {
    let bad = |task: &&observed::Task| {
        let condition = condition::of_task(task);
        condition.is_terminal() && !matches!(condition, Condition::Killed | Condition::Finished)
    };
    let finished = |task: &&observed::Task| condition::of_task(task) == Condition::Finished;
    tasks.iter().filter(bad).min_by_key(|task| task.since_ms).or_else(|| tasks.iter().find(finished))
}

fn end_of_task(task: &observed::Task) -> String {
    let mut state = condition::of_task(task).as_str().to_lowercase();
    if let Some(reason) = task.reason.and_then(reason::in_words) {
        state.push_str(&format!(" ({reason})"));
    }
    ending(&task.container, &state, task.exit_code, &task.message)
}

/// How an instance ended, as its history tells it.
pub(super) fn of_termination(end: &Termination) -> String {
    let bad = |container: &&termination::Container| !matches!(container.last_known_state.as_str(), "TaskKilled" | "TaskFinished");
    let Some(culprit) = end.containers.iter().find(bad).or(end.containers.first()) else {
        return if end.message.is_empty() { "for a reason that is not known".to_owned() } else { short(&end.message) };
    };
    // The last but one part of a task id.
    let name = culprit.container_id.rsplit('.').nth(1).unwrap_or(&culprit.container_id);
    let state = culprit.last_known_state.trim_start_matches("Task").to_lowercase();
    ending(name, &state, culprit.exit_code, &culprit.message)
}

fn ending(container: &str, state: &str, exit_code: Option<i32>, message: &str) -> String {
    let mut text = format!("container {container} {state}");
    if let Some(code) = exit_code {
        text.push_str(&format!(" with exit code {code}"));
    }
    if !message.is_empty() {
        text.push_str(&format!(": {}", short(message)));
    }
    text
}

/// A text from outside, cut to a bearable length.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_TEXT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What a store that is not the one that launched what runs means for a pod: a quarantine, and its unknown instances.
pub(super) fn of_store(view: &PodView) -> Vec<String> {
    // Its reason may name another pod's tasks, which a reader of this one need not be allowed to see.
    let quarantine =
        view.quarantine.as_ref().map(|held| in_quarantine(&held.value, "the store is not the one that launched all that runs"));
    let unknown = view.unknown.as_ref().map(|held| &held.value);
    let count = unknown.map_or(0, |unknown| unknown.instances.len() + unknown.more as usize);
    let unknown = unknown.and_then(|unknown| unknown.instances.first()).map(|first| {
        let (verb, plural) = if count == 1 { ("runs", "") } else { ("run", "s") };
        let id = format!("{}.instance-{}", view.id.safe_id(), first.uuid);
        format!(
            "{count} instance{plural} {verb} of which the store has no record, among them {id}: `podium adopt {id}` or `podium kill {id}`"
        )
    });
    quarantine.into_iter().chain(unknown).chain(not_taken_back(view)).collect()
}

/// What Mesos does not take back of instances that are gone.
fn not_taken_back(view: &PodView) -> Option<String> {
    let gone = view.observed.iter().filter(|(uuid, _)| !view.instances.contains_key(uuid));
    let mut refused = gone.filter_map(|(uuid, held)| {
        let reservation = held.value.reservation.as_ref().filter(|reservation| reservation.asked_in_vain > 0)?;
        Some((uuid, if reservation.hostname.is_empty() { &reservation.agent_id } else { &reservation.hostname }))
    });
    let (first, host) = refused.next()?;
    let more = match refused.count() {
        0 => String::new(),
        more => format!(" (and of {more} more)"),
    };
    Some(format!(
        "Mesos does not take back what was reserved for {}.instance-{first}, which is gone, on agent {host}{more}: \
         may Podium's principal destroy volumes and unreserve?",
        view.id.safe_id()
    ))
}

/// That the last push was refused, with its first error; `None`: it was not.
pub(super) fn of_push(view: &PodView) -> Option<String> {
    let verdict = view.verdict.as_ref().map(|held| &held.value)?;
    let first = verdict.violations.first()?;
    let more = match verdict.violations.len() - 1 {
        0 => String::new(),
        1 => " (and 1 more error)".to_owned(),
        more => format!(" (and {more} more errors)"),
    };
    Some(format!("the last push was refused: {}: {}{more}", first.path, short(&first.message)))
}

/// What a quarantine means and what to do about it, for those who may read everything.
pub fn quarantine(quarantine: &Quarantine) -> String {
    in_quarantine(quarantine, &short(&quarantine.reason))
}

fn in_quarantine(quarantine: &Quarantine, reason: &str) -> String {
    format!(
        "quarantine since {}: {reason}; nothing is killed and nothing is scaled down until `podium adopt` or `podium kill` has settled every \
         unknown instance (`podium get unknown` lists them)",
        time(quarantine.since_ms)
    )
}

/// Everything that keeps a pod from being stable: equal reasons of several instances are one, most instances first.
pub(super) fn of_pod(view: &PodView, members: &[Member<'_>], now: i64) -> Vec<String> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for member in members {
        if let Some(reason) = together(&of_instance(view, member, now)) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let wanted = definition_in_force(view).filter(|_| is_active(view)).map_or(0, |definition| definition.scaling.instances as usize);
    let missing = wanted.saturating_sub(members.iter().filter(|member| member.counts()).count());
    if missing > 0 {
        reasons.insert("about to be created".to_owned(), missing);
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let more = reasons.len().saturating_sub(MAX_REASONS);
    let mut told: Vec<String> = reasons
        .into_iter()
        .take(MAX_REASONS)
        .map(|(reason, count)| format!("{count} instance{}: {reason}", if count == 1 { "" } else { "s" }))
        .collect();
    if more > 0 {
        told.push(format!("{more} further reasons"));
    }
    told
}
