// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a branch while it is being made, so that nothing of it is lost, whoever is killed.
//!
//! ```text
//! replay.log   what the branch has of its parent's log; in the end all of it
//! branch.log   what QEMU writes
//! branch.json  where the one ends and the other begins
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use replay_log::{Begun, Devices, Fork};
use serde::{Deserialize, Serialize};

use crate::base::fail_point;
use crate::file;
use crate::recording::error::Error;
use crate::recording::library::draft::{self, new_file, sync};

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
pub(in crate::recording) fn path(directory: &Path) -> PathBuf {
    directory.join(LOG)
}

/// Begins the log of the branch in `directory`, which leaves the run in `parent` at `fork`. Returns how many bytes it has.
///
/// # Errors
///
/// If it cannot be written.
pub(in crate::recording) fn begin(directory: &Path, parent: &Path, fork: Fork) -> Result<u64, Error> {
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
pub(in crate::recording) fn goes_on(directory: &Path, parent: u64, fork: Fork, begun: Begun) -> Result<(), Error> {
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
/// changes nothing. Returns whether the guest ran at all.
///
/// # Errors
///
/// If they cannot be read or written.
pub(in crate::recording) fn finish(directory: &Path, devices: Devices) -> Result<bool, Error> {
    let [joint, own, path] = [JOINT, LOG, draft::LOG].map(|name| directory.join(name));
    let text = there(fs::read(&joint)).map_err(Error::file("read", &joint))?;
    let branch = there(File::open(&own)).map_err(Error::file("read", &own))?;
    if let (Some(text), Some(branch)) = (&text, branch) {
        let joint = serde_json::from_slice(text).map_err(|error| Error::file("read", &joint)(error.into()))?;
        append(&path, &joint, branch, devices).map_err(Error::file("write", &path))?;
        fail_point::reach("branch.joined");
    }
    // In this order: what is left of one that was killed here is only the joint of a log that is whole.
    for done in [&own, &joint] {
        there(fs::remove_file(done)).map_err(Error::file("remove", done))?;
        sync(directory)?;
    }
    Ok(text.is_some())
}

/// Appends what is good of `branch` to the log at `path`. Where there is no room for it, that is as it was.
fn append(path: &Path, joint: &Joint, mut branch: File, devices: Devices) -> io::Result<()> {
    let mut log = OpenOptions::new().write(true).open(path)?;
    log.set_len(joint.parent)?;
    log.seek(SeekFrom::Start(joint.parent))?;
    let begun = Begun {
        logged: joint.logged,
        requests: joint.requests,
    };
    let mut buffered = BufWriter::new(&log);
    let appended = replay_log::append(&mut branch, joint.instructions, begun, devices, &mut buffered)
        .and_then(|()| buffered.flush())
        .and_then(|()| log.sync_all());
    if appended.is_err() {
        log.set_len(joint.parent)?;
    }
    appended
}

/// `None` if it is not there.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
