//! `?dryRun=true`: what a change would do. The very plan of the change is made, and then told instead of written.

use std::collections::BTreeSet;

use http::StatusCode;
use podium_controllers::runtime::Census;
use podium_store::view::PodView;
use podium_types::definition::PodDefinition;
use podium_types::id::Version;
use serde::Serialize;
use serde_json::{Value, json};

use crate::answer::{Answer, CHANGE, header, json_value};
use crate::pods::in_force;

/// A change of one pod, before it is made.
pub struct Trial<'a> {
    /// In one word, as in `X-Podium-Change`.
    pub change: &'static str,
    /// The definition as it would be; `None`: the pod would go.
    pub definition: Option<&'a PodDefinition>,
    /// The config that would run.
    pub config: Option<Version>,
}

/// Instances that a change would start, stop, and leave as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Instances {
    start: usize,
    stop: usize,
    stay: usize,
}

/// One member that would be another; absent before or after: `null` there.
#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    path: String,
    before: Value,
    after: Value,
}

/// Tells what the change would do to the pod.
pub fn answer(view: &PodView, trial: &Trial<'_>) -> Answer {
    let before = in_force(view).and_then(|(_, json)| serde_json::from_slice(json).ok()).unwrap_or(Value::Null);
    let after = trial.definition.map_or(Value::Null, |definition| json!(definition));
    let mut difference = Vec::new();
    compare(String::new(), &without_version(&before), &without_version(&after), &mut difference);
    let body = json!({
        "dryRun": true,
        "change": trial.change,
        "definition": after,
        "difference": difference,
        "instances": instances(view, trial),
    });
    let mut answer = json_value(StatusCode::OK, &body);
    header(&mut answer, CHANGE, trial.change);
    answer
}

/// By the instances that there are and fill places: those of the config that would run stay, as many as are wanted.
fn instances(view: &PodView, trial: &Trial<'_>) -> Instances {
    let census = Census::take(view);
    let wanted = trial.definition.map_or(0, |definition| definition.scaling.instances as usize);
    let counted = census.members.iter().filter(|member| member.counts()).count();
    let same = census.members.iter().filter(|member| member.counts() && Some(member.config) == trial.config).count();
    let stay = same.min(wanted);
    Instances { start: wanted - stay, stop: counted - stay, stay }
}

fn without_version(definition: &Value) -> Value {
    let mut definition = definition.clone();
    if let Some(members) = definition.as_object_mut() {
        members.remove("version");
    }
    definition
}

/// Collects where two values differ, by the paths of the errors: `/containers(0)/resources/mem`.
fn compare(path: String, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let member = |object: &'_ serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or(Value::Null);
                compare(format!("{path}/{name}"), &member(old), &member(new), found);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                let item = |array: &[Value]| array.get(at).cloned().unwrap_or(Value::Null);
                compare(format!("{path}({at})"), &item(old), &item(new), found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            found.push(Difference { path, before: old.clone(), after: new.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_members_that_change_and_no_others() {
        let before = json!({"a": [{"x": 1, "y": 2}], "b": "same", "gone": true});
        let after = json!({"a": [{"x": 1, "y": 3}, 4], "b": "same", "come": {"z": 1}});
        let mut found = Vec::new();
        compare(String::new(), &before, &after, &mut found);
        let told: Vec<String> = found.iter().map(|one| format!("{} {} {}", one.path, one.before, one.after)).collect();
        assert_eq!(told, ["/a(0)/y 2 3", "/a(1) null 4", "/come null {\"z\":1}", "/gone true null"]);
    }
}
