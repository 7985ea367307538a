// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done about a check: only what can be undone, and each says how.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::base::error::{Classify, Exit};
use crate::boot::grub::grubenv::{self, GrubEnv};
use crate::file::{self, Seen};
use crate::run::{self, Command, Program};

static SYSTEMCTL: Program = Program::new(&["systemctl"]);

/// What xendomains' file is called while ttvm's change is in force.
const BEFORE: &str = ".before-ttvm";

/// The unit that starts dmeventd.
pub(super) const DM_EVENT: &str = "dm-event.socket";

/// The unit that mounts debugfs.
const DEBUGFS: &str = "sys-kernel-debug.mount";

/// Something that can be done and undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Mount debugfs.
    MountDebugfs,
    /// Have dmeventd started when something is to be watched.
    StartDmeventd(Dmeventd),
    /// Keep xendomains, whose settings are in this file, from saving guests.
    SaveNothing(&'static str),
    /// Make GRUB's environment block.
    CreateGrubenv(PathBuf),
}

/// What is missing before dmeventd is started when something is to be watched: no more is done, and no more undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dmeventd {
    /// Its socket is neither enabled nor active.
    EnableAndStart,
    /// Its socket is active, and would not be after the next boot.
    Enable,
    /// Its socket is enabled, and not active.
    Start,
}

impl Dmeventd {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::EnableAndStart => &["enable", "--now", DM_EVENT],
            Self::Enable => &["enable", DM_EVENT],
            Self::Start => &["start", DM_EVENT],
        }
    }

    fn undo(self) -> &'static [&'static str] {
        match self {
            Self::EnableAndStart => &["disable", "--now", DM_EVENT],
            Self::Enable => &["disable", DM_EVENT],
            Self::Start => &["stop", DM_EVENT],
        }
    }

    /// The command.
    pub(super) fn command(self) -> String {
        systemctl(self.arguments())
    }
}

/// The command that does it.
fn systemctl(arguments: &[&str]) -> String {
    format!("systemctl {}", arguments.join(" "))
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// systemd refused.
    #[error("cannot {what}: see `systemctl status {unit}`")]
    Systemd {
        /// What it was to do.
        what: String,
        /// With which unit.
        unit: &'static str,
        /// How it failed.
        #[source]
        source: run::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot change {}, and nothing is changed: write XENDOMAINS_SAVE= into it by hand", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// What was there before an earlier change is still kept.
    #[error("{} is there from an earlier change: go back to it (`mv {} {}`), or remove it if it is not needed, and do this again",
        kept.display(), kept.display(), path.display())]
    Kept {
        /// What is kept.
        kept: PathBuf,
        /// The file that was to be changed.
        path: PathBuf,
    },
    /// A symbolic link would become a file, and going back would not make it one again.
    #[error("{} is a symbolic link, and stays as it is: write XENDOMAINS_SAVE= by hand into the file that it leads to", .0.display())]
    Link(PathBuf),
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
            Self::MountDebugfs => write!(f, "mount debugfs (systemctl start {DEBUGFS})"),
            Self::StartDmeventd(how @ Dmeventd::Start) => write!(f, "start dmeventd ({})", how.command()),
            Self::StartDmeventd(how) => write!(f, "enable dmeventd ({})", how.command()),
            Self::SaveNothing(path) => {
                write!(
                    f,
                    "write XENDOMAINS_SAVE= into {path}, for every domain of this host, and keep the old file as {path}{BEFORE}"
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
            Self::MountDebugfs => systemctl(&["stop", DEBUGFS]),
            Self::StartDmeventd(how) => systemctl(how.undo()),
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
            Self::MountDebugfs => self.systemctl(DEBUGFS, &["start", DEBUGFS]),
            Self::StartDmeventd(how) => self.systemctl(DM_EVENT, how.arguments()),
            Self::SaveNothing(path) => save_nothing(Path::new(path)),
            Self::CreateGrubenv(path) => Ok(GrubEnv::create(path)?),
        }
    }

    fn systemctl(&self, unit: &'static str, arguments: &[&str]) -> Result<(), Error> {
        let done = Command::new(&SYSTEMCTL).args(arguments.iter().copied()).run();
        done.map(drop).map_err(|source| Error::Systemd {
            what: self.to_string(),
            unit,
            source,
        })
    }
}

/// Changes the setting in xendomains' file, which people write, too.
fn save_nothing(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    if path.is_symlink() {
        return Err(Error::Link(path.to_owned()));
    }
    let seen = Seen::read(path).map_err(failed)?;
    let before = seen.content().unwrap_or_default();
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    let mut kept = path.as_os_str().to_owned();
    kept.push(BEFORE);
    let kept = PathBuf::from(kept);
    // Not over an older one: that is what was there before anybody's change.
    match file::create(&kept, before, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let path = path.to_owned();
            return Err(Error::Kept { kept, path });
        }
        created => created.map_err(failed)?,
    }
    let after = without_save(&String::from_utf8_lossy(before));
    let changed = file::replace_seen(path, after.as_bytes(), mode, &seen);
    if changed.is_err() {
        drop(fs::remove_file(&kept));
    }
    changed.map_err(failed)
}

/// The settings with `XENDOMAINS_SAVE` empty: where it stands alone in its line, and else behind all that may set it.
fn without_save(text: &str) -> String {
    const EMPTY: &str = "XENDOMAINS_SAVE=";
    let mut settings = String::new();
    let mut is_last = true;
    for line in text.lines() {
        let words = line.trim();
        let words = words.strip_prefix("export ").map_or(words, str::trim_start);
        let is_alone = words
            .strip_prefix(EMPTY)
            .is_some_and(|value| !value.contains([' ', '\t', ';']));
        is_last &= is_alone || line.trim_start().starts_with('#') || !line.contains(EMPTY);
        settings += if is_alone { EMPTY } else { line };
        settings.push('\n');
    }
    if !is_last {
        settings += EMPTY;
        settings.push('\n');
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_sets_more_stays() {
        for line in ["A=1; XENDOMAINS_SAVE=/x", "XENDOMAINS_SAVE=/x XENDOMAINS_AUTO=/y"] {
            assert_eq!(without_save(line), format!("{line}\nXENDOMAINS_SAVE=\n"));
        }
    }

    #[test]
    fn no_more_is_undone_than_is_done() {
        for (how, done, undone) in [
            (
                Dmeventd::EnableAndStart,
                "enable dmeventd (systemctl enable --now dm-event.socket)",
                "systemctl disable --now dm-event.socket",
            ),
            (
                Dmeventd::Enable,
                "enable dmeventd (systemctl enable dm-event.socket)",
                "systemctl disable dm-event.socket",
            ),
            (
                Dmeventd::Start,
                "start dmeventd (systemctl start dm-event.socket)",
                "systemctl stop dm-event.socket",
            ),
        ] {
            let fix = Fix::StartDmeventd(how);
            assert_eq!((fix.to_string(), fix.undo()), (done.to_owned(), undone.to_owned()));
        }
    }

    #[test]
    fn there_and_back() {
        let directory = std::env::temp_dir().join(format!("ttvm-fix-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("xendomains");
        let before = "# saves\nexport XENDOMAINS_SAVE=/var/lib/xen/save\nXENDOMAINS_AUTO=/etc/xen/auto\n";
        fs::write(&path, before).expect("a file");
        save_nothing(&path).expect("changed");
        let after = fs::read_to_string(&path).expect("the file");
        assert_eq!(after, "# saves\nXENDOMAINS_SAVE=\nXENDOMAINS_AUTO=/etc/xen/auto\n");
        let kept = fs::read_to_string(directory.join("xendomains.before-ttvm")).expect("the old one");
        assert_eq!(kept, before);
        let error = save_nothing(&path).expect_err("an older one is kept");
        assert!(matches!(error, Error::Kept { .. }), "{error}");
        let link = directory.join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let error = save_nothing(&link).expect_err("a link");
        assert!(matches!(error, Error::Link(_)) && link.is_symlink(), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("the file"), after);
        fs::remove_dir_all(&directory).expect("it goes");
    }
}
