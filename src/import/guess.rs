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
/// What xl knows, and the xm of TT Xen passes over.
const XL_ONLY: [&str; 7] = [
    "bootloader_args",
    "cmdline",
    "firmware",
    "maxvcpus",
    "on_soft_reset",
    "on_watchdog",
    "type",
];

/// Why it can not be told, or be read.
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
    if let Some(mistake) = mistake
        && !is_for_xm(&document)
    {
        if let Some(setting) = document.settings.iter().find(|setting| is_of_xl(setting)) {
            let (key, line) = (setting.key.clone(), setting.line);
            return Err(Doubt::ForXl { mistake, key, line });
        }
        let why = format!("taken for a file of xm, and not of xl: {}", mistake.why);
        document.notes.push(Note::at(mistake.place, why));
    }
    Ok((Dialect::Xm, document))
}

/// Whether a file is meant for xm: xl would refuse a disk of it, or its builder, or it names what only xm knows, and nothing
/// that only xl does.
fn is_for_xm(document: &Document) -> bool {
    let refused = document.settings.iter().any(|setting| match &setting.value {
        Value::Text(builder) if setting.key == "builder" => builder == "linux",
        _ => has_disk(setting, Dialect::Xm, Dialect::Xl),
    });
    let known = |keys: &[&str]| {
        let mut settings = document.settings.iter();
        settings.any(|setting| keys.contains(&setting.key.as_str()))
    };
    document.is_for_tt_xen() || refused || known(&XM_ONLY) && !document.settings.iter().any(is_of_xl)
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
