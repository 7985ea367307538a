// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a branch while it is being made, so that nothing of it is lost, whoever is killed.
//!
//! ```text
//! replay.log   what the branch has of its parent's log; in the end all of it
//! branch.log   what QEMU writes
//! branch.json  where the one ends and the other begins
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use replay_log::{Begun, Devices, Fork};
use serde::{Deserialize, Serialize};

use super::draft::{self, new_file, sync};
use super::error::Error;
use crate::fail_point;
use crate::file;

/// What QEMU writes: the log of a machine that was set up, and then loaded.
const LOG: &str = "branch.log";

const JOINT: &str = "branch.json";

/// Where two logs become one.
#[derive(Debug, Serialize, Deserialize)]
struct Joint {
    /// Bytes of the log that are the parent's.
    parent: u64,
    /// Instructions that the guest had executed there.
    instructions: u64,
    /// Bytes of QEMU's log that are of no run.
    logged: u64,
    /// Requests of disks up to there.
    requests: u64,
}

/// The log that QEMU writes for the branch in `directory`.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(LOG)
}

/// Begins the log of the branch in `directory`, which leaves the run in `parent` at `fork`. Returns how many bytes it has.
///
/// # Errors
///
/// If it cannot be written.
pub(super) fn begin(directory: &Path, parent: &Path, fork: Fork) -> Result<u64, Error> {
    let mut log = file::open_content(parent).map_err(Error::file("read", parent))?;
    let path = directory.join(draft::LOG);
    let mut write = || {
        let mut file = BufWriter::new(new_file(&path)?);
        let length = replay_log::begin(&mut log, fork, &mut file)?;
        file.into_inner()?.sync_all()?;
        Ok(length)
    };
    write().map_err(Error::file("write", &path))
}

/// QEMU goes on from there: from now on, its log is a part of the branch's, which has so many bytes of its `parent`'s.
///
/// # Errors
///
/// If that cannot be written.
pub(super) fn goes_on(directory: &Path, parent: u64, fork: Fork, begun: Begun) -> Result<(), Error> {
    let path = directory.join(JOINT);
    let joint = Joint {
        parent,
        instructions: fork.instructions,
        logged: begun.logged,
        requests: begun.requests,
    };
    let written = serde_json::to_vec(&joint)
        .map_err(io::Error::from)
        .and_then(|text| file::replace(&path, &text, 0o600));
    written.map_err(Error::file("write", &path))
}

/// Makes one log of both, if the recording in `directory` is a branch that nobody has finished; nobody writes to them. Done again, it
/// changes nothing.
///
/// # Errors
///
/// If they cannot be read or written.
pub(super) fn finish(directory: &Path, devices: Devices) -> Result<(), Error> {
    let [joint, own, path] = [JOINT, LOG, draft::LOG].map(|name| directory.join(name));
    let text = match fs::read(&joint) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(Error::file("read", &joint))?,
    };
    let Joint {
        parent,
        instructions,
        logged,
        requests,
    } = serde_json::from_slice(&text).map_err(|error| Error::file("read", &joint)(error.into()))?;
    let mut branch = File::open(&own).map_err(Error::file("read", &own))?;
    let mut write = || {
        let mut log = OpenOptions::new().write(true).open(&path)?;
        log.set_len(parent)?;
        log.seek(SeekFrom::Start(parent))?;
        let mut log = BufWriter::new(log);
        let begun = Begun { logged, requests };
        replay_log::append(&mut branch, instructions, begun, devices, &mut log)?;
        log.into_inner()?.sync_all()
    };
    write().map_err(Error::file("write", &path))?;
    fail_point::reach("branch.joined");
    for done in [&joint, &own] {
        fs::remove_file(done).map_err(Error::file("remove", done))?;
        sync(directory)?;
    }
    Ok(())
}
