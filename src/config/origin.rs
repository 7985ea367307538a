// SPDX-License-Identifier: MIT OR Apache-2.0
//! What disks are made from: a logical volume, or a file.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::reader::from_toml_str;
use super::types::{Volume, deserialize_from_text};

/// An origin: `VG/LV`, `/dev/VG/LV` or the absolute path of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A logical volume.
    Volume(Volume),
    /// An image file.
    File(PathBuf),
}

impl Origin {
    /// Where its content is read.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Volume(volume) => volume.device().into(),
            Self::File(path) => path.clone(),
        }
    }
}

/// Why a text names no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a volume, written VG/LV, nor a file, written with its whole path")]
pub struct NotAnOrigin(String);

impl FromStr for Origin {
    type Err = NotAnOrigin;
    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        // Any device has a path under /dev; only those of volumes are like this.
        if let Ok(volume) = text.parse::<Volume>()
            && volume.vg.as_str() != "mapper"
        {
            return Ok(Self::Volume(volume));
        }
        // However it is spelled: what is there is a device, or made up by the kernel.
        let path = normal(Path::new(text));
        let special = ["/dev", "/proc", "/sys"].iter().any(|place| path.starts_with(place));
        // A path with them would do to a terminal what they say, and no configuration of a guest can hold it.
        let controls = text.chars().any(char::is_control);
        match text.starts_with('/') && !special && !controls {
            true => Ok(Self::File(text.into())),
            false => Err(NotAnOrigin(text.to_owned())),
        }
    }
}

/// A path without what leads nowhere, as far as its text tells.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(volume) => volume.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

deserialize_from_text!(Origin);
from_toml_str!(Origin, "a volume as \"VG/LV\", or the path of an image file");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_files() {
        let volume = |text: &str| text.parse().map(Origin::Volume).expect("a volume");
        assert_eq!("xenvg/base".parse(), Ok(volume("xenvg/base")));
        assert_eq!("/dev/xenvg/base".parse(), Ok(volume("xenvg/base")));
        for file in ["/srv/base.img", "/a", "/srv/ttvm/base.img"] {
            assert_eq!(file.parse(), Ok(Origin::File(file.into())));
        }
        for neither in [
            "",
            "base",
            "./base.img",
            "a/b/c",
            "/dev/sda",
            "/dev/mapper/xenvg-base",
            "mapper/x",
            "//dev/watchdog",
            "/./dev/zero",
            "/srv/../dev/zero",
            "/../../dev/zero",
            "/dev",
            "/proc/self/mem",
            "/srv//../sys/power/state",
            "/srv/\u{1b}]0;x\u{7}",
            "/srv/a\nb",
            "/srv/\u{9b}2J",
        ] {
            assert!(neither.parse::<Origin>().is_err(), "{neither}");
        }
    }
}
