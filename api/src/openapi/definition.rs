//! JSON Schema of definitions, made of the tables that their reader follows.
//!
//! Each object has two schemas: as it may be sent, and as it is answered, with every member there.

use podium_types::definition::MAX_OBJECTS;
use podium_types::definition::schema::shape::{Absent, Answered, Key, Member, Of, Shape, Text, VARIABLE};
use podium_types::definition::schema::tables::POD;
use serde_json::{Map, Value, json};

use super::reference;

/// Which way a definition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sent,
    Answered,
}

/// Adds a schema for each table, each way; `PodChange` is a pod whose id its path may say.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    for way in [Way::Sent, Way::Answered] {
        shape(&POD, way, schemas);
    }
    let mut change = schemas.get(POD.name).cloned().unwrap_or_default();
    if let Some(required) = change["required"].as_array_mut() {
        required.retain(|name| name != "id");
    }
    schemas.insert("PodChange".to_owned(), change);
}

/// The name of a table's schema.
fn name(shape: &Shape, way: Way) -> String {
    match way {
        Way::Sent => shape.name.to_owned(),
        Way::Answered => format!("Answered{}", shape.name),
    }
}

fn shape(shape: &'static Shape, way: Way, schemas: &mut Map<String, Value>) -> Value {
    let name = name(shape, way);
    if !schemas.contains_key(&name) {
        // Taken first, so that outer objects stand before inner ones.
        schemas.insert(name.clone(), Value::Null);
        let schema = if has_forms(shape) { forms(shape, way, schemas) } else { object(shape, way, schemas) };
        schemas.insert(name.clone(), schema);
    }
    reference(&name)
}

/// Of an object none of whose members is answered unless it is given, one is: a command.
fn has_forms(shape: &Shape) -> bool {
    shape.members.iter().all(|member| member.answered == Answered::WhenGiven)
}

/// An object of one member, which may be any of the table's. What stands beside it is read over.
fn forms(shape: &'static Shape, way: Way, schemas: &mut Map<String, Value>) -> Value {
    let form = |member: &'static Member, schemas: &mut Map<String, Value>| {
        let mut schema = of(&member.of, way, schemas);
        schema["description"] = json!(member.about);
        json!({ "type": "object", "required": [member.name], "properties": { member.name: schema } })
    };
    let forms: Vec<Value> = shape.members.iter().map(|member| form(member, schemas)).collect();
    json!({ "description": shape.about, "anyOf": forms })
}

fn object(shape: &'static Shape, way: Way, schemas: &mut Map<String, Value>) -> Value {
    let mut required = Vec::new();
    let mut properties = Map::new();
    for member in shape.members {
        let there = match way {
            Way::Sent => member.absent == Absent::Refused,
            Way::Answered if member.answered == Answered::Never => continue,
            Way::Answered => member.answered == Answered::Always,
        };
        if there {
            required.push(member.name);
        }
        properties.insert(member.name.to_owned(), self::member(member, way, schemas));
    }
    json!({ "type": "object", "description": shape.about, "required": required, "properties": properties })
}

fn member(member: &'static Member, way: Way, schemas: &mut Map<String, Value>) -> Value {
    let mut schema = of(&member.of, way, schemas);
    let may_be_null = match way {
        Way::Sent => member.absent != Absent::Refused,
        Way::Answered => member.absent == Absent::Nothing && !matches!(member.of, Of::List { .. } | Of::Map { .. }),
    };
    if may_be_null && schema != json!({}) {
        schema = json!({ "anyOf": [schema, { "type": "null" }] });
    }
    schema["description"] = json!(member.about);
    let default = match member.absent {
        Absent::Number(number) => json!(number),
        Absent::Integer(whole) => json!(whole),
        Absent::Flag(flag) => json!(flag),
        Absent::Word(word) => json!(word),
        Absent::Refused | Absent::Nothing | Absent::Filled => Value::Null,
    };
    if way == Way::Sent && !default.is_null() {
        schema["default"] = default;
    }
    schema
}

fn of(of: &'static Of, way: Way, schemas: &mut Map<String, Value>) -> Value {
    match of {
        Of::Text(bounds) => text(*bounds),
        Of::Flag => json!({ "type": "boolean" }),
        Of::Number { min, max } => {
            let mut schema = json!({ "type": "number" });
            if *min > f64::MIN {
                schema["minimum"] = json!(min);
            }
            if *max < f64::MAX {
                schema["maximum"] = json!(max);
            }
            schema
        }
        Of::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Of::Word(words) => json!({ "type": "string", "enum": words }),
        Of::Object(shape) => self::shape(shape, way, schemas),
        Of::List { of, min } => {
            let items = self::of(of, way, schemas);
            let mut schema = json!({ "type": "array", "items": items });
            if way == Way::Sent && *min > 0 {
                schema["minItems"] = json!(min);
            }
            if way == Way::Sent && matches!(of, Of::Object(_)) {
                schema["maxItems"] = json!(MAX_OBJECTS);
            }
            schema
        }
        Of::Map { key, of } => {
            let mut schema = json!({ "type": "object", "additionalProperties": self::of(of, way, schemas) });
            if *key == Key::Variable {
                schema["propertyNames"] = json!({ "pattern": VARIABLE });
            }
            schema
        }
        Of::Either([]) => json!({}),
        Of::Either(forms) => json!({ "anyOf": forms.iter().map(|form| self::of(form, way, schemas)).collect::<Vec<_>>() }),
    }
}

fn text(bounds: Text) -> Value {
    let mut schema = json!({ "type": "string" });
    let (min, max) = bounds.length();
    if min > 0 {
        schema["minLength"] = json!(min);
    }
    if max < usize::MAX {
        schema["maxLength"] = json!(max);
    }
    if let Some(pattern) = bounds.pattern() {
        schema["pattern"] = json!(pattern);
    }
    if bounds == Text::Time {
        schema["format"] = json!("date-time");
    }
    schema
}
