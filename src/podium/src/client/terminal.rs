//! What differs between a person at a terminal and a pipe: colours, and a progress line that is rewritten in place.

use std::io::{IsTerminal, Write};

/// What a word means, and so its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Uneasy,
    /// Wrong.
    Bad,
    /// Beside the point.
    Faint,
}

/// Colours a text, or leaves it alone when nobody sees colours.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// Never colours.
    #[cfg(test)]
    pub const PLAIN: Self = Self(false);

    /// Whether stdout shows colours.
    pub fn for_stdout() -> Self {
        Self(std::io::stdout().is_terminal() && wants_colour())
    }

    /// Whether stderr shows colours.
    pub fn for_stderr() -> Self {
        Self(std::io::stderr().is_terminal() && wants_colour())
    }

    /// The text in the colour of its tone.
    pub fn tone(self, text: &str, tone: Option<Tone>) -> String {
        let code = match tone {
            Some(Tone::Good) => "32",
            Some(Tone::Uneasy) => "33",
            Some(Tone::Bad) => "31",
            Some(Tone::Faint) => "2",
            None => return text.to_owned(),
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// <https://no-color.org>: any value but the empty one switches colours off.
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Progress on stderr: one line that is rewritten at a terminal; elsewhere a line for every change.
#[derive(Debug)]
pub struct Progress {
    live: bool,
    last: String,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Self { live: std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"), last: String::new() }
    }

    /// Shows how things stand now.
    pub fn show(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        self.last = text.to_owned();
        let mut stderr = std::io::stderr().lock();
        // Progress that cannot be shown is no reason to stop.
        let _ = if self.live {
            write!(stderr, "\r\x1b[2K{}", fit(text, columns())).and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{}", printable(text))
        };
    }

    /// Takes the live line away again, so that what follows begins on a clean one.
    pub fn clear(&mut self) {
        if self.live && !self.last.is_empty() {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
        }
        self.last.clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

/// Cut to less than the width, since a line that wraps cannot be rewritten.
fn fit(text: &str, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let text = printable(text);
    if text.chars().count() <= room { text } else { text.chars().take(room.saturating_sub(1)).chain(['…']).collect() }
}

/// Text from elsewhere without control characters, which a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_never_wraps_and_obeys_no_foreign_escapes() {
        assert_eq!(fit("abcdef", 7), "abcdef");
        assert_eq!(fit("abcdef", 6), "abcd…");
        assert_eq!(fit("a\x1b[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(fit("abc", 0), "…");
    }

    #[test]
    fn nobody_sees_colours_in_a_pipe() {
        assert_eq!(Paint::PLAIN.tone("x", Some(Tone::Bad)), "x");
        assert_eq!(Paint(true).tone("x", Some(Tone::Bad)), "\x1b[31mx\x1b[0m");
    }
}
