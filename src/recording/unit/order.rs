// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the next start of `ttvm-record@NAME` or `ttvm-replay@NAME` is to do: `systemctl start` takes no arguments. Without an
//! order, a whole run is recorded, and the newest recording replayed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::error::{Classify, Exit};
use crate::config::types::GuestName;
use crate::file;
use crate::recording::Id;
use crate::recording::session::limit::Limit;

/// An order, used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A run is recorded.
    Record {
        /// When to end it.
        limit: Option<Limit>,
    },
    /// A recording is replayed.
    Replay {
        /// Which.
        recording: Id,
        /// Whether to serve a debugger.
        gdb: bool,
        /// Whether to wait for it.
        paused: bool,
        /// Whether to make checkpoints, if there are none.
        checkpoints: bool,
        /// Whether to try it with another QEMU.
        any_engine: bool,
    },
}

/// Why an order cannot be followed. The unit then does nothing: it is not known what somebody wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}, which says what to do; `ttvm record` and `ttvm replay` write it anew", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is no order.
    #[error("{} is no order of this version of ttvm; `ttvm record` and `ttvm replay` write it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It is for the other unit.
    #[error(
        "{} is an order to {wants}, and this unit is there to {does}; `ttvm record` and `ttvm replay` start the right one",
        path.display()
    )]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// What it wants.
        wants: &'static str,
        /// What the unit does.
        does: &'static str,
    },
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

fn path(guest: &GuestName) -> PathBuf {
    PathBuf::from(format!("/run/ttvm/{guest}.order"))
}

/// Where the debugger of a replay by the unit connects.
pub fn socket(guest: &GuestName) -> PathBuf {
    PathBuf::from(format!("/run/ttvm/gdb/{guest}.gdb"))
}

impl Order {
    /// Leaves it for the unit.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn give(&self, guest: &GuestName) -> io::Result<()> {
        file::directory(Path::new("/run/ttvm"))?;
        file::replace(&path(guest), &serde_json::to_vec(self)?, 0o600)
    }

    /// Takes the one that was left; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If there is one that cannot be read. It is gone then, too.
    pub fn take(guest: &GuestName) -> Result<Option<Self>, Error> {
        let path = path(guest);
        let text = fs::read(&path);
        Self::forget(guest);
        match text {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(order) => Ok(Some(order)),
                Err(source) => Err(Error::Damaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// That it is for the other unit, which is there to record if this is an order to replay.
    pub fn of_another(&self, guest: &GuestName) -> Error {
        let (wants, does) = match self {
            Self::Record { .. } => ("record", "replay"),
            Self::Replay { .. } => ("replay", "record"),
        };
        Error::OfAnother {
            path: path(guest),
            wants,
            does,
        }
    }

    /// Takes back what was left, for a unit that did not start.
    pub fn forget(guest: &GuestName) {
        drop(fs::remove_file(path(guest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_is_left_for_the_unit() {
        let replay = Order::Replay {
            recording: "20261125-130700-2".parse().expect("an id"),
            gdb: true,
            paused: false,
            checkpoints: false,
            any_engine: true,
        };
        for order in [Order::Record { limit: None }, replay] {
            let text = serde_json::to_vec(&order).expect("JSON");
            assert_eq!(serde_json::from_slice::<Order>(&text).expect("an order"), order);
        }
        let unclear = br#"{"replay": {"recording": "newest", "gdb": false, "paused": false, "checkpoints": true, "any_engine": false}}"#;
        assert!(serde_json::from_slice::<Order>(unclear).is_err(), "no id");
    }
}
