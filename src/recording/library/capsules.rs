// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engines that came with recordings, each once: capsules.
//!
//! ```text
//! STATE/engines/DIGEST/           the capsule (qemu::capsule)
//!     trusted                     its user lets it run
//! STATE/recordings/GUEST/ID/
//!     capsule                     the digest of the recording's capsule
//! ```
//!
//! A capsule is somebody else's program. It is run only if the user has said that this very one may be, and it is shut in then.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::check::{Fault, part};
use super::manifest::Manifest;
use super::stored::Recording;
use super::{Library, allocated_files};
use crate::base::progress::Progress;
use crate::file;
use crate::file::digest::Digest;
use crate::qemu::capsule::{Capsule, List};
use crate::recording::error::Error;

/// The file that says which capsule a recording has.
pub(super) const REFERENCE: &str = "capsule";
/// The mark of a capsule that may be run.
const TRUSTED: &str = "trusted";

/// Where capsules are.
pub(in crate::recording) fn engines(state: &Path) -> PathBuf {
    state.join("engines")
}

/// Where that capsule is.
pub(in crate::recording) fn place(state: &Path, digest: Digest) -> PathBuf {
    engines(state).join(digest.hex())
}

/// Notes that the recording in `directory` has that capsule.
pub(super) fn refer(directory: &Path, digest: Digest) -> Result<(), Error> {
    let path = directory.join(REFERENCE);
    file::replace(&path, format!("{digest}\n").as_bytes(), 0o600).map_err(Error::file("write", &path))
}

/// Which capsule the recording in `directory` has.
pub(super) fn referred(directory: &Path) -> Result<Option<Digest>, Error> {
    let path = directory.join(REFERENCE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::file("read", &path))?,
    };
    let digest = text.trim_end().parse();
    let strange = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    digest.map(Some).map_err(strange).map_err(Error::file("read", &path))
}

/// Why `list` is not of the engine that `manifest` was recorded on; `None` if it is.
pub(super) fn other_engine(list: &List, manifest: &Manifest) -> Option<String> {
    let recorded = &manifest.engine;
    if list.version != recorded.version {
        return Some(format!(
            "it is QEMU {:?}, and {:?} recorded",
            list.version, recorded.version
        ));
    }
    let other = recorded.firmware.iter().find(|firmware| {
        let name = firmware.path.file_name().unwrap_or_default().to_string_lossy();
        list.member(&name).is_none_or(|file| file.digest != firmware.digest)
    });
    other.map(|firmware| format!("its firmware {:?} is not the one of the recording", firmware.path))
}

impl Library {
    /// The capsule of the recording in `directory`, if it has one.
    pub fn capsule(&self, directory: &Path) -> Result<Option<Capsule>, Error> {
        capsule(self.state_directory(), directory)
    }

    /// Whether that capsule may be run.
    pub fn is_trusted(&self, capsule: Digest) -> bool {
        is_trusted(self.state_directory(), capsule)
    }

    /// Lets that capsule be run, as long as a recording here has it.
    ///
    /// # Errors
    ///
    /// If no recording has it.
    pub fn trust(&self, capsule: Digest) -> Result<(), Error> {
        let lock = self.lock()?;
        lock.lock_shared().map_err(Error::file("lock", &self.recordings()))?;
        let place = place(self.state_directory(), capsule);
        if !place.is_dir() {
            return Err(Error::NoSuchCapsule(capsule));
        }
        let path = place.join(TRUSTED);
        file::replace(&path, b"", 0o600).map_err(Error::file("write", &path))
    }

    /// What capsules take on the disk, in bytes.
    pub fn size_of_capsules(&self) -> u64 {
        allocated_files(&engines(self.state_directory()))
    }
}

pub(super) fn is_trusted(state: &Path, capsule: Digest) -> bool {
    place(state, capsule).join(TRUSTED).exists()
}

fn capsule(state: &Path, directory: &Path) -> Result<Option<Capsule>, Error> {
    let Some(digest) = referred(directory)? else {
        return Ok(None);
    };
    let damaged = |why: String| Error::CapsuleDamaged { capsule: digest, why };
    let capsule =
        Capsule::load(&place(state, digest)).map_err(|error| damaged(crate::base::error::one_line(&error)))?;
    match capsule.digest() == digest {
        true => Ok(Some(capsule)),
        false => Err(damaged(format!("its list has {}", capsule.digest()))),
    }
}

impl Recording {
    /// Its capsule, if it has one.
    pub fn capsule(&self) -> Result<Option<Capsule>, Error> {
        capsule(self.state(), self.directory())
    }

    /// Reads its capsule, if it has one, and says what is not as it came.
    pub fn check_capsule(&self, progress: &mut Progress<'_>) -> Result<Vec<Fault>, Error> {
        match self.capsule() {
            Ok(Some(capsule)) => check(&capsule, progress),
            Ok(None) => Ok(Vec::new()),
            Err(error) => Ok(vec![Fault::Unreadable {
                file: "its engine".to_owned(),
                why: crate::base::error::one_line(&error),
            }]),
        }
    }

    /// Its capsule, whole and to be run.
    ///
    /// # Errors
    ///
    /// If it has none, or one that the user has not said to be trusted, or that is not what came with it.
    pub fn capsule_to_run(&self, progress: &mut Progress<'_>) -> Result<Capsule, Error> {
        let capsule = self.capsule()?.ok_or_else(|| Error::NoCapsule {
            guest: self.guest().clone(),
            id: self.id().clone(),
        })?;
        let digest = capsule.digest();
        if !is_trusted(self.state(), digest) {
            return Err(Error::Untrusted {
                guest: self.guest().clone(),
                id: self.id().clone(),
                version: capsule.list().version.clone(),
                capsule: digest,
            });
        }
        match check(&capsule, progress)?.first() {
            Some(fault) => Err(Error::CapsuleDamaged {
                capsule: digest,
                why: fault.to_string(),
            }),
            None => Ok(capsule),
        }
    }
}

/// Whether a capsule that can be run is in `directory`.
pub(in crate::recording) fn is_whole(directory: &Path) -> bool {
    let checked = Capsule::load(directory)
        .ok()
        .map(|capsule| check(&capsule, &mut |_, _| ControlFlow::Continue(())));
    checked.is_some_and(|faults| faults.is_ok_and(|faults| faults.is_empty()))
}

/// Reads a capsule and says what is not as it came.
fn check(capsule: &Capsule, progress: &mut Progress<'_>) -> Result<Vec<Fault>, Error> {
    let total = capsule.list().size();
    let (mut faults, mut before) = (Vec::new(), 0);
    for file in &capsule.list().files {
        let path = capsule.files().join(&file.name);
        let recorded = (file.size, file.digest);
        faults.extend(part(
            &format!("the engine's {}", path.display()),
            &path,
            recorded,
            &mut |done, _| progress(before + done, total),
        )?);
        before += file.size;
    }
    Ok(faults)
}
