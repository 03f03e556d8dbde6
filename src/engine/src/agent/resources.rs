//! What an agent offers, in the text form of Mesos' own flags: `cpus:4;mem:8000;ports:[31000-32000]`; or in their JSON, which alone
//! can name disks beside the agent's own.

use std::borrow::Cow;
use std::collections::BTreeSet;

use podium_proto::mesos::v1::resource::DiskInfo;
use podium_proto::mesos::v1::{Attribute, Resource, value};
use podium_proto::wire::{json, resources};

/// Offered unless told otherwise. Nothing enforces these figures, so they are generous: a thousand pods of
/// one small container each, with Mesos' usual executor of 0.1 cpus and 32 MB beside it, fit on any machine.
/// The ports end where Linux begins to give ports to clients: one of those may be taken at any moment.
pub const DEFAULT_RESOURCES: &str = "cpus:1000;mem:1048576;disk:10485760;gpus:0;ports:[20000-32767]";

/// A text that is no list of resources or attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{item}': {why}; expected is a list such as cpus:4;mem:8000;ports:[31000-32000]")]
pub struct ParseError {
    /// The entry that can't be read.
    pub item: String,
    /// Why not.
    pub why: Cow<'static, str>,
}

/// Reads `--agent-resources`: scalars, `[ranges]` and `{sets}`, or a JSON list of Mesos' resources; all unreserved. What is zero is
/// left out.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse_resources(text: &str) -> Result<Vec<Resource>, ParseError> {
    if text.trim_start().starts_with('[') {
        return parse_json(text);
    }
    let mut resources = Vec::new();
    for (name, value) in entries(text)? {
        let value = parse_value(value).map_err(|why| ParseError { item: format!("{name}:{value}"), why: why.into() })?;
        let mut resource = Resource { name: name.to_owned(), ..Resource::default() };
        match value {
            Parsed::Scalar(number) if number < 0.0 => {
                return Err(ParseError { item: format!("{name}:{number}"), why: "a resource cannot be less than nothing".into() });
            }
            Parsed::Scalar(number) if number < 0.001 => continue,
            Parsed::Scalar(number) => {
                resource.r#type = value::Type::Scalar.into();
                resource.scalar = Some(value::Scalar { value: number });
            }
            Parsed::Ranges(range) => {
                resource.r#type = value::Type::Ranges.into();
                resource.ranges = Some(value::Ranges { range });
            }
            Parsed::Set(item) => {
                resource.r#type = value::Type::Set.into();
                resource.set = Some(value::Set { item });
            }
            Parsed::Text(_) => return Err(ParseError { item: name.to_owned(), why: "a resource is a number, [ranges] or a {set}".into() }),
        }
        resources.push(resource);
    }
    Ok(resources)
}

fn parse_json(text: &str) -> Result<Vec<Resource>, ParseError> {
    let wrong = |item: String, why: String| ParseError { item, why: why.into() };
    let list: Vec<serde_json::Value> =
        serde_json::from_str(text).map_err(|error| wrong("[…]".to_owned(), format!("this is no JSON list: {error}")))?;
    let (mut all, mut roots) = (Vec::new(), BTreeSet::new());
    for value in &list {
        let resource: Resource = json::from_value(value).map_err(|error| wrong(value.to_string(), error.to_string()))?;
        check(&resource, &mut roots).map_err(|why| wrong(value.to_string(), why.to_owned()))?;
        if !resources::is_empty(&resource) {
            all.push(resource);
        }
    }
    Ok(all)
}

/// `roots` are those of the disks before.
fn check(resource: &Resource, roots: &mut BTreeSet<String>) -> Result<(), &'static str> {
    let special = resource.revocable.is_some() || resource.shared.is_some() || resource.provider_id.is_some();
    if resources::is_reserved(resource) || resource.allocation_info.is_some() || special {
        return Err("an agent starts with what is reserved for nobody, and neither revocable, shared nor a provider's");
    }
    let valued = match value::Type::try_from(resource.r#type) {
        Ok(value::Type::Scalar) => resource.scalar.is_some_and(|scalar| scalar.value.is_finite() && scalar.value >= 0.0),
        Ok(value::Type::Ranges) => resource.ranges.as_ref().is_some_and(|ranges| ranges.range.iter().all(|one| one.begin <= one.end)),
        Ok(value::Type::Set) => resource.set.is_some(),
        Ok(value::Type::Text) | Err(_) => false,
    };
    if resource.name.is_empty() || !valued {
        return Err("a resource has a name, a type, and a value of that type");
    }
    let Some(disk) = &resource.disk else { return Ok(()) };
    let root = root(disk)
        .filter(|_| resource.name == "disk")
        .ok_or("a disk has a `source` of the `type` PATH or MOUNT with an absolute `path.root` or `mount.root`, and nothing else")?;
    if roots.insert(root.to_owned()) { Ok(()) } else { Err("two disks have the same root") }
}

/// The root of a disk beside the agent's own; none if it is something else.
fn root(disk: &DiskInfo) -> Option<&str> {
    use podium_proto::mesos::v1::resource::disk_info::source::Type;

    let source = disk.source.as_ref().filter(|_| disk.persistence.is_none() && disk.volume.is_none())?;
    let root = match (Type::try_from(source.r#type).ok()?, &source.path, &source.mount) {
        (Type::Path, Some(path), None) => path.root.as_deref(),
        (Type::Mount, None, Some(mount)) => mount.root.as_deref(),
        _ => None,
    };
    root.filter(|root| root.starts_with('/'))
}

/// Reads `--agent-attributes`: scalars, `[ranges]` and text.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse_attributes(text: &str) -> Result<Vec<Attribute>, ParseError> {
    let mut attributes = Vec::new();
    for (name, value) in entries(text)? {
        let parsed = parse_value(value).map_err(|why| ParseError { item: format!("{name}:{value}"), why: why.into() })?;
        let mut attribute = Attribute { name: name.to_owned(), ..Attribute::default() };
        match parsed {
            Parsed::Scalar(number) => {
                attribute.r#type = value::Type::Scalar.into();
                attribute.scalar = Some(value::Scalar { value: number });
            }
            Parsed::Ranges(range) => {
                attribute.r#type = value::Type::Ranges.into();
                attribute.ranges = Some(value::Ranges { range });
            }
            Parsed::Set(item) => {
                attribute.r#type = value::Type::Set.into();
                attribute.set = Some(value::Set { item });
            }
            Parsed::Text(text) => {
                attribute.r#type = value::Type::Text.into();
                attribute.text = Some(value::Text { value: text });
            }
        }
        attributes.push(attribute);
    }
    Ok(attributes)
}

enum Parsed {
    Scalar(f64),
    Ranges(Vec<value::Range>),
    Set(Vec<String>),
    Text(String),
}

fn entries(text: &str) -> Result<Vec<(&str, &str)>, ParseError> {
    let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) =
                item.split_once(':').ok_or_else(|| ParseError { item: item.to_owned(), why: "there is no ':' in it".into() })?;
            let name = name.trim();
            if name.is_empty() {
                return Err(ParseError { item: item.to_owned(), why: "it has no name".into() });
            }
            Ok((name, value.trim()))
        })
        .collect()
}

fn parse_value(text: &str) -> Result<Parsed, &'static str> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("the ']' is missing")?;
        return inner.split(',').map(str::trim).filter(|range| !range.is_empty()).map(range).collect::<Result<_, _>>().map(Parsed::Ranges);
    }
    if let Some(inner) = text.strip_prefix('{') {
        let inner = inner.strip_suffix('}').ok_or("the '}' is missing")?;
        return Ok(Parsed::Set(inner.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Parsed::Scalar(number)),
        _ if text.is_empty() => Err("there is nothing behind the ':'"),
        _ => Ok(Parsed::Text(text.to_owned())),
    }
}

fn range(text: &str) -> Result<value::Range, &'static str> {
    let (begin, end) = text.split_once('-').ok_or("a range is written begin-end")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| "a range is made of whole numbers");
    let (begin, end) = (number(begin)?, number(end)?);
    if begin > end { Err("the range ends before it begins") } else { Ok(value::Range { begin, end }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_room_for_a_thousand_small_pods() {
        let resources = parse_resources(DEFAULT_RESOURCES).unwrap();
        let scalar = |name: &str| resources.iter().find(|found| found.name == name).and_then(|found| found.scalar.as_ref()).unwrap().value;
        assert!(scalar("cpus") >= 200.0 && scalar("mem") >= 96_000.0 && scalar("disk") >= 10_000.0);
        assert!(!resources.iter().any(|resource| resource.name == "gpus"));
    }

    #[test]
    fn scalars_ranges_and_sets_are_read() {
        let resources = parse_resources("cpus:1.5; ports:[31000-32000, 8080-8080];disks:{sda1,sdb1}").unwrap();
        assert_eq!(resources[0].scalar, Some(value::Scalar { value: 1.5 }));
        let ranges = vec![value::Range { begin: 31000, end: 32000 }, value::Range { begin: 8080, end: 8080 }];
        assert_eq!(resources[1].ranges, Some(value::Ranges { range: ranges }));
        assert_eq!(resources[2].set, Some(value::Set { item: vec!["sda1".into(), "sdb1".into()] }));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, item) in [
            ("cpus", "cpus"),
            ("cpus:-1", "cpus:-1"),
            ("ports:[2-1]", "ports:[2-1]"),
            ("mem:lots", "mem"),
            (":3", ":3"),
            ("cpus:", "cpus:"),
        ] {
            assert_eq!(parse_resources(text).unwrap_err().item, item, "{text}");
        }
    }

    #[test]
    fn json_may_name_disks() {
        let disk = |kind: &str, of: &str, root: &str| {
            format!(
                r#"{{"name":"disk","type":"SCALAR","scalar":{{"value":5}},"disk":{{"source":{{"type":"{kind}","{of}":{{"root":"{root}"}}}}}}}}"#
            )
        };
        let cpus = r#"{"name":"cpus","type":"SCALAR","scalar":{"value":2}}"#;
        let (path, mount) = (disk("PATH", "path", "/a"), disk("MOUNT", "mount", "/b"));
        let parsed = parse_resources(&format!(" [{cpus},{path},{mount}]")).unwrap();
        assert_eq!(parsed.len(), 3);
        assert_eq!(root(parsed[2].disk.as_ref().unwrap()), Some("/b"));
        let zero = cpus.replace('2', "0");
        assert_eq!(parse_resources(&format!("[{zero}]")).unwrap(), []);
        let reserved = cpus.replace("\"name\"", r#""reservations":[{"type":"STATIC","role":"db"}],"name""#);
        for (wrong, why) in [
            ("{".to_owned(), "no JSON list"),
            ("{}".to_owned(), "name"),
            (reserved, "reserved for nobody"),
            (cpus.replace("SCALAR", "RANGES"), "a value of that type"),
            (disk("PATH", "mount", "/a"), "absolute"),
            (disk("MOUNT", "mount", "b"), "absolute"),
            (disk("RAW", "mount", "/b"), "absolute"),
            (path.replace("\"disk\",", "\"cpus\","), "absolute"),
            (format!("{path},{}", disk("MOUNT", "mount", "/a")), "same root"),
        ] {
            let error = parse_resources(&format!("[{wrong}]")).unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_attribute_may_be_text() {
        let attributes = parse_attributes("rack:r1;level:3").unwrap();
        assert_eq!(attributes[0].text, Some(value::Text { value: "r1".into() }));
        assert_eq!(attributes[1].scalar, Some(value::Scalar { value: 3.0 }));
    }
}
