// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes and spans of time.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, invalid};
use crate::config::reader::from_toml_str;

/// An amount of memory or disk in bytes, written as xl and lvm write it: `96M`, `1G`, `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` bytes.
    pub const fn from_bytes(count: u64) -> Self {
        Self(count)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            // A bare number means MiB to xl and bytes to others: not guessed.
            "" => return invalid(format!("{text:?} has no unit: write \"{text}M\" or \"{text}G\"")),
            _ => return invalid(format!("{text:?} is not a size: a whole number and K, M, G or T")),
        };
        let Ok(number) = number.parse::<u64>() else {
            return invalid(format!("{text:?} is not a size: a whole number and K, M, G or T"));
        };
        match number.checked_mul(1 << shift) {
            Some(0) => invalid("a size of 0 cannot be used"),
            Some(bytes) if bytes <= 1 << 56 => Ok(Self(bytes)),
            _ => invalid(format!("{text:?} is more than any machine has")),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{:.1}M", self.0 as f64 / f64::from(1 << 20))
    }
}

/// In bytes.
impl<'de> serde::Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

/// In bytes.
impl serde::Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// A span of time in whole seconds, written `45s`, `2min` or as a bare number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub std::time::Duration);

impl FromStr for Seconds {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "" | "s" | "sec" => 1,
            "m" | "min" => 60,
            _ => return invalid(format!("{text:?} is not a time: write \"45s\" or \"2min\"")),
        };
        match number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
            Some(seconds @ 1..=86_400) => Ok(Self(std::time::Duration::from_secs(seconds))),
            _ => invalid(format!("{text:?} is not a time between 1 s and 24 hours")),
        }
    }
}

from_toml_str!(Size, "a size such as \"96M\" or \"1G\"");
from_toml_str!(Seconds, "a time such as \"45s\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text: &str| text.parse::<Size>().map(Size::bytes);
        assert_eq!(bytes("96M"), Ok(96 << 20));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("2 k"), Ok(2048));
        for bad in [
            "",
            "M",
            "0M",
            "-1M",
            "1.5G",
            "96",
            "1X",
            "99999999999999999999G",
            "70000000T",
        ] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(Size(1 << 30).to_string(), "1G");
        assert_eq!(Size(1536 << 20).to_string(), "1536M");
    }
}
