// SPDX-License-Identifier: MIT OR Apache-2.0
//! "Keep this change?" on a terminal, with the time that is left.

use std::io::{self, Write};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Interval, interval};

use super::clock;

/// What a person says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// The input has ended: nobody decides here.
    Nobody,
}

/// A question that stands on the terminal.
pub(super) struct Question {
    lines: UnboundedReceiver<String>,
    second: Interval,
    deadline_usec: u64,
    /// The terminal can move its cursor.
    moves: bool,
}

impl Question {
    /// Asks.
    pub(super) fn ask(deadline_usec: u64) -> io::Result<Self> {
        let (sender, lines) = mpsc::unbounded_channel();
        // Reading a terminal blocks, and a line that is never typed must not keep the process: a thread of our own
        // ends with it, one of tokio's would be waited for.
        std::thread::Builder::new().spawn(move || {
            for line in io::stdin().lines() {
                if !line.is_ok_and(|line| sender.send(line).is_ok()) {
                    break;
                }
            }
        })?;
        let question = Self {
            lines,
            second: interval(Duration::from_secs(1)),
            deadline_usec,
            moves: std::env::var_os("TERM").is_some_and(|term| term != "dumb"),
        };
        question.print()?;
        Ok(question)
    }

    /// The answer, once it is there. May be dropped at any time and called again.
    pub(super) async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            tokio::select! {
                line = self.lines.recv() => match line.as_deref().and_then(understand) {
                    Some(answer) => return Ok(answer),
                    None if line.is_none() => return Ok(Answer::Nobody),
                    None => self.print()?,
                },
                _ = self.second.tick() => self.redraw()?,
            }
        }
    }

    /// Somebody has given it more, or less, time.
    pub(super) fn set_deadline(&mut self, deadline_usec: u64) -> io::Result<()> {
        self.deadline_usec = deadline_usec;
        self.redraw()
    }

    fn left(&self) -> String {
        format!("It is undone in {} s.", clock::left(self.deadline_usec).as_secs())
    }

    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        write!(out, "{}\nKeep this change? [y/N] ", self.left())?;
        out.flush()
    }

    /// Writes the line above the question anew; what has been typed after the question stays as it is.
    fn redraw(&self) -> io::Result<()> {
        if !self.moves {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        // Save the cursor, up, to the left, clear the line; restore it (ECMA-48, and DEC's 7 and 8).
        write!(out, "\x1b7\x1b[1A\r\x1b[2K{}\x1b8", self.left())?;
        out.flush()
    }
}

/// Enter alone is a no; what is neither is asked again.
fn understand(line: &str) -> Option<Answer> {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(Answer::Yes),
        "" | "n" | "no" => Some(Answer::No),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert_eq!(understand("y"), Some(Answer::Yes));
        assert_eq!(understand(" Yes "), Some(Answer::Yes));
        assert_eq!(understand(""), Some(Answer::No));
        assert_eq!(understand("N"), Some(Answer::No));
        assert_eq!(understand("yy"), None);
    }
}
