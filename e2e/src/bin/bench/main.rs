//! The benchmark: builds `podium` in the release profile, measures it whole, and prints a table.
//!
//! Each figure stands beside something plain measured in the same run (a bare `sleep`, a plain put to the same
//! store), since machines differ and have moods: compare the ratios first. What was simulated says so in its first column.

mod api;
mod ends;
mod figure;
mod idle;
mod instances;
mod matching;
mod pod;
mod scale;
mod start;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{Table, presets};
use podium_e2e::binary;

use figure::Figure;

/// Measures Podium on this machine and prints its figures as a table.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p podium-e2e --bin bench -- --only start,first")]
struct Options {
    /// Only these: start, filled, first, ends, thousand, simulated, scale, matching, api, idle.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Real instances in the large pod.
    #[arg(long, default_value_t = 1000)]
    instances: usize,
    /// Simulated agents of the large cluster.
    #[arg(long, default_value_t = 5_000)]
    agents: usize,
    /// Instances of the pod that it runs.
    #[arg(long, default_value_t = 10_000)]
    simulated_instances: usize,
    /// Seconds during which an idle cluster is watched.
    #[arg(long, default_value_t = 20)]
    idle_seconds: u64,
}

type Measurement = fn(&Path, &Options) -> Vec<Figure>;

const MEASUREMENTS: &[(&str, Measurement)] = &[
    ("start", start::to_ready),
    ("filled", start::on_a_filled_folder),
    ("first", start::first_process),
    ("ends", ends::reported),
    ("thousand", instances::thousand),
    ("simulated", instances::simulated),
    ("scale", scale::scale),
    ("matching", matching::alone),
    ("api", api::under_load),
    ("idle", idle::idle),
];

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) = options.only.iter().find(|name| !MEASUREMENTS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        eprintln!("no measurement is called '{unknown}': {}", known.join(", "));
        return ExitCode::from(2);
    }
    eprintln!("building podium in the release profile …");
    let podium = binary::podium(true);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["figure", "measured", "aim", "beside it, in the same run", "ratio"]);
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| options.only.is_empty() || options.only.iter().any(|only| only == name)) {
        eprintln!("measuring: {name} …");
        for figure in measure(podium, &options) {
            table.add_row([figure.what, figure.measured, figure.aim, figure.beside, figure.ratio]);
        }
    }
    println!("{table}");
    println!("One machine of {} cores, load {} at the end; store, engine, controllers, API and containers all on it.", cores(), load());
    ExitCode::SUCCESS
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How busy the machine was in the last minute: what else ran beside the measurements shows in it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
