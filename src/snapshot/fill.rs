// SPDX-License-Identifier: MIT OR Apache-2.0
//! How full snapshots are.

use serde::Serialize;

use super::{Error, Store};
use crate::config::guest::Snapshot;
use crate::dm::{By, State};

/// The state of one snapshot, as `ttvm snapshot status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Fill {
    /// There is none.
    Absent,
    /// Thick: bytes of its area in use, and bytes it has.
    Thick {
        /// In use.
        used: u64,
        /// In all.
        total: u64,
    },
    /// Thick, and lost: its area overflowed.
    Overflowed,
    /// Thin: how full its pool is, in percent.
    Thin {
        /// Data space of the pool.
        pool_percent: u8,
        /// Whether the pool still takes writes.
        writable: bool,
    },
    /// A device that is no snapshot.
    NoSnapshot,
}

impl Fill {
    /// Whether what the guest wrote is lost or cannot be written any more.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Overflowed | Self::Thin { writable: false, .. })
    }
}

impl Store<'_> {
    /// The state of every snapshot. Runs no program.
    pub fn status(&self) -> Result<Vec<(&Snapshot, Fill)>, Error> {
        self.snapshots
            .iter()
            .map(|snapshot| Ok((snapshot, self.fill(snapshot)?)))
            .collect()
    }

    fn fill(&self, snapshot: &Snapshot) -> Result<Fill, Error> {
        let Some(device) = self.dm.find(By::Name(&snapshot.volume.dm_name()))? else {
            return Ok(Fill::Absent);
        };
        Ok(match device.state {
            State::Snapshot { used, total } => Fill::Thick {
                used: used * 512,
                total: total * 512,
            },
            State::SnapshotLost => Fill::Overflowed,
            State::Thin => match self.dm.pool_of(&device)? {
                Some(pool) => Fill::Thin {
                    pool_percent: pool.data_percent,
                    writable: pool.writable,
                },
                None => Fill::NoSnapshot,
            },
            State::ThinFailed => Fill::Thin {
                pool_percent: 100,
                writable: false,
            },
            _ => Fill::NoSnapshot,
        })
    }
}
