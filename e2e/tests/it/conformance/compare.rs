//! Two transcripts side by side, and the list of the differences that are known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// One place where the two masters say different things; `absent` where one says nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `scenario / step path`.
    pub at: String,
    pub real: String,
    pub embedded: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at        {}\nreal      {}\nembedded  {}", self.at, self.real, self.embedded)
    }
}

/// What a scenario's master said, by step.
pub type Transcript = Vec<(String, Value)>;

const ABSENT: &str = "absent";

/// Every leaf that differs.
pub fn differences(scenario: &str, real: &Transcript, embedded: &Transcript) -> Vec<Difference> {
    let (real, embedded) = (flat(scenario, real), flat(scenario, embedded));
    let places: BTreeSet<&String> = real.keys().chain(embedded.keys()).collect();
    let said = |all: &BTreeMap<String, String>, at: &String| all.get(at).cloned().unwrap_or_else(|| ABSENT.to_owned());
    places
        .into_iter()
        .map(|at| Difference { at: at.clone(), real: said(&real, at), embedded: said(&embedded, at) })
        .filter(|difference| difference.real != difference.embedded)
        .collect()
}

fn flat(scenario: &str, transcript: &Transcript) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    for (step, value) in transcript {
        leaf(format!("{scenario} / {step} "), value, &mut leaves);
    }
    leaves
}

fn leaf(at: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| leaf(format!("{at}.{key}"), value, leaves));
        }
        Value::Array(values) if !values.is_empty() => {
            values.iter().enumerate().for_each(|(index, value)| leaf(format!("{at}[{index}]"), value, leaves));
        }
        other => {
            leaves.insert(at, other.to_string());
        }
    }
}

/// The committed list.
#[derive(Debug)]
pub struct Known {
    entries: BTreeSet<Difference>,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/differences.txt")
}

impl Known {
    /// Reads the list: blocks of entries, each block ended by a line `because`.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string(path()).expect("the list of differences can be read"))
    }

    fn parse(text: &str) -> Self {
        let mut entries = BTreeSet::new();
        let mut unexplained: Vec<Difference> = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim_start().to_owned();
            match (word, unexplained.last_mut()) {
                ("at", _) => unexplained.push(Difference { at: rest, real: String::new(), embedded: String::new() }),
                ("real", Some(entry)) => entry.real = rest,
                ("embedded", Some(entry)) => entry.embedded = rest,
                ("because", Some(_)) if !rest.is_empty() => entries.extend(unexplained.drain(..)),
                _ => panic!("line {} of the list of differences: expected at, real, embedded or because: {line}", number + 1),
            }
        }
        assert!(unexplained.is_empty(), "the list of differences gives no reason for {}", unexplained[0].at);
        Self { entries }
    }

    /// The part about these scenarios.
    pub fn of(&self, scenarios: &[&str]) -> Self {
        let about = |entry: &&Difference| entry.at.split_once(" / ").is_some_and(|(scenario, _)| scenarios.contains(&scenario));
        Self { entries: self.entries.iter().filter(about).cloned().collect() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is not on the list, and what is on it and no longer so.
    pub fn compare(&self, found: &BTreeSet<Difference>) -> Result<(), String> {
        let fresh: Vec<String> = found.difference(&self.entries).map(ToString::to_string).collect();
        let gone: Vec<String> = self.entries.difference(found).map(ToString::to_string).collect();
        if fresh.is_empty() && gone.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} differences between the real master and the embedded one are not on the list:\n\n{}\n\n\
             {} differences on the list are gone, take them off:\n\n{}\n",
            fresh.len(),
            fresh.join("\n\n"),
            gone.len(),
            gone.join("\n\n"),
        ))
    }
}
