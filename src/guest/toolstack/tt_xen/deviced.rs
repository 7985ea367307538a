// SPDX-License-Identifier: MIT OR Apache-2.0
//! TT Xen's ttd-deviced, which carries a guest's devices to and from the log of a run: `ttvm-deviced@record@NAME.service`
//! beside a guest that is recorded, `ttvm-deviced@replay@NAME.service` beside a replay.
//!
//! The unit is bound to that of the run (units/ttvm-deviced@.service): however the run ends, systemd ends ttd-deviced after it,
//! and no other guest's.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::xm::Mode;
use crate::base::error::{Classify, Exit};
use crate::base::root::under;
use crate::config::types::GuestName;
use crate::file;
use crate::file::tree;
use crate::guest::DIRECTORY;
use crate::run::{self, Command, find};

/// The log of a run, in its directory.
pub const LOG: &str = "ttd.log";

/// Through which ttd-deviced reads what Xen has recorded.
const DEBUGFS: &str = "/sys/kernel/debug";

/// ttd-deviced does not say when it is ready. It has its log open then; if it opens it later, it gets as long as XenTT's scripts
/// gave it.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// What can go wrong with ttd-deviced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be told where the run is kept.
    #[error(
        "TT Xen cannot keep a run in {}: the path goes through an option of xm and a file of systemd, and may have letters, digits and any of \"/._-+@\" only; give another --state-dir",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// debugfs is not mounted.
    #[error(
        "{DEBUGFS} has no debugfs, through which TT Xen records and replays: `systemctl start sys-kernel-debug.mount`, or `mount -t debugfs none {DEBUGFS}`; if that fails, the kernel that runs is none of TT Xen's"
    )]
    NoDebugfs,
    /// A file could not be written, a directory not be watched.
    #[error("cannot prepare {} for ttd-deviced", path.display())]
    Prepare {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// systemd could not start or stop the unit.
    #[error("cannot {action} ttd-deviced for guest \"{guest}\"")]
    Systemd {
        /// `start`, `stop`, `look at`.
        action: &'static str,
        /// The guest.
        guest: GuestName,
        /// What systemctl said.
        #[source]
        source: run::Error,
    },
    /// It ended as soon as it was started.
    #[error("ttd-deviced for guest \"{guest}\" ended at once: `journalctl -u {unit}` has what it said")]
    Ended {
        /// The guest.
        guest: GuestName,
        /// Its unit.
        unit: String,
    },
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Directory { .. } => Exit::Usage,
            Self::NoDebugfs => Exit::Refused,
            Self::Prepare { .. } | Self::Systemd { .. } | Self::Ended { .. } => Exit::Failed,
        }
    }
}

/// The directory of a recording, as TT Xen can be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory(String);

impl RunDirectory {
    /// The directory `path`, absolute, if its name has nothing in it that xm or systemd would take for something else: xm's
    /// option is split at commas, and how it takes spaces and quotes nobody can look up.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
        match path.to_str() {
            Some(text) if path.is_absolute() && text.chars().all(fits) => Ok(Self(text.to_owned())),
            _ => Err(Error::Directory { path: path.to_owned() }),
        }
    }

    /// The log in it.
    pub fn log(&self) -> PathBuf {
        Path::new(&self.0).join(LOG)
    }
}

impl fmt::Display for RunDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `Ok` if debugfs is mounted where TT Xen looks for it.
pub fn require_debugfs(root: &Path) -> Result<(), Error> {
    let mounts = tree::text(root, Path::new("/proc/mounts"), tree::WRITTEN).unwrap_or_default();
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(DEBUGFS) && fields.next() == Some("debugfs")
    });
    mounted.then_some(()).ok_or(Error::NoDebugfs)
}

/// The ttd-deviced of one run.
#[derive(Debug)]
pub struct Deviced {
    root: PathBuf,
    guest: GuestName,
    /// `record@NAME`, `replay@NAME`: with it the unit finds that of the run.
    instance: String,
    directory: RunDirectory,
}

impl Deviced {
    /// For a run of `guest` on the system in the tree that begins at `root`; a plain run has none.
    pub fn of(root: &Path, guest: &GuestName, mode: Mode<'_>) -> Option<Self> {
        let (kind, directory) = match mode {
            Mode::Plain => return None,
            Mode::Record(directory) => ("record", directory),
            Mode::Replay(directory) => ("replay", directory),
        };
        Some(Self {
            root: root.to_owned(),
            guest: guest.clone(),
            instance: format!("{kind}@{guest}"),
            directory: directory.clone(),
        })
    }

    /// Its unit.
    pub fn unit(&self) -> String {
        format!("ttvm-deviced@{}.service", self.instance)
    }

    /// Where its unit is told of the directory.
    fn environment(&self) -> PathBuf {
        under(&self.root, Path::new(DIRECTORY)).join(format!("{}.deviced", self.instance))
    }

    fn systemctl(&self, action: &'static str, arguments: &[&str]) -> Result<(), Error> {
        let command = find(&self.root, "systemctl")
            .map(Command::file)
            .ok_or(run::Error::NotInstalled { program: "systemctl" });
        let done = command.and_then(|command| command.args(arguments.iter().copied()).arg(self.unit()).run());
        done.map(drop).map_err(|source| Error::Systemd {
            action,
            guest: self.guest.clone(),
            source,
        })
    }

    /// Starts it, and returns when the guest can be created. To be called from the unit of the run, whose start it must not wait
    /// for.
    pub fn start(&self) -> Result<(), Error> {
        require_debugfs(&self.root)?;
        let path = self.environment();
        let text = format!("TTVM_RUN_DIR={}\n", self.directory);
        fs::create_dir_all(under(&self.root, Path::new(DIRECTORY)))
            .and_then(|()| file::replace(&path, text.as_bytes(), 0o600))
            .map_err(|source| Error::Prepare { path, source })?;
        let watch = |source: Errno| Error::Prepare {
            path: PathBuf::from(&self.directory.0),
            source: source.into(),
        };
        // Before it starts: what it opens at once is seen.
        let opened = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(watch)?;
        opened
            .add_watch(self.directory.0.as_str(), AddWatchFlags::IN_OPEN)
            .map_err(watch)?;
        self.systemctl("start", &["start", "--"])?;
        if !wait_for(&opened, LOG, READY_LIMIT).map_err(watch)? {
            tracing::info!(
                ttvm_guest = %self.guest,
                "ttd-deviced has not opened {LOG} within {} s: the guest is started all the same",
                READY_LIMIT.as_secs()
            );
        }
        match self.is_active()? {
            true => Ok(()),
            false => Err(Error::Ended {
                guest: self.guest.clone(),
                unit: self.unit(),
            }),
        }
    }

    /// Whether it runs. One that does not has left the run without devices: what was recorded is void.
    pub fn is_active(&self) -> Result<bool, Error> {
        match self.systemctl("look at", &["is-active", "--quiet", "--"]) {
            Ok(()) => Ok(true),
            // systemctl(1), EXIT STATUS: of a unit that is not active, or not there at all.
            Err(Error::Systemd {
                source: run::Error::Failed { status, .. },
                ..
            }) if matches!(status.code(), Some(3 | 4)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stops it, when the guest is gone, and returns when it has written everything. systemd does so as well when the unit of
    /// the run has ended.
    pub fn stop(&self) -> Result<(), Error> {
        // If the unit of the run is being stopped, this one's turn comes after it: who waits for that here waits for himself.
        self.systemctl("stop", &["stop", "--job-mode=ignore-dependencies", "--"])?;
        // It is in memory and small, and the next start replaces it.
        drop(fs::remove_file(self.environment()));
        Ok(())
    }
}

/// Whether a file of this name was opened before `limit` was over.
fn wait_for(opened: &Inotify, name: &str, limit: Duration) -> Result<bool, Errno> {
    let until = Instant::now() + limit;
    loop {
        match opened.read_events() {
            Ok(events) => {
                let named = |file: Option<&std::ffi::OsString>| file.is_some_and(|file| file == name);
                if events.iter().any(|event| named(event.name.as_ref())) {
                    return Ok(true);
                }
            }
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(opened.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        let name = |path: &str| RunDirectory::new(Path::new(path)).map(|directory| directory.to_string());
        let good = "/var/lib/ttvm/recordings/client-A.2/20261125T120000@+1";
        assert_eq!(name(good).expect("a directory"), good);
        for bad in [
            "relative",
            "/a,tt_replay_flag=1",
            "/a b",
            "/a\nb",
            "/a'b",
            "/a\"b",
            "/a$b",
            "/a\\b",
            "/é",
            "",
        ] {
            let error = name(bad).expect_err(bad);
            assert!(error.to_string().contains("--state-dir"), "{error}");
            assert_eq!(error.exit(), Exit::Usage);
        }
    }
}
