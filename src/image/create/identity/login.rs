// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who can log in: root's password, and whether anybody has one (shadow(5)).

use super::Identity;
use crate::image::create::edits::{Edit, Edits};

const SHADOW: &str = "etc/shadow";

impl Identity<'_> {
    pub(super) fn root_password(&self, edits: &mut Edits) {
        if let Some(hash) = self.password {
            let old = self.found.text(SHADOW).unwrap_or_default();
            let (content, permissions) = (with_root(&old, hash).into_bytes(), 0o600);
            edits.add(SHADOW, Edit::File { content, permissions });
        }
    }

    /// Whether nobody can log in with a password, as far as the source tells.
    pub(in crate::image::create) fn nobody_logs_in(&self) -> bool {
        let shadow = self.found.text(SHADOW);
        // One that cannot be read does not come along.
        let is_locked = shadow.is_none_or(|text| text.lines().all(is_locked));
        self.password.is_none() && self.found.has(SHADOW) && is_locked
    }
}

/// Whether no password is right for the account of this line.
fn is_locked(line: &str) -> bool {
    line.split(':').nth(1).is_none_or(|hash| hash.starts_with(['!', '*']))
}

/// The text with another password for root, who may be new there.
fn with_root(text: &str, hash: &str) -> String {
    let mut is_there = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        lines.push(match line.strip_prefix("root:") {
            Some(rest) => {
                is_there = true;
                let after = rest.split_once(':').map_or("19000:0:99999:7:::", |(_, after)| after);
                format!("root:{hash}:{after}\n")
            }
            None => format!("{line}\n"),
        });
    }
    if !is_there {
        lines.insert(0, format!("root:{hash}:19000:0:99999:7:::\n"));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_password_alone() {
        let text = "daemon:*:1:0:99999:7:::\nroot:!:2:0:99999:7:::\nrooter:x:3\n";
        assert_eq!(
            with_root(text, "$6$"),
            "daemon:*:1:0:99999:7:::\nroot:$6$:2:0:99999:7:::\nrooter:x:3\n"
        );
        assert_eq!(with_root("", "$6$"), "root:$6$:19000:0:99999:7:::\n");
    }

    #[test]
    fn who_is_locked() {
        for line in ["root:*:1:0:99999:7:::", "root:!$6$x:1", "", "root"] {
            assert!(is_locked(line), "{line}");
        }
        for line in ["root::1:0", "root:$6$x$y:1"] {
            assert!(!is_locked(line), "{line}");
        }
    }
}
