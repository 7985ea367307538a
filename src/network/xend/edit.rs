// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing `xend-config.sxp` without touching a byte that does not have to change: a form is turned off by a `#`
//! before it and turned on by taking that away.

use super::config::{Scripts, Setting, State, XendConfig, is_just, text};
use super::sxp::{self, Form, Value};

/// A form that is commented out is looked for over so many lines: it is read anew with each of them, and nobody writes more.
const MAX_LINES: usize = 8;

/// Why a file was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody has made it what it is.
    #[error("its network settings are somebody's own:\n    {}\n  change them by hand, or have them commented out with --force", reasons.join("\n    "))]
    Foreign {
        /// In what way, a sentence each.
        reasons: Vec<String>,
    },
    /// A form that cannot be commented out by itself.
    #[error("line {line}: ({name} …) shares its line with something else: give it a line of its own")]
    SharedLine {
        /// Counted from 1.
        line: usize,
        /// The form's name.
        name: &'static str,
    },
    /// The outcome was read again and is not what it should be.
    #[error("it cannot be changed to {to} without changing something else: do it by hand")]
    Outcome {
        /// What was wanted.
        to: Scripts,
    },
}

/// One change to the bytes of the file.
enum Edit {
    /// A line of its own comes before the byte.
    Line(usize, String),
    /// A `#` comes before the byte.
    Mark(usize),
    /// The byte, a `#`, goes.
    Unmark(usize),
}

impl Edit {
    /// In which order they are made: a new line is before the line that is there, so also before its mark.
    fn order(&self) -> (usize, u8) {
        match self {
            Self::Line(at, _) => (*at, 0),
            Self::Mark(at) => (*at, 1),
            Self::Unmark(at) => (*at, 2),
        }
    }
}

/// Changes, and what they are to a person.
#[derive(Default)]
struct Edits {
    edits: Vec<Edit>,
    sentences: Vec<String>,
}

/// A form in a comment: `#(vif-script vif-nat)`.
struct Commented {
    /// Where the `#` of its lines are.
    marks: Vec<usize>,
    /// Where its last line ends.
    end: usize,
    values: Vec<Value>,
}

impl XendConfig {
    /// The file with `to` in force. What is foreign is refused, or commented out with `force`.
    pub fn switch(&self, to: Scripts, force: bool) -> Result<Vec<u8>, Error> {
        let mut edits = self.edits(to, force)?.edits;
        edits.sort_by_key(Edit::order);
        let mut bytes = Vec::with_capacity(self.bytes.len() + 64);
        let mut done = 0;
        for edit in edits {
            let (at, _) = edit.order();
            bytes.extend_from_slice(&self.bytes[done..at]);
            done = at;
            match edit {
                Edit::Line(_, line) => bytes.extend(line.into_bytes()),
                Edit::Mark(_) => bytes.push(b'#'),
                Edit::Unmark(_) => done += 1,
            }
        }
        bytes.extend_from_slice(&self.bytes[done..]);
        // Read again as xend will read it: the settings are the wanted ones, and nothing else is any different.
        let outcome = Error::Outcome { to };
        match Self::parse(bytes) {
            Ok(new) if new.pair() == Some(to) && new.others().eq(self.others()) => Ok(new.bytes),
            _ => Err(outcome),
        }
    }

    /// What [`switch`](Self::switch) would change, a sentence each.
    pub fn plan(&self, to: Scripts, force: bool) -> Result<Vec<String>, Error> {
        self.switch(to, force)?;
        Ok(self.edits(to, force)?.sentences)
    }

    fn edits(&self, to: Scripts, force: bool) -> Result<Edits, Error> {
        match self.state() {
            State::Is(scripts) if scripts == to => return Ok(Edits::default()),
            State::Foreign(reasons) if !force => return Err(Error::Foreign { reasons }),
            _ => {}
        }
        let mut edits = Edits::default();
        for setting in Setting::ALL {
            self.edit(setting, to.of(setting), &mut edits)?;
        }
        Ok(edits)
    }

    fn edit(&self, setting: Setting, script: &str, edits: &mut Edits) -> Result<(), Error> {
        // With several forms, one may be right already.
        let right = self.active(setting).find(|(_, values)| is_just(values, script));
        let right = right.map(|(form, _)| form.span.start);
        let mut last = None;
        for (form, _) in self.active(setting) {
            if Some(form.span.start) == right {
                continue;
            }
            let line = form.line;
            if !self.is_alone(form) {
                let name = setting.name();
                return Err(Error::SharedLine { line, name });
            }
            let inside = self.bytes[form.span.clone()].iter().enumerate();
            let lines = inside
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| form.span.start + at + 1);
            let marks = std::iter::once(form.span.start).chain(lines);
            edits.edits.extend(marks.map(Edit::Mark));
            let form_text = text(&self.bytes[form.span.clone()]);
            edits.sentences.push(format!("line {line}: comment out {form_text}"));
            last = Some(form.span.end);
        }
        if right.is_some() {
            return Ok(());
        }
        let commented = self.commented(setting);
        // The last one: it is the one that an earlier change has left.
        if let Some(found) = commented.iter().rfind(|found| is_just(&found.values, script)) {
            edits.edits.extend(found.marks.iter().copied().map(Edit::Unmark));
            let line = sxp::line(&self.bytes, found.marks[0]);
            edits.sentences.push(format!(
                "line {line}: take the # away from ({} {script})",
                setting.name()
            ));
            return Ok(());
        }
        let form = format!("({} {script})", setting.name());
        let after = last.or(commented.last().map(|found| found.end));
        let place = after.map_or(self.document.end, |at| sxp::end_of_line(&self.bytes, at));
        edits.sentences.push(match after {
            Some(at) => format!("after line {}: add {form}", sxp::line(&self.bytes, at)),
            None => format!("at the end: add {form}"),
        });
        edits.edits.push(self.new_line(place, &form));
        Ok(())
    }

    /// `form` on a line of its own, after the line that ends at `end`, or at the end of what xend reads.
    fn new_line(&self, end: usize, form: &str) -> Edit {
        let bytes = &self.bytes;
        let eol = |end: usize| match bytes[..end].last() {
            Some(b'\r') => "\r\n",
            _ => "\n",
        };
        if bytes.get(end) == Some(&b'\n') {
            return Edit::Line(end + 1, format!("{form}{}", eol(end)));
        }
        // As the rest of the file has it.
        let eol = eol(sxp::end_of_line(bytes, 0));
        let begins = matches!(bytes[..end].last(), None | Some(b'\n'));
        let before = if begins { "" } else { eol };
        // A last line without an end stays one; but a ctrl-D is not to come onto this line.
        let after = if begins || end < bytes.len() { eol } else { "" };
        Edit::Line(end, format!("{before}{form}{after}"))
    }

    /// The forms of `setting` that are in comments. A `#` with a space after it begins prose, even if it is an example.
    fn commented(&self, setting: Setting) -> Vec<Commented> {
        let comments = &self.document.comments;
        let begins_line = |at: usize| {
            let before = self.bytes[..at].iter().rev().take_while(|byte| **byte != b'\n');
            before.copied().all(sxp::is_space)
        };
        let mut found = Vec::new();
        for (index, first) in comments.iter().enumerate() {
            let text = &self.bytes[first.start + 1..first.end];
            if !text.starts_with(b"(") || !begins_line(first.start) {
                continue;
            }
            let mut text = text.to_vec();
            let mut marks = vec![first.start];
            let mut end = first.end;
            let mut following = comments[index + 1..].iter().take(MAX_LINES - 1);
            let document = loop {
                if let Ok(document) = sxp::parse(&text) {
                    break document;
                }
                // Perhaps it goes on, in a comment on the very next line.
                match following.next() {
                    Some(next) if next.start == end + 1 => {
                        text.push(b'\n');
                        text.extend_from_slice(&self.bytes[next.start + 1..next.end]);
                        marks.push(next.start);
                        end = next.end;
                    }
                    _ => break sxp::Document::default(),
                }
            };
            let [Form { span, value, .. }] = &document.forms[..] else {
                continue;
            };
            if let Some(values) = value.after(setting.name())
                && span.start == 0
                && document.end == text.len()
            {
                let values = values.to_vec();
                found.push(Commented { marks, end, values });
            }
        }
        found
    }

    /// Everything that xend sees besides the settings in question.
    fn others(&self) -> impl Iterator<Item = &Value> {
        let ours = |form: &&Form| {
            Setting::ALL
                .iter()
                .any(|setting| form.value.after(setting.name()).is_some())
        };
        self.document
            .forms
            .iter()
            .filter(move |form| !ours(form))
            .map(|form| &form.value)
    }
}
