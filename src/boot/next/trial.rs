// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is remembered of trying an entry: `/var/lib/ttvm/boot.json`. The machine's way back does not depend on it (GRUB
//! forgets an entry for one boot before it boots it); it is how anybody knows afterwards what happened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::root::under;
use crate::boot::entry_id::EntryId;
use crate::boot::grub::grub_cfg::{MenuEntry, files};
use crate::file::{self, tree};

const PATH: &str = "/var/lib/ttvm/boot.json";

/// All that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The last try.
    pub trial: Option<Trial>,
    /// The entries that have been booted and were well, each with the [`fingerprint`] it had then.
    #[serde(default)]
    pub proved: BTreeMap<EntryId, Uuid>,
}

/// An entry that was, or is to be, booted for one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The entry.
    pub entry: EntryId,
    /// Whether it becomes the default when it is well.
    pub keep: bool,
    /// When it was asked for, in seconds since 1970.
    pub asked: u64,
    /// The boot in which it was asked for (/proc/sys/kernel/random/boot_id).
    pub asked_in: String,
    /// What the entry was then; what is confirmed is that, and no other kernel under its name.
    pub fingerprint: Uuid,
    /// How it ended, as far as anybody could say so, and the boot in which that was said.
    pub verdict: Option<(Verdict, String)>,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The host was well.
    Well,
    /// It was not, for this reason, and was reset.
    Failed(String),
}

impl Memory {
    /// What is remembered; nothing if nothing is, or if the file is damaged: it is a help, not a lock.
    pub fn load(root: &Path) -> Self {
        let text = tree::read(root, Path::new(PATH), tree::SETTINGS).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it down, so that it survives a power failure right after.
    pub fn save(&self, root: &Path) -> Result<(), (PathBuf, io::Error)> {
        let path = under(root, Path::new(PATH));
        let text = serde_json::to_vec_pretty(self).map_err(|error| (path.clone(), error.into()))?;
        let saved = match path.parent() {
            Some(parent) => fs::create_dir_all(parent),
            None => Ok(()),
        };
        saved
            .and_then(|()| file::replace(&path, &text, 0o644))
            .map_err(|error| (path, error))
    }
}

impl Trial {
    /// A try that begins now, in this boot.
    pub fn begin(entry: EntryId, keep: bool, boot: &str, fingerprint: Uuid) -> Self {
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            entry,
            keep,
            asked: asked.as_secs(),
            asked_in: boot.to_owned(),
            fingerprint,
            verdict: None,
        }
    }
}

/// What an entry boots, as one value: another option, or another file under the same name, and it is another one. What
/// it says of tries does not count.
pub fn fingerprint(root: &Path, entry: &MenuEntry) -> Uuid {
    let mut text = String::new();
    for line in entry.script.lines().filter(|line| !line.starts_with("set ttvm_try=")) {
        text.push_str(line);
        text.push('\n');
        for word in files(line) {
            let places = [
                under(root, Path::new(word)),
                under(root, Path::new(&format!("/boot{word}"))),
            ];
            if let Some(data) = places.iter().find_map(|path| fs::metadata(path).ok()) {
                let (seconds, nanoseconds) = (data.mtime(), data.mtime_nsec());
                text.push_str(&format!("{} {seconds}.{nanoseconds}\n", data.len()));
            }
        }
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}
