// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is remembered of a guest's newest run, for `ttvm status`: `/var/lib/ttvm/guests/NAME.json`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::preparation::invocation;
use super::restarts;
use crate::base::clock::{boot_id, now};
use crate::config::types::GuestName;
use crate::file::{self, tree};

const DIRECTORY: &str = "/var/lib/ttvm/guests";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The guest powered itself off.
    PoweredOff,
    /// It was told to stop and shut down.
    Stopped,
    /// It was told to stop, did not in time, and was destroyed.
    Killed,
    /// It was to end at once (`ttvm kill`).
    KilledAtOnce,
    /// It rebooted, and its unit stopped or was restarted for that.
    Rebooted,
    /// Its kernel crashed.
    Crashed,
    /// Its watchdog fired.
    Watchdog,
    /// It suspended itself, which a run cannot come back from.
    Suspended,
    /// Somebody destroyed the domain.
    Destroyed,
    /// Its supervisor could not go on.
    Abandoned,
    /// It could not be started.
    NotStarted,
    /// A replay that was the run that was recorded.
    Identical,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PoweredOff => "powered itself off",
            Self::Stopped => "stopped",
            Self::Killed => "did not shut down in time, destroyed",
            Self::KilledAtOnce => "killed by `ttvm kill`",
            Self::Rebooted => "rebooted",
            Self::Crashed => "crashed",
            Self::Watchdog => "its watchdog fired",
            Self::Suspended => "suspended itself",
            Self::Destroyed => "destroyed from outside",
            Self::Abandoned => "its supervisor failed",
            Self::NotStarted => "could not be started",
            Self::Identical => "replayed: identical",
        })
    }
}

/// The newest run of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The run's id: the unit's invocation id.
    pub run: String,
    /// The boot of the host it began in.
    #[serde(default)]
    pub boot: String,
    /// Its domain, as long as it has one.
    pub domid: Option<u32>,
    /// Whether an emulated guest, which has no domain, came up.
    #[serde(default)]
    pub up: bool,
    /// When it came up, in seconds since 1970.
    pub since: u64,
    /// How often the guest rebooted within the run.
    pub reboots: u32,
    /// When it ended.
    pub until: Option<u64>,
    /// How it ended; nothing while it runs, or if the host went down under it.
    pub ending: Option<Ending>,
    /// Why it could not be started.
    #[serde(default)]
    pub why: Option<String>,
    /// Why it stands still, while it does.
    #[serde(default)]
    pub trouble: Option<String>,
    /// How the run before it ended, in words.
    #[serde(default)]
    pub previous: Option<String>,
    /// A snapshot overflowed or its pool filled up: what the guest wrote is not all there.
    pub snapshot_lost: bool,
    /// Whether systemd starts the guest again by itself if this run comes to nothing: as long as a plain run has not ended otherwise.
    #[serde(default)]
    pub again: bool,
    /// How many runs in a row, right before it, came to nothing ([`super::restarts`]).
    #[serde(default)]
    pub futile: u32,
    /// How many starts have failed in all, this one included.
    #[serde(default)]
    pub failed_starts: u64,
}

impl Record {
    /// A run of `guest` that begins now; `again` if systemd starts another should it come to nothing.
    pub fn begin(guest: &GuestName, again: bool) -> Self {
        let before = Self::load(Path::new("/"), guest);
        let boot = boot_id();
        let failed_starts = before.as_ref().map_or(0, |before| before.failed_starts);
        Self {
            run: invocation().unwrap_or_default(),
            futile: before.as_ref().map_or(0, |before| restarts::carried(before, &boot)),
            boot,
            domid: None,
            up: false,
            since: now(),
            reboots: 0,
            until: None,
            ending: None,
            why: None,
            trouble: None,
            previous: before.and_then(|before| before.last_exit()),
            snapshot_lost: false,
            again,
            failed_starts,
        }
    }

    /// How the run ended, in words; `None` while it runs.
    pub fn outcome(&self) -> Option<String> {
        let ending = self.ending?;
        Some(match &self.why {
            Some(why) => format!("{ending}: {why}"),
            None => ending.to_string(),
        })
    }

    /// The same for a run that is known to be over, however little was written down of it.
    pub fn last_exit(&self) -> Option<String> {
        let unseen = || {
            let how = if self.boot == boot_id() {
                "its supervisor was killed"
            } else {
                "the host went down"
            };
            how.to_owned()
        };
        Some(self.outcome().unwrap_or_else(unseen))
    }

    /// It has ended so, now.
    pub fn end(&mut self, ending: Ending) {
        self.until = Some(now());
        self.ending = Some(ending);
        self.trouble = None;
        if ending == Ending::NotStarted {
            self.failed_starts += 1;
        }
    }

    /// The record of `guest`; `None` if it never ran. A damaged one counts as none: it is only a memory.
    pub fn load(root: &Path, guest: &GuestName) -> Option<Self> {
        let text = tree::read(root, &path(guest), tree::SETTINGS).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes it. It is only a memory: if there is no room for it, the guest does not suffer.
    pub fn save(&self, guest: &GuestName) {
        let path = path(guest);
        let write = || {
            file::directory(Path::new(DIRECTORY))?;
            file::replace(&path, &serde_json::to_vec(self)?, 0o644)
        };
        if let Err(error) = write() {
            tracing::warn!(ttvm_guest = %guest, "cannot write {}: {error}", path.display());
        }
    }
}

/// Where the records of guests are, on the system in the tree that begins at `root`.
pub fn directory(root: &Path) -> PathBuf {
    crate::base::root::under(root, Path::new(DIRECTORY))
}

fn path(guest: &GuestName) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{guest}.json"))
}
