// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has been prepared for a start of a guest: `/run/ttvm/NAME.json`, from before its snapshots are made until they
//! are removed.
//!
//! It is the proof that the snapshots were made for this very start: `ttvm-snapshot` (ExecStartPre=) writes it under
//! the start's invocation id, and `ttvm-guest` (ExecStart=) starts nothing without. It carries a refusal to the unit's
//! main process, because systemd looks at the exit status of that process alone to decide whether a failed start is
//! tried again (RestartPreventExitStatus= in systemd.service(5)). And it names what has to be tidied up afterwards,
//! whatever has become of the guest's file meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DIRECTORY, Error};
use crate::base::error::{Classify, Exit, one_line};
use crate::config::guest::{Guest, Snapshot, Toolstack};
use crate::config::types::{GuestName, GuestUuid, Volume};
use crate::file;
use crate::file::digest::Digest;

/// A guest's preparation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Preparation {
    /// The invocation id that systemd gives each start of a unit (systemd.exec(5)).
    run: String,
    /// Whose domain it is for.
    uuid: GuestUuid,
    /// What builds it, and can end it.
    #[serde(default = "before_xm")]
    toolstack: Toolstack,
    /// What is made, or is going to be.
    snapshots: Vec<Snapshot>,
    /// What is known of the seals of the guest's volumes, if that was asked for.
    #[serde(default)]
    seals: Option<Vec<(Volume, Option<Digest>)>>,
    outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It was never said to be over.
    Begun,
    Made,
    Failed {
        exit: Exit,
        why: String,
    },
}

/// That of a preparation that does not say: a version of ttvm made it that knew no other.
fn before_xm() -> Toolstack {
    Toolstack::Xl
}

fn path(guest: &GuestName) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{guest}.json"))
}

/// The id of this start; `None` if systemd does not run us.
pub(super) fn invocation() -> Option<String> {
    std::env::var("INVOCATION_ID").ok()
}

impl Preparation {
    /// Of a guest as its file describes it, not begun yet.
    pub fn of(guest: &Guest) -> Self {
        Self {
            run: invocation().unwrap_or_default(),
            uuid: guest.uuid,
            toolstack: guest.toolstack,
            snapshots: guest.snapshots().cloned().collect(),
            seals: None,
            outcome: Outcome::Begun,
        }
    }

    /// The one that an earlier program left for the guest; a damaged one counts as none.
    pub fn load(guest: &GuestName) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(guest)).ok()?).ok()
    }

    /// Whose domain it is for.
    pub fn uuid(&self) -> GuestUuid {
        self.uuid
    }

    /// What builds and ends that.
    pub fn toolstack(&self) -> Toolstack {
        self.toolstack
    }

    /// The snapshots it is about.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// What is known of the seals of its volumes; nothing if nobody asked.
    pub fn seals(&self) -> Option<&[(Volume, Option<Digest>)]> {
        self.seals.as_deref()
    }

    /// Adds what was found out of them.
    pub fn note_seals(&mut self, seals: Vec<(Volume, Option<Digest>)>) {
        self.seals = Some(seals);
    }

    /// Writes it down.
    pub fn save(&self, guest: &GuestName) -> Result<(), Error> {
        let path = path(guest);
        file::directory(Path::new(DIRECTORY))
            .and_then(|()| file::replace(&path, &serde_json::to_vec(self)?, 0o600))
            .map_err(|source| Error::Write { path, source })
    }

    /// Writes down how it went, in this start.
    pub fn finish(&mut self, guest: &GuestName, result: Result<(), &dyn Classify>) -> Result<(), Error> {
        self.run = invocation().unwrap_or_default();
        self.outcome = match result {
            Ok(()) => Outcome::Made,
            Err(error) => Outcome::Failed {
                exit: error.exit(),
                why: one_line(error),
            },
        };
        self.save(guest)
    }

    /// Forgets it: everything has been tidied up.
    pub fn forget(guest: &GuestName) {
        // It is in memory and small, and the next start replaces it.
        drop(fs::remove_file(path(guest)));
    }

    /// `Ok` if the guest's snapshots were made for this start.
    pub fn check(guest: &GuestName) -> Result<(), Error> {
        let preparation = Self::load(guest).filter(|found| Some(&found.run) == invocation().as_ref());
        match preparation.map(|found| found.outcome) {
            Some(Outcome::Made) => Ok(()),
            Some(Outcome::Failed { exit, why }) => Err(Error::NoSnapshots {
                guest: guest.clone(),
                exit,
                why,
            }),
            Some(Outcome::Begun) | None => Err(Error::NotPrepared { guest: guest.clone() }),
        }
    }
}
