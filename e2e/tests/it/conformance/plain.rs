//! What can't be equal in two runs is made equal: ids, times, addresses. Everything else stays as it was said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// Numbers from here on are times: no scenario uses as much of anything else.
const TIME: f64 = 1e9;

static UUID: LazyLock<Regex> = LazyLock::new(|| Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap());
static OFFER: LazyLock<Regex> = LazyLock::new(|| Regex::new("<uuid>-O[0-9]+").unwrap());
static FRAMEWORK: LazyLock<Regex> = LazyLock::new(|| Regex::new("<uuid>-[0-9]{4}").unwrap());

/// What ids and addresses stand for.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, String>,
    ports: Vec<u16>,
    /// The master's.
    hostname: String,
    /// Fields that are not told.
    pub left_out: Vec<&'static str>,
}

impl Names {
    pub fn new(master: SocketAddr, hostname: &str) -> Self {
        let mut names = Self::default();
        names.master_is(master, hostname);
        names
    }

    pub fn master_is(&mut self, master: SocketAddr, hostname: &str) {
        hostname.clone_into(&mut self.hostname);
        self.learn(&master.to_string(), "<master>");
        self.learn(&format!("//{hostname}:{}", master.port()), "//<master>");
        self.ports.push(master.port());
    }

    pub fn learn(&mut self, name: &str, meaning: &str) {
        self.known.entry(name.to_owned()).or_insert_with(|| meaning.to_owned());
    }

    pub fn learn_port(&mut self, port: u16) {
        self.ports.push(port);
    }

    pub fn plain_text(&self, text: &str) -> String {
        let mut plain = text.to_owned();
        // The longest first: an address may be the beginning of another.
        let mut known: Vec<(&String, &String)> = self.known.iter().collect();
        known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, meaning) in known {
            plain = plain.replace(name.as_str(), meaning);
        }
        let plain = UUID.replace_all(&plain, "<uuid>");
        let plain = OFFER.replace_all(&plain, "<offer>");
        FRAMEWORK.replace_all(&plain, "<framework>").into_owned()
    }

    pub fn plain(&self, value: Value) -> Value {
        match value {
            Value::String(text) => json!(self.plain_text(&text)),
            Value::Number(number) if number.as_f64().is_some_and(|number| number > TIME) => json!("<time>"),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.plain(value)).collect()),
            Value::Object(fields) => {
                let told = fields.into_iter().filter(|(key, _)| !self.left_out.contains(&key.as_str()));
                Value::Object(told.map(|(key, value)| self.plain_field(key, value)).collect())
            }
            other => other,
        }
    }

    fn plain_field(&self, key: String, value: Value) -> (String, Value) {
        let value = match (key.as_str(), value) {
            ("hostname", Value::String(name)) if name == self.hostname => json!("<master's host>"),
            ("uuid" | "status_update_uuid", Value::String(_)) => json!("<uuid>"),
            ("port", Value::Number(port)) if self.ports.iter().any(|known| port.as_u64() == Some((*known).into())) => json!("<port>"),
            (list, Value::Array(mut entries)) if list.ends_with("resources") || list.ends_with("resources_full") => {
                entries.sort_by_key(|entry| entry["name"].as_str().map(str::to_owned));
                self.plain(Value::Array(entries))
            }
            (_, value) => self.plain(value),
        };
        (self.plain_text(&key), value)
    }
}
