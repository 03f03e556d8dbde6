//! A line of the table, and how its numbers are written.

use std::time::Duration;

/// One line of the table.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) aim: String,
    pub(crate) beside: String,
    /// The measured over what stands beside it.
    pub(crate) ratio: String,
}

pub(crate) fn figure(what: impl Into<String>, measured: impl Into<String>, aim: &str, beside: impl Into<String>) -> Figure {
    Figure { what: what.into(), measured: measured.into(), aim: aim.to_owned(), beside: beside.into(), ratio: String::new() }
}

impl Figure {
    pub(crate) fn ratio(self, measured: Duration, plain: Duration) -> Self {
        let ratio = measured.as_secs_f64() / plain.as_secs_f64().max(f64::EPSILON);
        Self { ratio: if ratio < 10.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }, ..self }
    }
}

pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

pub(crate) fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How many of them a second.
pub(crate) fn rate(count: usize, within: Duration) -> String {
    let rate = (count as f64 / within.as_secs_f64().max(f64::EPSILON)).round();
    format!("{rate:.0}/s")
}
