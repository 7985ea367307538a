// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealed origins: read-only, and with a digest of their content that is kept with them.
//!
//! The order of the steps is what a crash is survived by. To seal: an old digest goes, the origin is made read-only, it is
//! read, and only then it gets its digest. To unseal: the digest goes, and only then it is made writable. So there is never
//! a digest on an origin that can be written; where somebody else makes it so, the seal is broken, not valid.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::Serialize;

use super::error::Error;
use super::{Origin, file, volume};
use crate::base::progress::Progress;
use crate::config::host::SnapshotConfig;
use crate::file::digest::Digest;

/// Whether the content of an origin is known without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Sealed {
        /// The content, as it was when it was sealed.
        digest: Digest,
    },
    /// It was never sealed, or unsealed again.
    Unsealed,
    /// It was, but nobody can say that it still is what it was then.
    Broken {
        /// What speaks against it.
        why: String,
    },
}

impl State {
    /// The content, if it is known.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Sealed { digest } => Some(*digest),
            Self::Unsealed | Self::Broken { .. } => None,
        }
    }
}

/// What came of sealing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is sealed now.
    Sealed(Digest),
    /// It was sealed before; nothing was done.
    Already(Digest),
}

/// The seal of one origin.
pub struct Seal<'a> {
    origin: Origin,
    config: &'a SnapshotConfig,
}

impl<'a> Seal<'a> {
    /// The seal of `origin`, which may have none. A file must be there; its links are followed.
    pub fn open(origin: &Origin, config: &'a SnapshotConfig) -> Result<Self, Error> {
        let origin = real(origin)?;
        Ok(Self { origin, config })
    }

    /// The origin; of a file, the real one.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether it is sealed. For a volume one LVM command, for a file none.
    pub fn state(&self) -> Result<State, Error> {
        state(&self.origin)
    }

    /// Reads the content, whether it is sealed or not.
    pub fn read(&self, progress: &mut Progress<'_>) -> Result<Digest, Error> {
        match &self.origin {
            Origin::Volume(volume) => volume::read(volume, progress),
            Origin::File(path) => file::read(path, progress),
        }
    }

    /// Seals it, unless it is sealed. What fails or is interrupted by a signal leaves it writable, if it was.
    pub fn seal(&self, progress: &mut Progress<'_>) -> Result<Outcome, Error> {
        match &self.origin {
            Origin::Volume(volume) => volume::seal(volume, self.config.lock_timeout, progress),
            Origin::File(path) => file::seal(path, progress),
        }
    }

    /// What [`seal`](Self::seal) would do, in words; `Err` is what it would be refused for.
    pub fn plan_seal(&self) -> Result<Vec<String>, Error> {
        match &self.origin {
            Origin::Volume(volume) => volume::plan_seal(volume),
            Origin::File(path) => file::plan_seal(path),
        }
    }

    /// Takes the digest away and makes it writable. `false` if neither was to be done.
    pub fn unseal(&self) -> Result<bool, Error> {
        match &self.origin {
            Origin::Volume(volume) => volume::unseal(volume, self.config.lock_timeout),
            Origin::File(path) => file::unseal(path),
        }
    }

    /// What [`unseal`](Self::unseal) would do, in words; `Err` is what it would be refused for.
    pub fn plan_unseal(&self) -> Result<Vec<String>, Error> {
        match &self.origin {
            Origin::Volume(volume) => volume::plan_unseal(volume),
            Origin::File(path) => file::plan_unseal(path),
        }
    }
}

/// Whether `origin` is sealed. For a volume one LVM command, for a file none.
pub fn state(origin: &Origin) -> Result<State, Error> {
    match real(origin)? {
        Origin::Volume(volume) => volume::state(&volume, &volume::all(&volume)?),
        Origin::File(path) => file::state(&path),
    }
}

/// The same of several, with one LVM command for each volume group.
pub fn states(origins: &[Origin]) -> Vec<Result<State, Error>> {
    let mut groups = BTreeMap::new();
    let mut look = |origin: &Origin| {
        let Origin::Volume(volume) = origin else {
            return state(origin);
        };
        let volumes = match groups.get(&volume.vg) {
            Some(volumes) => volumes,
            None => groups.entry(volume.vg.clone()).or_insert(volume::all(volume)?),
        };
        volume::state(volume, volumes)
    };
    origins.iter().map(&mut look).collect()
}

/// The origin that others will find, too: what is kept with a file lies beside the file itself, not beside a link to it.
fn real(origin: &Origin) -> Result<Origin, Error> {
    Ok(match origin {
        Origin::Volume(_) => origin.clone(),
        Origin::File(path) => Origin::File(fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoFile(path.clone()),
            _ => Error::io("find", path)(error),
        })?),
    })
}
