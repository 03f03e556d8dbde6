//! The JSON of a definition as it was written: its value, and which members were given twice. JSON leaves open what that
//! means; here the last one counts, as in Marathon, and the author is told.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Members given twice that are told of, at most.
const MAX_TWICE: usize = 64;

/// Characters of a name that a path repeats.
const MAX_NAME: usize = 80;

/// The longest path that is told, in bytes and but for one name.
const MAX_PATH: usize = 1_000;

/// A document, and the paths of the members that it gives more than once: `/containers(0)/name`.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) twice: Vec<String>,
}

/// Parses one document and nothing behind it. Depth is bounded by the parser (128).
pub(super) fn parse(json: &[u8]) -> serde_json::Result<Document> {
    let (mut path, mut twice) = (String::new(), Vec::new());
    let mut parser = serde_json::Deserializer::from_slice(json);
    let value = Part { path: &mut path, twice: &mut twice }.deserialize(&mut parser)?;
    parser.end()?;
    Ok(Document { value, twice })
}

/// One value of the document, at its path.
struct Part<'a> {
    path: &'a mut String,
    twice: &'a mut Vec<String>,
}

impl Part<'_> {
    fn inner(&mut self) -> Part<'_> {
        Part { path: self.path, twice: self.twice }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let (mut list, here) = (Vec::new(), self.path.len());
        loop {
            if here < MAX_PATH {
                self.path.push_str(&format!("({})", list.len()));
            }
            let item = items.next_element_seed(self.inner())?;
            self.path.truncate(here);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let (mut map, mut told, here) = (Map::new(), HashSet::new(), self.path.len());
        while let Some(name) = members.next_key::<String>()? {
            if here < MAX_PATH {
                self.path.push('/');
                self.path.extend(name.chars().take(MAX_NAME));
            }
            if self.twice.len() < MAX_TWICE && map.contains_key(&name) && !told.contains(&name) {
                self.twice.push(self.path.clone());
                told.insert(name.clone());
            }
            let value = members.next_value_seed(self.inner())?;
            self.path.truncate(here);
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_of_equal_members_counts_and_each_is_told_once() {
        let read = parse(br#"{"id": "/a", "c": [{"n": 1}, {"n": 2, "m": {}, "n": 3, "n": 4}], "id": "/b"}"#).unwrap();
        assert_eq!(read.value, json!({"id": "/b", "c": [{"n": 1}, {"n": 4, "m": {}}]}));
        assert_eq!(read.twice, ["/c(1)/n", "/id"]);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let members: Vec<String> = (0..1_000).map(|n| format!("\"{n}\":0,\"{n}\":1")).collect();
        assert_eq!(parse(format!("{{{}}}", members.join(",")).as_bytes()).unwrap().twice.len(), MAX_TWICE);
        // However deep and long the names are, a path is short.
        let name = "n".repeat(3_000);
        let deep = format!("{}1{}", format!("{{\"{name}\":0,\"{name}\":").repeat(100), "}".repeat(100));
        let twice = parse(deep.as_bytes()).unwrap().twice;
        assert!(twice.len() == MAX_TWICE && twice.iter().all(|path| path.len() <= MAX_PATH + 4 * MAX_NAME + 1), "{twice:?}");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_the_parser_reads(value in any_json()) {
            let read = parse(value.to_string().as_bytes()).unwrap();
            prop_assert_eq!(read.value, value);
            prop_assert_eq!(read.twice, Vec::<String>::new());
        }

        #[test]
        fn it_refuses_what_the_parser_refuses(text in r#"[\[\]{}:,"a10.e\-\\ ]{0,24}"#) {
            let (ours, theirs) = (parse(text.as_bytes()), serde_json::from_str::<Value>(&text));
            prop_assert_eq!(ours.map(|read| read.value).map_err(|error| error.to_string()), theirs.map_err(|error| error.to_string()));
        }
    }
}
