// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `GRUB_*` variables that grub-mkconfig gives to the scripts in /etc/grub.d: the settings in
//! /etc/default/grub and what it found out about the root and boot file systems.

use std::collections::BTreeMap;

/// The variables whose names begin with `GRUB_`.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's own.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect()
    }

    /// The value of `name`; empty if it is not set, as in the shell.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The value of `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether `name` is `true`, which is how most switches in /etc/default/grub are turned on.
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// The lines of `name`: a file system on several devices has one line for each.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.text(name)
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .filter(|(name, _)| name.starts_with("GRUB_"))
                .collect(),
        )
    }
}
