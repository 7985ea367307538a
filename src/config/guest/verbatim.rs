// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[xl]` and `[xm]`: further keys of what a toolstack reads, passed on as they stand.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::XlValue;
use crate::config::reader::Table;

/// What one toolstack takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    table: &'static str,
    file: &'static str,
    /// With what a key begins.
    first: fn(char) -> bool,
    /// Of what it is.
    rest: fn(char) -> bool,
    /// That, in words.
    letters: &'static str,
    /// Keys that ttvm writes itself: they may not be changed behind its back.
    own: &'static [&'static str],
    /// Options of the program that its file can set as well.
    options: &'static [&'static str],
    /// Words of the language, which cannot be keys.
    words: &'static [&'static str],
    /// The largest number, and how messages call the range.
    numbers: (u64, &'static str),
}

/// xl.cfg(5). The identifier is that of xl's own grammar.
pub(crate) const XL: Dialect = Dialect {
    table: "xl",
    file: "xl.cfg",
    first: |c| c.is_ascii_lowercase(),
    rest: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c),
    letters: "lower-case letters, digits, \"_\" and \".\"",
    own: &[
        "name",
        "uuid",
        "type",
        "builder",
        "memory",
        "vcpus",
        "kernel",
        "ramdisk",
        "cmdline",
        "root",
        "extra",
        "bootloader",
        "bootloader_args",
        "disk",
        "vif",
        "on_poweroff",
        "on_reboot",
        "on_crash",
        "on_watchdog",
        "on_soft_reset",
    ],
    options: &[],
    words: &[],
    numbers: (u64::MAX, "from 0"),
};

/// The Python file of xm. It takes the variables that are strings, lists, ints and floats, and drops all others in silence: on
/// 32 bits, where TT Xen is at home, a larger number is a `long`.
pub(crate) const XM: Dialect = Dialect {
    table: "xm",
    file: "xm's file",
    first: |c| c == '_' || c.is_ascii_alphabetic(),
    rest: |c| c == '_' || c.is_ascii_alphanumeric(),
    letters: "letters, digits and \"_\"",
    own: &[
        "name",
        "uuid",
        "builder",
        "memory",
        "vcpus",
        "kernel",
        "ramdisk",
        "root",
        "extra",
        "bootloader",
        "bootargs",
        "bootentry",
        "disk",
        "vif",
        "restart",
        "on_poweroff",
        "on_reboot",
        "on_crash",
        "time_travel",
        "features",
        "shadow_memory",
    ],
    options: &[
        "help",
        "help_config",
        "path",
        "config",
        "defconfig",
        "dryrun",
        "xmldryrun",
        "paused",
        "quiet",
        "skipdtd",
        "console_autoconnect",
    ],
    // Of Python 2, whose `None` cannot be assigned to; True and False can, and must not be.
    words: &[
        "and", "as", "assert", "break", "class", "continue", "def", "del", "elif", "else", "except", "exec", "finally",
        "for", "from", "global", "if", "import", "in", "is", "lambda", "not", "or", "pass", "print", "raise", "return",
        "try", "while", "with", "yield", "None", "True", "False",
    ],
    numbers: (i32::MAX as u64, "from 0 to 2147483647"),
};

impl Dialect {
    /// The keys of `table`. Mistakes are noted in it.
    pub(in crate::config) fn read(&self, table: &Table<'_>) -> BTreeMap<String, XlValue> {
        let mut keys = BTreeMap::new();
        for (key, value) in table.entries() {
            let name = key.value.as_str();
            match (self.refuses_key(name), self.value(value.get_ref())) {
                (Some(why), _) => table.problem(&key.span, why),
                (None, Some(value)) => drop(keys.insert(key.value, value)),
                (None, None) => table.problem(&value.span(), format!("{name}: {}", self.takes())),
            }
        }
        keys
    }

    /// Why `key` cannot be here with this value, which has no control characters; `None` if it can.
    pub(crate) fn refuses(&self, key: &str, value: &XlValue) -> Option<String> {
        let too_large = matches!(value, XlValue::Number(number) if *number > self.numbers.0);
        self.refuses_key(key).or_else(|| too_large.then(|| self.takes()))
    }

    fn takes(&self) -> String {
        format!(
            "{} takes a string, a number {}, true or false, or a list of strings, without control characters",
            self.file, self.numbers.1
        )
    }

    fn refuses_key(&self, name: &str) -> Option<String> {
        let Self { table: own, file, .. } = self;
        if !self.is_key(name) {
            Some(format!("{name:?} is not a key of {file}: {}", self.letters))
        } else if self.words.contains(&name) {
            Some(format!("{name:?} is a word of Python, not a key of {file}"))
        } else if self.own.contains(&name) {
            Some(format!(
                "ttvm writes \"{name}\" itself: set it outside of [{own}] (see ttvm-guest(5))"
            ))
        } else if self.options.contains(&name) {
            Some(format!(
                "\"{name}\" is an option of {own}, and ttvm decides about those itself"
            ))
        } else {
            None
        }
    }

    fn is_key(&self, name: &str) -> bool {
        name.starts_with(self.first) && name.chars().all(self.rest)
    }

    fn value(&self, value: &DeValue<'_>) -> Option<XlValue> {
        let text = |value: &DeValue<'_>| {
            let text = value.as_str()?;
            (!text.chars().any(char::is_control)).then(|| text.to_owned())
        };
        match value {
            DeValue::Boolean(flag) => Some(XlValue::Number(u64::from(*flag))),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|number| *number <= self.numbers.0)
                .map(XlValue::Number),
            DeValue::Array(list) => list
                .iter()
                .map(|item| text(item.get_ref()))
                .collect::<Option<_>>()
                .map(XlValue::List),
            other => text(other).map(XlValue::Text),
        }
    }
}
