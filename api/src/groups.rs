//! `/v2/groups`, read-only: the tree that the ids of the pods span, with the status of each pod (reference section 2.5).
//! A group is there as long as a pod is in it; there is nothing to create, and a pod is changed at `/v2/pods`.

use std::collections::BTreeMap;

use http::StatusCode;
use podium_types::id::{PodId, Version};
use serde_json::{Map, Value, json};

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, header, json_value};
use crate::path::decode;
use crate::pods;
use crate::request::Head;

/// What of a group is shown. Marathon shows all unless `embed` names some, and then those alone.
#[derive(Clone, Copy)]
struct Embed {
    apps: bool,
    pods: bool,
    groups: bool,
}

impl Embed {
    fn of(head: &Head) -> Self {
        let named = head.values("embed");
        let shows = |what: &str| named.is_empty() || named.iter().any(|name| name == what || name.starts_with(&format!("{what}.")));
        Self { apps: shows("group.apps"), pods: shows("group.pods"), groups: shows("group.groups") }
    }
}

/// One group of the tree.
#[derive(Default)]
struct Group {
    version: Version,
    pods: Vec<Value>,
    groups: BTreeMap<String, Group>,
}

impl Group {
    /// Adds a pod where its id says.
    fn add<'a>(&mut self, mut groups: impl Iterator<Item = &'a str>, version: Version, status: Value) {
        self.version = self.version.max(version);
        match groups.next() {
            Some(name) => self.groups.entry(name.to_owned()).or_default().add(groups, version, status),
            None => self.pods.push(status),
        }
    }

    fn json(self, id: &str, embed: Embed) -> Value {
        let mut body = Map::new();
        body.insert("id".to_owned(), json!(if id.is_empty() { "/" } else { id }));
        if embed.apps {
            body.insert("apps".to_owned(), json!([]));
        }
        if embed.pods {
            body.insert("pods".to_owned(), Value::Array(self.pods));
        }
        if embed.groups {
            let groups = self.groups.into_iter().map(|(name, group)| group.json(&format!("{id}/{name}"), embed));
            body.insert("groups".to_owned(), groups.collect());
        }
        body.insert("dependencies".to_owned(), json!([]));
        body.insert("version".to_owned(), json!(self.version));
        Value::Object(body)
    }
}

/// The group that a path names, the root when it names none.
pub fn get(api: &Api, tail: &str, head: &Head) -> Result<Answer, Problem> {
    let path = decode(tail).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the path is not properly percent-encoded UTF-8"))?;
    let wanted: String = path.split('/').filter(|segment| !segment.is_empty()).flat_map(|segment| ["/", segment]).collect();
    let embed = Embed::of(head);
    let inside = |id: &PodId| id.as_str().strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('/'));
    let (statuses, revision) = pods::statuses(api, |id| inside(id) && head.caller.may_read(id));
    if statuses.is_empty() && !wanted.is_empty() {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("Group '{wanted}' does not exist")));
    }
    let mut group = Group::default();
    for status in statuses {
        let json = if embed.pods { json!(status) } else { Value::Null };
        let segments: Vec<&str> = status.id.strip_prefix(&wanted).unwrap_or_default().split('/').skip(1).collect();
        let groups = segments.iter().take(segments.len().saturating_sub(1)).copied();
        group.add(groups, status.spec.version.unwrap_or_default(), json);
    }
    let mut answer = json_value(StatusCode::OK, &group.json(&wanted, embed));
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_stand_in_the_groups_that_their_ids_name() {
        let mut root = Group::default();
        for (id, version) in [("/a", 1), ("/g/b", 3), ("/g/h/c", 2)] {
            let segments: Vec<&str> = id.split('/').skip(1).collect();
            root.add(segments[..segments.len() - 1].iter().copied(), Version::from_millis(version), json!(id));
        }
        let json = root.json("", Embed { apps: true, pods: true, groups: true });
        assert_eq!((&json["id"], &json["pods"], &json["apps"]), (&json!("/"), &json!(["/a"]), &json!([])));
        let group = &json["groups"][0];
        assert_eq!((&group["id"], &group["pods"], &group["version"]), (&json!("/g"), &json!(["/g/b"]), &json!("1970-01-01T00:00:00.003Z")));
        assert_eq!((&group["groups"][0]["id"], &group["groups"][0]["pods"]), (&json!("/g/h"), &json!(["/g/h/c"])));
    }

    #[test]
    fn naming_one_embedding_leaves_out_the_others() {
        let head = |query: &str| Head::new(http::Method::GET, query.to_owned(), http::HeaderMap::new());
        let shown = |query: &str| {
            let embed = Embed::of(&head(query));
            (embed.apps, embed.pods, embed.groups)
        };
        assert_eq!(shown(""), (true, true, true));
        assert_eq!(shown("embed=group.pods"), (false, true, false));
        assert_eq!(shown("embed=group.groups&embed=group.apps.counts"), (true, false, true));
    }
}
