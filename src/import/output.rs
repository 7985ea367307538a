// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's file as it is written: TOML with remarks, keys in columns.

use crate::base::text::{is_plain, line};
use crate::config::guest::XlValue;

/// `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// As TOML has it.
    value: String,
    /// Where it comes from.
    remark: Option<String>,
    /// A proposal: it stands there as a remark.
    off: bool,
}

impl Entry {
    /// A value that is TOML already.
    pub(super) fn raw(key: &str, value: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.into(),
            remark: None,
            off: false,
        }
    }

    pub(super) fn text(key: &str, text: &str) -> Self {
        Self::raw(key, quote(text))
    }

    pub(super) fn value(key: &str, value: &XlValue) -> Self {
        match value {
            XlValue::Text(text) => Self::text(key, text),
            XlValue::Number(number) => Self::raw(key, number.to_string()),
            XlValue::List(items) => Self::list(key, items),
        }
    }

    pub(super) fn list(key: &str, items: &[String]) -> Self {
        let items: Vec<String> = items.iter().map(|item| quote(item)).collect();
        Self::raw(key, format!("[{}]", items.join(", ")))
    }

    #[must_use]
    pub(super) fn on_line(self, line: usize) -> Self {
        self.remark(format!("line {line}"))
    }

    /// Put together from several lines.
    #[must_use]
    pub(super) fn on_lines(self, mut lines: Vec<usize>) -> Self {
        lines.sort_unstable();
        lines.dedup();
        match lines[..] {
            [line] => self.on_line(line),
            _ => {
                let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
                self.remark(format!("lines {}", lines.join(", ")))
            }
        }
    }

    #[must_use]
    pub(super) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    #[must_use]
    pub(super) fn off(mut self) -> Self {
        self.off = true;
        self
    }
}

/// A table with its title, or what stands above all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) title: Option<&'static str>,
    pub(super) remarks: Vec<String>,
    pub(super) entries: Vec<Entry>,
}

/// A string as TOML has it; control characters have been sorted out before. What a person would not see, or see in another
/// order, is written as TOML's own escapes.
pub(super) fn quote(text: &str) -> String {
    match text {
        _ if !text.chars().all(is_plain) => {
            let mut quoted = String::from("\"");
            for c in text.chars() {
                match c {
                    '"' | '\\' => quoted.extend(['\\', c]),
                    c if is_plain(c) => quoted.push(c),
                    c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
                }
            }
            quoted + "\""
        }
        _ if !text.contains(['"', '\\']) => format!("\"{text}\""),
        _ if !text.contains('\'') => format!("'{text}'"),
        _ => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// What can stand in a remark: one line of it.
pub(super) fn one_line(text: &str) -> String {
    line(text).into_owned()
}

/// The whole file.
pub(super) fn render(sections: &[Section]) -> String {
    sections.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn section(section: &Section) -> String {
    let mut text = String::new();
    for remark in &section.remarks {
        text.push_str(format!("# {}", one_line(remark)).trim_end());
        text.push('\n');
    }
    if let Some(title) = section.title {
        text.push_str(title);
        text.push('\n');
    }
    // As wide as the longest key, and the longest value that has a remark behind it.
    let keys = section.entries.iter().map(|entry| entry.key.len()).max().unwrap_or(0);
    let remarked = section.entries.iter().filter(|entry| entry.remark.is_some());
    let width = |entry: &Entry| entry.value.chars().count();
    let values = remarked.map(width).filter(|width| *width <= 60).max().unwrap_or(0);
    for entry in &section.entries {
        let off = if entry.off { "# " } else { "" };
        let Entry { key, value, remark, .. } = entry;
        text.push_str(&match remark {
            Some(remark) => format!("{off}{key:keys$} = {value:values$}  # {}\n", one_line(remark)),
            None => format!("{off}{key:keys$} = {value}\n"),
        });
    }
    text
}
