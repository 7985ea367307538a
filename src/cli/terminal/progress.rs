// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far long work is: a bar on a terminal, a line now and then elsewhere, nothing if it is done soon.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::{signals, text};

/// Work that is done within this time is not talked about.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a line is printed where there is no terminal, at the most, and for how many percent.
const LINE: Duration = Duration::from_secs(10);
const STEP: u64 = 10;
/// How often a bar is drawn, at the most.
const FRAMES_PER_SECOND: u8 = 4;
const TEMPLATE: &str = "{msg} {wide_bar} {percent}%, {eta} left";

/// The progress of one piece of work that is measured in bytes or instructions.
pub(in crate::cli) struct Progress {
    what: String,
    started: Instant,
    /// When there was a line, and for how many percent.
    last_line: Option<(Instant, u64)>,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// The progress of `what`, such as `reading xenvg/base`.
    pub(in crate::cli) fn of(what: impl Into<String>) -> Self {
        Self {
            what: text::line(&what.into()).into_owned(),
            started: Instant::now(),
            last_line: None,
            terminal: io::stderr().is_terminal(),
            bar: None,
        }
    }

    /// `done` of `total` are done.
    pub(in crate::cli) fn update(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        if signals::waiting() {
            // Before others say what is done about it.
            self.clear();
            return ControlFlow::Break(());
        }
        if !self.terminal {
            if let Some(line) = self.line(Instant::now(), done, total) {
                eprintln!("ttvm: {line}");
            }
        } else if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.started.elapsed() >= SILENCE {
            let bar = bar(&self.what, total);
            bar.set_position(done);
            // What is left is reckoned from here.
            bar.reset_eta();
            self.bar = Some(bar);
        }
        ControlFlow::Continue(())
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// What is to be said at `now`, if anything.
    fn line(&mut self, now: Instant, done: u64, total: u64) -> Option<String> {
        let spent = now.duration_since(self.started);
        // Of millions: a product of bytes could be too large.
        let percent = (done >> 20) * 100 / (total >> 20).max(1);
        let due = match self.last_line {
            Some((last, said)) => now.duration_since(last) >= LINE && percent / STEP > said / STEP,
            None => spent >= SILENCE,
        };
        if !due || done >= total {
            return None;
        }
        self.last_line = Some((now, percent));
        let left = match percent {
            0 => String::new(),
            _ => format!(
                ", {} left",
                HumanDuration(spent * (100 - percent.min(100)) as u32 / percent as u32)
            ),
        };
        Some(format!("{}: {percent}%{left}", self.what))
    }
}

/// A bar that goes away with its work.
impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND);
    // A test sees that it is right.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target)
        .with_style(style.progress_chars("=> "))
        .with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_after_two_seconds_and_then_each_ten_percent() {
        let mut progress = Progress::of("reading xenvg/base");
        let start = progress.started;
        let mut line = |seconds, mib: u64| progress.line(start + Duration::from_secs(seconds), mib << 20, 10 << 30);
        assert_eq!(line(0, 0), None);
        assert_eq!(line(1, 512), None);
        assert_eq!(
            line(2, 1024).as_deref(),
            Some("reading xenvg/base: 10%, 18 seconds left")
        );
        assert_eq!(line(11, 6000), None);
        assert_eq!(line(12, 1600), None, "no ten percent more");
        assert_eq!(
            line(13, 6145).as_deref(),
            Some("reading xenvg/base: 60%, 9 seconds left")
        );
        assert_eq!(line(30, 10 << 10), None, "it is done");
    }

    #[test]
    fn the_template_is_sound() {
        let bar = bar("reading", 100);
        bar.set_position(50);
        assert!(ProgressStyle::with_template("{msg} {wide_bar} {percent}%, {eta} left").is_ok());
        assert_eq!(bar.message(), "reading");
    }
}
