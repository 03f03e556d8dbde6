//! The executor process by itself: what `podium executor` runs, for the tests of this crate.

fn main() -> std::process::ExitCode {
    podium_engine::executor::run()
}
