// SPDX-License-Identifier: MIT OR Apache-2.0
//! A manifest as the text of `manifest.toml`. Its last line is a digest of everything before it: who edits a manifest, or
//! loses a piece of it, changes what a replay is compared with.

use std::io;
use std::path::Path;

use super::manifest::{FORMAT, FileDigest, Manifest, OLDEST};
use crate::base::text::line;
use crate::file::digest::{self, Digest};

/// The file.
pub const NAME: &str = "manifest.toml";
/// No manifest is larger.
pub(super) const LIMIT: u64 = 1 << 20;

const HEAD: &str = "# SPDX-License-Identifier: MIT OR Apache-2.0\n# Written by ttvm: ttvm-recording(5).\n";
const SEAL: &str = "# digest of the lines above: ";

/// Why a text is no manifest that can be relied on.
#[derive(Debug, thiserror::Error)]
pub enum Unsealed {
    /// It is not there.
    #[error("manifest.toml is missing")]
    Missing,
    /// It cannot be read.
    #[error("manifest.toml cannot be read: {}", crate::base::error::reason(.0))]
    Unreadable(io::Error),
    /// It is larger than any.
    #[error("manifest.toml is larger than any manifest")]
    Large,
    /// The last line is none.
    #[error("manifest.toml was cut off or edited: its last line is not its digest")]
    Open,
    /// The text is not the one that was written.
    #[error("manifest.toml was edited: its digest is {found}, its last line says {written}")]
    Edited {
        /// What it is.
        found: Digest,
        /// What it was.
        written: Digest,
    },
    /// A newer ttvm wrote it.
    #[error("manifest.toml has format {0}, this ttvm knows {OLDEST} to {FORMAT}: update ttvm")]
    Format(u32),
    /// It is not what ttvm writes.
    #[error("manifest.toml is not understood: {0}")]
    Strange(String),
}

impl FileDigest {
    /// That of a file at `path` with the content `bytes`.
    pub fn of_bytes(path: &Path, bytes: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            size: bytes.len() as u64,
            digest: digest::of_bytes(bytes),
        }
    }
}

impl Manifest {
    /// The text of `manifest.toml`.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        let mut text = format!("{HEAD}\n{}\n", toml::to_string(self)?.trim_end());
        let seal = format!("{SEAL}{}\n", digest::of_bytes(text.as_bytes()));
        text.push_str(&seal);
        Ok(text)
    }

    /// The manifest that a text is of.
    pub fn from_text(text: &str) -> Result<Self, Unsealed> {
        let (content, written) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once(SEAL))
            .and_then(|(content, seal)| {
                Some((
                    content,
                    seal.parse::<Digest>()
                        .ok()
                        .filter(|digest| digest.to_string() == seal)?,
                ))
            })
            .ok_or(Unsealed::Open)?;
        let found = digest::of_bytes(content.as_bytes());
        if found != written {
            return Err(Unsealed::Edited { found, written });
        }
        // Before the rest, which another format may have otherwise.
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let strange = |error: toml::de::Error| Unsealed::Strange(line(error.message().trim_end()).into_owned());
        match toml::from_str::<Format>(content).map_err(strange)?.format {
            OLDEST..=FORMAT => toml::from_str(content).map_err(strange),
            other => Err(Unsealed::Format(other)),
        }
    }

    /// The manifest in `directory`.
    pub(in crate::recording) fn load(directory: &Path) -> Result<Self, Unsealed> {
        let path = directory.join(NAME);
        let text = match std::fs::symlink_metadata(&path) {
            Ok(data) if data.len() > LIMIT => return Err(Unsealed::Large),
            Ok(_) => std::fs::read_to_string(&path),
            Err(error) => Err(error),
        };
        let text = text.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unsealed::Missing,
            _ => Unsealed::Unreadable(error),
        })?;
        Self::from_text(&text)
    }
}
