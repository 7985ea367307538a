// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that LVM takes.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, deserialize_from_text, display_as_str, invalid, serialize_as_text};
use crate::config::reader::from_toml_str;

/// What LVM keeps for itself (lvm(8), VALID NAMES).
const LVM_RESERVED: [&str; 13] = [
    "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta",
    "_vdata", "_vorigin",
];

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

    /// The volume whose device has this path, by either of its names: `/dev/VG/LV` or `/dev/mapper/VG-LV`. That there is
    /// such a volume only LVM knows.
    pub fn of_device(path: &str) -> Option<Self> {
        if let Some(name) = path.strip_prefix("/dev/mapper/") {
            // The one dash that has none beside it.
            let bytes = name.as_bytes();
            let is = |at: usize| bytes.get(at) == Some(&b'-');
            let alone = |at: &usize| is(*at) && !is(at + 1) && !at.checked_sub(1).is_some_and(is);
            let at = (0..bytes.len()).find(alone)?;
            let (vg, lv) = (&name[..at], &name[at + 1..]);
            let single = |name: &str| name.replace("--", "-").parse().ok();
            let volume = Self {
                vg: single(vg)?,
                lv: single(lv)?,
            };
            return (volume.dm_name() == name).then_some(volume);
        }
        let volume: Self = path.parse().ok()?;
        (volume.device() == path).then_some(volume)
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

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vg, self.lv)
    }
}

display_as_str!(LvmName);
serialize_as_text!(LvmName, Volume);
deserialize_from_text!(Volume);
from_toml_str!(LvmName, "a volume name");
from_toml_str!(Volume, "a volume as \"VG/LV\"");

#[cfg(test)]
mod tests {
    use super::*;

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
    fn volumes_of_devices() {
        let of = |path: &str| Volume::of_device(path).map(|volume| volume.to_string());
        for volume in ["xenvg/base", "xen-vg/a-b", "a/b--c"] {
            let volume: Volume = volume.parse().expect("a volume");
            assert_eq!(of(&volume.device()), Some(volume.to_string()));
            assert_eq!(
                of(&format!("/dev/mapper/{}", volume.dm_name())),
                Some(volume.to_string())
            );
        }
        for other in [
            "xenvg/base",
            "/dev/sda",
            "/dev/mapper/control",
            "/dev/mapper/a-b-c",
            "/dev/mapper/xenvg-snap-cow",
            "/dev/mapper/a--b",
            "/dev/disk/by-label/x",
            "/srv/a/b",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
