//! Definitions from files: one, an array of them, or several JSON documents one after the other.

use std::io::Read;
use std::path::{Path, PathBuf};

use podium_types::definition::PodDefinition;
use podium_types::definition::{ReadError, Reading, Settings, read};
use serde_json::Value;

use super::failure::Failure;

/// More than this is not read: a definition has at most 512 KiB.
const MAX_FILE: u64 = 64 << 20;

/// One definition as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it stands, for messages: `pods.json`, `pods.json(2)`.
    pub origin: String,
    /// As written, unread.
    pub json: Value,
}

/// A document that was read, strictly.
#[derive(Debug, Clone)]
pub struct Definition {
    /// What was read.
    pub document: Document,
    /// In its canonical form.
    pub pod: PodDefinition,
}

/// Reads all documents of all files; `-` is standard input.
pub fn load(files: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for file in files {
        let (name, bytes) = slurp(file)?;
        documents.extend(split(&name, &bytes)?);
    }
    match documents.is_empty() {
        true => Err(Failure::Refused(vec!["no definition was found: the input is empty".to_owned()])),
        false => Ok(documents),
    }
}

/// Judges all documents; unknown fields are errors. All that is wrong with any of them comes back together.
pub fn judge(documents: Vec<Document>, settings: &Settings) -> Result<Vec<Definition>, Failure> {
    let (mut definitions, mut complaints) = (Vec::new(), Vec::new());
    for document in documents {
        let (violations, warnings) = match read(document.json.to_string().as_bytes(), settings) {
            Ok(Reading { definition, warnings }) if warnings.is_empty() => {
                definitions.push(Definition { document, pod: definition });
                continue;
            }
            Ok(Reading { warnings, .. }) => (Vec::new(), warnings),
            Err(ReadError::Invalid { violations, warnings }) => (violations, warnings),
            Err(error) => {
                complaints.push(format!("{}: {error}", document.origin));
                continue;
            }
        };
        complaints.extend(violations.iter().map(|violation| complaint(&document.origin, &violation.path, &violation.text())));
        complaints.extend(warnings.iter().map(|warning| complaint(&document.origin, &warning.path, &warning.message)));
    }
    complaints.extend(twice(&definitions));
    if complaints.is_empty() { Ok(definitions) } else { Err(Failure::Refused(complaints)) }
}

fn complaint(origin: &str, path: &str, message: &str) -> String {
    format!("{origin}: {}: {message}", if path.is_empty() { "/" } else { path })
}

fn twice(definitions: &[Definition]) -> Vec<String> {
    let mut seen = std::collections::BTreeMap::new();
    let mut complaints = Vec::new();
    for definition in definitions {
        if let Some(first) = seen.insert(definition.pod.id.clone(), &definition.document.origin) {
            complaints.push(complaint(&definition.document.origin, "/id", &format!("{} stands in {first} already", definition.pod.id)));
        }
    }
    complaints
}

fn slurp(file: &Path) -> Result<(String, Vec<u8>), Failure> {
    let (name, source): (String, std::io::Result<Box<dyn Read>>) = if file.as_os_str() == "-" {
        ("stdin".to_owned(), Ok(Box::new(std::io::stdin())))
    } else {
        (file.display().to_string(), std::fs::File::open(file).map(|file| Box::new(file) as Box<dyn Read>))
    };
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::Usage(format!("{name} has more than {MAX_FILE} bytes")));
    }
    Ok((name, bytes))
}

fn split(name: &str, bytes: &[u8]) -> Result<Vec<Document>, Failure> {
    // Byte order marks come from editors, and are no JSON.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        match value.map_err(|error| Failure::Refused(vec![not_json(name, &error)]))? {
            Value::Array(items) => values.extend(items),
            value => values.push(value),
        }
    }
    let single = values.len() == 1;
    let documents = values.into_iter().enumerate().map(|(at, json)| {
        let origin = if single { name.to_owned() } else { format!("{name}({})", at + 1) };
        Document { origin, json }
    });
    Ok(documents.collect())
}

fn not_json(name: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    format!("{name}:{}:{}: not JSON: {}", error.line(), error.column(), text.strip_suffix(&place).unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"id":"/a","containers":[{"name":"c","resources":{},"exec":{"command":{"shell":"sleep 1"}}}]}"#;

    fn origins(text: &str) -> Vec<String> {
        split("f", text.as_bytes()).unwrap().into_iter().map(|document| document.origin).collect()
    }

    #[test]
    fn a_file_holds_one_an_array_or_several() {
        assert_eq!(origins(POD), ["f"]);
        assert_eq!(origins(&format!("[{POD}]")), ["f"]);
        assert_eq!(origins(&format!("[{POD},{POD}]\n{POD}")), ["f(1)", "f(2)", "f(3)"]);
        assert_eq!(origins(&format!("\u{feff}{POD}")), ["f"]);
        assert!(origins(" \n").is_empty());
    }

    #[test]
    fn broken_json_is_named_with_line_and_column() {
        let Err(Failure::Refused(lines)) = split("f.json", b"{\n  \"id\": ,\n}") else { panic!() };
        assert_eq!(lines, ["f.json:2:9: not JSON: expected value"]);
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_the_nearest() {
        let text = POD.replace("\"resources\"", "\"resourcs\":{},\"resources\"");
        let Err(Failure::Refused(lines)) = judge(split("f", text.as_bytes()).unwrap(), &Settings::default()) else { panic!() };
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("f: /containers(0)/resourcs: ") && lines[0].contains("resources"), "{lines:?}");
    }

    #[test]
    fn an_unknown_field_is_named_beside_all_else_that_is_wrong() {
        let text = POD.replace("\"resources\":{}", "\"resources\":{\"cpus\":-1},\"resourcs\":{}");
        let Err(Failure::Refused(lines)) = judge(split("f", text.as_bytes()).unwrap(), &Settings::default()) else { panic!() };
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("f: /containers(0)/resources/cpus: "), "{lines:?}");
        assert!(lines[1].starts_with("f: /containers(0)/resourcs: "), "{lines:?}");
    }

    #[test]
    fn the_same_pod_twice_is_refused() {
        let documents = split("f", format!("{POD}{POD}").as_bytes()).unwrap();
        let Err(Failure::Refused(lines)) = judge(documents, &Settings::default()) else { panic!() };
        assert_eq!(lines, ["f(2): /id: /a stands in f(1) already"]);
    }
}
