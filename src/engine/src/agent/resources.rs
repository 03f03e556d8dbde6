//! What an agent offers, in the text form of Mesos' own flags: `cpus:4;mem:8000;ports:[31000-32000]`.

use podium_proto::mesos::v1::{Attribute, Resource, value};

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
    pub why: &'static str,
}

/// Reads `--agent-resources`: scalars, `[ranges]` and `{sets}`, unreserved. What is zero is left out.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse_resources(text: &str) -> Result<Vec<Resource>, ParseError> {
    let mut resources = Vec::new();
    for (name, value) in entries(text)? {
        let value = parse_value(value).map_err(|why| ParseError { item: format!("{name}:{value}"), why })?;
        let mut resource = Resource { name: name.to_owned(), ..Resource::default() };
        match value {
            Parsed::Scalar(number) if number < 0.0 => {
                return Err(ParseError { item: format!("{name}:{number}"), why: "a resource cannot be less than nothing" });
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
            Parsed::Text(_) => return Err(ParseError { item: name.to_owned(), why: "a resource is a number, [ranges] or a {set}" }),
        }
        resources.push(resource);
    }
    Ok(resources)
}

/// Reads `--agent-attributes`: scalars, `[ranges]` and text.
///
/// # Errors
/// The first entry that can't be read.
pub fn parse_attributes(text: &str) -> Result<Vec<Attribute>, ParseError> {
    let mut attributes = Vec::new();
    for (name, value) in entries(text)? {
        let parsed = parse_value(value).map_err(|why| ParseError { item: format!("{name}:{value}"), why })?;
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
            let (name, value) = item.split_once(':').ok_or_else(|| ParseError { item: item.to_owned(), why: "there is no ':' in it" })?;
            let name = name.trim();
            if name.is_empty() {
                return Err(ParseError { item: item.to_owned(), why: "it has no name" });
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
    fn an_attribute_may_be_text() {
        let attributes = parse_attributes("rack:r1;level:3").unwrap();
        assert_eq!(attributes[0].text, Some(value::Text { value: "r1".into() }));
        assert_eq!(attributes[1].scalar, Some(value::Scalar { value: 3.0 }));
    }
}
