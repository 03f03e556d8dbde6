//! `/v2/groups`, read-only: the tree that the ids of the pods span, with the status of each pod (reference section 2.5).
//! A group is there as long as a pod is in it; there is nothing to create, and a pod is changed at `/v2/pods`.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use podium_types::id::{PodId, Version};
use serde_json::json;

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, header, json_parts};
use crate::path::decode;
use crate::request::Head;
use crate::{pods, statuses};

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
    pods: Vec<PodId>,
    groups: BTreeMap<String, Group>,
}

impl Group {
    /// Adds a pod where its id says.
    fn add<'a>(&mut self, mut groups: impl Iterator<Item = &'a str>, version: Version, pod: PodId) {
        self.version = self.version.max(version);
        match groups.next() {
            Some(name) => self.groups.entry(name.to_owned()).or_default().add(groups, version, pod),
            None => self.pods.push(pod),
        }
    }

    /// Its JSON, in parts; `status` gives a pod's, likewise.
    fn json(self, id: &str, embed: Embed, status: &impl Fn(&PodId) -> Option<[Bytes; 2]>, parts: &mut Vec<Bytes>) {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let shown = if id.is_empty() { "/" } else { id };
        parts.push(format!("{{\"id\":{}", json!(shown)).into());
        if embed.apps {
            parts.push(text(",\"apps\":[]"));
        }
        if embed.pods {
            let mut comma = text(",\"pods\":[");
            for pod in self.pods.iter().filter_map(status) {
                parts.push(std::mem::replace(&mut comma, text(",")));
                parts.extend(pod);
            }
            parts.push(if comma.len() > 1 { text(",\"pods\":[]") } else { text("]") });
        }
        if embed.groups {
            parts.push(text(",\"groups\":["));
            for (at, (name, group)) in self.groups.into_iter().enumerate() {
                parts.push(text(if at == 0 { "" } else { "," }));
                group.json(&format!("{id}/{name}"), embed, status, parts);
            }
            parts.push(text("]"));
        }
        parts.push(format!(",\"dependencies\":[],\"version\":{}}}", json!(self.version)).into());
    }
}

/// The group that a path names, the root when it names none. Looks at one pod at a time, so that the index is never held for long:
/// each is as of the revision that is told or a later one.
pub fn get(api: &Api, tail: &str, head: &Head) -> Result<Answer, Problem> {
    let path = decode(tail).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the path is not properly percent-encoded UTF-8"))?;
    let wanted: String = path.split('/').filter(|segment| !segment.is_empty()).flat_map(|segment| ["/", segment]).collect();
    let inside = |id: &PodId| id.as_str().strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('/'));
    let (pods, revision) = pods::versions_in_force(api, |id| inside(id) && head.caller.may_read(id));
    if pods.is_empty() && !wanted.is_empty() {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("Group '{wanted}' does not exist")));
    }
    let mut group = Group::default();
    for (id, version) in pods {
        let inner = id.as_str().strip_prefix(&wanted).unwrap_or_default().to_owned();
        let segments: Vec<&str> = inner.split('/').skip(1).collect();
        group.add(segments.iter().take(segments.len().saturating_sub(1)).copied(), version, id);
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let opening = statuses::opening(now);
    let status = |id: &PodId| Some([opening.clone(), api.statuses.one(id, now)?.0]);
    let mut parts = Vec::new();
    group.json(&wanted, Embed::of(head), &status, &mut parts);
    let size = parts.iter().map(Bytes::len).sum();
    let mut answer = json_parts(parts.into_iter(), size);
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn pods_stand_in_the_groups_that_their_ids_name() {
        let mut root = Group::default();
        for (id, version) in [("/a", 1), ("/g/b", 3), ("/g/h/c", 2), ("/z", 1)] {
            let segments: Vec<&str> = id.split('/').skip(1).collect();
            root.add(segments[..segments.len() - 1].iter().copied(), Version::from_millis(version), id.parse().unwrap());
        }
        let mut parts = Vec::new();
        let status = |id: &PodId| Some([Bytes::new(), json!(id.as_str()).to_string().into()]);
        root.json("", Embed { apps: true, pods: true, groups: true }, &status, &mut parts);
        let json: Value = serde_json::from_slice(&parts.concat()).unwrap();
        assert_eq!((&json["id"], &json["pods"], &json["apps"]), (&json!("/"), &json!(["/a", "/z"]), &json!([])));
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
