// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file says: settings, each with its line, and what could not be read of it.

use std::collections::BTreeMap;

use super::Dialect;
use super::output::one_line;
use super::text::Place;

/// A value of either language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number. (Of xl's, which are kept as text, those that are written as plain decimal numbers.)
    Number(i64),
    /// Python's True and False.
    Flag(bool),
    /// A number with a fraction, as it is written.
    Fraction(String),
    /// Python's None.
    Nothing,
    /// A list.
    List(Vec<Value>),
    /// Python's tuple, which no toolstack takes.
    Tuple(Vec<Value>),
}

impl Value {
    /// How much memory it takes, roughly: bytes of text, and 16 for each value.
    pub(super) fn weight(&self) -> usize {
        16 + match self {
            Self::Text(text) | Self::Fraction(text) => text.len(),
            Self::List(items) | Self::Tuple(items) => items.iter().map(Self::weight).sum(),
            Self::Number(_) | Self::Flag(_) | Self::Nothing => 0,
        }
    }

    /// What it is, as messages call it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Flag(_) => "True or False",
            Self::Fraction(_) => "a number with a fraction",
            Self::Nothing => "None",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
        }
    }

    /// The number it is, or that its text is to this dialect's program: both take numbers in quotes.
    pub(super) fn number(&self, dialect: Dialect) -> Option<i64> {
        match (self, dialect) {
            (Self::Number(number), _) => Some(*number),
            (Self::Text(text), Dialect::Xm) => decimal(text),
            (Self::Text(text), Dialect::Xl) => strtol(text),
            _ => None,
        }
    }
}

/// As Python's int() reads it: decimal, whatever it begins with.
fn decimal(text: &str) -> Option<i64> {
    text.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']).parse().ok()
}

/// As C's strtol() reads it, with nothing behind it: decimal, 0x… or, from 0 on, octal.
pub(super) fn strtol(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

/// `key = value`, as it stands at the end of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The line that sets it last.
    pub line: usize,
    /// Whether that was with xl's `+=`, after which it counts as no number.
    pub added: bool,
    /// Whether other lines make use of it.
    pub used: bool,
}

/// How many characters a note has at the most.
const LENGTH: usize = 400;

/// A line that could not be carried over, or not as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Note {
    /// The line, from 1.
    pub line: usize,
    /// The column where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What it sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why, and what can be done.
    pub why: String,
}

impl Note {
    pub(super) fn at(place: Place, why: String) -> Self {
        Self {
            line: place.line,
            column: Some(place.column),
            key: None,
            why,
        }
    }

    pub(super) fn of(line: usize, key: &str, why: impl Into<String>) -> Self {
        Self {
            line,
            column: None,
            key: Some(key.to_owned()),
            why: why.into(),
        }
    }
}

impl Note {
    /// Cuts off what nobody would read: it may quote a line of any length.
    pub(super) fn shorten(&mut self) {
        for text in self.key.iter_mut().chain([&mut self.why]) {
            if let Some((at, _)) = text.char_indices().nth(LENGTH) {
                text.truncate(at);
                text.push('…');
            }
        }
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}:")?;
        }
        // What it quotes may have anything in it, and a terminal does what it is told.
        write!(f, " {}", one_line(&self.why))
    }
}

/// A file as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Its settings, in the order of their lines.
    pub settings: Vec<Setting>,
    /// What is set, or may be, by a line that cannot be followed: the names, and that line.
    pub unknown: BTreeMap<String, usize>,
    /// What could not be read.
    pub notes: Vec<Note>,
}

impl Document {
    /// Whether it names what only TT Xen's xm knows, whatever the value.
    pub(super) fn is_for_tt_xen(&self) -> bool {
        let key = "time_travel";
        self.unknown.contains_key(key) || self.settings.iter().any(|setting| setting.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::{decimal, strtol};

    #[test]
    fn numbers_in_quotes() {
        for (text, expected) in [
            ("256", 256),
            (" 0x10", 16),
            ("010", 8),
            ("-5", -5),
            ("+7", 7),
            ("0", 0),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(strtol(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "0x",
            "0128",
            "12a",
            "1 ",
            "--1",
            "+-1",
            "9223372036854775808",
            "0x+1",
        ] {
            assert_eq!(strtol(text), None, "{text}");
        }
        for (text, expected) in [("0256", 256), (" +7 ", 7), ("-010\n", -10), ("0", 0)] {
            assert_eq!(decimal(text), Some(expected), "{text}");
        }
        for text in ["", "0x10", "1.5", "5L", "1_000", "1 2", "9223372036854775808"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
