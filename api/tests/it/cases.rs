//! Cases as readable text: `tests/cases/*.txt`, a rule of the reference a block, run over HTTP against a real server on a
//! real store. `CASES=text cargo test -p podium-api cases` runs those blocks whose file or title holds the text.
//!
//! ```text
//! let POD = {"id": "/a"}          $POD stands for that text from here on: in this block, or, before the first, in every one
//!
//! == a pod is created once        a block, on a store and a server of its own; "(2 replicas)" at its end: on two servers
//! POST /v2/pods $POD              a request: method, path and perhaps a body, which may go on in indented lines
//!   If-Match: *                   … with a header
//! 201 {"id": "/a"}                its answer: status and what must be in the body; `empty`: nothing is
//!   Location: …/v2/pods/a         … a header that it has, `…` stands for anything
//!   no Warning                    … one that it has not
//!   keep V = /version             $V stands for that member of the body from here on
//!   keep D = Marathon-Deployment-Id    … for that header
//! @2 GET /v2/pods/a               a request to the second server
//! given /a runs 2                 what the controllers would have written meanwhile; `given.rs` tells what there is
//! stored resets/a                 a key is in the store
//! unstored resets/a               a key is not
//! ```
//!
//! A body holds what is expected if every member that is named is there and holds its; lists have the same length. In strings
//! `…` stands for any text; as a whole value `"…"` stands for any, `"<absent>"` for none, `"<time>"` and `"<uuid>"` for one of
//! these; as the last of a list `"…"` means: and perhaps others, in any order.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use futures_util::StreamExt;
use podium_api::Limits;
use podium_http::Method;
use serde_json::Value;

use crate::given;
use crate::world::{Got, World};

/// Blocks that run at a time.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_are_answered_as_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let filter = std::env::var("CASES").unwrap_or_default();
    let mut blocks = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        blocks.extend(blocks_of(&name, &std::fs::read_to_string(&file).unwrap()));
    }
    blocks.retain(|block| block.origin.contains(&filter) || block.title.contains(&filter));
    assert!(!blocks.is_empty(), "no case matches");
    let failures: Vec<String> = futures_util::stream::iter(blocks)
        .map(|block| async move { tokio::spawn(run(block)).await.unwrap_or_else(|panic| vec![panic.to_string()]) })
        .buffer_unordered(AT_ONCE)
        .concat()
        .await;
    assert!(failures.is_empty(), "{} answers are not as expected:\n\n{}", failures.len(), failures.join("\n\n"));
}

/// One block: a store and a server of its own.
struct Block {
    origin: String,
    title: String,
    replicas: usize,
    names: Vec<(String, String)>,
    steps: Vec<Step>,
}

/// One line, and what is indented below it.
struct Step {
    line: usize,
    text: String,
    below: Vec<String>,
}

fn blocks_of(origin: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut common = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{origin}:{}", number + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            let replicas = if title.ends_with("(2 replicas)") { 2 } else { 1 };
            blocks.push(Block { origin: at, title: title.to_owned(), replicas, names: common.clone(), steps: Vec::new() });
        } else if let Some(block) = blocks.last_mut() {
            if line.starts_with(' ') {
                block.steps.last_mut().unwrap_or_else(|| panic!("{at}: below nothing")).below.push(line.trim().to_owned());
            } else {
                block.steps.push(Step { line: number + 1, text: line.to_owned(), below: Vec::new() });
            }
        } else {
            common.push(definition(line).unwrap_or_else(|| panic!("{at}: before the first block only `let` can stand")));
        }
    }
    blocks
}

fn definition(line: &str) -> Option<(String, String)> {
    let (name, text) = line.strip_prefix("let ")?.split_once('=')?;
    Some((name.trim().to_owned(), text.trim().to_owned()))
}

/// What a block knows while it runs.
struct Run {
    world: World,
    names: Vec<(String, String)>,
    /// The answer to the last request.
    got: Option<(String, Got)>,
    /// Up to where the servers must have read the store before the next request.
    revision: i64,
}

async fn run(block: Block) -> Vec<String> {
    let mut run = Run { world: World::with(block.replicas, Limits::default()).await, names: block.names, got: None, revision: 0 };
    let file = block.origin.split(':').next().unwrap_or_default();
    let mut failures = Vec::new();
    for step in &block.steps {
        if let Err(failure) = run.step(step).await {
            failures.push(format!("{file}:{}: {}\n{failure}", step.line, block.title));
        }
    }
    failures
}

impl Run {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Some((name, text)) = definition(&step.text) {
            let text = self.fill(&std::iter::once(&text).chain(&step.below).map(String::as_str).collect::<Vec<_>>().join(" "))?;
            self.names.push((name, text));
            return Ok(());
        }
        if let Some(what) = step.text.strip_prefix("given ") {
            self.revision = given::happen(&mut self.world, what, self.revision).await;
            return Ok(());
        }
        let text = self.fill(&step.text)?;
        if let Some((word, key)) = text.split_once(' ').filter(|(word, _)| matches!(*word, "stored" | "unstored")) {
            return if given::is_stored(&self.world, key).await == (word == "stored") {
                Ok(())
            } else {
                Err(format!("{key} is not {word}"))
            };
        }
        let below = step.below.iter().map(|line| self.fill(line)).collect::<Result<Vec<_>, _>>()?;
        match text.get(..3).and_then(|status| status.parse().ok()) {
            Some(status) => self.expect(status, text[3..].trim(), &below),
            None => self.request(&text, &below).await,
        }
    }

    async fn request(&mut self, text: &str, below: &[String]) -> Result<(), String> {
        let (server, text) = match text.strip_prefix("@2 ") {
            Some(text) => (1, text),
            None => (0, text),
        };
        let mut parts = text.splitn(3, ' ');
        let method = Method::from_str(parts.next().unwrap_or_default()).map_err(|error| format!("{text}: {error}"))?;
        let path = parts.next().ok_or_else(|| format!("{text}: no path"))?;
        let mut body = parts.next().unwrap_or_default().to_owned();
        let revision = self.revision.to_string();
        let mut headers = vec![("X-Podium-Min-Revision", revision.as_str())];
        for line in below {
            match header_line(line) {
                Some((name, value)) => headers.push((name, value)),
                None => body.push_str(line),
            }
        }
        let set = |headers: &[(&str, &str)], name: &str| headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
        if !body.is_empty() && set(&headers, "content-type") == 0 {
            headers.push(("Content-Type", "application/json"));
        }
        if set(&headers, "x-podium-min-revision") > 1 {
            headers.remove(0);
        }
        let got = self.world.send_to(server, method, path, &headers, &body).await;
        self.got = Some((text.to_owned(), got));
        Ok(())
    }

    fn expect(&mut self, status: u16, body: &str, below: &[String]) -> Result<(), String> {
        let (request, got) = self.got.take().ok_or("an answer without a request")?;
        let mut body = body.to_owned();
        let mut wrong = String::new();
        if got.status != status {
            let _ = writeln!(wrong, "  status {} and not {status}", got.status);
        }
        for line in below {
            if let Some((name, from)) = line.strip_prefix("keep ").and_then(|line| line.split_once('=')) {
                self.keep(name.trim(), from.trim(), &got)?;
            } else if let Some(name) = line.strip_prefix("no ") {
                if !got.header(name).is_empty() {
                    let _ = writeln!(wrong, "  header {name} is there: {}", got.header(name));
                }
            } else if let Some((name, pattern)) = header_line(line) {
                let values: Vec<&str> = got.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
                if !values.iter().any(|value| matches(pattern, value)) {
                    let _ = writeln!(wrong, "  header {name} is {values:?} and not {pattern}");
                }
            } else {
                body.push_str(line);
            }
        }
        compare_body(&body, &got, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(format!("{request}\n{wrong}  answer: {} {}", got.status, got.text())) }
    }

    fn keep(&mut self, name: &str, from: &str, got: &Got) -> Result<(), String> {
        let text = match from.starts_with('/') {
            true => got.json().pointer(from).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            false => Some(got.header(from).to_owned()).filter(|value| !value.is_empty()),
        };
        self.names.push((name.to_owned(), text.ok_or_else(|| format!("there is no {from} to keep in {got:?}"))?));
        Ok(())
    }

    /// The text with every `$NAME` replaced.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            filled.push_str(&rest[..at]);
            let name: String = rest[at + 1..].chars().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect();
            match self.names.iter().rfind(|(known, _)| *known == name) {
                Some((_, value)) => filled.push_str(&self.fill(value)?),
                None if name.is_empty() => filled.push('$'),
                None => return Err(format!("nothing is called ${name}")),
            }
            rest = &rest[at + 1 + name.len()..];
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn header_line(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_name.then(|| (name, value.trim()))
}

fn compare_body(expected: &str, got: &Got, wrong: &mut String) {
    if expected.is_empty() {
        return;
    }
    if expected == "empty" {
        if !got.body.is_empty() {
            let _ = writeln!(wrong, "  the body is not empty");
        }
        return;
    }
    match (serde_json::from_str(expected), serde_json::from_slice(&got.body)) {
        (Ok(expected), Ok(actual)) => differ("", &expected, Some(&actual), wrong),
        (Ok(_), Err(error)) => drop(writeln!(wrong, "  the body is no JSON: {error}")),
        (Err(_), _) if matches(expected, got.text().trim_end()) => {}
        (Err(error), _) => drop(writeln!(wrong, "  the body is not: {expected} ({error})")),
    }
}

/// Tells where a value does not hold what is expected.
fn differ(path: &str, expected: &Value, actual: Option<&Value>, wrong: &mut String) {
    let Some(actual) = actual else {
        if expected != "<absent>" {
            let _ = writeln!(wrong, "  {path} is missing: {expected}");
        }
        return;
    };
    match (expected, actual) {
        (Value::Object(members), Value::Object(others)) => {
            members.iter().for_each(|(name, member)| differ(&format!("{path}/{name}"), member, others.get(name), wrong));
        }
        (Value::Array(items), Value::Array(others)) if items.last().is_some_and(|last| last == "…") => {
            for item in &items[..items.len() - 1] {
                if !others.iter().any(|other| holds(item, other)) {
                    let _ = writeln!(wrong, "  {path} does not have {item}");
                }
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (at, (item, other)) in items.iter().zip(others).enumerate() {
                differ(&format!("{path}/{at}"), item, Some(other), wrong);
            }
        }
        (expected, actual) if is_like(expected, actual) => {}
        _ => drop(writeln!(wrong, "  {path} is {actual} and not {expected}")),
    }
}

fn holds(expected: &Value, actual: &Value) -> bool {
    let mut wrong = String::new();
    differ("", expected, Some(actual), &mut wrong);
    wrong.is_empty()
}

fn is_like(expected: &Value, actual: &Value) -> bool {
    match (expected.as_str(), actual) {
        (Some("…"), _) => true,
        (Some("<time>"), Value::String(text)) => text.parse::<podium_types::id::Version>().is_ok_and(|time| time.to_string() == *text),
        (Some("<uuid>"), Value::String(text)) => uuid::Uuid::parse_str(text).is_ok(),
        (Some(pattern), Value::String(text)) => matches(pattern, text),
        // 1 and 1.0 are one number.
        (None, Value::Number(number)) => expected.as_f64() == number.as_f64(),
        _ => expected == actual,
    }
}

/// Whether a text is as the pattern says, in which `…` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn a_case_that_is_not_met_is_told() {
    let got = |body: &str| Got { status: 200, headers: Default::default(), body: body.as_bytes().to_vec() };
    let wrong = |expected: &str, body: &str| {
        let mut wrong = String::new();
        compare_body(expected, &got(body), &mut wrong);
        wrong
    };
    for (expected, body) in [
        (r#"{"a": {"b": 1}}"#, r#"{"a": {"b": 1.0, "c": 2}}"#),
        (r#"["x", "…"]"#, r#"["y", "x"]"#),
        (r#"{"a": "<absent>", "b": "…"}"#, r#"{"b": null}"#),
        (r#"{"t": "<time>"}"#, r#"{"t": "2026-01-01T00:00:00.000Z"}"#),
        ("ok…\n…x", "ok\ny\nx"),
        ("empty", ""),
    ] {
        assert_eq!(wrong(expected, body), "", "{expected} {body}");
    }
    for (expected, body) in [
        (r#"{"a": {"b": 1}}"#, r#"{"a": {"b": 2}}"#),
        (r#"["x"]"#, r#"["x", "y"]"#),
        (r#"["x", "…"]"#, r#"["y"]"#),
        (r#"{"a": "<absent>"}"#, r#"{"a": null}"#),
        (r#"{"t": "<time>"}"#, r#"{"t": "2026-01-01T00:00Z"}"#),
        (r#"{"a": "x…z"}"#, r#"{"a": "xy"}"#),
        ("empty", " "),
        ("ok", "okay"),
    ] {
        assert_ne!(wrong(expected, body), "", "{expected} {body}");
    }
}
