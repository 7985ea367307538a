// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose file it is, if nobody says. Most of what xl reads is Python as well, and much of what xm reads xl takes; so it counts
//! what only one of them knows.

use super::error::Mistake;
use super::value::{Document, Note, Setting, Value};
use super::{Dialect, parse, parse_disk};

/// What xm knows and xl passes over.
const XM_ONLY: [&str; 16] = [
    "bootargs",
    "bootentry",
    "cpu_cap",
    "dhcp",
    "gateway",
    "hostname",
    "interface",
    "ip",
    "netmask",
    "nfs_root",
    "nfs_server",
    "nics",
    "on_xend_start",
    "on_xend_stop",
    "restart",
    "vcpu_avail",
];
/// What xl knows, and no xm.
const XL_ONLY: [&str; 6] = [
    "bootloader_args",
    "cmdline",
    "firmware",
    "on_soft_reset",
    "on_watchdog",
    "type",
];
/// How much a thing counts that says whose file it is: what one program takes and the other refuses or passes over, a place
/// that is Python and nothing that xl reads, and a key of xm, which may be left from an earlier life of the file.
const DECIDES: usize = 4;
const PYTHON: usize = 2;
const HINTS: usize = 1;

/// Why it cannot be told, or be read.
#[derive(Debug)]
pub(super) enum Doubt {
    /// Neither of the two would read it.
    Neither(Mistake),
    /// xl would not read it, and a setting of it means nothing to xm.
    ForXl {
        /// What xl would say.
        mistake: Mistake,
        /// The setting that is for xl.
        key: String,
        /// Its line.
        line: usize,
    },
}

/// Reads `bytes` in the language they are written in.
pub(super) fn guess(bytes: &[u8]) -> Result<(Dialect, Document), Doubt> {
    let mistake = match parse(bytes, Dialect::Xl) {
        Ok(document) if !is_for_xm(&document) => return Ok((Dialect::Xl, document)),
        Ok(_) => None,
        Err(mistake) => Some(mistake),
    };
    // Whatever xl takes and more is Python, but for a few words; of two mistakes the one in the larger language counts.
    let mut document = parse(bytes, Dialect::Xm).map_err(Doubt::Neither)?;
    if let Some(mistake) = mistake {
        let (xm, xl) = (for_xm(&document) + PYTHON * python(&document), for_xl(&document));
        if xl > 0
            && xm <= xl
            && let Some(setting) = document.settings.iter().find(|setting| is_of_xl(setting))
        {
            let (key, line) = (setting.key.clone(), setting.line);
            return Err(Doubt::ForXl { mistake, key, line });
        }
        if !is_for_xm(&document) {
            let why = format!("taken for a file of xm, and not of xl: {}", mistake.why);
            document.notes.push(Note::at(mistake.place, why));
        }
    }
    Ok((Dialect::Xm, document))
}

/// Whether a file that xl can read is meant for xm.
fn is_for_xm(document: &Document) -> bool {
    for_xm(document) > for_xl(document)
}

/// How much speaks for xm: time travel, what xl would refuse, and keys that only xm knows.
fn for_xm(document: &Document) -> usize {
    let weight = |setting: &Setting| match &setting.value {
        Value::Text(builder) if setting.key == "builder" && builder == "linux" => DECIDES,
        _ if has_disk(setting, Dialect::Xm, Dialect::Xl) => DECIDES + HINTS,
        _ if XM_ONLY.contains(&setting.key.as_str()) => HINTS,
        _ => 0,
    };
    match document.is_for_tt_xen() {
        true => usize::MAX / PYTHON,
        false => document.settings.iter().map(weight).sum(),
    }
}

/// How much speaks for xl.
fn for_xl(document: &Document) -> usize {
    DECIDES * document.settings.iter().filter(|setting| is_of_xl(setting)).count()
}

/// At how many places of a file, as xm reads it, there is what xl never could: names with capitals, Python's words and
/// kinds of values, and what needs Python to run.
fn python(document: &Document) -> usize {
    let is_python = |setting: &&Setting| {
        let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        let value = match &setting.value {
            Value::Flag(_) | Value::Nothing | Value::Tuple(_) | Value::Fraction(_) => true,
            Value::Number(number) => *number < 0,
            _ => false,
        };
        value || !setting.key.starts_with(|c: char| c.is_ascii_lowercase()) || !setting.key.chars().all(small)
    };
    document.settings.iter().filter(is_python).count() + document.notes.len()
}

fn is_of_xl(setting: &Setting) -> bool {
    XL_ONLY.contains(&setting.key.as_str()) || has_disk(setting, Dialect::Xl, Dialect::Xm)
}

/// Whether it has a disk that `this` program takes and the `other` does not.
fn has_disk(setting: &Setting, this: Dialect, other: Dialect) -> bool {
    let of_this = |item: &Value| match item {
        Value::Text(spec) => parse_disk(spec, this).is_ok() && parse_disk(spec, other).is_err(),
        _ => false,
    };
    matches!(&setting.value, Value::List(items) if setting.key == "disk" && items.iter().any(of_this))
}
