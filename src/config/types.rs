// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that come from outside, each checked once, here; the rest of the code can not hold a wrong one.

use std::fmt;
use std::str::FromStr;

use super::reader::from_toml_str;

/// Why a name or value was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

fn invalid<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

/// What LVM keeps for itself (lvm(8), VALID NAMES).
const LVM_RESERVED: [&str; 13] = [
    "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta",
    "_vdata", "_vorigin",
];

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

/// The name of a volume group or logical volume, by LVM's own rules (lvm(8)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LvmName(String);

impl LvmName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LvmName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
        if text.is_empty() || text.len() > 127 || text.starts_with('-') || !text.chars().all(allowed) {
            return invalid(format!(
                "{text:?} is not an LVM name: letters, digits, \"+\", \"_\", \".\" and \"-\", not beginning with \"-\""
            ));
        }
        if [".", "..", "snapshot", "pvmove"].contains(&text) {
            return invalid(format!("LVM keeps the name {text:?} for itself"));
        }
        if let Some(reserved) = LVM_RESERVED.iter().find(|part| text.contains(**part)) {
            return invalid(format!("LVM keeps names with {reserved:?} in them for itself"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A logical volume: `VG/LV`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volume {
    /// Its volume group.
    pub vg: LvmName,
    /// Its name in the group.
    pub lv: LvmName,
}

impl Volume {
    /// The name device-mapper knows it by: each `-` of a name doubled, one `-` between the two.
    pub fn dm_name(&self) -> String {
        let double = |name: &LvmName| name.as_str().replace('-', "--");
        format!("{}-{}", double(&self.vg), double(&self.lv))
    }

    /// `/dev/VG/LV`.
    pub fn device(&self) -> String {
        format!("/dev/{self}")
    }
}

impl FromStr for Volume {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let short = text.strip_prefix("/dev/").unwrap_or(text);
        match short.split_once('/') {
            Some((vg, lv)) => Ok(Self {
                vg: vg.parse()?,
                lv: lv.parse()?,
            }),
            None => invalid(format!("{text:?} names no volume: it has no \"/\"")),
        }
    }
}

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
            Some(0) => invalid("a size of 0 can not be used"),
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

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts: Vec<Option<u8>> = text
            .split(':')
            .map(|part| {
                u8::from_str_radix(part, 16)
                    .ok()
                    .filter(|_| part.len() == 2 && !part.starts_with('+'))
            })
            .collect();
        match parts[..] {
            [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] if a & 1 == 0 => Ok(Self([a, b, c, d, e, f])),
            [Some(_), Some(_), Some(_), Some(_), Some(_), Some(_)] => invalid(format!(
                "{text:?} is a multicast address; a guest needs a unicast one, such as 00:16:3e:…"
            )),
            _ => invalid(format!(
                "{text:?} is not an Ethernet address such as \"00:16:3e:12:34:56\""
            )),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface's name as the kernel takes it (1 to 15 bytes), without what scripts trip over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// One that is known to be valid.
    pub(super) fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if text.is_empty() || text.len() > 15 || text.starts_with(['-', '.']) || !text.chars().all(allowed) {
            return invalid(format!(
                "{text:?} is not an interface name: 1 to 15 letters, digits, \"_\", \".\" or \"-\""
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A virtual disk's name inside the guest: `xvda`, `xvda1`, `sda1`, `hdc`; of an emulated machine `vda`, `vdb`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(String);

impl Target {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The position of a virtio disk, from 0: `vda` is the first.
    pub fn virtio(&self) -> Option<usize> {
        let letter = self.0.strip_prefix("vd")?.bytes().next()?;
        Some(usize::from(letter - b'a'))
    }
}

impl FromStr for Target {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // The disks and partitions that libxl numbers (libxl__device_disk_dev_number in libxl_disk.c), and virtio disks, of which
        // we have whole ones only.
        let kinds = [("xvd", 702, 255), ("sd", 16, 15), ("hd", 4, 63), ("vd", 26, 0)];
        let kind = kinds
            .iter()
            .find_map(|(prefix, disks, partitions)| Some((text.strip_prefix(prefix)?, *disks, *partitions)));
        let valid = kind.is_some_and(|(rest, disks, partitions)| {
            let digits = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
            let letters = &rest[..rest.len() - digits.len()];
            // a is 1, z is 26, aa is 27.
            let disk = |number: u32, letter: u8| number.saturating_mul(26).saturating_add(u32::from(letter - b'a') + 1);
            let partition = digits.parse().is_ok_and(|number| (1..=partitions).contains(&number));
            (1..=disks).contains(&letters.bytes().fold(0, disk))
                && (digits.is_empty() || partition && !digits.starts_with(['0', '+']))
        });
        if !valid {
            return invalid(format!(
                "{text:?} is not a disk name in a guest, such as \"xvda1\", \"xvdb\" or \"sda1\""
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
            Ok(uuid) if !uuid.is_nil() && text.len() == 36 => Ok(Self(uuid)),
            _ => invalid(format!(
                "{text:?} is not a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12"
            )),
        }
    }
}

/// Makes types with `as_str` print as their text.
macro_rules! display_as_str {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
display_as_str!(GuestName, LvmName, InterfaceName, Target);

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vg, self.lv)
    }
}

impl fmt::Display for GuestUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// Makes types serialize as the text they print as.
macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
serialize_as_text!(GuestName, LvmName, InterfaceName, Target, Volume, GuestUuid, Mac);

/// What was written as text is read as text, with the same rules.
macro_rules! deserialize_from_text {
    ($($type:ty),*) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(super) use deserialize_from_text;
deserialize_from_text!(GuestName, Volume, GuestUuid, InterfaceName, Mac, Target);

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

from_toml_str!(LvmName, "a volume name");
from_toml_str!(Volume, "a volume as \"VG/LV\"");
from_toml_str!(Size, "a size such as \"96M\" or \"1G\"");
from_toml_str!(Seconds, "a time such as \"45s\"");
from_toml_str!(Mac, "an Ethernet address");
from_toml_str!(InterfaceName, "an interface name");
from_toml_str!(Target, "a disk name in the guest");
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

    #[test]
    fn volumes_and_their_dm_names() {
        let dm = |text: &str| text.parse::<Volume>().map(|volume| volume.dm_name());
        assert_eq!(dm("xenvg/base"), Ok("xenvg-base".into()));
        assert_eq!(dm("/dev/xen-vg/a-b"), Ok("xen--vg-a--b".into()));
        for bad in [
            "base",
            "xenvg/",
            "/base",
            "xenvg/-a",
            "xenvg/a/b",
            "xenvg/x_tmeta",
            "xenvg/snapshot",
            "../base",
            "a b/c",
        ] {
            assert!(dm(bad).is_err(), "{bad}");
        }
    }

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

    #[test]
    fn addresses_and_targets() {
        assert_eq!(
            "00:16:3E:0a:0b:0c".parse::<Mac>().map(|mac| mac.to_string()),
            Ok("00:16:3e:0a:0b:0c".into())
        );
        for bad in [
            "01:16:3e:0a:0b:0c",
            "00:16:3e:0a:0b",
            "00-16-3e-0a-0b-0c",
            "+0:16:3e:0a:0b:0c",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        for good in ["xvda", "xvda1", "sda15", "hdc", "xvdaa", "vda", "vdz"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in [
            "xvd", "xvda0", "xvda256", "xvda1,w", "sdq", "sda16", "hde", "vda1", "vdaa", "nvme0n1", "", "xvdA",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
