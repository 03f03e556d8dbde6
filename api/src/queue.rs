//! `/v2/queue`: pods that have something to launch, and why it waits (reference section 2.5).

use bytes::Bytes;
use http::StatusCode;
use podium_controllers::admission::is_active;
use podium_controllers::runtime::{Census, Member, definition_in_force};
use podium_mesos::matching::Reason;
use podium_proto::records::{Queue, Reset, queue::UnusedOffer};
use podium_store::Key;
use podium_store::index::IndexState;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op};
use podium_types::condition::Condition;
use podium_types::id::{PodId, Version};
use serde_json::{Map, Value, json};

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, empty, header, json_list};
use crate::path::decode;
use crate::request::Head;
use crate::{commit, pods};

/// GET. Looks at one pod at a time, so that the index is never held for long: each is as of the revision that is told or a later one.
pub fn list(api: &Api, head: &Head) -> Result<Answer, Problem> {
    let now = jiff::Timestamp::now().as_millisecond();
    let offers = head.values("embed").iter().any(|what| what == "lastUnusedOffers");
    let (pods, revision) = pods::versions_in_force(api, |id| head.caller.may_read(id));
    let items = pods.iter().filter_map(|(id, _)| api.index.read(|state| item(state.pod(id)?, offers, now)));
    let items: Vec<Bytes> = items.filter_map(|item| Some(serde_json::to_vec(&item).ok()?.into())).collect();
    let size = items.iter().map(Bytes::len).sum();
    let mut answer = json_list("{\"queue\":[", Bytes::new(), items.into_iter(), size, "]}");
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

/// DELETE of a pod's delay: the back-off is forgotten, and what waited it out waits for an offer.
pub async fn reset_delay(api: &Api, id: &str, head: &Head) -> Result<Answer, Problem> {
    let text = decode(id).unwrap_or_default();
    let unknown = || {
        let id: String = text.trim_matches('/').chars().take(255).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("Application /{id} not found in tasks queue."))
    };
    let pod = PodId::lenient(&text).map_err(|_| unknown())?;
    head.caller.demand_write(&pod)?;
    let plan = |state: &IndexState, now| {
        let view = state.pod(&pod).filter(|view| is_active(view)).ok_or_else(unknown)?;
        if !Census::take(view).members.iter().any(waits) {
            return Err(unknown());
        }
        let order = Reset { ordered_ms: now, ..Reset::default() };
        let accepted = Compare::Present(Key::Accepted(pod.clone()));
        Ok((Group::new(pod.clone()).when(accepted).then(Op::record(Key::Reset(pod.clone()), order)), ()))
    };
    let (revision, ()) = commit::write(api, head, &pod, plan).await?.confirmed(&pod)?;
    let mut answer = empty(StatusCode::NO_CONTENT);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

/// Whether an instance has no task yet, and should have.
fn waits(member: &Member<'_>) -> bool {
    member.counts() && (matches!(member.condition, Condition::Scheduled | Condition::Provisioned) || member.condition.is_terminal())
}

/// A pod that has something to launch.
fn item(view: &PodView, offers: bool, now: i64) -> Option<Value> {
    let definition = definition_in_force(view).filter(|_| is_active(view))?;
    let census = Census::take(view);
    let waiting: Vec<&Member<'_>> = census.members.iter().filter(|member| waits(member)).collect();
    let since_ms = waiting.iter().map(|member| began_ms(member)).min()?;
    let next_ms = waiting.iter().map(|member| member.held.value.not_before_ms).min().unwrap_or(0);
    let left = next_ms.saturating_sub(now).max(0);
    let queue = view.queue.as_ref().map(|held| held.value.clone()).unwrap_or_default();
    let mut item = json!({
        "pod": &*definition,
        "role": definition.role,
        "count": waiting.len(),
        "since": Version::from_millis(since_ms),
        "delay": { "timeLeftSeconds": left.saturating_add(999) / 1000, "overdue": left == 0 },
        "processedOffersSummary": summary(&queue),
    });
    // Marathon knows no such thing: a role that it may not have ends it.
    if !queue.role_refused.is_empty() {
        item["refusedRole"] = json!({ "reason": Reason::UnfulfilledRole.as_str(), "message": queue.role_refused });
    }
    if offers {
        item["lastUnusedOffers"] = queue.unused.iter().map(unused).collect();
    }
    Some(item)
}

/// Since when an instance waits.
fn began_ms(member: &Member<'_>) -> i64 {
    let ended = member.observed.and_then(|held| held.value.tasks.iter().map(|task| task.since_ms).max());
    ended.unwrap_or(member.held.value.created_ms)
}

fn summary(queue: &Queue) -> Value {
    let mut summary = Map::new();
    let unused: u64 = queue.refused_ever.values().sum();
    summary.insert("processedOffersCount".to_owned(), json!(queue.offers_seen));
    summary.insert("unusedOffersCount".to_owned(), json!(unused));
    for (name, at) in [("lastUnusedOfferAt", queue.last_unused_ms), ("lastUsedOfferAt", queue.last_used_ms)] {
        if at > 0 {
            summary.insert(name.to_owned(), json!(Version::from_millis(at)));
        }
    }
    let last = |reason: &str| queue.refused.get(reason).copied().map_or(0, u64::from);
    summary.insert("rejectSummaryLastOffers".to_owned(), funnel(u64::from(queue.agents), last));
    let ever = |reason: &str| queue.refused_ever.get(reason).copied().unwrap_or(0);
    summary.insert("rejectSummaryLaunchAttempt".to_owned(), funnel(queue.offers_seen.max(unused), ever));
    Value::Object(summary)
}

/// All reasons in their order: each looks at what the ones before it let pass.
fn funnel(mut processed: u64, declined: impl Fn(&str) -> u64) -> Value {
    let steps = Reason::ALL.iter().map(|reason| {
        let declined = declined(reason.as_str());
        let step = json!({ "reason": reason.as_str(), "declined": declined, "processed": processed });
        processed = processed.saturating_sub(declined);
        step
    });
    steps.collect()
}

/// An offer that was of no use, with what was left of it.
fn unused(unused: &UnusedOffer) -> Value {
    let amounts = [("cpus", unused.cpus), ("mem", unused.mem), ("disk", unused.disk), ("gpus", unused.gpus)];
    let amounts = amounts.into_iter().filter(|(_, amount)| *amount > 0);
    let mut resources: Vec<Value> =
        amounts.map(|(name, amount)| json!({ "name": name, "role": "*", "scalar": amount as f64 / 1000.0 })).collect();
    let ranges: Vec<Value> = unused.ports.split(',').filter_map(range).collect();
    if !ranges.is_empty() {
        resources.push(json!({ "name": "ports", "role": "*", "ranges": ranges }));
    }
    let attributes: Vec<Value> = unused.attributes.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
    json!({
        "offer": {
            "id": unused.offer_id,
            "agentId": unused.agent_id,
            "hostname": unused.hostname,
            "resources": resources,
            "attributes": attributes,
        },
        "reason": [unused.reason],
        "timestamp": Version::from_millis(unused.at_ms),
    })
}

/// `31000-31005`.
fn range(text: &str) -> Option<Value> {
    let (begin, end) = text.split_once('-')?;
    Some(json!({ "begin": begin.parse::<u64>().ok()?, "end": end.parse::<u64>().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summaries_are_funnels_of_all_ten_reasons() {
        let queue = Queue {
            offers_seen: 12,
            agents: 3,
            refused: [("InsufficientCpus".to_owned(), 2), ("UnfulfilledRole".to_owned(), 1)].into(),
            refused_ever: [("InsufficientCpus".to_owned(), 6), ("UnfulfilledRole".to_owned(), 4)].into(),
            ..Queue::default()
        };
        let summary = summary(&queue);
        assert_eq!((&summary["processedOffersCount"], &summary["unusedOffersCount"]), (&json!(12), &json!(10)));
        let steps = summary["rejectSummaryLastOffers"].as_array().unwrap();
        assert_eq!((steps.len(), &steps[0]["reason"]), (10, &json!("UnfulfilledRole")));
        assert_eq!(steps[0], json!({"reason": "UnfulfilledRole", "declined": 1, "processed": 3}));
        assert_eq!(steps[4], json!({"reason": "InsufficientCpus", "declined": 2, "processed": 2}));
        assert_eq!(steps[9], json!({"reason": "DeclinedScarceResources", "declined": 0, "processed": 0}));
        assert_eq!(summary["rejectSummaryLaunchAttempt"][9]["processed"], 2);
    }
}
