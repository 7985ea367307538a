// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest is known by.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, deserialize_from_text, display_as_str, invalid, serialize_as_text};
use crate::config::reader::from_toml_str;

/// A guest's name: 1 to 63 of `A-Z a-z 0-9 _ . -`, beginning with a letter or digit. It is the file's name,
/// the unit's instance, the domain's name, and part of LVM tags and volume names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestName(String);

impl GuestName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuestName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !begins || text.len() > 63 || !text.chars().all(allowed) || text.contains("..") {
            return invalid(format!(
                "{text:?} is not a guest name: 1 to 63 letters, digits, \"_\", \".\" or \"-\", beginning with a letter or digit, without \"..\""
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A universally unique identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestUuid(pub uuid::Uuid);

impl FromStr for GuestUuid {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse::<uuid::Uuid>() {
            Ok(uuid) if uuid.is_nil() => invalid(format!("{text:?} is the nil UUID, which stands for none")),
            Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
            _ => invalid(format!(
                "{text:?} is not a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12"
            )),
        }
    }
}

impl fmt::Display for GuestUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

display_as_str!(GuestName);
serialize_as_text!(GuestName, GuestUuid);
deserialize_from_text!(GuestName, GuestUuid);
from_toml_str!(GuestUuid, "a UUID");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_names() {
        for good in ["clientA", "a", "0", "client-A_1.x", &"x".repeat(63)] {
            assert!(good.parse::<GuestName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a/b",
            "a b",
            "a..b",
            "ä",
            "a\n",
            "a%i",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<GuestName>().is_err(), "{bad}");
        }
    }
}
