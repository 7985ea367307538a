// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a source is a root file system at all. Archives of programs for containers and for backups look like one from
//! outside, and people take them for one.

use serde_json::Value;

use super::Found;
use crate::image::create::edits::resolve::follow;
use crate::image::create::error::Error;
use crate::image::create::{Creation, Source};

/// Files by which one is known that is none.
pub(in crate::image::create) const LOOKED_AT: [&str; 3] = ["manifest.json", "oci-layout", "repositories"];

/// What starts a system, or at least a shell.
const INITS: [&str; 9] = [
    "sbin/init",
    "usr/sbin/init",
    "init",
    "bin/init",
    "usr/lib/systemd/systemd",
    "lib/systemd/systemd",
    "bin/sh",
    "usr/bin/sh",
    "etc",
];

impl Creation {
    /// Refuses what has layers of containers, and is no file system.
    pub(in crate::image::create) fn is_a_system(&self) -> Result<(), Error> {
        match layers(&self.found).filter(|_| !self.may_boot()) {
            None => Ok(()),
            Some((program, remedy)) => Err(Error::Layers {
                path: self.request.source.clone(),
                program,
                remedy,
            }),
        }
    }

    /// Refuses a script where nothing would run it.
    pub(in crate::image::create) fn can_work(&self) -> Result<(), Error> {
        let has_systemd = self.identity(String::new()).has_systemd();
        match self.request.script.is_some() && !has_systemd {
            true => Err(Error::NoSystemd(self.request.source.clone())),
            false => Ok(()),
        }
    }

    /// Whether there is anything in the source that a guest could boot: /etc, an init, or a shell.
    pub fn may_boot(&self) -> bool {
        INITS.iter().any(|path| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let here = |path: &[u8]| match &self.source {
                Source::Tree(tree) => tree.here(path),
                Source::Archive(_, seen) => seen.here(path),
            };
            let Some((mut there, _)) = follow(&here, parent.as_bytes()) else {
                return false;
            };
            if !there.is_empty() {
                there.push(b'/');
            }
            there.extend_from_slice(name.as_bytes());
            here(&there).is_some()
        })
    }

    /// That, in words, if there is nothing.
    pub fn boots_nothing(&self) -> Option<&'static str> {
        (!self.may_boot()).then_some(
            "nothing in it can boot: the source has neither /etc nor an init (/sbin/init, /init, /usr/lib/systemd/systemd, /bin/sh)",
        )
    }
}

/// What writes such, and what to take in its place.
fn layers(found: &Found) -> Option<(&'static str, &'static str)> {
    let json = |path| serde_json::from_slice::<Value>(found.content(path)?).ok();
    let is_list = |value: Value| matches!(value.get(0), Some(first) if first.get("Layers").is_some());
    // Docker before 1.10 had no manifest.
    let names = |value: Value| {
        let values = value.as_object().map(|names| names.values().all(Value::is_object));
        values == Some(true)
    };
    if json("manifest.json").is_some_and(is_list) || json("repositories").is_some_and(names) {
        return Some(("docker save", "docker export writes one"));
    }
    let is_layout = |value: Value| value.get("imageLayoutVersion").is_some();
    json("oci-layout").is_some_and(is_layout).then_some((
        "programs for containers (OCI)",
        "podman export writes one, and umoci unpack makes a directory of one",
    ))
}
