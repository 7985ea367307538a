// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings in xm's notation inside of strings: screens (`vfb`) and TPMs, as xl writes them (xl_parse.c, which passes over in
//! silence what it does not know there).

use super::Translator;
use super::further::yes_or_no;

/// What xl reads of a screen: text, and numbers.
const TEXTS: [&str; 5] = ["vnclisten", "vncpasswd", "keymap", "display", "xauthority"];
const NUMBERS: [&str; 5] = ["vnc", "vncdisplay", "vncunused", "sdl", "opengl"];

impl Translator<'_> {
    /// A screen of xm's for xl.
    pub(super) fn screen(&mut self, line: usize, spec: &str) -> String {
        let mut fields = Vec::new();
        for (key, value) in settings(spec) {
            let number = yes_or_no(value).or_else(|| value.parse::<u64>().ok());
            match (key, number) {
                ("type", _) if value == "sdl" => fields.extend(["sdl=1".to_owned(), "vnc=0".to_owned()]),
                ("type", _) if value == "vnc" => fields.push("vnc=1".to_owned()),
                (key, Some(number)) if NUMBERS.contains(&key) => fields.push(format!("{key}={number}")),
                (key, _) if TEXTS.contains(&key) => fields.push(format!("{key}={value}")),
                _ => self.passed_over(line, "vfb", key, value),
            }
        }
        fields.join(",")
    }

    /// A TPM of xm's for xl, which knows no instances.
    pub(super) fn tpm(&mut self, line: usize, spec: &str) -> String {
        let mut fields = Vec::new();
        for (key, value) in settings(spec) {
            match key {
                "backend" | "uuid" => fields.push(format!("{key}={value}")),
                _ => self.passed_over(line, "vtpm", key, value),
            }
        }
        fields.join(",")
    }

    fn passed_over(&mut self, line: usize, what: &str, key: &str, value: &str) {
        let why = match value {
            "" => format!("{key:?} has no counterpart"),
            _ => format!("{key}={value} has no counterpart"),
        };
        self.note(line, what, why);
    }
}

/// As xm splits them, blanks apart.
fn settings(spec: &str) -> impl Iterator<Item = (&str, &str)> {
    let fields = spec.split(',').map(str::trim).filter(|field| !field.is_empty());
    fields.map(|field| {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        (key.trim(), value.trim())
    })
}
