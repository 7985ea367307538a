// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the programs call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Applied, Attachment, Error, Preview, Request, Status};

/// The networks of this host.
#[derive(Debug, Clone)]
pub struct Network {
    root: PathBuf,
}

/// A change that is planned and written down, and not made yet.
#[derive(Debug)]
pub struct Begun {
    /// Its number.
    pub id: u64,
}

impl Network {
    /// The networks of the system below `root`; nothing is read yet, each call reads what it needs.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What can be said at once: two small files are read.
    pub fn status(&self) -> Result<Status, Error> {
        todo!()
    }

    /// What else on this host stops guests' packets; one program is run.
    pub fn conflicts(&self) -> Result<Vec<String>, Error> {
        todo!()
    }

    /// The guests' interfaces.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        todo!()
    }

    /// What a switch would do. Changes nothing.
    pub fn plan(&self, _request: &Request) -> Result<Preview, Error> {
        todo!()
    }

    /// Plans a switch and writes it down. Until [`apply`](Self::apply) is called, nothing is changed. `None` if the mode
    /// is already what it should be.
    pub fn begin(&self, _request: &Request) -> Result<Option<Begun>, Error> {
        todo!()
    }

    /// Makes the change and looks at it; undoes it if anything is wrong.
    pub fn apply(&self, _begun: Begun) -> Result<Applied, Error> {
        todo!()
    }

    /// Keeps the change `id`, which waits for that.
    pub fn confirm(&self, _id: u64) -> Result<(), Error> {
        todo!()
    }

    /// Undoes the change `id`.
    pub fn rollback(&self, _id: u64) -> Result<(), Error> {
        todo!()
    }

    /// Lets the change `id` wait for `time` from now; returns the time left.
    pub fn extend(&self, _id: u64, _time: Duration) -> Result<Duration, Error> {
        todo!()
    }

    /// What an earlier process, or an earlier boot, left undone: a half-made change is undone, a kept one finished.
    /// Returns the time left of one that waits to be confirmed.
    pub fn recover(&self) -> Result<Option<Duration>, Error> {
        todo!()
    }

    /// Makes again what is missing of the mode that was chosen; returns what was done, in sentences.
    pub fn reconcile(&self) -> Result<Vec<String>, Error> {
        todo!()
    }
}
