// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a failure leaves the program: the exit codes every binary shares, and the way an error is printed.
//!
//! Each module has its own error enum; all of them implement [`Classify`], so that a `main` needs to
//! know nothing but [`report`].

use std::iter::successors;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::base::catalogue::Message;
use crate::base::text::line;

/// Exit codes of every ttvm program (`ttvm(1)`, EXIT STATUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A file under /etc/ttvm is wrong.
    Config = 3,
    /// Refused: it would not be safe, or something is in use.
    Refused = 4,
    /// A replay was not the run that was recorded.
    Diverged = 5,
}

impl Exit {
    /// The one that a program of ours ended with, by its exit status.
    pub fn of_status(status: u8) -> Option<Self> {
        let all = [
            Self::Done,
            Self::Failed,
            Self::Usage,
            Self::Config,
            Self::Refused,
            Self::Diverged,
        ];
        all.into_iter().find(|exit| *exit as u8 == status)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error for programs to read: what `--json` prints in place of an answer.
#[derive(Debug, Serialize)]
pub struct Told {
    error: Failure,
}

#[derive(Debug, Serialize)]
struct Failure {
    /// What kind it is of, by the exit code that goes with it.
    kind: Exit,
    /// That code.
    exit: u8,
    /// What failed.
    message: String,
    /// Why, the nearest cause first.
    causes: Vec<String>,
}

impl Told {
    /// What is to be told of `error`.
    pub fn of(error: &dyn Classify) -> Self {
        let first = error.source();
        let failure = Failure {
            kind: error.exit(),
            exit: error.exit() as u8,
            message: error.to_string(),
            causes: successors(first, |cause| cause.source())
                .map(ToString::to_string)
                .collect(),
        };
        Self { error: failure }
    }
}

/// An error that knows with which code the program ends.
pub trait Classify: std::error::Error {
    /// The exit code for this error.
    fn exit(&self) -> Exit;

    /// What the journal's catalogue explains it as, if it is one of the things that have an explanation of their own.
    fn message(&self) -> Option<Message> {
        None
    }
}

/// The error and its causes as one text: the first line says what failed, each cause follows on its own line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str("\n  because: ");
        let said = inner.to_string();
        match quotes(inner) {
            true => text.push_str(&line(&said)),
            false => text.push_str(&said),
        }
        cause = inner.source();
    }
    text
}

/// Whether an error is not of ours, and may quote what it was about: no line break in it is one of ours.
fn quotes(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
        || error.is::<serde_json::Error>()
        || error.is::<toml::de::Error>()
        || error.is::<toml::ser::Error>()
}

/// [`chain`] for places that take one line: systemd's status, a table. What were lines of their own stay apart.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let chain = chain(error);
    let mut text = String::with_capacity(chain.len());
    for line in chain.lines().filter(|line| !line.trim().is_empty()) {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.push_str(
            match line.starts_with("because:") || text.ends_with([':', ';', ',', '.']) {
                _ if text.is_empty() => "",
                true => " ",
                false => "; ",
            },
        );
        text.push_str(&line);
    }
    text
}

/// The system's reason in plain words, without the number Rust appends.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Prints `error` to stderr in the name of `program` and returns its exit code.
pub fn report(program: &str, error: &dyn Classify) -> ExitCode {
    // `dyn Classify` to `dyn Error` is a plain upcast.
    eprintln!("{program}: {}", crate::base::text::lines(&chain(error)));
    error.exit().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_quotes_forges_no_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read it:\n    twice")]
        struct Unread(#[source] Box<dyn std::error::Error + Send + Sync>);
        #[derive(Debug, Deserialize)]
        enum Known {
            One,
        }
        let foreign = r#""x\nttvm: imported web""#;
        let of_json = serde_json::from_str::<Known>(foreign).expect_err("no such variant");
        let of_toml = toml::from_str::<std::collections::BTreeMap<String, Known>>(&format!("it = {foreign}"));
        let of_io = std::io::Error::other("a\nttvm: b");
        let of_toml = of_toml.expect_err("no such variant");
        for foreign in [of_json.into(), of_toml.into(), of_io.into()] {
            let text = chain(&Unread(foreign));
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 3 && lines[2].starts_with("  because: "), "{text}");
        }
        assert!(matches!(serde_json::from_str::<Known>("\"One\""), Ok(Known::One)));
    }

    #[test]
    fn several_lines_as_one() {
        #[derive(Debug, thiserror::Error)]
        #[error("it was left alone:\n    one reason\n    another\n  do it by hand")]
        struct Reasons;
        #[derive(Debug, thiserror::Error)]
        #[error("it failed")]
        struct Failed(#[source] Reasons);
        assert_eq!(
            one_line(&Failed(Reasons)),
            "it failed because: it was left alone: one reason; another; do it by hand"
        );
    }
}
