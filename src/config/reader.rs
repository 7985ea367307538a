// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading TOML with places: every value knows its line and column, every mistake in a file is collected
//! (not only the first), and an unknown key is answered with the closest valid one.
//!
//! serde could fill structs for us, but it stops at the first error and its messages speak of Rust types.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::text::line;

/// Mistakes that are told of one file. Nobody reads more, and to find the place of each in a file of nothing else would take
/// minutes.
const MOST: usize = 1000;

/// One mistake in one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file, as it was opened.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// A sentence: what is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The file may be anybody's, and what it says of itself is quoted: a mistake is one line.
        write!(
            f,
            "{}:{}:{}: {}",
            line(&self.path.to_string_lossy()),
            self.line,
            self.column,
            line(&self.message)
        )
    }
}

/// A value and the bytes of the file it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte range in the file's text.
    pub span: Range<usize>,
}

/// One file while it is being read: its text and the mistakes found so far.
pub struct Source {
    path: PathBuf,
    text: String,
    problems: RefCell<Vec<Diagnostic>>,
}

impl Source {
    /// A source whose mistakes are reported as being in `path`.
    pub fn new(path: &Path, text: String) -> Self {
        Self {
            path: path.to_owned(),
            text,
            problems: RefCell::default(),
        }
    }

    /// Parses the text and lets `read` take it apart. `Err` holds every mistake, in the order of the file.
    pub fn read<T>(self, read: impl FnOnce(&Source, &Table<'_>) -> Option<T>) -> Result<T, Vec<Diagnostic>> {
        let parsed = DeTable::parse(&self.text);
        let value = match &parsed {
            Ok(document) => {
                let table = Table::new(&self, "the file".into(), document.get_ref(), 0..0);
                let value = read(&self, &table);
                table.finish();
                value
            }
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let message = match error.message().trim_end() {
                    "duplicate key" => {
                        let key = self.text.get(span.clone()).unwrap_or_default();
                        format!("{key} stands above already, in the same table: keep one of the two")
                    }
                    other => other.to_owned(),
                };
                self.problem(&span, message);
                None
            }
        };
        drop(parsed);
        let mut problems = self.problems.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                problems.sort();
                problems.dedup();
                Err(problems)
            }
        }
    }

    /// Whether nothing more is noted.
    fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MOST
    }

    /// Notes a mistake at `span`, unless there are too many.
    pub fn problem(&self, span: &Range<usize>, message: String) {
        if self.is_full() {
            return;
        }
        let before = &self.text[..span.start.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        self.problems.borrow_mut().push(Diagnostic {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        });
    }
}

/// A type that a single TOML value can become.
pub trait FromToml: Sized {
    /// What belongs here, as it reads after "expected ": `a size such as "96M"`.
    const EXPECTED: &'static str;
    /// The value, or a sentence on why not (empty: "expected …, found …" says it all).
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
}

impl FromToml for String {
    const EXPECTED: &'static str = "a string";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(String::new)
    }
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(String::new)
    }
}

impl FromToml for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let integer = value.as_integer().ok_or_else(String::new)?;
        Self::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| "this number does not fit into 64 bits".to_owned())
    }
}

impl FromToml for PathBuf {
    const EXPECTED: &'static str = "an absolute path";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        if !text.starts_with('/') {
            return Err(format!("\"{text}\" is not an absolute path"));
        }
        if text.chars().any(char::is_control) {
            return Err("a path with control characters cannot be used".to_owned());
        }
        Ok(Self::from(text))
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    const EXPECTED: &'static str = "a list";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(String::new)?;
        list.iter().map(|item| convert(item.get_ref())).collect()
    }
}

/// Makes a type that reads itself from a string (`FromStr`) readable from TOML.
macro_rules! from_toml_str {
    ($type:ty, $expected:literal) => {
        impl $crate::config::reader::FromToml for $type {
            const EXPECTED: &'static str = $expected;
            fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
                value
                    .as_str()
                    .ok_or_else(String::new)?
                    .parse::<$type>()
                    .map_err(|error| error.to_string())
            }
        }
    };
}
pub(crate) use from_toml_str;

fn convert<T: FromToml>(value: &DeValue<'_>) -> Result<T, String> {
    T::from_toml(value).map_err(|why| {
        if why.is_empty() {
            format!("expected {}, found {}", T::EXPECTED, kind(value))
        } else {
            why
        }
    })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A table being read. Each key that is asked for is remembered; what was never asked for is unknown.
pub struct Table<'a> {
    source: &'a Source,
    /// How messages call this table: `[[disk]]`, `the file`.
    title: String,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    fn new(source: &'a Source, title: String, entries: &'a DeTable<'a>, span: Range<usize>) -> Self {
        Self {
            source,
            title,
            entries,
            span,
            known: RefCell::default(),
        }
    }

    /// Where the table stands in the file.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Notes a mistake at `span` of this table's file.
    pub fn problem(&self, span: &Range<usize>, message: impl Into<String>) {
        self.source.problem(span, message.into());
    }

    fn raw(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().push(key);
        self.entries.get(key)
    }

    /// The value of `key`, if it is there and right; a wrong one is noted.
    pub fn get<T: FromToml>(&self, key: &'static str) -> Option<Located<T>> {
        let raw = self.raw(key)?;
        match convert(raw.get_ref()) {
            Ok(value) => Some(Located {
                value,
                span: raw.span(),
            }),
            Err(message) => {
                self.problem(&raw.span(), format!("{key}: {message}"));
                None
            }
        }
    }

    /// Whether `key` is there at all, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Where the value of `key` stands; the table, if it has none.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        let value = self.entries.get(key);
        value.map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// As [`get`](Self::get), without the place.
    pub fn value<T: FromToml>(&self, key: &'static str) -> Option<T> {
        self.get(key).map(|located| located.value)
    }

    /// As [`get`](Self::get); a missing key is a mistake, noted at the table's beginning.
    pub fn require<T: FromToml>(&self, key: &'static str) -> Option<Located<T>> {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.problem(&self.span, format!("{} lacks \"{key}\": {}", self.title, T::EXPECTED));
            return None;
        }
        self.get(key)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<i64>) -> Option<Located<i64>> {
        let number = self.get::<i64>(key)?;
        if range.contains(&number.value) {
            return Some(number);
        }
        self.problem(
            &number.span,
            format!(
                "{key}: {} is out of range (from {} to {})",
                number.value,
                range.start(),
                range.end()
            ),
        );
        None
    }

    /// The sub-table `key`.
    pub fn table(&self, key: &'static str) -> Option<Table<'a>> {
        let raw = self.raw(key)?;
        match raw.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.source, format!("[{key}]"), entries, raw.span())),
            other => {
                self.problem(&raw.span(), format!("{key}: expected a table, found {}", kind(other)));
                None
            }
        }
    }

    /// The array of tables `[[key]]`; empty if it is not there.
    pub fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let Some(raw) = self.raw(key) else {
            return Vec::new();
        };
        let Some(list) = raw.get_ref().as_array() else {
            self.problem(
                &raw.span(),
                format!("{key}: expected [[{key}]] tables, found {}", kind(raw.get_ref())),
            );
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in list.iter() {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table::new(self.source, format!("[[{key}]]"), entries, item.span()))
                }
                other => self.problem(&item.span(), format!("{key}: expected a table, found {}", kind(other))),
            }
        }
        tables
    }

    /// Every entry, for tables whose keys are the user's own.
    pub fn entries(&self) -> impl Iterator<Item = (Located<String>, &'a Spanned<DeValue<'a>>)> {
        self.entries.iter().map(|(key, value)| {
            (
                Located {
                    value: key.get_ref().to_string(),
                    span: key.span(),
                },
                value,
            )
        })
    }

    /// To be called when all keys have been asked for: notes each key that nobody asked for.
    pub fn finish(&self) {
        let known = self.known.borrow();
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if self.source.is_full() {
                return;
            }
            if known.contains(&name) {
                continue;
            }
            let length = name.chars().count();
            let closest = known
                .iter()
                .map(|candidate| (candidate, candidate.len().max(3) / 2))
                // What is longer or shorter by so much is no closer.
                .filter(|(candidate, most)| candidate.len().abs_diff(length) <= *most)
                .map(|(candidate, most)| (strsim::damerau_levenshtein(candidate, name), candidate, most))
                .filter(|(distance, _, most)| distance <= most)
                .min();
            let advice = match closest {
                Some((_, candidate, _)) => format!("did you mean \"{candidate}\"?"),
                None => format!("valid here: {}", known.join(", ")),
            };
            self.problem(&key.span(), format!("{} has no key \"{name}\"; {advice}", self.title));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these would take minutes if every mistake were told.
    #[test]
    fn nothing_but_mistakes() {
        let keys: String = (0..50_000).map(|number| format!("key{number} = 1\n")).collect();
        let long = format!("{} = 1\n", "k".repeat(1_000_000));
        for (text, count) in [(keys, MOST), (long, 1)] {
            let source = Source::new(Path::new("t"), text);
            let read = source.read(|_, table| Some(table.value::<i64>("number")));
            let problems = read.expect_err("mistakes");
            assert_eq!((problems.len(), problems[0].line), (count, 1));
        }
        let source = Source::new(Path::new("t"), "numbre = 1\n".to_owned());
        let problems = source
            .read(|_, table| Some(table.value::<i64>("number")))
            .expect_err("one");
        assert!(
            problems[0].message.ends_with("did you mean \"number\"?"),
            "{problems:?}"
        );
    }
}
