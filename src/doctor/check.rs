// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of looking at one thing.

use std::fmt;

use serde::Serialize;

use super::fix::Fix;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The machine itself, and ttvm's settings.
    Host,
    /// Xen, and the programs around it.
    Xen,
    /// The boot entries.
    Boot,
    /// LVM: where guests' snapshots are.
    Snapshots,
    /// The guests' network.
    Network,
    /// QEMU's record and replay.
    Recordings,
    /// Each guest.
    Guests,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Xen => "xen",
            Self::Boot => "boot",
            Self::Snapshots => "snapshots",
            Self::Network => "network",
            Self::Recordings => "recordings",
            Self::Guests => "guests",
        })
    }
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Nobody here needs it, or it cannot be looked at in another tree.
    Skipped,
    /// Guests run, but something may go wrong one day.
    Warn,
    /// Something that a guest here needs does not work.
    Fail,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Skipped => "-",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: the same word in every version.
    pub id: &'static str,
    /// What it belongs to.
    pub area: Area,
    /// How it stands.
    pub state: State,
    /// What was found, a sentence.
    pub sentence: String,
    /// What to do about it; none if nothing is to be done.
    pub remedy: Option<String>,
    /// What `--fix` does about it.
    pub fix: Option<Fix>,
}

impl Check {
    fn new(area: Area, id: &'static str, state: State, sentence: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            id,
            area,
            state,
            sentence: sentence.into(),
            remedy,
            fix: None,
        }
    }

    /// All is well.
    pub(super) fn ok(area: Area, id: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(area, id, State::Ok, sentence, None)
    }

    /// Nobody here needs it, or it cannot be looked at.
    pub(super) fn skipped(area: Area, id: &'static str, why: impl fmt::Display) -> Self {
        Self::new(area, id, State::Skipped, why.to_string(), None)
    }

    /// Something may go wrong.
    pub(super) fn warn(area: Area, id: &'static str, sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(area, id, State::Warn, sentence, Some(remedy.into()))
    }

    /// Something that is needed does not work.
    pub(super) fn fail(area: Area, id: &'static str, sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(area, id, State::Fail, sentence, Some(remedy.into()))
    }

    /// … about which something can be done, and undone.
    #[must_use]
    pub(super) fn with_fix(mut self, fix: Fix) -> Self {
        self.fix = Some(fix);
        self
    }
}
