//! Specs under names that are no pod ids (`specs/My_Pod`): they are no pod's, so that nobody would look at them and
//! their authors would wait for an answer for ever. It stands at the same name in `status`, and goes with the spec.

use std::time::Duration;

use podium_retry::Backoff;
use podium_store::index::{Kinds, Stray};
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_store::{Key, Kind};
use podium_types::id::PodId;
use serde_json::Value;

use super::report::Report;
use crate::runtime::{Failure, Now, Term};

/// How long the index is waited for before it is looked at anyway.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers strays until the leadership is lost or the store was replaced.
pub(super) async fn run(term: Term) -> Result<(), Failure> {
    let mut changes = term.index.changes(Kinds::of(&[Kind::Stray]));
    let mut backoff = Backoff::conflict();
    let mut after = term.create_revision;
    loop {
        if term.index.wait_for(after, PATIENCE).await.is_err() {
            continue;
        }
        let now = term.clock.now();
        let groups: Vec<Group> =
            term.index.read(|state| state.strays().iter().filter_map(|(name, stray)| answer(name, stray, now)).collect());
        let Some(written) = write(&term, groups).await else { return Ok(()) };
        after = after.max(written.revision);
        if written.again {
            tokio::time::sleep(backoff.next_delay()).await;
            continue;
        }
        backoff.reset();
        if changes.next().await.replaced {
            return Ok(());
        }
    }
}

/// What became of some groups.
#[derive(Debug, Default)]
struct Written {
    /// What was written or met stands at this revision.
    revision: i64,
    /// Somebody else was faster, or nobody knows.
    again: bool,
}

/// Writes them all; `None`: the leadership is over.
async fn write(term: &Term, groups: Vec<Group>) -> Option<Written> {
    let mut tickets = Vec::with_capacity(groups.len());
    for group in groups {
        tickets.push(term.writer.submit(group).await);
    }
    let mut written = Written::default();
    for ticket in tickets {
        match ticket.await {
            Outcome::Committed { revision } => written.revision = written.revision.max(revision),
            Outcome::Conflict { revision } | Outcome::Unknown { revision } => {
                written = Written { revision: written.revision.max(revision), again: true };
            }
            Outcome::Refused(reason) => tracing::error!(reason, "the store refuses the status of a spec that is no pod's"),
            Outcome::NotLeader => return None,
        }
    }
    Some(written)
}

/// The write that makes the status say what the spec asks for; `None`: it does. Pure.
fn answer(name: &str, stray: &Stray, now: Now) -> Option<Group> {
    let (spec, status) = (Key::StraySpec(name.to_owned()), Key::StrayStatus(name.to_owned()));
    let seen = Compare::as_seen(status.clone(), stray.status.as_ref());
    let Some(revision) = stray.spec else {
        return stray.status.is_some().then(|| Group::global().when(Compare::Absent(spec)).when(seen).then(Op::Delete(status)));
    };
    let told = stray.status.as_ref().and_then(|held| serde_json::from_slice::<Value>(&held.value).ok());
    if told.is_some_and(|told| told.get("specRevision").and_then(Value::as_i64) == Some(revision)) {
        return None;
    }
    let report = Report::of_stray(name, revision, &PodId::new(name).err()?);
    let json = report.json(now.0).to_string().into();
    Some(Group::global().when(Compare::Unchanged(spec, revision)).when(seen).then(Op::Put(status, json)))
}

#[cfg(test)]
mod tests {
    use podium_store::view::Held;

    use super::*;

    fn told(group: &Group) -> Value {
        match group.ops.as_slice() {
            [Op::Put(Key::StrayStatus(_), json)] => serde_json::from_slice(json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_spec_under_what_is_no_pod_id_is_refused_once_and_again_when_it_is_pushed_again() {
        let mut stray = Stray { spec: Some(7), status: None };
        let group = answer("/My_Pod", &stray, Now(1_627_380_000_000)).unwrap();
        let json = told(&group);
        assert_eq!((json["id"].as_str(), json["phase"].as_str()), (Some("/My_Pod"), Some("Refused")));
        assert_eq!(json["specRevision"], 7);
        assert_eq!(json["errors"][0]["path"], "/id");
        assert!(json["errors"][0]["message"].as_str().unwrap().contains("'/My_Pod' is no pod id"), "{json}");
        assert_eq!(group.compares[0], Compare::Unchanged(Key::StraySpec("/My_Pod".to_owned()), 7));

        stray.status = Some(Held { value: json.to_string().into(), mod_revision: 8, create_revision: 8 });
        assert_eq!(answer("/My_Pod", &stray, Now(1_627_380_000_500)), None);
        stray.spec = Some(9);
        assert_eq!(told(&answer("/My_Pod", &stray, Now(1_627_380_001_000)).unwrap())["specRevision"], 9);
    }

    #[test]
    fn the_answer_goes_with_its_spec() {
        let status = Held { value: "anything".into(), mod_revision: 8, create_revision: 8 };
        let group = answer("/a//b", &Stray { spec: None, status: Some(status) }, Now(0)).unwrap();
        assert_eq!(group.ops, [Op::Delete(Key::StrayStatus("/a//b".to_owned()))]);
        assert!(group.compares.contains(&Compare::Absent(Key::StraySpec("/a//b".to_owned()))));
    }
}
