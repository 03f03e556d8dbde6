//! The JSON dialect of Mesos, which is not that of protobuf: exact snake_case field names, enums by
//! name only, 64-bit numbers as numbers, `null` for unset, a bare element where a list is due.
//!
//! On output, unset optional fields with an explicit and not deprecated default are written anyway, as
//! Mesos does; text is one line of plain ASCII, because known clients count characters as bytes.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::{Message, Name};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value as Field,
};
use serde::Serialize as _;
use serde_json::{Map, Number, Value};

/// Loaded once, when JSON is first needed: it takes milliseconds.
static POOL: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(crate::DESCRIPTORS).map_err(|error| error.to_string()));

/// The problem of a required field that is not there.
pub const MISSING: &str = "required field is missing";

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON at all.
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// JSON, but not this message.
    #[error("{path}: {problem}")]
    Field {
        /// Dotted path from the message, such as `accept.operations[0].type`; `.` for the message itself.
        path: String,
        /// What is wrong there.
        problem: String,
    },
    /// The message is not among [`crate::DESCRIPTORS`], or its bytes are not that message: a defect of ours.
    #[error("message {name}: {problem}")]
    Message {
        /// Full protobuf name.
        name: String,
        /// What happened.
        problem: String,
    },
}

impl Error {
    fn at(path: &str, problem: impl Into<String>) -> Self {
        let path = if path.is_empty() { ".".to_owned() } else { path.to_owned() };
        Error::Field { path, problem: problem.into() }
    }
}

/// A message as a JSON value.
///
/// # Errors
/// Only [`Error::Message`], for a message that is not one of ours.
pub fn to_value<M: Message + Name>(message: &M) -> Result<Value, Error> {
    let name = M::full_name();
    let dynamic = DynamicMessage::decode(descriptor(&name)?, message.encode_to_vec().as_slice())
        .map_err(|error| Error::Message { name, problem: error.to_string() })?;
    Ok(write_message(&dynamic))
}

/// A message as one line of ASCII JSON.
///
/// # Errors
/// As [`to_value`].
pub fn to_text<M: Message + Name>(message: &M) -> Result<String, Error> {
    ascii(&to_value(message)?)
}

/// Any JSON value as one line of ASCII.
///
/// # Errors
/// None that a value can cause.
pub fn ascii(value: &Value) -> Result<String, Error> {
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Ascii))?;
    String::from_utf8(out).map_err(|error| Error::at("", error.to_string()))
}

/// Reads a message from a JSON value.
///
/// # Errors
/// [`Error::Field`] with the path of the first field that is wrong, or required and missing.
pub fn from_value<M: Message + Name + Default>(value: &Value) -> Result<M, Error> {
    let name = M::full_name();
    let Value::Object(object) = value else {
        return Err(Error::at("", format!("expected an object with the fields of {name}")));
    };
    let dynamic = read_message(descriptor(&name)?, object, "")?;
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|error| Error::Message { name, problem: error.to_string() })
}

/// Reads a message from JSON text.
///
/// # Errors
/// [`Error::Syntax`], and as [`from_value`].
pub fn from_slice<M: Message + Name + Default>(text: &[u8]) -> Result<M, Error> {
    from_value(&serde_json::from_slice(text)?)
}

/// Decodes protobuf bytes and refuses what prost accepts silently: a required field that is missing, and
/// an enum number that is not known in a required field. What a Mesos master answers with 400.
///
/// # Errors
/// [`Error::Message`] for bytes that are not the message, [`Error::Field`] for a missing field.
pub fn from_protobuf<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, Error> {
    let name = M::full_name();
    let bad = |error: prost::DecodeError| Error::Message { name: M::full_name(), problem: error.to_string() };
    require(&DynamicMessage::decode(descriptor(&name)?, bytes).map_err(bad)?, "")?;
    M::decode(bytes).map_err(bad)
}

pub(super) fn descriptor(name: &str) -> Result<MessageDescriptor, Error> {
    let unusable = |problem: String| Error::Message { name: name.to_owned(), problem };
    let pool = POOL.as_ref().map_err(|problem| unusable(problem.clone()))?;
    pool.get_message_by_name(name).ok_or_else(|| unusable("not among the compiled descriptors".to_owned()))
}

fn require(message: &DynamicMessage, path: &str) -> Result<(), Error> {
    for field in message.descriptor().fields() {
        if field.cardinality() == Cardinality::Required {
            let known = match (message.get_field(&field).as_enum_number(), field.kind()) {
                (Some(number), Kind::Enum(descriptor)) => descriptor.get_value(number).is_some(),
                _ => true,
            };
            if !known || !message.has_field(&field) {
                return Err(Error::at(&join(path, field.name()), MISSING));
            }
        }
    }
    for (field, value) in message.fields() {
        let path = join(path, field.name());
        match value {
            Field::Message(inner) => require(inner, &path)?,
            Field::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Field::Message(inner) = item {
                        require(inner, &format!("{path}[{index}]"))?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

// Output.

fn write_message(message: &DynamicMessage) -> Value {
    let mut object = Map::new();
    for field in message.descriptor().fields() {
        let value =
            if message.has_field(&field) || has_visible_default(&field) { write_field(&field, &message.get_field(&field)) } else { None };
        if let Some(value) = value {
            object.insert(field.name().to_owned(), value);
        }
    }
    Value::Object(object)
}

/// True for `optional … [default = …]` that is not deprecated: Mesos writes those even when unset.
fn has_visible_default(field: &FieldDescriptor) -> bool {
    let declared = field.field_descriptor_proto();
    declared.default_value.is_some() && !declared.options.as_ref().is_some_and(|options| options.deprecated())
}

fn write_field(field: &FieldDescriptor, value: &Field) -> Option<Value> {
    match value {
        Field::List(items) => Some(Value::Array(items.iter().filter_map(|item| write_one(&field.kind(), item)).collect())),
        Field::Map(entries) => {
            let Kind::Message(entry) = field.kind() else { return None };
            let kind = entry.map_entry_value_field().kind();
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            let written = entries.into_iter().filter_map(|(key, value)| Some((write_key(key), write_one(&kind, value)?)));
            Some(Value::Object(written.collect()))
        }
        one => write_one(&field.kind(), one),
    }
}

fn write_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// None for an enum number without a name: it cannot be said in this dialect.
fn write_one(kind: &Kind, value: &Field) -> Option<Value> {
    Some(match value {
        Field::Bool(value) => Value::Bool(*value),
        Field::I32(value) => Value::from(*value),
        Field::I64(value) => Value::from(*value),
        Field::U32(value) => Value::from(*value),
        Field::U64(value) => Value::from(*value),
        Field::F32(value) => write_float(f64::from(*value)),
        Field::F64(value) => write_float(*value),
        Field::String(value) => Value::String(value.clone()),
        Field::Bytes(value) => Value::String(BASE64.encode(value)),
        Field::EnumNumber(number) => {
            let Kind::Enum(descriptor) = kind else { return None };
            Value::String(descriptor.get_value(*number)?.name().to_owned())
        }
        Field::Message(message) => write_message(message),
        Field::List(_) | Field::Map(_) => return None,
    })
}

fn write_float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(
        || {
            Value::from(if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            })
        },
        Value::Number,
    )
}

/// Compact JSON in which everything beyond ASCII is escaped.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, fragment: &str) -> std::io::Result<()> {
        let mut plain = fragment;
        while let Some(at) = plain.find(|c: char| !c.is_ascii()) {
            let (before, rest) = plain.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut characters = rest.chars();
            for unit in characters.next().iter().flat_map(|c| c.encode_utf16(&mut [0; 2]).to_vec()) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = characters.as_str();
        }
        writer.write_all(plain.as_bytes())
    }
}

// Input.

fn read_message(descriptor: MessageDescriptor, object: &Map<String, Value>, path: &str) -> Result<DynamicMessage, Error> {
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, value) in object {
        let Some(field) = descriptor.get_field_by_name(name).filter(|_| !value.is_null()) else { continue };
        if let Some(value) = read_field(&field, value, &join(path, name))? {
            message.set_field(&field, value);
        }
    }
    let missing = descriptor.fields().find(|field| field.cardinality() == Cardinality::Required && !message.has_field(field));
    match missing {
        Some(field) => Err(Error::at(&join(path, field.name()), "required field is missing")),
        None => Ok(message),
    }
}

fn read_field(field: &FieldDescriptor, value: &Value, path: &str) -> Result<Option<Field>, Error> {
    let kind = field.kind();
    if field.is_map() {
        let (Value::Object(object), Kind::Message(entry)) = (value, &kind) else {
            return Err(Error::at(path, "expected an object"));
        };
        let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut entries = std::collections::HashMap::new();
        for (key, value) in object {
            let path = join(path, key);
            if let Some(value) = read_one(&value_kind, value, &path)? {
                entries.insert(read_key(&key_kind, key, &path)?, value);
            }
        }
        return Ok(Some(Field::Map(entries)));
    }
    if !field.is_list() {
        return read_one(&kind, value, path);
    }
    // A bare element stands for a list of one.
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let mut list = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        list.extend(read_one(&kind, item, &format!("{path}[{index}]"))?);
    }
    Ok(Some(Field::List(list)))
}

fn read_key(kind: &Kind, key: &str, path: &str) -> Result<MapKey, Error> {
    let bad = || Error::at(path, "this key does not fit the type of the map's keys");
    Ok(match kind {
        Kind::Bool => MapKey::Bool(key.parse().map_err(|_| bad())?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().map_err(|_| bad())?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().map_err(|_| bad())?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().map_err(|_| bad())?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(key.parse().map_err(|_| bad())?),
        _ => MapKey::String(key.to_owned()),
    })
}

/// None for an enum name that is not known: the field stays unset, and a required one is then missed.
fn read_one(kind: &Kind, value: &Value, path: &str) -> Result<Option<Field>, Error> {
    let text = || value.as_str().ok_or_else(|| Error::at(path, "expected a string"));
    Ok(Some(match kind {
        Kind::Bool => Field::Bool(value.as_bool().ok_or_else(|| Error::at(path, "expected true or false"))?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Field::I32(integer(value, path)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(integer(value, path)?),
        Kind::Uint32 | Kind::Fixed32 => Field::U32(integer(value, path)?),
        Kind::Uint64 | Kind::Fixed64 => Field::U64(integer(value, path)?),
        #[allow(clippy::cast_possible_truncation)] // a float loses precision, as on Mesos
        Kind::Float => Field::F32(float(value, path)? as f32),
        Kind::Double => Field::F64(float(value, path)?),
        Kind::String => Field::String(text()?.to_owned()),
        Kind::Bytes => Field::Bytes(BASE64.decode(text()?).map_err(|error| Error::at(path, format!("not base64: {error}")))?.into()),
        Kind::Enum(descriptor) => {
            let name = value.as_str().ok_or_else(|| Error::at(path, format!("expected the name of a {}", descriptor.name())))?;
            match descriptor.get_value_by_name(name) {
                Some(value) => Field::EnumNumber(value.number()),
                None => return Ok(None),
            }
        }
        Kind::Message(descriptor) => {
            let object = value.as_object().ok_or_else(|| Error::at(path, "expected an object"))?;
            Field::Message(read_message(descriptor.clone(), object, path)?)
        }
    }))
}

fn integer<T: TryFrom<i128>>(value: &Value, path: &str) -> Result<T, Error> {
    let number: Option<i128> = match value {
        Value::Number(number) => number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).or_else(|| {
            // `5.0` is an integer to Mesos' parser too.
            #[allow(clippy::cast_possible_truncation)]
            number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e18).map(|float| float as i128)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| Error::at(path, format!("{value} is no number that fits this field")))
}

fn float(value: &Value, path: &str) -> Result<f64, Error> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        // Also `Infinity` and `-Infinity`; `NaN` is no number, for Mesos neither.
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| !number.is_nan()),
        _ => None,
    };
    number.ok_or_else(|| Error::at(path, format!("{value} is no number")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::mesos::v1::{self, scheduler};

    #[test]
    fn a_worked_exchange_reads_and_writes() {
        let text = br#"{"framework_id":{"value":"M-0000"},"type":"ACKNOWLEDGE","acknowledge":{"agent_id":{"value":"M-S0"},
            "task_id":{"value":"web.i1.app.1"},"uuid":"q83vEjRWeJCrze8SNFZ4kA=="},"unknown":{"x":1},"kill":null}"#;
        let call: scheduler::Call = from_slice(text).unwrap();
        assert_eq!(call.r#type(), scheduler::call::Type::Acknowledge);
        assert_eq!(call.acknowledge.as_ref().unwrap().uuid.len(), 16);
        assert!(call.kill.is_none());
        assert_eq!(
            to_text(&call).unwrap(),
            r#"{"framework_id":{"value":"M-0000"},"type":"ACKNOWLEDGE","acknowledge":{"agent_id":{"value":"M-S0"},"task_id":{"value":"web.i1.app.1"},"uuid":"q83vEjRWeJCrze8SNFZ4kA=="}}"#
        );
    }

    #[test]
    fn defaults_are_written_even_when_unset_but_deprecated_ones_are_not() {
        assert_eq!(to_value(&v1::CommandInfo::default()).unwrap(), json!({"shell": true}));
        let cpus = v1::Resource { name: "cpus".into(), scalar: Some(v1::value::Scalar { value: 4.0 }), ..Default::default() };
        let written = to_text(&cpus).unwrap();
        assert!(written.contains(r#""value":4.0"#) && !written.contains("role"), "{written}");
    }

    #[test]
    fn enums_are_names_only_and_unknown_names_count_as_absent() {
        let unknown: scheduler::Call = from_slice(br#"{"type":"NO_SUCH_CALL"}"#).unwrap();
        assert_eq!(unknown.r#type, None);
        let number = from_slice::<scheduler::Call>(br#"{"type":3}"#).unwrap_err();
        assert!(number.to_string().starts_with("type: expected the name"), "{number}");
        let required = from_slice::<v1::Resource>(br#"{"name":"cpus","type":"NOPE"}"#).unwrap_err();
        assert_eq!(required.to_string(), "type: required field is missing");
    }

    #[test]
    fn missing_required_fields_are_named_with_their_path() {
        let error = from_slice::<scheduler::Call>(br#"{"type":"ACCEPT","accept":{"offer_ids":[{}]}}"#).unwrap_err();
        assert_eq!(error.to_string(), "accept.offer_ids[0].value: required field is missing");
    }

    #[test]
    fn bare_elements_are_lists_and_numbers_may_be_strings() {
        let accept: scheduler::call::Accept =
            from_slice(br#"{"offer_ids":{"value":"o"},"filters":{"refuse_seconds":"Infinity"}}"#).unwrap();
        assert_eq!(accept.offer_ids.len(), 1);
        assert_eq!(accept.filters.unwrap().refuse_seconds, Some(f64::INFINITY));
        let duration: v1::DurationInfo = from_slice(br#"{"nanoseconds":"9000000000"}"#).unwrap();
        assert_eq!(duration.nanoseconds, 9_000_000_000);
        assert_eq!(to_text(&duration).unwrap(), r#"{"nanoseconds":9000000000}"#);
    }

    #[test]
    fn text_is_one_line_of_ascii() {
        let text = to_text(&v1::TaskId { value: "é\n😀".into() }).unwrap();
        assert_eq!(text, r#"{"value":"\u00e9\n\ud83d\ude00"}"#);
    }

    #[test]
    fn protobuf_without_a_required_field_is_refused() {
        assert!(from_protobuf::<v1::TaskId>(&[]).is_err());
        assert!(from_protobuf::<v1::TaskId>(&v1::TaskId { value: "t".into() }.encode_to_vec()).is_ok());
        assert!(from_protobuf::<v1::TaskId>(b"\xff\xff").is_err());
    }

    #[test]
    fn deeply_nested_input_is_an_error_and_no_crash() {
        let deep = format!("{}{}", r#"{"accept":["#.repeat(5000), "]}".repeat(5000));
        assert!(from_slice::<scheduler::Call>(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn statuses_survive_a_round_trip(id in ".*", timestamp in (0u32..u32::MAX).prop_map(|n| f64::from(n) / 8.0), data in any::<Vec<u8>>(), healthy in any::<Option<bool>>()) {
            let status = v1::TaskStatus {
                task_id: v1::TaskId { value: id },
                state: v1::TaskState::TaskRunning.into(),
                timestamp: Some(timestamp),
                data: Some(data.into()),
                healthy,
                ..Default::default()
            };
            prop_assert_eq!(from_slice::<v1::TaskStatus>(to_text(&status).unwrap().as_bytes()).unwrap(), status);
        }
    }
}
