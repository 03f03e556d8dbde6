//! The `podium` binary under test, built by cargo from this checkout in the profile of the caller.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `podium`, built once a process: in the release profile for `release`, else in the dev profile.
///
/// # Panics
/// When the build fails: nothing can be tested then.
pub fn podium(release: bool) -> &'static Path {
    static DEBUG: OnceLock<PathBuf> = OnceLock::new();
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    if release { RELEASE.get_or_init(|| build(true)) } else { DEBUG.get_or_init(|| build(false)) }
}

fn build(release: bool) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "-p", "podium", "--message-format=json-render-diagnostics"]);
    if release {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(std::process::Stdio::inherit()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo build -p podium failed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "podium")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable that it built")
}
