// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done about a check: only what can be undone, and each says how.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::boot::grubenv::{self, GrubEnv};
use crate::error::{Classify, Exit};
use crate::file::{self, Seen};
use crate::run::{self, Command, Program};

static SYSTEMCTL: Program = Program::new(&["systemctl"]);

/// What xendomains' file is called while ttvm's change is in force.
const BEFORE: &str = ".before-ttvm";

/// Something that can be done and undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Mount debugfs.
    MountDebugfs,
    /// Have dmeventd started when something is to be watched.
    StartDmeventd,
    /// Keep xendomains, whose settings are in this file, from saving guests.
    SaveNothing(&'static str),
    /// Make GRUB's environment block.
    CreateGrubenv(PathBuf),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// systemd refused.
    #[error("cannot {what}")]
    Systemd {
        /// What it was to do.
        what: String,
        /// How it failed.
        #[source]
        source: run::Error,
    },
    /// A file cannot be changed.
    #[error("cannot change {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// GRUB's environment block cannot be made.
    #[error(transparent)]
    GrubEnv(#[from] grubenv::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MountDebugfs => f.write_str("mount debugfs (systemctl start sys-kernel-debug.mount)"),
            Self::StartDmeventd => f.write_str("enable dmeventd (systemctl enable --now dm-event.socket)"),
            Self::SaveNothing(path) => {
                write!(
                    f,
                    "write XENDOMAINS_SAVE= into {path}, and keep the old file as {path}{BEFORE}"
                )
            }
            Self::CreateGrubenv(path) => write!(f, "make an empty environment block of GRUB, {}", path.display()),
        }
    }
}

/// As a sentence.
impl Serialize for Fix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Fix {
    /// The command that undoes it.
    pub fn undo(&self) -> String {
        match self {
            Self::MountDebugfs => "systemctl stop sys-kernel-debug.mount".to_owned(),
            Self::StartDmeventd => "systemctl disable --now dm-event.socket".to_owned(),
            Self::SaveNothing(path) => format!("mv {path}{BEFORE} {path}"),
            Self::CreateGrubenv(path) => format!("rm {}", path.display()),
        }
    }

    /// Does it, on the system that runs.
    ///
    /// # Errors
    ///
    /// Why it could not be done; then nothing is changed.
    pub fn apply(&self) -> Result<(), Error> {
        match self {
            Self::MountDebugfs => self.systemctl(&["start", "sys-kernel-debug.mount"]),
            Self::StartDmeventd => self.systemctl(&["enable", "--now", "dm-event.socket"]),
            Self::SaveNothing(path) => save_nothing(Path::new(path)),
            Self::CreateGrubenv(path) => Ok(GrubEnv::create(path)?),
        }
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<(), Error> {
        let done = Command::new(&SYSTEMCTL).args(arguments.iter().copied()).run();
        done.map(drop).map_err(|source| Error::Systemd {
            what: self.to_string(),
            source,
        })
    }
}

/// Changes the setting in xendomains' file, which people write, too.
fn save_nothing(path: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let seen = Seen::read(path).map_err(failed(path))?;
    let before = seen.content().unwrap_or_default();
    let mode = fs::metadata(path).map_err(failed(path))?.permissions().mode();
    let mut kept = path.as_os_str().to_owned();
    kept.push(BEFORE);
    let kept = PathBuf::from(kept);
    // Not over an older one: that is what was there before anybody's change.
    file::create(&kept, before, mode).map_err(failed(&kept))?;
    let after = without_save(&String::from_utf8_lossy(before));
    let changed = file::replace_seen(path, after.as_bytes(), mode, &seen);
    if changed.is_err() {
        drop(fs::remove_file(&kept));
    }
    changed.map_err(failed(path))
}

/// The settings with `XENDOMAINS_SAVE` empty.
fn without_save(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| match line.trim_start().starts_with("XENDOMAINS_SAVE=") {
            true => "XENDOMAINS_SAVE=\n".to_owned(),
            false => format!("{line}\n"),
        });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let directory = std::env::temp_dir().join(format!("ttvm-fix-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("xendomains");
        let before = "# saves\nXENDOMAINS_SAVE=/var/lib/xen/save\nXENDOMAINS_AUTO=/etc/xen/auto\n";
        fs::write(&path, before).expect("a file");
        save_nothing(&path).expect("changed");
        let after = fs::read_to_string(&path).expect("the file");
        assert_eq!(after, "# saves\nXENDOMAINS_SAVE=\nXENDOMAINS_AUTO=/etc/xen/auto\n");
        let kept = fs::read_to_string(directory.join("xendomains.before-ttvm")).expect("the old one");
        assert_eq!(kept, before);
        let error = save_nothing(&path).expect_err("an older one is kept");
        assert!(error.to_string().ends_with("xendomains.before-ttvm"), "{error}");
        fs::remove_dir_all(&directory).expect("it goes");
    }
}
