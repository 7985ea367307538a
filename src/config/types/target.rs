// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks as their guests know them.

use std::str::FromStr;

use super::{Invalid, deserialize_from_text, display_as_str, invalid, serialize_as_text};
use crate::config::reader::from_toml_str;

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

display_as_str!(Target);
serialize_as_text!(Target);
deserialize_from_text!(Target);
from_toml_str!(Target, "a disk name in the guest");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
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
